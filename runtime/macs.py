"""Multiplications that an operation of the graph or qnn dialect asks for, whatever machine runs it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from xdsl.ir import Operation

from ..dialects import graph, qnn
from ..dialects.types import shape_of, size_of

MACS: dict[type[Operation], Callable[[Any], int]] = {
    **dict.fromkeys((graph.ConvOp, qnn.ConvOp), lambda op: size_of(op.ofm) * math.prod(shape_of(op.weight)[:-1])),
    **dict.fromkeys((graph.MatmulOp, qnn.MatmulOp), lambda op: size_of(op.result) * shape_of(op.a)[-1]),
    graph.ConvTransposeOp: lambda op: size_of(op.ifm) * _spread(shape_of(op.weight), op.parameters().groups),
}


def _spread(weight: tuple[int, ...], groups: int) -> int:
    """Outputs that one input of a transposed convolution is spread over: a filter [K…, C, M] of its group."""
    *window, _, filters = weight
    return math.prod(window) * (filters // groups)


def macs_of(op: Operation) -> int:
    """Multiplications of an operation; 0 for what is no convolution and no matrix product."""
    count = MACS.get(type(op))
    return count(op) if count else 0
