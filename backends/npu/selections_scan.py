"""How operations that go by places become launches: products, gathering and scattering by an index an element."""

from __future__ import annotations

from xdsl.ir import SSAValue

from ...dialects import graph
from ...dialects import npu_instructions as npu
from ...dialects.npu import buffer_type
from ...dialects.types import shape_of, size_of
from .decompose import bytes_of, launch, rows_fit
from .select import Selector, selects
from .selections_rows import reduction

PART = 0.2
"""Share of the SRAM that a part of a row takes, where rows are scanned in parts; its result takes as much."""


@selects(graph.CumsumOp, graph.CumprodOp)
def scan(op: graph.ScanOp, s: Selector) -> None:
    """One kernel, or one a part of the axis, which goes on from the last element of the part before."""
    p, shape, row = op.parameters(), shape_of(op.input), bytes_of(op.input, (op.parameters().axis,))
    size = shape[p.axis]
    if rows_fit(s, row, row):
        s.launch(op)
        return
    x, y = s.buffer(op.input), s.result(op.result)
    count = max(int(s.machine.sram_bytes * PART) * size // row, 1)
    starts = list(range(0, size, count))

    def part(whole: SSAValue, start: int, length: int) -> SSAValue:
        offsets = tuple(start if i == p.axis else 0 for i in range(len(shape)))
        return s.view(whole, offsets, tuple(length if i == p.axis else d for i, d in enumerate(shape)))

    for start in reversed(starts) if p.reverse else starts:
        length = min(count, size - start)
        last = start + length if p.reverse else start - 1  # of the part before, in the scan's direction
        given = [part(x, start, length)]
        if 0 <= last < size:
            given += [part(y, last, 1), part(x, last, 1)]
            launch(s, f"ppu.{op.name.removeprefix('graph.')}", given, part(y, start, length), p)
        else:
            s.start(op.name, given, [part(y, start, length)], p)


@selects(graph.ReduceProdOp)
def reduce_prod(op: graph.ReduceProdOp, s: Selector) -> None:
    """One kernel, which goes on from its partial result."""
    reduction(s, op, {}, {})


@selects(graph.GatherElementsOp)
def gather_elements(op: graph.GatherElementsOp, s: Selector) -> None:
    """A kernel that looks through the data in pieces."""
    axis = op.parameters().axis
    settled = {"axis": axis, "size": shape_of(op.data)[axis]}
    inputs = [s.buffer(op.data), s.buffer(op.indices)]
    launch(s, "ppu.gather_elements", inputs, s.result(op.result), settled, {"offset": 0})


@selects(graph.ScatterElementsOp)
def scatter_elements(op: graph.ScatterElementsOp, s: Selector) -> None:
    """A kernel on the lines that have updates; the others are copied, all with them."""
    p, data, result = op.parameters(), s.buffer(op.data), s.result(op.result)
    shape, updates = shape_of(op.data), shape_of(op.updates)
    touched = tuple(d if i == p.axis else n for i, (d, n) in enumerate(zip(shape, updates)))
    if touched != shape or not size_of(op.updates):
        s.emit(npu.CopyOp, {"src": data, "dst": result})
    if not size_of(op.updates):
        return
    if touched != shape:
        data, result = (s.view(whole, (0,) * len(shape), touched) for whole in (data, result))
    settled = {"axis": p.axis, "size": buffer_type(data).shape[p.axis], "reduction": p.reduction}
    launch(
        s, "ppu.scatter_elements", [data, s.buffer(op.indices), s.buffer(op.updates)], result, settled, {"offset": 0}
    )
