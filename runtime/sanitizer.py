"""What is wrong with a program whatever it computes: races, unwritten bytes, bounds, constants, overflow.

`check` needs no run: control flow is static, so the regions and wait counts say everything. It follows queue
order and waits with vector clocks and keeps, byte for byte, who wrote and read last. `checked` wraps the
definitions of the NN engine so that a run also finds accumulators that overflow. One instruction is atomic
here: it may write over what it reads.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..dialects import npu_instructions as npu
from ..dialects.npu import READ, Instruction, Port, Queue, Region, Space, itemsize
from ..errors import Fault
from .executable import Executable
from .execute import EXECUTE, Execute, launch_kernel
from .fixed_point import Rounding, full_range
from .kernels.quantised_conv import conv2d_accumulate, depthwise_accumulate, matmul_accumulate

_QUEUES = len(Queue)
_BLOCK = 256
"""Bytes that share a summary: most accesses are settled by it, without a look at their bytes."""


def check(program: Executable) -> None:
    """Look at every access of a program. Raises Fault at the first thing wrong, with commands and layers."""
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


class _Use(NamedTuple):
    """A command's access to a region. No memory: the constants."""

    command: int
    port: Port
    region: Region
    memory: _Memory | None
    access: _Access

    @property
    def reading(self) -> bool:
        return self.port.effect is READ


class _Checker:
    def __init__(self, program: Executable):
        self.program = program
        self.constant_bytes = len(program.constants)
        self.sram = _Memory("SRAM", program.machine.sram_bytes)
        self.arena = _Memory("DRAM arena", program.arena_bytes)
        self.queues: list[list[int]] = [[] for _ in Queue]  # indices of commands
        self.clocks: list[list[Clock]] = [[] for _ in Queue]  # after each of them

    def run(self) -> None:
        self._check_capacity()
        self._bind_inputs()
        for index, command in enumerate(self.program.commands):
            queue = command.queue
            clock = self._clock(index, queue, command.waits)
            position = len(self.queues[queue]) + 1
            uses = list(self._uses(index))
            for use in uses:
                self._check_use(use, queue, clock)
            for use in uses:
                self._record(use, queue, position)
            self.queues[queue].append(index)
            self.clocks[queue].append((*clock[:queue], position, *clock[queue + 1 :]))
        self._check_outputs()

    def _check_capacity(self) -> None:
        wanted, machine = self.program.dram_bytes, self.program.machine
        if wanted > machine.dram_bytes:
            has = f"machine '{machine.name}' has {machine.dram_bytes}"
            raise Fault(f"the program needs {wanted} bytes of DRAM, {has}")

    def _bind_inputs(self) -> None:
        for name, region in self.program.inputs:
            memory, access = self._locate(region, f"input '{name}'")
            if memory is None:
                raise Fault(f"input '{name}' at {region} lies among the constants")
            if access is not None:
                memory.mark_written(access)
                memory.inputs.append((name, access))

        for name, region in self.program.states:
            memory, access = self._locate(region, f"state '{name}'")
            if memory is None:
                raise Fault(f"state '{name}' at {region} lies among the constants")
            if access is not None:
                memory.mark_written(access)  # by the run before, or when the program is loaded

    def _check_outputs(self) -> None:
        for name, region in self.program.outputs:
            memory, access = self._locate(region, f"output '{name}'")
            missing = memory.unwritten(access) if memory is not None and access is not None else 0
            if missing:
                told = f"{missing} of {region.nbytes} bytes are never written"
                raise Fault(f"output '{name}' at {region}: {told}")

    # -- order
    def _clock(self, index: int, queue: Queue, waits: Sequence[int]) -> Clock:
        """What is complete for certain when the command starts."""
        clock = self.clocks[queue][-1] if self.queues[queue] else (0,) * _QUEUES
        for other, count in enumerate(waits):
            issued = len(self.queues[other])
            if count > issued:
                raise Fault(
                    f"{where(self.program, index)} waits for {count} completions of queue "
                    f"{Queue(other).name.lower()}, but {issued} are issued before it: the program deadlocks"
                )
            if count > clock[other]:
                clock = tuple(map(max, clock, self.clocks[other][count - 1]))
        return clock

    # -- places
    def _uses(self, index: int) -> Iterator[_Use]:
        for port, region in self.program.commands[index].accesses():
            try:
                memory, access = self._locate(region)
            except Fault as fault:
                raise Fault(f"{where(self.program, index)}, port '{port.name}': {fault}") from None
            if access is not None:
                yield _Use(index, port, region, memory, access)

    def _locate(self, region: Region, who: str = "") -> tuple[_Memory | None, _Access | None]:
        """The memory (None: the constants) and the bytes (None: there are none). Fault when out of bounds."""
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
            who = f"{who}: " if who else ""
            raise Fault(f"{who}{region} reaches outside the {name} of {size} bytes")
        return memory, _Access(start, stop, found)

    # -- accesses
    def _check_use(self, use: _Use, queue: Queue, clock: Clock) -> None:
        if use.memory is None:
            if not use.reading:
                raise Fault(f"{self._told(use)}, which lies among the constants")
            return
        if use.reading:
            self._check_written(use, use.memory)
        else:
            self._check_inputs(use, use.memory)
            self._check_order(use, queue, clock, use.memory.readers, "reads")
        self._check_order(use, queue, clock, use.memory.writers, "writes")

    def _check_written(self, use: _Use, memory: _Memory) -> None:
        missing = memory.unwritten(use.access)
        if missing:
            raise Fault(f"{self._told(use)}: {missing} of {use.region.nbytes} bytes were never written")

    def _check_inputs(self, use: _Use, memory: _Memory) -> None:
        for name, other in memory.inputs:
            near = use.access.start < other.stop and other.start < use.access.stop
            if near and _touches(memory.size, use.access, other):
                raise Fault(f"{self._told(use)}, over the input '{name}'")

    def _check_order(
        self, use: _Use, queue: Queue, clock: Clock, table: dict[Queue, _Marks], verb: str
    ) -> None:
        for other, marks in table.items():
            position = 0 if other is queue else marks.beyond(use.access, clock[other])
            if position:
                earlier = where(self.program, self.queues[other][position - 1])
                raise Fault(f"{self._told(use)}, which {earlier} {verb} with no wait ordering the two")

    def _record(self, use: _Use, queue: Queue, position: int) -> None:
        if use.memory is None:
            return
        table = use.memory.readers if use.reading else use.memory.writers
        use.memory.mark(table, queue, use.access, position)
        if not use.reading:
            use.memory.mark_written(use.access)

    def _told(self, use: _Use) -> str:
        verb = "reads" if use.reading else "writes"
        return f"{where(self.program, use.command)} {verb} {use.region} at port '{use.port.name}'"


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
def checked(cls: type[Instruction], who: str) -> Execute:
    """The definition of an instruction, which first looks whether its accumulators hold; kernels look for races.

    `who` names the command in messages. Raises Fault when it runs on values that overflow: 32 bits, or the 48
    that ACC64 takes of 64. What 16-bit factors sum up to otherwise is far from 64 bits.
    """
    execute = EXECUTE[cls]
    if cls is npu.LaunchOp:
        return functools.partial(launch_kernel, sanitize=True)
    if cls not in _ACCUMULATE:
        return execute

    def run(f: Any, p: Any) -> None:
        if p.ifm.dtype.itemsize == p.weight.dtype.itemsize == 1:
            _check_accumulators(cls, f, p, who, 32)
        elif p.multiplier is not None and f.rounding == Rounding.ACC64:
            _check_accumulators(cls, f, p, who, 48)
        execute(f, p)

    return run


def _check_accumulators(cls: type[Instruction], f: Any, p: Any, who: str, bits: int) -> None:
    limit = 2 ** (bits - 1) - 1
    added = [x.astype(np.int64) for x in (p.acc, p.bias) if x is not None]
    product = _largest(p.ifm, f.ifm_zero) * _largest(p.weight, f.weight_zero)
    bound = _reduction(cls, p) * product + sum(int(np.abs(x).max(initial=0)) for x in added)
    if bound <= limit:
        return  # no values of these types overflow
    total = sum(added, _ACCUMULATE[cls](f, p))
    high, low = int(total.max(initial=0)), int(total.min(initial=0))
    if high > limit or low < -limit - 1:
        worst = high if high > limit else low
        raise Fault(f"{who}: an accumulator reaches {worst}, which {bits} bits do not hold")


def _largest(array: NDArray[np.integer], zero: int) -> int:
    low, high = full_range(array.dtype)
    return max(abs(low - zero), abs(high - zero))


def _reduction(cls: type[Instruction], p: Any) -> int:
    """How many products an accumulator sums."""
    shape = p.weight.shape
    if cls is npu.MatmulOp:
        return shape[-2]
    return math.prod(shape[:2] if cls is npu.DepthwiseOp else shape[:3])


# The kernels accumulate 16-bit feature maps in 64 bits, so widening the ifm gives the true sums.
def _conv(f: Any, p: Any) -> NDArray[np.integer]:
    return conv2d_accumulate(p.ifm.astype(np.int16), p.weight, **_window(f))


def _depthwise(f: Any, p: Any) -> NDArray[np.integer]:
    return depthwise_accumulate(p.ifm.astype(np.int16), p.weight, **_window(f))


def _matmul(f: Any, p: Any) -> NDArray[np.integer]:
    return matmul_accumulate(p.ifm.astype(np.int16), p.weight, f.ifm_zero, f.weight_zero)


def _window(f: Any) -> dict[str, Any]:
    return {
        "strides": (f.stride_h, f.stride_w),
        "pads": (f.pad_top, f.pad_left, f.pad_bottom, f.pad_right),
        "dilations": (f.dilation_h, f.dilation_w),
        "ifm_zero": f.ifm_zero,
        "weight_zero": f.weight_zero,
    }


_ACCUMULATE: dict[type[Instruction], Callable[[Any, Any], NDArray[np.integer]]] = {
    npu.ConvOp: _conv,
    npu.DepthwiseOp: _depthwise,
    npu.MatmulOp: _matmul,
}
