"""Reads and writes of lanes: what is a slice, who is the last to write, and parts of groups and work items."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacre.dialects import ppu
from nacre.dialects.types import i32
from nacre.runtime.ppu import Grid
from nacre.runtime.ppu.memory import CONTIGUOUS_FROM, Memory, counted

LARGE = (2, 16, 32)
"""As many elements as a slice is asked for."""
assert np.prod(LARGE) >= CONTIGUOUS_FROM


def shared(size: int, grid: Grid) -> Memory:
    return Memory.shared("x", np.arange(size, dtype=np.int32), grid, ppu.Space.GLOBAL)


def test_an_index_that_counts_is_a_slice():
    index = np.arange(7, 7 + 1024).reshape(LARGE)
    assert counted(index) == slice(7, 7 + 1024)
    assert counted(index[:, ::-1]) is None
    swapped = index.copy()
    swapped[0, 0, 1], swapped[0, 0, 2] = 9, 8  # first and last are as they should be
    assert counted(swapped) is None
    assert counted(np.arange(CONTIGUOUS_FROM - 1)) is None


@pytest.mark.parametrize("change", [False, True])
def test_large_reads_and_writes_by_any_index(change: bool):
    grid = Grid.of((32, 16, 2))
    index = np.arange(1024).reshape(LARGE)
    if change:
        index[0, 0, [1, 2]] = 2, 1
    memory = shared(1100, grid)
    before = memory.load(index)
    assert (before == index).all()
    memory.store(index, -before, None)
    assert (memory.array[:1024] == -np.arange(1024)).all() and memory.array[1024] == 1024
    assert (before == index).all(), "what was read stays"


SMALL = st.sampled_from([(1, 1, 1), (1, 1, 3), (1, 2, 1), (2, 1, 1), (2, 2, 1), (1, 2, 3), (2, 1, 3), (2, 2, 3)])


@settings(max_examples=300, derandomize=True, deadline=None)
@given(SMALL, SMALL, st.one_of(st.none(), SMALL), st.integers(0, 2**32), st.sampled_from(["all", "group", "item"]))
def test_the_last_work_item_wins(index_shape, value_shape, mask_shape, seed, space):
    rng = np.random.default_rng(seed)
    grid = Grid.of((3, 2, 2))
    memory = shared(5, grid)
    if space != "all":
        memory = (Memory.local if space == "group" else Memory.private)("x", 5, i32, grid)
    index, value = rng.integers(-2, 5, index_shape), rng.integers(0, 99, value_shape).astype(np.int32)
    mask = None if mask_shape is None else rng.random(mask_shape) < 0.7
    wanted = grid.flat(index) if mask is None else grid.flat(index)[grid.flat(mask)]
    if not wanted.size:
        return
    index = index if index.size > 1 else index.reshape(-1)[0]
    value = value if value.size > 1 else value.reshape(-1)[0]
    inside = memory.inside(index, mask)
    assert (inside is None) == (wanted.min() < 0)
    if inside is None:
        item, at = memory.outside(index, mask)
        assert at < 0 and grid.flat(index)[item] == at and (mask is None or grid.flat(mask)[item])
        return
    expected = memory.array.copy()
    lanes = np.arange(12) if mask is None else np.flatnonzero(grid.flat(mask))
    for lane in lanes:
        place = int(grid.flat(index)[lane])
        expected[place * 12 + lane if space == "item" else place] = grid.flat(value)[lane]
    memory.store(inside, value, mask)
    assert (memory.array == expected).all()
    read = grid.flat(memory.load(inside))
    for lane in lanes:
        place = int(grid.flat(index)[lane])
        assert read[lane] == expected[place * 12 + lane if space == "item" else place]


def test_each_group_has_its_part():
    grid = Grid.of((4, 2), (2, 1))
    memory = Memory.local("l", 3, i32, grid)
    memory.store(np.int64(1), grid.query("global_id", 0).astype(np.int32), None)
    assert memory.array.reshape(4, 3)[:, 1].tolist() == [1, 3, 1, 3]
    assert grid.flat(memory.load(np.int64(1))).tolist() == [1, 1, 3, 3, 1, 1, 3, 3]
