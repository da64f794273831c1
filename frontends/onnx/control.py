"""Control flow and chance: a branch whose condition is constant is imported in place, the rest is refused."""

from __future__ import annotations

import numpy as np
from xdsl.ir import SSAValue

from .node import Node
from .registry import Unsupported, Value, importer, refuse


@importer("If")
def branch(node: Node) -> tuple[Value, ...]:
    condition = node.constant(0, "the condition")
    graph = node.attribute("then_branch" if bool(np.all(condition)) else "else_branch")
    known = len(node.builder.problems)
    results = node.builder.run_subgraph(graph, node.scope)
    if len(node.builder.problems) > known:
        raise Unsupported("its branch holds nodes that cannot be imported, listed above")
    return tuple(checked(v) for v in results)


def checked(value: object) -> Value:
    """A branch's output."""
    if isinstance(value, (SSAValue, np.ndarray)):
        return value
    raise Unsupported("its branch gives an output that no node computes")


refuse(
    "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli",
    reason="it gives random numbers, and a compiled program gives the same result for the same input",
    random=True,
)  # fmt: skip
refuse("Scan", "Loop", reason="loops cannot be imported; export the model with the loop unrolled")
