"""Memory as a kernel sees it: what a pointer leads to, with bounds, and how lanes read and write it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ...dialects import ppu
from ...dialects.types import DTYPE_OF
from .grid import Grid, Lanes

CONTIGUOUS_FROM = 512
"""Elements from which on it pays to ask whether an index counts upwards by one."""


@dataclass
class Memory:
    """One array for all work items, or parts of one: a part a group (local memory) or a work item (private memory).

    Element i of a work item's part is element i · stride + base of the array.
    """

    name: str
    array: np.ndarray
    size: int
    grid: Grid
    space: ppu.Space
    stride: int = 1
    base: Lanes | None = None
    rows: np.ndarray | None = field(init=False, default=None)
    """Private memory as (size, *the grid's shape): element i of all work items is a row."""

    def __post_init__(self) -> None:
        if self.space is ppu.Space.PRIVATE:
            self.rows = self.array.reshape(self.size, *self.grid.shape)

    @staticmethod
    def shared(name: str, array: np.ndarray, grid: Grid, space: ppu.Space) -> Memory:
        """Global or constant memory."""
        return Memory(name, array, array.size, grid, space)

    @staticmethod
    def local(name: str, size: int, element: ppu.Attribute, grid: Grid) -> Memory:
        """An array of each group, zero at first so that runs repeat."""
        groups = grid.items // grid.group_items
        base = grid.group_of * np.int64(size) if groups > 1 else None
        return Memory(name, np.zeros(groups * size, DTYPE_OF[element]), size, grid, ppu.Space.LOCAL, 1, base)

    @staticmethod
    def private(name: str, size: int, element: ppu.Attribute, grid: Grid) -> Memory:
        """An array of each work item, zero at first. Elements of one index lie side by side."""
        array = np.zeros(grid.items * size, DTYPE_OF[element])
        return Memory(name, array, size, grid, ppu.Space.PRIVATE, grid.items, grid.item_of)

    def inside(self, index: Lanes, mask: np.ndarray | None) -> Lanes | None:
        """The index, with 0 where no work item of the mask needs it and it leads out; None where one is out of bounds.

        Read without sign, a negative index is a large one, so that one comparison checks both ends.
        """
        if type(index) is not np.ndarray:
            return index if 0 <= index < self.size else None
        if index.view(np.uint64).max() < self.size:
            return index
        if mask is None:
            return None
        index = np.where(folded(mask, index.shape), index, 0)
        return index if index.view(np.uint64).max() < self.size else None

    def outside(self, index: Lanes, mask: np.ndarray | None) -> tuple[int, int]:
        """The first work item whose index is out of bounds, and that index."""
        wrong = (index < 0) | (index >= self.size)
        item = first(wrong if mask is None else wrong & mask, self.grid)
        return item, int(self.grid.flat(index)[item])

    def address(self, index: Lanes) -> Lanes:
        """Where in the array elements lie."""
        return index if self.base is None else index * np.int64(self.stride) + self.base

    def load(self, index: Lanes) -> Lanes:
        """The elements at an index that lies inside."""
        if type(index) is not np.ndarray:
            if self.base is None:
                return self.array[index]
            if self.rows is not None:
                return self.rows[index].copy()
        elif self.base is None and (part := counted(index)) is not None:
            return self.array[part].reshape(index.shape).copy()
        return self.array[self.address(index)]

    def store(self, index: Lanes, value: Lanes, mask: np.ndarray | None) -> None:
        """Write to an index that lies inside; of several work items at one element the last one wins."""
        if type(index) is not np.ndarray and self.rows is not None:
            np.copyto(self.rows[index], value, where=True if mask is None else mask)
            return
        address = self.address(index)
        if mask is not None:
            shape = np.broadcast_shapes(mask.shape, np.shape(address), np.shape(value))
            mask = np.broadcast_to(mask, shape)
            address = np.broadcast_to(address, shape)[mask]
            value = np.broadcast_to(value, shape)[mask] if type(value) is np.ndarray else value
        elif type(value) is np.ndarray:
            address, value = last_writers(address, value)
            if self.base is None and type(address) is np.ndarray and (part := counted(address)) is not None:
                self.array[part].reshape(address.shape)[...] = value
                return
            address, value = np.ravel(address), np.ravel(value)  # in order, so that the last one wins
        self.array[address] = value


def folded(mask: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A mask over a shape that broadcasts: true where it is for any work item that an element stands for."""
    axes = tuple(k for k, size in enumerate(shape) if size == 1 and mask.shape[k] > 1)
    return np.logical_or.reduce(mask, axis=axes, keepdims=True) if axes else mask


def counted(index: np.ndarray) -> slice | None:
    """The slice that an index stands for if it counts upwards by one in C order."""
    if index.size < CONTIGUOUS_FROM:
        return None
    flat = index.reshape(-1)
    start, count = int(flat[0]), index.size
    if int(flat[-1]) != start + count - 1 or not (flat[1:] > flat[:-1]).all():
        return None
    return slice(start, start + count)


def last_writers(address: Lanes, value: np.ndarray) -> tuple[Lanes, np.ndarray]:
    """Address and value without the dimensions along which an address is written over and over.

    Along such a dimension the last value stays, whatever the others do: work items are counted in C order.
    """
    if type(address) is not np.ndarray:
        return address, value.reshape(-1)[-1]
    value = value[tuple(slice(-1, None) if size == 1 else slice(None) for size in address.shape)]
    return address, np.broadcast_to(value, address.shape)


def first(lanes: Lanes, grid: Grid) -> int:
    """The first work item for which lanes of truth values hold."""
    return int(np.argmax(grid.flat(lanes))) if type(lanes) is np.ndarray else 0
