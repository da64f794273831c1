"""Operations that go by places as ONNX: ONNX Runtime runs what was imported, and in integers what was quantised."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from nacre.backends.compile import compile
from nacre.errors import CompileError
from nacre.frontends.onnx import import_onnx
from nacre.frontends.onnx.export import export_onnx
from nacre.frontends.onnx.golden import exact_products
from nacre.runtime.interpreter import interpret
from onnx import helper

ort = pytest.importorskip("onnxruntime")

RNG = np.random.default_rng(41)
node = helper.make_node


def floats(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def ints(high: int, *shape: int) -> np.ndarray:
    return RNG.integers(0, high, shape)


def model_of(nodes, feeds, weights, outputs, opset=20) -> onnx.ModelProto:
    types = {n: helper.np_dtype_to_tensor_dtype(a.dtype) for n, a in feeds.items()}
    inputs = [helper.make_tensor_value_info(n, types[n], a.shape) for n, a in feeds.items()]
    arrays = [onnx.numpy_helper.from_array(np.asarray(a), n) for n, a in weights.items()]
    graph = helper.make_graph(nodes, "g", inputs, [onnx.ValueInfoProto(name=n) for n in outputs], arrays)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def run(model, feeds):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    exact_products(options)
    return ort.InferenceSession(model.SerializeToString(), options).run(None, feeds)


CASES = {
    "top k": (node("TopK", ["x", "k"], ["y", "i"], axis=1, largest=0), {"x": floats(3, 9, 2)}, {"k": np.array([4])}),
    "cumsum": (node("CumSum", ["x", "a"], ["y"], reverse=1), {"x": floats(3, 9)}, {"a": np.array(1)}),
    "product": (node("ReduceProd", ["x", "a"], ["y"]), {"x": floats(3, 9)}, {"a": np.array([1])}),
    "gather": (node("GatherElements", ["x", "i"], ["y"], axis=1), {"x": floats(3, 9), "i": ints(9, 3, 4)}, {}),
    "scatter": (
        node("ScatterND", ["x", "i", "u"], ["y"], reduction="add"),
        {"x": floats(3, 9, 4), "i": ints(3, 5, 2), "u": floats(5, 4)}, {},
    ),
    "sample": (
        node("GridSample", ["x", "g"], ["y"], mode="cubic"), {"x": floats(2, 3, 5, 6), "g": floats(2, 4, 4, 2)}, {}
    ),
    "arc tangent": (node("Atan", ["x"], ["y"]), {"x": floats(9)}, {}),
    "remainder": (node("Mod", ["x", "z"], ["y"], fmod=1), {"x": floats(9), "z": floats(9)}, {}),
    "bits": (node("BitwiseOr", ["x", "z"], ["y"]), {"x": ints(99, 9), "z": ints(99, 9)}, {}),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_floats_come_back(name):
    single, feeds, weights = CASES[name]
    model = model_of([single], feeds, weights, single.output)
    exported = export_onnx(import_onnx(model))
    for want, have in zip(run(model, feeds), run(exported, feeds), strict=True):
        np.testing.assert_allclose(have, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["top k", "gather", "scatter"])
def test_integers_are_the_same(name):
    single, weights = {
        "top k": (node("TopK", ["c", "k"], ["y", "i"], axis=2), {"k": np.array([3])}),
        "gather": (node("GatherElements", ["c", "i"], ["y"], axis=2), {"i": ints(6, 1, 4, 2, 6)}),
        "scatter": (node("ScatterND", ["c", "i", "u"], ["y"]), {"i": np.array([[0, 2]]), "u": floats(1, 6, 6)}),
    }[name]
    nodes = [node("Conv", ["x", "w"], ["c"]), single, node("Conv", ["y", "v"], ["z"])]
    feeds = [{"x": floats(1, 3, 8, 8)} for _ in range(3)]
    model = model_of(nodes, feeds[0], {"w": floats(4, 3, 3, 3), "v": floats(2, 4, 1, 1), **weights}, ["z"])
    module = compile(model, dtype="int8", calibration=feeds, stop_after="qnn").levels["qnn"]
    exported = export_onnx(module)
    for sample in feeds:
        (have,), (want,) = interpret(module, sample).values(), run(exported, sample)
        assert np.abs(have - want).max() <= np.ptp(want) / 254  # ONNX Runtime's own last bit


def test_what_onnx_has_no_operator_for_is_refused_by_layer():
    product = node("CumProd", ["x", "a"], ["y"], name="grow")
    module = import_onnx(model_of([product], {"x": floats(4)}, {"a": np.array(0)}, ["y"], 26))
    with pytest.raises(CompileError, match=r"'grow': graph\.cumprod cannot be exported"):
        export_onnx(module)
