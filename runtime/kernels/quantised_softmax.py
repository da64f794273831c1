"""Fixed-point softmax over the last axis, equal to TFLite's reference kernel, in three steps.

A row larger than memory is done in pieces: the maximum of the pieces' maxima, the sum of the pieces' sums
(int32 additions, in any order), then the output of each piece.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ..fixed_point import (
    INT32_MAX,
    full_range,
    quantise_multiplier,
    rounding_divide_by_power_of_two,
    saturating_doubling_high_multiply,
    saturating_shift_left,
)

_INPUT_INTEGER_BITS = 5  # exp's argument is Q5.26
_SUM_INTEGER_BITS = 12  # the sum of exps is Q12.19


class SoftmaxParameters(NamedTuple):
    """Integers of SOFTMAX on 8 bits; the output has scale 1/256 and the smallest value as zero point."""

    multiplier: int
    left_shift: int
    smallest_difference: int


def softmax_parameters(scale_in: float, beta: float = 1.0) -> SoftmaxParameters:
    """Integers for softmax(beta · x) of inputs with `scale_in`."""
    input_scale = float(np.float32(beta)) * float(np.float32(scale_in))
    real = min(input_scale * 2.0 ** (31 - _INPUT_INTEGER_BITS), 2.0**31 - 1)
    multiplier, left_shift = (int(part) for part in quantise_multiplier(real))
    radius = (2**_INPUT_INTEGER_BITS - 1) * 2 ** (31 - _INPUT_INTEGER_BITS) // 2**left_shift
    return SoftmaxParameters(multiplier, left_shift, -radius)


def softmax(
    x: NDArray[np.integer], parameters: SoftmaxParameters, dtype: DTypeLike | None = None
) -> NDArray[np.integer]:
    """Softmax over the last axis; the result has the type of `x`, or `dtype` (int16 is possible)."""
    row_max = softmax_row_max(x)
    return softmax_output(x, row_max, softmax_exp_sum(x, row_max, parameters), parameters, dtype)


def softmax_row_max(x: NDArray[np.integer]) -> NDArray[np.integer]:
    """The largest element of each row: [..., 1]."""
    return x.max(axis=-1, keepdims=True)


def softmax_exp_sum(
    x: NDArray[np.integer], row_max: NDArray[np.integer], parameters: SoftmaxParameters
) -> NDArray[np.int32]:
    """Σ exp(x − row_max) of each row in Q12.19: int32 [..., 1]."""
    scaled = rounding_divide_by_power_of_two(_exponentials(parameters), _SUM_INTEGER_BITS)
    return scaled[_differences(x, row_max)].sum(axis=-1, keepdims=True).astype(np.int32)


def softmax_output(
    x: NDArray[np.integer],
    row_max: NDArray[np.integer],
    exp_sum: NDArray[np.int32],
    parameters: SoftmaxParameters,
    dtype: DTypeLike | None = None,
) -> NDArray[np.integer]:
    """exp(x − row_max) / exp_sum; `row_max` and `exp_sum` are [..., 1], `dtype` is that of `x` by default."""
    out_type = x.dtype if dtype is None else np.dtype(dtype)
    low, high = full_range(out_type)
    reciprocal, bits_over_unit = _reciprocal(exp_sum.astype(np.int64))
    exponentials = _exponentials(parameters)[_differences(x, row_max)]
    ratio = saturating_doubling_high_multiply(exponentials, reciprocal)
    shifted = rounding_divide_by_power_of_two(ratio, bits_over_unit + 31 - 8 * out_type.itemsize) + low
    return np.clip(shifted, low, high).astype(out_type)


def _differences(x, row_max) -> NDArray[np.intp]:
    return row_max.astype(np.intp) - x


@lru_cache(maxsize=64)
def _exponentials(p: SoftmaxParameters) -> NDArray[np.int64]:
    """exp(−difference) in Q0.31 for each difference 0 … 255 of 8-bit values, 0 beyond the range of Q5.26."""
    difference = -np.arange(256, dtype=np.int64)
    inside = difference >= p.smallest_difference
    raised = np.where(inside, difference, 0) << p.left_shift
    argument = saturating_doubling_high_multiply(raised, p.multiplier)
    return np.where(inside, _exp_on_negative_values(argument), 0)


def _exp_on_negative_values(argument: NDArray[np.int64]) -> NDArray[np.int64]:
    """gemmlowp's exp of Q5.26 values ≤ 0, as Q0.31.

    The argument is split into a multiple of 1/4 and a rest in [−1/4, 0); the rest goes through a polynomial,
    and each bit of the multiple multiplies in exp(−2^bit).
    """
    fraction_bits = 31 - _INPUT_INTEGER_BITS
    quarter = 1 << (fraction_bits - 2)
    rest = (argument & (quarter - 1)) - quarter
    multiple = rest - argument
    result = _exp_near_zero(rest << _INPUT_INTEGER_BITS)
    # Q0.31 constants exp(−2^k) for k = −2 … 4
    factors = (1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242)
    for exponent, factor in enumerate(factors, start=-2):
        applies = (multiple & (1 << (fraction_bits + exponent))) != 0
        result = np.where(applies, saturating_doubling_high_multiply(result, factor), result)
    return np.where(argument == 0, INT32_MAX, result)


def _exp_near_zero(a: NDArray[np.int64]) -> NDArray[np.int64]:
    """exp of Q0.31 values in [−1/4, 0): a fourth-order Taylor series around −1/8."""
    multiply, halve = saturating_doubling_high_multiply, rounding_divide_by_power_of_two
    exp_of_minus_eighth, third = 1895147668, 715827883
    x = a + (1 << 28)
    x2 = multiply(x, x)
    x3, x4 = multiply(x2, x), multiply(x2, x2)
    higher = halve(multiply(halve(x4, 2) + x3, third) + x2, 1)
    return exp_of_minus_eighth + multiply(exp_of_minus_eighth, x + higher)


def _reciprocal(total: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """1 / total as a Q0.31 mantissa and the number of integer bits of `total` (Q12.19 without sign: a sum that
    leaves 31 bits is still one of 32, as the reference kernel reads it)."""
    total = total & 0xFFFF_FFFF
    _, bit_length = np.frexp(total.astype(np.float64))
    leading_zeros = 32 - bit_length.astype(np.int64)
    above_one = (total << leading_zeros) - (1 << 31)
    return _one_over_one_plus(above_one), _SUM_INTEGER_BITS - leading_zeros


def _one_over_one_plus(a: NDArray[np.int64]) -> NDArray[np.int64]:
    """1 / (1 + a) for a in [0, 1), Q0.31: three steps of Newton and Raphson in Q2.29."""
    multiply = saturating_doubling_high_multiply
    half_denominator = (a + INT32_MAX + 1) >> 1  # (1 + a) / 2, ties up; both terms are non-negative
    forty_eight_17ths, minus_thirty_two_17ths = 1515870810, -1010580540
    x = forty_eight_17ths + multiply(half_denominator, minus_thirty_two_17ths)
    for _ in range(3):
        error = (1 << 29) - multiply(half_denominator, x)
        x = x + saturating_shift_left(multiply(x, error), 2)
    return saturating_shift_left(x, 1)
