"""The base of Nacre's tensor operations: one shape rule, one syntax, parameters as plain Python values.

An op class declares operands, parameters (properties) and results; `infer` computes the result types from
them and is at once the builder's, the verifier's and the documentation's shape rule. The syntax

    %y = graph.conv %x, %w, %b {strides = [2, 2], groups = 1} : tensor<1x8x8x4xf32>

is printed and parsed here, once for all ops; an operand's type is never repeated.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Self

import numpy as np
from xdsl.dialects.builtin import (
    ArrayAttr,
    BoolAttr,
    DenseArrayBase,
    FloatAttr,
    IntegerAttr,
    LocationAttr,
    StringAttr,
    f32,
    i1,
    i64,
)
from xdsl.ir import Attribute, Operation, SSAValue, TypeAttribute
from xdsl.irdl import IRDLOperation, prop_def
from xdsl.parser import Parser
from xdsl.pattern_rewriter import RewritePattern
from xdsl.printer import Printer
from xdsl.traits import HasCanonicalizationPatternsTrait
from xdsl.utils.exceptions import VerifyException


# --- parameters ------------------------------------------------------------------------------------------
def ints(default: Sequence[int] | None = None) -> Any:
    """A parameter that is a list of integers (`array<i64: …>`)."""
    return prop_def(DenseArrayBase, default_value=None if default is None else attribute_of(tuple(default)))


def integer(default: int | None = None) -> Any:
    """An integer parameter (i64)."""
    return prop_def(IntegerAttr, default_value=None if default is None else attribute_of(default))


def number(default: float | None = None) -> Any:
    """A float parameter, of float32 precision."""
    return prop_def(FloatAttr, default_value=None if default is None else attribute_of(float(default)))


def numbers(default: Sequence[float] | None = None) -> Any:
    """A parameter that is a list of floats of float32 precision."""
    return prop_def(ArrayAttr, default_value=None if default is None else floats_attribute(default))


def floats_attribute(values: Sequence[float]) -> ArrayAttr:
    """A list of floats as an attribute (attribute_of takes sequences for lists of integers)."""
    return ArrayAttr([attribute_of(float(v)) for v in values])


def flag(default: bool = False) -> Any:
    """A true-or-false parameter."""
    return prop_def(IntegerAttr, default_value=attribute_of(default))


def string(default: str | None = None) -> Any:
    """A parameter that is a word."""
    return prop_def(StringAttr, default_value=None if default is None else attribute_of(default))


class Parameters(Mapping[str, Any]):
    """The parameters of an operation as Python values, by name or as attributes: what a kernel gets."""

    def __init__(self, values: Mapping[str, Any]):
        self._values = MappingProxyType(dict(values))

    def __getattr__(self, name: str) -> Any:
        try:
            return self._values[name]
        except KeyError:
            raise AttributeError(name) from None

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self):
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Parameters({dict(self._values)})"


def attribute_of(value: Any) -> Attribute:
    """A Python value as the attribute that stands for it."""
    if isinstance(value, Attribute):
        return value
    if not isinstance(value, (tuple, list)):
        return _attribute(type(value), value)  # type: ignore[arg-type]
    element = float if any(isinstance(v, (float, np.floating)) for v in value) else int
    return _attribute(type(value), tuple(map(element, value)), element)  # type: ignore[arg-type]


@functools.lru_cache(maxsize=65536)  # typed by the classes beside the value: True == 1 == 1.0, (1, 0) == (1.0, 0.0)
def _attribute(kind: type, value: Any, element: type | None = None) -> Attribute:
    if issubclass(kind, (bool, np.bool_)):
        return BoolAttr.from_bool(bool(value))
    if issubclass(kind, (int, np.integer)):
        return IntegerAttr(int(value), i64)
    if issubclass(kind, (float, np.floating)):
        return FloatAttr(float(np.float32(value)), f32)
    if issubclass(kind, str):
        return StringAttr(value)
    if issubclass(kind, (tuple, list)) and element is float:
        return floats_attribute(value)
    if issubclass(kind, (tuple, list)):
        return DenseArrayBase.from_list(i64, list(value))
    raise TypeError(f"no attribute stands for {value!r}")


_VALUES: dict[int, tuple[Attribute, Any]] = {}
"""Values by the attribute's identity, which the entry keeps alive: most attributes are interned
(attribute_of).
"""


def value_of(attribute: Attribute) -> Any:
    """The Python value of a parameter's attribute; other attributes stand for themselves."""
    known = _VALUES.get(id(attribute))
    if known is None:
        if len(_VALUES) > 1 << 16:
            _VALUES.clear()
        known = _VALUES[id(attribute)] = attribute, _value(attribute)
    return known[1]


def _value(attribute: Attribute) -> Any:
    if isinstance(attribute, DenseArrayBase):
        return tuple(attribute.get_values())
    if isinstance(attribute, IntegerAttr):
        return bool(attribute.value.data) if attribute.type == i1 else attribute.value.data
    if isinstance(attribute, FloatAttr):
        return float(np.float32(attribute.value.data)) if attribute.type == f32 else attribute.value.data
    if isinstance(attribute, StringAttr):
        return attribute.data
    if isinstance(attribute, ArrayAttr):
        return tuple(value_of(a) for a in attribute)
    return attribute


# --- traits ----------------------------------------------------------------------------------------------
PATTERNS: dict[type[Operation], list[RewritePattern]] = {}
"""Canonicalisation patterns by op class; passes/ fills it, so that dialects import no pass."""


class Canonicalizes(HasCanonicalizationPatternsTrait):
    """Lets xDSL's `canonicalize` find the patterns registered for an op class."""

    def get_patterns(self, op: type[Operation]) -> tuple[RewritePattern, ...]:
        return tuple(PATTERNS.get(op, ()))

    @classmethod
    def get_canonicalization_patterns(cls) -> tuple[RewritePattern, ...]:
        return ()  # they belong to an op class: see get_patterns


# --- operations ------------------------------------------------------------------------------------------
class DeclarativeOp(IRDLOperation):
    """An operation on values whose result types follow from its operands and parameters."""

    def infer(self) -> Sequence[Attribute]:
        """The result types. Raises VerifyException in words when operands and parameters do not fit."""
        raise NotImplementedError(f"{self.name} has no shape rule")

    @classmethod
    def make(cls, *operands: SSAValue, location: LocationAttr | None = None, **parameters: Any) -> Self:
        """Build the op; result types are inferred. Parameters left out take their defaults.

        Raises TypeError for a parameter the op does not have, VerifyException where the shape rule says no.
        """
        op = cls._unchecked(operands, parameters, ())
        types = op.infer()
        made = cls.create(operands=operands, properties=op.properties, result_types=types)
        op.drop_all_references()
        if location is not None:
            made.location = location
        return made

    @classmethod
    def _unchecked(
        cls, operands: Sequence[SSAValue], parameters: Mapping[str, Any], types: Sequence[Attribute]
    ) -> Self:
        declared = cls.get_irdl_definition().properties
        properties = dict(cls.defaults())
        for name, value in parameters.items():
            if name not in declared:
                raise TypeError(
                    f"{cls.name} has no parameter '{name}'; it has {', '.join(declared) or 'none'}"
                )
            if value is not None:
                properties[name] = attribute_of(value)
        for name in declared:
            if name not in properties and name not in cls.optional_parameters():
                raise TypeError(f"{cls.name} needs the parameter '{name}'")
        return cls.create(operands=operands, properties=properties, result_types=types)

    @classmethod
    @functools.cache
    def defaults(cls) -> Mapping[str, Attribute]:
        """Default attribute by parameter name."""
        declared = cls.get_irdl_definition().properties
        return {n: d.default_value for n, d in declared.items() if d.default_value is not None}

    @classmethod
    @functools.cache
    def optional_parameters(cls) -> frozenset[str]:
        """Parameters that may be absent altogether."""
        from xdsl.irdl import OptionalDef

        declared = cls.get_irdl_definition().properties
        return frozenset(
            n for n, d in declared.items() if isinstance(d, OptionalDef) and d.default_value is None
        )

    def parameters(self) -> Parameters:
        """All parameters as Python values, defaults filled in."""
        return Parameters({n: value_of(a) for n, a in {**self.defaults(), **self.properties}.items()})

    def verify_(self) -> None:
        expected = tuple(self.infer())
        found = tuple(r.type for r in self.results)
        if len(expected) != len(found):
            raise VerifyException(f"{self.name}: {len(expected)} results expected, {len(found)} found")
        for index, (want, have) in enumerate(zip(expected, found)):
            if want != have:
                which = f"result {index}" if len(found) > 1 else "the result"
                raise VerifyException(f"{self.name}: {which} should be {want}, but is {have}")

    # -- syntax
    def print(self, printer: Printer) -> None:
        if self.operands:
            printer.print_string(" ")
            printer.print_list(self.operands, printer.print_ssa_value)
        defaults = self.defaults()
        shown = {n: a for n, a in self.properties.items() if defaults.get(n) != a} | dict(self.attributes)
        print_parameters(printer, shown)
        if self.results:
            printer.print_string(" : ")
            printer.print_list([r.type for r in self.results], printer.print_attribute)

    @classmethod
    def parse(cls, parser: Parser) -> Self:
        operands = parse_operands(parser)
        start = parser.pos
        given = parse_parameters(parser)
        parameters = {n: a for n, a in given.items() if "." not in n}
        types: Sequence[Attribute] = []
        if parser.parse_optional_punctuation(":"):
            types = parser.parse_comma_separated_list(parser.Delimiter.NONE, parser.parse_type)
        try:
            op = cls._unchecked(operands, parameters, types)
        except TypeError as error:
            parser.raise_error(str(error), start, parser.pos)
        op.attributes |= {n: a for n, a in given.items() if "." in n}
        return op


def parse_operands(parser: Parser) -> list[SSAValue]:
    """A comma-separated list of values that are already defined, possibly empty."""
    operands: list[SSAValue] = []
    while True:
        start = parser.pos
        name = parser.parse_optional_unresolved_operand()
        if name is None:
            if operands:
                parser.raise_error("operand expected after ','")
            return operands
        known = parser.ssa_values.get(name.operand_name)
        if known is None or name.index >= len(known):
            parser.raise_error("this value is not defined above", start, parser.pos)
        operands.append(known[name.index])
        if not parser.parse_optional_punctuation(","):
            return operands


def print_parameters(printer: Printer, parameters: Mapping[str, Attribute]) -> None:
    """` {name = value, …}`, nothing when there are none."""
    if not parameters:
        return
    printer.print_string(" {")
    for index, (name, attribute) in enumerate(parameters.items()):
        printer.print_string(f"{', ' if index else ''}{name} = ")
        print_parameter(printer, attribute)
    printer.print_string("}")


def print_parameter(printer: Printer, attribute: Attribute) -> None:
    """A parameter in its short form where it has one: `[1, 2]`, `3`, `0.5`, `"nearest"`, `true`."""
    text = short_form(attribute)
    if text is None:
        printer.print_attribute(attribute)
    else:
        printer.print_string(text)


def short_form(attribute: Attribute) -> str | None:
    """The short text of i64 lists, i64, finite f32 and booleans; None for all else."""
    if isinstance(attribute, DenseArrayBase) and attribute.elt_type == i64:
        return f"[{', '.join(map(str, attribute.get_values()))}]"
    if isinstance(attribute, IntegerAttr) and attribute.type == i64:
        return str(attribute.value.data)
    if isinstance(attribute, IntegerAttr) and attribute.type == i1:
        return "true" if attribute.value.data else "false"
    if (
        isinstance(attribute, ArrayAttr)
        and len(attribute)
        and all(isinstance(a, FloatAttr) for a in attribute)
    ):
        parts = [short_form(a) for a in attribute]
        return None if None in parts else f"[{', '.join(p for p in parts if p)}]"
    if isinstance(attribute, FloatAttr) and attribute.type == f32 and math.isfinite(attribute.value.data):
        return float_text(attribute.value.data)
    return None


def float_text(value: float) -> str:
    """The shortest decimal that float32 reads back as the same number, with the point MLIR asks for."""
    text = str(np.float32(value))
    mantissa, e, exponent = text.partition("e")
    return f"{mantissa}{'' if '.' in mantissa else '.0'}{e}{exponent}"


def parse_parameters(parser: Parser) -> dict[str, Attribute]:
    """`{name = value, …}` in the forms `print_parameters` writes; empty when there is none."""
    if parser.parse_optional_punctuation("{") is None:
        return {}
    found: dict[str, Attribute] = {}
    if parser.parse_optional_punctuation("}"):
        return found
    while True:
        name = parser.parse_identifier_or_str_literal()
        if name in found:
            parser.raise_error(f"parameter '{name}' is given twice")
        if parser.parse_optional_punctuation("="):
            found[name] = parse_parameter(parser)
        else:
            from xdsl.dialects.builtin import UnitAttr

            found[name] = UnitAttr()
        if parser.parse_optional_punctuation(",") is None:
            parser.parse_punctuation("}")
            return found


def parse_parameter(parser: Parser) -> Attribute:
    """One parameter's value; the form says the type: `[1, 2]` a list, `3` i64, `3.0` f32."""
    if parser.parse_optional_punctuation("["):
        values: list[Attribute] = []
        if parser.parse_optional_punctuation("]") is None:
            values = parser.parse_comma_separated_list(parser.Delimiter.NONE, lambda: parse_parameter(parser))
            parser.parse_punctuation("]")
        if all(isinstance(v, FloatAttr) for v in values) and values:
            return ArrayAttr(values)
        if all(isinstance(v, IntegerAttr) and v.type == i64 for v in values):
            return attribute_of(tuple(value_of(v) for v in values))
        return ArrayAttr(values)
    if (boolean := parser.parse_optional_boolean()) is not None:
        return attribute_of(boolean)
    if (value := parser.parse_optional_number()) is not None:
        if parser.parse_optional_punctuation(":"):
            return _typed_number(value, parser.parse_type())
        return attribute_of(value)
    return parser.parse_attribute()


def _typed_number(value: int | float, type_: TypeAttribute) -> Attribute:
    if type_ == f32 and isinstance(value, int):  # MLIR's hexadecimal form, which holds infinities and NaN
        return FloatAttr(float(np.array(value, np.uint32).view(np.float32)), f32)
    if isinstance(value, float):
        return FloatAttr(value, type_)  # type: ignore[call-overload]
    return IntegerAttr(value, type_)  # type: ignore[call-overload]
