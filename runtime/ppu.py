"""Executes a ppu function for all work items together: a value is one number, or an array of one a work item.

Diverging work items are masked: both sides of a `ppu.if` run, each for its items, and a loop runs until no item goes
on. Integers are two's complement and wrap around, floats are float32 with one rounding an operation. An access out of
bounds, a division by zero, a barrier that some miss and a loop without end are a Fault that names the work item.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from xdsl.dialects.builtin import FileLineColLoc, ModuleOp
from xdsl.ir import Attribute, Block, Operation, SSAValue

from ..dialects import ppu
from ..dialects.types import DTYPE_OF, f32, i1
from ..errors import Fault, InputError

Lanes = Any
"""A numpy scalar where all work items agree, or an array of one element a work item."""
MAX_STEPS = 1_000_000
"""Loop rounds after which a kernel is taken for endless."""


def launch(
    function: ppu.FuncOp,
    arguments: Sequence[np.ndarray | int | float],
    global_size: Sequence[int] | int,
    local_size: Sequence[int] | int | None = None,
    max_steps: int = MAX_STEPS,
) -> None:
    """Run a kernel on a grid of up to three dimensions; it writes into the arrays.

    arguments: an array for a pointer to global or constant memory (of the element's width, either sign), the number
    of elements for a pointer to local memory, a number for a scalar. Without local_size the grid is one group.
    Raises InputError where they do not fit the kernel, Fault where the kernel does what it must not.
    """
    grid = Grid.of(global_size, local_size)
    values = bind(function, arguments, grid)
    with np.errstate(all="ignore"):
        Execution(function, grid, max_steps).block(function.body.block, values, None)


def kernel_named(module: ModuleOp, name: str) -> ppu.FuncOp:
    """The ppu function of that name. Raises InputError with the names there are."""
    kernels = {op.sym_name.data: op for op in module.ops if isinstance(op, ppu.FuncOp)}
    if name not in kernels:
        raise InputError(f"there is no kernel '{name}'; the module has {', '.join(kernels) or 'none'}")
    return kernels[name]


# --- the grid and the arguments --------------------------------------------------------------------------
@dataclass(frozen=True)
class Grid:
    """Sizes along three dimensions; work items are counted group by group, dimension 0 fastest in each."""

    dimensions: int
    global_size: tuple[int, ...]
    local_size: tuple[int, ...]
    ids: dict[str, list[np.ndarray]]

    @staticmethod
    def of(global_size: Sequence[int] | int, local_size: Sequence[int] | int | None) -> Grid:
        """A grid. Raises InputError for sizes that are none."""
        whole = (global_size,) if isinstance(global_size, int) else tuple(global_size)
        parts = whole if local_size is None else (local_size,) if isinstance(local_size, int) else tuple(local_size)
        if not 1 <= len(whole) <= 3 or len(parts) != len(whole) or min(*whole, *parts, 1) < 1:
            raise InputError(f"a grid of {list(whole)} in groups of {list(parts)} is none of one to three dimensions")
        if any(w % p for w, p in zip(whole, parts)):
            raise InputError(f"the grid {list(whole)} is no multiple of its groups {list(parts)}")
        sizes, local = whole + (1,) * (3 - len(whole)), parts + (1,) * (3 - len(whole))
        groups = [w // p for w, p in zip(sizes, local)]
        index = np.indices([*groups[::-1], *local[::-1]]).reshape(6, -1)
        group_ids, local_ids = [index[2 - d] for d in range(3)], [index[5 - d] for d in range(3)]
        ids = {
            "group_id": group_ids,
            "local_id": local_ids,
            "global_id": [g * p + k for g, p, k in zip(group_ids, local, local_ids)],
        }
        return Grid(len(whole), sizes, local, ids)

    @property
    def items(self) -> int:
        return math.prod(self.global_size)

    @property
    def group_items(self) -> int:
        return math.prod(self.local_size)

    def query(self, name: str, dimension: int) -> Lanes:
        """The answer to a ppu.work_item."""
        if name in self.ids:
            return self.ids[name][dimension]
        whole, local = self.global_size[dimension], self.local_size[dimension]
        sizes = {"global_size": whole, "local_size": local, "num_groups": whole // local, "global_offset": 0}
        return np.int64(self.dimensions if name == "work_dim" else sizes[name])

    def name(self, item: int) -> str:
        """A work item for people: its global ids."""
        return f"work item ({', '.join(str(self.ids['global_id'][d][item]) for d in range(self.dimensions))})"


@dataclass(frozen=True)
class Memory:
    """What a pointer leads to: one array for all, or equal parts of one, a part a group or a work item."""

    name: str
    array: np.ndarray
    size: int
    base: Lanes = 0


def bind(function: ppu.FuncOp, arguments: Sequence[Any], grid: Grid) -> dict[SSAValue, Any]:
    """Values of a kernel's arguments. Raises InputError where they do not fit."""
    kernel, names = function.sym_name.data, function.names()
    if len(arguments) != len(names):
        expected = f"{len(names)} arguments ({', '.join(names)})" if names else "no arguments"
        raise InputError(f"the kernel '{kernel}' takes {expected}, but {len(arguments)} are given")
    values: dict[SSAValue, Any] = {}
    for name, parameter, given in zip(names, function.body.block.args, arguments):
        what = f"the argument '{name}' of the kernel '{kernel}'"
        if not isinstance(parameter.type, ppu.PointerType):
            values[parameter] = scalar(what, given, parameter.type)
        elif parameter.type.data.space is ppu.Space.LOCAL:
            if not isinstance(given, (int, np.integer)) or given < 1:
                raise InputError(f"{what} lies in local memory: give the number of its elements, not {given!r}")
            values[parameter] = partitioned(name, int(given), parameter.type.data, grid)
        else:
            values[parameter] = Memory(name, flat(what, given, parameter.type.data.element), np.size(given))
    return values


def scalar(what: str, given: Any, type_: Attribute) -> Lanes:
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
        raise InputError(f"{what} is an array of {dtype} (or its unsigned kind), not {found}")
    if not given.flags.c_contiguous:
        raise InputError(f"{what} is an array that is not contiguous: give a copy")
    return given.reshape(-1).view(dtype)


def partitioned(name: str, size: int, target: ppu.Pointer, grid: Grid) -> Memory:
    """Local or private memory, zero at first so that runs repeat."""
    per = grid.group_items if target.space is ppu.Space.LOCAL else 1
    owner = np.arange(grid.items) // per
    return Memory(name, np.zeros(grid.items // per * size, DTYPE_OF[target.element]), size, owner * size)


# --- execution -------------------------------------------------------------------------------------------
@dataclass
class Execution:
    """One run of one kernel."""

    function: ppu.FuncOp
    grid: Grid
    max_steps: int
    steps: int = 0
    allocated: dict[Operation, Memory] = field(default_factory=dict)

    def block(self, block: Block, values: dict[SSAValue, Any], mask: np.ndarray | None) -> list[Any]:
        """Run a block for the work items of a mask (None: all of them); gives what it yields."""
        for op in block.ops:
            if isinstance(op, (ppu.YieldOp, ppu.ReturnOp)):
                return [values[v] for v in op.operands]
            EXECUTE[type(op)](self, op, values, mask)
        raise AssertionError("the verifier checks that a block ends")

    def fault(self, op: Operation, reason: str, item: int) -> Fault:
        """A Fault with kernel, place in the source and work item."""
        return Fault(f"{place(op)}kernel '{self.function.sym_name.data}': {reason}, in {self.grid.name(item)}")

    def address(self, op: Operation, memory: Memory, index: Lanes, mask: np.ndarray | None) -> Lanes:
        """Where in the memory's array the elements lie; 0 for work items that are masked. Faults out of bounds."""
        wrong = (index < 0) | (index >= memory.size)
        if mask is not None:
            wrong = wrong & mask
        if np.any(wrong):
            item = first(wrong)
            verb = "writes" if isinstance(op, ppu.StoreOp) else "reads"
            at = int(index if np.ndim(index) == 0 else index[item])
            raise self.fault(op, f"{verb} '{memory.name}'[{at}], which has {memory.size} elements", item)
        if mask is not None:
            index = np.where(mask, index, 0)
        return index + memory.base


def place(op: Operation) -> str:
    """`file:line:column: ` of the source, nothing where it is not known."""
    at = op.location
    if not isinstance(at, FileLineColLoc):
        return ""
    return f"{at.filename.data}:{at.line.data}:{at.column.data}: "


def first(mask: Lanes) -> int:
    """The first work item of a mask."""
    return int(np.argmax(mask)) if np.ndim(mask) else 0


def merged(condition: Lanes, chosen: Lanes, other: Lanes) -> Lanes:
    """Values of the work items for which the condition holds, and of the others."""
    if chosen is other:
        return chosen
    return np.asarray(np.where(condition, chosen, other))[()]


Execute = Callable[[Execution, Any, dict[SSAValue, Any], "np.ndarray | None"], None]
EXECUTE: dict[type[Operation], Execute] = {}


def execute(op: type[Operation]) -> Callable[[Execute], Execute]:
    """Register a function as the definition of an operation."""

    def register(function: Execute) -> Execute:
        EXECUTE[op] = function
        return function

    return register


@execute(ppu.IfOp)
def decide(run: Execution, op: ppu.IfOp, values: dict[SSAValue, Any], mask: np.ndarray | None) -> None:
    condition = values[op.condition]
    if np.ndim(condition) == 0:  # all agree
        region = op.then if condition else op.otherwise
        values.update(zip(op.outputs, run.block(region.block, values, mask)))
        return
    taken = condition if mask is None else condition & mask
    left = ~condition if mask is None else ~condition & mask
    if not left.any() or not taken.any():
        region = op.then if taken.any() else op.otherwise
        values.update(zip(op.outputs, run.block(region.block, values, mask)))
        return
    then = run.block(op.then.block, values, taken)
    otherwise = run.block(op.otherwise.block, values, left)
    for result, a, b in zip(op.outputs, then, otherwise):
        values[result] = merged(condition, a, b)


@execute(ppu.LoopOp)
def repeat(run: Execution, op: ppu.LoopOp, values: dict[SSAValue, Any], mask: np.ndarray | None) -> None:
    carried = [values[v] for v in op.inputs]
    active = mask
    while True:
        run.steps += 1
        if run.steps > run.max_steps:
            item = first(active) if active is not None else 0
            raise run.fault(op, f"a loop did not end within {run.max_steps} rounds", item)
        values.update(zip(op.body.block.args, carried))
        again, *latest = run.block(op.body.block, values, active)
        carried = latest if active is None else [merged(active, a, b) for a, b in zip(latest, carried)]
        if np.ndim(again) == 0:
            if not again:
                break
        else:
            active = again if active is None else active & again
            if not active.any():
                break
            if mask is None and active.all():
                active = None
    values.update(zip(op.outputs, carried))


@execute(ppu.LoadOp)
def load(run: Execution, op: ppu.LoadOp, values: dict[SSAValue, Any], mask: np.ndarray | None) -> None:
    memory: Memory = values[op.source]
    values[op.result] = memory.array[run.address(op, memory, values[op.index], mask)]


@execute(ppu.StoreOp)
def store(run: Execution, op: ppu.StoreOp, values: dict[SSAValue, Any], mask: np.ndarray | None) -> None:
    memory: Memory = values[op.target]
    address, value = run.address(op, memory, values[op.index], mask), values[op.value]
    if not memory.array.flags.writeable:
        item = 0 if mask is None else first(mask)
        raise run.fault(op, f"writes '{memory.name}', an array that is read-only", item)
    if mask is not None:
        address = np.broadcast_to(address, mask.shape)[mask]
        value = value[mask] if np.ndim(value) else value
    elif np.ndim(address) == 0 and np.ndim(value):
        value = value[-1]
    memory.array[address] = value


@execute(ppu.AllocOp)
def allocate(run: Execution, op: ppu.AllocOp, values: dict[SSAValue, Any], mask: np.ndarray | None) -> None:
    if op not in run.allocated:
        p = op.parameters()
        assert isinstance(op.result.type, ppu.PointerType)
        run.allocated[op] = partitioned(p.label or "an array", p.size, op.result.type.data, run.grid)
    values[op.result] = run.allocated[op]


@execute(ppu.WorkItemOp)
def work_item(run: Execution, op: ppu.WorkItemOp, values: dict[SSAValue, Any], mask: np.ndarray | None) -> None:
    p = op.parameters()
    values[op.result] = run.grid.query(p.query, p.dimension)


@execute(ppu.BarrierOp)
def barrier(run: Execution, op: ppu.BarrierOp, values: dict[SSAValue, Any], mask: np.ndarray | None) -> None:
    """Work items go in step, so there is nothing to wait for; but a group has to arrive as a whole."""
    if mask is None:
        return
    groups = mask.reshape(-1, run.grid.group_items)
    torn = groups.any(1) & ~groups.all(1)
    if torn.any():
        group = int(np.argmax(torn))
        item = group * run.grid.group_items + int(np.argmin(groups[group]))
        raise run.fault(op, "a barrier that others of the group wait at is not reached", item)


@execute(ppu.ConstantOp)
def constant(run: Execution, op: ppu.ConstantOp, values: dict[SSAValue, Any], mask: np.ndarray | None) -> None:
    values[op.result] = DTYPE_OF[op.result.type].type(op.number())


# --- arithmetic ------------------------------------------------------------------------------------------
def unsigned(x: Lanes) -> Lanes:
    """The same bits without sign."""
    return x.view(f"u{x.dtype.itemsize}")


def shift_amount(x: Lanes, amount: Lanes) -> Lanes:
    """The low bits of the amount (OpenCL C 1.2, 6.3.j)."""
    return amount & x.dtype.type(x.dtype.itemsize * 8 - 1)


def truncated_quotient(a: Lanes, b: Lanes) -> Lanes:
    """Signed division as C has it: towards zero. numpy's goes down. The smallest by −1 wraps around."""
    floor = np.floor_divide(a, b)
    return floor + ((np.multiply(floor, b) != a) & ((a < 0) != (b < 0))).astype(a.dtype)


def fused_multiply_add(a: Lanes, b: Lanes, c: Lanes) -> Lanes:
    """float32 a · b + c with one rounding.

    The product is exact in float64. The sum is rounded to odd there, by the error term of Knuth's two-sum: the 29 bits
    more than float32 has then make the second rounding right (Boldo and Melquiond, 2008).
    """
    product, addend = np.multiply(a, b, dtype=np.float64), np.asarray(c, np.float64)
    total = np.asarray(product + addend)
    rest = total - product
    error = (product - (total - rest)) + (addend - rest)
    even = (total.view(np.int64) & 1) == 0
    inexact = np.isfinite(total) & (error != 0) & even
    odd = np.nextafter(total, np.where(error > 0, np.inf, -np.inf))
    return np.where(inexact, odd, total).astype(np.float32)[()]


UNARY: dict[type[Operation], Callable[[Lanes], Lanes]] = {
    ppu.NegOp: np.negative,
    ppu.AbsOp: np.abs,
    ppu.SqrtOp: np.sqrt,
    ppu.FloorOp: np.floor,
    ppu.CeilOp: np.ceil,
    ppu.TruncOp: np.trunc,
    ppu.RintOp: np.rint,
}
BINARY: dict[type[Operation], Callable[[Lanes, Lanes], Lanes]] = {
    ppu.AddOp: np.add,
    ppu.SubOp: np.subtract,
    ppu.MulOp: np.multiply,
    ppu.AndOp: np.bitwise_and,
    ppu.OrOp: np.bitwise_or,
    ppu.XorOp: np.bitwise_xor,
    ppu.MinOp: np.fmin,
    ppu.MaxOp: np.fmax,
    ppu.MinUOp: lambda a, b: np.minimum(unsigned(a), unsigned(b)).view(a.dtype),
    ppu.MaxUOp: lambda a, b: np.maximum(unsigned(a), unsigned(b)).view(a.dtype),
    ppu.ShlOp: lambda a, b: np.left_shift(a, shift_amount(a, b)),
    ppu.ShrOp: lambda a, b: np.right_shift(a, shift_amount(a, b)),
    ppu.ShrUOp: lambda a, b: np.right_shift(unsigned(a), unsigned(shift_amount(a, b))).view(a.dtype),
}
DIVISIONS: dict[type[Operation], Callable[[Lanes, Lanes], Lanes]] = {
    ppu.DivOp: truncated_quotient,
    ppu.RemOp: lambda a, b: a - np.multiply(truncated_quotient(a, b), b),
    ppu.DivUOp: lambda a, b: np.floor_divide(unsigned(a), unsigned(b)).view(a.dtype),
    ppu.RemUOp: lambda a, b: np.remainder(unsigned(a), unsigned(b)).view(a.dtype),
}


def _unary(run: Execution, op: ppu.Unary, values: dict[SSAValue, Any], mask: np.ndarray | None) -> None:
    values[op.result] = UNARY[type(op)](values[op.input])


def _binary(run: Execution, op: ppu.Binary, values: dict[SSAValue, Any], mask: np.ndarray | None) -> None:
    values[op.result] = BINARY[type(op)](values[op.lhs], values[op.rhs])


def _division(run: Execution, op: ppu.Binary, values: dict[SSAValue, Any], mask: np.ndarray | None) -> None:
    a, b = values[op.lhs], values[op.rhs]
    if op.result.type == f32:
        values[op.result] = a / b
        return
    wrong = (b == 0) if mask is None else (b == 0) & mask
    if np.any(wrong):
        raise run.fault(op, "an integer is divided by zero", first(wrong))
    if mask is not None:
        b = np.where(mask, b, b.dtype.type(1))
    values[op.result] = DIVISIONS[type(op)](a, b)


EXECUTE.update(dict.fromkeys(UNARY, _unary))
EXECUTE.update(dict.fromkeys(BINARY, _binary))
EXECUTE.update(dict.fromkeys(DIVISIONS, _division))

COMPARISONS: dict[str, Callable[[Lanes, Lanes], Lanes]] = {
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal,
}  # fmt: skip


@execute(ppu.CompareOp)
def compare(run: Execution, op: ppu.CompareOp, values: dict[SSAValue, Any], mask: np.ndarray | None) -> None:
    predicate, a, b = op.parameters().predicate, values[op.lhs], values[op.rhs]
    if predicate.endswith("u"):
        a, b = unsigned(a), unsigned(b)
    values[op.result] = COMPARISONS[predicate.removesuffix("u")](a, b)


@execute(ppu.SelectOp)
def select(run: Execution, op: ppu.SelectOp, values: dict[SSAValue, Any], mask: np.ndarray | None) -> None:
    values[op.result] = merged(values[op.condition], values[op.chosen], values[op.other])


@execute(ppu.FmaOp)
def fma(run: Execution, op: ppu.FmaOp, values: dict[SSAValue, Any], mask: np.ndarray | None) -> None:
    values[op.result] = fused_multiply_add(values[op.a], values[op.b], values[op.c])


@execute(ppu.BitcastOp)
def bitcast(run: Execution, op: ppu.BitcastOp, values: dict[SSAValue, Any], mask: np.ndarray | None) -> None:
    values[op.result] = values[op.input].view(DTYPE_OF[op.result.type])


@execute(ppu.ConvertOp)
def convert(run: Execution, op: ppu.ConvertOp, values: dict[SSAValue, Any], mask: np.ndarray | None) -> None:
    p, x, target = op.parameters(), values[op.input], op.result.type
    if op.input.type == f32:
        values[op.result] = x if target == f32 else float_to_integer(x, DTYPE_OF[target], p.to_signed, p.rounding)
        return
    if op.input.type == i1:
        x = x.astype(np.int8)
    elif not p.signed:
        x = unsigned(x)
    if target == f32:
        values[op.result] = integer_to_float(x, p.rounding)
    else:
        values[op.result] = integer_to_integer(x, DTYPE_OF[target], p.to_signed, p.saturate)


ROUND: dict[str, Callable[[Lanes], Lanes]] = {"rte": np.rint, "rtz": np.trunc, "rtp": np.ceil, "rtn": np.floor}


def float_to_integer(x: Lanes, dtype: np.dtype, signed: bool, rounding: str) -> Lanes:
    """Rounded, clamped to the integer's range, NaN to 0."""
    read = np.dtype(f"{'i' if signed else 'u'}{dtype.itemsize}")
    limits = np.iinfo(read)
    rounded = np.asarray(ROUND[rounding](x), np.float64)
    above, below = rounded >= 2.0 ** (dtype.itemsize * 8 - signed), rounded < limits.min
    inside = np.where(above | below | np.isnan(rounded), 0.0, rounded).astype(read)
    clamped = np.where(above, read.type(limits.max), np.where(below, read.type(limits.min), inside))
    return clamped.astype(read).view(dtype)[()]


def integer_to_float(x: Lanes, rounding: str) -> Lanes:
    """The nearest float32, or the next one on the side that the rounding asks for (exact in float64 up to 32 bits)."""
    nearest = x.astype(np.float32)
    if rounding == "rte":
        return nearest
    exact, found = np.asarray(x, np.float64), np.asarray(nearest, np.float64)
    up = exact < 0 if rounding == "rtz" else np.full(exact.shape, rounding == "rtp")
    wrong = np.where(up, found < exact, found > exact)
    step = np.nextafter(nearest, np.where(up, np.float32(np.inf), np.float32(-np.inf)))
    return np.where(wrong, step, nearest)[()]


def integer_to_integer(x: Lanes, dtype: np.dtype, to_signed: bool, saturate: bool) -> Lanes:
    """Wrapped around, or clamped to the range the result is read with."""
    read = np.dtype(f"{'i' if to_signed else 'u'}{dtype.itemsize}")
    if saturate:
        have, want = np.iinfo(x.dtype), np.iinfo(read)
        low, high = max(have.min, want.min), min(have.max, want.max)
        x = np.clip(x, x.dtype.type(low), x.dtype.type(high))
    return x.astype(read).view(dtype)


assert set(EXECUTE) == set(ppu.OPS) - {ppu.YieldOp, ppu.ReturnOp, ppu.FuncOp}, "every operation is defined"
