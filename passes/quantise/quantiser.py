"""The walk that quantises a function: which values become quantised, to which types, and where casts stand.

Rules call a `Quantiser` for quantised operands, result types and constants; it knows no particular op class.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from xdsl.dialects.builtin import LocationAttr, NameLoc, NoneAttr, StringAttr, UnknownLoc
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Attribute, BlockArgument, Operation, SSAValue
from xdsl.transforms.dead_code_elimination import is_trivially_dead

from ...dialects import graph, qnn
from ...dialects.nacre import set_sources, sources_of
from ...dialects.quant import DCastOp, QCastOp, QuantType, storage_range
from ...dialects.types import dtype_of, element_type, f32, shape_of, tensor
from ...errors import CompileError
from ...runtime.fixed_point import quantise_multiplier
from ...runtime.interpreter import argument_names
from ..pattern import name_of
from .calibrate import described
from .masks import clip_masks
from .parameters import Scheme, Weight, activation_type, quantise_weight, stored
from .ranges import Range, clear_range, range_of
from .rules import Kind, Quantised, Rule, rule_of

COARSER = 4.0
"""Up to this factor an operand's scale may grow where values join for float users only."""


class Quantiser:
    """One function on its way from graph to qnn; ops are visited in order."""

    def __init__(self, function: FuncOp, scheme: Scheme):
        self.function = function
        self.block = function.body.block
        self.scheme = scheme
        self.storage = scheme.activations
        self.dtype = dtype_of(self.storage)
        self.low, self.high = storage_range(self.storage)
        self.current: Operation | None = None
        self.made: dict[SSAValue, SSAValue] = {}  # float value -> what its rule made of it
        self.cast: dict[SSAValue, SSAValue] = {}  # float value -> its qcast, or the constant in integers
        self.floats: dict[SSAValue, SSAValue] = {}  # float value whose op was quantised -> its dcast
        self.types: dict[SSAValue, QuantType] = {}  # chosen for results
        self.clipped: set[SSAValue] = set()  # values whose type holds less than their range
        self.wanted: dict[SSAValue, bool] = {}
        self.joined: dict[Operation, bool] = {}

    def run(self) -> None:
        """Quantise the function in place."""
        clip_masks(self.function)
        before = list(self.block.ops)
        for op in before:
            if not isinstance(op, graph.ConstantOp):
                self.current = op
                self.visit(op)
        for op in reversed(list(self.block.ops)):
            if is_trivially_dead(op):
                op.detach()
                op.erase()
        for value in (*self.function.args, *(r for op in self.block.ops for r in op.results)):
            clear_range(value)

    def visit(self, op: Operation) -> None:
        """Quantise one op, or leave it float on dequantised operands."""
        rule = None if isinstance(op, ReturnOp) else rule_of(op)
        results: Quantised = None
        if rule is not None and self.in_integers(op, rule):
            results = self.emit(op, rule)
        if rule is None or results is None:
            op.operands = [self.as_float(v) for v in op.operands]
            return
        for old, new in zip(op.results, [results] if isinstance(results, SSAValue) else results):
            self.record(old, new, rule)

    def emit(self, op: Operation, rule: Rule) -> Quantised:
        """What the rule of an op makes of it; None: it stays float."""
        return rule.function(op, self)

    def record(self, old: SSAValue, new: SSAValue, rule: Rule) -> None:
        """Say that `new` is `old` quantised, and let it stand for the same source tensors."""
        type_ = element_type(new)
        if not isinstance(type_, QuantType):  # argmax: indices
            old.replace_all_uses_with(new)
            set_sources(new, sources_of(old))
            return
        self.made[old] = new
        owner = old.owner
        if rule.kind is Kind.MOVES and isinstance(owner, Operation) and owner.operands[0] in self.clipped:
            self.clipped.add(old)
        if old not in self.clipped:
            sources = (s._replace(scale=type_.scale, zero=type_.zero) for s in sources_of(old))
            set_sources(new, (*sources_of(new), *sources))

    # -- which values are quantised
    def in_integers(self, op: Operation, rule: Rule) -> bool:
        """Whether an op with a rule is quantised; one that only moves values follows its neighbours."""
        if rule.kind is Kind.MOVES:
            return op.operands[0] in self.made or any(self.wants(r) for r in op.results)
        return rule.kind is not Kind.JOINS or self.joins(op)

    def joins(self, op: Operation) -> bool:
        """Whether operands are brought to one type: for a user that computes, or where it costs them little.

        Otherwise (boxes beside probabilities in one output) they meet as floats, each with its own precision.
        """
        if op not in self.joined:
            result = op.results[0]
            scale = self.type_of_range(result).scale
            floats = [v for v in op.operands if element_type(v) == f32]
            alike = all(self.type_of_range(v).scale * COARSER > scale for v in floats)
            self.joined[op] = self.wants(result) or (alike and any(map(self.is_computed, floats)))
        return self.joined[op]

    def is_computed(self, value: SSAValue) -> bool:
        """Whether a value comes, maybe moved, from an op that computes in integers."""
        owner = value.owner
        if not isinstance(owner, Operation) or (rule := rule_of(owner)) is None:
            return False
        if rule.kind is Kind.JOINS:
            return self.joins(owner)
        return rule.kind is not Kind.MOVES or self.is_computed(owner.operands[0])

    def wants(self, value: SSAValue) -> bool:
        """Whether some user computes in integers, maybe behind ops that move values."""
        if value not in self.wanted:
            self.wanted[value] = any(self.takes(use.operation) for use in value.uses)
        return self.wanted[value]

    def takes(self, op: Operation) -> bool:
        rule = None if isinstance(op, ReturnOp) else rule_of(op)
        if rule is None:
            return False
        return rule.kind not in (Kind.MOVES, Kind.JOINS) or any(self.wants(r) for r in op.results)

    # -- types
    def result_type(self, value: SSAValue) -> QuantType:
        """The type for a float value: that of the activation or concatenation it feeds, else of its range."""
        if value not in self.types:
            demanded = self.demanded(value)
            self.types[value] = self.type_of_range(value) if demanded is None else demanded
        return self.types[value]

    def demanded(self, value: SSAValue) -> QuantType | None:
        """The type that the only user asks of a value, through ops that only move it."""
        users = list(value.uses)
        if len(users) != 1 or isinstance(op := users[0].operation, ReturnOp):
            return None
        rule = rule_of(op)
        if rule is None or len(op.results) != 1:
            return None
        if rule.kind is Kind.CLIPS:
            self.clipped.add(value)
            return self.result_type(op.results[0])
        if rule.kind is Kind.JOINS:
            return self.result_type(op.results[0]) if self.joins(op) else None
        if rule.kind is Kind.MOVES and users[0].index == 0 and element_type(op.results[0]) == f32:
            return self.demanded(op.results[0])
        return None

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
        if found is None:
            raise CompileError(
                f"{described(value)} has no calibrated range; run calibration on this very module first"
            )
        return found

    # -- operands
    def input(self, value: SSAValue) -> SSAValue:
        """A float value quantised: what its rule made, else a cast behind its definition."""
        if value in self.made:
            return self.made[value]
        if value not in self.cast:
            if isinstance(value.owner, graph.ConstantOp):
                self.cast[value] = self.constant_as(value, self.type_of_range(value))
            else:
                self.cast[value] = self.quantise(value)
        return self.cast[value]

    def input_as(self, value: SSAValue, type_: QuantType) -> SSAValue:
        """A float value in a given quantised type."""
        if isinstance(value.owner, graph.ConstantOp):
            return self.constant_as(value, type_)
        return self.requantised(self.input(value), type_)

    def requantised(self, value: SSAValue, type_: QuantType) -> SSAValue:
        """A quantised value in another type, itself where it has that already."""
        old = self.type(value)
        if old == type_:
            return value
        multiplier, shift = (int(part) for part in quantise_multiplier(old.scale / type_.scale))
        zeros = {"input_zero": old.zero, "result_zero": type_.zero}
        op = qnn.RequantiseOp.make(value, element=type_, multiplier=multiplier, shift=shift, **zeros)  # type: ignore[arg-type]
        return self.add(op)

    def type(self, value: SSAValue) -> QuantType:
        """The type of a quantised value."""
        type_ = element_type(value)
        assert isinstance(type_, QuantType), type_
        return type_

    def quantise(self, value: SSAValue) -> SSAValue:
        """A qcast behind the definition of a float value."""
        type_ = self.result_type(value)
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
            self.floats[value] = cast.result
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

    def weight(self, array: np.ndarray, bias: np.ndarray | None, ifm: SSAValue) -> Weight:
        """Float weights […, M] and their bias, quantised for activations `ifm`."""
        return quantise_weight(array, bias, self.type(ifm), self.scheme.weights)

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
