"""Trained networks and ONNX's light models through import and the graph kernels, against ONNX Runtime."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import onnx.backend.test
import pytest
from nacre.dialects.graph import GRAPH, GraphOp
from nacre.dialects.nacre import NACRE, sources_of
from nacre.frontends.onnx import import_onnx
from xdsl.context import Context
from xdsl.dialects.builtin import Builtin, NameLoc
from xdsl.dialects.func import Func, FuncOp, ReturnOp
from xdsl.parser import Parser
from xdsl.printer import Printer

ort = pytest.importorskip("onnxruntime")

SHARED = ("mnist_cnn", "mlperf_ic_resnet8", "mlperf_vww_mbv1", "fastestdet", "local_vit_mnist")
LIGHT = Path(onnx.backend.test.__file__).parent / "data" / "light"
QUICK = ("densenet121", "inception_v1", "inception_v2", "resnet50", "shufflenet", "squeezenet")
LARGE = ("bvlc_alexnet", "vgg19", "zfnet512")


def main_of(module):
    return next(op for op in module.body.block.ops if isinstance(op, FuncOp))


def names(attributes) -> list[str]:
    return [entry.data["nacre.name"].data for entry in attributes]


def session(model):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    source = model.SerializeToString() if isinstance(model, onnx.ModelProto) else str(model)
    return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def compare(path: Path, interpret, seed: int = 7) -> None:
    """Import, interpret and compare; tolerance relative to the output's largest value."""
    module = import_onnx(path)
    main, reference = main_of(module), session(path)
    rng = np.random.default_rng(seed)
    inputs = names(main.arg_attrs)
    feeds = {
        i.name: rng.random(i.shape, dtype=np.float32) for i in reference.get_inputs() if i.name in inputs
    }
    expected = reference.run(None, feeds)
    found = interpret(module, [feeds[n] for n in inputs])
    assert names(main.res_attrs) == [o.name for o in reference.get_outputs()]
    assert len(found) == len(expected)
    for want, have in zip(expected, found):
        assert have.dtype == want.dtype
        assert (np.isfinite(want).all() and np.ptp(want) > 0) or path.stem.startswith("light_")
        np.testing.assert_allclose(have, want, rtol=1e-4, atol=2e-5 * np.abs(want).max())


def without_softmax(model: onnx.ModelProto, path: Path) -> Path:
    """Write a model that ends before its softmax, whose input says more than a saturated distribution.

    Of equal weights, sums of 10^10 differ in the last bits, as BLAS blocks them on some machines; softmax sees those.
    """
    softmax = model.graph.node[-1]
    if softmax.op_type == "Softmax":
        model.graph.node.remove(softmax)
        model.graph.output[0].name = softmax.input[0]
        model.graph.output[0].type.tensor_type.ClearField("shape")
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("name", SHARED)
def test_a_trained_network_computes_what_onnxruntime_computes(name, model_folder, interpret):
    compare(model_folder / f"{name}.onnx", interpret)


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
def test_a_light_model_computes_what_onnxruntime_computes(name, interpret, tmp_path):
    model = onnx.load(LIGHT / f"light_{name}.onnx")
    compare(without_softmax(model, tmp_path / "light_cut.onnx"), interpret)


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_a_large_light_model_computes_what_onnxruntime_computes(name, interpret):
    compare(LIGHT / f"light_{name}.onnx", interpret)


@pytest.mark.parametrize("name", QUICK)
def test_a_light_model_with_random_weights_too(name, interpret, tmp_path):
    """The light models' weights are constants, which hides swapped axes; here they are drawn at random."""
    model = onnx.load(LIGHT / f"light_{name}.onnx")
    rng = np.random.default_rng(3)
    shapes = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    fills = [n for n in model.graph.node if n.op_type == "ConstantOfShape"]
    listed = {i.name for i in model.graph.input}
    for node in fills:
        shape = shapes[node.input[0]]
        fan_in = max(int(np.prod(shape[1:])), 1)
        array = (np.abs if len(shape) == 1 else np.asarray)(rng.normal(0, fan_in**-0.5, shape)).astype(
            np.float32
        )
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, node.output[0]))
        model.graph.node.remove(node)
        if node.output[0] not in listed:
            model.graph.input.append(onnx.helper.make_tensor_value_info(node.output[0], 1, shape.tolist()))
    assert fills
    compare(without_softmax(model, tmp_path / "random.onnx"), interpret)


@pytest.mark.parametrize("name", SHARED)
def test_every_op_names_its_layer_and_every_tensor_is_found(name, model_folder):
    path = model_folder / f"{name}.onnx"
    proto, main = onnx.load(path), main_of(import_onnx(path))
    layers = {n.name or n.output[0] for n in proto.graph.node}
    tensors = {}
    for op in main.body.block.ops:
        if isinstance(op, ReturnOp):
            continue
        assert isinstance(op, GraphOp), op.name
        assert isinstance(op.location, NameLoc) and op.location.desc.data in layers, op
        for result in op.results:
            for source in sources_of(result):
                assert source.tensor not in tensors
                assert source.axes == tuple(range(len(result.type.get_shape())))
                tensors[source.tensor] = result.type.get_shape()
    inferred = onnx.shape_inference.infer_shapes(proto)
    checked = 0
    for value in [*inferred.graph.value_info, *inferred.graph.output]:
        dims = value.type.tensor_type.shape.dim
        if value.name in tensors and all(d.HasField("dim_value") for d in dims):
            assert tensors[value.name] == tuple(d.dim_value for d in dims), value.name
            checked += 1
    assert checked > len(layers) // 2


def test_the_text_reads_back(model_folder):
    module = import_onnx(model_folder / "mnist_cnn.onnx")
    text = io.StringIO()
    Printer(text, print_debuginfo=True).print_op(module)
    context = Context()
    for dialect in (Builtin, Func, GRAPH, NACRE):
        context.load_dialect(dialect)
    again = Parser(context, text.getvalue()).parse_module()
    again.verify()
    second = io.StringIO()
    Printer(second, print_debuginfo=True).print_op(again)
    assert second.getvalue() == text.getvalue()
    assert 'loc("Convolution28")' in text.getvalue()
    assert '#nacre.source<"Convolution28_Output_0" [0, 1, 2, 3]>' in text.getvalue()
