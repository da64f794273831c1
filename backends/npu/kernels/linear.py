"""Launches of linear.cl: matrix products and convolutions, with the order of sums that every tiling keeps."""

from __future__ import annotations

import math

from ....passes.npu.soft_kernels import Arguments, Build, Call, Defines, Library
from .coalesce import BATCHES, Group, at_most, broadcast_strides, coalesced
from .pool import window_steps

LIBRARY = Library(__package__)


def with_bias(build: Build) -> Defines:
    """BIAS where there is a third operand."""
    return {"BIAS": 1} if len(build.inputs) == 3 else {}


def of_window(build: Build) -> Defines:
    """Strides and dilations of a window, and BIAS."""
    return {**window_steps(build), **with_bias(build)}


@LIBRARY.kernel("ppu.matmul", "linear.cl", defines=with_bias, partial=True)
def matmul(call: Call) -> Arguments:
    """The batch and the rows of a as few groups; the innermost is the grid's dimension 1 if it shares b."""
    a, b = call.inputs[:2]
    (out,) = call.outputs
    batch, depth, columns = out[:-2], a[-1], b[-1]
    by_a = (*(s * out[-2] * depth for s in broadcast_strides(a[:-2], batch)), depth)
    by_b = (*(s * depth * columns for s in broadcast_strides(b[:-2], batch)), 0)
    groups = coalesced(out[:-1], by_a, by_b)
    shares = groups and groups[-1].strides[1] == 0
    rows = groups.pop() if shares else Group(1, (0, 0))
    outer = at_most(BATCHES, groups, 2, "the batch of a matrix product")
    sizes = tuple(g.size for g in outer)
    steps = (*(g.strides[0] for g in outer), *(g.strides[1] for g in outer))
    scalars = (depth, rows.strides[0], *sizes[1:], *steps, int(call.resumed))
    return Arguments(scalars, (columns, rows.size, math.prod(sizes)))


def window(call: Call, top: int, left: int) -> Arguments:
    """Filters, columns, and the rows of all images."""
    _, height, width, channels = call.inputs[0]
    taps_h, taps_w = call.inputs[1][:2]
    ((images, rows, columns, filters),) = call.outputs
    scalars = (height, width, channels, taps_h, taps_w, top, left, rows, int(call.resumed))
    return Arguments(scalars, (filters, columns, images * rows))


@LIBRARY.kernel("ppu.conv", "linear.cl", defines=of_window, partial=True)
@LIBRARY.kernel("ppu.depthwise", "linear.cl", defines=of_window, partial=True)
def conv(call: Call) -> Arguments:
    """`pads` are the tile's own; those behind it only tell how many outputs there are."""
    return window(call, *call.parameters.pads[:2])


@LIBRARY.kernel("ppu.conv_transpose", "linear.cl", defines=of_window, partial=True)
def conv_transpose(call: Call) -> Arguments:
    """`origin` is the first output seen from the first input; `size` the number of outputs, which the buffer tells."""
    return window(call, *call.parameters.origin)
