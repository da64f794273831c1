"""The registry of kernels: one numpy definition an operation, used by folding, interpreters and the emulator.

    @kernel(graph.ReluOp)
    def relu(p, x): return np.maximum(x, 0)

A kernel gets the op's `Parameters` and one array an operand (None for an absent optional one) and returns an
array, or a tuple of arrays for several results. Arrays of quantised tensors hold their stored integers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from xdsl.ir import Operation

from ..dialects.declarative import DeclarativeOp, Parameters
from ..errors import NacreError

Kernel = Callable[..., Any]
KERNELS: dict[type[Operation], Kernel] = {}


def kernel(*ops: type[Operation]) -> Callable[[Kernel], Kernel]:
    """Register a function as the definition of op classes. ValueError if one is defined already."""

    def register(function: Kernel) -> Kernel:
        for op in ops:
            if op in KERNELS:
                raise ValueError(f"{op.name} has a kernel already")
            KERNELS[op] = function
        return function

    return register


def kernel_of(op: type[Operation]) -> Kernel:
    """The kernel of an op class. Raises NacreError naming the op when nobody registered one."""
    try:
        return KERNELS[op]
    except KeyError:
        raise NacreError(f"{op.name} has no kernel: register one with nacre.runtime.kernel.kernel") from None


def evaluate(op: DeclarativeOp, *arrays: np.ndarray | None) -> tuple[np.ndarray, ...]:
    """Run an op's kernel on arrays; always a tuple, one array a result."""
    return run_kernel(type(op), op.parameters(), *arrays)


def run_kernel(op: type[Operation], p: Parameters, *arrays: np.ndarray | None) -> tuple[np.ndarray, ...]:
    """Run the kernel of an op class with given parameters; always a tuple."""
    results = kernel_of(op)(p, *arrays)
    return results if isinstance(results, tuple) else (results,)


def operations() -> dict[str, type[Operation]]:
    """All operations that have a kernel, by name, those of outside packages among them."""
    return _by_name(len(KERNELS))


@functools.lru_cache(maxsize=1)  # kernels are only ever added, and each launch asks
def _by_name(count: int) -> dict[str, type[Operation]]:
    return {op.name: op for op in KERNELS}
