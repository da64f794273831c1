"""ppu-rotate-loops: the test of a loop moves behind its body, and one before the loop decides whether it is entered.

A `for` leaves the front end as a loop around a decision, `loop { if (test) body; again if test }`. Turned round it
is `if (test) loop { body; again if test }`: a round has no decision, and the last test has no round of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Block, SSAValue

from ...dialects import ppu
from ..base import NacrePass
from .hoist import may_run_anywhere


@dataclass(frozen=True)
class RotateLoopsPass(NacrePass):
    """Test loops at the end of a round instead of at its beginning."""

    name = "ppu-rotate-loops"

    def run(self, module: ModuleOp) -> None:
        for loop in reversed([op for op in module.walk() if isinstance(op, ppu.LoopOp)]):  # inner ones first
            rotate(loop)


def rotate(loop: ppu.LoopOp) -> bool:
    """Turn one loop round; False for a loop of another form, which stays as it is."""
    block = loop.body.block
    *test, decision, end = block.ops
    if not isinstance(decision, ppu.IfOp) or not isinstance(end, ppu.YieldOp):
        return False
    stays = list(decision.otherwise.block.ops)
    leaves = isinstance(stays[0], ppu.YieldOp) and list(stays[0].operands) == list(block.args)
    if not leaves or list(end.operands) != [decision.condition, *decision.outputs]:
        return False
    if any(op.regions or not may_run_anywhere(op) for op in test):
        return False
    if loop.parent is None or decision.condition.owner not in test:
        return False

    entered: dict[SSAValue, SSAValue] = dict(zip(block.args, loop.inputs))
    loop.parent.insert_ops_before([op.clone(entered) for op in test], loop)
    turned = Block(arg_types=[v.type for v in loop.inputs])
    for old, new in zip(block.args, turned.args):
        new.name_hint = old.name_hint
    inside: dict[SSAValue, SSAValue] = dict(zip(block.args, turned.args))
    turned.add_ops(op.clone(inside) for op in (*test, *list(decision.then.block.ops)[:-1]))
    results = [inside.get(v, v) for v in ppu.yielded(decision.then)]
    tested: dict[SSAValue, SSAValue] = dict(zip(block.args, results))
    turned.add_ops(op.clone(tested) for op in test)
    last = ppu.YieldOp.of(tested[decision.condition], *results)
    last.location = end.location
    turned.add_op(last)
    again = ppu.LoopOp.of(loop.inputs, turned)
    chosen = Block([again, ppu.YieldOp.of(*again.outputs)])
    enter = ppu.IfOp.of(entered[decision.condition], chosen, Block([ppu.YieldOp.of(*loop.inputs)]))
    again.location = enter.location = loop.location
    loop.parent.insert_op_before(enter, loop)
    for result, chosen_result in zip(loop.outputs, enter.outputs):
        result.replace_all_uses_with(chosen_result)
    loop.detach()
    loop.erase(safe_erase=False)
    return True
