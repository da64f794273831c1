"""Integer functions of one value or row beyond tables: logistic and tanh of int16, inverse square roots, squares.

As elsewhere each equals TFLite's reference kernel bit for bit; `…_parameters` functions see scales, kernels do not.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ..fixed_point import (
    INT32_MAX,
    Rounding,
    full_range,
    quantise_multiplier,
    requantise,
    requantise_to,
    saturating_doubling_high_multiply,
    saturating_shift_left,
)
from .quantised_elementwise import AddParameters


# --- logistic and tanh of int16 --------------------------------------------------------------------------
class CurveParameters(NamedTuple):
    """Integers of LOGISTIC and TANH on int16: they bring the input to steps of 1 / (3 · 4096)."""

    multiplier: int
    shift: int


def curve_parameters(scale_in: float, tanh: bool) -> CurveParameters:
    """Integers for `logistic16` and `tanh16`; scales that are powers of two are taken as they are."""
    mantissa, exponent = np.frexp(np.float32(scale_in))
    left = 12 + int(exponent) - 1
    if mantissa == 0.5 and left in ((0, 1) if tanh else (0,)):
        return CurveParameters(3 << left, 0)
    real, shift = float(np.float32(scale_in)) * 4096.0 * 3.0, 0
    while real <= 32767.0 / 2.0 and shift <= 30:
        shift, real = shift + 1, real * 2.0
    return CurveParameters(int(real), shift)


def logistic16(x: NDArray[np.int16], p: CurveParameters) -> NDArray[np.int16]:
    """1 / (1 + e^−x) in 1/32768, interpolated between 256 samples of step 1/24."""
    argument = _scaled(x, p)
    result = _interpolated(np.abs(argument), 9, 0x7FFF << 10)
    folded = np.where(argument >= 0, result + (1 << 9), (1 << 25) - result + (1 << 9) - 1)
    return (folded >> 10).astype(np.int16)


def tanh16(x: NDArray[np.int16], p: CurveParameters) -> NDArray[np.int16]:
    """tanh in 1/32768, as 2 · logistic(2x) − 1."""
    argument = _scaled(x, p)
    result = _interpolated(np.abs(argument), 8, 0xFFFF << 8)
    folded = np.where(argument >= 0, result - (1 << 23) + (1 << 7), -result + (1 << 23) + (1 << 7) - 1)
    return (folded >> 8).astype(np.int16)


def _scaled(x: NDArray[np.int16], p: CurveParameters) -> NDArray[np.int64]:
    half = 1 << (p.shift - 1) if p.shift else 0
    return (x.astype(np.int64) * p.multiplier + half) >> p.shift


def _interpolated(magnitude: NDArray[np.int64], bits: int, beyond: int) -> NDArray[np.int64]:
    """The samples' 16 bits, raised by `bits`, between which the low `bits` of the magnitude weigh."""
    place = magnitude >> bits
    inside = np.minimum(place, 254)
    samples = logistic_samples()
    below = samples[inside]
    between = (below << bits) + (magnitude & ((1 << bits) - 1)) * (samples[inside + 1] - below)
    return np.where(place >= 255, beyond, between)


# Where the reference's samples are one above the nearest integer; established by measuring it.
_SAMPLES_ABOVE = (
    4, 8, 12, 14, 15, 16, 17, 19, 20, 21, 22, 25, 27, 28, 29, 30, 31, 33, 34, 35, 37, 39, 40, 41, 43, 44, 45, 46,
    49, 50, 54, 62, 63, 64, 66, 82, 86, 93, 100, 103, 112, 116, 135, 255,
)  # fmt: skip


@cache
def logistic_samples() -> NDArray[np.int64]:
    """65536 / (1 + e^(−i / 24)) for i = 0 … 255."""
    samples = np.rint(65536 / (1 + np.exp(-np.arange(256, dtype=np.float64) / 24))).astype(np.int64)
    samples[list(_SAMPLES_ABOVE)] += 1
    return samples


# --- inverse square roots --------------------------------------------------------------------------------
def inverse_square_root(x: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """1 / √x of integers ≥ 0 as (multiplier, shift): multiplier · 2^(shift − 31); 0 counts as 1.

    Five steps of Newton and Raphson in Q3.28 on a mantissa between 1/2 and 2, as gemmlowp's fixed point has it.
    """
    value, right = np.maximum(np.asarray(x, np.int64), 2), np.full(np.shape(x), 11, np.int64)
    while (large := value >= 1 << 29).any():
        value, right = np.where(large, value // 4, value), right + large
    bit_length = np.frexp(value.astype(np.float64))[1].astype(np.int64)
    pairs = (32 - bit_length - 1) // 2 - 1
    right, value = right - pairs, value << (2 * pairs)
    multiply = saturating_doubling_high_multiply
    half_input = (((value >> 1) + 1) >> 1).astype(np.int64)
    root = np.full(np.shape(x), 1 << 28, np.int64)
    for _ in range(5):
        cube = saturating_shift_left(multiply(multiply(root, root), root), 6)
        root = saturating_shift_left(multiply((1 << 28) + (1 << 27), root) - multiply(half_input, cube), 3)
    multiplier = multiply(root, 1518500250)  # √2 / 2 in Q0.31
    multiplier = np.where(right < 0, multiplier << np.maximum(-right, 0), multiplier)
    shift = -np.maximum(right, 0)
    tiny = np.asarray(x) <= 1
    return np.where(tiny, INT32_MAX, multiplier), np.where(tiny, 0, shift)


def l2_normalise(x: NDArray[np.integer], zero_in: int) -> NDArray[np.integer]:
    """x / √Σ x² over the last axis (TFLite L2_NORMALIZATION); the result has scale 1/128 and its zero in the middle."""
    centred = x.astype(np.int64) - zero_in
    multiplier, shift = inverse_square_root((centred * centred).sum(axis=-1))
    rows, factors = centred.reshape(-1, x.shape[-1]), zip(multiplier.ravel(), shift.ravel())
    low, high = full_range(x.dtype)
    middle = (low + high + 1) // 2
    # The steps of 1/128 come before the factor for uint8, and with its shift for int8, which rounds otherwise.
    before, after = (128, 0) if x.dtype == np.uint8 else (1, 7)
    scaled = [requantise(before * row, int(m), int(s) + after, Rounding.DOUBLE) for row, (m, s) in zip(rows, factors)]
    result = np.array(scaled, np.int64).reshape(x.shape) + middle
    return np.clip(result, low, high).astype(x.dtype)


def rsqrt_table(
    scale_in: float, zero_in: int, scale_out: float, zero_out: int, dtype: DTypeLike
) -> NDArray[np.integer]:
    """The 256 outputs of 1 / √x (TFLite RSQRT) in the order of the stored bits; below real zero as at zero."""
    root = np.sqrt(np.float32(scale_in)) * np.float32(scale_out)
    multiplier, shift = (int(v) for v in quantise_multiplier(1.0 / float(root)))
    low, high = full_range(dtype)
    stored = np.arange(256, dtype=np.uint8).view(dtype).astype(np.int64)
    value = np.maximum(stored - zero_in, 0)
    inverse, inverse_shift = inverse_square_root(value)
    kept = 20  # bits that keep the inverse an integer
    one = np.ones(1, np.int32)
    raised = [requantise(one, int(m), int(s) + kept, Rounding.DOUBLE)[0] for m, s in zip(inverse, inverse_shift)]
    result = requantise(np.array(raised), multiplier, shift - kept, Rounding.DOUBLE).astype(np.int64) + zero_out
    return np.where(value == 0, high, np.clip(result, low, high)).astype(dtype)


# --- squares and comparisons -----------------------------------------------------------------------------
def squared_difference_parameters(
    scale_a: float, zero_a: int, scale_b: float, zero_b: int, scale_out: float, zero_out: int, dtype: DTypeLike
) -> AddParameters:
    """Integers for `squared_difference`; both inputs are brought to a common scale before they meet."""
    left_shift = 7
    a, b, out = (float(np.float32(s)) for s in (scale_a, scale_b, scale_out))
    twice = 2 * max(a, b)
    multiplier_a, shift_a = (int(v) for v in quantise_multiplier(a / twice))
    multiplier_b, shift_b = (int(v) for v in quantise_multiplier(b / twice))
    multiplier, shift = (int(v) for v in quantise_multiplier(twice * twice / ((1 << (2 * left_shift)) * out)))
    low, high = full_range(dtype)
    return AddParameters(
        zero_a, multiplier_a, shift_a, zero_b, multiplier_b, shift_b, zero_out, multiplier, shift, left_shift, low,
        high,
    )  # fmt: skip


def squared_difference(a: NDArray[np.integer], b: NDArray[np.integer], p: AddParameters) -> NDArray[np.integer]:
    """(a − b)² with numpy broadcasting (TFLite SQUARED_DIFFERENCE)."""
    first = requantise((a.astype(np.int32) - p.zero_a) << p.left_shift, p.multiplier_a, p.shift_a, Rounding.DOUBLE)
    second = requantise((b.astype(np.int32) - p.zero_b) << p.left_shift, p.multiplier_b, p.shift_b, Rounding.DOUBLE)
    square = (first - second) * (first - second)
    out = np.empty(square.shape, a.dtype)
    requantise_to(square, None, p.multiplier_out, p.shift_out, p.zero_out, p.low, p.high, Rounding.DOUBLE, out)
    return out


def comparison_table(scale: float, zero: int, dtype: DTypeLike) -> NDArray[np.int32]:
    """What TFLite compares in place of each 8-bit pattern: (q − zero) · 256 · scale, rounded."""
    stored = np.arange(256, dtype=np.uint8).view(dtype).astype(np.int32)
    multiplier, shift = (int(v) for v in quantise_multiplier(float(np.float32(scale))))
    return requantise((stored - zero) << 8, multiplier, shift, Rounding.DOUBLE)
