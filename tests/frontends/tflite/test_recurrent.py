"""Recurrent sequences against LiteRT's reference kernels, run after run so that states are carried."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacre.dialects.nacre import initial_states, states_of
from nacre.dialects.text import parse_module, print_module
from nacre.errors import ImportFailed
from nacre.frontends.tflite import import_tflite
from nacre.frontends.tflite.build import Operator, Tensor, build_model
from nacre.frontends.tflite.golden import interpreter_of
from nacre.runtime.interpreter import interpret

NONE, RELU, RELU_N1_TO_1, RELU6, TANH = range(5)
RUNS = 4
TOLERANCE = 2e-5


def lstm_file(
    rng: np.random.Generator, *, steps: int = 3, batch: int = 2, inputs: int = 4, hidden: int = 5, project: int = 0,
    coupled: bool = False, peepholes: bool = False, norm: bool = False, time_major: bool = False,
    activation: int = TANH, cell_clip: float = 0.0, proj_clip: float = 0.0, weights: Any = np.float32,
    variable: bool = True,
) -> bytes:  # fmt: skip
    """A file of one UNIDIRECTIONAL_SEQUENCE_LSTM."""
    out = project or hidden
    tensors: list[Tensor] = []
    names: list[str | None] = []

    def add(name: str, *shape: int, there: bool = True) -> None:
        names.append(name if there else None)
        if there:
            scale = None if weights is np.float32 or len(shape) == 1 else 0.01
            data = rng.normal(0, 0.7, shape) if scale is None else rng.integers(-99, 99, shape)
            kind = np.float32 if scale is None else weights
            tensors.append(Tensor(name, shape, kind, scale, data=data.astype(kind)))

    x = (steps, batch, inputs) if time_major else (batch, steps, inputs)
    tensors.append(Tensor("x", x, np.float32))
    names.append("x")
    for gate in "ifco":
        add(f"w{gate}", hidden, inputs, there=gate != "i" or not coupled)
    for gate in "ifco":
        add(f"r{gate}", hidden, out, there=gate != "i" or not coupled)
    for gate in "ifo":
        add(f"p{gate}", hidden, there=peepholes and (gate != "i" or not coupled))
    for gate in "ifco":
        add(f"b{gate}", hidden, there=gate != "i" or not coupled)
    add("projection", out, hidden, there=bool(project))
    add("projection bias", out, there=bool(project))
    for name, size in (("h state", out), ("c state", hidden)):
        names.append(name)
        tensors.append(Tensor(name, (batch, size), np.float32, variable=variable))
    for gate in "ifco":
        add(f"n{gate}", hidden, there=norm and (gate != "i" or not coupled))
    tensors.append(Tensor("y", (*x[:2], out), np.float32))
    fields = {
        "FusedActivationFunction": activation, "CellClip": cell_clip, "ProjClip": proj_clip, "TimeMajor": time_major,
    }  # fmt: skip
    operator = Operator(
        "UNIDIRECTIONAL_SEQUENCE_LSTM", names if norm else names[:20], ["y"],
        "UnidirectionalSequenceLSTMOptions", fields, version=3,
    )  # fmt: skip
    return build_model(tensors, [operator], ["x"], ["y"])


def rnn_file(
    rng: np.random.Generator, *, steps: int, batch: int, inputs: int, hidden: int, time_major: bool, activation: int
) -> bytes:
    """A file of one UNIDIRECTIONAL_SEQUENCE_RNN."""
    x = (steps, batch, inputs) if time_major else (batch, steps, inputs)
    weights = {"w": (hidden, inputs), "r": (hidden, hidden), "b": (hidden,)}
    tensors = [
        Tensor("x", x, np.float32),
        *(Tensor(n, s, np.float32, data=rng.normal(0, 0.7, s).astype(np.float32)) for n, s in weights.items()),
        Tensor("state", (batch, hidden), np.float32, variable=True), Tensor("y", (*x[:2], hidden), np.float32),
    ]  # fmt: skip
    operator = Operator(
        "UNIDIRECTIONAL_SEQUENCE_RNN", ["x", "w", "r", "b", "state"], ["y"], "SequenceRNNOptions",
        {"TimeMajor": time_major, "FusedActivationFunction": activation},
    )  # fmt: skip
    return build_model(tensors, [operator], ["x"], ["y"])


def outputs_of_litert(content: bytes, feeds: list[Mapping[str, np.ndarray]]) -> list[np.ndarray]:
    """The output of each run in turn, and of the first one again behind a reset."""
    _, litert = interpreter_of(content)
    litert.allocate_tensors()
    found = []
    for i, feed in enumerate([*feeds, feeds[0]]):
        if i == len(feeds):
            litert.reset_all_variables()
        litert.set_tensor(litert.get_input_details()[0]["index"], feed["x"])
        litert.invoke()
        found.append(litert.get_tensor(litert.get_output_details()[0]["index"]))
    return found


def same_runs(content: bytes, seed: int) -> None:
    """Several runs, and one behind a reset, give what LiteRT gives."""
    module = import_tflite(content)
    (argument,) = (t.type for t in next(op for op in module.walk() if op.name == "func.func").body.block.args)
    rng = np.random.default_rng(seed)
    feeds = [{"x": rng.normal(size=argument.get_shape()).astype(np.float32)} for _ in range(RUNS)]
    states, found = initial_states(module), []
    for i, feed in enumerate([*feeds, feeds[0]]):
        if i == RUNS:
            states = initial_states(module)
        found.append(interpret(module, feed, states=states)["y"])
    wanted = outputs_of_litert(content, feeds)
    for ours, theirs in zip(found, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=TOLERANCE, atol=TOLERANCE)


SIZES = st.fixed_dictionaries({
    "steps": st.integers(1, 4), "batch": st.integers(1, 3), "inputs": st.integers(1, 5), "hidden": st.integers(1, 6),
    "time_major": st.booleans(),
})  # fmt: skip


@settings(derandomize=True, deadline=None, max_examples=80)
@given(
    SIZES, st.sampled_from([0, 0, 3]), st.booleans(), st.booleans(), st.booleans(), st.sampled_from([RELU, TANH]),
    st.sampled_from([0.0, 0.3]), st.sampled_from([0.0, 0.1]), st.integers(0, 99),
)  # fmt: skip
def test_lstm(sizes, project, coupled, peepholes, norm, activation, cell_clip, proj_clip, seed):
    content = lstm_file(
        np.random.default_rng(seed), **sizes, project=project, coupled=coupled, peepholes=peepholes, norm=norm,
        activation=activation, cell_clip=cell_clip, proj_clip=proj_clip if project else 0.0,
    )  # fmt: skip
    same_runs(content, seed)


@settings(derandomize=True, deadline=None, max_examples=20)
@given(SIZES, st.sampled_from([NONE, RELU, RELU_N1_TO_1, RELU6, TANH]), st.integers(0, 99))
def test_rnn(sizes, activation, seed):
    same_runs(rnn_file(np.random.default_rng(seed), **sizes, activation=activation), seed)


def test_a_run_goes_on_where_the_last_one_stopped():
    """Two runs of two steps are one of four; without states each run begins anew."""
    long = lstm_file(np.random.default_rng(1), steps=4)
    short = import_tflite(lstm_file(np.random.default_rng(1), steps=2))
    x = np.random.default_rng(2).normal(size=(2, 4, 4)).astype(np.float32)
    whole = interpret(import_tflite(long), {"x": x})["y"]
    states = initial_states(short)
    halves = [interpret(short, {"x": np.ascontiguousarray(x[:, i : i + 2])}, states=states)["y"] for i in (0, 2)]
    np.testing.assert_array_equal(np.concatenate(halves, axis=1), whole)
    anew = interpret(short, {"x": np.ascontiguousarray(x[:, 2:])})["y"]
    assert not np.allclose(anew, whole[:, 2:])


def test_states_are_in_the_text():
    module = import_tflite(lstm_file(np.random.default_rng(0)))
    assert list(states_of(module)) == ["h state", "c state"]
    text = print_module(module)
    assert 'nacre.read_state @"h state" : tensor<2x5xf32>' in text and text.count("nacre.write_state") == 2
    small = import_tflite(lstm_file(np.random.default_rng(0), inputs=1, hidden=1))
    assert print_module(parse_module(print_module(small))) == print_module(small)


@pytest.mark.parametrize(
    ("given_", "words"),
    [
        ({"activation": RELU6}, "activation RELU6 is not supported"),
        ({"weights": np.uint8}, "its weights 'wi' are uint8 with the zero point 0 beside floats"),
        ({"steps": 1001}, "1001 steps, and 1 to 1000 can be unrolled"),
        ({"variable": False}, "reads the tensor 'h state', which nothing before it defines"),
    ],
)
def test_what_is_refused(given_, words):
    with pytest.raises(ImportFailed, match=words):
        import_tflite(lstm_file(np.random.default_rng(0), **given_))
