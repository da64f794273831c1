"""Importers of elementwise operators. Where graph has no op of that name, a few of its ops compose it.

Formulas: the operator pages at https://onnx.ai/onnx/operators/.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import onnx
from xdsl.ir import Attribute, SSAValue

from ...dialects import graph
from ...dialects.declarative import DeclarativeOp
from ...dialects.types import dtype_of, element_type, f32, i64, shape_of
from .node import Node, element_of_array, inner_element
from .registry import Importer, Unsupported, Value, importer, refuse


# --- one to one ------------------------------------------------------------------------------------------
def unary(op: type[DeclarativeOp], *attributes: str) -> Importer:
    """The importer of a function of one tensor; the attributes keep their names."""

    def emit(node: Node) -> Value:
        return node.emit(op, node.operand(0), **{name: node.attribute(name) for name in attributes})

    return emit


importer("Neg")(unary(graph.NegOp))
importer("Abs")(unary(graph.AbsOp))
importer("Exp")(unary(graph.ExpOp))
importer("Log")(unary(graph.LogOp))
importer("Sqrt")(unary(graph.SqrtOp))
importer("Erf")(unary(graph.ErfOp))
importer("Floor")(unary(graph.FloorOp))
importer("Ceil")(unary(graph.CeilOp))
importer("Round")(unary(graph.RoundOp))
importer("Sin")(unary(graph.SinOp))
importer("Cos")(unary(graph.CosOp))
importer("Relu")(unary(graph.ReluOp))
importer("Sigmoid")(unary(graph.SigmoidOp))
importer("Tanh")(unary(graph.TanhOp))
importer("HardSwish")(unary(graph.HardSwishOp))
importer("LeakyRelu")(unary(graph.LeakyReluOp, "alpha"))
importer("Elu")(unary(graph.EluOp, "alpha"))
importer("HardSigmoid")(unary(graph.HardSigmoidOp, "alpha", "beta"))


def binary(op: type[DeclarativeOp]) -> Importer:
    """The importer of a function of two tensors."""
    return lambda node: node.emit(op, node.operand(0), node.operand(1))


importer("Add", since=7)(binary(graph.AddOp))
importer("Sub", since=7)(binary(graph.SubOp))
importer("Mul", since=7)(binary(graph.MulOp))
importer("Div", since=7)(binary(graph.DivOp))
importer("PRelu", since=7)(binary(graph.PreluOp))


def variadic(op: type[DeclarativeOp]) -> Importer:
    """The importer of an associative function of one or more tensors."""
    return lambda node: chain(node, op)


def chain(node: Node, op: type[DeclarativeOp]) -> SSAValue:
    """The op over all operands from left to right."""
    return functools.reduce(lambda a, b: node.emit(op, a, b), node.operands())


importer("Sum")(variadic(graph.AddOp))
importer("Min")(variadic(graph.MinOp))
importer("Max")(variadic(graph.MaxOp))


@importer("Mean")
def mean(node: Node) -> Value:
    total = chain(node, graph.AddOp)
    return node.emit(graph.MulOp, total, node.scalar(1 / len(node.operands()), total))


# --- comparison and logic --------------------------------------------------------------------------------
def comparison(predicate: str) -> Importer:
    """The importer of a comparison."""
    return lambda node: compare(node, predicate, node.operand(0), node.operand(1))


def compare(node: Node, predicate: str, a: SSAValue, b: SSAValue) -> SSAValue:
    """An elementwise comparison."""
    return node.emit(graph.CompareOp, a, b, predicate=predicate)


importer("Equal", since=7)(comparison("eq"))
importer("Less", since=7)(comparison("lt"))
importer("Greater", since=7)(comparison("gt"))
importer("LessOrEqual")(comparison("le"))
importer("GreaterOrEqual")(comparison("ge"))
importer("Xor", since=7)(comparison("ne"))  # of booleans


@importer("Where")
def where(node: Node) -> Value:
    return node.emit(graph.SelectOp, node.operand(0), node.operand(1), node.operand(2))


@importer("Not")
def logical_not(node: Node) -> Value:
    value = node.operand(0)
    return compare(node, "eq", value, node.scalar(0, value))


@importer("And", since=7)
def logical_and(node: Node) -> Value:
    a, b = node.operand(0), node.operand(1)
    return node.emit(graph.SelectOp, a, b, node.scalar(0, a))


@importer("Or", since=7)
def logical_or(node: Node) -> Value:
    a, b = node.operand(0), node.operand(1)
    return node.emit(graph.SelectOp, a, node.scalar(1, a), b)


@importer("IsNaN")
def is_nan(node: Node) -> Value:
    value = node.operand(0)
    return compare(node, "ne", value, value)


@importer("IsInf")
def is_inf(node: Node) -> Value:
    value = node.operand(0)
    positive, negative = node.attribute("detect_positive", 1), node.attribute("detect_negative", 1)
    if positive and negative:
        magnitude = node.emit(graph.AbsOp, value)
        return compare(node, "eq", magnitude, node.scalar(math.inf, value))
    if not positive and not negative:
        return node.literal(np.zeros(shape_of(value), np.bool_))
    return compare(node, "eq", value, node.scalar(math.inf if positive else -math.inf, value))


# --- activations -----------------------------------------------------------------------------------------
def clip(node: Node, low: Value | None, high: Value | None) -> Value:
    """min(max(x, low), high): a clamp where the bounds are float constants, min and max elsewhere."""
    value = node.operand(0)
    if element_type(value) == f32 and not any(isinstance(bound, SSAValue) for bound in (low, high)):
        bounds = {
            "low": -math.inf if low is None else scalar_of(low),
            "high": math.inf if high is None else scalar_of(high),
        }
        if bounds["low"] <= bounds["high"]:
            return node.emit(graph.ClampOp, value, **bounds)
    if low is not None:
        value = node.emit(graph.MaxOp, value, low)
    return value if high is None else node.emit(graph.MinOp, value, high)


def scalar_of(array: Value) -> float:
    """The number in an array of one element."""
    if not isinstance(array, np.ndarray) or array.size != 1:
        raise Unsupported("a bound has to be a scalar")
    return float(array.item())


@importer("Clip", since=6)
def clip_attributes(node: Node) -> Value:
    low, high = (
        np.array(node.attribute(name), node.dtype(0)) if node.has_attribute(name) else None
        for name in ("min", "max")
    )
    return clip(node, low, high)


@importer("Clip", since=11)
def clip_inputs(node: Node) -> Value:
    return clip(node, *(node.value(i) if node.has(i) else None for i in (1, 2)))


@importer("Gelu")
def gelu(node: Node) -> Value:
    approximate = node.attribute("approximate")
    if approximate not in ("none", "tanh"):
        raise Unsupported(f"approximate '{approximate}' is neither 'none' nor 'tanh'")
    return node.emit(graph.GeluOp, node.operand(0), approximate=approximate == "tanh")


@importer("Selu")
def selu(node: Node) -> Value:
    curve = node.emit(graph.EluOp, node.operand(0), alpha=node.attribute("alpha"))
    return node.emit(graph.MulOp, curve, node.scalar(node.attribute("gamma"), curve))


@importer("Celu")
def celu(node: Node) -> Value:
    """max(0, x) + min(0, alpha · (e^(x / alpha) − 1)) = alpha · elu(x / alpha)."""
    value, alpha = node.operand(0), node.attribute("alpha")
    if alpha == 1:
        return node.emit(graph.EluOp, value, alpha=1.0)
    if alpha < 0:
        raise Unsupported(f"alpha {alpha} is negative")
    curve = node.emit(graph.EluOp, node.emit(graph.DivOp, value, node.scalar(alpha, value)), alpha=1.0)
    return node.emit(graph.MulOp, curve, node.scalar(alpha, value))


def softplus_of(node: Node, value: SSAValue) -> SSAValue:
    """log(1 + e^x) as max(x, 0) + log(1 + e^−|x|), which does not overflow."""
    decay = node.emit(graph.ExpOp, node.emit(graph.NegOp, node.emit(graph.AbsOp, value)))
    tail = node.emit(graph.LogOp, node.emit(graph.AddOp, decay, node.scalar(1, value)))
    return node.emit(graph.AddOp, node.emit(graph.ReluOp, value), tail)


@importer("Softplus")
def softplus(node: Node) -> Value:
    return softplus_of(node, node.operand(0))


@importer("Mish")
def mish(node: Node) -> Value:
    value = node.operand(0)
    return node.emit(graph.MulOp, value, node.emit(graph.TanhOp, softplus_of(node, value)))


@importer("Swish")
def swish(node: Node) -> Value:
    value, alpha = node.operand(0), node.attribute("alpha")
    inner = value if alpha == 1 else node.emit(graph.MulOp, value, node.scalar(alpha, value))
    return node.emit(graph.MulOp, value, node.emit(graph.SigmoidOp, inner))


@importer("Softsign")
def softsign(node: Node) -> Value:
    value = node.operand(0)
    return node.emit(
        graph.DivOp, value, node.emit(graph.AddOp, node.emit(graph.AbsOp, value), node.scalar(1, value))
    )


@importer("ThresholdedRelu")
def thresholded_relu(node: Node) -> Value:
    value = node.operand(0)
    above = compare(node, "gt", value, node.scalar(node.attribute("alpha"), value))
    return node.emit(graph.SelectOp, above, value, node.scalar(0, value))


@importer("Shrink")
def shrink(node: Node) -> Value:
    """x + bias below −lambd, x − bias above lambd, 0 between."""
    value, bias, edge = node.operand(0), node.attribute("bias"), node.attribute("lambd")
    below = compare(node, "lt", value, node.scalar(-edge, value))
    above = compare(node, "gt", value, node.scalar(edge, value))
    low = node.emit(graph.AddOp, value, node.scalar(bias, value))
    high = node.emit(graph.SubOp, value, node.scalar(bias, value))
    inner = node.emit(graph.SelectOp, above, high, node.scalar(0, value))
    return node.emit(graph.SelectOp, below, low, inner)


# --- compositions ----------------------------------------------------------------------------------------
@importer("Reciprocal")
def reciprocal(node: Node) -> Value:
    value = node.operand(0)
    return node.emit(graph.DivOp, node.scalar(1, value), value)


@importer("Sign")
def sign(node: Node) -> Value:
    return sign_of(node, node.operand(0))


def sign_of(node: Node, value: SSAValue) -> SSAValue:
    """−1, 0 or 1; an unsigned type has no −1."""
    zero, one = node.scalar(0, value), node.scalar(1, value)
    positive = node.emit(graph.SelectOp, compare(node, "gt", value, zero), one, zero)
    if dtype_of(element_type(value)).kind == "u":
        return positive
    return node.emit(graph.SelectOp, compare(node, "lt", value, zero), node.scalar(-1, value), positive)


@importer("Tan")
def tan(node: Node) -> Value:
    value = node.operand(0)
    return node.emit(graph.DivOp, node.emit(graph.SinOp, value), node.emit(graph.CosOp, value))


def exponentials(node: Node, combine: type[DeclarativeOp]) -> Value:
    """(e^x ± e^−x) / 2."""
    value = node.operand(0)
    grow, decay = node.emit(graph.ExpOp, value), node.emit(graph.ExpOp, node.emit(graph.NegOp, value))
    return node.emit(graph.MulOp, node.emit(combine, grow, decay), node.scalar(0.5, value))


@importer("Sinh")
def sinh(node: Node) -> Value:
    return exponentials(node, graph.SubOp)


@importer("Cosh")
def cosh(node: Node) -> Value:
    return exponentials(node, graph.AddOp)


@importer("Asinh")
def asinh(node: Node) -> Value:
    """sign(x) · log(|x| + √(x² + 1)): no cancellation on the negative side."""
    value = node.operand(0)
    magnitude, square = node.emit(graph.AbsOp, value), node.emit(graph.MulOp, value, value)
    distance = node.emit(graph.SqrtOp, node.emit(graph.AddOp, square, node.scalar(1, value)))
    logarithm = node.emit(graph.LogOp, node.emit(graph.AddOp, magnitude, distance))
    return node.emit(graph.MulOp, sign_of(node, value), logarithm)


@importer("Acosh")
def acosh(node: Node) -> Value:
    """log(x + √(x² − 1))."""
    value = node.operand(0)
    square = node.emit(graph.MulOp, value, value)
    distance = node.emit(graph.SqrtOp, node.emit(graph.SubOp, square, node.scalar(1, value)))
    return node.emit(graph.LogOp, node.emit(graph.AddOp, value, distance))


@importer("Atanh")
def atanh(node: Node) -> Value:
    """log((1 + x) / (1 − x)) / 2."""
    value = node.operand(0)
    one = node.scalar(1, value)
    ratio = node.emit(graph.DivOp, node.emit(graph.AddOp, one, value), node.emit(graph.SubOp, one, value))
    return node.emit(graph.MulOp, node.emit(graph.LogOp, ratio), node.scalar(0.5, value))


importer("Atan")(unary(graph.AtanOp))


@importer("Asin")
def asin(node: Node) -> Value:
    """2 · atan(x / (1 + √(1 − x²))), with 1 − x² as (1 − x) · (1 + x), which loses nothing near ±1."""
    value = node.operand(0)
    less, more = one_less_and_more(node, value)
    height = node.emit(graph.SqrtOp, node.emit(graph.MulOp, less, more))
    ratio = node.emit(graph.DivOp, value, node.emit(graph.AddOp, height, node.scalar(1, value)))
    return twice_atan(node, ratio)


@importer("Acos")
def acos(node: Node) -> Value:
    """2 · atan(√((1 − x) / (1 + x))); the ratio is infinite at −1, and twice its atan is π."""
    less, more = one_less_and_more(node, node.operand(0))
    return twice_atan(node, node.emit(graph.SqrtOp, node.emit(graph.DivOp, less, more)))


def one_less_and_more(node: Node, value: SSAValue) -> tuple[SSAValue, SSAValue]:
    """1 − x and 1 + x."""
    one = node.scalar(1, value)
    return node.emit(graph.SubOp, one, value), node.emit(graph.AddOp, one, value)


def twice_atan(node: Node, value: SSAValue) -> SSAValue:
    """2 · atan(x)."""
    angle = node.emit(graph.AtanOp, value)
    return node.emit(graph.AddOp, angle, angle)


def bits(node: Node, operation: str) -> SSAValue:
    """An operation on the bits of both inputs."""
    return node.emit(graph.BitwiseOp, node.operand(0), node.operand(1), operation=operation)


importer("BitwiseAnd")(lambda node: bits(node, "and"))
importer("BitwiseOr")(lambda node: bits(node, "or"))
importer("BitwiseXor")(lambda node: bits(node, "xor"))


@importer("BitwiseNot")
def bitwise_not(node: Node) -> Value:
    """x xor a number of ones."""
    value = node.operand(0)
    ones = np.array(~np.zeros((), dtype_of(element_type(value))))
    return node.emit(graph.BitwiseOp, value, ones, operation="xor")


@importer("BitShift")
def bit_shift(node: Node) -> Value:
    direction = node.attribute("direction")
    if direction not in ("LEFT", "RIGHT"):
        raise Unsupported(f"the direction '{direction}' is neither LEFT nor RIGHT")
    return bits(node, direction.lower())


refuse("BitCast", reason="graph has no operation that reads bits as another type")


@importer("Pow", since=7)
def power(node: Node) -> Value:
    """The result has the base's type; the narrower of two types is brought to the other first."""
    base, exponent = node.operand(0), node.operand(1)
    kinds = [dtype_of(element_type(v)).kind for v in (base, exponent)]
    if element_type(base) == element_type(exponent):
        return node.emit(graph.PowOp, base, exponent)
    if kinds[0] == "f":
        return node.emit(graph.PowOp, base, node.emit(graph.CastOp, exponent, to=element_type(base)))
    if kinds[1] != "f":
        wide = [node.emit(graph.CastOp, v, to=i64) for v in (base, exponent)]
        return node.emit(graph.CastOp, node.emit(graph.PowOp, *wide), to=element_type(base))
    real = node.emit(graph.PowOp, node.emit(graph.CastOp, base, to=element_type(exponent)), exponent)
    return node.emit(graph.CastOp, real, to=element_type(base))


@importer("Mod")
def modulo(node: Node) -> Value:
    """fmod = 1: the remainder has the sign of x; fmod = 0 moves it to the sign of y."""
    a, b = node.operand(0), node.operand(1)
    remainder = node.emit(graph.FmodOp, a, b)
    if dtype_of(element_type(a)).kind == "u" or node.attribute("fmod"):
        return remainder
    zero = node.scalar(0, a)
    opposite = compare(node, "ne", compare(node, "lt", remainder, zero), compare(node, "lt", b, zero))
    shifted = node.emit(graph.SelectOp, opposite, node.emit(graph.AddOp, remainder, b), remainder)
    return node.emit(graph.SelectOp, compare(node, "eq", remainder, zero), remainder, shifted)


# --- types -----------------------------------------------------------------------------------------------
def cast_to(node: Node, value: SSAValue, element: Attribute) -> SSAValue:
    """A cast, none where the type is right already."""
    return value if element_type(value) == element else node.emit(graph.CastOp, value, to=element)


@importer("Cast", since=6)
def cast(node: Node) -> Value:
    """Inside a network all real numbers are float32: a cast to float16 or float64 is one to float32, and none
    where the value is that already. Only inputs and outputs of the model keep such types (importer.py)."""
    elem = node.attribute("to")
    try:
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(elem))
    except KeyError:
        raise Unsupported(f"it casts to the unknown type {elem}") from None
    name = onnx.TensorProto.DataType.Name(elem).lower()
    return cast_to(node, node.operand(0), inner_element(element_of_array(dtype, f"its result ({name})")))


@importer("CastLike")
def cast_like(node: Node) -> Value:
    return cast_to(node, node.operand(0), inner_element(element_of_array(node.dtype(1), "its result")))


@importer("Identity")
def identity(node: Node) -> Value:
    return node.value(0)


def dropout_result(node: Node) -> tuple[Value, ...]:
    """At inference nothing is dropped: the input, and a mask that is true everywhere."""
    mask = np.ones(node.shape(0), np.bool_)
    return (node.value(0), mask)[: len(node.proto.output)]


@importer("Dropout", since=7)
def dropout_float_mask(node: Node) -> tuple[Value, ...]:
    if len(node.used) > 1 and node.used[1]:
        raise Unsupported("its output 'mask' is used")
    return dropout_result(node)


@importer("Dropout", since=10)
def dropout_boolean_mask(node: Node) -> tuple[Value, ...]:
    return dropout_result(node)


@importer("Dropout", since=12)
def dropout(node: Node) -> tuple[Value, ...]:
    if node.has(2) and bool(node.constant(2, "training_mode")):
        raise Unsupported("training_mode is set; export the model for inference")
    return dropout_result(node)
