"""Launches of softmax.cl: softmax of floats in one kernel, or in passes behind ppu.reduce_max."""

from __future__ import annotations

from ....passes.npu.soft_kernels import Arguments, Call, Library
from .coalesce import around

LIBRARY = Library(__package__)


@LIBRARY.kernel("graph.softmax", "softmax.cl")
def softmax(call: Call) -> Arguments:
    """One work item a row."""
    outer, size, inner = around(call.inputs[0], call.parameters.axis)
    return Arguments((size,), (inner, outer))


@LIBRARY.kernel("ppu.softmax_sum", "softmax.cl", partial=True)
def softmax_sum(call: Call) -> Arguments:
    """One work item a row."""
    outer, size, inner = around(call.inputs[0], call.parameters.axis)
    return Arguments((size, int(call.resumed)), (inner, outer))


@LIBRARY.kernel("ppu.softmax_output", "softmax.cl")
def softmax_output(call: Call) -> Arguments:
    """One work item an element. The axis is where the maximum is smaller than x; a tile of one step has none."""
    x, maximum = call.inputs[:2]
    axis = next((i for i, (n, m) in enumerate(zip(x, maximum)) if n != m), len(x) - 1)
    if x == maximum:
        x = (*x, 1)
        axis = len(x) - 1
    outer, size, inner = around(x, axis)
    return Arguments((), (inner, size, outer))
