"""quantised_softmax.cl: every bit is the qnn operation's, which is TFLite's; in one kernel and in passes."""

from __future__ import annotations

import itertools
from typing import Any

import nacre.backends.npu.kernels.quantised_softmax  # noqa: F401  registers the kernels
import numpy as np
import pytest
from nacre.dialects.declarative import Parameters
from nacre.runtime.fixed_point import full_range
from nacre.runtime.kernel import operations, run_kernel
from nacre.runtime.kernels.quantised_softmax import SoftmaxParameters, softmax, softmax_exp_sum, softmax_parameters
from nacre.runtime.kernels.quantised_softmax16 import Softmax16Parameters, softmax16_exp_sum, softmax16_parameters

Array = np.ndarray
SCALES = [3e-4, 0.01, 0.09, 0.7, 3.0]
SHAPES = [(3, 4, 9), (1, 300), (40, 1), (5,), (600, 3)]


def drawn(dtype: str, *shape: int) -> Array:
    """Rows from a few values to all of them, at both ends of the range."""
    rng = np.random.default_rng(1)
    low, high = full_range(dtype)
    x = rng.integers(low, high, shape, endpoint=True)
    width = rng.integers(1, high - low, (*shape[:-1], 1), endpoint=True)
    at_bottom = rng.random((*shape[:-1], 1)) < 0.5
    return np.where(at_bottom, low + (x - low) % width, high - (high - x) % width).astype(dtype)


def settings(dtype: str, scale: float) -> tuple[str, str, dict[str, Any]]:
    """The qnn operation, the prefix of its passes, and the integers of a scale."""
    if dtype == "int16":
        return "qnn.softmax16", "ppu.softmax16", softmax16_parameters(scale)._asdict()
    return "qnn.softmax", "ppu.quantised_softmax", softmax_parameters(scale)._asdict()


def qnn(name: str, parameters: dict[str, Any], x: Array) -> Array:
    return run_kernel(operations()[name], Parameters(parameters), x)[0]


def check(run: Any, name: str, parameters: dict[str, Any], x: Array) -> None:
    """What a run gives is what the qnn operation gives."""
    (found,) = run(name, [x], [(x.shape, x.dtype)], parameters)
    np.testing.assert_array_equal(found, qnn(name, parameters, x))


# --- in one kernel ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16"])
@pytest.mark.parametrize("scale", SCALES)
def test_softmax(on_engine: Any, dtype: str, scale: float) -> None:
    name, _, p = settings(dtype, scale if dtype != "int16" else scale / 256)
    for shape in SHAPES:
        check(on_engine, name, p, drawn(dtype, *shape))


@pytest.mark.parametrize("dtype", ["int8", pytest.param("uint8", marks=pytest.mark.slow), "int16"])
def test_softmax_under_pocl(under_pocl: Any, dtype: str) -> None:
    name, _, p = settings(dtype, 0.07 if dtype != "int16" else 3e-4)
    for shape in SHAPES:
        check(under_pocl, name, p, drawn(dtype, *shape))
    check(under_pocl, name, p, every_difference(dtype))


def every_difference(dtype: str) -> Array:
    """Pairs of the largest value and each other."""
    low, high = full_range(dtype)
    values = np.arange(low, high + 1)
    return np.stack([np.full_like(values, high), values], axis=1).astype(dtype)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16"])
def test_softmax_of_every_difference(on_engine: Any, dtype: str) -> None:
    name, _, p = settings(dtype, 0.02 if dtype != "int16" else 10 / 65535)
    check(on_engine, name, p, every_difference(dtype))


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_softmax_to_16_bits(on_engine: Any, dtype: str) -> None:
    """More bits of the quotient: TFLite's int16 result of 8-bit inputs."""
    x, p = drawn(dtype, 30, 17), softmax_parameters(0.05)
    (found,) = on_engine("qnn.softmax", [x], [(x.shape, "int16")], p._asdict())
    np.testing.assert_array_equal(found, softmax(x, SoftmaxParameters(*p), np.int16))


# --- in passes -------------------------------------------------------------------------------------------
def sum_of(dtype: str, p: dict[str, Any], x: Array, maximum: Array) -> Array:
    """The sum that the qnn operation divides by."""
    if dtype == "int16":
        return softmax16_exp_sum(x, maximum, Softmax16Parameters(**p))
    return softmax_exp_sum(x, maximum, SoftmaxParameters(**p))


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16"])
def test_single_exponentials(on_engine: Any, dtype: str) -> None:
    """Rows of one value below a maximum: the sum is its exponential, in more bits than a result has."""
    maximum, x = (np.ascontiguousarray(half) for half in np.split(every_difference(dtype), 2, axis=1))
    for scale in SCALES if dtype != "int16" else [10 / 65535]:
        _, prefix, p = settings(dtype, scale)
        (found,) = on_engine(f"{prefix}_sum", [x, maximum], [(x.shape, "int32")], {**p, "axis": 1})
        np.testing.assert_array_equal(found, sum_of(dtype, p, x, maximum))


def passes(run: Any, dtype: str, shape: tuple[int, ...], parts: int) -> None:
    """Rows cut into parts: the sum goes on from the part before, each quotient stands alone."""
    name, prefix, p = settings(dtype, 0.03 if dtype != "int16" else 0.001)
    x = drawn(dtype, *shape)
    settled = {**p, "axis": len(shape) - 1}
    maximum = x.max(axis=-1, keepdims=True)
    cuts = sorted({round(i * shape[-1] / parts) for i in range(parts + 1)})
    stretches = list(itertools.pairwise(cuts))
    total = None
    for start, stop in stretches:
        part = np.ascontiguousarray(x[..., start:stop])
        (total,) = run(f"{prefix}_sum", [part, maximum], [(maximum.shape, "int32")], settled, acc=total)
    np.testing.assert_array_equal(total, sum_of(dtype, p, x, maximum))
    found = np.zeros_like(x)
    for start, stop in stretches:
        part = np.ascontiguousarray(x[..., start:stop])
        (found[..., start:stop],) = run(f"{prefix}_output", [part, maximum, total], [(part.shape, dtype)], p)
    np.testing.assert_array_equal(found, qnn(name, p, x))


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16"])
@pytest.mark.parametrize("shape", [(3, 4, 9), (1, 300), (300, 2), (2, 1)])
@pytest.mark.parametrize("parts", [1, 3])
def test_passes_make_the_whole(on_engine: Any, dtype: str, shape: tuple[int, ...], parts: int) -> None:
    passes(on_engine, dtype, shape, parts)


@pytest.mark.parametrize("dtype", ["int8", "int16"])
def test_passes_under_pocl(under_pocl: Any, dtype: str) -> None:
    passes(under_pocl, dtype, (3, 4, 9), 2)
