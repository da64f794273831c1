"""Operands that alternate in more runs of axes than a kernel walks: they are repeated or transposed first, so that
no rank is out of reach.

A kernel goes through neighbouring axes as one where all operands do so in even steps (kernels/coalesce.py). What is
left are runs; [2, 1, 2, 1] + [1, 3, 1, 3] has four of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from xdsl.ir import SSAValue

from ...dialects import npu_instructions as npu
from ...dialects.npu import buffer_type
from .kernels.coalesce import ROWS, WALKED, broadcast_strides, coalesced, dense_strides
from .select import Selector


def runs(onto: Sequence[int], *shapes: Sequence[int]) -> int:
    """In how many runs operands of these shapes go through the shape that they are repeated to."""
    return len(coalesced(onto, *(broadcast_strides(shape, onto) for shape in shapes)))


# --- repeating -------------------------------------------------------------------------------------------
def stages(shape: Sequence[int], onto: Sequence[int]) -> list[tuple[int, ...]]:
    """Shapes from one that is repeated to the other, each in few enough runs from the one before."""
    here = (1,) * (len(onto) - len(shape)) + tuple(shape)
    found: list[tuple[int, ...]] = []
    while not found or here != tuple(onto):
        steps = ((*onto[:n], *here[n:]) for n in range(len(onto), -1, -1))
        here = next(step for step in steps if runs(step, here) <= WALKED)
        found.append(here)
    return found


def through(s: Selector, source: SSAValue, shapes: Sequence[Sequence[int]]) -> SSAValue:
    """A buffer repeated to each of some shapes in turn."""
    for shape in shapes:
        made = s.alloc(shape, buffer_type(source).element)
        s.start("ppu.broadcast", [source], [made], {})
        source = made
    return source


def walkable(s: Selector, buffers: Sequence[SSAValue], onto: Sequence[int]) -> list[SSAValue]:
    """Operands that a kernel walks together: all of them repeated in full where they alternate too often."""
    if runs(onto, *(buffer_type(b).shape for b in buffers)) <= WALKED:
        return list(buffers)
    return [in_full(s, b, onto) for b in buffers]


def in_full(s: Selector, source: SSAValue, onto: Sequence[int]) -> SSAValue:
    """A buffer repeated to a shape."""
    shape = buffer_type(source).shape
    return source if shape == tuple(onto) else through(s, source, stages(shape, onto))


# --- reducing --------------------------------------------------------------------------------------------
def reduces_too_often(shape: Sequence[int], axes: Sequence[int]) -> bool:
    """Whether kept and reduced axes alternate more often than a reduction walks."""
    strides = dense_strides(shape)
    kept = [a for a in range(len(shape)) if a not in axes]
    return any(len(coalesced([shape[a] for a in of], [strides[a] for a in of])) > ROWS for of in (kept, axes))


def as_rows(s: Selector, source: SSAValue, axes: Sequence[int]) -> SSAValue:
    """[kept, reduced]: a transposed buffer; each row has the order in which a reduction would go through it."""
    type_ = buffer_type(source)
    kept = [a for a in range(len(type_.shape)) if a not in axes]
    order = (*kept, *axes)
    made = s.alloc([type_.shape[a] for a in order], type_.element)
    s.emit(npu.TransposeOp, {"src": source, "dst": made}, permutation=order)
    return s.reshape(made, [math.prod(type_.shape[a] for a in of) for of in (kept, axes)])


# --- axes one after the other ----------------------------------------------------------------------------
def in_turns(axes: Sequence[int], rank: int) -> list[tuple[int, ...]]:
    """Axes that are treated apart from the others (turned round, padded) in as few turns as kernels walk.

    An axis is a run, and so are its neighbours up to the next one: two axes make five runs at most.
    """
    plain = sum(a not in axes and (a == 0 or a - 1 in axes) for a in range(rank))
    if len(axes) + plain <= WALKED:
        return [tuple(axes)]
    return [tuple(axes[i : i + 2]) for i in range(0, len(axes), 2)]
