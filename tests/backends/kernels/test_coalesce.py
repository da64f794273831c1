"""Groups of axes lead to the same elements, in the same order, as the axes themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacre.backends.npu.kernels.coalesce import (
    Group,
    around,
    at_most,
    broadcast_strides,
    coalesced,
    dense_strides,
    in_runs,
)
from nacre.errors import CompileError


def walked(groups: list[Group], operand: int) -> np.ndarray:
    """Where a walk through the groups leads in an operand, step by step."""
    at = np.zeros((), np.int64)
    for group in groups:
        at = np.add.outer(at, np.arange(group.size) * group.strides[operand])
    return at.ravel()


@settings(derandomize=True, deadline=None)
@given(data=st.data())
def test_groups_lead_where_axes_do(data: Any) -> None:
    shape = tuple(data.draw(st.lists(st.integers(1, 4), max_size=6)))
    repeated = [tuple(1 if data.draw(st.booleans()) else d for d in shape) for _ in range(2)]
    groups = coalesced(shape, *(broadcast_strides(r, shape) for r in repeated))
    for operand, small in enumerate(repeated):
        places = np.arange(np.prod(small, dtype=int)).reshape(small)
        np.testing.assert_array_equal(walked(groups, operand), np.broadcast_to(places, shape).ravel())
    kinds = [tuple(r[i] == 1 for r in repeated) for i, d in enumerate(shape) if d > 1]
    assert len(groups) == sum(a != b for a, b in zip(kinds, [None, *kinds]))  # neighbours of one kind are one


def test_strides() -> None:
    assert dense_strides((2, 3, 4)) == (12, 4, 1)
    assert broadcast_strides((3, 1), (2, 3, 4)) == (0, 1, 0)
    assert around((2, 3, 4, 5), 1) == (2, 3, 20)


def test_groups_of_one_step_fill_up() -> None:
    assert at_most(3, [Group(4, (1, 0))], 2, "a test") == [Group(1, (0, 0)), Group(1, (0, 0)), Group(4, (1, 0))]
    with pytest.raises(CompileError, match=r"a test goes through 2 separate runs of axes, of \[4, 4\] elements"):
        at_most(1, [Group(4, (1, 0))] * 2, 2, "a test")


def test_runs_go_round_in_the_order_of_the_result() -> None:
    """The formula of runs_place in grid.cl, work item by work item: id 0 first, then 1, then the digits of 2."""
    shape, repeated = (2, 3, 4, 5, 2, 3), (2, 1, 4, 1, 2, 1)
    groups = coalesced(shape, dense_strides(shape), broadcast_strides(repeated, shape))
    scalars, grid = in_runs(groups, 2, "a test")
    assert grid == (3, 2, 2 * 3 * 4 * 5) and scalars[:3] == (3, 4, 5)
    id2, id1, id0 = np.unravel_index(np.arange(np.prod(shape)), grid[::-1])
    digits = np.unravel_index(id2, (2, *scalars[:3]))
    for operand, small in ((scalars[3:9], shape), (scalars[9:], repeated)):
        places = np.arange(np.prod(small)).reshape(small)
        found = sum(digit * step for digit, step in zip((*digits, id1, id0), operand, strict=True))
        np.testing.assert_array_equal(found, np.broadcast_to(places, shape).ravel())
    with pytest.raises(CompileError, match="a test goes through 7 separate runs of axes"):
        in_runs([Group(2, (0,))] * 7, 1, "a test")
