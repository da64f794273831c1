"""npu-allocate: every buffer gets an address, in DRAM and in SRAM, planned once at compile time.

DRAM holds the constants, then inputs and outputs, then the arena of feature maps, placed largest first over
whole lifetimes. SRAM buffers live for a few instructions; they are placed in program order, each behind the
last one and around the end, so that a tile lands where none was lately: the next tile's loads need not wait
for
this tile's compute, which is what double buffering is for.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from xdsl.dialects.builtin import ArrayAttr, DictionaryAttr, IntegerAttr, ModuleOp, i64
from xdsl.ir import Attribute, Operation, SSAValue

from ...dialects.locations import layer_name
from ...dialects.npu import Space, buffer_type
from ...dialects.npu_instructions import AllocOp, ConstantOp
from ...errors import MachineError
from ...runtime.interpreter import main_function
from ..base import NacrePass
from .form import TILE, require_form
from .lifetimes import ADDRESS, Lifetime, buffer_lifetimes, bytes_of, set_address
from .residency import Kept, holes_at, kept_buffers
from .target import machine_of
from .tile import SLOT
from .tiling import ALIGNMENT

DRAM_ALIGNMENT = 64


@dataclass(frozen=True)
class AllocatePass(NacrePass):
    """Give every buffer its address in DRAM or SRAM."""

    name = "npu-allocate"
    target: str | None = None

    def run(self, module: ModuleOp) -> None:
        machine = machine_of(module, self.target)
        require_form(module, TILE, self.name)
        function = main_function(module)
        ops = list(function.body.block.ops)
        lifetimes = buffer_lifetimes(ops)
        at = 0
        constants = [op for op in ops if isinstance(op, ConstantOp)]
        for op in constants:
            at = _assign(op, at)
        constant_bytes = at
        addresses = []
        for argument, attributes in zip(function.args, function.arg_attrs or ()):
            addresses.append(DictionaryAttr({**attributes.data, ADDRESS: IntegerAttr(at, i64)}))
            at = _aligned(at + bytes_of(argument), DRAM_ALIGNMENT)
        function.arg_attrs = ArrayAttr(addresses)
        dram = [x for x in lifetimes if _is_alloc(x.buffer, Space.DRAM)]
        placed, arena = place_by_size(dram, DRAM_ALIGNMENT)
        for value, address in placed.items():
            set_address(value, at + address)
        total = at + arena
        if total > machine.dram_bytes:
            raise MachineError(
                f"the program needs {total} bytes of DRAM, '{machine.name}' has {machine.dram_bytes}"
            )
        kept = kept_buffers(ops)
        homes = {k.buffer for k in kept}
        sram = [x for x in lifetimes if _is_alloc(x.buffer, Space.SRAM) and x.buffer not in homes]
        peak = max(place_in_order(sram, machine.sram_bytes, ops, kept), *(k.stop for k in kept), 0)
        module.attributes["npu.constant_bytes"] = IntegerAttr(constant_bytes, i64)
        module.attributes["npu.dram_bytes"] = IntegerAttr(total, i64)
        module.attributes["npu.sram_peak_bytes"] = IntegerAttr(peak, i64)


def _assign(op: ConstantOp, at: int) -> int:
    set_address(op.result, at)
    return _aligned(at + bytes_of(op.result), DRAM_ALIGNMENT)


def _aligned(n: int, alignment: int) -> int:
    return -(-n // alignment) * alignment


def _is_alloc(value: SSAValue, space: Space) -> bool:
    return isinstance(value.owner, AllocOp) and buffer_type(value).space is space


def place_by_size(lifetimes: Iterable[Lifetime], alignment: int) -> tuple[dict[SSAValue, int], int]:
    """Largest first, each at the lowest address free for its whole life. Gives addresses and the height."""
    placed: list[tuple[int, int, Lifetime]] = []
    addresses: dict[SSAValue, int] = {}
    height = 0
    for life in sorted(lifetimes, key=lambda x: (-x.size, x.first)):
        at = 0
        for start, stop, other in placed:  # kept in order of address
            if other.first <= life.last and life.first <= other.last:
                if at + life.size <= start:
                    break
                at = max(at, _aligned(stop, alignment))
        bisect.insort(placed, (at, at + life.size, life), key=lambda p: p[0])
        addresses[life.buffer] = at
        height = max(height, at + life.size)
    return addresses, height


LONG = 24
"""Ops; a buffer that lives longer is kept at the top of the SRAM, out of the way of those that come and
go.
"""


def place_in_order(
    lifetimes: Iterable[Lifetime], size: int, ops: list[Operation], kept: Sequence[Kept] = ()
) -> int:
    """Place SRAM buffers in program order, round and round beside what is kept. Gives the highest address
    used.

    A stretch of the program (between points where nothing lives) whose free bytes come to lie in pieces too
    small is placed anew: largest first, or else by the slots that npu-tile gives a layer that fills the
    memory. Raises MachineError naming the layer when no way is found.
    """
    cursor, peak = 0, 0
    for stretch in stretches(lifetimes):
        holes = holes_at(kept, stretch[0].first, max(x.last for x in stretch), size)
        arena = Ring(holes, cursor)
        places = place_round(stretch, arena)
        cursor = arena.cursor
        if places is None:
            start, stop = max(holes, key=lambda h: h[1] - h[0], default=(0, 0))
            tight = _place_tightly(stretch, stop - start)
            places = None if tight is None else [start + at for at in tight]
        if places is None:
            need = max(sum(_taken(x) for x in stretch if x.first <= y.first <= x.last) for y in stretch)
            raise MachineError(
                f"{layer_name(ops[stretch[0].first])}: {need} bytes of buffers live at once and find "
                "no places "
                f"in {size} bytes of SRAM; let npu-tile use less"
            )
        for life, address in zip(stretch, places):
            set_address(life.buffer, address)
            peak = max(peak, address + life.size)
    return peak


def stretches(lifetimes: Iterable[Lifetime]) -> Iterator[list[Lifetime]]:
    """Lifetimes in program order, split where none lives on."""
    current: list[Lifetime] = []
    end = -1
    for life in sorted(lifetimes, key=lambda x: x.first):
        if current and life.first > end:
            yield current
            current = []
        current.append(life)
        end = max(end, life.last)
    if current:
        yield current


def _taken(life: Lifetime) -> int:
    return max(_aligned(life.size, ALIGNMENT), ALIGNMENT)


def place_round(stretch: Sequence[Lifetime], arena: Ring) -> list[int] | None:
    """Addresses each behind the last one and around the end; None when the free bytes are in small pieces."""
    dying: list[tuple[int, int]] = []  # (last op, address), kept sorted
    places = []
    for life in stretch:
        while dying and dying[0][0] < life.first:
            arena.free(dying.pop(0)[1])
        address = arena.take(_taken(life), top=life.last - life.first > LONG)
        if address is None:
            return None
        places.append(address)
        bisect.insort(dying, (life.last, address))
    for _, address in dying:
        arena.free(address)
    return places


def _place_tightly(stretch: Sequence[Lifetime], size: int) -> list[int] | None:
    addresses, height = place_by_size([x._replace(size=_taken(x)) for x in stretch], ALIGNMENT)
    if height <= size:
        return [addresses[x.buffer] for x in stretch]
    slots: dict[Attribute, int] = {}
    for life in stretch:
        slot = life.buffer.owner.attributes.get(SLOT)  # type: ignore[union-attr]
        if slot is None:
            return None
        slots[slot] = max(slots.get(slot, 0), _taken(life))
    if sum(slots.values()) > size:
        return None
    starts = dict(zip(slots, itertools.accumulate(slots.values(), initial=0)))
    return [starts[x.buffer.owner.attributes[SLOT]] for x in stretch]  # type: ignore[union-attr]


class Ring:
    """Free space of a memory: taken behind the last taking and around the end, or from the top down."""

    def __init__(self, holes: Sequence[tuple[int, int]], cursor: int = 0):
        self.holes = list(holes)
        self.taken: dict[int, int] = {}
        self.cursor = cursor

    @property
    def free_bytes(self) -> int:
        """Bytes in all holes."""
        return sum(stop - start for start, stop in self.holes)

    def take(self, size: int, top: bool) -> int | None:
        """An address, None when no hole is large enough."""
        if top:
            fits = [(stop - size, i) for i, (start, stop) in enumerate(self.holes) if stop - start >= size]
            if not fits:
                return None
            at, index = fits[-1]
        else:
            found = self._next(size)
            if found is None:
                return None
            at, index = found
            self.cursor = at + size
        start, stop = self.holes.pop(index)
        rest = [(a, b) for a, b in ((start, at), (at + size, stop)) if a < b]
        self.holes[index:index] = rest
        self.taken[at] = size
        return at

    def _next(self, size: int) -> tuple[int, int] | None:
        wrapped = None
        for index, (start, stop) in enumerate(self.holes):
            behind = max(start, self.cursor)
            if stop - behind >= size:
                return behind, index
            if wrapped is None and stop - start >= size:
                wrapped = start, index
        return wrapped

    def free(self, address: int) -> None:
        """Give back what was taken at an address."""
        start, stop = address, address + self.taken.pop(address)
        index = bisect.bisect(self.holes, (start, stop))
        if index < len(self.holes) and self.holes[index][0] == stop:
            stop = self.holes.pop(index)[1]
        if index and self.holes[index - 1][1] == start:
            index -= 1
            start = self.holes.pop(index)[0]
        self.holes.insert(index, (start, stop))
