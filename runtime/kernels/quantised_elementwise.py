"""Integer elementwise operators: add, sub, mul, requantise, prelu family, hard swish, tables, quantise.

Each `…_parameters` function turns scales into integers once, in the float precision in which TFLite's Prepare
step does it; the kernels themselves see integers only. Binary 8-bit operators have 65,536 possible inputs, so
large arrays go through a table made by the definition.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ..fixed_point import (
    Rounding,
    full_range,
    quantise_multiplier,
    requantise,
    requantise_to,
    rounding_divide_by_power_of_two,
    saturating_doubling_high_multiply,
)
from .quantised_table16 import lookup16

# Below this many outputs the 65,536-entry table of a binary operator costs more than it saves.
_TABLE_PAYS = 1 << 15


class AddParameters(NamedTuple):
    """Integers of a quantised ADD or SUB: both inputs are brought to a common scale before they meet."""

    zero_a: int
    multiplier_a: int
    shift_a: int
    zero_b: int
    multiplier_b: int
    shift_b: int
    zero_out: int
    multiplier_out: int
    shift_out: int
    left_shift: int
    low: int
    high: int


class MulParameters(NamedTuple):
    """Integers of a quantised MUL."""

    zero_a: int
    zero_b: int
    zero_out: int
    multiplier: int
    shift: int
    low: int
    high: int


class LeakyParameters(NamedTuple):
    """Integers of LEAKY_RELU and PRELU: a multiplier for x ≥ 0, one for x < 0 (times alpha in PRELU)."""

    zero_in: int
    zero_out: int
    multiplier_positive: int
    shift_positive: int
    multiplier_negative: int
    shift_negative: int
    zero_alpha: int


class HardSwishParameters(NamedTuple):
    """Integers of HARD_SWISH; both multipliers have 16 bits."""

    zero_in: int
    zero_out: int
    multiplier_out: int
    exponent_out: int
    multiplier_relu: int
    exponent_relu: int


def add_parameters(
    scale_a: float,
    zero_a: int,
    scale_b: float,
    zero_b: int,
    scale_out: float,
    zero_out: int,
    dtype: DTypeLike = np.int8,
    low: int | None = None,
    high: int | None = None,
) -> AddParameters:
    """Integers for `add` and `sub` of `dtype`; [low, high] is a fused activation's range, by default all."""
    smallest, largest = full_range(dtype)
    left_shift = 15 if np.dtype(dtype).itemsize == 2 else 20
    scale_a, scale_b, scale_out = (float(np.float32(scale)) for scale in (scale_a, scale_b, scale_out))
    twice_largest = 2 * max(scale_a, scale_b)
    return AddParameters(
        zero_a,
        *_multiplier(scale_a / twice_largest),
        zero_b,
        *_multiplier(scale_b / twice_largest),
        zero_out,
        *_multiplier(twice_largest / (2**left_shift * scale_out)),
        left_shift,
        smallest if low is None else low,
        largest if high is None else high,
    )


def add(a: NDArray[np.integer], b: NDArray[np.integer], parameters: AddParameters) -> NDArray[np.integer]:
    """Quantised a + b with numpy broadcasting (TFLite ADD); the result has the type of `a`."""
    return _binary(_add, a, b, parameters)


def sub(a: NDArray[np.integer], b: NDArray[np.integer], parameters: AddParameters) -> NDArray[np.integer]:
    """Quantised a − b with numpy broadcasting (TFLite SUB); the result has the type of `a`."""
    return _binary(_sub, a, b, parameters)


def mul_parameters(
    scale_a: float,
    zero_a: int,
    scale_b: float,
    zero_b: int,
    scale_out: float,
    zero_out: int,
    dtype: DTypeLike = np.int8,
    low: int | None = None,
    high: int | None = None,
) -> MulParameters:
    """Integers for `mul` of `dtype`; the real multiplier is rounded to float32 as TFLite's is."""
    smallest, largest = full_range(dtype)
    real = np.float32(scale_a) * np.float32(scale_b) / np.float32(scale_out)
    low, high = smallest if low is None else low, largest if high is None else high
    return MulParameters(zero_a, zero_b, zero_out, *_multiplier(real), low, high)


def mul(a: NDArray[np.integer], b: NDArray[np.integer], parameters: MulParameters) -> NDArray[np.integer]:
    """Quantised a · b with numpy broadcasting (TFLite MUL); the result has the type of `a`."""
    return _binary(_mul, a, b, parameters)


def requantise_tensor(
    x: NDArray[np.integer], multiplier: int, shift: int, zero_in: int, zero_out: int, dtype: DTypeLike
) -> NDArray[np.integer]:
    """Change scale, zero point and type of an integer tensor (TFLite QUANTIZE of integers)."""
    out = np.empty(x.shape, dtype)
    centred = x.astype(np.int32) - zero_in
    requantise_to(centred, None, multiplier, shift, zero_out, *full_range(dtype), Rounding.DOUBLE, out)
    return out


def leaky_relu_parameters(
    alpha: float, scale_in: float, zero_in: int, scale_out: float, zero_out: int
) -> LeakyParameters:
    """Integers for `leaky_relu`, computed in float32 as TFLite does."""
    single_in, single_out = np.float32(scale_in), np.float32(scale_out)
    positive, negative = single_in / single_out, single_in * np.float32(alpha) / single_out
    return LeakyParameters(zero_in, zero_out, *_multiplier(positive), *_multiplier(negative), 0)


def leaky_relu(x: NDArray[np.integer], parameters: LeakyParameters) -> NDArray[np.integer]:
    """x where x ≥ 0, else alpha · x (TFLite LEAKY_RELU)."""
    if x.dtype.itemsize == 1:
        return lookup(x, _leaky_table(x.dtype.str, parameters))
    return _leaky(x, np.ones((), np.int64), parameters)


def prelu_parameters(
    scale_in: float, zero_in: int, scale_alpha: float, zero_alpha: int, scale_out: float, zero_out: int
) -> LeakyParameters:
    """Integers for `prelu`, computed in float32 as TFLite does."""
    single_in, single_out = np.float32(scale_in), np.float32(scale_out)
    positive, negative = single_in / single_out, single_in * np.float32(scale_alpha) / single_out
    return LeakyParameters(zero_in, zero_out, *_multiplier(positive), *_multiplier(negative), zero_alpha)


def prelu(
    x: NDArray[np.integer], alpha: NDArray[np.integer], parameters: LeakyParameters
) -> NDArray[np.integer]:
    """x where x ≥ 0, else alpha · x with a quantised, broadcast alpha (TFLite PRELU)."""
    return _leaky(x, alpha.astype(np.int64) - parameters.zero_alpha, parameters)


def hard_swish_parameters(
    scale_in: float, zero_in: int, scale_out: float, zero_out: int
) -> HardSwishParameters:
    """Integers for `hard_swish`; the output scale must be at least 1/128 of the input's, as in TFLite."""
    fine_scale = np.float32(1 / 128) * np.float32(scale_in)
    out, out_exponent = _multiplier(fine_scale / np.float32(scale_out))
    relu, relu_exponent = _multiplier(fine_scale / (np.float32(3) / np.float32(32768)))
    if out_exponent > 0:
        raise ValueError(f"hard swish needs an output scale of at least {fine_scale}, got {scale_out}")
    return HardSwishParameters(
        zero_in, zero_out, _high_half(out), out_exponent, _high_half(relu), relu_exponent
    )


def hard_swish(x: NDArray[np.integer], parameters: HardSwishParameters) -> NDArray[np.integer]:
    """x · relu6(x + 3) / 6 in 16-bit fixed point (TFLite HARD_SWISH); 8-bit types only."""
    table_of_x = _hard_swish_table(np.dtype(x.dtype).str, parameters)
    return lookup(x, table_of_x)


def table(
    function: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    scale_in: float,
    zero_in: int,
    scale_out: float,
    zero_out: int,
    dtype: DTypeLike,
) -> NDArray[np.integer]:
    """The 256 outputs of a float function in the order of the stored bits, for `lookup`.

    As TFLite's LUTPopulate: float32 throughout, ties away from zero. The function takes and gives float32;
    `logistic` and `hyperbolic_tangent` round as the C library does.
    """
    low, high = full_range(dtype)
    stored = np.arange(256, dtype=np.uint8).view(dtype).astype(np.int32)
    real = np.float32(scale_in) * (stored - zero_in).astype(np.float32)
    with np.errstate(over="ignore"):  # what leaves float32, as e^x does, is clamped below
        scaled = function(real).astype(np.float32) * (np.float32(1) / np.float32(scale_out))
    rescaled = _round_half_away(scaled)
    # C++ converts to int32 after adding in float32; the limits keep that conversion defined.
    shifted = np.clip(rescaled + np.float32(zero_out), np.float32(-(2**31)), np.float32(2**31 - 128))
    return np.clip(shifted.astype(np.int64), low, high).astype(dtype)


def lookup(x: NDArray[np.integer], entries: NDArray[np.integer]) -> NDArray[np.integer]:
    """entries[x], where `entries` has one value for each 8-bit pattern, as `table` gives it.

    For int16 they are the 513 of `table16`, between which is interpolated.
    """
    if x.dtype.itemsize == 2:
        return lookup16(x, entries)  # type: ignore[arg-type]
    return entries.take(x.view(np.uint8))


def logistic(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """1 / (1 + e^−x) in float32 with a correctly rounded exponential, as TFLite's LOGISTIC table."""
    with np.errstate(over="ignore"):
        exponential = np.exp(-x.astype(np.float64)).astype(np.float32)
    return np.float32(1) / (np.float32(1) + exponential)


def hyperbolic_tangent(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """tanh in float32, correctly rounded, for TFLite's TANH table."""
    return np.tanh(x.astype(np.float64)).astype(np.float32)


def quantise(x: NDArray[np.float32], scale: float, zero: int, dtype: DTypeLike) -> NDArray[np.integer]:
    """round(x / scale) + zero, clamped; ties away from zero (TFLite's AffineQuantize).

    NaN becomes the zero point; TFLite's reference casts it to an integer, which C++ leaves undefined.
    """
    low, high = full_range(dtype)
    with np.errstate(invalid="ignore", over="ignore"):  # ±Inf and what overflows float32 end at the clamp
        quotient = _round_half_away(np.asarray(x, np.float32) / np.float32(scale)).astype(np.float64)
    return np.clip(np.where(np.isnan(quotient), 0.0, quotient) + zero, low, high).astype(dtype)


def dequantise(q: NDArray[np.integer], scale: float, zero: int) -> NDArray[np.float32]:
    """scale · (q − zero) in float32."""
    return (q.astype(np.int32) - zero).astype(np.float32) * np.float32(scale)


def _multiplier(real: float | np.floating) -> tuple[int, int]:
    multiplier, shift = quantise_multiplier(real)
    return int(multiplier), int(shift)


def _round_half_away(x: NDArray[np.floating]) -> NDArray[np.floating]:
    # Not floor(|x| + 1/2), which rounds 0.49999997 up.
    fraction, whole = np.modf(x)
    return whole + np.copysign(np.abs(fraction) >= 0.5, x).astype(x.dtype)


def _binary(definition, a, b, parameters) -> NDArray[np.integer]:
    if a.dtype.itemsize > 1 or max(a.size, b.size) < _TABLE_PAYS:
        return definition(a, b, parameters)
    entries = _binary_table(definition, a.dtype.str, parameters)
    index = a.view(np.uint8).astype(np.uint16) << np.uint16(8)
    return entries.take(index | b.view(np.uint8))


@lru_cache(maxsize=64)
def _binary_table(definition, dtype: str, parameters) -> NDArray[np.integer]:
    values = np.arange(256, dtype=np.uint8).view(dtype)
    return definition(values[:, None], values[None, :], parameters).reshape(-1)


def _add(a, b, p: AddParameters) -> NDArray[np.integer]:
    return _rescaled_sum(_to_common_scale_a(a, p) + _to_common_scale_b(b, p), p, a.dtype)


def _sub(a, b, p: AddParameters) -> NDArray[np.integer]:
    return _rescaled_sum(_to_common_scale_a(a, p) - _to_common_scale_b(b, p), p, a.dtype)


def _to_common_scale_a(a, p: AddParameters) -> NDArray[np.int32]:
    raised = (a.astype(np.int32) - p.zero_a) << p.left_shift
    return requantise(raised, p.multiplier_a, p.shift_a, Rounding.DOUBLE)


def _to_common_scale_b(b, p: AddParameters) -> NDArray[np.int32]:
    raised = (b.astype(np.int32) - p.zero_b) << p.left_shift
    return requantise(raised, p.multiplier_b, p.shift_b, Rounding.DOUBLE)


def _rescaled_sum(total: NDArray[np.int32], p: AddParameters, dtype) -> NDArray[np.integer]:
    out = np.empty(total.shape, dtype)
    requantise_to(total, None, p.multiplier_out, p.shift_out, p.zero_out, p.low, p.high, Rounding.DOUBLE, out)
    return out


def _mul(a, b, p: MulParameters) -> NDArray[np.integer]:
    product = (a.astype(np.int32) - p.zero_a) * (b.astype(np.int32) - p.zero_b)
    out = np.empty(product.shape, a.dtype)
    requantise_to(product, None, p.multiplier, p.shift, p.zero_out, p.low, p.high, Rounding.DOUBLE, out)
    return out


def _leaky(x, alpha: NDArray[np.int64], p: LeakyParameters) -> NDArray[np.integer]:
    centred = x.astype(np.int32) - p.zero_in
    positive = requantise(centred, p.multiplier_positive, p.shift_positive, Rounding.DOUBLE)
    scaled = (centred * alpha).astype(np.int32)
    # The sign of a negative alpha is applied after rounding.
    sign = -1 if p.multiplier_negative < 0 else 1
    negative = sign * requantise(scaled, abs(p.multiplier_negative), p.shift_negative, Rounding.DOUBLE)
    result = np.where(centred >= 0, positive, negative).astype(np.int64) + p.zero_out
    return np.clip(result, *full_range(x.dtype)).astype(x.dtype)


@lru_cache(maxsize=64)
def _leaky_table(dtype: str, parameters: LeakyParameters) -> NDArray[np.integer]:
    return _leaky(np.arange(256, dtype=np.uint8).view(dtype), np.ones((), np.int64), parameters)


def _high_half(multiplier: int) -> int:
    """A Q31 multiplier as Q15, rounded to nearest and saturated."""
    return min((multiplier + (1 << 15)) >> 16, 0x7FFF)


@lru_cache(maxsize=64)
def _hard_swish_table(dtype: str, p: HardSwishParameters) -> NDArray[np.integer]:
    values = np.arange(256, dtype=np.uint8).view(dtype).astype(np.int64)
    fine = (values - p.zero_in) << 7
    output_scaled = _high_multiply_16(fine, p.multiplier_out)
    gate = fine
    if p.exponent_relu > 0:
        gate = _saturate_16(gate << (p.exponent_relu - 1))
    gate = _high_multiply_16(gate, p.multiplier_relu)
    if p.exponent_relu > 0:
        gate = _saturate_16(gate << 1)
    else:
        gate = rounding_divide_by_power_of_two(gate, -p.exponent_relu)
    gate = (gate + (1 << 15)) >> 1
    product = gate * output_scaled
    # Truncated, not rounded, so that the biases of this and the previous high multiplication cancel.
    product = np.sign(product) * (np.abs(product) >> 15)
    result = rounding_divide_by_power_of_two(product, -p.exponent_out) + p.zero_out
    return np.clip(result, *full_range(dtype)).astype(dtype)


def _high_multiply_16(a: NDArray[np.int64], b: int) -> NDArray[np.int64]:
    """The 16-bit SaturatingRoundingDoublingHighMul: the 32-bit one of values raised by 16 bits."""
    return saturating_doubling_high_multiply(a << 16, b)


def _saturate_16(x: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.clip(x, -(2**15), 2**15 - 1)
