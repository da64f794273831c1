"""How operations that go over rows become launches: reductions, softmax, layer norm.

One kernel where a row fits the machine's SRAM, a launch a pass over the data where it does not; the bits are the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from xdsl.ir import Attribute, SSAValue

from ...dialects import graph, qnn
from ...dialects.npu import buffer_type, itemsize
from ...dialects.types import i32, shape_of, size_of
from . import runs
from .decompose import bytes_of, launch, of_nothing, reduced, rows_fit, write_as
from .kernels.coalesce import ROWS
from .select import Selector, selects


@selects(graph.ReduceSumOp, graph.ReduceMeanOp, graph.ReduceMaxOp, graph.ReduceMinOp)
def reduce(op: graph.ReduceOp, s: Selector) -> None:
    """One kernel, which goes on from its partial result; a mean's last part divides."""
    count = math.prod(shape_of(op.input)[a] for a in set(op.parameters().axes))
    mean = isinstance(op, graph.ReduceMeanOp)
    reduction(s, op, {"count": count} if mean else {}, {"last": 1} if mean else {})


def reduction(s: Selector, op: Any, settled: Mapping[str, Any], open_: Mapping[str, Any]) -> None:
    """A launch over axes; those that alternate too often are transposed to the back first, in their order."""
    operation, axes = f"ppu.{op.name.partition('.')[2]}", tuple(sorted(set(op.parameters().axes)))
    keepdims, x, out = op.parameters().keepdims, s.buffer(op.input), shape_of(op.result)
    if of_nothing(s, op):
        return
    if runs.reduces_too_often(shape_of(op.input), axes):
        x = runs.as_rows(s, x, axes)
        axes, keepdims, out = (1,), False, (size_of(op.result),)
    settled = {"axes": axes, "keepdims": keepdims, **settled}
    write_as(s, op.result, out, lambda result: launch(s, operation, [x], result, settled, open_))


def _largest(s: Selector, x: SSAValue, shape: Sequence[int], element: Attribute, axis: int) -> SSAValue:
    maximum = s.alloc(reduced(shape, (axis,)), element)
    launch(s, "ppu.reduce_max", [x], maximum, {"axes": (axis,), "keepdims": True})
    return maximum


@selects(graph.ArgmaxOp)
def argmax(op: graph.ArgmaxOp, s: Selector) -> None:
    """One kernel, or the maximum and then its place."""
    p = op.parameters()
    if rows_fit(s, bytes_of(op.input, (p.axis,)), 8):
        s.launch(op)
        return
    x = s.buffer(op.input)
    maximum = _largest(s, x, shape_of(op.input), buffer_type(x).element, p.axis)
    launch(s, "ppu.index_of", [x, maximum], s.result(op.result), p, {"offset": 0})


@selects(graph.SoftmaxOp, reorders=True)
def softmax(op: graph.SoftmaxOp, s: Selector) -> None:
    """One kernel, or the maximum, the sum, and the quotient."""
    axis, row = op.parameters().axis, bytes_of(op.input, (op.parameters().axis,))
    if rows_fit(s, row, row):
        s.launch(op)
        return
    x, shape = s.buffer(op.input), shape_of(op.input)
    element = buffer_type(x).element
    maximum, total = _largest(s, x, shape, element, axis), s.alloc(reduced(shape, (axis,)), element)
    launch(s, "ppu.softmax_sum", [x, maximum], total, {"axis": axis})
    launch(s, "ppu.softmax_output", [x, maximum, total], s.result(op.result), {})


@selects(qnn.SoftmaxOp, qnn.Softmax16Op)
def quantised_softmax(op: qnn.SoftmaxOp | qnn.Softmax16Op, s: Selector) -> None:
    """One kernel, or the maximum, the sum, and the quotient."""
    shape = shape_of(op.input)
    axis = len(shape) - 1
    if rows_fit(s, bytes_of(op.input, (axis,)), bytes_of(op.result, (axis,))):
        s.launch(op)
        return
    x, p = s.buffer(op.input), op.parameters()
    maximum = _largest(s, x, shape, buffer_type(x).element, axis)
    total = s.alloc(reduced(shape, (axis,)), i32)
    kernel = "ppu.softmax16" if isinstance(op, qnn.Softmax16Op) else "ppu.quantised_softmax"
    launch(s, f"{kernel}_sum", [x, maximum], total, {**p, "axis": axis})
    launch(s, f"{kernel}_output", [x, maximum, total], s.result(op.result), p)


@selects(graph.LayerNormOp)
def layer_norm(op: graph.LayerNormOp, s: Selector) -> None:
    """One kernel, or the mean, the variance, and the result."""
    p, shape = op.parameters(), shape_of(op.input)
    axes = tuple(range(p.axis, len(shape)))
    row = bytes_of(op.input, axes)
    x, vectors = s.buffer(op.input), [s.buffer(v) for v in (op.scale, op.bias) if v is not None]
    sides = (slice(p.axis), slice(p.axis, None))
    aligned = [(1,) * (len(shape) - len(buffer_type(v).shape)) + buffer_type(v).shape for v in vectors]
    if any(runs.runs(shape[side], *(v[side] for v in aligned)) > ROWS for side in sides):
        vectors = [runs.in_full(s, v, shape) for v in vectors]
    bytes_ = (math.prod(buffer_type(v).shape) * itemsize(buffer_type(v).element) for v in vectors)
    if rows_fit(s, row, row, *(min(n, row) for n in bytes_)):
        s.start(op.name, [x, *vectors], [s.result(op.result)], p)
        return
    element, count = buffer_type(x).element, math.prod(shape[p.axis :])
    mean, variance = (s.alloc(reduced(shape, axes), element) for _ in range(2))
    settled = {"axes": axes, "count": count}
    launch(s, "ppu.reduce_mean", [x], mean, {**settled, "keepdims": True}, {"last": 1})
    launch(s, "ppu.variance", [x, mean], variance, settled, {"last": 1})
    launch(s, "ppu.normalise", [x, mean, variance, *vectors], s.result(op.result), {"epsilon": p.epsilon})
