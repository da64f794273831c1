"""Importers of operators that move values: shapes, joining and splitting, slices, padding, gathering.

What a model computes shapes with (Shape, Size and what follows on constants) is an array here, never an op.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from xdsl.ir import SSAValue

from ...dialects import graph
from ...dialects.types import dtype_of, element_type, i64, shape_of
from .node import Node
from .reduction import positions_along
from .registry import Unsupported, Value, importer, refuse


# --- shapes ----------------------------------------------------------------------------------------------
@importer("Shape")
def shape(node: Node) -> Value:
    sizes = node.shape(0)
    return np.array(sizes[slice(node.attribute("start", 0), node.attribute("end"))], np.int64)


@importer("Size")
def size(node: Node) -> Value:
    return np.array(math.prod(node.shape(0)), np.int64)


def reshape_to(node: Node, value: SSAValue, wanted: Sequence[int]) -> SSAValue:
    """A reshape, none where the shape is right already."""
    return value if shape_of(value) == tuple(wanted) else node.emit(graph.ReshapeOp, value, shape=wanted)


@importer("Reshape", since=5)
def reshape(node: Node) -> Value:
    old = node.shape(0)
    wanted = [int(d) for d in node.constant(1, "the shape").ravel()]
    if not node.attribute("allowzero", 0):
        if any(d == 0 and i >= len(old) for i, d in enumerate(wanted)):
            raise Unsupported(f"the shape {wanted} copies an axis that {list(old)} does not have")
        wanted = [old[i] if d == 0 else d for i, d in enumerate(wanted)]
    if -1 in wanted:
        rest = math.prod(d for d in wanted if d != -1)
        if rest == 0 or math.prod(old) % rest:
            raise Unsupported(f"{list(old)} does not reshape to {wanted}")
        wanted[wanted.index(-1)] = math.prod(old) // rest
    return reshape_to(node, node.operand(0), wanted)


@importer("Flatten")
def flatten(node: Node) -> Value:
    sizes, axis = node.shape(0), node.attribute("axis")
    if not -len(sizes) <= axis <= len(sizes):
        raise Unsupported(f"axis {axis} lies outside a tensor of rank {len(sizes)}")
    axis = axis + len(sizes) if axis < 0 else axis
    return reshape_to(node, node.operand(0), (math.prod(sizes[:axis]), math.prod(sizes[axis:])))


@importer("Squeeze")
def squeeze(node: Node) -> Value:
    sizes = node.shape(0)
    given = node.ints("axes", 1, "the list of axes")
    axes = (
        {i for i, d in enumerate(sizes) if d == 1}
        if given is None
        else {node.axis(a, len(sizes)) for a in given}
    )
    if wrong := [i for i in axes if sizes[i] != 1]:
        raise Unsupported(f"axis {wrong[0]} of {list(sizes)} is not of size 1")
    return reshape_to(node, node.operand(0), [d for i, d in enumerate(sizes) if i not in axes])


@importer("Unsqueeze")
def unsqueeze(node: Node) -> Value:
    axes = node.ints("axes", 1, "the list of axes")
    if axes is None:
        raise Unsupported("'axes' is missing")
    sizes = list(node.shape(0))
    for axis in sorted(node.axis(a, len(sizes) + len(axes)) for a in axes):
        sizes.insert(axis, 1)
    return reshape_to(node, node.operand(0), sizes)


@importer("Transpose")
def transpose(node: Node) -> Value:
    permutation = node.attribute("perm", list(range(len(node.shape(0))))[::-1])
    return node.emit(
        graph.TransposeOp, node.operand(0), permutation=[p % max(len(permutation), 1) for p in permutation]
    )


@importer("Expand")
def expand(node: Node) -> Value:
    given = tuple(int(d) for d in node.constant(1, "the shape"))
    try:
        wanted = np.broadcast_shapes(node.shape(0), given)
    except ValueError:
        raise Unsupported(f"{list(node.shape(0))} does not broadcast to {list(given)}") from None
    return broadcast_to(node, node.operand(0), wanted)


def broadcast_to(node: Node, value: SSAValue, wanted: Sequence[int]) -> SSAValue:
    """A broadcast, none where the shape is right already."""
    return value if shape_of(value) == tuple(wanted) else node.emit(graph.BroadcastOp, value, shape=wanted)


@importer("Tile", since=6)
def tile(node: Node) -> Value:
    value = node.operand(0)
    for axis, count in enumerate(int(c) for c in node.constant(1, "the repeat counts")):
        sizes = shape_of(value)
        if count != 1 and sizes[axis] == 1:
            value = node.emit(graph.BroadcastOp, value, shape=(*sizes[:axis], count, *sizes[axis + 1 :]))
        elif count > 1:
            value = node.emit(graph.ConcatOp, *[value] * count, axis=axis)
        elif count < 1:
            raise Unsupported(f"the repeat count {count} of axis {axis} leaves nothing")
    return value


# --- constants by shape ----------------------------------------------------------------------------------
@importer("ConstantOfShape")
def constant_of_shape(node: Node) -> Value:
    raise Unsupported(f"the shape '{node.input_name(0)}' is computed from the model's inputs, not constant")


@importer("Range")
def value_range(node: Node) -> Value:
    raise Unsupported("its bounds are computed from the model's inputs, not constant")


@importer("EyeLike")
def eye_like(node: Node) -> Value:
    import onnx

    rows, columns = node.shape(0)
    elem = node.attribute("dtype")
    dtype = node.dtype(0) if elem is None else onnx.helper.tensor_dtype_to_np_dtype(elem)
    return np.eye(rows, columns, node.attribute("k"), dtype)


@importer("Trilu")
def trilu(node: Node) -> Value:
    """The upper or lower triangle; zeros elsewhere."""
    value = node.operand(0)
    shift = int(node.constant(1, "the diagonal")) if node.has(1) else 0
    ones = np.ones(shape_of(value)[-2:], np.bool_)
    mask = np.triu(ones, shift) if node.attribute("upper") else np.tril(ones, shift)
    return node.emit(graph.SelectOp, mask, value, node.scalar(0, value))


@importer("OneHot", since=9)
def one_hot(node: Node) -> Value:
    indices = node.operand(0)
    depth = int(node.constant(1, "the depth").item())
    off, on = node.constant(2, "the pair of values")
    rank = len(shape_of(indices)) + 1
    axis = node.axis(node.attribute("axis"), rank)
    sizes = list(shape_of(indices))
    sizes.insert(axis, 1)
    indices = reshape_to(node, node.emit(graph.CastOp, indices, to=i64), sizes)
    wrapped = node.emit(graph.AddOp, indices, node.scalar(depth, indices))
    negative = node.emit(graph.CompareOp, indices, node.scalar(0, indices), predicate="lt")
    indices = node.emit(graph.SelectOp, negative, wrapped, indices)
    sizes[axis] = depth
    hit = node.emit(
        graph.CompareOp, indices, positions_along(axis, tuple(sizes), np.dtype(np.int64)), predicate="eq"
    )
    return node.emit(graph.SelectOp, hit, node.literal(np.asarray(on)), node.literal(np.asarray(off)))


# --- joining and splitting -------------------------------------------------------------------------------
@importer("Concat", since=4)
def concat(node: Node) -> Value:
    values = node.operands()
    axis = node.axis(node.attribute("axis"), len(shape_of(values[0])))
    return values[0] if len(values) == 1 else node.emit(graph.ConcatOp, *values, axis=axis)


@importer("Split", since=2)
def split(node: Node) -> tuple[Value, ...]:
    sizes, count = node.shape(0), len(node.proto.output)
    axis = node.axis(node.attribute("axis"), len(sizes))
    parts = node.ints("split", 1, "the list of sizes")
    if parts is None:
        each = -(-sizes[axis] // node.attribute("num_outputs", count))
        parts = tuple(min(each, max(sizes[axis] - i * each, 0)) for i in range(count))
    if len(parts) != count:
        raise Unsupported(f"it has {count} outputs, but {len(parts)} sizes {list(parts)}")
    return node.emit_all(graph.SplitOp, node.operand(0), axis=axis, sizes=parts)


# --- slices and padding ----------------------------------------------------------------------------------
def slice_along(
    node: Node,
    starts: Sequence[int],
    ends: Sequence[int],
    axes: Sequence[int] | None,
    steps: Sequence[int] | None,
) -> Value:
    """Python's slices, one for each named axis."""
    sizes = node.shape(0)
    axes = range(len(starts)) if axes is None else [node.axis(a, len(sizes)) for a in axes]
    steps = [1] * len(starts) if steps is None else steps
    ranges = [range(d) for d in sizes]
    for axis, start, end, stride in zip(axes, starts, ends, steps, strict=True):
        if stride == 0:
            raise Unsupported(f"the step of axis {axis} is 0")
        ranges[axis] = range(sizes[axis])[
            int(start) : int(end) if stride > 0 or end >= -sizes[axis] else None : int(stride)
        ]
    return sliced(node, node.operand(0), ranges)


def sliced(node: Node, value: SSAValue, ranges: Sequence[range]) -> SSAValue:
    """graph.slice for a range of positions an axis, none where it takes everything."""
    if all(r == range(d) for r, d in zip(ranges, shape_of(value))):
        return value
    return node.emit(
        graph.SliceOp, value, starts=[r.start if len(r) else 0 for r in ranges],
        sizes=[len(r) for r in ranges], steps=[r.step for r in ranges],
    )  # fmt: skip


@importer("Slice")
def slice_attributes(node: Node) -> Value:
    return slice_along(node, node.attribute("starts"), node.attribute("ends"), node.attribute("axes"), None)


@importer("Slice", since=10)
def slice_inputs(node: Node) -> Value:
    starts, ends = (
        node.constant(i, what).tolist() for i, what in ((1, "the list of starts"), (2, "the list of ends"))
    )
    axes = node.constant(3, "the list of axes").tolist() if node.has(3) else None
    steps = node.constant(4, "the list of steps").tolist() if node.has(4) else None
    return slice_along(node, starts, ends, axes, steps)


def pad(node: Node, pads: Sequence[int], value: float | int | bool, axes: Sequence[int] | None) -> Value:
    """Padding by `pads`, all beginnings then all ends; negative ones cut off."""
    sizes, mode = node.shape(0), node.attribute("mode")
    rank = len(sizes)
    named = range(rank) if axes is None else [node.axis(a, rank) for a in axes]
    if len(pads) != 2 * len(named):
        raise Unsupported(f"'pads' has {len(pads)} entries for {len(named)} axes")
    low, high = [0] * rank, [0] * rank
    for i, axis in enumerate(named):
        low[axis], high[axis] = int(pads[i]), int(pads[len(named) + i])
    cut = [range(max(-lo, 0), d - max(-hi, 0)) for d, lo, hi in zip(sizes, low, high)]
    result = sliced(node, node.operand(0), cut)
    low, high = [max(p, 0) for p in low], [max(p, 0) for p in high]
    if not any((*low, *high)):
        return result
    if mode == "wrap":
        return wrap(node, result, low, high)
    return node.emit(graph.PadOp, result, low=low, high=high, mode=mode, value=pad_value(result, value))


def pad_value(value: SSAValue, number: float | int | bool) -> float:
    """The constant as graph.pad's float32 parameter."""
    dtype = dtype_of(element_type(value))
    if np.array(np.float32(number)).astype(dtype) != np.array(number, dtype):
        raise Unsupported(f"the padding value {number} is not exact in float32")
    return float(number)


def wrap(node: Node, value: SSAValue, low: Sequence[int], high: Sequence[int]) -> SSAValue:
    """Periodic padding: along each axis the end, the whole and the beginning are joined."""
    for axis, (before, after) in enumerate(zip(low, high)):
        sizes = shape_of(value)
        if max(before, after) > sizes[axis]:
            raise Unsupported(f"wrapping by {max(before, after)} is longer than the axis of {sizes[axis]}")
        parts = []
        for part in (range(sizes[axis] - before, sizes[axis]), range(sizes[axis]), range(after)):
            if len(part):
                parts.append(
                    sliced(node, value, [part if i == axis else range(d) for i, d in enumerate(sizes)])
                )
        value = parts[0] if len(parts) == 1 else node.emit(graph.ConcatOp, *parts, axis=axis)
    return value


@importer("Pad", since=2)
def pad_attributes(node: Node) -> Value:
    return pad(node, node.attribute("pads"), node.attribute("value"), None)


@importer("Pad", since=11)
def pad_inputs(node: Node) -> Value:
    pads = node.constant(1, "the list of pads").tolist()
    value = node.constant(2, "the padding value").item() if node.has(2) and node.shape(2) != (0,) else 0
    return pad(node, pads, value, node.ints("axes", 3, "the list of axes"))


# --- gathering -------------------------------------------------------------------------------------------
@importer("Gather")
def gather(node: Node) -> Value:
    axis = node.axis(node.attribute("axis"), len(node.shape(0)))
    return node.emit(graph.GatherOp, node.operand(0), node.operand(1), axis=axis)


refuse("NonZero", "Unique", "NonMaxSuppression", reason="the size of its result depends on the data")
