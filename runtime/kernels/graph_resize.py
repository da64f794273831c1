"""Resampling by https://onnx.ai/onnx/operators/onnx__Resize.html, one spatial axis after the other.

Coordinates and ties are those of ONNX Runtime 1.31, whose float32 rounding decides which pixel is nearest.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...dialects import graph
from ...dialects.declarative import Parameters
from ..kernel import kernel


@kernel(graph.ResizeOp)
def resize(p: Parameters, ifm: np.ndarray) -> np.ndarray:
    """ifm [N, …, C] to `sizes`; nearest also moves integers."""
    for i, size in enumerate(p.sizes):
        scale = np.float32(p.scales[i]) if p.scales else np.float32(size) / np.float32(ifm.shape[i + 1])
        at = source_coordinates(p.coordinates, ifm.shape[i + 1], size, scale)
        if p.mode == "nearest":
            index = NEAREST[p.nearest](at).astype(np.int64)
            ifm = np.take(ifm, np.clip(index, 0, ifm.shape[i + 1] - 1), axis=i + 1)
        elif size != ifm.shape[i + 1] or scale != 1:
            ifm = interpolate(p, ifm, i + 1, at)
    return ifm


def source_coordinates(mode: str, size: int, out: int, scale: np.float32) -> np.ndarray:
    """Where each of `out` positions lies on the source axis of `size` (float32)."""
    x = np.arange(out, dtype=np.float32)
    half = np.float32(0.5)
    if mode == "asymmetric":
        return x / scale
    if mode == "align_corners":
        return x * np.float32(size - 1) / np.float32(out - 1) if out > 1 else np.zeros_like(x)
    if mode == "pytorch_half_pixel" and out == 1:
        return np.zeros_like(x)
    if mode == "half_pixel_symmetric":  # the part of the last source pixel that `sizes` cut off is shared out
        offset = np.float32(size / 2) * (1 - np.float32(out) / (scale * np.float32(size)))
        return (offset + (x + 0.5).astype(np.float64) / scale - 0.5).astype(np.float32)
    return (x + half) / scale - half


TIE = np.float32(1e-6)  # this close to a half is a half (measured: no index differs on 8,600 axes)


def rounded(at: np.ndarray, tie: int) -> np.ndarray:
    """The nearest integer; a half goes down (tie = 0) or up (1)."""
    half = np.floor(at) + np.float32(0.5)
    return np.where(np.abs(at - half) <= TIE, np.floor(at) + tie, np.floor(at + np.float32(0.5)))


NEAREST: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "round_prefer_floor": lambda at: rounded(at, 0),
    "round_prefer_ceil": lambda at: rounded(at, 1),
    "floor": np.floor,
    "ceil": np.ceil,
}


def interpolate(p: Parameters, x: np.ndarray, axis: int, at: np.ndarray) -> np.ndarray:
    """Σ weight · x[index] over the taps around each coordinate; outside, the edge repeats."""
    size = x.shape[axis]
    if p.mode == "linear":
        at = np.clip(at, 0, size - 1)
    base = np.floor(at)
    fraction = at - base
    weights = linear_weights(fraction) if p.mode == "linear" else cubic_weights(fraction, p.cubic_a)
    first = base.astype(np.int64) - (len(weights) // 2 - 1)
    if p.exclude_outside and p.mode == "cubic":
        index = first + np.arange(len(weights))[:, None]
        weights = weights * ((index >= 0) & (index < size))
        weights = weights / weights.sum(axis=0)
    along = [-1 if i == axis else 1 for i in range(x.ndim)]
    shape = [len(at) if i == axis else d for i, d in enumerate(x.shape)]
    total = np.zeros(shape, x.dtype)
    for i, weight in enumerate(weights):
        taps = np.take(x, np.clip(first + i, 0, size - 1), axis=axis)
        total += taps * weight.astype(x.dtype).reshape(along)
    return total


def linear_weights(fraction: np.ndarray) -> np.ndarray:
    """[2, out]: of the pixels before and after."""
    return np.stack([1 - fraction, fraction])


def cubic_weights(t: np.ndarray, a: float) -> np.ndarray:
    """[4, out]: Keys's kernel with parameter a, of the pixels at −1, 0, 1, 2.

    R. G. Keys, Cubic convolution interpolation for digital image processing, 1981.
    """

    def near(d: np.ndarray) -> np.ndarray:
        return ((a + 2) * d - (a + 3)) * d * d + 1

    def far(d: np.ndarray) -> np.ndarray:
        return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a

    return np.stack([far(t + 1), near(t), near(1 - t), far(2 - t)])
