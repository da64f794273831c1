"""How products, windows and elementwise operations on floats become launches of kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from xdsl.ir import SSAValue

from ...dialects import graph, qnn
from ...dialects.declarative import Parameters
from ...dialects.npu import buffer_type
from ...dialects.types import shape_of
from ...runtime.kernels.graph_linear import as_2d
from ...runtime.kernels.graph_pool import as_2d as pool_as_2d
from . import runs
from .decompose import four, launch, of_nothing, read_as, write_as
from .kernels.coalesce import BATCHES
from .select import Selector, selects


# --- products --------------------------------------------------------------------------------------------
@selects(graph.MatmulOp, reorders=True)
def matmul(op: graph.MatmulOp, s: Selector) -> None:
    """One order of sums, from here on. Products over an axis of size 0 leave the bias, or zeros."""
    bias = [s.buffer(op.bias)] if op.bias is not None else []
    batch, matrices = shape_of(op.result)[:-2], [s.buffer(op.a), s.buffer(op.b)]
    shapes = [buffer_type(m).shape for m in matrices]
    if shapes[0][-1] == 0 and bias:
        launch(s, "ppu.broadcast", bias, s.result(op.result), {})
    elif not of_nothing(s, op):
        if runs.runs(batch, *(shape[:-2] for shape in shapes)) > BATCHES:
            matrices = [runs.in_full(s, m, (*batch, *shape[-2:])) for m, shape in zip(matrices, shapes)]
        launch(s, "ppu.matmul", [*matrices, *bias], s.result(op.result), {})


MULTIPLIER = 64
"""Filters an input channel up to which a depthwise convolution is one: a tile takes all of a channel."""


@selects(graph.ConvOp, reorders=True)
def conv(op: graph.ConvOp, s: Selector) -> None:
    """One order of sums, from here on; groups other than depthwise ones each by themselves."""
    ifm, weight, p, shape = _lifted(op, s)
    channels = buffer_type(ifm).shape[3]
    bias = [s.buffer(op.bias)] if op.bias is not None else []
    settled = {"strides": p.strides, "dilations": p.dilations}

    def emit(ofm: SSAValue) -> None:
        if 1 < p.groups == channels and buffer_type(weight).shape[3] <= MULTIPLIER * channels:
            launch(s, "ppu.depthwise", [ifm, weight, *bias], ofm, settled, {"pads": p.pads})
            return
        for part in _groups(s, p.groups, [ifm, weight, *bias, ofm]):
            launch(s, "ppu.conv", part[:-1], part[-1], settled, {"pads": p.pads})

    write_as(s, op.ofm, shape, emit)


def _lifted(op: Any, s: Selector) -> tuple[SSAValue, SSAValue, Parameters, tuple[int, ...]]:
    """ifm, weight and parameters in two spatial axes, and the shape of the ofm."""
    p, shape, weight = op.parameters(), shape_of(op.ifm), shape_of(op.weight)
    if len(shape) == 3:
        p, _, _ = as_2d(p, np.empty((0, 0, 0)), np.empty(0))
        weight = (1, *weight)
    return read_as(s, op.ifm, four(shape)), read_as(s, op.weight, weight), p, four(shape_of(op.ofm))


def _groups(s: Selector, groups: int, buffers: Sequence[SSAValue]) -> list[list[SSAValue]]:
    """The buffers cut along their last axis into groups."""
    if groups == 1:
        return [list(buffers)]
    parts = []
    for group in range(groups):
        part = []
        for whole in buffers:
            *outer, last = buffer_type(whole).shape
            size = last // groups
            part.append(s.view(whole, (*(0 for _ in outer), group * size), (*outer, size)))
        parts.append(part)
    return parts


@selects(graph.ConvTransposeOp, reorders=True)
def conv_transpose(op: graph.ConvTransposeOp, s: Selector) -> None:
    """One order of sums, from here on; every group by itself."""
    ifm, weight, p, shape = _lifted(op, s)
    bias = [s.buffer(op.bias)] if op.bias is not None else []
    settled = {"strides": p.strides, "dilations": p.dilations}

    def emit(ofm: SSAValue) -> None:
        for part in _groups(s, p.groups, [ifm, weight, *bias, ofm]):
            whole = {"origin": p.pads[:2], "size": shape[1:3]}
            launch(s, "ppu.conv_transpose", part[:-1], part[-1], settled, whole)

    write_as(s, op.ofm, shape, emit)


# --- windows ---------------------------------------------------------------------------------------------
def max_pool(op: graph.MaxPoolOp, s: Selector) -> None:
    """Of floats, and with dilations."""
    p = op.parameters() if len(shape_of(op.ifm)) == 4 else pool_as_2d(op.parameters())
    ifm = read_as(s, op.ifm, four(shape_of(op.ifm)))
    settled = {"strides": p.strides, "dilations": p.dilations}
    whole = {"kernel": p.kernel, "pads": p.pads}
    out = four(shape_of(op.ofm))
    write_as(s, op.ofm, out, lambda ofm: launch(s, "ppu.max_pool", [ifm], ofm, settled, whole))


@selects(graph.AvgPoolOp)
def avg_pool(op: graph.AvgPoolOp, s: Selector) -> None:
    """Sums over the window, divided by what it counts."""
    p = op.parameters() if len(shape_of(op.ifm)) == 4 else pool_as_2d(op.parameters())
    ifm = read_as(s, op.ifm, four(shape_of(op.ifm)))
    settled = {
        "strides": p.strides, "dilations": p.dilations, "count_include_pad": p.count_include_pad,
        "overhang": p.overhang, "window": (*p.kernel, *p.pads), "sizes": buffer_type(ifm).shape[1:3],
    }  # fmt: skip
    whole = {"kernel": p.kernel, "pads": p.pads, "offset": (0, 0), "last": 1}
    out = four(shape_of(op.ofm))
    write_as(s, op.ofm, out, lambda ofm: launch(s, "ppu.avg_pool", [ifm], ofm, settled, whole))


@selects(graph.LrnOp, reorders=True)
def lrn(op: graph.LrnOp, s: Selector) -> None:
    """Neighbours and the values themselves are read apart."""
    p = op.parameters()
    before = (p.size - 1) // 2
    whole = {"window": (p.size, before, p.size - 1 - before), "last": 1}
    ifm = s.buffer(op.ifm)
    launch(s, "ppu.lrn", [ifm, ifm], s.result(op.ofm), p, whole)


def resize(op: graph.ResizeOp, s: Selector) -> None:
    """Of floats, and along one axis: the kernel knows the whole geometry, a launch its place in it."""
    shape, out = shape_of(op.ifm)[1:-1], shape_of(op.ofm)[1:-1]
    place = tuple(v for n in out for v in (0, n, 0))
    settled = {**op.parameters(), "inputs": shape}
    launch(s, "ppu.resize", [s.buffer(op.ifm)], s.result(op.ofm), settled, {"place": place})


@selects(qnn.ResizeFloatOp)
def resize_float(op: qnn.ResizeFloatOp, s: Selector) -> None:
    """Of uint8 in floats, like `resize`."""
    place = tuple(v for n in op.parameters().sizes for v in (0, n, 0))
    settled = {**op.parameters(), "inputs": shape_of(op.ifm)[1:3]}
    launch(s, "ppu.resize_float", [s.buffer(op.ifm)], s.result(op.ofm), settled, {"place": place})


# --- elementwise ---------------------------------------------------------------------------------------
BINARY = [op for op in graph.OPS if issubclass(op, graph.BinaryOp) and op not in (graph.MinOp, graph.MaxOp)]
"""Operators of two operands; the smaller and the larger of integers are the fabric's."""


@selects(*BINARY, graph.CompareOp, graph.SelectOp, reorders=True)
def elementwise(op: graph.BinaryOp | graph.CompareOp | graph.SelectOp, s: Selector) -> None:
    """A kernel, on operands that it walks together."""
    operands = runs.walkable(s, [s.buffer(v) for v in op.operands], shape_of(op.result))
    s.start(op.name, operands, [s.result(op.result)], op.parameters())
