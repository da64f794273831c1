"""Requantisation against the published definitions in Python integers, mostly one unit from ties."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacre.runtime import fixed_point
from nacre.runtime.fixed_point import (
    Rounding,
    quantise_multiplier,
    requantise,
    requantise_to,
    rounding_divide_by_power_of_two,
    saturating_doubling_high_multiply,
)


def wrap(x: int, bits: int = 32) -> int:
    return (x + (1 << (bits - 1))) % (1 << bits) - (1 << (bits - 1))


def truncate_divide(a: int, b: int) -> int:
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


def high_multiply(a: int, b: int) -> int:
    """SaturatingRoundingDoublingHighMul as published: a nudge by the sign, then C's division."""
    if a == b == -(2**31):
        return 2**31 - 1
    product = a * b
    return truncate_divide(product + (2**30 if product >= 0 else 1 - 2**30), 2**31)


def divide_by_power(x: int, exponent: int) -> int:
    """RoundingDivideByPOT as published: a remainder compared with a threshold that depends on the sign."""
    mask = (1 << exponent) - 1
    return (x >> exponent) + ((x & mask) > (mask >> 1) + (x < 0))


def requantise_one(acc: int, multiplier: int, shift: int, rounding: Rounding) -> int:
    if rounding is Rounding.DOUBLE:
        return divide_by_power(high_multiply(wrap(acc << max(shift, 0)), multiplier), max(-shift, 0))
    if rounding is Rounding.SINGLE:
        return wrap((acc * multiplier + (1 << (30 - shift))) >> (31 - shift))
    if rounding is Rounding.EVEN:
        return wrap(round(Fraction(acc * multiplier, 1 << (31 - shift))))
    if rounding is Rounding.AWAY:
        magnitude = (abs(acc * multiplier) + (1 << (30 - shift))) >> (31 - shift)
        return wrap(magnitude if acc * multiplier >= 0 else -magnitude)
    cut = (multiplier + (1 << 15)) >> 16 if multiplier < 0x7FFF0000 else 0x7FFF
    return wrap((acc * cut + (1 << (14 - shift))) >> (15 - shift))


def near_ties(rng: np.random.Generator, multiplier: int, shift: int, count: int, bits: int) -> np.ndarray:
    """Accumulators whose product lies within one accumulator of k + 1/2, or as near as `bits` allow."""
    found = []
    for k in rng.integers(-600, 600, count):
        tie = (2 * int(k) + 1) * 2.0 ** (30 - shift) / multiplier
        found += [math.floor(tie) + step for step in (-1, 0, 1, 2)]
    limit = 2 ** (bits - 1) - 1
    return np.clip(np.array(found, np.float64), -limit, limit).astype(np.int64)


def multipliers(rng: np.random.Generator, count: int) -> np.ndarray:
    """Half of them any, half with few significant bits: only these have exact ties at small results."""
    free = rng.integers(2**30, 2**31, count)
    round_ones = (1 << 30) + (rng.integers(0, 64, count) << rng.integers(0, 24, count))
    return np.where(rng.random(count) < 0.5, free, round_ones)


ROUNDINGS = {
    Rounding.DOUBLE: (-31, 8),
    Rounding.SINGLE: (-31, 8),
    Rounding.ACC64: (-31, 7),
    Rounding.AWAY: (-31, 8),
    Rounding.EVEN: (-31, 8),
}


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_requantise_is_the_published_arithmetic_near_ties(rounding):
    rng = np.random.default_rng(1)
    low, high = ROUNDINGS[rounding]
    for shift in range(low, high + 1):
        for multiplier in [*multipliers(rng, 4).tolist(), 2**30, 2**31 - 1, 0]:
            bits = 47 if rounding is Rounding.ACC64 else 31
            acc = near_ties(rng, max(multiplier, 1), shift, 12, bits)
            acc = np.append(acc, rng.integers(-(2 ** min(bits, 31 - max(shift, 0))) + 1, 2**20, 20))
            acc = acc.astype(np.int64 if rounding is Rounding.ACC64 else np.int32)
            expected = [requantise_one(int(a), multiplier, shift, rounding) for a in acc]
            assert requantise(acc, multiplier, shift, rounding).tolist() == expected


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_requantise_to_is_requantise_then_clamp_near_ties(rounding):
    """The float64 path, with bias, zero point, clamp and one multiplier a channel."""
    rng = np.random.default_rng(2)
    taken = 0
    for trial in range(500):
        channels = int(rng.integers(1, 6))
        multiplier, shift = multipliers(rng, channels), rng.integers(-20, 6, channels)
        bits = 47 if rounding is Rounding.ACC64 else 31
        columns = [near_ties(rng, int(m), int(s), 30, bits) for m, s in zip(multiplier, shift, strict=True)]
        dtype = np.int16 if rounding is Rounding.ACC64 else (np.int8, np.uint8)[trial % 2]
        low, high = fixed_point.full_range(dtype)
        if trial % 3 == 0:
            low, high = low + 7, high - 9
        zero = 0 if dtype == np.int16 else int(rng.integers(low, high + 1))
        bias = rng.integers(-3, 4, channels).astype(np.int32)
        acc = np.stack(columns, axis=-1).astype(np.int64 if rounding is Rounding.ACC64 else np.int32)
        out = np.empty(acc.shape, dtype)
        requantise_to(acc, bias, multiplier, shift, zero, low, high, rounding, out)
        exact = requantise(acc + bias, multiplier, shift, rounding).astype(np.int64) + zero
        np.testing.assert_array_equal(out, np.clip(exact, low, high))
        plan = fixed_point._float_plan(
            multiplier.astype(np.int32).tobytes(), shift.astype(np.int32).tobytes(), zero, low, high, rounding
        )
        taken += plan is not None
    assert taken > 200, "the fast path is hardly tested"


def one_unit_from_thresholds(rng: np.random.Generator, bits: int, rounding: Rounding, limit: int):
    """(acc, multiplier) with acc · multiplier equal to, or one off, a product where the result changes.

    acc is solved for modulo 2^bits, and kept where it is small enough for results below `limit`.
    """
    threshold = (1 << (bits - 1)) - ((1 << 30) if rounding is Rounding.DOUBLE and bits > 31 else 0)
    found = []
    for multiplier in (rng.integers(2**29, 2**30, 8000) * 2 + 1).tolist():
        inverse = pow(multiplier, -1, 1 << bits)
        for sign in (1, -1):
            for off in (-1, 0, 1):
                acc = wrap((sign * threshold + off) * inverse, bits)
                if abs(acc) < 2**31 and abs(acc * multiplier) >> bits < limit:
                    found.append((acc, multiplier))
    return found


@pytest.mark.parametrize("rounding", [Rounding.DOUBLE, Rounding.SINGLE, Rounding.AWAY, Rounding.EVEN])
def test_the_float_path_ends_where_it_stops_being_exact(rounding):
    """Products one unit from a threshold, with so wide a clamp that float64 cannot hold them all."""
    rng, limit, cases, by_integers = np.random.default_rng(4), 2**20, 0, 0
    for bits in range(27, 37):
        for acc, multiplier in one_unit_from_thresholds(rng, bits, rounding, limit):
            out, shift = np.empty(1, np.int32), np.array([31 - bits], np.int32)
            arguments = (np.array([multiplier], np.int32), shift, 0, -limit, limit, rounding)
            requantise_to(np.array([acc], np.int32), None, *arguments, out)
            assert out[0] == requantise_one(acc, multiplier, 31 - bits, rounding), (acc, multiplier, bits)
            by_integers += (
                fixed_point._float_plan(arguments[0].tobytes(), shift.tobytes(), 0, -limit, limit, rounding)
                is None
            )
            cases += 1
    assert cases > 300 and 0 < by_integers < cases


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_requantise_to_has_no_favourite_shape(data):
    """Tails of chunks, strided outputs, missing bias, scalar and per-channel multipliers."""
    channels = data.draw(st.sampled_from([1, 2, 3, 17, 64, 1000]))
    rows = data.draw(st.integers(0, 70_000 // channels))
    rounding = data.draw(st.sampled_from([Rounding.DOUBLE, Rounding.SINGLE, Rounding.AWAY, Rounding.EVEN]))
    per_channel, with_bias = data.draw(st.booleans()), data.draw(st.booleans())
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    vector = channels if per_channel else ()
    multiplier, shift = rng.integers(2**30, 2**31, vector), rng.integers(-14, 3, vector)
    acc = rng.integers(-(2**20), 2**20, (rows, channels)).astype(np.int32)
    bias = rng.integers(-1000, 1000, channels).astype(np.int32) if with_bias else None
    canvas = np.full((rows, 2, channels), 99, np.int8)
    requantise_to(acc, bias, multiplier, shift, -5, -128, 127, rounding, canvas[:, 1])
    biased = acc if bias is None else acc + bias
    exact = np.clip(requantise(biased, multiplier, shift, rounding).astype(np.int64) - 5, -128, 127)
    np.testing.assert_array_equal(canvas[:, 1], exact)
    assert (canvas[:, 0] == 99).all()


@pytest.mark.parametrize("rounding", [Rounding.SINGLE, Rounding.AWAY, Rounding.EVEN])
def test_single_rounding_of_64_bit_accumulators_is_exact(rounding):
    rng = np.random.default_rng(3)
    acc = rng.integers(-(2**47), 2**47, 400)
    for shift in range(-31, -15):
        multiplier = int(rng.integers(2**30, 2**31))
        expected = [requantise_one(int(a), multiplier, shift, rounding) for a in acc]
        assert requantise(acc, multiplier, shift, rounding).tolist() == expected


def test_accumulators_that_overflow_a_left_shift_wrap_as_the_reference_does():
    acc = np.array([2**30, -(2**30) - 5, 2**27, 3], np.int32)
    for rounding in (Rounding.DOUBLE, Rounding.SINGLE, Rounding.AWAY, Rounding.EVEN):
        expected = [requantise_one(int(a), 2**30 + 77, 4, rounding) for a in acc]
        assert requantise(acc, 2**30 + 77, 4, rounding).tolist() == expected
        out = np.empty(4, np.int8)
        requantise_to(acc, None, 2**30 + 77, 4, 0, -128, 127, rounding, out)
        assert out.tolist() == np.clip(expected, -128, 127).tolist()


@given(st.integers(-(2**31), 2**31 - 1), st.integers(-(2**31), 2**31 - 1), st.integers(0, 31))
def test_primitives(a, b, exponent):
    assert saturating_doubling_high_multiply(a, b) == high_multiply(a, b)
    assert rounding_divide_by_power_of_two(a, exponent) == divide_by_power(a, exponent)


def test_primitives_at_the_corners():
    assert saturating_doubling_high_multiply(-(2**31), -(2**31)) == 2**31 - 1
    assert rounding_divide_by_power_of_two([-3, -1, 1, 3], 1).tolist() == [-2, -1, 1, 2]


@given(st.floats(2.0**-31, 2.0**30))
def test_quantise_multiplier_is_the_nearest(real):
    multiplier, shift = (int(part) for part in quantise_multiplier(real))
    assert 2**30 <= multiplier < 2**31
    assert abs(multiplier * 2.0 ** (shift - 31) - real) <= 2.0 ** (shift - 32)


def test_quantise_multiplier_at_the_edges():
    multiplier, shift = quantise_multiplier([0.0, 1.0, 2.0**-32, 2.0**-33, 1 - 2.0**-40, -0.75])
    assert multiplier.tolist() == [0, 2**30, 2**30, 0, 2**30, -(3 << 29)]
    assert shift.tolist() == [0, 1, -31, 0, 1, 0]
    assert quantise_multiplier(0.5)[0].shape == ()


def test_channel_vectors_must_fit():
    with pytest.raises(ValueError, match="channel vectors of shape"):
        requantise(np.zeros((2, 3), np.int32), np.ones(2, np.int32), 0, Rounding.SINGLE)
