"""npu-keep-on-chip: feature maps that fit stay in the SRAM from the layer that writes them to the last that
reads.

Works on whole layers, before tiling. A buffer is kept when there is a place for it over its whole life that
leaves every layer in between room enough for its tiles; those that save most DRAM traffic for the SRAM and
time they
take come first. Kept buffers get their addresses here, from the top of the SRAM down, so that npu-tile knows
what is left in one piece.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation, SSAValue

from ...dialects.npu import Instruction, Space, buffer, buffer_type
from ...dialects.npu_instructions import AllocOp, ReshapeOp, ViewOp, layout_of
from ...runtime.interpreter import main_function
from ..base import NacrePass
from .form import LAYER, require_form
from .lifetimes import Lifetime, buffer_lifetimes, set_address
from .residency import Kept, largest_hole
from .target import machine_of
from .tiling import ALIGNMENT, NoFit, choose_cut, tiling_of

ROOM = 0.3
"""Share of the SRAM that stays free for tiles at every layer."""


@dataclass(frozen=True)
class KeepOnChipPass(NacrePass):
    """Keep feature maps that fit in the SRAM between layers."""

    name = "npu-keep-on-chip"
    target: str | None = None

    def run(self, module: ModuleOp) -> None:
        machine = machine_of(module, self.target)
        require_form(module, LAYER, self.name)
        ops = list(main_function(module).body.block.ops)
        lives = [x for x in buffer_lifetimes(ops) if isinstance(x.buffer.owner, AllocOp)]
        kept: list[Kept] = []
        uses = _uses(ops)
        for life in sorted(lives, key=lambda x: (-_gain(x, uses), x.first)):
            if (place := _place(life, kept, machine.sram_bytes)) is None:
                continue
            candidate = [*kept, place]
            holes = [largest_hole(candidate, i, machine.sram_bytes) for i in range(life.first, life.last + 1)]
            if min(holes) >= machine.sram_bytes * ROOM:
                kept = candidate
        kept = _without_misfits(kept, ops, machine)
        for one in kept:
            move_to_sram(one.buffer)
            set_address(one.buffer, one.start)


def _uses(ops: Iterable[Operation]) -> dict[SSAValue, int]:
    """How often instructions touch each root buffer."""
    counts: dict[SSAValue, int] = {}
    for op in ops:
        if isinstance(op, Instruction):
            for value in op.operands:
                root = layout_of(value).root
                counts[root] = counts.get(root, 0) + 1
    return counts


def _gain(life: Lifetime, uses: dict[SSAValue, int]) -> float:
    """DRAM bytes saved a byte of SRAM and layer of time."""
    return uses[life.buffer] / (life.last - life.first + 1)


def _place(life: Lifetime, kept: Sequence[Kept], size: int) -> Kept | None:
    """The highest place that is free during a whole life."""
    need = max(-(-life.size // ALIGNMENT) * ALIGNMENT, ALIGNMENT)
    stop = size
    for other in sorted(kept, key=lambda k: -k.stop):
        if other.first <= life.last and life.first <= other.last and other.stop > stop - need:
            if other.stop <= stop - need:
                break
            stop = min(stop, other.start)
    return Kept(life.buffer, stop - need, stop, life.first, life.last) if stop >= need else None


def _without_misfits(kept: list[Kept], ops: Sequence[Operation], machine) -> list[Kept]:
    """Give up what leaves a layer no room for any tile."""
    for index, op in enumerate(ops):
        if not isinstance(op, Instruction):
            continue
        while True:
            here = [k for k in kept if k.first <= index <= k.last]
            if not here:
                break
            try:
                choose_cut(tiling_of(op), machine, largest_hole(kept, index, machine.sram_bytes))
                break
            except NoFit:
                kept.remove(max(here, key=lambda k: k.stop - k.start))
    return kept


def move_to_sram(root: SSAValue) -> None:
    """Change the memory of a buffer and of all views of it."""
    type_ = buffer_type(root)
    object.__setattr__(root, "_type", buffer(type_.shape, type_.element, Space.SRAM))
    for use in root.uses:
        if isinstance(use.operation, (ViewOp, ReshapeOp)):
            move_to_sram(use.operation.results[0])
