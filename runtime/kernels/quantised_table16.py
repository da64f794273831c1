"""Functions of one int16 value: tables of 513 samples between which is interpolated, as TFLite makes and
reads them.

The upper 9 bits of a value choose two neighbouring samples, the lower 7 weigh them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ..fixed_point import full_range

ENTRIES = 513
"""Samples of a table, the last of which only ends the last interval."""

_LOW, _HIGH = full_range(np.int16)
_STEPS = ENTRIES - 1


def interpolate(x: NDArray[np.integer], entries: NDArray[np.integer]) -> NDArray[np.int64]:
    """The table's function at values of the range of int16 (TFLite's LUTLookup).

    The difference of two samples has 16 bits in the reference, and wraps.
    """
    samples = entries.astype(np.int64)
    slopes = np.diff(samples).astype(np.int16).astype(np.int64)
    wide = x.astype(np.int64)
    index, weight = 256 + (wide >> 7), wide & 127
    return samples[index] + ((slopes[index] * weight + 64) >> 7)


def lookup16(x: NDArray[np.int16], entries: NDArray[np.int16]) -> NDArray[np.int16]:
    """`interpolate` of a tensor; a sum beyond int16 wraps as the reference's does."""
    return interpolate(x, entries).astype(np.int16)


def table16(
    function: Callable[[NDArray[Any]], NDArray[Any]],
    scale_in: float,
    zero_in: int,
    scale_out: float,
    zero_out: int,
    precision: DTypeLike = np.float32,
) -> NDArray[np.int16]:
    """The 513 entries of a function for `lookup16`, sampled in float32, or float64 (TFLite's LUTPopulate).

    Each sample but the last is moved by half the error that interpolation has at its interval's midpoint. The
    reference leaves the output's zero point out, and so it has to be 0.
    """
    if zero_out:
        raise ValueError(f"16-bit tables have symmetric results, not the zero point {zero_out}")
    kind = np.dtype(precision).type
    first, last = (kind(scale_in) * kind(end - zero_in) for end in (_LOW, _HIGH))  # type: ignore[call-overload]
    step = (last - first) / kind(_STEPS)
    span = kind(scale_out) * kind(_HIGH) - kind(scale_out) * kind(_LOW)  # type: ignore[call-overload]
    inverse = kind(1 << 16) / span
    place = np.arange(_STEPS).astype(kind)
    sample = _round_half_away(function(first + place * step) * inverse)
    middle = _round_half_away(function(first + place * step + step / kind(2)) * inverse)
    following = function(first + (place + kind(1)) * step) * inverse
    error = _round_half_away((following + sample) / kind(2)) - middle
    end = _round_half_away(function(np.array([last])) * inverse)
    entries = np.concatenate([sample - _round_half_away(error / kind(2)), end])
    return np.clip(entries, _LOW, _HIGH).astype(np.int16)


def _round_half_away(x: NDArray[Any]) -> NDArray[Any]:
    fraction, whole = np.modf(x)
    return whole + np.copysign(np.abs(fraction) >= 0.5, x).astype(x.dtype)
