"""Quantised ONNX models: QDQ graphs and QLinear… operators against ONNX Runtime, and what is refused."""

from __future__ import annotations

import importlib.util
import tempfile
from collections import Counter
from pathlib import Path

import nacre
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacre.dialects.quant import QuantType
from nacre.dialects.types import element_type
from nacre.errors import CompileError, ImportFailed
from nacre.frontends.onnx import import_onnx
from nacre.frontends.onnx.golden import OnnxGolden, node_by_node
from nacre.passes.graph.simplify import SimplifyPass
from nacre.passes.quantise.fold_qdq import FoldQdqPass
from nacre.passes.rewrite import canonicalize, cse
from nacre.runtime.interpreter import interpret, main_function
from onnx import TensorProto, helper, numpy_helper

ort = pytest.importorskip("onnxruntime")


# --- models ----------------------------------------------------------------------------------------------
class Net:
    """A model being written: nodes, initialisers; `q` and `dq` put casts around."""

    def __init__(self, dtype=np.int8):
        self.nodes, self.arrays, self.dtype = [], [], dtype

    def array(self, array, name=None):
        name = name or f"c{len(self.arrays)}"
        self.arrays.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def node(self, op, inputs, domain="", **attributes):
        name = f"{op}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, domain=domain, **attributes))
        return name

    def casts(self, scale, zero, dtype=None):
        zeros = np.full(np.shape(scale), zero, dtype or self.dtype)
        return [self.array(np.float32(scale)), self.array(zeros)]

    def q(self, x, scale, zero, dtype=None):
        return self.node("QuantizeLinear", [x, *self.casts(scale, zero, dtype)])

    def dq(self, x, scale, zero, dtype=None, **attributes):
        return self.node("DequantizeLinear", [x, *self.casts(scale, zero, dtype)], **attributes)

    def qdq(self, x, scale, zero, dtype=None):
        return self.dq(self.q(x, scale, zero, dtype), scale, zero, dtype)

    def model(self, inputs, output, kind=TensorProto.FLOAT, opset=21) -> onnx.ModelProto:
        values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()]
        results = [helper.make_tensor_value_info(output, kind, None)]
        graph = helper.make_graph(self.nodes, "g", values, results, self.arrays)
        domains = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=domains, ir_version=10)


def folded(model):
    module = import_onnx(model)
    SimplifyPass().run(module)
    FoldQdqPass().run(module)
    canonicalize(module)
    cse(module)
    module.verify()
    return module


def session(model):
    options = node_by_node(model)
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def ops(module) -> list[str]:
    skipped = ("graph.constant", "func.return")
    return [op.name for op in main_function(module).body.block.ops if op.name not in skipped]


def steps(model, feeds, scale) -> tuple[np.ndarray, list[str]]:
    """How many output steps Nacre and ONNX Runtime differ by, element by element; Nacre's ops."""
    module = folded(model)
    [want] = session(model).run(None, feeds)
    [have] = interpret(module, feeds).values()
    assert have.shape == want.shape and have.dtype == want.dtype
    assert np.ptp(want) > 3 * scale, "the outputs say nothing"
    difference = np.abs(have.astype(np.float64) - want.astype(np.float64)) / scale
    return np.rint(difference).astype(int), ops(module)


def uniform(shape, low=-1.0, high=1.0, seed=0):
    return np.random.default_rng(seed).uniform(low, high, shape).astype(np.float32)


# --- QDQ -------------------------------------------------------------------------------------------------
def conv_net(dtype, weight_dtype, per_axis, seed=0, weight_zero=0, opset=21) -> tuple[onnx.ModelProto, float]:
    """DQ, Conv with int32 bias, Relu, Q."""
    rng, net = np.random.default_rng(seed), Net(dtype)
    middle = 128 if dtype == np.uint8 else 0
    weight = rng.integers(-100, 100, (6, 4, 3, 3)) + weight_zero
    scales = rng.uniform(0.002, 0.02, 6).astype(np.float32) if per_axis else np.float32(0.01)
    w = net.dq(net.array(weight.astype(weight_dtype)), scales, weight_zero, weight_dtype, axis=0)
    bias = net.array(rng.integers(-3000, 3000, 6).astype(np.int32))
    b = net.node("DequantizeLinear", [bias, net.array(np.float32(0.013) * scales)], axis=0)
    x = net.qdq("x", 0.013, middle + 5)
    y = net.node("Relu", [net.node("Conv", [x, w, b], pads=[1, 1, 1, 1], strides=[2, 2])])
    lowest = np.iinfo(dtype).min if dtype != np.int16 else 0
    scale = 0.03 if dtype != np.int16 else 0.1
    return net.model({"x": [2, 4, 16, 16]}, net.qdq(y, scale, lowest), opset=opset), scale


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
@pytest.mark.parametrize("weight_dtype", [np.int8, np.uint8])
@pytest.mark.parametrize("per_axis", [True, False])
def test_a_convolution_between_casts(dtype, weight_dtype, per_axis):
    """Also where activations and weights have different signs, as ONNX Runtime's defaults have it."""
    zero = 128 if weight_dtype == np.uint8 else 0
    model, scale = conv_net(dtype, weight_dtype, per_axis, weight_zero=zero)
    off, names = steps(model, {"x": uniform((2, 4, 16, 16), -1.6, 1.6)}, scale)
    assert off.max() <= 1 and (off > 0).mean() < 0.002
    assert names.count("qnn.conv") == 1 and not any(n.startswith("graph.conv") for n in names)


@pytest.mark.parametrize("weight_dtype", [np.int16, np.int8])
def test_a_convolution_in_16_bits(weight_dtype):
    model, scale = conv_net(np.int16, weight_dtype, True)
    off, names = steps(model, {"x": uniform((2, 4, 16, 16), -100, 100)}, scale)
    assert off.max() <= 1 and (off > 0).mean() < 0.05
    assert "qnn.conv" in names


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), scale=st.floats(0.01, 0.2), zero=st.integers(-20, 20))
def test_a_matrix_product(seed, scale, zero):
    rng, net = np.random.default_rng(seed), Net()
    k, n = (int(v) for v in rng.integers(2, 40, 2))
    scales = rng.uniform(0.003, 0.02, n).astype(np.float32)
    w = net.dq(net.array(rng.integers(-127, 128, (n, k)).astype(np.int8)), scales, 0, axis=0)
    y = net.node("Gemm", [net.qdq("x", 0.02, -3), w], transB=1)
    model = net.model({"x": [5, k]}, net.qdq(y, scale, zero))
    module = folded(model)
    feeds = {"x": uniform((5, k), -2.5, 2.5, seed)}
    [want], [have] = session(model).run(None, feeds), interpret(module, feeds).values()
    off = np.rint(np.abs(have - want) / np.float32(scale))
    assert off.max() <= 1 and "qnn.matmul" in ops(module)


BINARY = [("Add", "qnn.add"), ("Sub", "qnn.add"), ("Mul", "qnn.mul")]


@pytest.mark.parametrize(("op", "name"), BINARY)
def test_two_activations(op, name):
    net = Net()
    result = net.node(op, [net.qdq("x", 0.0113, 7), net.qdq("y", 0.0307, -9)])
    model = net.model({"x": [1, 3, 20, 20], "y": [1, 3, 20, 20]}, net.qdq(result, 0.0411, 2))
    feeds = {"x": uniform((1, 3, 20, 20), -1, 1, 1), "y": uniform((1, 3, 20, 20), -3, 3, 2)}
    off, names = steps(model, feeds, 0.0411)
    assert off.max() <= 1 and (off > 0).mean() < 0.01
    assert name in names


@pytest.mark.parametrize("op", ["Sigmoid", "Tanh", "HardSwish", "LeakyRelu", "Exp", "Relu", "Abs"])
def test_functions_of_one_value_are_tables(op):
    net = Net()
    model = net.model({"x": [1, 4096]}, net.qdq(net.node(op, [net.qdq("x", 0.02, 3)]), 0.015, -100))
    off, names = steps(model, {"x": uniform((1, 4096), -3, 3)}, 0.015)
    assert off.max() <= 1 and (off > 0).mean() < 0.01
    assert names == ["quant.qcast", "qnn.table", "quant.dcast"]


@pytest.mark.parametrize("zeros", [(3, -20), (128, 100)])
def test_a_change_of_scale_rounds_as_onnx_runtime_does(zeros):
    """Every integer, ties included: the ratio of the scales is 1/2; to another storage type as well."""
    target = np.uint8 if zeros[0] == 128 else np.int8
    net = Net(target)
    moved = net.node("Reshape", [net.qdq("x", 0.5, 3, np.int8), net.array(np.array([16, 16], np.int64))])
    model = net.model({"x": [1, 256]}, net.qdq(moved, 1.0, zeros[1]))
    feeds = {"x": (0.5 * np.arange(-131, 125, dtype=np.float32))[None]}
    off, names = steps(model, feeds, 1.0)
    assert off.max() == 0
    assert "qnn.table" in names and names.count("quant.qcast") == 1


def test_pools_moves_and_concat():
    net = Net()
    x = net.qdq("x", 0.01, 4)
    pooled = net.qdq(net.node("MaxPool", [x], kernel_shape=[2, 2], strides=[2, 2]), 0.01, 4)
    mean = net.qdq(net.node("AveragePool", [x], kernel_shape=[2, 2], strides=[2, 2]), 0.007, -3)
    joined = net.qdq(net.node("Concat", [pooled, mean], axis=1), 0.012, 1)
    turned = net.qdq(net.node("Transpose", [joined], perm=[0, 2, 3, 1]), 0.012, 1)
    model = net.model({"x": [1, 4, 16, 16]}, turned)
    off, names = steps(model, {"x": uniform((1, 4, 16, 16), -1.2, 1.2)}, 0.012)
    assert off.max() <= 1 and (off > 0).mean() < 0.02
    assert names.count("quant.qcast") == 1 and names.count("quant.dcast") == 1


def test_integer_tensors_that_only_move_stay_between_casts():
    """QuantizeLinear, MaxPool and Transpose of int8, DequantizeLinear."""
    net = Net()
    stored = net.node("MaxPool", [net.q("x", 0.02, 5)], kernel_shape=[2, 2])
    stored = net.node("Concat", [stored, stored], axis=1)
    y = net.dq(net.node("Transpose", [stored], perm=[0, 3, 1, 2]), 0.02, 5)
    model = net.model({"x": [1, 2, 8, 8]}, net.qdq(net.node("Sigmoid", [y]), 1 / 256, -128))
    off, names = steps(model, {"x": uniform((1, 2, 8, 8), -2, 2)}, 1 / 256)
    assert off.max() <= 1
    assert "qnn.table" in names and "quant.scast" not in names


def test_integer_outputs_are_stored_integers():
    net = Net()
    model = net.model({"x": [1, 64]}, net.q("x", 0.1, -5), kind=TensorProto.INT8)
    feeds = {"x": uniform((1, 64), -9, 9)}
    [have] = interpret(folded(model), feeds).values()
    assert have.dtype == np.int8 and (have == session(model).run(None, feeds)[0]).all()


def test_what_has_no_rule_or_no_result_type_stays_float():
    net = Net()
    x = net.qdq("x", 0.02, 0)
    y = net.node("Softplus", [net.node("Cos", [net.node("LRN", [x], size=3)])])
    model = net.model({"x": [1, 3, 4, 4]}, net.qdq(y, 0.01, -128))
    off, names = steps(model, {"x": uniform((1, 3, 4, 4), -2, 2)}, 0.01)
    assert off.max() <= 1 and "graph.lrn" in names
    assert names.count("quant.qcast") == names.count("quant.dcast") == 2
    net = Net()
    w = net.dq(net.array(np.arange(-6, 6, dtype=np.int8).reshape(4, 3)), np.float32([0.1, 0.2, 0.3]), 0, axis=1)
    model = net.model({"x": [2, 4]}, net.node("MatMul", [net.qdq("x", 0.02, 0), w]))
    feeds = {"x": uniform((2, 4))}
    module = folded(model)
    assert "graph.matmul" in ops(module)
    [have] = interpret(module, feeds).values()
    np.testing.assert_allclose(have, session(model).run(None, feeds)[0], rtol=1e-5, atol=1e-6)


def test_channels_with_zero_points_of_their_own_stay_float():
    net = Net(np.uint8)
    zeros = net.array(np.array([120, 130, 128], np.uint8))
    weight = net.array(np.random.default_rng(0).integers(0, 255, (8, 3)).astype(np.uint8))
    w = net.node("DequantizeLinear", [weight, net.array(np.float32([0.01, 0.02, 0.03])), zeros], axis=1)
    model = net.model({"x": [4, 8]}, net.qdq(net.node("MatMul", [net.qdq("x", 0.02, 128), w]), 0.1, 128))
    off, names = steps(model, {"x": uniform((4, 8), -2, 2)}, 0.1)
    assert off.max() <= 1 and "graph.matmul" in names


# --- verify ----------------------------------------------------------------------------------------------
def casts_around_convolutions():
    rng, net = np.random.default_rng(5), Net()
    x = net.qdq("x", 0.02, 3)
    for channels in (4, 8):
        weight = net.dq(net.array(rng.integers(-127, 128, (8, channels, 3, 3)).astype(np.int8)), 0.004, 0)
        x = net.qdq(net.node("Relu", [net.node("Conv", [x, weight], pads=[1, 1, 1, 1])]), 0.03, -128)
    return net.model({"x": [1, 4, 9, 9]}, x)


def test_verify_holds_for_a_model_with_casts():
    report = nacre.verify(casts_around_convolutions(), {"x": uniform((1, 4, 9, 9))}, target="tiny")
    assert report.casts and not report.integers and report.holds, report.failures
    assert all("program" in row.statistics or row.fused["program"] for row in report.rows)


def test_verify_names_a_layer_that_is_far_from_the_model(monkeypatch):
    run = OnnxGolden.run

    def off(self, feeds, names):
        return {n: a * 0.8 if n == "DequantizeLinear6" else a for n, a in run(self, feeds, names).items()}

    monkeypatch.setattr(OnnxGolden, "run", off)
    report = nacre.verify(casts_around_convolutions(), {"x": uniform((1, 4, 9, 9))}, target="tiny")
    assert [f for f in report.failures if "loses much of its precision" in f], report.failures


# --- operators on integers -------------------------------------------------------------------------------
def test_qlinear_conv():
    rng, net = np.random.default_rng(3), Net(np.uint8)
    scales = rng.uniform(0.002, 0.02, 6).astype(np.float32)
    weight = net.array(rng.integers(-127, 128, (6, 2, 3, 3)).astype(np.int8))
    bias = net.array(rng.integers(-2000, 2000, 6).astype(np.int32))
    inputs = [net.q("x", 0.01, 120), *net.casts(0.01, 120), weight, *net.casts(scales, 0, np.int8)]
    y = net.node("QLinearConv", [*inputs, *net.casts(0.05, 100), bias], group=2, pads=[1, 1, 1, 1])
    model = net.model({"x": [1, 4, 12, 12]}, net.dq(y, 0.05, 100))
    off, names = steps(model, {"x": uniform((1, 4, 12, 12), -1.2, 1.3)}, 0.05)
    assert off.max() <= 1 and (off > 0).mean() < 0.01 and "qnn.conv" in names


def test_qlinear_matmul():
    rng, net = np.random.default_rng(4), Net(np.int8)
    weight = net.array(rng.integers(-127, 128, (20, 7)).astype(np.int8))
    scales = rng.uniform(0.002, 0.02, 7).astype(np.float32)
    inputs = [net.q("x", 0.01, 5), *net.casts(0.01, 5), weight, *net.casts(scales, 0), *net.casts(0.05, -10)]
    model = net.model({"x": [9, 20]}, net.dq(net.node("QLinearMatMul", inputs), 0.05, -10))
    off, names = steps(model, {"x": uniform((9, 20), -1.2, 1.3)}, 0.05)
    assert off.max() <= 1 and "qnn.matmul" in names


@pytest.mark.parametrize("op", ["Add", "Mul"])
def test_qlinear_binary(op):
    net = Net(np.uint8)
    inputs = [net.q("x", 0.01, 120), *net.casts(0.01, 120), net.q("y", 0.02, 100), *net.casts(0.02, 100)]
    y = net.node(f"QLinear{op}", [*inputs, *net.casts(0.03, 128)], domain="com.microsoft")
    model = net.model({"x": [1, 500], "y": [1, 500]}, net.dq(y, 0.03, 128))
    feeds = {"x": uniform((1, 500), seed=1), "y": uniform((1, 500), -2, 2, 2)}
    off, names = steps(model, feeds, 0.03)
    assert off.max() <= 1 and f"qnn.{op.lower()}" in names


@pytest.mark.parametrize(("op", "attributes"), [
    ("Sigmoid", {}), ("LeakyRelu", {"alpha": 0.1}), ("GlobalAveragePool", {"channels_last": 0}),
    ("AveragePool", {"kernel_shape": [3, 3], "strides": [2, 2]}),
])  # fmt: skip
def test_qlinear_unary(op, attributes):
    net = Net(np.uint8)
    inputs = [net.q("x", 0.02, 120), *net.casts(0.02, 120), *net.casts(0.005, 128)]
    y = net.node(f"QLinear{op}", inputs, domain="com.microsoft", **attributes)
    model = net.model({"x": [1, 20, 9, 9]}, net.dq(y, 0.005, 128))
    off, names = steps(model, {"x": uniform((1, 20, 9, 9), -2, 2)}, 0.005)
    assert off.max() <= 1 and not any(n in ("graph.sigmoid", "graph.avg_pool") for n in names)


def test_qlinear_concat():
    net = Net(np.uint8)
    parts = [net.q("x", 0.01, 128), *net.casts(0.01, 128), net.q("y", 0.02, 100), *net.casts(0.02, 100)]
    y = net.node("QLinearConcat", [*net.casts(0.025, 110), *parts], domain="com.microsoft", axis=1)
    model = net.model({"x": [1, 99], "y": [1, 50]}, net.dq(y, 0.025, 110))
    off, names = steps(model, {"x": uniform((1, 99)), "y": uniform((1, 50), -2, 2)}, 0.025)
    assert off.max() <= 1 and "graph.concat" in names


def test_sums_as_integers():
    """ConvInteger and MatMulInteger give the int32 sums themselves."""
    rng, net = np.random.default_rng(5), Net(np.uint8)
    weight = net.array(rng.integers(0, 255, (5, 3, 3, 3)).astype(np.uint8))
    zeros = [net.array(np.uint8(120)), net.array(np.uint8(130))]
    y = net.node("ConvInteger", [net.q("x", 0.01, 120), weight, *zeros])
    model = net.model({"x": [1, 3, 8, 8]}, y, kind=TensorProto.INT32)
    feeds = {"x": uniform((1, 3, 8, 8))}
    [have] = interpret(folded(model), feeds).values()
    assert have.dtype == np.int32 and (have == session(model).run(None, feeds)[0]).all()
    net = Net(np.uint8)
    weight = net.array(rng.integers(0, 255, (8, 5)).astype(np.uint8))
    y = net.node("MatMulInteger", [net.q("x", 0.01, 120), weight, net.array(np.uint8(120)), zeros[1]])
    net.array(np.uint8(130), zeros[1])
    model = net.model({"x": [4, 8]}, y, kind=TensorProto.INT32)
    feeds = {"x": uniform((4, 8))}
    [have] = interpret(folded(model), feeds).values()
    assert (have == session(model).run(None, feeds)[0]).all()


# --- through the compiler --------------------------------------------------------------------------------
def test_compiling_needs_no_calibration_and_keeps_the_scales():
    model, _ = conv_net(np.int8, np.int8, True)
    program = nacre.compile(model, target="tiny")
    assert program.report["dtype"] == "int8"
    module, feeds = program.levels["qnn"], {"x": uniform((2, 4, 16, 16), -1.6, 1.6)}
    [have] = nacre.Session(program).run(None, feeds)
    assert (have == next(iter(interpret(module, feeds).values()))).all()
    types = {element_type(r) for op in main_function(module).body.block.ops for r in op.results}
    scales = {t.scale for t in types if isinstance(t, QuantType) and t.data.axis is None}
    assert scales == {float(np.float32(0.013)), float(np.float32(0.03))}
    with pytest.raises(CompileError, match="quantised already, to int8"):
        nacre.compile(model, dtype="uint8")


def test_a_batch_norm_whose_factor_leaves_its_scales_type():
    """scale / sqrt(variance) is four times the scale, whose stored integers end at 127."""
    net, rng = Net(), np.random.default_rng(2)
    scale = net.dq(net.array(rng.integers(60, 128, 6).astype(np.int8)), 0.01, 0)
    shift, mean = (net.array(rng.normal(0, 0.3, 6).astype(np.float32)) for _ in range(2))
    variance = net.array(np.full(6, 1 / 16, np.float32))
    y = net.node("BatchNormalization", [net.qdq("x", 0.013, 5), scale, shift, mean, variance])
    model = net.model({"x": [1, 6, 8, 8]}, net.qdq(y, 0.06, 0))
    off, names = steps(model, {"x": uniform((1, 6, 8, 8), -1.6, 1.6)}, 0.06)
    assert "qnn.conv" in names and off.max() <= 1


def test_verify_compares_what_casts_round_behind_them():
    """A tensor before a cast does not exist in integers; what the cast gives is there, and equal."""
    model, _ = conv_net(np.int8, np.int8, True)
    report = nacre.verify(model, [{"x": uniform((2, 4, 16, 16), -1.6, 1.6)}], target="tiny")
    assert report.holds, report.failures
    [rounded] = [n.input[0] for n in model.graph.node if n.op_type == "QuantizeLinear" and n.input[0] != "x"]
    [output] = report.outputs
    assert "graph" in report.comparison.rows[rounded].statistics
    assert not {"qnn", "npu", "program"} & report.comparison.rows[rounded].statistics.keys()
    assert report.comparison.rows[output].statistics["qnn"].max_abs == 0


def test_verify_holds_where_a_product_is_a_step_off():
    """Of 400,000 inputs and products of two activations a few are rounded the other way, which is no failure."""
    net = Net()
    x = net.qdq("x", 0.0131, 3)
    y = net.qdq(net.node("Mul", [x, net.qdq(net.node("Sigmoid", [x]), 0.0039, -128)]), 0.0113, -101)
    model = net.model({"x": [1, 4, 320, 320]}, y)
    report = nacre.verify(model, [{"x": uniform((1, 4, 320, 320), -1.6, 1.6)}], target="cpu")
    assert report.holds, report.failures
    assert 0 < report.comparison.rows[y].statistics["qnn"].max_abs < 1.01 * 0.0113


def test_weights_keep_their_integers():
    model, _ = conv_net(np.uint8, np.int8, True)
    [conv] = [op for op in main_function(folded(model)).body.block.ops if op.name == "qnn.conv"]
    given = next(numpy_helper.to_array(i) for i in model.graph.initializer if list(i.dims) == [6, 4, 3, 3])
    assert (conv.weight.owner.array().astype(int) - 128 == given.transpose(2, 3, 1, 0)).all()
    assert conv.parameters().weight_zero == 128


# --- what is refused -------------------------------------------------------------------------------------
def refusal(net, output, inputs=None) -> str:
    with pytest.raises(ImportFailed) as error:
        import_onnx(net.model(inputs or {"x": [1, 4, 8, 8]}, output))
    return str(error.value)


@pytest.mark.parametrize(("scale", "found"), [(0.0, "is 0"), (np.nan, "NaN"), (np.inf, "is inf"), (-1.0, "is -1")])
def test_a_scale_that_is_none(scale, found):
    net = Net()
    text = refusal(net, net.q("x", scale, 0))
    assert found in text and "QuantizeLinear0" in text


def test_a_zero_point_of_another_type():
    net = Net()
    scale, zero = net.array(np.float32(0.1)), net.array(np.uint8(3))
    weight = net.array(np.ones((4, 4), np.int8))
    text = refusal(net, net.node("DequantizeLinear", [weight, scale, zero]))
    assert "zero point" in text and "uint8" in text and "int8" in text


def test_an_activation_per_axis():
    net = Net()
    text = refusal(net, net.q("x", np.float32([0.1, 0.2, 0.3, 0.4]), 0))
    assert "4 scales along axis 1" in text and "one scale" in text


def test_scales_that_do_not_fit_the_axis():
    net = Net()
    weight = net.array(np.ones((4, 3), np.int8))
    text = refusal(net, net.dq(weight, np.float32([0.1, 0.2]), 0, axis=1))
    assert "2 scales" in text and "axis 1 of [4, 3]" in text


def test_blocks():
    net = Net()
    weight = net.array(np.ones((4, 6), np.int8))
    text = refusal(net, net.dq(weight, np.ones((4, 2), np.float32), 0, axis=1, block_size=3))
    assert "in blocks" in text and "per axis" in text


def test_types_that_are_not_computed_in():
    net = Net(np.uint16)
    assert "uint16" in refusal(net, net.q("x", 0.1, 0))


def test_scales_that_depend_on_data():
    net = Net()
    text = refusal(net, net.node("QuantizeLinear", ["x", "s"]), {"x": [1, 4], "s": []})
    assert "its scale ('s') is computed" in text
    net = Net()
    net.nodes.append(helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"], name="dynamic"))
    net.nodes.append(helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], name="back"))
    text = refusal(net, "y", {"x": [1, 4]})
    assert "'dynamic'" in text and "quantise the model statically" in text


# --- trained networks, quantised by ONNX Runtime ---------------------------------------------------------
def own_qdq(name: str, folder: Path):
    """The network quantised by ONNX Runtime (QDQ, per channel, min-max), and what makes its inputs."""
    from nacre.benchmarks.sqnr import onnx_runtime_int8

    shared = Path(nacre.__file__).parent.parent / "shared"
    path = shared / "models" / f"{name}.onnx"
    if not path.is_file():
        pytest.skip(f"{name}.onnx is not beside the repository")
    spec = importlib.util.spec_from_file_location("accept", shared / "accept.py")
    assert spec is not None and spec.loader is not None
    accept = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(accept)
    inputs, _ = accept.reference(str(path))
    onnx_runtime_int8(path, [accept.feeds(path.name, inputs, i) for i in range(4)], folder)
    return onnx.load(folder / "2.onnx"), lambda i: accept.feeds(path.name, inputs, 100 + i)


def quantised_outputs(model: onnx.ModelProto) -> list[str]:
    """The names of all activations behind a DequantizeLinear."""
    constants = {i.name for i in model.graph.initializer}
    casts = (n for n in model.graph.node if n.op_type == "DequantizeLinear")
    return [n.output[0] for n in casts if n.input[0] not in constants]


@pytest.mark.parametrize("name", ["mnist_cnn", "mlperf_ic_resnet8", "mlperf_vww_mbv1"])
def test_networks_quantised_by_onnx_runtime(name):
    """All quantised tensors of a few inputs: at least 99 % within one step of ONNX Runtime's."""
    from nacre.dialects.nacre import sources_of

    with tempfile.TemporaryDirectory() as folder:
        model, feeds_of = own_qdq(name, Path(folder))
    wanted = quantised_outputs(model)
    module = folded(model)
    assert "graph.conv" not in ops(module) and "graph.matmul" not in ops(module)
    known = {o.name for o in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=n) for n in wanted if n not in known)
    reference = session(model)
    names = [o.name for o in reference.get_outputs()]
    off: Counter[int] = Counter()
    for i in range(3):
        feeds = feeds_of(i)
        tensors = dict(zip(names, reference.run(None, feeds)))

        def compare(value, array, tensors=tensors):
            type_ = element_type(value)
            for source in sources_of(value) if isinstance(type_, QuantType) else ():
                want = tensors.pop(source.tensor, None)
                if want is not None and len(source.axes) == want.ndim:
                    have = (array.astype(np.int64) - type_.zero) * type_.scale
                    off.update(np.rint(abs(have - want.transpose(source.axes)) / type_.scale).ravel().tolist())

        interpret(module, feeds, compare)
    assert sum(off.values()) > 3000
    assert (off[0] + off[1]) / sum(off.values()) >= 0.99, off
