"""Importers of activations: clamps, tables of 256 entries, softmax."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from xdsl.ir import SSAValue

from ...dialects import graph, qnn
from ...dialects.declarative import DeclarativeOp
from ...dialects.quant import QuantType, storage_range
from ...dialects.types import dtype_of, i16, shape_of
from ...runtime.kernel import evaluate
from ...runtime.kernels import quantised
from ...runtime.kernels.quantised_functions import curve_parameters, rsqrt_table
from .casting import EIGHT_BITS, requantised
from .node import Node, text_of
from .registry import Unsupported, tflite_importer
from .scales import activated, clamp_of, fused


# --- clamps ----------------------------------------------------------------------------------------------
@tflite_importer("RELU", "RELU6", "RELU_N1_TO_1")
def relu(node: Node) -> SSAValue:
    """A clamp; quantised ones requantise first where scale or zero point change."""
    x = node.operand(0)
    if not node.is_quantised():
        if node.kind == "RELU":
            return node.emit(graph.ReluOp, x)
        low, high = -1.0 if node.kind == "RELU_N1_TO_1" else 0.0, 6.0 if node.kind == "RELU6" else 1.0
        return node.emit(graph.ClampOp, x, low=low, high=high)
    source, result = node.quant(0), node.result_quant()
    if source.storage != result.storage:
        raise Unsupported(f"it goes from {text_of(source)} to {text_of(result)}")
    if source != result:
        x = requantised(node, x, result, np.float32)  # as ReluPrepare divides them
    return node.emit(qnn.ClampOp, x, element=result, **clamp_of(result, node.kind))


# --- tables ----------------------------------------------------------------------------------------------
Real = Callable[[np.ndarray], np.ndarray]


def in_double(function: Real) -> Real:
    """A function of float32 whose result is rounded once, as the C library's are."""

    def rounded(x: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            return function(x.astype(np.float64)).astype(np.float32)

    return rounded


FUNCTIONS: dict[str, tuple[type[DeclarativeOp], Real]] = {
    "LOGISTIC": (graph.SigmoidOp, quantised.logistic),
    "TANH": (graph.TanhOp, quantised.hyperbolic_tangent),
    "EXP": (graph.ExpOp, in_double(np.exp)),
    "ELU": (graph.EluOp, in_double(lambda x: np.where(x < 0, np.expm1(np.minimum(x, 0)), x))),
}
"""By operator: the op on floats, and the function of float32 that TFLite's 8-bit table samples."""


@tflite_importer(*FUNCTIONS)
def function(node: Node) -> SSAValue:
    """A table for 8 bits."""
    op, real = FUNCTIONS[node.kind]
    if not node.is_quantised():
        return node.emit(op, node.operand(0))
    if node.quant(0).storage == i16 and node.kind in CURVES:
        return curve_of_int16(node)
    source, result = eight_bits(node)
    entries = quantised.table(real, source.scale, source.zero, result.scale, result.zero, dtype_of(result))
    return node.table(node.operand(0), entries, result)


CURVES: dict[str, type[DeclarativeOp]] = {"LOGISTIC": qnn.LogisticOp, "TANH": qnn.TanhOp}


def curve_of_int16(node: Node) -> SSAValue:
    """Interpolated between samples."""
    source, result = node.quant(0), node.result_quant()
    if result.storage != i16 or source.zero or result.zero or result.scale != 2.0**-15:
        raise Unsupported(f"it goes from {text_of(source)} to {text_of(result)}; TFLite's result has scale 1/32768")
    p = curve_parameters(source.scale, node.kind == "TANH")
    return node.emit(CURVES[node.kind], node.operand(0), element=result, **p._asdict())


@tflite_importer("LOG")
def log(node: Node) -> SSAValue:
    """A table for 8 bits, whose smallest value stands for the logarithm of what is not above zero."""
    if not node.is_quantised():
        return node.emit(graph.LogOp, node.operand(0))
    source, result = eight_bits(node)
    low, _ = storage_range(result.storage)
    lowest = np.float32(result.scale) * np.float32(low - result.zero)

    def real(x: np.ndarray) -> np.ndarray:
        return np.where(x > 0, in_double(np.log)(x), lowest)

    entries = quantised.table(real, source.scale, source.zero, result.scale, result.zero, dtype_of(result))
    return node.table(node.operand(0), entries, result)


@tflite_importer("GELU")
def gelu(node: Node) -> SSAValue:
    """A table for 8 bits."""
    approximate = bool(node.option("Approximate", False))
    if not node.is_quantised():
        return node.emit(graph.GeluOp, node.operand(0), approximate=approximate)
    source, result = eight_bits(node)

    def real(x: np.ndarray) -> np.ndarray:
        return evaluate(graph.GeluOp.make(node.operand(0), approximate=approximate), x)[0]

    entries = quantised.table(real, source.scale, source.zero, result.scale, result.zero, dtype_of(result))
    return node.table(node.operand(0), entries, result)


@tflite_importer("RSQRT")
def rsqrt(node: Node) -> SSAValue:
    """A table of the fixed-point kernel."""
    if not node.is_quantised():
        return node.emit(graph.RsqrtOp, node.operand(0))
    source, result = eight_bits(node)
    entries = rsqrt_table(source.scale, source.zero, result.scale, result.zero, dtype_of(result))
    return node.table(node.operand(0), entries, result)


def eight_bits(node: Node) -> tuple[QuantType, QuantType]:
    """The quantised types of input and output, of one 8-bit storage."""
    source, result = node.quant(0), node.result_quant()
    if source.storage == i16 or source.storage != result.storage:
        raise Unsupported(f"it is imported for int8 and uint8, and goes from {text_of(source)} to {text_of(result)}")
    return source, result


@tflite_importer("HARD_SWISH")
def hard_swish(node: Node) -> SSAValue:
    """A table of the fixed-point kernel."""
    if not node.is_quantised():
        return node.emit(graph.HardSwishOp, node.operand(0))
    source, result = eight_bits(node)
    try:
        p = quantised.hard_swish_parameters(source.scale, source.zero, result.scale, result.zero)
    except ValueError as error:
        raise Unsupported(str(error)) from None
    return node.table(node.operand(0), quantised.hard_swish(EIGHT_BITS.view(dtype_of(source)), p), result)


@tflite_importer("LEAKY_RELU")
def leaky_relu(node: Node) -> SSAValue:
    """A table of the fixed-point kernel."""
    alpha = float(node.option("Alpha"))
    if not node.is_quantised():
        return node.emit(graph.LeakyReluOp, node.operand(0), alpha=alpha)
    source, result = node.quant(0), node.result_quant()
    p = quantised.leaky_relu_parameters(alpha, source.scale, source.zero, result.scale, result.zero)
    if source.storage == result.storage == i16:
        return node.emit(qnn.LeakyReluOp, node.operand(0), element=result, rescale=tuple(p))
    eight_bits(node)
    return node.table(node.operand(0), quantised.leaky_relu(EIGHT_BITS.view(dtype_of(source)), p), result)


@tflite_importer("PRELU")
def prelu(node: Node) -> SSAValue:
    """x where x ≥ 0, alpha · x elsewhere."""
    x, alpha = node.operand(0), node.operand(1)
    if not node.is_quantised():
        return node.emit(graph.PreluOp, x, alpha)
    source, result = eight_bits(node)
    slope = node.quant(1)
    if slope.storage != source.storage:
        raise Unsupported("its operands are of different integer types")
    p = quantised.prelu_parameters(source.scale, source.zero, slope.scale, slope.zero, result.scale, result.zero)
    return node.emit(qnn.PreluOp, x, alpha, element=result, rescale=tuple(p))


# --- softmax ---------------------------------------------------------------------------------------------
@tflite_importer("SOFTMAX")
def softmax(node: Node) -> SSAValue:
    """softmax(beta · x) over the last axis."""
    beta, x = float(node.option("Beta")), node.operand(0)
    rank = len(shape_of(x))
    if rank < 1:
        raise Unsupported("its input has no axis")
    if not node.is_quantised():
        scaled = x if beta == 1 else node.emit(graph.MulOp, x, node.scalar(beta, x))
        return node.emit(graph.SoftmaxOp, scaled, axis=rank - 1)
    if node.quant(0).storage == i16:
        return softmax_of_int16(node, beta)
    source, result = eight_bits(node)
    low, _ = storage_range(result.storage)
    if result.zero != low or abs(result.scale * 256 - 1) > 0.001:
        raise Unsupported(f"its result is {text_of(result)}; TFLite's has scale 1/256 and zero point {low}")
    p = quantised.softmax_parameters(source.scale, beta)
    return node.emit(qnn.SoftmaxOp, x, element=result, **p._asdict())


def softmax_of_int16(node: Node, beta: float) -> SSAValue:
    """Symmetric on both sides, the result's scale being 1/32768."""
    source, result = node.quant(0), node.result_quant()
    if result.storage != i16 or source.zero or result.zero or abs(result.scale * 32768 - 1) > 0.001:
        raise Unsupported(f"it goes from {text_of(source)} to {text_of(result)}; TFLite's result has scale 1/32768")
    p = quantised.softmax16_parameters(source.scale, beta)
    return node.emit(qnn.Softmax16Op, node.operand(0), element=result, **p._asdict())


@tflite_importer("LOG_SOFTMAX", floats=True)
def log_softmax(node: Node) -> SSAValue:
    """x − max − log Σ e^(x − max) over the last axis."""
    x = node.operand(0)
    last = (len(shape_of(x)) - 1,)
    shifted = node.emit(graph.SubOp, x, node.emit(graph.ReduceMaxOp, x, axes=last))
    total = node.emit(graph.ReduceSumOp, node.emit(graph.ExpOp, shifted), axes=last)
    return node.emit(graph.SubOp, shifted, node.emit(graph.LogOp, total))


@tflite_importer("L2_NORMALIZATION")
def l2_normalization(node: Node) -> SSAValue:
    """x / √Σ x² over the last axis."""
    x = node.operand(0)
    if not node.is_quantised():
        squares = node.emit(graph.ReduceSumOp, node.emit(graph.MulOp, x, x), axes=(len(shape_of(x)) - 1,))
        floor = node.emit(graph.MaxOp, node.emit(graph.SqrtOp, squares), node.scalar(1e-6, x))
        return activated(node, node.emit(graph.DivOp, x, floor))
    source, result = eight_bits(node)
    low, high = storage_range(result.storage)
    if result.scale != 2.0**-7 or result.zero != (low + high + 1) // 2 or fused(node) != "NONE":
        raise Unsupported(f"its result is {text_of(result)}; TFLite's has scale 1/128 and its zero in the middle")
    return node.emit(qnn.L2NormalizeOp, x, element=result, input_zero=source.zero)
