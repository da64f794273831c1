"""Calibrated ranges in the IR: `nacre.range = [lo, hi]` on an op or argument, `nacre.range0` for several.

A quantisation table may also fix a value's scale and zero point: `nacre.scale = [scale, zero]`. Ends are rounded
outward to 16 significant bits, so that the last bits of a float sum, which differ between machines, do not reach
a scale.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from xdsl.dialects.builtin import ArrayAttr, DictionaryAttr
from xdsl.dialects.func import FuncOp
from xdsl.ir import Attribute, BlockArgument, Operation, OpResult, SSAValue

from ...dialects.declarative import floats_attribute, value_of
from ...dialects.locations import layer_of
from ...errors import CompileError

SIGNIFICANT_BITS = 16
FLT_MAX = float(np.finfo(np.float32).max)
RANGE, SCALE = "nacre.range", "nacre.scale"


class Range(NamedTuple):
    """The smallest and the largest value seen."""

    low: float
    high: float


class Fixed(NamedTuple):
    """The scale and zero point that a table asks for."""

    scale: float
    zero: int


def range_of(value: SSAValue) -> Range | None:
    """The range stored for a value, None where nothing was. Raises CompileError for one that is no range."""
    ends = _two_floats(value, RANGE, "range: two finite floats, low and high, are")
    if ends is not None and ends[0] > ends[1]:
        raise _mistake(value, RANGE, "range: two finite floats, low and high, are")
    return None if ends is None else Range(*ends)


def fixed_of(value: SSAValue) -> Fixed | None:
    """The scale and zero point that a table gives a value, None where it gives none."""
    what = "scale and zero point: a float above zero and a whole one are"
    found = _two_floats(value, SCALE, what)
    if found is not None and (found[0] <= 0 or not found[1].is_integer()):
        raise _mistake(value, SCALE, what)
    return None if found is None else Fixed(found[0], int(found[1]))


def _two_floats(value: SSAValue, base: str, what: str) -> tuple[float, float] | None:
    attribute = _attributes(value).get(_key(value, base))
    if attribute is None:
        return None
    ends = value_of(attribute)
    numbers = isinstance(ends, tuple) and all(isinstance(end, float) and math.isfinite(end) for end in ends)
    if not numbers or len(ends) != 2:
        raise _mistake(value, base, what)
    return ends  # type: ignore[return-value]


def _mistake(value: SSAValue, base: str, what: str) -> CompileError:
    name = layer_of(value.owner.location) if isinstance(value.owner, Operation) else ""
    where = f" of layer '{name}'" if name else ""
    key = _key(value, base)
    return CompileError(f"{key} = {_attributes(value)[key]}{where} is no {what}")


def set_range(value: SSAValue, low: float, high: float) -> None:
    """Store a range for a value, rounded outward, but not beyond what float32 holds."""
    _set(value, RANGE, floats_attribute((max(rounded_down(low), -FLT_MAX), min(-rounded_down(-high), FLT_MAX))))


def set_fixed(value: SSAValue, scale: float, zero: int) -> None:
    """Ask for a scale and zero point."""
    _set(value, SCALE, floats_attribute((scale, float(zero))))


def clear_range(value: SSAValue) -> None:
    """Forget the range, scale and zero point of a value."""
    _set(value, RANGE, None)
    _set(value, SCALE, None)


def rounded_down(x: float) -> float:
    """The largest number of 16 significant bits that is not above x."""
    mantissa, exponent = math.frexp(x)
    return math.ldexp(math.floor(math.ldexp(mantissa, SIGNIFICANT_BITS)), exponent - SIGNIFICANT_BITS)


def _key(value: SSAValue, base: str) -> str:
    if isinstance(value, OpResult) and len(value.op.results) > 1:
        return f"{base}{value.index}"
    return base


def _attributes(value: SSAValue) -> dict[str, Attribute]:
    """The attributes that belong to a value: its op's, or its argument's in the function."""
    if not isinstance(value, BlockArgument):
        assert isinstance(value.owner, Operation)
        return value.owner.attributes
    function = value.block.parent_op()
    if not isinstance(function, FuncOp) or function.arg_attrs is None:
        return {}
    return dict(function.arg_attrs.data[value.index].data)


def _set(value: SSAValue, base: str, attribute: Attribute | None) -> None:
    if not isinstance(value, BlockArgument):
        attributes = _attributes(value)
        attributes.pop(_key(value, base), None)
        if attribute is not None:
            attributes[_key(value, base)] = attribute
        return
    function = value.block.parent_op()
    assert isinstance(function, FuncOp), "only a function's arguments have a range"
    old = function.arg_attrs
    dictionaries = [{} for _ in function.args] if old is None else [dict(d.data) for d in old.data]
    dictionaries[value.index].pop(base, None)
    if attribute is not None:
        dictionaries[value.index][base] = attribute
    if any(dictionaries) or old is not None:
        function.arg_attrs = ArrayAttr([DictionaryAttr(d) for d in dictionaries])
