"""The types of the OpenCL C subset and the conversions C makes on its own (C99 6.3.1; OpenCL C 1.2, 6.2)."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.ir import Attribute

from ...dialects.ppu import Space
from ...dialects.types import f32, i8, i16, i32, i64


@dataclass(frozen=True)
class Scalar:
    """An arithmetic type. rank orders the integers as C does."""

    name: str
    element: Attribute
    bits: int
    signed: bool = True

    @property
    def is_float(self) -> bool:
        return self.element == f32

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Vector:
    """Two to sixteen elements of a scalar type."""

    element: Scalar
    size: int

    def __str__(self) -> str:
        return f"{self.element}{self.size}"


@dataclass(frozen=True)
class Void:
    """The type of no value."""

    def __str__(self) -> str:
        return "void"


@dataclass(frozen=True)
class PointerTo:
    """Where elements of a type lie, in one memory."""

    element: Scalar | Vector
    space: Space
    const: bool = False
    rows: tuple[int, ...] = ()
    """Sizes of the arrays that it leads to, where it leads to arrays: (3,) of `int (*)[3]`."""

    def __str__(self) -> str:
        space = "" if self.space is Space.PRIVATE else f"__{self.space.value} "
        star = f"(*){''.join(f'[{n}]' for n in self.rows)}" if self.rows else "*"
        return f"{space}{'const ' if self.const else ''}{self.element} {star}"


Arithmetic = Scalar | Vector
CType = Scalar | Vector | Void | PointerTo

VOID = Void()
BOOL = Scalar("bool", i8, 1, False)
CHAR, UCHAR = Scalar("char", i8, 8), Scalar("uchar", i8, 8, False)
SHORT, USHORT = Scalar("short", i16, 16), Scalar("ushort", i16, 16, False)
INT, UINT = Scalar("int", i32, 32), Scalar("uint", i32, 32, False)
LONG, ULONG = Scalar("long", i64, 64), Scalar("ulong", i64, 64, False)
FLOAT = Scalar("float", f32, 32)

SCALARS = {t.name: t for t in (BOOL, CHAR, UCHAR, SHORT, USHORT, INT, UINT, LONG, ULONG, FLOAT)}
NAMES: dict[str, CType] = {
    **SCALARS,
    **{f"{t}{n}": Vector(t, n) for t in SCALARS.values() if t is not BOOL for n in (2, 4, 8, 16)},
    "void": VOID,
    "size_t": ULONG,
    "ptrdiff_t": LONG,
}
"""Types by name; three-element vectors are left out."""


def unsigned(type_: Scalar) -> Scalar:
    """The type of the same width without sign."""
    return SCALARS[f"u{type_}"] if type_.signed and not type_.is_float else type_


def signed(type_: Scalar) -> Scalar:
    """The signed integer of the same width."""
    return next(t for t in (CHAR, SHORT, INT, LONG) if t.bits == type_.bits)


def promoted(type_: Scalar) -> Scalar:
    """Integers narrower than int become int, which holds all their values."""
    return INT if not type_.is_float and type_.bits < 32 else type_


def usual(a: Scalar, b: Scalar) -> Scalar:
    """The common type of two operands: float if one is, else the wider, else the one without sign."""
    if a.is_float or b.is_float:
        return FLOAT
    a, b = promoted(a), promoted(b)
    if a.bits != b.bits:
        return a if a.bits > b.bits else b
    return b if a.signed else a


def element_of(type_: Arithmetic) -> Scalar:
    """The scalar a scalar or vector is made of."""
    return type_.element if isinstance(type_, Vector) else type_


def size_of(type_: Arithmetic) -> int:
    """Number of elements."""
    return type_.size if isinstance(type_, Vector) else 1


def with_element(type_: Arithmetic, element: Scalar) -> Arithmetic:
    """The type of the same shape with other elements."""
    return Vector(element, type_.size) if isinstance(type_, Vector) else element
