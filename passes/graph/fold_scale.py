"""Constant factors and summands become part of the linear op beside them; those in a row become one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation, SSAValue
from xdsl.pattern_rewriter import PatternRewriter
from xdsl.transforms.dead_code_elimination import region_dce

from ...dialects import graph
from ...dialects.types import element_type, f32, shape_of
from ..base import NacrePass
from ..pattern import constant_along, defined_by, pattern
from ..rewrite import rewrite
from .affine import LINEAR, Affine, fold_after, fold_before

ARITHMETIC = (graph.AddOp, graph.SubOp, graph.MulOp, graph.DivOp)


@dataclass(frozen=True)
class FoldScalePass(NacrePass):
    """Fold mul, div, add and sub by constants a channel into the linear op beside them."""

    name = "graph-fold-scale"

    def run(self, module: ModuleOp) -> None:
        rewrite(module, scale_after_linear, scale_before_conv, merge_constants, after=region_dce)


@pattern(*ARITHMETIC)
def scale_after_linear(op: graph.BinaryOp, rewriter: PatternRewriter) -> None:
    """conv(x) ∘ constant -> conv(x) with other weights and bias."""
    for value, other, swapped in ((op.a, op.b, False), (op.b, op.a, True)):
        axis = channel_axis(value)
        if axis is not None and value.type == op.result.type:
            affine = affine_of(op, other, swapped, axis)
            if affine and fold_after(op, value, affine, rewriter):
                return


@pattern(graph.ConvOp)
def scale_before_conv(op: graph.ConvOp, rewriter: PatternRewriter) -> None:
    """conv(x ∘ constant) -> conv(x) with other weights and bias, where padding allows."""
    below = defined_by(op.ifm, *ARITHMETIC)
    if not below or not op.ifm.has_one_use() or below.a.type != below.result.type:
        return
    affine = affine_of(below, below.b, False, len(shape_of(op.ifm)) - 1)
    if affine:
        fold_before(op, below, affine, rewriter)


@pattern(graph.AddOp, graph.MulOp)
def merge_constants(op: graph.BinaryOp, rewriter: PatternRewriter) -> None:
    """(x + a) + b -> x + (a + b), (x · a) · b -> x · (a · b), ((x · a) + b) · c -> (x · a · c) + (b · c)."""
    inner = defined_by(op.a, graph.AddOp, graph.MulOp)
    outer_constant = graph.constant_of(op.b)
    if not inner or outer_constant is None or not op.a.has_one_use() or element_type(op.result) != f32:
        return
    constant = graph.constant_of(inner.b)
    if constant is None or not op.result.type == op.a.type == inner.a.type:
        return
    if type(op) is type(inner):
        merged = joined(type(op), constant, outer_constant, op)
        if merged is not None:
            rewriter.replace(op, [merged, type(op).make(inner.a, merged.result)])
            rewriter.erase(inner)
    elif isinstance(op, graph.MulOp) and is_scaled(inner.a):
        shift = joined(graph.MulOp, constant, outer_constant, op)
        if shift is not None:
            scaled = graph.MulOp.make(inner.a, op.b)
            rewriter.replace(op, [shift, scaled, graph.AddOp.make(scaled.result, shift.result)])
            rewriter.erase(inner)


def is_scaled(value: SSAValue) -> bool:
    """Whether a value is something times a constant, and has no other use."""
    product = defined_by(value, graph.MulOp)
    return bool(product) and value.has_one_use() and graph.constant_of(product.b) is not None


def joined(
    operator: type[Operation], a: np.ndarray, b: np.ndarray, near: Operation
) -> graph.ConstantOp | None:
    """Sum or product of two constants, computed in float64; None where it would be larger or not finite."""
    wide = a.astype(np.float64), b.astype(np.float64)
    both = (wide[0] + wide[1] if operator is graph.AddOp else wide[0] * wide[1]).astype(np.float32)
    if both.size > max(a.size, b.size) or not np.isfinite(both).all():
        return None
    return graph.constant(both, near)


def channel_axis(value: SSAValue) -> int | None:
    """The axis of a value that a linear op's output channels lie along, seen through one transpose."""
    last = len(shape_of(value)) - 1
    if between := defined_by(value, graph.TransposeOp):
        if defined_by(between.input, *LINEAR):
            return between.parameters().permutation.index(last)
        return None
    return last if defined_by(value, *LINEAR) else None


def affine_of(op: Operation, constant: SSAValue, swapped: bool, axis: int) -> Affine | None:
    """What x ∘ constant (swapped: constant ∘ x) does to each channel, None when that is not affine."""
    vector = constant_along(constant, axis, shape_of(op.results[0]))
    if vector is None:
        return None
    vector = vector.astype(np.float64)
    one, zero = np.ones_like(vector), np.zeros_like(vector)
    if isinstance(op, graph.AddOp):
        return Affine(one, vector, axis)
    if isinstance(op, graph.SubOp):
        return Affine(-one, vector, axis) if swapped else Affine(one, -vector, axis)
    if isinstance(op, graph.MulOp):
        return Affine(vector, zero, axis)
    if isinstance(op, graph.DivOp) and not swapped and vector.all():
        return Affine(1 / vector, zero, axis)
    return None
