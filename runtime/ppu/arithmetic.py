"""What the operations of the programmable engine compute, on numpy scalars and arrays.

Integers are two's complement and wrap around, floats are float32 with one rounding an operation. Python's operators
stand where numpy has a function of the same meaning: on scalars, which is what uniform values are, they take a tenth
of its time.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from xdsl.ir import Operation

from ...dialects import ppu
from ...dialects.types import DTYPE_OF, f32, i1
from .grid import Lanes

Function = Callable[..., Lanes]


def unsigned(x: Lanes) -> Lanes:
    """The same bits without sign."""
    return x.view(UNSIGNED[x.dtype.itemsize])


UNSIGNED = {size: np.dtype(f"u{size}") for size in (1, 2, 4, 8)}


def shift_amount(x: Lanes, amount: Lanes) -> Lanes:
    """The low bits of the amount (OpenCL C 1.2, 6.3.j)."""
    return amount & x.dtype.type(x.dtype.itemsize * 8 - 1)


def truncated_quotient(a: Lanes, b: Lanes) -> Lanes:
    """Signed division as C has it: towards zero. numpy's goes down. The smallest by −1 wraps around."""
    floor = np.floor_divide(a, b)
    return floor + ((np.multiply(floor, b) != a) & ((a < 0) != (b < 0))).astype(a.dtype)


def fused_multiply_add(a: Lanes, b: Lanes, c: Lanes) -> Lanes:
    """float32 a · b + c with one rounding.

    The product is exact in float64. The sum is rounded to odd there, by the error term of Knuth's two-sum: the 29 bits
    more than float32 has then make the second rounding right (Boldo and Melquiond, 2008).
    """
    product, addend = np.multiply(a, b, dtype=np.float64), np.asarray(c, np.float64)
    total = np.asarray(product + addend)
    rest = total - product
    error = (product - (total - rest)) + (addend - rest)
    even = (total.view(np.int64) & 1) == 0
    inexact = np.isfinite(total) & (error != 0) & even
    odd = np.nextafter(total, np.where(error > 0, np.inf, -np.inf))
    return np.where(inexact, odd, total).astype(np.float32)[()]


def merged(condition: Lanes, chosen: Lanes, other: Lanes) -> Lanes:
    """Values of the work items for which the condition holds, and of the others."""
    if chosen is other:
        return chosen
    if type(condition) is not np.ndarray:
        return chosen if condition else other
    return np.where(condition, chosen, other)


UNARY: dict[type[Operation], Function] = {
    ppu.NegOp: operator.neg,
    ppu.AbsOp: abs,
    ppu.SqrtOp: np.sqrt,
    ppu.FloorOp: np.floor,
    ppu.CeilOp: np.ceil,
    ppu.TruncOp: np.trunc,
    ppu.RintOp: np.rint,
}
BINARY: dict[type[Operation], Function] = {
    ppu.AddOp: operator.add,
    ppu.SubOp: operator.sub,
    ppu.MulOp: operator.mul,
    ppu.AndOp: operator.and_,
    ppu.OrOp: operator.or_,
    ppu.XorOp: operator.xor,
    ppu.MinOp: np.fmin,
    ppu.MaxOp: np.fmax,
    ppu.MinUOp: lambda a, b: np.minimum(unsigned(a), unsigned(b)).view(a.dtype),
    ppu.MaxUOp: lambda a, b: np.maximum(unsigned(a), unsigned(b)).view(a.dtype),
    ppu.ShlOp: lambda a, b: a << shift_amount(a, b),
    ppu.ShrOp: lambda a, b: a >> shift_amount(a, b),
    ppu.ShrUOp: lambda a, b: (unsigned(a) >> unsigned(shift_amount(a, b))).view(a.dtype),
}
DIVISIONS: dict[type[Operation], Function] = {
    ppu.DivOp: truncated_quotient,
    ppu.RemOp: lambda a, b: a - np.multiply(truncated_quotient(a, b), b),
    ppu.DivUOp: lambda a, b: np.floor_divide(unsigned(a), unsigned(b)).view(a.dtype),
    ppu.RemUOp: lambda a, b: np.remainder(unsigned(a), unsigned(b)).view(a.dtype),
}
"""Of integers, whose divisors are not zero."""
COMPARISONS: dict[str, Function] = {
    "eq": operator.eq, "ne": operator.ne, "lt": operator.lt, "le": operator.le, "gt": operator.gt, "ge": operator.ge,
}  # fmt: skip
COMPUTED: set[type[Operation]] = {
    *UNARY, *BINARY, ppu.CompareOp, ppu.SelectOp, ppu.FmaOp, ppu.BitcastOp, ppu.ConvertOp,
}  # fmt: skip
"""Operations that function_of knows for all their types."""


def function_of(op: Operation) -> Function | None:
    """What an operation computes from the values of its operands; None for one that does more than that.

    It is settled here for the operation's parameters and types. Integer divisions are not among them: they may fault.
    """
    kind = type(op)
    if kind in UNARY or kind in BINARY:
        return UNARY.get(kind) or BINARY[kind]
    if isinstance(op, ppu.DivOp) and op.result.type == f32:
        return operator.truediv
    if isinstance(op, ppu.CompareOp):
        return comparison(op.parameters().predicate)
    if isinstance(op, ppu.SelectOp):
        return merged
    if isinstance(op, ppu.FmaOp):
        return fused_multiply_add
    if isinstance(op, ppu.BitcastOp):
        target = DTYPE_OF[op.result.type]
        return lambda x: x.view(target)
    if isinstance(op, ppu.ConvertOp):
        return conversion(op)
    return None


def comparison(predicate: str) -> Function:
    """Whether two values are so ordered; with a `u` at its end, read without sign."""
    holds = COMPARISONS[predicate.removesuffix("u")]
    if not predicate.endswith("u"):
        return holds
    return lambda a, b: holds(unsigned(a), unsigned(b))


# --- conversions -----------------------------------------------------------------------------------------
def conversion(op: ppu.ConvertOp) -> Function:
    """What a ppu.convert computes."""
    p, target = op.parameters(), DTYPE_OF[op.result.type]
    if op.input.type == f32:
        if op.result.type == f32:
            return lambda x: x
        return lambda x: float_to_integer(x, target, p.to_signed, p.rounding)
    read = source_reading(op.input.type, p.signed)
    if op.result.type == f32:
        return lambda x: integer_to_float(read(x), p.rounding)
    if p.saturate:
        return lambda x: integer_to_integer(read(x), target, p.to_signed, True)
    return resized(op.input.type, target, p.signed)


def source_reading(type_: Any, signed: bool) -> Function:
    """An integer operand as numpy is to read it; an i1 is 0 or 1."""
    if type_ == i1:
        return lambda x: x.astype(np.int8)
    return (lambda x: x) if signed else unsigned


def resized(type_: Any, target: np.dtype, signed: bool) -> Function:
    """An integer of another width, wrapped around. The sign of the operand matters only where it grows."""
    source = DTYPE_OF[type_]
    if source == target:
        return lambda x: x
    if not signed and type_ != i1 and target.itemsize > source.itemsize:
        return lambda x: unsigned(x).astype(target)
    kind = target.type
    if type_ != i1 and target.itemsize < source.itemsize:
        return lambda x: x.astype(target)
    return lambda x: x.astype(target) if type(x) is np.ndarray else kind(int(x))


ROUND: dict[str, Function] = {"rte": np.rint, "rtz": np.trunc, "rtp": np.ceil, "rtn": np.floor}


def float_to_integer(x: Lanes, dtype: np.dtype, signed: bool, rounding: str) -> Lanes:
    """Rounded, clamped to the integer's range, NaN to 0."""
    read = np.dtype(f"{'i' if signed else 'u'}{dtype.itemsize}")
    limits = np.iinfo(read)
    rounded = np.asarray(ROUND[rounding](x), np.float64)
    above, below = rounded >= 2.0 ** (dtype.itemsize * 8 - signed), rounded < limits.min
    inside = np.where(above | below | np.isnan(rounded), 0.0, rounded).astype(read)
    clamped = np.where(above, read.type(limits.max), np.where(below, read.type(limits.min), inside))
    return clamped.astype(read).view(dtype)[()]


def integer_to_float(x: Lanes, rounding: str) -> Lanes:
    """The nearest float32, or the next one on the side that the rounding asks for (exact in float64 up to 32 bits)."""
    nearest = x.astype(np.float32)
    if rounding == "rte":
        return nearest
    exact, found = np.asarray(x, np.float64), np.asarray(nearest, np.float64)
    up = exact < 0 if rounding == "rtz" else np.full(exact.shape, rounding == "rtp")
    wrong = np.where(up, found < exact, found > exact)
    step = np.nextafter(nearest, np.where(up, np.float32(np.inf), np.float32(-np.inf)))
    return np.where(wrong, step, nearest)[()]


def integer_to_integer(x: Lanes, dtype: np.dtype, to_signed: bool, saturate: bool) -> Lanes:
    """Wrapped around, or clamped to the range the result is read with."""
    read = np.dtype(f"{'i' if to_signed else 'u'}{dtype.itemsize}")
    if saturate:
        have, want = np.iinfo(x.dtype), np.iinfo(read)
        low, high = max(have.min, want.min), min(have.max, want.max)
        x = np.clip(x, x.dtype.type(low), x.dtype.type(high))
    return x.astype(read).view(dtype)
