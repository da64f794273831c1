"""Quantisation of elementwise ops: tables for functions of one value, clamps, TFLite's ADD, SUB and MUL."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from xdsl.ir import SSAValue

from ...dialects import graph, qnn
from ...dialects.quant import QuantType
from ...runtime.kernel import evaluate
from ...runtime.kernels.quantised_elementwise import (
    add_parameters,
    dequantise,
    lookup,
    mul_parameters,
    quantise,
    table,
)
from ..pattern import scalar_of
from .parameters import stored
from .quantiser import Quantiser
from .ranges import Range
from .rules import Kind, quantises

Function = Callable[[np.ndarray], np.ndarray]

FAITHFUL_DB = 20.0
"""A table whose signal-to-noise ratio over the calibrated range is below this stays a float op."""


# --- functions of one value ------------------------------------------------------------------------------
@quantises(graph.UnaryOp)
def unary(op: graph.UnaryOp, q: Quantiser) -> SSAValue | None:
    """A table of 256 entries, made by the op's own float kernel."""
    return emit_table(q, lambda x: evaluate(op, x)[0], op.input, op.result)


def emit_table(q: Quantiser, function: Function, operand: SSAValue, result: SSAValue) -> SSAValue | None:
    """result = function(operand) by table; None where eight bits do not do the function justice."""
    source = q.input(operand)
    entries, type_ = table_of(function, q.range(operand), q.type(source), q.result_type(result))
    if fidelity(function, entries, q.range(operand), q.type(source), type_) < FAITHFUL_DB:
        return None
    return q.add(qnn.TableOp.make(source, q.constant(entries, element=type_), element=type_))


def table_of(
    function: Function, calibrated: Range, source: QuantType, result: QuantType
) -> tuple[np.ndarray, QuantType]:
    """The entries of a table, and their type. Where the function is not finite, the range's end stands in."""

    def tamed(x: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            at_ends = function(np.clip(x, calibrated.low, calibrated.high).astype(np.float32))
            y = function(x)
        return np.nan_to_num(np.where(np.isfinite(y), y, at_ends))

    dtype = np.dtype(np.int8 if source.data.low < 0 else np.uint8)
    return table(tamed, source.scale, source.zero, result.scale, result.zero, dtype), result


def fidelity(
    function: Function, entries: np.ndarray, calibrated: Range, source: QuantType, result: QuantType
) -> float:
    """Signal to noise in dB of a table on reals spread evenly over the calibrated range."""
    x = np.linspace(calibrated.low, calibrated.high, 4096).astype(np.float32)
    with np.errstate(all="ignore"):
        wanted = function(x).astype(np.float64)
    if not np.isfinite(wanted).all():
        return -np.inf
    integers = lookup(quantise(x, source.scale, source.zero, entries.dtype), entries)
    noise = np.square(wanted - dequantise(integers, result.scale, result.zero)).sum()
    signal = np.square(wanted).sum()
    return np.inf if noise == 0 else float(10 * np.log10(max(signal, 1e-300) / noise))


@quantises(graph.ReluOp, graph.ClampOp, kind=Kind.CLIPS)
def clip(op: graph.ReluOp | graph.ClampOp, q: Quantiser) -> SSAValue | None:
    """A clamp in the operand's type, which loses nothing; a table where another type is asked for."""
    source = q.input(op.operands[0])
    type_ = q.type(source)
    demanded = q.demanded(op.result)
    if demanded is not None and demanded != type_:
        return emit_table(q, lambda x: evaluate(op, x)[0], op.operands[0], op.result)
    p = op.parameters()
    ends = stored(np.array([p.get("low", 0.0), p.get("high", np.inf)]), type_)
    return q.add(qnn.ClampOp.make(source, element=type_, low=int(ends[0]), high=int(ends[1])))


# --- functions of two values -----------------------------------------------------------------------------
def only_operand(op: graph.BinaryOp) -> tuple[SSAValue, Function] | None:
    """A binary op with a scalar constant is a function of its other operand."""
    a, b = scalar_of(op.a), scalar_of(op.b)
    if b is not None and a is None and same_shape(op.a, op.result):
        return op.a, lambda x: evaluate(op, x, np.full((), b, np.float32))[0]
    if a is not None and b is None and same_shape(op.b, op.result):
        return op.b, lambda x: evaluate(op, np.full((), a, np.float32), x)[0]
    return None


def same_shape(a: SSAValue, b: SSAValue) -> bool:
    return a.type == b.type


@quantises(graph.PowOp, graph.PreluOp, when=lambda op: only_operand(op) is not None)
def by_scalar(op: graph.BinaryOp, q: Quantiser) -> SSAValue | None:
    """A table."""
    found = only_operand(op)
    assert found is not None
    return emit_table(q, found[1], found[0], op.result)


@quantises(graph.AddOp, graph.SubOp)
def add_or_sub(op: graph.AddOp | graph.SubOp, q: Quantiser) -> SSAValue | None:
    """TFLite's ADD or SUB; with a scalar, a table."""
    if (found := only_operand(op)) is not None:
        return emit_table(q, found[1], found[0], op.result)
    a, b, result = q.input(op.a), q.input(op.b), q.result_type(op.result)
    left, right = q.type(a), q.type(b)
    rescale = add_parameters(
        left.scale, left.zero, right.scale, right.zero, result.scale, result.zero, q.dtype
    )
    subtract = isinstance(op, graph.SubOp)
    return q.add(qnn.AddOp.make(a, b, element=result, rescale=tuple(rescale), subtract=subtract))


@quantises(graph.MulOp)
def mul(op: graph.MulOp, q: Quantiser) -> SSAValue | None:
    """TFLite's MUL; with a scalar, a table."""
    if (found := only_operand(op)) is not None:
        return emit_table(q, found[1], found[0], op.result)
    return emit_mul(q, q.input(op.a), q.input(op.b), q.result_type(op.result))


def emit_mul(q: Quantiser, a: SSAValue, b: SSAValue, result: QuantType) -> SSAValue:
    """A qnn.mul of two quantised values."""
    left, right = q.type(a), q.type(b)
    p = mul_parameters(left.scale, left.zero, right.scale, right.zero, result.scale, result.zero, q.dtype)
    integers = {"a_zero": p.zero_a, "b_zero": p.zero_b, "ofm_zero": p.zero_out, "low": p.low, "high": p.high}
    return q.add(qnn.MulOp.make(a, b, element=result, multiplier=p.multiplier, shift=p.shift, **integers))


@quantises(graph.DivOp, when=lambda op: only_operand(op) is not None or divides_by_constant(op))
def div(op: graph.DivOp, q: Quantiser) -> SSAValue | None:
    """By a scalar, or of one: a table; by another constant: a multiplication with its reciprocal."""
    if (found := only_operand(op)) is not None:
        return emit_table(q, found[1], found[0], op.result)
    divisor = graph.constant_of(op.b)
    assert divisor is not None
    reciprocal = (1 / divisor.astype(np.float64)).astype(np.float32)
    return emit_mul(q, q.input(op.a), q.constant_near(reciprocal), q.result_type(op.result))


def divides_by_constant(op: graph.DivOp) -> bool:
    """Whether the divisor is a constant without zeros (nor such small values that 1 / x overflows)."""
    divisor = graph.constant_of(op.b)
    return divisor is not None and bool((np.abs(divisor) > np.finfo(np.float32).tiny).all())
