"""From ranges and float weights to scales, zero points and stored integers.

real = scale · (q − zero point), per tensor for activations, per output channel for int8 weights
(TFLite quantisation specification, https://ai.google.dev/edge/litert/models/quantization_spec).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from xdsl.dialects.builtin import IntegerType

from ...dialects.quant import QuantType, quantised, storage_range
from ...dialects.types import dtype_of, i8
from ...errors import CompileError
from ...runtime.kernels.quantised_elementwise import quantise
from .ranges import Range

INT32_MAX = 2**31 - 1
SMALLEST_SCALE = float(np.finfo(np.float32).tiny)
FAINT = 2.0**-20
"""A channel whose weights are all below this share of the largest weight is quantised as if it reached it."""


def activation_type(range_: Range, storage: IntegerType) -> QuantType:
    """The per-tensor type of a range, which is widened to contain 0 so that 0 is exact (padding, relu)."""
    low, high = min(range_.low, 0.0), max(range_.high, 0.0)
    smallest, largest = storage_range(storage)
    with np.errstate(over="ignore"):
        scale = float(np.float32((high - low) / (largest - smallest)))
    if not np.isfinite(scale):
        raise CompileError(f"the range [{low}, {high}] is too wide for float32 scales")
    if scale < SMALLEST_SCALE:  # nothing but zeros was seen
        return quantised(storage, 1.0, (smallest + largest + 1) // 2)
    zero = int(np.clip(np.rint(smallest - low / scale), smallest, largest))
    return quantised(storage, scale, zero)


def stored(array: np.ndarray, type_: QuantType) -> np.ndarray:
    """Float constants as integers of a per-tensor type."""
    return quantise(np.asarray(array, np.float32), type_.scale, type_.zero, dtype_of(type_))


class Weight(NamedTuple):
    """Quantised weights with the bias at scale_in · scale."""

    values: np.ndarray  # stored integers, shaped as the floats
    type: QuantType
    scales: np.ndarray  # float64, [M] or [1]: those of the type
    zero: int
    bias: np.ndarray | None  # int32 [M]


def quantise_weight(
    weight: np.ndarray, bias: np.ndarray | None, ifm: QuantType
) -> Weight:
    """Weights […, M] for activations of type `ifm`: a scale a channel; int8 symmetric, uint8 round one zero.

    A channel's scale is enlarged until neither its bias nor any of its sums can leave int32.
    """
    channels = weight.reshape(-1, weight.shape[-1]).astype(np.float64)
    zero = 0 if ifm.storage == i8 else shared_zero(channels)
    scales = np.maximum(weight_scales(channels, ifm, zero), smallest_scales(channels, bias, ifm.scale))
    scales = scales.astype(np.float32).astype(np.float64)
    values, bias_values = integers(channels, bias, scales, zero, ifm)
    excess = worst_sums(values, zero, bias_values, ifm) / INT32_MAX
    if (excess > 1).any():
        scales = (scales * np.maximum(excess * 1.01, 1.0)).astype(np.float32).astype(np.float64)
        values, bias_values = integers(channels, bias, scales, zero, ifm)
    type_ = quantised(ifm.storage, scales, zero, weight.ndim - 1)
    return Weight(values.astype(dtype_of(ifm)).reshape(weight.shape), type_, scales, zero, bias_values)


def weight_scales(channels: np.ndarray, ifm: QuantType, zero: int) -> np.ndarray:
    """The smallest scale that holds each column of [K, M]; an empty one takes a share of the largest."""
    low, high = weight_range(ifm)
    above = channels.max(axis=0, initial=0.0) / max(high - zero, 1)
    below = -channels.min(axis=0, initial=0.0) / max(zero - low, 1)
    scales = np.maximum(above, below)
    faintest = scales.max(initial=0.0) * FAINT
    if faintest < SMALLEST_SCALE:
        return np.where(scales < SMALLEST_SCALE, 1.0, scales)
    return np.maximum(scales, faintest)


def weight_range(ifm: QuantType) -> tuple[int, int]:
    """The stored integers weights may take: int8 leaves out −128, as TFLite's specification asks."""
    low, high = storage_range(ifm.storage)
    return (-high, high) if ifm.storage == i8 else (low, high)


def shared_zero(channels: np.ndarray) -> int:
    """The zero point in 1 … 254 with which the scales of the columns of [K, M] have the least energy."""
    zeros = np.arange(1, 255, dtype=np.float64)[:, None]
    highest, lowest = channels.max(axis=0, initial=0.0), channels.min(axis=0, initial=0.0)
    scales = np.maximum(highest / (255 - zeros), -lowest / zeros)
    return 1 + int(np.argmin(np.square(scales).sum(axis=1)))


def smallest_scales(channels: np.ndarray, bias: np.ndarray | None, ifm_scale: float) -> np.ndarray:
    """Per column, the scale below which the bias would fill more than half of int32."""
    if bias is None:
        return np.zeros(channels.shape[1])
    return np.abs(bias.astype(np.float64)) / (ifm_scale * 2.0**30)


def integers(
    channels: np.ndarray, bias: np.ndarray | None, scales: np.ndarray, zero: int, ifm: QuantType
) -> tuple[np.ndarray, np.ndarray | None]:
    """Stored weights [K, M] (float64) and biases (int32 [M]), both rounded half away from zero."""
    low, high = weight_range(ifm)
    values = np.clip(half_away(channels / scales) + zero, low, high)
    if bias is None:
        return values, None
    biases = half_away(bias.astype(np.float64) / (ifm.scale * scales))
    return values, np.clip(biases, -INT32_MAX, INT32_MAX).astype(np.int32)


def ones(shape: tuple[int, ...], each: float, ifm: QuantType) -> Weight:
    """Weights that all stand for `each`: stored as 1."""
    type_ = quantised(ifm.storage, each)
    return Weight(np.ones(shape, dtype_of(ifm)), type_, np.array([type_.scale], np.float64), 0, None)


def worst_sums(values: np.ndarray, zero: int, bias: np.ndarray | None, ifm: QuantType) -> np.ndarray:
    """The largest magnitude an accumulator of each column can reach."""
    low, high = storage_range(ifm.storage)
    reach = max(abs(low - ifm.zero), abs(high - ifm.zero))
    sums = np.abs(values - zero).sum(axis=0) * reach
    return sums if bias is None else sums + np.abs(bias.astype(np.float64))


def half_away(x: np.ndarray) -> np.ndarray:
    """The nearest integer, ties away from zero."""
    return np.copysign(np.floor(np.abs(x) + 0.5), x)
