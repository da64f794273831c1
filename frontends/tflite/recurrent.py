"""Importers of recurrent sequences in floats, unrolled over time; their state tensors are states of the module.

Gates and formulas are those of LiteRT's reference kernel (tflite/kernels/lstm_eval.cc, internal/reference).
Integers are next door, in quantised_recurrent.py.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from xdsl.ir import SSAValue

from ...dialects import graph
from ...dialects.graph_recurrent import LstmCellOp
from .node import Node
from .quantised_recurrent import quantised_lstm
from .registry import Unsupported, tflite_importer
from .unrolling import (
    BIASES,
    CELL_STATE,
    GATES,
    INPUT_WEIGHTS,
    LAYER_NORM,
    OUTPUT_STATE,
    PEEPHOLES,
    PROJECTION,
    PROJECTION_BIAS,
    RECURRENT_WEIGHTS,
    have_peepholes,
    sequence_of,
    unrolled,
)

ACTIVATIONS = {"RELU": "relu", "TANH": "tanh"}
"""A cell's name of an activation. Without one LiteRT multiplies the output gate with a gate of the step, which is
whatever its scratch memory holds: there is nothing to agree with."""


@tflite_importer("UNIDIRECTIONAL_SEQUENCE_LSTM")
def lstm(node: Node) -> SSAValue:
    """With or without input gate (CIFG), peepholes, projection and clips; layer norms in integers alone."""
    if node.is_quantised(0):
        return quantised_lstm(node)
    refuse_hybrid(node)
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


def refuse_hybrid(node: Node) -> None:
    """Weights of a float sequence are floats too."""
    for index in range(len(node.inputs)):
        if node.has(index) and node.is_quantised(index):
            raise Unsupported(
                f"its sequence is {node.element(0)} and '{node.input_name(index)}' quantised: dynamic-range "
                "quantisation cannot be imported; convert the model in float or with full integer quantisation"
            )


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
    if not have_peepholes(node, coupled):
        return None
    return node.literal(gate_vector(node, PEEPHOLES, "ifo"), "peepholes")


def projected(node: Node, hidden: SSAValue) -> SSAValue:
    """The output of a step: the hidden state, or its projection with bias and clip."""
    if not node.has(PROJECTION):
        return hidden
    weights = node.literal(node.constant(PROJECTION, "its projection").T, "projection")
    bias = node.operand(PROJECTION_BIAS) if node.has(PROJECTION_BIAS) else None
    value, clip = node.emit(graph.MatmulOp, hidden, weights, bias), float(node.option("ProjClip", 0.0))
    return node.emit(graph.ClampOp, value, low=-clip, high=clip) if clip else value
