"""What all levels share: constants in a store, states kept between runs, the source tensor a value stands for, the
compilation's target.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from xdsl.dialects.builtin import (
    DenseIntOrFPElementsAttr,
    FlatSymbolRefAttrConstr,
    ModuleOp,
    StringAttr,
    SymbolNameConstraint,
    SymbolRefAttr,
    TensorType,
    i1,
)
from xdsl.ir import Attribute, Data, Dialect, Operation, SSAValue
from xdsl.irdl import (
    IRDLOperation,
    irdl_attr_definition,
    irdl_op_definition,
    operand_def,
    prop_def,
    result_def,
    traits_def,
)
from xdsl.parser import AttrParser, Parser
from xdsl.printer import Printer
from xdsl.traits import MemoryReadEffect, MemoryWriteEffect, SymbolOpInterface
from xdsl.utils.exceptions import VerifyException

from ..errors import NacreError
from .declarative import float_text, parse_parameter, parse_parameters, print_parameter, print_parameters
from .store import Store
from .types import dtype_of, element_of, storage_of, tensor

INLINE_LIMIT = 64
"""Constants of up to this many elements print inline; larger ones lie in the module's store."""


class Blob(NamedTuple):
    """A constant in a store: a name for people, a hash for the machine."""

    name: str
    digest: str


@irdl_attr_definition
class BlobAttr(Data[Blob]):
    """`#nacre.blob<"conv1.weight", "9f86d081…">`: a constant whose bytes lie in the module's store."""

    name = "nacre.blob"

    @classmethod
    def parse_parameter(cls, parser: AttrParser) -> Blob:
        with parser.in_angle_brackets():
            name = parser.parse_str_literal()
            parser.parse_punctuation(",")
            return Blob(name, parser.parse_str_literal())

    def print_parameter(self, printer: Printer) -> None:
        with printer.in_angle_brackets():
            printer.print_string_literal(self.data.name)
            printer.print_string(", ")
            printer.print_string_literal(self.data.digest)


@irdl_attr_definition
class StoreAttr(Data[Store]):
    """`#nacre.store<"x.safetensors">`, relative to the text's folder; `#nacre.store<>` lives in memory."""

    name = "nacre.store"

    @classmethod
    def parse_parameter(cls, parser: AttrParser) -> Store:
        with parser.in_angle_brackets():
            name = parser.parse_optional_str_literal()
        if name is None:
            return Store()
        return Store(Path(parser.lexer.input.name).parent / name)  # pyright: ignore[reportAttributeAccessIssue]

    def print_parameter(self, printer: Printer) -> None:
        with printer.in_angle_brackets():
            if self.data.path is not None:
                printer.print_string_literal(self.data.path.name)


class Source(NamedTuple):
    """The tensor of the source model that a value holds.

    Axis `i` of the value is axis `axes[i]` of the source tensor. An integer value also says what it stands
    for: real = scale · (q − zero).
    """

    tensor: str
    axes: tuple[int, ...]
    scale: float | None = None
    zero: int = 0


@irdl_attr_definition
class SourceAttr(Data[tuple[Source, ...]]):
    """`#nacre.source<"relu1" [0, 2, 3, 1], "pool1" [0, 1, 2, 3]>`: all the source tensors that a value
    holds.
    """

    name = "nacre.source"

    @classmethod
    def parse_parameter(cls, parser: AttrParser) -> tuple[Source, ...]:
        def one() -> Source:
            tensor_name = parser.parse_str_literal()
            axes = parser.parse_comma_separated_list(parser.Delimiter.SQUARE, parser.parse_integer)
            if parser.parse_optional_punctuation("*") is None:
                return Source(tensor_name, tuple(axes))
            scale = float(np.float32(parser.parse_float()))
            parser.parse_punctuation(":")
            return Source(tensor_name, tuple(axes), scale, parser.parse_integer())

        return tuple(parser.parse_comma_separated_list(parser.Delimiter.ANGLE, one))

    def print_parameter(self, printer: Printer) -> None:
        with printer.in_angle_brackets():
            for index, source in enumerate(self.data):
                printer.print_string(", " if index else "")
                printer.print_string_literal(source.tensor)
                printer.print_string(f" [{', '.join(map(str, source.axes))}]")
                if source.scale is not None:
                    printer.print_string(f" * {float_text(source.scale)}:{source.zero}")


# --- constants -------------------------------------------------------------------------------------------
def module_of(op: Operation) -> ModuleOp:
    """The module an op stands in. Raises NacreError for an op outside any."""
    current: Operation | None = op
    while current is not None:
        if isinstance(current, ModuleOp):
            return current
        current = current.parent_op()
    raise NacreError(f"{op.name} stands in no module, so its constants cannot be found")


def store_of(op: Operation) -> Store:
    """The store of the module an op stands in; a module without one gets one in memory."""
    module = module_of(op)
    attribute = module.attributes.get("nacre.store")
    if not isinstance(attribute, StoreAttr):
        attribute = StoreAttr(Store())
        module.attributes["nacre.store"] = attribute
    return attribute.data


def constant_attribute(array: np.ndarray, store: Store, name: str = "") -> Attribute:
    """An array as a constant's value: inline up to INLINE_LIMIT elements, in the store beyond."""
    array = np.asarray(array)
    if array.size > INLINE_LIMIT or not reads_back(array):
        return BlobAttr(Blob(name, store.put(array)))
    return inline_attribute(array)


def reads_back(array: np.ndarray) -> bool:
    """Whether xDSL prints an array so that it reads the same values back.

    Inside `dense<…>` it writes infinities, NaN and floats whose nine digits hold no point in hexadecimal, as
    MLIR does, but reads hexadecimal as a whole number.
    """
    if array.dtype.kind != "f":
        return True
    short = np.array([float(f"{v:.5e}") for v in array.flat]).astype(array.dtype).reshape(array.shape)
    digits = {2: "", 4: ".9g", 8: ".17g"}[array.dtype.itemsize]
    pointed = np.array(["." in format(float(v), digits) for v in array.flat], bool).reshape(array.shape)
    return bool(np.all(np.isfinite(array) & ((short == array) | pointed)))


def inline_attribute(array: np.ndarray) -> DenseIntOrFPElementsAttr:
    """A small array as `dense<…>`."""
    element = element_of(array.dtype)
    type_ = tensor(array.shape, element)
    values = array.ravel().tolist()
    if element == i1:
        values = [int(v) for v in values]
    return DenseIntOrFPElementsAttr.from_list(type_, values)  # type: ignore[return-value, type-var]


def array_of(value: Attribute, type_: Attribute, op: Operation) -> np.ndarray:
    """The array of a constant's value; `type_` is the tensor type it stands for, `op` says in which
    module.
    """
    assert isinstance(type_, TensorType)
    shape = tuple(d.data for d in type_.shape)
    dtype = dtype_of(type_.element_type)
    if isinstance(value, BlobAttr):
        array = store_of(op).get(value.data.digest)
        if array.dtype != dtype or array.size != np.prod(shape, dtype=np.int64):
            raise NacreError(
                f"constant '{value.data.name}' is {array.dtype}{list(array.shape)} in the store, "
                f"but {dtype}{list(shape)} in the text"
            )
        return array.reshape(shape)
    if isinstance(value, DenseIntOrFPElementsAttr):
        flat = np.array(list(value.get_values()), dtype=dtype)
        return (np.full(shape, flat[0]) if flat.size == 1 else flat.reshape(shape)).astype(dtype)
    raise NacreError(f"{op.name}: {value} is no constant's value")


def element_matches(value: Attribute, element: Attribute) -> bool:
    """Whether an inline constant's elements are those the type stores (a blob is checked when it is read)."""
    if isinstance(value, DenseIntOrFPElementsAttr):
        return value.type.element_type == storage_of(element)
    return isinstance(value, BlobAttr)


# --- states ----------------------------------------------------------------------------------------------
@irdl_op_definition
class StateOp(IRDLOperation):
    """A tensor that keeps its value between runs: `nacre.state @h dense<0.0> : tensor<1x128xf32>`.

    The value is what it holds before the first run and after a reset; of a quantised type, its stored integers.
    """

    name = "nacre.state"
    sym_name = prop_def(SymbolNameConstraint())
    value = prop_def(Attribute)
    type = prop_def(TensorType)
    traits = traits_def(SymbolOpInterface())

    @staticmethod
    def of(symbol: str, array: np.ndarray, store: Store, element: Attribute | None = None) -> StateOp:
        """A state that begins as an array; `element` where it is not the dtype's own (a quantised type)."""
        array = np.asarray(array)
        type_ = tensor(array.shape, element if element is not None else element_of(array.dtype))
        value = constant_attribute(array, store, symbol)
        return StateOp.create(properties={"sym_name": StringAttr(symbol), "value": value, "type": type_})

    def array(self) -> np.ndarray:
        """The initial value; quantised types give their stored integers."""
        return array_of(self.value, self.type, self)

    def verify_(self) -> None:
        if not element_matches(self.value, self.type.element_type):
            name = self.sym_name.data
            raise VerifyException(f"nacre.state @{name}: the value's elements are not those of {self.type}")

    def print(self, printer: Printer) -> None:
        printer.print_string(" ")
        printer.print_symbol_name(self.sym_name.data)
        printer.print_string(" ")
        print_parameter(printer, self.value)
        print_parameters(printer, self.attributes)
        if getattr(self.value, "type", None) != self.type:  # `dense<…> : type` says it already
            printer.print_string(" : ")
            printer.print_attribute(self.type)

    @classmethod
    def parse(cls, parser: Parser) -> StateOp:
        symbol = parser.parse_symbol_name()
        value = parse_parameter(parser)
        attributes = parse_parameters(parser)
        type_: Attribute | None = getattr(value, "type", None)
        if parser.parse_optional_punctuation(":"):
            type_ = parser.parse_type()
        if type_ is None:
            parser.raise_error("a state whose value lies in a store needs ': type'")
        op = cls.create(properties={"sym_name": symbol, "value": value, "type": type_})
        op.attributes |= attributes
        return op


class StateAccessOp(IRDLOperation):
    """An operation on a state of the module; the accesses of a run happen in the program's order."""

    state = prop_def(FlatSymbolRefAttrConstr)

    def symbol(self) -> str:
        """The state's name."""
        return self.state.root_reference.data

    def check(self, type_: Attribute) -> None:
        """Raise VerifyException where the module has no such state of that type. Outside a module nothing is known."""
        module = self.get_toplevel_object()
        if not isinstance(module, ModuleOp):
            return
        found = states_of(module).get(self.symbol())
        if found is None:
            raise VerifyException(f"{self.name}: the module has no state @{self.symbol()}")
        if found.type != type_:
            raise VerifyException(f"{self.name}: the state @{self.symbol()} is {found.type}, not {type_}")


@irdl_op_definition
class ReadStateOp(StateAccessOp):
    """What a state holds: `%h = nacre.read_state @h : tensor<1x128xf32>`, the last write's value or, before any in
    this run, what the run before left.
    """

    name = "nacre.read_state"
    result = result_def(TensorType)
    traits = traits_def(MemoryReadEffect())
    assembly_format = "$state attr-dict `:` type($result)"

    @staticmethod
    def of(state: StateOp) -> ReadStateOp:
        """A read of a state."""
        return ReadStateOp.create(
            properties={"state": SymbolRefAttr(state.sym_name.data)}, result_types=[state.type]
        )

    def verify_(self) -> None:
        self.check(self.result.type)


@irdl_op_definition
class WriteStateOp(StateAccessOp):
    """A state's new value: `nacre.write_state @h, %h1 : tensor<1x128xf32>`."""

    name = "nacre.write_state"
    value = operand_def(TensorType)
    traits = traits_def(MemoryWriteEffect())
    assembly_format = "$state `,` $value attr-dict `:` type($value)"

    @staticmethod
    def of(symbol: str, value: SSAValue) -> WriteStateOp:
        """A write to a state by its name."""
        return WriteStateOp.create(operands=[value], properties={"state": SymbolRefAttr(symbol)})

    def verify_(self) -> None:
        self.check(self.value.type)


def states_of(module: ModuleOp) -> dict[str, StateOp]:
    """The states of a module by name, in its order."""
    return {op.sym_name.data: op for op in module.ops if isinstance(op, StateOp)}


def initial_states(module: ModuleOp) -> dict[str, np.ndarray]:
    """What the states of a module hold before the first run: arrays of their own, by name."""
    return {name: np.array(op.array()) for name, op in states_of(module).items()}


# --- source tensors --------------------------------------------------------------------------------------
def sources_of(value: SSAValue) -> tuple[Source, ...]:
    """The source tensors a value holds, none for an untracked value."""
    owner = value.owner
    if isinstance(owner, Operation):
        attribute = owner.attributes.get(
            "nacre.source" if len(owner.results) == 1 else f"nacre.source{value.index}"  # type: ignore[attr-defined]
        )  # pyright: ignore[reportAttributeAccessIssue]
        if isinstance(attribute, SourceAttr):
            return attribute.data
    return ()


def set_sources(value: SSAValue, sources: tuple[Source, ...]) -> None:
    """Say which source tensors a value holds. Block arguments carry names of their own and are left alone."""
    owner = value.owner
    if isinstance(owner, Operation):
        key = "nacre.source" if len(owner.results) == 1 else f"nacre.source{value.index}"  # type: ignore[attr-defined]
        if sources:
            owner.attributes[key] = SourceAttr(sources)
        else:
            owner.attributes.pop(key, None)


NACRE = Dialect("nacre", [StateOp, ReadStateOp, WriteStateOp], [BlobAttr, StoreAttr, SourceAttr])
