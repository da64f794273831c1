"""Attention masks: −1e9, the lowest float and −inf mean "not this one", and must not take the scores' scale."""

from __future__ import annotations

import warnings
from typing import Any

import nacre
import numpy as np
import onnx
import onnxruntime
import pytest
from nacre.errors import CompileError
from nacre.runtime.interpreter import interpret
from onnx import TensorProto, helper, numpy_helper

N = 6
HIDDEN = np.triu(np.ones((N, N), bool), 1)
LOWEST = float(np.finfo(np.float32).min)


def constant(name: str, array: np.ndarray) -> onnx.TensorProto:
    return numpy_helper.from_array(array, name)


def additive(value: float) -> onnx.TensorProto:
    return constant("mask", np.where(HIDDEN, np.float32(value), np.float32(0)))


def attention(
    nodes: list[tuple[str, list[str], dict[str, Any]]], *constants: onnx.TensorProto
) -> onnx.ModelProto:
    """y = Softmax(… of MatMul(x, x) …), x [1, 2, 6, 6]; every node is named after its output."""
    steps = [("MatMul", ["x", "x"], {}), *nodes]
    names = ["scores", *(f"step{i}" for i in range(1, len(nodes))), "y"]
    made = [helper.make_node(op, ins, [out], out, **more) for (op, ins, more), out in zip(steps, names)]
    shape = [1, 2, N, N]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    graph = helper.make_graph(made, "attention", inputs, outputs, list(constants))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


Step = tuple[str, list[str], dict[str, Any]]
SOFTMAX: Step = ("Softmax", ["step1"], {"axis": -1})
BEHIND: list[Step] = [("Transpose", ["step1"], {"perm": [0, 2, 1, 3]}), ("Softmax", ["step2"], {"axis": -1})]
VARIANTS = {
    "add -1e9": attention([("Add", ["scores", "mask"], {}), SOFTMAX], additive(-1e9)),
    "add -1e4 first": attention([("Add", ["mask", "scores"], {}), SOFTMAX], additive(-1e4)),
    "add -inf": attention([("Add", ["scores", "mask"], {}), SOFTMAX], additive(-np.inf)),
    "where lowest": attention(
        [("Where", ["keep", "scores", "low"], {}), SOFTMAX],
        constant("keep", ~HIDDEN), constant("low", np.array(LOWEST, np.float32)),
    ),
    "where -inf first": attention(
        [("Where", ["hide", "low", "scores"], {}), SOFTMAX],
        constant("hide", HIDDEN), constant("low", np.array(-np.inf, np.float32)),
    ),
    "min": attention(
        [("Min", ["scores", "mask"], {}), SOFTMAX],
        constant("mask", np.where(HIDDEN, np.float32(-np.inf), np.float32(100))),
    ),
    "add, transpose": attention([("Add", ["scores", "mask"], {}), *BEHIND], additive(LOWEST)),
    "two masks": attention(
        [("Add", ["scores", "mask"], {}), ("Add", ["step1", "last"], {}), ("Softmax", ["step2"], {})],
        additive(-np.inf), constant("last", np.array([0] * (N - 1) + [-1e9], np.float32)),
    ),
}  # fmt: skip


def samples(count: int, seed: int) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    return [{"x": rng.standard_normal((1, 2, N, N)).astype(np.float32)} for _ in range(count)]


def sqnr(expected: np.ndarray, found: np.ndarray) -> float:
    noise = np.square(expected.astype(np.float64) - found).sum()
    return float(10 * np.log10(np.square(expected.astype(np.float64)).sum() / noise))


@pytest.mark.parametrize("target", ["tiny", "v853"])
@pytest.mark.parametrize("dtype", ["int8", "int16"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_masked_softmax_keeps_its_precision(variant: str, dtype: str, target: str) -> None:
    model = VARIANTS[variant]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            program = nacre.compile(model, target=target, dtype=dtype, calibration=samples(8, 0))
    except CompileError as error:
        assert dtype == "int16" and "does not compute in int16" in str(error)
        pytest.skip(str(error))
    names = [op.name for op in program.levels["qnn"].walk()]
    assert any(name.startswith("qnn.softmax") for name in names) and "graph.softmax" not in names
    framework = onnxruntime.InferenceSession(model.SerializeToString())
    session = nacre.Session(program, sanitize=True)
    expected, found = [], []
    for feeds in samples(4, 0):
        (y,) = session.run(None, feeds)
        np.testing.assert_array_equal(y, interpret(program.levels["qnn"], feeds)["y"])
        expected.append(framework.run(None, feeds)[0])
        found.append(y)
    assert sqnr(np.array(expected), np.array(found)) > (25 if dtype == "int8" else 45)
    masked = np.array(expected) == 0
    assert masked.any() and (np.array(found)[masked] < 1e-4).all()


def test_a_mask_that_others_read_too_stays_as_it_is() -> None:
    """Only softmax forgives: where the masked scores are an output, their calibrated range is theirs."""
    model = attention([("Add", ["scores", "mask"], {}), SOFTMAX], additive(-1e5))
    model.graph.output.append(helper.make_tensor_value_info("step1", TensorProto.FLOAT, None))
    program = nacre.compile(model, target="tiny", calibration=samples(4, 0))
    (feeds,) = samples(1, 0)
    _, masked = nacre.Session(program).run(None, feeds)
    assert masked.min() < -9e4


def test_a_mask_that_hides_everything_is_named() -> None:
    model = attention(
        [("Where", ["hide", "low", "scores"], {}), SOFTMAX],
        constant("hide", np.ones((1, 2, N, N), bool)), constant("low", np.full((N, N), -np.inf, np.float32)),
    )  # fmt: skip
    model.graph.initializer.remove(next(t for t in model.graph.initializer if t.name == "hide"))
    model.graph.input.append(helper.make_tensor_value_info("hide", TensorProto.BOOL, [1, 2, N, N]))
    feeds = [{**samples(1, 0)[0], "hide": np.ones((1, 2, N, N), bool)}]
    with pytest.raises(CompileError, match=r"-inf everywhere in layer 'step1'.*hides every score"):
        nacre.compile(model, target="tiny", calibration=feeds)


def test_a_mask_given_at_run_time_chooses_between_scores_and_a_constant() -> None:
    model = attention(
        [("Where", ["hide", "low", "scores"], {}), SOFTMAX], constant("low", np.array(-np.inf, np.float32))
    )
    model.graph.input.append(helper.make_tensor_value_info("hide", TensorProto.BOOL, [1, 2, N, N]))
    hide = np.broadcast_to(HIDDEN, (1, 2, N, N)).copy()
    feeds = [{**one, "hide": hide} for one in samples(6, 0)]
    session = nacre.Session(nacre.compile(model, target="tiny", calibration=feeds), sanitize=True)
    framework = onnxruntime.InferenceSession(model.SerializeToString())
    expected, found = (np.array([s.run(None, f)[0] for f in feeds]) for s in (framework, session))
    assert sqnr(expected, found) > 25


def test_nan_is_refused_with_and_without_a_mask() -> None:
    (feeds,) = samples(1, 0)
    feeds["x"][0, 0, 0, 0] = np.nan
    with pytest.raises(CompileError, match="gives NaN or infinite values in the input 'x'"):
        nacre.compile(VARIANTS["add -inf"], target="tiny", calibration=[feeds])
    (feeds,) = samples(1, 0)
    feeds["x"][0, 0] = np.float32(1e30)  # the scores overflow to +inf, aloud
    overflow = pytest.warns(RuntimeWarning, match="overflow")
    with overflow, pytest.raises(CompileError, match="gives NaN or infinite values in layer 'scores'"):
        nacre.compile(VARIANTS["add -inf"], target="tiny", calibration=[feeds])


def test_ranges_do_not_leave_float32() -> None:
    """An unmasked value at the ends of float32: rounded outward, its range would be infinite."""
    shape = [1, 4]
    node = helper.make_node("Add", ["x", "c"], ["y"], "sum")
    graph = helper.make_graph(
        [node], "wide", [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [constant("c", np.array([[0, 0, 0, LOWEST]], np.float32))],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    feeds = {"x": np.array([[1, 2, 3, 4]], np.float32)}
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        program = nacre.compile(model, target="tiny", calibration=[feeds])
    (y,) = nacre.Session(program).run(None, feeds)
    assert y[0, 3] < 0.99 * LOWEST
