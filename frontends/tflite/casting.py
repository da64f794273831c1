"""Importers of changes of type: quantise, dequantise, requantise, cast."""

from __future__ import annotations

import numpy as np
from xdsl.ir import SSAValue

from ...dialects import graph, qnn
from ...dialects.quant import STORAGE_NAMES, DCastOp, QCastOp, QuantType, SCastOp
from ...dialects.types import dtype_of, element_type, f16, f32, i16, shape_of, storage_of, tensor
from ...runtime.fixed_point import quantise_multiplier
from ...runtime.kernels.quantised_elementwise import requantise_tensor
from .node import Node, one_scale
from .registry import Unsupported, tflite_importer

EIGHT_BITS = np.arange(256, dtype=np.uint8)
"""All patterns of an 8-bit value, in the order of a table's entries."""


NAME_OF_STORAGE = {type_: name for name, type_ in STORAGE_NAMES.items()}


@tflite_importer("QUANTIZE")
def quantise(node: Node) -> SSAValue:
    """Floats to integers, or integers to integers of another quantisation."""
    x, result = node.operand(0), node.result_quant()
    if isinstance(element_type(x), QuantType):
        return requantised(node, x, result)
    if element_type(x) != f32:
        raise Unsupported(f"it quantises float32 and quantised tensors, not {element_type(x)}")
    return node.append(QCastOp.create(operands=[x], result_types=[tensor(shape_of(x), result)]))


def requantised(node: Node, x: SSAValue, result: QuantType, precision: type[np.floating] = np.float64) -> SSAValue:
    """A quantised value in another quantised type; from eight bits to another storage by a table.

    `precision` is the float in which the reference divides the two scales.
    """
    source = one_scale(element_type(x), node.name)
    ratio = np.float64(precision(source.scale) / precision(result.scale))
    multiplier, shift = (int(v) for v in quantise_multiplier(ratio))
    if source.storage == result.storage or source.storage == i16:
        zeros = {"input_zero": source.zero, "result_zero": result.zero}
        to = "" if source.storage == result.storage else NAME_OF_STORAGE[result.storage]
        return node.emit(qnn.RequantiseOp, x, element=result, multiplier=multiplier, shift=shift, to=to, **zeros)
    patterns = EIGHT_BITS.view(dtype_of(source))
    entries = requantise_tensor(patterns, multiplier, shift, source.zero, result.zero, dtype_of(result))
    return node.table(x, entries, result)


@tflite_importer("DEQUANTIZE")
def dequantise(node: Node) -> SSAValue:
    """Integers to floats; half-precision constants become float32; constants with a scale a channel as
    well.
    """
    element = node.element(0)
    if element in (f16, f32):
        return node.emit(graph.CastOp, node.operand(0), to=f32)
    if not isinstance(element, QuantType):
        raise Unsupported(f"the tensor '{node.input_name(0)}' is {element} without scale and zero point")
    array = node.array(0)
    if array is not None:
        return node.literal(real_of(array, element), node.input_name(0))
    one_scale(element, node.input_name(0))
    x = node.operand(0)
    return node.append(DCastOp.create(operands=[x], result_types=[tensor(shape_of(x), f32)]))


def real_of(array: np.ndarray, element: QuantType) -> np.ndarray:
    """scale · (q − zero) in float32, per tensor or along the type's axis."""
    shape = [1] * array.ndim
    if element.data.axis is not None:
        shape[element.data.axis] = -1
    scales = np.array(element.data.scales, np.float32)
    zeros = np.array(element.data.zeros, np.int32)
    if element.data.axis is None:
        return (array.astype(np.int32) - zeros[0]).astype(np.float32) * scales[0]
    return (array.astype(np.int32) - zeros.reshape(shape)).astype(np.float32) * scales.reshape(shape)


@tflite_importer("CAST", moves=True)
def cast(node: Node) -> SSAValue:
    """Another element type; of a quantised tensor, TFLite takes the stored integers as they are."""
    x = bits_of(node, node.operand(0))
    return node.emit(graph.CastOp, x, to=storage_of(node.result()))


def bits_of(node: Node, value: SSAValue) -> SSAValue:
    """A quantised value's stored integers."""
    storage = storage_of(element_type(value))
    if storage == element_type(value):
        return value
    return node.append(SCastOp.create(operands=[value], result_types=[tensor(shape_of(value), storage)]))
