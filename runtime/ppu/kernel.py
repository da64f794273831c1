"""A kernel made ready to run: registers by number, operations as steps, and a launch of them on a grid."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Attribute, Operation

from ...dialects import ppu
from ...dialects.types import DTYPE_OF, f32
from ...errors import InputError
from .grid import Grid
from .memory import Memory
from .races import Races
from .run import Run

Registers = list[Any]
"""Values by register number; register RUN holds the Run."""
Step = Callable[[Registers, "np.ndarray | None"], None]
"""Does one operation for the work items of a mask (None: all of them)."""
RUN = 0
MAX_STEPS = 1_000_000
"""Loop rounds after which a kernel is taken for endless."""


@dataclass(frozen=True, slots=True)
class Instruction:
    """An operation with its registers, and the step that does it."""

    op: type[Operation]
    type: Attribute | None
    """The type it works on: of its last operand, else of its result."""
    results: tuple[int, ...]
    operands: tuple[int, ...]
    step: Step
    bodies: tuple[Body, ...] = ()
    """The regions of ppu.if and ppu.loop."""
    place: str = ""
    """`file:line:column: ` of the source."""


@dataclass(frozen=True)
class Body:
    """A region: its instructions, the registers its arguments go to and those it yields."""

    instructions: tuple[Instruction, ...]
    arguments: tuple[int, ...]
    yields: tuple[int, ...]
    steps: tuple[Step, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", tuple(i.step for i in self.instructions))


@dataclass(frozen=True)
class Array:
    """A local or private array of a kernel."""

    register: int
    name: str
    size: int
    target: ppu.Pointer


@dataclass(frozen=True)
class Table:
    """A table of a kernel, which its launches share."""

    register: int
    name: str
    contents: np.ndarray


@dataclass(eq=False)
class Kernel:
    """A function ready to run, which keeps no link to the IR: change that, and prepare it anew."""

    name: str
    names: tuple[str, ...]
    types: tuple[Attribute, ...]
    registers: tuple[Any, ...]
    """Register values at the start: constants, None elsewhere. Arguments go to registers 1, 2, …"""
    queries: tuple[tuple[int, str, int], ...]
    """(register, query, dimension) of each ppu.work_item."""
    arrays: tuple[Array, ...]
    tables: tuple[Table, ...]
    body: Body
    group: tuple[int, ...] | None = None
    """The work group that the kernel is written for, along three dimensions."""

    def grid(self, global_size: Sequence[int] | int, local_size: Sequence[int] | int | None = None) -> Grid:
        """The grid of a launch. Raises InputError for sizes that are none, or other groups than the kernel's."""
        if self.group is None:
            return Grid.of(global_size, local_size)
        dimensions = 1 if isinstance(global_size, int) else len(global_size)
        found = None if local_size is None else (local_size,) if isinstance(local_size, int) else tuple(local_size)
        if max(self.group[dimensions:], default=1) > 1 or found not in (None, self.group[:dimensions]):
            given = f"a grid of {dimensions} dimensions" if found is None else list(found)
            raise InputError(f"the kernel '{self.name}' is written for groups of {list(self.group)}, not {given}")
        try:
            return Grid.of(global_size, self.group[:dimensions])
        except InputError as error:
            raise InputError(f"the kernel '{self.name}': {error}") from None

    def launch(
        self,
        arguments: Sequence[Any],
        global_size: Sequence[int] | int,
        local_size: Sequence[int] | int | None = None,
        max_steps: int = MAX_STEPS,
        sanitize: bool = False,
    ) -> None:
        """Run on a grid; see the function `launch`."""
        grid = self.grid(global_size, local_size)
        try:
            self.on_grid(arguments, grid, max_steps, sanitize)
        except MemoryError:
            sizes = list(grid.global_size[: grid.dimensions])
            reason = f"the kernel '{self.name}' on a grid of {sizes} takes more memory than there is"
            raise InputError(f"{reason}: all work items run at once, so launch it on parts of the grid") from None

    def on_grid(self, arguments: Sequence[Any], grid: Grid, max_steps: int, sanitize: bool) -> None:
        """Run on a grid that fits the kernel."""
        run = Run(self.name, grid, max_steps)
        registers = self.start(grid)
        registers[RUN] = run
        registers[1 : 1 + len(self.types)] = self.bind(arguments, grid)
        for array in self.arrays:
            make = Memory.local if array.target.space is ppu.Space.LOCAL else Memory.private
            registers[array.register] = make(array.name, array.size, array.target.element, grid)
        if sanitize:  # tables, which nobody writes, are not followed
            run.races = Races(run, [m for m in registers if isinstance(m, Memory)])
        for table in self.tables:
            registers[table.register] = Memory.shared(table.name, table.contents, grid, ppu.Space.CONSTANT)
        with np.errstate(all="ignore"):
            for step in self.body.steps:
                step(registers, None)

    def start(self, grid: Grid) -> Registers:
        """Registers with constants and what work items know of themselves."""
        registers = list(self.registers)
        for register, query, dimension in self.queries:
            registers[register] = grid.query(query, dimension)
        return registers

    def bind(self, arguments: Sequence[Any], grid: Grid) -> list[Any]:
        """Values of the arguments. Raises InputError where they do not fit."""
        self.check_count(arguments)
        return [self.argument(k, given, grid) for k, given in enumerate(arguments)]

    def check_count(self, arguments: Sequence[Any]) -> None:
        """Raises InputError where there are more arguments than the kernel takes, or fewer."""
        if len(arguments) != len(self.names):
            expected = f"{len(self.names)} arguments ({', '.join(self.names)})" if self.names else "no arguments"
            raise InputError(f"the kernel '{self.name}' takes {expected}, but {len(arguments)} are given")

    def argument(self, position: int, given: Any, grid: Grid) -> Any:
        """The value of one argument."""
        name, type_ = self.names[position], self.types[position]
        what = f"the argument '{name}' of the kernel '{self.name}'"
        if not isinstance(type_, ppu.PointerType):
            return scalar(what, given, type_)
        target = type_.data
        if target.space is not ppu.Space.LOCAL:
            return Memory.shared(name, flat(what, given, target.element), grid, target.space)
        if not isinstance(given, (int, np.integer)) or given < 1:
            raise InputError(f"{what} lies in local memory: give the number of its elements, not {given!r}")
        return Memory.local(name, int(given), target.element, grid)


def scalar(what: str, given: Any, type_: Attribute) -> Any:
    """A number as one of a type; integers of either sign fit."""
    dtype, number = DTYPE_OF[type_], np.asarray(given)
    if number.ndim or number.dtype.kind not in ("iub" if type_ != f32 else "iubf"):
        raise InputError(f"{what} is a number of type {type_}, not {given!r}")
    if type_ == f32:
        return np.float32(number)
    bits = dtype.itemsize * 8
    if not -(1 << (bits - 1)) <= int(number) < 1 << bits:
        raise InputError(f"{what} is a number of type {type_}, which {given!r} does not fit")
    return np.array(int(number) & ((1 << bits) - 1), f"u{dtype.itemsize}").view(dtype)[()]


def flat(what: str, given: Any, element: Attribute) -> np.ndarray:
    """A view of an array as one row of elements."""
    dtype = DTYPE_OF[element]
    fits = isinstance(given, np.ndarray) and given.dtype.itemsize == dtype.itemsize
    if not fits or (given.dtype.kind == "f") != (element == f32) or given.dtype.kind not in "iuf":
        found = f"an array of {given.dtype}" if isinstance(given, np.ndarray) else repr(given)
        wanted = dtype if element == f32 else f"{dtype} or u{dtype}"
        raise InputError(f"{what} is an array of {wanted}, not {found}")
    if not given.flags.c_contiguous:
        raise InputError(f"{what} is an array that is not contiguous: give a copy")
    return given.reshape(-1).view(dtype)


def kernel_named(module: ModuleOp, name: str) -> ppu.FuncOp:
    """The ppu function of that name. Raises InputError with the names there are."""
    kernels = {op.sym_name.data: op for op in module.ops if isinstance(op, ppu.FuncOp)}
    if name not in kernels:
        raise InputError(f"there is no kernel '{name}'; the module has {', '.join(kernels) or 'none'}")
    return kernels[name]
