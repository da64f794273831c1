"""What a launch costs the engine, without a look at any buffer.

Work items go in waves of as many as there are lanes, in lockstep. An instruction takes the cycles of its class (PRICES)
for every wave in which at least one work item is active. Of the kernel only the slice runs that control flow depends
on. What is loaded is unknown: a decision on it takes both sides for all that arrive there, a loop ASSUMED_ROUNDS.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from ...dialects import ppu
from ...errors import Fault
from .grid import Grid, Lanes
from .kernel import MAX_STEPS, RUN, Instruction, Kernel
from .run import Run
from .slices import PRICES, Decision, Repetition, Rounds, Slice, sliced

ASSUMED_ROUNDS = 8
"""Rounds of a loop whose end depends on data."""


@dataclass(frozen=True)
class Cost:
    """Cycles of a launch and where they go."""

    cycles: int
    issued: Mapping[str, int]
    """Instructions by class, one for each wave that they are issued to."""
    divergence: float
    """The share of lanes that are idle while an instruction is issued."""


@dataclass(frozen=True)
class Flow:
    """The work items that arrive somewhere (None: all), in how many waves they are and how many they are."""

    mask: np.ndarray | None
    waves: int
    active: int


class Unknown:
    """The value of what depends on data."""


UNKNOWN = Unknown()
_SLICES: WeakKeyDictionary[Kernel, Slice] = WeakKeyDictionary()
_COSTS: WeakKeyDictionary[Kernel, dict[Any, Cost]] = WeakKeyDictionary()
MAX_COSTS = 4096
"""Launches of a kernel whose costs are kept."""


def cycles(
    kernel: Kernel,
    arguments: Sequence[Any],
    global_size: Sequence[int] | int,
    lanes: int,
    local_size: Sequence[int] | int | None = None,
) -> int:
    """Cycles of a launch; see `cost`."""
    return cost(kernel, arguments, global_size, lanes, local_size).cycles


def cost(
    kernel: Kernel,
    arguments: Sequence[Any],
    global_size: Sequence[int] | int,
    lanes: int,
    local_size: Sequence[int] | int | None = None,
) -> Cost:
    """What a launch costs; of the arguments only numbers count, anything may stand for a pointer.

    Kept by kernel, numbers, grid and lanes. Raises InputError for arguments that do not fit, Fault for an endless loop.
    """
    grid = kernel.grid(global_size, local_size)
    pointers = [isinstance(t, ppu.PointerType) for t in kernel.types]
    kernel.check_count(arguments)
    values: list[Any] = [UNKNOWN if p else kernel.argument(k, arguments[k], grid) for k, p in enumerate(pointers)]
    key = (tuple(None if v is UNKNOWN else v.tobytes() for v in values), grid, lanes)
    known = _COSTS.setdefault(kernel, {})
    if key not in known:
        if kernel not in _SLICES:
            _SLICES[kernel] = sliced(kernel)
        if len(known) >= MAX_COSTS:
            known.clear()
        registers = kernel.start(grid)
        registers[RUN] = Run(kernel.name, grid, MAX_STEPS)
        registers[1 : 1 + len(values)] = values
        count = Count(registers, grid, lanes)
        with np.errstate(all="ignore"):
            count.region(_SLICES[kernel], count.flow(None))
        known[key] = count.total()
    return known[key]


def forget(kernel: Kernel) -> None:
    """Count the next launch anew."""
    _COSTS.pop(kernel, None)


@dataclass
class Count:
    """One evaluation of a slice."""

    registers: list[Any]
    grid: Grid
    lanes: int
    scale: int = 1
    """How often what is counted now happens."""
    issued: Counter[str] = field(default_factory=Counter)
    active: int = 0
    """Lanes in use, over all that is issued."""

    def total(self) -> Cost:
        issued = {name: n for name, n in self.issued.items() if n}
        slots = sum(issued.values()) * self.lanes
        spent = sum(n * PRICES[name].cycles for name, n in issued.items())
        return Cost(spent, issued, 1 - self.active / slots if slots else 0.0)

    def flow(self, mask: np.ndarray | None) -> Flow:
        """A mask with what it means for the waves."""
        if mask is None:
            return Flow(None, -(-self.grid.items // self.lanes), self.grid.items)
        flat = self.grid.flat(mask)
        waves = np.logical_or.reduceat(flat, np.arange(0, flat.size, self.lanes))
        return Flow(mask, int(np.count_nonzero(waves)), int(np.count_nonzero(flat)))

    def region(self, region: Slice, flow: Flow) -> None:
        """Count the instructions of a region and follow its control flow."""
        for name, n in region.counts.items():
            self.issued[name] += n * flow.waves * self.scale
            self.active += n * flow.active * self.scale
        for step in region.steps:
            if isinstance(step, Instruction):
                self.instruction(step, flow)
            elif isinstance(step, Decision):
                self.decision(step, flow)
            else:
                self.repetition(step, flow)

    def instruction(self, i: Instruction, flow: Flow) -> None:
        """The value of an instruction that does not write."""
        r, (result,) = self.registers, i.results
        if i.op is ppu.LoadOp:
            r[result] = UNKNOWN
        elif all(r[k] is not UNKNOWN for k in i.operands):
            try:
                i.step(r, flow.mask)
            except Fault:  # a division by zero that an unknown condition may guard
                r[result] = UNKNOWN
        else:
            r[result] = UNKNOWN
            if i.op is ppu.SelectOp and type(holds := r[i.operands[0]]) is np.bool_:
                r[result] = r[i.operands[1 if holds else 2]]

    def decision(self, d: Decision, flow: Flow) -> None:
        r, holds = self.registers, self.registers[d.condition]
        if isinstance(holds, np.ndarray):
            taken = holds if flow.mask is None else holds & flow.mask
            left = ~holds if flow.mask is None else ~holds & flow.mask
            if taken.any() and left.any():
                self.region(d.then, self.flow(taken))
                self.region(d.otherwise, self.flow(left))
                for result, a, b in d.results:
                    r[result] = self.merged(holds, r[a], r[b])
                return
            holds = taken.any()
        if holds is UNKNOWN:
            self.region(d.then, flow)
            self.region(d.otherwise, flow)
            for result, a, b in d.results:
                r[result] = r[a] if r[a] is r[b] else UNKNOWN
            return
        self.region(d.then if holds else d.otherwise, flow)
        for result, a, b in d.results:
            r[result] = r[a if holds else b]

    @staticmethod
    def merged(condition: np.ndarray, a: Any, b: Any) -> Any:
        """Values of both sides; unknown if one is."""
        if a is b:
            return a
        return UNKNOWN if a is UNKNOWN or b is UNKNOWN else np.where(condition, a, b)

    # -- loops
    def repetition(self, loop: Repetition, flow: Flow) -> None:
        if loop.rounds is None or not self.counted(loop, loop.rounds, flow):
            self.followed(loop, flow)

    def counted(self, loop: Repetition, rounds: Rounds, flow: Flow) -> bool:
        """A loop whose rounds cost the same: only its test runs round by round. False if that is not a plain number."""
        r = self.registers
        carried = [r[start] for _, start, _, _ in loop.carried]
        if any(r[k] is UNKNOWN for k in rounds.inputs) or any(v is UNKNOWN for v in carried):
            return False
        first, number = carried, 0
        steps = [i.step for i in rounds.steps]
        while True:
            number += 1
            self.bounded(loop, number, flow.mask)
            for (argument, _, _, _), value in zip(loop.carried, carried):
                r[argument] = value
            for step in steps:
                step(r, None)
            again = r[loop.condition]
            if isinstance(again, np.ndarray):
                return False
            if not again:
                break
            carried = [r[following] for _, _, following, _ in loop.carried]
        if number > 1:
            self.round(loop, first, flow, number - 1)
        self.round(loop, carried, flow, 1)
        for _, _, following, result in loop.carried:
            r[result] = r[following]
        return True

    def followed(self, loop: Repetition, flow: Flow) -> None:
        """A loop round by round, as it would run."""
        r, entered, number = self.registers, flow, 0
        carried = [r[start] for _, start, _, _ in loop.carried]
        while True:
            number += 1
            self.bounded(loop, number, flow.mask)
            latest = self.round(loop, carried, flow, 1)
            if flow is entered:
                carried = latest
            else:
                assert flow.mask is not None
                carried = [self.merged(flow.mask, new, old) for new, old in zip(latest, carried)]
            again = r[loop.condition]
            if again is UNKNOWN:
                carried = [UNKNOWN] * len(carried)
                if number < ASSUMED_ROUNDS:
                    self.round(loop, carried, flow, ASSUMED_ROUNDS - number)
                break
            if isinstance(again, np.ndarray):
                going = again if flow.mask is None else again & flow.mask
                if not going.any():
                    break
                if np.count_nonzero(self.grid.flat(going)) != flow.active:
                    flow = self.flow(going)
            elif not again:
                break
        for (_, _, _, result), value in zip(loop.carried, carried):
            r[result] = value

    def round(self, loop: Repetition, carried: Sequence[Any], flow: Flow, times: int) -> list[Lanes]:
        """Count a round that happens so often; gives what it carries to the next."""
        r = self.registers
        for (argument, _, _, _), value in zip(loop.carried, carried):
            r[argument] = value
        self.scale *= times
        self.region(loop.body, flow)
        self.scale //= times
        return [r[following] for _, _, following, _ in loop.carried]

    def bounded(self, loop: Repetition, number: int, mask: np.ndarray | None) -> None:
        """Raises Fault for a loop without end."""
        run: Run = self.registers[RUN]
        if number > run.max_steps:
            raise run.endless(loop.instruction.place, mask)
