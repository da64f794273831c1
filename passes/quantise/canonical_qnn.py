"""Canonicalisation of qnn: a clamp to all the integers there are does nothing."""

from __future__ import annotations

from xdsl.pattern_rewriter import PatternRewriter

from ...dialects import qnn
from ...dialects.quant import storage_range
from ...dialects.types import element_type, storage_of
from ..pattern import canonical


@canonical(qnn.ClampOp)
def clamp_to_everything(op: qnn.ClampOp, rewriter: PatternRewriter) -> None:
    """clamp(x) -> x: the producer saturates already, as below a relu whose zero is the lowest integer."""
    low, high = storage_range(storage_of(element_type(op.input)))
    p = op.parameters()
    if p.low <= low and p.high >= high and op.input.type == op.result.type:
        rewriter.replace(op, [], [op.input])
