"""How operations that only move elements become views, copies, instructions of the fabric, and launches."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from xdsl.dialects.builtin import i1
from xdsl.ir import SSAValue

from ...dialects import graph
from ...dialects import npu_instructions as npu
from ...dialects.graph import constant_of
from ...dialects.npu import buffer_type
from ...dialects.quant import QuantType
from ...dialects.types import element_type, shape_of, size_of
from . import runs
from .decompose import bytes_of, launch, read_as, rows_fit, write_as
from .select import Selector, selects


# --- views ---------------------------------------------------------------------------------------------
@selects(graph.ReshapeOp)
def reshape(op: graph.ReshapeOp, s: Selector) -> None:
    """The same bytes."""
    s.alias(op.result, s.reshape(s.dense(op.input), shape_of(op.result)))


@selects(graph.SliceOp)
def slice_(op: graph.SliceOp, s: Selector) -> None:
    """A view; backward steps are copied by the programmable engine."""
    p = op.parameters()
    if min(p.steps, default=1) < 1 and size_of(op.result):
        backwards(op, s)
        return
    if size_of(op.result) == 0:
        s.result(op.result)
        return
    s.alias(op.result, s.view(s.buffer(op.input), p.starts, p.sizes, p.steps))


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


@selects(graph.SplitOp)
def split(op: graph.SplitOp, s: Selector) -> None:
    """Views."""
    p, offset = op.parameters(), 0
    whole = s.buffer(op.input)
    for part, size in zip(op.parts, p.sizes):
        shape = shape_of(part)
        s.alias(part, s.view(whole, tuple(offset if i == p.axis else 0 for i in range(len(shape))), shape))
        offset += size


@selects(graph.ConcatOp)
def concat(op: graph.ConcatOp, s: Selector) -> None:
    """Inputs that were not written in place are copied."""
    whole, axis, offset = s.result(op.result), op.parameters().axis, 0
    for value in op.inputs:
        shape = shape_of(value)
        if s.in_place.get(value) != (op, offset) and size_of(value):
            place = s.view(whole, tuple(offset if i == axis else 0 for i in range(len(shape))), shape)
            s.emit(npu.CopyOp, {"src": s.buffer(value), "dst": place})
        offset += shape[axis]


# --- transposes and repeats ----------------------------------------------------------------------------
@selects(graph.TransposeOp)
def transpose(op: graph.TransposeOp, s: Selector) -> None:
    """A strided copy on the fabric."""
    permute(s, s.buffer(op.input), op.result, shape_of(op.input), op.parameters().permutation)


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


@selects(graph.BroadcastOp)
def broadcast(op: graph.BroadcastOp, s: Selector) -> None:
    """Each tile is repeated from what it needs of the input."""
    *before, _ = runs.stages(shape_of(op.input), shape_of(op.result))
    source = runs.through(s, s.buffer(op.input), before)
    launch(s, "ppu.broadcast", [source], s.result(op.result), {})


# --- padding -------------------------------------------------------------------------------------------
@selects(graph.PadOp)
def pad(op: graph.PadOp, s: Selector) -> None:
    """Constant padding of integers; other kinds are the programmable engine's."""
    p = op.parameters()
    if not fabric_pads(op):
        pad_by_kernel(op, s)
        return
    ports = {"src": s.buffer(op.input), "dst": s.result(op.result)}
    s.emit(npu.PadOp, ports, low=p.low, value=int(p.value))


def fabric_pads(op: graph.PadOp) -> bool:
    """Whether the fabric's pad does: constants that are whole numbers."""
    p, element = op.parameters(), element_type(op.result)
    if p.mode != "constant" or not float(p.value).is_integer() or abs(p.value) >= 2**31:
        return False
    return isinstance(element, QuantType) or (element != i1 and math.copysign(1, p.value) > 0)


def pad_by_kernel(op: graph.PadOp, s: Selector) -> None:
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


# --- gathering -----------------------------------------------------------------------------------------
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
