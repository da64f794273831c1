"""Importers of resizing and of blocks: resize, space and depth, space and batch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from xdsl.ir import SSAValue

from ...dialects import graph, qnn
from ...dialects.declarative import Parameters
from ...dialects.quant import QuantType
from ...dialects.types import shape_of, u8
from ...runtime.kernel import run_kernel
from ...runtime.kernels.quantised_pool import fixed_places, nearest_index
from .linear import image
from .node import Node
from .registry import Unsupported, tflite_importer
from .scales import positive

LONGEST_SIDE = 2**20
"""Of an image that is resized: the tables of neighbours are made at import."""


# --- resizing --------------------------------------------------------------------------------------------
@tflite_importer("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR")
def resize(node: Node) -> SSAValue:
    """Quantised, by tables of neighbours in TFLite's own coordinates."""
    _, *sizes, _ = image(node, 0)
    wanted = node.ints(1, "its size")
    align, half = bool(node.option("AlignCorners", False)), bool(node.option("HalfPixelCenters", False))
    if align and half:
        raise Unsupported("it aligns corners and has half-pixel centres, which exclude each other")
    if len(wanted) != 2 or min(*wanted, *sizes) < 1 or max(*wanted, *sizes) > LONGEST_SIDE:
        raise Unsupported(f"it resizes {sizes} to {list(wanted)}, not two sides of 1 … {LONGEST_SIDE} pixels")
    linear = node.kind == "RESIZE_BILINEAR"
    if not node.is_quantised():
        return float_resize(node, sizes, wanted, align, half)
    element = node.same_quantisation()
    if linear and element.storage == u8:
        return node.emit(
            qnn.ResizeFloatOp,
            node.operand(0),
            element=element,
            sizes=wanted,
            align_corners=align,
            half_pixel=half,
        )
    table = linear_table if linear else nearest_table
    rows, cols = (node.literal(table(size, out, align, half)) for size, out in zip(sizes, wanted))
    mode = "linear" if linear else "nearest"
    return node.emit(qnn.ResizeOp, node.operand(0), rows, cols, element=element, mode=mode)


def linear_table(size: int, out: int, align: bool, half: bool) -> np.ndarray:
    """int32 [out, 3]: lower neighbour, upper neighbour, weight of the upper in 1/1024."""
    return np.stack(fixed_places(size, out, align, half), axis=1).astype(np.int32)


def nearest_table(size: int, out: int, align: bool, half: bool) -> np.ndarray:
    """int32 [out, 3]: the neighbour, twice, and 0."""
    index = nearest_index(size, out, align, half)
    return np.stack([index, index, np.zeros_like(index)], axis=1).astype(np.int32)


def float_resize(node: Node, sizes: Sequence[int], wanted: Sequence[int], align: bool, half: bool) -> SSAValue:
    """A graph.resize; nearest neighbours that it would not choose are gathered."""
    coordinates = "align_corners" if align else "half_pixel" if half else "asymmetric"
    x = node.operand(0)
    if node.kind == "RESIZE_BILINEAR":
        return node.emit(graph.ResizeOp, x, sizes=wanted, mode="linear", coordinates=coordinates)
    nearest = "round_prefer_ceil" if align or half else "floor"
    made = graph.ResizeOp.make(x, sizes=wanted, mode="nearest", coordinates=coordinates, nearest=nearest)
    chosen = [nearest_index(size, out, align, half) for size, out in zip(sizes, wanted)]
    if all(picks(made, axis, size, index) for axis, (size, index) in enumerate(zip(sizes, chosen))):
        return node.append(made)
    made.drop_all_references()
    for axis, index in enumerate(chosen, start=1):
        x = node.emit(graph.GatherOp, x, node.literal(index.astype(np.int32)), axis=axis)
    return x


def picks(op: graph.ResizeOp, axis: int, size: int, index: np.ndarray) -> bool:
    """Whether a nearest-neighbour graph.resize takes the inputs `index` along a spatial axis of `size`."""
    ramp = np.arange(size, dtype=np.float64).reshape([size if i == 1 + axis else 1 for i in range(4)])
    sizes = [len(index) if i == axis else 1 for i in range(2)]
    (taken,) = run_kernel(graph.ResizeOp, Parameters({**op.parameters(), "sizes": tuple(sizes)}), ramp)
    return np.array_equal(taken.ravel(), index)


# --- blocks ----------------------------------------------------------------------------------------------
@tflite_importer("SPACE_TO_DEPTH", moves=True)
def space_to_depth(node: Node) -> SSAValue:
    """Blocks of pixels become channels."""
    image(node, 0)
    return node.emit(graph.SpaceToDepthOp, node.operand(0), block=positive(node, "BlockSize")[0])


@tflite_importer("DEPTH_TO_SPACE", moves=True)
def depth_to_space(node: Node) -> SSAValue:
    """Channels become blocks of pixels."""
    image(node, 0)
    return node.emit(graph.DepthToSpaceOp, node.operand(0), block=positive(node, "BlockSize")[0])


@tflite_importer("SPACE_TO_BATCH_ND", moves=True)
def space_to_batch(node: Node) -> SSAValue:
    """Inputs: data [N, spatial…, rest…], block sizes, paddings. Blocks become images of the batch."""
    blocks, pads = blocks_of(node, "its paddings")
    shape, count = node.shape(0), len(blocks)
    element = node.element(0)
    rest = (0,) * (len(shape) - 1 - count)
    zero = float(element.zero) if isinstance(element, QuantType) else 0.0
    x = node.emit(graph.PadOp, node.operand(0), low=(0, *pads[::2], *rest), high=(0, *pads[1::2], *rest), value=zero)
    n, *sizes = shape_of(x)
    if any(size % block for size, block in zip(sizes, blocks)):
        raise Unsupported(f"blocks of {list(blocks)} do not fit {sizes[:count]}")
    parts = [v for size, block in zip(sizes, blocks) for v in (size // block, block)]
    x = node.reshape(x, (n, *parts, *sizes[count:]))
    places, offsets = [1 + 2 * i for i in range(count)], [2 + 2 * i for i in range(count)]
    tail = range(1 + 2 * count, len(shape_of(x)))
    x = node.emit(graph.TransposeOp, x, permutation=(*offsets, 0, *places, *tail))
    return node.reshape(x, (n * math.prod(blocks), *parts[::2], *sizes[count:]))


@tflite_importer("BATCH_TO_SPACE_ND", moves=True)
def batch_to_space(node: Node) -> SSAValue:
    """Inputs: data [N · blocks, spatial…, rest…], block sizes, crops. The other way round."""
    blocks, crops = blocks_of(node, "its crops")
    (batch, *sizes), count = node.shape(0), len(blocks)
    if batch % math.prod(blocks):
        raise Unsupported(f"a batch of {batch} does not divide into blocks of {list(blocks)}")
    n = batch // math.prod(blocks)
    x = node.reshape(node.operand(0), (*blocks, n, *sizes))
    order = [v for i in range(count) for v in (count + 1 + i, i)]
    tail = range(2 * count + 1, len(shape_of(x)))
    x = node.emit(graph.TransposeOp, x, permutation=(count, *order, *tail))
    whole = (n, *(size * block for size, block in zip(sizes, blocks)), *sizes[count:])
    x = node.reshape(x, whole)
    starts = (0, *crops[::2], *(0 for _ in sizes[count:]))
    left = [d - s for d, s in zip(whole, starts)]
    left = [d - (crops[2 * i - 1] if 1 <= i <= count else 0) for i, d in enumerate(left)]
    return node.emit(graph.SliceOp, x, starts=starts, sizes=left, steps=(1,) * len(whole))


def blocks_of(node: Node, what: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Block sizes, and two amounts for each."""
    blocks, amounts = node.ints(1, "its block sizes"), node.ints(2, what)
    fitting = 0 < len(blocks) < len(node.shape(0)) and len(amounts) == 2 * len(blocks)
    if not fitting or min(blocks) < 1 or min(amounts) < 0:
        raise Unsupported(f"blocks {list(blocks)} with {what[4:]} {list(amounts)} do not fit {list(node.shape(0))}")
    return blocks, amounts
