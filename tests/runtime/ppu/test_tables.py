"""Tables of a kernel: all work items and launches share them, reads are checked, and they cost nothing."""

from __future__ import annotations

import numpy as np
import pytest
from nacre.dialects import ppu
from nacre.errors import Fault
from nacre.frontends.opencl import compile_opencl
from nacre.runtime.ppu import Grid, cost, decode, encode, kernel_named, launch, prepare
from nacre.runtime.ppu.memory import Memory

CURVE = np.array([5, -3, 32767, -32768, 9, 2, 1, 0], np.int16)
SOURCE = f"""__constant short curve[] = {{{', '.join(map(str, CURVE))}}};
__kernel void f(__global const int *x, __global int *y) {{
  int i = get_global_id(0);
  if (x[i] >= 0)
    y[i] = curve[x[i]];
}}"""
FUNCTION = kernel_named(compile_opencl(SOURCE, "k.cl"), "f")
N = 1024
"""Enough for an index that counts to be read as a slice."""


def run(x: np.ndarray, local: int | None = None, sanitize: bool = False, function: ppu.FuncOp = FUNCTION) -> np.ndarray:
    y = np.full(x.size, 77, np.int32)
    launch(function, [x.astype(np.int32), y], x.size, local, sanitize=sanitize)
    return y


@pytest.mark.parametrize("local", [None, 32])
@pytest.mark.parametrize("sanitize", [False, True])
def test_each_work_item_reads_its_element(local: int | None, sanitize: bool) -> None:
    x = np.random.default_rng(1).integers(-8, 8, N)
    expected = np.where(x < 0, 77, CURVE[np.maximum(x, 0)])
    np.testing.assert_array_equal(run(x, local, sanitize), expected)
    np.testing.assert_array_equal(run(x, local, sanitize, decode(encode(FUNCTION))), expected)


def test_a_row_of_a_table_is_read_in_order() -> None:
    contents = np.random.default_rng(2).integers(-100, 100, N).astype(np.int8)
    source = f"""__constant char row[] = {{{', '.join(map(str, contents))}}};
    __kernel void f(__global const int *x, __global int *y) {{ int i = get_global_id(0); y[i] = row[i]; y[i] += 1; }}"""
    found = run(np.zeros(N, int), function=kernel_named(compile_opencl(source, "k.cl"), "f"))
    np.testing.assert_array_equal(found, contents.astype(int) + 1)


@pytest.mark.parametrize("index", [8, 1000])
def test_an_index_that_leads_out_is_a_fault_with_its_place(index: int) -> None:
    place = rf"^k.cl:5:12: kernel 'f': reads 'curve'\[{index}\], which has 8 elements, in work item \(2\)$"
    with pytest.raises(Fault, match=place):
        run(np.array([0, -1, index, 1]))


def test_a_negative_index_is_a_fault() -> None:
    source = SOURCE.replace("x[i] >= 0", "x[i] < 0")
    with pytest.raises(Fault, match=r"reads 'curve'\[-1\], which has 8 elements, in work item \(1\)"):
        run(np.array([0, -1]), function=kernel_named(compile_opencl(source, "k.cl"), "f"))


def test_launches_share_the_contents(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, bound = prepare(FUNCTION), []
    shared = Memory.shared

    def watched(name: str, array: np.ndarray, grid: Grid, space: ppu.Space) -> Memory:
        bound.append((name, array, space))
        return shared(name, array, grid, space)

    monkeypatch.setattr(Memory, "shared", watched)
    for _ in range(2):
        kernel.launch([np.zeros(4, np.int32), np.zeros(4, np.int32)], 4)
    one, two = (array for name, array, space in bound if (name, space) == ("curve", ppu.Space.CONSTANT))
    assert np.shares_memory(one, two) and not one.flags.writeable
    np.testing.assert_array_equal(one, CURVE)


def test_a_table_costs_nothing_and_a_load_from_it_as_any() -> None:
    with_table = cost(prepare(FUNCTION), [None, None], N, lanes=64)
    argument = SOURCE.partition("\n")[2].replace("(__global", "(__constant short *curve, __global", 1)
    from_argument = prepare(kernel_named(compile_opencl(argument, "k.cl"), "f"))
    assert with_table == cost(from_argument, [None, None, None], N, lanes=64)
    assert with_table.issued["memory"] == 4 * N // 64
