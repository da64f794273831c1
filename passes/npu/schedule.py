"""npu-schedule: from buffers with addresses to address form, where tokens are the only values left.

Walking in program order, each instruction gets tokens of just those earlier ones that it conflicts with (one
of both writes, bytes overlap) and that neither its own queue's order nor another token already puts before
it:
vector clocks over the queues, last accesses byte by byte.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from xdsl.dialects.builtin import ArrayAttr, FunctionType, ModuleOp
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Block, Operation, SSAValue

from ...dialects.nacre import BlobAttr, SourceAttr, sources_of
from ...dialects.npu import WRITE, Instruction, Queue, Region, Space, buffer_type, dense_region, itemsize
from ...dialects.npu_instructions import (
    AllocOp,
    ConstantOp,
    DataOp,
    KernelOp,
    LaunchOp,
    LoadOp,
    ReshapeOp,
    StoreOp,
    TensorOp,
    ViewOp,
    layout_of,
)
from ...runtime.interpreter import main_function
from ...runtime.isa import QUEUES
from ..base import NacrePass
from .form import ADDRESS, TILE, require_form, set_form
from .lifetimes import address_of
from .target import machine_of

DMA_RANK = 4
"""Axes of a strided copy that the DMA takes at once."""


@dataclass(frozen=True)
class SchedulePass(NacrePass):
    """Turn placed buffers into regions and data flow into tokens."""

    name = "npu-schedule"
    target: str | None = None

    def run(self, module: ModuleOp) -> None:
        require_form(module, TILE, self.name)
        machine = machine_of(module, self.target)
        function = main_function(module)
        old = function.body.block
        block = Block()
        _data(function, block)
        writers: dict[SSAValue, list[tuple[int, Region]]] = {}
        count = 0
        total = int(module.attributes["npu.dram_bytes"].value.data)  # type: ignore[attr-defined]
        constants = int(module.attributes["npu.constant_bytes"].value.data)  # type: ignore[attr-defined]
        tokens = Tokens(machine.sram_bytes, constants, total)
        kernels = [op for op in module.ops if isinstance(op, KernelOp)]
        functions = {op.sym_name.data: op.function.data for op in kernels}
        for op in list(old.ops):
            if isinstance(op, Instruction):
                for made in _in_address_form(op):
                    after = tokens.add(made)
                    fields = op.fields()
                    if isinstance(op, LaunchOp):
                        fields["kernel"] = functions[fields["kernel"]]
                    placed = type(op).make(made.ports, after, location=op.location, **fields)
                    placed.attributes |= op.attributes
                    tokens.done(placed)
                    block.add_op(placed)
                    for root, region in _written(op, made):
                        writers.setdefault(root, []).append((count, region))
                    count += 1
        for op in old.ops:
            if (tensor := _tensor(op, writers)) is not None:
                block.add_op(tensor)
        block.add_op(ReturnOp())
        function.body.detach_block(old)
        function.body.add_block(block)
        function.function_type = FunctionType.from_lists([], [])
        function.arg_attrs = ArrayAttr([])
        for op in reversed(list(old.ops)):
            op.detach()
            op.erase(safe_erase=False)
        for op in kernels:  # what they say served tiling
            op.detach()
            op.erase()
        set_form(module, ADDRESS)


def _data(function: FuncOp, block: Block) -> None:
    """Inputs, outputs and constants as data ops."""
    assert function.arg_attrs is not None
    for argument, attributes in zip(function.args, function.arg_attrs):
        type_ = buffer_type(argument)
        region = dense_region(Space.DRAM, address_of(argument), type_.shape, type_.element)
        block.add_op(DataOp.of(attributes.data["nacre.name"].data, attributes.data["npu.kind"].data, region))  # type: ignore[attr-defined]
    for index, op in enumerate(o for o in function.body.block.ops if isinstance(o, ConstantOp)):
        type_ = buffer_type(op.result)
        region = dense_region(Space.DRAM, address_of(op.result), type_.shape, type_.element)
        name = (op.value.data.name if isinstance(op.value, BlobAttr) else "") or f"constant{index}"
        data = DataOp.of(name, "constant", region, op.value)
        data.location = op.location
        block.add_op(data)


def _tensor(op: Operation, writers: Mapping[SSAValue, list[tuple[int, Region]]]) -> Operation | None:
    """Where a source tensor can be found, and after which instruction, for the debug map."""
    if not isinstance(op, (AllocOp, ViewOp, ReshapeOp)) or not (sources := sources_of(op.results[0])):
        return None
    if 0 in buffer_type(op.results[0]).shape:  # nothing to look at, and no address where nothing reads it
        return None
    region = region_of(op.results[0])
    stores = writers.get(layout_of(op.results[0]).root, [])
    touching = [
        i
        for i, r in stores
        if r.address < region.address + region.extent and region.address < r.address + r.extent
    ]
    tensor = TensorOp.of(region, max(touching, default=-1), SourceAttr(sources))
    tensor.location = op.location
    return tensor


def _written(op: Instruction, made: Placed) -> Iterator[tuple[SSAValue, Region]]:
    """The root buffers an instruction writes, and where."""
    for port in op.PORTS:
        if port.effect is WRITE:
            for value, region in zip(op.buffers(port.name), made.ports.get(port.name, ())):
                yield layout_of(value).root, region


def region_of(value: SSAValue) -> Region:
    """The region of a buffer value whose root has an address."""
    layout, type_ = layout_of(value), buffer_type(value)
    address = address_of(layout.root) + layout.offset
    return Region(type_.space, address, type_.shape, layout.strides, type_.element)


@dataclass
class Placed:
    """An instruction with regions at its ports."""

    op: Instruction
    ports: dict[str, Sequence[Region]]


def _in_address_form(op: Instruction) -> Iterator[Placed]:
    ports = {name: [region_of(v) for v in values] for name, values in op.ports().items()}
    if isinstance(op, (LoadOp, StoreOp)):
        for src, dst in dma_copies(ports["src"][0], ports["dst"][0]):
            yield Placed(op, {"src": [src], "dst": [dst]})
    else:
        yield Placed(op, ports)  # type: ignore[arg-type]


def dma_copies(src: Region, dst: Region) -> Iterator[tuple[Region, Region]]:
    """A copy as copies of at most DMA_RANK axes: axes that run on in both regions are joined first."""
    shape, a, b = _joined(src.shape, src.strides, dst.strides)
    outer = max(len(shape) - DMA_RANK, 0)
    for index in itertools.product(*(range(d) for d in shape[:outer])):
        at = sum(i * s for i, s in zip(index, a)), sum(i * s for i, s in zip(index, b))
        yield (
            Region(src.space, src.address + at[0], shape[outer:], a[outer:], src.element),
            Region(dst.space, dst.address + at[1], shape[outer:], b[outer:], dst.element),
        )


def _joined(shape: Sequence[int], a: Sequence[int], b: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    axes: list[tuple[int, int, int]] = []
    for d, s, t in zip(shape, a, b):
        if d == 1:
            continue
        if axes and axes[-1][1] == s * d and axes[-1][2] == t * d:
            axes[-1] = (axes[-1][0] * d, s, t)
        else:
            axes.append((d, s, t))
    if not axes:
        axes = [(1, a[-1], b[-1])] if shape else []
    return tuple(x[0] for x in axes), tuple(x[1] for x in axes), tuple(x[2] for x in axes)


class Tokens:
    """Which earlier instructions the next one has to wait for.

    For each memory one array: a row for each queue that writes it, then one for each that reads it, a column
    a byte; an entry is the number of that queue's last instruction there.
    """

    def __init__(self, sram_bytes: int, constant_bytes: int, dram_bytes: int):
        # Constants are never written, so nobody waits for them.
        self.base = {Space.SRAM: 0, Space.DRAM: constant_bytes}
        sizes = {Space.SRAM: sram_bytes, Space.DRAM: dram_bytes - constant_bytes}
        self.last = {s: np.zeros((len(WRITERS[s]) + len(READERS[s]), n), np.int32) for s, n in sizes.items()}
        self.count = [0] * QUEUES
        self.clocks: list[list[tuple[int, ...]]] = [[] for _ in range(QUEUES)]
        self.tokens: dict[tuple[int, int], SSAValue] = {}

    def add(self, placed: Placed) -> list[SSAValue]:
        """Account for an instruction and give the tokens it needs."""
        op, queue = placed.op, placed.op.QUEUE
        accesses = [
            (port.effect, region, columns)
            for port in op.PORTS
            for region in placed.ports.get(port.name, ())
            if (columns := self._columns(region)) is not None
        ]
        needed = self._conflicts(accesses, queue)
        clock = list(self.clocks[queue][-1]) if self.clocks[queue] else [0] * QUEUES
        after = []
        # The latest first: what one token implies needs no token of its own.
        for other, number in sorted(needed.items(), key=lambda n: -sum(self.clocks[n[0]][n[1] - 1])):
            if clock[other] < number:
                after.append(self.tokens[other, number])
                clock = [max(x, y) for x, y in zip(clock, self.clocks[other][number - 1])]
        self.count[queue] += 1
        clock[queue] = self.count[queue]
        self.clocks[queue].append(tuple(clock))
        for effect, region, columns in accesses:
            columns[row_of(region.space, queue, effect is WRITE)] = self.count[queue]
        return after

    def done(self, op: Instruction) -> None:
        """Remember the token of the instruction just added."""
        self.tokens[op.QUEUE, self.count[op.QUEUE]] = op.results[0]

    @staticmethod
    def _conflicts(accesses: Sequence[Any], queue: Queue) -> dict[Queue, int]:
        needed: dict[Queue, int] = {}
        for effect, region, columns in accesses:
            writers = WRITERS[region.space]
            queues = writers + READERS[region.space] if effect is WRITE else writers
            latest = columns[: len(queues)].max(axis=tuple(range(1, columns.ndim)))
            for other, number in zip(queues, latest.tolist()):
                if number > needed.get(other, 0) and other is not queue:
                    needed[other] = number
        return needed

    def _columns(self, region: Region) -> np.ndarray | None:
        """The entries of a region's bytes, a row a queue; None for nothing or a constant."""
        start = region.address - self.base[region.space]
        if region.extent == 0 or start < 0:
            return None
        last = self.last[region.space]
        if region.extent == region.nbytes:
            return last[:, start : start + region.extent]
        strides = (last.strides[0], *(s * last.itemsize for s in region.strides), last.itemsize)
        return as_strided(last[:, start:], (len(last), *region.shape, itemsize(region.element)), strides)


WRITERS = {
    Space.SRAM: (Queue.LOAD, Queue.NN, Queue.FABRIC, Queue.PPU), Space.DRAM: (Queue.STORE,),
}  # fmt: skip
READERS = {
    Space.SRAM: (Queue.STORE, Queue.NN, Queue.FABRIC, Queue.PPU), Space.DRAM: (Queue.LOAD,),
}  # fmt: skip


@functools.cache
def row_of(space: Space, queue: Queue, writes: bool) -> int:
    """The row of a queue's accesses to a memory."""
    return WRITERS[space].index(queue) if writes else len(WRITERS[space]) + READERS[space].index(queue)
