"""Who reads and writes the buffers of a module in layer form, and the step all fusions share: an instruction
moves to the place of its only reader and writes what that one wrote.

Buffers are no SSA values: several instructions may write one (a concat's parts), views of it are buffers too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from xdsl.ir import Operation, SSAValue

from ...dialects.declarative import value_of
from ...dialects.locations import fuse_locations
from ...dialects.npu import READ, WRITE, Instruction, Port, Space, buffer_type, itemsize
from ...dialects.npu_instructions import AllocOp, ReshapeOp, ViewOp, dense_layout, layout_of


class Access(NamedTuple):
    """An instruction's use of a buffer or of a view of it."""

    op: Instruction
    port: Port
    value: SSAValue

    @property
    def writing(self) -> bool:
        return self.port.effect is WRITE


def accesses_of(value: SSAValue) -> list[Access]:
    """Every access to a buffer, through all views and reshapes of it."""
    found: list[Access] = []
    for user in dict.fromkeys(use.operation for use in value.uses):
        if isinstance(user, (ViewOp, ReshapeOp)):
            found += accesses_of(user.results[0])
        elif isinstance(user, Instruction):
            found += [Access(user, p, value) for p in user.PORTS for v in user.buffers(p.name) if v is value]
    return found


def whole_root(value: SSAValue) -> SSAValue:
    """The buffer that a value is all of: reshapes are followed, views are not."""
    while isinstance(value.owner, ReshapeOp):
        value = value.owner.source
    return value


def intermediate(value: SSAValue) -> SSAValue | None:
    """The allocation in DRAM that a value is all of; None for a view, constant, input or output."""
    root = whole_root(value)
    owned = isinstance(root.owner, AllocOp) and buffer_type(root).space is Space.DRAM
    return root if owned else None


def only_producer(value: SSAValue) -> Instruction | None:
    """The instruction that writes all of a buffer which nobody but one reader of `value` sees; else None."""
    root = intermediate(value)
    if root is None:
        return None
    accesses = accesses_of(root)
    writers = [a for a in accesses if a.writing]
    if len(accesses) != 2 or len(writers) != 1 or whole_root(writers[0].value) is not root:
        return None
    return writers[0].op


def output(op: Instruction) -> tuple[str, SSAValue]:
    """The one port an instruction of the fixed engines writes, and the buffer there."""
    ((name, value),) = [(p.name, v) for p in op.PORTS if p.effect is WRITE for v in op.buffers(p.name)]
    return name, value


def may_overlap(a: SSAValue, b: SSAValue) -> bool:
    """Whether two buffer values may share a byte."""
    if layout_of(a).root is not layout_of(b).root:
        return False
    box_a, box_b = _box(a), _box(b)
    if box_a is not None and box_b is not None:
        return all(p[0] < q[1] and q[0] < p[1] for p, q in zip(box_a, box_b))
    (start_a, stop_a), (start_b, stop_b) = _extent(a), _extent(b)
    return start_a < stop_b and start_b < stop_a


def _box(value: SSAValue) -> list[tuple[int, int]] | None:
    """First and behind-the-last index along each axis of the root; None where a reshape hides the axes."""
    starts, steps = [0] * len(buffer_type(value).shape), [1] * len(buffer_type(value).shape)
    shape = buffer_type(value).shape
    while isinstance(value.owner, ViewOp):
        view = value.owner
        inner = value_of(view.steps)
        starts = [o + s * x for o, s, x in zip(value_of(view.offsets), inner, starts)]
        steps = [s * t for s, t in zip(inner, steps)]
        value = view.source
    if isinstance(value.owner, ReshapeOp):
        return None
    return [(o, o + (n - 1) * s + 1 if n else o) for o, n, s in zip(starts, shape, steps)]


def _extent(value: SSAValue) -> tuple[int, int]:
    """First and behind-the-last byte in the root."""
    layout, type_ = layout_of(value), buffer_type(value)
    if 0 in type_.shape:
        return layout.offset, layout.offset
    reach = sum((d - 1) * s for d, s in zip(type_.shape, layout.strides))
    return layout.offset, layout.offset + reach + itemsize(type_.element)


def may_move(producer: Instruction, consumer: Operation) -> bool:
    """Whether the producer could stand where the consumer stands: nobody in between writes what it reads."""
    read = [v for p in producer.PORTS if p.effect is READ for v in producer.buffers(p.name)]
    op = producer.next_op
    while op is not None and op is not consumer:
        if isinstance(op, Instruction):
            written = [v for p in op.PORTS if p.effect is WRITE for v in op.buffers(p.name)]
            if any(may_overlap(v, w) for v in read for w in written):
                return False
        op = op.next_op
    return op is consumer


def merged(
    producer: Instruction, consumer: Instruction, ofm: SSAValue, ports: Mapping[str, Any], **fields: Any
) -> Instruction | None:
    """The producer with changed ports and fields, writing `ofm` in the consumer's place; not inserted yet.

    None where it may not stand there, or would write over what it reads.
    """
    if not may_move(producer, consumer):
        return None
    connected = {n: list(v) for n, v in producer.ports().items()} | dict(ports) | {output(producer)[0]: [ofm]}
    read = [v for name, values in connected.items() if producer.PORT[name].effect is READ for v in values]
    if any(may_overlap(v, ofm) for v in read):
        return None
    location = fuse_locations(producer.location, consumer.location)
    made = type(producer).make(connected, location=location, **(producer.fields() | fields))
    made.attributes |= {**producer.attributes, **consumer.attributes}
    return made


def replace_pair(producer: Instruction, consumer: Instruction, made: Instruction) -> None:
    """Put what `merged` made in the consumer's place, and erase both and the buffer between them."""
    root = whole_root(output(producer)[1])
    block = consumer.parent
    assert block is not None
    block.insert_op_before(made, consumer)
    for op in (producer, consumer):
        op.detach()
        op.erase()
    erase_buffer(root)


def shaped_like(ofm: SSAValue, wanted: SSAValue, consumer: Operation) -> SSAValue | None:
    """`ofm` in the shape of `wanted`, by a reshape before the consumer; None where its gaps forbid that."""
    type_, shape = buffer_type(ofm), buffer_type(wanted).shape
    if type_.shape == shape:
        return ofm
    if dense_layout(ofm) is None:
        return None
    assert consumer.parent is not None
    op = ReshapeOp.create(operands=[ofm], result_types=[type(ofm.type)(type_._replace(shape=shape))])  # type: ignore[call-arg]
    op.location = consumer.location
    consumer.parent.insert_op_before(op, consumer)
    return op.result


def erase_buffer(root: SSAValue) -> None:
    """Erase an allocation that no instruction uses any more, with its views."""
    for user in dict.fromkeys(use.operation for use in root.uses):
        erase_buffer(user.results[0])
    assert isinstance(root.owner, Operation)
    root.owner.detach()
    root.owner.erase()
