"""The tile rules of launches along axes: reductions, softmax, normalisations, matrix products, gathers."""

from __future__ import annotations

import math

from ...dialects import graph, qnn
from ...dialects import npu_instructions as npu
from ...dialects.declarative import Parameters
from ...runtime.machine import Machine
from .launch_tile_rules import element, ends, kernel_named, launch_tiles, shapes
from .tiling import Box, Interval, Piece, Tiling, follow, halo


# --- rows that stay in one piece -------------------------------------------------------------------------
@launch_tiles(graph.SoftmaxOp, qnn.SoftmaxOp, qnn.Softmax16Op)
def rows(op: npu.LaunchOp, p: Parameters) -> Tiling:
    """Every axis but the one that is reduced and written again."""
    _, (out,) = shapes(op)
    axis = p["axis"] if "axis" in p else len(out) - 1

    def piece(box: Box) -> Piece:
        return Piece({"inputs": [box], "outputs": [box]}, {})

    return Tiling(op, out, piece, whole=frozenset({axis}), output="outputs")


@launch_tiles(graph.LayerNormOp)
def layer_norm(op: npu.LaunchOp, p: Parameters) -> Tiling:
    """Every axis in front of the normalised ones."""
    inputs, (out,) = shapes(op)

    def piece(box: Box) -> Piece:
        return Piece({"inputs": [follow(box, s) for s in inputs], "outputs": [box]}, {})

    return Tiling(op, out, piece, whole=frozenset(range(p.axis, len(out))), output="outputs")


@launch_tiles(graph.ArgmaxOp)
def argmax(op: npu.LaunchOp, p: Parameters) -> Tiling:
    """Every axis of the result."""
    (source,), (out,) = shapes(op)

    def piece(box: Box) -> Piece:
        inner = box[p.axis + 1 :] if p.keepdims else box[p.axis :]
        return Piece({"inputs": [(*box[: p.axis], (0, source[p.axis]), *inner)], "outputs": [box]}, {})

    return Tiling(op, out, piece, output="outputs")


# --- reductions ------------------------------------------------------------------------------------------
@launch_tiles(
    "ppu.reduce_sum", "ppu.reduce_mean", "ppu.reduce_max", "ppu.reduce_min", "ppu.variance",
    "ppu.softmax_sum", "ppu.quantised_softmax_sum", "ppu.softmax16_sum", "ppu.index_of",
)  # fmt: skip
def reduce(op: npu.LaunchOp, p: Parameters) -> Tiling:
    """The result's axes; reduced: those that the kernel goes over, in order."""
    (source, *others), (out,) = shapes(op)
    axes = p["axes"] if "axes" in p else (p["axis"],)
    kept = len(out) == len(source)
    extents = (*out, *(source[a] for a in axes))
    open_ = kernel_named(op, op.fields()["kernel"]).open()

    def piece(box: Box) -> Piece:
        result, over = box[: len(out)], dict(zip(axes, box[len(out) :]))
        free = iter([b for i, b in enumerate(result) if i not in axes] if kept else result)
        x: Box = tuple(over[i] if i in over else next(free) for i in range(len(source)))
        small: Box = tuple((0, 1) if i in over else b for i, b in enumerate(x))
        known = {"offset": box[-1][0], "last": ends(box, extents, len(axes))}
        scalars = tuple(known[name] for name in open_)
        return Piece({"inputs": [x, *(small for _ in others)], "outputs": [result]}, {"open": scalars})

    return Tiling(op, extents, piece, reduced=len(axes), output="outputs", acc=element(op))


@launch_tiles("ppu.lrn")
def lrn(op: npu.LaunchOp, p: Parameters) -> Tiling:
    """Every axis; reduced: the window over the channels."""
    _, (out,) = shapes(op)
    extents = (*out, p.size)

    def piece(box: Box) -> Piece:
        *result, taps = box
        near = halo(result[-1], 1, (p.size - 1) // 2 - taps[0], taps[1], out[-1])
        boxes: list[Box] = [(*result[:-1], near.interval), tuple(result)]
        scalars = (taps[1], near.before, near.after, ends(box, extents, 1))
        return Piece({"inputs": boxes, "outputs": [tuple(result)]}, {"open": scalars})

    return Tiling(op, extents, piece, reduced=1, output="outputs", acc=element(op))


# --- products --------------------------------------------------------------------------------------------
@launch_tiles("ppu.matmul")
def matmul(op: npu.LaunchOp, p: Parameters) -> Tiling:
    """Batch…, M, N; reduced: K."""
    (a, b, *bias), (out,) = shapes(op)

    def piece(box: Box) -> Piece:
        batch, (m, n, k) = box[:-3], box[-3:]
        left, right = (*follow(batch, a[:-2]), m, k), (*follow(batch, b[:-2]), k, n)
        boxes: list[Box] = [left, right, *((n,) for _ in bias)]
        return Piece({"inputs": boxes, "outputs": [(*batch, m, n)]}, {})

    def cycles(box: Box, machine: Machine) -> int:
        return -(-math.prod(n for _, n in box) // machine.ppu_lanes)

    return Tiling(op, (*out, a[-1]), piece, reduced=1, output="outputs", acc=element(op), macs=cycles)


@launch_tiles("ppu.gather")
def gather(op: npu.LaunchOp, p: Parameters) -> Tiling:
    """The result's axes; reduced: the axis of the data that the indices choose from."""
    (data, indices), (out,) = shapes(op)
    stop = p.axis + len(indices)

    def piece(box: Box) -> Piece:
        result, part = box[:-1], box[-1]
        boxes: list[Box] = [(*result[: p.axis], part, *result[stop:]), result[p.axis : stop]]
        return Piece({"inputs": boxes, "outputs": [result]}, {"open": (part[0],)})

    return Tiling(op, (*out, data[p.axis]), piece, reduced=1, output="outputs", acc=element(op))


# --- moves -----------------------------------------------------------------------------------------------
@launch_tiles("ppu.flip")
def flip(op: npu.LaunchOp, p: Parameters) -> Tiling:
    """Every axis."""
    _, (out,) = shapes(op)

    def piece(box: Box) -> Piece:
        source: list[Interval] = [
            (out[i] - o - n, n) if i in p.axes else (o, n) for i, (o, n) in enumerate(box)
        ]
        return Piece({"inputs": [tuple(source)], "outputs": [box]}, {})

    return Tiling(op, out, piece, output="outputs")
