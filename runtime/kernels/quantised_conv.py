"""Integer convolution, depthwise convolution and matrix product: accumulation apart from requantisation.

Accumulators are exact. Products are summed by BLAS in float32 for 8-bit activations and in float64 for 16-bit
ones, in slices of the reduction whose partial sums are integers within 2^24 and 2^53; so the order of a sum
never matters. Callers that hold only part of a reduction add accumulators themselves and call `finish` once.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ..fixed_point import Rounding, full_range, requantise_to

_FLOAT32_EXACT = 1 << 24
_FLOAT64_EXACT = 1 << 53
# Columns of the im2col matrix are made for about this many bytes of output rows at a time, to stay in cache.
_COLUMN_BYTES = 1 << 20

Pads = tuple[int, int, int, int]
"""(top, left, bottom, right)."""


class DenseOperand(NamedTuple):
    """Convolution weights ready for BLAS; make it once where a weight is used many times."""

    matrix: NDArray[np.floating]  # [KH·KW·CI, CO], zero point subtracted
    kernel: tuple[int, int]
    sums: NDArray[np.int64]  # [CO], over the reduction
    slices: tuple[slice, ...]  # parts of the reduction whose partial sums are exact in the matrix's type


def dense_operand(weight: NDArray[np.integer], ifm_type: DTypeLike, weight_zero: int = 0) -> DenseOperand:
    """Prepare weights [KH, KW, CI, CO] for `conv2d_accumulate` on activations of `ifm_type`."""
    height, width, _, filters = weight.shape
    centred = weight.reshape(-1, filters).astype(np.float64) - weight_zero
    largest = _largest_centred(ifm_type)
    sums = centred.sum(axis=0).astype(np.int64)
    exact, work_type = (_FLOAT64_EXACT, np.float64) if largest > 128 else (_FLOAT32_EXACT, np.float32)
    length = len(centred)
    if largest * np.abs(centred).sum(axis=0).max(initial=0) <= exact:
        slices: tuple[slice, ...] = (slice(None),)
    else:
        step = exact // int(largest * np.abs(centred).max())
        slices = tuple(slice(start, start + step) for start in range(0, length, step))
    return DenseOperand(centred.astype(work_type), (height, width), sums, slices)


def conv2d_accumulate(
    ifm: NDArray[np.integer],
    weight: NDArray[np.integer] | DenseOperand,
    *,
    strides: tuple[int, int] = (1, 1),
    pads: Pads = (0, 0, 0, 0),
    dilations: tuple[int, int] = (1, 1),
    ifm_zero: int = 0,
    weight_zero: int = 0,
) -> NDArray[np.integer]:
    """Σ (ifm − ifm_zero) · (weight − weight_zero), padded with real zero.

    `ifm` is [N, H, W, CI], `weight` [KH, KW, CI, CO] or the `dense_operand` made of it (which has subtracted
    `weight_zero` already); the result is [N, OH, OW, CO], int32, and int64 for int16 activations.
    """
    if not isinstance(weight, DenseOperand):
        weight = dense_operand(weight, ifm.dtype, weight_zero)
    centre = _centre(ifm.dtype)
    padded = _pad(ifm, centre, ifm_zero - centre, pads, weight.matrix.dtype)
    out_height, out_width = _output_size(padded.shape, weight.kernel, strides, dilations)
    acc_type = np.int64 if weight.matrix.dtype == np.float64 else np.int32
    acc = np.empty((len(padded), out_height, out_width, weight.matrix.shape[1]), acc_type)
    # Σ (x − zero)·w = Σ (x − centre)·w + (centre − zero)·Σ w
    correction = ((centre - ifm_zero) * weight.sums).astype(acc_type)
    if weight.kernel == (1, 1):
        pixels = padded[:, :: strides[0], :: strides[1]]
        columns = np.ascontiguousarray(pixels).reshape(-1, pixels.shape[3])
        _exact_product(columns, weight, correction, acc.reshape(len(columns), -1))
        return acc
    rows = max(1, _COLUMN_BYTES // max(1, out_width * weight.matrix.shape[0] * weight.matrix.itemsize))
    for image, image_acc in zip(padded, acc, strict=True):
        for top in range(0, out_height, rows):
            part = image_acc[top : top + rows]
            columns = _columns(image, weight.kernel, strides, dilations, top, part.shape[:2])
            _exact_product(columns, weight, correction, part.reshape(len(columns), -1))
    return acc


def depthwise_accumulate(
    ifm: NDArray[np.integer],
    weight: NDArray[np.integer],
    *,
    strides: tuple[int, int] = (1, 1),
    pads: Pads = (0, 0, 0, 0),
    dilations: tuple[int, int] = (1, 1),
    ifm_zero: int = 0,
    weight_zero: int = 0,
) -> NDArray[np.integer]:
    """Σ over the window of (ifm − ifm_zero) · (weight − weight_zero), each channel by itself.

    `ifm` is [N, H, W, C], `weight` [KH, KW, C, M]; output channel c·M + m of [N, OH, OW, C·M] reads c.
    """
    height, width, channels, multiplier = weight.shape
    taps = (weight.astype(np.int64) - weight_zero).reshape(height * width, channels * multiplier)
    low, high = full_range(ifm.dtype)
    bound = max(abs(low - ifm_zero), abs(high - ifm_zero)) * int(np.abs(taps).sum(axis=0).max(initial=0))
    assert bound <= _FLOAT64_EXACT, "a filter of so many taps has no place in memory"
    work_type = np.float32 if bound <= _FLOAT32_EXACT else np.float64
    padded = _pad(ifm, ifm_zero, 0, pads, work_type)
    if multiplier > 1:
        padded = np.repeat(padded, multiplier, axis=3)
    out_height, out_width = _output_size(padded.shape, (height, width), strides, dilations)
    line = out_width * channels * multiplier
    wide_taps = np.tile(taps.astype(work_type), (1, out_width))  # [KH·KW, OW·C·M]: long inner loops
    acc = np.empty((len(padded), out_height, line), np.int64 if ifm.dtype.itemsize == 2 else np.int32)
    for image, image_acc in zip(padded, acc, strict=True):
        phases = [np.ascontiguousarray(image[:, start :: strides[1]]) for start in range(strides[1])]
        _depthwise_image(phases, wide_taps, (height, width), strides, dilations, image_acc)
    return acc.reshape(len(padded), out_height, out_width, channels * multiplier)


def matmul_accumulate(
    a: NDArray[np.integer], b: NDArray[np.integer], a_zero: int = 0, b_zero: int = 0
) -> NDArray[np.integer]:
    """Σ over K of (a − a_zero) · (b − b_zero) of [..., M, K] and [..., K, N]: int32, int64 with an int16."""
    largest = _largest_centred(a.dtype, a_zero) * _largest_centred(b.dtype, b_zero)
    wide = a.dtype.itemsize == 2 or b.dtype.itemsize == 2
    exact, work_type, acc_type = (
        (_FLOAT64_EXACT, np.float64, np.int64) if wide else (_FLOAT32_EXACT, np.float32, np.int32)
    )
    left, right = _shifted(a, a_zero, work_type), _shifted(b, b_zero, work_type)
    step = exact // largest
    acc = np.matmul(left[..., :step], right[..., :step, :]).astype(acc_type)
    for start in range(step, a.shape[-1], step):
        stop = start + step
        acc += np.matmul(left[..., start:stop], right[..., start:stop, :]).astype(acc_type)
    return acc


def finish(
    acc: NDArray[np.integer],
    bias: NDArray[np.integer] | None,
    multiplier: NDArray[np.int32] | int,
    shift: NDArray[np.int32] | int,
    ofm_zero: int,
    low: int,
    high: int,
    rounding: Rounding,
    dtype: DTypeLike,
    out: NDArray[np.integer] | None = None,
) -> NDArray[np.integer]:
    """clamp(requantise(acc + bias) + ofm_zero, low, high) as `dtype`.

    `bias`, `multiplier` and `shift` are scalars or vectors over the last axis; `out`, if given, receives the
    result. `bias` may be None.
    """
    if out is None:
        out = np.empty(acc.shape, dtype)
    requantise_to(acc, bias, multiplier, shift, ofm_zero, low, high, rounding, out)
    return out


def _centre(dtype: DTypeLike) -> int:
    low, high = full_range(dtype)
    return (low + high + 1) // 2


def _largest_centred(dtype: DTypeLike, zero: int | None = None) -> int:
    low, high = full_range(dtype)
    zero = _centre(dtype) if zero is None else zero
    return max(abs(low - zero), abs(high - zero))


def _shifted(x: NDArray[np.integer], zero: int, dtype: DTypeLike) -> NDArray[np.floating]:
    floats = x.astype(dtype, order="C")
    if zero:
        floats -= zero
    return floats


def _pad(ifm, centre: int, pad_value: int, pads: Pads, dtype: DTypeLike) -> NDArray[np.floating]:
    """ifm − centre as floats, surrounded by `pad_value`."""
    top, left, bottom, right = pads
    if not any(pads):
        return _shifted(ifm, centre, dtype)
    batch, height, width, channels = ifm.shape
    padded = np.full((batch, height + top + bottom, width + left + right, channels), pad_value, dtype)
    inside = padded[:, top : top + height, left : left + width]
    np.copyto(inside, ifm)
    if centre:
        inside -= centre
    return padded


def _output_size(padded_shape, kernel, strides, dilations) -> tuple[int, int]:
    return tuple(
        (size - (extent - 1) * dilation - 1) // stride + 1
        for size, extent, stride, dilation in zip(padded_shape[1:3], kernel, strides, dilations, strict=True)
    )


def _columns(image, kernel, strides, dilations, top: int, out_size) -> NDArray[np.floating]:
    """The im2col matrix [OH·OW, KH·KW·C] of the output rows from `top` on; `image` is padded, [H, W, C]."""
    (out_height, out_width), channels = out_size, image.shape[2]
    columns = np.empty((out_height, out_width, kernel[0], kernel[1], channels), image.dtype)
    for ky in range(kernel[0]):
        first = top * strides[0] + ky * dilations[0]
        rows = image[first : first + (out_height - 1) * strides[0] + 1 : strides[0]]
        for kx in range(kernel[1]):
            left = kx * dilations[1]
            columns[:, :, ky, kx] = rows[:, left : left + (out_width - 1) * strides[1] + 1 : strides[1]]
    return columns.reshape(out_height * out_width, -1)


def _exact_product(columns, weight: DenseOperand, correction, acc: NDArray[np.integer]) -> None:
    """acc = columns · weight + correction, by slices of the reduction that are exact; `acc` is [rows, CO]."""
    products = np.empty(acc.shape, columns.dtype)
    for index, part in enumerate(weight.slices):
        np.matmul(columns[:, part], weight.matrix[part], out=products)
        if index == 0:
            np.copyto(acc, products, casting="unsafe")
        else:
            acc += products.astype(acc.dtype)
    if correction.any():
        acc += correction


def _depthwise_image(phases, wide_taps, kernel, strides, dilations, acc: NDArray[np.integer]) -> None:
    """One image: `phases[p]` holds columns p, p + stride, … of the padded image; `acc` is [OH, OW·C]."""
    line = acc.shape[1]
    channels = phases[0].shape[2]
    rows_at_once = max(1, _COLUMN_BYTES // (8 * line * wide_taps.itemsize))
    for top in range(0, len(acc), rows_at_once):
        part = acc[top : top + rows_at_once]
        total, product = np.zeros(part.shape, wide_taps.dtype), np.empty(part.shape, wide_taps.dtype)
        for ky in range(kernel[0]):
            first = top * strides[0] + ky * dilations[0]
            for kx in range(kernel[1]):
                ahead, phase = divmod(kx * dilations[1], strides[1])
                rows = phases[phase][first : first + (len(part) - 1) * strides[0] + 1 : strides[0]]
                window = rows.reshape(len(rows), -1)[:, ahead * channels : ahead * channels + line]
                np.multiply(window, wide_taps[ky * kernel[1] + kx], out=product)
                np.add(total, product, out=total)
        np.copyto(part, total, casting="unsafe")
