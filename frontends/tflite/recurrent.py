"""Importers of recurrent sequences in floats, unrolled over time; their state tensors are states of the module.

Gates and formulas are those of LiteRT's reference kernel (tflite/kernels/lstm_eval.cc, internal/reference).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from xdsl.ir import SSAValue

from ...dialects import graph
from ...dialects.graph_recurrent import LstmCellOp
from ...dialects.types import shape_of
from .node import Node
from .registry import Unsupported, tflite_importer

STEPS_LIMIT = 1000
"""Steps that are unrolled; a program grows with each."""
GATES = "ifco"
"""LiteRT's order of gates: input, forget, cell, output."""
INPUT_WEIGHTS, RECURRENT_WEIGHTS, PEEPHOLES, BIASES = 1, 5, 9, 12
PROJECTION, PROJECTION_BIAS, OUTPUT_STATE, CELL_STATE, LAYER_NORM = 16, 17, 18, 19, 20
"""Inputs of UNIDIRECTIONAL_SEQUENCE_LSTM; the first four begin a run of gates (peepholes: i, f, o)."""
ACTIVATIONS = {"RELU": "relu", "TANH": "tanh"}
"""A cell's name of an activation. Without one LiteRT multiplies the output gate with a gate of the step, which is
whatever its scratch memory holds: there is nothing to agree with."""

Step = Callable[[SSAValue, tuple[SSAValue, ...]], tuple[SSAValue, ...]]
"""From the gates of a step's input [N, kH] and the states, the output first, to the new states."""


class Sequence3(NamedTuple):
    """A sequence as [T · N, I], and its sizes."""

    rows: SSAValue
    steps: int
    batch: int
    time_major: bool


@tflite_importer("UNIDIRECTIONAL_SEQUENCE_LSTM", floats=True)
def lstm(node: Node) -> SSAValue:
    """With or without input gate (CIFG), peepholes, projection and clips. Layer norms are refused."""
    if any(node.has(LAYER_NORM + i) for i in range(4)):
        raise Unsupported("it normalises its gates (layer norm), and an LSTM without that is what can be imported")
    sequence = sequence_of(node)
    w, r = gate_matrix(node, INPUT_WEIGHTS), gate_matrix(node, RECURRENT_WEIGHTS)
    bias = gate_vector(node, BIASES, GATES)
    coupled = not node.has(INPUT_WEIGHTS)
    activation = node.word("FusedActivationFunction", "ActivationFunctionType", 0)
    if activation not in ACTIVATIONS:
        raise Unsupported(f"its activation {activation} is not supported; {' and '.join(ACTIVATIONS)} are")
    settings = {
        "g": ACTIVATIONS[activation], "h": ACTIVATIONS[activation], "input_forget": coupled,
        "cell_clip": float(node.option("CellClip", 0.0)),
    }  # fmt: skip
    recurrent, peepholes = node.literal(r, "recurrent weights"), peepholes_of(node, coupled)

    def step(x: SSAValue, states: tuple[SSAValue, ...]) -> tuple[SSAValue, ...]:
        output, cell = states
        sums = node.emit(graph.MatmulOp, output, recurrent)
        hidden, cell = node.emit_all(LstmCellOp, x, sums, cell, peepholes, **settings)
        return projected(node, hidden), cell

    rows = node.emit(graph.MatmulOp, sequence.rows, node.literal(w, "input weights"), node.literal(bias, "bias"))
    return unrolled(node, sequence, rows, step, (OUTPUT_STATE, CELL_STATE))


@tflite_importer("UNIDIRECTIONAL_SEQUENCE_RNN", floats=True)
def rnn(node: Node) -> SSAValue:
    """h' = activation(x Wᵀ + b + h Rᵀ)."""
    sequence = sequence_of(node)
    w, r = (node.constant(i, "its weights").T for i in (1, 2))
    plain: dict[str, Callable[[SSAValue], SSAValue]] = {
        "NONE": lambda x: x,
        "RELU": lambda x: node.emit(graph.ReluOp, x),
        "RELU_N1_TO_1": lambda x: node.emit(graph.ClampOp, x, low=-1.0, high=1.0),
        "RELU6": lambda x: node.emit(graph.ClampOp, x, low=0.0, high=6.0),
        "TANH": lambda x: node.emit(graph.TanhOp, x),
    }
    activation = node.word("FusedActivationFunction", "ActivationFunctionType", 0)
    if activation not in plain:
        raise Unsupported(f"its activation {activation} is not supported; {', '.join(plain)} are")
    recurrent = node.literal(r, "recurrent weights")

    def step(x: SSAValue, states: tuple[SSAValue, ...]) -> tuple[SSAValue, ...]:
        return (plain[activation](node.emit(graph.AddOp, x, node.emit(graph.MatmulOp, states[0], recurrent))),)

    rows = node.emit(graph.MatmulOp, sequence.rows, node.literal(w, "input weights"), node.operand(3))
    return unrolled(node, sequence, rows, step, (4,))


# --- weights ---------------------------------------------------------------------------------------------
def gate_matrix(node: Node, first: int) -> np.ndarray:
    """The weights [H, I] of four gates as [I, 4H] in the order i, o, f, c of the cell."""
    return np.concatenate([a.T for a in in_cell_order(node, first, GATES)], axis=1)


def gate_vector(node: Node, first: int, gates: str) -> np.ndarray:
    """Biases or peepholes [H] of some gates side by side."""
    return np.concatenate(in_cell_order(node, first, gates))


def in_cell_order(node: Node, first: int, gates: str) -> list[np.ndarray]:
    """The constants of gates in the order i, o, f, c.

    Without an input gate that is 1 − forget gate (CIFG). The cell couples them the other way round: its input gate
    takes the forget gate's sum negated, since 1 − σ(x) = σ(−x), and what it has as forget gate is not read.
    """
    found = {
        gate: node.constant(first + i, f"what its gate '{gate}' is computed with")
        for i, gate in enumerate(gates)
        if node.has(first + i) or gate != "i"
    }
    if "i" not in found:
        found["i"] = -found["f"]
    return [found[gate] for gate in "iofc" if gate in found]


def peepholes_of(node: Node, coupled: bool) -> SSAValue | None:
    """What the gates i, o, f read of the cell [3H], None where they read nothing."""
    given = [node.has(PEEPHOLES + i) for i in range(3)]
    if not any(given):
        return None
    if given[1:] != [True, True] or given[0] == coupled:
        raise Unsupported("some of its gates have peepholes and others none, and either all have or none")
    return node.literal(gate_vector(node, PEEPHOLES, "ifo"), "peepholes")


def projected(node: Node, hidden: SSAValue) -> SSAValue:
    """The output of a step: the hidden state, or its projection with bias and clip."""
    if not node.has(PROJECTION):
        return hidden
    weights = node.literal(node.constant(PROJECTION, "its projection").T, "projection")
    bias = node.operand(PROJECTION_BIAS) if node.has(PROJECTION_BIAS) else None
    value, clip = node.emit(graph.MatmulOp, hidden, weights, bias), float(node.option("ProjClip", 0.0))
    return node.emit(graph.ClampOp, value, low=-clip, high=clip) if clip else value


# --- unrolling -------------------------------------------------------------------------------------------
def sequence_of(node: Node) -> Sequence3:
    """The input as rows of all steps. Raises Unsupported for what cannot be unrolled."""
    shape, time_major = node.shape(0), bool(node.option("TimeMajor", False))
    if len(shape) != 3:
        raise Unsupported(f"its input is {list(shape)}, and a sequence has three axes")
    batch, steps = (shape[1], shape[0]) if time_major else shape[:2]
    if not 1 <= steps <= STEPS_LIMIT:
        raise Unsupported(
            f"its sequence has {steps} steps, and 1 to {STEPS_LIMIT} can be unrolled: "
            "convert the model for shorter sequences, since its state is carried from run to run"
        )
    x = node.operand(0)
    if not time_major:
        x = node.emit(graph.TransposeOp, x, permutation=(1, 0, 2))
    return Sequence3(node.reshape(x, (steps * batch, shape[2])), steps, batch, time_major)


def unrolled(
    node: Node, sequence: Sequence3, rows: SSAValue, step: Step, inputs: Sequence[int]
) -> SSAValue:
    """The outputs of all steps, [T, N, H] or [N, T, H]. `inputs` are the state tensors, which get the last states."""
    states = tuple(node.operand(i) for i in inputs)
    batch, width = sequence.batch, shape_of(rows)[1]
    outputs = []
    for t in range(sequence.steps):
        x = rows
        if sequence.steps > 1:
            x = node.emit(graph.SliceOp, rows, starts=(t * batch, 0), sizes=(batch, width), steps=(1, 1))
        states = step(x, states)
        outputs.append(states[0])
    for index, value in zip(inputs, states):
        node.write_state(index, value)
    size = shape_of(outputs[0])[1]
    shape, axis = ((1, batch, size), 0) if sequence.time_major else ((batch, 1, size), 1)
    parts = [node.reshape(h, shape) for h in outputs]
    return parts[0] if len(parts) == 1 else node.emit(graph.ConcatOp, *parts, axis=axis)
