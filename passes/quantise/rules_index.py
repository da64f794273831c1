"""Quantisation of ops that go by places: they choose among values, which keep their scale.

Scans, products and sampling compute with values and stay float.
"""

from __future__ import annotations

from xdsl.ir import SSAValue

from ...dialects import graph
from .quantiser import Quantiser
from .rules import Kind, quantises
from .rules_moves import move

quantises(graph.TopkOp, graph.GatherElementsOp, kind=Kind.MOVES)(move)


@quantises(
    graph.ScatterElementsOp, kind=Kind.JOINS, when=lambda op: op.parameters().reduction in ("none", "min", "max")
)
def scatter_elements(op: graph.ScatterElementsOp, q: Quantiser) -> SSAValue:
    """Data and updates in the type of the result, in which integers compare as the reals do; sums stay float."""
    type_ = q.result_type(op.result)
    data, updates = q.input_as(op.data, type_), q.input_as(op.updates, type_)
    return q.add(graph.ScatterElementsOp.make(data, op.indices, updates, **op.parameters()))
