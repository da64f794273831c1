"""How long buffers live, and where their addresses are kept."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from xdsl.dialects.builtin import IntegerAttr, i64
from xdsl.ir import BlockArgument, Operation, SSAValue

from ...dialects.npu import BufferType, Instruction
from ...dialects.npu_instructions import layout_of

ADDRESS = "npu.address"


class Lifetime(NamedTuple):
    """A buffer and the first and last instruction that touch it."""

    buffer: SSAValue
    size: int
    first: int
    last: int


def address_of(value: SSAValue) -> int:
    """The address of a root buffer after this pass."""
    if isinstance(value, BlockArgument):
        function = value.owner.parent_op()
        attributes = function.arg_attrs.data[value.index].data  # type: ignore[union-attr]
    else:
        attributes = value.owner.attributes  # type: ignore[union-attr]
    return attributes[ADDRESS].value.data


def set_address(value: SSAValue, address: int) -> None:
    """Record where a root buffer lies."""
    value.owner.attributes[ADDRESS] = IntegerAttr(address, i64)  # type: ignore[union-attr]


def buffer_lifetimes(ops: Iterable[Operation]) -> list[Lifetime]:
    """Lifetimes of root buffers, by index of the op; views count for their roots."""
    span: dict[SSAValue, tuple[int, int]] = {}
    roots: dict[SSAValue, SSAValue] = {}
    for index, op in enumerate(ops):
        if not isinstance(op, Instruction):
            continue
        for value in op.operands:
            if value not in roots:
                roots[value] = layout_of(value).root
            root = roots[value]
            span[root] = (span[root][0] if root in span else index, index)
    return [Lifetime(v, bytes_of(v), *s) for v, s in span.items()]


def bytes_of(value: SSAValue) -> int:
    """Size of a buffer."""
    assert isinstance(value.type, BufferType)
    return value.type.nbytes
