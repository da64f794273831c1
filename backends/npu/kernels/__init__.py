"""The library of soft operators: OpenCL C kernels of the programmable engine, `.cl` files with their launch rules."""

from __future__ import annotations

import functools

import numpy as np
from xdsl.ir import Operation
from xdsl.utils.test_value import create_ssa_value

from ....dialects import ppu
from ....dialects.declarative import DeclarativeOp, Parameters
from ....dialects.types import DTYPE_OF, dtype_of, element_of, element_type, f32, shape_of, tensor
from ....errors import CompileError
from ....frontends.opencl import compile_opencl
from ....passes.npu.soft_kernels import Build, Call, SoftKernel, c_type, soft_kernel
from ....passes.ppu.optimise import optimise
from ....runtime.kernel import kernel
from ....runtime.ppu import launch


def function_of(operation: str, build: Build, symbol: str) -> ppu.FuncOp:
    """The kernel of an operation as a function of that name. Raises CompileError, or SourceError from its text."""
    found = soft_kernel(operation)
    made = _compiled(found, tuple(sorted(found.macros(build).items()))).clone()
    assert isinstance(made, ppu.FuncOp)
    made.properties["sym_name"] = type(made.sym_name)(symbol)
    return made


def check_pointers(operation: str, function: ppu.FuncOp, build: Build) -> None:
    """Raise CompileError where the pointers of a kernel are not those of the buffers it is launched on."""
    kernel = soft_kernel(operation)
    partial = [build.outputs[0]] if kernel.partial else []
    wanted = [*build.inputs, *partial, *build.outputs]
    where = f"{kernel.source}: kernel '{kernel.entry}'"
    parameters = list(zip(function.names(), (a.type for a in function.body.block.args)))
    pointers = [(name, t) for name, t in parameters if isinstance(t, ppu.PointerType)]
    if parameters[: len(pointers)] != pointers or len(pointers) != len(wanted):
        raise CompileError(
            f"{where} takes {len(pointers)} pointers, but {operation} has {len(build.inputs)} inputs, "
            f"{'a buffer of partial results, ' if partial else ''}and {len(build.outputs)} outputs, in this order, "
            "and numbers behind them"
        )
    for (name, type_), element in zip(pointers, wanted):
        found, held = DTYPE_OF[type_.data.element], DTYPE_OF[element]
        if found.itemsize != held.itemsize or (found.kind == "f") != (held.kind == "f"):
            raise CompileError(
                f"{where}: '{name}' leads to {type_.data.element}, but the buffer holds {element}: "
                f"a macro names its type ({c_type(element)})"
            )


def check_numbers(operation: str, function: ppu.FuncOp, count: int) -> None:
    """Raise CompileError where a kernel takes another count of numbers than its launch rule gives, or floats."""
    kernel = soft_kernel(operation)
    numbers = [a.type for a in function.body.block.args if not isinstance(a.type, ppu.PointerType)]
    if len(numbers) != count or any(t == f32 for t in numbers):
        raise CompileError(
            f"{kernel.source}: kernel '{kernel.entry}' takes {len(numbers)} numbers ({', '.join(map(str, numbers))}), "
            f"but its launch rule in {kernel.package} gives {count} ints"
        )


@functools.cache
def _compiled(soft: SoftKernel, macros: tuple[tuple[str, str], ...]) -> Operation:
    """The function of an entry, compiled once a process for equal macros."""
    module = compile_opencl(soft.text(), soft.source, defines=dict(macros), entry=soft.entry, read=soft.file)
    optimise(module)
    found = next(iter(module.ops))
    found.detach()
    return found


def defines_operator(op: type[DeclarativeOp]) -> None:
    """Let the kernel of an operator be its definition at the graph level as well: no numpy function is needed.

    Interpreters, constant folding and the tables of 8-bit layers then run the kernel that is registered for it.
    """

    def run(p: Parameters, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        types = [tensor(x.shape, element_of(x.dtype)) for x in arrays]
        made = op.make(*(create_ssa_value(t) for t in types), **p)
        outputs = [np.zeros(shape_of(v), dtype_of(element_type(v))) for v in made.results]
        build = Build(p, tuple(t.element_type for t in types), tuple(element_of(y.dtype) for y in outputs))
        call = Call(p, tuple(x.shape for x in arrays), tuple(y.shape for y in outputs))
        scalars, grid = soft_kernel(op.name).arguments(call)
        if all(y.size for y in outputs):
            pointers = [np.ascontiguousarray(x) for x in (*arrays, *outputs)]
            launch(function_of(op.name, build, op.name), [*pointers, *scalars], grid)
            return tuple(pointers[len(arrays) :])
        return tuple(outputs)

    kernel(op)(run)


from . import (  # noqa: E402, F401  registers the kernels
    elementwise,
    linear,
    movement,
    norm,
    pool,
    quantised,
    quantised_curve,
    quantised_recurrent,
    quantised_softmax,
    recurrent,
    reduce,
    resize,
    sample,
    scan,
    scatter,
    softmax,
)
