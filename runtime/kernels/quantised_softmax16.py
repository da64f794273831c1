"""Softmax of int16 over the last axis, equal to TFLite's reference kernel: two 513-entry interpolated tables.

As in 8 bits it is done in three steps, so that a row larger than memory is done in pieces; the first is
`softmax_row_max`. Input and output are symmetric, the output has scale 1/32768.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..fixed_point import Rounding, full_range, quantise_multiplier, requantise
from .quantised_table16 import interpolate, table16

_LOW, _HIGH = full_range(np.int16)


class Softmax16Parameters(NamedTuple):
    """Integers of SOFTMAX on int16: they bring differences to 65,535 steps of the range [−10, 0]."""

    multiplier: int
    shift: int


def softmax16_parameters(scale_in: float, beta: float = 1.0) -> Softmax16Parameters:
    """Integers for softmax(beta · x) of int16 inputs with `scale_in`."""
    real = float(np.float32(scale_in) * np.float32(beta)) / (10.0 / 65535.0)
    multiplier, shift = quantise_multiplier(real)
    return Softmax16Parameters(int(multiplier), int(shift))


def softmax16(x: NDArray[np.int16], parameters: Softmax16Parameters) -> NDArray[np.int16]:
    """Softmax over the last axis."""
    row_max = x.max(axis=-1, keepdims=True)
    return softmax16_output(x, row_max, softmax16_exp_sum(x, row_max, parameters), parameters)


def softmax16_exp_sum(
    x: NDArray[np.int16], row_max: NDArray[np.int16], parameters: Softmax16Parameters
) -> NDArray[np.int32]:
    """Σ exp(x − row_max) of each row in Q16.15: int32 [..., 1]."""
    return _exponentials(x, row_max, parameters).sum(axis=-1, keepdims=True).astype(np.int32)


def softmax16_output(
    x: NDArray[np.int16],
    row_max: NDArray[np.int16],
    exp_sum: NDArray[np.int32],
    parameters: Softmax16Parameters,
) -> NDArray[np.int16]:
    """exp(x − row_max) / exp_sum; `row_max` and `exp_sum` are [..., 1]."""
    total = exp_sum.astype(np.int64)
    bit_length = np.frexp(total.astype(np.float64))[1].astype(np.int64)
    # The sum as 1 + a with a in [0, 1), in 65,536 steps around 0.
    mantissa = ((total << (31 - bit_length)) + (1 << 13)) >> 14
    around_zero = np.clip(mantissa - (1 << 15) - (1 << 16), _LOW, _HIGH)
    reciprocal = interpolate(around_zero, one_over_one_plus_table())
    right_shift = bit_length - 1
    product = _exponentials(x, row_max, parameters) * reciprocal
    return np.clip((product + (1 << (right_shift - 1))) >> right_shift, 0, _HIGH).astype(np.int16)


def _exponentials(x, row_max, parameters: Softmax16Parameters) -> NDArray[np.int64]:
    """exp(x − row_max) in Q0.15."""
    difference = x.astype(np.int32) - row_max
    scaled = requantise(difference, parameters.multiplier, parameters.shift, Rounding.DOUBLE)
    return interpolate(np.clip(scaled.astype(np.int64) + _HIGH, _LOW, _HIGH), exponential_table())


@cache
def exponential_table() -> NDArray[np.int16]:
    return table16(np.exp, 10.0 / 65535, _HIGH, 2.0 / 65535, 0, np.float64)


@cache
def one_over_one_plus_table() -> NDArray[np.int16]:
    return table16(lambda x: 1.0 / (1.0 + x), 1.0 / 65535, _LOW, 2.0 / 65535, 0, np.float64)
