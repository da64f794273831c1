"""The tile rules of launches over space: convolutions and pools of floats, resizing, padding."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...dialects import npu_instructions as npu
from ...dialects.declarative import Parameters
from ...runtime.kernels.graph_resize import NEAREST, source_coordinates
from ...runtime.kernels.quantised_pool import float_places
from ...runtime.machine import Machine
from .launch_tile_rules import element, ends, launch_tiles, shapes
from .tile_rules import Axis
from .tiling import Box, Interval, Piece, Tiling


def _axes(
    p: Parameters, pads: tuple[int, ...], source: tuple[int, ...], kernel: tuple[int, ...]
) -> list[Axis]:
    fields: dict[str, Any] = {
        "stride_h": p.strides[0], "stride_w": p.strides[1], "dilation_h": p.dilations[0],
        "dilation_w": p.dilations[1], "pad_top": pads[0], "pad_left": pads[1], "pad_bottom": pads[2],
        "pad_right": pads[3],
    }  # fmt: skip
    return [Axis(fields, letter, source[1 + i], kernel[i]) for i, letter in enumerate("hw")]


def _lanes(box: Box, machine: Machine) -> int:
    return -(-math.prod(n for _, n in box) // machine.ppu_lanes)


# --- convolutions ----------------------------------------------------------------------------------------
@launch_tiles("ppu.conv")
def conv(op: npu.LaunchOp, p: Parameters) -> Tiling:
    """N, H', W', M; reduced: C, KH, KW."""
    (source, weight, *bias), (out,) = shapes(op)
    rows, cols = _axes(p, p.pads, source, weight[:2])

    def piece(box: Box) -> Piece:
        n, h, w, m, c, taps_h, taps_w = box
        high, wide = rows.inputs(h, taps_h), cols.inputs(w, taps_w)
        ifm: Box = (n, high.interval, wide.interval, c)
        boxes: list[Box] = [ifm, (taps_h, taps_w, c, m), *((m,) for _ in bias)]
        pads = (high.before, wide.before, high.after, wide.after)
        return Piece({"inputs": boxes, "outputs": [(n, h, w, m)]}, {"open": pads})

    extents = (*out, weight[2], *weight[:2])
    return Tiling(op, extents, piece, reduced=3, output="outputs", acc=element(op), macs=_lanes)


@launch_tiles("ppu.depthwise")
def depthwise(op: npu.LaunchOp, p: Parameters) -> Tiling:
    """N, H', W', C · M; reduced: KH, KW."""
    (source, weight, *bias), (out,) = shapes(op)
    rows, cols = _axes(p, p.pads, source, weight[:2])
    filters = out[3] // source[3]

    def piece(box: Box) -> Piece:
        n, h, w, m, taps_h, taps_w = box
        high, wide = rows.inputs(h, taps_h), cols.inputs(w, taps_w)
        c = (m[0] // filters, m[1] // filters)
        ifm: Box = (n, high.interval, wide.interval, c)
        boxes: list[Box] = [ifm, (taps_h, taps_w, (0, 1), m), *((m,) for _ in bias)]
        pads = (high.before, wide.before, high.after, wide.after)
        return Piece({"inputs": boxes, "outputs": [(n, h, w, m)]}, {"open": pads})

    return Tiling(
        op, (*out, *weight[:2]), piece, reduced=2, output="outputs", acc=element(op), macs=_lanes,
        step={3: filters},
    )  # fmt: skip


@launch_tiles("ppu.conv_transpose")
def conv_transpose(op: npu.LaunchOp, p: Parameters) -> Tiling:
    """N, H', W', M; reduced: C, KH, KW."""
    (source, weight, *bias), (out,) = shapes(op)
    pads = p.origin

    def met(axis: int, results: Interval, taps: Interval) -> tuple[Interval, int]:
        """The inputs i with i · stride + k · dilation = o + pad for such outputs o and taps k."""
        stride, dilation = p.strides[axis], p.dilations[axis]
        low = results[0] + pads[axis] - (taps[0] + taps[1] - 1) * dilation
        high = results[0] + results[1] - 1 + pads[axis] - taps[0] * dilation
        start, stop = max(-(-low // stride), 0), min(high // stride + 1, source[1 + axis])
        start = min(start, source[1 + axis])
        origin = results[0] + pads[axis] - start * stride - taps[0] * dilation
        return (start, max(stop - start, 0)), origin

    def piece(box: Box) -> Piece:
        n, h, w, m, c, taps_h, taps_w = box
        (high, top), (wide, left) = met(0, h, taps_h), met(1, w, taps_w)
        boxes: list[Box] = [(n, high, wide, c), (taps_h, taps_w, c, m), *((m,) for _ in bias)]
        return Piece({"inputs": boxes, "outputs": [(n, h, w, m)]}, {"open": (top, left, h[1], w[1])})

    def cycles(box: Box, machine: Machine) -> int:
        return _lanes(box, machine) // math.prod(p.strides)

    extents = (*out, weight[2], *weight[:2])
    return Tiling(op, extents, piece, reduced=3, output="outputs", acc=element(op), macs=cycles)


# --- pools -----------------------------------------------------------------------------------------------
@launch_tiles("ppu.max_pool", "ppu.avg_pool")
def pool(op: npu.LaunchOp, p: Parameters) -> Tiling:
    """N, H', W', C; reduced: KH, KW."""
    (source,), (out,) = shapes(op)
    kernel, pads = p.kernel, p.pads
    rows, cols = _axes(p, pads, source, kernel)
    extents = (*out, *kernel)
    average = "window" in p

    def piece(box: Box) -> Piece:
        n, h, w, c, taps_h, taps_w = box
        high, wide = rows.inputs(h, taps_h), cols.inputs(w, taps_w)
        scalars: tuple[int, ...] = (taps_h[1], taps_w[1], high.before, wide.before, high.after, wide.after)
        if average:
            scalars = (*scalars, h[0], w[0], ends(box, extents, 2))
        boxes: list[Box] = [(n, high.interval, wide.interval, c)]
        return Piece({"inputs": boxes, "outputs": [(n, h, w, c)]}, {"open": scalars})

    return Tiling(op, extents, piece, reduced=2, output="outputs", acc=element(op), macs=_lanes)


# --- resampling and padding ------------------------------------------------------------------------------
def _span(index: np.ndarray) -> Interval:
    """The stretch that holds all indices."""
    low = int(index.min())
    return low, int(index.max()) - low + 1


@launch_tiles("ppu.resize")
def resize(op: npu.LaunchOp, p: Parameters) -> Tiling:
    """Every axis of the result; the taps say which inputs a stretch of them needs."""
    return _resample(op, [taps_of(p, axis) for axis in range(len(p.sizes))])


def taps_of(p: Parameters, axis: int) -> np.ndarray:
    """Which inputs each output of a spatial axis takes: [taps, out]."""
    size, out, scale = p.inputs[axis], p.sizes[axis], p.scales[axis] if p.scales else None
    factor = np.float32(out) / np.float32(size) if scale is None else np.float32(scale)
    at = source_coordinates(p.coordinates, size, out, factor)
    if p.mode == "nearest":
        return np.clip(NEAREST[p.nearest](at).astype(np.int64), 0, size - 1)[None]
    if out == size and factor == 1:
        return np.arange(out)[None]
    base = np.floor(np.clip(at, 0, size - 1) if p.mode == "linear" else at).astype(np.int64)
    before, taps = (0, 2) if p.mode == "linear" else (1, 4)
    return np.clip(base - before + np.arange(taps)[:, None], 0, size - 1)


@launch_tiles("ppu.resize_float")
def resize_float(op: npu.LaunchOp, p: Parameters) -> Tiling:
    """Every axis of the result; so do the neighbours."""
    places = [float_places(p.inputs[a], p.sizes[a], p.align_corners, p.half_pixel) for a in range(2)]
    return _resample(op, [np.stack([low, high]) for low, high, _ in places])


def _resample(op: npu.LaunchOp, index: list[np.ndarray]) -> Tiling:
    """`index` [taps, out] of each spatial axis: the inputs that each output takes."""
    _, (out,) = shapes(op)

    def piece(box: Box) -> Piece:
        needed = [_span(i[:, o : o + n]) for i, (o, n) in zip(index, box[1:-1])]
        place = [v for (o, n), (first, _) in zip(box[1:-1], needed) for v in (o, n, first)]
        return Piece({"inputs": [(box[0], *needed, box[-1])], "outputs": [box]}, {"open": tuple(place)})

    return Tiling(op, out, piece, output="outputs")


def source_of(at: np.ndarray, low: int, size: int, mode: str) -> np.ndarray:
    """Which input an output of a reflecting or edge-repeating pad takes along an axis."""
    index = at - low
    if mode == "edge":
        return np.clip(index, 0, size - 1)
    return size - 1 - np.abs(size - 1 - np.abs(index))


@launch_tiles("ppu.pad")
def pad(op: npu.LaunchOp, p: Parameters) -> Tiling:
    """Every axis of the result."""
    _, (out,) = shapes(op)

    def needed(axis: int, part: Interval) -> Interval:
        low, size = p.low[axis], p.shape[axis]
        if p.mode != "constant":
            return _span(source_of(np.arange(part[0], part[0] + part[1]), low, size, p.mode))
        first, last = min(max(part[0] - low, 0), size), min(max(part[0] + part[1] - low, 0), size)
        return first, last - first

    def piece(box: Box) -> Piece:
        source = tuple(needed(i, part) for i, part in enumerate(box))
        place = [v for (o, n), (first, _) in zip(box, source) for v in (o, n, first)]
        return Piece({"inputs": [source], "outputs": [box]}, {"open": tuple(place)})

    return Tiling(op, out, piece, output="outputs")
