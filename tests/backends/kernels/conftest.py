"""Runs a kernel of the library as a launch would: on the engine, and under PoCL where it is installed."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from typing import Any

import numpy as np
import pytest
from nacre.backends.npu.kernels import function_of
from nacre.dialects.declarative import Parameters
from nacre.dialects.types import element_of
from nacre.passes.npu.soft_kernels import Build, Call, soft_kernel
from nacre.runtime.ppu import launch

Run = Callable[..., list[np.ndarray]]


def _prepared(
    operation: str, inputs: Sequence[np.ndarray], outputs: Sequence[tuple[tuple[int, ...], Any]],
    settled: Mapping[str, Any], open_: Mapping[str, Any], acc: np.ndarray | None,
) -> tuple[Any, Build, list[Any], tuple[int, ...], list[np.ndarray]]:  # fmt: skip
    kernel = soft_kernel(operation)
    made = [np.zeros(shape, dtype) for shape, dtype in outputs]
    build = Build(
        Parameters(settled), tuple(element_of(x.dtype) for x in inputs), tuple(element_of(y.dtype) for y in made)
    )
    call = Call(
        Parameters({**settled, **open_}), tuple(x.shape for x in inputs), tuple(y.shape for y in made), acc is not None
    )
    scalars, grid = kernel.arguments(call)
    partial = [] if not kernel.partial else [np.zeros(0, made[0].dtype) if acc is None else acc]
    return kernel, build, [*inputs, *partial, *made, *scalars], grid, made


def _bytes(argument: Any) -> Any:
    if not isinstance(argument, np.ndarray):
        return argument
    dense = argument if argument.flags.c_contiguous else np.ascontiguousarray(argument)
    return dense.view(np.uint8) if dense.dtype == np.bool_ else dense


@pytest.fixture(scope="session")
def on_engine() -> Run:
    """(operation, inputs, [(shape, dtype)], settled={}, open_={}, acc=None) -> outputs, run by the engine."""

    def run(operation, inputs, outputs, settled={}, open_={}, acc=None):  # noqa: B006
        _, build, arguments, grid, made = _prepared(operation, inputs, outputs, settled, open_, acc)
        launch(function_of(operation, build, "kernel"), [_bytes(a) for a in arguments], grid)
        return made

    return run


@pytest.fixture(scope="session")
def under_pocl(pocl: Any) -> Run:
    """The same source under PoCL."""

    @functools.cache
    def program(text: str, folder: str, macros: tuple[tuple[str, str], ...]) -> Any:
        head = "".join(f"#define {n} {v}\n" for n, v in macros)
        return pocl.program(head + text, f"-I{folder}")

    def run(operation, inputs, outputs, settled={}, open_={}, acc=None):  # noqa: B006
        kernel, build, arguments, grid, made = _prepared(operation, inputs, outputs, settled, open_, acc)
        folder = str(resources.files(kernel.package))
        built = program(kernel.text(), folder, tuple(sorted(kernel.macros(build).items())))
        passed, buffers = [], []
        for a in arguments:
            if not isinstance(a, np.ndarray):
                passed.append(np.int32(a))
                continue
            dense = _bytes(a)
            buffers.append(pocl.buffer(dense if dense.size else np.zeros(1, dense.dtype)))
            passed.append(buffers[-1])
        # On the engine a launch is one group; for PoCL that matters, and costs a compilation, where items meet.
        meet = "barrier(" in kernel.text() and math.prod(grid) <= 1024
        pocl.cl.Kernel(built, kernel.entry)(pocl.queue, grid, grid if meet else None, *passed)
        for y, buffer in zip(made, buffers[-len(made) :]):
            if y.size:
                pocl.cl.enqueue_copy(pocl.queue, _bytes(y), buffer)
        pocl.queue.finish()
        return made

    return run
