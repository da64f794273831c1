"""Makes a kernel of a ppu function: every operation becomes a step, a closure over register numbers.

Diverging work items are masked: both sides of a `ppu.if` run, each for its items, and a loop runs until no item goes
on. What a register holds for items outside the mask has no meaning; nothing reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from xdsl.dialects.builtin import FileLineColLoc
from xdsl.ir import Attribute, Block, Operation, SSAValue

from ...dialects import ppu
from ...dialects.types import DTYPE_OF
from .arithmetic import COMPUTED, DIVISIONS, Function, function_of, merged
from .endless import Watch, deciding
from .kernel import MAX_STEPS, RUN, Array, Body, Instruction, Kernel, Registers, Step, Table
from .memory import first
from .run import Run

Mask = np.ndarray | None


def prepare(function: ppu.FuncOp) -> Kernel:
    """A kernel of a verified function, to be launched as often as wanted."""
    arguments = function.body.block.args
    build = Builder([None])
    for argument in arguments:
        build.register(argument)
    body = build.body(function.body.block)
    return Kernel(
        function.sym_name.data,
        tuple(function.names()),
        tuple(a.type for a in arguments),
        tuple(build.values),
        tuple(build.queries),
        tuple(build.arrays),
        tuple(build.tables),
        body,
        function.group_size(),
    )


def launch(
    function: ppu.FuncOp,
    arguments: Sequence[np.ndarray | int | float],
    global_size: Sequence[int] | int,
    local_size: Sequence[int] | int | None = None,
    max_steps: int = MAX_STEPS,
    sanitize: bool = False,
) -> None:
    """Run a kernel on a grid of up to three dimensions; it writes into the arrays.

    arguments: an array for a pointer to global or constant memory (of the element's width, either sign), the number
    of elements for a pointer to local memory, a number for a scalar. Without local_size the groups are those that the
    kernel is written for (reqd_work_group_size), else the grid is one group.
    sanitize: races and reads of memory that nothing was written to are Faults too.
    Raises InputError where they do not fit the kernel, Fault where the kernel does what it must not.
    """
    prepare(function).launch(arguments, global_size, local_size, max_steps, sanitize)


def place(op: Operation) -> str:
    """`file:line:column: ` of the source, nothing where it is not known."""
    at = op.location
    if not isinstance(at, FileLineColLoc):
        return ""
    return f"{at.filename.data}:{at.line.data}:{at.column.data}: "


@dataclass
class Builder:
    """Numbers values and collects what a kernel starts with."""

    values: list[Any]
    numbers: dict[SSAValue, int] = field(default_factory=dict)
    queries: list[tuple[int, str, int]] = field(default_factory=list)
    arrays: list[Array] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)

    def register(self, value: SSAValue, start: Any = None) -> int:
        """A new register for a value."""
        self.numbers[value] = len(self.values)
        self.values.append(start)
        return self.numbers[value]

    def body(self, block: Block) -> Body:
        """The instructions of a block. What is known at the start of a launch is no instruction but a register."""
        arguments = tuple(self.numbers.get(a) or self.register(a) for a in block.args)
        found = []
        for op in block.ops:
            if isinstance(op, ppu.ConstantOp):
                self.register(op.result, DTYPE_OF[op.result.type].type(op.number()))
            elif isinstance(op, ppu.WorkItemOp):
                p = op.parameters()
                self.queries.append((self.register(op.result), p.query, p.dimension))
            elif isinstance(op, ppu.AllocOp):
                p, type_ = op.parameters(), op.result.type
                assert isinstance(type_, ppu.PointerType)
                self.arrays.append(Array(self.register(op.result), p.label or "an array", p.size, type_.data))
            elif isinstance(op, ppu.TableOp):
                contents = op.contents().astype(DTYPE_OF[ppu.pointer_of(op, op.result).element], copy=False)
                self.tables.append(Table(self.register(op.result), op.label.data or "a table", contents))
            elif not isinstance(op, (ppu.YieldOp, ppu.ReturnOp)):
                found.append(self.instruction(op))
        assert block.last_op is not None, "the verifier checks that a block ends"
        return Body(tuple(found), arguments, tuple(self.numbers[v] for v in block.last_op.operands))

    def instruction(self, op: Operation) -> Instruction:
        """One operation as a step."""
        operands = tuple(self.numbers[v] for v in op.operands)
        bodies = tuple(self.body(r.block) for r in op.regions)
        results = tuple(self.register(v) for v in op.results)
        function = function_of(op)
        if function is not None:
            step = computation(function, *results, *operands)
        else:
            step = STEPS[type(op)](op, results, operands, bodies)
        return Instruction(type(op), working_type(op), results, operands, step, bodies, place(op))


def working_type(op: Operation) -> Attribute | None:
    """The type an operation works on."""
    if isinstance(op, ppu.LoadOp):
        return op.result.type
    if isinstance(op, ppu.StoreOp):
        return op.value.type
    return op.operands[-1].type if op.operands else None


# --- arithmetic ------------------------------------------------------------------------------------------
def computation(function: Function, result: int, *operands: int) -> Step:
    """What depends on nothing but its operands."""
    if len(operands) == 2:
        a, b = operands

        def binary(r: Registers, mask: Mask) -> None:
            r[result] = function(r[a], r[b])

        return binary
    if len(operands) == 1:
        (a,) = operands

        def unary(r: Registers, mask: Mask) -> None:
            r[result] = function(r[a])

        return unary
    a, b, c = operands

    def ternary(r: Registers, mask: Mask) -> None:
        r[result] = function(r[a], r[b], r[c])

    return ternary


def division(op: Operation, results: Sequence[int], operands: Sequence[int], bodies: Sequence[Body]) -> Step:
    """Of integers: zero is no divisor."""
    function, at, (result,), (dividend, divisor) = DIVISIONS[type(op)], place(op), results, operands

    def step(r: Registers, mask: Mask) -> None:
        b = r[divisor]
        wrong = b == 0
        if type(b) is not np.ndarray:
            if wrong:
                raise r[RUN].fault(at, "an integer is divided by zero", first(mask, r[RUN].grid))
        elif wrong.any():
            bad = wrong if mask is None else wrong & mask
            if bad.any():
                raise r[RUN].fault(at, "an integer is divided by zero", first(bad, r[RUN].grid))
            b = np.where(wrong, b.dtype.type(1), b)
        r[result] = function(r[dividend], b)

    return step


# --- memory ----------------------------------------------------------------------------------------------
def load(op: Operation, results: Sequence[int], operands: Sequence[int], bodies: Sequence[Body]) -> Step:
    at, (result,), (source, place_of_index) = place(op), results, operands

    def step(r: Registers, mask: Mask) -> None:
        memory, wanted = r[source], r[place_of_index]
        index = memory.inside(wanted, mask)
        if index is None:
            raise r[RUN].out_of_bounds(at, "reads", memory, wanted, mask)
        races = r[RUN].races
        if races is not None:
            races.read(memory, index, mask, at)
        r[result] = memory.load(index)

    return step


def store(op: Operation, results: Sequence[int], operands: Sequence[int], bodies: Sequence[Body]) -> Step:
    at, (value, target, place_of_index) = place(op), operands

    def step(r: Registers, mask: Mask) -> None:
        memory, wanted = r[target], r[place_of_index]
        index = memory.inside(wanted, mask)
        if index is None:
            raise r[RUN].out_of_bounds(at, "writes", memory, wanted, mask)
        if not memory.array.flags.writeable:
            item = first(mask, r[RUN].grid)
            raise r[RUN].fault(at, f"writes '{memory.name}', an array that is read-only", item)
        races = r[RUN].races
        if races is not None:
            races.write(memory, index, mask, at)
        memory.store(index, r[value], mask)

    return step


def barrier(op: Operation, results: Sequence[int], operands: Sequence[int], bodies: Sequence[Body]) -> Step:
    """Work items go in step, so there is nothing to wait for; but a group has to arrive as a whole."""
    at = place(op)

    def step(r: Registers, mask: Mask) -> None:
        run: Run = r[RUN]
        if mask is not None:
            groups = run.grid.flat(mask).reshape(-1, run.grid.group_items)
            torn = groups.any(1) & ~groups.all(1)
            if torn.any():
                group = int(np.argmax(torn))
                item = group * run.grid.group_items + int(np.argmin(groups[group]))
                raise run.fault(at, "a barrier that others of the group wait at is not reached", item)
        if run.races is not None:
            run.races.barrier(mask)

    return step


# --- control flow ----------------------------------------------------------------------------------------
def decide(op: Operation, results: Sequence[int], operands: Sequence[int], bodies: Sequence[Body]) -> Step:
    return decision(operands[0], results, *bodies)


def decision(condition: int, results: Sequence[int], then: Body, otherwise: Body) -> Step:
    """A ppu.if: one side if the work items agree, else both, each for its own."""
    then_moves, otherwise_moves = tuple(zip(results, then.yields)), tuple(zip(results, otherwise.yields))
    merges = tuple(zip(results, then.yields, otherwise.yields))

    def step(r: Registers, mask: Mask) -> None:
        holds = r[condition]
        if type(holds) is np.ndarray:
            taken = holds if mask is None else holds & mask
            left = ~holds if mask is None else ~holds & mask
            some = taken.any()
            if some and left.any():
                for s in then.steps:
                    s(r, taken)
                for s in otherwise.steps:
                    s(r, left)
                for result, a, b in merges:
                    r[result] = merged(holds, r[a], r[b])
                return
            holds = some
        for s in then.steps if holds else otherwise.steps:
            s(r, mask)
        for result, source in then_moves if holds else otherwise_moves:
            r[result] = r[source]

    return step


def repeat(op: Operation, results: Sequence[int], operands: Sequence[int], bodies: Sequence[Body]) -> Step:
    at, (body,) = place(op), bodies
    arguments, (condition, *latest) = body.arguments, body.yields
    decides = deciding(body)

    def step(r: Registers, mask: Mask) -> None:
        run: Run = r[RUN]
        carried = [r[k] for k in operands]
        active = mask
        watch = Watch(decides)
        while True:
            run.steps += 1
            if run.steps > run.max_steps:
                raise run.endless(at, active)
            watch.round += 1
            if watch.round == watch.due and (period := watch.period(r, active, carried)):
                raise run.repeated(at, active, period)
            for k, value in zip(arguments, carried):
                r[k] = value
            for s in body.steps:
                s(r, active)
            if active is mask:
                carried = [r[k] for k in latest]
            else:  # some work items have left: theirs stays
                carried = [merged(active, r[k], old) for k, old in zip(latest, carried)]
            again = r[condition]
            if type(again) is not np.ndarray:
                if again:
                    continue
                break
            going = again if active is None else again & active
            if not going.any():
                break
            if (~going if active is None else going != active).any():
                active = going
        for k, value in zip(results, carried):
            r[k] = value

    return step


STEPS: dict[type[Operation], Callable[[Any, Sequence[int], Sequence[int], Sequence[Body]], Step]] = {
    **dict.fromkeys(DIVISIONS, division),
    ppu.LoadOp: load,
    ppu.StoreOp: store,
    ppu.BarrierOp: barrier,
    ppu.IfOp: decide,
    ppu.LoopOp: repeat,
}
KNOWN_AT_THE_START = {ppu.ConstantOp, ppu.WorkItemOp, ppu.AllocOp, ppu.TableOp}
ENDS = {ppu.YieldOp, ppu.ReturnOp, ppu.FuncOp}
assert {*STEPS, *COMPUTED, *KNOWN_AT_THE_START, *ENDS} == set(ppu.OPS), "every operation is defined"
