"""How long a program takes: an event simulation of the five in-order queues. It never touches a value.

The front end issues commands in program order and stalls at a full queue. The head of a queue starts when
the completions it waits for have happened. Running commands share the DRAM's bandwidth and the SRAM's banks:
where they ask for more than there is, all that use it slow down alike. A DMA channel asks DRAM for its next
transfer while the last one flows, so latency shows only where a channel was idle or had to wait.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..dialects.npu import ENGINE_OF, Queue
from ..errors import Fault
from .cost import Work, cost_of
from .executable import Executable
from .machine import Machine

_EPSILON = 1e-9


class LayerTime(NamedTuple):
    """A layer's share. Each moment belongs to the oldest command running, so shares add up to the whole."""

    cycles: float
    macs: int
    dram_bytes_read: int
    dram_bytes_written: int


@dataclass(frozen=True)
class Timing:
    """The result of a simulation."""

    program: Executable
    cycles: int
    seconds: float
    dram_bytes_read: int
    dram_bytes_written: int
    macs: int
    utilisation: float
    """macs / (cycles · peak of the MAC array)."""
    busy_cycles: Mapping[str, int]
    """By engine; `dma` counts the time in which a load, a store or both run (their union)."""
    layers: Mapping[str, LayerTime]
    start: NDArray[np.float64]
    """[commands]: cycle at which each command got its engine."""
    end: NDArray[np.float64]
    """[commands]: cycle of its completion."""


def simulate(program: Executable) -> Timing:
    """Run the program through time. Raises Fault on a deadlock."""
    work = [cost_of(command, program.machine, program.prepared) for command in program.commands]
    simulation = _Simulation(program, work)
    simulation.run()
    return _summary(program, work, simulation)


def _summary(program: Executable, work: list[Work], simulation: _Simulation) -> Timing:
    machine = program.machine
    cycles = math.ceil(simulation.now - _EPSILON * max(1.0, simulation.now))
    macs = sum(w.macs for w in work)
    return Timing(
        program=program,
        cycles=cycles,
        seconds=cycles / machine.clock_hz,
        dram_bytes_read=sum(w.dram_bytes_read for w in work),
        dram_bytes_written=sum(w.dram_bytes_written for w in work),
        macs=macs,
        utilisation=macs / (cycles * machine.macs_per_cycle) if cycles else 0.0,
        busy_cycles={engine: round(time) for engine, time in simulation.busy.items()},
        layers=_by_layer(program, work, simulation.credit),
        start=np.array(simulation.start),
        end=np.array(simulation.end),
    )


def _by_layer(program: Executable, work: list[Work], credit: list[float]) -> dict[str, LayerTime]:
    layers: dict[str, LayerTime] = {}
    nothing = LayerTime(0.0, 0, 0, 0)
    for index, (w, cycles) in enumerate(zip(work, credit)):
        name = program.layer_of(index)
        so_far = layers.get(name, nothing)
        layers[name] = LayerTime(
            so_far.cycles + cycles, so_far.macs + w.macs,
            so_far.dram_bytes_read + w.dram_bytes_read, so_far.dram_bytes_written + w.dram_bytes_written,
        )  # fmt: skip
    return layers


class _Running:
    """A command on its engine, or a transfer whose request is under way."""

    __slots__ = ("dram_rate", "index", "latency", "left", "queue", "sram_rate")

    def __init__(self, index: int, queue: Queue, work: Work):
        self.index, self.queue = index, queue
        self.latency = float(work.latency)
        self.left = float(work.cycles - work.latency)
        # What it takes from DRAM and SRAM in each cycle at full speed.
        self.dram_rate = work.dram_bytes_occupied / self.left
        self.sram_rate = work.sram_bytes / self.left


class _Server:
    """What runs one command at a time: an engine, or a DMA channel with the queues it serves."""

    def __init__(self, queues: tuple[Queue, ...], engine: str):
        self.queues, self.engine = queues, engine
        self.asks_ahead = engine == "dma"
        self.current: _Running | None = None
        self.requested: _Running | None = None


def _servers(machine: Machine) -> list[_Server]:
    dma = [(Queue.LOAD,), (Queue.STORE,)] if machine.dma_channels == 2 else [(Queue.LOAD, Queue.STORE)]
    others = [q for q in Queue if ENGINE_OF[q] != "dma"]
    return [_Server(queues, "dma") for queues in dma] + [_Server((q,), ENGINE_OF[q]) for q in others]


class _Simulation:
    """The state of the machine between two events."""

    def __init__(self, program: Executable, work: list[Work]):
        self.program, self.work = program, work
        self.commands, self.machine = program.commands, program.machine
        self.servers = _servers(self.machine)
        self.sram_bandwidth = self.machine.sram_banks * self.machine.sram_bytes_per_cycle
        self.waiting: list[deque[int]] = [deque() for _ in Queue]  # issued, not started
        self.unfinished = [0] * len(Queue)  # issued, not completed
        self.completed = [0] * len(Queue)
        self.issued = 0
        self.now = 0.0
        self.start = [0.0] * len(work)
        self.end = [0.0] * len(work)
        self.credit = [0.0] * len(work)
        self.busy = dict.fromkeys(ENGINE_OF.values(), 0.0)

    def run(self) -> None:
        """Until the last command has completed."""
        finished, total = 0, len(self.work)
        while finished < total:
            self._issue()
            self._start()
            done = self._advance()
            if not done:
                raise Fault(self._deadlock(finished))
            for server in done:
                self._complete(server)
            finished += len(done)

    def _issue(self) -> None:
        depth, total = self.machine.queue_depth, len(self.work)
        while self.issued < total:
            queue = self.commands[self.issued].queue
            if self.unfinished[queue] >= depth:
                return
            self.unfinished[queue] += 1
            self.waiting[queue].append(self.issued)
            self.issued += 1

    def _start(self) -> None:
        for server in self.servers:
            if server.current is None and server.requested is not None:
                server.current, server.requested = server.requested, None
                self.start[server.current.index] = self.now
            if server.current is None:
                server.current = self._take(server)
                if server.current is not None:
                    self.start[server.current.index] = self.now
            if server.current is not None and server.requested is None and server.asks_ahead:
                server.requested = self._take(server)

    def _take(self, server: _Server) -> _Running | None:
        """The oldest command at the head of the server's queues that need not wait."""
        best: Queue | None = None
        for queue in server.queues:
            waiting = self.waiting[queue]
            ready = waiting and self._ready(waiting[0])
            if ready and (best is None or waiting[0] < self.waiting[best][0]):
                best = queue
        if best is None:
            return None
        index = self.waiting[best].popleft()
        return _Running(index, best, self.work[index])

    def _ready(self, index: int) -> bool:
        completed = self.completed
        return all(done >= count for done, count in zip(completed, self.commands[index].waits))

    def _advance(self) -> list[_Server]:
        """Move time on until a command completes; the servers whose command did."""
        while active := [s for s in self.servers if s.current is not None]:
            flowing = [s.current for s in active if s.current is not None and s.current.latency <= 0]
            dram, sram = self._slowdown(flowing)
            step = self._step(active, dram, sram)
            self._pass(active, step, dram, sram)
            done = [s for s in active if s.current is not None and s.current.left <= _EPSILON]
            if done:
                return done
        return []

    def _slowdown(self, flowing: list[_Running]) -> tuple[float, float]:
        """The factors by which users of DRAM and of SRAM run slower than alone."""
        dram = sum(r.dram_rate for r in flowing)
        sram = sum(r.sram_rate for r in flowing)
        dram_bandwidth = self.machine.dram_bytes_per_cycle
        return (
            dram_bandwidth / dram if dram > dram_bandwidth else 1.0,
            self.sram_bandwidth / sram if sram > self.sram_bandwidth else 1.0,
        )

    def _step(self, active: list[_Server], dram: float, sram: float) -> float:
        """Time until something running changes: a latency is over or a command done."""
        step = math.inf
        for server in active:
            running = server.current
            assert running is not None
            if running.latency > 0:
                step = min(step, running.latency)
            else:
                step = min(step, running.left / _speed(running, dram, sram))
        return step

    def _pass(self, active: list[_Server], step: float, dram: float, sram: float) -> None:
        """`step` cycles go by."""
        self.now += step
        oldest = min(s.current.index for s in active if s.current is not None)
        self.credit[oldest] += step
        for engine in {s.engine for s in active}:
            self.busy[engine] += step
        for server in active:
            running = server.current
            assert running is not None
            if running.latency > 0:
                running.latency = _settle(running.latency - step)
            else:
                running.left -= step * _speed(running, dram, sram)
            if server.requested is not None:
                server.requested.latency = _settle(server.requested.latency - step)

    def _complete(self, server: _Server) -> None:
        running = server.current
        assert running is not None
        self.end[running.index] = self.now
        self.completed[running.queue] += 1
        self.unfinished[running.queue] -= 1
        server.current = None

    def _deadlock(self, finished: int) -> str:
        heads = [w[0] for w in self.waiting if w]
        stuck = min(heads) if heads else self.issued
        command, layer = self.commands[stuck], self.program.layer_of(stuck)
        wanted = [
            f"{count} completions of {Queue(q).name.lower()}, which has {self.completed[q]}"
            for q, count in enumerate(command.waits)
            if count > self.completed[q]
        ]
        return (
            f"the program deadlocks after {finished} of {len(self.work)} commands: command {stuck} "
            f"({command.cls.name}, layer '{layer}') waits for {' and '.join(wanted)}"
        )


def _speed(running: _Running, dram: float, sram: float) -> float:
    speed = dram if running.dram_rate else 1.0
    return min(speed, sram) if running.sram_rate else speed


def _settle(latency: float) -> float:
    return latency if latency > _EPSILON else 0.0
