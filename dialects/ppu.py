"""The ppu dialect: kernels of the programmable engine, in SSA form with structured control flow.

A function is what *one* work item does. Values are i1, i8, i16, i32, i64 and f32 (integers carry no sign;
operations do), pointers `!ppu.ptr<f32, global>`. Differing paths of work items are `ppu.if` and `ppu.loop`; there is
no branch. What the operations compute is defined in runtime/ppu/arithmetic.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import Enum
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from xdsl.dialects.builtin import (
    ArrayAttr,
    BytesAttr,
    DenseArrayBase,
    FloatAttr,
    FunctionType,
    IntegerAttr,
    IntegerType,
    LocationAttr,
    Signedness,
    StringAttr,
    SymbolNameConstraint,
)
from xdsl.ir import Attribute, Block, Data, Dialect, Operation, Region, SSAValue, TypeAttribute
from xdsl.irdl import (
    AnyAttr,
    IRDLOperation,
    irdl_attr_definition,
    irdl_op_definition,
    operand_def,
    opt_prop_def,
    prop_def,
    region_def,
    result_def,
    traits_def,
    var_operand_def,
    var_result_def,
)
from xdsl.parser import AttrParser, Parser
from xdsl.printer import Printer
from xdsl.traits import IsolatedFromAbove, IsTerminator, Pure, SymbolOpInterface
from xdsl.utils.exceptions import VerifyException

from .declarative import (
    Canonicalizes,
    DeclarativeOp,
    flag,
    float_text,
    integer,
    ints,
    parse_operands,
    parse_parameters,
    print_parameters,
    string,
)
from .types import DTYPE_OF, element_of, f32, i1, i8, i16, i32, i64

INTEGERS: tuple[Attribute, ...] = (i8, i16, i32, i64)
SCALARS: tuple[Attribute, ...] = (i1, *INTEGERS, f32)
PREDICATES = ("eq", "ne", "lt", "le", "gt", "ge", "ltu", "leu", "gtu", "geu")
ROUNDINGS = ("rte", "rtz", "rtp", "rtn")
"""To the nearest with ties to even, towards zero, up, down: OpenCL's names."""
QUERIES = (
    "global_id", "local_id", "group_id", "global_size", "local_size", "num_groups", "global_offset", "work_dim",
)  # fmt: skip


# --- pointers --------------------------------------------------------------------------------------------
class Space(Enum):
    """Which memory a pointer leads into."""

    GLOBAL = "global"
    CONSTANT = "constant"
    LOCAL = "local"
    PRIVATE = "private"


class Pointer(NamedTuple):
    """What a pointer leads to."""

    element: Attribute
    space: Space


@irdl_attr_definition
class PointerType(Data[Pointer], TypeAttribute):
    """`!ppu.ptr<f32, global>`: where an array of elements begins."""

    name = "ppu.ptr"

    @classmethod
    def parse_parameter(cls, parser: AttrParser) -> Pointer:
        with parser.in_angle_brackets():
            element = parser.parse_type()
            parser.parse_punctuation(",")
            word = parser.parse_identifier("memory")
            if word.upper() not in Space.__members__:
                parser.raise_error(f"'{word}' is no memory; {', '.join(s.value for s in Space)} are")
            return Pointer(element, Space[word.upper()])

    def print_parameter(self, printer: Printer) -> None:
        with printer.in_angle_brackets():
            printer.print_attribute(self.data.element)
            printer.print_string(f", {self.data.space.value}")

    def verify(self) -> None:
        if self.data.element not in (*INTEGERS, f32):
            raise VerifyException(f"a ppu pointer leads to i8, i16, i32, i64 or f32, not to {self.data.element}")


def pointer(element: Attribute, space: Space) -> PointerType:
    """A pointer type."""
    return PointerType(Pointer(element, space))


def pointer_of(op: Operation, value: SSAValue) -> Pointer:
    """What a pointer operand leads to. Raises VerifyException for another type."""
    if not isinstance(value.type, PointerType):
        raise VerifyException(f"{op.name}: a pointer is expected, not {value.type}")
    return value.type.data


def width_of(type_: Attribute) -> int:
    """Bits of a scalar type."""
    return type_.width.data if isinstance(type_, IntegerType) else 32


def check(op: Operation, value: SSAValue, allowed: Sequence[Attribute]) -> Attribute:
    """The type of an operand. Raises VerifyException where it is none of the allowed."""
    if value.type not in allowed:
        names = ", ".join(map(str, allowed))
        raise VerifyException(f"{op.name}: an operand is {value.type}, which is none of {names}")
    return value.type


# --- arithmetic ------------------------------------------------------------------------------------------
class Computation(DeclarativeOp):
    """An operation on scalars of one type, which is also the result's."""

    ALLOWED: ClassVar[tuple[Attribute, ...]] = SCALARS

    def infer(self) -> Sequence[Attribute]:
        first = check(self, self.operands[0], self.ALLOWED)
        for other in self.operands[1:]:
            if other.type != first:
                raise VerifyException(f"{self.name}: operands of one type are expected, not {first} and {other.type}")
        return [first]


class Unary(Computation):
    """One operand."""

    input = operand_def(AnyAttr())
    result = result_def(AnyAttr())
    traits = traits_def(Pure(), Canonicalizes())


class Binary(Computation):
    """Two operands of one type. Integers wrap around."""

    lhs = operand_def(AnyAttr())
    rhs = operand_def(AnyAttr())
    result = result_def(AnyAttr())
    traits = traits_def(Pure(), Canonicalizes())


NUMBERS: tuple[Attribute, ...] = (*INTEGERS, f32)
BITS: tuple[Attribute, ...] = (i1, *INTEGERS)


@irdl_op_definition
class AddOp(Binary):
    """Sum."""

    name = "ppu.add"
    ALLOWED: ClassVar = NUMBERS


@irdl_op_definition
class SubOp(Binary):
    """Difference."""

    name = "ppu.sub"
    ALLOWED: ClassVar = NUMBERS


@irdl_op_definition
class MulOp(Binary):
    """Product."""

    name = "ppu.mul"
    ALLOWED: ClassVar = NUMBERS


@irdl_op_definition
class DivOp(Binary):
    """Quotient; of signed integers truncated towards zero. An integer divisor of zero is a fault."""

    name = "ppu.div"
    ALLOWED: ClassVar = NUMBERS


@irdl_op_definition
class DivUOp(Binary):
    """Quotient of unsigned integers."""

    name = "ppu.divu"
    ALLOWED: ClassVar = INTEGERS


@irdl_op_definition
class RemOp(Binary):
    """Remainder of signed integers, with the dividend's sign."""

    name = "ppu.rem"
    ALLOWED: ClassVar = INTEGERS


@irdl_op_definition
class RemUOp(Binary):
    """Remainder of unsigned integers."""

    name = "ppu.remu"
    ALLOWED: ClassVar = INTEGERS


@irdl_op_definition
class MinOp(Binary):
    """The smaller of signed integers or floats; a NaN gives the other float."""

    name = "ppu.min"
    ALLOWED: ClassVar = NUMBERS


@irdl_op_definition
class MaxOp(Binary):
    """The larger of signed integers or floats; a NaN gives the other float."""

    name = "ppu.max"
    ALLOWED: ClassVar = NUMBERS


@irdl_op_definition
class MinUOp(Binary):
    """The smaller of unsigned integers."""

    name = "ppu.minu"
    ALLOWED: ClassVar = INTEGERS


@irdl_op_definition
class MaxUOp(Binary):
    """The larger of unsigned integers."""

    name = "ppu.maxu"
    ALLOWED: ClassVar = INTEGERS


@irdl_op_definition
class AndOp(Binary):
    """Bits set in both."""

    name = "ppu.and"
    ALLOWED: ClassVar = BITS


@irdl_op_definition
class OrOp(Binary):
    """Bits set in one or both."""

    name = "ppu.or"
    ALLOWED: ClassVar = BITS


@irdl_op_definition
class XorOp(Binary):
    """Bits set in exactly one."""

    name = "ppu.xor"
    ALLOWED: ClassVar = BITS


@irdl_op_definition
class ShlOp(Binary):
    """Left shift by the low bits of the amount (3 of i8 … 6 of i64), as OpenCL C has it."""

    name = "ppu.shl"
    ALLOWED: ClassVar = INTEGERS


@irdl_op_definition
class ShrOp(Binary):
    """Arithmetic right shift, by the low bits of the amount."""

    name = "ppu.shr"
    ALLOWED: ClassVar = INTEGERS


@irdl_op_definition
class ShrUOp(Binary):
    """Logical right shift, by the low bits of the amount."""

    name = "ppu.shru"
    ALLOWED: ClassVar = INTEGERS


@irdl_op_definition
class NegOp(Unary):
    """Negative."""

    name = "ppu.neg"
    ALLOWED: ClassVar = NUMBERS


@irdl_op_definition
class AbsOp(Unary):
    """Magnitude; of the smallest integer, that integer (its magnitude, read without sign)."""

    name = "ppu.abs"
    ALLOWED: ClassVar = NUMBERS


@irdl_op_definition
class SqrtOp(Unary):
    """Square root, correctly rounded."""

    name = "ppu.sqrt"
    ALLOWED: ClassVar = (f32,)


@irdl_op_definition
class FloorOp(Unary):
    """Rounded down to an integral float."""

    name = "ppu.floor"
    ALLOWED: ClassVar = (f32,)


@irdl_op_definition
class CeilOp(Unary):
    """Rounded up to an integral float."""

    name = "ppu.ceil"
    ALLOWED: ClassVar = (f32,)


@irdl_op_definition
class TruncOp(Unary):
    """Rounded towards zero to an integral float."""

    name = "ppu.trunc"
    ALLOWED: ClassVar = (f32,)


@irdl_op_definition
class RintOp(Unary):
    """Rounded to the nearest integral float, ties to even."""

    name = "ppu.rint"
    ALLOWED: ClassVar = (f32,)


@irdl_op_definition
class FmaOp(Computation):
    """a · b + c, rounded once."""

    name = "ppu.fma"
    a = operand_def(AnyAttr())
    b = operand_def(AnyAttr())
    c = operand_def(AnyAttr())
    result = result_def(AnyAttr())
    traits = traits_def(Pure(), Canonicalizes())
    ALLOWED: ClassVar = (f32,)


@irdl_op_definition
class CompareOp(DeclarativeOp):
    """Whether lhs and rhs are so ordered; `ltu` … compare without sign. With a NaN only `ne` holds."""

    name = "ppu.compare"
    lhs = operand_def(AnyAttr())
    rhs = operand_def(AnyAttr())
    result = result_def(AnyAttr())
    predicate = string()
    traits = traits_def(Pure(), Canonicalizes())

    def infer(self) -> Sequence[Attribute]:
        predicate = self.parameters().predicate
        if predicate not in PREDICATES:
            raise VerifyException(f"{self.name}: '{predicate}' is no predicate; {', '.join(PREDICATES)} are")
        type_ = check(self, self.lhs, INTEGERS if predicate.endswith("u") else SCALARS)
        if self.rhs.type != type_:
            raise VerifyException(f"{self.name}: operands of one type are expected, not {type_} and {self.rhs.type}")
        return [i1]


@irdl_op_definition
class SelectOp(DeclarativeOp):
    """The second operand where the condition holds, else the third."""

    name = "ppu.select"
    condition = operand_def(AnyAttr())
    chosen = operand_def(AnyAttr())
    other = operand_def(AnyAttr())
    result = result_def(AnyAttr())
    traits = traits_def(Pure(), Canonicalizes())

    def infer(self) -> Sequence[Attribute]:
        check(self, self.condition, (i1,))
        if check(self, self.chosen, SCALARS) != self.other.type:
            raise VerifyException(f"{self.name}: {self.chosen.type} and {self.other.type} are not one type")
        return [self.chosen.type]


# --- operations whose result type the builder chooses -----------------------------------------------------
class TypedOp(DeclarativeOp):
    """An operation whose result has a type of its own, which `make` is told."""

    result = result_def(AnyAttr())

    @classmethod
    def make(  # type: ignore[override]
        cls, *operands: SSAValue, type: Attribute, location: LocationAttr | None = None, **parameters: object
    ) -> Self:
        """Build the op with a result of the given type. Raises VerifyException where it does not fit."""
        op = cls._unchecked(operands, parameters, [type])
        op.infer()
        if location is not None:
            op.location = location
        return op


@irdl_op_definition
class ConstantOp(IRDLOperation):
    """A number: `ppu.constant 3 : i32`; floats may be written as their bits, `0x7FC00000 : f32`."""

    name = "ppu.constant"
    value = prop_def(Attribute)
    result = result_def(AnyAttr())
    traits = traits_def(Pure(), Canonicalizes())

    @classmethod
    def of(cls, value: bool | int | float, type_: Attribute, location: LocationAttr | None = None) -> Self:
        """A constant; integers wrap around to their type."""
        op = cls.create(properties={"value": number_attribute(value, type_)}, result_types=[type_])
        if location is not None:
            op.location = location
        return op

    def number(self) -> int | float:
        """The value; integers with their sign, i1 as 0 or 1."""
        assert isinstance(self.value, (IntegerAttr, FloatAttr))
        if self.result.type == i1:
            return self.value.value.data & 1  # type: ignore[operator]
        return self.value.value.data

    def verify_(self) -> None:
        if not isinstance(self.value, (IntegerAttr, FloatAttr)) or self.value.type != self.result.type:
            raise VerifyException(f"{self.name}: {self.value} is no number of type {self.result.type}")
        if self.result.type not in SCALARS:
            raise VerifyException(f"{self.name}: {self.result.type} is no type of the programmable engine")

    def print(self, printer: Printer) -> None:
        printer.print_string(f" {number_text(self.number(), self.result.type)}")
        printer.print_op_attributes(self.attributes)
        printer.print_string(" : ")
        printer.print_attribute(self.result.type)

    @classmethod
    def parse(cls, parser: Parser) -> Self:
        start = parser.pos
        boolean = parser.parse_optional_boolean()
        value: int | float = parser.parse_number() if boolean is None else boolean
        attributes = parser.parse_optional_attr_dict()
        parser.parse_punctuation(":")
        type_ = parser.parse_type()
        if type_ not in SCALARS:
            parser.raise_error(f"{type_} is no type of the programmable engine", start, parser.pos)
        if type_ == f32 and isinstance(value, int):  # MLIR's hexadecimal form, which holds infinities and NaN
            value = float(np.array(value, np.uint32).view(np.float32))
        if type_ != f32 and isinstance(value, float):
            parser.raise_error(f"{value} is no number of type {type_}", start, parser.pos)
        op = cls.of(value, type_)
        op.attributes |= attributes
        return op


def number_text(number: int | float, type_: Attribute) -> str:
    """A number as text; infinities and NaN as their bits, which is MLIR's form."""
    if type_ == f32:
        bits = np.float32(number).view(np.uint32)
        return float_text(number) if math.isfinite(number) else f"0x{bits:08X}"
    if type_ == i1:
        return "true" if number else "false"
    return str(number)


def number_attribute(value: bool | int | float, type_: Attribute) -> Attribute:
    """A number as the attribute of a constant; integers wrap around to their width."""
    if type_ == f32:
        with np.errstate(over="ignore"):
            return FloatAttr(float(np.float32(value)), f32)
    assert isinstance(type_, IntegerType) and type_.signedness.data is Signedness.SIGNLESS
    bits = type_.width.data
    low = int(value) & ((1 << bits) - 1)
    signed = low - (1 << bits) if bits > 1 and low >> (bits - 1) else low
    return IntegerAttr(signed, type_)


@irdl_op_definition
class ConvertOp(TypedOp):
    """A number as another type.

    `signed` says how an integer operand reads, `to_signed` how an integer result will. Integers wrap around, or clamp
    with `saturate`. Floats become integers rounded as `rounding` says, clamped, NaN to 0; integers become floats so.
    """

    name = "ppu.convert"
    input = operand_def(AnyAttr())
    signed = flag(True)
    to_signed = flag(True)
    saturate = flag(False)
    rounding = string("rte")
    traits = traits_def(Pure(), Canonicalizes())

    def infer(self) -> Sequence[Attribute]:
        check(self, self.input, SCALARS)
        if self.result.type not in SCALARS:
            raise VerifyException(f"{self.name}: {self.result.type} is no type of the programmable engine")
        if (rounding := self.parameters().rounding) not in ROUNDINGS:
            raise VerifyException(f"{self.name}: '{rounding}' is no rounding; {', '.join(ROUNDINGS)} are")
        if self.input.type == i64 and self.result.type == f32 and rounding != "rte":
            raise VerifyException(f"{self.name}: i64 becomes f32 with the rounding 'rte' only, not '{rounding}'")
        if self.result.type == i1:
            raise VerifyException(f"{self.name}: compare with zero to make an i1")
        return [self.result.type]


@irdl_op_definition
class BitcastOp(TypedOp):
    """The same bits as another type of the same width."""

    name = "ppu.bitcast"
    input = operand_def(AnyAttr())
    traits = traits_def(Pure(), Canonicalizes())

    def infer(self) -> Sequence[Attribute]:
        source = check(self, self.input, NUMBERS)
        if self.result.type not in NUMBERS or width_of(self.result.type) != width_of(source):
            raise VerifyException(f"{self.name}: {source} has not the bits of {self.result.type}")
        return [self.result.type]


@irdl_op_definition
class AllocOp(TypedOp):
    """An array: one a work group in local memory, one a work item in private memory. It starts undefined."""

    name = "ppu.alloc"
    size = integer()
    label = string("")

    def infer(self) -> Sequence[Attribute]:
        target = self.result.type
        if not isinstance(target, PointerType) or target.data.space not in (Space.LOCAL, Space.PRIVATE):
            raise VerifyException(f"{self.name}: the result is a pointer to local or private memory, not {target}")
        if self.parameters().size < 1:
            raise VerifyException(f"{self.name}: an array has at least one element")
        return [target]


@irdl_op_definition
class TableOp(TypedOp):
    """An array of constant memory with fixed contents, one for all work items: `ppu.table [3, -1]`.

    `values` are integers of the elements' width, of floats their bits, so that tables are equal where every bit is.
    Its text, `%t = ppu.table [0.5, 0x7FC00000] {label = "t"} : !ppu.ptr<f32, constant>`, shows numbers as
    ppu.constant does.
    """

    name = "ppu.table"
    values = ints()
    label = string("")
    traits = traits_def(Pure())

    @classmethod
    def of(cls, contents: np.ndarray, label: str = "", location: LocationAttr | None = None) -> Self:
        """A table of the elements of an array of int8 … int64 or float32."""
        element = element_of(contents.dtype)
        data = contents.astype(contents.dtype.newbyteorder("<"), copy=False).tobytes()
        values = DenseArrayBase(bits_type(element), BytesAttr(data))
        return cls.make(type=pointer(element, Space.CONSTANT), location=location, values=values, label=label)

    def contents(self) -> np.ndarray:
        """The elements, read-only."""
        element = pointer_of(self, self.result).element
        return np.frombuffer(self.values.data.data, DTYPE_OF[element].newbyteorder("<"))

    def infer(self) -> Sequence[Attribute]:
        target = self.result.type
        if not isinstance(target, PointerType) or target.data.space is not Space.CONSTANT:
            raise VerifyException(f"{self.name}: the result is a pointer to constant memory, not {target}")
        if self.values.elt_type != bits_type(target.data.element):
            found, wanted = self.values.elt_type, bits_type(target.data.element)
            raise VerifyException(f"{self.name}: values of {target} are written as {wanted}, not as {found}")
        if not self.values.data.data:
            raise VerifyException(f"{self.name}: a table has at least one element")
        return [target]

    def print(self, printer: Printer) -> None:
        texts = (number_text(v, pointer_of(self, self.result).element) for v in self.contents())
        printer.print_string(f" [{', '.join(texts)}]")
        shown = {"label": self.label} if self.label.data else {}
        print_parameters(printer, shown | dict(self.attributes))
        printer.print_string(" : ")
        printer.print_attribute(self.result.type)

    @classmethod
    def parse(cls, parser: Parser) -> Self:
        start = parser.pos
        numbers = parser.parse_comma_separated_list(parser.Delimiter.SQUARE, parser.parse_number)
        given = parse_parameters(parser)
        parser.parse_punctuation(":")
        type_ = parser.parse_type()
        element = type_.data.element if isinstance(type_, PointerType) else i64
        try:
            values = DenseArrayBase.from_list(bits_type(element), [bits_of(n, element) for n in numbers])
            parameters: dict[str, Any] = {n: a for n, a in given.items() if "." not in n}
            op = cls.make(type=type_, values=values, **parameters)
        except (TypeError, VerifyException) as error:
            parser.raise_error(str(error), start, parser.pos)
        op.attributes |= {n: a for n, a in given.items() if "." in n}
        return op


def bits_type(element: Attribute) -> IntegerType:
    """The integer type that has as many bits as an element."""
    return IntegerType(width_of(element))


def bits_of(number: int | float, element: Attribute) -> int:
    """A number of a text as a signed integer of the element's bits; an integer among floats is their bits already."""
    if element != f32 and isinstance(number, float):
        raise VerifyException(f"{number} is no number of type {element}")
    if isinstance(number, float):
        with np.errstate(over="ignore"):
            return int(np.float32(number).view(np.int32))
    bits = width_of(element)
    low = number & ((1 << bits) - 1)
    return low - (1 << bits) if low >> (bits - 1) else low


# --- memory and work items -------------------------------------------------------------------------------
@irdl_op_definition
class LoadOp(DeclarativeOp):
    """The element at an index (i64, in elements)."""

    name = "ppu.load"
    source = operand_def(AnyAttr())
    index = operand_def(AnyAttr())
    result = result_def(AnyAttr())
    traits = traits_def(Canonicalizes())

    def infer(self) -> Sequence[Attribute]:
        check(self, self.index, (i64,))
        return [pointer_of(self, self.source).element]


@irdl_op_definition
class StoreOp(DeclarativeOp):
    """Write a value to the element at an index. Of several work items at one element the last one wins."""

    name = "ppu.store"
    value = operand_def(AnyAttr())
    target = operand_def(AnyAttr())
    index = operand_def(AnyAttr())

    def infer(self) -> Sequence[Attribute]:
        check(self, self.index, (i64,))
        target = pointer_of(self, self.target)
        if target.space is Space.CONSTANT:
            raise VerifyException(f"{self.name}: constant memory is not written")
        if self.value.type != target.element:
            raise VerifyException(f"{self.name}: {self.value.type} does not fit an array of {target.element}")
        return []


@irdl_op_definition
class WorkItemOp(DeclarativeOp):
    """What a work item knows of itself and of the grid, along one dimension."""

    name = "ppu.work_item"
    result = result_def(AnyAttr())
    query = string()
    dimension = integer(0)
    traits = traits_def(Pure(), Canonicalizes())

    def infer(self) -> Sequence[Attribute]:
        p = self.parameters()
        if p.query not in QUERIES:
            raise VerifyException(f"{self.name}: '{p.query}' is no query; {', '.join(QUERIES)} are")
        if not 0 <= p.dimension < 3:
            raise VerifyException(f"{self.name}: the dimensions are 0, 1 and 2, not {p.dimension}")
        return [i64]


@irdl_op_definition
class BarrierOp(DeclarativeOp):
    """All work items of a group arrive here before one goes on."""

    name = "ppu.barrier"

    def infer(self) -> Sequence[Attribute]:
        return []


# --- control flow ----------------------------------------------------------------------------------------
@irdl_op_definition
class YieldOp(IRDLOperation):
    """What a region gives: `ppu.yield %a, %b : i32, f32`. A loop's first value says whether to go on."""

    name = "ppu.yield"
    values = var_operand_def()
    traits = traits_def(IsTerminator())
    assembly_format = "attr-dict ($values^ `:` type($values))?"

    @staticmethod
    def of(*values: SSAValue) -> YieldOp:
        """The end of a region."""
        return YieldOp(operands=[list(values)])


def yielded(region: Region) -> Sequence[SSAValue]:
    """The values a region gives. Raises VerifyException where it does not end in ppu.yield."""
    last = region.block.last_op
    if not isinstance(last, YieldOp):
        raise VerifyException("a region of ppu.if and ppu.loop ends with ppu.yield")
    return last.operands


def check_types(what: str, found: Sequence[SSAValue], expected: Sequence[Attribute]) -> None:
    """Raise VerifyException where values have not the expected types."""
    have = [v.type for v in found]
    if have != list(expected):
        want, got = (", ".join(map(str, t)) or "nothing" for t in (expected, have))
        raise VerifyException(f"{what}: {want} expected, but found {got}")


@irdl_op_definition
class IfOp(IRDLOperation):
    """Work items for which the condition holds take the first region, the others the second.

    %r = ppu.if %c -> (i32) { … ppu.yield %a : i32 } else { … ppu.yield %b : i32 }
    """

    name = "ppu.if"
    condition = operand_def(i1)
    outputs = var_result_def()
    then = region_def("single_block")
    otherwise = region_def("single_block")
    traits = traits_def(Canonicalizes())

    @staticmethod
    def of(condition: SSAValue, then: Block, otherwise: Block) -> IfOp:
        """A decision between two blocks that end in ppu.yield."""
        types = [v.type for v in yielded(Region(then))]
        assert then.parent is not None
        return IfOp(operands=[condition], result_types=[types], regions=[then.parent, Region(otherwise)])

    def verify_(self) -> None:
        for region in (self.then, self.otherwise):
            if region.block.args:
                raise VerifyException("ppu.if: its regions take no arguments")
            check_types("ppu.if", yielded(region), [r.type for r in self.outputs])

    def print(self, printer: Printer) -> None:
        printer.print_string(" ")
        printer.print_ssa_value(self.condition)
        if self.outputs:
            printer.print_string(" -> (")
            printer.print_list([r.type for r in self.outputs], printer.print_attribute)
            printer.print_string(")")
        printer.print_op_attributes(self.attributes, print_keyword=True)
        printer.print_string(" ")
        printer.print_region(self.then)
        printer.print_string(" else ")
        printer.print_region(self.otherwise)

    @classmethod
    def parse(cls, parser: Parser) -> IfOp:
        start = parser.pos
        operands = parse_operands(parser)
        if len(operands) != 1:
            parser.raise_error("ppu.if takes one condition", start, parser.pos)
        types: Sequence[Attribute] = []
        if parser.parse_optional_punctuation("->"):
            types = parser.parse_comma_separated_list(parser.Delimiter.PAREN, parser.parse_type)
        attributes = parser.parse_optional_attr_dict_with_keyword()
        then = parser.parse_region()
        parser.parse_keyword("else")
        op = IfOp(operands=operands, result_types=[types], regions=[then, parser.parse_region()])
        op.attributes |= attributes.data if attributes else {}
        return op


@irdl_op_definition
class LoopOp(IRDLOperation):
    """Repeats its region for every work item whose first yielded value is true; it runs at least once.

    %sum = ppu.loop (%s = %zero) : (f32) { … ppu.yield %again, %next : i1, f32 }
    """

    name = "ppu.loop"
    inputs = var_operand_def()
    outputs = var_result_def()
    body = region_def("single_block")
    traits = traits_def(Canonicalizes())

    @staticmethod
    def of(inputs: Sequence[SSAValue], body: Block) -> LoopOp:
        """A loop around a block that ends in ppu.yield."""
        types = [v.type for v in inputs]
        return LoopOp(operands=[list(inputs)], result_types=[types], regions=[Region(body)])

    def verify_(self) -> None:
        types = [v.type for v in self.inputs]
        check_types("ppu.loop: the region's arguments", self.body.block.args, types)
        check_types("ppu.loop: the results", self.outputs, types)
        check_types("ppu.loop: the yielded values", yielded(self.body), [i1, *types])

    def print(self, printer: Printer) -> None:
        printer.print_string(" (")
        for index, (argument, value) in enumerate(zip(self.body.block.args, self.inputs)):
            printer.print_string(", " if index else "")
            printer.print_ssa_value(argument)
            printer.print_string(" = ")
            printer.print_ssa_value(value)
        printer.print_string(") : (")
        printer.print_list([v.type for v in self.inputs], printer.print_attribute)
        printer.print_string(")")
        printer.print_op_attributes(self.attributes, print_keyword=True)
        printer.print_string(" ")
        printer.print_region(self.body, print_entry_block_args=False)

    @classmethod
    def parse(cls, parser: Parser) -> LoopOp:
        def pair() -> tuple[Parser.UnresolvedArgument, SSAValue]:
            name = parser.parse_argument(expect_type=False)
            parser.parse_punctuation("=")
            return name, parser.parse_operand()

        pairs = parser.parse_comma_separated_list(parser.Delimiter.PAREN, pair)
        parser.parse_punctuation(":")
        start = parser.pos
        types = parser.parse_comma_separated_list(parser.Delimiter.PAREN, parser.parse_type)
        if len(types) != len(pairs):
            parser.raise_error(f"{len(pairs)} types expected, {len(types)} found", start, parser.pos)
        attributes = parser.parse_optional_attr_dict_with_keyword()
        body = parser.parse_region([name.resolve(type_) for (name, _), type_ in zip(pairs, types)])
        op = LoopOp(operands=[[v for _, v in pairs]], result_types=[types], regions=[body])
        op.attributes |= attributes.data if attributes else {}
        return op


# --- functions -------------------------------------------------------------------------------------------
@irdl_op_definition
class ReturnOp(DeclarativeOp):
    """The end of a function."""

    name = "ppu.return"
    traits = traits_def(IsTerminator())

    def infer(self) -> Sequence[Attribute]:
        return []


@irdl_op_definition
class FuncOp(IRDLOperation):
    """A kernel: `ppu.func @scale("x" %x : !ppu.ptr<f32, global>, "n" %n : i32) { … ppu.return }`.

    The words are the arguments' names in the source. `group(16, 1, 1)` behind them is the work group that the kernel
    is written for, along dimensions 0, 1 and 2.
    """

    name = "ppu.func"
    sym_name = prop_def(SymbolNameConstraint())
    function_type = prop_def(FunctionType)
    arg_names = prop_def(ArrayAttr[StringAttr])
    group = opt_prop_def(DenseArrayBase)
    body = region_def("single_block")
    traits = traits_def(IsolatedFromAbove(), SymbolOpInterface())

    @staticmethod
    def of(symbol: str, names: Sequence[str], body: Region, group: Sequence[int] | None = None) -> FuncOp:
        """A function around a block, whose arguments become its own."""
        properties: dict[str, Attribute] = {
            "sym_name": StringAttr(symbol),
            "function_type": FunctionType.from_lists([a.type for a in body.block.args], []),
            "arg_names": ArrayAttr([StringAttr(n) for n in names]),
        }
        if group is not None:
            properties["group"] = DenseArrayBase.from_list(i64, list(group))
        return FuncOp.create(properties=properties, regions=[body])

    def names(self) -> list[str]:
        """The arguments' names."""
        return [n.data for n in self.arg_names]

    def group_size(self) -> tuple[int, ...] | None:
        """The work group that the kernel is written for."""
        return None if self.group is None else tuple(map(int, self.group.get_values()))

    def verify_(self) -> None:
        types = list(self.function_type.inputs)
        check_types(f"ppu.func @{self.sym_name.data}: the arguments", self.body.block.args, types)
        if len(self.function_type.outputs) or len(self.arg_names) != len(types):
            raise VerifyException(f"ppu.func @{self.sym_name.data}: one name an argument is expected, and no result")
        for type_ in types:
            if type_ not in NUMBERS and not isinstance(type_, PointerType):
                raise VerifyException(f"ppu.func @{self.sym_name.data}: no argument is of type {type_}")
            if isinstance(type_, PointerType) and type_.data.space is Space.PRIVATE:
                raise VerifyException(f"ppu.func @{self.sym_name.data}: no argument leads into private memory")
        if (group := self.group_size()) is not None and (len(group) != 3 or min(group) < 1):
            raise VerifyException(f"ppu.func @{self.sym_name.data}: a work group has three sizes, not {list(group)}")
        if not isinstance(self.body.block.last_op, ReturnOp):
            raise VerifyException(f"ppu.func @{self.sym_name.data} ends with ppu.return")

    def print(self, printer: Printer) -> None:
        printer.print_string(" ")
        printer.print_symbol_name(self.sym_name.data)
        printer.print_string("(")
        for index, (name, argument) in enumerate(zip(self.names(), self.body.block.args)):
            printer.print_string(", " if index else "")
            printer.print_string_literal(name)
            printer.print_string(" ")
            printer.print_ssa_value(argument)
            printer.print_string(" : ")
            printer.print_attribute(argument.type)
        printer.print_string(")")
        if (group := self.group_size()) is not None:
            printer.print_string(f" group({', '.join(map(str, group))})")
        printer.print_op_attributes(self.attributes, print_keyword=True)
        printer.print_string(" ")
        printer.print_region(self.body, print_entry_block_args=False)

    @classmethod
    def parse(cls, parser: Parser) -> FuncOp:
        symbol = parser.parse_symbol_name().data

        def argument() -> tuple[str, Parser.Argument]:
            return parser.parse_str_literal(), parser.parse_argument()

        pairs = parser.parse_comma_separated_list(parser.Delimiter.PAREN, argument)
        group = None
        if parser.parse_optional_keyword("group"):
            group = parser.parse_comma_separated_list(parser.Delimiter.PAREN, parser.parse_integer)
        attributes = parser.parse_optional_attr_dict_with_keyword()
        op = cls.of(symbol, [n for n, _ in pairs], parser.parse_region([a for _, a in pairs]), group)
        op.attributes |= attributes.data if attributes else {}
        return op


OPS: list[type[Operation]] = [
    AddOp, SubOp, MulOp, DivOp, DivUOp, RemOp, RemUOp, MinOp, MaxOp, MinUOp, MaxUOp, AndOp, OrOp, XorOp,
    ShlOp, ShrOp, ShrUOp, NegOp, AbsOp, SqrtOp, FloorOp, CeilOp, TruncOp, RintOp, FmaOp, CompareOp, SelectOp,
    ConstantOp, ConvertOp, BitcastOp, AllocOp, TableOp, LoadOp, StoreOp, WorkItemOp, BarrierOp, YieldOp, IfOp,
    LoopOp, ReturnOp, FuncOp,
]  # fmt: skip
PPU = Dialect("ppu", OPS, [PointerType])
