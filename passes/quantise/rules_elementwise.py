"""Quantisation of elementwise ops: tables for functions of one value, clamps, TFLite's ADD, SUB and MUL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from xdsl.ir import Operation, SSAValue

from ...dialects import graph, qnn
from ...dialects.quant import QuantType
from ...dialects.types import dtype_of, i16, shape_of
from ...runtime.kernel import evaluate
from ...runtime.kernels.quantised_elementwise import (
    add_parameters,
    dequantise,
    lookup,
    mul_parameters,
    prelu_parameters,
    quantise,
    table,
)
from ...runtime.kernels.quantised_table16 import table16
from ..pattern import constant_along, scalar_of
from .apply_table import DTYPE, attribute
from .parameters import stored
from .quantiser import Quantiser
from .ranges import Range
from .rules import Kind, quantises
from .rules_linear import per_channel

Function = Callable[[np.ndarray], np.ndarray]

# --- functions of one value ------------------------------------------------------------------------------
class Curve(NamedTuple):
    """A value as a function of one other value, element by element."""

    source: SSAValue
    function: Function

    def then(self, outer: Function) -> Curve:
        inner = self.function
        return Curve(self.source, lambda x: outer(inner(x)))


@quantises(graph.UnaryOp)
def unary(op: graph.UnaryOp, q: Quantiser) -> SSAValue | None:
    """A table, made by the op's own float kernel."""
    curve = curve_of(op)
    return None if curve is None else emit_table(q, curve, op.result)


def curve_of(op: graph.UnaryOp | graph.BinaryOp) -> Curve | None:
    """An op as a function of one value: unary, with a scalar constant, or of two values with one source, as
    x · sigmoid(x). Functions below that serve only this op are taken in; None for an op of two values."""
    step = step_of(op)
    if step is None:
        return meeting(op) if isinstance(op, graph.BinaryOp) else None
    while step.source.has_one_use() and not clips(step.source.owner) and same_dtype(step.source.owner, op):
        below = step_of(step.source.owner)
        if below is None:
            return step
        step = below.then(step.function)
    return step


def same_dtype(below: object, op: Operation) -> bool:
    """Whether a quantisation table leaves both ops one type, so that one table of integers may serve both."""
    return isinstance(below, Operation) and attribute(below, DTYPE) == attribute(op, DTYPE)


def clips(op: object) -> bool:
    """Whether an op is an activation that belongs to what is below it."""
    return isinstance(op, (graph.ReluOp, graph.ClampOp))


def step_of(op: object) -> Curve | None:
    """A unary op, or a binary one with a scalar constant, as a function of its other operand."""
    if isinstance(op, graph.UnaryOp):
        return Curve(op.input, lambda x: evaluate(op, x)[0])
    if not isinstance(op, graph.BinaryOp):
        return None
    a, b = scalar_of(op.a), scalar_of(op.b)
    if b is not None and a is None and op.a.type == op.result.type:
        return Curve(op.a, lambda x: evaluate(op, x, np.full((), b, np.float32))[0])
    if a is not None and b is None and op.b.type == op.result.type:
        return Curve(op.b, lambda x: evaluate(op, np.full((), a, np.float32), x)[0])
    return None


def meeting(op: graph.BinaryOp) -> Curve | None:
    """The nearest value of which both operands are functions."""
    left, right = list(descent(op.a, op)), list(descent(op.b, op))
    for a in left:
        for b in right:
            if a.source is b.source and a.source.type == op.result.type:
                return Curve(a.source, both(op, a.function, b.function))
    return None


def both(op: graph.BinaryOp, a: Function, b: Function) -> Function:
    """x -> op(a(x), b(x))."""
    return lambda x: evaluate(op, a(x), b(x))[0]


def descent(value: SSAValue, op: Operation) -> Iterator[Curve]:
    """A value as a function of itself, of the value below, and so on, through ops of the type of `op`."""
    curve: Curve | None = Curve(value, lambda x: x)
    while curve is not None:
        yield curve
        below = step_of(curve.source.owner) if same_dtype(curve.source.owner, op) else None
        curve = None if below is None else below.then(curve.function)


def emit_table(q: Quantiser, curve: Curve, result: SSAValue) -> SSAValue | None:
    """A value by table; None where its entries, of whatever scale, do not do the function justice."""
    below = q.origins.get(curve.source, curve.source)  # the ops between may have stayed float, behind a dcast
    source, calibrated = q.input(below), q.range(below)
    own, type_ = q.type_of_range(result), q.result_type(result)
    if fidelity(curve.function, calibrated, q.type(source), own) < q.scheme.faithful_db:
        return q.stays_float(f"a table of it has less than {q.scheme.faithful_db:g} dB")
    entries = table_of(curve.function, calibrated, q.type(source), type_)
    return q.add(qnn.TableOp.make(source, q.constant(entries, element=type_), element=type_))


def table_of(function: Function, calibrated: Range, source: QuantType, result: QuantType) -> np.ndarray:
    """The entries of a table. Where the function is not finite, the range's end stands in."""

    def tamed(x: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            at_ends = function(np.clip(x, calibrated.low, calibrated.high).astype(np.float32))
            y = function(x)
        return np.nan_to_num(np.where(np.isfinite(y), y, at_ends))

    scales = source.scale, source.zero, result.scale, result.zero
    return table16(tamed, *scales) if source.storage == i16 else table(tamed, *scales, dtype_of(source))


def fidelity(function: Function, calibrated: Range, source: QuantType, result: QuantType) -> float:
    """Signal to noise in dB of a table on reals spread evenly over the calibrated range."""
    x = np.linspace(calibrated.low, calibrated.high, 4096).astype(np.float32)
    with np.errstate(all="ignore"):
        wanted = function(x).astype(np.float64)
    if not np.isfinite(wanted).all():
        return -np.inf
    entries = table_of(function, calibrated, source, result)
    integers = lookup(quantise(x, source.scale, source.zero, entries.dtype), entries)
    noise = np.square(wanted - dequantise(integers, result.scale, result.zero)).sum()
    signal = np.square(wanted).sum()
    return np.inf if noise == 0 else float(10 * np.log10(max(signal, 1e-300) / noise))


@quantises(graph.ReluOp, graph.ClampOp, kind=Kind.CLIPS)
def clip(op: graph.ReluOp | graph.ClampOp, q: Quantiser) -> SSAValue | None:
    """A clamp in the operand's type, which loses nothing; a table where another type is asked for."""
    source = q.input(op.operands[0])
    type_ = q.type(source)
    demanded = q.fixed_type(op.result) or q.demanded(op.result)
    if demanded is not None and demanded != type_:
        return emit_table(q, Curve(op.operands[0], lambda x: evaluate(op, x)[0]), op.result)
    p = op.parameters()
    ends = stored(np.array([p.get("low", 0.0), p.get("high", np.inf)]), type_)
    return q.add(qnn.ClampOp.make(source, element=type_, low=int(ends[0]), high=int(ends[1])))


# --- functions of two values -----------------------------------------------------------------------------
@quantises(graph.PowOp, when=lambda op: curve_of(op) is not None)
def power(op: graph.PowOp, q: Quantiser) -> SSAValue | None:
    """A table; a power of two activations stays float."""
    return table_if_curve(op, q)


def table_if_curve(op: graph.BinaryOp, q: Quantiser) -> SSAValue | None:
    """A table for an op that is a function of one value, None for others."""
    curve = curve_of(op)
    return None if curve is None else emit_table(q, curve, op.result)


@quantises(graph.AddOp, graph.SubOp)
def add_or_sub(op: graph.AddOp | graph.SubOp, q: Quantiser) -> SSAValue:
    """TFLite's ADD or SUB; a table where there is one source."""
    if (by_table := table_if_curve(op, q)) is not None:
        return by_table
    a, b, result = q.input(op.a), q.input(op.b), q.result_type(op.result)
    left, right = q.type(a), q.type(b)
    rescale = add_parameters(
        left.scale, left.zero, right.scale, right.zero, result.scale, result.zero, q.dtype
    )
    subtract = isinstance(op, graph.SubOp)
    return q.add(qnn.AddOp.make(a, b, element=result, rescale=tuple(rescale), subtract=subtract))


@quantises(graph.MulOp)
def mul(op: graph.MulOp, q: Quantiser) -> SSAValue:
    """TFLite's MUL; by a constant a channel, a depthwise convolution with a scale for each; or a table."""
    if (by_table := table_if_curve(op, q)) is not None:
        return by_table
    shape = shape_of(op.result)
    for value, other in ((op.a, op.b), (op.b, op.a)):
        factor = constant_along(other, len(shape) - 1, shape)
        if factor is not None and value.type == op.result.type and len(shape) > 1:
            return per_channel(q, q.input(value), factor, None, q.result_type(op.result))
    return emit_mul(q, q.input(op.a), q.input(op.b), q.result_type(op.result))


def emit_mul(q: Quantiser, a: SSAValue, b: SSAValue, result: QuantType) -> SSAValue:
    """A qnn.mul of two quantised values."""
    left, right = q.type(a), q.type(b)
    p = mul_parameters(left.scale, left.zero, right.scale, right.zero, result.scale, result.zero, q.dtype)
    zeros: dict[str, Any] = {"a_zero": p.zero_a, "b_zero": p.zero_b, "ofm_zero": p.zero_out}
    integers = {**zeros, "multiplier": p.multiplier, "shift": p.shift, "low": p.low, "high": p.high}
    return q.add(qnn.MulOp.make(a, b, element=result, **integers))


@quantises(graph.DivOp, when=lambda op: curve_of(op) is not None or divides_by_constant(op))
def div(op: graph.DivOp, q: Quantiser) -> SSAValue | None:
    """A table; by a constant that is no scalar, a multiplication with its reciprocal."""
    if (by_table := table_if_curve(op, q)) is not None or not divides_by_constant(op):
        return by_table
    divisor = graph.constant_of(op.b)
    assert divisor is not None
    reciprocal = (1 / divisor.astype(np.float64)).astype(np.float32)
    return emit_mul(q, q.input(op.a), q.constant_near(reciprocal), q.result_type(op.result))


def divides_by_constant(op: graph.DivOp) -> bool:
    """Whether the divisor is a constant without zeros (nor such small values that 1 / x overflows)."""
    divisor = graph.constant_of(op.b)
    return divisor is not None and bool((np.abs(divisor) > np.finfo(np.float32).tiny).all())


@quantises(graph.PreluOp, when=lambda op: curve_of(op) is not None or graph.constant_of(op.b) is not None)
def prelu(op: graph.PreluOp, q: Quantiser) -> SSAValue:
    """TFLite's PRELU with a constant slope; a table for one slope."""
    if (by_table := table_if_curve(op, q)) is not None:
        return by_table
    a, slope, result = q.input(op.a), q.input(op.b), q.result_type(op.result)
    left, right = q.type(a), q.type(slope)
    rescale = prelu_parameters(left.scale, left.zero, right.scale, right.zero, result.scale, result.zero)
    return q.add(qnn.PreluOp.make(a, slope, element=result, rescale=tuple(rescale)))
