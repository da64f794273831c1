"""Operators against ONNX Runtime, in old opsets and at random shapes; constants, functions, registration."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from nacre.dialects import graph
from nacre.dialects.nacre import sources_of
from nacre.errors import ImportFailed
from nacre.frontends.onnx import Node, import_onnx, importer
from nacre.frontends.onnx.registry import IMPORTERS, importer_of
from onnx import TensorProto, helper

ort = pytest.importorskip("onnxruntime")

RNG = np.random.default_rng(11)


def floats(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def model_of(nodes, feeds, outputs=("y",), weights=None, opset=17, **more) -> onnx.ModelProto:
    """A model around nodes; the inputs' types are those of the arrays fed."""
    values = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
        for n, a in feeds.items()
    ]
    results = [helper.make_tensor_value_info(n, TensorProto.UNDEFINED, None) for n in outputs]
    for result in results:
        result.ClearField("type")
    arrays = [onnx.numpy_helper.from_array(np.asarray(a), n) for n, a in (weights or {}).items()]
    imports = [helper.make_opsetid("", opset), *more.pop("imports", [])]
    return helper.make_model(
        helper.make_graph(nodes, "g", values, results, arrays), opset_imports=imports, ir_version=8, **more
    )


def main_ops(module):
    return list(module.body.block.first_op.body.block.ops)


def check(interpret, nodes, feeds, outputs=("y",), weights=None, opset=17, atol=1e-5, **more):
    """Nacre against ONNX Runtime, rtol 1e-4. An invalid model, by both, is no example."""
    model = model_of(nodes if isinstance(nodes, list) else [nodes], feeds, outputs, weights, opset, **more)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    expected = ort.InferenceSession(model.SerializeToString(), options).run(None, feeds)
    found = interpret(import_onnx(model), list(feeds.values()))
    for want, have in zip(expected, found, strict=True):
        assert (have.shape, have.dtype) == (want.shape, want.dtype)
        np.testing.assert_allclose(have, want, rtol=1e-4, atol=atol)


# --- old opsets ------------------------------------------------------------------------------------------
def node(op_type, inputs=("x",), outputs=("y",), **attributes):
    return helper.make_node(op_type, list(inputs), list(outputs), **attributes)


OLD = {
    "softmax flattens from axis 1": (node("Softmax", axis=1), 11),
    "softmax of the default axis": (node("Softmax"), 7),
    "log softmax flattens from axis 2": (node("LogSoftmax", axis=2), 11),
    "hardmax flattens from axis 1": (node("Hardmax", axis=1), 11),
    "split attribute": (node("Split", outputs=("y", "z"), axis=1, split=[1, 2]), 11),
    "split in equal parts": (node("Split", outputs=("y", "z"), axis=2), 7),
    "slice attributes": (node("Slice", axes=[1, 3], starts=[1, -3], ends=[3, 1000]), 9),
    "pad attributes": (node("Pad", pads=[0, 0, 1, 2, 0, 0, 3, 0], value=1.5), 10),
    "pad reflects": (node("Pad", pads=[0, 0, 1, 2, 0, 0, 3, 0], mode="reflect"), 7),
    "pad cuts off": (node("Pad", pads=[0, 0, -1, 2, 0, -1, 1, -2], value=1.5), 10),
    "clip attributes": (node("Clip", min=-0.5, max=0.25), 7),
    "clip with one bound": (node("Clip", min=-0.5), 10),
    "upsample attribute": (node("Upsample", scales=[1.0, 1.0, 2.0, 3.0]), 7),
    "squeeze and unsqueeze attributes": (
        [node("Unsqueeze", outputs=("u",), axes=[0, 3]), node("Squeeze", ("u",), axes=[0])], 11,
    ),
    "dropout": (node("Dropout", ratio=0.3), 7),
    "reduce attribute": (node("ReduceSum", axes=[1, -1], keepdims=0), 11),
    "cast": (node("Cast", to=TensorProto.INT32), 7),
    "arg max": (node("ArgMax", axis=2, keepdims=0), 7),
    "lrn": (node("LRN", size=3, alpha=0.3, beta=0.6, bias=1.5), 7),
    "instance norm": (node("InstanceNormalization", ("x", "c", "d")), 7),
    "batch norm": (node("BatchNormalization", ("x", "c", "d", "e", "v"), epsilon=1e-3), 7),
    "batch norm 9": (node("BatchNormalization", ("x", "c", "d", "e", "v")), 9),
    "p relu": (node("PRelu", ("x", "s")), 7),
    "max of three": (node("Max", ("x", "s", "x2")), 8),
}  # fmt: skip


@pytest.mark.parametrize("name", OLD)
def test_an_old_opset_means_what_onnxruntime_says(name, interpret):
    nodes, opset = OLD[name]
    last = nodes[-1] if isinstance(nodes, list) else nodes
    weights = {"c": floats(3), "d": floats(3), "e": floats(3), "v": np.abs(floats(3)), "s": floats(3, 1, 1)}
    used = {n for one in (nodes if isinstance(nodes, list) else [nodes]) for n in one.input}
    feeds = {n: floats(2, 3, 4, 5) for n in ("x", "x2") if n in used}
    check(interpret, nodes, feeds, tuple(last.output), {n: a for n, a in weights.items() if n in used}, opset)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("op_type, opset", [("Upsample", 9), ("Resize", 10)])
def test_old_resampling(interpret, op_type, opset, mode):
    scales = {"s": np.array([1, 1, 2.0, 1.5], np.float32)}
    check(
        interpret,
        node(op_type, ("x", "s"), mode=mode),
        {"x": floats(1, 2, 4, 6)},
        weights=scales,
        opset=opset,
    )


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int32])
@pytest.mark.parametrize("coordinates", ["half_pixel", "asymmetric"])
def test_interpolation_between_integers_cuts_off(interpret, dtype, coordinates):
    x = np.random.default_rng(0).integers(-128 if dtype != np.uint8 else 0, 128, (1, 3, 5, 6)).astype(dtype)
    resize = node("Resize", ("x", "", "s"), mode="linear", coordinate_transformation_mode=coordinates)
    check(interpret, resize, {"x": x}, weights={"s": np.array([1, 1, 2, 2.5], np.float32)}, opset=18, atol=0)


def test_cubic_interpolation_between_integers_is_refused():
    resize = node("Resize", ("x", "", "s"), mode="cubic")
    model = model_of([resize], {"x": np.zeros((1, 3, 5, 6), np.uint8)}, weights={"s": np.float32([1, 1, 2, 2])})
    with pytest.raises(ImportFailed, match="mode 'cubic' on ui8 may leave what that holds; cast its input"):
        import_onnx(model)


def test_resampling_of_a_channels_last_model_needs_no_transpose(interpret):
    resize = node("Resize", ("x", "", "s"), mode="linear", coordinate_transformation_mode="asymmetric")
    weights = {"s": np.array([1, 2, 2, 1], np.float32)}
    model = model_of([resize], {"x": floats(1, 3, 4, 2)}, weights=weights)
    assert not any(isinstance(op, graph.TransposeOp) for op in main_ops(import_onnx(model)))
    check(interpret, resize, {"x": floats(1, 3, 4, 2)}, weights=weights)


# --- spatial operators at random shapes --------------------------------------------------------------------
@st.composite
def windows(draw, rank: int):
    """Attributes of a sliding window, either pads or auto_pad."""
    some = st.lists(st.integers(1, 3), min_size=rank, max_size=rank)
    attributes = {"strides": draw(some), "kernel_shape": draw(some)}
    auto_pad = draw(st.sampled_from(["NOTSET", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"]))
    if auto_pad == "NOTSET":
        half = [k // 2 for k in attributes["kernel_shape"]] * 2
        attributes["pads"] = [draw(st.integers(0, h)) for h in half]
        attributes["dilations"] = draw(st.lists(st.integers(1, 2), min_size=rank, max_size=rank))
    else:
        attributes["auto_pad"] = auto_pad
    return attributes


@settings(max_examples=50, deadline=None)
@given(
    data=st.data(),
    rank=st.integers(1, 3),
    groups=st.integers(1, 3),
    bias=st.booleans(),
    constant=st.booleans(),
)
def test_conv(interpret, data, rank, groups, bias, constant):
    attributes = data.draw(windows(rank))
    sizes = data.draw(st.lists(st.integers(5, 9), min_size=rank, max_size=rank))
    arrays = {"w": floats(groups * 2, 3, *attributes["kernel_shape"]), "b": floats(groups * 2)}
    arrays = arrays if bias else {"w": arrays["w"]}
    feeds = {"x": floats(2, groups * 3, *sizes), **({} if constant else arrays)}
    inputs = ("x", *arrays)
    check(
        interpret,
        node("Conv", inputs, group=groups, **attributes),
        feeds,
        weights=arrays if constant else None,
    )


@settings(max_examples=50, deadline=None)
@given(data=st.data(), rank=st.integers(1, 2), groups=st.integers(1, 2), constant=st.booleans())
def test_conv_transpose(interpret, data, rank, groups, constant):
    some = st.lists(st.integers(1, 3), min_size=rank, max_size=rank)
    kernel, strides = data.draw(some), data.draw(some)
    kind = data.draw(st.sampled_from(["pads", "output_shape", "SAME_UPPER", "SAME_LOWER"]))
    sizes = data.draw(st.lists(st.integers(3, 6), min_size=rank, max_size=rank))
    attributes = {"strides": strides, "group": groups}
    if kind == "pads":
        attributes["pads"] = [data.draw(st.integers(0, k // 2)) for k in kernel * 2]
        attributes["output_padding"] = [data.draw(st.integers(0, s - 1)) for s in strides]
    elif kind == "output_shape":
        attributes["output_shape"] = [
            s * (d - 1) + data.draw(st.integers(1, k)) for s, d, k in zip(strides, sizes, kernel)
        ]
    else:
        assume(all(k >= s for k, s in zip(kernel, strides)))
        attributes["auto_pad"] = kind
    weight = {"w": floats(groups * 2, 3, *kernel)}
    feeds = {"x": floats(1, groups * 2, *sizes), **({} if constant else weight)}
    check(
        interpret,
        node("ConvTranspose", ("x", "w"), **attributes),
        feeds,
        weights=weight if constant else None,
    )


@settings(max_examples=80, deadline=None)
@given(
    data=st.data(),
    rank=st.integers(1, 3),
    op_type=st.sampled_from(["MaxPool", "AveragePool"]),
    ceil=st.booleans(),
)
def test_pooling(interpret, data, rank, op_type, ceil):
    attributes = data.draw(windows(rank))
    if "auto_pad" not in attributes:
        attributes["ceil_mode"] = int(ceil)
    elif attributes["auto_pad"] != "VALID":  # ONNX Runtime refuses windows that leave gaps
        assume(all(k >= s for k, s in zip(attributes["kernel_shape"], attributes["strides"])))
    if op_type == "AveragePool":
        attributes.pop("dilations", None)
        attributes["count_include_pad"] = data.draw(st.integers(0, 1))
    sizes = data.draw(st.lists(st.integers(5, 9), min_size=rank, max_size=rank))
    check(interpret, node(op_type, **attributes), {"x": floats(1, 3, *sizes)})


@settings(max_examples=60, deadline=None)
@given(
    alpha=st.sampled_from([1.0, 0.5]), beta=st.sampled_from([1.0, 0.0, -2.0]),
    trans_a=st.booleans(), trans_b=st.booleans(),
    addend=st.sampled_from([None, (), (1,), (4,), (1, 4), (3, 1), (3, 4)]),
    constant_b=st.booleans(), constant_c=st.booleans(),
)  # fmt: skip
def test_gemm(interpret, alpha, beta, trans_a, trans_b, addend, constant_b, constant_c):
    arrays = {"a": floats(*((5, 3) if trans_a else (3, 5))), "b": floats(*((4, 5) if trans_b else (5, 4)))}
    if addend is not None:
        arrays["c"] = np.asarray(floats(*addend), np.float32)
    constants = {
        n for n, is_constant in (("b", constant_b), ("c", constant_c)) if is_constant and n in arrays
    }
    gemm = node("Gemm", tuple(arrays), alpha=alpha, beta=beta, transA=int(trans_a), transB=int(trans_b))
    feeds = {n: a for n, a in arrays.items() if n not in constants}
    check(interpret, gemm, feeds, weights={n: arrays[n] for n in constants})


@pytest.mark.parametrize(
    "equation, shapes",
    [
        ("bhqd,bhkd->bhqk", [(2, 3, 4, 5), (2, 3, 6, 5)]),
        ("ij,jk,kl->il", [(2, 3), (3, 4), (4, 5)]),
        ("bij,k->jk", [(2, 3, 4), (5,)]),
        ("ij,ij", [(2, 3), (2, 3)]),
        ("abc->ca", [(2, 3, 4)]),
    ],
)
def test_einsum(interpret, equation, shapes):
    feeds = {f"x{i}": floats(*shape) for i, shape in enumerate(shapes)}
    check(interpret, node("Einsum", tuple(feeds), equation=equation), feeds)


# --- what goes into the module -----------------------------------------------------------------------------
def test_shape_arithmetic_leaves_no_op(interpret):
    nodes = [
        node("Shape", ("x",), ("s",)),
        node("Gather", ("s", "zero"), ("n",)),
        node("Unsqueeze", ("n", "axis"), ("n1",)),
        node("Concat", ("n1", "rest"), ("shape",), axis=0),
        node("Reshape", ("x", "shape"), ("y",)),
    ]
    weights = {"zero": np.int64(0), "axis": np.array([0]), "rest": np.array([-1])}
    model = model_of(nodes, {"x": floats(2, 3, 4)}, weights=weights)
    kinds = [op.name for op in main_ops(import_onnx(model))]
    assert kinds == ["graph.reshape", "func.return"]
    check(interpret, nodes, {"x": floats(2, 3, 4)}, weights=weights)


def test_a_branch_with_a_constant_condition_is_taken(interpret):
    def branch(op_type):
        value = helper.make_tensor_value_info("r", TensorProto.FLOAT, None)
        return helper.make_graph([node(op_type, ("x",), ("r",))], op_type, [], [value])

    for condition, expected in ((True, "graph.exp"), (False, "graph.neg")):
        nodes = [node("If", ("c",), then_branch=branch("Exp"), else_branch=branch("Neg"))]
        model = model_of(nodes, {"x": floats(3)}, weights={"c": np.array(condition)})
        assert [op.name for op in main_ops(import_onnx(model))] == [expected, "func.return"]
        check(interpret, nodes, {"x": floats(3)}, weights={"c": np.array(condition)})


def test_local_functions_are_inlined(interpret):
    function = helper.make_function(
        "local", "Twice", ["a"], ["b"], [node("Add", ("a", "a"), ("b",))], [helper.make_opsetid("", 17)]
    )
    call = helper.make_node("Twice", ["x"], ["y"], domain="local")
    imports = [helper.make_opsetid("local", 1)]
    check(interpret, [call], {"x": floats(3)}, functions=[function], imports=imports)


def test_a_composite_operator_keeps_the_node_s_name(interpret):
    compose = helper.make_node("MeanVarianceNormalization", ["x"], ["y"], name="mvn", axes=[0, 2, 3])
    model = model_of([compose], {"x": floats(2, 3, 4, 5)})
    ops = main_ops(import_onnx(model))[:-1]
    assert len(ops) > 3 and {op.location.desc.data for op in ops} == {"mvn"}
    tracked = [s.tensor for op in ops for r in op.results for s in sources_of(r)]
    assert tracked == ["y"]
    check(interpret, [compose], {"x": floats(2, 3, 4, 5)})


def test_the_default_domain_has_two_names(interpret):
    check(interpret, helper.make_node("Softmax", ["x"], ["y"], domain="ai.onnx", axis=0), {"x": floats(3, 4)})


def test_layer_names_are_unique():
    nodes = [helper.make_node("Relu", [a], [b], name="act") for a, b in (("x", "p"), ("p", "q"), ("q", "y"))]
    ops = main_ops(import_onnx(model_of(nodes, {"x": floats(3)})))[:-1]
    assert [op.location.desc.data for op in ops] == ["act", "q", "y"]


def test_an_identity_gives_its_value_a_second_source():
    nodes = [node("Relu", ("x",), ("r",)), node("Identity", ("r",), ("y",))]
    relu, _ = main_ops(import_onnx(model_of(nodes, {"x": floats(3)})))
    assert [s.tensor for s in sources_of(relu.results[0])] == ["r", "y"]


def test_a_shared_weight_is_one_constant():
    nodes = [node("Add", ("x", "w"), ("a",)), node("Mul", ("a", "w"), ("y",))]
    ops = main_ops(import_onnx(model_of(nodes, {"x": floats(3)}, weights={"w": floats(3)})))
    assert sum(isinstance(op, graph.ConstantOp) for op in ops) == 1


# --- registration ------------------------------------------------------------------------------------------
@pytest.fixture
def registered():
    before = {key: dict(versions) for key, versions in IMPORTERS.items()}
    yield
    IMPORTERS.clear()
    IMPORTERS.update(before)


def test_an_outside_package_registers_an_operator(registered, interpret):
    @importer("Scale", domain="org.example")
    def scale(node: Node):
        value = node.operand(0)
        return node.emit(graph.MulOp, value, node.scalar(node.attribute("by", 2.0), value))

    @importer("Scale", since=2, domain="org.example")
    def scale_input(node: Node):
        return node.emit(graph.MulOp, node.operand(0), node.operand(1))

    x = floats(3)
    call = helper.make_node("Scale", ["x"], ["y"], domain="org.example", by=3.0)
    model = model_of([call], {"x": x}, imports=[helper.make_opsetid("org.example", 1)])
    np.testing.assert_array_equal(interpret(import_onnx(model), [x])[0], x * 3)
    with pytest.raises(ValueError, match=r"org\.example::Scale has an importer since opset 2 already"):
        importer("Scale", since=2, domain="org.example")(scale_input)
    assert importer_of("org.example", "Scale", 1) is scale
    assert importer_of("org.example", "Scale", 5) is scale_input
    with pytest.raises(ImportFailed, match="input 1 is missing"):
        import_onnx(model_of([call], {"x": x}, imports=[helper.make_opsetid("org.example", 2)]))
