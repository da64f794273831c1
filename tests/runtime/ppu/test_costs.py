"""What a launch costs: counted on the slice, it is what a full run counts; data is never looked at."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacre.dialects import ppu
from nacre.errors import Fault, InputError
from nacre.frontends.opencl import compile_opencl
from nacre.passes.ppu.hoist import hoist
from nacre.runtime.ppu import Grid, Kernel, cost, cycles, kernel_named, prepare
from nacre.runtime.ppu.costs import ASSUMED_ROUNDS
from nacre.runtime.ppu.slices import PRICES, class_of


def kernel(source: str) -> Kernel:
    return prepare(kernel_named(compile_opencl(source, "k.cl"), "f"))


def counted_run(made: Kernel, arguments: list, size, lanes: int, local) -> tuple[Counter, int]:
    """Instructions by class and lanes in use, counted while the kernel runs in full. It changes the kernel."""
    grid, issued, used = Grid.of(size, local), Counter(), [0]

    def count(name: str, mask) -> None:
        active = np.ones(grid.items, bool) if mask is None else grid.flat(mask)
        padded = np.concatenate([active, np.zeros(-grid.items % lanes, bool)])
        issued[name] += int(padded.reshape(-1, lanes).any(1).sum())
        used[0] += int(active.sum())

    def watched(instruction):
        def step(r, mask):
            if instruction.op is not ppu.LoopOp:
                count(class_of(instruction), mask)
            instruction.step(r, mask)

        return step

    def watch(body, is_loop: bool) -> None:
        steps = [watched(i) for i in body.instructions]
        if is_loop:
            steps.insert(0, lambda r, mask: count("control", mask))
        object.__setattr__(body, "steps", tuple(steps))
        for i in body.instructions:
            for inner in i.bodies:
                watch(inner, i.op is ppu.LoopOp)

    watch(made.body, False)
    made.launch(arguments, size, local)
    return issued, used[0]


GRIDS = st.lists(st.tuples(st.integers(1, 3), st.integers(1, 3)), min_size=1, max_size=3)


@settings(max_examples=25, derandomize=True, deadline=None)
@given(st.integers(0, 2**32), GRIDS, st.booleans(), st.integers(-5, 20), st.integers(1, 9), st.booleans())
def test_the_slice_counts_what_a_run_counts(
    random_kernel: Callable[..., str], seed: int, sizes: list, grouped: bool, n: int, lanes: int, hoisted: bool
):
    function = kernel_named(compile_opencl(random_kernel(seed, data=False), "k.cl"), "f")
    if hoisted:
        hoist(function)
    whole, local = tuple(a * b for a, b in sizes), tuple(b for _, b in sizes) if grouped else None
    items = int(np.prod(whole))
    arrays = [np.ones(64, np.float32), np.ones(64, np.int32), n, np.zeros(items, np.int32), np.zeros(items, np.float32)]
    found = cost(prepare(function), arrays, whole, lanes, local)
    issued, used = counted_run(prepare(function), arrays, whole, lanes, local)
    assert found.issued == {name: k for name, k in issued.items() if k}
    assert found.cycles == sum(PRICES[name].cycles * k for name, k in issued.items())
    assert found.divergence == pytest.approx(1 - used / (issued.total() * lanes))


LOOP = """__kernel void f(__global float *y, int n) {{
  float s = 0.0f;
  for (int k = 0; {}; k++) s += y[k];
  y[get_global_id(0)] = s;
}}"""


def test_rounds_and_waves_count():
    made = kernel(LOOP.format("k < n"))
    one = cycles(made, [None, 10], 8, 8)
    assert cycles(made, [None, 20], 8, 8) - one == one - cycles(made, [None, 0], 8, 8)
    assert cycles(made, [None, 10], 24, 8) == 3 * one
    assert cycles(made, [None, 10], 17, 8) == 3 * one
    assert cost(made, [None, 10], 17, 8).divergence == pytest.approx(7 / 24)


def test_data_decides_nothing():
    unknown = kernel(LOOP.format("y[k] > 0.5f"))
    known = kernel(LOOP.format("k < n"))
    body = cycles(known, [None, 11], 8, 8) - cycles(known, [None, 10], 8, 8)
    assert cycles(unknown, [None, 1], 8, 8) == cycles(unknown, [np.zeros(9, np.float32), 1], 8, 8)
    rounds = cycles(unknown, [None, 1], 8, 8) / (body + 2)  # a load and an address more
    assert ASSUMED_ROUNDS - 1 < rounds < ASSUMED_ROUNDS + 3


def test_both_sides_of_an_unknown_decision_and_one_of_a_known():
    source = "__kernel void f(__global int *y, int n) {{ if ({}) y[0] = n / 3; else y[1] = n * 3; }}"
    sides = [cost(kernel(source.format(c)), [None, 5], 8, 8).issued for c in ("n > 3", "n < 3", "y[7] > 3")]
    assert [s.get("divide", 0) for s in sides] == [1, 0, 1]
    assert [s["memory"] for s in sides] == [1, 1, 3]


def test_rounds_that_differ_are_followed():
    source = """__kernel void f(__global int *y, int n) {
      for (int k = 0; k < n; k++) if (k % 4 == 0) y[get_global_id(0)] = n / 3;
    }"""
    assert cost(kernel(source), [None, 10], 8, 8).issued["divide"] == 10 + 3  # k % 4, and n / 3 for 0, 4 and 8


def test_half_of_a_wave_idles():
    made = kernel("__kernel void f(__global float *y) { int i = get_global_id(0); if (i % 2) y[i] = sqrt(y[i]); }")
    found = cost(made, [None], 64, 16)
    assert found.issued["root"] == 4 and found.issued["memory"] == 8
    assert 0 < found.divergence < 0.5
    apart = kernel("__kernel void f(__global float *y) { int i = get_global_id(0); if (i < 32) y[i] = sqrt(y[i]); }")
    assert cost(apart, [None], 64, 16).issued["root"] == 2
    assert cost(apart, [None], 64, 16).divergence == 0


def test_an_endless_loop_and_arguments_that_do_not_fit():
    with pytest.raises(Fault, match=r"^k.cl:1:\d+: kernel 'f': a loop did not end within 1000000 rounds, in work item"):
        cycles(kernel("__kernel void f(int n) { while (n < 3) n = 1; }"), [0], 8, 8)
    with pytest.raises(InputError, match="takes 1 arguments"):
        cycles(kernel("__kernel void f(int n) { }"), [], 8, 8)


def test_a_division_that_data_guards_is_no_fault():
    source = "__kernel void f(__global int *y, int n) { if (y[0]) { for (int k = 0; k < 8 / n; k++) y[k] = 1; } }"
    assert cycles(kernel(source), [None, 0], 8, 8) > 0


def test_equal_launches_are_counted_once():
    made = kernel(LOOP.format("k < n"))
    cost(made, [None, 100_000], 8, 8)
    start = time.perf_counter()
    again = cost(made, [np.zeros(8), 100_000], 8, 8)
    assert time.perf_counter() - start < 0.005  # 100,000 rounds take 20 ms
    assert again.cycles != cost(made, [None, 100_001], 8, 8).cycles
