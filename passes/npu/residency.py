"""Which buffers are kept in the SRAM across layers, and what they leave free."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from xdsl.ir import Operation, SSAValue

from ...dialects.npu import Space, buffer_type
from ...dialects.npu_instructions import AllocOp
from .lifetimes import ADDRESS, address_of, buffer_lifetimes


class Kept(NamedTuple):
    """A buffer with a place in the SRAM and the layers during which it is taken."""

    buffer: SSAValue
    start: int
    stop: int
    first: int
    last: int


def largest_hole(kept: Iterable[Kept], index: int, size: int) -> int:
    """Bytes in one piece that are free at a layer."""
    return max((stop - start for start, stop in holes_at(kept, index, index, size)), default=0)


def holes_at(kept: Iterable[Kept], first: int, last: int, size: int) -> list[tuple[int, int]]:
    """What is free from one layer to another."""
    holes, at = [], 0
    for one in sorted(kept, key=lambda k: k.start):
        if one.first <= last and first <= one.last:
            if one.start > at:
                holes.append((at, one.start))
            at = max(at, one.stop)
    if at < size:
        holes.append((at, size))
    return holes


def kept_buffers(ops: Sequence[Operation]) -> list[Kept]:
    """The SRAM buffers of a module that have addresses already, with their lives in its present form."""
    return [
        Kept(x.buffer, at, at + max(x.size, 1), x.first, x.last)
        for x in buffer_lifetimes(ops)
        if is_kept(x.buffer)
        for at in [address_of(x.buffer)]
    ]


def is_kept(root: SSAValue) -> bool:
    """Whether a root buffer is kept on chip across layers."""
    owner = root.owner
    return (
        isinstance(owner, AllocOp) and buffer_type(root).space is Space.SRAM and ADDRESS in owner.attributes
    )
