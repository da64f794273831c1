"""How operations become launches of kernels that do a part of a layer, copies and transposes, so that layers of any
size tile.

An operation that goes over its data several times (softmax, layer norm, argmax) stays one kernel where one
row fits the machine's SRAM, and is a launch a pass where it does not; the bits are the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from xdsl.dialects.builtin import i1
from xdsl.ir import Attribute, SSAValue

from ...dialects import graph, qnn
from ...dialects import npu_instructions as npu
from ...dialects.declarative import DeclarativeOp, Parameters
from ...dialects.graph import constant_of
from ...dialects.npu import buffer_type, itemsize
from ...dialects.quant import QuantType
from ...dialects.types import dtype_of, element_type, i32, shape_of, size_of, storage_of
from ...runtime.kernel import evaluate
from ...runtime.kernels.graph_linear import as_2d
from ...runtime.kernels.graph_pool import as_2d as pool_as_2d
from . import runs
from .select import Selector, selects


def launch(
    s: Selector, operation: str, inputs: Sequence[SSAValue], output: SSAValue, parameters: Mapping[str, Any],
    open_: Mapping[str, Any] | None = None,
) -> None:  # fmt: skip
    """A launch of a partial kernel; `open_`: what tiles set for themselves, with the whole layer's values."""
    s.start(operation, inputs, [output], parameters, open_)


def write_as(s: Selector, value: SSAValue, shape: Sequence[int], emit: Callable[[SSAValue], None]) -> None:
    """Let `emit` write a value's buffer in another shape of the same size."""
    whole = s.result(value)
    if buffer_type(whole).shape == tuple(shape):
        emit(whole)
    elif npu.dense_layout(whole) is not None:
        emit(s.reshape(whole, shape))
    else:
        here = s.alloc(shape, buffer_type(whole).element)
        emit(here)
        s.emit(npu.CopyOp, {"src": s.reshape(here, buffer_type(whole).shape), "dst": whole})


def read_as(s: Selector, value: SSAValue, shape: Sequence[int]) -> SSAValue:
    """A value's buffer in another shape."""
    here = s.buffer(value)
    return here if buffer_type(here).shape == tuple(shape) else s.reshape(s.dense(value), shape)


def of_nothing(s: Selector, op: DeclarativeOp) -> bool:
    """Copy the result of an operation that combines no values at all (a sum over an axis of size 0), if it is one."""
    if all(size_of(v) for v in op.operands) or not size_of(op.results[0]):
        return False
    arrays = (np.zeros(shape_of(v), dtype_of(storage_of(element_type(v)))) for v in op.operands)
    s.emit(npu.CopyOp, {"src": s.constant(evaluate(op, *arrays)[0]), "dst": s.result(op.results[0])})
    return True


def four(shape: Sequence[int]) -> tuple[int, ...]:
    """[N, W, C] as [N, 1, W, C]."""
    return tuple(shape) if len(shape) == 4 else (shape[0], 1, *shape[1:])


def rows_fit(s: Selector, *row_bytes: int) -> bool:
    """Whether whole rows lie in SRAM side by side."""
    return sum(-(-n // 16) * 16 for n in row_bytes) <= s.machine.sram_bytes


def bytes_of(value: SSAValue, axes: Sequence[int]) -> int:
    """Bytes of a value along some axes."""
    shape = shape_of(value)
    return math.prod(shape[a] for a in axes) * itemsize(storage_of(element_type(value)))


def reduced(shape: Sequence[int], axes: Sequence[int]) -> tuple[int, ...]:
    """A shape with axes of size 1 where it is reduced."""
    return tuple(1 if i in axes else d for i, d in enumerate(shape))


# --- products --------------------------------------------------------------------------------------------
@selects(graph.MatmulOp, reorders=True)
def matmul(op: graph.MatmulOp, s: Selector) -> None:
    """One order of sums, from here on. Products over an axis of size 0 leave the bias, or zeros."""
    bias = [s.buffer(op.bias)] if op.bias is not None else []
    batch, matrices = shape_of(op.result)[:-2], [s.buffer(op.a), s.buffer(op.b)]
    shapes = [buffer_type(m).shape for m in matrices]
    if shapes[0][-1] == 0 and bias:
        launch(s, "ppu.broadcast", bias, s.result(op.result), {})
    elif not of_nothing(s, op):
        if runs.runs(batch, *(shape[:-2] for shape in shapes)) > runs.BATCHES:
            matrices = [runs.in_full(s, m, (*batch, *shape[-2:])) for m, shape in zip(matrices, shapes)]
        launch(s, "ppu.matmul", [*matrices, *bias], s.result(op.result), {})


MULTIPLIER = 64
"""Filters an input channel up to which a depthwise convolution is one: a tile takes all of a channel."""


@selects(graph.ConvOp, reorders=True)
def conv(op: graph.ConvOp, s: Selector) -> None:
    """One order of sums, from here on; groups other than depthwise ones each by themselves."""
    ifm, weight, p, shape = _lifted(op, s)
    channels = buffer_type(ifm).shape[3]
    bias = [s.buffer(op.bias)] if op.bias is not None else []
    settled = {"strides": p.strides, "dilations": p.dilations}

    def emit(ofm: SSAValue) -> None:
        if 1 < p.groups == channels and buffer_type(weight).shape[3] <= MULTIPLIER * channels:
            launch(s, "ppu.depthwise", [ifm, weight, *bias], ofm, settled, {"pads": p.pads})
            return
        for part in _groups(s, p.groups, [ifm, weight, *bias, ofm]):
            launch(s, "ppu.conv", part[:-1], part[-1], settled, {"pads": p.pads})

    write_as(s, op.ofm, shape, emit)


def _lifted(op: Any, s: Selector) -> tuple[SSAValue, SSAValue, Parameters, tuple[int, ...]]:
    """ifm, weight and parameters in two spatial axes, and the shape of the ofm."""
    p, shape, weight = op.parameters(), shape_of(op.ifm), shape_of(op.weight)
    if len(shape) == 3:
        p, _, _ = as_2d(p, np.empty((0, 0, 0)), np.empty(0))
        weight = (1, *weight)
    return read_as(s, op.ifm, four(shape)), read_as(s, op.weight, weight), p, four(shape_of(op.ofm))


def _groups(s: Selector, groups: int, buffers: Sequence[SSAValue]) -> list[list[SSAValue]]:
    """The buffers cut along their last axis into groups."""
    if groups == 1:
        return [list(buffers)]
    parts = []
    for group in range(groups):
        part = []
        for whole in buffers:
            *outer, last = buffer_type(whole).shape
            size = last // groups
            part.append(s.view(whole, (*(0 for _ in outer), group * size), (*outer, size)))
        parts.append(part)
    return parts


@selects(graph.ConvTransposeOp, reorders=True)
def conv_transpose(op: graph.ConvTransposeOp, s: Selector) -> None:
    """One order of sums, from here on; every group by itself."""
    ifm, weight, p, shape = _lifted(op, s)
    bias = [s.buffer(op.bias)] if op.bias is not None else []
    settled = {"strides": p.strides, "dilations": p.dilations}

    def emit(ofm: SSAValue) -> None:
        for part in _groups(s, p.groups, [ifm, weight, *bias, ofm]):
            whole = {"origin": p.pads[:2], "size": shape[1:3]}
            launch(s, "ppu.conv_transpose", part[:-1], part[-1], settled, whole)

    write_as(s, op.ofm, shape, emit)


# --- windows ---------------------------------------------------------------------------------------------
def max_pool(op: graph.MaxPoolOp, s: Selector) -> None:
    """Of floats, and with dilations."""
    p = op.parameters() if len(shape_of(op.ifm)) == 4 else pool_as_2d(op.parameters())
    ifm = read_as(s, op.ifm, four(shape_of(op.ifm)))
    settled = {"strides": p.strides, "dilations": p.dilations}
    whole = {"kernel": p.kernel, "pads": p.pads}
    out = four(shape_of(op.ofm))
    write_as(s, op.ofm, out, lambda ofm: launch(s, "ppu.max_pool", [ifm], ofm, settled, whole))


@selects(graph.AvgPoolOp)
def avg_pool(op: graph.AvgPoolOp, s: Selector) -> None:
    """Sums over the window, divided by what it counts."""
    p = op.parameters() if len(shape_of(op.ifm)) == 4 else pool_as_2d(op.parameters())
    ifm = read_as(s, op.ifm, four(shape_of(op.ifm)))
    settled = {
        "strides": p.strides, "dilations": p.dilations, "count_include_pad": p.count_include_pad,
        "overhang": p.overhang, "window": (*p.kernel, *p.pads), "sizes": buffer_type(ifm).shape[1:3],
    }  # fmt: skip
    whole = {"kernel": p.kernel, "pads": p.pads, "offset": (0, 0), "last": 1}
    out = four(shape_of(op.ofm))
    write_as(s, op.ofm, out, lambda ofm: launch(s, "ppu.avg_pool", [ifm], ofm, settled, whole))


@selects(graph.LrnOp, reorders=True)
def lrn(op: graph.LrnOp, s: Selector) -> None:
    """Neighbours and the values themselves are read apart."""
    p = op.parameters()
    before = (p.size - 1) // 2
    whole = {"window": (p.size, before, p.size - 1 - before), "last": 1}
    ifm = s.buffer(op.ifm)
    launch(s, "ppu.lrn", [ifm, ifm], s.result(op.ofm), p, whole)


def resize(op: graph.ResizeOp, s: Selector) -> None:
    """Of floats, and along one axis: the kernel knows the whole geometry, a launch its place in it."""
    shape, out = shape_of(op.ifm)[1:-1], shape_of(op.ofm)[1:-1]
    place = tuple(v for n in out for v in (0, n, 0))
    settled = {**op.parameters(), "inputs": shape}
    launch(s, "ppu.resize", [s.buffer(op.ifm)], s.result(op.ofm), settled, {"place": place})


@selects(qnn.ResizeFloatOp)
def resize_float(op: qnn.ResizeFloatOp, s: Selector) -> None:
    """Of uint8 in floats, like `resize`."""
    place = tuple(v for n in op.parameters().sizes for v in (0, n, 0))
    settled = {**op.parameters(), "inputs": shape_of(op.ifm)[1:3]}
    launch(s, "ppu.resize_float", [s.buffer(op.ifm)], s.result(op.ofm), settled, {"place": place})


# --- reductions ------------------------------------------------------------------------------------------
@selects(graph.ReduceSumOp, graph.ReduceMeanOp, graph.ReduceMaxOp, graph.ReduceMinOp)
def reduce(op: graph.ReduceOp, s: Selector) -> None:
    """One kernel, which goes on from its partial result; a mean's last part divides."""
    count = math.prod(shape_of(op.input)[a] for a in set(op.parameters().axes))
    mean = isinstance(op, graph.ReduceMeanOp)
    reduction(s, op, {"count": count} if mean else {}, {"last": 1} if mean else {})


def reduction(s: Selector, op: Any, settled: Mapping[str, Any], open_: Mapping[str, Any]) -> None:
    """A launch over axes; those that alternate too often are transposed to the back first, in their order."""
    operation, axes = f"ppu.{op.name.partition('.')[2]}", tuple(sorted(set(op.parameters().axes)))
    keepdims, x, out = op.parameters().keepdims, s.buffer(op.input), shape_of(op.result)
    if of_nothing(s, op):
        return
    if runs.reduces_too_often(shape_of(op.input), axes):
        x = runs.as_rows(s, x, axes)
        axes, keepdims, out = (1,), False, (size_of(op.result),)
    settled = {"axes": axes, "keepdims": keepdims, **settled}
    write_as(s, op.result, out, lambda result: launch(s, operation, [x], result, settled, open_))


def _largest(s: Selector, x: SSAValue, shape: Sequence[int], element: Attribute, axis: int) -> SSAValue:
    maximum = s.alloc(reduced(shape, (axis,)), element)
    launch(s, "ppu.reduce_max", [x], maximum, {"axes": (axis,), "keepdims": True})
    return maximum


@selects(graph.ArgmaxOp)
def argmax(op: graph.ArgmaxOp, s: Selector) -> None:
    """One kernel, or the maximum and then its place."""
    p = op.parameters()
    if rows_fit(s, bytes_of(op.input, (p.axis,)), 8):
        s.launch(op)
        return
    x = s.buffer(op.input)
    maximum = _largest(s, x, shape_of(op.input), buffer_type(x).element, p.axis)
    launch(s, "ppu.index_of", [x, maximum], s.result(op.result), p, {"offset": 0})


@selects(graph.SoftmaxOp, reorders=True)
def softmax(op: graph.SoftmaxOp, s: Selector) -> None:
    """One kernel, or the maximum, the sum, and the quotient."""
    axis, row = op.parameters().axis, bytes_of(op.input, (op.parameters().axis,))
    if rows_fit(s, row, row):
        s.launch(op)
        return
    x, shape = s.buffer(op.input), shape_of(op.input)
    element = buffer_type(x).element
    maximum, total = _largest(s, x, shape, element, axis), s.alloc(reduced(shape, (axis,)), element)
    launch(s, "ppu.softmax_sum", [x, maximum], total, {"axis": axis})
    launch(s, "ppu.softmax_output", [x, maximum, total], s.result(op.result), {})


@selects(qnn.SoftmaxOp, qnn.Softmax16Op)
def quantised_softmax(op: qnn.SoftmaxOp | qnn.Softmax16Op, s: Selector) -> None:
    """One kernel, or the maximum, the sum, and the quotient."""
    shape = shape_of(op.input)
    axis = len(shape) - 1
    if rows_fit(s, bytes_of(op.input, (axis,)), bytes_of(op.result, (axis,))):
        s.launch(op)
        return
    x, p = s.buffer(op.input), op.parameters()
    maximum = _largest(s, x, shape, buffer_type(x).element, axis)
    total = s.alloc(reduced(shape, (axis,)), i32)
    kernel = "ppu.softmax16" if isinstance(op, qnn.Softmax16Op) else "ppu.quantised_softmax"
    launch(s, f"{kernel}_sum", [x, maximum], total, {**p, "axis": axis})
    launch(s, f"{kernel}_output", [x, maximum, total], s.result(op.result), p)


@selects(graph.LayerNormOp)
def layer_norm(op: graph.LayerNormOp, s: Selector) -> None:
    """One kernel, or the mean, the variance, and the result."""
    p, shape = op.parameters(), shape_of(op.input)
    axes = tuple(range(p.axis, len(shape)))
    row = bytes_of(op.input, axes)
    x, vectors = s.buffer(op.input), [s.buffer(v) for v in (op.scale, op.bias) if v is not None]
    sides = (slice(p.axis), slice(p.axis, None))
    aligned = [(1,) * (len(shape) - len(buffer_type(v).shape)) + buffer_type(v).shape for v in vectors]
    if any(runs.runs(shape[side], *(v[side] for v in aligned)) > runs.ROWS for side in sides):
        vectors = [runs.in_full(s, v, shape) for v in vectors]
    bytes_ = (math.prod(buffer_type(v).shape) * itemsize(buffer_type(v).element) for v in vectors)
    if rows_fit(s, row, row, *(min(n, row) for n in bytes_)):
        s.start(op.name, [x, *vectors], [s.result(op.result)], p)
        return
    element, count = buffer_type(x).element, math.prod(shape[p.axis :])
    mean, variance = (s.alloc(reduced(shape, axes), element) for _ in range(2))
    settled = {"axes": axes, "count": count}
    launch(s, "ppu.reduce_mean", [x], mean, {**settled, "keepdims": True}, {"last": 1})
    launch(s, "ppu.variance", [x, mean], variance, settled, {"last": 1})
    launch(s, "ppu.normalise", [x, mean, variance, *vectors], s.result(op.result), {"epsilon": p.epsilon})


# --- moves -----------------------------------------------------------------------------------------------
@selects(graph.BroadcastOp)
def broadcast(op: graph.BroadcastOp, s: Selector) -> None:
    """Each tile is repeated from what it needs of the input."""
    *before, _ = runs.stages(shape_of(op.input), shape_of(op.result))
    source = runs.through(s, s.buffer(op.input), before)
    launch(s, "ppu.broadcast", [source], s.result(op.result), {})


BINARY = [op for op in graph.OPS if issubclass(op, graph.BinaryOp) and op not in (graph.MinOp, graph.MaxOp)]
"""Operators of two operands; the smaller and the larger of integers are the fabric's."""


@selects(*BINARY, graph.CompareOp, graph.SelectOp, reorders=True)
def elementwise(op: graph.BinaryOp | graph.CompareOp | graph.SelectOp, s: Selector) -> None:
    """A kernel, on operands that it walks together."""
    operands = runs.walkable(s, [s.buffer(v) for v in op.operands], shape_of(op.result))
    s.start(op.name, operands, [s.result(op.result)], op.parameters())


def permute(
    s: Selector, source: SSAValue, value: SSAValue, shape: Sequence[int], permutation: Sequence[int]
) -> None:
    """A transpose into a value's buffer; axes that stay together are one where the source has no gaps."""
    if npu.dense_layout(source) is None:
        s.emit(npu.TransposeOp, {"src": source, "dst": s.result(value)}, permutation=tuple(permutation))
        return
    sizes, order = joined(shape, permutation)
    source = s.reshape(source, sizes)

    def emit(dst: SSAValue) -> None:
        s.emit(npu.TransposeOp, {"src": source, "dst": dst}, permutation=order)

    write_as(s, value, [sizes[a] for a in order], emit)


def joined(shape: Sequence[int], permutation: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shape and permutation without axes of size 1, and with neighbours that stay neighbours as one axis."""
    runs: list[list[int]] = []
    for axis in permutation:
        if shape[axis] == 1:
            continue
        if runs and all(shape[a] == 1 for a in range(runs[-1][-1] + 1, axis)) and axis > runs[-1][-1]:
            runs[-1].append(axis)
        else:
            runs.append([axis])
    if not runs:
        return (1,), (0,)
    first = sorted(range(len(runs)), key=lambda i: runs[i][0])
    sizes = tuple(math.prod(shape[a] for a in runs[i]) for i in first)
    return sizes, tuple(first.index(i) for i in range(len(runs)))


@selects(graph.DepthToSpaceOp)
def depth_to_space(op: graph.DepthToSpaceOp, s: Selector) -> None:
    """A transpose of six axes."""
    (n, h, w, c), p = shape_of(op.ifm), op.parameters()
    b, depth = p.block, c // p.block**2
    dcr = p.order == "DCR"
    shape = (n, h, w, b, b, depth) if dcr else (n, h, w, depth, b, b)
    permute(s, read_as(s, op.ifm, shape), op.ofm, shape, (0, 1, 3, 2, 4, 5) if dcr else (0, 1, 4, 2, 5, 3))


@selects(graph.SpaceToDepthOp)
def space_to_depth(op: graph.SpaceToDepthOp, s: Selector) -> None:
    """A transpose of six axes."""
    (n, h, w, c), b = shape_of(op.ifm), op.parameters().block
    shape = (n, h // b, b, w // b, b, c)
    permute(s, read_as(s, op.ifm, shape), op.ofm, shape, (0, 1, 3, 2, 4, 5))


def backwards(op: graph.SliceOp, s: Selector) -> None:
    """A view with positive steps, then its axes turned round."""
    p = op.parameters()
    axes = tuple(i for i, step in enumerate(p.steps) if step < 0)
    low = tuple(min(a, a + (n - 1) * t) for a, n, t in zip(p.starts, p.sizes, p.steps))
    part = s.view(s.buffer(op.input), low, p.sizes, tuple(abs(t) for t in p.steps))
    *before, last = runs.in_turns(axes, len(p.sizes))
    for turned in before:
        here, part = part, s.alloc(p.sizes, buffer_type(part).element)
        launch(s, "ppu.flip", [here], part, {"axes": turned})
    launch(s, "ppu.flip", [part], s.result(op.result), {"axes": last})


def fabric_pads(op: graph.PadOp) -> bool:
    """Whether the fabric's pad does: constants that are whole numbers."""
    p, element = op.parameters(), element_type(op.result)
    if p.mode != "constant" or not float(p.value).is_integer() or abs(p.value) >= 2**31:
        return False
    return isinstance(element, QuantType) or (element != i1 and math.copysign(1, p.value) > 0)


def pad(op: graph.PadOp, s: Selector) -> None:
    """Reflections, repeated edges, and other floats."""
    p, out, source = op.parameters(), shape_of(op.result), s.buffer(op.input)
    shape = shape_of(op.input)
    axes = [a for a, low in enumerate(p.low) if low or shape[a] != out[a]]
    *before, last = runs.in_turns(axes, len(out))
    for turn in (*before, last):
        here = tuple(out[a] if a in turn else n for a, n in enumerate(shape))
        low = tuple(n if a in turn else 0 for a, n in enumerate(p.low))
        settled = {"low": low, "mode": p.mode, "value": p.value, "shape": shape}
        made = s.result(op.result) if turn == last else s.alloc(here, buffer_type(source).element)
        launch(s, "ppu.pad", [source], made, settled, {"place": tuple(v for n in here for v in (0, n, 0))})
        source, shape = made, here


RUNS = 4096
"""Copies that a gather of constant indices may become, from data that do not fit;"""
FEW_RUNS = 8
"""and from data that do."""


@selects(graph.GatherOp)
def gather(op: graph.GatherOp, s: Selector) -> None:
    """Copies of views where the indices are known; else a kernel that looks through the data in pieces."""
    axis, shape, indices = op.parameters().axis, shape_of(op.data), constant_of(op.indices)
    size = shape[axis]
    runs: list[tuple[int, int, int]] = []
    if indices is not None and indices.size and -size <= indices.min() <= indices.max() < size:
        runs = runs_of(np.where(indices < 0, indices + size, indices).ravel())
    # Data of which a few rows fit is looked through at once; of larger data, the rows that are wanted are
    # copied.
    if 0 < len(runs) <= (FEW_RUNS if rows_fit(s, 2 * bytes_of(op.data, (axis,))) else RUNS):
        flat = (*shape[:axis], size_of(op.indices), *shape[axis + 1 :])
        write_as(s, op.result, flat, lambda out: _copy_runs(s, s.buffer(op.data), out, axis, runs))
        return
    settled = {"axis": axis, "size": size}
    inputs = [s.buffer(op.data), s.buffer(op.indices)]
    launch(s, "ppu.gather", inputs, s.result(op.result), settled, {"offset": 0})


def runs_of(indices: np.ndarray) -> list[tuple[int, int, int]]:
    """Indices as runs of equal positive steps: (first, number, step)."""
    runs: list[tuple[int, int, int]] = []
    for index in indices.tolist():
        if runs:
            first, count, step = runs[-1]
            ahead = index - (first + (count - 1) * step)
            if ahead > 0 and (count == 1 or ahead == step):
                runs[-1] = (first, count + 1, ahead)
                continue
        runs.append((index, 1, 1))
    return runs


def _copy_runs(
    s: Selector, data: SSAValue, out: SSAValue, axis: int, runs: Sequence[tuple[int, int, int]]
) -> None:
    shape, at = buffer_type(data).shape, 0

    def along(value: int, others: Sequence[int]) -> tuple[int, ...]:
        return (*others[:axis], value, *others[axis + 1 :])

    zeros, ones = (0,) * len(shape), (1,) * len(shape)
    for first, count, step in runs:
        src = s.view(data, along(first, zeros), along(count, shape), along(step, ones))
        s.emit(npu.CopyOp, {"src": src, "dst": s.view(out, along(at, zeros), along(count, shape))})
        at += count
