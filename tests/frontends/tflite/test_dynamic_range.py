"""Dynamic-range quantisation: int8 weights beside float activations become float layers on scale · q.

The same files with the weights written as floats give the same numbers, bit for bit; LiteRT's hybrid kernels round
activations to 8 bits, so that they are held to MIN_SQNR.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from nacre.backends.compile import compile
from nacre.backends.session import Session
from nacre.backends.verify import verify
from nacre.errors import ImportFailed
from nacre.frontends.tflite import import_tflite
from nacre.frontends.tflite.build import Operator, Tensor, build_model
from nacre.frontends.tflite.golden import TfliteGolden
from nacre.runtime.interpreter import interpret

MIN_SQNR = 30.0  # dB, of one layer
BATCH, TANH = 2, 4


class Layer:
    """One operator in two files: with int8 weights, and with the floats that those stand for."""

    def __init__(self, kind: str, out: Sequence[int], options: str | None, fields: Mapping[str, Any], version: int):
        self.kind, self.out, self.options, self.fields, self.version = kind, tuple(out), options, fields, version
        self.rng = np.random.default_rng(len(kind))
        self.hybrid: list[Tensor | None] = []
        self.float: list[Tensor | None] = []

    def both(self, tensor: Tensor | None) -> None:
        """An input that the files have in common."""
        self.hybrid.append(tensor)
        self.float.append(tensor)

    def data(self, *shape: int) -> None:
        """The activations."""
        self.both(Tensor("x", shape, np.float32))

    def floats(self, name: str, *shape: int) -> None:
        """A float constant."""
        self.both(Tensor(name, shape, np.float32, data=self.rng.normal(0, 0.5, shape).astype(np.float32)))

    def weights(self, name: str, *shape: int, axis: int | None = None) -> None:
        """int8 with one scale, or one along an axis; the reals are computed here, in float32."""
        stored = self.rng.integers(-127, 128, shape).astype(np.int8)
        if axis is None:
            scale: Any = np.float32(0.011)
            real = stored.astype(np.float32) * scale
        else:
            scale = np.exp(self.rng.uniform(-6, -4, shape[axis])).astype(np.float32)
            real = stored.astype(np.float32) * scale.reshape([-1 if i == axis else 1 for i in range(len(shape))])
        self.hybrid.append(Tensor(name, shape, np.int8, scale, 0, axis or 0, stored))
        self.float.append(Tensor(name, shape, np.float32, data=real))

    def content(self, tensors: Sequence[Tensor | None]) -> bytes:
        """A file's bytes."""
        names = [None if t is None else t.name for t in tensors]
        out = Tensor("out", self.out, np.float32)
        operator = Operator(self.kind, names, ["out"], self.options, self.fields, version=self.version)
        return build_model([*(t for t in tensors if t is not None), out], [operator], ["x"], ["out"])

    def feeds(self) -> dict[str, np.ndarray]:
        """A sample."""
        (x,) = (t for t in self.hybrid if t is not None and t.name == "x")
        if x.dtype == np.int32:
            return {"x": self.rng.integers(0, 7, x.shape).astype(np.int32)}
        return {"x": self.rng.normal(size=x.shape).astype(np.float32)}


def conv(per_channel: bool) -> Layer:
    made = Layer("CONV_2D", (BATCH, 6, 7, 9), "Conv2DOptions", {"StrideH": 1, "StrideW": 1, "Padding": 0}, 5)
    made.data(BATCH, 6, 7, 5)
    made.weights("w", 9, 3, 2, 5, axis=0 if per_channel else None)
    made.floats("b", 9)
    return made


def depthwise() -> Layer:
    fields = {"StrideH": 2, "StrideW": 1, "Padding": 0, "DepthMultiplier": 1, "FusedActivationFunction": 3}
    made = Layer("DEPTHWISE_CONV_2D", (BATCH, 3, 7, 5), "DepthwiseConv2DOptions", fields, 6)
    made.data(BATCH, 6, 7, 5)
    made.weights("w", 1, 3, 3, 5, axis=3)
    made.floats("b", 5)
    return made


def transpose_conv(per_channel: bool) -> Layer:
    fields = {"StrideH": 2, "StrideW": 2, "Padding": 0}
    made = Layer("TRANSPOSE_CONV", (1, 8, 10, 6), "TransposeConvOptions", fields, 3)
    made.both(Tensor("shape", (4,), np.int32, data=np.array([1, 8, 10, 6], np.int32)))
    made.weights("w", 6, 3, 3, 5, axis=0 if per_channel else None)
    made.data(1, 4, 5, 5)
    made.floats("b", 6)
    return made


def fully_connected(per_channel: bool, asymmetric: bool = False) -> Layer:
    fields = {"AsymmetricQuantizeInputs": asymmetric, "FusedActivationFunction": 1}
    made = Layer("FULLY_CONNECTED", (BATCH, 11), "FullyConnectedOptions", fields, 9)
    made.data(BATCH, 40)
    made.weights("w", 11, 40, axis=0 if per_channel else None)
    made.floats("b", 11)
    return made


def batch_matmul(adjoint: bool) -> Layer:
    made = Layer("BATCH_MATMUL", (BATCH, 3, 5), "BatchMatMulOptions", {"AdjY": adjoint}, 4)
    made.data(BATCH, 3, 8)
    made.weights("w", BATCH, *((5, 8) if adjoint else (8, 5)))
    return made


def embedding_lookup(per_row: bool) -> Layer:
    made = Layer("EMBEDDING_LOOKUP", (4, 6), None, {}, 4)
    made.both(Tensor("x", (4,), np.int32))
    made.weights("w", 7, 6, axis=0 if per_row else None)
    return made


def lstm(coupled: bool, peepholes: bool, project: int) -> Layer:
    steps, inputs, hidden = 3, 16, 24
    out = project or hidden
    gates = "fco" if coupled else "ifco"
    made = Layer(
        "UNIDIRECTIONAL_SEQUENCE_LSTM", (BATCH, steps, out), "UnidirectionalSequenceLSTMOptions",
        {"FusedActivationFunction": TANH}, 3,
    )  # fmt: skip
    made.data(BATCH, steps, inputs)
    for letter, width in (("w", inputs), ("r", out)):
        for gate in "ifco":
            made.weights(f"{letter}{gate}", hidden, width) if gate in gates else made.both(None)
    for gate in "ifo":
        made.weights(f"p{gate}", hidden) if peepholes and gate in gates else made.both(None)
    for gate in "ifco":
        made.floats(f"b{gate}", hidden) if gate in gates else made.both(None)
    made.weights("projection", out, hidden) if project else made.both(None)
    made.both(None)
    for name, size in (("h", out), ("c", hidden)):
        made.both(Tensor(name, (BATCH, size), np.float32, variable=True))
    return made


def rnn() -> Layer:
    made = Layer(
        "UNIDIRECTIONAL_SEQUENCE_RNN", (BATCH, 3, 24), "SequenceRNNOptions", {"FusedActivationFunction": TANH}, 3
    )
    made.data(BATCH, 3, 16)
    made.weights("w", 24, 16)
    made.weights("r", 24, 24)
    made.floats("b", 24)
    made.both(Tensor("state", (BATCH, 24), np.float32, variable=True))
    return made


LAYERS = {
    "conv": conv(False), "conv, a scale a channel": conv(True), "depthwise": depthwise(),
    "transposed": transpose_conv(False), "transposed, a scale a channel": transpose_conv(True),
    "connected": fully_connected(False), "connected, a scale a row": fully_connected(True),
    "connected, asymmetric": fully_connected(False, asymmetric=True),
    "product": batch_matmul(False), "product, transposed": batch_matmul(True),
    "look-up": embedding_lookup(False), "look-up, a scale a row": embedding_lookup(True),
    "LSTM": lstm(False, False, 0), "LSTM, peepholes and projection": lstm(False, True, 8),
    "LSTM, coupled": lstm(True, True, 0), "RNN": rnn(),
}  # fmt: skip


def sqnr(want: np.ndarray, found: np.ndarray) -> float:
    """dB."""
    noise = np.sum((want.astype(np.float64) - found) ** 2)
    return float(10 * np.log10(np.sum(want.astype(np.float64) ** 2) / max(noise, 1e-30)))


@pytest.mark.parametrize("name", LAYERS)
def test_weights_are_the_floats_that_they_stand_for(name):
    layer = LAYERS[name]
    feeds, content = layer.feeds(), layer.content(layer.hybrid)
    module = import_tflite(content)
    found = interpret(module, feeds)["out"]
    assert found.dtype == np.float32 and np.ptp(found) > 0.1
    np.testing.assert_array_equal(found, interpret(import_tflite(layer.content(layer.float)), feeds)["out"])
    said: list[str] = []
    golden = TfliteGolden(content, say=said.append)
    want = golden.run(feeds, ["out"])["out"]
    if layer.kind == "EMBEDDING_LOOKUP":
        np.testing.assert_array_equal(found, want)
        assert not said and not golden.rounds
    else:
        assert MIN_SQNR < sqnr(want, found) < 100, "LiteRT rounds, or this is no hybrid kernel"
        assert golden.rounds and len(said) == 1 and "activations of 1 layer to 8 bits" in said[0]


@pytest.mark.parametrize("axis", [None, 0, 1])
def test_explicit_casts_of_int8_constants_are_folded(axis):
    layer = fully_connected(False)
    stored = layer.rng.integers(-128, 128, (11, 40)).astype(np.int8)
    scale = np.float32(0.02) if axis is None else np.linspace(0.01, 0.03, stored.shape[axis], dtype=np.float32)
    zero = 3 if axis is None else [0] * stored.shape[axis]
    tensors = [
        Tensor("x", (BATCH, 40), np.float32), Tensor("q", (11, 40), np.int8, scale, zero, axis or 0, stored),
        Tensor("w", (11, 40), np.float32), Tensor("out", (BATCH, 11), np.float32),
    ]  # fmt: skip
    operators = [
        Operator("DEQUANTIZE", ["q"], ["w"], version=5 if axis is not None else 2),
        Operator("FULLY_CONNECTED", ["x", "w", None], ["out"], "FullyConnectedOptions"),
    ]
    content, feeds = build_model(tensors, operators, ["x"], ["out"]), layer.feeds()
    module = import_tflite(content)
    assert not any(op.name.startswith("quant.") for op in module.walk())
    spread = scale if axis is None else scale.reshape((-1, 1) if axis == 0 else (1, -1))
    weight = (stored.astype(np.float32) - (3 if axis is None else 0)) * spread
    found = interpret(module, feeds)["out"]
    np.testing.assert_allclose(found, feeds["x"] @ weight.T, rtol=1e-4, atol=1e-5)
    golden = TfliteGolden(content)
    assert not golden.rounds
    np.testing.assert_allclose(found, golden.run(feeds, ["out"])["out"], rtol=1e-4, atol=1e-5)


def test_rows_of_a_quantised_table_become_floats():
    """GATHER copies integers, and a cast behind it makes floats of them: what the converter writes of an embedding."""
    table = np.random.default_rng(0).integers(-127, 128, (7, 6)).astype(np.int8)
    tensors = [
        Tensor("x", (4,), np.int32), Tensor("table", (7, 6), np.int8, 0.02, 0, 0, table),
        Tensor("rows", (4, 6), np.int8, 0.02), Tensor("out", (4, 6), np.float32),
    ]  # fmt: skip
    operators = [
        Operator("GATHER", ["table", "x"], ["rows"], "GatherOptions", {"Axis": 0}),
        Operator("DEQUANTIZE", ["rows"], ["out"], version=2),
    ]
    content, feeds = build_model(tensors, operators, ["x"], ["out"]), {"x": np.array([6, 0, 3, 3], np.int32)}
    found = interpret(import_tflite(content), feeds)["out"]
    np.testing.assert_array_equal(found, table[feeds["x"]].astype(np.float32) * np.float32(0.02))
    np.testing.assert_array_equal(found, TfliteGolden(content).run(feeds, ["out"])["out"])


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_compiled(dtype):
    """In float32 the program gives what the float file's gives; calibrated, it is a quantised network as any other."""
    layer = LAYERS["conv, a scale a channel"]
    samples = [layer.feeds() for _ in range(4)]
    given = {} if dtype == "float32" else {"calibration": samples}
    made = [Session(compile(layer.content(t), dtype=dtype, **given)) for t in (layer.hybrid, layer.float)]
    for feeds in samples:
        ours, theirs = (session.run(None, feeds)[0] for session in made)
        np.testing.assert_array_equal(ours, theirs)
        assert sqnr(interpret(import_tflite(layer.content(layer.hybrid)), feeds)["out"], ours) > MIN_SQNR


def test_verify_allows_for_the_rounding_of_the_source():
    layer, said = LAYERS["connected, a scale a row"], []
    report = verify(layer.content(layer.hybrid), [layer.feeds()], dtype="float32", say=said.append)
    assert report.rounds and not report.failures and len(said) == 1
    strict = verify(layer.content(layer.hybrid), [layer.feeds()], dtype="float32", min_sqnr=100.0, say=said.append)
    assert len(strict.failures) == 1 and "100 dB are asked for (at the levels graph" in strict.failures[0]
    plain = verify(layer.content(layer.float), [layer.feeds()], dtype="float32", min_sqnr=1000.0, say=said.append)
    assert not plain.rounds and not plain.failures and len(said) == 2


def changed(layer: Layer, name: str, **changes: Any) -> bytes:
    """The hybrid file with another tensor in place of one."""
    return layer.content([t._replace(**changes) if t is not None and t.name == name else t for t in layer.hybrid])


CONNECTED = LAYERS["connected"]
UNSIGNED = np.zeros((11, 40), np.uint8)
REFUSED = {
    "zero point": (changed(CONNECTED, "w", zero=5), "'w' are int8 with the zero point 5 beside floats"),
    "uint8": (changed(CONNECTED, "w", dtype=np.uint8, data=UNSIGNED), "'w' are uint8 with the zero point 0 beside"),
    "int16": (
        changed(CONNECTED, "w", dtype=np.int16, data=UNSIGNED.astype(np.int16)), "'w' are int16 with the zero point 0",
    ),
    "no scale": (changed(CONNECTED, "w", scale=None), "'w' is i8 without scale and zero point"),
    "computed": (
        build_model(
            [Tensor("x", (2, 4), np.float32), Tensor("w", (3, 4), np.int8, 0.1), Tensor("out", (2, 3), np.float32)],
            [Operator("FULLY_CONNECTED", ["x", "w", None], ["out"], "FullyConnectedOptions")], ["x", "w"], ["out"],
        ),
        "'w' are quantised beside floats and computed from the model's inputs",
    ),
    "quantised data": (
        changed(CONNECTED, "x", dtype=np.int8, scale=0.1), "the tensor 'out' is f32 without scale and zero point",
    ),
    "quantised bias": (
        changed(LAYERS["LSTM"], "bf", dtype=np.int8, scale=0.1, data=np.zeros(24, np.int8)),
        "its sequence is f32 and 'bf' quantised, which is no quantisation that TFLite has",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name(name):
    content, sentence = REFUSED[name]
    with pytest.raises(ImportFailed, match=sentence):
        import_tflite(content)
