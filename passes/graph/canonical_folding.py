"""Canonicalisation: an op on constants becomes a constant, computed by the op's kernel."""

from __future__ import annotations

import numpy as np
from xdsl.pattern_rewriter import PatternRewriter

from ...dialects import graph
from ...dialects.declarative import DeclarativeOp
from ...dialects.quant import QuantType
from ...dialects.types import dtype_of, element_type, size_of
from ...runtime.kernel import KERNELS, evaluate
from ...runtime.kernels import graph as _kernels  # noqa: F401  registers the kernels
from ..pattern import canonical, name_of

FOLD_LIMIT = 64 << 20
"""Bytes above which a constant is not computed at compile time."""
GROWTH_LIMIT, GROWTH_FLOOR = 8, 1 << 20
"""A result above GROWTH_FLOOR bytes is not folded when it is GROWTH_LIMIT times as large as its operands."""


MOVES = (
    graph.ReshapeOp, graph.TransposeOp, graph.BroadcastOp, graph.ConcatOp, graph.SplitOp, graph.SliceOp,
    graph.PadOp, graph.GatherOp,
)  # fmt: skip
"""What also works on stored integers, since it only moves them."""


@canonical(*(op for op in graph.OPS if op is not graph.ConstantOp))
def fold_constants(op: DeclarativeOp, rewriter: PatternRewriter) -> None:
    """op(constants) -> constants, one a result."""
    if type(op) not in KERNELS or not worth_folding(op):
        return
    if not isinstance(op, MOVES) and any(isinstance(element_type(v), QuantType) for v in op.operands):
        return  # a float kernel would take the stored integers for values
    arrays = [graph.constant_of(v) for v in op.operands]
    if not arrays or any(a is None for a in arrays):
        return
    with np.errstate(all="ignore"):  # log(0) is what the model says, not a mistake of ours
        results = evaluate(op, *operands_in_place(op, arrays))
    name = next(filter(None, map(name_of, op.operands)), "")
    new = [
        graph.constant(np.asarray(array), op, name, element_type(result))
        for array, result in zip(results, op.results)
    ]
    rewriter.replace(op, new, [c.result for c in new])


def operands_in_place(op: DeclarativeOp, arrays: list[np.ndarray | None]) -> list[np.ndarray | None]:
    """One array for each declared operand, None where an optional one is absent; variadic ones are spread."""
    left = iter(arrays)
    placed: list[np.ndarray | None] = []
    for name, _ in op.get_irdl_definition().operands:
        value = getattr(op, name)
        if value is None:
            placed.append(None)
        elif isinstance(value, (tuple, list)):
            placed.extend(next(left) for _ in value)
        else:
            placed.append(next(left))
    return placed


def worth_folding(op: DeclarativeOp) -> bool:
    """Whether all operands are constants and the results small enough to keep."""
    if not all(isinstance(v.owner, graph.ConstantOp) for v in op.operands):
        return False
    after = sum(size_of(r) * dtype_of(element_type(r)).itemsize for r in op.results)
    before = sum(size_of(v) * dtype_of(element_type(v)).itemsize for v in op.operands)
    return after <= FOLD_LIMIT and (after <= GROWTH_FLOOR or after <= GROWTH_LIMIT * before)
