"""Quantised modules as ONNX QDQ: ONNX Runtime gives Nacre's integers, but for its own last bits."""

from __future__ import annotations

import importlib.util
from collections import Counter
from pathlib import Path

import nacre
import numpy as np
import onnx
import pytest
from nacre.backends.compile import compile
from nacre.cli.main import main
from nacre.dialects.quant import DCastOp
from nacre.dialects.types import element_type
from nacre.errors import CompileError
from nacre.frontends.onnx import import_onnx
from nacre.frontends.onnx.export import export_onnx
from nacre.frontends.onnx.golden import exact_products
from nacre.runtime.interpreter import interpret, main_function
from onnx import TensorProto, helper, numpy_helper

ort = pytest.importorskip("onnxruntime")


def model_of(nodes, inputs, arrays=None, outputs=("y",)) -> onnx.ModelProto:
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()]
    results = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs]
    constants = [numpy_helper.from_array(np.asarray(a), n) for n, a in (arrays or {}).items()]
    graph = helper.make_graph(nodes, "g", values, results, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def node(op, inputs, output, **attributes):
    return helper.make_node(op, inputs.split(), output.split(), name=f"{op.lower()}_{output.split()[0]}", **attributes)


def session(model, optimised=False):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    exact_products(options)
    if not optimised:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def uniform(shape, seed=0, low=-2.0, high=2.0):
    return np.random.default_rng(seed).uniform(low, high, shape).astype(np.float32)


def output_scales(module) -> list[float]:
    """The steps of the outputs: what their last cast multiplies by."""
    returned = main_function(module).get_return_op()
    casts = [v.owner for v in returned.operands]
    assert all(isinstance(cast, DCastOp) for cast in casts), "every output comes from a cast"
    return [element_type(cast.input).scale for cast in casts]


def steps(model, dtype="int8", samples=4, optimised=False) -> tuple[Counter[int], onnx.ModelProto]:
    """Quantise, export, and count how many steps ONNX Runtime is away from Nacre's outputs."""
    shapes = {i.name: [d.dim_value for d in i.type.tensor_type.shape.dim] for i in model.graph.input}
    feeds = [{n: uniform(s, 10 * i + k) for k, (n, s) in enumerate(shapes.items())} for i in range(samples)]
    module = compile(model, dtype=dtype, calibration=feeds, stop_after="qnn").levels["qnn"]
    exported = export_onnx(module)
    runtime, off = session(exported, optimised), Counter()
    for sample in feeds:
        found = interpret(module, sample)
        for (name, have), want, scale in zip(found.items(), runtime.run(None, sample), output_scales(module)):
            assert have.shape == want.shape and have.dtype == want.dtype, name
            assert np.ptp(have) > 3 * scale, "the outputs say nothing"
            off.update(np.rint(np.abs(have - want) / np.float32(scale)).astype(int).ravel().tolist())
    return off, exported


def operators(model) -> Counter[str]:
    return Counter(n.op_type for n in model.graph.node)


RNG = np.random.default_rng(7)
W = {"w": RNG.normal(0, 0.3, (6, 4, 3, 3)).astype(np.float32), "b": RNG.normal(0, 1, 6).astype(np.float32)}
D = {"w": RNG.normal(0, 0.3, (4, 1, 3, 3)).astype(np.float32)}
T = {"w": RNG.normal(0, 0.3, (4, 5, 3, 3)).astype(np.float32)}
M = {"w": RNG.normal(0, 0.3, (16, 8)).astype(np.float32), "b": RNG.normal(0, 1, 8).astype(np.float32)}
IMAGE = {"x": [1, 4, 12, 12]}
TWO = {"x": [1, 4, 12, 12], "z": [1, 4, 12, 12]}
SCALES = {"s": np.float32([1, 1, 2, 2])}
CASES = {
    "conv": ([node("Conv", "x w b", "a", pads=[1, 0, 1, 2], strides=[2, 1]), node("Relu", "a", "y")], IMAGE, W),
    "depthwise": ([node("Conv", "x w", "y", group=4, dilations=[2, 2])], IMAGE, D),
    "transposed": ([node("ConvTranspose", "x w", "y", strides=[2, 2], pads=[1, 1, 1, 1])], IMAGE, T),
    "gemm": ([node("Gemm", "x w b", "y")], {"x": [5, 16]}, M),
    "batched": ([node("MatMul", "x z", "y")], {"x": [3, 5, 6], "z": [3, 6, 7]}, {}),
    "add": ([node("Add", "x z", "y")], TWO, {}),
    "sub": ([node("Sub", "x z", "y")], TWO, {}),
    "mul": ([node("Mul", "x z", "y")], TWO, {}),
    "concat": ([node("Concat", "x z", "c", axis=1), node("Sigmoid", "c", "y")], TWO, {}),
    "max_pool": ([node("MaxPool", "x", "p", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
                  node("Tanh", "p", "y")], IMAGE, {}),
    "average": ([node("AveragePool", "x", "y", kernel_shape=[3, 3], pads=[1, 1, 1, 1])], IMAGE, {}),
    "mean": ([node("GlobalAveragePool", "x", "y")], {"x": [1, 40, 5, 5]}, {}),
    "softmax": ([node("Softmax", "x", "y", axis=1)], {"x": [6, 10]}, {}),
    "linear": ([node("Resize", "x s", "r", mode="linear"), node("Neg", "r", "y")], IMAGE, SCALES),
    "prelu": ([node("PRelu", "x s", "y")], IMAGE, {"s": np.float32([[[0.1]], [[0.2]], [[0.3]], [[0.4]]])}),
    "table": ([node("HardSwish", "x", "h"), node("Erf", "h", "y")], IMAGE, {}),
    "moves": ([node("Transpose", "x", "t", perm=[0, 2, 3, 1]), node("Sigmoid", "t", "u"),
               node("Split", "u", "v1 v2", axis=3, num_outputs=2), node("Tanh", "v2", "y")], IMAGE, {}),
}  # fmt: skip
CASES["linear"][0][0].input[:] = ["x", "", "s"]


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("case", CASES)
def test_each_operator(case, dtype):
    """One step at most, and seldom: a last bit of ONNX Runtime's floats, a tie, TFLite's fixed-point steps.

    Resampling to twice the size gives ties in plenty, of which the function behind makes two steps.
    """
    off, exported = steps(model_of(*CASES[case]), dtype)
    assert max(off) <= (2 if case == "linear" else 1) and off[0] >= 0.9 * off.total(), off
    assert operators(exported)["QuantizeLinear"] >= 1


@pytest.mark.parametrize("case", ["conv", "gemm", "add", "table", "moves"])
def test_16_bits(case):
    off, exported = steps(model_of(*CASES[case]), "int16")
    assert max(off) <= 2 and off[0] >= 0.8 * off.total(), off
    kinds = {i.data_type for i in exported.graph.initializer}
    assert TensorProto.INT16 in kinds


def test_tables_are_exact_whatever_the_function_was():
    model = model_of([node("HardSwish", "x", "h"), node("Sin", "h", "i"), node("Exp", "i", "y")], {"x": [1, 999]})
    off, exported = steps(model)
    assert set(off) == {0} and operators(exported)["Gather"] == 1


def chain(arrays) -> onnx.ModelProto:
    """conv, relu, conv, add, pool, flatten, gemm."""
    nodes = [
        node("Conv", "x w b", "a", pads=[1, 1, 1, 1]), node("Relu", "a", "r"),
        node("Conv", "r w2", "c", pads=[1, 1, 1, 1]), node("Add", "c r", "s"),
        node("MaxPool", "s", "p", kernel_shape=[2, 2], strides=[2, 2]), node("Flatten", "p", "f"),
        node("Gemm", "f w3 b3", "y"),
    ]  # fmt: skip
    more = {
        "w2": RNG.normal(0, 0.2, (6, 6, 3, 3)), "w3": RNG.normal(0, 0.1, (216, 10)), "b3": RNG.normal(size=10),
    }  # fmt: skip
    return model_of(nodes, IMAGE, {**arrays, **{n: a.astype(np.float32) for n, a in more.items()}})


def test_a_network_is_standard_qdq():
    """Per-channel weights with int32 biases behind casts; layouts turn at the borders only."""
    off, exported = steps(chain(W), optimised=True)
    assert max(off) <= 1 and off[0] > 0.9 * off.total()
    found = operators(exported)
    assert found["Conv"] == 2 and found["Gemm"] == 1 and found["Transpose"] <= 2
    constants = {i.name: numpy_helper.to_array(i) for i in exported.graph.initializer}
    casts = {n.output[0]: n for n in exported.graph.node if n.op_type == "DequantizeLinear"}
    for conv in (n for n in exported.graph.node if n.op_type == "Conv"):
        weight = casts[conv.input[1]]
        assert constants[weight.input[0]].dtype == np.int8 and constants[weight.input[1]].shape == (6,)
        if len(conv.input) == 3:
            assert constants[casts[conv.input[2]].input[0]].dtype == np.int32


def test_names_shapes_and_types_are_the_models():
    model = chain(W)
    model.graph.output.append(helper.make_tensor_value_info("r", TensorProto.FLOAT, None))
    calibration = [{"x": uniform((1, 4, 12, 12))}]
    exported = export_onnx(compile(model, calibration=calibration, stop_after="qnn").levels["qnn"])
    runtime = session(exported)
    assert [(i.name, i.shape, i.type) for i in runtime.get_inputs()] == [("x", [1, 4, 12, 12], "tensor(float)")]
    outputs = [(o.name, o.shape) for o in runtime.get_outputs()]
    assert outputs == [("y", [1, 10]), ("r", [1, 6, 12, 12])]


def test_there_and_back():
    """What is exported imports again, to the same integers but for the rounding of ties."""
    model = chain(W)
    feeds = [{"x": uniform((1, 4, 12, 12), i)} for i in range(3)]
    module = compile(model, calibration=feeds, stop_after="qnn").levels["qnn"]
    again = compile(export_onnx(module), stop_after="qnn").levels["qnn"]
    kinds = [[op.name for op in main_function(m).body.block.ops if op.name.startswith("qnn")] for m in (module, again)]
    assert kinds[0] == kinds[1]
    for sample in feeds:
        [a], [b] = interpret(module, sample).values(), interpret(again, sample).values()
        assert np.abs(a - b).max() <= output_scales(module)[0] * 1.01


def test_float_layers_stay_float():
    model = model_of([node("Conv", "x w b", "c"), node("LRN", "c", "l", size=3), node("Relu", "l", "y")], IMAGE, W)
    calibration = [{"x": uniform((1, 4, 12, 12))}]
    module = compile(model, calibration=calibration, stop_after="qnn").levels["qnn"]
    exported = export_onnx(module)
    assert operators(exported)["LRN"] == 1
    [want] = session(exported).run(None, calibration[0])
    [have] = interpret(module, calibration[0]).values()
    np.testing.assert_allclose(have, want, atol=0.05)
    assert (have == want).mean() > 0.5


def test_a_float_module_is_exported_as_it_is():
    module = import_onnx(chain(W))
    feeds = {"x": uniform((1, 4, 12, 12))}
    [want] = session(export_onnx(module)).run(None, feeds)
    np.testing.assert_allclose(next(iter(interpret(module, feeds).values())), want, rtol=1e-4, atol=1e-4)


def test_what_onnx_has_no_operator_for():
    from nacre.dialects import qnn
    from nacre.frontends.onnx import export

    model = model_of([node("Sigmoid", "x", "y")], {"x": [1, 9]})
    module = compile(model, calibration=[{"x": uniform((1, 9))}], stop_after="qnn").levels["qnn"]
    known = export.EXPORTS.pop(qnn.TableOp)
    try:
        with pytest.raises(CompileError, match=r"layer 'sigmoid_y': qnn.table cannot be exported"):
            export_onnx(module)
    finally:
        export.EXPORTS[qnn.TableOp] = known


def test_the_command(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    onnx.save(chain(W), tmp_path / "net.onnx")
    np.savez(tmp_path / "c.npz", x=uniform((1, 4, 12, 12)))
    assert main(["export", "net.onnx", "--calibration", "c.npz", "-o", "q.onnx"]) == 0
    assert "written: q.onnx" in capsys.readouterr().out
    first = (tmp_path / "q.onnx").read_bytes()
    assert session(onnx.load("q.onnx")).run(None, {"x": uniform((1, 4, 12, 12))})[0].shape == (1, 10)
    assert main(["export", "net.onnx", "--calibration", "c.npz"]) == 0
    assert (tmp_path / "net.qdq.onnx").read_bytes() == first
    assert main(["export", "net.onnx"]) == 1
    assert "calibration" in capsys.readouterr().err


# --- trained networks ------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", ["int8", pytest.param("uint8", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["mnist_cnn", "mlperf_vww_mbv1"])
def test_trained_networks(name, dtype):
    """Every output within one step, with ONNX Runtime's float kernels and, optimised, with its integer ones."""
    shared = Path(nacre.__file__).parent.parent / "shared"
    path = shared / "models" / f"{name}.onnx"
    if not path.is_file():
        pytest.skip(f"{name}.onnx is not beside the repository")
    spec = importlib.util.spec_from_file_location("accept", shared / "accept.py")
    assert spec is not None and spec.loader is not None
    accept = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(accept)
    inputs, _ = accept.reference(str(path))
    calibration = [accept.feeds(path.name, inputs, i) for i in range(4)]
    module = compile(path, dtype=dtype, calibration=calibration, stop_after="qnn").levels["qnn"]
    exported, [scale] = export_onnx(module), output_scales(module)
    runtimes = [session(exported), session(exported, optimised=True)]
    off: Counter[int] = Counter()
    for i in range(64):
        feeds = accept.feeds(path.name, inputs, 100 + i)
        [have] = interpret(module, feeds).values()
        for runtime in runtimes:
            [want] = runtime.run(None, feeds)
            off.update(np.rint(np.abs(want - have) / scale).astype(int).ravel().tolist())
    assert max(off) <= 1 and off[0] >= 0.99 * off.total(), off
