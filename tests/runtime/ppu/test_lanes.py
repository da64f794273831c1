"""Random kernels on random grids: the engine gives for all work items at once what each gives alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from nacre.dialects import ppu
from nacre.dialects.types import DTYPE_OF
from nacre.frontends.opencl import compile_opencl
from nacre.runtime.ppu import Grid, decode, encode, kernel_named, prepare
from nacre.runtime.ppu.arithmetic import DIVISIONS, function_of

ELEMENTS = 64


# --- one work item at a time ---------------------------------------------------------------------------------
def alone(op: ppu.FuncOp, arguments: list, grid: Grid, items: Iterable[int]) -> None:
    """The kernel for some work items, one after the other: none reads what others write."""
    for item in items:
        values = {}
        for argument, given_ in zip(op.body.block.args, arguments):
            scalar = not isinstance(argument.type, ppu.PointerType)
            values[argument] = DTYPE_OF[argument.type].type(given_) if scalar else given_
        with np.errstate(all="ignore"):
            block(op.body.block, values, grid, item, {})


def block(body, values: dict, grid: Grid, item: int, private: dict) -> list:
    for op in body.ops:
        operands = [values[v] for v in op.operands]
        function = function_of(op) or DIVISIONS.get(type(op))
        if function is not None:
            results = [function(*operands)]
        elif isinstance(op, ppu.ConstantOp):
            results = [DTYPE_OF[op.result.type].type(op.number())]
        elif isinstance(op, ppu.WorkItemOp):
            p = op.parameters()
            results = [grid.flat(grid.query(p.query, p.dimension))[item]]
        elif isinstance(op, ppu.AllocOp):
            element = DTYPE_OF[op.result.type.data.element]
            results = [private.setdefault(op, np.zeros(op.parameters().size, element))]
        elif isinstance(op, ppu.LoadOp):
            results = [operands[0][operands[1]]]
        elif isinstance(op, ppu.StoreOp):
            operands[1][operands[2]] = operands[0]
            results = []
        elif isinstance(op, ppu.IfOp):
            results = block((op.then if operands[0] else op.otherwise).block, values, grid, item, private)
        elif isinstance(op, ppu.LoopOp):
            results, again = operands, True
            while again:
                values.update(zip(op.body.block.args, results))
                again, *results = block(op.body.block, values, grid, item, private)
        else:
            return operands
        values.update(zip(op.results, results))
    raise AssertionError("a block ends")


GRIDS = st.lists(st.tuples(st.integers(1, 3), st.integers(1, 3)), min_size=1, max_size=3)


@settings(max_examples=25, derandomize=True, deadline=None)
@given(st.integers(0, 2**32), GRIDS, st.booleans(), st.integers(-5, 20))
def test_work_items_compute_what_they_would_alone(
    random_kernel: Callable[..., str], seed: int, sizes: list, grouped: bool, n: int
):
    function = kernel_named(compile_opencl(random_kernel(seed), "k.cl"), "f")
    whole, local = tuple(a * b for a, b in sizes), tuple(b for _, b in sizes)
    grid = Grid.of(whole, local if grouped else None)
    rng = np.random.default_rng(seed)
    inputs = [rng.normal(size=ELEMENTS).astype(np.float32), rng.integers(-99, 99, ELEMENTS).astype(np.int32), n]
    found, decoded = ([np.zeros(grid.items, np.int32), np.zeros(grid.items, np.float32)] for _ in range(2))
    prepare(function).launch([*inputs, *found], whole, local if grouped else None)
    prepare(decode(encode(function))).launch([*inputs, *decoded], whole, local if grouped else None, sanitize=True)
    expected = [x.copy() for x in found]  # where a work item alone gives the same, nothing changes
    alone(function, [*inputs, *expected], grid, rng.choice(grid.items, 4))
    for outcome in (found, decoded):
        np.testing.assert_array_equal(outcome[0], expected[0])
        np.testing.assert_array_equal(outcome[1].view(np.int32), expected[1].view(np.int32))


def test_masked_work_items_neither_write_nor_leave_bounds():
    source = """__kernel void f(__global int *y, int n) {
      int i = get_global_id(0);
      if (i < n) { if (i % 2) y[i] = 1; else y[i] = 2; }
    }"""
    y = np.zeros(5, np.int32)
    prepare(kernel_named(compile_opencl(source, "k.cl"), "f")).launch([y, 5], 8)
    assert y.tolist() == [2, 1, 2, 1, 2]
