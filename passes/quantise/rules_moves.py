"""Quantisation of ops that only move or compare values: graph ops on the stored integers."""

from __future__ import annotations

import numpy as np
from xdsl.ir import Operation, SSAValue

from ...dialects import graph
from ..pattern import with_operands
from .parameters import stored
from .quantiser import Quantiser
from .rules import Kind, quantises


@quantises(
    graph.ReshapeOp, graph.TransposeOp, graph.BroadcastOp, graph.SliceOp, graph.GatherOp, graph.SplitOp,
    graph.MaxPoolOp, graph.DepthToSpaceOp, graph.SpaceToDepthOp, graph.ReduceMaxOp, graph.ReduceMinOp,
    graph.ArgmaxOp, kind=Kind.MOVES,
)  # fmt: skip
def move(op: Operation, q: Quantiser) -> list[SSAValue]:
    """The same op on integers: operand 0 is the data, others (indices) stay as they are."""
    data = q.input(op.operands[0])
    return emit_same(q, op, data)


def emit_same(q: Quantiser, op: Operation, data: SSAValue, **parameters: object) -> list[SSAValue]:
    """The op again, on quantised data."""
    new = with_operands(op, [data, *list(op.operands)[1:]], **parameters)
    q.add(new)
    return list(new.results)


@quantises(graph.PadOp, kind=Kind.MOVES)
def pad(op: graph.PadOp, q: Quantiser) -> list[SSAValue]:
    """The value becomes the integer that is stored for it; real 0 is the zero point."""
    data = q.input(op.input)
    integer = stored(np.array(op.parameters().value), q.type(data))
    return emit_same(q, op, data, value=float(integer))


@quantises(graph.ConcatOp, kind=Kind.JOINS)
def concat(op: graph.ConcatOp, q: Quantiser) -> SSAValue:
    """All inputs in the type of the result."""
    type_ = q.result_type(op.result)
    return q.add(graph.ConcatOp.make(*(q.input_as(v, type_) for v in op.inputs), axis=op.parameters().axis))


@quantises(graph.SelectOp, kind=Kind.JOINS)
def select(op: graph.SelectOp, q: Quantiser) -> SSAValue:
    """Both branches in the type of the result; the condition is not of this world."""
    type_ = q.result_type(op.result)
    return q.add(graph.SelectOp.make(op.condition, q.input_as(op.a, type_), q.input_as(op.b, type_)))


@quantises(graph.MinOp, graph.MaxOp, kind=Kind.JOINS)
def smaller_or_larger(op: graph.MinOp | graph.MaxOp, q: Quantiser) -> SSAValue:
    """Both operands in one type, in which integers compare as the reals do."""
    type_ = q.result_type(op.result)
    return q.add(type(op).make(q.input_as(op.a, type_), q.input_as(op.b, type_)))
