"""scan.cl: cumulative sums and products, products in parts, the top k, against the graph's kernels and PoCL."""

from __future__ import annotations

import math
from typing import Any

import nacre.backends.npu.kernels  # registers the kernels
import nacre.runtime.kernels.graph  # noqa: F401  and those of the graph level
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacre.dialects.declarative import Parameters
from nacre.runtime.kernel import operations, run_kernel

Array = np.ndarray
SHAPES = st.lists(st.integers(1, 6), min_size=1, max_size=4).map(tuple)


def graph_kernel(name: str, parameters: dict[str, Any], *inputs: Array) -> tuple[Array, ...]:
    return run_kernel(operations()[name], Parameters(parameters), *inputs)


def values(seed: int, shape: tuple[int, ...], dtype: str) -> Array:
    """Few different numbers, so that some are equal; floats with NaN, infinities and both zeros."""
    rng = np.random.default_rng(seed)
    if dtype != "float32":
        return rng.integers(-5 if dtype[0] == "i" else 0, 6, shape).astype(dtype)
    special = [math.nan, math.inf, -math.inf, 0.0, -0.0]
    return rng.choice([*special, *rng.standard_normal(7)], shape).astype(np.float32)


def same_bits(found: Array, expected: Array) -> None:
    """The same bits; one NaN is as good as another."""
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)
    if found.dtype.kind == "f":
        real = ~np.isnan(found)
        np.testing.assert_array_equal(np.signbit(found[real]), np.signbit(expected[real]))


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    shape=SHAPES, data=st.data(), name=st.sampled_from(["cumsum", "cumprod"]), seed=st.integers(0, 99),
    dtype=st.sampled_from(["float32", "int8", "int64"]),
)  # fmt: skip
def test_scans(on_engine, under_pocl, shape, data, name, seed, dtype):
    x = values(seed, shape, dtype)
    parameters = {
        "axis": data.draw(st.integers(0, len(shape) - 1)),
        "exclusive": data.draw(st.booleans()),
        "reverse": data.draw(st.booleans()),
    }
    (expected,) = graph_kernel(f"graph.{name}", parameters, x)
    axis, size = parameters["axis"], shape[parameters["axis"]]
    cut = data.draw(st.integers(0, size - 1))
    for run in (on_engine, under_pocl):
        (found,) = run(f"graph.{name}", [x], [(shape, dtype)], parameters)
        same_bits(found, expected)
        if cut:  # the part behind goes on from the last element of the one before it, in the scan's direction
            part, last = (range(cut), cut) if parameters["reverse"] else (range(cut, size), cut - 1)
            given = [np.take(v, at, axis) for v, at in ((x, part), (expected, [last]), (x, [last]))]
            (found,) = run(f"ppu.{name}", given, [(given[0].shape, dtype)], parameters)
            same_bits(found, np.take(expected, part, axis))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    shape=SHAPES, data=st.data(), largest=st.booleans(), seed=st.integers(0, 99),
    dtype=st.sampled_from(["float32", "int8", "int64"]),
)  # fmt: skip
def test_topk(on_engine, under_pocl, shape, data, largest, seed, dtype):
    x = values(seed, shape, dtype)
    axis = data.draw(st.integers(0, len(shape) - 1))
    parameters = {"axis": axis, "k": data.draw(st.integers(1, shape[axis])), "largest": largest}
    expected = graph_kernel("graph.topk", parameters, x)
    for run in (on_engine, under_pocl):
        found = run("graph.topk", [x], [(e.shape, e.dtype) for e in expected], parameters)
        for have, want in zip(found, expected, strict=True):
            same_bits(have, want)


def test_topk_of_the_ends_of_the_types(on_engine, under_pocl):
    for dtype in ("int8", "int64"):
        ends = np.iinfo(dtype)
        x = np.array([0, ends.max, ends.min, ends.max, -1], dtype)
        for largest in (True, False):
            parameters = {"axis": 0, "k": 5, "largest": largest}
            expected = graph_kernel("graph.topk", parameters, x)
            for run in (on_engine, under_pocl):
                found = run("graph.topk", [x], [(e.shape, e.dtype) for e in expected], parameters)
                assert [f.tolist() for f in found] == [e.tolist() for e in expected]


@pytest.mark.parametrize("dtype", ["float32", "int32", "int8"])
@pytest.mark.parametrize("axes", [(0,), (1,), (2,), (0, 1), (0, 2), (0, 1, 2)])
@pytest.mark.parametrize("keepdims", [True, False])
def test_products_in_parts(on_engine, under_pocl, dtype, axes, keepdims):
    rng = np.random.default_rng(3)
    x = rng.normal(size=(4, 5, 6)).astype(np.float32) if dtype == "float32" else rng.integers(-7, 8, (4, 5, 6), dtype)
    parameters = {"axes": axes, "keepdims": keepdims}
    (expected,) = graph_kernel("graph.reduce_prod", parameters, x)
    shape = [(expected.shape, dtype)]
    for run in (on_engine, under_pocl):
        (whole,) = run("ppu.reduce_prod", [x], shape, parameters)
        same_bits(whole, expected)
        first, second = np.split(x, [2], axis=axes[0])  # what follows in the order of the product
        (acc,) = run("ppu.reduce_prod", [first], shape, parameters)
        (parts,) = run("ppu.reduce_prod", [second], shape, parameters, acc=acc)
        same_bits(parts, expected)
