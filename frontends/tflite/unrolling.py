"""What importers of recurrent operators share: sequences unrolled over time, whose state tensors are states of the
module, and the inputs of an LSTM.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from xdsl.ir import SSAValue

from ...dialects import graph
from ...dialects.types import shape_of
from .node import Node
from .registry import Unsupported

STEPS_LIMIT = 1000
"""Steps that are unrolled; a program grows with each."""

GATES = "ifco"
"""LiteRT's order of an LSTM's gates: input, forget, cell, output."""
INPUT_WEIGHTS, RECURRENT_WEIGHTS, PEEPHOLES, BIASES = 1, 5, 9, 12
PROJECTION, PROJECTION_BIAS, OUTPUT_STATE, CELL_STATE, LAYER_NORM = 16, 17, 18, 19, 20
"""Inputs of UNIDIRECTIONAL_SEQUENCE_LSTM; the first four and the last begin a run of gates (peepholes: i, f, o)."""

Step = Callable[[SSAValue, tuple[SSAValue, ...]], tuple[SSAValue, ...]]
"""From the gates of a step's input [N, kH] and the states, the output first, to the new states."""


class Sequence3(NamedTuple):
    """A sequence as [T · N, I], and its sizes."""

    rows: SSAValue
    steps: int
    batch: int
    time_major: bool


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


def have_norms(node: Node, coupled: bool) -> bool:
    """Whether the gates of an LSTM are normalised; `coupled`: it has no input gate. All of them are, or none."""
    given = [node.has(LAYER_NORM + i) for i in range(4)]
    if any(given) and given != [not coupled, True, True, True]:
        raise Unsupported("some of its gates have layer norms and others none, and either all have or none")
    return any(given)


def have_peepholes(node: Node, coupled: bool) -> bool:
    """Whether the gates of an LSTM read the cell; `coupled`: it has no input gate. All of them do, or none."""
    given = [node.has(PEEPHOLES + i) for i in range(3)]
    if not any(given):
        return False
    if given[1:] != [True, True] or given[0] == coupled:
        raise Unsupported("some of its gates have peepholes and others none, and either all have or none")
    return True
