"""The coefficients of frontends/opencl/math.cl: polynomials with the least relative error of the function.

    python benchmarks/opencl_coefficients.py

Lawson's reweighted least squares on Chebyshev points, in float64. Coefficients are rounded to float32 one after the
other, the lowest power first, and those that follow are fitted again. Prints them with the largest error that is left.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

Array = np.ndarray
Real = Callable[[Array], Array]


def points(low: float, high: float, count: int = 4000) -> Array:
    """Chebyshev points of an interval."""
    return (low + high) / 2 + (high - low) / 2 * np.cos((np.arange(count) + 0.5) * math.pi / count)


def minimax(basis: Array, target: Array, scale: Array, rounds: int = 60) -> Array:
    """The coefficients for which the largest |basis · c − target| · scale is least."""
    weight, best, least = np.ones(len(target)), np.zeros(basis.shape[1]), np.inf
    for _ in range(rounds):
        w = np.sqrt(weight) * scale
        c = np.linalg.lstsq(basis * w[:, None], target * w, rcond=None)[0]
        error = np.abs(basis @ c - target) * scale
        if error.max() < least:
            best, least = c, error.max()
        weight *= error / error.max() + 1e-9
        weight /= weight.mean()
    return best


def fit(name: str, function: Real, low: float, high: float, terms: int, scale: Real) -> None:
    """Print float32 coefficients of 1, x, x², … for a function; errors count times `scale`."""
    x = points(low, high)
    left, weight = function(x), scale(x)
    found = []
    for k in range(terms):
        basis = np.stack([x**p for p in range(k, terms)], 1)
        norm = np.abs(basis).max(0)
        found.append(np.float32(minimax(basis / norm, left, weight)[0] / norm[0]))
        left = left - float(found[-1]) * x**k
    print(f"{name}: largest relative error 2^{math.log2((np.abs(left) * weight).max()):.1f}")
    print("   ", " ".join(f"{c:.9e}" for c in found))


def series(term: Callable[[int], float], count: int = 24) -> Real:
    """A power series."""
    return lambda z: np.polynomial.polynomial.polyval(z, [term(k) for k in range(count)])


def tail(term: Callable[[int], float], skipped: int) -> Real:
    """What is left of a power series behind its first terms, divided by the power of the next."""
    return series(lambda k: term(k + skipped))


def exponential(k: int) -> float:
    return 1 / math.factorial(k)


def near_or_exact(series_: Real, exact: Real, limit: float) -> Real:
    """A series near zero, where the formula loses digits, and the formula elsewhere."""

    def value(z: Array) -> Array:
        near = np.abs(z) < limit
        return np.where(near, series_(np.where(near, z, 0)), exact(np.where(near, limit, z)))

    return value


erf, erfc = np.vectorize(math.erf), np.vectorize(math.erfc)
LN2, LN10, TINY = math.log(2), math.log(10), 1e-9
root = np.sqrt


def main() -> None:
    """All fits, in the order of math.cl. z stands for x²."""
    first, second = tail(exponential, 1), tail(exponential, 2)
    fit("exp: (e^r - 1 - r) / r²", second, -0.51 * LN2, 0.51 * LN2, 5, lambda r: r * r / np.exp(r))
    for terms in (6, 5):  # the shorter one is tanh's
        two = lambda r: first(r * LN2) * LN2  # noqa: E731
        fit("exp2: (2^r - 1) / r", two, -0.505, 0.505, terms, lambda r: np.abs(r) / 2**r)
    fit("exp10: (10^r - 1) / r", lambda r: first(r * LN10) * LN10, -0.153, 0.153, 6, lambda r: np.abs(r) / 10**r)
    fit("expm1: (e^r - 1 - r) / r²", second, -0.51 * LN2, 0.51 * LN2, 6, lambda r: np.abs(r) / first(r))

    odd = series(lambda k: exponential(2 * k + 3), 12)
    fit("sinh: (sinh x / x - 1) / z", odd, TINY, 1, 4, lambda z: z * root(z) / np.sinh(root(z)))
    start = series(lambda k: (-1 / 3, 2 / 15, -17 / 315, 62 / 2835)[k], 4)
    tanh = near_or_exact(start, lambda z: (np.tanh(root(z)) / root(z) - 1) / z, 1e-3)
    fit("tanh: (tanh x / x - 1) / z", tanh, TINY, 0.55**2, 5, lambda z: z * root(z) / np.tanh(root(z)))
    fit("erf: erfc(x)^(-1/8)", lambda x: erfc(x) ** -0.125, 0.9, 3.95, 8, lambda x: 8 * erfc(x) ** 1.125 / erf(x))
    small = lambda z: erf(root(z)) / root(z) - 1  # noqa: E731
    fit("erf: erf(x) / x - 1", small, TINY, 0.95**2, 7, lambda z: root(z) / erf(root(z)))
    back = lambda t: 3 * (1 + t) / (1 - t)  # noqa: E731
    scaled = lambda t: erfc(back(t)) * np.exp(back(t) ** 2)  # noqa: E731
    fit("erfc: erfcx(x) of t = (x - 3) / (x + 3)", scaled, -1, 7.1 / 13.1, 10, lambda t: 1 / scaled(t))

    log = near_or_exact(
        series(lambda k: (-1) ** k / (k + 3), 16), lambda f: (np.log1p(f) - f + f * f / 2) / f**3, 0.02
    )
    ends = math.sqrt(0.5) - 1, math.sqrt(2) - 1
    fit("log: (log(1 + f) - f + f²/2) / f³", log, *ends, 8, lambda f: np.abs(f**3 / np.log1p(f)))
    fit("pow: (atanh(s) / s - 1) / z", series(lambda k: 1 / (2 * k + 3)), TINY, 0.0297, 3, lambda z: z)

    sine = series(lambda k: (-1) ** (k + 1) * exponential(2 * k + 3), 12)
    cosine = series(lambda k: (-1) ** k * exponential(2 * k + 4), 12)
    fit("sin: (sin r / r - 1) / z", sine, TINY, 0.88**2, 4, lambda z: z * root(z) / np.sin(root(z)))
    fit("cos: (cos r - 1 + z/2) / z²", cosine, TINY, 0.88**2, 3, lambda z: z * z / np.cos(root(z)))
    asin = series(lambda k: math.comb(2 * k + 2, k + 1) / 4 ** (k + 1) / (2 * k + 3), 40)
    fit("asin: (asin s / s - 1) / z", asin, TINY, 0.25, 5, lambda z: z * root(z) / np.arcsin(root(z)))
    atan = near_or_exact(
        series(lambda k: (-1) ** (k + 1) / (2 * k + 3), 16), lambda z: (np.arctan(root(z)) / root(z) - 1) / z, 0.03
    )
    fit("atan: (atan a / a - 1) / z", atan, TINY, 1, 9, lambda z: z * root(z) / np.arctan(root(z)))


if __name__ == "__main__":
    main()
