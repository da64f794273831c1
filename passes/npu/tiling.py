"""How a layer is cut into tiles: the interface of a tile rule, and the search for the best cut.

A rule describes an instruction's *iteration space*: the axes of its result, then the axes it reduces over. Given
a box of that space it says which box of each port the work touches and which fields change. From that alone the
search knows what fits the SRAM and what it costs to move, and the driver (tile.py) writes the loop.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from xdsl.ir import Attribute, SSAValue

from ...dialects.npu import Instruction, buffer_type, itemsize
from ...dialects.types import i32
from ...errors import MachineError
from ...runtime.machine import Machine

Interval = tuple[int, int]
"""(offset, size) along an axis."""
Box = tuple[Interval, ...]


class Piece(NamedTuple):
    """The part of a layer that belongs to a box of its iteration space: a box a port (a list for a port of
    many), and the fields that differ from the whole layer's."""

    ports: Mapping[str, Box | list[Box]]
    fields: Mapping[str, Any]

    def boxes(self) -> Iterator[tuple[str, int, Box]]:
        """Port, position at the port, box."""
        for name, boxes in self.ports.items():
            for index, box in enumerate(boxes if isinstance(boxes, list) else [boxes]):
                yield name, index, box


@dataclass
class Tiling:
    """A layer as the tile driver sees it.

    extents: sizes of the iteration space, the reduced axes last; reduced: how many those are; whole: axes that
    cannot be cut; output: the port written; acc: element type of partial results.
    """

    op: Instruction
    extents: tuple[int, ...]
    piece: Callable[[Box], Piece]
    reduced: int = 0
    whole: frozenset[int] = frozenset()
    output: str = "ofm"
    acc: Attribute = i32
    macs: Callable[[Box, Machine], int] | None = None
    """Engine cycles of a box, where the shape of a tile matters for them."""
    finish: Callable[[Any, Box, SSAValue, SSAValue], None] | None = None
    """For ops whose partial results another instruction finishes: (emitter, box, acc, ofm)."""
    partial: Callable[[Any, Mapping[str, Any], Mapping[str, Any]], Instruction] | None = None
    """For such ops: builds the partial instruction from ports and fields."""
    single: frozenset[int] = frozenset()
    """Parallel axes that have to be cut to 1 when a reduced axis is cut."""
    order: tuple[int, ...] = field(default=())

    @property
    def parallel(self) -> int:
        """Number of axes that are not reduced."""
        return len(self.extents) - self.reduced

    def element(self, port: str, index: int) -> Attribute:
        """Element type at a port."""
        return buffer_type(self.op.buffers(port)[index]).element

    def box_bytes(self, port: str, index: int, box: Box) -> int:
        """SRAM bytes of a box at a port, rounded up to the allocator's alignment."""
        size = math.prod(n for _, n in box) * itemsize(self.element(port, index))
        return -(-size // ALIGNMENT) * ALIGNMENT


ALIGNMENT = 16
"""SRAM buffers start at multiples of this many bytes."""

RULES: dict[type[Instruction], Callable[[Any], Tiling]] = {}


def tiles(*classes: type[Instruction]) -> Callable[[Callable[[Any], Tiling]], Callable[[Any], Tiling]]:
    """Register the tile rule of instruction classes."""

    def register(rule: Callable[[Any], Tiling]) -> Callable[[Any], Tiling]:
        for cls in classes:
            RULES[cls] = rule
        return rule

    return register


class Cut(NamedTuple):
    """Sizes of a tile along each axis, and the order of the loops from the outside in."""

    sizes: tuple[int, ...]
    order: tuple[int, ...]


class NoFit(MachineError):
    """No tile of a layer fits the SRAM."""


def choose_cut(tiling: Tiling, machine: Machine, budget: int) -> Cut:
    """The cut with the least estimated time among those whose tile takes at most `budget` bytes of SRAM.

    Axes are halved from the outermost; a reduced axis is cut only where nothing else fits. Raises NoFit with the
    bytes that the smallest tile needs.
    """
    parallel = range(tiling.parallel)
    free = [a for a in parallel if a not in tiling.whole]
    reduced = [a for a in range(tiling.parallel, len(tiling.extents)) if a not in tiling.whole]
    smallest = math.inf
    chains = [(free[:-1], free[-1:])] if len(free) > 1 else [(free, [])]
    for reduced_cuts in (_chain(tiling.extents, ()), _chain(tiling.extents, reduced)):
        best: tuple[float, Cut] | None = None
        for outer, inner in chains:
            for a, b, c in itertools.product(
                _chain(tiling.extents, outer), _chain(tiling.extents, inner), list(reduced_cuts)
            ):
                sizes = tuple(min(x, y, z) for x, y, z in zip(a, b, c))
                if c != tiling.extents:
                    sizes = tuple(1 if i in tiling.single else n for i, n in enumerate(sizes))
                need = tile_bytes(tiling, sizes)
                smallest = min(smallest, need)
                if need > budget:
                    continue
                for order in _orders(tiling):
                    time = estimate(tiling, sizes, order, machine)
                    if best is None or time < best[0]:
                        best = time, Cut(sizes, order)
        if best is not None:
            return best[1]
        if not reduced:
            break
    raise NoFit(f"the smallest tile takes {smallest} bytes of SRAM, {budget} are there")


def _chain(extents: tuple[int, ...], axes: Sequence[int]) -> list[tuple[int, ...]]:
    """Cuts that halve the first axis down to 1, then the next: the sizes of all axes, uncut ones whole."""
    cuts = [extents]
    sizes = list(extents)
    for axis in axes:
        while sizes[axis] > 1:
            sizes[axis] = -(-sizes[axis] // 2)
            cuts.append(tuple(sizes))
    return cuts


def _orders(tiling: Tiling) -> list[tuple[int, ...]]:
    """Loop orders worth trying: results in order, or their last axis outermost; reductions always inside."""
    parallel = tuple(range(tiling.parallel))
    reduced = tuple(range(tiling.parallel, len(tiling.extents)))
    if len(parallel) < 2:
        return [parallel + reduced]
    return [parallel + reduced, (parallel[-1], *parallel[:-1], *reduced)]


def tile_bytes(tiling: Tiling, sizes: tuple[int, ...]) -> int:
    """SRAM bytes of one tile in the middle of the layer, where halos are widest."""
    box = _middle(tiling, sizes)
    piece = tiling.piece(box)
    total = sum(tiling.box_bytes(*b) for b in piece.boxes())
    if _is_partial(tiling, sizes):
        total += _acc_bytes(tiling, piece)
    return total


def _is_partial(tiling: Tiling, sizes: tuple[int, ...]) -> bool:
    return sizes[tiling.parallel :] != tiling.extents[tiling.parallel :]


def _acc_bytes(tiling: Tiling, piece: Piece) -> int:
    output = piece.ports[tiling.output]
    boxes = output if isinstance(output, list) else [output]
    size = math.prod(n for _, n in boxes[0]) * itemsize(tiling.acc)
    return -(-size // ALIGNMENT) * ALIGNMENT


def _middle(tiling: Tiling, sizes: tuple[int, ...]) -> Box:
    return tuple((((e - n) // 2), n) for e, n in zip(tiling.extents, sizes))


def estimate(tiling: Tiling, sizes: tuple[int, ...], order: tuple[int, ...], machine: Machine) -> float:
    """Cycles of a layer cut this way: DMA and compute side by side, the slower one counts most."""
    trips = [-(-e // n) for e, n in zip(tiling.extents, sizes)]
    middle = _middle(tiling, sizes)
    piece = tiling.piece(middle)
    moves = {(n, i): (box, dma_bytes(tiling, n, i, box, machine.dram_burst)) for n, i, box in piece.boxes()}
    times = dict.fromkeys(moves, 1)
    for depth, axis in enumerate(order):
        if trips[axis] == 1:
            continue
        other = tuple(
            (0 if a == axis and middle[a][0] else b[0] + (b[1] if a == axis else 0), b[1])
            for a, b in enumerate(middle)
        )
        other = tuple((min(o, e - n), n) for (o, n), e in zip(other, tiling.extents))
        for name, i, box in tiling.piece(other).boxes():
            if (name, i) in moves and box != moves[name, i][0]:
                times[name, i] = math.prod(trips[a] for a in order[: depth + 1])
    outputs = math.prod(trips[: tiling.parallel])
    loads = sum(n for (name, _), n in times.items() if name != tiling.output)
    traffic = sum(
        moves[key][1] * (outputs if key[0] == tiling.output else n) for key, n in times.items()
    )
    dma = traffic / machine.dram_bytes_per_cycle + (loads + outputs) * machine.dram_latency / 4
    tiles_ = math.prod(trips)
    compute = tiles_ * tiling.macs(middle, machine) if tiling.macs else 0
    return max(dma, compute) + 0.1 * (dma + compute) + tiles_ * 8


def dma_bytes(tiling: Tiling, port: str, index: int, box: Box, burst: int) -> int:
    """DRAM bytes that moving a box costs: each run of neighbouring bytes takes whole bursts."""
    shape = buffer_type(tiling.op.buffers(port)[index]).shape
    run = itemsize(tiling.element(port, index))
    runs, whole = 1, True
    for (_, n), d in zip(reversed(box), reversed(shape)):
        if whole:
            run *= n
            whole = n == d
        else:
            runs *= n
    return runs * -(-run // burst) * burst


def boxes_of(extents: tuple[int, ...], cut: Cut) -> Iterator[Box]:
    """All boxes of an iteration space, in loop order."""
    ranges = [range(0, extents[a], cut.sizes[a]) for a in cut.order]
    for starts in itertools.product(*ranges):
        box: list[Interval] = [(0, 0)] * len(extents)
        for axis, start in zip(cut.order, starts):
            box[axis] = (start, min(cut.sizes[axis], extents[axis] - start))
        yield tuple(box)


# --- geometry --------------------------------------------------------------------------------------------
class Halo(NamedTuple):
    """What a stretch of a window's results needs: inputs, and padding before and behind them."""

    interval: Interval
    before: int
    after: int


def halo(results: Interval, stride: int, pad: int, window: int, size: int) -> Halo:
    """The inputs of `results` of a sliding window of `window` elements (dilation included) over `size` inputs."""
    low = results[0] * stride - pad
    high = (results[0] + results[1] - 1) * stride - pad + window
    start, stop = min(max(low, 0), size), max(min(high, size), 0)
    return Halo((start, max(stop - start, 0)), max(-low, 0), max(high - size, 0))


def whole_box(value: SSAValue) -> Box:
    """The box that is all of a buffer."""
    return tuple((0, d) for d in buffer_type(value).shape)


def follow(box: Box, shape: Sequence[int]) -> Box:
    """The box of a broadcast operand: axes of size 1 stay whole; missing leading axes are dropped."""
    inner = box[len(box) - len(shape) :]
    return tuple((0, 1) if d == 1 else b for b, d in zip(inner, shape))
