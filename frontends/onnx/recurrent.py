"""Importers of LSTM, GRU and RNN: unrolled over time, in each direction.

One matrix product serves the inputs of all steps, biases with it; a step adds the product of the state and a cell
(dialects/graph_recurrent.py), or for RNN plain elementwise ops. Operator pages: https://onnx.ai/onnx/operators/.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from xdsl.ir import SSAValue

from ...dialects import graph
from ...dialects.declarative import floats_attribute
from ...dialects.graph_recurrent import GruCellOp, GruResetOp, LstmCellOp
from ...dialects.types import shape_of
from .node import Node
from .registry import Unsupported, Value, importer

STEPS_LIMIT = 1000
"""Steps that are unrolled; a program grows with each."""
DIRECTIONS = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}
"""Whether each direction goes from the last step to the first."""
X, W, R, B, LENGTHS, INITIAL_H, INITIAL_C, PEEPHOLES = range(8)
"""The inputs, in the order of all three operators as far as they have them."""
ACTIVATIONS = {
    "sigmoid": ("sigmoid", 0.0, 0.0),
    "tanh": ("tanh", 0.0, 0.0),
    "relu": ("relu", 0.0, 0.0),
    "hardsigmoid": ("hard_sigmoid", 0.2, 0.5),
    "leakyrelu": ("leaky_relu", 0.01, 0.0),
    "elu": ("elu", 1.0, 0.0),
    "affine": ("affine", 1.0, 0.0),
    "scaledtanh": ("scaled_tanh", 1.0, 1.0),
}
"""Our name, and ONNX's defaults of alpha and beta, by ONNX's name, whose case does not matter."""
PARAMETERS = {
    "hard_sigmoid": (True, True), "affine": (True, True), "scaled_tanh": (True, True),
    "leaky_relu": (True, False), "elu": (True, False),
}  # fmt: skip
"""Whether an activation takes an entry of activation_alpha and one of activation_beta."""


class Activation(NamedTuple):
    """An activation of a cell with its parameters."""

    name: str
    alpha: float
    beta: float


class Layer(NamedTuple):
    """What a node computes: sizes, and the activations of each direction."""

    steps: int
    batch: int
    inputs: int
    hidden: int
    gates: int
    directions: Sequence[bool]
    activations: Sequence[Sequence[Activation]]
    clip: float
    batch_first: bool


class Direction(NamedTuple):
    """One direction's weights, transposed for the products; arrays where they are constant.

    w [I, kH], r [H, kH], wb and rb [kH], peepholes [3H] or None, activations.
    """

    w: Value
    r: Value
    wb: Value
    rb: Value
    peepholes: Value | None
    activations: Sequence[Activation]


Step = Callable[[SSAValue, tuple[SSAValue, ...]], tuple[SSAValue, ...]]
"""From the gates of a step's input [N, kH] and the states [N, H], h first, to the new states."""


# --- operators -------------------------------------------------------------------------------------------
@importer("LSTM", since=7)
def lstm(node: Node) -> tuple[Value, ...]:
    """W, R and B hold the gates i, o, f, c; P the gates i, o, f."""
    layer = layer_of(node, gates=4, activations=("Sigmoid", "Tanh", "Tanh"))
    forget = {"input_forget": bool(node.attribute("input_forget"))}

    def step_of(d: Direction) -> tuple[Value, Step]:
        r, settings = as_operand(node, d.r, "R"), settings_of(layer, d.activations, "fgh") | forget
        peepholes = None if d.peepholes is None else as_operand(node, d.peepholes, "P")

        def step(x: SSAValue, states: tuple[SSAValue, ...]) -> tuple[SSAValue, ...]:
            h, c = states
            return node.emit_all(LstmCellOp, x, node.emit(graph.MatmulOp, h, r), c, peepholes, **settings)

        return total(node, d.wb, d.rb), step

    return unrolled(node, layer, step_of, states=(INITIAL_H, INITIAL_C))


@importer("GRU", since=7)
def gru(node: Node) -> tuple[Value, ...]:
    """W, R and B hold the gates z, r, h."""
    layer = layer_of(node, gates=3, activations=("Sigmoid", "Tanh"))
    reset_after = bool(node.attribute("linear_before_reset"))
    hidden = layer.hidden

    def step_of(d: Direction) -> tuple[Value, Step]:
        settings = settings_of(layer, d.activations, "fg")
        r_gates = as_operand(node, part(node, d.r, (0, 0), (hidden, 2 * hidden)), "R")
        r_candidate = as_operand(node, part(node, d.r, (0, 2 * hidden), (hidden, hidden)), "R")
        rb, inner = d.rb, None
        if reset_after:  # the reset gate takes the candidate's recurrent bias as well: it stays with that product
            inner = as_operand(node, part(node, rb, (2 * hidden,), (hidden,)), "B")
            rb = without(node, rb, 2 * hidden)

        def step(x: SSAValue, states: tuple[SSAValue, ...]) -> tuple[SSAValue, ...]:
            (h,) = states
            gates = node.emit(graph.MatmulOp, h, r_gates)
            read = h if reset_after else node.emit(GruResetOp, x, gates, h, **settings)
            candidate = node.emit(graph.MatmulOp, read, r_candidate, inner)
            return (node.emit(GruCellOp, x, gates, candidate, h, reset_after=reset_after, **settings),)

        return total(node, d.wb, rb), step

    return unrolled(node, layer, step_of, states=(INITIAL_H,))


@importer("RNN", since=7)
def rnn(node: Node) -> tuple[Value, ...]:
    """h' = f(x Wᵀ + b + h Rᵀ)."""
    layer = layer_of(node, gates=1, activations=("Tanh",))

    def step_of(d: Direction) -> tuple[Value, Step]:
        r = as_operand(node, d.r, "R")

        def step(x: SSAValue, states: tuple[SSAValue, ...]) -> tuple[SSAValue, ...]:
            gate = node.emit(graph.AddOp, x, node.emit(graph.MatmulOp, states[0], r))
            if layer.clip:
                gate = node.emit(graph.ClampOp, gate, low=-layer.clip, high=layer.clip)
            return (activated(node, gate, d.activations[0]),)

        return total(node, d.wb, d.rb), step

    return unrolled(node, layer, step_of, states=(INITIAL_H,))


def activated(node: Node, value: SSAValue, activation: Activation) -> SSAValue:
    """An activation as plain graph ops."""
    name, alpha, beta = activation
    plain: dict[str, tuple[type[graph.UnaryOp], dict[str, float]]] = {
        "sigmoid": (graph.SigmoidOp, {}),
        "tanh": (graph.TanhOp, {}),
        "relu": (graph.ReluOp, {}),
        "hard_sigmoid": (graph.HardSigmoidOp, {"alpha": alpha, "beta": beta}),
        "leaky_relu": (graph.LeakyReluOp, {"alpha": alpha}),
        "elu": (graph.EluOp, {"alpha": alpha}),
    }
    if name in plain:
        op, parameters = plain[name]
        return node.emit(op, value, **parameters)
    if name == "affine":
        scaled = node.emit(graph.MulOp, value, node.scalar(alpha, value))
        return node.emit(graph.AddOp, scaled, node.scalar(beta, value))
    inner = node.emit(graph.TanhOp, node.emit(graph.MulOp, value, node.scalar(beta, value)))  # scaled_tanh
    return node.emit(graph.MulOp, inner, node.scalar(alpha, value))


# --- reading a node --------------------------------------------------------------------------------------
def layer_of(node: Node, gates: int, activations: Sequence[str]) -> Layer:
    """Sizes and settings of a node. Raises Unsupported for what cannot be unrolled."""
    shape, batch_first = node.shape(X), bool(node.attribute("layout", 0))
    if len(shape) != 3:
        raise Unsupported(f"its input is {list(shape)}, and a sequence has three axes")
    steps, batch = (shape[1], shape[0]) if batch_first else shape[:2]
    word = node.attribute("direction")
    if word not in DIRECTIONS:
        raise Unsupported(f"its direction is '{word}'; {', '.join(DIRECTIONS)} are known")
    hidden = node.attribute("hidden_size") or node.shape(R)[-1]
    if not 1 <= steps <= STEPS_LIMIT:
        raise Unsupported(
            f"its sequence has {steps} steps, and 1 to {STEPS_LIMIT} can be unrolled: "
            "export the model for shorter sequences and carry the state from one to the next"
        )
    refuse_short_sequences(node, steps)
    directions = DIRECTIONS[word]
    named = activations_of(node, activations, len(directions))
    clip = node.attribute("clip", 0.0)
    return Layer(steps, batch, shape[2], hidden, gates, directions, named, clip, batch_first)


def refuse_short_sequences(node: Node, steps: int) -> None:
    """Only sequences of full length can be unrolled."""
    if not node.has(LENGTHS):
        return
    lengths = node.constant(LENGTHS, "the lengths of its sequences")
    if (lengths != steps).any():
        raise Unsupported(
            f"sequence_lens holds lengths other than the {steps} steps of its input: leave the input out, or cut "
            "the sequences to one length"
        )


def activations_of(node: Node, defaults: Sequence[str], directions: int) -> list[list[Activation]]:
    """The activations of each direction; alphas and betas are given in order to those that take one."""
    # The definition of RNN gives two defaults, whatever the direction: only what the model says counts.
    names = node.attribute("activations") if node.has_attribute("activations") else list(defaults) * directions
    if len(names) != len(defaults) * directions:
        raise Unsupported(f"it names {len(names)} activations, and {len(defaults) * directions} are needed")
    given = [list(node.attribute(f"activation_{which}") or []) for which in ("alpha", "beta")]
    found = []
    for name in names:
        if name.lower() not in ACTIVATIONS:
            known = "Sigmoid, Tanh, Relu, HardSigmoid, LeakyRelu, Elu, Affine and ScaledTanh"
            raise Unsupported(f"its activation {name} is not supported; {known} are")
        ours, *values = ACTIVATIONS[name.lower()]
        for i, takes in enumerate(PARAMETERS.get(ours, (False, False))):
            if takes and given[i]:
                values[i] = given[i].pop(0)
        found.append(Activation(ours, *values))
    each = len(defaults)
    return [found[i : i + each] for i in range(0, len(found), each)]


def settings_of(layer: Layer, activations: Sequence[Activation], roles: str) -> dict[str, Any]:
    """The parameters of a cell: its activations by role, and what belongs to them."""
    settings: dict[str, Any] = {role: a.name for role, a in zip(roles, activations)}
    if any(a.alpha or a.beta for a in activations):
        settings["alpha"] = floats_attribute([a.alpha for a in activations])
        settings["beta"] = floats_attribute([a.beta for a in activations])
    return settings | {"clip": float(layer.clip)}


def weights_of(node: Node, layer: Layer) -> Iterator[Direction]:
    """The weights of each direction. Raises Unsupported where they do not fit."""
    rows, count, hidden = layer.gates * layer.hidden, len(layer.directions), layer.hidden

    def given(index: int, what: str, *shape: int) -> Value:
        if node.shape(index) != (count, *shape):
            raise Unsupported(f"{what} are {list(node.shape(index))}, and should be {[count, *shape]}")
        return node.value(index)

    w, r = given(W, "its weights W", rows, layer.inputs), given(R, "its weights R", rows, hidden)
    b = given(B, "its biases B", 2 * rows) if node.has(B) else np.zeros((count, 2 * rows), np.float32)
    p = given(PEEPHOLES, "its peepholes P", 3 * hidden) if node.has(PEEPHOLES) else None
    for i, activations in enumerate(layer.activations):
        yield Direction(
            transposed(node, part(node, w, (i, 0, 0), (1, rows, layer.inputs), drop=True)),
            transposed(node, part(node, r, (i, 0, 0), (1, rows, hidden), drop=True)),
            part(node, b, (i, 0), (1, rows), drop=True),
            part(node, b, (i, rows), (1, rows), drop=True),
            None if p is None else part(node, p, (i, 0), (1, 3 * hidden), drop=True),
            activations,
        )


def as_operand(node: Node, value: Value, name: str) -> SSAValue:
    """A value; an array becomes a constant of that name."""
    return node.literal(value, name) if isinstance(value, np.ndarray) else value


def part(node: Node, value: Value, starts: Sequence[int], sizes: Sequence[int], drop: bool = False) -> Value:
    """A box of a value; `drop`: without its first axis, of size 1."""
    if isinstance(value, np.ndarray):
        box = value[tuple(slice(at, at + n) for at, n in zip(starts, sizes))]
        return box[0] if drop else box
    if shape_of(value) != tuple(sizes):
        value = node.emit(graph.SliceOp, value, starts=starts, sizes=sizes, steps=(1,) * len(sizes))
    return node.emit(graph.ReshapeOp, value, shape=tuple(sizes[1:])) if drop else value


def transposed(node: Node, value: Value) -> Value:
    """A matrix transposed."""
    return value.T if isinstance(value, np.ndarray) else node.emit(graph.TransposeOp, value, permutation=(1, 0))


def total(node: Node, a: Value, b: Value) -> Value:
    """The sum of two biases."""
    return a + b if isinstance(a, np.ndarray) and isinstance(b, np.ndarray) else node.emit(graph.AddOp, a, b)


def without(node: Node, bias: Value, start: int) -> Value:
    """A bias [kH] with zeros from `start` on."""
    size = bias.shape[0] if isinstance(bias, np.ndarray) else shape_of(bias)[0]
    kept = (np.arange(size) < start).astype(np.float32)
    return bias * kept if isinstance(bias, np.ndarray) else node.emit(graph.MulOp, bias, kept)


# --- unrolling -------------------------------------------------------------------------------------------
def unrolled(
    node: Node, layer: Layer, step_of: Callable[[Direction], tuple[Value, Step]], states: Sequence[int]
) -> tuple[Value, ...]:
    """Y [T, D, N, H] and the last states [D, N, H], batch first where the layout is 1; nothing for unused ones.

    step_of: the bias of the inputs' product and the step of a direction. states: inputs that hold initial states.
    """
    x = node.operand(X)
    if layer.batch_first:
        x = node.emit(graph.TransposeOp, x, permutation=(1, 0, 2))
    x = node.emit(graph.ReshapeOp, x, shape=(layer.steps * layer.batch, layer.inputs))
    sequences, lasts = [], []
    for index, (backwards, d) in enumerate(zip(layer.directions, weights_of(node, layer))):
        bias, step = step_of(d)
        rows = node.emit(graph.MatmulOp, x, as_operand(node, d.w, "W"), as_operand(node, bias, "B"))
        state = tuple(initial_state(node, layer, i, index) for i in states)
        hidden: list[SSAValue] = []
        for t in range(layer.steps):
            at = layer.steps - 1 - t if backwards else t
            state = step(step_rows(node, rows, at, layer), state)
            hidden.append(state[0])
        sequences.append(hidden[::-1] if backwards else hidden)
        lasts.append(state)
    used = [*node.used, *[False] * (len(states) + 1 - len(node.used))]
    unread = np.zeros(0, np.float32)
    y = whole_sequence(node, layer, sequences) if used[0] else unread
    ends = [
        last_state(node, layer, [s[i] for s in lasts]) if used[i + 1] else unread for i in range(len(states))
    ]
    return (y, *ends)[: len(node.proto.output)]


def step_rows(node: Node, rows: SSAValue, at: int, layer: Layer) -> SSAValue:
    """The gates [N, kH] of one step of [T · N, kH]."""
    if layer.steps == 1:
        return rows
    width = shape_of(rows)[1]
    return node.emit(graph.SliceOp, rows, starts=(at * layer.batch, 0), sizes=(layer.batch, width), steps=(1, 1))


def initial_state(node: Node, layer: Layer, index: int, direction: int) -> SSAValue:
    """The initial state [N, H] of a direction: a slice of the input, or zeros."""
    shape = (layer.batch, layer.hidden)
    if not node.has(index):
        return node.literal(np.zeros(shape, np.float32), "initial state")
    count = len(layer.directions)
    wanted = (layer.batch, count, layer.hidden) if layer.batch_first else (count, *shape)
    if node.shape(index) != wanted:
        raise Unsupported(f"its initial state is {list(node.shape(index))}, and should be {list(wanted)}")
    axis = 1 if layer.batch_first else 0
    whole = node.operand(index)
    if count > 1:
        sizes = tuple(1 if i == axis else n for i, n in enumerate(wanted))
        starts = tuple(direction if i == axis else 0 for i in range(3))
        whole = node.emit(graph.SliceOp, whole, starts=starts, sizes=sizes, steps=(1, 1, 1))
    return node.emit(graph.ReshapeOp, whole, shape=shape)


def whole_sequence(node: Node, layer: Layer, sequences: Sequence[Sequence[SSAValue]]) -> SSAValue:
    """Y: the hidden states of all steps and directions, each [N, H], as [T, D, N, H] or [N, T, D, H]."""
    n, hidden = layer.batch, layer.hidden
    shape, axis = ((n, 1, hidden), 1) if layer.batch_first else ((1, n, hidden), 0)
    parts = [node.emit(graph.ReshapeOp, h, shape=shape) for step in zip(*sequences) for h in step]
    joined = parts[0] if len(parts) == 1 else node.emit(graph.ConcatOp, *parts, axis=axis)
    count = len(sequences)
    whole = (n, layer.steps, count, hidden) if layer.batch_first else (layer.steps, count, n, hidden)
    return node.emit(graph.ReshapeOp, joined, shape=whole)


def last_state(node: Node, layer: Layer, states: Sequence[SSAValue]) -> SSAValue:
    """A state [N, H] of each direction as [D, N, H] or [N, D, H]."""
    shape, axis = (
        ((layer.batch, 1, layer.hidden), 1) if layer.batch_first else ((1, layer.batch, layer.hidden), 0)
    )
    parts = [node.emit(graph.ReshapeOp, s, shape=shape) for s in states]
    return parts[0] if len(parts) == 1 else node.emit(graph.ConcatOp, *parts, axis=axis)
