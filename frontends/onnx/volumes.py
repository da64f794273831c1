"""3-D convolution and pooling, in terms of the 2-D ones that graph has.

A convolution's taps along the depth become channels, its depths the batch. A pooling is one within the planes and
one along the depth: so is the mean, as the positions that count in a box are a product over the axes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from xdsl.ir import SSAValue

from ...dialects import graph
from ...dialects.declarative import DeclarativeOp
from ...dialects.types import shape_of
from .movement import reshape_to
from .node import Node
from .windows import Window, channels_last

DEPTH, PLANE = (0,), (1, 2)


def part_of(window: Window, axes: Sequence[int]) -> Window:
    """A 3-D window along some of its axes."""
    return Window(
        tuple(window.kernel[a] for a in axes),
        tuple(window.strides[a] for a in axes),
        tuple(window.pads[a + end] for end in (0, 3) for a in axes),
        tuple(window.dilations[a] for a in axes),
    )


# --- convolution -----------------------------------------------------------------------------------------
def conv_3d(node: Node, window: Window) -> SSAValue:
    """[N, C, D, H, W] -> [N, M, D', H', W']: a 2-D convolution of [N · D', C · taps, H, W]."""
    taps, plane = depth_taps(node, node.operand(0), part_of(window, DEPTH)), part_of(window, PLANE)
    n, depth, channels, count, h, w = shape_of(taps)
    outputs, inputs, *kernel = node.shape(1)
    result = channels_last(
        node, graph.ConvOp, reshape_to(node, taps, (n * depth, channels * count, h, w)),
        plane_weight(node, (outputs, inputs * kernel[0], *kernel[1:])), node.optional(2),
        strides=plane.strides, pads=plane.pads, dilations=plane.dilations, groups=node.attribute("group"),
    )  # fmt: skip
    planes = reshape_to(node, result, (n, depth, *shape_of(result)[1:]))
    return node.emit(graph.TransposeOp, planes, permutation=(0, 2, 1, 3, 4))


def depth_taps(node: Node, ifm: SSAValue, window: Window) -> SSAValue:
    """[N, C, D, H, W] -> [N, D', C, taps, H, W]: the planes under each position of a window along the depth."""
    (count,), (stride,), (before, after), (dilation,) = window
    if before or after:
        ifm = node.emit(graph.PadOp, ifm, low=(0, 0, before, 0, 0), high=(0, 0, after, 0, 0))
    n, channels, size, h, w = shape_of(ifm)
    depth = (size - window.reach(0)) // stride + 1
    parts = [
        node.emit(
            graph.SliceOp, ifm, starts=(0, 0, tap * dilation, 0, 0), sizes=(n, channels, depth, h, w),
            steps=(1, 1, stride, 1, 1),
        )
        for tap in range(count)
    ]  # fmt: skip
    taps = [reshape_to(node, part, (n, channels, 1, depth, h, w)) for part in parts]
    joined = taps[0] if count == 1 else node.emit(graph.ConcatOp, *taps, axis=2)
    return node.emit(graph.TransposeOp, joined, permutation=(0, 3, 1, 2, 4, 5))


def plane_weight(node: Node, shape: tuple[int, ...]) -> SSAValue:
    """The weight [M, C, taps, H, W] as `shape` [M, C · taps, H, W], in graph's order of axes."""
    array = node.array(1)
    order = (2, 3, 1, 0)
    if array is not None:
        return node.literal(np.reshape(array, shape).transpose(order), node.input_name(1))
    return node.emit(graph.TransposeOp, reshape_to(node, node.operand(1), shape), permutation=order)


# --- pooling ---------------------------------------------------------------------------------------------
def pool_3d(
    node: Node, op: type[DeclarativeOp], window: Window, overhang: Sequence[int] = (0, 0, 0), **parameters: Any
) -> SSAValue:
    """[N, C, D, H, W] -> [N, C, D', H', W']: within the planes of [N, C · D, H, W], then over the rows of
    [N, C, D', H · W]. `overhang` as of graph.avg_pool, for each axis."""
    value = node.operand(0)
    n, channels, depth, *plane = shape_of(value)
    for axes in (PLANE, DEPTH):
        part, over = part_of(window, axes), [overhang[a] for a in axes]
        if math.prod(part.kernel) == math.prod(part.strides) == 1 and not any(part.pads):
            continue
        flat = (n, channels * depth, *plane) if axes == PLANE else (n, channels, depth, math.prod(plane))
        if axes == DEPTH:
            part, over = rows_of(part), [*over, 0]
        more = {**parameters, "overhang": over} if any(over) else parameters
        value = channels_last(node, op, reshape_to(node, value, flat), **part._asdict(), **more)
        sizes = shape_of(value)[2:]
        depth, plane = (depth, [*sizes]) if axes == PLANE else (sizes[0], plane)
        value = reshape_to(node, value, (n, channels, depth, *plane))
    return value


def rows_of(window: Window) -> Window:
    """A window along one axis as one over the rows of a plane."""
    (kernel,), (stride,), (before, after), (dilation,) = window
    return Window((kernel, 1), (stride, 1), (before, 0, after, 0), (dilation, 1))
