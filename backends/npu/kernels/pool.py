"""Launches of pool.cl: pools of floats and integers, and local response normalisation."""

from __future__ import annotations

import math

from ....dialects.types import f32
from ....passes.npu.soft_kernels import Arguments, Build, Call, Defines, Library, c_type

LIBRARY = Library(__package__)
LOWEST = {
    "float": "(-INFINITY)", "char": "CHAR_MIN", "uchar": "0", "short": "SHRT_MIN", "ushort": "0", "int": "INT_MIN",
    "long": "LONG_MIN",
}  # fmt: skip
"""What no other value of a type is below; booleans are unsigned bytes."""
HIGHEST = {
    "float": "INFINITY", "char": "CHAR_MAX", "uchar": "UCHAR_MAX", "short": "SHRT_MAX", "ushort": "USHRT_MAX",
    "int": "INT_MAX", "long": "LONG_MAX",
}  # fmt: skip


def is_float(build: Build) -> Defines:
    """FLOAT where the values have a NaN."""
    return {"FLOAT": 1} if build.inputs[0] == f32 else {}


def window_steps(build: Build) -> Defines:
    """Strides and dilations of a window."""
    (stride_h, stride_w), (dilation_h, dilation_w) = build.parameters.strides, build.parameters.dilations
    return {"STRIDE_H": stride_h, "STRIDE_W": stride_w, "DILATION_H": dilation_h, "DILATION_W": dilation_w}


def of_largest(build: Build) -> Defines:
    """LOWEST is what padding holds."""
    return {**window_steps(build), **is_float(build), "LOWEST": LOWEST[c_type(build.outputs[0])]}


def of_average(build: Build) -> Defines:
    """The whole window, and which positions of the padded image count: [LOW, HIGH) along each axis.

    With `count_include_pad` the padding does, up to the `overhang` that only rounding up adds.
    """
    p = build.parameters
    made = dict(window_steps(build))
    for axis, letter in enumerate("HW"):
        low, high, size = p.window[2 + axis], p.window[4 + axis], p.sizes[axis]
        overhang = p.overhang[axis] if p.overhang else 0
        made[f"TAPS_{letter}"] = p.window[axis]
        made[f"LOW_{letter}"] = 0 if p.count_include_pad else low
        made[f"HIGH_{letter}"] = low + size + (high - overhang if p.count_include_pad else 0)
    return made


def window(call: Call) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What both pools take first, and the grid: channels, columns, and the rows of all images."""
    p = call.parameters
    _, height, width, channels = call.inputs[0]
    ((images, rows, columns, _),) = call.outputs
    scalars = (height, width, channels, *p.kernel, *p.pads[:2], rows)
    return scalars, (channels, columns, images * rows)


@LIBRARY.kernel("ppu.max_pool", "pool.cl", defines=of_largest, partial=True)
def max_pool(call: Call) -> Arguments:
    """`kernel` and `pads` are the part's."""
    scalars, grid = window(call)
    return Arguments((*scalars, int(call.resumed)), grid)


@LIBRARY.kernel("ppu.avg_pool", "pool.cl", defines=of_average, partial=True)
def avg_pool(call: Call) -> Arguments:
    """`kernel` and `pads` are the part's; `offset` is the first output's row and column."""
    scalars, grid = window(call)
    p = call.parameters
    return Arguments((*scalars, *p.offset, p.last, int(call.resumed)), grid)


def of_responses(build: Build) -> Defines:
    """The formula's numbers, each rounded to float32 once."""
    p = build.parameters
    return {"BIAS": float(p.bias), "SCALE": float(p.alpha / p.size), "BETA": float(p.beta)}


@LIBRARY.kernel("ppu.lrn", "pool.cl", defines=of_responses, partial=True)
def lrn(call: Call) -> Arguments:
    """`window`: how many neighbours a sum takes, and the zeros before and behind those there are."""
    taps, before, _ = call.parameters.window
    (*outer, channels) = call.outputs[0]
    scalars = (call.inputs[0][-1], taps, before, call.parameters.last, int(call.resumed))
    return Arguments(scalars, (channels, math.prod(outer)))
