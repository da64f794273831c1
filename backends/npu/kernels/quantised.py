"""Launches of quantised.cl: elementwise operators and row normalisation of quantised integers."""

from __future__ import annotations

import math

from ....dialects.quant import storage_range
from ....dialects.types import u8
from ....passes.npu.soft_kernels import Arguments, Build, Call, Defines, Library
from .coalesce import at_most, broadcast_strides, coalesced

LIBRARY = Library(__package__)


def limits(build: Build) -> Defines:
    """LOW and HIGH: what the result's elements hold."""
    low, high = storage_range(build.outputs[0])
    return {"LOW": low, "HIGH": high}


def broadcast(call: Call) -> Arguments:
    """Steps of both operands through four runs of axes, the last two of which share the grid's dimension 2."""
    (out,) = call.outputs
    steps = [broadcast_strides(shape, out) for shape in call.inputs]
    runs = at_most(4, coalesced(out, *steps), 2, "an operation of two broadcast operands")[::-1]
    through = tuple(run.strides[operand] for operand in range(2) for run in runs)
    return Arguments((runs[2].size, *through), (runs[0].size, runs[1].size, runs[2].size * runs[3].size))


# --- rectifiers ------------------------------------------------------------------------------------------
def of_rectifier(build: Build) -> Defines:
    """`rescale`: zeros of input and result, multiplier and shift of x >= 0 and of x < 0, zero of the slope."""
    zero, result_zero, multiplier, shift, negative, negative_shift, slope_zero = build.parameters.rescale
    return {
        **limits(build), "INPUT_ZERO": zero, "RESULT_ZERO": result_zero, "SLOPE_ZERO": slope_zero,
        "POSITIVE_MULTIPLIER": multiplier, "POSITIVE_SHIFT": shift, "NEGATIVE_MULTIPLIER": abs(negative),
        "NEGATIVE_SHIFT": negative_shift, "SIGN": -1 if negative < 0 else 1,
    }  # fmt: skip


@LIBRARY.kernel("qnn.leaky_relu", "quantised.cl", defines=of_rectifier)
def leaky_relu(call: Call) -> Arguments:
    """One work item an element."""
    return Arguments((), (math.prod(call.outputs[0]),))


@LIBRARY.kernel("qnn.prelu", "quantised.cl", defines=of_rectifier)
def prelu(call: Call) -> Arguments:
    """One work item an element."""
    return broadcast(call)


# --- squares ---------------------------------------------------------------------------------------------
def of_squares(build: Build) -> Defines:
    """`rescale`: zero, multiplier and shift of a, of b and of the result; the common shift; the clamp."""
    names = (
        "A_ZERO", "A_MULTIPLIER", "A_SHIFT", "B_ZERO", "B_MULTIPLIER", "B_SHIFT", "RESULT_ZERO", "MULTIPLIER", "SHIFT",
        "LEFT_SHIFT", "LOW", "HIGH",
    )  # fmt: skip
    return dict(zip(names, build.parameters.rescale, strict=True))


@LIBRARY.kernel("qnn.squared_difference", "quantised.cl", defines=of_squares)
def squared_difference(call: Call) -> Arguments:
    """One work item an element."""
    return broadcast(call)


# --- rows of length one ----------------------------------------------------------------------------------
def of_rows(build: Build) -> Defines:
    """MIDDLE: the result's zero point. int8's steps of 1/128 come with the factor's shift, and round otherwise."""
    bounds = limits(build)
    steps, bits = (128, 0) if build.inputs[0] == u8 else (1, 7)
    middle = (int(bounds["LOW"]) + int(bounds["HIGH"]) + 1) // 2
    zero = build.parameters.input_zero
    return {**bounds, "INPUT_ZERO": zero, "STEPS": steps, "STEP_BITS": bits, "MIDDLE": middle}


@LIBRARY.kernel("qnn.l2_normalize", "quantised.cl", defines=of_rows)
def l2_normalize(call: Call) -> Arguments:
    """One work item a row."""
    *outer, size = call.inputs[0]
    return Arguments((size,), (math.prod(outer),))
