"""softmax.cl: softmax in one kernel and in three, which give the same bits."""

from __future__ import annotations

from typing import Any

import nacre.backends.npu.kernels.reduce
import nacre.backends.npu.kernels.softmax  # noqa: F401  registers the kernels
import numpy as np
import onnx
import pytest
from nacre.dialects.declarative import Parameters
from nacre.runtime.kernel import operations, run_kernel
from onnx import helper
from onnx.reference import ReferenceEvaluator

Array = np.ndarray
CASES = [((5,), 0), ((3, 7), 1), ((3, 7), 0), ((2, 9, 4), 1), ((2, 3, 1, 5), 2), ((2, 3, 4, 33), 3)]
FLOATS = 4
"""Ulps between exponentials of numpy, of the engine and of PoCL, and what they leave in a quotient of few terms."""


def values(seed: int, shape: tuple[int, ...]) -> Array:
    return (4 * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def softmax(run: Any, x: Array, axis: int) -> Array:
    return run("graph.softmax", [x], [(x.shape, np.float32)], {"axis": axis})[0]


def in_passes(run: Any, x: Array, axis: int, step: int) -> Array:
    """Maximum and sum in parts of `step`, then the quotient in pieces of as many."""
    one = tuple(1 if i == axis else d for i, d in enumerate(x.shape))
    pieces = [np.take(x, range(at, min(at + step, x.shape[axis])), axis=axis) for at in range(0, x.shape[axis], step)]
    pieces = [np.ascontiguousarray(p) for p in pieces]
    maximum = total = None
    for piece in pieces:
        settled = {"axes": (axis,), "keepdims": True}
        (maximum,) = run("ppu.reduce_max", [piece], [(one, np.float32)], settled, {}, maximum)
    for piece in pieces:
        (total,) = run("ppu.softmax_sum", [piece, maximum], [(one, np.float32)], {"axis": axis}, {}, total)
    parts = [run("ppu.softmax_output", [p, maximum, total], [(p.shape, np.float32)])[0] for p in pieces]
    return np.concatenate(parts, axis=axis)


@pytest.mark.parametrize(("shape", "axis"), CASES)
def test_softmax(on_engine: Any, under_pocl: Any, shape: Any, axis: int) -> None:
    x = values(1, shape)
    found = softmax(on_engine, x, axis)
    (expected,) = run_kernel(operations()["graph.softmax"], Parameters({"axis": axis}), x)
    np.testing.assert_array_max_ulp(found, expected, 2 * FLOATS)
    np.testing.assert_array_max_ulp(found, softmax(under_pocl, x, axis), 2 * FLOATS)
    node = helper.make_node("Softmax", ["x"], ["y"], axis=axis)
    given = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)
    out = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, shape)
    model = helper.make_model(
        helper.make_graph([node], "one", [given], [out]), opset_imports=[helper.make_opsetid("", 18)]
    )
    np.testing.assert_allclose(found, ReferenceEvaluator(model).run(None, {"x": x})[0], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("shape", "axis"), CASES)
@pytest.mark.parametrize("step", [1, 4, 100])
def test_passes_give_the_same_bits(on_engine: Any, shape: Any, axis: int, step: int) -> None:
    x = values(2, shape)
    np.testing.assert_array_equal(in_passes(on_engine, x, axis, step), softmax(on_engine, x, axis))


@pytest.mark.parametrize(("shape", "axis"), CASES[3:])
def test_passes_under_pocl(under_pocl: Any, shape: Any, axis: int) -> None:
    x = values(3, shape)
    np.testing.assert_array_equal(in_passes(under_pocl, x, axis, 2), softmax(under_pocl, x, axis))


def test_special_values(on_engine: Any) -> None:
    """A NaN, or a difference of infinities, spoils its row alone; e^-inf is 0."""
    x = values(4, (5, 6))
    x[0, 2], x[1, 0], x[2], x[3, 5] = np.nan, np.inf, -np.inf, -np.inf
    for found in (softmax(on_engine, x, 1), in_passes(on_engine, x, 1, 4)):
        assert np.isnan(found[:3]).all()
        assert np.isfinite(found[3:]).all() and found[3, 5] == 0
        np.testing.assert_allclose(found[3:].sum(axis=1), 1, rtol=1e-6)


def test_sums_are_in_index_order(on_engine: Any) -> None:
    """Of 1 and then eight times 2^-25, each small term is lost by itself; together they would not be."""
    x = np.zeros((1, 9), np.float32)
    x[0, 1:] = np.float32(np.log(2.0**-25))
    (total,) = on_engine("ppu.softmax_sum", [x, x[:, :1]], [((1, 1), np.float32)], {"axis": 1})
    assert total[0, 0] == 1
