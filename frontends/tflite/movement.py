"""Importers of operators that only move values, on floats as on the integers of quantised tensors."""

from __future__ import annotations

import math

import numpy as np
from xdsl.ir import SSAValue

from ...dialects import graph
from ...dialects.quant import QuantType
from ...dialects.types import dtype_of, i32, i64, shape_of, u8
from ...runtime.fixed_point import full_range
from .casting import EIGHT_BITS, requantised
from .node import Node
from .registry import Unsupported, tflite_importer
from .scales import activated, clamped


# --- shapes ----------------------------------------------------------------------------------------------
@tflite_importer("RESHAPE", moves=True)
def reshape(node: Node) -> SSAValue:
    """To the constant of input 1, else the option, else the result's shape in the file; one size may be
    -1.
    """
    shape = node.array(1)
    wanted = [int(v) for v in shape.ravel()] if shape is not None else list(node.source.fields.get("NewShape", ()))
    if not wanted:
        wanted = list(node.outputs[0].shape)
    size = math.prod(node.shape(0))
    if wanted.count(-1) == 1:
        rest = -math.prod(wanted)
        if rest < 1 or size % rest:
            raise Unsupported(f"{list(node.shape(0))} does not reshape to {wanted}")
        wanted[wanted.index(-1)] = size // rest
    return node.reshape(node.operand(0), wanted)


@tflite_importer("SQUEEZE", moves=True)
def squeeze(node: Node) -> SSAValue:
    """Without the named axes of size 1, or without all of them."""
    shape = node.shape(0)
    named = [node.axis(a, len(shape)) for a in node.source.fields.get("SqueezeDims", ())]
    if any(shape[a] != 1 for a in named):
        raise Unsupported(f"it squeezes the axes {named} of {list(shape)}, which are not all of size 1")
    gone = named or [i for i, d in enumerate(shape) if d == 1]
    return node.reshape(node.operand(0), [d for i, d in enumerate(shape) if i not in gone])


@tflite_importer("EXPAND_DIMS", moves=True)
def expand_dims(node: Node) -> SSAValue:
    """With an axis of size 1."""
    shape = list(node.shape(0))
    axes = node.ints(1, "its axis")
    if len(axes) != 1:
        raise Unsupported(f"its axis is {list(axes)}, and has to be one number")
    shape.insert(node.axis(axes[0], len(shape) + 1), 1)
    return node.reshape(node.operand(0), shape)


@tflite_importer("SHAPE", moves=True)
def shape_as_value(node: Node) -> SSAValue:
    """The shape, which is known."""
    return node.literal(np.array(node.shape(0), dtype_of(node.result())))


@tflite_importer("TRANSPOSE", moves=True)
def transpose(node: Node) -> SSAValue:
    """Axis i of the result is axis permutation[i] of the input."""
    rank = len(node.shape(0))
    permutation = [node.axis(a, rank) for a in node.ints(1, "its permutation")]
    return node.emit(graph.TransposeOp, node.operand(0), permutation=permutation)


# --- joining and parting ---------------------------------------------------------------------------------
@tflite_importer("CONCATENATION", moves=True)
def concatenation(node: Node) -> SSAValue:
    """Quantised inputs are brought to the result's scale."""
    values = node.operands()
    if not values:
        raise Unsupported("it has no inputs")
    axis = node.axis(int(node.option("Axis")), len(shape_of(values[0])))
    if not node.is_quantised():
        return activated(node, node.emit(graph.ConcatOp, *values, axis=axis))
    result = node.result_quant()
    values = [v if node.quant(i) == result else rescaled(node, v, node.quant(i), result) for i, v in enumerate(values)]
    return clamped(node, node.emit(graph.ConcatOp, *values, axis=axis), result)


def rescaled(node: Node, value: SSAValue, source: QuantType, result: QuantType) -> SSAValue:
    """An input of another scale. TFLite's kernel for uint8 does it in float32, round(q · factor + offset)."""
    if source.storage != result.storage:
        raise Unsupported("its operands and result are of different integer types")
    if source.storage != u8:
        return requantised(node, value, result)
    factor = np.float32(source.scale) * (np.float32(1) / np.float32(result.scale))
    offset = np.float32(-source.zero) * factor
    real = (EIGHT_BITS.astype(np.float32) * factor + offset).astype(np.float64)
    rounded = np.copysign(np.floor(np.abs(real) + 0.5), real).astype(np.int64) + result.zero
    return node.table(value, np.clip(rounded, *full_range(np.uint8)).astype(np.uint8), result)


@tflite_importer("PACK", moves=True)
def pack(node: Node) -> SSAValue:
    """Along a new axis."""
    values = node.operands()
    if not values:
        raise Unsupported("it has no inputs")
    shape = list(shape_of(values[0]))
    axis = node.axis(int(node.option("Axis", 0)), len(shape) + 1)
    if node.is_quantised():
        node.same_quantisation(*range(len(values)))
    if any(shape_of(v) != tuple(shape) for v in values):
        raise Unsupported("its inputs differ in shape")
    shape.insert(axis, 1)
    return node.emit(graph.ConcatOp, *(node.reshape(v, shape) for v in values), axis=axis)


@tflite_importer("UNPACK", moves=True)
def unpack(node: Node) -> tuple[SSAValue, ...]:
    """Slices of an axis, which goes."""
    shape = node.shape(0)
    axis = node.axis(int(node.option("Axis", 0)), len(shape))
    if shape[axis] != len(node.outputs):
        raise Unsupported(f"it has {len(node.outputs)} outputs for an axis of {shape[axis]}")
    parts = node.emit_all(graph.SplitOp, node.operand(0), axis=axis, sizes=(1,) * shape[axis])
    return tuple(node.reshape(p, (*shape[:axis], *shape[axis + 1 :])) for p in parts)


@tflite_importer("SPLIT", moves=True)
def split(node: Node) -> tuple[SSAValue, ...]:
    """Inputs: axis, data. Equal parts."""
    axes, count = node.ints(0, "its axis"), int(node.option("NumSplits"))
    shape = node.shape(1)
    if len(axes) != 1:
        raise Unsupported(f"its axis is {list(axes)}, and has to be one number")
    axis = node.axis(axes[0], len(shape))
    if count < 1 or shape[axis] % count or count != len(node.outputs):
        raise Unsupported(f"{count} equal parts do not fit an axis of {shape[axis]} and {len(node.outputs)} outputs")
    return node.emit_all(graph.SplitOp, node.operand(1), axis=axis, sizes=(shape[axis] // count,) * count)


@tflite_importer("SPLIT_V", moves=True)
def split_v(node: Node) -> tuple[SSAValue, ...]:
    """Inputs: data, sizes (one may be -1), axis."""
    shape, sizes, axes = node.shape(0), list(node.ints(1, "its sizes")), node.ints(2, "its axis")
    if len(axes) != 1:
        raise Unsupported(f"its axis is {list(axes)}, and has to be one number")
    axis = node.axis(axes[0], len(shape))
    if sizes.count(-1) == 1:
        sizes[sizes.index(-1)] = shape[axis] - sum(sizes) - 1
    if len(sizes) != len(node.outputs):
        raise Unsupported(f"it has {len(node.outputs)} outputs for {len(sizes)} sizes")
    return node.emit_all(graph.SplitOp, node.operand(0), axis=axis, sizes=sizes)


# --- slices ----------------------------------------------------------------------------------------------
@tflite_importer("SLICE", moves=True)
def slice_(node: Node) -> SSAValue:
    """Inputs: data, begin, size; a size of -1 reaches to the end."""
    shape, begin, sizes = node.shape(0), node.ints(1, "its begin"), node.ints(2, "its sizes")
    if not len(shape) == len(begin) == len(sizes):
        raise Unsupported(f"begin {list(begin)} and size {list(sizes)} do not fit {list(shape)}")
    sizes = [d - b if s == -1 else s for d, b, s in zip(shape, begin, sizes)]  # type: ignore[assignment]
    return node.emit(graph.SliceOp, node.operand(0), starts=begin, sizes=sizes, steps=(1,) * len(shape))


@tflite_importer("STRIDED_SLICE", moves=True)
def strided_slice(node: Node) -> SSAValue:
    """Python's slices, with bit masks for what is left out; shrunk axes go, new ones come."""
    shape = node.shape(0)
    begin, end, strides = (node.ints(i, f"its {what}") for i, what in ((1, "begin"), (2, "end"), (3, "strides")))
    if not len(begin) == len(end) == len(strides):
        raise Unsupported("begin, end and strides differ in length")
    if node.option("Offset", False):
        raise Unsupported("its end counts from its begin (option offset), which cannot be imported yet")
    masks = {
        n: int(node.option(n, 0)) for n in ("BeginMask", "EndMask", "EllipsisMask", "NewAxisMask", "ShrinkAxisMask")
    }

    def on(mask: str, i: int) -> bool:
        return bool(masks[mask] >> i & 1)

    consumed = sum(not on("NewAxisMask", i) and not on("EllipsisMask", i) for i in range(len(begin)))
    if consumed > len(shape) or bin(masks["EllipsisMask"] & ((1 << len(begin)) - 1)).count("1") > 1:
        raise Unsupported(f"it slices {consumed} axes of {list(shape)}")
    starts: list[int] = []
    sizes: list[int] = []
    steps: list[int] = []
    result: list[int] = []

    def whole(count: int) -> None:
        for _ in range(count):
            size = shape[len(starts)]
            starts.append(0)
            sizes.append(size)
            steps.append(1)
            result.append(size)

    for i, (first, last, step) in enumerate(zip(begin, end, strides)):
        if on("EllipsisMask", i):
            whole(len(shape) - consumed)
        elif on("NewAxisMask", i):
            result.append(1)
        else:
            size = shape[len(starts)]
            if step == 0:
                raise Unsupported("it has a stride of 0")
            if on("ShrinkAxisMask", i):
                at = first + size if first < 0 else first
                if not 0 <= at < size:
                    raise Unsupported(f"it takes element {first} of an axis of {size}")
                chosen = range(at, at + 1)
            else:
                chosen = range(
                    *slice(None if on("BeginMask", i) else first, None if on("EndMask", i) else last, step).indices(
                        size
                    )
                )
                result.append(len(chosen))
            starts.append(chosen.start if len(chosen) else 0)
            sizes.append(len(chosen))
            steps.append(step if len(chosen) > 1 else 1)
    whole(len(shape) - len(starts))
    taken = node.emit(graph.SliceOp, node.operand(0), starts=starts, sizes=sizes, steps=steps)
    return node.reshape(taken, result)


@tflite_importer("GATHER", moves=True)
def gather(node: Node) -> SSAValue:
    """Slices of an axis, chosen by indices; leading axes may be common to both."""
    data, indices = node.shape(0), node.shape(1)
    axis = node.axis(int(node.option("Axis", 0)), len(data))
    if node.option("BatchDims", 0):
        raise Unsupported("axes common to data and indices (batch_dims) cannot be imported yet")
    if node.element(1) not in (i32, i64):
        raise Unsupported(f"its indices are {node.element(1)}, and have to be i32 or i64")
    known = node.array(1)
    if known is not None and known.size and not (known.min() >= 0 and known.max() < data[axis]):
        raise Unsupported(f"its indices reach from {known.min()} to {known.max()} in an axis of {data[axis]}")
    del indices
    return node.emit(graph.GatherOp, node.operand(0), node.operand(1), axis=axis)


@tflite_importer("EMBEDDING_LOOKUP", moves=True, weights=(1,))
def embedding_lookup(node: Node) -> SSAValue:
    """Inputs: ids [n] of i32, table. Rows of the table."""
    rows = node.shape(1)[0] if node.shape(1) else 0
    if node.element(0) != i32 or len(node.shape(0)) != 1:
        raise Unsupported(f"its ids are {node.element(0)}{list(node.shape(0))}, and have to be i32 in one axis")
    known = node.array(0)
    if known is not None and known.size and not (known.min() >= 0 and known.max() < rows):
        raise Unsupported(f"its ids reach from {known.min()} to {known.max()} in a table of {rows} rows")
    return node.emit(graph.GatherOp, node.operand(1), node.operand(0), axis=0)


# --- padding and repeating -------------------------------------------------------------------------------
@tflite_importer("PAD", "PADV2", "MIRROR_PAD", moves=True)
def pad(node: Node) -> SSAValue:
    """Inputs: data, [rank, 2] of rows and columns before and after, PADV2's value."""
    rank = len(node.shape(0))
    amounts = node.ints(1, "its paddings")
    if len(amounts) != 2 * rank:
        raise Unsupported(f"its paddings hold {len(amounts)} numbers for {rank} axes")
    around = {"low": amounts[::2], "high": amounts[1::2]}
    x = node.operand(0)
    if node.is_quantised():
        node.same_quantisation()
    if node.kind == "MIRROR_PAD":
        return mirrored(node, x, amounts)
    return node.emit(graph.PadOp, x, value=pad_value(node), **around)


def pad_value(node: Node) -> float:
    """What is stored around the data: real zero, or PADV2's constant."""
    element = node.element(0)
    if node.kind == "PAD" or not node.has(2):
        return float(element.zero) if isinstance(element, QuantType) else 0.0
    value = node.constant(2, "its padding value")
    if value.size != 1 or node.element(2) != element:
        raise Unsupported(
            f"its padding value '{node.input_name(2)}' ({node.element(2)}) should be one number of the type {element}"
        )
    return float(value.ravel()[0])


def mirrored(node: Node, x: SSAValue, amounts: tuple[int, ...]) -> SSAValue:
    """REFLECT leaves out the edge, SYMMETRIC repeats it: as slices of reversed data, an axis at a time."""
    edge = 0 if node.word("Mode", "MirrorPadMode") == "SYMMETRIC" else 1
    for axis, (low, high) in enumerate(zip(amounts[::2], amounts[1::2])):
        if low == high == 0:
            continue
        shape = shape_of(x)
        size = shape[axis]
        if not 0 <= max(low, high) <= size - edge or min(low, high) < 0:
            raise Unsupported(f"a mirror of {low} and {high} is longer than an axis of {size}")
        parts = [
            reversed_part(node, x, axis, low + edge - 1, low),
            x,
            reversed_part(node, x, axis, size - 1 - edge, high),
        ]
        kept = [p for p in parts if shape_of(p)[axis]]
        x = node.emit(graph.ConcatOp, *kept, axis=axis)
    return x


def reversed_part(node: Node, x: SSAValue, axis: int, start: int, count: int) -> SSAValue:
    """`count` elements of an axis, from `start` on backwards."""
    shape = shape_of(x)
    starts, steps, sizes = [0] * len(shape), [1] * len(shape), list(shape)
    starts[axis], steps[axis], sizes[axis] = max(start, 0), -1, count
    return node.emit(graph.SliceOp, x, starts=starts, sizes=sizes, steps=steps)


@tflite_importer("TILE", moves=True)
def tile(node: Node) -> SSAValue:
    """The data repeated along each axis."""
    x, repeats = node.operand(0), node.ints(1, "its repeats")
    if len(repeats) != len(shape_of(x)) or any(r < 0 for r in repeats):
        raise Unsupported(f"repeats {list(repeats)} do not fit {list(shape_of(x))}")
    shape = shape_of(x)
    apart = node.reshape(x, [v for d in shape for v in (1, d)])
    spread = node.emit(graph.BroadcastOp, apart, shape=[v for r, d in zip(repeats, shape) for v in (r, d)])
    return node.reshape(spread, [r * d for r, d in zip(repeats, shape)])


@tflite_importer("BROADCAST_TO", moves=True)
def broadcast_to(node: Node) -> SSAValue:
    """The data repeated until it has the given shape."""
    return node.emit(graph.BroadcastOp, node.operand(0), shape=node.ints(1, "its shape"))
