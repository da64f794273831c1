"""The built-in functions on integers (OpenCL C 1.2, 6.12.3), for every width and sign."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from xdsl.ir import SSAValue

from ...dialects import ppu
from ...dialects.types import i32, i64
from .arithmetic import ArithmeticEmitter
from .builtins import BUILTINS, matching
from .emitter import Node, Value
from .types import INT, UINT, Scalar, element_of, unsigned, with_element

Element = Callable[[ArithmeticEmitter, Scalar, Sequence[SSAValue]], SSAValue]


def of_integers(name: str, count: int, element: Element, only: tuple[Scalar, ...] = (), bare: bool = False) -> None:
    """Register a function that is defined element by element; `bare`: the result has no sign."""

    def emit(e: ArithmeticEmitter, node: Node, arguments: Sequence[Value]):  # type: ignore[no-untyped-def]
        values, shape = matching(e, node, name, arguments)
        type_ = element_of(shape)
        if type_.is_float or (only and type_ not in only):
            e.fail(node, f"'{name}' takes {'int and uint' if only else 'integers'}, not '{shape}'")
        result = with_element(shape, unsigned(type_)) if bare else shape
        return e.each(result, lambda *parts: element(e, type_, parts), *values)

    BUILTINS[name] = count, emit


def wide(e: ArithmeticEmitter, type_: Scalar, x: SSAValue) -> SSAValue:
    """A value of up to 32 bits as one of 64."""
    return e.make(ppu.ConvertOp, x, type=i64, signed=type_.signed)


def below(e: ArithmeticEmitter, type_: Scalar, a: SSAValue, b: SSAValue) -> SSAValue:
    return e.make(ppu.CompareOp, a, b, predicate="lt" if type_.signed else "ltu")


def negative(e: ArithmeticEmitter, type_: Scalar, x: SSAValue) -> SSAValue:
    return e.make(ppu.CompareOp, x, e.number(0, type_.element), predicate="lt")


def high_product(e: ArithmeticEmitter, type_: Scalar, parts: Sequence[SSAValue]) -> SSAValue:
    """The upper half of a product: of twice the width, or of four products of halves."""
    a, b = parts
    if type_.bits < 64:
        product = e.make(ppu.MulOp, wide(e, type_, a), wide(e, type_, b))
        return e.make(ppu.ConvertOp, e.make(ppu.ShrOp, product, e.number(type_.bits, i64)), type=type_.element)
    shift, low = e.number(32, i64), e.number(0xFFFFFFFF, i64)
    up = ppu.ShrOp if type_.signed else ppu.ShrUOp
    a_low, b_low = e.make(ppu.AndOp, a, low), e.make(ppu.AndOp, b, low)
    a_high, b_high = e.make(up, a, shift), e.make(up, b, shift)
    carry = e.make(ppu.ShrUOp, e.make(ppu.MulOp, a_low, b_low), shift)
    first = e.make(ppu.AddOp, e.make(ppu.MulOp, a_high, b_low), carry)
    second = e.make(ppu.AddOp, e.make(ppu.MulOp, a_low, b_high), e.make(ppu.AndOp, first, low))
    top = e.make(ppu.AddOp, e.make(ppu.MulOp, a_high, b_high), e.make(up, first, shift))
    return e.make(ppu.AddOp, top, e.make(up, second, shift))


def multiply_add(high: bool) -> Element:
    def emit(e: ArithmeticEmitter, type_: Scalar, parts: Sequence[SSAValue]) -> SSAValue:
        product = high_product(e, type_, parts[:2]) if high else e.make(ppu.MulOp, *parts[:2])
        return e.make(ppu.AddOp, product, parts[2])

    return emit


def average(start: type[ppu.Binary], step: type[ppu.Binary]) -> Element:
    """(a + b) / 2 without the sum, which may not fit (Dietz): the common bits and half of those that differ."""

    def emit(e: ArithmeticEmitter, type_: Scalar, parts: Sequence[SSAValue]) -> SSAValue:
        shift = ppu.ShrOp if type_.signed else ppu.ShrUOp
        half = e.make(shift, e.make(ppu.XorOp, *parts), e.number(1, type_.element))
        return e.make(step, e.make(start, *parts), half)

    return emit


def difference(e: ArithmeticEmitter, type_: Scalar, parts: Sequence[SSAValue]) -> SSAValue:
    least, most = (ppu.MinOp, ppu.MaxOp) if type_.signed else (ppu.MinUOp, ppu.MaxUOp)
    return e.make(ppu.SubOp, e.make(most, *parts), e.make(least, *parts))


def saturating(cls: type[ppu.Binary]) -> Element:
    """A sum or difference, clamped to the type's range."""

    def emit(e: ArithmeticEmitter, type_: Scalar, parts: Sequence[SSAValue]) -> SSAValue:
        a, b = parts
        if type_.bits < 64:
            found = e.make(cls, wide(e, type_, a), wide(e, type_, b))
            return e.make(ppu.ConvertOp, found, type=type_.element, to_signed=type_.signed, saturate=True)
        found = e.make(cls, a, b)
        if not type_.signed:
            wrapped = below(e, type_, found, a) if cls is ppu.AddOp else below(e, type_, a, b)
            return e.make(ppu.SelectOp, wrapped, e.number(-1 if cls is ppu.AddOp else 0, i64), found)
        # The sum wrapped where its sign is neither operand's; the difference, where the operands' signs differ and
        # its own is not the first one's.
        other = e.make(ppu.XorOp, b, found) if cls is ppu.AddOp else e.make(ppu.XorOp, a, b)
        wrapped = negative(e, type_, e.make(ppu.AndOp, e.make(ppu.XorOp, a, found), other))
        limit = e.make(ppu.XorOp, e.make(ppu.ShrOp, a, e.number(63, i64)), e.number(2**63 - 1, i64))
        return e.make(ppu.SelectOp, wrapped, limit, found)

    return emit


def rotated(e: ArithmeticEmitter, type_: Scalar, parts: Sequence[SSAValue]) -> SSAValue:
    """Shifts count the low bits of their amount, so that the rest of the width is its negative."""
    x, amount = parts
    rest = e.make(ppu.NegOp, amount)
    return e.make(ppu.OrOp, e.make(ppu.ShlOp, x, amount), e.make(ppu.ShrUOp, x, rest))


def bits_set(e: ArithmeticEmitter, type_: Scalar, parts: Sequence[SSAValue]) -> SSAValue:
    """Bits of pairs, of fours, of bytes; a product adds the bytes up."""
    (x,), element, width = parts, type_.element, type_.bits

    def part(value: SSAValue, shift: int, mask: int) -> SSAValue:
        moved = e.make(ppu.ShrUOp, value, e.number(shift, element)) if shift else value
        return e.make(ppu.AndOp, moved, e.number(mask * ((2**width - 1) // 0xFF), element))

    x = e.make(ppu.SubOp, x, part(x, 1, 0x55))
    x = e.make(ppu.AddOp, part(x, 0, 0x33), part(x, 2, 0x33))
    x = part(e.make(ppu.AddOp, x, e.make(ppu.ShrUOp, x, e.number(4, element))), 0, 0x0F)
    if width == 8:
        return x
    total = e.make(ppu.MulOp, x, e.number((2**width - 1) // 0xFF, element))
    return e.make(ppu.ShrUOp, total, e.number(width - 8, element))


def leading_zeros(e: ArithmeticEmitter, type_: Scalar, parts: Sequence[SSAValue]) -> SSAValue:
    """The bits that stay zero when the highest one is copied to all below it."""
    (x,), element, shift = parts, type_.element, 1
    while shift < type_.bits:
        x = e.make(ppu.OrOp, x, e.make(ppu.ShrUOp, x, e.number(shift, element)))
        shift *= 2
    return bits_set(e, type_, [e.make(ppu.XorOp, x, e.number(-1, element))])


of_integers("mul_hi", 2, high_product)
of_integers("mad_hi", 3, multiply_add(True))
of_integers("mul24", 2, lambda e, type_, parts: e.make(ppu.MulOp, *parts), only=(INT, UINT))
of_integers("mad24", 3, multiply_add(False), only=(INT, UINT))
of_integers("hadd", 2, average(ppu.AndOp, ppu.AddOp))
of_integers("rhadd", 2, average(ppu.OrOp, ppu.SubOp))
of_integers("abs_diff", 2, difference, bare=True)
of_integers("add_sat", 2, saturating(ppu.AddOp))
of_integers("sub_sat", 2, saturating(ppu.SubOp))
of_integers("rotate", 2, rotated)
of_integers("popcount", 1, bits_set)
of_integers("clz", 1, leading_zeros)


def truth_of_signs(name: str, cls: type[ppu.Binary]) -> None:
    """`any` and `all` of the sign bits of a scalar or of a vector's elements (OpenCL C 1.2, 6.12.6)."""

    def emit(e: ArithmeticEmitter, node: Node, arguments: Sequence[Value]) -> Value:
        (value,), shape = matching(e, node, name, arguments)
        if element_of(shape).is_float:
            e.fail(node, f"'{name}' takes integers, not '{shape}'")
        found = value.parts[0]
        for part in value.parts[1:]:
            found = e.make(cls, found, part)
        sign = negative(e, element_of(shape), found)
        return Value(INT, (e.make(ppu.ConvertOp, sign, type=i32, signed=False),))

    BUILTINS[name] = 1, emit


truth_of_signs("any", ppu.OrOp)
truth_of_signs("all", ppu.AndOp)
