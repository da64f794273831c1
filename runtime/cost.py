"""What each hardware instruction costs: one estimate an instruction class, as execute.py has its definition.

    @cost(npu.ClampOp)
    def clamp(f, r, machine, kernel): return Work(cycles=…)

An estimate says what the engine itself needs. What registers it adds the memories, alike for all classes:
bytes moved, DRAM latency and bursts, and that no instruction outruns its bytes through SRAM port or DRAM.
Costs never look at values, so the time of a program does not depend on its input.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ..dialects import npu_instructions as npu
from ..dialects.npu import READ, Instruction, Region, Space, itemsize
from ..dialects.npu_instructions import PoolKind, ResizeKind
from . import ppu
from .isa import Command
from .machine import Machine
from .ppu import Kernel

Regions = Mapping[str, tuple[Region, ...]]

LAUNCH_CYCLES = 32
"""Cycles the programmable engine needs to start a kernel: assumed."""


class Work(NamedTuple):
    """What an instruction asks of the machine when nothing else runs."""

    cycles: int
    """From start to completion, latency included."""
    macs: int = 0
    """Multiplications of the MAC array that the layer asks for, idle lanes not counted."""
    dram_bytes_read: int = 0
    dram_bytes_written: int = 0
    dram_bytes_occupied: int = 0
    """Bytes the DRAM is busy with: both directions, each contiguous run rounded up to bursts."""
    sram_bytes: int = 0
    """Bytes through the engine's SRAM port, both directions."""
    latency: int = 0
    """The part of `cycles` before the first byte of DRAM arrives."""


Cost = Callable[[Any, Regions, Machine, Kernel | None], Work]
COST: dict[type[Instruction], Cost] = {}
"""(fields, regions by port, machine, kernel of a launch) -> Work, by instruction class."""


def cost(*instructions: type[Instruction]) -> Callable[[Cost], Cost]:
    """Register what the engine needs for instruction classes. ValueError if a class has a cost already."""

    def register(function: Cost) -> Cost:
        for instruction in instructions:
            if instruction in COST:
                raise ValueError(f"{instruction.name} has a cost already")
            COST[instruction] = functools.partial(_with_memories, instruction, function)
        return function

    return register


def cost_of(command: Command, machine: Machine, kernels: Mapping[str, Kernel]) -> Work:
    """The work of a decoded instruction; `kernels` are the program's, by symbol."""
    kernel = kernels[command.fields.kernel] if command.cls is npu.LaunchOp else None
    return COST[command.cls](command.fields, command.regions, machine, kernel)


def _ceil(a: int, b: int) -> int:
    return -(-a // b)


# --- memories --------------------------------------------------------------------------------------------
def _with_memories(
    cls: type[Instruction], engine: Cost, f: Any, r: Regions, machine: Machine, kernel: Kernel | None
) -> Work:
    own = engine(f, r, machine, kernel)
    read = written = occupied = on_chip = 0
    for name, regions in r.items():
        reading = cls.PORT[name].effect is READ
        for region in regions:
            if region.space is Space.SRAM:
                on_chip += region.nbytes
                continue
            occupied += burst_bytes(region, machine.dram_burst)
            if reading:
                read += region.nbytes
            else:
                written += region.nbytes
    port_cycles = _ceil(on_chip, machine.sram_bytes_per_cycle)
    flowing = max(own.cycles, 1, port_cycles, math.ceil(occupied / machine.dram_bytes_per_cycle))
    latency = machine.dram_latency if occupied else 0
    return Work(latency + flowing, own.macs, read, written, occupied, on_chip, latency)


def burst_bytes(region: Region, burst: int) -> int:
    """Bytes that DRAM moves for a region: each contiguous run rounded up to bursts."""
    count, size = contiguous_runs(region)
    return count * _ceil(size, burst) * burst


@functools.lru_cache(maxsize=65536)
def _runs(shape: tuple[int, ...], strides: tuple[int, ...], item: int) -> tuple[int, int]:
    if 0 in shape:
        return 0, 0
    size = item
    for axis in reversed(range(len(shape))):
        if shape[axis] == 1 or strides[axis] == size:
            size *= shape[axis]
        else:
            return math.prod(shape[: axis + 1]), size
    return 1, size


def contiguous_runs(region: Region) -> tuple[int, int]:
    """How many contiguous runs a region consists of in the order of its axes, and the bytes of each."""
    return _runs(region.shape, region.strides, itemsize(region.element))


@cost(npu.LoadOp, npu.StoreOp)
def transfer(f: Any, r: Regions, machine: Machine, kernel: Kernel | None) -> Work:
    """DMA: the memories alone set the pace."""
    return Work(0)


# --- NN engine -------------------------------------------------------------------------------------------
def _passes(r: Regions) -> int:
    """8-bit multiplications an own multiplication takes: 1, 2 for 16 × 8 bits, 4 for 16 × 16."""
    return itemsize(r["ifm"][0].element) * itemsize(r["weight"][0].element)


def _on_array(array_cycles: int, outputs: int, machine: Machine) -> int:
    """The output stage finishes a column's results beside the array; the pipeline fills once."""
    return max(array_cycles, _ceil(outputs, machine.mac_columns)) + machine.mac_rows + machine.mac_columns


def window_count(size: int, kernel: int, stride: int, dilation: int, padding: int) -> int:
    """Positions of a window along an axis."""
    return (size + padding - (kernel - 1) * dilation - 1) // stride + 1


def _positions(f: Any, r: Regions) -> int:
    """Output pixels of a convolution before any fused pooling."""
    n, h, w, _ = r["ifm"][0].shape
    kh, kw = r["weight"][0].shape[:2]
    rows = window_count(h, kh, f.stride_h, f.dilation_h, f.pad_top + f.pad_bottom)
    columns = window_count(w, kw, f.stride_w, f.dilation_w, f.pad_left + f.pad_right)
    return n * rows * columns


def _pooling(f: Any, r: Regions) -> int:
    """Comparisons of a fused pooling."""
    if f.pool == PoolKind.NONE:
        return 0
    return math.prod(r["ofm"][0].shape) * f.pool_window[0] * f.pool_window[1]


@cost(npu.ConvOp)
def conv(f: Any, r: Regions, machine: Machine, kernel: Kernel | None) -> Work:
    """A cycle takes mac_rows input channels for mac_columns output channels of one tap."""
    kh, kw, ci, co = r["weight"][0].shape
    pixels = _positions(f, r)
    blocks = _ceil(ci, machine.mac_rows) * _ceil(co, machine.mac_columns)
    cycles = pixels * kh * kw * blocks * _passes(r)
    return Work(_on_array(cycles, pixels * co + _pooling(f, r), machine), pixels * kh * kw * ci * co)


@cost(npu.DepthwiseOp)
def depthwise(f: Any, r: Regions, machine: Machine, kernel: Kernel | None) -> Work:
    """A cycle takes depthwise_macs channels of one tap."""
    kh, kw, channels, filters = r["weight"][0].shape
    pixels, outputs = _positions(f, r), channels * filters
    cycles = pixels * kh * kw * _ceil(outputs, machine.depthwise_macs) * _passes(r)
    return Work(_on_array(cycles, pixels * outputs + _pooling(f, r), machine), pixels * kh * kw * outputs)


@cost(npu.MatmulOp)
def matmul(f: Any, r: Regions, machine: Machine, kernel: Kernel | None) -> Work:
    """A row of the product is a pixel of a 1 × 1 convolution."""
    outputs = math.prod(r["ofm"][0].shape)
    inner, filters = r["weight"][0].shape[-2:]
    rows = outputs // filters if filters else 0
    blocks = _ceil(inner, machine.mac_rows) * _ceil(filters, machine.mac_columns)
    return Work(_on_array(rows * blocks * _passes(r), outputs, machine), outputs * inner)


# --- fabric ----------------------------------------------------------------------------------------------
def _largest(r: Regions) -> int:
    """Bytes at the port that has most."""
    return max(region.nbytes for regions in r.values() for region in regions)


@cost(
    npu.CopyOp, npu.TransposeOp, npu.FillOp, npu.PadOp, npu.AverageOp, npu.AddOp, npu.MulOp, npu.RequantiseOp,
    npu.TableOp, npu.ClampOp, npu.ExtremumOp,
)  # fmt: skip
def elementwise(f: Any, r: Regions, machine: Machine, kernel: Kernel | None) -> Work:
    """fabric_lanes bytes of the widest operand or result a cycle."""
    return Work(_ceil(_largest(r), machine.fabric_lanes))


@cost(npu.PoolOp, npu.PoolSumOp)
def pool(f: Any, r: Regions, machine: Machine, kernel: Kernel | None) -> Work:
    """Each window takes its elements one after the other, fabric_lanes channels side by side."""
    taken = math.prod(r["ofm"][0].shape) * f.kernel_h * f.kernel_w * itemsize(r["ifm"][0].element)
    return Work(_ceil(max(taken, _largest(r)), machine.fabric_lanes))


@cost(npu.ResizeOp)
def resize(f: Any, r: Regions, machine: Machine, kernel: Kernel | None) -> Work:
    """One neighbour an output, four for a bilinear one."""
    taken = r["ofm"][0].nbytes * (4 if f.kind == ResizeKind.BILINEAR else 1)
    return Work(_ceil(max(taken, _largest(r)), machine.fabric_lanes))


# --- programmable engine ---------------------------------------------------------------------------------
@cost(npu.QuantiseOp, npu.DequantiseOp, npu.ConvertOp)
def convert(f: Any, r: Regions, machine: Machine, kernel: Kernel | None) -> Work:
    """ppu_lanes elements a cycle."""
    return Work(_ceil(math.prod(r["src"][0].shape), machine.ppu_lanes))


@cost(npu.LaunchOp)
def launch(f: Any, r: Regions, machine: Machine, kernel: Kernel | None) -> Work:
    """What the engine needs for the kernel's instructions, wave by wave of its lanes."""
    assert kernel is not None, "a launch is costed together with its kernel"
    return Work(LAUNCH_CYCLES + launch_cost(f, kernel, machine).cycles)


def launch_cost(f: Any, kernel: Kernel, machine: Machine) -> ppu.Cost:
    """Cycles, instructions and divergence of a launch. Its numbers count, its buffers don't."""
    pointers = len(kernel.types) - len(f.scalars)
    return ppu.cost(kernel, [None] * pointers + list(f.scalars), f.grid, machine.ppu_lanes)
