"""Elementwise graph operations: unary functions, arithmetic, comparisons, selection, casts.

Float32 stays float32: parameters are Python floats, which numpy takes at the array's own precision. Integers
and booleans work where the operation has a meaning for them: shape arithmetic is folded with these kernels.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...dialects import graph
from ...dialects.declarative import Parameters
from ...dialects.types import dtype_of
from ...errors import NacreError
from ..kernel import kernel


def quiet() -> np.errstate:
    """Infinities and NaN are results here, not accidents to warn of."""
    return np.errstate(all="ignore")


# --- unary functions -------------------------------------------------------------------------------------
def unary(op: type[graph.UnaryOp], function: Callable[[np.ndarray], np.ndarray]) -> None:
    """Register a function without parameters; the result has the input's dtype."""

    @kernel(op)
    def run(p: Parameters, x: np.ndarray) -> np.ndarray:
        with quiet():
            return np.asarray(function(x), x.dtype)


def relu(x: np.ndarray) -> np.ndarray:
    """max(x, 0)."""
    return np.maximum(x, 0)


def rsqrt(x: np.ndarray) -> np.ndarray:
    """1 / √x."""
    return 1 / np.sqrt(x)


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + e^−x)."""
    return 1 / (1 + np.exp(-x))


def hard_swish(x: np.ndarray) -> np.ndarray:
    """x · max(0, min(1, x / 6 + 1/2)) (https://onnx.ai/onnx/operators/onnx__HardSwish.html)."""
    return x * np.maximum(0, np.minimum(1, x / 6 + 0.5))


unary(graph.NegOp, np.negative)
unary(graph.AbsOp, np.abs)
unary(graph.ExpOp, np.exp)
unary(graph.LogOp, np.log)
unary(graph.SqrtOp, np.sqrt)
unary(graph.RsqrtOp, rsqrt)
unary(graph.FloorOp, np.floor)
unary(graph.CeilOp, np.ceil)
unary(graph.RoundOp, np.rint)
unary(graph.SinOp, np.sin)
unary(graph.CosOp, np.cos)
unary(graph.TanhOp, np.tanh)
unary(graph.ReluOp, relu)
unary(graph.SigmoidOp, sigmoid)
unary(graph.HardSwishOp, hard_swish)

# Coefficients, constant term first, of a polynomial in s = x² / 8 − 1 that is erf(x) / x on |x| ≤ 4 with a
# relative error below 4e-10: interpolation at 19 Chebyshev points (L. N. Trefethen, Approximation Theory and
# Approximation Practice, chapters 2 to 4). A test makes them anew.
ERF_POLYNOMIAL = (
    0.3535309956434049, -0.17657623580039228, 0.13167511777582963, -0.10771029288641266,
    0.09020894134279632, -0.07473048679705468, 0.05988782958300683, -0.04574431267502724,
    0.033053291696067265, -0.022562558293108114, 0.014381038744396328, -0.008384044276092753,
    0.0047749462205666495, -0.0029097129559724944, 0.0014101528932398749, -0.00032551962727953547,
    0.0001732295034487736, -0.0002464220145300619, 9.403816578637098e-05,
)  # fmt: skip
ERF_LIMIT = 4.0  # from here on 1 − erf(x) < 2⁻²⁵, so float32 rounds to 1
ERF_PIECE = 1 << 14  # elements whose float64 intermediates stay in cache


def erf(x: np.ndarray) -> np.ndarray:
    """Gauss's error function by float64 sums and products alone, so with the same bits on every machine.

    The relative error is below 4e-10 (16e-9 beyond |x| = 4) before rounding to the dtype of x.
    """
    flat = np.ravel(x)
    result = np.empty_like(flat)
    for start in range(0, flat.size, ERF_PIECE):
        piece = flat[start : start + ERF_PIECE].astype(np.float64)
        clipped = np.clip(piece, -ERF_LIMIT, ERF_LIMIT)
        s = clipped * clipped / 8 - 1
        ratio = np.full_like(s, ERF_POLYNOMIAL[-1])
        for coefficient in ERF_POLYNOMIAL[-2::-1]:
            ratio *= s
            ratio += coefficient
        result[start : start + ERF_PIECE] = np.where(
            np.abs(piece) < ERF_LIMIT, clipped * ratio, np.sign(piece)
        )
    return result.reshape(x.shape)


unary(graph.ErfOp, erf)


@kernel(graph.GeluOp)
def gelu(p: Parameters, x: np.ndarray) -> np.ndarray:
    """x / 2 · (1 + erf(x / √2)) or x / 2 · (1 + tanh(√(2 / π) · (x + 0.044715 · x³)))."""
    with quiet():
        if p.approximate:
            inner = float(np.sqrt(2 / np.pi)) * (x + 0.044715 * (x * x * x))
            return np.asarray(0.5 * x * (1 + np.tanh(inner)))
        return np.asarray(0.5 * x * (1 + erf(np.asarray(x * float(np.sqrt(0.5))))))


@kernel(graph.ClampOp)
def clamp(p: Parameters, x: np.ndarray) -> np.ndarray:
    """min(max(x, low), high)."""
    low, high = bound(p.low, x.dtype), bound(p.high, x.dtype)
    return np.asarray(np.minimum(np.maximum(x, low), high))


def bound(value: float, dtype: np.dtype) -> float | int:
    """A limit as a number of the dtype: for integers, infinity is their largest one."""
    if not np.issubdtype(dtype, np.integer):
        return value
    info = np.iinfo(dtype)
    return int(min(max(value, info.min), info.max))


@kernel(graph.LeakyReluOp)
def leaky_relu(p: Parameters, x: np.ndarray) -> np.ndarray:
    """x where x ≥ 0, alpha · x elsewhere."""
    if 0 < p.alpha <= 1:  # the same values, without a branch an element
        return np.asarray(np.maximum(x, x * p.alpha))
    return np.where(x >= 0, x, x * p.alpha)


@kernel(graph.EluOp)
def elu(p: Parameters, x: np.ndarray) -> np.ndarray:
    """x where x ≥ 0, alpha · (e^x − 1) elsewhere."""
    return np.where(x >= 0, x, np.expm1(np.minimum(x, 0)) * p.alpha)


@kernel(graph.HardSigmoidOp)
def hard_sigmoid(p: Parameters, x: np.ndarray) -> np.ndarray:
    """max(0, min(1, alpha · x + beta))."""
    return np.asarray(np.maximum(0, np.minimum(1, x * p.alpha + p.beta)))


@kernel(graph.CastOp)
def cast(p: Parameters, x: np.ndarray) -> np.ndarray:
    """astype, which for booleans asks whether the value is not zero."""
    with quiet():
        return x.astype(dtype_of(p.to))


# --- functions of several tensors ------------------------------------------------------------------------
def binary(op: type[graph.BinaryOp], function: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> None:
    """Register a function of two tensors of one dtype, which the result keeps."""

    @kernel(op)
    def run(p: Parameters, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        with quiet():
            return np.asarray(function(a, b), a.dtype)


def divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a / b; integers truncate towards zero."""
    if not np.issubdtype(a.dtype, np.integer):
        return np.divide(a, b)
    if not np.all(b):
        raise NacreError("graph.div: an integer divisor is 0; it has to be non-zero")
    quotient, remainder = np.divmod(a, b)
    return quotient + ((remainder != 0) & ((a < 0) != (b < 0)))


def power(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a to the power of b; an integer to a negative power is truncated, which leaves 1 and −1 alone."""
    if not np.issubdtype(a.dtype, np.integer):
        return np.power(a, b)
    sign = np.where(b % 2 == 0, 1, a)
    return np.where(b < 0, np.where(np.abs(a) == 1, sign, 0), np.power(a, np.maximum(b, 0)))


def prelu(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a where a ≥ 0, a · b elsewhere."""
    return np.where(a >= 0, a, a * b)


binary(graph.AddOp, np.add)
binary(graph.SubOp, np.subtract)
binary(graph.MulOp, np.multiply)
binary(graph.DivOp, divide)
binary(graph.MinOp, np.minimum)
binary(graph.MaxOp, np.maximum)
binary(graph.PowOp, power)
binary(graph.PreluOp, prelu)

COMPARISONS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
}


@kernel(graph.CompareOp)
def compare(p: Parameters, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Booleans."""
    return np.asarray(COMPARISONS[p.predicate](a, b))


@kernel(graph.SelectOp)
def select(p: Parameters, condition: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a where the condition holds, b elsewhere."""
    return np.where(condition, a, b)
