"""Launches of scatter.cl: gathering and scattering with an index for each element."""

from __future__ import annotations

from ....passes.npu.soft_kernels import Arguments, Build, Call, Defines, Library
from .coalesce import ROWS, at_most, broadcast_strides, coalesced, dense_strides, in_runs

LIBRARY = Library(__package__)


@LIBRARY.kernel("ppu.gather_elements", "scatter.cl", partial=True)
def gather_elements(call: Call) -> Arguments:
    """One work item an element; the part of the axis is the data's, which counts from `offset` of `size`."""
    (data, indices), (out,), p = call.inputs, call.outputs, call.parameters
    strides = dense_strides(data)
    lines = [0 if i == p.axis else s for i, s in enumerate(strides)]
    scalars, grid = in_runs(coalesced(out, lines, broadcast_strides(indices, out)), 2, "a gathering of elements")
    part = (p.offset, data[p.axis], p.size, strides[p.axis], int(call.resumed))
    return Arguments((*part, *scalars), grid)


COMBINE = {"none": "none", "add": "add", "mul": "mul", "min": "smaller", "max": "larger"}


def of_scatter(build: Build) -> Defines:
    """COMBINE."""
    return {"COMBINE": COMBINE[build.parameters.reduction]}


@LIBRARY.kernel("ppu.scatter_elements", "scatter.cl", defines=of_scatter, partial=True)
def scatter_elements(call: Call) -> Arguments:
    """One work item a line along the axis, which counts from `offset` of `size`."""
    (_, indices, updates), (out,), p = call.inputs, call.outputs, call.parameters
    strides = (dense_strides(out), broadcast_strides(indices, updates), dense_strides(updates))
    others = [i for i in range(len(out)) if i != p.axis]
    groups = coalesced([out[i] for i in others], *([s[i] for i in others] for s in strides))
    runs = at_most(ROWS, groups, 3, "a scattering of elements")[::-1]
    along = tuple(s[p.axis] for s in strides)
    steps = (g.strides[operand] for operand in range(3) for g in runs)
    scalars = (p.offset, out[p.axis], p.size, updates[p.axis], *along, *steps, int(call.resumed))
    return Arguments(scalars, tuple(g.size for g in runs))
