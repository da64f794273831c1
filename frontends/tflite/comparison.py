"""Importers of comparisons, of logic and of selections."""

from __future__ import annotations

from xdsl.ir import SSAValue

from ...dialects import graph
from ...dialects.types import shape_of
from .node import Node
from .registry import Unsupported, tflite_importer

PREDICATES = {
    "EQUAL": "eq", "NOT_EQUAL": "ne", "LESS": "lt", "LESS_EQUAL": "le", "GREATER": "gt", "GREATER_EQUAL": "ge",
}  # fmt: skip


@tflite_importer(*PREDICATES, floats=True)
def compare(node: Node) -> SSAValue:
    """A comparison."""
    return node.emit(graph.CompareOp, node.operand(0), node.operand(1), predicate=PREDICATES[node.kind])


@tflite_importer("LOGICAL_AND", "LOGICAL_OR", "LOGICAL_NOT")
def logic(node: Node) -> SSAValue:
    """On i1: the smaller, the larger one, or the comparison with false."""
    if node.kind == "LOGICAL_NOT":
        x = node.operand(0)
        return node.emit(graph.CompareOp, x, node.scalar(0, x), predicate="eq")
    op = graph.MinOp if node.kind == "LOGICAL_AND" else graph.MaxOp
    return node.emit(op, node.operand(0), node.operand(1))


@tflite_importer("SELECT", "SELECT_V2")
def select(node: Node) -> SSAValue:
    """a where the condition holds, else b; SELECT's condition of rank 1 chooses whole slices of axis 0."""
    condition, a, b = (node.operand(i) for i in range(3))
    if node.is_quantised(1) or node.is_quantised(2):
        node.same_quantisation(1, 2)
    rank = len(shape_of(a))
    if node.kind == "SELECT" and len(shape_of(condition)) == 1 and rank > 1:
        if shape_of(condition) not in ((1,), shape_of(a)[:1]):
            raise Unsupported(f"its condition {list(shape_of(condition))} does not fit {list(shape_of(a))}")
        condition = node.reshape(condition, (*shape_of(condition), *(1,) * (rank - 1)))
    return node.emit(graph.SelectOp, condition, a, b)
