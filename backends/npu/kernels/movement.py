"""Launches of movement.cl: repeating, turning round, padding, gathering."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ....dialects.types import dtype_of, f32
from ....passes.npu.soft_kernels import Arguments, Build, Call, Defines, Library
from ....runtime.kernels.graph_movement import exactly
from .coalesce import WALKED, Group, around, broadcast_strides, coalesced, dense_strides, in_runs

LIBRARY = Library(__package__)


def in_steps(groups: list[Group], first: int, what: str) -> Arguments:
    """One work item an element: where the first one comes from, and the sizes and steps of six runs."""
    scalars, grid = in_runs(groups, 1, what)
    return Arguments((first, *scalars), grid)


@LIBRARY.kernel("ppu.broadcast", "movement.cl", entry="in_steps")
def broadcast(call: Call) -> Arguments:
    """Steps of 0 repeat."""
    (shape,), (out,) = call.inputs, call.outputs
    return in_steps(coalesced(out, broadcast_strides(shape, out)), 0, "a broadcast")


@LIBRARY.kernel("ppu.flip", "movement.cl", entry="in_steps")
def flip(call: Call) -> Arguments:
    """Turned axes go back from their last element."""
    (out,), turned = call.outputs, call.parameters.axes
    strides = dense_strides(out)
    first = sum((out[a] - 1) * strides[a] for a in turned)
    steps = [-s if a in turned else s for a, s in enumerate(strides)]
    return in_steps(coalesced(out, steps), first, "turning axes round")


# --- padding ---------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Padded:
    """An axis of a padded box, or several as one.

    `count` outputs, of which the first lies at `shift`, counted from the first of `size` inputs; elements between
    inputs; whether outputs are the inputs.
    """

    count: int
    shift: int
    size: int
    step: int
    plain: bool


ONE_INPUT = Group(1, (0, 1, 0))
"""Shift, size and step of an axis that is not there."""


def padded_axes(call: Call) -> tuple[list[Padded], int]:
    """The axes of the box, plain ones joined with those in front of them, and the place of input 0 of all in x.

    Padding with a constant keeps the order of elements, so there a padded axis takes plain ones behind it along.
    """
    p, (shape,) = call.parameters, call.inputs
    axes: list[Padded] = []
    start = 0
    places = zip(p.place[0::3], p.place[1::3], p.place[2::3], p.low, p.shape, shape, dense_strides(shape))
    for first, count, origin, low, whole, here, step in places:
        shift = first - low
        if p.mode == "constant" or 0 <= shift <= whole - count:  # the inputs here, counted by themselves
            axis = Padded(count, shift - origin, here, step, shift == origin and count == here)
        else:
            axis = Padded(count, shift, whole, step, False)
            start -= origin * step
        if axis.plain and axes and (axes[-1].plain or p.mode == "constant"):
            outer = axes.pop()
            axis = Padded(outer.count * count, outer.shift * count, outer.size * count, step, outer.plain)
        axes.append(axis)
    return axes, start


def of_pad(build: Build) -> Defines:
    """SOURCE, and the VALUE of a constant; there the edge is read, and dropped."""
    p, element = build.parameters, build.inputs[0]
    if p.mode != "constant":
        return {"SOURCE": p.mode}
    if element == f32:
        return {"SOURCE": "edge", "VALUE": float(p.value)}
    value = int(exactly(p.value, dtype_of(element)))
    return {"SOURCE": "edge", "VALUE": "LONG_MIN" if value == -(2**63) else f"({value}L)"}


@LIBRARY.kernel("ppu.pad", "movement.cl", defines=of_pad)
def pad(call: Call) -> Arguments:
    """One work item an element of the box that `place` says: first output, number, first input loaded, an axis each."""
    axes, start = padded_axes(call)
    runs = [Group(a.count, (a.shift, a.size, a.step)) for a in axes]
    scalars, grid = in_runs([ONE_INPUT] * (WALKED - len(runs)) + runs, 3, "a pad")
    loaded = int(math.prod(call.inputs[0]) > 0)
    return Arguments((loaded, start, *scalars), grid)


# --- gathering -------------------------------------------------------------------------------------------
@LIBRARY.kernel("ppu.gather", "movement.cl", partial=True)
def gather(call: Call) -> Arguments:
    """One work item an element; the part of the axis is the data's, which counts from `offset` of `size`."""
    data, indices = call.inputs
    p = call.parameters
    outer, part, inner = around(data, p.axis)
    return Arguments((p.offset, part, p.size, int(call.resumed)), (inner, math.prod(indices), outer))
