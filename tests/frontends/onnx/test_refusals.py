"""What a user can get wrong with an ONNX file: one ImportFailed that names it and says what would work."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nacre.dialects.types import shape_of
from nacre.errors import ImportFailed
from nacre.frontends.onnx import import_onnx
from onnx import TensorProto, helper
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp


def model_of(
    nodes, inputs, outputs=("y",), weights=None, opset=17, functions=(), domains=()
) -> onnx.ModelProto:
    """A float model; inputs by name and shape."""
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()]
    results = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs]
    arrays = [onnx.numpy_helper.from_array(np.asarray(a), n) for n, a in (weights or {}).items()]
    graph = helper.make_graph(nodes, "g", values, results, arrays)
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    return helper.make_model(graph, opset_imports=imports, functions=list(functions), ir_version=10)


def conv_model(weight) -> onnx.ModelProto:
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="conv1")
    return model_of([node], {"x": [1, 3, 8, 8]}, weights={"w": weight})


def message_of(model, shapes=None) -> str:
    with pytest.raises(ImportFailed) as error:
        import_onnx(model, shapes)
    return str(error.value)


# --- files -----------------------------------------------------------------------------------------------
def test_a_missing_file(tmp_path):
    assert message_of(tmp_path / "no.onnx").endswith("no.onnx' does not exist")


def test_a_folder_and_what_it_holds(tmp_path):
    (tmp_path / "net.onnx").write_bytes(b"")
    assert "is a folder, not an ONNX file; it holds net.onnx" in message_of(tmp_path)


@pytest.mark.parametrize("content", [b"", b"this is no model", b"\x89PNG\r\n\x1a\n" * 40, b"\x00" * 64])
def test_a_file_that_is_no_model(tmp_path, content):
    path = tmp_path / "bad.onnx"
    path.write_bytes(content)
    text = message_of(path)
    assert "bad.onnx'" in text and "\n" not in text


def test_every_truncation_is_refused(tmp_path):
    whole = conv_model(np.ones((4, 3, 3, 3), np.float32)).SerializeToString()
    path = tmp_path / "cut.onnx"
    for size in range(0, len(whole) - 1, 7):
        path.write_bytes(whole[:size])
        assert "cut.onnx'" in message_of(path)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), value=st.integers(0, 255))
def test_a_damaged_byte_gives_a_module_or_a_sentence(tmp_path, place, value):
    whole = bytearray(conv_model(np.ones((4, 3, 3, 3), np.float32)).SerializeToString())
    whole[int(place * len(whole))] = value
    path = tmp_path / "damaged.onnx"
    path.write_bytes(whole)
    try:
        assert isinstance(import_onnx(path), ModuleOp)
    except ImportFailed as error:
        assert str(error)


def test_a_model_without_outputs():
    assert "has no outputs" in message_of(
        model_of([helper.make_node("Relu", ["x"], ["y"])], {"x": [1]}, outputs=())
    )


def test_an_output_that_nothing_computes():
    assert "output 'z' is computed by no node" in message_of(
        model_of([helper.make_node("Relu", ["x"], ["y"])], {"x": [1]}, outputs=("z",))
    )


def test_a_newer_opset_than_onnx_knows():
    newest = onnx.defs.onnx_opset_version()
    model = model_of([helper.make_node("Relu", ["x"], ["y"])], {"x": [1]}, opset=newest + 1)
    assert f"uses opset {newest + 1}" in message_of(model) and f"opset {newest}" in message_of(model)


# --- external data ---------------------------------------------------------------------------------------
@pytest.fixture
def external(tmp_path):
    path = tmp_path / "net.onnx"
    model = conv_model(np.arange(4 * 27, dtype=np.float32).reshape(4, 3, 3, 3))
    onnx.save(model, path, save_as_external_data=True, location="net.bin", size_threshold=0)
    return path


def test_external_data_is_read(external, interpret):
    x = np.random.default_rng(0).random((1, 3, 8, 8), dtype=np.float32)
    inside = conv_model(np.arange(4 * 27, dtype=np.float32).reshape(4, 3, 3, 3))
    np.testing.assert_array_equal(
        interpret(import_onnx(external), [x])[0], interpret(import_onnx(inside), [x])[0]
    )


def test_external_data_that_is_missing(external):
    (external.parent / "net.bin").unlink()
    assert "keeps 'w' in 'net.bin', which is not beside it" in message_of(external)


def test_external_data_that_is_too_short(external):
    data = external.parent / "net.bin"
    data.write_bytes(data.read_bytes()[:100])
    assert "is too short: 'w' ends at byte 432 of 100" in message_of(external)


def test_external_data_of_a_model_in_memory(external):
    model = onnx.load(external, load_external_data=False)
    assert "'w' lies in an external file" in message_of(model)


# --- shapes ----------------------------------------------------------------------------------------------
def relu_model(shape, **more):
    return model_of([helper.make_node("Relu", ["x"], ["y"])], {"x": shape}, **more)


def test_an_open_batch_names_the_way_out():
    text = message_of(relu_model(["N", 3, 224, 224]))
    assert "input 'x' has the shape [N, 3, 224, 224]; only axis 0 (the batch) is open" in text
    assert "--shape x=1,3,224,224" in text


def test_other_open_sizes():
    text = message_of(relu_model([1, 3, "height", None]))
    assert "[1, 3, height, ?]" in text and "only axis 0" not in text


def test_an_unknown_rank():
    assert "unknown rank" in message_of(relu_model(None))


def test_shapes_fix_open_sizes():
    module = import_onnx(relu_model(["N", 3, "h", "w"]), {"x": (2, 3, 5, 7)})
    main = module.body.block.first_op
    assert isinstance(main, FuncOp)
    assert shape_of(main.body.block.args[0]) == (2, 3, 5, 7)


@pytest.mark.parametrize(
    ("shapes", "part"),
    [
        ({"z": (1,)}, "a shape is given for 'z', but the model's inputs are 'x'"),
        ({"x": (1, 4, 5, 5)}, "does not fit the model's [N, 3, h, h]"),
        ({"x": (1, 3, 5)}, "does not fit the model's [N, 3, h, h]"),
        ({"x": (0, 3, 5, 5)}, "has a size below 1"),
        ({"x": (1, 3, 5, 6)}, "the size 'h' is 5 for input 'x' and 6 for input 'x'"),
    ],
)
def test_shapes_that_do_not_fit(shapes, part):
    assert part in message_of(relu_model(["N", 3, "h", "h"]), shapes)


# --- nodes -----------------------------------------------------------------------------------------------
def test_all_reasons_come_at_once():
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"], name="quant"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"], name="dequant"),
        helper.make_node("Frobnicate", ["d"], ["f"], name="frob", domain="org.example"),
        helper.make_node("NonZero", ["x"], ["i"], name="where"),
        helper.make_node("Relu", ["f"], ["y"], name="innocent"),
    ]
    model = model_of(nodes, {"x": [1, 4]}, domains=["org.example"])
    text = message_of(model)
    assert text.startswith("3 nodes of the model cannot be imported:")
    assert "node 'quant' (DynamicQuantizeLinear): its scale depends on the data" in text
    assert (
        "node 'frob' (Frobnicate): no importer is registered for the operator Frobnicate of the domain"
        in text
    )
    assert "node 'where' (NonZero): the size of its result depends on the data" in text
    assert "innocent" not in text


def test_nan_in_weights_names_both():
    weight = np.ones((4, 3, 3, 3), np.float32)
    weight[1, 2, 0, 0] = np.nan
    assert "node 'conv1' (Conv): its constant 'w' holds NaN (1 of 108 values)" in message_of(
        conv_model(weight)
    )


def test_minus_infinity_is_a_legitimate_mask(interpret):
    mask = np.array([0, -np.inf, 0], np.float32)
    model = model_of([helper.make_node("Add", ["x", "m"], ["y"])], {"x": [2, 3]}, weights={"m": mask})
    x = np.ones((2, 3), np.float32)
    np.testing.assert_array_equal(interpret(import_onnx(model), [x])[0], x + mask)


def test_a_shape_that_depends_on_data():
    nodes = [
        helper.make_node("Cast", ["x"], ["i"], to=TensorProto.INT64),
        helper.make_node("Reshape", ["x", "i"], ["y"], name="bend"),
    ]
    text = message_of(model_of(nodes, {"x": [2]}))
    assert "node 'bend' (Reshape): the shape ('i') is computed from the model's inputs, not constant" in text


def test_a_tensor_nobody_defines():
    assert "reads the tensor 'ghost'" in message_of(
        model_of([helper.make_node("Relu", ["ghost"], ["y"])], {"x": [1]})
    )


def test_an_attribute_onnx_does_not_have():
    model = model_of([helper.make_node("Relu", ["x"], ["y"], name="r", slope=2.0)], {"x": [1]})
    assert "node 'r' (Relu): it is no valid node" in message_of(model) and "slope" in message_of(model)


@pytest.mark.parametrize(
    ("node", "part"),
    [
        (
            helper.make_node("MaxPool", ["x"], ["y", "i"], kernel_shape=[2, 2], storage_order=1),
            "output 'Indices' is in column-major order",
        ),
        (helper.make_node("Dropout", ["x", "", "t"], ["y", "i"]), "training_mode is set"),
        (
            helper.make_node(
                "Resize", ["x", "", "s"], ["y"], coordinate_transformation_mode="tf_crop_and_resize"
            ),
            "'tf_crop_and_resize' is not supported",
        ),
    ],
)
def test_what_an_operator_cannot_do(node, part):
    weights = {"t": np.array(True), "s": np.array([1, 1, 2, 2], np.float32)}
    outputs = ("y", "i") if len(node.output) > 1 else ("y",)
    assert part in message_of(model_of([node], {"x": [1, 1, 4, 4]}, outputs=outputs, weights=weights))


def test_weights_that_do_not_fit_name_the_node():
    text = message_of(conv_model(np.ones((4, 2, 3, 3), np.float32)))
    assert "node 'conv1' (Conv): graph.conv: weight" in text and "does not fit 3 channels" in text
