"""Quantisation of means and sums: as convolutions or products with ones, which choose their own output range.

An average keeps its input's scale in TFLite; means of many values are much smaller than these, so a scale of
their own keeps bits that would be lost.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from xdsl.ir import SSAValue

from ...dialects import graph, qnn
from ...dialects.types import shape_of
from .parameters import ones
from .quantiser import Quantiser
from .rules import quantises
from .rules_linear import emit_conv, emit_matmul


def poolable(op: graph.AvgPoolOp) -> bool:
    """Whether qnn has this average: no dilation, except where every window counts the same."""
    p = op.parameters()
    return counts_alike(op) or all(d == 1 for d in p.dilations)


def counts_alike(op: graph.AvgPoolOp) -> bool:
    """Whether every window has the same number of values: nothing is padded, or the padding counts."""
    p = op.parameters()
    return not any(p.pads) or (p.count_include_pad and not any(p.overhang))


@quantises(graph.AvgPoolOp, when=poolable)
def average_pool(op: graph.AvgPoolOp, q: Quantiser) -> SSAValue | None:
    """A depthwise convolution with 1/count where the count is constant, else TFLite's AVERAGE_POOL_2D."""
    p = op.parameters()
    ifm = q.input(op.ifm)
    if counts_alike(op):
        channels = shape_of(ifm)[-1]
        kernel = p.kernel if len(p.kernel) == 2 else (1, *p.kernel)
        weight = ones((*kernel, 1, channels), 1 / math.prod(kernel), q.type(ifm))
        window = {"strides": p.strides, "pads": p.pads, "dilations": p.dilations, "groups": channels}
        return emit_conv(q, ifm, weight, q.result_type(op.ofm), **window)
    if math.prod(p.kernel) * 2**q.storage.width.data > 2**32:
        return q.stays_float("a sum over its window could leave int32")
    pads = list(p.pads)
    if p.count_include_pad:  # padding that counts becomes values; only the overhang is left as padding
        rank = len(p.kernel)
        counted = [*pads[:rank], *(high - over for high, over in zip(pads[rank:], p.overhang))]
        ifm = pad_spatial(q, ifm, counted)
        pads = [total - part for total, part in zip(pads, counted)]
    return counting_average(q, ifm, p.kernel, p.strides, pads)


def pad_spatial(q: Quantiser, ifm: SSAValue, pads: Sequence[int]) -> SSAValue:
    """Real zeros around the spatial axes; pads: all beginnings, then all ends."""
    rank = len(pads) // 2
    low, high = (0, *pads[:rank], 0), (0, *pads[rank:], 0)
    return q.add(graph.PadOp.make(ifm, low=low, high=high, value=float(q.type(ifm).zero)))


def counting_average(
    q: Quantiser, ifm: SSAValue, kernel: Sequence[int], strides: Sequence[int], pads: Sequence[int]
) -> SSAValue:
    """A mean over what lies inside the ifm, whose scale stays."""
    if len(kernel) == 1:
        n, w, c = shape_of(ifm)
        image = q.reshape(ifm, (n, 1, w, c))
        row = counting_average(q, image, (1, *kernel), (1, *strides), (0, pads[0], 0, pads[1]))
        return q.reshape(row, (n, *shape_of(row)[2:]))
    window: dict[str, Any] = {"kernel": tuple(kernel), "strides": tuple(strides), "pads": tuple(pads)}
    return q.add(qnn.AvgPoolOp.make(ifm, element=q.type(ifm), **window, **q.clamp))


@quantises(graph.ReduceMeanOp, graph.ReduceSumOp, when=lambda op: len(op.parameters().axes) > 0)
def mean_or_sum(op: graph.ReduceMeanOp | graph.ReduceSumOp, q: Quantiser) -> SSAValue:
    """Over spatial axes of [N, H, W, C] a depthwise convolution; else a product with a column of weights."""
    axes = sorted(set(op.parameters().axes))
    x, result = q.input(op.input), q.result_type(op.result)
    shape = shape_of(x)
    count = math.prod(shape[a] for a in axes)
    each = 1 / count if isinstance(op, graph.ReduceMeanOp) else 1.0
    if len(shape) == 4 and set(axes) <= {1, 2}:
        kernel = tuple(shape[a] if a in axes else 1 for a in (1, 2))
        weight = ones((*kernel, 1, shape[3]), each, q.type(x))
        window: dict[str, Any] = {"strides": (1, 1), "pads": (0, 0, 0, 0), "dilations": (1, 1)}
        total = emit_conv(q, x, weight, result, groups=shape[3], **window)
    else:
        kept = [a for a in range(len(shape)) if a not in axes]
        rows = q.reshape(q.transpose(x, [*kept, *axes]), (math.prod(shape[a] for a in kept), count))
        total = emit_matmul(q, rows, ones((count, 1), each, q.type(x)), result)
    return q.reshape(total, shape_of(op.result))
