"""Geometric functions: near the exact result at all magnitudes, and the bits of PoCL's own functions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

Run = Callable[..., np.ndarray]
FUNCTIONS = {"dot": 2, "length": 1, "distance": 2, "normalize": 1, "cross": 2}
"""Number of arguments."""
CASES = [(name, size) for name in FUNCTIONS for size in (1, 2, 4) if name != "cross" or size == 4]
SPECIAL = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1, -3, 1e-45, -1e-38, 1e-20, 3e38, -1e19, 2e19], np.float32)
WIDTH = {"normalize", "cross"}
"""Functions that give vectors."""


def source(name: str, size: int) -> str:
    type_ = "float" if size == 1 else f"float{size}"
    given = [f"x[i + {k} * n]" for k in range(FUNCTIONS[name])]
    result = type_ if name in WIDTH else "float"
    return f"""__kernel void f(__global const {type_} *x, int n, __global {result} *y) {{
      int i = get_global_id(0); y[i] = {name}({", ".join(given)}); }}"""


def samples(name: str, size: int) -> np.ndarray:
    """(arguments, items, size): near one another, of every magnitude, and with special values in every element."""
    rng = np.random.default_rng(size)
    shape = (2, 3000, size)
    close = rng.normal(size=shape) * 10.0 ** rng.uniform(-2, 2, shape)
    scaled = rng.normal(size=shape) * 10.0 ** rng.uniform(-44, 38, (2, 3000, 1))
    whole = np.concatenate([close, scaled, rng.choice(SPECIAL, shape)], 1).astype(np.float32)
    return whole[: FUNCTIONS[name]]


def arguments(x: np.ndarray, name: str) -> list[object]:
    items, size = x.shape[1:]
    return [x.reshape(-1), np.int32(items), np.zeros(items * (size if name in WIDTH else 1), np.float32)]


def exact(name: str, x: np.ndarray) -> np.ndarray:
    """In float64, which neither overflows nor underflows here."""
    a, b = np.float64(x[0]), np.float64(x[-1])
    length = np.sqrt(((a - b if name == "distance" else a) ** 2).sum(1))
    if name == "dot":
        return (a * b).sum(1)
    if name == "cross":
        return np.concatenate([np.cross(a[:, :3], b[:, :3]), np.zeros((len(a), 1))], 1).reshape(-1)
    with np.errstate(invalid="ignore"):  # of zeros
        direction = (a / length[:, None]).reshape(-1)
    return direction if name == "normalize" else length


@pytest.mark.parametrize(("name", "size"), CASES)
def test_near_the_exact_result(name: str, size: int, engine: Run) -> None:
    """Lengths and directions within 4 ulp of the result, sums within as many of the largest product there can be."""
    x = samples(name, size)[:, :6000]
    found, wanted = engine(source(name, size), "f", arguments(x, name), x.shape[1]), exact(name, x)
    scale, limit = np.abs(wanted), 3e38
    if name in ("dot", "cross"):
        scale = (np.abs(np.float64(x[0])).max(1) * np.abs(x[-1]).max(1)).repeat(len(wanted) // x.shape[1])
        limit = 8e37  # no sum of four overflows
    inside = scale < limit
    assert inside.sum() > 3000
    error = np.abs(found - wanted)[inside] / (scale[inside] * 2.0**-23 + 2.0**-149)
    assert error.max() < 4


@pytest.mark.parametrize(("name", "size"), CASES)
def test_equals_pocl(name: str, size: int, engine: Run, reference: Run) -> None:
    """A NaN is a NaN."""
    x = samples(name, size)
    text, given = f"#pragma OPENCL FP_CONTRACT OFF\n{source(name, size)}", arguments(x, name)
    found, other = engine(text, "f", given, x.shape[1]), reference(text, "f", given, x.shape[1])
    np.testing.assert_array_equal(np.isnan(found), np.isnan(other))
    numbers = ~np.isnan(found)
    np.testing.assert_array_equal(found.view(np.int32)[numbers], other.view(np.int32)[numbers])


def test_a_function_of_the_source_is_meant_first(engine: Run) -> None:
    text = """float length(float2 v) { return v.x; }
    __kernel void f(__global float *y) { y[0] = length((float2)(3.0f, 4.0f)) + distance((float2)(3, 4), 0.0f); }"""
    assert engine(text, "f", [np.zeros(1, np.float32)], 1).tolist() == [8.0]
