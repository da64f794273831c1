"""What the operations of the graph dialect share: their base class, and rules that several of them check."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from xdsl.ir import Operation
from xdsl.irdl import traits_def
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException

from .declarative import Canonicalizes, DeclarativeOp


class GraphOp(DeclarativeOp):
    """An operation without side effects."""

    traits = traits_def(Pure(), Canonicalizes())


def fail(op: Operation, message: str) -> VerifyException:
    """A verifier's complaint that starts with the op's name."""
    return VerifyException(f"{op.name}: {message}")


def axis_of(op: Operation, axis: int, rank: int) -> int:
    """A non-negative axis below the rank."""
    if not 0 <= axis < rank:
        raise fail(op, f"axis {axis} is outside a tensor of rank {rank}")
    return axis


def broadcast_shape(op: Operation, *shapes: Sequence[int]) -> tuple[int, ...]:
    """The common shape under numpy's broadcasting."""
    try:
        return tuple(int(d) for d in np.broadcast_shapes(*(tuple(s) for s in shapes)))
    except ValueError:
        raise fail(op, f"the shapes {', '.join(str(list(s)) for s in shapes)} do not broadcast") from None
