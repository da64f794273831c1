"""The part of a kernel that its control flow depends on: what decides which instructions run, and how often."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from ...dialects import ppu
from ...dialects.types import f32
from .arithmetic import DIVISIONS
from .kernel import Body, Instruction, Kernel
from .prepare import decision


@dataclass(frozen=True)
class Price:
    """What an instruction of a class takes a wave, and why."""

    cycles: int
    reason: str


PRICES: dict[str, Price] = {
    "integer": Price(1, "each lane has an integer unit; add, multiply, compare, select, convert alike (assumed)"),
    "float": Price(1, "each lane has a multiply-adder for float32 (assumed)"),
    "divide": Price(8, "quotients and remainders, two to four bits a cycle (assumed)"),
    "root": Price(8, "square roots use the divider (assumed)"),
    "memory": Price(1, "SRAM serves all lanes in a cycle, bank conflicts not counted (assumed)"),
    "control": Price(1, "a decision, or the end of a round of a loop: masks are set (assumed)"),
    "barrier": Price(1, "waves of a group are issued in turn, so that it waits for none (assumed)"),
}
"""By class. Constants, tables, work-item queries and the values a region gives are registers and cost nothing."""


def class_of(instruction: Instruction) -> str:
    """The class of an instruction, a key of PRICES."""
    op = instruction.op
    if op in DIVISIONS:
        return "divide"
    if op in (ppu.LoadOp, ppu.StoreOp):
        return "memory"
    if op in (ppu.IfOp, ppu.LoopOp):
        return "control"
    if op is ppu.SqrtOp:
        return "root"
    if op is ppu.BarrierOp:
        return "barrier"
    return "float" if instruction.type == f32 else "integer"


def instructions_by_class(body: Body) -> Counter[str]:
    """Instructions of a region and of those within it, each counted once, by class."""
    found: Counter[str] = Counter()
    for instruction in body.instructions:
        found[class_of(instruction)] += 1
        for inner in instruction.bodies:
            found += instructions_by_class(inner)
    return found


@dataclass(frozen=True)
class Slice:
    """A region: how many instructions it has of each class, and those that control flow depends on, in order."""

    counts: dict[str, int]
    steps: tuple[Instruction | Decision | Repetition, ...]


@dataclass(frozen=True)
class Decision:
    """A ppu.if; of its results those that matter."""

    condition: int
    then: Slice
    otherwise: Slice
    results: tuple[tuple[int, int, int], ...]
    """(result, register of the first region, of the second)."""


UNCOUNTED = {ppu.LoopOp, ppu.LoadOp, *DIVISIONS}
"""Where a test has one of these, its rounds are followed with care: it may be unknown, or fault."""


@dataclass(frozen=True)
class Rounds:
    """How often a loop goes round, if that depends on numbers alone and each round costs the same."""

    steps: tuple[Instruction, ...]
    inputs: frozenset[int]
    """Registers from outside that they read."""


@dataclass(frozen=True)
class Repetition:
    """A ppu.loop; of what it carries that which matters."""

    instruction: Instruction
    body: Slice
    condition: int
    carried: tuple[tuple[int, int, int, int], ...]
    """(argument, start, next, result)."""
    rounds: Rounds | None


def sliced(kernel: Kernel) -> Slice:
    """The slice of a kernel for all its decisions and loops."""
    return slice_of(kernel.body, closure(kernel.body, set(conditions(kernel.body))))


def slice_of(body: Body, needed: set[int]) -> Slice:
    """The slice of a region, given the registers that matter."""
    counts = Counter(class_of(i) for i in body.instructions if i.op is not ppu.LoopOp)
    steps: list[Instruction | Decision | Repetition] = []
    for instruction in body.instructions:
        if instruction.op is ppu.IfOp:
            then, otherwise = instruction.bodies
            results = zip(instruction.results, then.yields, otherwise.yields)
            kept = tuple(r for r in results if r[0] in needed)
            branches = slice_of(then, needed), slice_of(otherwise, needed)
            steps.append(Decision(instruction.operands[0], *branches, kept))
        elif instruction.op is ppu.LoopOp:
            steps.append(repetition(instruction, needed))
        elif not needed.isdisjoint(instruction.results):
            steps.append(instruction)
    return Slice(dict(counts), tuple(steps))


def repetition(loop: Instruction, needed: set[int]) -> Repetition:
    """A loop; the jump back is an instruction of each round."""
    (body,) = loop.bodies
    condition, *latest = body.yields
    carried = zip(body.arguments, loop.operands, latest, loop.results)
    kept = tuple(c for c in carried if c[0] in needed)
    inner = slice_of(body, needed)
    counts = {**inner.counts, "control": inner.counts.get("control", 0) + 1}
    return Repetition(loop, Slice(counts, inner.steps), condition, kept, rounds_of(loop, {c[0] for c in kept}))


def rounds_of(loop: Instruction, arguments: set[int]) -> Rounds | None:
    """How to count rounds; None if decisions within a round, or what the loop gives, depend on more than its test."""
    (body,) = loop.bodies
    test = body.yields[0]
    inside = set(conditions(body)) - {test}
    if not closure(body, inside, loop).isdisjoint(body.arguments):
        return None
    deciding = closure(body, {test}, loop)
    if not arguments <= deciding:
        return None
    steps = restricted(body, deciding)
    if any(i.op in UNCOUNTED for i in flattened(steps)):
        return None
    defined = {r for i in flattened(steps) for r in i.results} | set(body.arguments)
    return Rounds(steps, frozenset(deciding - defined))


def restricted(body: Body, needed: set[int]) -> tuple[Instruction, ...]:
    """Instructions of a region that define what matters; of a decision its parts that do."""
    found = []
    for i in body.instructions:
        if needed.isdisjoint(i.results):
            continue
        if i.op is not ppu.IfOp:
            found.append(i)
            continue
        kept = [k for k, r in enumerate(i.results) if r in needed]
        sides = [Body(restricted(b, needed), (), tuple(b.yields[k] for k in kept)) for b in i.bodies]
        results = tuple(i.results[k] for k in kept)
        step = decision(i.operands[0], results, *sides)
        found.append(Instruction(i.op, i.type, results, i.operands, step, tuple(sides)))
    return tuple(found)


def flattened(instructions: tuple[Instruction, ...]) -> Iterator[Instruction]:
    """The instructions and all within them."""
    for i in instructions:
        yield i
        for body in i.bodies:
            yield from flattened(body.instructions)


def conditions(body: Body) -> Iterator[int]:
    """The registers that decisions and loops of a region test."""
    for i in flattened(body.instructions):
        if i.op is ppu.IfOp:
            yield i.operands[0]
        elif i.op is ppu.LoopOp:
            yield i.bodies[0].yields[0]


def closure(body: Body, seeds: set[int], loop: Instruction | None = None) -> set[int]:
    """The seeds and all registers that their values depend on; what is loaded depends on nothing that is looked at.

    With a loop, body is its region, and what a round carries to the next counts too.
    """
    needed, size = set(seeds), -1
    while size != len(needed):
        size = len(needed)
        if loop is not None:
            carry(loop, needed)
        grow(body, needed)
    return needed


def carry(loop: Instruction, needed: set[int]) -> None:
    """What a loop's arguments and results that matter depend on."""
    (body,) = loop.bodies
    condition, *latest = body.yields
    for argument, start, following, result in zip(body.arguments, loop.operands, latest, loop.results):
        if argument in needed or result in needed:
            needed.update((argument, start, following, condition))


def grow(body: Body, needed: set[int]) -> None:
    """One sweep against the order of execution."""
    for i in reversed(body.instructions):
        if i.op is ppu.IfOp:
            then, otherwise = i.bodies
            for result, a, b in zip(i.results, then.yields, otherwise.yields):
                if result in needed:
                    needed.update((a, b, i.operands[0]))
        elif i.op is ppu.LoopOp:
            carry(i, needed)
        elif i.op is not ppu.LoadOp and not needed.isdisjoint(i.results):
            needed.update(i.operands)
        for inner in i.bodies:
            grow(inner, needed)
