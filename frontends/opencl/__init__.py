"""The OpenCL front end: `compile_opencl` makes ppu functions of the kernels in a `.cl` source (docs/opencl.md)."""

from .diagnostics import SourceError
from .lowering import compile_opencl

__all__ = ["SourceError", "compile_opencl"]
