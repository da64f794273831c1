"""Launches of reduce.cl: sums, products, means, variances, extrema and places along axes."""

from __future__ import annotations

from collections.abc import Sequence

from ....passes.npu.soft_kernels import Arguments, Build, Call, Defines, Library, c_type
from .coalesce import ROWS, Group, around, at_most, coalesced, dense_strides
from .pool import HIGHEST, LOWEST, is_float

LIBRARY = Library(__package__)


def runs(shape: Sequence[int], axes: Sequence[int]) -> tuple[list[Group], list[Group]]:
    """Kept and reduced axes of a dense tensor as three groups each, dimension 0 (the innermost) first."""
    strides = dense_strides(shape)

    def groups(chosen: Sequence[int], what: str) -> list[Group]:
        found = coalesced([shape[a] for a in chosen], [strides[a] for a in chosen])
        return at_most(ROWS, found, 1, what)[::-1]

    reduced = groups(sorted(set(axes)), "a reduction")
    return groups([a for a in range(len(shape)) if a not in axes], "what a reduction keeps"), reduced


def walk(call: Call, *others: int) -> Arguments:
    """Steps of what is kept, sizes and steps of what is reduced, then the kernel's own; the grid is what is kept."""
    kept, reduced = runs(call.inputs[0], call.parameters.axes)
    steps = (*(g.strides[0] for g in kept), *(g.size for g in reduced), *(g.strides[0] for g in reduced))
    return Arguments((*steps, *others, int(call.resumed)), tuple(g.size for g in kept))


# --- sums and products -----------------------------------------------------------------------------------
def of_sum(build: Build) -> Defines:
    """A sum starts from +0; over no axes it is the value itself, -0 too, which -0 + x gives."""
    itself = "FLOAT" in is_float(build) and not build.parameters.axes
    return {"JOIN": "+", "START": "(-0.0f)" if itself else "0"}


def of_product(build: Build) -> Defines:
    """A product starts from 1."""
    return {"JOIN": "*", "START": "1"}


@LIBRARY.kernel("ppu.reduce_sum", "reduce.cl", entry="reduce", defines=of_sum, partial=True)
@LIBRARY.kernel("ppu.reduce_prod", "reduce.cl", entry="reduce", defines=of_product, partial=True)
def reduce(call: Call) -> Arguments:
    """A sum or a product ends as it is."""
    return walk(call, 0)


def of_mean(build: Build) -> Defines:
    """COUNT of floats is rounded to one."""
    return {**of_sum(build), **of_count(build)}


def of_count(build: Build) -> Defines:
    """How many values a mean is of."""
    count = build.parameters.count
    return {"COUNT": float(count) if is_float(build) else int(count)}


@LIBRARY.kernel("ppu.reduce_mean", "reduce.cl", entry="reduce", defines=of_mean, partial=True)
def reduce_mean(call: Call) -> Arguments:
    """The part that is `last` divides."""
    return walk(call, call.parameters.last)


def of_variance(build: Build) -> Defines:
    """A sum of squares of what is CENTRED on the mean."""
    return {"JOIN": "+", "START": "0", "CENTRED": 1, **of_count(build)}


@LIBRARY.kernel("ppu.variance", "reduce.cl", entry="reduce", defines=of_variance, partial=True)
def variance(call: Call) -> Arguments:
    """The part that is `last` divides."""
    return walk(call, call.parameters.last)


# --- extrema ---------------------------------------------------------------------------------------------
def of_max(build: Build) -> Defines:
    """fmax from -infinity, or max from the type's smallest integer."""
    floats = is_float(build)
    return {**floats, "PICK": "fmax" if floats else "max", "START": LOWEST[c_type(build.outputs[0])]}


def of_min(build: Build) -> Defines:
    """fmin from infinity, or min from the type's largest integer."""
    floats = is_float(build)
    return {**floats, "PICK": "fmin" if floats else "min", "START": HIGHEST[c_type(build.outputs[0])]}


@LIBRARY.kernel("ppu.reduce_max", "reduce.cl", entry="extremum", defines=of_max, partial=True)
@LIBRARY.kernel("ppu.reduce_min", "reduce.cl", entry="extremum", defines=of_min, partial=True)
def extremum(call: Call) -> Arguments:
    """What is kept by what is reduced."""
    return walk(call)


# --- places ----------------------------------------------------------------------------------------------
def of_place(build: Build) -> Defines:
    """LAST for the last of several."""
    return {**is_float(build), **({"LAST": 1} if build.parameters.select_last else {})}


@LIBRARY.kernel("graph.argmax", "reduce.cl", defines=of_place)
def argmax(call: Call) -> Arguments:
    """One work item a result."""
    outer, size, inner = around(call.inputs[0], call.parameters.axis)
    return Arguments((size,), (inner, outer))


@LIBRARY.kernel("ppu.index_of", "reduce.cl", defines=of_place, partial=True)
def index_of(call: Call) -> Arguments:
    """One work item a result; `offset`: where this part of the axis begins."""
    outer, size, inner = around(call.inputs[0], call.parameters.axis)
    return Arguments((size, call.parameters.offset, int(call.resumed)), (inner, outer))
