"""Fixed-point requantisation: int32 (or int64) accumulators times a Q31 multiplier and a power of two.

The arithmetic is that of the TFLite quantisation specification and of gemmlowp's fixed-point functions, bit
for bit. `requantise` is the integer definition; `requantise_to` adds bias, zero point and clamp and takes a
float64 path where that path is exact. No scale is seen here except by `quantise_multiplier`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from ..dialects.rounding import Rounding

INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1

# Long enough to amortise a numpy call, short enough that the float64 scratch stays in the cache.
_CHUNK = 1 << 15
# Broadcasting a short channel vector makes numpy's inner loop short; vectors are repeated to this length.
_INNER = 2048


def quantise_multiplier(real: ArrayLike) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Split `real` into (multiplier, shift): multiplier · 2^(shift − 31), |multiplier| in [2^30, 2^31).

    Follows TFLite's QuantizeMultiplier: the mantissa rounds half away from zero, and a multiplier whose
    exponent is below −31 becomes (0, 0). Arrays have the shape of `real`; scalars give 0-d arrays.
    """
    mantissa, exponent = np.frexp(np.asarray(real, np.float64))
    scaled = np.ldexp(mantissa, 31)  # exact
    multiplier = np.copysign(np.floor(np.abs(scaled) + 0.5), scaled).astype(np.int64)
    rounded_up = multiplier == 1 << 31
    multiplier = np.where(rounded_up, 1 << 30, multiplier)
    shift = exponent.astype(np.int64) + rounded_up
    vanishes = (shift < -31) | (multiplier == 0)
    return (
        np.asarray(np.where(vanishes, 0, multiplier), np.int32),
        np.asarray(np.where(vanishes, 0, shift), np.int32),
    )


def requantise(
    acc: NDArray[np.integer], multiplier: ArrayLike, shift: ArrayLike, rounding: Rounding
) -> NDArray[np.int32]:
    """acc · multiplier · 2^(shift − 31), rounded as `rounding` says; wraps to int32 as the reference does.

    `multiplier` and `shift` are scalars or vectors over the last axis of `acc`.
    """
    rounding = Rounding(rounding)  # any IntEnum or field value of the same meaning is welcome
    multiplier, shift = np.asarray(multiplier, np.int64), np.asarray(shift, np.int64)
    flat, channels = _as_rows(acc, np.broadcast_shapes(multiplier.shape, shift.shape))
    multiplier, shift = (np.broadcast_to(v, (channels,)) for v in (multiplier, shift))
    out = np.empty(flat.shape, np.int32)
    rows = max(1, _CHUNK // channels)
    for start in range(0, len(flat), rows):
        out[start : start + rows] = _requantise_chunk(flat[start : start + rows], multiplier, shift, rounding)
    return out.reshape(acc.shape)


def requantise_to(
    acc: NDArray[np.integer],
    bias: NDArray[np.integer] | None,
    multiplier: ArrayLike,
    shift: ArrayLike,
    zero: int,
    low: int,
    high: int,
    rounding: Rounding,
    out: NDArray[np.integer],
) -> None:
    """out = clamp(requantise(acc + bias) + zero, low, high), elementwise over arrays of one shape."""
    rounding = Rounding(rounding)
    multiplier, shift = np.asarray(multiplier, np.int32), np.asarray(shift, np.int32)
    vectors = np.broadcast_shapes(multiplier.shape, shift.shape, () if bias is None else bias.shape)
    flat, channels = _as_rows(acc, vectors)
    multiplier = np.broadcast_to(multiplier, (channels,))
    shift = np.broadcast_to(shift, (channels,))
    if bias is not None:
        bias = np.broadcast_to(bias, (channels,))
    target = out.reshape(flat.shape) if out.flags.c_contiguous else np.empty(flat.shape, out.dtype)
    wide = acc.dtype.itemsize == 8
    plan = _float_plan(multiplier.tobytes(), shift.tobytes(), zero, low, high, rounding, wide)
    if plan is None:
        rows = max(1, _CHUNK // channels)
        for i in range(0, len(flat), rows):
            biased = flat[i : i + rows] if bias is None else flat[i : i + rows] + bias.astype(flat.dtype)
            target[i : i + rows] = _clamped_chunk(biased, multiplier, shift, zero, low, high, rounding)
    else:
        _requantise_in_float(flat, bias, multiplier, shift, zero, low, high, rounding, plan, target)
    if not out.flags.c_contiguous:
        out[...] = target.reshape(out.shape)


def saturating_doubling_high_multiply(a: ArrayLike, b: ArrayLike) -> NDArray[np.int64]:
    """gemmlowp's SaturatingRoundingDoublingHighMul of int32 values: round(a · b / 2^31), ties up; int64."""
    product = np.asarray(np.multiply(a, b, dtype=np.int64))
    # The reference nudges by the product's sign and truncates: together a floor after adding a half.
    product += 1 << 30
    product >>= 31
    return np.minimum(product, INT32_MAX, out=product)


def rounding_divide_by_power_of_two(x: ArrayLike, exponent: ArrayLike) -> NDArray[np.int64]:
    """gemmlowp's RoundingDivideByPOT on int32 values: x / 2^exponent, ties away from zero, as int64."""
    x, exponent = np.asarray(x, np.int64), np.asarray(exponent, np.int64)
    half = (np.int64(1) << exponent) >> 1
    quotient = np.asarray(x >> 63)
    quotient = quotient & -(exponent > 0).astype(np.int64)
    quotient += x
    quotient += half
    quotient >>= exponent
    return quotient


def saturating_shift_left(x: NDArray[np.int64], bits: int) -> NDArray[np.int64]:
    """x · 2^bits, saturated to int32."""
    return np.clip(x << bits, INT32_MIN, INT32_MAX)


def _requantise_chunk(
    acc: NDArray[np.integer], multiplier: NDArray[np.int64], shift: NDArray[np.int64], rounding: Rounding
) -> NDArray[np.int32]:
    """The definition, in int64: TFLite's overloads of MultiplyByQuantizedMultiplier, and AWAY."""
    wide: NDArray[np.int64] = acc.astype(np.int64)
    if rounding is Rounding.DOUBLE:
        if (shift > 0).any():
            wide = (wide << np.maximum(shift, 0)).astype(np.int32).astype(np.int64)
        high = saturating_doubling_high_multiply(wide, multiplier)
        return rounding_divide_by_power_of_two(high, np.maximum(-shift, 0)).astype(np.int32)
    if rounding is Rounding.SINGLE:
        return _multiply_and_round_up_ties(wide, multiplier, 31 - shift)
    if rounding is Rounding.EVEN:
        bits = 31 - shift
        result = _multiply_and_round_up_ties(wide, multiplier, bits)
        half = (np.int64(1) << bits) >> 1
        tie = (wide * multiplier & ((np.int64(1) << bits) - 1)) == half  # modulo 2^64, of which the low bits stay
        return result - (tie & (half > 0) & (result & 1 == 1)).astype(np.int32)
    if rounding is Rounding.AWAY:
        return np.sign(wide).astype(np.int32) * _multiply_and_round_up_ties(
            np.abs(wide), multiplier, 31 - shift
        )
    wide *= _cut_to_16_bits(multiplier)
    wide += (np.int64(1) << (15 - shift)) >> 1
    wide >>= 15 - shift
    return wide.astype(np.int32)


def _multiply_and_round_up_ties(
    acc: NDArray[np.int64], multiplier: NDArray[np.int64], bits: NDArray[np.int64]
) -> NDArray[np.int32]:
    """(acc · multiplier + 2^(bits − 1)) >> bits for `acc` of up to 63 bits (int16 FULLY_CONNECTED).

    The product is split as high · 2^32 + low, which a floor of the low part leaves exact.
    """
    low = (acc & 0xFFFFFFFF) * multiplier
    high = (acc >> 32) * multiplier
    half = (np.int64(1) << bits) >> 1
    high += (low + (half & 0xFFFFFFFF)) >> 32
    high += half >> 32
    below = np.minimum(bits, 32)  # shifts of less than 32 bits leave low bits in the result
    low = (low + half) & 0xFFFFFFFF
    return ((high << (32 - below) >> (bits - below)) + (low >> below) * (bits < 32)).astype(np.int32)


def _cut_to_16_bits(multiplier: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.where(multiplier < 0x7FFF0000, (multiplier + (1 << 15)) >> 16, 0x7FFF)


def _clamped_chunk(
    acc, multiplier, shift, zero: int, low: int, high: int, rounding: Rounding
) -> NDArray[np.int64]:
    scaled = _requantise_chunk(acc, multiplier.astype(np.int64), shift.astype(np.int64), rounding)
    return np.clip(scaled.astype(np.int64) + zero, low, high)


class _FloatPlan(NamedTuple):
    """Constants of the float64 path, repeated `repeats` times so that inner loops are long."""

    repeats: int
    factor: NDArray[np.float64]
    nudge: NDArray[np.int64] | None  # bits of the non-negative float64 nudge, DOUBLE and AWAY
    limit: float | None  # beyond it the integer definition wraps; None where it cannot
    even: bool = False  # ties go to even, and not up


@lru_cache(maxsize=512)
def _float_plan(
    multiplier_bytes: bytes,
    shift_bytes: bytes,
    zero: int,
    low: int,
    high: int,
    rounding: Rounding,
    wide: bool = False,
) -> _FloatPlan | None:
    """The float64 path's constants, or None where it would not be exact; `wide`: for int64 accumulators.

    Let s be the number of fractional bits of t = acc · multiplier / 2^s. SINGLE and ACC64 are floor(t + 1/2),
    EVEN is rint(t).
    DOUBLE with r = −shift > 0 has s = 31 + r and equals floor(t + 1/2 + n) with n = 2^−(r+1) for t ≥ 0 and −n
    for t < 0: the first rounding carries to a threshold k + 1/2 of the second whatever is within half of 2^−r
    of it (a tie goes up), and the second breaks ties away from zero. AWAY is the same with n = 2^−(s+1), half
    a step, which moves nothing but negative ties. Everything summed is a multiple of 2^−s (or 2^−(s+1)), so
    nothing is rounded while |sum| < 2^(53−s); s is limited so that this holds for every result inside the
    clamp, and beyond it float multiplication and addition are monotonic: saturated results stay saturated.
    """
    multiplier = np.frombuffer(multiplier_bytes, np.int32).astype(np.int64)
    shift = np.frombuffer(shift_bytes, np.int32).astype(np.int64)
    live = multiplier != 0
    if not live.any():
        return None
    fraction_bits = (15 if rounding is Rounding.ACC64 else 31) - np.where(live, shift, 0)
    largest = max(abs(low - zero), abs(high - zero)) + high - low + 4
    step_bits = fraction_bits + (rounding is Rounding.AWAY)
    if multiplier.min() < 0 or step_bits.max() + largest.bit_length() > 53 or fraction_bits.min() < 1:
        return None
    repeats = max(1, _INNER // len(multiplier))
    mantissa = _cut_to_16_bits(multiplier) if rounding is Rounding.ACC64 else multiplier
    factor = np.tile(np.ldexp(mantissa.astype(np.float64), -fraction_bits), repeats)
    nudge, limit = None, None
    if rounding is Rounding.ACC64 or (wide and rounding is not Rounding.DOUBLE):
        limit = 2.0**31 - 2  # results of more than 32 bits wrap
    elif shift.max() > 0:
        if multiplier[live].min() < 1 << 30:
            return None  # |t| < 2^30 would not prove that the shifted accumulator fits in 32 bits
        limit = 2.0**30
    if rounding is Rounding.DOUBLE and (live & (shift < 0)).any():
        steps = np.where(live & (shift < 0), np.ldexp(1.0, np.minimum(shift, 0) - 1), 0.0)
        nudge = np.tile(steps, repeats).view(np.int64)
    elif rounding is Rounding.AWAY:
        nudge = np.tile(np.ldexp(1.0, -step_bits), repeats).view(np.int64)
    return _FloatPlan(repeats, factor, nudge, limit, rounding is Rounding.EVEN)


def _requantise_in_float(
    acc, bias, multiplier, shift, zero: int, low: int, high: int, rounding: Rounding, plan: _FloatPlan, out
) -> None:
    """Run `plan` over [rows, channels] in cache-sized chunks."""
    channels = acc.shape[1]
    width = channels * plan.repeats
    whole = len(acc) - len(acc) % plan.repeats
    biases = None if bias is None else np.tile(bias, plan.repeats).astype(acc.dtype)
    lines = max(1, _CHUNK // width)
    for rows, line in ((slice(0, whole), width), (slice(whole, None), channels)):
        source, target = acc[rows].reshape(-1, line), out[rows].reshape(-1, line)
        nudge = None if plan.nudge is None else plan.nudge[:line]
        short = plan._replace(factor=plan.factor[:line], nudge=nudge)
        scaled = np.empty((min(lines, len(source)), line))
        for i in range(0, len(source), lines):
            part = source[i : i + lines]
            if biases is not None:
                part = part + biases[:line]
            t = scaled[: len(part)]
            np.copyto(t, part)
            if _scale_and_round(t, short, zero, low, high):
                _store_offset(t, low, target[i : i + lines])
            else:
                part = part.reshape(-1, channels)
                exact = _clamped_chunk(part, multiplier, shift, zero, low, high, rounding)
                target[i : i + lines] = exact.reshape(-1, line)


def _scale_and_round(t: NDArray[np.float64], plan: _FloatPlan, zero: int, low: int, high: int) -> bool:
    """Turn accumulators into clamped results above `low` whose integer part counts.

    False, with nothing promised of `t`, where the integer definition wraps.
    """
    np.multiply(t, plan.factor, out=t)
    if plan.limit is not None and t.size and max(t.max(), -t.min()) >= plan.limit:
        return False
    if plan.nudge is not None:
        # copysign through the bit pattern: numpy's own is five times slower
        signed = t.view(np.int64) & np.int64(-(2**63))
        np.bitwise_or(signed, plan.nudge, out=signed)
        np.add(t, signed.view(np.float64), out=t)
    if plan.even:
        np.rint(t, out=t)
    np.add(t, 0.5 + zero - low, out=t)
    np.clip(t, 0.0, high - low + 0.5, out=t)
    return True


def _store_offset(t: NDArray[np.float64], low: int, out: NDArray[np.integer]) -> None:
    """out = trunc(t) + low for t ≥ 0; in 8 bits the addition may wrap, which brings it to the same bits."""
    if out.dtype.itemsize == 1:
        np.add(t.astype(np.uint8), np.uint8(low & 255), out=out.view(np.uint8))
    else:
        np.add(t.astype(np.int32), np.int32(low), out=out, casting="unsafe")


def _as_rows(acc: NDArray[np.integer], vector_shape: tuple[int, ...]) -> tuple[NDArray[np.integer], int]:
    """`acc` as contiguous [rows, channels], and channels: the length of the per-channel vectors, or 1."""
    channels = vector_shape[-1] if vector_shape else 1
    if len(vector_shape) > 1 or (channels != 1 and channels != acc.shape[-1]):
        raise ValueError(f"channel vectors of shape {vector_shape} do not fit accumulators {acc.shape}")
    return np.ascontiguousarray(acc).reshape(-1, channels), channels


def full_range(dtype: DTypeLike) -> tuple[int, int]:
    """The smallest and the largest value of an integer type."""
    info = np.iinfo(dtype)
    return int(info.min), int(info.max)
