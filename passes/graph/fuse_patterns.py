"""Activations and norms that a framework wrote out in small ops become the one op they are."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import SSAValue
from xdsl.pattern_rewriter import PatternRewriter
from xdsl.transforms.dead_code_elimination import region_dce

from ...dialects import graph
from ...dialects.types import dtype_of, element_type, f32, shape_of
from ..base import NacrePass
from ..pattern import defined_by, pattern, replace_tree, scalar_of
from ..rewrite import rewrite

MOST_FACTORS = 8


@dataclass(frozen=True)
class FusePatternsPass(NacrePass):
    """Recognise gelu, hard_swish, hard_sigmoid and layer_norm where they are written out in small ops."""

    name = "graph-fuse-patterns"

    def run(self, module: ModuleOp) -> None:
        rewrite(
            module,
            gelu,
            hard_swish,
            layer_norm_core,
            layer_norm_scale,
            layer_norm_bias,
            after=region_dce,
        )
        rewrite(module, hard_sigmoid, after=region_dce)  # part of a hard_swish elsewhere


# --- products and sums -----------------------------------------------------------------------------------
def factors(value: SSAValue) -> tuple[float, list[SSAValue]]:
    """A value as a number times other values, through mul and div by constants."""
    number, left = 1.0, [value]
    found: list[SSAValue] = []
    while left:
        current = left.pop()
        constant = scalar_of(current)
        product = defined_by(current, graph.MulOp)
        quotient = defined_by(current, graph.DivOp)
        if constant is not None:
            number *= constant
        elif product and len(left) + len(found) < MOST_FACTORS:
            left += [product.a, product.b]
        elif quotient and scalar_of(quotient.b):
            number /= scalar_of(quotient.b) or 1
            left.append(quotient.a)
        else:
            found.append(current)
    return number, found


def plus(value: SSAValue) -> tuple[SSAValue, float] | None:
    """x and c where a value is x + c."""
    op = defined_by(value, graph.AddOp)
    if not op:
        return None
    for x, constant in ((op.a, scalar_of(op.b)), (op.b, scalar_of(op.a))):
        if constant is not None:
            return x, float(constant)
    return None


def near(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=1e-4)


# --- activations -----------------------------------------------------------------------------------------
@pattern(graph.MulOp, graph.DivOp)
def gelu(op: graph.BinaryOp, rewriter: PatternRewriter) -> None:
    """x / 2 · (1 + erf(x / √2)), and the same with tanh -> gelu."""
    number, values = factors(op.result)
    if len(values) != 2 or not near(number, 0.5):
        return
    for x, other in (values, values[::-1]):
        inner = plus(other)
        if inner is None or not near(inner[1], 1.0) or x.type != op.result.type:
            continue
        if (erf := defined_by(inner[0], graph.ErfOp)) and is_scaled(erf.input, x, math.sqrt(0.5)):
            replace_tree(rewriter, op, [graph.GeluOp.make(x)])
            return
        if (tanh := defined_by(inner[0], graph.TanhOp)) and is_tanh_argument(tanh.input, x):
            replace_tree(rewriter, op, [graph.GeluOp.make(x, approximate=True)])
            return


def is_scaled(value: SSAValue, x: SSAValue, number: float) -> bool:
    """Whether a value is x times a number."""
    factor, values = factors(value)
    return near(factor, number) and values == [x]


def is_tanh_argument(value: SSAValue, x: SSAValue) -> bool:
    """Whether a value is √(2/π) · (x + 0.044715 · x³), or that with x taken out of the sum."""
    number, values = factors(value)
    if not near(number, math.sqrt(2 / math.pi)):
        return False
    if len(values) == 1 and (total := defined_by(values[0], graph.AddOp)):
        return any(
            a is x and is_power(b, x, 3, 0.044715) for a, b in ((total.a, total.b), (total.b, total.a))
        )
    if len(values) == 2 and x in values:
        inner = plus(values[1 - values.index(x)])
        return inner is not None and near(inner[1], 1.0) and is_power(inner[0], x, 2, 0.044715)
    return False


def is_power(value: SSAValue, x: SSAValue, exponent: int, number: float) -> bool:
    """Whether a value is a number times x to some power."""
    factor, values = factors(value)
    degree = 0.0
    for v in values:
        power = defined_by(v, graph.PowOp)
        if v is x:
            degree += 1
        elif power and power.a is x and (e := scalar_of(power.b)) is not None:
            degree += e
        else:
            return False
    return near(factor, number) and degree == exponent


def is_relu6_of_plus_3(value: SSAValue) -> SSAValue | None:
    """x where a value is clamp(x + 3, 0, 6)."""
    clamp = defined_by(value, graph.ClampOp)
    if not clamp or (clamp.parameters().low, clamp.parameters().high) != (0.0, 6.0):
        return None
    inner = plus(clamp.input)
    return inner[0] if inner is not None and inner[1] == 3.0 else None


def is_hard_sigmoid(value: SSAValue) -> SSAValue | None:
    """x where a value is hard_sigmoid(x) with slope 1/6 and offset 1/2."""
    op = defined_by(value, graph.HardSigmoidOp)
    p = op.parameters() if op else None
    return op.input if p and near(p.alpha, 1 / 6) and p.beta == 0.5 else None


@pattern(graph.MulOp, graph.DivOp)
def hard_swish(op: graph.BinaryOp, rewriter: PatternRewriter) -> None:
    """x · clamp(x + 3, 0, 6) / 6, x · hard_sigmoid(x) -> hard_swish."""
    number, values = factors(op.result)
    if len(values) != 2 or element_type(op.result) != f32:
        return
    for x, other in (values, values[::-1]):
        if x.type != op.result.type:
            continue
        written_out = near(number, 1 / 6) and is_relu6_of_plus_3(other) is x
        if written_out or (number == 1 and is_hard_sigmoid(other) is x):
            replace_tree(rewriter, op, [graph.HardSwishOp.make(x)])
            return


@pattern(graph.MulOp, graph.DivOp)
def hard_sigmoid(op: graph.BinaryOp, rewriter: PatternRewriter) -> None:
    """clamp(x + 3, 0, 6) / 6 -> hard_sigmoid."""
    number, values = factors(op.result)
    if len(values) != 1 or not near(number, 1 / 6) or element_type(op.result) != f32:
        return
    x = is_relu6_of_plus_3(values[0])
    if x is not None and x.type == op.result.type:
        replace_tree(rewriter, op, [graph.HardSigmoidOp.make(x, alpha=1 / 6, beta=0.5)])


# --- layer norm ------------------------------------------------------------------------------------------
@pattern(graph.DivOp, graph.MulOp)
def layer_norm_core(op: graph.BinaryOp, rewriter: PatternRewriter) -> None:
    """(x − mean(x)) / √(mean((x − mean(x))²) + ε) -> layer_norm with scale 1."""
    for centred, spread in ((op.a, root_below(op)), (op.b, root_below(op, swapped=True))):
        difference = defined_by(centred, graph.SubOp)
        if spread is None or not difference or (x := mean_taken(difference)) is None:
            continue
        axes = trailing_axes(defined_by(difference.b, graph.ReduceMeanOp))
        variance = plus(spread)
        square = defined_by(variance[0], graph.ReduceMeanOp) if variance else None
        if variance is None or axes is None or not square or trailing_axes(square) != axes:
            continue
        if not is_square(square.input, centred):
            continue
        shape = shape_of(x)[axes:]
        scale = graph.constant(np.ones(shape, dtype_of(element_type(x))), op)
        norm = graph.LayerNormOp.make(x, scale.result, axis=axes, epsilon=variance[1])
        replace_tree(rewriter, op, [scale, norm])
        return


def root_below(op: graph.BinaryOp, swapped: bool = False) -> SSAValue | None:
    """s where an op divides by √s: x / √s, or x · rsqrt(s), x · (1 / √s)."""
    other = op.a if swapped else op.b
    if isinstance(op, graph.DivOp):
        root = None if swapped else defined_by(other, graph.SqrtOp)
        return root.input if root else None
    if root := defined_by(other, graph.RsqrtOp):
        return root.input
    inverse = defined_by(other, graph.DivOp)
    root = inverse and scalar_of(inverse.a) == 1 and defined_by(inverse.b, graph.SqrtOp)
    return root.input if root else None


def mean_taken(difference: graph.SubOp) -> SSAValue | None:
    """x where an op is x − mean(x)."""
    mean = defined_by(difference.b, graph.ReduceMeanOp)
    return mean.input if mean and mean.input is difference.a else None


def trailing_axes(op: graph.ReduceMeanOp | None) -> int | None:
    """The first axis of a mean over all axes from there on that keeps them as 1s."""
    if not op:
        return None
    p, rank = op.parameters(), len(shape_of(op.input))
    axes = sorted(p.axes)
    return axes[0] if p.keepdims and axes and axes == list(range(axes[0], rank)) else None


def is_square(value: SSAValue, x: SSAValue) -> bool:
    """Whether a value is x², or the square of an equal difference."""

    def same(v: SSAValue) -> bool:
        one, two = defined_by(v, graph.SubOp), defined_by(x, graph.SubOp)
        return v is x or bool(one and two and one.a is two.a and mean_taken(one) is mean_taken(two) is one.a
                              and trailing_axes(one.b.owner) == trailing_axes(two.b.owner))  # fmt: skip

    product, power = defined_by(value, graph.MulOp), defined_by(value, graph.PowOp)
    if product:
        return same(product.a) and same(product.b)
    return bool(power and scalar_of(power.b) == 2 and same(power.a))


def norm_and_constant(op: graph.BinaryOp) -> tuple[graph.LayerNormOp, SSAValue] | None:
    """The layer norm and the constant an op joins, when only this op uses the norm."""
    for value, other in ((op.a, op.b), (op.b, op.a)):
        norm = defined_by(value, graph.LayerNormOp)
        fits = value.type == op.result.type and isinstance(other.owner, graph.ConstantOp)
        if norm and fits and value.has_one_use() and norm.bias is None:
            return norm, other
    return None


@pattern(graph.MulOp)
def layer_norm_scale(op: graph.MulOp, rewriter: PatternRewriter) -> None:
    """layer_norm(x) · constant -> layer_norm with that scale."""
    found = norm_and_constant(op)
    if found and scalar_of(found[0].scale) == 1:
        norm, scale = found
        replace_tree(rewriter, op, [graph.LayerNormOp.make(norm.input, scale, **norm.properties)])  # type: ignore[arg-type]


@pattern(graph.AddOp)
def layer_norm_bias(op: graph.AddOp, rewriter: PatternRewriter) -> None:
    """layer_norm(x) + constant -> layer_norm with that bias."""
    if found := norm_and_constant(op):
        norm, bias = found
        replace_tree(rewriter, op, [graph.LayerNormOp.make(norm.input, norm.scale, bias, **norm.properties)])  # type: ignore[arg-type]
