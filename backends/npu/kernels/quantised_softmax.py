"""Launches of quantised_softmax.cl: softmax of integers in one kernel, or in passes behind ppu.reduce_max."""

from __future__ import annotations

import math

import numpy as np

from ....dialects.declarative import Parameters
from ....dialects.types import dtype_of
from ....passes.npu.soft_kernels import Arguments, Build, Call, Defines, Library
from ....runtime.kernels.quantised_softmax16 import exponential_table, one_over_one_plus_table
from .quantised import limits

LIBRARY = Library(__package__)


def of_fixed_point(build: Build) -> Defines:
    """Range and bits of the result."""
    return {**limits(build), "FIXED_POINT": 1, "DROPPED": 31 - 8 * dtype_of(build.outputs[0]).itemsize}


def of_tables(build: Build) -> Defines:
    """e^x of 65,535 steps of [-10, 0], and 1 / (1 + x) of [0, 1]."""
    return {
        "EXPONENTIALS": samples(exponential_table()), "RECIPROCALS": samples(one_over_one_plus_table()),
    }  # fmt: skip


def scale_of(p: Parameters) -> tuple[int, int, int]:
    """How differences become arguments: Q5.26 of 8 bits, steps of the table of 16; and the least that counts."""
    if "smallest_difference" in p:
        return p.multiplier, p.left_shift, p.smallest_difference
    return p.multiplier, p.shift, 0


def samples(table: np.ndarray) -> str:
    """A table as the initial values of a `__constant` array."""
    return f"{{{', '.join(map(str, table.tolist()))}}}"


SHARES = 64
"""Work items that share few rows, as many as their meeting place holds (quantised_softmax.cl)."""


def shared_out(rows: int, size: int) -> tuple[int, int]:
    """The grid of a kernel over rows: shares of each, rows."""
    return max(1, min(SHARES // rows, size)), rows


@LIBRARY.kernel("qnn.softmax", "quantised_softmax.cl", defines=of_fixed_point)
@LIBRARY.kernel("qnn.softmax16", "quantised_softmax.cl", entry="softmax", defines=of_tables)
def softmax(call: Call) -> Arguments:
    """Rows, shared out where they are few."""
    *outer, size = call.inputs[0]
    return Arguments((size, *scale_of(call.parameters)), shared_out(math.prod(outer), size))


@LIBRARY.kernel(
    "ppu.quantised_softmax_sum", "quantised_softmax.cl", entry="softmax_sum", defines=of_fixed_point, partial=True
)
@LIBRARY.kernel("ppu.softmax16_sum", "quantised_softmax.cl", entry="softmax_sum", defines=of_tables, partial=True)
def softmax_sum(call: Call) -> Arguments:
    """Rows, shared out where they are few."""
    *outer, size = call.inputs[0]
    return Arguments((size, int(call.resumed), *scale_of(call.parameters)), shared_out(math.prod(outer), size))


@LIBRARY.kernel(
    "ppu.quantised_softmax_output", "quantised_softmax.cl", entry="softmax_output", defines=of_fixed_point
)
@LIBRARY.kernel("ppu.softmax16_output", "quantised_softmax.cl", entry="softmax_output", defines=of_tables)
def softmax_output(call: Call) -> Arguments:
    """One work item an element."""
    *outer, size = call.inputs[0]
    return Arguments(scale_of(call.parameters), (size, math.prod(outer)))
