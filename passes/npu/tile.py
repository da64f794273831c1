"""npu-tile: whole layers in DRAM become loops over tiles in SRAM, with loads before and stores behind."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from xdsl.dialects.builtin import IntegerAttr, ModuleOp, i64
from xdsl.ir import Operation, SSAValue

from ...dialects.locations import layer_name
from ...dialects.npu import Instruction, Space, buffer, buffer_type
from ...dialects.npu_instructions import AllocOp, CopyOp, FillOp, KernelOp, LaunchOp, LoadOp, PadOp, StoreOp, ViewOp
from ...errors import MachineError
from ...runtime.interpreter import main_function
from ...runtime.machine import Machine
from ..base import NacrePass
from . import (  # noqa: F401  they register tile rules
    launch_recurrent_rules,
    launch_reduce_rules,
    launch_scan_rules,
    launch_tile_rules,
    launch_tile_rules_tflite,
    launch_window_rules,
    tile_rules,
)
from .form import LAYER, TILE, require_form, set_form
from .launch_tile_rules import kernel_named
from .residency import kept_buffers, largest_hole
from .soft_kernels import group_of, launch_fields
from .target import machine_of
from .tiling import (
    Box,
    Cut,
    NoFit,
    Piece,
    Tiling,
    acc_box,
    boxes_of,
    choose_cut,
    slots_of,
    smallest_cut,
    tile_bytes,
    tiling_of,
)

SLOT = "npu.slot"
"""Attribute of SRAM buffers of a layer that fills the memory: buffers of one slot never live at once, so a
place for each slot is a way to lay them out that always works (npu-allocate falls back to it)."""


@dataclass(frozen=True)
class TilePass(NacrePass):
    """Cut every layer into tiles that fit the SRAM, with loads and stores."""

    name = "npu-tile"
    target: str | None = None

    def run(self, module: ModuleOp) -> None:
        machine = machine_of(module, self.target)
        require_form(module, LAYER, self.name)
        block = main_function(module).body.block
        plans: dict[Any, Plan] = {}
        ops = list(block.ops)
        kept = kept_buffers(ops)
        layers = [
            (op, largest_hole(kept, index, machine.sram_bytes))
            for index, op in enumerate(ops)
            if isinstance(op, Instruction)
        ]
        check_count({op: len(p.work) for op, room in layers if (p := plan_of(op, machine, plans, room))}, machine)
        for op, room in layers:
            emitter = Emitter(op)
            tile_layer(op, machine, emitter, plans, room)
            block.insert_ops_before(emitter.ops, op)
            op.detach()
            op.erase()
        set_form(module, TILE)


class Plan(NamedTuple):
    """A layer's tiles: the cut, the boxes of its loop with their pieces, and whether they take all the
    SRAM.
    """

    cut: Cut
    work: list[tuple[Box, Piece]]
    tight: bool


class Emitter:
    """Collects the ops of one layer; all carry the layer's location."""

    def __init__(self, layer: Operation):
        self.layer = layer
        self.ops: list[Operation] = []
        self.slots: dict[tuple[str, int], int] | None = None
        self.kernels: dict[str, tuple[KernelOp, tuple[int, ...] | None]] = {}

    def kernel(self, launch: LaunchOp, symbol: str) -> tuple[KernelOp, tuple[int, ...] | None]:
        """A kernel of the module and its work group, looked up once for all tiles."""
        if symbol not in self.kernels:
            found = kernel_named(launch, symbol)
            self.kernels[symbol] = found, group_of(found)
        return self.kernels[symbol]

    def put(self, op: Any) -> Any:
        """Append an op."""
        op.location = self.layer.location
        self.ops.append(op)
        return op

    def alloc(self, box: Box, element: Any, slot: tuple[str, int]) -> SSAValue:
        """A buffer in SRAM for a box, at a port."""
        shape = tuple(n for _, n in box)
        op = self.put(AllocOp.create(result_types=[buffer(shape, element, Space.SRAM)]))
        if self.slots is not None:
            op.attributes[SLOT] = IntegerAttr(self.slots.setdefault(slot, len(self.slots)), i64)
        return op.result

    def view(self, whole: SSAValue, box: Box) -> SSAValue:
        """A box of a buffer; the buffer itself where the box is all of it."""
        sizes = tuple(n for _, n in box)
        if sizes == buffer_type(whole).shape:
            return whole
        return self.put(ViewOp.of(whole, tuple(o for o, _ in box), sizes)).result

    def load(self, whole: SSAValue, box: Box, slot: tuple[str, int]) -> SSAValue:
        """A box of a buffer in SRAM: in place if it is there, else loaded; an empty box is not moved."""
        if buffer_type(whole).space is Space.SRAM:
            return self.view(whole, box)
        here = self.alloc(box, buffer_type(whole).element, slot)
        if all(n for _, n in box):
            self.put(LoadOp.make({"src": self.view(whole, box), "dst": here}))
        return here

    def target(self, whole: SSAValue, box: Box, slot: tuple[str, int]) -> SSAValue:
        """Where a tile writes a box of a buffer: in place if it is on chip, else a new SRAM buffer."""
        if buffer_type(whole).space is Space.SRAM:
            return self.view(whole, box)
        return self.alloc(box, buffer_type(whole).element, slot)

    def store(self, here: SSAValue, whole: SSAValue, box: Box) -> None:
        """What `target` gave, written, to its box: nothing is left to do on chip."""
        if buffer_type(whole).space is Space.DRAM:
            self.put(StoreOp.make({"src": here, "dst": self.view(whole, box)}))

    def copy(self, here: SSAValue, whole: SSAValue, box: Box) -> None:
        """An SRAM buffer to a box of another buffer, by the DMA or, on chip, by the fabric."""
        cls = StoreOp if buffer_type(whole).space is Space.DRAM else CopyOp
        self.put(cls.make({"src": here, "dst": self.view(whole, box)}))


def tile_layer(
    op: Instruction, machine: Machine, emitter: Emitter, plans: dict[Any, Plan], room: int
) -> None:
    """Write the loop of one layer, tiles within `room` bytes of SRAM.

    Raises MachineError naming the layer when no tile fits.
    """
    plan_ = plan_of(op, machine, plans, room)
    if plan_ is None:
        return
    tiling = tiling_of(op)
    if plan_.tight:
        emitter.slots = {}
    resident: dict[tuple[str, int], tuple[Box, SSAValue]] = {}
    acc: SSAValue | None = None
    for box, piece in plan_.work:
        first, last = _position(tiling, box)
        if isinstance(op, PadOp) and any(n == 0 for _, n in piece.ports["src"]):  # pyright: ignore
            _fill(op, emitter, piece)
            continue
        ports = _load(op, tiling, piece, emitter, resident, last)
        outputs = _outputs(tiling, piece)
        if isinstance(op, CopyOp):
            emitter.copy(ports["src"][0], op.buffers("dst")[0], outputs[0])
            continue
        made = [
            emitter.target(whole, b, (tiling.output, i))
            for i, (whole, b) in enumerate(zip(op.buffers(tiling.output), outputs if last else ()))
        ]
        if not (first and last):
            if first:
                acc = emitter.alloc(acc_box(tiling, box, piece), tiling.acc, ("partial", 0))
            _partial(op, tiling, piece, ports, acc, made, first, last, emitter, box)
        else:
            ports[tiling.output] = made
            emitter.put(made_of(op, ports, op.fields() | dict(piece.fields), emitter))
        if last:
            for whole, here, b in zip(op.buffers(tiling.output), made, outputs):
                emitter.store(here, whole, b)


MOST_TILES = 400_000
"""Tiles of a whole program, each about three instructions: beyond, compiling takes minutes and gigabytes, and
the fault is nearly always a machine description whose SRAM is a digit short."""


def plan_of(op: Instruction, machine: Machine, plans: dict[Any, Plan], room: int) -> Plan | None:
    """A layer's tiles, planned once for alike layers; None where its result is empty."""
    tiling = tiling_of(op)
    if 0 in tiling.extents[: tiling.parallel]:
        return None
    key = _signature(op, tiling), room
    if key not in plans:
        plans[key] = planned(op, tiling, machine, room)
    return plans[key]


def check_count(tiles: Mapping[Operation, int], machine: Machine) -> None:
    """Raises MachineError, naming the layer with most tiles, for a program of more than MOST_TILES."""
    if sum(tiles.values()) > MOST_TILES:
        most = max(tiles, key=lambda op: tiles[op])
        raise _too_many(f"{layer_name(most)}: it alone takes {tiles[most]} of the {sum(tiles.values())}", machine)


def _too_many(which: str, machine: Machine) -> MachineError:
    return MachineError(
        f"{which} tiles that '{machine.name}' with {machine.sram_bytes} bytes of SRAM needs, and a program has "
        f"at most {MOST_TILES}; a machine with more SRAM could run this model"
    )


SHARE = 0.45
"""Part of the SRAM a tile should take, so that the next tile's loads have room beside it."""


def plan(op: Instruction, tiling: Tiling, machine: Machine) -> Cut:
    """The best cut that leaves room for the next tile's loads, or else the best that fits at all."""
    return planned(op, tiling, machine, machine.sram_bytes).cut


def planned(op: Instruction, tiling: Tiling, machine: Machine, room: int) -> Plan:
    """The tiles of that cut. Raises MachineError naming the layer when no tile fits."""
    for limit in (int(room * SHARE), room):
        try:
            return _plan_within(op, tiling, machine, limit, limit == room)
        except NoFit as error:
            reason = error
    raise MachineError(
        f"{layer_name(op)}: {reason} on '{machine.name}'; a machine with more SRAM could run this layer"
    )


def _plan_within(op: Instruction, tiling: Tiling, machine: Machine, limit: int, tight: bool) -> Plan:
    """The search sees the tile in the middle; where tiles elsewhere are larger, it is given less."""
    budget = limit
    while True:
        try:
            cut = choose_cut(tiling, machine, budget)
        except NoFit:
            if budget == limit:
                raise
            cut = smallest_cut(tiling)
        count = math.prod(-(-e // max(n, 1)) for e, n in zip(tiling.extents, cut.sizes))
        if count > MOST_TILES:  # said before they are listed, which takes long
            raise _too_many(f"{layer_name(op)}: it alone takes {count}", machine)
        work = [(box, tiling.piece(box)) for box in boxes_of(tiling.extents, cut)]
        need = sum(slots_of(tiling, work).values())
        if need <= limit:
            return Plan(cut, work, tight)
        if cut.sizes == smallest_cut(tiling).sizes:
            raise NoFit(f"the smallest tile takes {need} bytes of SRAM, {limit} are there")
        budget = int(budget * min(0.95, limit / need))


def _signature(op: Instruction, tiling: Tiling) -> Any:
    # A layer with constants that the rule reads (index tables) is planned on its own.
    unique = id(op) if op.name == "npu.resize" else 0
    shapes = tuple((n, tuple(b.type for b in v)) for n, v in op.ports().items())
    return type(op), tuple(sorted(op.fields().items())), shapes, tiling.extents, unique


def _position(tiling: Tiling, box: Box) -> tuple[bool, bool]:
    reduced = list(zip(box, tiling.extents))[tiling.parallel :]
    return all(o == 0 for (o, _), _ in reduced), all(o + n == e for (o, n), e in reduced)


def _outputs(tiling: Tiling, piece: Piece) -> list[Box]:
    boxes = piece.ports[tiling.output]
    return boxes if isinstance(boxes, list) else [boxes]


def _load(
    op: Instruction,
    tiling: Tiling,
    piece: Piece,
    emitter: Emitter,
    resident: dict[tuple[str, int], tuple[Box, SSAValue]],
    last: bool,
) -> dict[str, list[SSAValue]]:
    ports: dict[str, list[SSAValue]] = {}
    for name, index, box in piece.boxes():
        if name == tiling.output or (not last and name in op.EPILOGUE):
            continue
        known = resident.get((name, index))
        if known is None or known[0] != box:
            known = box, emitter.load(op.buffers(name)[index], box, (name, index))
            resident[name, index] = known
        ports.setdefault(name, []).append(known[1])
    return ports


def _partial(
    op: Instruction,
    tiling: Tiling,
    piece: Piece,
    ports: Mapping[str, list[SSAValue]],
    acc: SSAValue | None,
    made: Sequence[SSAValue],
    first: bool,
    last: bool,
    emitter: Emitter,
    box: Box,
) -> None:
    assert acc is not None
    fields = op.fields() | dict(piece.fields)
    into = made[0] if last and tiling.finish is None else acc
    connected = dict(ports) | ({} if first else {"acc": [acc]}) | {tiling.output: [into]}
    build = tiling.partial
    emitter.put(build(emitter, connected, fields) if build else made_of(op, connected, fields, emitter))
    if last and tiling.finish is not None:
        tiling.finish(emitter, box, acc, made[0])


def made_of(
    op: Instruction, ports: Mapping[str, list[SSAValue]], fields: dict[str, Any], emitter: Emitter
) -> Instruction:
    """A tile's instruction; a launch gets the numbers its kernel takes for these shapes and open parameters."""
    if isinstance(op, LaunchOp):
        kernel, group = emitter.kernel(op, fields["kernel"])
        inputs, outputs = ([buffer_type(v).shape for v in ports.get(p, ())] for p in ("inputs", "outputs"))
        fields |= launch_fields(kernel, group, fields.pop("open", ()), inputs, outputs, resumed="acc" in ports)
    return type(op).make(ports, **fields)


def _fill(op: PadOp, emitter: Emitter, piece: Piece) -> None:
    box = piece.ports["dst"]
    whole = op.buffers("dst")[0]
    here = emitter.target(whole, box, ("dst", 0))  # type: ignore[arg-type]
    emitter.put(FillOp.make({"dst": here}, value=op.fields()["value"]))
    emitter.store(here, whole, box)  # type: ignore[arg-type]


__all__ = ["SLOT", "Emitter", "Plan", "TilePass", "tile_bytes", "tile_layer"]
