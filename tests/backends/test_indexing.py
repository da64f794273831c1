"""Operators that go by places, from ONNX to the emulator, cut into tiles: floats as ONNX Runtime has them, and int8."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import nacre
import numpy as np
import onnx
import pytest
from nacre.dialects import npu_instructions as npu
from onnx import helper

onnxruntime = pytest.importorskip("onnxruntime")

Array = np.ndarray
RNG = np.random.default_rng(31)
node = helper.make_node


def floats(*shape: int) -> Array:
    return RNG.normal(size=shape).astype(np.float32)


def model_of(nodes: Any, feeds: Mapping[str, Array], weights: Mapping[str, Array], outputs: Any) -> onnx.ModelProto:
    types = {n: helper.np_dtype_to_tensor_dtype(a.dtype) for n, a in feeds.items()}
    inputs = [helper.make_tensor_value_info(n, types[n], a.shape) for n, a in feeds.items()]
    arrays = [onnx.numpy_helper.from_array(np.asarray(a), n) for n, a in weights.items()]
    graph = helper.make_graph(nodes, "g", inputs, [onnx.ValueInfoProto(name=n) for n in outputs], arrays)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def oracle(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> list[Array]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options).run(None, feeds)


LONG = 3000
CASES: dict[str, tuple[Any, Mapping[str, Array], Mapping[str, Array], tuple[str, ...]]] = {
    "top k": (
        [node("TopK", ["x", "k"], ["v", "i"], axis=1)], {"x": floats(5, 700, 9)}, {"k": np.array([9])}, ("v", "i"),
    ),
    "top k, smallest": (
        [node("TopK", ["x", "k"], ["v", "i"], largest=0)], {"x": RNG.integers(-9, 9, (30, 400), np.int32)},
        {"k": np.array([40])}, ("v", "i"),
    ),
    "cumulative sum": (
        [node("CumSum", ["x", "a"], ["y"], reverse=1)], {"x": floats(7, LONG, 3)}, {"a": np.array(1)}, ("y",)
    ),
    "product": (
        [node("ReduceProd", ["x", "a"], ["y"])], {"x": 1 + floats(6, LONG, 5) / 100}, {"a": np.array([1])}, ("y",)
    ),
    "gather elements": (
        [node("GatherElements", ["x", "i"], ["y"], axis=1)],
        {"x": floats(6, LONG, 5), "i": RNG.integers(-LONG, LONG, (6, 90, 5))}, {}, ("y",),
    ),
    "gather by tuples": (
        [node("GatherND", ["x", "i"], ["y"], batch_dims=1)],
        {"x": floats(3, 80, 7, 6), "i": RNG.integers(-7, 7, (3, 50, 2))}, {}, ("y",),
    ),
    "scatter elements": (
        [node("ScatterElements", ["x", "i", "u"], ["y"], axis=1, reduction="add")],
        {"x": floats(6, LONG, 5), "i": RNG.integers(-LONG, LONG, (6, 90, 4)), "u": floats(6, 90, 4)}, {}, ("y",),
    ),
    "scatter by tuples": (
        [node("ScatterND", ["x", "i", "u"], ["y"])],
        {"x": floats(60, 9, 64), "i": RNG.permutation(60)[:40].reshape(40, 1), "u": floats(40, 9, 64)}, {}, ("y",),
    ),
    "many updates": (
        [node("ScatterND", ["x", "i", "u"], ["y"], reduction="max")],
        {"x": floats(30, 40), "i": RNG.integers(0, 30, (LONG, 1)), "u": floats(LONG, 40)}, {}, ("y",),
    ),
    "grid sample": (
        [node("GridSample", ["x", "g"], ["y"], mode="cubic")], {"x": floats(2, 8, 20, 30), "g": floats(2, 19, 21, 2)},
        {}, ("y",),
    ),
    "remainders and bits": (
        [
            node("Mod", ["a", "b"], ["m"]), node("BitwiseXor", ["m", "a"], ["n"]), node("BitwiseNot", ["n"], ["y"]),
        ],
        {"a": RNG.integers(-99, 99, (40, 50), np.int32), "b": RNG.integers(1, 9, (40, 50), np.int32)}, {}, ("y",),
    ),
    "arc functions": (
        [node("Asin", ["x"], ["a"]), node("Acos", ["x"], ["b"]), node("Atan", ["x"], ["c"])],
        {"x": RNG.uniform(-1, 1, (30, 40)).astype(np.float32)}, {}, ("a", "b", "c"),
    ),
    "reversed sequences": (
        [node("ReverseSequence", ["x", "n"], ["y"], time_axis=1, batch_axis=0)],
        {"x": floats(6, 50, 30), "n": RNG.integers(1, 51, 6)}, {}, ("y",),
    ),
}  # fmt: skip


HEAVY = ("cumulative sum", "top k", "many updates", "scatter elements", "scatter by tuples")


@pytest.mark.parametrize("target", ["tiny", pytest.param("v853", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in HEAVY else n for n in CASES])
def test_floats_as_in_onnxruntime(name, target):
    nodes, feeds, weights, outputs = CASES[name]
    model = model_of(nodes, feeds, weights, outputs)
    expected = oracle(model, feeds)
    program = nacre.compile(model, target=target, dtype="float32")
    found = nacre.Session(program, sanitize=True).run(None, feeds)
    for want, have in zip(expected, found, strict=True):
        assert (have.shape, have.dtype) == (want.shape, want.dtype)
        np.testing.assert_allclose(have, want, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("name", ["top k", "product", "gather elements", "scatter elements", "many updates"])
def test_layers_are_cut(name):
    """More than one launch of the kernel: whoever reads the tests above can rely on it."""
    nodes, feeds, weights, outputs = CASES[name]
    program = nacre.compile(model_of(nodes, feeds, weights, outputs), target="tiny", dtype="float32")
    launches = [op for op in program.levels["schedule"].walk() if isinstance(op, npu.LaunchOp)]
    assert len(launches) > 1


WEIGHT = {"w": floats(8, 3, 3, 3) / 4}
CONV = node("Conv", ["x", "w"], ["c"], "conv")
RELU = node("Relu", ["y"], ["z"])
INTEGERS: dict[str, tuple[Any, Mapping[str, Array], str]] = {
    "top k": ([CONV, node("TopK", ["c", "k"], ["y", "i"], axis=2)], {"k": np.array([3])}, "topk"),
    "gather elements": (
        [CONV, node("GatherElements", ["c", "i"], ["y"], axis=1)], {"i": RNG.integers(0, 8, (1, 5, 10, 10))},
        "gather_elements",
    ),
    "scatter elements": (
        [CONV, node("Relu", ["c"], ["r"]), node("ScatterND", ["c", "i", "u"], ["y"])],
        {"i": np.array([[0, 3], [0, 5]]), "u": floats(2, 10, 10)}, "scatter_elements",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", INTEGERS)
def test_values_that_are_chosen_keep_their_integers(name):
    nodes, weights, kernel = INTEGERS[name]
    again = node("Conv", ["y", "v"], ["z"], "again")
    feeds = [{"x": floats(1, 3, 12, 12)} for _ in range(3)]
    channels = {"top k": 8, "gather elements": 5, "scatter elements": 8}[name]
    arrays = {**WEIGHT, **weights, "v": floats(4, channels, 1, 1) / 2}
    model = model_of([*nodes, again], feeds[0], arrays, ("z",))
    program = nacre.compile(model, target="tiny", dtype="int8", calibration=feeds)
    (chosen,) = [op for op in program.levels["qnn"].walk() if op.name == f"graph.{kernel}"]
    assert "quant.uniform" in str(chosen.operands[0].type) and "quant.uniform" in str(chosen.results[0].type)
    (found,) = nacre.Session(program, sanitize=True).run(None, feeds[0])
    (wanted,) = oracle(model, feeds[0])
    assert 10 * np.log10(np.square(wanted).sum() / np.square(found - wanted).sum()) > 25


def test_sums_stay_float():
    nodes = [CONV, node("CumSum", ["c", "a"], ["y"]), node("Conv", ["y", "v"], ["z"], "again")]
    feeds = [{"x": floats(1, 3, 12, 12)} for _ in range(3)]
    model = model_of(nodes, feeds[0], {**WEIGHT, "a": np.array(2), "v": floats(4, 8, 1, 1)}, ("z",))
    program = nacre.compile(model, target="tiny", dtype="int8", calibration=feeds)
    (scan,) = [op for op in program.levels["qnn"].walk() if op.name == "graph.cumsum"]
    assert "quant.uniform" not in str(scan.results[0].type)
    (found,) = nacre.Session(program).run(None, feeds[0])
    (wanted,) = oracle(model, feeds[0])
    assert 10 * np.log10(np.square(wanted).sum() / np.square(found - wanted).sum()) > 25
