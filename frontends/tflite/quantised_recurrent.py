"""The importer of UNIDIRECTIONAL_SEQUENCE_LSTM in integers: int8 sequence, output and weights, int16 cell state.

The integers are those that LiteRT computes from the scales (tflite/kernels/unidirectional_sequence_lstm.cc), in its
order of float32 and float64. Both products of a gate are requantised on their own, that of the input to int16; the
rest is one qnn operation a step. As LiteRT's, gates and hidden state have no activations but σ and tanh.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from xdsl.ir import SSAValue

from ...dialects import qnn
from ...dialects.qnn_recurrent import CELL_BITS, LstmCellOp, NormLstmCellOp
from ...dialects.quant import QuantType, quantised, storage_range
from ...dialects.rounding import Rounding
from ...dialects.types import dtype_of, i8, i16, i32
from ...runtime.fixed_point import quantise_multiplier
from .node import Node, text_of
from .registry import Unsupported
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
    Sequence3,
    have_norms,
    have_peepholes,
    sequence_of,
    unrolled,
)

GATE_SCALE = np.float32(2.0**-12)
"""Of the gates' sums where no layer norm follows."""
GUARD = np.float32(10000)
"""Times a layer norm's scale: the variance that takes the place of one below 1."""
HIDDEN = 4
"""The hidden state among the intermediate tensors; the first four are the gates' sums before their layer norms."""


class Layer(NamedTuple):
    """What a file says of a layer. `gates`: indices into LiteRT's order, without the input gate where it is coupled."""

    sequence: QuantType
    output: QuantType
    cell: QuantType
    gates: tuple[int, ...]
    norm: bool
    scales: np.ndarray
    """float32, the units of the gates' sums by `gates`."""

    @property
    def coupled(self) -> bool:
        """Whether the input gate is 1 − forget gate."""
        return len(self.gates) == 3


def quantised_lstm(node: Node) -> SSAValue:
    """With or without input gate (CIFG), peepholes, layer norms, projection and clips."""
    layer = layer_of(node)
    sequence = sequence_of(node)
    gates = type_of_gates(layer, node.shape(CELL_STATE)[-1])
    biases = None if layer.norm else gate_vector(node, layer, BIASES, i32, "bias")
    low, high = storage_range(i16)
    rows = product(
        node, sequence.rows, gate_weights(node, layer, INPUT_WEIGHTS), layer.sequence.zero,
        factors(node, layer, INPUT_WEIGHTS, layer.sequence), biases, gates, low=low, high=high, to="i16",
    )  # fmt: skip
    weights = gate_weights(node, layer, RECURRENT_WEIGHTS)
    low, high = storage_range(i32)
    factor = factors(node, layer, RECURRENT_WEIGHTS, layer.output)
    projection = projection_of(node, layer)
    hidden = layer.output if projection is None else projection.hidden
    op, operands, settings = cell_of(node, layer, sequence)

    def step(x: SSAValue, states: tuple[SSAValue, ...]) -> tuple[SSAValue, ...]:
        output, cell = states
        sums = product(node, output, weights, layer.output.zero, factor, None, i32, low=low, high=high, to="i32")
        value, cell = node.emit_all(op, x, sums, cell, *operands, element=hidden, **settings)
        if projection is not None:
            value = projection.apply(value)
        return value, cell

    return unrolled(node, sequence, rows, step, (OUTPUT_STATE, CELL_STATE))


# --- what the file says ----------------------------------------------------------------------------------
def layer_of(node: Node) -> Layer:
    """Types and gates. Raises Unsupported for what LiteRT does not compute."""
    sequence, output, cell = node.quant(0), node.quant(OUTPUT_STATE), node.quant(CELL_STATE)
    if not sequence.storage == output.storage == node.result_quant().storage == i8 or cell.storage != i16:
        raise Unsupported(
            f"its sequence is {dtype_of(sequence)}, its output {dtype_of(node.result_quant())}, its states "
            f"{dtype_of(output)} and {dtype_of(cell)}; LiteRT computes int8 with a cell state of int16"
        )
    if cell.zero:
        raise Unsupported(f"its cell state '{node.input_name(CELL_STATE)}' is {text_of(cell)}; int16 is symmetric")
    given = [node.has(INPUT_WEIGHTS), node.has(RECURRENT_WEIGHTS), node.has(BIASES)]
    if any(given) != all(given):
        raise Unsupported("its input gate has some of input weights, recurrent weights and bias, and not all of them")
    gates = tuple(range(0 if all(given) else 1, 4))
    norm = have_norms(node, coupled=len(gates) == 3)
    scales = [node.intermediate(i).scales[0] if norm else GATE_SCALE for i in gates]
    return Layer(sequence, output, cell, gates, norm, np.array(scales, np.float32))


def cell_bits(node: Node, cell: QuantType) -> int:
    """The integer bits of the cell state, whose scale is a power of two as LiteRT understands it."""
    exponent = np.log2(np.float32(cell.scale))
    bits = 15 + int(np.round(exponent))
    if abs(exponent - np.round(exponent)) >= 1e-3 or not 0 <= bits <= CELL_BITS:
        raise Unsupported(
            f"its cell state '{node.input_name(CELL_STATE)}' is {text_of(cell)}; LiteRT's tanh takes the powers of two "
            f"from 2^-15 to 2^{CELL_BITS - 15}"
        )
    return bits


def symmetric(node: Node, index: int, storage: Any) -> QuantType:
    """The type of an input with one scale and no zero point, stored as expected."""
    type_ = node.quant(index)
    if type_.storage != storage or type_.zero:
        raise Unsupported(f"'{node.input_name(index)}' is {text_of(type_)}; here it is a symmetric {storage}")
    return type_


def gate_weights(node: Node, layer: Layer, first: int) -> SSAValue:
    """The weights [H, I] of the gates as [I, kH], a scale a column."""
    parts = [node.constant(first + i, f"what its gate '{GATES[i]}' is computed with") for i in layer.gates]
    if any(part.ndim != 2 or part.shape != parts[0].shape for part in parts):
        name = node.input_name(first + layer.gates[0])
        raise Unsupported(f"the weights of its gates, from '{name}' on, are no matrices of one shape")
    scales = [symmetric(node, first + i, i8).scale for i in layer.gates]
    columns = np.repeat(np.array(scales, np.float32), parts[0].shape[0])
    element = quantised(i8, columns.tolist(), 0, 1)
    return node.literal(np.concatenate([a.T for a in parts], axis=1), node.input_name(first + layer.gates[0]), element)


def gate_vector(node: Node, layer: Layer, first: int, storage: Any, name: str) -> SSAValue:
    """A vector [H] of each gate side by side, as stored."""
    parts = []
    for i in layer.gates:
        parts.append(node.constant(first + i, f"the {name} of its gate '{GATES[i]}'"))
        if dtype_of(node.element(first + i)) != dtype_of(storage):
            raise Unsupported(f"'{node.input_name(first + i)}' is {node.element(first + i)}, and not {storage}")
    whole, element = np.concatenate(parts), storage
    if storage == i16:
        scales = [symmetric(node, first + i, i16).scale for i in layer.gates]
        element = quantised(i16, np.repeat(scales, len(parts[0])).tolist(), 0, 0)
    return node.literal(whole, name, element)


def type_of_gates(layer: Layer, hidden: int) -> QuantType:
    """int16 in the units of the gates' sums, a scale a column where they differ."""
    if not layer.norm:
        return quantised(i16, float(GATE_SCALE))
    return quantised(i16, np.repeat(layer.scales, hidden).tolist(), 0, 1)


# --- products --------------------------------------------------------------------------------------------
def factors(node: Node, layer: Layer, first: int, operand: QuantType) -> tuple[SSAValue, SSAValue]:
    """Multipliers and shifts [kH] of the gates' products with an operand, in float32."""
    columns = []
    for i, unit in zip(layer.gates, layer.scales):
        weight = np.float32(node.quant(first + i).scale)
        columns.append(np.repeat(weight * np.float32(operand.scale) / unit, node.shape(first + i)[0]))
    return node.multiplier(np.concatenate(columns))


def product(
    node: Node, a: SSAValue, b: SSAValue, zero: int, factor: tuple[SSAValue, SSAValue], bias: SSAValue | None,
    element: Any, **settings: Any,
) -> SSAValue:  # fmt: skip
    """A product of rows with a zero point and symmetric weights."""
    return node.emit(
        qnn.MatmulOp, a, b, *factor, bias, element=element, a_zero=zero, rounding=int(Rounding.DOUBLE), **settings
    )


class Projection(NamedTuple):
    """From the hidden state, of the given type, to the output."""

    hidden: QuantType
    apply: Callable[[SSAValue], SSAValue]


def projection_of(node: Node, layer: Layer) -> Projection | None:
    """None where the hidden state is the output."""
    if not node.has(PROJECTION):
        return None
    inside = node.intermediate(HIDDEN)
    scale, zero = float(inside.scales[0]), -int(inside.zeros[0])  # LiteRT stores with the zero point's negative
    low, high = storage_range(i8)
    if not low <= zero <= high:
        raise Unsupported(
            f"its hidden state has the zero point {-zero}, and LiteRT's has the negative, which int8 does not hold"
        )
    type_ = symmetric(node, PROJECTION, i8)
    weights = node.literal(node.constant(PROJECTION, "its projection").T, "projection", quantised(i8, type_.scale))
    bias = None
    if node.has(PROJECTION_BIAS):
        if node.element(PROJECTION_BIAS) != i32:
            raise Unsupported(f"'{node.input_name(PROJECTION_BIAS)}' is {node.element(PROJECTION_BIAS)}, and not i32")
        bias = node.operand(PROJECTION_BIAS)
    real = np.float32(type_.scale) * np.float32(scale) / np.float32(layer.output.scale)
    clip = clip_of(node, "ProjClip", node.result_quant(), i8)
    factor = node.multiplier(float(real))
    clamp = {"low": -clip if clip else low, "high": clip if clip else high}

    def apply(hidden: SSAValue) -> SSAValue:
        return product(
            node, hidden, weights, zero, factor, bias, layer.output, ofm_zero=layer.output.zero, **clamp
        )  # fmt: skip

    return Projection(quantised(i8, scale, zero), apply)


def clip_of(node: Node, option: str, type_: QuantType, storage: Any) -> int:
    """The stored magnitude of a clip, truncated; 0 for no clip. It bounds stored integers, whatever the zero point."""
    real = np.float32(node.option(option, 0.0))
    return int(min(real / np.float32(type_.scale), np.float32(storage_range(storage)[1]))) if real > 0 else 0


# --- the cell --------------------------------------------------------------------------------------------
def cell_of(node: Node, layer: Layer, sequence: Sequence3) -> tuple[type, list[SSAValue], dict[str, Any]]:
    """The operation of a step, its operands behind the cell state, and its parameters."""
    inside = node.intermediate(HIDDEN)
    real = np.float32(2.0**-15 / float(inside.scales[0]) * 2.0**-15)
    multiplier, shift = integers(node, [real])
    zero = int(inside.zeros[0]) * (-1 if node.has(PROJECTION) else 1)
    settings: dict[str, Any] = {
        "input_forget": layer.coupled, "cell_bits": cell_bits(node, layer.cell),
        "cell_clip": clip_of(node, "CellClip", layer.cell, i16), "hidden_multiplier": multiplier[0],
        "hidden_shift": shift[0], "hidden_zero": zero,
    }  # fmt: skip
    operands = []
    if layer.norm:
        operands = [
            gate_vector(node, layer, LAYER_NORM, i16, "layer norm"), gate_vector(node, layer, BIASES, i32, "bias")
        ]  # fmt: skip
        settings |= norm_settings(node, layer)
    if have_peepholes(node, layer.coupled):
        operands.append(peepholes(node, layer, sequence))
        settings |= peephole_settings(node, layer)
    return NormLstmCellOp if layer.norm else LstmCellOp, operands, settings


def integers(node: Node, reals: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Multipliers and shifts of real factors."""
    multiplier, shift = quantise_multiplier(np.asarray(reals, np.float64))
    if shift.max() > 30:
        raise Unsupported(f"its scales ask for a factor of {np.max(reals):g}, and the largest is 2^30")
    return tuple(multiplier.tolist()), tuple(shift.tolist())


def norm_settings(node: Node, layer: Layer) -> dict[str, Any]:
    """Parameters of the layer norms; their results are in units of 2^-12."""
    scales = np.array([node.quant(LAYER_NORM + i).scale for i in layer.gates], np.float32)
    multiplier, shift = integers(node, scales)
    guard = tuple(max(1, int(v)) for v in GUARD * scales)
    return {"norm_multiplier": multiplier, "norm_shift": tuple(s + 12 for s in shift), "guard": guard}


def of_peepholes(layer: Layer) -> list[tuple[int, np.float32]]:
    """Input and gate's units of each peephole that the layer has: i, f, o."""
    units = dict(zip(layer.gates, layer.scales))
    return [(PEEPHOLES + i, units[gate]) for i, gate in enumerate((0, 1, 3)) if gate in units]


def peephole_settings(node: Node, layer: Layer) -> dict[str, Any]:
    """Factors of the products with the cell state, in float64 of a power of two and float32."""
    power = 2.0 ** (cell_bits(node, layer.cell) - 15)
    reals = [np.float32(power * node.quant(i).scale / float(unit)) for i, unit in of_peepholes(layer)]
    multiplier, shift = integers(node, reals)
    return {"peephole_multiplier": multiplier, "peephole_shift": shift}


def peepholes(node: Node, layer: Layer, sequence: Sequence3) -> SSAValue:
    """The peepholes [1 or N, (k − 1) H].

    LiteRT walks through [N, H] of the cell state in rows of the output's size O. With a projection to fewer elements
    the weights beyond O are not read, nor is the cell state's end; in a time-major batch that is one walk through all
    rows, so that a row's weights are not its neighbour's.
    """
    hidden, size = node.shape(CELL_STATE)[-1], node.shape(OUTPUT_STATE)[-1]
    if size > hidden:
        raise Unsupported(f"its projection makes {size} elements of {hidden}, and LiteRT reads as many peepholes")
    rows = sequence.batch if sequence.time_major and size < hidden else 1
    parts, scales = [], []
    for index, _ in of_peepholes(layer):
        array = node.constant(index, "its peepholes")
        if array.shape != (hidden,):
            raise Unsupported(f"'{node.input_name(index)}' is {list(array.shape)}, and not [{hidden}]")
        scales.append(symmetric(node, index, i16).scale)
        walked = np.zeros(rows * hidden, np.int16)
        walked[: rows * size] = np.tile(array[:size], rows)
        parts.append(walked.reshape(rows, hidden))
    element = quantised(i16, np.repeat(scales, hidden).tolist(), 0, 1)
    return node.literal(np.concatenate(parts, axis=1), "peepholes", element)
