"""How a layer is cut into tiles: the interface of a tile rule, and the search for the best cut.

A rule describes an instruction's *iteration space*: the axes of its result, then the axes it reduces over.
Given a box of that space it says which box of each port the work touches and which fields change. From that
alone the search knows what fits the SRAM and what it costs to move, and the driver (tile.py) writes the loop.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from xdsl.ir import Attribute, SSAValue

from ...dialects.npu import Buffer, Instruction, Space, buffer_type, itemsize
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

    extents: sizes of the iteration space, the reduced axes last; reduced: how many those are; whole: axes
    that cannot be cut; output: the port written; acc: element type of partial results.
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
    step: Mapping[int, int] = field(default_factory=dict)
    """Axes whose cuts fall on multiples of a number."""
    acc_box: Callable[[Box], Box] | None = None
    """The box of partial results, where it is not the output's."""

    @property
    def parallel(self) -> int:
        """Number of axes that are not reduced."""
        return len(self.extents) - self.reduced

    @functools.cached_property
    def arrays(self) -> dict[tuple[str, int], Buffer]:
        """The whole layer's buffers by port and position."""
        return {(n, i): buffer_type(v) for n, values in self.op.ports().items() for i, v in enumerate(values)}

    def element(self, port: str, index: int) -> Attribute:
        """Element type at a port."""
        return self.arrays[port, index].element

    def on_chip(self, port: str, index: int) -> bool:
        """Whether the whole layer's buffer is kept in the SRAM, so that a tile works on it in place."""
        return self.arrays[port, index].space is Space.SRAM

    def box_bytes(self, port: str, index: int, box: Box) -> int:
        """SRAM bytes of a box at a port, rounded up to the allocator's alignment; none where it is in
        place.
        """
        if self.on_chip(port, index):
            return 0
        size = math.prod([n for _, n in box]) * itemsize(self.arrays[port, index].element)
        return max(-(-size // ALIGNMENT), 1) * ALIGNMENT


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


def tiling_of(op: Instruction) -> Tiling:
    """A layer by its rule. Raises MachineError for an instruction without one."""
    if type(op) not in RULES:
        raise MachineError(f"{op.name} has no tile rule")
    return RULES[type(op)](op)


class Cut(NamedTuple):
    """Sizes of a tile along each axis, and the order of the loops from the outside in."""

    sizes: tuple[int, ...]
    order: tuple[int, ...]


class NoFit(MachineError):
    """No tile of a layer fits the SRAM."""


def choose_cut(tiling: Tiling, machine: Machine, budget: int) -> Cut:
    """The cut with the least estimated time that a search finds among those whose tile takes at most `budget`
    bytes of SRAM.

    The whole layer is halved along the axis that costs the least time a byte saved until it fits; then single
    and paired changes are tried while they help. Where that stays far from moving everything once, it is done
    again from each cut of the reduced axes. These are cut in order, the next one only when the one before is
    cut to 1, so that parts follow each other in index order. Raises NoFit when not even one result with one
    reduced element fits, with the bytes that takes.
    """
    search = _Search(tiling, machine, budget)
    best = search.shrink(tiling.extents, None)
    if best is not None:
        best = search.climb(best)
    if best is None or best.time > GOOD * search.look(tiling.extents).time:
        for sizes in search.reduced_cuts():
            best = search.shrink(sizes, best) or best
        if best is not None:
            best = search.climb(best)
    if best is None:
        raise NoFit(f"the smallest tile takes {search.smallest} bytes of SRAM, {budget} are there")
    return best.cut


GOOD = 1.25
"""Times the estimate of a layer that fits as a whole: a cut within it is looked at no further."""


class _Estimate(NamedTuple):
    time: float
    bytes: int
    cut: Cut


CLIMBS = 6
"""Rounds of trying changes to a cut; measured, more change next to nothing."""


class _Search:
    """Cuts of one layer by sizes, each estimated once."""

    def __init__(self, tiling: Tiling, machine: Machine, budget: int):
        self.tiling, self.machine, self.budget = tiling, machine, budget
        self.extents = tiling.extents
        self.axes = [a for a in range(len(self.extents)) if a not in tiling.whole and self.extents[a] > 1]
        self.moved = dependences(tiling)
        self.orders = _orders(tiling)
        self.known: dict[tuple[int, ...], _Estimate] = {}
        self.smallest: float = math.inf

    def look(self, sizes: tuple[int, ...]) -> _Estimate:
        """Time, bytes and best loop order of a cut."""
        if sizes not in self.known:
            piece = self.tiling.piece(_middle(self.tiling, sizes))
            need = _piece_bytes(self.tiling, sizes, piece)
            self.smallest = min(self.smallest, need)
            times = estimates(self.tiling, sizes, self.orders, self.machine, piece, self.moved)
            time, order = min(zip(times, self.orders))
            self.known[sizes] = _Estimate(time, need, Cut(sizes, order))
        return self.known[sizes]

    @staticmethod
    def time(found: _Estimate) -> float:
        return found.time

    def sized(self, sizes: tuple[int, ...], axis: int, trips: int) -> tuple[int, ...] | None:
        """The cut with that many trips along an axis; None where the axis or its neighbours forbid it."""
        t, extent = self.tiling, self.extents[axis]
        if trips < 1:
            return None
        size, step = -(-extent // trips), t.step.get(axis, 1)
        size = min(-(-size // step) * step, extent)
        if size == sizes[axis]:
            return None
        made = (*sizes[:axis], size, *sizes[axis + 1 :])
        reduced = list(zip(made, self.extents))[t.parallel :]
        cut = [i for i, (n, e) in enumerate(reduced) if n < e]
        if cut and any(n > 1 for n, _ in reduced[: cut[-1]]):
            return None
        if cut and t.single:
            made = tuple(1 if i in t.single else n for i, n in enumerate(made))
        return made

    def trips(self, sizes: tuple[int, ...], axis: int) -> int:
        return -(-self.extents[axis] // sizes[axis])

    def reduced_cuts(self) -> Iterator[tuple[int, ...]]:
        """The whole layer with its reduced axes halved, one after the other."""
        sizes: tuple[int, ...] | None = self.extents
        for axis in (a for a in self.axes if a >= self.tiling.parallel):
            while (made := self.sized(sizes, axis, 2 * self.trips(sizes, axis))) is not None:  # type: ignore[arg-type]
                sizes = made
                yield sizes

    def shrink(self, sizes: tuple[int, ...], rival: _Estimate | None) -> _Estimate | None:
        """The first cut that fits on the way down to single results; None when there is none, or the rival is
        faster already."""
        axes = [a for a in self.axes if a < self.tiling.parallel]
        here = self.look(sizes)
        while here.bytes > self.budget:
            sizes = here.cut.sizes
            # 3 elements in 2 trips are 2 and 1, in 4 trips 1 each.
            halved = [self.sized(sizes, a, 2 * self.trips(sizes, a)) for a in axes]
            smaller = [self.look(s) for s in halved if s is not None]
            if not smaller or (rival is not None and here.time >= rival.time):
                return None
            here = min(smaller, key=functools.partial(_price, here))
        return here if rival is None or here.time < rival.time else None

    def climb(self, here: _Estimate) -> _Estimate:
        """The best cut that is reached by single and paired changes that each help."""
        for _ in range(CLIMBS):
            tried = [self.look(s) for s in self._neighbours(here.cut.sizes)]
            best = min((e for e in tried if e.bytes <= self.budget), key=self.time, default=here)
            if best.time >= here.time:
                break
            here = best
        return here

    def _neighbours(self, sizes: tuple[int, ...]) -> set[tuple[int, ...]]:
        found: set[tuple[int, ...] | None] = set()
        for axis in self.axes:
            t = self.trips(sizes, axis)
            larger = {self.sized(sizes, axis, n) for n in (t // 2, t - 1, 1)}
            found |= larger | {self.sized(sizes, axis, n) for n in (2 * t, t + 1)}
            grown = self.sized(sizes, axis, max(t // 2, 1))
            if grown is not None:
                others = [a for a in self.axes if a != axis]
                found |= {self.sized(grown, a, 2 * self.trips(grown, a)) for a in others}
        return {s for s in found if s is not None}


def _price(before: _Estimate, after: _Estimate) -> tuple[float, float]:
    """Time lost for the bytes saved; what saves nothing comes last."""
    if after.bytes >= before.bytes:
        return math.inf, after.time
    return (after.time - before.time) / math.log(before.bytes / after.bytes), after.time


def smallest_cut(tiling: Tiling) -> Cut:
    """Single results, a single reduced element at a time: what fits if anything does."""
    sizes = tuple(
        e if a in tiling.whole else min(tiling.step.get(a, 1), e) for a, e in enumerate(tiling.extents)
    )
    return Cut(sizes, tuple(range(len(sizes))))


def _orders(tiling: Tiling) -> list[tuple[int, ...]]:
    """Loop orders worth trying: results in order, or their last axis outermost; reductions always inside."""
    parallel = tuple(range(tiling.parallel))
    reduced = tuple(range(tiling.parallel, len(tiling.extents)))
    if len(parallel) < 2:
        return [parallel + reduced]
    return [parallel + reduced, (parallel[-1], *parallel[:-1], *reduced)]


def tile_bytes(tiling: Tiling, sizes: tuple[int, ...]) -> int:
    """SRAM bytes of one tile in the middle of the layer, where halos are widest."""
    return _piece_bytes(tiling, sizes, tiling.piece(_middle(tiling, sizes)))


def slots_of(tiling: Tiling, work: Sequence[tuple[Box, Piece]]) -> dict[tuple[str, int], int]:
    """The most bytes that any tile takes at each port; partial results are the port "partial"."""
    slots: dict[tuple[str, int], int] = {}
    for box, piece in work:
        for port, index, part in piece.boxes():
            need = tiling.box_bytes(port, index, part)
            slots[port, index] = max(slots.get((port, index), 0), need)
        if _is_partial(tiling, tuple(n for _, n in box)):
            slots["partial", 0] = max(slots.get(("partial", 0), 0), _acc_bytes(tiling, box, piece))
    return slots


def _piece_bytes(tiling: Tiling, sizes: tuple[int, ...], piece: Piece) -> int:
    total = sum(tiling.box_bytes(*b) for b in piece.boxes())
    if _is_partial(tiling, sizes):
        total += _acc_bytes(tiling, _middle(tiling, sizes), piece)
    return total


def _is_partial(tiling: Tiling, sizes: tuple[int, ...]) -> bool:
    return sizes[tiling.parallel :] != tiling.extents[tiling.parallel :]


def acc_box(tiling: Tiling, box: Box, piece: Piece) -> Box:
    """The box of partial results of a tile."""
    if tiling.acc_box is not None:
        return tiling.acc_box(box)
    output = piece.ports[tiling.output]
    return output[0] if isinstance(output, list) else output


def _acc_bytes(tiling: Tiling, box: Box, piece: Piece) -> int:
    size = math.prod(n for _, n in acc_box(tiling, box, piece)) * itemsize(tiling.acc)
    return max(-(-size // ALIGNMENT), 1) * ALIGNMENT


def _middle(tiling: Tiling, sizes: tuple[int, ...]) -> Box:
    # On a multiple of the size, as real tiles are: cuts that keep to steps stay on them.
    return tuple((((e - n) // 2 // n * n if n else 0), n) for e, n in zip(tiling.extents, sizes))


def dependences(tiling: Tiling) -> dict[tuple[str, int], frozenset[int]]:
    """Which axes of the iteration space move the box at a port: along the others it stays loaded."""
    sizes = smallest_cut(tiling).sizes
    here = tuple((0, n) for n in sizes)
    boxes = {(p, i): b for p, i, b in tiling.piece(here).boxes()}
    moved: dict[tuple[str, int], set[int]] = {key: set() for key in boxes}
    for axis, (n, extent) in enumerate(zip(sizes, tiling.extents)):
        if n < extent:
            other = (*here[:axis], (extent - n, n), *here[axis + 1 :])
            for port, index, box in tiling.piece(other).boxes():
                if box != boxes[port, index]:
                    moved[port, index].add(axis)
    return {key: frozenset(axes) for key, axes in moved.items()}


def estimate(tiling: Tiling, sizes: tuple[int, ...], order: tuple[int, ...], machine: Machine) -> float:
    """Cycles of a layer cut this way: DMA and compute side by side, the slower one counts most."""
    piece = tiling.piece(_middle(tiling, sizes))
    return estimates(tiling, sizes, [order], machine, piece, dependences(tiling))[0]


def estimates(
    tiling: Tiling,
    sizes: tuple[int, ...],
    orders: Sequence[tuple[int, ...]],
    machine: Machine,
    piece: Piece,
    moved: Mapping[tuple[str, int], frozenset[int]],
) -> list[float]:
    """`estimate` for several loop orders.

    `piece` belongs to the tile in the middle; `moved` is what `dependences` gives.
    """
    trips = [-(-e // n) if n else 1 for e, n in zip(tiling.extents, sizes)]
    tiles_ = math.prod(trips)
    outputs = math.prod(trips[: tiling.parallel])
    compute = tiles_ * tiling.macs(_middle(tiling, sizes), machine) if tiling.macs else 0
    cost = {(n, i): dma_bytes(tiling, n, i, box, machine.dram_burst) for n, i, box in piece.boxes()}
    times = []
    for order in orders:
        loads, traffic = 0, 0
        for key, nbytes in cost.items():
            if key[0] == tiling.output:
                traffic += nbytes * outputs
                continue
            count, passed = 1, 1
            for axis in order:
                passed *= trips[axis]
                if trips[axis] > 1 and axis in moved[key]:
                    count = passed
            loads += count
            traffic += nbytes * count
        dma = traffic / machine.dram_bytes_per_cycle + (loads + outputs) * machine.dram_latency / 4
        times.append(max(dma, compute) + 0.1 * (dma + compute) + tiles_ * 8)
    return times


def dma_bytes(tiling: Tiling, port: str, index: int, box: Box, burst: int) -> int:
    """DRAM bytes that moving a box costs: each run of neighbouring bytes takes whole bursts."""
    shape, element, space = tiling.arrays[port, index]
    if space is Space.SRAM:
        return 0
    run = itemsize(element)
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
    ranges = [range(0, extents[a], max(cut.sizes[a], 1)) for a in cut.order]
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
    """What `results` of a sliding window need: `window` elements, dilation included, over `size` inputs."""
    low = results[0] * stride - pad
    high = (results[0] + results[1] - 1) * stride - pad + window
    start, stop = min(max(low, 0), size), max(min(high, size), 0)
    inside = max(stop - start, 0)
    before = min(max(-low, 0), high - low)
    return Halo((start, inside), before, high - low - inside - before)


def whole_box(value: SSAValue) -> Box:
    """The box that is all of a buffer."""
    return tuple((0, d) for d in buffer_type(value).shape)


def follow(box: Box, shape: Sequence[int]) -> Box:
    """The box of a broadcast operand: axes of size 1 stay whole; missing leading axes are dropped."""
    inner = box[len(box) - len(shape) :]
    return tuple((0, 1) if d == 1 else b for b, d in zip(inner, shape))
