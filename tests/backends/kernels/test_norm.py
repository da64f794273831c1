"""norm.cl: layer normalisation in one kernel, and as the last pass behind a mean and a variance."""

from __future__ import annotations

import math
from typing import Any

import nacre.backends.npu.kernels.norm
import nacre.backends.npu.kernels.reduce  # registers the kernels
import numpy as np
import onnx
import pytest
from nacre.dialects.declarative import Parameters
from nacre.errors import CompileError
from nacre.passes.npu.soft_kernels import Call
from nacre.runtime.kernel import operations, run_kernel
from onnx import helper
from onnx.reference import ReferenceEvaluator

Array = np.ndarray
CASES = [
    # input, axis, scale, bias
    ((3, 8), 1, (8,), (8,)),
    ((3, 8), 1, (8,), None),
    ((7,), 0, (7,), (7,)),
    ((2, 3, 5), 2, (5,), (1,)),
    ((2, 3, 5), 1, (3, 5), (3, 1)),
    ((2, 3, 4, 5), 1, (3, 1, 1), (4, 5)),
    ((2, 3, 4, 5), 1, (3, 1, 5), (3, 1, 5)),
    ((2, 3, 4), 2, (2, 1, 4), (2, 3, 1)),
    ((2, 3, 4), 1, (1,), (2, 1, 1)),
]
EPSILON = 1e-3


def inputs_of(seed: int, case: Any) -> list[Array]:
    shape, _, scale, bias = case
    rng = np.random.default_rng(seed)
    shapes = [shape, scale] if bias is None else [shape, scale, bias]
    x, *vectors = (rng.standard_normal(s).astype(np.float32) for s in shapes)
    return [3 * x + 5, *vectors]


def same(found: Array, expected: Array) -> None:
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


def layer_norm(run: Any, inputs: list[Array], axis: int) -> Array:
    return run("graph.layer_norm", inputs, [(inputs[0].shape, np.float32)], {"axis": axis, "epsilon": EPSILON})[0]


def in_passes(run: Any, inputs: list[Array], axis: int, step: int) -> Array:
    """Mean and variance in parts of `step` along the first normalised axis, then all elements."""
    x, *vectors = inputs
    axes = tuple(range(axis, x.ndim))
    one = tuple(1 if i in axes else d for i, d in enumerate(x.shape))
    settled = {"axes": axes, "count": math.prod(x.shape[axis:])}
    starts = range(0, x.shape[axis], step)
    pieces = [np.ascontiguousarray(np.take(x, range(s, min(s + step, x.shape[axis])), axis=axis)) for s in starts]
    mean = variance = None
    for index, piece in enumerate(pieces):
        last = {"last": int(index == len(pieces) - 1)}
        (mean,) = run("ppu.reduce_mean", [piece], [(one, np.float32)], {**settled, "keepdims": True}, last, mean)
    for index, piece in enumerate(pieces):
        last = {"last": int(index == len(pieces) - 1)}
        (variance,) = run("ppu.variance", [piece, mean], [(one, np.float32)], settled, last, variance)
    given = [x, mean, variance, *vectors]
    return run("ppu.normalise", given, [(x.shape, np.float32)], {"epsilon": EPSILON})[0]


@pytest.mark.parametrize("case", CASES)
def test_layer_norm(on_engine: Any, under_pocl: Any, case: Any) -> None:
    inputs, axis = inputs_of(1, case), case[1]
    (expected,) = run_kernel(operations()["graph.layer_norm"], Parameters({"axis": axis, "epsilon": EPSILON}), *inputs)
    for run in (on_engine, under_pocl):
        same(layer_norm(run, inputs, axis), expected)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("step", [1, 2, 100])
def test_passes_give_the_same_bits(on_engine: Any, case: Any, step: int) -> None:
    inputs, axis = inputs_of(2, case), case[1]
    same(in_passes(on_engine, inputs, axis, step), layer_norm(on_engine, inputs, axis))


@pytest.mark.parametrize("case", CASES[::3])
def test_passes_under_pocl(under_pocl: Any, case: Any) -> None:
    inputs, axis = inputs_of(3, case), case[1]
    same(in_passes(under_pocl, inputs, axis, 2), layer_norm(under_pocl, inputs, axis))


@pytest.mark.parametrize("case", CASES[:3])
def test_layer_norm_of_onnx(on_engine: Any, case: Any) -> None:
    inputs = inputs_of(4, case)
    names = ["x", "scale", "bias"][: len(inputs)]
    node = helper.make_node("LayerNormalization", names, ["y"], axis=case[1], epsilon=EPSILON)
    given = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, v.shape) for n, v in zip(names, inputs)]
    out = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, case[0])
    model = helper.make_model(
        helper.make_graph([node], "one", given, [out]), opset_imports=[helper.make_opsetid("", 18)]
    )
    (expected,) = ReferenceEvaluator(model).run(None, dict(zip(names, inputs)))
    np.testing.assert_allclose(layer_norm(on_engine, inputs, case[1]), expected, rtol=1e-4, atol=1e-5)


def test_tiles_of_normalise(on_engine: Any) -> None:
    """A box of the result, with what it needs of each operand."""
    rng = np.random.default_rng(5)
    x, mean, scale = (rng.standard_normal(s).astype(np.float32) for s in ((3, 4, 6), (3, 1, 1), (4, 6)))
    variance = mean * mean
    settled = {"epsilon": EPSILON}
    (whole,) = on_engine("ppu.normalise", [x, mean, variance, scale], [(x.shape, np.float32)], settled)
    same(whole, (x - mean) / np.sqrt(variance + np.float32(EPSILON)) * scale)
    box = [x[1:2, 1:3, 2:5], mean[1:2], variance[1:2], scale[1:3, 2:5]]
    box = [np.ascontiguousarray(v) for v in box]
    same(on_engine("ppu.normalise", box, [((1, 2, 3), np.float32)], settled)[0], whole[1:2, 1:3, 2:5])


def test_too_many_runs_are_refused() -> None:
    """A scale that repeats along every other axis of many."""
    x, scale = (2,) * 8, (1, 2) * 4
    call = Call(Parameters({"axis": 0, "epsilon": EPSILON}), (x, scale), (x,))
    with pytest.raises(CompileError, match="separate runs of axes"):
        nacre.backends.npu.kernels.norm.layer_norm(call)
