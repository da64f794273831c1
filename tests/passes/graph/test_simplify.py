"""All graph passes on imported networks: same results, every convolution named, every source tensor right."""

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from nacre.dialects import graph
from nacre.dialects.locations import location_parts
from nacre.dialects.nacre import sources_of
from nacre.frontends.onnx import import_onnx
from nacre.passes.graph.simplify import SimplifyPass
from nacre.runtime.interpreter import interpret
from xdsl.dialects.builtin import NameLoc

MODELS = Path(__file__).parents[4] / "shared" / "models"
LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"

NETWORK = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[1, 3, 16, 16] x) => (float[1, 5] y)
<float[8, 3, 3, 3] w1, float[8] b1, float[8] s1, float[8] o1, float[8] m1, float[8] v1,
 float[8, 1, 3, 3] w2, float[8, 8, 1, 1] w3, float[8, 2, 1, 1] w4,
 float[8] p1, float[128, 5] d1, float[5] d2, float[8, 1, 1] slope>
{
    c1 = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)
    n1 = BatchNormalization (c1, s1, o1, m1, v1)
    r1 = Relu (n1)
    c2 = Conv <pads = [1, 1, 1, 1], group = 8, strides = [2, 2]> (r1, w2)
    r2 = PRelu (c2, slope)
    c3 = Conv (r2, w3)
    a1 = Add (c3, r2)
    shape5 = Constant <value_ints = [1, 2, 4, 8, 8]> ()
    shape4 = Constant <value_ints = [1, 8, 8, 8]> ()
    h1 = Reshape (a1, shape5)
    h2 = Transpose <perm = [0, 2, 1, 3, 4]> (h1)
    h3 = Reshape (h2, shape4)
    c4 = Conv <group = 4> (h3, w4)
    g1 = ReduceMean <axes = [2, 3], keepdims = 1> (c4)
    g2 = Sigmoid (g1)
    g3 = Mul (c4, g2)
    q1 = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (g3)
    f1 = Flatten (q1)
    e1 = MatMul (f1, d1)
    e2 = Add (e1, d2)
    y = Softmax (e2)
}
"""


UPSAMPLING = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[2, 4, 12, 10] x) => (float[2, 1, 24, 20] y, int64[2, 24, 20] z)
<float[8, 4, 3, 3] w1, float[8] s1, float[8] o1, float[8] m1, float[8] v1, float[8, 3, 2, 2] w2, float[3] b2,
 float[24, 12, 1, 1] w3, float[6, 6, 3, 3] w4, float[1, 17, 1, 1] w5>
{
    three = Constant <value_float = 3.0> ()
    six = Constant <value_float = 6.0> ()
    zero = Constant <value_float = 0.0> ()
    none = Constant <value_floats = [0.0]> ()
    padding = Constant <value_ints = [0, 0, 1, 1, 0, 0, 1, 1]> ()
    twice = Constant <value_floats = [1.0, 1.0, 2.0, 2.0]> ()
    parts = Constant <value_ints = [4, 8]> ()
    p1 = Pad (x, padding)
    c1 = Conv (p1, w1)
    n1 = BatchNormalization (c1, s1, o1, m1, v1)
    h1 = Add (n1, three)
    h2 = Clip (h1, zero, six)
    h3 = Mul (n1, h2)
    a1 = Div (h3, six)
    u1 = ConvTranspose <strides = [2, 2]> (a1, w2, b2)
    k1 = Concat <axis = 1> (x, a1)
    c3 = Conv (k1, w3)
    d1 = DepthToSpace <blocksize = 2, mode = "CRD"> (c3)
    edge = Pad <mode = "reflect"> (d1, padding)
    c4 = Conv (edge, w4)
    l1 = LRN <size = 3> (c4)
    r1 = Resize <mode = "linear"> (a1, none, twice)
    e1 = Concat <axis = 1> (u1, l1, r1)
    q1 = Softmax <axis = 1> (e1)
    t1 = Transpose <perm = [0, 2, 3, 1]> (q1)
    z = ArgMax <axis = 3, keepdims = 0> (t1)
    y = Conv (q1, w5)
}
"""

ONE_DIMENSIONAL = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[2, 3, 40] x) => (float[2, 4] y)
<float[8, 3, 5] w1, float[8] s1, float[8] o1, float[8] m1, float[8] v1, float[8, 1, 3] w2, float[8, 8, 1] w3,
 float[160, 4] d1>
{
    c1 = Conv <pads = [2, 2]> (x, w1)
    n1 = BatchNormalization (c1, s1, o1, m1, v1)
    r1 = Relu (n1)
    q1 = MaxPool <kernel_shape = [2], strides = [2]> (r1)
    c2 = Conv <pads = [1, 1], group = 8> (q1, w2)
    r2 = LeakyRelu (c2)
    c3 = Conv (r2, w3)
    a1 = Add (c3, q1)
    f1 = Flatten (a1)
    y = MatMul (f1, d1)
}
"""


@pytest.fixture(scope="module")
def network():
    return parsed(NETWORK)


def parsed(text):
    """A model from text, its weights random and its nodes named after their outputs."""
    model = onnx.parser.parse_model(text)
    rng = np.random.default_rng(7)
    for value in model.graph.value_info:
        shape = [d.dim_value for d in value.type.tensor_type.shape.dim]
        array = rng.uniform(0.1, 0.9, shape) if value.name == "v1" else rng.standard_normal(shape) * 0.5
        model.graph.initializer.append(onnx.numpy_helper.from_array(array.astype(np.float32), value.name))
    del model.graph.value_info[:]
    for node in model.graph.node:
        node.name = f"node_{node.output[0]}"
    onnx.checker.check_model(model, full_check=True)
    return model


def source_tensors(module, feeds):
    """Outputs, and every source tensor some value holds, in the source's axis order."""
    found = {}

    def watch(value, array):
        for source in sources_of(value):
            assert sorted(source.axes) == list(range(array.ndim)), source
            found[source.tensor] = array.transpose(np.argsort(source.axes))

    return interpret(module, feeds, watch), found


def names_in(location):
    return {str(part) for part in location_parts(location)}


def check(module, feeds):
    """Simplify and compare everything that can be; gives the source tensors before and after."""
    convs = {str(op.location) for op in module.walk() if isinstance(op, graph.ConvOp)}
    outputs, before = source_tensors(module, feeds)
    SimplifyPass().run(module)
    module.verify()
    changed, after = source_tensors(module, feeds)
    for name, array in outputs.items():
        np.testing.assert_allclose(changed[name], array, rtol=1e-4, atol=1e-5 * np.abs(array).max())
    for name, array in after.items():
        assert array.shape == before[name].shape, name
        np.testing.assert_allclose(
            array, before[name], rtol=1e-3, atol=1e-4 * max(1e-3, np.abs(before[name]).max()), err_msg=name
        )
    left = [op for op in module.walk() if isinstance(op, graph.ConvOp)]
    assert set().union(*(names_in(op.location) for op in left)) >= convs
    for op in left:
        assert names_in(op.location) & convs, op
    return before, after


def transposes(module):
    return [op for op in module.walk() if isinstance(op, graph.TransposeOp)]


def test_small_network(network):
    module = import_onnx(network)
    feeds = {"x": np.random.default_rng(1).standard_normal((1, 3, 16, 16)).astype(np.float32)}
    before, after = check(module, feeds)
    # folded away: the conv before its batch norm, the flat tensor in another order, a matmul without its bias
    assert set(before) - set(after) == {"c1", "f1", "e1"}
    assert [op.parameters().permutation for op in transposes(module)] == [(0, 2, 3, 1), (0, 1, 2, 4, 3)]
    kinds = [op.name for op in module.walk() if isinstance(op, (graph.BatchNormOp, graph.AddOp))]
    assert kinds == ["graph.add"]
    names = {part for op in module.walk() for part in names_in(op.location)}
    assert {f'loc("node_{n}")' for n in ("c1", "n1", "r1", "c2", "c3", "a1", "c4", "q1", "e1", "y")} <= names


NETWORKS = {
    # what is left of the layout: the input's transpose, the shuffle; the second output needs none
    "small": (NETWORK, [(0, 2, 3, 1), (0, 1, 2, 4, 3)], {"c1", "f1", "e1"}),
    "upsampling": (UPSAMPLING, [(0, 2, 3, 1)], {"c1", "h1", "h2", "h3", "p1"}),
    "one-dimensional": (ONE_DIMENSIONAL, [(0, 2, 1)], {"c1", "f1"}),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_network_against_onnxruntime(name):
    onnxruntime = pytest.importorskip("onnxruntime")
    text, left, gone = NETWORKS[name]
    model = parsed(text)
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    feeds = {"x": np.random.default_rng(2).standard_normal(shape).astype(np.float32)}
    wanted = onnxruntime.InferenceSession(model.SerializeToString()).run(None, feeds)
    module = import_onnx(model)
    before, after = check(module, feeds)
    assert [op.parameters().permutation for op in transposes(module)] == left
    assert gone <= set(before) - set(after)
    for output, want in zip(interpret(module, feeds).values(), wanted):
        np.testing.assert_allclose(output, want, rtol=1e-3, atol=1e-4 * np.abs(want).max())


def test_a_second_time_changes_nothing(network):
    module = import_onnx(network)
    SimplifyPass().run(module)
    once = str(module)
    SimplifyPass().run(module)
    assert str(module) == once


REAL = {"mnist_cnn": 0, "mlperf_ic_resnet8": 1, "mlperf_vww_mbv1": 1, "fastestdet": 14}


@pytest.mark.parametrize("name", REAL)
def test_real_networks_keep_true_transposes_only(name):
    path = MODELS / f"{name}.onnx"
    if not path.exists():
        pytest.skip(f"{path.name} is not here")
    module = import_onnx(path)
    function = next(op for op in module.walk() if op.name == "func.func")
    (argument,) = function.args
    shape = [d.data for d in argument.type.shape]
    feeds = {
        function.arg_attrs.data[0].data["nacre.name"].data: np.random.default_rng(3).random(shape, np.float32)
    }
    check(module, feeds)
    # fastestdet: the input's, and the 13 of its channel shuffles
    assert len(transposes(module)) == REAL[name]


@pytest.mark.parametrize(("name", "left"), [("shufflenet", 17), ("squeezenet", 1), ("inception_v1", 1)])
def test_light_networks_keep_true_transposes_only(name, left):
    path = LIGHT / f"light_{name}.onnx"
    if not path.exists():
        pytest.skip(f"{path.name} is not here")
    module = import_onnx(path)
    SimplifyPass().run(module)
    module.verify()
    assert len(transposes(module)) == left
    assert not any(isinstance(op, graph.BatchNormOp) for op in module.walk())


def test_every_conv_location_is_a_name(network):
    module = import_onnx(network)
    SimplifyPass().run(module)
    for op in module.walk():
        if isinstance(op, graph.ConvOp):
            assert all(isinstance(part, NameLoc) for part in location_parts(op.location))
