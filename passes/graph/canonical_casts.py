"""Canonicalisation of moves of dequantised constants: the integers move, and the axis of their scales."""

from __future__ import annotations

import math
from collections.abc import Sequence

from xdsl.ir import Attribute
from xdsl.pattern_rewriter import PatternRewriter

from ...dialects import graph
from ...dialects.quant import DCastOp, QuantType, quantised
from ...dialects.types import element_type, shape_of, tensor
from ..pattern import canonical, defined_by, name_of


@canonical(graph.TransposeOp)
def transpose_of_dequantised(op: graph.TransposeOp, rewriter: PatternRewriter) -> None:
    """transpose(dcast(constant)) -> dcast(constant)."""
    cast = defined_by(op.input, DCastOp)
    integers = cast and graph.constant_of(cast.input)
    if integers is None:
        return
    permutation, type_ = op.parameters().permutation, element_type(cast.input)
    axis = type_.data.axis  # type: ignore[attr-defined]
    moved = with_axis(type_, None if axis is None else permutation.index(axis))  # type: ignore[arg-type]
    replace_constant(op, cast, integers.transpose(permutation), moved, rewriter)


@canonical(graph.ReshapeOp)
def reshape_of_dequantised(op: graph.ReshapeOp, rewriter: PatternRewriter) -> None:
    """reshape(dcast(constant)) -> dcast(constant), where the slices stay slices."""
    cast = defined_by(op.input, DCastOp)
    integers = cast and graph.constant_of(cast.input)
    if integers is None:
        return
    type_, shape = element_type(cast.input), shape_of(op.result)
    axis = type_.data.axis  # type: ignore[attr-defined]
    if axis is not None:
        axis = same_axis(shape_of(op.input), axis, shape)
        if axis is None:
            return
    replace_constant(op, cast, integers.reshape(shape), with_axis(type_, axis), rewriter)  # type: ignore[arg-type]


def same_axis(before: Sequence[int], axis: int, after: Sequence[int]) -> int | None:
    """The axis of a reshaped tensor that is `axis`, None where it was split or merged."""
    outer = math.prod(before[:axis])
    found = (i for i, d in enumerate(after) if d == before[axis] and math.prod(after[:i]) == outer)
    return next(found, None)


def with_axis(type_: QuantType, axis: int | None) -> QuantType:
    """A quantised type whose scales belong to another axis."""
    return quantised(type_.storage, type_.data.scales, type_.data.zeros, axis)


def replace_constant(
    op: graph.GraphOp, cast: DCastOp, integers, type_: QuantType, rewriter: PatternRewriter
) -> None:
    """A cast of other integers in the place of an op on a cast."""
    constant = graph.constant(integers, op, name_of(cast.input), type_)
    element: Attribute = element_type(cast.result)
    made = DCastOp.create(operands=[constant.result], result_types=[tensor(integers.shape, element)])
    made.location = cast.location
    rewriter.replace(op, [constant, made])
