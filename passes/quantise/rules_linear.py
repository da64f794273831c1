"""Quantisation of convolutions, matrix products and batch norms: int32 sums, requantised."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from xdsl.ir import SSAValue

from ...dialects import graph, qnn
from ...dialects.quant import QuantType
from ...dialects.rounding import Rounding
from ...dialects.types import shape_of
from ..pattern import name_of
from .parameters import Weight, bias_integers, is_constant, reals_of, sum_max
from .quantiser import Quantiser
from .rules import quantises


def constant_weight(op: graph.ConvOp | graph.ConvTransposeOp) -> bool:
    """Whether weight and bias are constants; a convolution by something computed stays float."""
    return is_constant(op.weight) and (op.bias is None or is_constant(op.bias))


def weight_arrays(op: graph.ConvOp | graph.ConvTransposeOp) -> tuple[np.ndarray, np.ndarray | None]:
    """The float weight and bias of an op that `constant_weight` takes."""
    weight = reals_of(op.weight)
    assert weight is not None
    return weight, None if op.bias is None else reals_of(op.bias)


@quantises(graph.ConvOp, when=constant_weight)
def conv(op: graph.ConvOp, q: Quantiser) -> SSAValue:
    """qnn.conv with one weight scale an output channel."""
    weight, bias = weight_arrays(op)
    p = op.parameters()
    window = {"strides": p.strides, "pads": p.pads, "dilations": p.dilations, "groups": p.groups}
    ifm, ofm = q.input(op.ifm), q.result_type(op.ofm)
    made = q.weight(as_4d(weight), bias, ifm, ofm)
    return emit_conv(q, ifm, made, ofm, name=name_of(op.weight), **window)


def as_4d(weight: np.ndarray) -> np.ndarray:
    """[K, C, M] as [1, K, C, M]."""
    return weight[None] if weight.ndim == 3 else weight


def emit_conv(
    q: Quantiser,
    ifm: SSAValue,
    weight: Weight,
    ofm: QuantType,
    *,
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
    groups: int,
    name: str = "",
) -> SSAValue:
    """A qnn.conv with weights [KH, KW, C / groups, M]; an ifm [N, W, C] goes by way of [N, 1, W, C]."""
    if len(shape_of(ifm)) == 3:
        n, w, c = shape_of(ifm)
        window = {"strides": (1, *strides), "pads": (0, pads[0], 0, pads[1]), "dilations": (1, *dilations)}
        image = q.reshape(ifm, (n, 1, w, c))
        row = emit_conv(q, image, weight, ofm, groups=groups, name=name, **window)
        return q.reshape(row, (n, *shape_of(row)[2:]))
    type_ = q.type(ifm)
    op = qnn.ConvOp.make(
        ifm,
        q.constant(weight.values, name, weight.type),
        *q.multiplier(q.factor(type_.scale, weight.scales, ofm.scale)),
        *([] if weight.bias is None else [q.constant(weight.bias)]),
        element=ofm,
        strides=tuple(strides),
        pads=tuple(pads),
        dilations=tuple(dilations),
        groups=groups,
        ifm_zero=type_.zero,
        weight_zero=weight.zero,
        ofm_zero=ofm.zero,
        rounding=int(rounding_of(q, weight)),
        **q.clamp,
    )
    return q.add(op)


def rounding_of(q: Quantiser, weight: Weight) -> Rounding:
    """That of the scheme; weights that all stand for one number, as of a mean, keep all bits of it."""
    if weight.type.data.axis is None and q.scheme.rounding is Rounding.ACC64:
        return Rounding.SINGLE
    return q.scheme.rounding


@quantises(graph.ConvTransposeOp, when=constant_weight)
def conv_transpose(op: graph.ConvTransposeOp, q: Quantiser) -> SSAValue:
    """Zeros between the pixels, then a convolution with the flipped kernel.

    An axis of the padded input starts dilation · (kernel − 1) − pad zeros before its first pixel; where that
    is negative, pixels are cut off.
    """
    weight, bias = weight_arrays(op)
    p = op.parameters()
    rank = len(p.strides)
    reach = [d * (k - 1) for d, k in zip(p.dilations, weight.shape)]
    low = [r - pad for r, pad in zip(reach, p.pads[:rank])]
    high = [r - pad + extra for r, pad, extra in zip(reach, p.pads[rank:], p.output_pads)]
    ifm = with_zeros_between(q, q.input(op.ifm), p.strides)
    high = [h - (s - 1) for h, s in zip(high, p.strides)]  # zeros follow the last pixel too
    ifm = cut(q, ifm, [max(-v, 0) for v in low], [max(-v, 0) for v in high])
    pads = [max(v, 0) for v in (*low, *high)]
    flipped = np.flip(weight, axis=tuple(range(rank)))
    ones = (1,) * rank
    window = {"strides": ones, "pads": pads, "dilations": p.dilations, "groups": p.groups}
    ofm = q.result_type(op.ofm)
    made = q.weight(as_4d(flipped), bias, ifm, ofm)
    return emit_conv(q, ifm, made, ofm, name=name_of(op.weight), **window)


def with_zeros_between(q: Quantiser, ifm: SSAValue, strides: Sequence[int]) -> SSAValue:
    """[N, H, W, C] -> [N, H·s, W·s, C]: real zeros behind every pixel, through [N, H, 1, W, 1, C]."""
    if all(s == 1 for s in strides):
        return ifm
    n, *sizes, c = shape_of(ifm)
    apart = q.reshape(ifm, (n, *(v for size in sizes for v in (size, 1)), c))
    high = (0, *(v for s in strides for v in (0, s - 1)), 0)
    padded = graph.PadOp.make(apart, low=(0,) * len(high), high=high, value=float(q.type(ifm).zero))
    return q.reshape(q.add(padded), (n, *(size * s for size, s in zip(sizes, strides)), c))


def cut(q: Quantiser, ifm: SSAValue, low: Sequence[int], high: Sequence[int]) -> SSAValue:
    """The image without its first `low` and last `high` rows and columns."""
    if not any((*low, *high)):
        return ifm
    n, *sizes, c = shape_of(ifm)
    left = [size - first - last for size, first, last in zip(sizes, low, high)]
    ones = (1,) * (len(sizes) + 2)
    return q.add(graph.SliceOp.make(ifm, starts=(0, *low, 0), sizes=(n, *left, c), steps=ones))


@quantises(
    graph.BatchNormOp,
    when=lambda op: all(map(is_constant, list(op.operands)[1:])) and len(shape_of(op.input)) > 1,
)
def batch_norm(op: graph.BatchNormOp, q: Quantiser) -> SSAValue:
    """One that no convolution took in: a depthwise 1×1 convolution, on channels brought to the last axis."""
    scale, bias, mean, variance = (reals_of(v) for v in list(op.operands)[1:])
    assert scale is not None and bias is not None and mean is not None and variance is not None
    p = op.parameters()
    factor = scale.astype(np.float64) / np.sqrt(variance.astype(np.float64) + p.epsilon)
    rank = len(shape_of(op.input))
    to_last = [*(i for i in range(rank) if i != p.axis), p.axis]
    x = q.transpose(q.input(op.input), to_last)
    y = per_channel(q, x, factor, bias - mean * factor, q.result_type(op.result))
    return q.transpose(y, np.argsort(to_last).tolist())


def per_channel(
    q: Quantiser, x: SSAValue, factor: np.ndarray, bias: np.ndarray | None, result: QuantType
) -> SSAValue:
    """x […, C] · factor [C] + bias [C] as a depthwise convolution."""
    shape = shape_of(x)
    image = x if len(shape) == 4 else q.reshape(x, (1, 1, int(np.prod(shape[:-1])), shape[-1]))
    ones: dict[str, Any] = {"strides": (1, 1), "pads": (0, 0, 0, 0), "dilations": (1, 1), "groups": shape[-1]}
    made = q.weight(factor.reshape(1, 1, 1, -1), bias, x, result)
    return q.reshape(emit_conv(q, image, made, result, **ones), shape)


# --- matrix products -------------------------------------------------------------------------------------
@quantises(graph.MatmulOp, when=lambda op: op.bias is None or is_constant(op.bias))
def matmul(op: graph.MatmulOp, q: Quantiser) -> SSAValue | None:
    """qnn.matmul: one scale a column for a constant b, per-tensor types for two activations."""
    bias = None if op.bias is None else reals_of(op.bias)
    weight = reals_of(op.b)
    if weight is None or is_constant(op.a):
        return product_of_activations(op, bias, q)
    a, result = q.input(op.a), q.result_type(op.result)
    return emit_matmul(q, a, q.weight(weight, bias, a, result), result, name_of(op.b))


def emit_matmul(q: Quantiser, a: SSAValue, weight: Weight, result: QuantType, name: str = "") -> SSAValue:
    """A qnn.matmul of a quantised a with weights […, K, N]; per channel, they round as convolutions do."""
    type_ = q.type(a)
    op = qnn.MatmulOp.make(
        a,
        q.constant(weight.values, name, weight.type),
        *q.multiplier(q.factor(type_.scale, weight.scales, result.scale)),
        *([] if weight.bias is None else [q.constant(weight.bias)]),
        element=result,
        a_zero=type_.zero,
        b_zero=weight.zero,
        ofm_zero=result.zero,
        rounding=int(rounding_of(q, weight)),
        **q.clamp,
    )
    return q.add(op)


def product_of_activations(op: graph.MatmulOp, bias: np.ndarray | None, q: Quantiser) -> SSAValue | None:
    """Both operands per tensor. Stays float where the bias does not fit the accumulator at their scale."""
    a, b = q.input(op.a), q.input(op.b)
    left, right, result = q.type(a), q.type(b), q.result_type(op.result)
    scale = left.scale * right.scale
    extra = []
    if bias is not None:
        integers = bias_integers(bias, scale, left)
        if np.abs(integers.astype(np.int64)).max(initial=0) > sum_max(left) // 2:
            return q.stays_float("its bias does not fit the accumulator")
        extra = [q.constant(integers)]
    product = qnn.MatmulOp.make(
        a,
        b,
        *q.multiplier(q.factor(left.scale, right.scale, result.scale)),
        *extra,
        element=result,
        a_zero=left.zero,
        b_zero=right.zero,
        ofm_zero=result.zero,
        rounding=int(q.scheme.product_rounding),
        **q.clamp,
    )
    return q.add(product)
