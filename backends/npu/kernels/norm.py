"""Launches of norm.cl: layer normalisation in one kernel, or as the last pass behind a mean and a variance."""

from __future__ import annotations

import math

from ....passes.npu.soft_kernels import Arguments, Build, Call, Defines, Library
from .coalesce import ROWS, at_most, broadcast_strides, coalesced, in_runs

LIBRARY = Library(__package__)


def of_rows(build: Build) -> Defines:
    """EPSILON, and BIAS where x and scale are followed by one."""
    return {"EPSILON": float(build.parameters.epsilon), **({"BIAS": 1} if len(build.inputs) == 3 else {})}


@LIBRARY.kernel("graph.layer_norm", "norm.cl", defines=of_rows)
def layer_norm(call: Call) -> Arguments:
    """One work item a row: the axes in front of `axis` are the grid, the others loops."""
    x, *vectors = call.inputs
    strides = [broadcast_strides(v, x) for v in vectors]
    strides = [strides[0], strides[-1]]  # without a bias its steps are the scale's, and nothing takes them
    axis = call.parameters.axis
    rows = at_most(ROWS, coalesced(x[:axis], *(s[:axis] for s in strides)), 2, "the scale of a layer norm")[::-1]
    loops = at_most(ROWS, coalesced(x[axis:], *(s[axis:] for s in strides)), 2, "the scale of a layer norm")[::-1]
    steps = [g.strides[operand] for groups in (rows, loops) for operand in (0, 1) for g in groups]
    scalars = (math.prod(x[axis:]), *(g.size for g in loops), *steps)
    return Arguments(scalars, tuple(g.size for g in rows))


def of_elements(build: Build) -> Defines:
    """EPSILON, and BIAS where x, mean, variance and scale are followed by one."""
    return {"EPSILON": float(build.parameters.epsilon), **({"BIAS": 1} if len(build.inputs) == 5 else {})}


@LIBRARY.kernel("ppu.normalise", "norm.cl", defines=of_elements)
def normalise(call: Call) -> Arguments:
    """One work item an element."""
    x, mean, _, *vectors = call.inputs
    strides = [broadcast_strides(s, x) for s in (mean, *vectors)]
    strides = [strides[0], strides[1], strides[-1]]
    return in_runs(coalesced(x, *strides), 3, "the scale of a normalisation")
