"""Importers of operators that go by places: the top k, scans, gathering and scattering by tuples, turning round."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from xdsl.ir import SSAValue

from ...dialects import graph
from ...dialects.types import dtype_of, element_type, i32, i64
from .node import Node
from .reduction import axes_of
from .registry import Unsupported, tflite_importer


# --- along an axis ---------------------------------------------------------------------------------------
@tflite_importer("TOPK_V2", moves=True)
def top_k(node: Node) -> tuple[SSAValue, ...]:
    """The k largest along the last axis, which keep their scale, and their places as int32."""
    if node.is_quantised():
        node.same_quantisation()
    axis, (k,) = len(node.shape(0)) - 1, node.ints(1, "k")
    values, places = node.emit_all(graph.TopkOp, node.operand(0), axis=axis, k=k)
    return values, as_index(node, places, 1)


def as_index(node: Node, places: SSAValue, output: int) -> SSAValue:
    """Places in the integer type that the file gives an output."""
    wanted = node.result(output)
    if wanted not in (i32, i64):
        raise Unsupported(f"its places are {wanted}, and i32 or i64 are supported")
    return places if wanted == i64 else node.emit(graph.CastOp, places, to=i32)


@tflite_importer("CUMSUM", floats=True)
def cumulative_sum(node: Node) -> SSAValue:
    """Options exclusive and reverse as in ONNX."""
    (axis,) = node.ints(1, "its axis")
    flags = {name.lower(): bool(node.option(name, False)) for name in ("Exclusive", "Reverse")}
    return node.emit(graph.CumsumOp, node.operand(0), axis=node.axis(axis, len(node.shape(0))), **flags)


@tflite_importer("REDUCE_PROD", floats=True)
def product(node: Node) -> SSAValue:
    """In index order."""
    return node.emit(graph.ReduceProdOp, node.operand(0), **axes_of(node))


@tflite_importer("REDUCE_ANY", "REDUCE_ALL")
def any_or_all(node: Node) -> SSAValue:
    """The larger or the smaller of 0 and 1."""
    op = graph.ReduceMaxOp if node.kind == "REDUCE_ANY" else graph.ReduceMinOp
    numbers = node.emit(graph.CastOp, node.operand(0), to=i32)
    return node.emit(graph.CastOp, node.emit(op, numbers, **axes_of(node)), to=element_type(node.operand(0)))


@tflite_importer("ARG_MIN", floats=True)
def arg_min(node: Node) -> SSAValue:
    """The first place of the largest of −x, or of −1 − x, which no integer leaves."""
    x, (axis,) = node.operand(0), node.ints(1, "its axis")
    if dtype_of(element_type(x)).kind == "u":
        raise Unsupported(f"its input is {element_type(x)}, and floats and signed integers are supported")
    real = dtype_of(element_type(x)).kind == "f"
    turned = node.emit(graph.NegOp, x) if real else node.emit(graph.SubOp, node.scalar(-1, x), x)
    axis = node.axis(axis, len(node.shape(0)))
    return as_index(node, node.emit(graph.ArgmaxOp, turned, axis=axis, keepdims=False), 0)


@tflite_importer("REVERSE_V2", moves=True)
def reverse(node: Node) -> SSAValue:
    """A slice that goes backwards along the named axes."""
    shape = node.shape(0)
    axes = {node.axis(a, len(shape)) for a in node.ints(1, "its list of axes")}
    back = [i in axes for i in range(len(shape))]
    starts = [d - 1 if turned else 0 for d, turned in zip(shape, back)]
    steps = [-1 if turned else 1 for turned in back]
    return node.emit(graph.SliceOp, node.operand(0), starts=starts, sizes=shape, steps=steps)


@tflite_importer("REVERSE_SEQUENCE", moves=True)
def reverse_sequence(node: Node) -> SSAValue:
    """Step t of a sequence of n takes step n − 1 − t, and itself from n on."""
    shape, lengths = node.shape(0), node.operand(1)
    time, batch = (node.axis(int(node.option(name, 0)), len(shape)) for name in ("SeqDim", "BatchDim"))
    if time == batch:
        raise Unsupported(f"its sequences and its batch are both axis {time}")
    dtype = dtype_of(element_type(lengths))
    lengths = node.reshape(lengths, [d if i == batch else 1 for i, d in enumerate(shape)])
    steps = node.literal(along(time, shape, dtype))
    mirrored = node.emit(graph.SubOp, node.emit(graph.SubOp, lengths, node.scalar(1, lengths)), steps)
    inside = node.emit(graph.CompareOp, steps, lengths, predicate="lt")
    places = node.emit(graph.SelectOp, inside, mirrored, steps)
    return node.emit(graph.GatherElementsOp, node.operand(0), places, axis=time)


def along(axis: int, shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
    """0, 1, 2, … along one axis, of size 1 along the others."""
    return np.arange(shape[axis], dtype=dtype).reshape([-1 if i == axis else 1 for i in range(len(shape))])


# --- by indices ------------------------------------------------------------------------------------------
@tflite_importer("ONE_HOT", floats=True)
def one_hot(node: Node) -> SSAValue:
    """Inputs: indices, depth, the value at an index, the value elsewhere; an index outside is nowhere."""
    (depth,) = node.ints(1, "its depth")
    sizes = list(node.shape(0))
    axis = int(node.option("Axis", 0))
    axis = node.axis(axis, len(sizes) + 1)
    sizes.insert(axis, 1)
    indices = node.reshape(node.operand(0), sizes)
    sizes[axis] = depth
    places = node.literal(along(axis, sizes, dtype_of(element_type(indices))))
    hit = node.emit(graph.CompareOp, indices, places, predicate="eq")
    on, off = (node.reshape(node.operand(i), ()) for i in (2, 3))
    return node.emit(graph.SelectOp, hit, on, off)


def rows_named(node: Node, index: int, sizes: Sequence[int]) -> SSAValue:
    """Index tuples [K, D] into axes of the given sizes as one index [K] into all of them as one axis.

    Constant ones that leave an axis are refused; of computed ones the row is held against the data at run time.
    """
    known, shape = node.array(index), node.shape(index)
    if known is not None and known.size and ((known < 0) | (known >= np.array(sizes, np.int64))).any():
        raise Unsupported(f"its indices leave axes of {list(sizes)}")
    if node.element(index) not in (i32, i64):
        raise Unsupported(f"its indices are {node.element(index)}, and have to be i32 or i64")
    tuples = node.reshape(node.operand(index), (math.prod(shape[:-1]), shape[-1]))
    strides = [math.prod(sizes[i + 1 :]) for i in range(len(sizes))]
    scaled = node.emit(graph.MulOp, tuples, node.literal(np.array(strides, dtype_of(element_type(tuples)))))
    return node.emit(graph.ReduceSumOp, scaled, axes=(1,), keepdims=False)


@tflite_importer("GATHER_ND", moves=True)
def gather_nd(node: Node) -> SSAValue:
    """The axes that tuples name become one, of which rows are gathered."""
    sizes, wanted = node.shape(0), node.shape(1)
    depth = wanted[-1] if wanted else 0
    if not 0 < depth <= len(sizes):
        raise Unsupported(f"its indices {list(wanted)} do not fit {list(sizes)}")
    flat = node.reshape(node.operand(0), (math.prod(sizes[:depth]), *sizes[depth:]))
    taken = node.emit(graph.GatherOp, flat, rows_named(node, 1, sizes[:depth]), axis=0)
    return node.reshape(taken, (*wanted[:-1], *sizes[depth:]))


@tflite_importer("SCATTER_ND", floats=True)
def scatter_nd(node: Node) -> SSAValue:
    """Inputs: indices, updates, shape. Updates are added up on zeros."""
    wanted, sizes = node.shape(0), node.ints(2, "its shape")
    depth = wanted[-1] if wanted else 0
    if not 0 < depth <= len(sizes) or node.shape(1) != (*wanted[:-1], *sizes[depth:]):
        raise Unsupported(f"its indices {list(wanted)} and updates {list(node.shape(1))} do not fit {list(sizes)}")
    count, width, updates = math.prod(wanted[:-1]), math.prod(sizes[depth:]), node.operand(1)
    empty = node.literal(np.zeros((math.prod(sizes[:depth]), width), dtype_of(element_type(updates))))
    places = node.reshape(rows_named(node, 0, sizes[:depth]), (count, 1))
    rows = node.reshape(updates, (count, width))
    result = node.emit(graph.ScatterElementsOp, empty, places, rows, axis=0, reduction="add")
    return node.reshape(result, sizes)


# --- elements --------------------------------------------------------------------------------------------
@tflite_importer("SIGN", floats=True)
def sign(node: Node) -> SSAValue:
    """−1, 0 or 1."""
    x = node.operand(0)
    zero = node.scalar(0, x)
    above, below = (node.emit(graph.CompareOp, x, zero, predicate=predicate) for predicate in ("gt", "lt"))
    positive = node.emit(graph.SelectOp, above, node.scalar(1, x), zero)
    return node.emit(graph.SelectOp, below, node.scalar(-1, x), positive)


@tflite_importer("FLOOR_MOD", floats=True)
def floor_mod(node: Node) -> SSAValue:
    """The remainder with the divisor's sign: where they differ, one divisor more."""
    a, b = node.operand(0), node.operand(1)
    rest = node.emit(graph.FmodOp, a, b)
    zero = node.scalar(0, a)
    signs = [node.emit(graph.CompareOp, v, zero, predicate="lt") for v in (rest, b)]
    opposite = node.emit(graph.CompareOp, *signs, predicate="ne")
    moved = node.emit(graph.SelectOp, opposite, node.emit(graph.AddOp, rest, b), rest)
    return node.emit(graph.SelectOp, node.emit(graph.CompareOp, rest, zero, predicate="eq"), rest, moved)


@tflite_importer("FLOOR_DIV", floats=True)
def floor_div(node: Node) -> SSAValue:
    """The quotient rounded down; of integers, one less where the remainder is negative and the divisor is not."""
    a, b = node.operand(0), node.operand(1)
    quotient = node.emit(graph.DivOp, a, b)
    if dtype_of(element_type(a)).kind == "f":
        return node.emit(graph.FloorOp, quotient)
    zero, rest = node.scalar(0, a), node.emit(graph.FmodOp, a, b)
    signs = [node.emit(graph.CompareOp, v, zero, predicate="lt") for v in (rest, b)]
    opposite = node.emit(graph.CompareOp, *signs, predicate="ne")
    less = node.emit(graph.SelectOp, opposite, node.emit(graph.SubOp, quotient, node.scalar(1, a)), quotient)
    return node.emit(graph.SelectOp, node.emit(graph.CompareOp, rest, zero, predicate="eq"), quotient, less)


@tflite_importer("BITWISE_XOR", "RIGHT_SHIFT", moves=True)
def bits(node: Node) -> SSAValue:
    """On integers without scale."""
    operation = "xor" if node.kind == "BITWISE_XOR" else "right"
    if node.is_quantised(0) or node.is_quantised(1):
        raise Unsupported("its operands are quantised, and it works on the bits of plain integers")
    return node.emit(graph.BitwiseOp, node.operand(0), node.operand(1), operation=operation)


@tflite_importer("ADD_N", floats=True)
def add_all(node: Node) -> SSAValue:
    """From left to right."""
    total, *others = node.operands()
    for value in others:
        total = node.emit(graph.AddOp, total, value)
    return total


@tflite_importer("ZEROS_LIKE", floats=True)
def zeros_like(node: Node) -> SSAValue:
    """Zeros of the input's shape and type."""
    return node.literal(np.zeros(node.shape(0), dtype_of(node.element(0))))


@tflite_importer("FILL", moves=True)
def fill(node: Node) -> SSAValue:
    """Inputs: shape, value."""
    return node.emit(graph.BroadcastOp, node.operand(1), shape=node.ints(0, "its shape"))


