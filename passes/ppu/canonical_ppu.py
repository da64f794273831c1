"""Canonicalisation of kernels: constants are computed by the engine's own definitions, identities go, decided branches
are inlined."""

from __future__ import annotations

from typing import Any

import numpy as np
from xdsl.ir import Attribute, Operation, SSAValue
from xdsl.pattern_rewriter import InsertPoint, PatternRewriter

from ...dialects import ppu
from ...dialects.types import DTYPE_OF, f32
from ...runtime.ppu.arithmetic import function_of
from ..pattern import canonical
from .hoist import may_run_anywhere

COMPUTED = [
    op for op in ppu.OPS
    if op not in (ppu.ConstantOp, ppu.WorkItemOp, ppu.AllocOp, ppu.TableOp) and issubclass(op, ppu.DeclarativeOp)
]  # fmt: skip


def number_of(value: SSAValue) -> int | float | None:
    """The number of a constant; None for any other value."""
    return value.owner.number() if isinstance(value.owner, ppu.ConstantOp) else None


def lane_of(value: SSAValue) -> Any:
    """A constant as the engine holds it."""
    assert isinstance(value.owner, ppu.ConstantOp)
    return np.array(value.owner.number()).astype(DTYPE_OF[value.type])[()]


def constant(number: int | float, type_: Attribute, like: Operation) -> ppu.ConstantOp:
    """A constant in the place of an operation."""
    return ppu.ConstantOp.of(number, type_, like.location)


@canonical(*COMPUTED)
def fold(op: Operation, rewriter: PatternRewriter) -> None:
    """An operation on constants is a constant, with the bits the engine would compute; a fault stays one."""
    if not op.results or not may_run_anywhere(op):
        return
    function = function_of(op)
    if function is None or any(number_of(v) is None for v in op.operands):
        return
    with np.errstate(all="ignore"):
        found = function(*(lane_of(v) for v in op.operands))
    rewriter.replace_op(op, constant(found.item(), op.results[0].type, op))


@canonical(ppu.LoadOp)
def settled_element(op: ppu.LoadOp, rewriter: PatternRewriter) -> None:
    """An element of a table at a known index; one out of bounds stays a fault."""
    table, index = op.source.owner, number_of(op.index)
    if not isinstance(table, ppu.TableOp) or index is None:
        return
    contents = table.contents()
    if 0 <= index < contents.size:
        rewriter.replace_op(op, constant(contents[int(index)].item(), op.result.type, op))


NOTHING_ADDED = {ppu.AddOp: 0, ppu.SubOp: 0, ppu.OrOp: 0, ppu.XorOp: 0, ppu.ShlOp: 0, ppu.ShrOp: 0, ppu.ShrUOp: 0}
"""Integer operations that give their first operand where the second is this."""
COMMUTATIVE = (ppu.AddOp, ppu.MulOp, ppu.AndOp, ppu.OrOp, ppu.XorOp)


@canonical(*COMMUTATIVE)
def constant_to_the_right(op: ppu.Binary, rewriter: PatternRewriter) -> None:
    """c + x becomes x + c, for floats too: one rounding of the same sum. Of two NaN either is one."""
    if number_of(op.lhs) is not None and number_of(op.rhs) is None:
        rewriter.replace_op(op, type(op).make(op.rhs, op.lhs, location=op.location))


@canonical(*NOTHING_ADDED, ppu.MulOp)
def identity(op: ppu.Binary, rewriter: PatternRewriter) -> None:
    """x + 0, x · 1, … of integers; x · 1 of floats."""
    right = number_of(op.rhs)
    neutral = 1 if isinstance(op, ppu.MulOp) else NOTHING_ADDED[type(op)]
    if right == neutral and (op.result.type != f32 or isinstance(op, ppu.MulOp)):
        rewriter.replace_op(op, [], [op.lhs])
    elif right == 0 and isinstance(op, ppu.MulOp) and op.result.type != f32:
        rewriter.replace_op(op, [], [op.rhs])


@canonical(ppu.AddOp)
def sum_of_constants(op: ppu.AddOp, rewriter: PatternRewriter) -> None:
    """(x + a) + b becomes x + (a + b) for integers, which wrap around alike."""
    inner, right = op.lhs.owner, number_of(op.rhs)
    if right is None or op.result.type == f32 or not isinstance(inner, ppu.AddOp):
        return
    left = number_of(inner.rhs)
    if left is not None:
        total = constant(left + right, op.result.type, op)
        rewriter.replace_op(op, [total, ppu.AddOp.make(inner.lhs, total.result, location=op.location)])


@canonical(ppu.ConvertOp)
def same_type(op: ppu.ConvertOp, rewriter: PatternRewriter) -> None:
    """A conversion to the type there is, unless it saturates between signs."""
    if op.input.type == op.result.type and not op.parameters().saturate:
        rewriter.replace_op(op, [], [op.input])


@canonical(ppu.SelectOp)
def settled_choice(op: ppu.SelectOp, rewriter: PatternRewriter) -> None:
    """A choice that is known, or between equals."""
    if op.chosen is op.other:
        rewriter.replace_op(op, [], [op.chosen])
    elif (condition := number_of(op.condition)) is not None:
        rewriter.replace_op(op, [], [op.chosen if condition else op.other])


@canonical(ppu.IfOp)
def settled_branch(op: ppu.IfOp, rewriter: PatternRewriter) -> None:
    """A decision that is known: the branch takes its place."""
    condition = number_of(op.condition)
    if condition is None:
        return
    block = (op.then if condition else op.otherwise).block
    end = block.last_op
    assert isinstance(end, ppu.YieldOp)
    results = list(end.operands)
    rewriter.erase_op(end)
    rewriter.inline_block(block, InsertPoint.before(op))
    rewriter.replace_op(op, [], results)


@canonical(ppu.LoopOp)
def single_round(op: ppu.LoopOp, rewriter: PatternRewriter) -> None:
    """A loop that never goes on is its body."""
    end = op.body.block.last_op
    assert isinstance(end, ppu.YieldOp)
    if number_of(end.operands[0]) != 0:
        return
    results = list(end.operands)[1:]
    rewriter.erase_op(end)
    results = [op.inputs[list(op.body.block.args).index(v)] if v in op.body.block.args else v for v in results]  # type: ignore[arg-type]
    rewriter.inline_block(op.body.block, InsertPoint.before(op), op.inputs)
    rewriter.replace_op(op, [], results)
