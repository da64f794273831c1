"""Launches of sample.cl: an image at computed coordinates."""

from __future__ import annotations

from ....passes.npu.soft_kernels import Arguments, Build, Call, Defines, Library

LIBRARY = Library(__package__)

TAPS = {"nearest": 1, "linear": 2, "cubic": 4}


def of_sample(build: Build) -> Defines:
    """TAPS, and the mode, the padding and ALIGNED as flags."""
    p = build.parameters
    flags = {"ALIGNED"} if p.align_corners else set()
    return {"TAPS": TAPS[p.mode], **dict.fromkeys(sorted(flags | {p.mode.upper(), p.padding.upper()}), 1)}


@LIBRARY.kernel("graph.grid_sample", "sample.cl", defines=of_sample)
def grid_sample(call: Call) -> Arguments:
    """One work item an element."""
    _, height, width, _ = call.inputs[0]
    ((images, rows, columns, channels),) = call.outputs
    return Arguments((height, width, rows), (channels, columns, images * rows))
