"""What quantisation rules call: operands in integers or floats, constants, and ops under the layer's name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from xdsl.dialects.builtin import IntegerType, LocationAttr, NameLoc, NoneAttr, StringAttr, UnknownLoc
from xdsl.dialects.func import FuncOp
from xdsl.ir import Attribute, BlockArgument, Operation, SSAValue

from ...dialects import graph, qnn
from ...dialects.nacre import set_sources, sources_of
from ...dialects.quant import STORAGE_NAMES, DCastOp, QCastOp, QuantType, quantised, storage_range
from ...dialects.types import dtype_of, element_type, i16, shape_of, tensor
from ...errors import CompileError
from ...runtime.fixed_point import quantise_multiplier
from ...runtime.interpreter import argument_names, reals
from ..pattern import name_of
from .apply_table import WHY
from .calibrate import described
from .parameters import Scheme, Weight, activation_type, quantise_weight, stored
from .ranges import Range, fixed_of, range_of

NAME_OF_STORAGE = {storage: name for name, storage in STORAGE_NAMES.items()}


class Emitter:
    """One function being quantised: what has been made of its values so far, and how more is made."""

    def __init__(self, function: FuncOp, scheme: Scheme):
        self.function = function
        self.block = function.body.block
        self.adopt(scheme)
        self.current: Operation | None = None
        self.made: dict[SSAValue, SSAValue] = {}  # float value -> what its rule made of it
        self.cast: dict[tuple[SSAValue, IntegerType], SSAValue] = {}  # float value -> in integers, for other users
        self.floats: dict[SSAValue, SSAValue] = {}  # float value whose op was quantised -> its dcast
        self.origins: dict[SSAValue, SSAValue] = {}  # such a dcast's result -> the float value it stands for
        self.chosen: dict[SSAValue, set[QuantType]] = {}  # float value -> the types it is quantised to
        self.clipped: set[SSAValue] = set()  # values whose type holds less than their range
        self.whys: dict[Operation, str] = {}  # why an op computes in another type than the default

    def adopt(self, scheme: Scheme) -> None:
        """Compute in a scheme from here on."""
        self.scheme = scheme
        self.storage = scheme.activations
        self.dtype = dtype_of(self.storage)
        self.low, self.high = storage_range(self.storage)

    # -- types
    def result_type(self, value: SSAValue) -> QuantType:
        """The type for a float value."""
        raise NotImplementedError

    def fixed_type(self, value: SSAValue) -> QuantType | None:
        """The type that a table gives a value. Raises CompileError for a zero point that does not fit."""
        fixed = fixed_of(value)
        if fixed is None:
            return None
        low, high = (0, 0) if self.storage == i16 else (self.low, self.high)
        if not low <= fixed.zero <= high:
            allowed = "is 0" if self.storage == i16 else f"lies in {low}..{high}"
            raise CompileError(
                f"quant table: the zero point {fixed.zero} of {described(value)} does not fit {self.dtype}, "
                f"where it {allowed}"
            )
        return quantised(self.storage, fixed.scale, fixed.zero)

    def type_of_range(self, value: SSAValue) -> QuantType:
        """The type of a value's calibrated range. Raises CompileError where there is none."""
        low, high = self.range(value)
        room = 1.0 if isinstance(value.owner, graph.ConstantOp) else self.scheme.headroom
        return activation_type(Range(low * room, high * room), self.storage)

    def range(self, value: SSAValue) -> Range:
        """A value's calibrated range; a constant's own."""
        if (array := graph.constant_of(value)) is not None:
            if not np.isfinite(array).all():
                raise CompileError(f"the constant '{name_of(value)}' holds NaN or infinite values")
            return Range(float(array.min(initial=0)), float(array.max(initial=0)))
        found = range_of(value)
        if found is None and (type_ := self.fixed_type(value)) is not None:
            return Range(*((end - type_.zero) * type_.scale for end in (self.low, self.high)))
        if found is None:
            raise CompileError(
                f"{described(value)} has no calibrated range; run calibration on this very module first, or name a "
                "range in a quantisation table"
            )
        return found

    # -- operands
    def input(self, value: SSAValue) -> SSAValue:
        """A float value quantised: what its rule made, maybe in another storage type; else a cast behind its
        definition."""
        made = self.made.get(value)
        if made is not None and self.type(made).storage == self.storage:
            return made
        key = value, self.storage
        if key not in self.cast:
            if made is not None:
                self.cast[key] = self.requantised(made, self.type_of_range(value))
            elif isinstance(value.owner, graph.ConstantOp):
                self.cast[key] = self.constant_as(value, self.type_of_range(value))
            else:
                self.cast[key] = self.quantise(value)
        return self.cast[key]

    def input_as(self, value: SSAValue, type_: QuantType) -> SSAValue:
        """A float value in a given quantised type."""
        if isinstance(value.owner, graph.ConstantOp):
            return self.constant_as(value, type_)
        return self.requantised(self.made.get(value) or self.input(value), type_)

    def requantised(self, value: SSAValue, type_: QuantType) -> SSAValue:
        """A quantised value in another type, itself where it has that already; from 8 bits to other storage by a
        table."""
        old = self.type(value)
        if old == type_:
            return value
        if old.storage not in (type_.storage, i16):
            return self.requantised_by_table(value, type_)
        multiplier, shift = (int(part) for part in quantise_multiplier(old.scale / type_.scale))
        zeros = {"input_zero": old.zero, "result_zero": type_.zero}
        to = "" if old.storage == type_.storage else NAME_OF_STORAGE[type_.storage]
        op = qnn.RequantiseOp.make(value, element=type_, multiplier=multiplier, shift=shift, to=to, **zeros)  # type: ignore[arg-type]
        return self.add(op)

    def requantised_by_table(self, value: SSAValue, type_: QuantType) -> SSAValue:
        """A value of 8 bits in another type, rounded once."""
        old = self.type(value)
        entries = np.arange(256, dtype=np.uint8).view(dtype_of(old))
        quotients = reals(entries, old) / np.float32(type_.scale)
        integers = np.clip(np.rint(quotients).astype(np.int64) + type_.zero, *storage_range(type_.storage))
        table = self.constant(integers.astype(dtype_of(type_)), element=type_)
        return self.add(qnn.TableOp.make(value, table, element=type_))

    def type(self, value: SSAValue) -> QuantType:
        """The type of a quantised value."""
        type_ = element_type(value)
        assert isinstance(type_, QuantType), type_
        return type_

    def quantise(self, value: SSAValue) -> SSAValue:
        """A qcast behind the definition of a float value."""
        type_ = self.result_type(value)
        self.chosen.setdefault(value, set()).add(type_)
        cast = QCastOp.create(operands=[value], result_types=[tensor(shape_of(value), type_)])
        cast.location = self.location_of(value)
        if isinstance(value, BlockArgument):
            first = self.block.first_op
            assert first is not None
            self.block.insert_op_before(cast, first)
        else:
            assert isinstance(value.owner, Operation)
            self.block.insert_op_after(cast, value.owner)
            if value not in self.clipped:
                sources = (s._replace(scale=type_.scale, zero=type_.zero) for s in sources_of(value))
                set_sources(cast.result, tuple(sources))
        return cast.result

    def as_float(self, value: SSAValue) -> SSAValue:
        """A value for float users: a dcast of what was quantised, else the value itself."""
        quantised = self.made.get(value)
        if quantised is None:
            return value
        if value not in self.floats:
            cast = DCastOp.create(operands=[quantised], result_types=[value.type])
            cast.location = self.location_of(quantised)
            set_sources(cast.result, sources_of(value) if value not in self.clipped else ())
            assert isinstance(quantised.owner, Operation)
            self.block.insert_op_after(cast, quantised.owner)
            self.floats[value], self.origins[cast.result] = cast.result, value
        return self.floats[value]

    def location_of(self, value: SSAValue) -> LocationAttr:
        """Where a value comes from: its op's location, or the input's name."""
        if isinstance(value, BlockArgument):
            return NameLoc(StringAttr(argument_names(self.function)[value.index]), NoneAttr())
        assert isinstance(value.owner, Operation)
        return value.owner.location

    # -- what rules emit
    def add(self, op: Operation) -> SSAValue:
        """Insert an op before the one that is being quantised, under its name; gives its first result."""
        assert self.current is not None
        if isinstance(op.location, UnknownLoc):
            op.location = self.current.location
        if (why := self.whys.get(self.current)) and not isinstance(op, graph.ConstantOp):
            op.attributes[WHY] = StringAttr(why)
        self.block.insert_op_before(op, self.current)
        return op.results[0]

    def constant(self, array: np.ndarray, name: str = "", element: Attribute | None = None) -> SSAValue:
        """A constant of integers."""
        assert self.current is not None
        return self.add(graph.constant(array, self.current, name, element))

    def constant_as(self, value: SSAValue, type_: QuantType) -> SSAValue:
        """A float constant in a quantised type."""
        array = graph.constant_of(value)
        assert array is not None
        return self.constant(stored(array, type_), name_of(value), type_)

    def constant_near(self, array: np.ndarray) -> SSAValue:
        """A constant of floats, quantised by its own range."""
        type_ = activation_type(Range(float(array.min()), float(array.max())), self.storage)
        return self.constant(stored(array, type_), "", type_)

    def weight(self, array: np.ndarray, bias: np.ndarray | None, ifm: SSAValue, ofm: QuantType) -> Weight:
        """Float weights […, M] and their bias, quantised for activations `ifm` and results of type `ofm`."""
        return quantise_weight(array, bias, self.type(ifm), self.scheme.weights, ofm)

    def factor(self, a: float, b: np.ndarray | float, result: float) -> np.ndarray | float:
        """The real factor from products of integers at two scales to a result."""
        return a * b / result

    def multiplier(self, real: np.ndarray | float) -> tuple[SSAValue, SSAValue]:
        """The constants multiplier and shift of a real factor, one or one a channel."""
        multiplier, shift = quantise_multiplier(np.atleast_1d(real))
        return self.constant(multiplier), self.constant(shift)

    def reshape(self, value: SSAValue, shape: Sequence[int]) -> SSAValue:
        """The value in another shape, itself where it has that already."""
        if shape_of(value) == tuple(shape):
            return value
        return self.add(graph.ReshapeOp.make(value, shape=tuple(shape)))

    def transpose(self, value: SSAValue, permutation: Sequence[int]) -> SSAValue:
        """The value with permuted axes, itself where they stay."""
        if list(permutation) == list(range(len(permutation))):
            return value
        return self.add(graph.TransposeOp.make(value, permutation=tuple(permutation)))

    @property
    def clamp(self) -> dict[str, Any]:
        """The whole range of the storage type, as the parameters `low` and `high`."""
        return {"low": self.low, "high": self.high}
