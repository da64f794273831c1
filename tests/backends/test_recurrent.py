"""Recurrent models from source file to program: cells in float, products in integers, states carried."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
from nacre.backends.compile import compile
from nacre.backends.session import Session
from nacre.dialects.nacre import initial_states
from nacre.frontends.tflite.build import Operator, Tensor, build_model
from nacre.runtime.interpreter import interpret
from nacre.runtime.npu_interpreter import interpret_npu
from onnx import TensorProto, helper

STEPS, INPUTS, HIDDEN = 3, 12, 20
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
TOLERANCE = 1e-5
"""Of floats between qnn, whose transcendental functions are numpy's, and npu."""
WORST = {"float32": 1e-5, "int8": 0.2, "int16": 5e-3}
"""Error against float after several runs; measured 4e-7, 0.085 and 0.0008."""


def onnx_model(kind: str, **attributes) -> onnx.ModelProto:
    """One layer with states as inputs and outputs."""
    rng = np.random.default_rng(0)
    rows = GATES[kind] * HIDDEN
    shapes = {"W": (1, rows, INPUTS), "R": (1, rows, HIDDEN), "B": (1, 2 * rows)}
    weights = [onnx.numpy_helper.from_array(rng.normal(0, 0.4, s).astype(np.float32), n) for n, s in shapes.items()]
    states = ["h", "c"] if kind == "LSTM" else ["h"]
    node = helper.make_node(
        kind, ["X", "W", "R", "B", "", *states], ["Y", *(f"{s}n" for s in states)], "layer", hidden_size=HIDDEN,
        **attributes,
    )  # fmt: skip
    state = [1, 1, HIDDEN]
    graph = helper.make_graph(
        [node], "g",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s)
         for n, s in (("X", [STEPS, 1, INPUTS]), *((s, state) for s in states))],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s)
         for n, s in (("Y", [STEPS, 1, 1, HIDDEN]), *((f"{s}n", state) for s in states))],
        weights,
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def tflite_model() -> bytes:
    """An LSTM with its states inside."""
    rng = np.random.default_rng(0)
    tensors, names = [Tensor("x", (1, STEPS, INPUTS), np.float32)], ["x"]
    shapes = {f"w{g}": (HIDDEN, INPUTS) for g in "ifco"} | {f"r{g}": (HIDDEN, HIDDEN) for g in "ifco"}
    for name, shape in shapes.items():
        tensors.append(Tensor(name, shape, np.float32, data=rng.normal(0, 0.4, shape).astype(np.float32)))
        names.append(name)
    biases = [Tensor(f"b{g}", (HIDDEN,), np.float32, data=np.zeros(HIDDEN, np.float32)) for g in "ifco"]
    states = [Tensor(n, (1, HIDDEN), np.float32, variable=True) for n in ("h", "c")]
    inputs = [*names, None, None, None, *(b.name for b in biases), None, None, *(s.name for s in states)]
    fields = {"FusedActivationFunction": 4, "CellClip": 0.0, "ProjClip": 0.0, "TimeMajor": False}
    operator = Operator(
        "UNIDIRECTIONAL_SEQUENCE_LSTM", inputs, ["y"], "UnidirectionalSequenceLSTMOptions", fields, version=3
    )
    tensors += [*biases, *states, Tensor("y", (1, STEPS, HIDDEN), np.float32)]
    return build_model(tensors, [operator], ["x"], ["y"])


def sequences(runs: int) -> list[np.ndarray]:
    """Inputs [T, 1, I] of several runs."""
    rng = np.random.default_rng(7)
    return [rng.normal(size=(STEPS, 1, INPUTS)).astype(np.float32) for _ in range(runs)]


def carried(run, kind: str, runs: int) -> tuple[list[np.ndarray], list[dict[str, np.ndarray]]]:
    """Y of each run, the states of one going into the next, and the feeds."""
    states = {s: np.zeros((1, 1, HIDDEN), np.float32) for s in ("hc" if kind == "LSTM" else "h")}
    found, feeds = [], []
    for x in sequences(runs):
        feeds.append({"X": x, **states})
        outputs = run(feeds[-1])
        found.append(outputs["Y"])
        states = {s: outputs[f"{s}n"] for s in states}
    return found, feeds


@pytest.mark.parametrize("dtype", ["float32", "int8", "int16"])
@pytest.mark.parametrize(
    ("kind", "attributes"), [("LSTM", {}), ("GRU", {}), ("GRU", {"linear_before_reset": 1}), ("RNN", {})]
)
def test_states_as_inputs_and_outputs(kind, attributes, dtype):
    """npu and program give the same bits, qnn the same within a tolerance, all stay near the float model."""
    model = onnx_model(kind, **attributes)
    graph = compile(model, dtype="float32", stop_after="graph").levels["graph"]
    wanted, feeds = carried(lambda feeds: interpret(graph, feeds), kind, 12)
    program = compile(model, dtype=dtype, calibration=None if dtype == "float32" else feeds)
    if dtype != "float32":
        counts = Counter(op.name for op in program.levels["qnn"].walk())
        assert counts["qnn.matmul"] > STEPS and counts["graph.matmul"] == 0
        assert sum(n for name, n in counts.items() if name.endswith("_cell")) == (0 if kind == "RNN" else STEPS)
    session = Session(program, sanitize=True)
    names = [o.name for o in session.get_outputs()]
    found, _ = carried(lambda feeds: dict(zip(names, session.run(None, feeds))), kind, 12)
    below, _ = carried(lambda feeds: interpret_npu(program.levels["npu"], feeds), kind, 3)
    above, _ = carried(lambda feeds: interpret(program.levels.get("qnn", graph), feeds), kind, 1)
    for ours, npu in zip(found, below):
        np.testing.assert_array_equal(ours, npu)
    np.testing.assert_allclose(found[0], above[0], atol=TOLERANCE if dtype != "int16" else WORST["int16"])
    error = max(np.abs(f - w).max() for f, w in zip(found, wanted))
    assert error < WORST[dtype] * (2 if kind == "RNN" else 1), error


@pytest.mark.parametrize("target", ["v853", "tiny"])
@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_states_inside_the_program(target, dtype):
    """A state in DRAM is carried as the interpreters carry theirs."""
    inputs = [{"x": np.ascontiguousarray(x.swapaxes(0, 1))} for x in sequences(8)]
    program = compile(tflite_model(), target=target, dtype=dtype, calibration=None if dtype == "float32" else inputs)
    session, levels = Session(program, sanitize=True), program.levels
    states = {level: initial_states(levels[level]) for level in ("graph", "npu")}
    for feeds in inputs:
        (found,) = session.run(None, feeds)
        np.testing.assert_array_equal(found, interpret_npu(levels["npu"], feeds, states=states["npu"])["y"])
        wanted = interpret(levels["graph"], feeds, states=states["graph"])["y"]
        assert np.abs(found - wanted).max() < WORST[dtype]
    again = Session(program)
    session.reset()
    np.testing.assert_array_equal(session.run(None, inputs[0])[0], again.run(None, inputs[0])[0])
