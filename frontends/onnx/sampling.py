"""Importers of grid sampling and of the places of a max pool, which are those of the largest element in each window."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from xdsl.ir import SSAValue

from ...dialects import graph
from ...dialects.graph_index import PADDINGS
from ...dialects.types import element_type, f32, shape_of
from .movement import reshape_to
from .node import Node
from .registry import Unsupported, Value, importer

SAMPLINGS = {
    "bilinear": "linear", "linear": "linear", "nearest": "nearest", "bicubic": "cubic", "cubic": "cubic",
}  # fmt: skip
"""graph's names of the interpolations; they were bilinear and bicubic before opset 20."""


@importer("GridSample", since=16)
def grid_sample(node: Node) -> Value:
    """Channels are last here."""
    value, grid = node.operand(0), node.operand(1)
    rank, mode, padding = len(shape_of(value)), node.attribute("mode"), node.attribute("padding_mode")
    if rank != 4:
        raise Unsupported(f"{rank - 2}-D GridSample is not supported, only 2-D ([N, C, H, W])")
    if mode not in SAMPLINGS or padding not in PADDINGS:
        raise Unsupported(
            f"mode '{mode}' with padding_mode '{padding}': the modes are {', '.join(SAMPLINGS)}, "
            f"the paddings {', '.join(PADDINGS)}"
        )
    if element_type(value) != f32 or element_type(grid) != f32:
        raise Unsupported(f"it samples {element_type(value)} at {element_type(grid)}, and floats are supported only")
    ifm = node.emit(graph.TransposeOp, value, permutation=(0, 2, 3, 1))
    ofm = node.emit(
        graph.GridSampleOp, ifm, grid, mode=SAMPLINGS[mode], padding=padding,
        align_corners=bool(node.attribute("align_corners")),
    )  # fmt: skip
    return node.emit(graph.TransposeOp, ofm, permutation=(0, 3, 1, 2))


@importer("AffineGrid", since=20)
def affine_grid(node: Node) -> Value:
    """Known places of pixels (x, y, 1), or (x, y, z, 1), times the transposed transformation of each image."""
    theta = node.operand(0)
    n, _, *sizes = (int(d) for d in node.constant(1, "the size"))
    rank = len(sizes)
    if rank not in (2, 3) or shape_of(theta) != (n, rank, rank + 1):
        raise Unsupported(f"transformations {list(shape_of(theta))} do not fit {n} images of {sizes}")
    if node.attribute("align_corners"):
        axes = [np.linspace(-1, 1, d) if d > 1 else np.zeros(1) for d in sizes]
    else:
        axes = [(2 * np.arange(d) + 1) / d - 1 for d in sizes]
    grids = np.meshgrid(*axes, indexing="ij")[::-1]  # x is the last axis
    places = np.stack([*grids, np.ones(sizes)], -1).reshape(-1, rank + 1).astype(np.float32)
    turned = node.emit(graph.TransposeOp, theta, permutation=(0, 2, 1))
    return reshape_to(node, node.emit(graph.MatmulOp, places, turned), (n, *sizes, rank))


TAPS = 64
"""Elements of a window up to which the places of a max pool are found: each is a slice of the image."""


def pooled_places(
    node: Node, kernel: tuple[int, ...], strides: tuple[int, ...], pads: tuple[int, ...], dilations: tuple[int, ...]
) -> SSAValue:
    """Row-major places in [N, C, …] of the largest elements in windows over the axes behind C; the first of several."""
    value = node.operand(0)
    n, channels, *sizes = shape_of(value)
    rank, taps = len(sizes), math.prod(kernel)
    if taps > TAPS:
        raise Unsupported(f"its output 'Indices' is used, and found for windows of up to {TAPS} elements, not {taps}")
    if node.attribute("storage_order", 0):
        raise Unsupported("its output 'Indices' is in column-major order (storage_order 1), which is not supported")
    if element_type(value) != f32:
        raise Unsupported(f"its output 'Indices' is found for floats only, not for {element_type(value)}")
    if any(pads):
        low, high = (0, 0, *pads[:rank]), (0, 0, *pads[rank:])
        value = node.emit(graph.PadOp, value, low=low, high=high, value=-math.inf)
    padded = shape_of(value)[2:]
    counts = [(d - dl * (k - 1) - 1) // s + 1 for d, dl, k, s in zip(padded, dilations, kernel, strides)]
    shape, offsets, parts = (n, channels, *counts), [], []
    for tap in np.ndindex(*kernel):
        start = [t * dl for t, dl in zip(tap, dilations)]
        part = node.emit(
            graph.SliceOp, value, starts=(0, 0, *start), sizes=shape, steps=(1, 1, *strides)
        )
        parts.append(reshape_to(node, part, (1, *shape)))
        offsets.append(flat(start, sizes))
    best = node.emit(graph.ArgmaxOp, node.emit(graph.ConcatOp, *parts, axis=0), axis=0, keepdims=False)
    offset = node.emit(graph.GatherOp, np.array(offsets, np.int64), best, axis=0)
    first = [s * np.arange(c) - p for s, c, p in zip(strides, counts, pads)]
    lead = [np.arange(d) for d in (n, channels)]
    grids = np.meshgrid(*lead, *first, indexing="ij")
    return node.emit(graph.AddOp, offset, np.asarray(flat(grids, (n, channels, *sizes)), np.int64))


def flat(places: Sequence[Any], sizes: Sequence[int]) -> Any:
    """Row-major places of coordinates, numbers or arrays, which may lie outside until offsets are added."""
    total = 0
    for at, size in zip(places, sizes):
        total = total * size + at
    return total
