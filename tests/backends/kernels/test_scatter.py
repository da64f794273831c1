"""scatter.cl: an index an element, in whole layers and in parts of the axis and of the updates."""

from __future__ import annotations

from typing import Any

import nacre.backends.npu.kernels  # registers the kernels
import nacre.runtime.kernels.graph  # noqa: F401  and those of the graph level
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacre.dialects.declarative import Parameters
from nacre.errors import Fault
from nacre.runtime.kernel import operations, run_kernel

Array = np.ndarray
SHAPES = st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple)
DTYPES = st.sampled_from(["float32", "int8", "int64"])


def graph_kernel(name: str, parameters: dict[str, Any], *inputs: Array) -> Array:
    (found,) = run_kernel(operations()[name], Parameters(parameters), *inputs)
    return found


def values(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> Array:
    x = rng.choice([np.nan, -0.0, 0.0, *rng.standard_normal(9)], shape) if dtype == "float32" else None
    return x.astype(np.float32) if x is not None else rng.integers(-5, 6, shape).astype(dtype)


def same_bits(found: Array, expected: Array) -> None:
    """The same bits; one NaN is as good as another."""
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)
    if found.dtype.kind == "f":
        real = ~np.isnan(found)
        np.testing.assert_array_equal(np.signbit(found[real]), np.signbit(expected[real]))


def some(draw: Any, shape: tuple[int, ...], axis: int, count: int) -> tuple[int, ...]:
    """A shape of indices: 1 where one serves a whole axis."""
    return tuple(count if i == axis else draw(st.sampled_from([1, d])) for i, d in enumerate(shape))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(shape=SHAPES, data=st.data(), dtype=DTYPES, seed=st.integers(0, 99))
def test_gathering(on_engine, under_pocl, shape, data, dtype, seed):
    rng = np.random.default_rng(seed)
    axis = data.draw(st.integers(0, len(shape) - 1))
    size = shape[axis]
    indices = rng.integers(-size, size, some(data.draw, shape, axis, data.draw(st.integers(1, 6))))
    indices = indices.astype(np.int32 if dtype == "int8" else np.int64)
    x = values(rng, shape, dtype)
    expected = graph_kernel("graph.gather_elements", {"axis": axis}, x, indices)
    settled, made = {"axis": axis, "size": size}, [(expected.shape, dtype)]
    cut = data.draw(st.integers(0, size - 1))
    for run in (on_engine, under_pocl):
        (whole,) = run("ppu.gather_elements", [x, indices], made, settled, {"offset": 0})
        same_bits(whole, expected)
        if cut:
            first, second = np.split(x, [cut], axis=axis)
            (acc,) = run("ppu.gather_elements", [first, indices], made, settled, {"offset": 0})
            (parts,) = run("ppu.gather_elements", [second, indices], made, settled, {"offset": cut}, acc=acc)
            same_bits(parts, expected)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    shape=SHAPES, data=st.data(), dtype=DTYPES, seed=st.integers(0, 99),
    reduction=st.sampled_from(["none", "add", "mul", "min", "max"]),
)  # fmt: skip
def test_scattering(on_engine, under_pocl, shape, data, dtype, seed, reduction):
    rng = np.random.default_rng(seed)
    axis = data.draw(st.integers(0, len(shape) - 1))
    size, count = shape[axis], data.draw(st.integers(1, 6))
    updates = values(rng, (*shape[:axis], count, *shape[axis + 1 :]), dtype)
    narrow = np.int32 if dtype == "int8" else np.int64
    indices = rng.integers(-size, size, some(data.draw, shape, axis, count)).astype(narrow)
    x = values(rng, shape, dtype)
    expected = graph_kernel("graph.scatter_elements", {"axis": axis, "reduction": reduction}, x, indices, updates)
    settled = {"axis": axis, "size": size, "reduction": reduction}
    early, late = (np.split(v, [count // 2], axis=axis) for v in (indices, updates))
    cut = data.draw(st.integers(0, size - 1))
    for run in (on_engine, under_pocl):

        def scatter(x, indices, updates, offset, acc=None):
            inputs, made = [x, indices, updates], [(x.shape, dtype)]
            return run("ppu.scatter_elements", inputs, made, settled, {"offset": offset}, acc=acc)[0]  # noqa: B023

        same_bits(scatter(x, indices, updates, 0), expected)
        if count > 1:
            acc = scatter(x, early[0], late[0], 0)
            same_bits(scatter(x, early[1], late[1], 0, acc), expected)
        if cut:
            parts = [scatter(p, indices, updates, o) for p, o in zip(np.split(x, [cut], axis=axis), (0, cut))]
            same_bits(np.concatenate(parts, axis), expected)


@pytest.mark.parametrize("index", [-5, 4, 2**40])
def test_an_index_that_leaves_the_axis_stops_the_engine(on_engine, index):
    x, indices = np.zeros(4, np.float32), np.array([0, index])
    with pytest.raises(Fault, match=r"reads 'data'\[-1\]"):
        on_engine("ppu.gather_elements", [x, indices], [((2,), "float32")], {"axis": 0, "size": 4}, {"offset": 0})
    settled = {"axis": 0, "size": 4, "reduction": "none"}
    with pytest.raises(Fault, match=r"writes 'y'\[-1\]"):
        on_engine("ppu.scatter_elements", [x, indices, x[:2]], [((4,), "float32")], settled, {"offset": 0})
