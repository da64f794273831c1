"""Launches of resize.cl: resampling of images by a geometry that is settled; a tile knows its place in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ....dialects.declarative import Parameters
from ....dialects.types import f32
from ....errors import CompileError
from ....passes.npu.soft_kernels import Arguments, Build, Call, Defines, Library, c_float
from ....runtime.kernels.graph_resize import source_coordinates

LIBRARY = Library(__package__)
AXES = 3
"""Spatial axes of the kernel; an image with fewer gets axes of one element in front."""


class Axis(NamedTuple):
    """One spatial axis of the whole layer: its size, what it becomes, and their ratio in coordinates."""

    size: int
    out: int
    scale: np.float32


def axes_of(p: Parameters) -> list[Axis]:
    """The spatial axes, with axes of one element in front. Raises CompileError where there are more than three."""
    check_axes(p.sizes)
    scales = p.scales or [np.float32(n) / np.float32(d) for n, d in zip(p.sizes, p.inputs)]
    known = [Axis(d, n, np.float32(s)) for d, n, s in zip(p.inputs, p.sizes, scales)]
    return [Axis(1, 1, np.float32(1))] * (AXES - len(known)) + known


def check_axes(sizes: Sequence[int]) -> None:
    """Raise CompileError where there are more spatial axes than the kernel walks."""
    if len(sizes) > AXES:
        raise CompileError(
            f"graph.resize along {len(sizes)} spatial axes: the kernel walks {AXES}; resize in several steps"
        )


def behind_ones(values: Sequence[int], fill: int) -> tuple[int, ...]:
    """One value a spatial axis, `fill` for those that are absent, in front."""
    return (fill,) * (AXES - len(values)) + tuple(values)


# --- ONNX's ways -----------------------------------------------------------------------------------------
def of_resize(build: Build) -> Defines:
    """The geometry, and what belongs to the mode. Raises CompileError for sums of integers."""
    p = build.parameters
    made = geometry(p)
    if p.mode == "nearest":
        return {**made, "NEAREST": p.nearest}
    if build.inputs[0] != f32:
        found = build.inputs[0]
        raise CompileError(f"graph.resize: mode '{p.mode}' sums floats, not {found}; 'nearest' moves integers")
    made["INTERPOLATES"] = 1
    made |= {f"COPY{i}": 1 for i, axis in enumerate(axes_of(p)) if axis.size == axis.out and axis.scale == 1}
    return {**made, **(keys(p.cubic_a, p.exclude_outside) if p.mode == "cubic" else {})}


def geometry(p: Parameters) -> dict[str, str | int | float]:
    """Sizes and scales of the axes, and how coordinates come about.

    Those of half_pixel_symmetric are sums in float64, of which the engine has none: they are tables.
    """
    made: dict[str, str | int | float] = {}
    for i, axis in enumerate(axes_of(p)):
        made |= {f"SIZE{i}": axis.size, f"NEW{i}": axis.out}
        if p.coordinates == "half_pixel_symmetric":
            at = source_coordinates(p.coordinates, axis.size, axis.out, axis.scale)
            made[f"TABLE{i}"] = f"{{{', '.join(map(c_float, at.tolist()))}}}"
        else:
            made[f"SCALE{i}"] = float(axis.scale)
            made["COORDINATE"] = p.coordinates
    return made


def keys(a: float, exclude_outside: bool) -> Defines:
    """Coefficients of Keys's two polynomials, each rounded to float32 once."""
    made = {
        "CUBIC": 1, "NEAR1": float(a + 2), "NEAR0": float(a + 3), "FAR3": float(a), "FAR2": float(5 * a),
        "FAR1": float(8 * a), "FAR0": float(4 * a),
    }  # fmt: skip
    return {**made, **({"EXCLUDE_OUTSIDE": 1} if exclude_outside else {})}


def box(call: Call) -> Arguments:
    """`place`: first output, number, and first input loaded, an axis each."""
    place = call.parameters.place
    _, *sizes, _ = call.inputs[0]
    images, *outs, channels = call.outputs[0]
    check_axes(outs)
    out0, out1, out2 = behind_ones(outs, 1)
    first, origin = behind_ones(place[0::3], 0), behind_ones(place[2::3], 0)
    scalars = (*behind_ones(sizes, 1), out0, out1, *first, *origin)
    return Arguments(scalars, (channels, out2, images * out0 * out1))


@LIBRARY.kernel("ppu.resize", "resize.cl", defines=of_resize)
def resize(call: Call) -> Arguments:
    """One work item an element."""
    return box(call)


# --- TFLite's bilinear one of uint8 ----------------------------------------------------------------------
def of_bilinear(build: Build) -> Defines:
    """Scales of float32, and CENTRE: half a pixel or none."""
    p = build.parameters
    made: dict[str, str | int | float] = {"CENTRE": 0.5 if p.half_pixel else 0.0}
    for i, (size, out) in enumerate(zip(p.inputs, p.sizes)):
        corner = 1 if p.align_corners and out > 1 else 0
        made |= {f"SIZE{i}": size, f"SCALE{i}": float(np.float32(size - corner) / np.float32(out - corner))}
    return made


@LIBRARY.kernel("ppu.resize_float", "resize.cl", entry="bilinear", defines=of_bilinear)
def bilinear(call: Call) -> Arguments:
    """One work item an element."""
    place = call.parameters.place
    _, height, width, _ = call.inputs[0]
    images, rows, columns, channels = call.outputs[0]
    return Arguments((height, width, rows, *place[0::3], *place[2::3]), (channels, columns, images * rows))
