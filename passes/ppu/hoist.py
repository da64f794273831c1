"""ppu-hoist: what each round of a loop computes alike is computed once, before it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Block, Operation
from xdsl.traits import is_side_effect_free

from ...dialects import ppu
from ...dialects.types import f32
from ..base import NacrePass

MAY_FAULT = (ppu.DivOp, ppu.DivUOp, ppu.RemOp, ppu.RemUOp)
"""Integer divisions, which a divisor of zero stops."""


@dataclass(frozen=True)
class HoistPass(NacrePass):
    """Move what does not change from round to round out of the loops of kernels.

    An operation inside a `ppu.if` of a loop goes too, though it may then run for nothing: a loop runs at least once,
    and mostly often. What may stop the engine stays where its condition is.
    """

    name = "ppu-hoist"

    def run(self, module: ModuleOp) -> None:
        for function in module.walk():
            if isinstance(function, ppu.FuncOp):
                hoist(function)


def hoist(function: ppu.FuncOp) -> None:
    """Empty the loops of a function, inner ones first, so that an operation climbs as far as it can."""
    for loop in reversed([op for op in function.walk() if isinstance(op, ppu.LoopOp)]):
        for op in list(movable(loop.body.block)):
            if all(defined_outside(value.owner, loop) for value in op.operands):
                op.detach()
                assert loop.parent is not None
                loop.parent.insert_op_before(op, loop)


def movable(block: Block) -> Iterator[Operation]:
    """Operations without effects that may run whether or not their place is reached, those below `ppu.if` included."""
    for op in list(block.ops):
        if isinstance(op, ppu.IfOp):
            yield from movable(op.then.block)
            yield from movable(op.otherwise.block)
        elif not op.regions and may_run_anywhere(op):
            yield op


def may_run_anywhere(op: Operation) -> bool:
    """Whether an operation does no harm where nobody wants its result: no effects, no operands that stop the engine."""
    stops = isinstance(op, MAY_FAULT) and op.results[0].type != f32
    return is_side_effect_free(op) and not stops


def defined_outside(owner: Operation | Block, loop: ppu.LoopOp) -> bool:
    """Whether what defines a value lies before the loop."""
    here: Operation | Block | None = owner
    while here is not None:
        if here is loop:
            return False
        here = here.parent_op()
    return True
