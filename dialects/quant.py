"""MLIR's quant dialect, in its syntax: uniformly quantised element types and the casts to and from them.

real = scale · (q − zero point), per tensor or per slice along one axis.
https://mlir.llvm.org/docs/Dialects/QuantDialect/
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from xdsl.dialects.builtin import IntegerType, Signedness, TensorType, f32
from xdsl.ir import Attribute, Data, Dialect, TypeAttribute
from xdsl.irdl import (
    IRDLOperation,
    irdl_attr_definition,
    irdl_op_definition,
    operand_def,
    result_def,
    traits_def,
)
from xdsl.parser import AttrParser
from xdsl.printer import Printer
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException

from .declarative import float_text
from .types import element_type, i8, i16, i32, shape_of, storage_of, u8

STORAGE_NAMES: dict[str, IntegerType] = {"i8": i8, "u8": u8, "i16": i16, "i32": i32}
QDQ = "nacre.qdq"
"""Marks a module whose casts say how float ops are to be quantised (ONNX QDQ), until a pass has done so."""
_NAME_OF = {type_: name for name, type_ in STORAGE_NAMES.items()}


class Uniform(NamedTuple):
    """What a quantised element is: storage type, scales and zero points (one, or one a slice), axis."""

    storage: IntegerType
    scales: tuple[float, ...]
    zeros: tuple[int, ...]
    axis: int | None
    low: int
    high: int


def storage_range(storage: Attribute) -> tuple[int, int]:
    """Smallest and largest value of an integer storage type."""
    assert isinstance(storage, IntegerType)
    bits = storage.width.data
    if storage.signedness.data is Signedness.UNSIGNED:
        return 0, 2**bits - 1
    return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1


@irdl_attr_definition
class QuantType(Data[Uniform], TypeAttribute):
    """`!quant.uniform<i8:f32, 0.02:3>`, per axis `!quant.uniform<i8:f32:3, {0.1, 0.2}>`."""

    name = "quant.uniform"

    @property
    def storage(self) -> IntegerType:
        return self.data.storage

    @property
    def scale(self) -> float:
        """The one scale of a per-tensor type."""
        assert self.data.axis is None, "a per-axis type has many scales"
        return self.data.scales[0]

    @property
    def zero(self) -> int:
        """The one zero point of a per-tensor type."""
        assert self.data.axis is None, "a per-axis type has many zero points"
        return self.data.zeros[0]

    @classmethod
    def parse_parameter(cls, parser: AttrParser) -> Uniform:
        with parser.in_angle_brackets():
            storage = STORAGE_NAMES.get(word := parser.parse_identifier("storage type"))
            if storage is None:
                parser.raise_error(f"'{word}' is no storage type; {', '.join(STORAGE_NAMES)} are")
            low, high = storage_range(storage)
            if parser.parse_optional_punctuation("<"):
                low = parser.parse_integer()
                parser.parse_punctuation(":")
                high = parser.parse_integer()
                parser.parse_punctuation(">")
            parser.parse_punctuation(":")
            if parser.parse_type() != f32:
                parser.raise_error("the expressed type has to be f32")
            axis = parser.parse_integer() if parser.parse_optional_punctuation(":") else None
            parser.parse_punctuation(",")
            if axis is None:
                pairs = [_parse_scale(parser)]
            else:
                pairs = parser.parse_comma_separated_list(
                    parser.Delimiter.BRACES, lambda: _parse_scale(parser)
                )
        scales, zeros = zip(*pairs)
        return Uniform(storage, scales, zeros, axis, low, high)

    def print_parameter(self, printer: Printer) -> None:
        u = self.data
        with printer.in_angle_brackets():
            printer.print_string(_NAME_OF[u.storage])
            if (u.low, u.high) != storage_range(u.storage):
                printer.print_string(f"<{u.low}:{u.high}>")
            printer.print_string(":f32")
            pairs = [float_text(s) + (f":{z}" if z else "") for s, z in zip(u.scales, u.zeros)]
            if u.axis is None:
                printer.print_string(f", {pairs[0]}")
            else:
                printer.print_string(f":{u.axis}, {{{', '.join(pairs)}}}")

    def verify(self) -> None:
        u = self.data
        if not all(np.isfinite(s) and s > 0 for s in u.scales):
            raise VerifyException("the scales of a quantised type have to be finite and above zero")
        if not all(u.low <= z <= u.high for z in u.zeros):
            raise VerifyException(f"a zero point lies outside the storage range {u.low}..{u.high}")


def _parse_scale(parser: AttrParser) -> tuple[float, int]:
    scale = float(np.float32(parser.parse_number()))
    return scale, parser.parse_integer() if parser.parse_optional_punctuation(":") else 0


@functools.lru_cache(maxsize=16384)
def _quantised(u: Uniform) -> QuantType:
    return QuantType(u)


def quantised(
    storage: Attribute, scale: float | Sequence[float], zero: int | Sequence[int] = 0, axis: int | None = None
) -> QuantType:
    """An interned quantised type; scales are rounded to float32. One scale a slice of `axis` when it is
    given.
    """
    assert isinstance(storage, IntegerType)
    scales = tuple(float(np.float32(s)) for s in np.atleast_1d(np.asarray(scale, np.float64)))
    zeros = tuple(int(z) for z in np.broadcast_to(np.asarray(zero), (len(scales),)))
    return _quantised(Uniform(storage, scales, zeros, axis, *storage_range(storage)))


class CastOp(IRDLOperation):
    """A change of element type that keeps shape."""

    input = operand_def(TensorType)
    result = result_def(TensorType)
    traits = traits_def(Pure())
    assembly_format = "$input attr-dict `:` type($input) `to` type($result)"

    def verify_(self) -> None:
        if shape_of(self.input) != shape_of(self.result):
            raise VerifyException(f"{self.name} does not change the shape")
        self.check(element_type(self.input), element_type(self.result))

    def check(self, source: Attribute, target: Attribute) -> None:
        """Raise VerifyException when this cast does not lead from `source` to `target`."""
        raise NotImplementedError


@irdl_op_definition
class QCastOp(CastOp):
    """Quantise: q = clamp(round(x / scale) + zero point), round half away from zero (TFLite quantisation
    spec).
    """

    name = "quant.qcast"

    def check(self, source: Attribute, target: Attribute) -> None:
        if source != f32 or not isinstance(target, QuantType):
            raise VerifyException(
                f"quant.qcast goes from f32 to a quantised type, not from {source} to {target}"
            )


@irdl_op_definition
class DCastOp(CastOp):
    """Dequantise: x = scale · (q − zero point)."""

    name = "quant.dcast"

    def check(self, source: Attribute, target: Attribute) -> None:
        if target != f32 or not isinstance(source, QuantType):
            raise VerifyException(
                f"quant.dcast goes from a quantised type to f32, not from {source} to {target}"
            )


@irdl_op_definition
class SCastOp(CastOp):
    """See the stored integers of a quantised tensor as such, or the other way round; no bit changes."""

    name = "quant.scast"

    def check(self, source: Attribute, target: Attribute) -> None:
        if isinstance(source, QuantType) == isinstance(target, QuantType) or storage_of(source) != storage_of(
            target
        ):
            raise VerifyException(
                f"quant.scast joins a quantised type and its storage type, not {source}, {target}"
            )


QUANT = Dialect("quant", [QCastOp, DCastOp, SCastOp], [QuantType])
