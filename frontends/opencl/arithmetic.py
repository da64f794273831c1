"""Arithmetic on typed values: C's conversions, operators and comparisons, element by element for vectors."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from xdsl.ir import SSAValue

from ...dialects import ppu
from ...dialects.declarative import DeclarativeOp
from .emitter import Emitter, Node, Value
from .types import (
    BOOL,
    LONG,
    Arithmetic,
    PointerTo,
    Scalar,
    Vector,
    element_of,
    promoted,
    signed,
    size_of,
    usual,
    with_element,
)

OPERATORS: dict[str, tuple[type[DeclarativeOp], type[DeclarativeOp]]] = {
    "+": (ppu.AddOp, ppu.AddOp),
    "-": (ppu.SubOp, ppu.SubOp),
    "*": (ppu.MulOp, ppu.MulOp),
    "/": (ppu.DivOp, ppu.DivUOp),
    "%": (ppu.RemOp, ppu.RemUOp),
    "&": (ppu.AndOp, ppu.AndOp),
    "|": (ppu.OrOp, ppu.OrOp),
    "^": (ppu.XorOp, ppu.XorOp),
    "<<": (ppu.ShlOp, ppu.ShlOp),
    ">>": (ppu.ShrOp, ppu.ShrUOp),
}
"""The operation by operator, for signed integers and floats, and for unsigned integers."""
PREDICATES = {"==": "eq", "!=": "ne", "<": "lt", "<=": "le", ">": "gt", ">=": "ge"}


class ArithmeticEmitter(Emitter):
    """Emits conversions and operators."""

    # -- conversions
    def element(self, value: SSAValue, source: Scalar, target: Scalar, **options: object) -> SSAValue:
        """One element as another type."""
        if source == target or (source.element == target.element and not options and BOOL not in (source, target)):
            return value
        if target is BOOL:
            return self.make(ppu.CompareOp, value, self.number(0, source.element), predicate="ne")
        return self.make(
            ppu.ConvertOp, value, type=target.element, signed=source.signed, to_signed=target.signed,
            **({"rounding": "rtz"} if source.is_float and not target.is_float else {}) | options,
        )  # fmt: skip

    def convert(self, node: Node, value: Value, target: Arithmetic, what: str = "") -> Value:
        """A value as C converts it when it is assigned, cast or passed: a scalar fills a vector."""
        if isinstance(value.type, PointerTo) or not isinstance(value.type, Arithmetic):
            self.fail(node, f"{what or 'a value'} of type '{value.type}' does not become '{target}'")
        source = value.type
        assert isinstance(source, Arithmetic)
        if isinstance(source, Vector) and source != target:
            self.fail(node, f"{what or 'a vector'} of type '{source}' does not become '{target}'; use convert_{target}")
        parts = tuple(self.element(p, element_of(source), element_of(target)) for p in value.parts)
        return Value(target, parts * size_of(target) if len(parts) == 1 else parts)

    def truth(self, node: Node, value: Value) -> SSAValue:
        """Whether a scalar is not zero, as i1."""
        if not isinstance(value.type, Scalar):
            self.fail(node, f"a condition is a scalar, not of type '{value.type}'")
        return self.convert(node, value, BOOL).parts[0]

    def index(self, node: Node, value: Value) -> SSAValue:
        """An integer as an i64."""
        if not isinstance(value.type, Scalar) or value.type.is_float:
            self.fail(node, f"an index is an integer, not of type '{value.type}'")
        return self.convert(node, value, LONG).parts[0]

    def common(self, node: Node, a: Value, b: Value, what: str) -> tuple[Value, Value, Arithmetic]:
        """Both operands as their common type; a scalar beside a vector takes the vector's type."""
        for value in (a, b):
            if not isinstance(value.type, Arithmetic):
                self.fail(node, f"{what} does not take an operand of type '{value.type}'")
        assert isinstance(a.type, Arithmetic) and isinstance(b.type, Arithmetic)
        if isinstance(a.type, Vector) and isinstance(b.type, Vector) and a.type != b.type:
            self.fail(node, f"{what} does not take operands of types '{a.type}' and '{b.type}'")
        if isinstance(a.type, Vector) or isinstance(b.type, Vector):
            type_: Arithmetic = a.type if isinstance(a.type, Vector) else b.type
            narrow = b if isinstance(a.type, Vector) else a
            if element_of(narrow.type).is_float and not element_of(type_).is_float:  # type: ignore[arg-type]
                self.fail(node, f"{what} does not take operands of types '{a.type}' and '{b.type}'")
        else:
            type_ = usual(a.type, b.type)  # type: ignore[arg-type]
        return self.convert(node, a, type_), self.convert(node, b, type_), type_

    # -- operators
    def each(self, type_: Arithmetic, make: Callable[..., SSAValue], *values: Value) -> Value:
        """A value made element by element."""
        return Value(type_, tuple(make(*parts) for parts in zip(*(v.parts for v in values))))

    def binary(self, node: Node, operator: str, a: Value, b: Value) -> Value:
        """`a operator b`."""
        what = f"'{operator}'"
        if isinstance(a.type, PointerTo) or (isinstance(b.type, PointerTo) and operator == "+"):
            return self.pointer_sum(node, operator, a, b)
        if operator in PREDICATES:
            return self.comparison(node, operator, a, b)
        if operator in ("<<", ">>"):
            return self.shift(node, operator, a, b)
        if a.type is BOOL and b.type is BOOL and operator in "&|^":
            return Value(BOOL, (self.make(OPERATORS[operator][0], *a.parts, *b.parts),))
        a, b, type_ = self.common(node, a, b, what)
        if element_of(type_).is_float and operator in ("%", "&", "|", "^"):
            self.fail(node, f"{what} takes integers, not '{type_}'")
        cls = OPERATORS[operator][not element_of(type_).signed]
        return self.each(type_, lambda x, y: self.make(cls, x, y), a, b)

    def shift(self, node: Node, operator: str, a: Value, b: Value) -> Value:
        """A shift has the promoted type of its left operand."""
        for value in (a, b):
            if not isinstance(value.type, Arithmetic) or element_of(value.type).is_float:
                self.fail(node, f"'{operator}' takes integers, not '{value.type}'")
        assert isinstance(a.type, Arithmetic) and isinstance(b.type, Arithmetic)
        type_ = promoted(a.type) if isinstance(a.type, Scalar) else a.type
        if isinstance(b.type, Vector) and size_of(b.type) != size_of(type_):
            self.fail(node, f"'{operator}' does not take operands of types '{a.type}' and '{b.type}'")
        element = element_of(type_)
        amounts = tuple(self.element(p, element_of(b.type), element) for p in b.parts)
        amount = Value(type_, amounts * size_of(type_) if len(amounts) == 1 else amounts)
        cls = OPERATORS[operator][not element.signed]
        return self.each(type_, lambda x, y: self.make(cls, x, y), self.convert(node, a, type_), amount)

    def comparison(self, node: Node, operator: str, a: Value, b: Value) -> Value:
        """int 0 or 1 of scalars, integers 0 or −1 of vectors (OpenCL C 1.2, 6.3.d)."""
        a, b, type_ = self.common(node, a, b, f"'{operator}'")
        element, predicate = element_of(type_), PREDICATES[operator]
        if not element.signed and predicate not in ("eq", "ne"):
            predicate += "u"
        found = self.each(type_, lambda x, y: self.make(ppu.CompareOp, x, y, predicate=predicate), a, b)
        return self.logical_result(type_, found.parts)

    def logical_result(self, type_: Arithmetic, parts: tuple[SSAValue, ...]) -> Value:
        """Truths as the integers C has for them; those of scalars stay i1 until something else is needed."""
        if isinstance(type_, Scalar):
            return Value(BOOL, parts)
        mask = with_element(type_, signed(element_of(type_)))
        wide = [self.make(ppu.ConvertOp, p, type=element_of(mask).element, signed=False) for p in parts]
        return Value(mask, tuple(self.make(ppu.NegOp, w) for w in wide))

    def prefix(self, node: Node, operator: str, a: Value) -> Value:
        """`operator a` of + - ~ !."""
        if not isinstance(a.type, Arithmetic):
            self.fail(node, f"'{operator}' does not take an operand of type '{a.type}'")
        assert isinstance(a.type, Arithmetic)
        if operator == "!":
            zero = Value(a.type, (self.zero(element_of(a.type))[0],) * size_of(a.type))
            if a.type is BOOL:
                return Value(BOOL, (self.make(ppu.XorOp, a.parts[0], self.true),))
            return self.comparison(node, "==", a, zero)
        type_ = promoted(a.type) if isinstance(a.type, Scalar) else a.type
        a = self.convert(node, a, type_)
        if operator == "+":
            return a
        if operator == "~":
            if element_of(type_).is_float:
                self.fail(node, f"'~' takes integers, not '{type_}'")
            ones = self.number(-1, element_of(type_).element)
            return self.each(type_, lambda x: self.make(ppu.XorOp, x, ones), a)
        return self.each(type_, lambda x: self.make(ppu.NegOp, x), a)

    def pointer_sum(self, node: Node, operator: str, a: Value, b: Value) -> Value:
        """A pointer moved by an integer."""
        if isinstance(b.type, PointerTo):
            a, b = b, a
        if operator not in ("+", "-") or isinstance(b.type, PointerTo):
            self.fail(node, f"'{operator}' on pointers is not in the subset of OpenCL C; + and - an integer are")
        cls = ppu.AddOp if operator == "+" else ppu.SubOp
        return Value(a.type, (self.make(cls, a.parts[0], self.steps(a, self.index(node, b))),), a.array)

    def steps(self, pointer: Value, offset: SSAValue) -> SSAValue:
        """The elements that a pointer goes over with an offset: rows of them where it leads to arrays."""
        assert isinstance(pointer.type, PointerTo)
        if not pointer.type.rows:
            return offset
        return self.make(ppu.MulOp, offset, self.number(math.prod(pointer.type.rows), LONG.element))

    def row(self, pointer: Value, offset: SSAValue | None) -> Value:
        """The array at a pointer to arrays, as a pointer to what it is made of."""
        assert isinstance(pointer.type, PointerTo)
        at = pointer.parts[0]
        if offset is not None:
            at = self.make(ppu.AddOp, at, self.steps(pointer, offset))
        return Value(replace(pointer.type, rows=pointer.type.rows[1:]), (at,), pointer.array)

    # -- memory
    def addresses(self, pointer: Value, offset: SSAValue | None = None) -> list[SSAValue]:
        """The array indices of the element at a pointer, plus an offset: one an element of a vector."""
        assert isinstance(pointer.type, PointerTo)
        index, count = pointer.parts[0], size_of(pointer.type.element)
        if offset is not None:
            index = self.make(ppu.AddOp, index, offset)
        if count == 1:
            return [index]
        first = self.make(ppu.MulOp, index, self.number(count, LONG.element))
        return [self.make(ppu.AddOp, first, self.number(k, LONG.element)) for k in range(count)]

    def load(self, pointer: Value, offset: SSAValue | None = None) -> Value:
        """The element at a pointer plus an offset."""
        assert isinstance(pointer.type, PointerTo) and pointer.array is not None
        parts = [self.make(ppu.LoadOp, pointer.array, i) for i in self.addresses(pointer, offset)]
        return Value(pointer.type.element, tuple(parts))

    def store(self, node: Node, value: Value, pointer: Value, offset: SSAValue | None = None) -> None:
        """Write to where a pointer leads."""
        assert isinstance(pointer.type, PointerTo) and pointer.array is not None
        if pointer.type.const or pointer.type.space is ppu.Space.CONSTANT:
            self.fail(node, f"what '{pointer.type}' leads to is constant and cannot be assigned")
        for part, index in zip(value.parts, self.addresses(pointer, offset)):
            self.emit(ppu.StoreOp.make(part, pointer.array, index))
