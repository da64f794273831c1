"""Integer pooling, reductions and resizing of activations [N, H, W, C].

Sums are apart from the division that finishes them, so that a window or a reduction larger than memory is
done in pieces: add the partial sums, then call the `…_finish` function once.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ..fixed_point import Rounding, full_range, requantise

Pads = tuple[int, int, int, int]
"""(top, left, bottom, right)."""


def max_pool2d(
    x: NDArray[np.integer], kernel: tuple[int, int], strides: tuple[int, int], pads: Pads = (0, 0, 0, 0)
) -> NDArray[np.integer]:
    """The largest element of each window; padding never wins (TFLite MAX_POOL_2D)."""
    padded = _pad(x, pads, full_range(x.dtype)[0])
    out: NDArray[np.integer] | None = None
    for window in _windows(padded, kernel, strides):
        out = window.copy() if out is None else np.maximum(out, window, out=out)
    assert out is not None
    return out


def pool_sum(
    x: NDArray[np.integer], kernel: tuple[int, int], strides: tuple[int, int], pads: Pads = (0, 0, 0, 0)
) -> NDArray[np.int32]:
    """The sum of each window's elements that lie inside the tensor, zero point included."""
    # 128 eight-bit values fit 16 bits, which numpy adds several times faster.
    small = x.dtype.itemsize == 1 and kernel[0] * kernel[1] <= 128
    padded = _pad(x.astype(np.int16 if small else np.int32), pads, 0)
    total: NDArray[np.integer] | None = None
    for window in _windows(padded, kernel, strides):
        total = window.copy() if total is None else np.add(total, window, out=total)
    assert total is not None
    return total.astype(np.int32)


def pool_count(
    size: tuple[int, int], kernel: tuple[int, int], strides: tuple[int, int], pads: Pads = (0, 0, 0, 0)
) -> NDArray[np.int32]:
    """How many elements of each window lie inside a tensor of `size` (H, W): [OH, OW, 1]."""
    rows = _inside(size[0], kernel[0], strides[0], pads[0], pads[2])
    columns = _inside(size[1], kernel[1], strides[1], pads[1], pads[3])
    return (rows[:, None] * columns[None, :])[:, :, None]


def average_finish(
    total: NDArray[np.int32], count: NDArray[np.int32] | int, low: int, high: int, dtype: DTypeLike
) -> NDArray[np.integer]:
    """total / count rounded half away from zero and clamped (TFLite AVERAGE_POOL_2D)."""
    # Exact: a quotient of int32 is k + 1/2 in float64 only if it is so, and otherwise 2^-32 or more away.
    quotient = total.astype(np.float64)
    quotient /= np.asarray(count, np.float64)
    quotient += np.copysign(0.5, quotient)
    return np.clip(np.trunc(quotient, out=quotient), low, high, out=quotient).astype(dtype)


def average_pool2d(
    x: NDArray[np.integer],
    kernel: tuple[int, int],
    strides: tuple[int, int],
    pads: Pads = (0, 0, 0, 0),
    low: int | None = None,
    high: int | None = None,
) -> NDArray[np.integer]:
    """The mean of each window's elements inside the tensor; input and output share scale and zero point."""
    smallest, largest = full_range(x.dtype)
    count = pool_count((x.shape[1], x.shape[2]), kernel, strides, pads)
    low, high = smallest if low is None else low, largest if high is None else high
    return average_finish(pool_sum(x, kernel, strides, pads), count, low, high, x.dtype)


def reduce_sum(x: NDArray[np.integer], axes: tuple[int, ...]) -> NDArray[np.int32]:
    """The sum over `axes`, kept as extents of 1, zero point included; wraps to int32."""
    return x.sum(axis=axes, dtype=np.int32, keepdims=True)


def mean_finish(
    total: NDArray[np.int32],
    count: int,
    multiplier: int,
    shift: int,
    zero_in: int,
    zero_out: int,
    dtype: DTypeLike,
) -> NDArray[np.integer]:
    """The mean of `count` elements from their sum; multiplier and shift are those of scale_in / scale_out."""
    return sum_finish(total, count, *mean_factor(count, multiplier, shift), zero_in, zero_out, dtype)


def mean_factor(count: int, multiplier: int, shift: int) -> tuple[int, int]:
    """Multiplier and shift of scale_in / scale_out / count.

    TFLite's MEAN divides the multiplier by the count, truncating, and rescales once with double rounding.
    """
    extra_bits = min(int(count).bit_length() - 1, 32, 31 + int(shift))
    return (int(multiplier) << extra_bits) // count, int(shift) - extra_bits


def sum_finish(
    total: NDArray[np.int32],
    count: int,
    multiplier: int,
    shift: int,
    zero_in: int,
    zero_out: int,
    dtype: DTypeLike,
) -> NDArray[np.integer]:
    """A rescaled sum of `count` elements (TFLite SUM between different quantisations)."""
    centred = (total.astype(np.int64) - zero_in * count).astype(np.int32)
    scaled = requantise(centred, multiplier, shift, Rounding.DOUBLE).astype(np.int64) + zero_out
    return np.clip(scaled, *full_range(dtype)).astype(dtype)


def mean(
    x: NDArray[np.integer], axes: tuple[int, ...], multiplier: int, shift: int, zero_in: int, zero_out: int
) -> NDArray[np.integer]:
    """The mean over `axes`, kept as extents of 1 (TFLite MEAN)."""
    count = _extent(x, axes)
    return mean_finish(reduce_sum(x, axes), count, multiplier, shift, zero_in, zero_out, x.dtype)


def sum(
    x: NDArray[np.integer], axes: tuple[int, ...], multiplier: int, shift: int, zero_in: int, zero_out: int
) -> NDArray[np.integer]:
    """The sum over `axes`, kept as extents of 1 (TFLite SUM between different quantisations)."""
    count = _extent(x, axes)
    return sum_finish(reduce_sum(x, axes), count, multiplier, shift, zero_in, zero_out, x.dtype)


def resize_nearest(
    x: NDArray[np.integer],
    size: tuple[int, int],
    align_corners: bool = False,
    half_pixel_centers: bool = False,
) -> NDArray[np.integer]:
    """Nearest neighbour in float32 coordinates (TFLite RESIZE_NEAREST_NEIGHBOR)."""
    rows = nearest_index(x.shape[1], size[0], align_corners, half_pixel_centers)
    columns = nearest_index(x.shape[2], size[1], align_corners, half_pixel_centers)
    return x[:, rows][:, :, columns]


def resize_bilinear(
    x: NDArray[np.integer],
    size: tuple[int, int],
    align_corners: bool = False,
    half_pixel_centers: bool = False,
) -> NDArray[np.integer]:
    """Bilinear interpolation (TFLite RESIZE_BILINEAR): 10-bit fixed point, but float32 for uint8."""
    if x.dtype == np.uint8:
        return _bilinear_float(x, size, align_corners, half_pixel_centers)
    return _bilinear_fixed(x, size, align_corners, half_pixel_centers)


def _pad(x, pads: Pads, value: int):
    if not any(pads):
        return x
    top, left, bottom, right = pads
    return np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=value)


def _windows(padded, kernel, strides):
    """For each position in the window, the elements at it: views [N, OH, OW, C]."""
    height = (padded.shape[1] - kernel[0]) // strides[0] + 1
    width = (padded.shape[2] - kernel[1]) // strides[1] + 1
    for ky in range(kernel[0]):
        rows = padded[:, ky : ky + (height - 1) * strides[0] + 1 : strides[0]]
        for kx in range(kernel[1]):
            yield rows[:, :, kx : kx + (width - 1) * strides[1] + 1 : strides[1]]


def _inside(size: int, extent: int, stride: int, before: int, after: int) -> NDArray[np.int32]:
    starts = np.arange(0, size + before + after - extent + 1, stride) - before
    return (np.minimum(starts + extent, size) - np.maximum(starts, 0)).astype(np.int32)


def _extent(x, axes: tuple[int, ...]) -> int:
    return int(np.prod([x.shape[axis] for axis in axes], dtype=np.int64))


def _float_scale(size_in: int, size_out: int, align_corners: bool) -> np.float32:
    corner = 1 if align_corners and size_out > 1 else 0
    return np.float32(size_in - corner) / np.float32(size_out - corner)


def nearest_index(
    size_in: int, size_out: int, align_corners: bool, half_pixel_centers: bool
) -> NDArray[np.intp]:
    """Which input each output position takes."""
    scale = _float_scale(size_in, size_out, align_corners)
    place = (np.arange(size_out, dtype=np.float32) + np.float32(0.5 if half_pixel_centers else 0)) * scale
    index = np.floor(place + np.float32(0.5)) if align_corners else np.floor(place)
    return np.clip(index.astype(np.intp), 0, size_in - 1)


def fixed_places(size_in: int, size_out: int, align_corners: bool, half_pixel_centers: bool):
    """Lower and upper neighbour and the distance from the lower in 1/1024, for each output position."""
    aligned = align_corners and size_out > 1
    steps_in, steps_out = (size_in - 1, size_out - 1) if aligned else (size_in, size_out)
    scale = ((1 << 10) * steps_in + steps_out // 2) // steps_out
    place = np.arange(size_out, dtype=np.int64) * scale
    if half_pixel_centers:
        place += scale // 2 - (1 << 9)
    # Places are above −1024, where C++'s truncation and the limit 0 agree with a floor.
    lower = np.maximum(place >> 10, 0)
    upper = np.minimum((place + (1 << 10) - 1) >> 10, size_in - 1)
    return lower, upper, place - (lower << 10)


def _bilinear_fixed(x, size, align_corners: bool, half_pixel_centers: bool):
    top, bottom, down = fixed_places(x.shape[1], size[0], align_corners, half_pixel_centers)
    left, right, across = fixed_places(x.shape[2], size[1], align_corners, half_pixel_centers)
    wide, down, across = x.astype(np.int64), down[:, None, None], across[:, None]
    upper = wide[:, top][:, :, left] * (1024 - across) + wide[:, top][:, :, right] * across
    lower = wide[:, bottom][:, :, left] * (1024 - across) + wide[:, bottom][:, :, right] * across
    total = upper * (1024 - down) + lower * down
    magnitude = (np.abs(total) + (1 << 19)) >> 20
    return (np.sign(total) * magnitude).astype(x.dtype)


FloatPlaces = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]


def float_places(size_in: int, size_out: int, align_corners: bool, half_pixel_centers: bool) -> FloatPlaces:
    """Lower and upper neighbour and the distance from the lower, for each output position."""
    scale = _float_scale(size_in, size_out, align_corners)
    place = np.arange(size_out, dtype=np.float32)
    if half_pixel_centers:
        place = (place + np.float32(0.5)) * scale - np.float32(0.5)
    else:
        place = place * scale
    lower = np.maximum(np.floor(place).astype(np.int64), 0)
    upper = np.minimum(np.ceil(place).astype(np.int64), size_in - 1)
    return lower, upper, place - lower.astype(np.float32)


def _bilinear_float(x, size, align_corners: bool, half_pixel_centers: bool):
    rows = float_places(x.shape[1], size[0], align_corners, half_pixel_centers)
    return bilinear_float_at(x, rows, float_places(x.shape[2], size[1], align_corners, half_pixel_centers))


def bilinear_float_at(x: NDArray[np.integer], rows: FloatPlaces, columns: FloatPlaces) -> NDArray[np.integer]:
    """Bilinear interpolation in float32 at rows and columns."""
    (top, bottom, down), (left, right, across) = rows, columns
    wide, down, across = x.astype(np.float32), down[:, None, None], across[:, None]
    up, back = np.float32(1) - down, np.float32(1) - across
    # The order of these products and sums is the reference's; float32 arithmetic depends on it.
    total = wide[:, top][:, :, left] * up * back
    total = total + wide[:, bottom][:, :, left] * down * back
    total = total + wide[:, top][:, :, right] * up * across
    total = total + wide[:, bottom][:, :, right] * down * across
    return (total + np.float32(0.5)).astype(x.dtype)
