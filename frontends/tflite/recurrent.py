"""Importers of recurrent sequences in floats, unrolled over time; their state tensors are states of the module.

Gates and formulas are those of LiteRT's reference kernel (tflite/kernels/lstm_eval.cc, internal/reference).
Integers are next door, in quantised_recurrent.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from xdsl.ir import SSAValue

from ...dialects import graph
from ...dialects.declarative import DeclarativeOp
from ...dialects.graph_recurrent import LstmCellOp
from ...dialects.types import shape_of
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
    have_norms,
    have_peepholes,
    sequence_of,
    unrolled,
)

ACTIVATIONS = {"RELU": "relu", "TANH": "tanh"}
"""A cell's name of an activation. Without one LiteRT multiplies the output gate with a gate of the step, which is
whatever its scratch memory holds: there is nothing to agree with."""
LSTM_WEIGHTS = (*range(INPUT_WEIGHTS, BIASES), PROJECTION)
"""What an LSTM of dynamic-range quantisation has in int8: the matrices and the peepholes."""
FUNCTIONS: dict[str, type[DeclarativeOp]] = {"relu": graph.ReluOp, "tanh": graph.TanhOp}


@tflite_importer("UNIDIRECTIONAL_SEQUENCE_LSTM", weights=LSTM_WEIGHTS)
def lstm(node: Node) -> SSAValue:
    """With or without input gate (CIFG), peepholes, layer norms, projection and clips."""
    if node.is_quantised(0):
        return quantised_lstm(node)
    refuse_mixed(node)
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
    recurrent, weights = node.literal(r, "recurrent weights"), node.literal(w, "input weights")
    layer: Normalised | None = None
    if have_norms(node, coupled):
        layer = Normalised(node, coupled, bias, settings)
        rows = node.emit(graph.MatmulOp, sequence.rows, weights)
    else:
        peepholes = peepholes_of(node, coupled)
        rows = node.emit(graph.MatmulOp, sequence.rows, weights, node.literal(bias, "bias"))

    def step(x: SSAValue, states: tuple[SSAValue, ...]) -> tuple[SSAValue, ...]:
        output, cell = states
        sums = node.emit(graph.MatmulOp, output, recurrent)
        if layer is None:
            hidden, cell = node.emit_all(LstmCellOp, x, sums, cell, peepholes, **settings)
        else:
            hidden, cell = layer.step(node.emit(graph.AddOp, x, sums), cell)
        return projected(node, hidden), cell

    return unrolled(node, sequence, rows, step, (OUTPUT_STATE, CELL_STATE))


class Normalised:
    """The cells of a layer whose gates go through layer norms, biases behind them, before their activations.

    The sums lie side by side in the cell's order i, o, f, c. A peephole of o reads the cell state after the step, so
    that gate and what follows it are by themselves there.
    """

    def __init__(self, node: Node, coupled: bool, bias: np.ndarray, settings: dict[str, Any]):
        self.node, self.settings = node, settings
        parts = in_cell_order(node, LAYER_NORM, GATES)
        if coupled:
            parts[0] = parts[2]  # the sums of the forget gate are negated there, and so are the results of its norm
        self.hidden = len(parts[0])
        biases = bias.reshape(4, self.hidden)
        self.whole = node.literal(np.stack(parts), "layer norms"), node.literal(biases, "bias")
        self.peepholes: SSAValue | None = None
        if have_peepholes(node, coupled):
            i, o, f = in_cell_order(node, PEEPHOLES, "ifo")
            self.peepholes = node.literal(np.concatenate([i, 0 * o, f, 0 * o]), "peepholes")
            self.output = node.literal(o, "peephole"), node.literal(parts[1], "norm"), node.literal(biases[1], "bias")

    def step(self, sums: SSAValue, cell: SSAValue) -> tuple[SSAValue, SSAValue]:
        """Hidden state and new cell state from the gates' sums [N, 4H]."""
        node, (rows, width) = self.node, shape_of(sums)
        before = sums
        if self.peepholes is not None:
            cells = node.emit(graph.ConcatOp, cell, cell, cell, cell, axis=1)
            sums = node.emit(graph.AddOp, sums, node.emit(graph.MulOp, cells, self.peepholes))
        apart = node.reshape(sums, (rows, 4, self.hidden))
        gates = node.reshape(self.norm(apart, *self.whole), (rows, width))
        nothing = node.literal(np.zeros((rows, width), np.float32), "nothing")
        hidden, cell = node.emit_all(LstmCellOp, gates, nothing, cell, **self.settings)
        if self.peepholes is None:
            return hidden, cell
        peephole, scale, bias = self.output
        mine = node.emit(graph.SliceOp, before, starts=(0, self.hidden), sizes=(rows, self.hidden), steps=(1, 1))
        total = node.emit(graph.AddOp, mine, node.emit(graph.MulOp, cell, peephole))
        gate = node.emit(graph.SigmoidOp, self.norm(total, scale, bias))
        return node.emit(graph.MulOp, gate, node.emit(FUNCTIONS[self.settings["h"]], cell)), cell

    def norm(self, x: SSAValue, scale: SSAValue, bias: SSAValue) -> SSAValue:
        """LiteRT's norm over the last axis."""
        return self.node.emit(graph.LayerNormOp, x, scale, bias, axis=len(shape_of(x)) - 1, epsilon=1e-8)


def refuse_mixed(node: Node) -> None:
    """Beside a float sequence all is float, weights of int8 having become so."""
    for index in range(len(node.inputs)):
        if node.has(index) and node.is_quantised(index):
            raise Unsupported(
                f"its sequence is {node.element(0)} and '{node.input_name(index)}' quantised, which is no quantisation "
                "that TFLite has: convert the model in float or with full integer quantisation"
            )


@tflite_importer("UNIDIRECTIONAL_SEQUENCE_RNN", floats=True, weights=(1, 2))
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
