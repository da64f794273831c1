"""Make integer arithmetic of a float graph whose casts say how it is quantised (ONNX QDQ).

Where an op's operands come from quant.dcast and its result goes to quant.qcast, the quantisation rule of its
class emits the qnn op with these types. What has no quantised result, or no rule, stays float between casts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from xdsl.dialects.builtin import IntegerType, ModuleOp
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Operation, SSAValue
from xdsl.pattern_rewriter import PatternRewriter
from xdsl.transforms.dead_code_elimination import region_dce

from ...dialects import graph
from ...dialects.nacre import set_sources, sources_of
from ...dialects.quant import (
    QDQ,
    CastOp,
    DCastOp,
    QCastOp,
    QuantType,
    SCastOp,
    quantised,
    storage_range,
)
from ...dialects.rounding import Rounding
from ...dialects.types import dtype_of, element_type, f32, i8, i16, shape_of, tensor, u8
from ...runtime.interpreter import main_function, reals
from ..base import NacrePass
from ..pattern import defined_by, name_of, pattern, with_operands
from ..rewrite import rewrite
from . import quantise as _rules  # noqa: F401  fills RULES
from .parameters import (
    SCHEMES,
    Scheme,
    Weight,
    bias_integers,
    half_away,
    is_constant,
    quantise_weight,
    reals_of,
    stored,
)
from .quantiser import Quantiser
from .ranges import Range
from .rules import RULES, Kind, Quantised, Rule, rule_of

ROUNDED_ONCE: dict[str, Any] = {"rounding": Rounding.EVEN, "product_rounding": Rounding.EVEN, "faithful_db": -math.inf}
"""As a cast behind a float op rounds. A table of 8 bits does so whatever its types are worth."""
SCHEME_OF = {
    i8: SCHEMES["int8"]._replace(**ROUNDED_ONCE),
    u8: SCHEMES["uint8"]._replace(**ROUNDED_ONCE),
    i16: SCHEMES["int16"],
}
"""By storage type."""
COARSER = 2.0
"""A rule that fixes its result's scale (softmax, counting averages) serves up to this factor of the
model's.
"""


@dataclass(frozen=True)
class FoldQdqPass(NacrePass):
    """Turn dequantise, float op, quantise into integer ops with the model's own scales."""

    name = "quantise-fold-qdq"

    def run(self, module: ModuleOp) -> None:
        rewrite(module, cast_there_and_back, cast_of_move, join_of_casts, after=region_dce)
        CastQuantiser(main_function(module)).run()
        fold_casts_of_constants(module)
        rewrite(module, cast_there_and_back, after=region_dce)
        module.attributes.pop(QDQ, None)


# --- stored integers seen as quantised --------------------------------------------------------------------
@pattern(SCastOp)
def cast_there_and_back(op: SCastOp, rewriter: PatternRewriter) -> None:
    """scast(scast(x)) -> x, where x has the type already."""
    inner = defined_by(op.input, SCastOp)
    if inner and inner.input.type == op.result.type:
        rewriter.replace(op, [], [inner.input])


@pattern(SCastOp)
def cast_of_move(op: SCastOp, rewriter: PatternRewriter) -> None:
    """scast(move(x)) -> move(scast(x)): what moves stored integers moves quantised ones."""
    move, type_ = op.input.owner, element_type(op.result)
    if not isinstance(type_, QuantType) or not isinstance(move, graph.GraphOp) or len(move.results) != 1:
        return
    kind = next((RULES[base].kind for base in type(move).__mro__ if base in RULES), None)
    if kind is not Kind.MOVES or element_type(move.operands[0]) != type_.storage:
        return
    cast = scast(move.operands[0], type_)
    rewriter.replace(op, [cast, with_operands(move, [cast.result, *list(move.operands)[1:]])])


@pattern(SCastOp)
def join_of_casts(op: SCastOp, rewriter: PatternRewriter) -> None:
    """scast(concat(a, b)) -> concat(scast(a), scast(b))."""
    join, type_ = defined_by(op.input, graph.ConcatOp), element_type(op.result)
    if join and isinstance(type_, QuantType):
        casts = [scast(value, type_) for value in join.inputs]
        rewriter.replace(op, [*casts, with_operands(join, [cast.result for cast in casts])])


def scast(value: SSAValue, type_: QuantType) -> SCastOp:
    """Stored integers seen as quantised."""
    return SCastOp.create(operands=[value], result_types=[tensor(shape_of(value), type_)])


def fold_casts_of_constants(module: ModuleOp) -> None:
    """Casts of constants that are still used become constants."""
    for op in list(main_function(module).body.block.ops):
        if not isinstance(op, CastOp) or (array := graph.constant_of(op.input)) is None:
            continue
        source, target = element_type(op.input), element_type(op.result)
        if isinstance(op, DCastOp) and isinstance(source, QuantType):
            array = reals(array, source)
        elif isinstance(op, QCastOp) and isinstance(target, QuantType):
            array = stored(array, target)
        made = graph.constant(array, op, name_of(op.input), target)
        made.location = op.location
        assert op.parent is not None
        op.parent.insert_op_before(made, op)
        op.result.replace_all_uses_with(made.result)
        op.detach()
        op.erase()


# --- float ops between casts -----------------------------------------------------------------------------
class StaysFloat(Exception):
    """Raised while a rule runs: the op cannot be computed in the types its casts give."""


class CastQuantiser(Quantiser):
    """Takes the types that casts give instead of those of calibrated ranges."""

    def __init__(self, function: FuncOp):
        super().__init__(function, SCHEME_OF[i8])

    def use(self, storage: IntegerType) -> None:
        """Compute in a storage type from here on."""
        self.adopt(SCHEME_OF[storage])

    def scheme_for(self, op: Operation, rule: Rule) -> Scheme | None:
        """The one in use: `in_integers` looks at the casts."""
        return self.scheme

    # -- the walk
    def visit(self, op: Operation) -> None:
        if isinstance(op, DCastOp):
            self.made[op.result], self.floats[op.result] = op.input, op.result
            if isinstance(op.input.owner, Operation) and not is_constant(op.result):
                type_ = self.type(op.input)
                known = {s.tensor for s in sources_of(op.input)}
                more = (s for s in sources_of(op.result) if s.tensor not in known)
                more = (s._replace(scale=type_.scale, zero=type_.zero) for s in more)
                set_sources(op.input, (*sources_of(op.input), *more))
        elif isinstance(op, QCastOp):
            self.close(op)
        elif not isinstance(op, SCastOp):
            super().visit(op)

    def close(self, op: QCastOp) -> None:
        """A cast whose operand is quantised vanishes, or changes the scale; others stay."""
        type_ = element_type(op.result)
        assert isinstance(type_, QuantType)
        made = self.made.get(op.input)
        if made is None or is_constant(op.input) or not self.convertible(self.type(made), type_):
            op.operands = [self.as_float(op.input)]
            return
        self.current = op
        value = self.requantised(made, type_)
        if isinstance(value.owner, Operation):
            known = {s.tensor for s in sources_of(value)}
            own = (s for s in sources_of(op.result) if s.tensor not in known)
            set_sources(value, (*sources_of(value), *own))
        op.result.replace_all_uses_with(value)

    def record(self, old: SSAValue, new: SSAValue, rule: Rule) -> None:
        """As for calibrated ranges, but what a cast rounds no longer holds the tensor before the cast."""
        if rule.kind is not Kind.MOVES:
            self.clipped.add(old)
        super().record(old, new, rule)

    def convertible(self, old: QuantType, new: QuantType) -> bool:
        """Whether `requantised` leads from one type to the other."""
        return old.storage == new.storage or i16 not in (old.storage, new.storage)

    def emit(self, op: Operation, rule: Rule) -> Quantised:
        """What a rule makes, in the type that the casts behind the op ask for; None where it stays float."""
        try:
            results = rule.function(op, self)
        except StaysFloat:
            return None
        if results is None or len(op.results) != 1 or rule.kind is Kind.MOVES:
            return results
        [made] = [results] if isinstance(results, SSAValue) else results
        wanted = self.given(op.results[0])
        if wanted is None:
            return made
        if self.type(made).scale > COARSER * wanted.scale:
            return None
        return self.requantised(made, wanted)

    # -- which ops
    def in_integers(self, op: Operation, rule: Rule) -> bool:
        """Whether casts give all float operands and the result one storage type; moves need the operand's."""
        if rule.kind is Kind.MOVES:
            return self.activation(op.operands[0]) is not None
        floats = [v for v in op.operands if element_type(v) == f32]
        types = [self.activation(v) for v in floats if not is_constant(v)]
        types += [self.given(r) for r in op.results]
        storages = {None if type_ is None else type_.storage for type_ in types}
        if len(types) == len(op.results) or len(storages) != 1:
            return False
        [storage] = storages
        if storage is None or storage not in SCHEME_OF:
            return False
        self.use(storage)
        return True

    def activation(self, value: SSAValue) -> QuantType | None:
        """The type of a float value that is quantised and no constant."""
        made = self.made.get(value)
        return None if made is None or is_constant(value) else self.type(made)

    def given(self, value: SSAValue) -> QuantType | None:
        """The one type that casts give a float value, behind clips and moves that alone read it."""
        users = [use.operation for use in value.uses]
        results = [element_type(user.result) for user in users if isinstance(user, QCastOp)]
        types = {type_ for type_ in results if isinstance(type_, QuantType)}
        if types:
            [*found] = types
            alone = len(found) == 1 and all(isinstance(user, QCastOp) for user in users)
            return found[0] if alone else None
        if len(users) != 1 or isinstance(users[0], ReturnOp) or len(users[0].results) != 1:
            return None
        rule, result = rule_of(users[0]), users[0].results[0]
        if rule is None or element_type(result) != f32 or users[0].operands[0] is not value:
            return None
        return self.given(result) if rule.kind in (Kind.CLIPS, Kind.MOVES) else None

    # -- what rules ask
    def demanded(self, value: SSAValue) -> QuantType | None:
        """As `given`; behind a clip, the type holds less than the value."""
        [*users] = (use.operation for use in value.uses)
        if len(users) == 1 and (rule := rule_of(users[0])) is not None and rule.kind is Kind.CLIPS:
            self.clipped.add(value)
        return self.given(value)

    def range(self, value: SSAValue) -> Range:
        """The reals that a value's type holds; a float constant's own."""
        type_ = self.activation(value) or self.given(value)
        if type_ is None:
            return super().range(value)
        ends = ((end - type_.zero) * type_.scale for end in storage_range(type_.storage))
        return Range(*ends)

    def type_of_range(self, value: SSAValue) -> QuantType:
        """The type that casts give; that of a float constant's range."""
        return self.activation(value) or self.given(value) or super().type_of_range(value)

    def input(self, value: SSAValue) -> SSAValue:
        """A quantised operand; a constant of several scales, or other storage, is quantised anew."""
        made = self.made.get(value)
        if made is not None and is_constant(value):
            type_ = element_type(made)
            assert isinstance(type_, QuantType)
            if type_.data.axis is not None or type_.storage != self.storage:
                array = reals_of(value)
                assert array is not None
                return self.constant_near(array)
        return super().input(value)

    def input_as(self, value: SSAValue, type_: QuantType) -> SSAValue:
        """An operand in a given type; constants directly."""
        if is_constant(value):
            array = reals_of(value)
            assert array is not None
            return self.constant(stored(array, type_), name_of(value), type_)
        return super().input_as(value, type_)

    def requantised(self, value: SSAValue, type_: QuantType) -> SSAValue:
        """A change of scale: of 8 bits, by a table, which rounds once and may change the storage type too."""
        old = self.type(value)
        if old == type_ or i16 in (old.storage, type_.storage):
            return super().requantised(value, type_)
        return self.requantised_by_table(value, type_)

    def factor(self, a: float, b: np.ndarray | float, result: float) -> np.ndarray | float:
        """In float32, step by step, as ONNX Runtime's QLinearConv computes it: the same ties come up."""
        return np.float32(a) * np.asarray(b, np.float32) / np.float32(result)

    def weight(self, array: np.ndarray, bias: np.ndarray | None, ifm: SSAValue, ofm: QuantType) -> Weight:
        """Weights with the model's own scales; those that are floats in the model get scales of ours."""
        assert self.current is not None
        type_ = weight_type(self.current, array)
        if type_ is None:
            return quantise_weight(array, bias, self.type(ifm), self.scheme.weights, ofm)
        return weight_of(array, bias, self.type(ifm), type_)


def weight_type(op: Operation, array: np.ndarray) -> QuantType | None:
    """The type of the constant that an op reads through a cast and whose values, in any order, are its weights.

    Weights that a rule computes of several constants (a batch norm's factors) have none.
    """
    for value in op.operands:
        if not isinstance(value.owner, DCastOp) or math.prod(shape_of(value)) != array.size:
            continue
        held = reals_of(value) if is_constant(value) else None
        if held is not None and np.array_equal(np.sort(held, axis=None), np.sort(array, axis=None)):
            type_ = element_type(value.owner.input)
            if isinstance(type_, QuantType) and type_.storage in SCHEME_OF:
                return type_
    return None


def weight_of(array: np.ndarray, bias: np.ndarray | None, ifm: QuantType, type_: QuantType) -> Weight:
    """The stored integers of reals […, M] of a type, and their bias at scale_in · scale_w.

    Weights of 8 bits are brought to the activations' signedness: 128 more, or less, with the zero point.
    Raises StaysFloat where channels have zero points of their own.
    """
    if len(set(type_.data.zeros)) != 1:
        raise StaysFloat
    scales, zero = np.array(type_.data.scales, np.float64), type_.data.zeros[0]
    storage, shift = type_.storage, 0
    if {storage, ifm.storage} == {i8, u8}:
        storage, shift = ifm.storage, 128 if ifm.storage == u8 else -128
    values = half_away(array.astype(np.float64) / scales) + zero + shift
    axis = None if type_.data.axis is None else array.ndim - 1
    own = quantised(storage, scales.tolist(), zero + shift, axis)
    units = ifm.scale * (scales if len(scales) > 1 else scales[0])
    integers = None if bias is None else bias_integers(bias, units, ifm)
    return Weight(values.astype(dtype_of(own)), own, scales, zero + shift, integers)
