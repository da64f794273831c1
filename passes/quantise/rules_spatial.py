"""Quantisation of softmax and of resampling."""

from __future__ import annotations

import numpy as np
from xdsl.ir import SSAValue

from ...dialects import graph, qnn
from ...dialects.quant import quantised
from ...dialects.types import i16, shape_of
from ...runtime.kernels.graph_resize import source_coordinates
from ...runtime.kernels.quantised_softmax import softmax_parameters
from ...runtime.kernels.quantised_softmax16 import softmax16_parameters
from .quantiser import Quantiser
from .ranges import range_of
from .rules import Kind, quantises
from .rules_moves import emit_same

WEIGHT_ONE = 1024
"""The weight of a whole pixel in the tables of qnn.resize."""

FEWEST_STEPS = 16
"""Steps of softmax's fixed scale that its largest result has to reach: at 8 bits 1/16. Below that, as over many
classes of near equal logits, most integers would be zero."""


@quantises(graph.SoftmaxOp)
def softmax(op: graph.SoftmaxOp, q: Quantiser) -> SSAValue | None:
    """TFLite's SOFTMAX over the last axis, transposed there and back; its result has a fixed scale.

    None, so that it stays float, where the calibrated results would be a few steps of that scale at most.
    """
    calibrated, step = range_of(op.result), 1 / 32768 if q.storage == i16 else 1 / 256
    if calibrated is not None and calibrated.high < FEWEST_STEPS * step:  # none: the model has its own scales
        return q.stays_float(f"its results reach {calibrated.high:.2g}, a few steps of 1/{round(1 / step)}")
    axis, rank = op.parameters().axis, len(shape_of(op.input))
    to_last = [*(i for i in range(rank) if i != axis), axis]
    x = q.transpose(q.input(op.input), to_last)
    if q.storage == i16:
        p16 = softmax16_parameters(q.type(x).scale)
        y = q.add(qnn.Softmax16Op.make(x, element=quantised(i16, 1 / 32768), **p16._asdict()))
    else:
        p = softmax_parameters(q.type(x).scale)
        y = q.add(qnn.SoftmaxOp.make(x, element=quantised(q.storage, 1 / 256, q.low), **p._asdict()))
    return q.transpose(y, np.argsort(to_last).tolist())


@quantises(graph.ResizeOp, kind=Kind.MOVES, when=lambda op: op.parameters().mode != "cubic")
def resize(op: graph.ResizeOp, q: Quantiser) -> SSAValue:
    """Nearest: the same op on integers. Linear: tables of neighbours and weights, one a spatial axis."""
    p, ifm = op.parameters(), q.input(op.ifm)
    if p.mode == "nearest":
        return emit_same(q, op, ifm)[0]
    n, *sizes, c = shape_of(ifm)
    scales = p.scales or [np.float32(out) / np.float32(size) for out, size in zip(p.sizes, sizes)]
    axes = zip(sizes, p.sizes, scales)
    tables = [linear_table(p.coordinates, size, out, np.float32(scale)) for size, out, scale in axes]
    if len(tables) == 1:
        tables.insert(0, np.array([[0, 0, 0]], np.int32))
    rows, cols = (q.constant(t) for t in tables)
    image = q.reshape(ifm, (n, 1, *sizes, c) if len(sizes) == 1 else (n, *sizes, c))
    sampled = q.add(qnn.ResizeOp.make(image, rows, cols, element=q.type(ifm), mode="linear"))
    return q.reshape(sampled, (n, *p.sizes, c))


def linear_table(coordinates: str, size: int, out: int, scale: np.float32) -> np.ndarray:
    """int32 [out, 3]: lower neighbour, upper neighbour, weight of the upper in 1/1024."""
    if size == out and scale == 1:
        at = np.arange(size, dtype=np.float64)
    else:
        at = np.clip(source_coordinates(coordinates, size, out, scale).astype(np.float64), 0, size - 1)
    lower = np.floor(at).astype(np.int64)
    weight = np.rint((at - lower) * WEIGHT_ONE).astype(np.int64)
    upper = np.minimum(lower + 1, size - 1)
    return np.stack([lower, upper, weight], axis=1).astype(np.int32)
