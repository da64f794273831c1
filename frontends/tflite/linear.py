"""Importers of convolutions and matrix products.

Weights come as [M, KH, KW, C] and become [KH, KW, C, M]; quantised, sums are requantised with one factor a
channel (https://ai.google.dev/edge/litert/models/quantization_spec).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from xdsl.ir import SSAValue

from ...dialects import graph, qnn
from ...dialects.quant import QuantType, quantised
from ...dialects.rounding import Rounding
from ...dialects.types import dtype_of, i8, i16, i32, i64, shape_of, u8
from .node import Node, text_of
from .registry import Unsupported, tflite_importer
from .scales import activated, clamp_of, fused, positive, product_factor, window_of


# --- convolutions ----------------------------------------------------------------------------------------
@tflite_importer("CONV_2D", weights=(1,))
def conv(node: Node) -> SSAValue:
    """weight [M, KH, KW, C / groups]."""
    _, *size, channels = image(node, 0)
    _, *kernel, depth = image(node, 1)
    if depth < 1 or channels % depth:
        raise Unsupported(f"its weights read {depth} channels, which {channels} are no multiple of")
    window = window_of(node, size, kernel, positive(node, "DilationHFactor", "DilationWFactor"))
    return convolution(node, weight_of(node, 1, (1, 2, 3, 0)), groups=channels // depth, **window)


@tflite_importer("DEPTHWISE_CONV_2D", weights=(1,))
def depthwise(node: Node) -> SSAValue:
    """weight [1, KH, KW, C · multiplier]; output channel c · multiplier + m reads channel c."""
    _, *size, channels = image(node, 0)
    one, *kernel, filters = image(node, 1)
    if one != 1 or channels < 1 or filters % channels:
        raise Unsupported(f"its weights {list(node.shape(1))} do not fit {channels} channels")
    window = window_of(node, size, kernel, positive(node, "DilationHFactor", "DilationWFactor"))
    return convolution(node, weight_of(node, 1, (1, 2, 0, 3)), groups=channels, **window)


def image(node: Node, index: int) -> tuple[int, ...]:
    """The shape of an input of rank 4."""
    shape = node.shape(index)
    if len(shape) != 4 or min(shape) < 1:
        raise Unsupported(f"'{node.input_name(index)}' is {list(shape)}, and needs four axes of 1 at least")
    return shape


class Weight:
    """Weights with the output channel last: a value, and for quantised ones scales [M] or [1] and zero
    point.
    """

    def __init__(self, value: SSAValue, scales: np.ndarray | None = None, zero: int = 0):
        self.value, self.scales, self.zero = value, scales, zero


def weight_of(node: Node, index: int, permutation: Sequence[int], flip: Sequence[int] = ()) -> Weight:
    """An input with its axes permuted and some reversed after that; scales lie along the last axis."""
    element, array = node.element(index), node.array(index)
    if flip:
        array = np.flip(node.constant(index, "its weights").transpose(permutation), tuple(flip))
    elif array is not None:
        array = array.transpose(permutation)
    if not isinstance(element, QuantType):
        if dtype_of(element).kind != "f":
            raise Unsupported(
                f"the tensor '{node.input_name(index)}' is {element} without scale and zero point, "
                "and weights are floats or quantised"
            )
        if array is None:
            return Weight(node.emit(graph.TransposeOp, node.operand(index), permutation=permutation))
        return Weight(node.literal(array, node.input_name(index)))
    data = element.data
    if data.axis is not None and permutation[-1] != data.axis:
        raise Unsupported(f"'{node.input_name(index)}' has scales along axis {data.axis}, which is no output channel")
    if len(set(data.zeros)) != 1:
        raise Unsupported(f"'{node.input_name(index)}' has zero points that differ from channel to channel")
    axis = None if data.axis is None else len(permutation) - 1
    type_ = quantised(data.storage, data.scales, data.zeros, axis)
    if array is None:
        value = node.emit(graph.TransposeOp, node.operand(index), permutation=permutation)
    else:
        value = node.literal(array, node.input_name(index), type_)
    return Weight(value, np.array(data.scales), data.zeros[0])


def convolution(node: Node, weight: Weight, **parameters: Any) -> SSAValue:
    """graph.conv and its activation for floats, qnn.conv for integers."""
    refuse_mixed(node)
    if weight.scales is None:
        return activated(node, node.emit(graph.ConvOp, node.operand(0), weight.value, bias_of(node, 2), **parameters))
    ifm, ofm = node.quant(0), node.result_quant()
    refuse_types(node, ifm, weight)
    return node.emit(
        qnn.ConvOp,
        node.operand(0),
        weight.value,
        *node.multiplier(convolution_factor(ifm, weight.scales, ofm)),
        integer_bias(node, 2, ifm),
        element=ofm,
        ifm_zero=ifm.zero,
        weight_zero=weight.zero,
        ofm_zero=ofm.zero,
        rounding=int(rounding_of(ifm)),
        **clamp_of(ofm, fused(node)),
        **parameters,
    )


def convolution_factor(ifm: QuantType, scales: np.ndarray, ofm: QuantType) -> np.ndarray:
    """What a convolution's sums are multiplied with."""
    return product_factor(ifm.scale, scales, ofm.scale, single=ifm.storage == u8)


def rounding_of(ifm: QuantType) -> Rounding:
    """How TFLite's convolutions and batched products requantise."""
    return Rounding.ACC64 if ifm.storage == i16 else Rounding.DOUBLE


def refuse_mixed(node: Node, data: int = 0) -> None:
    """Activations (the input `data`) and weights are both floats or both quantised."""
    if node.is_quantised(data) != node.is_quantised(1):
        raise Unsupported(
            f"'{node.input_name(data)}' is {short(node, data)} and '{node.input_name(1)}' {short(node, 1)}, which is "
            "no quantisation that TFLite has: convert the model in float or with full integer quantisation"
        )


def short(node: Node, index: int) -> str:
    """An input's type without its many scales."""
    element = node.element(index)
    return f"quantised {dtype_of(element)}" if isinstance(element, QuantType) else str(element)


def refuse_types(node: Node, ifm: QuantType, weight: Weight, symmetric: bool = True) -> None:
    """The combinations of types that TFLite computes."""
    stored = node.element(1).storage  # type: ignore[attr-defined]
    if stored != (u8 if ifm.storage == u8 else i8) or node.result_quant().storage != ifm.storage:
        raise Unsupported(
            f"it takes {dtype_of(ifm)}, weights of {dtype_of(stored)} and gives "
            f"{dtype_of(node.result_quant())}; "
            "TFLite computes int8 and int16 with int8 weights, uint8 with uint8 weights"
        )
    if symmetric and stored == i8 and weight.zero:
        raise Unsupported(f"'{node.input_name(1)}' has the zero point {weight.zero}; int8 weights are symmetric")
    if ifm.storage == i16 and (ifm.zero or node.result_quant().zero):
        raise Unsupported(f"'{node.input_name(0)}' is {text_of(ifm)}; int16 tensors are symmetric")


def bias_of(node: Node, index: int) -> SSAValue | None:
    """The float bias, if there is one."""
    if not node.has(index):
        return None
    value = node.operand(index)
    return node.reshape(value, (math.prod(shape_of(value)),))


def integer_bias(node: Node, index: int, ifm: QuantType) -> SSAValue | None:
    """The integer bias, if there is one: int64 beside int16 activations, int32 beside others."""
    if not node.has(index):
        return None
    want = i64 if ifm.storage == i16 else i32
    if node.element(index) != want:
        raise Unsupported(
            f"its bias '{node.input_name(index)}' is {node.element(index)}, but beside {dtype_of(ifm)} it is {want}"
        )
    return node.reshape(node.operand(index), (math.prod(node.shape(index)),))


# --- transposed convolution ------------------------------------------------------------------------------
@tflite_importer("TRANSPOSE_CONV", weights=(1,))
def transpose_conv(node: Node) -> SSAValue:
    """Inputs: output shape, weight [M, KH, KW, C], ifm, bias. An input pixel adds its products to a window of
    the result; the padding scheme is that of the convolution from result to input."""
    wanted = node.ints(0, "its output shape")
    n, *sizes, channels = image(node, 2)
    _, *kernel, depth = image(node, 1)
    if len(wanted) != 4 or wanted[0] != n or depth != channels:
        raise Unsupported(f"its result {list(wanted)} does not fit input {list(node.shape(2))} and weights")
    window = window_of(node, wanted[1:3], kernel)
    strides, begin = window["strides"], window["pads"][:2]
    # What the input reaches beyond the result is cut; where it falls short, the result has rows of bias alone.
    reach = [s * (d - 1) + k - b for s, d, k, b in zip(strides, sizes, kernel, begin)]
    over = [r - w for r, w in zip(reach, wanted[1:3])]
    pads = (*begin, *(max(v, 0) for v in over))
    output_pads = tuple(max(-v, 0) for v in over)
    refuse_mixed(node, 2)
    if node.is_quantised(2):
        return integer_transpose_conv(node, strides, pads, output_pads)
    weight = weight_of(node, 1, (1, 2, 3, 0))
    made = node.emit(
        graph.ConvTransposeOp, node.operand(2), weight.value, bias_of(node, 3), strides=strides, pads=pads,
        dilations=(1, 1), output_pads=output_pads,
    )  # fmt: skip
    return activated(node, made)


def integer_transpose_conv(
    node: Node, strides: Sequence[int], pads: Sequence[int], output_pads: Sequence[int]
) -> SSAValue:
    """Zeros between the pixels, then a convolution with the flipped kernel: the same sums."""
    ifm, ofm = node.quant(2), node.result_quant()
    weight = weight_of(node, 1, (1, 2, 3, 0), flip=(0, 1))
    assert weight.scales is not None
    refuse_types(node, ifm, weight)
    kernel = shape_of(weight.value)[:2]
    reach = [k - 1 for k in kernel]
    low = [r - p for r, p in zip(reach, pads[:2])]
    high = [r - p + extra - (s - 1) for r, p, extra, s in zip(reach, pads[2:], output_pads, strides)]
    x = with_zeros_between(node, node.operand(2), strides, ifm.zero)
    n, height, width, channels = shape_of(x)
    cut = [max(-v, 0) for v in (*low, *high)]
    if any(cut):
        left = (n, height - cut[0] - cut[2], width - cut[1] - cut[3], channels)
        x = node.emit(graph.SliceOp, x, starts=(0, cut[0], cut[1], 0), sizes=left, steps=(1, 1, 1, 1))
    return node.emit(
        qnn.ConvOp,
        x,
        weight.value,
        *node.multiplier(convolution_factor(ifm, weight.scales, ofm)),
        integer_bias(node, 3, ifm),
        element=ofm,
        strides=(1, 1),
        pads=tuple(max(v, 0) for v in (*low, *high)),
        dilations=(1, 1),
        ifm_zero=ifm.zero,
        weight_zero=weight.zero,
        ofm_zero=ofm.zero,
        rounding=int(rounding_of(ifm)),
        **clamp_of(ofm, fused(node)),
    )


def with_zeros_between(node: Node, x: SSAValue, strides: Sequence[int], zero: int) -> SSAValue:
    """[N, H, W, C] -> [N, H·s, W·s, C]: real zeros behind every pixel, through [N, H, 1, W, 1, C]."""
    if all(s == 1 for s in strides):
        return x
    n, height, width, channels = shape_of(x)
    apart = node.reshape(x, (n, height, 1, width, 1, channels))
    high = (0, 0, strides[0] - 1, 0, strides[1] - 1, 0)
    padded = node.emit(graph.PadOp, apart, low=(0,) * 6, high=high, value=float(zero))
    return node.reshape(padded, (n, height * strides[0], width * strides[1], channels))


# --- matrix products -------------------------------------------------------------------------------------
@tflite_importer("FULLY_CONNECTED", weights=(1,))
def fully_connected(node: Node) -> SSAValue:
    """ifm […, K] flattened to rows of K, weight [N, K]."""
    if node.word("WeightsFormat", "FullyConnectedOptionsWeightsFormat", 0) != "DEFAULT":
        raise Unsupported("its weights are stored shuffled; only the default format can be imported")
    if len(node.shape(1)) != 2:
        raise Unsupported(f"its weights are {list(node.shape(1))}, and have to be a matrix")
    refuse_mixed(node)
    shape, (columns, depth) = node.shape(0), node.shape(1)
    if depth < 1 or math.prod(shape) % depth:
        raise Unsupported(f"its input {list(shape)} does not divide into rows of {depth}")
    out = (*shape[:-1], columns) if node.option("KeepNumDims", False) else (math.prod(shape) // depth, columns)
    rows = node.reshape(node.operand(0), (math.prod(shape) // depth, depth))
    weight = weight_of(node, 1, (1, 0))
    if weight.scales is None:
        product = node.emit(graph.MatmulOp, rows, weight.value, bias_of(node, 2))
        return activated(node, node.reshape(product, out))
    ifm, ofm = node.quant(0), node.result_quant()
    refuse_types(node, ifm, weight, symmetric=len(weight.scales) > 1)
    product = node.emit(
        qnn.MatmulOp,
        rows,
        weight.value,
        *node.multiplier(product_factor(ifm.scale, weight.scales, ofm.scale)),
        integer_bias(node, 2, ifm),
        element=ofm,
        a_zero=ifm.zero,
        b_zero=weight.zero,
        ofm_zero=ofm.zero,
        rounding=int(Rounding.AWAY),
        **clamp_of(ofm, fused(node)),
    )
    return node.reshape(product, out)


@tflite_importer("BATCH_MATMUL", weights=(1,))
def batch_matmul(node: Node) -> SSAValue:
    """a […, M, K] · b […, K, N], either of them transposed where the file says so."""
    refuse_mixed(node)
    a = matrix(node, 0, bool(node.option("AdjX", False)))
    b = matrix(node, 1, bool(node.option("AdjY", False)))
    if not node.is_quantised(0):
        return node.emit(graph.MatmulOp, a, b)
    left, right, ofm = node.quant(0), node.quant(1), node.result_quant()
    if not left.storage == right.storage == ofm.storage:
        raise Unsupported("its operands and result are of different integer types")
    factor = product_factor(left.scale, right.scale, ofm.scale, single=True)
    return node.emit(
        qnn.MatmulOp,
        a,
        b,
        *node.multiplier(factor),
        element=ofm,
        a_zero=left.zero,
        b_zero=right.zero,
        ofm_zero=ofm.zero,
        rounding=int(rounding_of(left)),
        **clamp_of(ofm, "NONE"),
    )


def matrix(node: Node, index: int, transposed: bool) -> SSAValue:
    """An operand, its last two axes exchanged if asked."""
    value = node.operand(index)
    rank = len(shape_of(value))
    if rank < 2:
        raise Unsupported(f"'{node.input_name(index)}' is {list(shape_of(value))}, and has to be matrices")
    if not transposed:
        return value
    return node.emit(graph.TransposeOp, value, permutation=(*range(rank - 2), rank - 1, rank - 2))
