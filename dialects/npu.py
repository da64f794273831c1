"""The npu dialect's frame: buffers, regions, tokens, and how an op class defines a hardware instruction.

An instruction class declares *ports* (what it reads and writes) and *fields* (numbers in its encoding); the
decorator `instruction` makes an xDSL op of it. In **buffer form** a port is an SSA operand of type
`!npu.buffer<…>` and the op has no result; in **address form** it is a region property and the op gives a
`!npu.token` that later instructions name in `after`. The instructions themselves are in npu_instructions.py;
runtime/isa.py derives encoding, decoding and the docs' table from the same declarations.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum, IntEnum
from typing import Any, ClassVar, NamedTuple, Self

from xdsl.dialects.builtin import DenseArrayBase, FloatAttr, IntegerAttr, StringAttr, i32
from xdsl.ir import Attribute, Data, Operation, ParametrizedAttribute, SSAValue, TypeAttribute
from xdsl.irdl import (
    AttrSizedOperandSegments,
    IRDLOperation,
    irdl_attr_definition,
    irdl_op_definition,
    opt_prop_def,
    opt_result_def,
    prop_def,
    traits_def,
    var_operand_def,
)
from xdsl.parser import AttrParser, Parser
from xdsl.printer import Printer
from xdsl.traits import EffectInstance, MemoryEffect, MemoryEffectKind
from xdsl.utils.exceptions import VerifyException

from .declarative import attribute_of, parse_parameters, print_parameters, value_of
from .types import dtype_of


class Space(Enum):
    """Where bytes lie."""

    DRAM = 0
    SRAM = 1


class Queue(IntEnum):
    """An in-order stream of instructions: the unit of order, of waiting and of the sanitizers."""

    LOAD = 0
    STORE = 1
    NN = 2
    FABRIC = 3
    PPU = 4


ENGINE_OF = {
    Queue.LOAD: "dma", Queue.STORE: "dma", Queue.NN: "nn", Queue.FABRIC: "fabric", Queue.PPU: "ppu",
}  # fmt: skip


# --- types -----------------------------------------------------------------------------------------------
@irdl_attr_definition
class TokenType(ParametrizedAttribute, TypeAttribute):
    """The completion of an instruction."""

    name = "npu.token"


TOKEN = TokenType()


class Buffer(NamedTuple):
    """A dense row-major array in one memory."""

    shape: tuple[int, ...]
    element: Attribute
    space: Space


def _dimensions(shape: Sequence[int]) -> str:
    return "".join(f"{d}x" for d in shape)


@irdl_attr_definition
class BufferType(Data[Buffer], TypeAttribute):
    """`!npu.buffer<1x8x8x16xi8, sram>`: an array of stored elements in DRAM or SRAM."""

    name = "npu.buffer"

    @classmethod
    def parse_parameter(cls, parser: AttrParser) -> Buffer:
        with parser.in_angle_brackets():
            shape, element = parser.parse_ranked_shape()
            parser.parse_punctuation(",")
            return Buffer(tuple(shape), element, _parse_space(parser))

    def print_parameter(self, printer: Printer) -> None:
        with printer.in_angle_brackets():
            printer.print_string(_dimensions(self.data.shape))
            printer.print_attribute(self.data.element)
            printer.print_string(f", {self.data.space.name.lower()}")

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return math.prod(self.data.shape) * itemsize(self.data.element)


def _parse_space(parser: AttrParser) -> Space:
    word = parser.parse_identifier("memory")
    if word.upper() not in Space.__members__:
        parser.raise_error(f"'{word}' is no memory; dram and sram are")
    return Space[word.upper()]


_BUFFERS: dict[tuple[tuple[int, ...], int, int], BufferType] = {}


def buffer(shape: Sequence[int], element: Attribute, space: Space) -> BufferType:
    """An interned buffer type."""
    key = (tuple(shape), id(element), space.value)
    known = _BUFFERS.get(key)
    if known is None or known.data.element is not element:
        known = _BUFFERS[key] = BufferType(Buffer(key[0], element, space))
    return known


def buffer_type(value: SSAValue) -> Buffer:
    """Shape, element and space of a buffer value."""
    assert isinstance(value.type, BufferType), value.type
    return value.type.data


_ITEMSIZES: dict[int, tuple[Attribute, int]] = {}


def itemsize(element: Attribute) -> int:
    """Bytes an element takes."""
    known = _ITEMSIZES.get(id(element))  # hashing an attribute costs more than all else here
    if known is None:
        known = _ITEMSIZES[id(element)] = element, dtype_of(element).itemsize
    return known[1]


@functools.lru_cache(maxsize=65536)
def dense_strides(shape: tuple[int, ...], item: int) -> tuple[int, ...]:
    """Row-major strides in bytes."""
    strides, step = [], item
    for d in reversed(shape):
        strides.append(step)
        step *= max(d, 1)
    return tuple(reversed(strides))


class Region(NamedTuple):
    """A strided array at an address. Strides in bytes, none negative."""

    space: Space
    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    element: Attribute

    @property
    def extent(self) -> int:
        """Bytes from the first to behind the last element; 0 when empty."""
        if 0 in self.shape:
            return 0
        return itemsize(self.element) + sum((d - 1) * s for d, s in zip(self.shape, self.strides))

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return math.prod(self.shape) * itemsize(self.element)

    def __str__(self) -> str:
        dense = self.strides == dense_strides(self.shape, itemsize(self.element))
        strides = "" if dense else f" strides {list(self.strides)}"
        return f"{self.space.name.lower()}[{self.address}] {_dimensions(self.shape)}{self.element}{strides}"


def dense_region(space: Space, address: int, shape: tuple[int, ...], element: Attribute) -> Region:
    """A row-major region."""
    return Region(space, address, shape, dense_strides(shape, itemsize(element)), element)


@irdl_attr_definition
class RegionAttr(Data[Region]):
    """`#npu.region<sram[128] 1x8x8xi8 strides [512, 64, 1]>`; strides are left out where dense."""

    name = "npu.region"

    @classmethod
    def parse_parameter(cls, parser: AttrParser) -> Region:
        with parser.in_angle_brackets():
            return cls.parse_body(parser)

    @staticmethod
    def parse_body(parser: AttrParser) -> Region:
        """The region without its brackets, as an instruction's port shows it."""
        space = _parse_space(parser)
        parser.parse_punctuation("[")
        address = parser.parse_integer()
        parser.parse_punctuation("]")
        shape, element = parser.parse_ranked_shape()
        if parser.parse_optional_keyword("strides"):
            strides = parser.parse_comma_separated_list(parser.Delimiter.SQUARE, parser.parse_integer)
            if len(strides) != len(shape):
                parser.raise_error(f"{len(shape)} strides expected")
            return Region(space, address, tuple(shape), tuple(strides), element)
        return dense_region(space, address, tuple(shape), element)

    def print_parameter(self, printer: Printer) -> None:
        with printer.in_angle_brackets():
            printer.print_string(str(self.data))


@irdl_attr_definition
class RegionsAttr(Data[tuple[Region, ...]]):
    """`#npu.regions<sram[0] 1x8xi8, sram[64] 8xi32>`: what a port holds in address form."""

    name = "npu.regions"

    @classmethod
    def parse_parameter(cls, parser: AttrParser) -> tuple[Region, ...]:
        return tuple(
            parser.parse_comma_separated_list(parser.Delimiter.ANGLE, lambda: RegionAttr.parse_body(parser))
        )

    def print_parameter(self, printer: Printer) -> None:
        with printer.in_angle_brackets():
            printer.print_string(", ".join(map(str, self.data)))


# --- ports and fields ------------------------------------------------------------------------------------
READ, WRITE = MemoryEffectKind.READ, MemoryEffectKind.WRITE


class Arity(Enum):
    """How many buffers a port takes."""

    ONE = "one"
    OPTIONAL = "optional"
    MANY = "many"


@dataclass(frozen=True)
class Port:
    """What an instruction reads or writes. `space` None: SRAM for tiles, DRAM for whole layers."""

    effect: MemoryEffectKind
    arity: Arity = Arity.ONE
    space: Space | None = None
    doc: str = ""
    name: str = ""


@dataclass(frozen=True)
class Field:
    """A number in an instruction's encoding: `code` is struct's letter; `enum` names its values."""

    code: str
    default: Any = 0
    doc: str = ""
    enum: type[IntEnum] | None = None
    name: str = ""

    @property
    def is_list(self) -> bool:
        return self.code == "list"

    @property
    def is_symbol(self) -> bool:
        return self.code == "symbol"

    def attribute(self, value: Any) -> Attribute:
        """The attribute that holds a value. ValueError where the encoding has no room for it."""
        if self.is_list:
            return attribute_of(tuple(value))
        if self.is_symbol:
            return StringAttr(value)
        if self.code == "f":
            return attribute_of(float(value))
        low, high = RANGES[self.code]
        if not low <= value <= high:
            raise ValueError(f"field '{self.name}' = {value} lies outside {low}..{high}")
        return attribute_of(int(value))


RANGES = {
    "b": (-(2**7), 2**7 - 1), "B": (0, 2**8 - 1), "h": (-(2**15), 2**15 - 1), "H": (0, 2**16 - 1),
    "i": (-(2**31), 2**31 - 1), "I": (0, 2**32 - 1),
}  # fmt: skip


def reads(doc: str = "", arity: Arity = Arity.ONE, space: Space | None = None) -> Any:
    """A port that is read."""
    return Port(READ, arity, space, doc)


def writes(doc: str = "", arity: Arity = Arity.ONE, space: Space | None = None) -> Any:
    """A port that is written."""
    return Port(WRITE, arity, space, doc)


def field(code: str, default: Any = 0, doc: str = "", enum: type[IntEnum] | None = None) -> Any:
    """A field: code b B h H i I f, `list` (of i32) or `symbol`."""
    return Field(code, default, doc, enum)


# --- instructions ----------------------------------------------------------------------------------------
INSTRUCTIONS: dict[int, type[Instruction]] = {}
"""Instruction classes by opcode."""


class InstructionEffects(MemoryEffect):
    """Reads and writes by port, so that cleaning passes drop no instruction."""

    @classmethod
    def get_effects(cls, op: Operation) -> set[EffectInstance]:
        assert isinstance(op, Instruction)
        effects = set()
        for port in op.PORTS:
            for value in op.buffers(port.name):
                effects.add(EffectInstance(port.effect, value))
        return effects or {EffectInstance(WRITE)}


@functools.lru_cache(maxsize=4096)
def _segments(sizes: tuple[int, ...]) -> DenseArrayBase:
    return DenseArrayBase.from_list(i32, list(sizes))


def _sizes(op: Instruction) -> tuple[int, ...]:
    """Operands at each port, then tokens."""
    return value_of(op.properties["operandSegmentSizes"])


PortValues = Mapping[str, Sequence[SSAValue] | Sequence[Region]]


class Instruction(IRDLOperation):
    """A hardware instruction. See the module's docstring for its two forms."""

    PORTS: ClassVar[tuple[Port, ...]] = ()
    FIELDS: ClassVar[tuple[Field, ...]] = ()
    QUEUE: ClassVar[Queue]
    OPCODE: ClassVar[int]
    PORT: ClassVar[Mapping[str, Port]] = {}
    FIELD_NAMES: ClassVar[frozenset[str]] = frozenset()
    MADE: ClassVar[dict[tuple[Any, ...], Mapping[str, Attribute]]] = {}
    EPILOGUE: ClassVar[frozenset[str]] = frozenset()
    """Ports that only the last of several partial reductions has."""

    @classmethod
    def make(
        cls,
        ports: Mapping[str, Any],
        after: Sequence[SSAValue] = (),
        location: Any = None,
        **fields: Any,
    ) -> Self:
        """Build the instruction. A port is an SSA buffer, a Region, a list of either, or None.

        Raises TypeError for a port or field it does not have, ValueError for a value that does not fit.
        """
        properties: dict[str, Attribute] = {}
        operands: list[SSAValue] = []
        sizes: list[int] = []
        address_form = False
        for port in cls.PORTS:
            given = ports.get(port.name)
            several = isinstance(given, (list, tuple)) and not isinstance(given, Region)
            items = [] if given is None else list(given) if several else [given]
            if items and isinstance(items[0], Region):
                address_form = True
                properties[f"{port.name}_at"] = RegionsAttr(tuple(items))
                sizes.append(0)
            else:
                operands += items
                sizes.append(len(items))
        if unknown := set(ports) - set(cls.PORT):
            raise TypeError(f"{cls.name} has no port '{unknown.pop()}'")
        operands += after
        sizes.append(len(after))
        properties.update(cls._field_properties(fields))
        properties["operandSegmentSizes"] = _segments(tuple(sizes))
        op = cls.create(
            operands=operands, properties=properties, result_types=(TOKEN,) if address_form else ()
        )
        if location is not None:
            op.location = location
        return op

    @classmethod
    def _field_properties(cls, fields: Mapping[str, Any]) -> Mapping[str, Attribute]:
        """Attributes of all fields, defaults filled in; most tiles of a layer share them."""
        key = tuple(fields.get(f.name, f.default) for f in cls.FIELDS)
        if not fields.keys() <= cls.FIELD_NAMES:
            raise TypeError(f"{cls.name} has no field '{min(fields.keys() - cls.FIELD_NAMES)}'")
        known = cls.MADE.get(key)
        if known is None:
            if len(cls.MADE) > 1 << 14:
                cls.MADE.clear()
            known = cls.MADE[key] = {f.name: f.attribute(v) for f, v in zip(cls.FIELDS, key)}
        return known

    # -- access
    def fields(self) -> dict[str, Any]:
        """All fields as Python values."""
        return {f.name: value_of(self.properties[f.name]) for f in self.FIELDS}

    def buffers(self, port: str) -> Sequence[SSAValue]:
        """The buffers at a port; empty in address form."""
        start = 0
        for p, size in zip(self.PORTS, _sizes(self)):
            if p.name == port:
                return self._operands[start : start + size]
            start += size
        raise KeyError(f"{self.name} has no port '{port}'")

    def buffer(self, port: str) -> SSAValue | None:
        """The buffer at a port that takes at most one."""
        values = self.buffers(port)
        return values[0] if values else None

    def regions_at(self, port: str) -> tuple[Region, ...]:
        """The regions at a port; empty in buffer form."""
        attribute = self.properties.get(f"{port}_at")
        return () if attribute is None else attribute.data  # type: ignore[attr-defined]

    def ports(self) -> dict[str, Sequence[SSAValue]]:
        """Buffers by port, ports that are not connected left out."""
        found, start = {}, 0
        for port, size in zip(self.PORTS, _sizes(self)):
            if size:
                found[port.name] = self._operands[start : start + size]
                start += size
        return found  # type: ignore[return-value]

    @property
    def address_form(self) -> bool:
        """Whether ports are regions."""
        return any(f"{p.name}_at" in self.properties for p in self.PORTS)

    def accesses(self) -> Iterator[tuple[Port, Region]]:
        """Every region with its port (address form)."""
        for port in self.PORTS:
            for region in self.regions_at(port.name):
                yield port, region

    def verify_(self) -> None:
        in_address_form = self.address_form
        for port in self.PORTS:
            buffers, regions = self.buffers(port.name), self.regions_at(port.name)
            if buffers and in_address_form:
                raise VerifyException(f"{self.name}: port '{port.name}' is a buffer, another one a region")
            count = len(buffers) + len(regions)
            if (port.arity is Arity.ONE and count != 1) or (port.arity is Arity.OPTIONAL and count > 1):
                raise VerifyException(
                    f"{self.name}: port '{port.name}' takes {port.arity.value}, has {count}"
                )
            spaces = [buffer_type(b).space for b in buffers] + [r.space for r in regions]
            if port.space is not None and any(s is not port.space for s in spaces):
                raise VerifyException(
                    f"{self.name}: port '{port.name}' has to lie in {port.space.name.lower()}"
                )
        if in_address_form != (len(self.results) == 1):
            raise VerifyException(f"{self.name}: an instruction gives a token in address form and only there")
        for f in self.FIELDS:
            try:
                f.attribute(value_of(self.properties[f.name]))
            except (ValueError, KeyError, TypeError) as error:
                raise VerifyException(f"{self.name}: {error}") from None
        self.check()

    def check(self) -> None:
        """What an instruction class asks beyond ports and fields. Raises VerifyException."""

    # -- syntax
    def print(self, printer: Printer) -> None:
        if self.after:  # type: ignore[attr-defined]
            printer.print_string(" after ")
            printer.print_list(self.after, printer.print_ssa_value)  # type: ignore[attr-defined]
        for port in self.PORTS:
            buffers, regions = self.buffers(port.name), self.regions_at(port.name)
            if not buffers and not regions:
                continue
            printer.print_string(f" {port.name}(")
            if buffers:
                printer.print_list(buffers, printer.print_ssa_value)
            else:
                printer.print_string(", ".join(map(str, regions)))
            printer.print_string(")")
        shown = {f.name: a for f in self.FIELDS if (a := self.properties[f.name]) != f.attribute(f.default)}
        print_parameters(printer, shown | dict(self.attributes))

    @classmethod
    def parse(cls, parser: Parser) -> Self:
        after: Sequence[SSAValue] = []
        if parser.parse_optional_keyword("after"):
            names = parser.parse_comma_separated_list(parser.Delimiter.NONE, parser.parse_unresolved_operand)
            after = [parser.resolve_operand(n, TOKEN) for n in names]
        ports: dict[str, list[Any]] = {}
        while (name := parser.parse_optional_keyword_in(list(cls.PORT))) is not None:
            ports[name] = parser.parse_comma_separated_list(
                parser.Delimiter.PAREN, lambda: _parse_port(parser)
            )
        start = parser.pos
        given = parse_parameters(parser)
        fields = {n: value_of(a) for n, a in given.items() if "." not in n}
        try:
            op = cls.make(ports, after, **fields)
        except (TypeError, ValueError) as error:
            parser.raise_error(str(error), start, parser.pos)
        op.attributes |= {n: a for n, a in given.items() if "." in n}
        return op


def _parse_port(parser: Parser) -> SSAValue | Region:
    start = parser.pos
    unresolved = parser.parse_optional_unresolved_operand()
    if unresolved is None:
        return RegionAttr.parse_body(parser)
    known = parser.ssa_values.get(unresolved.operand_name)
    if known is None or unresolved.index >= len(known):
        parser.raise_error("this buffer is not defined above", start, parser.pos)
    return known[unresolved.index]


def instruction(opcode: int, queue: Queue):
    """Make an instruction of a class whose attributes are ports and fields, inherited ones included."""

    def define(cls: type) -> Any:
        ports: list[Port] = []
        fields: list[Field] = []
        for base in cls.__mro__:
            for name, value in list(vars(base).items()):
                if isinstance(value, Port):
                    ports.append(replace(value, name=name))
                elif isinstance(value, Field):
                    fields.append(replace(value, name=name))
        body: dict[str, Any] = {n: v for n, v in vars(cls).items() if not isinstance(v, (Port, Field))}
        for name in ("__dict__", "__weakref__"):
            body.pop(name, None)
        constants = {n: body.pop(n) for n in list(body) if n.isupper()}
        for port in ports:
            body[port.name] = var_operand_def(BufferType)
            body[f"{port.name}_at"] = opt_prop_def(RegionsAttr, prop_name=f"{port.name}_at")
        for f in fields:
            kind = {"list": DenseArrayBase, "symbol": StringAttr, "f": FloatAttr}.get(f.code, IntegerAttr)
            body[f.name] = prop_def(kind, default_value=f.attribute(f.default) if not f.is_symbol else None)  # type: ignore[arg-type]
        body["after"] = var_operand_def(TokenType)
        body["done"] = opt_result_def(TokenType)
        body["irdl_options"] = (AttrSizedOperandSegments(as_property=True),)
        body["traits"] = traits_def(InstructionEffects())
        made: Any = irdl_op_definition(type(cls.__name__, (Instruction,), body))  # mixins stay behind
        for name, value in constants.items():
            setattr(made, name, value)
        made.PORTS, made.FIELDS, made.QUEUE, made.OPCODE = tuple(ports), tuple(fields), queue, opcode
        made.PORT = {p.name: p for p in ports}
        made.FIELD_NAMES = frozenset(f.name for f in fields)
        made.MADE = {}
        if opcode in INSTRUCTIONS:
            raise ValueError(f"opcode {opcode:#x} belongs to {INSTRUCTIONS[opcode].name} already")
        INSTRUCTIONS[opcode] = made
        return made

    return define
