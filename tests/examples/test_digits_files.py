"""The network that the repository ships: a valid, small ONNX file of the promised layers, well trained.

The accuracy is ONNX Runtime's; Nacre itself takes no part here.
"""

from __future__ import annotations

import collections
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

FOLDER = Path(__file__).parents[2] / "examples" / "digits"
MODEL = FOLDER / "digits.onnx"
DATA = FOLDER / "digits.npz"


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    return onnx.load(MODEL)


@pytest.fixture(scope="module")
def data() -> dict[str, np.ndarray]:
    with np.load(DATA) as arrays:
        return dict(arrays)


def attribute(node: onnx.NodeProto, name: str) -> Any:
    return next(onnx.helper.get_attribute_value(a) for a in node.attribute if a.name == name)


def shape(value: onnx.ValueInfoProto) -> list[int]:
    return [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]


def test_model_is_valid_and_small(model: onnx.ModelProto) -> None:
    onnx.checker.check_model(model, full_check=True)
    assert MODEL.stat().st_size < 1_000_000
    (image,), (probabilities,) = model.graph.input, model.graph.output
    assert (image.name, shape(image)) == ("image", [1, 1, 48, 48])
    assert (probabilities.name, shape(probabilities)) == ("probabilities", [1, 10])
    assert image.type.tensor_type.elem_type == onnx.TensorProto.FLOAT


def test_model_holds_every_kind_of_layer(model: onnx.ModelProto) -> None:
    nodes = model.graph.node
    assert collections.Counter(node.op_type for node in nodes) == {
        "Conv": 12,
        "BatchNormalization": 12,
        "Relu": 9,
        "Clip": 3,
        "MaxPool": 2,
        "AveragePool": 1,
        "GlobalAveragePool": 1,
        "Add": 1,
        "Concat": 1,
        "Flatten": 1,
        "Gemm": 1,
        "Softmax": 1,
    }
    groups = sorted(attribute(node, "group") for node in nodes if node.op_type == "Conv")
    assert groups == [1] * 10 + [16, 128]
    by_name = {node.name: node for node in nodes}
    assert len(by_name) == len(nodes), "node names must be unique"
    (add,) = (node for node in nodes if node.op_type == "Add")
    assert [node.op_type for node in nodes if add.output[0] in node.input] == ["Relu"]


def test_every_convolution_is_followed_by_a_trained_batch_norm(model: onnx.ModelProto) -> None:
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    producers = {node.output[0]: node for node in model.graph.node}
    for norm in (node for node in model.graph.node if node.op_type == "BatchNormalization"):
        assert producers[norm.input[0]].op_type == "Conv"
        scale, bias, mean, variance = (constants[name] for name in norm.input[1:])
        for untrained, values in ((1, scale), (0, bias), (0, mean), (1, variance)):
            assert np.isfinite(values).all() and not np.any(values == untrained), norm.name
        assert (variance >= 0).all(), norm.name


def test_data_are_uint8_images_with_labels(data: dict[str, np.ndarray]) -> None:
    assert DATA.stat().st_size < 2_000_000
    assert {name: array.shape for name, array in data.items()} == {
        "images": (450, 48, 48),
        "labels": (450,),
        "calibration": (64, 48, 48),
    }
    assert all(array.dtype == np.uint8 for array in data.values())
    counts = np.bincount(data["labels"])
    assert len(counts) == 10 and counts.min() >= 40, "every digit in about equal shares"
    assert data["images"].min() == 0 and data["images"].max() == 255


def test_calibration_images_are_not_held_out(data: dict[str, np.ndarray]) -> None:
    held_out = {image.tobytes() for image in data["images"]}
    assert held_out.isdisjoint(image.tobytes() for image in data["calibration"])


def test_float_accuracy_is_the_readmes(data: dict[str, np.ndarray]) -> None:
    pytest.importorskip("onnxruntime")
    from nacre.examples.digits import evaluate

    correct, count = evaluate.top1(MODEL, DATA)
    assert count == len(data["labels"])
    assert correct / count >= 0.98
    assert f"{correct / count:.2%} ({correct} of {count} images)" in (FOLDER / "README.md").read_text("utf-8")


def test_accuracy_falls_to_chance_with_wrong_labels(tmp_path: Path, data: dict[str, np.ndarray]) -> None:
    """The measurement looks at the labels it is given."""
    pytest.importorskip("onnxruntime")
    from nacre.examples.digits import evaluate

    wrong = tmp_path / "wrong.npz"
    np.savez(wrong, images=data["images"], labels=(data["labels"] + 1) % 10)
    correct, count = evaluate.top1(MODEL, wrong)
    assert correct / count <= 0.02
