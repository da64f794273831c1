"""Canonicalisation of elementwise ops: neutral constants, activations in a row, forms that say the same.

Only rewrites that leave every result as it is; the sign of a zero does not count as a difference.
"""

from __future__ import annotations

import math

import numpy as np
from xdsl.ir import Operation, SSAValue
from xdsl.pattern_rewriter import PatternRewriter

from ...dialects import graph
from ...dialects.types import FLOATS, element_type, f32, shape_of
from ..pattern import canonical, defined_by, name_of, scalar_of, with_operands

LIMITS = (graph.ReluOp, graph.ClampOp)


def is_constant(value: SSAValue) -> bool:
    return isinstance(value.owner, graph.ConstantOp)


@canonical(graph.AddOp, graph.MulOp, graph.MinOp, graph.MaxOp)
def constant_right(op: graph.BinaryOp, rewriter: PatternRewriter) -> None:
    """constant ∘ x -> x ∘ constant where the operator commutes."""
    if is_constant(op.a) and not is_constant(op.b):
        rewriter.replace(op, with_operands(op, [op.b, op.a]))


NEUTRAL = {graph.AddOp: 0, graph.SubOp: 0, graph.MulOp: 1, graph.DivOp: 1, graph.PowOp: 1}


@canonical(*NEUTRAL)
def neutral_constant(op: graph.BinaryOp, rewriter: PatternRewriter) -> None:
    """x + 0, x − 0, x · 1, x / 1, x to the 1 -> x."""
    if op.a.type == op.result.type and scalar_of(op.b) == NEUTRAL[type(op)]:
        rewriter.replace(op, [], [op.a])


@canonical(graph.PreluOp)
def prelu_with_one_slope(op: graph.PreluOp, rewriter: PatternRewriter) -> None:
    """prelu with the same slope everywhere -> leaky_relu, relu or nothing."""
    slope = scalar_of(op.b)
    if slope is None or op.a.type != op.result.type or element_type(op.a) != f32:
        return
    if slope == 1:
        rewriter.replace(op, [], [op.a])
    elif slope == 0:
        rewriter.replace(op, graph.ReluOp.make(op.a))
    else:
        rewriter.replace(op, graph.LeakyReluOp.make(op.a, alpha=float(slope)))


@canonical(graph.SubOp)
def subtract_constant(op: graph.SubOp, rewriter: PatternRewriter) -> None:
    """x − c -> x + (−c), for floats."""
    array = graph.constant_of(op.b)
    if array is not None and not is_constant(op.a) and element_type(op.b) in FLOATS:
        negative = graph.constant(-array, op, name_of(op.b))
        rewriter.replace(op, [negative, graph.AddOp.make(op.a, negative.result)])


@canonical(graph.DivOp)
def divide_by_power_of_two(op: graph.DivOp, rewriter: PatternRewriter) -> None:
    """x / c -> x · (1 / c) where every c is a power of two and 1 / c exact."""
    array = graph.constant_of(op.b)
    if array is None or is_constant(op.a) or element_type(op.b) not in FLOATS or not array.size:
        return
    mantissa, exponent = np.frexp(array)
    limit = 100 if array.dtype != np.float16 else 10
    if np.isfinite(array).all() and (np.abs(mantissa) == 0.5).all() and (np.abs(exponent) < limit).all():
        reciprocal = graph.constant((1 / array).astype(array.dtype), op, name_of(op.b))
        rewriter.replace(op, [reciprocal, graph.MulOp.make(op.a, reciprocal.result)])


@canonical(graph.PowOp)
def small_powers(op: graph.PowOp, rewriter: PatternRewriter) -> None:
    """x to the 2 -> x · x, x to the 1/2 -> √x, for floats."""
    if op.a.type != op.result.type or element_type(op.a) not in FLOATS:
        return
    exponent = scalar_of(op.b)
    if exponent == 2:
        rewriter.replace(op, graph.MulOp.make(op.a, op.a))
    elif exponent == 0.5:
        rewriter.replace(op, graph.SqrtOp.make(op.a))


@canonical(graph.DivOp)
def reciprocal_root(op: graph.DivOp, rewriter: PatternRewriter) -> None:
    """1 / √x -> rsqrt(x)."""
    root = defined_by(op.b, graph.SqrtOp)
    if root and scalar_of(op.a) == 1 and op.b.type == op.result.type:
        rewriter.replace(op, graph.RsqrtOp.make(root.input))


@canonical(graph.MinOp, graph.MaxOp)
def limit_by_constant(op: graph.BinaryOp, rewriter: PatternRewriter) -> None:
    """max(x, c), min(x, c) with one number c -> clamp."""
    bound = scalar_of(op.b)
    if bound is None or math.isnan(bound) or op.a.type != op.result.type or element_type(op.a) != f32:
        return
    if isinstance(op, graph.MaxOp):
        rewriter.replace(op, graph.ClampOp.make(op.a, low=float(bound)))
    else:
        rewriter.replace(op, graph.ClampOp.make(op.a, high=float(bound)))


# --- activations -----------------------------------------------------------------------------------------
def limits_of(op: Operation) -> tuple[float, float]:
    """The bounds a relu or clamp sets."""
    if isinstance(op, graph.ReluOp):
        return 0.0, math.inf
    assert isinstance(op, graph.ClampOp)
    return op.parameters().low, op.parameters().high


@canonical(*LIMITS)
def limit_of_limit(op: graph.UnaryOp, rewriter: PatternRewriter) -> None:
    """relu and clamp on relu or clamp -> one of them."""
    inner = defined_by(op.input, *LIMITS)
    if not inner:
        return
    low, high = limits_of(op)
    merged = tuple(min(max(bound, low), high) for bound in limits_of(inner))
    if merged == limits_of(inner):
        rewriter.replace(op, [], [op.input])
    else:
        rewriter.replace(op, graph.ClampOp.make(inner.input, low=merged[0], high=merged[1]))


@canonical(graph.ClampOp)
def simpler_clamp(op: graph.ClampOp, rewriter: PatternRewriter) -> None:
    """clamp to 0…∞ -> relu; without bounds -> nothing."""
    bounds = limits_of(op)
    if bounds == (-math.inf, math.inf):
        rewriter.replace(op, [], [op.input])
    elif bounds == (0.0, math.inf):
        rewriter.replace(op, graph.ReluOp.make(op.input))


@canonical(graph.ReluOp, graph.AbsOp)
def positive_already(op: graph.UnaryOp, rewriter: PatternRewriter) -> None:
    """relu or abs of what is never below 0 -> nothing."""
    if defined_by(op.input, graph.ReluOp, graph.AbsOp, graph.SigmoidOp, graph.HardSigmoidOp, graph.ExpOp,
                  graph.SoftmaxOp, graph.SqrtOp):  # fmt: skip
        rewriter.replace(op, [], [op.input])


@canonical(graph.LeakyReluOp)
def straight_leaky_relu(op: graph.LeakyReluOp, rewriter: PatternRewriter) -> None:
    """leaky_relu with alpha 0 -> relu, with alpha 1 -> nothing."""
    alpha = op.parameters().alpha
    if alpha == 0:
        rewriter.replace(op, graph.ReluOp.make(op.input))
    elif alpha == 1:
        rewriter.replace(op, [], [op.input])


@canonical(graph.NegOp)
def double_negative(op: graph.NegOp, rewriter: PatternRewriter) -> None:
    """−(−x) -> x."""
    if inner := defined_by(op.input, graph.NegOp):
        rewriter.replace(op, [], [inner.input])


@canonical(graph.SelectOp)
def select_by_constant(op: graph.SelectOp, rewriter: PatternRewriter) -> None:
    """A condition that is the same everywhere chooses the operand."""
    condition = scalar_of(op.condition)
    if condition is None:
        return
    chosen = op.a if condition else op.b
    if shape_of(chosen) == shape_of(op.result):
        rewriter.replace(op, [], [chosen])
