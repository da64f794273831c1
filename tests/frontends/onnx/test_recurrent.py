"""LSTM, GRU and RNN against onnxruntime, and against ONNX's reference evaluator where that has no layout 1."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacre.errors import ImportFailed
from nacre.frontends.onnx import import_onnx
from nacre.runtime.interpreter import interpret
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
DEFAULTS = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh"), "RNN": ("Tanh",)}
WITH_ALPHA = {"HardSigmoid", "LeakyRelu", "Elu", "Affine", "ScaledTanh"}
WITH_BETA = {"HardSigmoid", "Affine", "ScaledTanh"}
FUNCTIONS = ("Sigmoid", "Tanh", "Relu", "HardSigmoid", "LeakyRelu", "Elu", "Affine", "ScaledTanh")


class Sizes(NamedTuple):
    steps: int = 3
    batch: int = 2
    inputs: int = 4
    hidden: int = 5
    directions: int = 1


def model_of(
    kind: str, sizes: Sizes, *, biases: bool = True, initial: bool = True, peepholes: bool = False,
    lengths: list[int] | None = None, outputs: str = "YHC", opset: int = 17, seed: int = 0, **attributes: Any,
) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:  # fmt: skip
    """A model of one node with random weights, and feeds for it."""
    rng = np.random.default_rng(seed)
    t, n, i, h, d = sizes
    first = bool(attributes.get("layout"))
    rows = GATES[kind] * h
    weights = {"W": rng.normal(size=(d, rows, i)), "R": rng.normal(size=(d, rows, h))}
    if biases:
        weights["B"] = rng.normal(size=(d, 2 * rows))
    if peepholes:
        weights["P"] = rng.normal(size=(d, 3 * h))
    feeds = {"X": rng.normal(size=(n, t, i) if first else (t, n, i)).astype(np.float32)}
    if initial:
        for name in ("h0", "c0") if kind == "LSTM" else ("h0",):
            feeds[name] = rng.normal(size=(n, d, h) if first else (d, n, h)).astype(np.float32)
    tensors = [onnx.numpy_helper.from_array(w.astype(np.float32), name) for name, w in weights.items()]
    if lengths is not None:
        tensors.append(onnx.numpy_helper.from_array(np.array(lengths, np.int32), "L"))
    inputs = ["X", "W", "R", "B" if biases else "", "L" if lengths is not None else "", *list(feeds)[1:]]
    if kind == "LSTM":
        inputs += [""] * (7 - len(inputs)) + (["P"] if peepholes else [])
    names = ["Y", "H", "C"] if kind == "LSTM" else ["Y", "H"]
    outs = [name if name in outputs else "" for name in names]
    node = helper.make_node(kind, inputs, outs, "layer", hidden_size=h, **attributes)
    shapes = {"Y": [n, t, d, h] if first else [t, d, n, h]}
    shapes |= dict.fromkeys("HC", [n, d, h] if first else [d, n, h])
    graph = helper.make_graph(
        [node], "g", [helper.make_tensor_value_info(k, TensorProto.FLOAT, v.shape) for k, v in feeds.items()],
        [helper.make_tensor_value_info(o, TensorProto.FLOAT, shapes[o]) for o in outs if o], tensors,
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), feeds


def close(model: onnx.ModelProto, feeds: dict[str, np.ndarray], reference: bool = False) -> None:
    """What Nacre computes is what the oracle computes."""
    if reference:
        wanted = ReferenceEvaluator(model).run(None, feeds)
    else:
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        wanted = session.run(None, feeds)
    found = interpret(import_onnx(model), feeds)
    for output, array in zip(model.graph.output, wanted):
        np.testing.assert_allclose(found[output.name], array, rtol=2e-5, atol=2e-5, err_msg=output.name)


SIZES = st.builds(Sizes, st.integers(1, 5), st.integers(1, 3), st.integers(1, 5), st.integers(1, 6), st.just(1))


@settings(derandomize=True, deadline=None, max_examples=30)
@given(
    st.sampled_from(list(GATES)), SIZES, st.sampled_from(["forward", "reverse", "bidirectional"]), st.booleans(),
    st.booleans(), st.booleans(), st.sampled_from(["Y", "H", "YH", "YHC", "HC"]), st.integers(0, 99),
)  # fmt: skip
def test_sizes_directions_and_absent_tensors(kind, sizes, direction, biases, initial, full, outputs, seed):
    sizes = sizes._replace(directions=2 if direction == "bidirectional" else 1)
    lengths = [sizes.steps] * sizes.batch if full else None
    close(*model_of(
        kind, sizes, biases=biases, initial=initial, lengths=lengths, outputs=outputs, seed=seed, direction=direction
    ))  # fmt: skip


@settings(derandomize=True, deadline=None, max_examples=30)
@given(SIZES, st.booleans(), st.booleans(), st.sampled_from([0.0, 0.3, 2.0]), st.integers(0, 99))
def test_lstm_with_peepholes_clip_and_coupled_gates(sizes, both, coupled, clip, seed):
    given_ = {"clip": clip} if clip else {}
    close(*model_of(
        "LSTM", sizes._replace(directions=1 + both), peepholes=True, seed=seed, input_forget=int(coupled),
        direction="bidirectional" if both else "forward", **given_,
    ))  # fmt: skip


@settings(derandomize=True, deadline=None, max_examples=30)
@given(SIZES, st.booleans(), st.booleans(), st.sampled_from([0.0, 0.3]), st.integers(0, 99))
def test_gru_resets_before_or_after_its_product(sizes, both, after, clip, seed):
    given_ = {"clip": clip} if clip else {}
    close(*model_of(
        "GRU", sizes._replace(directions=1 + both), seed=seed, linear_before_reset=int(after),
        direction="bidirectional" if both else "reverse", **given_,
    ))  # fmt: skip


def activations(kind: str, directions: int, rng: np.random.Generator) -> dict[str, Any]:
    """Random activations, with alpha and beta for those that take one."""
    names = [str(rng.choice(FUNCTIONS)) for _ in range(len(DEFAULTS[kind]) * directions)]
    numbers = {
        "activation_alpha": [float(rng.uniform(0.1, 0.9)) for n in names if n in WITH_ALPHA],
        "activation_beta": [float(rng.uniform(0.1, 0.9)) for n in names if n in WITH_BETA],
    }
    return {"activations": names, **{k: v for k, v in numbers.items() if v}}


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("seed", range(12))
def test_activations(kind, seed):
    rng = np.random.default_rng(seed)
    d = 1 + seed % 2
    given_ = activations(kind, d, rng)
    close(*model_of(
        kind, Sizes(directions=d), seed=seed, direction="bidirectional" if d == 2 else "forward", **given_
    ))  # fmt: skip


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("initial", [False, True])
def test_batch_first(kind, initial):
    """onnxruntime has no layout 1: the reference evaluator stands in, which knows one direction."""
    model, feeds = model_of(kind, Sizes(steps=4, batch=3), initial=initial, layout=1)
    close(model, feeds, reference=True)


@pytest.mark.parametrize("kind", GATES)
def test_batch_first_in_two_directions(kind):
    """Layout 1 is layout 0 with the batch moved to the front, whatever the directions."""
    sizes = Sizes(steps=4, batch=3, directions=2)
    model, feeds = model_of(kind, sizes, layout=1, direction="bidirectional")
    plain, _ = model_of(kind, sizes, direction="bidirectional")
    found = interpret(import_onnx(model), feeds)
    wanted = interpret(import_onnx(plain), {k: v.swapaxes(0, 1) for k, v in feeds.items()})
    np.testing.assert_array_equal(found["Y"], wanted["Y"].transpose(2, 0, 1, 3))
    np.testing.assert_array_equal(found["H"], wanted["H"].transpose(1, 0, 2))


def test_an_old_opset():
    close(*model_of("LSTM", Sizes(), opset=7))


@pytest.mark.parametrize(
    ("given_", "words"),
    [
        ({"lengths": [2, 3]}, "sequence_lens holds lengths other than the 3 steps"),
        ({"activations": ["Sigmoid", "Softsign", "Tanh"]}, "activation Softsign is not supported"),
        ({"activations": ["Sigmoid", "Tanh"]}, "names 2 activations, and 3 are needed"),
        ({"sizes": Sizes(steps=1001)}, "1001 steps, and 1 to 1000 can be unrolled"),
        ({"direction": "sideways"}, "direction is 'sideways'"),
    ],
)
def test_what_is_refused(given_, words):
    sizes = given_.pop("sizes", Sizes())
    model, _ = model_of("LSTM", sizes, **given_)
    with pytest.raises(ImportFailed, match=words):
        import_onnx(model)


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("direction", ["reverse", "bidirectional"])
def test_weights_may_be_inputs(kind, direction):
    given_ = {"linear_before_reset": 1} if kind == "GRU" else {}
    d = 2 if direction == "bidirectional" else 1
    model, feeds = model_of(kind, Sizes(directions=d), peepholes=kind == "LSTM", direction=direction, **given_)
    for tensor in list(model.graph.initializer):
        model.graph.initializer.remove(tensor)
        model.graph.input.append(helper.make_tensor_value_info(tensor.name, TensorProto.FLOAT, list(tensor.dims)))
        feeds[tensor.name] = onnx.numpy_helper.to_array(tensor)
    close(model, feeds)


def test_weights_of_another_shape_are_refused():
    model, _ = model_of("GRU", Sizes())
    (w,) = (t for t in model.graph.initializer if t.name == "W")
    w.CopyFrom(onnx.numpy_helper.from_array(np.zeros((1, 15, 3), np.float32), "W"))
    with pytest.raises(ImportFailed, match=r"its weights W are \[1, 15, 3\], and should be \[1, 15, 4\]"):
        import_onnx(model)
