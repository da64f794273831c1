"""Patterns as functions, and what they ask about values: constants, scalars, constants along one axis.

    @canonical(graph.ReluOp)
    def relu_of_relu(op, rewriter): …

`pattern` makes a rewrite pattern of a function for some op classes; `canonical` also registers it, so that
`canonicalize` finds it by op class. A function that does not match returns without touching the rewriter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from xdsl.ir import Attribute, Operation, SSAValue
from xdsl.pattern_rewriter import PatternRewriter, RewritePattern
from xdsl.transforms.dead_code_elimination import is_trivially_dead

from ..dialects import graph
from ..dialects.declarative import PATTERNS
from ..dialects.nacre import BlobAttr
from ..dialects.quant import DCastOp
from ..dialects.types import shape_of

Rule = Callable[[Any, PatternRewriter], None]


class FunctionPattern(RewritePattern):
    """A rewrite pattern that calls a function on ops of some classes."""

    def __init__(self, function: Rule, ops: tuple[type[Operation], ...]):
        self.function = function
        self.ops = ops
        self.__doc__ = function.__doc__

    def match_and_rewrite(self, op: Operation, rewriter: PatternRewriter) -> None:
        if isinstance(op, self.ops):
            self.function(op, rewriter)

    def __repr__(self) -> str:
        return f"<pattern {self.function.__name__}>"


def pattern(*ops: type[Operation]) -> Callable[[Rule], FunctionPattern]:
    """Make a function a rewrite pattern for ops of these classes, subclasses included."""
    return lambda function: FunctionPattern(function, ops)


def canonical(*ops: type[Operation]) -> Callable[[Rule], FunctionPattern]:
    """Make a function a canonicalisation pattern of exactly these op classes."""

    def register(function: Rule) -> FunctionPattern:
        made = FunctionPattern(function, ops)
        for op in ops:
            PATTERNS.setdefault(op, []).append(made)
        return made

    return register


# --- what a value is -------------------------------------------------------------------------------------
def scalar_of(value: SSAValue) -> float | int | bool | None:
    """The one number of a constant with one element, or with the same number everywhere, else None."""
    array = graph.constant_of(value)
    if array is None or array.size == 0:
        return None
    first = array.flat[0]
    return first.item() if array.size == 1 or (array == first).all() else None


def constant_along(value: SSAValue, axis: int, shape: Sequence[int]) -> np.ndarray | None:
    """A constant that, broadcast to `shape`, varies along `axis` only: as `[shape[axis]]`, else None."""
    array = graph.constant_of(value)
    if array is None or array.ndim > len(shape):
        return None
    full = array.reshape((1,) * (len(shape) - array.ndim) + array.shape)
    if any(d != 1 for i, d in enumerate(full.shape) if i != axis):
        return None
    return np.broadcast_to(full.reshape(-1), (shape[axis],))


def along(vector: np.ndarray, axis: int, rank: int) -> np.ndarray:
    """A vector shaped so that it broadcasts along one axis of a tensor of some rank."""
    return vector.reshape([-1 if i == axis else 1 for i in range(rank)])


def name_of(value: SSAValue) -> str:
    """The name a constant has in the store, or one dequantised, empty when it has none."""
    owner = value.owner.input.owner if isinstance(value.owner, DCastOp) else value.owner
    attribute = owner.value if isinstance(owner, graph.ConstantOp) else None
    return attribute.data.name if isinstance(attribute, BlobAttr) else ""


def defined_by(value: SSAValue, *classes: type[Operation]) -> Any:
    """The op that defines a value when it is of these classes, else None."""
    return value.owner if isinstance(value.owner, classes) else None


def only_moves_ones(shape: Sequence[int], permutation: Sequence[int]) -> bool:
    """Whether a transpose leaves the order of the values as it is: only axes of size 1 change places."""
    moved = [axis for axis in permutation if shape[axis] != 1]
    return moved == sorted(moved)


# --- how ops are replaced --------------------------------------------------------------------------------
def with_operands(op: Any, operands: Sequence[SSAValue | None], **parameters: Any) -> Any:
    """The op again on other operands, with some parameters changed; its location stays."""
    properties: dict[str, Attribute | Any] = {
        n: a for n, a in op.properties.items() if n in op.get_irdl_definition().properties
    }
    given = [v for v in operands if v is not None]
    return type(op).make(*given, location=op.location, **{**properties, **parameters})


def replace_tree(rewriter: PatternRewriter, op: Operation, new_ops: Sequence[Operation]) -> None:
    """Replace the root of an expression, and erase what only it used; the new ops take all locations."""
    below = list(op.operands)
    rewriter.replace(op, new_ops)
    while below:
        owner = below.pop().owner
        if isinstance(owner, Operation) and owner.parent is not None and is_trivially_dead(owner):
            below.extend(owner.operands)
            rewriter.erase(owner)


def transposed(value: SSAValue, permutation: Sequence[int]) -> list[Operation]:
    """The op that permutes a value's axes, none when nothing moves."""
    if list(permutation) == list(range(len(shape_of(value)))):
        return []
    return [graph.TransposeOp.make(value, permutation=tuple(permutation))]
