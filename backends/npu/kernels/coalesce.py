"""Axes of dense tensors as few groups as possible: what a grid of three dimensions and a few loops can walk."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from ....errors import CompileError
from ....passes.npu.soft_kernels import Arguments

WALKED = 6
"""Runs that kernels of repeated operands walk;"""
BATCHES = 4
"""that a matrix product walks in its batch;"""
ROWS = 3
"""and that reductions and layer norms walk in what they keep, and in what they reduce."""


class Group(NamedTuple):
    """Neighbouring axes walked as one: the number of steps, and how far a step goes in each operand (elements)."""

    size: int
    strides: tuple[int, ...]


def dense_strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Elements between neighbours along each axis of a row-major tensor."""
    return tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))


def broadcast_strides(shape: Sequence[int], onto: Sequence[int]) -> tuple[int, ...]:
    """Strides of a tensor along the axes of a larger one; 0 where it repeats."""
    aligned = (1,) * (len(onto) - len(shape)) + tuple(shape)
    return tuple(0 if d == 1 else s for d, s in zip(aligned, dense_strides(aligned)))


def coalesced(sizes: Sequence[int], *operands: Sequence[int]) -> list[Group]:
    """Axes of the given sizes, outermost first; each operand has a stride an axis.

    Axes of size 1 vanish; neighbours join where every operand goes through both in even steps.
    """
    groups: list[Group] = []
    for size, *strides in zip(sizes, *operands):
        if size == 1:
            continue
        inner = Group(size, tuple(strides))
        if groups and all(outer == s * size for outer, s in zip(groups[-1].strides, strides)):
            inner = Group(groups.pop().size * size, inner.strides)
        groups.append(inner)
    return groups


def at_most(count: int, groups: Sequence[Group], operands: int, what: str) -> list[Group]:
    """Exactly `count` groups, with groups of one step in front. Raises CompileError where there are more."""
    if len(groups) > count:
        raise CompileError(
            f"{what} goes through {len(groups)} separate runs of axes, of {[g.size for g in groups]} elements, and the "
            f"kernel walks {count}; transpose or reshape the operands so that fewer runs alternate"
        )
    return [Group(1, (0,) * operands)] * (count - len(groups)) + list(groups)


def in_runs(groups: Sequence[Group], operands: int, what: str) -> Arguments:
    """What runs_place of grid.cl takes, one work item an element: sizes of the three runs that are inner digits of the
    third id, and each operand's steps. Raises CompileError where there are more runs."""
    runs = at_most(WALKED, groups, operands, what)
    sizes = [g.size for g in runs]
    steps = (g.strides[operand] for operand in range(operands) for g in runs)
    return Arguments((*sizes[1:4], *steps), (sizes[5], sizes[4], math.prod(sizes[:4])))


def around(shape: Sequence[int], axis: int) -> tuple[int, int, int]:
    """Elements in front of an axis, along it, and behind it."""
    return math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :])
