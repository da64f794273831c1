"""What is wrong with a program whatever it computes: races, unwritten bytes, bounds, constants, overflow.

`check` needs no run: control flow is static, so the regions and wait counts say everything. It follows queue order
and waits with vector clocks and keeps, byte for byte, who wrote and read last. `checked` wraps the definitions of
the NN engine so that a run also finds accumulators beyond 32 bits. One instruction is atomic here: it may write
over what it reads.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..dialects import npu_instructions as npu
from ..dialects.npu import READ, Instruction, Port, Queue, Region, Space, itemsize
from ..errors import Fault
from .executable import Executable
from .execute import EXECUTE, Execute
from .fixed_point import full_range
from .kernels.quantised_conv import conv2d_accumulate, depthwise_accumulate, matmul_accumulate
from .kernels.quantised_pool import pool_sum

_QUEUES = len(Queue)
_BLOCK = 256
"""Bytes that share a summary: most accesses are settled by it, without a look at their bytes."""


def check(program: Executable) -> None:
    """Look at every access of a program. Raises Fault with the commands and layers at the first thing wrong."""
    _Checker(program).run()


# --- which bytes -----------------------------------------------------------------------------------------
class _Footprint(NamedTuple):
    """The bytes of a region, relative to its address: `shape` elements at `strides`, one byte each."""

    low: int
    high: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@functools.lru_cache(maxsize=65536)
def _footprint(shape: tuple[int, ...], strides: tuple[int, ...], item: int) -> _Footprint | None:
    """None for an empty region. Axes are sorted and merged: only the set of bytes counts."""
    if 0 in shape:
        return None
    low = sum((d - 1) * s for d, s in zip(shape, strides) if s < 0)
    axes = sorted((abs(s), d) for d, s in zip(shape, strides) if d > 1 and s != 0)
    merged = [(1, item)]
    for stride, size in axes:
        inner_stride, inner_size = merged[-1]
        if stride == inner_stride * inner_size:
            merged[-1] = (inner_stride, inner_size * size)
        else:
            merged.append((stride, size))
    high = low + 1 + sum((size - 1) * stride for stride, size in merged)
    merged.reverse()
    return _Footprint(low, high, tuple(n for _, n in merged), tuple(s for s, _ in merged))


class _Access(NamedTuple):
    """A footprint at its place in a memory."""

    start: int
    stop: int
    footprint: _Footprint

    @property
    def dense(self) -> bool:
        return len(self.footprint.shape) == 1

    @property
    def blocks(self) -> slice:
        return slice(self.start // _BLOCK, (self.stop - 1) // _BLOCK + 1)

    def of(self, marks: NDArray[Any]) -> NDArray[Any]:
        """The marks of the bytes."""
        if self.dense:
            return marks[self.start : self.stop]
        item, f = marks.itemsize, self.footprint
        strides = tuple(s * item for s in f.strides)
        return np.ndarray(f.shape, marks.dtype, marks.data, self.start * item, strides)


class _Marks:
    """For each byte of a memory the position in one queue of the last command that touched it, 0 for none."""

    def __init__(self, size: int):
        self.bytes = np.zeros(size, np.int32)
        self.latest = np.zeros(-(-size // _BLOCK), np.int32)

    def set(self, access: _Access, position: int) -> None:
        access.of(self.bytes)[...] = position
        self.latest[access.blocks] = position

    def beyond(self, access: _Access, position: int) -> int:
        """The latest position that touched the bytes, if it is after `position`; else 0."""
        if self.latest[access.blocks].max() <= position:
            return 0
        found = int(access.of(self.bytes).max())
        return found if found > position else 0


class _Memory:
    """Shadow of the SRAM or of the DRAM behind the constants."""

    def __init__(self, name: str, size: int):
        self.name, self.size = name, size
        self.writers: dict[Queue, _Marks] = {}
        self.readers: dict[Queue, _Marks] = {}
        self.written = np.zeros(size, np.bool_)
        self.full = np.zeros(-(-size // _BLOCK), np.bool_)
        self.inputs: list[tuple[str, _Access]] = []

    def mark(self, table: dict[Queue, _Marks], queue: Queue, access: _Access, position: int) -> None:
        if queue not in table:
            table[queue] = _Marks(self.size)
        table[queue].set(access, position)

    def mark_written(self, access: _Access) -> None:
        access.of(self.written)[...] = True
        if access.dense:
            self.full[-(-access.start // _BLOCK) : access.stop // _BLOCK] = True

    def unwritten(self, access: _Access) -> int:
        """How many of the bytes nobody wrote."""
        if self.full[access.blocks].all():
            return 0
        written = access.of(self.written)
        return 0 if written.all() else int(written.size - np.count_nonzero(written))


# --- the checker -----------------------------------------------------------------------------------------
Clock = tuple[int, ...]
"""How many commands of each queue are known to be complete."""


class _Checker:
    def __init__(self, program: Executable):
        self.program = program
        self.constant_bytes = len(program.constants)
        self.sram = _Memory("SRAM", program.machine.sram_bytes)
        self.arena = _Memory("DRAM arena", program.arena_bytes)
        self.queues: list[list[int]] = [[] for _ in Queue]  # indices of commands
        self.clocks: list[list[Clock]] = [[] for _ in Queue]  # after each of them

    def run(self) -> None:
        self._bind_inputs()
        for index, command in enumerate(self.program.commands):
            queue = command.queue
            clock = self._clock(index, queue, command.waits)
            position = len(self.queues[queue]) + 1
            accesses = [(port, region, self._place(index, region)) for port, region in command.accesses()]
            for port, region, (memory, access) in accesses:
                self._check_access(index, queue, clock, port, region, memory, access)
            for port, _, (memory, access) in accesses:
                self._record(queue, position, port, memory, access)
            self.queues[queue].append(index)
            self.clocks[queue].append((*clock[:queue], position, *clock[queue + 1 :]))
        self._check_outputs()

    def _bind_inputs(self) -> None:
        for binding in self.program.inputs:
            memory, access = self._locate(binding.region, f"input '{binding.name}'")
            if memory is None:
                raise Fault(f"input '{binding.name}' at {binding.region} lies among the constants")
            if access is not None:
                memory.mark_written(access)
                memory.inputs.append((binding.name, access))

    def _check_outputs(self) -> None:
        for binding in self.program.outputs:
            memory, access = self._locate(binding.region, f"output '{binding.name}'")
            missing = memory.unwritten(access) if memory is not None and access is not None else 0
            if missing:
                total = binding.region.nbytes
                raise Fault(
                    f"output '{binding.name}' at {binding.region}: {missing} of {total} bytes are never written"
                )

    # -- order
    def _clock(self, index: int, queue: Queue, waits: Sequence[int]) -> Clock:
        """What is complete for certain when the command starts."""
        clock = self.clocks[queue][-1] if self.queues[queue] else (0,) * _QUEUES
        for other, count in enumerate(waits):
            if count > len(self.queues[other]):
                raise Fault(
                    f"{self._who(index)} waits for {count} completions of queue {Queue(other).name.lower()}, but "
                    f"only {len(self.queues[other])} are issued before it: the program deadlocks"
                )
            if count > clock[other]:
                clock = tuple(map(max, clock, self.clocks[other][count - 1]))
        return clock

    # -- places
    def _locate(self, region: Region, who: str) -> tuple[_Memory | None, _Access | None]:
        """The memory (None: the constants) and the bytes (None: there are none). Raises Fault out of bounds."""
        found = _footprint(region.shape, region.strides, itemsize(region.element))
        if found is None:
            return self.arena, None
        start, stop = region.address + found.low, region.address + found.high
        memory: _Memory | None = self.sram
        size, name = self.sram.size, self.sram.name
        if region.space is Space.DRAM and start < self.constant_bytes:
            memory, size, name = None, self.constant_bytes, "constants"
        elif region.space is Space.DRAM:
            memory, size, name = self.arena, self.arena.size, self.arena.name
            start, stop = start - self.constant_bytes, stop - self.constant_bytes
        if start < 0 or stop > size:
            raise Fault(f"{who}: {region} reaches outside the {name} of {size} bytes")
        return memory, _Access(start, stop, found)

    def _place(self, index: int, region: Region) -> tuple[_Memory | None, _Access | None]:
        try:
            return self._locate(region, "")
        except Fault as fault:
            raise Fault(f"{self._who(index)}{fault}") from None

    # -- accesses
    def _check_access(
        self, index: int, queue: Queue, clock: Clock, port: Port, region: Region,
        memory: _Memory | None, access: _Access | None,
    ) -> None:  # fmt: skip
        if access is None:
            return
        reading = port.effect is READ
        if memory is None:
            if not reading:
                raise Fault(f"{self._what(index, port, region)}, which lies among the constants")
            return
        if reading:
            self._check_written(index, port, region, memory, access)
        else:
            self._check_inputs(index, port, region, memory, access)
            self._check_order(index, queue, clock, port, region, memory.readers, access, "reads")
        self._check_order(index, queue, clock, port, region, memory.writers, access, "writes")

    def _check_written(
        self, index: int, port: Port, region: Region, memory: _Memory, access: _Access
    ) -> None:
        missing = memory.unwritten(access)
        if missing:
            raise Fault(
                f"{self._what(index, port, region)}: {missing} of {region.nbytes} bytes were never written"
            )

    def _check_inputs(self, index: int, port: Port, region: Region, memory: _Memory, access: _Access) -> None:
        for name, other in memory.inputs:
            near = access.start < other.stop and other.start < access.stop
            if near and _touches(memory.size, access, other):
                raise Fault(f"{self._what(index, port, region)}, over the input '{name}'")

    def _check_order(
        self, index: int, queue: Queue, clock: Clock, port: Port, region: Region,
        table: dict[Queue, _Marks], access: _Access, verb: str,
    ) -> None:  # fmt: skip
        for other, marks in table.items():
            if other is queue:
                continue
            position = marks.beyond(access, clock[other])
            if position:
                earlier = self._who(self.queues[other][position - 1])
                raise Fault(
                    f"{self._what(index, port, region)}, which {earlier} {verb} with no wait ordering the two"
                )

    def _record(
        self, queue: Queue, position: int, port: Port, memory: _Memory | None, access: _Access | None
    ) -> None:
        if memory is None or access is None:
            return
        if port.effect is READ:
            memory.mark(memory.readers, queue, access, position)
        else:
            memory.mark(memory.writers, queue, access, position)
            memory.mark_written(access)

    # -- words
    def _who(self, index: int) -> str:
        return where(self.program, index)

    def _what(self, index: int, port: Port, region: Region) -> str:
        verb = "reads" if port.effect is READ else "writes"
        return f"{self._who(index)} {verb} {region} at port '{port.name}'"


def where(program: Executable, index: int) -> str:
    """A command for messages: `command 3 (npu.conv, layer 'a')`."""
    return f"command {index} ({program.commands[index].cls.name}, layer '{program.layer_of(index)}')"


def _touches(size: int, a: _Access, b: _Access) -> bool:
    """Whether two strided accesses share a byte."""
    if a.dense and b.dense:
        return True  # the caller compared the extents
    marks = np.zeros(size, np.bool_)
    a.of(marks)[...] = True
    return bool(b.of(marks).any())


# --- accumulators ----------------------------------------------------------------------------------------
Accumulate = Callable[[Any, Any], NDArray[np.int64]]
_INT32 = np.iinfo(np.int32)


def checked(cls: type[Instruction], who: str) -> Execute:
    """The definition of an instruction that first looks whether its 32-bit accumulators hold; `who` for messages.

    Raises Fault when run on values that overflow. 16-bit feature maps have 64-bit accumulators.
    """
    execute = EXECUTE[cls]
    if cls not in _ACCUMULATE:
        return execute
    accumulate, reduction = _ACCUMULATE[cls]

    def run(f: Any, p: Any) -> None:
        _check_accumulators(f, p, accumulate, reduction, who)
        execute(f, p)

    return run


def _check_accumulators(f: Any, p: Any, accumulate: Accumulate, reduction: Accumulate, who: str) -> None:
    others = [np.asarray(x, np.int64) for x in (p.acc, getattr(p, "bias", None)) if x is not None]
    if _is_wide(p):
        return
    bound = int(reduction(f, p)) + sum(int(np.abs(x).max(initial=0)) for x in others)
    if bound <= _INT32.max:
        return  # cannot overflow whatever the products are
    total = sum(others, accumulate(f, p).astype(np.int64))
    largest, smallest = int(total.max(initial=0)), int(total.min(initial=0))
    if largest > _INT32.max or smallest < _INT32.min:
        worst = largest if largest > _INT32.max else smallest
        raise Fault(f"{who}: an accumulator reaches {worst}, which 32 bits do not hold")


def _is_wide(p: Any) -> bool:
    weight = getattr(p, "weight", None)
    return p.ifm.dtype.itemsize > 1 if weight is None else max(p.ifm.dtype.itemsize, weight.dtype.itemsize) > 1


def _largest(array: NDArray[Any], zero: int) -> int:
    low, high = full_range(array.dtype)
    return max(abs(low - zero), abs(high - zero))
