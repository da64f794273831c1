"""Runs a kernel on the engine, and under PoCL where it is installed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from nacre.frontends.opencl import compile_opencl
from nacre.runtime.ppu import kernel_named, launch

Run = Callable[[str, str, Sequence[Any], int], np.ndarray]


@pytest.fixture(scope="session")
def engine() -> Run:
    """(source, kernel, arguments, work items) -> what it writes into the last argument."""

    def run(source: str, name: str, arguments: Sequence[Any], items: int) -> np.ndarray:
        given = [a.copy() if isinstance(a, np.ndarray) else a for a in arguments]
        launch(kernel_named(compile_opencl(source, "test.cl", entry=name), name), given, items)
        return given[-1]

    return run


@pytest.fixture(scope="session")
def reference(pocl: Any) -> Run:
    """The same under PoCL."""
    programs: dict[str, Any] = {}

    def run(source: str, name: str, arguments: Sequence[Any], items: int) -> np.ndarray:
        if source not in programs:
            programs[source] = pocl.program(source, "-w")
        given = [pocl.buffer(a) if isinstance(a, np.ndarray) else np.int32(a) for a in arguments]
        pocl.cl.Kernel(programs[source], name)(pocl.queue, (items,), None, *given)
        out = np.empty_like(arguments[-1])
        pocl.cl.enqueue_copy(pocl.queue, out, given[-1])
        return out

    return run
