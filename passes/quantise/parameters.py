"""From ranges and float weights to scales, zero points and stored integers.

real = scale · (q − zero point), per tensor for activations, per output channel for weights; 16-bit
activations are symmetric (TFLite quantisation specification,
https://ai.google.dev/edge/litert/models/quantization_spec).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from xdsl.dialects.builtin import IntegerType
from xdsl.ir import SSAValue

from ...dialects.graph import ConstantOp, constant_of
from ...dialects.quant import DCastOp, QuantType, quantised, storage_range
from ...dialects.rounding import Rounding
from ...dialects.types import dtype_of, element_type, i8, i16, u8
from ...errors import CompileError
from ...runtime.interpreter import reals
from ...runtime.kernels.quantised_elementwise import quantise
from .clear_of_ties import clear_of_ties
from .ranges import Range


class Scheme(NamedTuple):
    """What a `dtype` stands for."""

    activations: IntegerType
    weights: IntegerType
    rounding: Rounding
    """How sums of products with a weight a channel are requantised."""
    product_rounding: Rounding
    """How products of two activations are."""
    faithful_db: float
    """A table whose signal-to-noise ratio over the calibrated range is below this stays a float op."""
    headroom: float
    """How far beyond the calibrated range activations reach. Of 16 bits one is well spent on inputs that were
    not calibrated with: clipping them costs far more than its 6 dB (figures in docs/numerics.md)."""


SCHEMES = {
    # Rounded once, as the casts of ONNX QDQ round, so that an exported model gives the same bits; twice, as
    # TFLite's kernels do it, one to five results in a thousand are one off, and later layers make more of it.
    "int8": Scheme(i8, i8, Rounding.SINGLE, Rounding.SINGLE, 20.0, 1.0),
    "uint8": Scheme(u8, u8, Rounding.SINGLE, Rounding.SINGLE, 20.0, 1.0),
    # All 31 bits of the multiplier: cut to 16, as TFLite's int64 sums have it, it may move the last bit.
    "int16": Scheme(i16, i16, Rounding.SINGLE, Rounding.SINGLE, 50.0, 2.0),
    "int16x8": Scheme(i16, i8, Rounding.ACC64, Rounding.ACC64, 50.0, 2.0),
}
"""The quantisations of a float model by name."""

SUM_MAX = {1: 2**31 - 1, 2: 2**47 - 1}
"""The largest accumulator by bytes of an activation: int32; int64, of which ACC64 takes 48 bits (and float64,
in which products are summed, 53)."""
SMALLEST_SCALE = float(np.finfo(np.float32).tiny)
FAINT = 2.0**-20
"""A channel whose weights are all below this share of the largest weight is quantised as if it reached it."""


def activation_type(range_: Range, storage: IntegerType) -> QuantType:
    """The per-tensor type of a range, which is widened to contain 0 so that 0 is exact (padding, relu)."""
    low, high = min(range_.low, 0.0), max(range_.high, 0.0)
    smallest, largest = storage_range(storage)
    if storage == i16:  # symmetric: −32768 is never needed
        smallest, low, high = -largest, min(low, -high), max(high, -low)
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
    bias: np.ndarray | None  # int32 [M]; int64 for 16-bit activations


def quantise_weight(
    weight: np.ndarray,
    bias: np.ndarray | None,
    ifm: QuantType,
    storage: IntegerType | None = None,
    ofm: QuantType | None = None,
) -> Weight:
    """Weights […, M] for activations of type `ifm`: a scale a channel; symmetric, but uint8 round one zero.

    They are stored as `storage`, by default as the activations are. A channel's scale is enlarged until
    neither its bias nor any of its sums can leave the accumulator, and by some 1/8000 more, so that no sum comes
    near a tie between results of type `ofm`, if they have 8 bits.
    """
    storage = storage or ifm.storage
    channels = weight.reshape(-1, weight.shape[-1]).astype(np.float64)
    zero = shared_zero(channels) if storage == u8 else 0
    scales = np.maximum(weight_scales(channels, storage, zero), smallest_scales(channels, bias, ifm))
    scales = settled_scales(scales, ifm, ofm)
    values, bias_values = integers(channels, bias, scales, zero, ifm, storage)
    excess = worst_sums(values, zero, bias_values, ifm) / sum_max(ifm)
    if (excess > 1).any():
        scales = settled_scales(scales * np.maximum(excess * 1.01, 1.0), ifm, ofm)
        values, bias_values = integers(channels, bias, scales, zero, ifm, storage)
    type_ = quantised(storage, scales.tolist(), zero, weight.ndim - 1)
    return Weight(values.astype(dtype_of(type_)).reshape(weight.shape), type_, scales, zero, bias_values)


def settled_scales(scales: np.ndarray, ifm: QuantType, ofm: QuantType | None) -> np.ndarray:
    """Scales as float32 holds them, with factors of requantisation clear of ties where results have 8 bits."""
    if ofm is not None and dtype_of(ofm).itemsize == 1:
        unit = ifm.scale / ofm.scale
        scales = clear_of_ties(scales * unit) / unit
    return scales.astype(np.float32).astype(np.float64)


def sum_max(ifm: QuantType) -> int:
    """The largest accumulator of activations of a type."""
    return SUM_MAX[dtype_of(ifm).itemsize]


def weight_scales(channels: np.ndarray, storage: IntegerType, zero: int) -> np.ndarray:
    """The smallest scale that holds each column of [K, M]; an empty one takes a share of the largest."""
    low, high = weight_range(storage)
    above = channels.max(axis=0, initial=0.0) / max(high - zero, 1)
    below = -channels.min(axis=0, initial=0.0) / max(zero - low, 1)
    scales = np.maximum(above, below)
    faintest = scales.max(initial=0.0) * FAINT
    if faintest < SMALLEST_SCALE:
        return np.where(scales < SMALLEST_SCALE, 1.0, scales)
    return np.maximum(scales, faintest)


def weight_range(storage: IntegerType) -> tuple[int, int]:
    """The stored integers weights may take: int8 leaves out −128, as TFLite's specification asks."""
    low, high = storage_range(storage)
    return (low, high) if storage == u8 else (-high, high)


def shared_zero(channels: np.ndarray) -> int:
    """The zero point in 1 … 254 with which the scales of the columns of [K, M] have the least energy."""
    zeros = np.arange(1, 255, dtype=np.float64)[:, None]
    highest, lowest = channels.max(axis=0, initial=0.0), channels.min(axis=0, initial=0.0)
    scales = np.maximum(highest / (255 - zeros), -lowest / zeros)
    return 1 + int(np.argmin(np.square(scales).sum(axis=1)))


def smallest_scales(channels: np.ndarray, bias: np.ndarray | None, ifm: QuantType) -> np.ndarray:
    """Per column, the scale below which the bias would fill more than half of the accumulator."""
    if bias is None:
        return np.zeros(channels.shape[1])
    return np.abs(bias.astype(np.float64)) / (ifm.scale * ((sum_max(ifm) + 1) // 2))


def integers(
    channels: np.ndarray,
    bias: np.ndarray | None,
    scales: np.ndarray,
    zero: int,
    ifm: QuantType,
    storage: IntegerType,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Stored weights [K, M] (float64) and biases ([M]), both rounded half away from zero."""
    low, high = weight_range(storage)
    values = np.clip(half_away(channels / scales) + zero, low, high)
    if bias is None:
        return values, None
    return values, bias_integers(bias, ifm.scale * scales, ifm)


def bias_integers(bias: np.ndarray, scales: np.ndarray | float, ifm: QuantType) -> np.ndarray:
    """A bias in units of `scales`, rounded half away from zero: int32, and int64 for 16-bit activations."""
    limit = sum_max(ifm)
    stored = np.clip(half_away(bias.astype(np.float64) / scales), -limit, limit)
    return stored.astype(np.int32 if dtype_of(ifm).itemsize == 1 else np.int64)


def ones(shape: tuple[int, ...], each: float, ifm: QuantType) -> Weight:
    """Weights that all stand for `each`: stored as 1, in 8 bits, which cost the machine least."""
    type_ = quantised(u8 if ifm.storage == u8 else i8, each)
    return Weight(np.ones(shape, dtype_of(type_)), type_, np.array([type_.scale], np.float64), 0, None)


def worst_sums(values: np.ndarray, zero: int, bias: np.ndarray | None, ifm: QuantType) -> np.ndarray:
    """The largest magnitude an accumulator of each column can reach."""
    low, high = storage_range(ifm.storage)
    reach = max(abs(low - ifm.zero), abs(high - ifm.zero))
    sums = np.abs(values - zero).sum(axis=0) * reach
    return sums if bias is None else sums + np.abs(bias.astype(np.float64))


def half_away(x: np.ndarray) -> np.ndarray:
    """The nearest integer, ties away from zero."""
    return np.copysign(np.floor(np.abs(x) + 0.5), x)


# --- constants, dequantised ones among them --------------------------------------------------------------
def is_constant(value: SSAValue) -> bool:
    """Whether a value is a constant, or one dequantised."""
    owner = value.owner.input.owner if isinstance(value.owner, DCastOp) else value.owner
    return isinstance(owner, ConstantOp)


def reals_of(value: SSAValue) -> np.ndarray | None:
    """The floats of a constant, or of a dequantised one; None for what is computed."""
    if not isinstance(value.owner, DCastOp):
        return constant_of(value)
    integers, type_ = constant_of(value.owner.input), element_type(value.owner.input)
    return None if integers is None else reals(integers, type_)  # type: ignore[arg-type]
