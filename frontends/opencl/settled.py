"""Numbers that are known when a kernel is compiled: what a table holds."""

from __future__ import annotations

from typing import Any

import numpy as np
from xdsl.ir import Block, SSAValue

from ...dialects import ppu
from ...dialects.types import DTYPE_OF, f32
from ...runtime.ppu.arithmetic import DIVISIONS, function_of


def settled(value: SSAValue, known: dict[SSAValue, Any]) -> Any:
    """A value as the engine would compute it, if it is made of constants alone; else None.

    known: values that were asked for before, so that what several share is computed once.
    """
    if value not in known:
        known[value] = computed(value, known)
    return known[value]


def computed(value: SSAValue, known: dict[SSAValue, Any]) -> Any:
    """The number of an operation on settled numbers; None for others, and where a divisor is zero."""
    op = value.owner
    if isinstance(op, Block):
        return None
    if isinstance(op, ppu.ConstantOp):
        return DTYPE_OF[value.type].type(op.number())
    function = function_of(op) or DIVISIONS.get(type(op))
    if function is None:
        return None
    operands = [settled(v, known) for v in op.operands]
    by_zero = type(op) in DIVISIONS and value.type != f32 and operands[1] == 0
    if by_zero or any(v is None for v in operands):
        return None
    with np.errstate(all="ignore"):
        return function(*operands)
