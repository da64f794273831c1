"""Runs a kernel on the engine, and under PoCL where it is installed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from nacre.frontends.opencl import compile_opencl
from nacre.runtime.ppu import kernel_named, launch

Run = Callable[[str, str, Sequence[Any], int], np.ndarray]
OPTIONS = ["-cl-std=CL1.2", "-cl-fp32-correctly-rounded-divide-sqrt", "-w"]


@pytest.fixture(scope="session")
def engine() -> Run:
    """(source, kernel, arguments, work items) -> what it writes into the last argument."""

    def run(source: str, name: str, arguments: Sequence[Any], items: int) -> np.ndarray:
        given = [a.copy() if isinstance(a, np.ndarray) else a for a in arguments]
        launch(kernel_named(compile_opencl(source, "test.cl", entry=name), name), given, items)
        return given[-1]

    return run


@pytest.fixture(scope="session")
def reference() -> Run:
    """The same under PoCL."""
    cl = pytest.importorskip("pyopencl", reason="pyopencl is not installed")
    try:
        platforms = [p for p in cl.get_platforms() if p.name == "Portable Computing Language"]
    except cl.LogicError:
        platforms = []
    if not platforms:
        pytest.skip("no PoCL on this machine (Debian package pocl-opencl-icd)")
    context = cl.Context(platforms[0].get_devices()[:1])
    queue = cl.CommandQueue(context)
    programs: dict[str, Any] = {}

    def run(source: str, name: str, arguments: Sequence[Any], items: int) -> np.ndarray:
        if source not in programs:
            programs[source] = cl.Program(context, source).build(OPTIONS)
        flags = cl.mem_flags.READ_WRITE | cl.mem_flags.COPY_HOST_PTR
        given = [
            cl.Buffer(context, flags, hostbuf=a) if isinstance(a, np.ndarray) else np.int32(a) for a in arguments
        ]
        cl.Kernel(programs[source], name)(queue, (items,), None, *given)
        out = np.empty_like(arguments[-1])
        cl.enqueue_copy(queue, out, given[-1])
        return out

    return run
