"""Launches of scan.cl: cumulative sums and products, the top k."""

from __future__ import annotations

from ....passes.npu.soft_kernels import Arguments, Build, Call, Defines, Library
from .coalesce import around
from .pool import is_float

LIBRARY = Library(__package__)


def of_scan(build: Build, join: str, start: str) -> Defines:
    """JOIN and START, and the flags EXCLUSIVE and REVERSE."""
    flags = {name.upper(): 1 for name in ("exclusive", "reverse") if build.parameters[name]}
    return {"JOIN": join, "START": start, **flags}


@LIBRARY.kernel("graph.cumsum", "scan.cl", entry="scan", defines=lambda build: of_scan(build, "+", "0"))
@LIBRARY.kernel("graph.cumprod", "scan.cl", entry="scan", defines=lambda build: of_scan(build, "*", "1"))
@LIBRARY.kernel("ppu.cumsum", "scan.cl", entry="scan", defines=lambda build: of_scan(build, "+", "0"))
@LIBRARY.kernel("ppu.cumprod", "scan.cl", entry="scan", defines=lambda build: of_scan(build, "*", "1"))
def scan(call: Call) -> Arguments:
    """One work item a row along the axis; those named ppu.* go on from a part before."""
    outer, size, inner = around(call.inputs[0], call.parameters.axis)
    return Arguments((size,), (inner, outer))


def of_topk(build: Build) -> Defines:
    """FLOAT, and SMALLEST."""
    return {**is_float(build), **({} if build.parameters.largest else {"SMALLEST": 1})}


@LIBRARY.kernel("graph.topk", "scan.cl", defines=of_topk)
def topk(call: Call) -> Arguments:
    """One work item an element."""
    outer, size, inner = around(call.inputs[0], call.parameters.axis)
    return Arguments((call.parameters.k,), (inner, size, outer))
