"""Scale and shift a channel, folded into the weights and bias of the linear op that makes the channels.

Used by the passes that fold batch norms and constant factors; it computes in float64 and rounds once.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from xdsl.ir import Operation, SSAValue
from xdsl.pattern_rewriter import PatternRewriter

from ...dialects import graph
from ...dialects.locations import fuse_locations
from ...dialects.types import element_type, f32, shape_of
from ..pattern import defined_by, name_of, with_operands

LINEAR = (graph.ConvOp, graph.ConvTransposeOp, graph.MatmulOp)


class Affine(NamedTuple):
    """x · scale + shift for each slice of an axis, in float64 `[C]`."""

    scale: np.ndarray
    shift: np.ndarray
    axis: int


def batch_norm_affine(op: graph.BatchNormOp) -> Affine | None:
    """A batch norm with constant parameters as scale and shift."""
    arrays = [graph.constant_of(v) for v in list(op.operands)[1:]]
    if any(a is None for a in arrays):
        return None
    scale, bias, mean, variance = (np.asarray(a, np.float64) for a in arrays)
    p = op.parameters()
    factor = scale / np.sqrt(variance + p.epsilon)
    return Affine(factor, bias - mean * factor, p.axis)


def linear_below(value: SSAValue, axis: int) -> tuple[Operation, graph.TransposeOp | None] | None:
    """The linear op whose output channels are a value's axis, maybe behind a transpose; single uses."""
    between = defined_by(value, graph.TransposeOp)
    if between:
        if not value.has_one_use():
            return None
        value, axis = between.input, between.parameters().permutation[axis]
    linear = defined_by(value, *LINEAR)
    if not linear or not value.has_one_use() or axis != len(shape_of(value)) - 1:
        return None
    return (linear, between) if element_type(value) == f32 else None


def fold_after(op: Operation, value: SSAValue, affine: Affine, rewriter: PatternRewriter) -> bool:
    """Replace `op`, which computes an affine function of a linear op's result, by one with other weights."""
    found = linear_below(value, affine.axis)
    if found is None:
        return False
    linear, between = found
    data, weight, bias = operands_of(linear)
    new: list[Operation] = []
    scaled = weight
    if not (affine.scale == 1).all():
        array = graph.constant_of(weight)
        if array is None:
            return False
        new.append(graph.constant((array * affine.scale).astype(np.float32), op, name_of(weight)))
        scaled = new[-1].results[0]
    old = np.zeros_like(affine.shift) if bias is None else graph.constant_of(bias)
    if old is None:
        return False
    shift = (old * affine.scale + affine.shift).astype(np.float32)
    shifted = None
    if bias is not None or shift.any():
        new.append(graph.constant(shift, op, name_of(bias) if bias is not None else ""))
        shifted = new[-1].results[0]
    made = with_operands(linear, [data, scaled, shifted])
    made.location = fuse_locations(linear.location, op.location)
    new.append(made)
    if between:
        new.append(with_operands(between, [made.results[0]]))
    rewriter.replace(op, new)
    if between:
        rewriter.erase(between)
    rewriter.erase(linear)
    return True


def fold_before(op: graph.ConvOp, below: Operation, affine: Affine, rewriter: PatternRewriter) -> bool:
    """conv(x · scale + shift) -> conv(x) with other weights. `below` is the affine op, `x` its first operand.

    A shift and zero padding don't go together: the padding is added after the shift. Then nothing happens.
    """
    weight = graph.constant_of(op.weight)
    bias = graph.constant_of(op.bias) if op.bias is not None else np.float64(0)
    p = op.parameters()
    if weight is None or bias is None or affine.axis != len(shape_of(op.ifm)) - 1:
        return False
    if any(p.pads) and affine.shift.any():
        return False
    outputs = weight.shape[-1]
    a_group = np.repeat(np.arange(p.groups), outputs // p.groups)  # group of each output channel
    scale = affine.scale.reshape(p.groups, -1)[a_group].T  # [C / groups, M]
    shift = affine.shift.reshape(p.groups, -1)[a_group].T
    wide = weight.astype(np.float64)
    moved = bias + (wide * shift).sum(axis=tuple(range(wide.ndim - 1)))
    new_weight = graph.constant((wide * scale).astype(np.float32), op, name_of(op.weight))
    new_bias = graph.constant(
        np.asarray(moved).astype(np.float32), op, name_of(op.bias) if op.bias is not None else ""
    )
    made = with_operands(op, [below.operands[0], new_weight.result, new_bias.result])
    made.location = fuse_locations(below.location, op.location)
    rewriter.replace(op, [new_weight, new_bias, made])
    rewriter.erase(below)
    return True


def operands_of(linear: Operation) -> tuple[SSAValue, SSAValue, SSAValue | None]:
    """Data, weights and bias of a linear op."""
    data, weight, *bias = linear.operands
    return data, weight, bias[0] if bias else None
