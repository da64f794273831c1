"""Integer cells of LSTM, equal to LiteRT's reference kernel; formulas in dialects/qnn_recurrent.py."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from ...dialects.declarative import Parameters
from ...dialects.qnn_recurrent import LstmCellOp, NormLstmCellOp
from ..fixed_point import Rounding, requantise, rounding_divide_by_power_of_two
from ..kernel import kernel
from .quantised_functions import inverse_square_root

Array = NDArray[np.integer]
INT16_MIN, INT16_MAX = -(2**15), 2**15 - 1
GATE_BITS = 3
"""Gates are Q3.12 before their activations."""


# --- cells -----------------------------------------------------------------------------------------------
@kernel(LstmCellOp)
def lstm_cell(p: Parameters, x: Array, h: Array, c: Array, peepholes: Array | None = None) -> tuple[Array, Array]:
    """Hidden state and new cell state."""
    return step(Gates(p, x, h, c, peepholes), c)


@kernel(NormLstmCellOp)
def norm_lstm_cell(
    p: Parameters, x: Array, h: Array, c: Array, coefficients: Array, biases: Array, peepholes: Array | None = None
) -> tuple[Array, Array]:
    """Hidden state and new cell state, the gates normalised."""
    return step(NormalisedGates(p, x, h, c, peepholes, coefficients, biases), c)


class Gates:
    """The gates before their activations, one at a time; the first is i, or f where i is 1 − f."""

    def __init__(self, p: Parameters, x: Array, h: Array, c: Array, peepholes: Array | None):
        self.p, self.x, self.h, self.peepholes, self.hidden = p, x, h, peepholes, c.shape[1]
        self.count = x.shape[1] // self.hidden

    def part(self, array: Array, index: int) -> Array:
        """What of [..., kH] belongs to a gate."""
        return array[..., index * self.hidden : (index + 1) * self.hidden]

    def gate(self, index: int, c: Array | None = None) -> Array:
        """sat(sat(x + h) + round(m · p ⊙ c)), int64; the last term where there are peepholes and the gate reads c."""
        total = saturated(self.part(self.x, index).astype(np.int64) + self.part(self.h, index))
        if self.peepholes is None or c is None:
            return total
        which = min(index, self.count - 2)  # g has none
        product = self.part(self.peepholes, which).astype(np.int32) * c.astype(np.int32)
        factor = self.p.peephole_multiplier[which], self.p.peephole_shift[which]
        return saturated(total + requantise(product, *factor, Rounding.DOUBLE))


class NormalisedGates(Gates):
    """The gates behind their layer norms."""

    def __init__(
        self, p: Parameters, x: Array, h: Array, c: Array, peepholes: Array | None, coefficients: Array, biases: Array
    ):
        super().__init__(p, x, h, c, peepholes)
        self.coefficients, self.biases = coefficients, biases

    def gate(self, index: int, c: Array | None = None) -> Array:
        """round(m · ((n · coefficient + bias) / 1024)) of the normalised row n."""
        p = self.p
        normal = normalised(super().gate(index, c), p.guard[index])
        weighted = normal.astype(np.int64) * self.part(self.coefficients, index) + self.part(self.biases, index)
        rounded = rounding_divide_by_power_of_two(weighted, 10).astype(np.int32)
        return saturated(requantise(rounded, p.norm_multiplier[index], p.norm_shift[index], Rounding.DOUBLE))


def step(gates: Gates, c: Array) -> tuple[Array, Array]:
    """Hidden state int8 and new cell state int16 of one step."""
    p, first = gates.p, gates.count - 3
    forget = sigmoid(gates.gate(first, c))
    admit = INT16_MAX - forget if p.input_forget else sigmoid(gates.gate(0, c))
    kept = rounding_divide_by_power_of_two(forget * c, 15)
    added = rounding_divide_by_power_of_two(admit * tanh(gates.gate(first + 1), GATE_BITS), 15 + p.cell_bits)
    cell = saturated(kept + added)
    if p.cell_clip:
        cell = np.clip(cell, -p.cell_clip, p.cell_clip)
    output = sigmoid(gates.gate(first + 2, cell)) * tanh(cell, p.cell_bits)
    hidden = requantise(output, p.hidden_multiplier, p.hidden_shift, Rounding.DOUBLE).astype(np.int64)
    return np.clip(hidden + p.hidden_zero, -128, 127).astype(np.int8), cell.astype(np.int16)


def saturated(x: Array) -> Array:
    """x within int16."""
    return np.clip(x, INT16_MIN, INT16_MAX).astype(np.int64)


def normalised(x: Array, guard: int) -> NDArray[np.int32]:
    """(x − mean) / standard deviation of the rows [N, H] with ten fractional bits."""
    size = x.shape[-1]
    mean = quotient(1024 * x.sum(axis=-1, keepdims=True), size)
    squares = (x * x).sum(axis=-1, keepdims=True)
    # 2^20 / H is truncated before the product, as in the reference: the variance is that of a power of two alone
    variance = quotient(squares * ((1 << 20) // size) - mean * mean, 1 << 20)
    multiplier, shift = inverse_square_root(np.where(variance < 1, guard, variance))
    centred = (1024 * x - mean).astype(np.int32)
    rows = [requantise(row, int(m), int(s), Rounding.DOUBLE) for row, m, s in zip(centred, multiplier.flat, shift.flat)]
    return np.array(rows, np.int32).reshape(x.shape)


def quotient(a: Array, b: int) -> NDArray[np.int64]:
    """a / b towards zero."""
    return np.sign(a) * (np.abs(a) // b)


# --- gemmlowp's functions of int16 -----------------------------------------------------------------------
def sigmoid(x: Array) -> Array:
    """1 / (1 + e^−x) of Q3.12 in units of 2^-15, int64."""
    return sigmoid_table()[x - INT16_MIN]


def tanh(x: Array, bits: int) -> Array:
    """tanh of Qm.(15 − m) with `bits` for m, in units of 2^-15, int64."""
    return tanh_table(bits)[x - INT16_MIN]


@cache
def sigmoid_table() -> NDArray[np.int64]:
    """`sigmoid` of every int16, the smallest first."""
    x = np.arange(INT16_MIN, INT16_MAX + 1, dtype=np.int64)
    positive = raised(reciprocal(exponential(-np.abs(x), GATE_BITS)), 1)
    return np.where(x == 0, 1 << 14, np.where(x > 0, positive, INT16_MAX - positive))


@cache
def tanh_table(bits: int) -> NDArray[np.int64]:
    """`tanh` of every int16, the smallest first: (1 − e^−2x) / (1 + e^−2x)."""
    x = np.arange(INT16_MIN, INT16_MAX + 1, dtype=np.int64)
    positive = raised(reciprocal(exponential(-np.abs(x), bits + 1)) - (1 << 13), 2)
    return np.where(x == 0, 0, np.where(x > 0, positive, -positive))


def exponential(x: NDArray[np.int64], bits: int) -> NDArray[np.int64]:
    """e^x of x ≤ 0 in Qm.(15 − m) as Q0.15, `bits` being m.

    A rest in [−1/4, 0) goes through a series; each bit of the multiple of 1/4 that is left multiplies by e^(−2^bit).
    """
    quarter = 1 << (13 - bits)
    rest = (x & (quarter - 1)) - quarter
    multiple = rest - x
    power = exponential_near_zero(rest << bits)
    factors = (25520, 19875, 12055, 4435, 600, 11, 0)  # 2^15 · e^(−2^exponent)
    for exponent, factor in enumerate(factors, start=-2):
        if exponent < bits:
            applies = multiple & (1 << (15 - bits + exponent)) != 0
            power = np.where(applies, multiplied(power, factor), power)
    if bits > 5:
        power = np.where(x < -(1 << (20 - bits)), 0, power)  # below −32
    return np.where(x == 0, INT16_MAX, power)


def exponential_near_zero(a: NDArray[np.int64]) -> NDArray[np.int64]:
    """e^a of Q0.15 in [−1/4, 0): four terms of Taylor's series around −1/8."""
    exp_of_minus_eighth, third = 28918, 10923
    x = a + (1 << 12)
    x2 = multiplied(x, x)
    x3, x4 = multiplied(x2, x), multiplied(x2, x2)
    higher = multiplied(rounding_divide_by_power_of_two(x4, 2) + x3, third) + x2
    series = x + rounding_divide_by_power_of_two(higher, 1)
    return np.minimum(exp_of_minus_eighth + multiplied(exp_of_minus_eighth, series), INT16_MAX)


def reciprocal(a: NDArray[np.int64]) -> NDArray[np.int64]:
    """2 / (1 + a) of Q0.15 in [0, 1) as Q2.13: three steps of Newton and Raphson."""
    halved = (a + INT16_MAX + 1) >> 1
    x = 23130 + multiplied(halved, -15420)  # 48/17 − 32/17 · halved
    for _ in range(3):
        x = x + raised(multiplied(x, (1 << 13) - multiplied(halved, x)), 2)
    return x


def multiplied(a: NDArray[np.int64] | int, b: NDArray[np.int64] | int) -> NDArray[np.int64]:
    """a · b / 2^15 of int16 values, ties up, saturated."""
    return np.minimum((np.multiply(a, b) + (1 << 14)) >> 15, INT16_MAX)


def raised(x: NDArray[np.int64], bits: int) -> NDArray[np.int64]:
    """x · 2^bits, saturated to int16."""
    return np.clip(x << bits, INT16_MIN, INT16_MAX)
