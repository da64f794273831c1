"""The grid of a launch: its sizes, and what a work item knows of itself as arrays that broadcast to the grid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ...errors import InputError

MAX_ITEMS = 2**31 - 1
"""Work items of a launch, all of which run at once; an instruction's sizes are 32 bits."""
Lanes = Any
"""A register in all work items: a numpy scalar where they agree, or an array that broadcasts to the grid."""


@dataclass(frozen=True)
class Grid:
    """Sizes along three dimensions, dimension 0 first.

    The lanes' shape is (2, 1, 0) without groups, and (groups 2, 1, 0, items of a group 2, 1, 0) with them: the C order
    of an array over it counts group by group, dimension 0 fastest.
    """

    dimensions: int
    global_size: tuple[int, int, int]
    local_size: tuple[int, int, int]

    @staticmethod
    def of(global_size: Sequence[int] | int, local_size: Sequence[int] | int | None = None) -> Grid:
        """A grid. Raises InputError for sizes that are none."""
        whole = (global_size,) if isinstance(global_size, int) else tuple(global_size)
        parts = whole if local_size is None else (local_size,) if isinstance(local_size, int) else tuple(local_size)
        if not 1 <= len(whole) <= 3 or len(parts) != len(whole) or min(*whole, *parts, 1) < 1:
            raise InputError(f"a grid of {list(whole)} in groups of {list(parts)} is none of one to three dimensions")
        if math.prod(whole) > MAX_ITEMS:
            raise InputError(f"a grid of {list(whole)} has more than {MAX_ITEMS} work items: launch it in parts")
        if any(w % p for w, p in zip(whole, parts)):
            raise InputError(f"the grid {list(whole)} is no multiple of its groups {list(parts)}")
        g0, g1, g2 = (int(w) for w in (*whole, 1, 1)[:3])
        l0, l1, l2 = (int(p) for p in (*parts, 1, 1)[:3])
        return Grid(len(whole), (g0, g1, g2), (l0, l1, l2))

    @property
    def items(self) -> int:
        return math.prod(self.global_size)

    @property
    def group_items(self) -> int:
        return math.prod(self.local_size)

    @cached_property
    def groups(self) -> tuple[int, ...]:
        """How many groups there are along each dimension."""
        return tuple(w // p for w, p in zip(self.global_size, self.local_size))

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """The shape that lanes broadcast to."""
        if max(self.groups) == 1:
            return self.local_size[::-1]
        return (*self.groups[::-1], *self.local_size[::-1])

    def query(self, name: str, dimension: int) -> Lanes:
        """The answer to a ppu.work_item."""
        if name == "global_id":
            return self._group_id(dimension) * np.int64(self.local_size[dimension]) + self._local_id(dimension)
        if name == "group_id":
            return self._group_id(dimension)
        if name == "local_id":
            return self._local_id(dimension)
        whole, local = self.global_size[dimension], self.local_size[dimension]
        sizes = {"global_size": whole, "local_size": local, "num_groups": whole // local, "global_offset": 0}
        return np.int64(self.dimensions if name == "work_dim" else sizes[name])

    def _local_id(self, dimension: int) -> Lanes:
        return self._along(len(self.shape) - 1 - dimension, self.local_size[dimension])

    def _group_id(self, dimension: int) -> Lanes:
        return self._along(2 - dimension, self.groups[dimension])

    def _along(self, axis: int, size: int) -> Lanes:
        """0 … size − 1 along an axis of the shape; a scalar where that is all 0."""
        if size == 1:
            return np.int64(0)
        return np.arange(size).reshape([size if k == axis else 1 for k in range(len(self.shape))])

    def flat(self, lanes: Lanes) -> np.ndarray:
        """One element a work item, in their order."""
        return np.broadcast_to(lanes, self.shape).reshape(-1)

    @cached_property
    def group_of(self) -> Lanes:
        """The number of a work item's group."""
        if max(self.groups) == 1:
            return np.int64(0)
        return np.arange(math.prod(self.groups)).reshape(*self.groups[::-1], 1, 1, 1)

    @cached_property
    def item_of(self) -> np.ndarray:
        """The number of each work item."""
        return np.arange(self.items).reshape(self.shape)

    def name(self, item: int) -> str:
        """A work item for people: its global ids."""
        at = [int(self.flat(self.query("global_id", d))[item]) for d in range(self.dimensions)]
        return f"work item ({', '.join(map(str, at))})"
