"""Importers of reductions, softmax and its relatives, arg max and min.

`axes` is an attribute in older opsets and an input in newer ones; `Node.ints` reads whichever is there.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from xdsl.ir import SSAValue

from ...dialects import graph
from ...dialects.declarative import DeclarativeOp
from ...dialects.types import dtype_of, element_type, i32, shape_of
from .node import Node
from .registry import Importer, Unsupported, Value, importer

Step = Callable[[Node, SSAValue], SSAValue]


# --- reductions ------------------------------------------------------------------------------------------
def reduction_axes(node: Node) -> tuple[int, ...]:
    """The axes to reduce: all of them where none are named, none with `noop_with_empty_axes`."""
    rank = len(node.shape(0))
    axes = node.ints("axes", 1, "the list of axes")
    if not axes:
        return () if node.attribute("noop_with_empty_axes", 0) else tuple(range(rank))
    return tuple(sorted({node.axis(a, rank) for a in axes}))


def reduce(
    node: Node, op: type[DeclarativeOp], value: SSAValue, axes: tuple[int, ...], keepdims: bool
) -> SSAValue:
    """A reduction; over no axes it is the value itself."""
    return node.emit(op, value, axes=axes, keepdims=keepdims) if axes else value


def reduction(op: type[DeclarativeOp], before: Step | None = None, after: Step | None = None) -> Importer:
    """The importer of a reduction with an elementwise step before and after it."""

    def emit(node: Node) -> Value:
        value = node.operand(0)
        if before is not None:
            value = before(node, value)
        value = reduce(node, op, value, reduction_axes(node), bool(node.attribute("keepdims")))
        return value if after is None else after(node, value)

    return emit


def square(node: Node, value: SSAValue) -> SSAValue:
    return node.emit(graph.MulOp, value, value)


def step(op: type[DeclarativeOp]) -> Step:
    return lambda node, value: node.emit(op, value)


importer("ReduceSum")(reduction(graph.ReduceSumOp))
importer("ReduceProd")(reduction(graph.ReduceProdOp))
importer("ReduceMean")(reduction(graph.ReduceMeanOp))
importer("ReduceL1")(reduction(graph.ReduceSumOp, before=step(graph.AbsOp)))
importer("ReduceL2")(reduction(graph.ReduceSumOp, before=square, after=step(graph.SqrtOp)))
importer("ReduceSumSquare")(reduction(graph.ReduceSumOp, before=square))
importer("ReduceLogSum")(reduction(graph.ReduceSumOp, after=step(graph.LogOp)))


def extreme(op: type[DeclarativeOp]) -> Importer:
    """The importer of a maximum or minimum; booleans (opset 20) go through integers."""

    def emit(node: Node) -> Value:
        value = node.operand(0)
        element = element_type(value)
        boolean = dtype_of(element).kind == "b"
        if 0 in shape_of(value):
            return of_nothing(node, op, shape_of(value))
        if boolean:
            value = node.emit(graph.CastOp, value, to=i32)
        value = reduce(node, op, value, reduction_axes(node), bool(node.attribute("keepdims")))
        return node.emit(graph.CastOp, value, to=element) if boolean else value

    return emit


def of_nothing(node: Node, op: type[DeclarativeOp], shape: tuple[int, ...]) -> np.ndarray:
    """The extreme of no elements: the least or greatest value of the type (ReduceMax's page)."""
    dtype, top = node.dtype(0), op is graph.ReduceMinOp
    if dtype.kind == "f":
        value = np.inf if top else -np.inf
    elif dtype.kind == "b":
        value = top
    else:
        value = np.iinfo(dtype).max if top else np.iinfo(dtype).min
    axes = set(reduction_axes(node))
    return np.full(graph.reduced_shape(shape, axes, bool(node.attribute("keepdims"))), value, dtype)


importer("ReduceMax")(extreme(graph.ReduceMaxOp))
importer("ReduceMin")(extreme(graph.ReduceMinOp))


@importer("ReduceLogSumExp")
def reduce_log_sum_exp(node: Node) -> Value:
    """m + log Σ e^(x − m) with m = max x, which does not overflow."""
    value, axes = node.operand(0), reduction_axes(node)
    if dtype_of(element_type(value)).kind != "f":
        raise Unsupported("it is supported on floats only")
    if 0 in shape_of(value):
        return of_nothing(node, graph.ReduceMaxOp, shape_of(value))
    top = reduce(node, graph.ReduceMaxOp, value, axes, True)
    total = reduce(
        node, graph.ReduceSumOp, node.emit(graph.ExpOp, node.emit(graph.SubOp, value, top)), axes, True
    )
    result = node.emit(graph.AddOp, top, node.emit(graph.LogOp, total))
    return result if node.attribute("keepdims") else drop_axes(node, result, axes)


def drop_axes(node: Node, value: SSAValue, axes: tuple[int, ...]) -> SSAValue:
    """The value without axes of size 1."""
    return node.emit(
        graph.ReshapeOp, value, shape=[d for i, d in enumerate(shape_of(value)) if i not in axes]
    )


# --- softmax ---------------------------------------------------------------------------------------------
def along(node: Node, function: Callable[[Node, SSAValue, int], SSAValue]) -> Value:
    """A function along one axis (opset 13 on)."""
    value = node.operand(0)
    return function(node, value, node.axis(node.attribute("axis"), len(shape_of(value))))


def flattened(node: Node, function: Callable[[Node, SSAValue, int], SSAValue]) -> Value:
    """A function over all axes from `axis` on, as one (before opset 13)."""
    value = node.operand(0)
    shape = shape_of(value)
    axis = node.axis(node.attribute("axis"), len(shape))
    if all(d == 1 for d in shape[axis + 1 :]):
        return function(node, value, axis)
    rows = node.emit(graph.ReshapeOp, value, shape=(*shape[:axis], int(np.prod(shape[axis:]))))
    return node.emit(graph.ReshapeOp, function(node, rows, axis), shape=shape)


def softmax(node: Node, value: SSAValue, axis: int) -> SSAValue:
    return node.emit(graph.SoftmaxOp, value, axis=axis)


def log_softmax(node: Node, value: SSAValue, axis: int) -> SSAValue:
    """x − m − log Σ e^(x − m) with m = max x."""
    centred = node.emit(graph.SubOp, value, node.emit(graph.ReduceMaxOp, value, axes=(axis,)))
    total = node.emit(graph.ReduceSumOp, node.emit(graph.ExpOp, centred), axes=(axis,))
    return node.emit(graph.SubOp, centred, node.emit(graph.LogOp, total))


def hardmax(node: Node, value: SSAValue, axis: int) -> SSAValue:
    """1 at the first largest element along the axis, 0 elsewhere."""
    largest = node.emit(graph.ArgmaxOp, value, axis=axis)
    return one_where(node, largest, shape_of(value), axis, value)


def one_where(node: Node, index: SSAValue, shape: tuple[int, ...], axis: int, like: SSAValue) -> SSAValue:
    """1 where the position along `axis` is the index, 0 elsewhere."""
    positions = positions_along(axis, shape, np.dtype(np.int64))
    hit = node.emit(graph.CompareOp, index, positions, predicate="eq")
    return node.emit(graph.SelectOp, hit, node.scalar(1, like), node.scalar(0, like))


def positions_along(axis: int, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """0, 1, 2, … along one axis, of size 1 along the others."""
    return np.arange(shape[axis], dtype=dtype).reshape([-1 if i == axis else 1 for i in range(len(shape))])


for _op_type, _function in (("Softmax", softmax), ("LogSoftmax", log_softmax), ("Hardmax", hardmax)):
    importer(_op_type)(lambda node, function=_function: flattened(node, function))  # type: ignore[misc]
    importer(_op_type, since=13)(lambda node, function=_function: along(node, function))  # type: ignore[misc]


# --- arg max ---------------------------------------------------------------------------------------------
def arg(node: Node, value: SSAValue) -> Value:
    axis = node.axis(node.attribute("axis"), len(shape_of(value)))
    return node.emit(
        graph.ArgmaxOp, value, axis=axis, keepdims=bool(node.attribute("keepdims")),
        select_last=bool(node.attribute("select_last_index", 0)),
    )  # fmt: skip


@importer("ArgMax")
def arg_max(node: Node) -> Value:
    return arg(node, node.operand(0))


@importer("ArgMin")
def arg_min(node: Node) -> Value:
    """The largest of −x, for integers of the type's ends turned round: −1 − x, or the greatest minus x."""
    value = node.operand(0)
    dtype = dtype_of(element_type(value))
    if dtype.kind == "f":
        return arg(node, node.emit(graph.NegOp, value))
    top = -1 if dtype.kind == "i" else np.iinfo(dtype).max
    return arg(node, node.emit(graph.SubOp, node.scalar(top, value), value))
