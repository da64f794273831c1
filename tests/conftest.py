"""What tests of several parts share: PoCL, an OpenCL that kernels are held against."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest


class Pocl(NamedTuple):
    """A context and a queue of PoCL, and pyopencl itself."""

    cl: Any
    context: Any
    queue: Any

    def program(self, text: str, *options: str, **more: Any) -> Any:
        """A source, compiled as the subset means it; pyopencl takes `more`."""
        given = ["-cl-std=CL1.2", "-cl-fp32-correctly-rounded-divide-sqrt", *options]
        return self.cl.Program(self.context, text).build(given, **more)

    def buffer(self, array: np.ndarray) -> Any:
        """A buffer that begins as an array."""
        flags = self.cl.mem_flags.READ_WRITE | self.cl.mem_flags.COPY_HOST_PTR
        return self.cl.Buffer(self.context, flags, hostbuf=array)


@pytest.fixture(scope="session")
def pocl() -> Pocl:
    """PoCL; what asks for it is skipped where it is not installed."""
    cl = pytest.importorskip("pyopencl", reason="pyopencl is not installed")
    try:
        platforms = [p for p in cl.get_platforms() if p.name == "Portable Computing Language"]
    except cl.LogicError:
        platforms = []
    if not platforms:
        pytest.skip("no PoCL on this machine (Debian package pocl-opencl-icd)")
    context = cl.Context(platforms[0].get_devices()[:1])
    return Pocl(cl, context, cl.CommandQueue(context))
