"""Importers of elementwise arithmetic: quantised ADD, SUB and MUL as qnn ops, extrema on equal
quantisations.
"""

from __future__ import annotations

import numpy as np
from xdsl.ir import SSAValue

from ...dialects import graph, qnn
from ...dialects.declarative import DeclarativeOp
from ...dialects.quant import QuantType
from ...dialects.types import FLOATS, dtype_of, i16
from ...runtime.kernels.quantised_elementwise import add_parameters, mul_parameters
from ...runtime.kernels.quantised_functions import squared_difference_parameters
from .node import Node
from .registry import Unsupported, tflite_importer
from .scales import activated, clamp_of, fused


def operands_of_one_type(node: Node) -> tuple[QuantType, QuantType, QuantType]:
    """The quantised types of both inputs and the result, which store alike."""
    types = node.quant(0), node.quant(1), node.result_quant()
    if len({t.storage for t in types}) != 1:
        raise Unsupported("its operands and result are of different integer types")
    return types


def float_or_integer(node: Node, op: type[DeclarativeOp]) -> SSAValue:
    """A graph op of two operands, and the fused activation."""
    return activated(node, node.emit(op, node.operand(0), node.operand(1)))


@tflite_importer("ADD", "SUB")
def add_or_sub(node: Node) -> SSAValue:
    """Both operands are brought to a common scale before they meet."""
    subtract = node.kind == "SUB"
    if not (node.is_quantised(0) or node.is_quantised(1)):
        return float_or_integer(node, graph.SubOp if subtract else graph.AddOp)
    a, b, result = operands_of_one_type(node)
    refuse_powers_of_two(node, a, b, result)
    limits = clamp_of(result, fused(node))
    rescale = add_parameters(a.scale, a.zero, b.scale, b.zero, result.scale, result.zero, dtype_of(result), **limits)
    operands = node.operand(0), node.operand(1)
    return node.emit(qnn.AddOp, *operands, element=result, rescale=tuple(rescale), subtract=subtract)


def refuse_powers_of_two(node: Node, *types: QuantType) -> None:
    """TFLite's old int16 kernel, which the option asks for where all scales are powers of two."""
    powers = all(np.frexp(t.scale)[0] == 0.5 for t in types)
    if types[0].storage == i16 and powers and node.option("PotScaleInt16", True):
        raise Unsupported(
            "its int16 tensors have scales that are powers of two in the format of old converters "
            "(pot_scale_int16); convert the model with a current converter"
        )


@tflite_importer("MUL")
def mul(node: Node) -> SSAValue:
    """One multiplier for the product."""
    if not (node.is_quantised(0) or node.is_quantised(1)):
        return float_or_integer(node, graph.MulOp)
    a, b, result = operands_of_one_type(node)
    limits = clamp_of(result, fused(node))
    p = mul_parameters(a.scale, a.zero, b.scale, b.zero, result.scale, result.zero, dtype_of(result), **limits)
    return node.emit(
        qnn.MulOp, node.operand(0), node.operand(1), element=result, a_zero=p.zero_a, b_zero=p.zero_b,
        ofm_zero=p.zero_out, multiplier=p.multiplier, shift=p.shift, **limits,
    )  # fmt: skip


@tflite_importer("DIV", floats=True)
def div(node: Node) -> SSAValue:
    """a / b."""
    return float_or_integer(node, graph.DivOp)


@tflite_importer("POW", floats=True)
def power(node: Node) -> SSAValue:
    """a to the power of b."""
    return node.emit(graph.PowOp, node.operand(0), node.operand(1))


@tflite_importer("SQUARED_DIFFERENCE")
def squared_difference(node: Node) -> SSAValue:
    """(a − b)²."""
    if node.is_quantised(0) or node.is_quantised(1):
        a, b, result = operands_of_one_type(node)
        if result.storage == i16:
            raise Unsupported("it is imported for int8 and uint8, not for int16")
        p = squared_difference_parameters(a.scale, a.zero, b.scale, b.zero, result.scale, result.zero, dtype_of(result))
        operands = node.operand(0), node.operand(1)
        return node.emit(qnn.SquaredDifferenceOp, *operands, element=result, rescale=tuple(p))
    difference = node.emit(graph.SubOp, node.operand(0), node.operand(1))
    return node.emit(graph.MulOp, difference, difference)


@tflite_importer("MINIMUM", "MAXIMUM")
def extremum(node: Node) -> SSAValue:
    """On stored integers where the quantisations are equal, which TFLite takes for granted."""
    op = graph.MinOp if node.kind == "MINIMUM" else graph.MaxOp
    if node.is_quantised(0) or node.is_quantised(1):
        node.same_quantisation(0, 1)
    return node.emit(op, node.operand(0), node.operand(1))


UNARY: dict[str, type[DeclarativeOp]] = {
    "SQRT": graph.SqrtOp, "SIN": graph.SinOp, "COS": graph.CosOp, "NEG": graph.NegOp,
    "FLOOR": graph.FloorOp, "CEIL": graph.CeilOp, "ROUND": graph.RoundOp,
}  # fmt: skip


@tflite_importer(*UNARY, floats=True)
def unary(node: Node) -> SSAValue:
    """A graph op of the same meaning."""
    return node.emit(UNARY[node.kind], node.operand(0))


@tflite_importer("SQUARE", floats=True)
def square(node: Node) -> SSAValue:
    """x²."""
    return node.emit(graph.MulOp, node.operand(0), node.operand(0))


@tflite_importer("ABS")
def absolute(node: Node) -> SSAValue:
    """|x|, of floats and plain integers."""
    if node.is_quantised() or (node.element(0) not in FLOATS and dtype_of(node.element(0)).itemsize < 4):
        raise Unsupported(f"it is imported for floats only, not for {node.element(0)}")
    return node.emit(graph.AbsOp, node.operand(0))
