"""movement.cl: on the engine, under PoCL and as numpy moves elements, in boxes as the tile rules cut them."""

from __future__ import annotations

from typing import Any

import nacre.backends.npu.kernels.movement  # noqa: F401  registers the kernels
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacre.dialects import graph
from nacre.dialects.declarative import Parameters
from nacre.dialects.types import i8, i64
from nacre.errors import CompileError, Fault, NacreError
from nacre.passes.npu.soft_kernels import SOFT_KERNELS, Build, Call
from nacre.runtime.kernel import run_kernel

Array = np.ndarray
TYPES = ["float32", "bool", "int8", "uint8", "int16", "uint16", "int32", "int64"]
MODES = ["constant", "edge", "reflect"]


def values(seed: int, shape: tuple[int, ...], dtype: str = "float32") -> Array:
    """Any bits but NaN, so that a move to the wrong place shows."""
    rng = np.random.default_rng(seed)
    if dtype == "float32":
        return rng.standard_normal(shape).astype(np.float32)
    return rng.integers(0, 2, shape).astype(bool) if dtype == "bool" else rng.integers(-99, 99, shape).astype(dtype)


def both(on_engine: Any, under_pocl: Any, expected: Array, *arguments: Any) -> None:
    """Engine and PoCL move as expected."""
    operation, inputs, *rest = arguments
    for run in (on_engine, under_pocl):
        (found,) = run(operation, inputs, [(expected.shape, expected.dtype)], *rest)
        np.testing.assert_array_equal(found, expected)


# --- repeating and turning round -------------------------------------------------------------------------
@settings(derandomize=True, deadline=None, max_examples=20)
@given(data=st.data(), onto=st.lists(st.integers(1, 4), max_size=6), dtype=st.sampled_from(TYPES))
def test_broadcast(on_engine: Any, under_pocl: Any, data: Any, onto: list[int], dtype: str) -> None:
    kept = [d if data.draw(st.booleans()) else 1 for d in onto]
    x = values(1, tuple(kept[data.draw(st.integers(0, len(onto))) :]), dtype)
    both(on_engine, under_pocl, np.broadcast_to(x, onto), "ppu.broadcast", [x])


@settings(derandomize=True, deadline=None, max_examples=20)
@given(data=st.data(), shape=st.lists(st.integers(1, 4), min_size=1, max_size=6), dtype=st.sampled_from(TYPES))
def test_flip(on_engine: Any, under_pocl: Any, data: Any, shape: list[int], dtype: str) -> None:
    axes = tuple(a for a in range(len(shape)) if data.draw(st.booleans()))
    x = values(2, tuple(shape), dtype)
    both(on_engine, under_pocl, np.flip(x, axes), "ppu.flip", [x], {"axes": axes})


def test_axes_that_go_together_join() -> None:
    """Nine axes, of which the first four are turned round."""
    shape = (2, 3) * 4 + (2,)
    call = Call(Parameters({"axes": (0, 1, 2, 3)}), (shape,), (shape,))
    assert SOFT_KERNELS["ppu.flip"].arguments(call).grid == (72, 36, 1)
    with pytest.raises(CompileError, match="9 separate runs of axes"):
        SOFT_KERNELS["ppu.flip"].arguments(Call(Parameters({"axes": (0, 2, 4, 6, 8)}), (shape,), (shape,)))


# --- padding ---------------------------------------------------------------------------------------------
def needed(mode: str, at: int, count: int, low: int, size: int) -> tuple[int, int]:
    """First and number of the inputs that `count` outputs from `at` on take along an axis."""
    if mode == "constant":
        first, stop = (min(max(v - low, 0), size) for v in (at, at + count))
        return first, stop - first
    index = np.pad(np.arange(size), (low, size), mode="edge" if mode == "edge" or size == 1 else "reflect")
    taken = index[at : at + count]
    return int(taken.min()), int(np.ptp(taken)) + 1


def padded(run: Any, x: Array, low: Any, high: Any, mode: str, value: float, boxes: list[Any]) -> Array:
    """The padded tensor, a launch for each box of it ((first, number) an axis)."""
    out = np.zeros([a + d + b for a, d, b in zip(low, x.shape, high)], x.dtype)
    settled = {"low": tuple(low), "mode": mode, "value": value, "shape": x.shape}
    for box in boxes:
        parts = [needed(mode, o, n, lo, d) for (o, n), lo, d in zip(box, low, x.shape)]
        source = np.ascontiguousarray(x[tuple(slice(o, o + n) for o, n in parts)])
        place = tuple(v for (o, n), (first, _) in zip(box, parts) for v in (o, n, first))
        shape = tuple(n for _, n in box)
        (piece,) = run("ppu.pad", [source], [(shape, x.dtype)], settled, {"place": place})
        out[tuple(slice(o, o + n) for o, n in box)] = piece
    return out


def boxes_of(shape: Any, step: int) -> list[Any]:
    """Boxes of at most `step` along each axis."""
    grids = [[(o, min(step, n - o)) for o in range(0, n, step)] for n in shape]
    return [tuple(grid[i] for grid, i in zip(grids, at)) for at in np.ndindex(*map(len, grids))]


@pytest.mark.parametrize("mode", MODES)
@settings(derandomize=True, deadline=None, max_examples=15)
@given(data=st.data(), shape=st.lists(st.integers(1, 4), min_size=1, max_size=6), dtype=st.sampled_from(TYPES))
def test_pad(on_engine: Any, under_pocl: Any, mode: str, data: Any, shape: list[int], dtype: str) -> None:
    most = [d - 1 if mode == "reflect" else 3 for d in shape]
    low, high = ([data.draw(st.integers(0, m)) if data.draw(st.booleans()) else 0 for m in most] for _ in range(2))
    x, value = values(3, tuple(shape), dtype), 1.5 if dtype == "float32" else 1.0
    expected = run_kernel(
        graph.PadOp, Parameters({"low": tuple(low), "high": tuple(high), "mode": mode, "value": value}), x
    )[0]
    whole = tuple((0, n) for n in expected.shape)
    for run in (on_engine, under_pocl):
        np.testing.assert_array_equal(padded(run, x, low, high, mode, value, [whole]), expected)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("step", [2, 3, 5])
def test_pad_in_boxes(on_engine: Any, mode: str, step: int) -> None:
    """Boxes that lie in the padding altogether have no inputs."""
    x = values(4, (4, 3, 6))
    low, high = (2, 0, 5), (3, 2, 1)
    settled = {"low": low, "high": high, "mode": mode, "value": -7.5}
    expected = run_kernel(graph.PadOp, Parameters(settled), x)[0]
    boxes = boxes_of(expected.shape, step)
    np.testing.assert_array_equal(padded(on_engine, x, low, high, mode, -7.5, boxes), expected)


def test_pad_joins_axes() -> None:
    """A constant takes whole axes behind a padded one along; eight axes are two runs."""
    shape = (2,) * 8
    settled = {"low": (0, 0, 0, 1, 0, 0, 0, 0), "mode": "constant", "value": 0.0, "shape": shape}
    out = (2, 2, 2, 4, 2, 2, 2, 2)
    place = tuple(v for n in out for v in (0, n, 0))
    call = Call(Parameters({**settled, "place": place}), (shape,), (out,))
    assert SOFT_KERNELS["ppu.pad"].arguments(call).grid == (64, 8, 1)


def test_pad_values_have_to_fit() -> None:
    kernel = SOFT_KERNELS["ppu.pad"]
    with pytest.raises(NacreError, match=r"0\.5 has to be an integer"):
        kernel.macros(Build(Parameters({"mode": "constant", "value": 0.5}), (i8,), (i8,)))
    least = kernel.macros(Build(Parameters({"mode": "constant", "value": -(2.0**63)}), (i64,), (i64,)))
    assert least["VALUE"] == "LONG_MIN"


# --- gathering -------------------------------------------------------------------------------------------
CASES = [
    ((7,), 0, (4,)),
    ((5, 3), 0, (2, 3)),
    ((3, 5), 1, ()),
    ((2, 6, 3), 1, (2, 1, 4)),
    ((2, 2, 3, 2, 2, 5), 5, (9,)),
]


def gathered(run: Any, data: Array, indices: Array, axis: int, step: int) -> Array:
    """The result, going on from parts of `step` along the axis."""
    size = data.shape[axis]
    shape = (*data.shape[:axis], *indices.shape, *data.shape[axis + 1 :])
    acc: Any = None
    for offset in range(0, size, step):
        part = np.ascontiguousarray(np.take(data, range(offset, min(offset + step, size)), axis=axis))
        settled = {"axis": axis, "size": size}
        (acc,) = run("ppu.gather", [part, indices], [(shape, data.dtype)], settled, {"offset": offset}, acc)
    return acc


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("shape", "axis", "chosen"), CASES)
def test_gather(on_engine: Any, under_pocl: Any, shape: Any, axis: int, chosen: Any, dtype: str) -> None:
    data, size = values(5, shape, dtype), shape[axis]
    for kind in (np.int32, np.int64):
        indices = np.random.default_rng(6).integers(-size, size, chosen).astype(kind)
        expected = run_kernel(graph.GatherOp, Parameters({"axis": axis}), data, indices)[0]
        for step in (1, 2, size):
            np.testing.assert_array_equal(gathered(on_engine, data, indices, axis, step), expected)
        np.testing.assert_array_equal(gathered(under_pocl, data, indices, axis, 2), expected)


@pytest.mark.parametrize("wrong", [6, -7, 2**31 - 1, -(2**31), 2**62, -(2**62), 2**63 - 1, -(2**63)])
@pytest.mark.parametrize("step", [2, 6])
def test_an_index_outside_is_a_fault(on_engine: Any, wrong: int, step: int) -> None:
    """In the first part already, whichever it is."""
    indices = np.array([0, wrong, 3], np.int64)
    with pytest.raises(Fault, match="data"):
        gathered(on_engine, values(7, (4, 6, 4)), indices, 1, step)
