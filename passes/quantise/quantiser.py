"""The walk that quantises a function: which values become quantised, and to which types.

Rules call a `Quantiser` for result types, and for what an `Emitter` has; it knows no particular op class.
"""

from __future__ import annotations

from xdsl.dialects.builtin import IntegerType, StringAttr
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Operation, SSAValue
from xdsl.transforms.dead_code_elimination import is_trivially_dead

from ...dialects import graph
from ...dialects.nacre import set_sources, sources_of
from ...dialects.quant import QuantType
from ...dialects.types import element_type, f32
from ...errors import CompileError
from .apply_table import DTYPE, NAMED, WHY, attribute, clear_choice
from .calibrate import described
from .emitter import Emitter
from .masks import clip_masks
from .parameters import SCHEMES, Scheme
from .ranges import clear_range
from .rules import Kind, Quantised, Rule, rule_of

COARSER = 4.0
"""Up to this factor an operand's scale may grow where values join for float users only."""


class Quantiser(Emitter):
    """One function on its way from graph to qnn; ops are visited in order."""

    def __init__(self, function: FuncOp, default: Scheme | None):
        super().__init__(function, default or SCHEMES["int8"])
        self.default = default  # of ops without `nacre.dtype`; None: they stay float
        self.maker: dict[SSAValue, Scheme] = {}  # float value -> the scheme in which its rule made it
        self.types: dict[tuple[SSAValue, IntegerType], QuantType] = {}  # chosen for results
        self.wanted: dict[SSAValue, bool] = {}
        self.joined: dict[Operation, bool] = {}
        self.explicit: set[Operation] = set()  # ops that a table gives a type
        self.schemes: dict[Operation, Scheme | None] = {}  # visited ops
        self.refusal = ""

    def run(self) -> None:
        """Quantise the function in place."""
        before = [op for op in self.block.ops if not isinstance(op, graph.ConstantOp)]
        self.explicit = {op for op in before if attribute(op, DTYPE) is not None}
        if self.explicit or self.default is None:  # rules that take in the ops below look at their types
            name = next((name for name, scheme in SCHEMES.items() if scheme == self.default), "float32")
            for op in before:
                op.attributes.setdefault(DTYPE, StringAttr(name))
        clip_masks(self.function, lambda op: self.own_scheme(op) is not None)
        for op in before:
            self.current = op
            self.visit(op)
        for op in reversed(list(self.block.ops)):
            if is_trivially_dead(op):
                op.detach()
                op.erase()
        for op in before:
            if op.parent is not None:
                self.refuse_unquantised(op)
                clear_choice(op)
        for value in (*self.function.args, *(r for op in self.block.ops for r in op.results)):
            clear_range(value)

    def visit(self, op: Operation) -> None:
        """Quantise one op, or leave it float on dequantised operands."""
        rule = None if isinstance(op, ReturnOp) else rule_of(op)
        scheme = None if rule is None else self.scheme_for(op, rule)
        results: Quantised = None
        self.refusal = ""
        if rule is not None and scheme is not None:
            if op in self.explicit and scheme != self.default and rule.kind is not Kind.MOVES:
                self.whys[op] = attribute(op, WHY) or ""
            self.adopt(scheme)
            if self.in_integers(op, rule):
                results = self.emit(op, rule)
            else:
                self.refusal = "between float layers"
        self.schemes[op] = scheme
        if rule is None or results is None:
            op.operands = [self.as_float(v) for v in op.operands]
            self.say_why(op, rule)
            return
        for old, new in zip(op.results, [results] if isinstance(results, SSAValue) else results):
            self.record(old, new, rule)

    def say_why(self, op: Operation, rule: Rule | None) -> None:
        """Leave on a float op why it is one, where that cannot be seen from the op itself."""
        if isinstance(op, ReturnOp):
            return
        if rule is None:
            op.attributes.pop(WHY, None)
        elif self.refusal:
            op.attributes[WHY] = StringAttr(self.refusal)
        elif op not in self.explicit:
            op.attributes[WHY] = StringAttr("dtype float32")

    def stays_float(self, why: str) -> SSAValue | None:
        """What a rule gives back that cannot, or should not, quantise an op, and why."""
        self.refusal = why
        return None

    def refuse_unquantised(self, op: Operation) -> None:
        """Raise CompileError where a table asks by name for an integer type that an op cannot have."""
        entry, dtype = attribute(op, NAMED), attribute(op, DTYPE)
        if entry is None or dtype == "float32" or not op.results:  # without a result: a write to a state
            return
        if all(element_type(v) != f32 for v in (*op.operands, *op.results)):
            return
        why = attribute(op, WHY) or f"{op.name} has no integer form"
        layer = described(op.results[0])
        raise CompileError(f"quant table: {entry} asks for {dtype}, but {layer} stays float32: {why}")

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
        self.check_fixed(old, type_)
        self.made[old], self.maker[old] = new, self.scheme
        self.chosen.setdefault(old, set()).add(type_)
        owner = old.owner
        if rule.kind is Kind.MOVES and isinstance(owner, Operation) and owner.operands[0] in self.clipped:
            self.clipped.add(old)
        if old not in self.clipped:
            sources = (s._replace(scale=type_.scale, zero=type_.zero) for s in sources_of(old))
            set_sources(new, (*sources_of(new), *sources))

    # -- in which type
    def own_scheme(self, op: Operation) -> Scheme | None:
        """The scheme that a table gives an op, or the default."""
        dtype = attribute(op, DTYPE)
        return self.default if dtype is None else SCHEMES.get(dtype)

    def scheme_for(self, op: Operation, rule: Rule) -> Scheme | None:
        """The scheme of an op; what only moves values has that of its operand, or of its users."""
        if rule.kind is not Kind.MOVES or op in self.explicit:
            return self.own_scheme(op)
        wanted = (self.wanted_scheme(r) for r in op.results)
        return self.maker.get(op.operands[0]) or next(filter(None, wanted), self.default)

    def wanted_scheme(self, value: SSAValue) -> Scheme | None:
        """The scheme of the first user that computes in integers, maybe behind ops that move values."""
        for use in value.uses:
            if self.takes(op := use.operation):
                rule = rule_of(op)
                assert rule is not None
                moved = rule.kind is Kind.MOVES and op not in self.explicit
                found = next(filter(None, map(self.wanted_scheme, op.results)), None) if moved else self.own_scheme(op)
                if found is not None:
                    return found
        return None

    # -- which values are quantised
    def in_integers(self, op: Operation, rule: Rule) -> bool:
        """Whether an op with a rule is quantised; one that only moves values follows its neighbours."""
        if op in self.explicit:
            return True
        if rule.kind is Kind.MOVES:
            return op.operands[0] in self.made or any(self.wants(r) for r in op.results)
        return rule.kind is not Kind.JOINS or self.joins(op)

    def joins(self, op: Operation) -> bool:
        """Whether operands are brought to one type: for a user that computes, or where it costs them little.

        Otherwise (boxes beside probabilities in one output) they meet as floats, each with its own precision.
        """
        if op not in self.joined:
            scheme, current = self.own_scheme(op), self.scheme
            if scheme is None or op in self.explicit:
                self.joined[op] = scheme is not None
                return self.joined[op]
            self.adopt(scheme)
            result = op.results[0]
            scale = self.type_of_range(result).scale
            floats = [v for v in op.operands if element_type(v) == f32]
            alike = all(self.type_of_range(v).scale * COARSER > scale for v in floats)
            self.joined[op] = self.wants(result) or (alike and any(map(self.is_computed, floats)))
            self.adopt(current)
        return self.joined[op]

    def is_computed(self, value: SSAValue) -> bool:
        """Whether a value comes, maybe moved, from an op that computes in integers."""
        owner = value.owner
        if not isinstance(owner, Operation) or (rule := rule_of(owner)) is None:
            return False
        if rule.kind is Kind.JOINS:
            return self.joins(owner)
        if rule.kind is Kind.MOVES:
            return self.is_computed(owner.operands[0])
        return self.own_scheme(owner) is not None

    def wants(self, value: SSAValue) -> bool:
        """Whether some user computes in integers, maybe behind ops that move values."""
        if value not in self.wanted:
            self.wanted[value] = any(self.takes(use.operation) for use in value.uses)
        return self.wanted[value]

    def takes(self, op: Operation) -> bool:
        rule = None if isinstance(op, ReturnOp) else rule_of(op)
        if rule is None:
            return False
        if self.own_scheme(op) is None and (rule.kind is not Kind.MOVES or op in self.explicit):
            return False
        return rule.kind not in (Kind.MOVES, Kind.JOINS) or any(self.wants(r) for r in op.results)

    # -- types
    def result_type(self, value: SSAValue) -> QuantType:
        """The type for a float value: that of the activation or concatenation it feeds, else of its range."""
        key = value, self.storage
        if key not in self.types:
            demanded, fixed = self.demanded(value), self.fixed_type(value)
            if fixed is not None and fixed != demanded:
                self.clipped.discard(value)
            self.types[key] = fixed or demanded or self.type_of_range(value)
        return self.types[key]

    def check_fixed(self, value: SSAValue, type_: QuantType) -> None:
        """Raise CompileError where a table fixes the scale of a result that an op chooses itself."""
        fixed = self.fixed_type(value)
        if fixed is not None and fixed != type_:
            raise CompileError(
                f"quant table: scale {fixed.scale:.9g} and zero {fixed.zero} are asked for the result of "
                f"{described(value)}, which keeps its operand's or has one of its own: {type_.scale:.9g} and "
                f"{type_.zero}; leave the entry out"
            )

    def demanded(self, value: SSAValue) -> QuantType | None:
        """The type that the only user asks of a value, through ops that only move it."""
        users = list(value.uses)
        if len(users) != 1 or isinstance(op := users[0].operation, ReturnOp):
            return None
        rule = rule_of(op)
        if rule is None or len(op.results) != 1:
            return None
        if (scheme := self.scheme_for(op, rule)) is None or scheme.activations != self.storage:
            return None
        if rule.kind is Kind.CLIPS:
            self.clipped.add(value)
            return self.result_type(op.results[0])
        if rule.kind is Kind.JOINS:
            return self.result_type(op.results[0]) if self.joins(op) else None
        if rule.kind is Kind.MOVES and users[0].index == 0 and element_type(op.results[0]) == f32:
            return self.demanded(op.results[0])
        return None

