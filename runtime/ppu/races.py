"""Finds races: two work items at one element, one of them writing, with nothing that orders them.

Only a barrier orders, and only within a group; it does so for local and global memory alike. Beside every element its
shadow says who touched it since the last barrier of a group, and whether another group did. Memory of a group or a work
item that nothing was written to must not be read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ...dialects import ppu
from ...errors import Fault
from .grid import Lanes
from .memory import Memory
from .run import Run

NOBODY = -1


@dataclass
class Shadow:
    """Of each unit of memory: who has touched it. Work items and groups by number, NOBODY where there is none.

    A unit is an element, or the narrowest one of several arguments that overlap.
    """

    origin: int
    """Address of the first unit."""
    unit: int
    """Bytes."""
    size: int
    writer: np.ndarray = field(init=False)
    """In the epoch."""
    reader: np.ndarray = field(init=False)
    """In the epoch."""
    second: np.ndarray = field(init=False)
    """A reader in the epoch that is another one."""
    epoch: np.ndarray = field(init=False)
    """Barriers of the group before the accesses that are remembered."""
    group: np.ndarray = field(init=False)
    """The group that touched it first."""
    visitor: np.ndarray = field(init=False)
    """The latest work item of the first group, whatever the epoch."""
    stranger: np.ndarray = field(init=False)
    """A work item of another group."""
    written: np.ndarray = field(init=False)
    """Who wrote it last, whatever the epoch."""

    def __post_init__(self) -> None:
        for name in ("writer", "reader", "second", "epoch", "group", "visitor", "stranger", "written"):
            setattr(self, name, np.full(self.size, NOBODY))


class Races:
    """Follows the accesses of one launch to these memories; others are tables, which are defined and never written."""

    def __init__(self, run: Run, memories: Sequence[Memory]):
        self.run = run
        self.epochs = np.zeros(run.grid.items // run.grid.group_items, np.int64)
        self.shadows = {id(m): s for s, group in overlapping(memories) for m in group}
        self.defined = {
            id(m): np.zeros(m.array.size, bool) for m in memories if m.space in (ppu.Space.LOCAL, ppu.Space.PRIVATE)
        }
        self.followed = self.shadows.keys() | self.defined.keys()

    # -- accesses
    def read(self, memory: Memory, index: Lanes, mask: np.ndarray | None, place: str) -> None:
        """Work items of a mask read. Raises Fault for a race and for what is undefined."""
        if id(memory) not in self.followed:
            return
        element, item = self.lanes(memory, index, mask)
        if id(memory) in self.defined:
            undefined = ~self.defined[id(memory)][element]
            if undefined.any():
                k = int(np.argmax(undefined))
                at = self.index_of(memory, element[k])
                reason = f"reads '{memory.name}'[{at}], which nothing was written to"
                raise self.run.fault(place, reason, int(item[k]))
        if memory.space is ppu.Space.PRIVATE:
            return
        shadow, unit, item = self.units(memory, element, item)
        group = item // self.run.grid.group_items
        self.renew(shadow, unit, group)
        self.conflict(memory, shadow, unit, item, shadow.writer[unit], "reads", "wrote", place)
        apart = (shadow.group[unit] != NOBODY) & (shadow.group[unit] != group)
        written = np.where(shadow.written[unit] // self.run.grid.group_items != group, shadow.written[unit], NOBODY)
        self.conflict(memory, shadow, unit, item, written, "reads", "wrote", place)
        shadow.reader[unit] = np.where(shadow.reader[unit] == NOBODY, item, shadow.reader[unit])
        # the first reader stays (of several at once, the last); any other is the second
        late = shadow.reader[unit] != item
        shadow.second[unit[late]] = item[late]
        self.visit(shadow, unit, item, group, apart)

    def write(self, memory: Memory, index: Lanes, mask: np.ndarray | None, place: str) -> None:
        """Work items of a mask write. Raises Fault for a race."""
        element, item = self.lanes(memory, index, mask)
        if id(memory) in self.defined:
            self.defined[id(memory)][element] = True
        if memory.space is ppu.Space.PRIVATE:
            return
        shadow, unit, item = self.units(memory, element, item)
        group = item // self.run.grid.group_items
        order = np.argsort(unit, kind="stable")
        same = unit[order][1:] == unit[order][:-1]
        if same.any():
            k = int(np.argmax(same))
            one, two = order[k], order[k + 1]
            raise self.race(memory, shadow, unit[one], item[two], item[one], "writes", "wrote", place)
        self.renew(shadow, unit, group)
        self.conflict(memory, shadow, unit, item, shadow.writer[unit], "writes", "wrote", place)
        self.conflict(memory, shadow, unit, item, shadow.reader[unit], "writes", "read", place)
        self.conflict(memory, shadow, unit, item, shadow.second[unit], "writes", "read", place)
        apart = (shadow.group[unit] != NOBODY) & (shadow.group[unit] != group)
        others = np.where(apart, shadow.visitor[unit], shadow.stranger[unit])
        touched = np.where(shadow.written[unit] == others, "wrote", "read")
        for k in np.flatnonzero(others != NOBODY)[:1]:
            raise self.race(memory, shadow, unit[k], item[k], others[k], "writes", str(touched[k]), place)
        shadow.writer[unit] = shadow.written[unit] = item
        self.visit(shadow, unit, item, group, apart)

    def barrier(self, mask: np.ndarray | None) -> None:
        """The groups of a mask have met; a group meets as a whole."""
        if mask is None:
            self.epochs += 1
        else:
            self.epochs += self.run.grid.flat(mask)[:: self.run.grid.group_items]

    # -- parts of an access
    def lanes(self, memory: Memory, index: Lanes, mask: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Places in the memory's array and work items, one each of those that are active."""
        grid = self.run.grid
        element, item = grid.flat(memory.address(index)), np.arange(grid.items)
        if mask is None:
            return element, item
        active = grid.flat(mask)
        return element[active], item[active]

    def units(
        self, memory: Memory, element: np.ndarray, item: np.ndarray
    ) -> tuple[Shadow, np.ndarray, np.ndarray]:
        """The shadow's units that elements lie on, and whose access each is."""
        shadow = self.shadows[id(memory)]
        width = memory.array.itemsize // shadow.unit
        start = (memory.array.ctypes.data - shadow.origin) // shadow.unit + element * width
        if width == 1:
            return shadow, start, item
        return shadow, (start[:, None] + np.arange(width)).reshape(-1), np.repeat(item, width)

    def renew(self, shadow: Shadow, unit: np.ndarray, group: np.ndarray) -> None:
        """Forget accesses before the group's last barrier; of other groups, `written` and `visitor` have them."""
        now = self.epochs[group] * self.epochs.size + group
        old = unit[shadow.epoch[unit] != now]
        for who in (shadow.writer, shadow.reader, shadow.second):
            who[old] = NOBODY
        shadow.epoch[unit] = now

    def visit(
        self, shadow: Shadow, unit: np.ndarray, item: np.ndarray, group: np.ndarray, apart: np.ndarray
    ) -> None:
        """Remember who came, for accesses of other groups."""
        shadow.stranger[unit[apart]] = item[apart]
        new = shadow.group[unit] == NOBODY
        shadow.group[unit[new]] = group[new]
        apart = shadow.group[unit] != group  # of those that came at once, too
        shadow.stranger[unit[apart]] = item[apart]
        shadow.visitor[unit[~apart]] = item[~apart]

    def conflict(
        self, memory: Memory, shadow: Shadow, unit: np.ndarray, item: np.ndarray, other: np.ndarray, verb: str,
        did: str, place: str,
    ) -> None:  # fmt: skip
        """Raises Fault where another work item was there."""
        wrong = (other != NOBODY) & (other != item)
        if wrong.any():
            k = int(np.argmax(wrong))
            raise self.race(memory, shadow, unit[k], item[k], other[k], verb, did, place)

    def race(
        self, memory: Memory, shadow: Shadow, unit: int, item: int, other: int, verb: str, did: str, place: str
    ) -> Fault:
        offset = int(unit) * shadow.unit + shadow.origin - memory.array.ctypes.data
        at, by = self.index_of(memory, offset // memory.array.itemsize), self.run.grid.name(int(other))
        apart = int(item) // self.run.grid.group_items != int(other) // self.run.grid.group_items
        why = "groups are not ordered" if apart else "there is no barrier in between"
        reason = f"{verb} '{memory.name}'[{at}], which {by} {did}: {why}"
        return self.run.fault(place, reason, int(item))

    @staticmethod
    def index_of(memory: Memory, element: int) -> int:
        """The index that a kernel has for an element of the array."""
        if memory.space is ppu.Space.PRIVATE:
            return int(element) // memory.stride
        return int(element) % memory.size


def overlapping(memories: Sequence[Memory]) -> list[tuple[Shadow, list[Memory]]]:
    """Memories that share bytes, together, each with its shadow; private memory has none, and empty arrays neither."""
    found: list[list[Memory]] = []
    end = 0
    shared = [m for m in memories if m.space is not ppu.Space.PRIVATE and m.array.size]
    for memory in sorted(shared, key=lambda m: m.array.ctypes.data):
        start = memory.array.ctypes.data
        if not found or start >= end:
            found.append([])
        found[-1].append(memory)
        end = max(end if len(found[-1]) > 1 else 0, start + memory.array.nbytes)
    return [(shadow_of(group), group) for group in found]


def shadow_of(group: Sequence[Memory]) -> Shadow:
    """One shadow for memories that overlap."""
    origin = min(m.array.ctypes.data for m in group)
    end = max(m.array.ctypes.data + m.array.nbytes for m in group)
    offsets = [m.array.ctypes.data - origin for m in group]
    unit = int(np.gcd.reduce([*(m.array.itemsize for m in group), *offsets]))
    return Shadow(origin, unit, (end - origin) // unit)
