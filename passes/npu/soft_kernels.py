"""Soft operators: which `.cl` kernel of the programmable engine computes an operation, and what a launch passes to it.

    LIBRARY = Library(__package__)

    @LIBRARY.kernel("graph.softmax", "softmax.cl", entry="softmax")
    def softmax(call: Call) -> Arguments:
        rows, n = …
        return Arguments(scalars=(n,), grid=(rows,))

A kernel's parameters are, in this order: a pointer for each input, one for the partial results that it goes on from
(`partial=True`; it is empty at the first part, and `call.resumed` tells), a pointer for each output, then ints. Buffers
look dense to a kernel: element i is the i-th in row-major order, the engine's address generators know the strides. What
differs between layers but not between tiles (types, float parameters, modes) becomes macros, `-D` of an OpenCL
compiler; what differs between tiles (sizes) becomes ints.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import NamedTuple

import numpy as np
from xdsl.ir import Attribute
from xdsl.traits import SymbolTable

from ...dialects import ppu
from ...dialects.declarative import Parameters
from ...dialects.nacre import module_of
from ...dialects.npu_instructions import KernelOp
from ...dialects.types import f32, i1, i8, i16, i32, i64, u8, u16
from ...errors import CompileError

Shape = tuple[int, ...]
MACHINE_TYPES: dict[Attribute, str] = {
    f32: "float", i1: "uchar", i8: "char", u8: "uchar", i16: "short", u16: "ushort", i32: "int", i64: "long",
}  # fmt: skip
"""OpenCL C types by element type; booleans are bytes of 0 and 1."""


class Build(NamedTuple):
    """What one compilation of a kernel is for: settled parameters, and element types of the buffers."""

    parameters: Parameters
    inputs: tuple[Attribute, ...]
    outputs: tuple[Attribute, ...]


class Call(NamedTuple):
    """One launch: all parameters, the open ones with this tile's values; shapes; whether it goes on from a part."""

    parameters: Parameters
    inputs: tuple[Shape, ...]
    outputs: tuple[Shape, ...]
    resumed: bool = False


class Arguments(NamedTuple):
    """The ints behind the pointers (each an i32), and the grid: one to three global sizes, dimension 0 first.

    The grid is a multiple of the group that the kernel asks for (reqd_work_group_size), if it does.
    """

    scalars: tuple[int, ...]
    grid: tuple[int, ...]


Defines = Mapping[str, str | int | float]


def element_macros(build: Build) -> Defines:
    """IN0, IN1, … and OUT0, …: the C types of the buffers."""
    types = {f"IN{i}": c_type(e) for i, e in enumerate(build.inputs)}
    return types | {f"OUT{i}": c_type(e) for i, e in enumerate(build.outputs)}


@dataclass(frozen=True)
class SoftKernel:
    """A kernel of a library. `package` and `source` name its file, `entry` the `__kernel` function in it."""

    operation: str
    package: str
    source: str
    entry: str
    arguments: Callable[[Call], Arguments]
    defines: Callable[[Build], Defines]
    partial: bool = False

    def text(self) -> str:
        """The source."""
        return self.file(self.source)

    def file(self, name: str) -> str:
        """A file of the package: the source, or one that it includes. Raises OSError where there is none."""
        return resources.files(self.package).joinpath(name).read_text(encoding="utf-8")

    def macros(self, build: Build) -> dict[str, str]:
        """The macros of one compilation as C text: the types, then the kernel's own."""
        return {n: c_text(v) for n, v in (dict(element_macros(build)) | dict(self.defines(build))).items()}


SOFT_KERNELS: dict[str, SoftKernel] = {}
"""Kernels by the operation they compute: an op's name, or one of selection's own (`ppu.*`)."""


@dataclass(frozen=True)
class Library:
    """The kernels of a package: `.cl` files beside its Python files."""

    package: str

    def kernel(
        self,
        operation: str,
        source: str,
        entry: str | None = None,
        defines: Callable[[Build], Defines] = lambda build: {},
        partial: bool = False,
    ) -> Callable[[Callable[[Call], Arguments]], Callable[[Call], Arguments]]:
        """Register the kernel of an operation; the function gives a launch's arguments.

        `entry` defaults to the operation's name behind the dot. ValueError if the operation has a kernel already.
        """

        def register(arguments: Callable[[Call], Arguments]) -> Callable[[Call], Arguments]:
            if operation in SOFT_KERNELS:
                raise ValueError(f"{operation} has a kernel already, in {SOFT_KERNELS[operation].package}")
            name = entry or operation.rpartition(".")[2]
            SOFT_KERNELS[operation] = SoftKernel(
                operation, self.package, source, name, arguments, defines, partial
            )
            return arguments

        return register


def soft_kernel(operation: str) -> SoftKernel:
    """The kernel of an operation. Raises CompileError where the libraries have none."""
    if operation not in SOFT_KERNELS:
        raise CompileError(no_kernel(operation))
    return SOFT_KERNELS[operation]


def no_kernel(operation: str) -> str:
    """What an operation without a kernel lacks, and the way out."""
    way_out = "Library.kernel registers an OpenCL C file (.cl)"
    return f"no engine and no kernel of the npu family runs {operation}; {way_out}"


def group_of(kernel: KernelOp) -> tuple[int, ...] | None:
    """The work group that a kernel's function in the module is written for."""
    function = SymbolTable.lookup_symbol(module_of(kernel), kernel.function.data)
    return function.group_size() if isinstance(function, ppu.FuncOp) else None


def launch_fields(
    kernel: KernelOp,
    group: tuple[int, ...] | None,
    open_: Sequence[int],
    inputs: Sequence[Shape],
    outputs: Sequence[Shape],
    resumed: bool,
) -> dict[str, tuple[int, ...]]:
    """Scalars and grid of a launch whose open parameters have the given values, one after the other.

    group: the kernel's work group. Raises CompileError for a grid that it does not divide.
    """
    settled, at = dict(kernel.parameters()), 0
    for name in kernel.open():
        whole = settled[name]
        count = len(whole) if isinstance(whole, tuple) else 1
        settled[name] = tuple(open_[at : at + count]) if isinstance(whole, tuple) else open_[at]
        at += count
    call = Call(Parameters(settled), tuple(map(tuple, inputs)), tuple(map(tuple, outputs)), resumed)
    soft = soft_kernel(kernel.operation.data)
    scalars, grid = soft.arguments(call)
    if group is not None and any(n % g for n, g in zip((*grid, 1, 1), group)):
        where = f"{soft.source}: kernel '{soft.entry}' runs in groups of {list(group)}"
        raise CompileError(f"{where}, but its launch rule in {soft.package} gives the grid {list(grid)}")
    return {"scalars": tuple(map(int, scalars)), "grid": tuple(map(int, grid))}


def c_type(element: Attribute) -> str:
    """The OpenCL C type of an element. Raises CompileError for what the engine does not load."""
    if element not in MACHINE_TYPES:
        raise CompileError(f"the programmable engine has no type for {element}")
    return MACHINE_TYPES[element]


def c_text(value: str | int | float) -> str:
    """A macro's text: floats as float32 literals that read back to the same bits."""
    if isinstance(value, float):
        return c_float(value)
    return str(int(value)) if isinstance(value, (bool, int)) else value


def c_float(value: float) -> str:
    """A float literal. Nine digits tell all float32 apart."""
    with np.errstate(over="ignore"):
        number = np.float32(value)
    if math.isnan(number):
        return "NAN"
    if math.isinf(number):
        return "INFINITY" if number > 0 else "(-INFINITY)"
    text = f"{number:.9e}f"
    return f"({text})" if text.startswith("-") else text
