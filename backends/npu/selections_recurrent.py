"""How the cells of LSTM and GRU and the states of a module become instructions."""

from __future__ import annotations

from collections.abc import Iterator

from xdsl.dialects.func import ReturnOp
from xdsl.ir import Operation, SSAValue

from ...dialects import graph
from ...dialects import npu_instructions as npu
from ...dialects.declarative import DeclarativeOp
from ...dialects.graph_recurrent import GruCellOp, GruResetOp, LstmCellOp
from ...dialects.nacre import ReadStateOp, WriteStateOp
from ...dialects.qnn_recurrent import LstmCellOp as QuantisedLstmCellOp
from ...dialects.qnn_recurrent import NormLstmCellOp
from ...dialects.quant import SCastOp
from ...dialects.types import shape_of
from .select import Selector, selects


@selects(QuantisedLstmCellOp, NormLstmCellOp)
@selects(LstmCellOp, GruResetOp, GruCellOp, reorders=True)
def cell(op: DeclarativeOp, s: Selector) -> None:
    """A launch with the gates as [N, k, H], so that a tile takes some columns of all of them."""
    hidden = shape_of(op.results[0])[1]

    def operand(value: SSAValue) -> SSAValue:
        shape = shape_of(value)
        if shape[-1] == hidden and len(shape) == 2:
            return s.buffer(value)
        return s.reshape(s.dense(value), (*shape[:-1], shape[-1] // hidden, hidden))

    s.start(op.name, [operand(v) for v in op.operands], [s.result(v) for v in op.results], op.parameters())


# --- states ----------------------------------------------------------------------------------------------
@selects(ReadStateOp)
def read_state(op: ReadStateOp, s: Selector) -> None:
    """The state's own place; a copy where the value is used behind the next write."""
    place = s.states[op.symbol()]
    if outlives_write(op):
        s.emit(npu.CopyOp, {"src": place, "dst": s.result(op.result)})
    else:
        s.alias(op.result, place)


@selects(WriteStateOp)
def write_state(op: WriteStateOp, s: Selector) -> None:
    """A copy to the state's place, none of what lies there already."""
    place, value = s.states[op.symbol()], s.buffer(op.value)
    if value is not place:
        s.emit(npu.CopyOp, {"src": value, "dst": place})


def outlives_write(op: ReadStateOp) -> bool:
    """Whether the value read, or a view of it, is used after the state has got another."""
    write: Operation | None = op.next_op
    while write is not None and not (isinstance(write, WriteStateOp) and write.state == op.state):
        write = write.next_op
    return write is not None and any(
        isinstance(user, ReturnOp) or write.is_before_in_block(user) for user in users_of(op.result)
    )


def users_of(value: SSAValue) -> Iterator[Operation]:
    """The users of a value and of what selection makes views of it."""
    for use in value.uses:
        yield use.operation
        if isinstance(use.operation, (graph.ReshapeOp, graph.SliceOp, graph.SplitOp, SCastOp)):
            for result in use.operation.results:
                yield from users_of(result)
