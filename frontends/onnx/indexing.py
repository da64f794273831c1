"""Importers of operators that go by places: scans, the top k, gathering and scattering, what pooling says of places.

Indices that are known stay arrays on their way into one index a row; computed ones go through the same arithmetic as
operations. Of computed tuples only the row that they name together is held against the data when the network runs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from xdsl.ir import SSAValue

from ...dialects import graph
from ...dialects.types import dtype_of, element_type, shape_of
from .movement import reshape_to, sliced
from .node import Node, shape_of_value
from .reduction import positions_along
from .registry import Importer, Unsupported, Value, importer


# --- scans -----------------------------------------------------------------------------------------------
def scan(op: type[graph.ScanOp]) -> Importer:
    """The importer of a scan along the axis that input 1 names."""

    def emit(node: Node) -> Value:
        value = node.operand(0)
        axis = node.axis(int(node.constant(1, "the axis").item()), len(shape_of(value)))
        flags = {name: bool(node.attribute(name)) for name in ("exclusive", "reverse")}
        return node.emit(op, value, axis=axis, **flags)

    return emit


importer("CumSum")(scan(graph.CumsumOp))
importer("CumProd", since=26)(scan(graph.CumprodOp))


# --- the largest values ----------------------------------------------------------------------------------
def top(node: Node, k: int) -> tuple[Value, ...]:
    """Values and indices. `sorted` = 0 lets the order open, so it is the sorted one as well."""
    value = node.operand(0)
    axis = node.axis(node.attribute("axis", -1), len(shape_of(value)))
    if not 0 <= k <= shape_of(value)[axis]:
        raise Unsupported(f"k = {k} values are asked of an axis of {shape_of(value)[axis]}")
    return node.emit_all(graph.TopkOp, value, axis=axis, k=k, largest=bool(node.attribute("largest", 1)))


@importer("TopK")
def top_k_attribute(node: Node) -> tuple[Value, ...]:
    return top(node, node.attribute("k"))


@importer("TopK", since=10)
def top_k(node: Node) -> tuple[Value, ...]:
    return top(node, int(node.constant(1, "k").item()))


# --- indices ---------------------------------------------------------------------------------------------
def within(indices: np.ndarray, size: int) -> np.ndarray:
    """Known indices counted from the start. Raises Unsupported where one lies outside."""
    if indices.size and (indices.min() < -size or indices.max() >= size):
        raise Unsupported(f"an index lies outside an axis of {size}")
    return np.where(indices < 0, indices + size, indices)


def rows_named(node: Node, indices: Value, sizes: Sequence[int]) -> Value:
    """Index tuples […, K] into axes of the given sizes as one index […] each into all of them as one axis."""
    strides = [math.prod(sizes[i + 1 :]) for i in range(len(sizes))]
    if isinstance(indices, np.ndarray):
        parts = [within(indices[..., i], d) * s for i, (d, s) in enumerate(zip(sizes, strides))]
        return np.asarray(sum(parts), np.int64)
    dtype = dtype_of(element_type(indices))
    negative = node.emit(graph.CompareOp, indices, node.scalar(0, indices), predicate="lt")
    wrapped = node.emit(graph.AddOp, indices, np.array(sizes, dtype))
    counted = node.emit(graph.SelectOp, negative, wrapped, indices)
    scaled = node.emit(graph.MulOp, counted, np.array(strides, dtype))
    return node.emit(graph.ReduceSumOp, scaled, axes=(len(shape_of(indices)) - 1,), keepdims=False)


def index_value(node: Node, index: int) -> Value:
    """An input of indices; known ones as an array."""
    array = node.array(index)
    return node.operand(index) if array is None else array


def shaped(node: Node, value: Value, shape: Sequence[int]) -> Value:
    """A value in another shape."""
    return value.reshape(shape) if isinstance(value, np.ndarray) else reshape_to(node, value, shape)


# --- gathering -------------------------------------------------------------------------------------------
@importer("GatherElements")
def gather_elements(node: Node) -> Value:
    """Axes that the indices do not take to the end are cut first."""
    data, indices = node.operand(0), index_value(node, 1)
    sizes, wanted = shape_of(data), shape_of_value(indices)
    axis = node.axis(node.attribute("axis"), len(sizes))
    if len(wanted) != len(sizes) or any(n > d for i, (n, d) in enumerate(zip(wanted, sizes)) if i != axis):
        raise Unsupported(f"indices {list(wanted)} do not fit data {list(sizes)} along axis {axis}")
    if isinstance(indices, np.ndarray):
        indices = within(indices, sizes[axis])
    part = sliced(node, data, [range(d if i == axis else n) for i, (d, n) in enumerate(zip(sizes, wanted))])
    return node.emit(graph.GatherElementsOp, part, indices, axis=axis)


def gather_rows(node: Node, data: SSAValue, indices: Value, batch: int) -> SSAValue:
    """GatherND: the axes that tuples and batch name become one, of which rows are gathered."""
    sizes, wanted = shape_of(data), shape_of_value(indices)
    depth = wanted[-1] if wanted else 0
    if not wanted or batch + depth > len(sizes) or sizes[:batch] != wanted[:batch]:
        raise Unsupported(f"indices {list(wanted)} with {batch} batch axes do not fit data {list(sizes)}")
    named, rest = sizes[batch : batch + depth], sizes[batch + depth :]
    groups, rows = math.prod(sizes[:batch]), math.prod(named)
    place = shaped(node, rows_named(node, indices, named), (groups, math.prod(wanted[batch:-1])))
    if groups > 1:
        start = np.arange(groups, dtype=element_dtype(place)).reshape(-1, 1) * rows
        place = place + start if isinstance(place, np.ndarray) else node.emit(graph.AddOp, place, start)
    place = shaped(node, place, (math.prod(wanted[:-1]),))
    flat = reshape_to(node, data, (groups * rows, *rest))
    return reshape_to(node, node.emit(graph.GatherOp, flat, place, axis=0), (*wanted[:-1], *rest))


def element_dtype(value: Value) -> np.dtype:
    """The numpy dtype of a value."""
    return value.dtype if isinstance(value, np.ndarray) else dtype_of(element_type(value))


@importer("GatherND", since=11)
def gather_nd(node: Node) -> Value:
    return gather_rows(node, node.operand(0), index_value(node, 1), node.attribute("batch_dims", 0))


@importer("Compress")
def compress(node: Node) -> Value:
    """A condition that is known is a list of places."""
    if node.array(1) is None:
        raise Unsupported("the size of its result depends on the data: the condition is computed, not constant")
    data, chosen = node.operand(0), np.flatnonzero(node.constant(1, "the condition"))
    if not node.has_attribute("axis"):
        data, axis = reshape_to(node, data, (math.prod(shape_of(data)),)), 0
    else:
        axis = node.axis(node.attribute("axis"), len(shape_of(data)))
    return node.emit(graph.GatherOp, data, within(chosen, shape_of(data)[axis]), axis=axis)


@importer("ReverseSequence")
def reverse_sequence(node: Node) -> Value:
    """Step t of a sequence of n takes step n − 1 − t, and itself from n on."""
    value, lengths = node.operand(0), node.operand(1)
    shape = shape_of(value)
    time, batch = (node.axis(node.attribute(f"{a}_axis"), len(shape), f"{a}_axis") for a in ("time", "batch"))
    if {time, batch} != {0, 1}:
        raise Unsupported(f"time and batch are the axes 0 and 1, not {time} and {batch}")
    lengths = reshape_to(node, lengths, [d if i == batch else 1 for i, d in enumerate(shape)])
    steps = node.literal(positions_along(time, shape, element_dtype(lengths)))
    mirrored = node.emit(graph.SubOp, node.emit(graph.SubOp, lengths, node.scalar(1, lengths)), steps)
    inside = node.emit(graph.CompareOp, steps, lengths, predicate="lt")
    return node.emit(graph.GatherElementsOp, value, node.emit(graph.SelectOp, inside, mirrored, steps), axis=time)


# --- scattering ------------------------------------------------------------------------------------------
@importer("ScatterElements", "Scatter")
def scatter_elements(node: Node) -> Value:
    data, indices, updates = node.operand(0), index_value(node, 1), node.operand(2)
    axis = node.axis(node.attribute("axis"), len(shape_of(data)))
    if isinstance(indices, np.ndarray):
        indices = within(indices, shape_of(data)[axis])
    reduction = node.attribute("reduction", "none")
    return node.emit(graph.ScatterElementsOp, data, indices, updates, axis=axis, reduction=reduction)


@importer("ScatterND")
def scatter_nd(node: Node) -> Value:
    """The axes that tuples name become one, whose rows are updated."""
    data, indices, updates = node.operand(0), index_value(node, 1), node.operand(2)
    sizes, wanted = shape_of(data), shape_of_value(indices)
    depth = wanted[-1] if wanted else 0
    if not wanted or depth > len(sizes) or shape_of(updates) != (*wanted[:-1], *sizes[depth:]):
        raise Unsupported(f"indices {list(wanted)} and updates {list(shape_of(updates))} do not fit {list(sizes)}")
    count, width = math.prod(wanted[:-1]), math.prod(sizes[depth:])
    place = shaped(node, rows_named(node, indices, sizes[:depth]), (count, 1))
    rows = reshape_to(node, data, (math.prod(sizes[:depth]), width))
    updates = reshape_to(node, updates, (count, width))
    reduction = node.attribute("reduction", "none")
    result = node.emit(graph.ScatterElementsOp, rows, place, updates, axis=0, reduction=reduction)
    return reshape_to(node, result, sizes)


@importer("TensorScatter")
def tensor_scatter(node: Node) -> Value:
    """Steps of a cache from `write_indices` on, one index a batch element; a circular cache starts again."""
    cache, update = node.operand(0), node.operand(1)
    sizes, steps = shape_of(cache), shape_of(update)
    axis = node.axis(node.attribute("axis"), len(sizes))
    if axis == 0:
        raise Unsupported("axis 0 is the batch")
    if node.has(2):
        first = reshape_to(node, node.operand(2), [sizes[0], *[1] * (len(sizes) - 1)])
        indices = node.emit(graph.AddOp, first, positions_along(axis, steps, element_dtype(first)))
        if node.attribute("mode") == "circular":
            indices = node.emit(graph.FmodOp, indices, node.scalar(sizes[axis], indices))
    else:
        indices = node.literal(positions_along(axis, steps, np.dtype(np.int64)))
    return node.emit(graph.ScatterElementsOp, cache, indices, update, axis=axis, reduction="none")


# --- pooling and folding ---------------------------------------------------------------------------------
@importer("MaxUnpool")
def max_unpool(node: Node) -> Value:
    """Values back at the places that pooling found, each in its plane of the padded-off image; zeros elsewhere."""
    value, indices = node.operand(0), node.operand(1)
    n, channels, *sizes = shape_of(value)
    kernel, rank = node.attribute("kernel_shape"), len(sizes)
    strides, pads = node.attribute("strides", [1] * rank), node.attribute("pads", [0] * 2 * rank)
    image = [(d - 1) * s + k - pads[i] - pads[rank + i] for i, (d, s, k) in enumerate(zip(sizes, strides, kernel))]
    planes, area = n * channels, math.prod(image)
    start = np.arange(planes, dtype=element_dtype(indices)).reshape(-1, 1) * area
    place = node.emit(graph.SubOp, reshape_to(node, indices, (planes, math.prod(sizes))), start)
    updates = reshape_to(node, value, (planes, math.prod(sizes)))
    empty = np.zeros((planes, area), element_dtype(value))
    found = node.emit(graph.ScatterElementsOp, empty, place, updates, axis=1, reduction="none")
    result = reshape_to(node, found, (n, channels, *image))
    if not node.has(2):
        return result
    wanted = [int(d) for d in node.constant(2, "the output shape")]
    if wanted[:2] != [n, channels] or any(w < d for w, d in zip(wanted[2:], image)):
        raise Unsupported(f"the output shape {wanted} is smaller than {[n, channels, *image]}")
    high = [w - d for w, d in zip(wanted, shape_of(result))]
    return node.emit(graph.PadOp, result, low=[0] * len(high), high=high) if any(high) else result


@importer("Col2Im")
def col2im(node: Node) -> Value:
    """Blocks [N, C · block, L] added up where they lie in a padded image, whose padding is cut off."""
    value = node.operand(0)
    image, block = ([int(d) for d in node.constant(i, "a shape")] for i in (1, 2))
    rank = len(image)
    pads, strides, dilations = (
        node.attribute(name, [default] * count)
        for name, default, count in (("pads", 0, 2 * rank), ("strides", 1, rank), ("dilations", 1, rank))
    )
    padded = [d + pads[i] + pads[rank + i] for i, d in enumerate(image)]
    counts = [(p - dl * (k - 1) - 1) // s + 1 for p, dl, k, s in zip(padded, dilations, block, strides)]
    n, columns, length = shape_of(value)
    taps = math.prod(block)
    if columns % taps or length != math.prod(counts):
        raise Unsupported(f"{list(shape_of(value))} are no blocks of {block} at {math.prod(counts)} places")
    along = [
        dl * np.arange(k).reshape(-1, 1) + s * np.arange(c) for dl, k, s, c in zip(dilations, block, strides, counts)
    ]  # of each axis: [tap, place]
    grids = [a.reshape([x for j in range(rank) for x in (a.shape if i == j else (1, 1))]) for i, a in enumerate(along)]
    places = np.ravel_multi_index(np.broadcast_arrays(*grids), padded)
    places = places.transpose([*range(0, 2 * rank, 2), *range(1, 2 * rank, 2)]).reshape(1, -1)
    planes = n * (columns // taps)
    updates = reshape_to(node, value, (planes, taps * length))
    empty = np.zeros((planes, math.prod(padded)), element_dtype(value))
    total = node.emit(graph.ScatterElementsOp, empty, places.astype(np.int64), updates, axis=1, reduction="add")
    result = reshape_to(node, total, (n, columns // taps, *padded))
    inside = [range(pads[i], pads[i] + d) for i, d in enumerate(image)]
    return sliced(node, result, [range(n), range(columns // taps), *inside])
