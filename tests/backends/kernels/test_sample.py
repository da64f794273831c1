"""sample.cl: every mode and padding of grid sampling, against the graph's kernel and PoCL, bit for bit."""

from __future__ import annotations

import nacre.backends.npu.kernels  # registers the kernels
import nacre.runtime.kernels.graph  # noqa: F401  and those of the graph level
import numpy as np
import pytest
from nacre.dialects.declarative import Parameters
from nacre.runtime.kernel import operations, run_kernel


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("size", [(5, 7), (1, 4), (2, 1)])
def test_grid_sample(on_engine, under_pocl, mode, padding, align_corners, size):
    rng = np.random.default_rng(5)
    ifm = rng.normal(size=(2, *size, 3)).astype(np.float32)
    grid = rng.normal(size=(2, 4, 5, 2)).astype(np.float32) * 2
    grid[0, 0] = np.array([[-1, 1], [1, -1], [0, 0], [1e9, -1e30], [3, -7]])  # corners, the middle, far away
    parameters = {"mode": mode, "padding": padding, "align_corners": align_corners}
    (expected,) = run_kernel(operations()["graph.grid_sample"], Parameters(parameters), ifm, grid)
    for run in (on_engine, under_pocl):
        (found,) = run("graph.grid_sample", [ifm, grid], [(expected.shape, "float32")], parameters)
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("padding", ["zeros", "border"])
def test_no_number_is_outside(on_engine, padding):
    """NaN samples a zero, or the corner."""
    ifm, grid = np.full((1, 2, 2, 1), 3, np.float32), np.full((1, 1, 1, 2), np.nan, np.float32)
    parameters = {"mode": "nearest", "padding": padding, "align_corners": False}
    (found,) = on_engine("graph.grid_sample", [ifm, grid], [((1, 1, 1, 1), "float32")], parameters)
    (expected,) = run_kernel(operations()["graph.grid_sample"], Parameters(parameters), ifm, grid)
    assert found.item() == expected.item() == (0 if padding == "zeros" else 3)
