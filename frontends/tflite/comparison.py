"""Importers of comparisons, of logic and of selections."""

from __future__ import annotations

from xdsl.ir import SSAValue

from ...dialects import graph
from ...dialects.types import dtype_of, i16, i32, shape_of
from ...runtime.kernels.quantised_functions import comparison_table
from .node import Node, text_of
from .registry import Unsupported, tflite_importer

PREDICATES = {
    "EQUAL": "eq", "NOT_EQUAL": "ne", "LESS": "lt", "LESS_EQUAL": "le", "GREATER": "gt",
    "GREATER_EQUAL": "ge",
}  # fmt: skip


@tflite_importer(*PREDICATES)
def compare(node: Node) -> SSAValue:
    """A comparison; 8-bit operands are brought to one fine scale, by a table each."""
    a, b = (rescaled(node, i) if node.is_quantised(i) else node.operand(i) for i in range(2))
    return node.emit(graph.CompareOp, a, b, predicate=PREDICATES[node.kind])


def rescaled(node: Node, index: int) -> SSAValue:
    """An 8-bit operand as the integers that TFLite compares."""
    type_ = node.quant(index)
    if type_.storage == i16 or type_.scale >= 1:
        raise Unsupported(f"'{node.input_name(index)}' is {text_of(type_)}; TFLite compares 8 bits with scales below 1")
    return node.table(node.operand(index), comparison_table(type_.scale, type_.zero, dtype_of(type_)), i32)


@tflite_importer("LOGICAL_AND", "LOGICAL_OR", "LOGICAL_NOT")
def logic(node: Node) -> SSAValue:
    """On i1: the smaller, the larger one, or the comparison with false."""
    if node.kind == "LOGICAL_NOT":
        x = node.operand(0)
        return node.emit(graph.CompareOp, x, node.scalar(0, x), predicate="eq")
    op = graph.MinOp if node.kind == "LOGICAL_AND" else graph.MaxOp
    return node.emit(op, node.operand(0), node.operand(1))


@tflite_importer("SELECT", "SELECT_V2", moves=True)
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
