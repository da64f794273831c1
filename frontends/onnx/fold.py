"""Constant folding at import: a node whose inputs are all known is evaluated by ONNX's own evaluator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from .node import schema_of
from .registry import KEPT, RANDOM, Unsupported


def has_subgraph(proto: onnx.NodeProto) -> bool:
    """Whether a node has a graph as an attribute."""
    return any(a.HasField("g") or a.graphs for a in proto.attribute)


def foldable(proto: onnx.NodeProto, opset: int) -> bool:
    """Whether a node on constants is a constant: ONNX knows it, it is deterministic and has no subgraph.

    Casts of quantised constants are not, whose integers would be lost.
    """
    schema = schema_of(proto.domain, proto.op_type, opset)
    if schema is None or has_subgraph(proto):
        return False
    return (proto.domain, proto.op_type) not in RANDOM | KEPT


def fold(
    proto: onnx.NodeProto, opsets: Mapping[str, int], inputs: Sequence[np.ndarray | None]
) -> tuple[np.ndarray, ...]:
    """The outputs of a node on constant inputs. Raises Unsupported where the evaluation fails."""
    names = [n for n, value in zip(proto.input, inputs) if n and value is not None]
    feeds = {n: value for n, value in zip(proto.input, inputs) if n and value is not None}
    graph = onnx.GraphProto(name="fold", node=[proto])
    graph.input.extend(onnx.ValueInfoProto(name=n) for n in dict.fromkeys(names))
    graph.output.extend(onnx.ValueInfoProto(name=n) for n in proto.output if n)
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid(d, v) for d, v in opsets.items()]
    )
    try:
        with np.errstate(all="ignore"):
            results = iter(ReferenceEvaluator(model).run(None, feeds))
    except Exception as error:  # any operator's own failure: division by zero, a shape that does not fit, …
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise Unsupported(f"its inputs are constants, but evaluating it failed: {reason}") from None
    return tuple(as_array(next(results)) if n else np.zeros(0) for n in proto.output)


def as_array(result: object) -> np.ndarray:
    """A result as an array; the reference evaluator gives Python scalars for some rank-0 outputs."""
    if isinstance(result, (list, tuple, dict)) or result is None:
        raise Unsupported("its result is a sequence, map or optional, and only tensors can be imported")
    return np.asarray(result)
