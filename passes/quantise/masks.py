"""Attention masks: constants of −1e9, −inf and the like that scores meet on their way into a softmax.

Such an entry means "not this one", not a number. Taken as a number it would give the masked scores a scale of
millions, under which all scores that count are one integer and softmax is uniform. All that softmax can tell
of an entry MARGIN below the smallest score that counts is that its share is zero, so a range ends there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from xdsl.dialects.func import FuncOp
from xdsl.ir import Block, Operation, SSAValue
from xdsl.rewriter import InsertPoint, Rewriter

from ...dialects import graph
from ...dialects.types import element_type, f32, shape_of
from ..pattern import name_of
from .ranges import range_of

MASKED = -1e3
"""Constants up to here, −inf among them, mask: e to the −1000 is 0 in float32 and float64 alike."""
MARGIN = 16.0
"""How far below the smallest score that counts masked ones lie: e^−16 is 1e−7, below half a step of softmax's
8-bit and 16-bit results (1/256, 1/32768), and so is the sum of hundreds of them."""

MOVES = (graph.ReshapeOp, graph.TransposeOp, graph.BroadcastOp, graph.SliceOp, graph.SplitOp)


class Mask(NamedTuple):
    """A constant operand that masks, and the operand that holds the scores."""

    operand: int
    constant: SSAValue
    scores: SSAValue


def mask_of(value: SSAValue) -> Mask | None:
    """The mask of a value that is made by masking scores and that only softmax reads."""
    mask = applied(value.owner) if isinstance(value.owner, Operation) else None
    return mask if mask is not None and only_softmax_reads(value) else None


def applied(op: Operation) -> Mask | None:
    """The mask an add, select or minimum applies to its other operand."""
    if not isinstance(op, (graph.AddOp, graph.SelectOp, graph.MinOp)) or element_type(op.result) != f32:
        return None
    first = 1 if isinstance(op, graph.SelectOp) else 0
    for index, other in ((first + 1, first), (first, first + 1)):
        array = graph.constant_of(op.operands[index])
        if array is None or not array.size or graph.constant_of(op.operands[other]) is not None:
            continue
        masked = array <= MASKED
        if masked.any() and (isinstance(op, graph.SelectOp) or not masked.all()):
            return Mask(index, op.operands[index], op.operands[other])
    return None


def only_softmax_reads(value: SSAValue) -> bool:
    """Whether all users are softmax, itself or behind moves, limits below all scores, and further masks."""
    users = [(use.operation, use.index) for use in value.uses]
    return bool(users) and all(
        isinstance(op, graph.SoftmaxOp)
        or (passes_on(op, index) and all(only_softmax_reads(r) for r in op.results))
        for op, index in users
    )


def passes_on(op: Operation, index: int) -> bool:
    """Whether an op leaves scores as they are, or masks more of them."""
    if isinstance(op, graph.ClampOp):
        return op.parameters().low <= MASKED and op.parameters().high == np.inf
    return (isinstance(op, MOVES) and index == 0) or applied(op) is not None


def origin(value: SSAValue) -> SSAValue | None:
    """The masked value of which a value is a move, itself included; None where there is none."""
    while isinstance(op := value.owner, Operation):
        if mask_of(value) is not None:
            return value
        if not isinstance(op, (*MOVES, graph.ClampOp)) or not passes_on(op, 0):
            return None
        if not only_softmax_reads(value):
            return None
        value = op.operands[0]
    return None


def counting(value: SSAValue, array: np.ndarray) -> np.ndarray:
    """The scores of a masked value (see `mask_of`) that are not masked, in one dimension."""
    mask = mask_of(value)
    assert mask is not None
    constant = np.broadcast_to(graph.constant_of(mask.constant), shape_of(value))  # type: ignore[arg-type]
    masked = constant <= MASKED
    if not isinstance(value.owner, graph.AddOp):  # the others take the one or the other
        masked = masked & (array == constant)
    if origin(mask.scores) is not None:
        masked = masked | (array <= MASKED)
    return array[~masked]


def clip_masks(function: FuncOp, where: Callable[[Operation], bool] = lambda op: True) -> None:
    """Lift the entries of masks of a calibrated function to the low end of the range they lead to.

    `where` says which ops need it: one that computes in floats takes any mask.
    """
    assert isinstance(function.body.block, Block)
    for op in list(function.body.block.ops):
        mask = mask_of(op.results[0]) if len(op.results) == 1 and where(op) else None
        if mask is None or (found := range_of(op.results[0])) is None:
            continue
        floor = found.low
        if isinstance(op, graph.AddOp):  # the largest score, too, has to end up down there
            scores = range_of(mask.scores)
            if scores is None:
                continue
            floor -= scores.high
        array = graph.constant_of(mask.constant)
        assert array is not None
        clipped = graph.constant(np.maximum(array, np.float32(floor)), op, name_of(mask.constant))
        Rewriter.insert_op(clipped, InsertPoint.before(op))
        op.operands[mask.operand] = clipped.result


__all__ = ["MARGIN", "clip_masks", "counting", "mask_of", "origin"]
