"""Canonicalisation of ops that only move values: identities go, neighbours merge. All is exact."""

from __future__ import annotations

import math

from xdsl.pattern_rewriter import PatternRewriter

from ...dialects import graph
from ...dialects.types import element_type, f32, shape_of
from ..pattern import canonical, defined_by, only_moves_ones, scalar_of, with_operands


@canonical(graph.ReshapeOp, graph.BroadcastOp, graph.CastOp)
def same_type(op: graph.ReshapeOp, rewriter: PatternRewriter) -> None:
    """A reshape, broadcast or cast to what the operand is already."""
    if op.input.type == op.result.type:
        rewriter.replace(op, [], [op.input])


@canonical(graph.ReshapeOp)
def reshape_of_reshape(op: graph.ReshapeOp, rewriter: PatternRewriter) -> None:
    """reshape(reshape(x)) -> reshape(x)."""
    if inner := defined_by(op.input, graph.ReshapeOp):
        rewriter.replace(op, with_operands(op, [inner.input]))


@canonical(graph.TransposeOp)
def transpose_of_transpose(op: graph.TransposeOp, rewriter: PatternRewriter) -> None:
    """transpose(transpose(x)) -> one transpose, or x."""
    outer = op.parameters().permutation
    inner = defined_by(op.input, graph.TransposeOp)
    if outer == tuple(range(len(outer))):
        rewriter.replace(op, [], [op.input])
    elif inner:
        first = inner.parameters().permutation
        both = tuple(first[axis] for axis in outer)
        if both == tuple(range(len(both))):
            rewriter.replace(op, [], [inner.input])
        else:
            rewriter.replace(op, with_operands(op, [inner.input], permutation=both))


@canonical(graph.TransposeOp)
def transpose_of_ones(op: graph.TransposeOp, rewriter: PatternRewriter) -> None:
    """A transpose that only moves axes of size 1 -> reshape."""
    shape, permutation = shape_of(op.input), op.parameters().permutation
    if only_moves_ones(shape, permutation):
        new = graph.ReshapeOp.make(op.input, shape=shape_of(op.result), location=op.location)
        rewriter.replace(op, new)


@canonical(graph.TransposeOp)
def transpose_of_squeeze(op: graph.TransposeOp, rewriter: PatternRewriter) -> None:
    """transpose(reshape(transpose(x))) is a reshape of x when no value changes its place in the end.

    Such is a layout change around a reshape that only adds or drops axes of size 1. The reshape goes first;
    the transpose back to what it gave keeps its name and cancels.
    """
    middle = defined_by(op.input, graph.ReshapeOp)
    inner = middle and defined_by(middle.input, graph.TransposeOp)
    if not inner:
        return
    source = shape_of(inner.input)
    first = [a for a in inner.parameters().permutation if source[a] != 1]
    reshaped = shape_of(middle.result)
    kept = [i for i, d in enumerate(reshaped) if d != 1]
    if [reshaped[i] for i in kept] != [source[a] for a in first]:
        return
    origin = dict(zip(kept, first))
    permutation = op.parameters().permutation
    order = [origin[i] for i in permutation if i in origin]
    if order == sorted(order):
        new = graph.ReshapeOp.make(inner.input, shape=shape_of(op.result), location=middle.location)
        back = tuple(permutation.index(i) for i in range(len(permutation)))
        old = graph.TransposeOp.make(new.result, permutation=back, location=middle.location)
        rewriter.replace(middle, [new, old])


@canonical(graph.SliceOp)
def whole_slice(op: graph.SliceOp, rewriter: PatternRewriter) -> None:
    """A slice of everything."""
    if shape_of(op.input) == shape_of(op.result) and all(s > 0 for s in op.parameters().steps):
        rewriter.replace(op, [], [op.input])


@canonical(graph.SliceOp)
def slice_of_slice(op: graph.SliceOp, rewriter: PatternRewriter) -> None:
    """slice(slice(x)) -> one slice."""
    if inner := defined_by(op.input, graph.SliceOp):
        p, q = op.parameters(), inner.parameters()
        starts = tuple(b + a * s for a, b, s in zip(p.starts, q.starts, q.steps))
        steps = tuple(a * b for a, b in zip(p.steps, q.steps))
        rewriter.replace(op, with_operands(op, [inner.input], starts=starts, steps=steps))


@canonical(graph.PadOp)
def no_pad(op: graph.PadOp, rewriter: PatternRewriter) -> None:
    """A pad that adds nothing."""
    if shape_of(op.input) == shape_of(op.result):
        rewriter.replace(op, [], [op.input])


@canonical(graph.PadOp)
def pad_of_pad(op: graph.PadOp, rewriter: PatternRewriter) -> None:
    """Two pads of the same constant -> one."""
    inner = defined_by(op.input, graph.PadOp)
    if not inner:
        return
    p, q = op.parameters(), inner.parameters()
    if p.mode == q.mode == "constant" and p.value == q.value:
        low = tuple(a + b for a, b in zip(p.low, q.low))
        high = tuple(a + b for a, b in zip(p.high, q.high))
        rewriter.replace(op, with_operands(op, [inner.input], low=low, high=high))


@canonical(graph.ConcatOp)
def concat_of_less(op: graph.ConcatOp, rewriter: PatternRewriter) -> None:
    """A concat drops empty operands, takes in concats along its axis, and vanishes with one operand."""
    axis = op.parameters().axis
    operands = []
    for value in op.inputs:
        inner = defined_by(value, graph.ConcatOp)
        if inner and inner.parameters().axis == axis and value.has_one_use():
            operands.extend(inner.inputs)
        elif shape_of(value)[axis]:
            operands.append(value)
    operands = operands or [op.inputs[0]]
    if len(operands) == 1:
        rewriter.replace(op, [], [operands[0]])
    elif operands != list(op.inputs):
        rewriter.replace(op, with_operands(op, operands))


@canonical(graph.ConcatOp)
def concat_of_split(op: graph.ConcatOp, rewriter: PatternRewriter) -> None:
    """All parts of a split joined again in order -> its input."""
    split = defined_by(op.inputs[0], graph.SplitOp)
    if split and list(split.parts) == list(op.inputs) and split.parameters().axis == op.parameters().axis:
        rewriter.replace(op, [], [split.input])


@canonical(graph.SplitOp)
def split_of_one(op: graph.SplitOp, rewriter: PatternRewriter) -> None:
    """A split into one part."""
    if len(op.parts) == 1:
        rewriter.replace(op, [], [op.input])


@canonical(graph.GatherOp)
def gather_of_one(op: graph.GatherOp, rewriter: PatternRewriter) -> None:
    """gather(x, one constant index) -> slice, reshaped."""
    index = scalar_of(op.indices)
    if index is None or math.prod(shape_of(op.indices)) != 1:
        return
    axis, shape = op.parameters().axis, shape_of(op.data)
    at = int(index) + (shape[axis] if index < 0 else 0)
    if not 0 <= at < shape[axis]:
        return
    starts = tuple(at if i == axis else 0 for i in range(len(shape)))
    sizes = tuple(1 if i == axis else d for i, d in enumerate(shape))
    part = graph.SliceOp.make(op.data, starts=starts, sizes=sizes, steps=(1,) * len(shape))
    rewriter.replace(op, [part, graph.ReshapeOp.make(part.result, shape=shape_of(op.result))])


@canonical(
    graph.AddOp, graph.SubOp, graph.MulOp, graph.DivOp, graph.MinOp, graph.MaxOp, graph.PowOp,
    graph.PreluOp, graph.CompareOp,
)  # fmt: skip
def binary_of_broadcast(op: graph.BinaryOp, rewriter: PatternRewriter) -> None:
    """A binary op broadcasts by itself: it takes a broadcast's operand where its result's shape stays."""
    operands = []
    for value in op.operands:
        inner = defined_by(value, graph.BroadcastOp)
        operands.append(inner.input if inner else value)
    if operands == list(op.operands):
        return
    for choice in (operands, [operands[0], op.operands[1]], [op.operands[0], operands[1]]):
        if choice != list(op.operands) and shapes_broadcast_to(choice, shape_of(op.result)):
            rewriter.replace(op, with_operands(op, choice))
            return


def shapes_broadcast_to(values: list, shape: tuple[int, ...]) -> bool:
    """Whether two values broadcast to exactly this shape."""
    a, b = (shape_of(v) for v in values)
    rank = max(len(a), len(b))
    if rank != len(shape):
        return False
    a, b = (1,) * (rank - len(a)) + a, (1,) * (rank - len(b)) + b
    return all((y if x == 1 else x) == d for x, y, d in zip(a, b, shape))


# --- padding into windows --------------------------------------------------------------------------------
def zero_pad_below(op: graph.ConvOp | graph.PoolOp) -> tuple[graph.PadOp, tuple[int, ...]] | None:
    """The constant pad of spatial axes below an op and the pads both make, None when there is none."""
    pad = defined_by(op.ifm, graph.PadOp)
    if not pad or element_type(pad.input) != f32:  # a quantised tensor's zero is its zero point
        return None
    q = pad.parameters()
    if q.mode != "constant" or q.low[0] or q.high[0] or q.low[-1] or q.high[-1]:
        return None
    sides = (*q.low[1:-1], *q.high[1:-1])
    return pad, tuple(a + b for a, b in zip(op.parameters().pads, sides))


@canonical(graph.ConvOp)
def pad_into_conv(op: graph.ConvOp, rewriter: PatternRewriter) -> None:
    """conv(pad(x, 0)) -> conv with pads."""
    if (found := zero_pad_below(op)) and found[0].parameters().value == 0:
        pad, pads = found
        rewriter.replace(op, with_operands(op, [pad.input, op.weight, op.bias], pads=pads))


@canonical(graph.AvgPoolOp)
def pad_into_avg_pool(op: graph.AvgPoolOp, rewriter: PatternRewriter) -> None:
    """avg_pool(pad(x, 0)) -> avg_pool with pads that count.

    The zeros counted as values before, so they must count as padding; a pool with uncounted pads of its own
    cannot say which of the two is meant and stays.
    """
    p = op.parameters()
    if not (p.count_include_pad or not any(p.pads)):
        return
    if (found := zero_pad_below(op)) and found[0].parameters().value == 0:
        pad, pads = found
        rewriter.replace(op, with_operands(op, [pad.input], pads=pads, count_include_pad=True))


@canonical(graph.MaxPoolOp)
def pad_into_max_pool(op: graph.MaxPoolOp, rewriter: PatternRewriter) -> None:
    """max_pool(pad(x)) -> max_pool with pads, when the padded value can never be the largest one.

    That is minus infinity, or a bound of what x holds (0 after a relu); each window has to touch x.
    """
    if not (found := zero_pad_below(op)):
        return
    pad, pads = found
    p = op.parameters()
    reach = [d * (k - 1) + 1 for k, d in zip(p.kernel, p.dilations)]
    touches = all(pads[i] < reach[i] and pads[i + len(reach)] < reach[i] for i in range(len(reach)))
    # a dilated window may straddle x without touching it
    dense = all(d == 1 or not (pads[i] or pads[i + len(reach)]) for i, d in enumerate(p.dilations))
    if touches and dense and pad.parameters().value <= lower_bound(pad.input):
        rewriter.replace(op, with_operands(op, [pad.input], pads=pads))


def lower_bound(value) -> float:
    """A number no element of a value lies below: from the activation that made it."""
    if clamp := defined_by(value, graph.ClampOp):
        return min(clamp.parameters().low, clamp.parameters().high)
    return 0.0 if defined_by(value, graph.ReluOp, graph.SigmoidOp, graph.HardSigmoidOp) else -math.inf
