"""The functional emulator: executes decoded commands on the machine's memories, bit for bit.

All views are bound once when the program is loaded; a run allocates nothing in the emulated machine. Time is
none of its business (see timing.py), and what is wrong with a program beyond its bounds is the sanitizer's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from ..dialects.npu import Queue, Region, Space
from ..dialects.npu_instructions import LaunchOp
from ..dialects.types import dtype_of
from ..errors import Fault
from .executable import Executable
from .execute import EXECUTE, Execute, port_arrays
from .isa import Command
from .sanitizer import check, checked, where

Hook = Callable[[int], None]


class Emulator:
    """One machine with one program loaded.

    `sanitize` looks for races, unwritten bytes, bounds and writes to constants when the program is loaded,
    and for accumulators beyond 32 bits in every run; it raises Fault.
    """

    def __init__(self, program: Executable, sanitize: bool = False):
        if sanitize:
            check(program)
        self.program = program
        self._sanitize = sanitize
        self.sram = np.zeros(program.machine.sram_bytes, np.uint8)
        self.arena = np.zeros(program.arena_bytes, np.uint8)
        self._bound = [self._bind(index, command) for index, command in enumerate(program.commands)]
        self.reset()

    def reset(self) -> None:
        """Put the initial values into all states; they stay as a run leaves them until then."""
        for binding in self.program.states:
            self.view(binding.region)[...] = self.program.initial[binding.name]

    def view(self, region: Region) -> np.ndarray:
        """The array at a region. Raises Fault when it leaves the memory or straddles constants and arena."""
        memory, start, name = self._memory(region)
        dtype = dtype_of(region.element)
        if 0 in region.shape:
            return np.empty(region.shape, dtype)
        reach = [(d - 1) * s for d, s in zip(region.shape, region.strides)]  # strides may be negative
        behind = sum(r for r in reach if r > 0) + dtype.itemsize
        if start + sum(r for r in reach if r < 0) < 0 or start + behind > len(memory):
            raise Fault(f"{region} reaches outside the {name} of {len(memory)} bytes")
        return np.ndarray(region.shape, dtype, memory.data, start, region.strides)

    def _memory(self, region: Region) -> tuple[np.ndarray, int, str]:
        if region.space is Space.SRAM:
            return self.sram, region.address, "SRAM"
        constants = self.program.constants
        if region.address < len(constants):
            return constants, region.address, "constants"
        return self.arena, region.address - len(constants), "DRAM arena"

    def _bind(self, index: int, command: Command) -> tuple[Callable[[Any, Any], None], Any, Any]:
        try:
            arrays = {n: [self.view(r) for r in regions] for n, regions in command.regions.items()}
        except Fault as fault:
            raise Fault(f"{where(self.program, index)}: {fault}") from None
        fields = command.fields
        if command.cls is LaunchOp:
            kernels = self.program.prepared
            if fields.kernel not in kernels:
                raise Fault(f"{where(self.program, index)} launches @{fields.kernel}, which the program does not hold")
            fields = SimpleNamespace(**(vars(fields) | {"kernel": kernels[fields.kernel]}))
        definition = EXECUTE[command.cls]
        if self._sanitize:
            definition = checked(command.cls, where(self.program, index))
        if command.cls is LaunchOp:
            definition = located(definition, where(self.program, index))
        return definition, fields, port_arrays(command.cls, arrays)

    def run(
        self, feeds: Mapping[str, np.ndarray], order: Iterable[int] | None = None, hook: Hook | None = None
    ) -> dict[str, np.ndarray]:
        """One inference: named input arrays in, named output arrays out.

        `order` is another legal order of the commands (see `legal_order`); `hook` is called with each
        command's index after it ran.
        """
        for binding in self.program.inputs:
            self.view(binding.region)[...] = feeds[binding.name]
        bound = self._bound
        for index in range(len(bound)) if order is None else order:
            execute, fields, ports = bound[index]
            execute(fields, ports)
            if hook is not None:
                hook(index)
        return {b.name: self.view(b.region).copy() for b in self.program.outputs}


def located(execute: Execute, who: str) -> Execute:
    """A kernel's faults name its source; this adds the command and its layer."""

    def run(f: Any, p: Any) -> None:
        try:
            execute(f, p)
        except Fault as fault:
            raise Fault(f"{who}: {fault}") from None

    return run


def legal_order(commands: Sequence[Command], rng: np.random.Generator) -> list[int]:
    """A random order that queues and wait counts allow. Raises Fault on a deadlock."""
    queues: dict[Queue, list[int]] = {q: [] for q in Queue}
    for index, command in enumerate(commands):
        queues[command.queue].append(index)
    head = dict.fromkeys(Queue, 0)
    order: list[int] = []
    while len(order) < len(commands):
        ready = [
            q for q in Queue
            if head[q] < len(queues[q])
            and all(head[Queue(w)] >= n for w, n in enumerate(commands[queues[q][head[q]]].waits))
        ]  # fmt: skip
        if not ready:
            raise Fault(f"the program deadlocks after {len(order)} of {len(commands)} commands")
        queue = ready[int(rng.integers(len(ready)))]
        order.append(queues[queue][head[queue]])
        head[queue] += 1
    return order
