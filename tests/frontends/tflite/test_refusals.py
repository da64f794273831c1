"""What cannot be imported is refused in a sentence that names the tensor or operator; damaged files never crash."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacre.errors import ImportFailed
from nacre.frontends.tflite import import_tflite
from nacre.frontends.tflite.build import Operator, Tensor, build_model
from nacre.runtime.interpreter import interpret
from xdsl.dialects.builtin import ModuleOp

CONV = {"StrideH": 1, "StrideW": 1, "Padding": 0}


def conv_model(**changes) -> bytes:
    """A convolution, two activations and a reshape; `changes` replace tensors by name."""
    rng = np.random.default_rng(0)
    weight = rng.integers(-127, 128, (6, 3, 3, 4)).astype(np.int8)
    tensors = {
        "x": Tensor("x", (1, 7, 8, 4), np.int8, 0.1, 3),
        "w": Tensor("w", weight.shape, np.int8, np.full(6, 0.01, np.float32), 0, 0, weight),
        "b": Tensor("b", (6,), np.int32, np.full(6, 0.001, np.float32), 0, 0, np.arange(6, dtype=np.int32)),
        "y": Tensor("y", (1, 7, 8, 6), np.int8, 0.3, -4),
        "z": Tensor("z", (1, 7, 8, 6), np.int8, 1 / 256, -128),
        "shape": Tensor("shape", (2,), np.int32, data=np.array([7, 48], np.int32)),
        "out": Tensor("out", (7, 48), np.int8, 1 / 256, -128),
    }
    tensors |= changes
    operators = [
        Operator("CONV_2D", ["x", "w", "b"], ["y"], "Conv2DOptions", CONV),
        Operator("LOGISTIC", ["y"], ["z"]),
        Operator("RESHAPE", ["z", "shape"], ["out"], "ReshapeOptions", {"NewShape": [7, 48]}),
    ]
    return build_model(list(tensors.values()), operators, ["x"], ["out"])


def one(kind: str, tensors: list[Tensor], options: str | None = None, fields=None) -> bytes:
    """A file of one operator that reads all tensors but `out`."""
    inputs = [t.name for t in tensors if t.name != "out"]
    fed = [t.name for t in tensors if t.data is None and t.name != "out"]
    return build_model(tensors, [Operator(kind, inputs, ["out"], options, fields or {})], fed, ["out"])


X = Tensor("x", (2, 6), np.int8, 0.1, 3)
OUT = Tensor("out", (2, 6), np.int8, 0.1, 3)

REFUSED = {
    "unknown operator": (one("HASHTABLE_FIND", [X, OUT]), r"'out' \(HASHTABLE_FIND\).*cannot be imported"),
    "custom operator": (one("CUSTOM", [X, OUT]), r"'out' \(CUSTOM ''\): custom operators"),
    "no scale": (one("LOGISTIC", [Tensor("x", (2, 6), np.int8), OUT]), "'x' is i8 without scale and zero point"),
    "no scale of the result": (
        one("LOGISTIC", [X, Tensor("out", (2, 6), np.int8)]), "'out' is i8 without scale and zero point",
    ),
    "zero scale": (one("LOGISTIC", [X._replace(scale=0.0), OUT]), "'x' has the scale 0.0; scales are finite"),
    "infinite scale": (one("LOGISTIC", [X, OUT._replace(scale=np.inf)]), "'out' has the scale inf"),
    "zero point": (one("LOGISTIC", [X._replace(zero=200), OUT]), r"zero point 200, outside .*-128..127 of int8"),
    "float only": (one("SIN", [X, OUT]), r"'out' \(SIN\): it is imported for floats only, and 'x' is quantised"),
    "scales too far apart": (
        conv_model(x=Tensor("x", (1, 7, 8, 4), np.int8, 1e30, 3)), "ask for a factor of .*, and the largest is",
    ),
    "weights without scale": (
        conv_model(w=Tensor("w", (6, 3, 3, 4), np.int8, data=np.zeros((6, 3, 3, 4), np.int8))),
        "'w' is i8 without scale and zero",
    ),
    "scales of no channel": (
        conv_model(w=Tensor("w", (6, 3, 3, 4), np.int8, np.ones(4), 0, 0, np.zeros((6, 3, 3, 4), np.int8))),
        r"'w' has 4 scales along axis 0",
    ),
    "bias type": (
        conv_model(b=Tensor("b", (6,), np.int64, data=np.zeros(6, np.int64))), "bias 'b' is i64, but beside int8",
    ),
    "shape": (conv_model(y=Tensor("y", (1, 7, 9, 6), np.int8, 0.3)), r"result is \[1, 7, 8, 6\], but .*\[1, 7, 9, 6\]"),
    "concat axis": (
        one("CONCATENATION", [X, OUT], "ConcatenationOptions", {"Axis": 5}), "axis 5 lies outside a tensor of rank 2",
    ),
    "missing options": (one("CONCATENATION", [X, OUT]), "option Axis is missing"),
    "average of another scale": (
        one("MAX_POOL_2D", [X._replace(shape=(1, 4, 4, 2)), OUT._replace(shape=(1, 4, 4, 2), scale=0.2)],
            "Pool2DOptions", {"StrideH": 1, "StrideW": 1, "FilterHeight": 1, "FilterWidth": 1}),
        "TFLite keeps scale and zero point",
    ),
    "no stride": (
        one("MAX_POOL_2D", [X._replace(shape=(1, 4, 4, 2)), OUT._replace(shape=(1, 4, 4, 2))], "Pool2DOptions",
            {"FilterHeight": 1, "FilterWidth": 1}),
        "StrideH is 0",
    ),
    "undefined tensor": (
        build_model(
            [X, X._replace(name="y"), OUT], [Operator("ADD", ["x", "y"], ["out"], "AddOptions")], ["x"], ["out"]
        ),
        "reads the tensor 'y', which nothing before it defines",
    ),
    "undefined output": (build_model([X, OUT], [], ["x"], ["out"]), "output 'out' is computed by no operator"),
    "empty": (b"", "no TFLite file"),
    "another format": (b"\x08\x07\x12\x04onnx" * 20, "no TFLite file"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name(name):
    content, sentence = REFUSED[name]
    with pytest.raises(ImportFailed, match=sentence):
        import_tflite(content)


def test_all_problems_are_told_at_once():
    tensors = [X, *(OUT._replace(name=n) for n in ("a", "b", "c", "out"))]
    operators = [
        Operator("SIN", ["x"], ["a"]), Operator("COS", ["x"], ["b"]), Operator("NEG", ["a"], ["c"]),
        Operator("HASHTABLE", ["c"], ["out"]),
    ]  # fmt: skip
    with pytest.raises(ImportFailed) as refused:
        import_tflite(build_model(tensors, operators, ["x"], ["out"]))
    text = str(refused.value)
    assert text.startswith("3 layers of the model cannot be imported")
    assert "'a' (SIN)" in text and "'b' (COS)" in text and "'out' (HASHTABLE)" in text and "NEG" not in text


def test_short_buffers_are_refused_by_name():
    short = Tensor("w", (6, 3, 3, 4), np.int8, np.full(6, 0.01, np.float32), 0, 0, np.zeros(30, np.int8))
    with pytest.raises(
        ImportFailed, match=r"'w' cannot be used: its buffer has 30 bytes, but int8\[6, 3, 3, 4\] takes 216"
    ):
        import_tflite(conv_model(w=short))


def test_several_subgraphs_are_refused(monkeypatch):
    from nacre.frontends.tflite import build

    build_offsets = build._offsets

    def twice(builder, offsets):
        return build_offsets(builder, offsets * 2 if len(offsets) == 1 else offsets)

    content = one("LOGISTIC", [X, OUT])
    assert isinstance(import_tflite(content), ModuleOp)
    monkeypatch.setattr(build, "_offsets", twice)
    with pytest.raises(ImportFailed, match="2 subgraphs"):
        import_tflite(one("LOGISTIC", [X, OUT]))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ImportFailed, match="cannot be read"):
        import_tflite(tmp_path / "none.tflite")


def test_shapes_can_be_chosen():
    content = one("LOGISTIC", [X, OUT])
    module = import_tflite(content, {"x": (5, 6)})
    assert interpret(module, {"x": np.zeros((5, 6), np.int8)})["out"].shape == (5, 6)
    with pytest.raises(ImportFailed, match="no input 'y'"):
        import_tflite(content, {"y": (5, 6)})
    with pytest.raises(ImportFailed, match=r"cannot take the shape \[5\]"):
        import_tflite(content, {"x": (5,)})


@pytest.mark.parametrize("depth", [6, 40])
def test_half_precision_weights_are_folded(depth):
    """Also those of more elements than stand in the text."""
    rng = np.random.default_rng(1)
    weight = rng.standard_normal((5, depth)).astype(np.float16)
    tensors = [
        Tensor("x", (2, depth), np.float32), Tensor("half", (5, depth), np.float16, data=weight),
        Tensor("w", (5, depth), np.float32), Tensor("out", (2, 5), np.float32),
    ]  # fmt: skip
    operators = [
        Operator("DEQUANTIZE", ["half"], ["w"]),
        Operator("FULLY_CONNECTED", ["x", "w"], ["out"], "FullyConnectedOptions"),
    ]
    module = import_tflite(build_model(tensors, operators, ["x"], ["out"]))
    assert [op.name for op in module.walk()].count("graph.cast") == 0
    x = rng.standard_normal((2, depth)).astype(np.float32)
    np.testing.assert_allclose(interpret(module, {"x": x})["out"], x @ weight.astype(np.float32).T, rtol=1e-5)


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_damage_gives_a_module_or_a_sentence(data):
    content = bytearray(conv_model())
    if data.draw(st.booleans(), "cut"):
        content = content[: data.draw(st.integers(0, len(content)), "length")]
    for _ in range(data.draw(st.integers(0, 6), "flips") if content else 0):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        module = import_tflite(bytes(content))
    except ImportFailed as error:
        assert str(error)
    else:
        module.verify()
