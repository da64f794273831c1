"""Pooling, local response normalisation and space/depth exchange, channels-last.

max_pool and the space/depth pair also take the stored integers of quantised tensors.
"""

from __future__ import annotations

import numpy as np

from ...dialects import graph
from ...dialects.declarative import Parameters
from ..kernel import kernel
from .graph_elementwise import divide, quiet
from .graph_linear import output_size, padded


# --- pooling ---------------------------------------------------------------------------------------------
@kernel(graph.MaxPoolOp)
def max_pool(p: Parameters, ifm: np.ndarray) -> np.ndarray:
    """Largest value in the window; padding holds the dtype's minimum. Rows first, then columns."""
    if ifm.ndim == 3:
        return max_pool(as_2d(p), ifm[:, None])[:, 0]
    image = padded(ifm, p.pads, lowest(ifm.dtype))
    oh, ow = output_size(image.shape[1:3], p.kernel, p.strides, p.dilations)
    across = largest_tap(image, 2, p.kernel[1], ow, p.strides[1], p.dilations[1])
    return largest_tap(across, 1, p.kernel[0], oh, p.strides[0], p.dilations[0])


def lowest(dtype: np.dtype) -> float | int:
    """What no other value of the dtype is below."""
    if dtype == np.bool_:
        return False
    return -np.inf if np.issubdtype(dtype, np.floating) else int(np.iinfo(dtype).min)


def largest_tap(image: np.ndarray, axis: int, taps: int, out: int, stride: int, dilation: int) -> np.ndarray:
    """Maximum of a one-dimensional window along an axis."""
    best = tap(image, axis, 0, out, stride).copy()
    for i in range(1, taps):
        np.maximum(best, tap(image, axis, i * dilation, out, stride), out=best)
    return best


def tap(image: np.ndarray, axis: int, start: int, out: int, stride: int) -> np.ndarray:
    """What one position of the window sees at each of its `out` steps along an axis (a view)."""
    return image[(slice(None),) * axis + (slice(start, start + (out - 1) * stride + 1, stride),)]


@kernel(graph.AvgPoolOp)
def avg_pool(p: Parameters, ifm: np.ndarray) -> np.ndarray:
    """Mean of the window: taps summed from +0 in (row, column) order, then one division by their count.

    Padding adds zeros, which change no sum. A window that sees padding alone gives 0.
    """
    if ifm.ndim == 3:
        return avg_pool(as_2d(p), ifm[:, None])[:, 0]
    image = padded(ifm, p.pads)
    oh, ow = output_size(image.shape[1:3], p.kernel, p.strides, p.dilations)
    total = np.zeros((len(ifm), oh, ow, ifm.shape[-1]), ifm.dtype)
    for i in range(p.kernel[0]):
        rows = tap(image, 1, i * p.dilations[0], oh, p.strides[0])
        for j in range(p.kernel[1]):
            total += tap(rows, 2, j * p.dilations[1], ow, p.strides[1])
    count = np.multiply.outer(counted(p, 0, ifm.shape[1], oh), counted(p, 1, ifm.shape[2], ow))
    with quiet():
        return divide(total, np.maximum(count, 1).astype(ifm.dtype)[:, :, None])


def counted(p: Parameters, axis: int, size: int, out: int) -> np.ndarray:
    """How many positions of the window count at each output index along one spatial axis."""
    low, high = p.pads[axis], p.pads[axis + 2]
    overhang = p.overhang[axis] if p.overhang else 0
    first, last = (0, low + size + high - overhang) if p.count_include_pad else (low, low + size)
    at = np.arange(out)[:, None] * p.strides[axis] + np.arange(p.kernel[axis]) * p.dilations[axis]
    return np.sum((at >= first) & (at < last), axis=1)


def as_2d(p: Parameters) -> Parameters:
    """A pooling of [N, W, C] as one of [N, 1, W, C]."""
    values = dict(p) | {name: (1, *p[name]) for name in ("kernel", "strides", "dilations")}
    values["pads"] = (0, p.pads[0], 0, p.pads[1])
    if p.get("overhang"):
        values["overhang"] = (0, *p.overhang)
    return Parameters(values)


# --- normalisation over channels -------------------------------------------------------------------------
@kernel(graph.LrnOp)
def lrn(p: Parameters, ifm: np.ndarray) -> np.ndarray:
    """x / (bias + alpha / size · Σ x²)^beta; the window of `size` channels has its larger half behind.

    https://onnx.ai/onnx/operators/onnx__LRN.html
    """
    before = (p.size - 1) // 2
    channels = ifm.shape[-1]
    squares = np.zeros((*ifm.shape[:-1], channels + p.size - 1), ifm.dtype)
    squares[..., before : before + channels] = ifm * ifm
    total = np.zeros_like(ifm)
    for i in range(p.size):
        total += squares[..., i : i + channels]
    with quiet():
        return ifm / (p.bias + p.alpha / p.size * total) ** p.beta


# --- space and depth -------------------------------------------------------------------------------------
@kernel(graph.DepthToSpaceOp)
def depth_to_space(p: Parameters, ifm: np.ndarray) -> np.ndarray:
    """Channels are (row, column, c) for DCR and (c, row, column) for CRD.

    https://onnx.ai/onnx/operators/onnx__DepthToSpace.html
    """
    (n, h, w, c), b = ifm.shape, p.block
    depth = c // b**2
    if p.order == "DCR":
        blocks = ifm.reshape(n, h, w, b, b, depth).transpose(0, 1, 3, 2, 4, 5)
    else:
        blocks = ifm.reshape(n, h, w, depth, b, b).transpose(0, 1, 4, 2, 5, 3)
    return blocks.reshape(n, h * b, w * b, depth)


@kernel(graph.SpaceToDepthOp)
def space_to_depth(p: Parameters, ifm: np.ndarray) -> np.ndarray:
    """Channels become (row, column, c). https://onnx.ai/onnx/operators/onnx__SpaceToDepth.html"""
    (n, h, w, c), b = ifm.shape, p.block
    blocks = ifm.reshape(n, h // b, b, w // b, b, c).transpose(0, 1, 3, 2, 4, 5)
    return blocks.reshape(n, h // b, w // b, c * b**2)
