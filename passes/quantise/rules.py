"""How an op class is quantised: one rule each, registered by the file that defines it.

    @quantises(graph.ConvOp, when=has_constant_weight)
    def conv(op, q): …  # emits ops through the Quantiser `q`; gives the quantised result, or None

None, as having no rule, means that the op stays float. A rule of a base class serves all subclasses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

from xdsl.ir import Operation, SSAValue

from ...dialects.types import element_type, f32

if TYPE_CHECKING:
    from .quantiser import Quantiser

Quantised = SSAValue | Sequence[SSAValue] | None
Function = Callable[[Any, "Quantiser"], Quantised]


class Kind(Enum):
    """What a rule means for the types around it."""

    COMPUTES = "chooses the type of its result from the calibrated range"
    MOVES = "the result has the type of operand 0, and it runs in integers only where a neighbour does"
    JOINS = "brings all operands to the type of the result, which their producers adopt where they can"
    CLIPS = "an activation that clips: the producer adopts the type of its result"


class Rule(NamedTuple):
    """A registered rule."""

    function: Function
    kind: Kind
    when: Callable[[Any], bool]


RULES: dict[type[Operation], Rule] = {}


def quantises(
    *ops: type[Operation], kind: Kind = Kind.COMPUTES, when: Callable[[Any], bool] = lambda op: True
) -> Callable[[Function], Function]:
    """Register a function as the rule of op classes; `when` says which ops it takes."""

    def register(function: Function) -> Function:
        for op in ops:
            if op in RULES:
                raise ValueError(f"{op.name} has a quantisation rule already")
            RULES[op] = Rule(function, kind, when)
        return function

    return register


def rule_of(op: Operation) -> Rule | None:
    """The rule that takes an op; None: there is none, nothing is f32, or `when` says no."""
    rule = next((RULES[base] for base in type(op).__mro__ if base in RULES), None)
    if rule is None or not op.operands:
        return None
    if all(element_type(v) != f32 for v in (*op.operands, *op.results)):
        return None
    return rule if rule.when(op) else None
