"""Importers of quantised operators: the casts of QDQ graphs, and QLinear… operators as casts around floats.

A quantised tensor of the model is stored integers, as in ONNX: QuantizeLinear is a `quant.qcast` seen as its
storage, DequantizeLinear a `quant.dcast` of integers seen as quantised. The pass `quantise-fold-qdq` makes
integer arithmetic of what stands between casts. Operator pages: https://onnx.ai/onnx/operators/ and, for the
domain com.microsoft, the contrib operators' page of ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper
from xdsl.dialects.builtin import IntegerType
from xdsl.ir import SSAValue
from xdsl.utils.exceptions import VerifyException

from ...dialects import graph
from ...dialects.quant import DCastOp, QCastOp, QuantType, SCastOp, quantised
from ...dialects.types import element_type, f32, i8, i16, i32, shape_of, tensor, u8
from .node import Node
from .registry import KEPT, Unsupported, Value, importer, refuse

MICROSOFT = "com.microsoft"
STORAGE: dict[np.dtype, IntegerType] = {
    np.dtype(np.int8): i8, np.dtype(np.uint8): u8, np.dtype(np.int16): i16, np.dtype(np.int32): i32,
}  # fmt: skip
FUNCTION_OPSET = 13
"""The opset that the definitions below are written in: the first whose casts have an axis."""


# --- casts -----------------------------------------------------------------------------------------------
@importer("QuantizeLinear", since=10)
@importer("QuantizeLinear", domain=MICROSOFT)
def quantize_linear(node: Node) -> Value:
    """round(x / scale) + zero point, saturated; ties go to even in ONNX, and away from zero here."""
    value = node.operand(0)
    if element_type(value) != f32:
        raise Unsupported(f"it quantises {element_type(value)}; only float32 can be quantised")
    type_ = cast_type(node, storage_of_result(node))
    if type_.data.axis is not None:
        raise Unsupported(
            f"it quantises '{node.input_name(0)}' with {len(type_.data.scales)} scales along axis "
            f"{type_.data.axis}; values that are computed have one scale, only constants have one a slice"
        )
    stored = emit_cast(node, QCastOp, value, type_)
    return emit_cast(node, SCastOp, stored, type_.storage)


@importer("DequantizeLinear", since=10)
@importer("DequantizeLinear", domain=MICROSOFT)
def dequantize_linear(node: Node) -> Value:
    """scale · (q − zero point)."""
    type_ = cast_type(node, storage_of_dtype(node.dtype(0), f"'{node.input_name(0)}'"))
    array = node.array(0)
    if array is not None:
        made = graph.ConstantOp.of(array, node.builder.store, node.input_name(0), type_)
        made.location = node.location
        node.builder.append(made)
        return emit_cast(node, DCastOp, made.result, f32)
    if type_.data.axis is not None:
        raise Unsupported(
            f"it dequantises '{node.input_name(0)}', which is computed, with {len(type_.data.scales)} scales "
            f"along axis {type_.data.axis}; only constants have a scale a slice"
        )
    quantised_value = emit_cast(node, SCastOp, node.operand(0), type_)
    return emit_cast(node, DCastOp, quantised_value, f32)


KEPT.update((domain, op) for domain in ("", MICROSOFT) for op in ("QuantizeLinear", "DequantizeLinear"))


def emit_cast(node: Node, op: type, value: SSAValue, element: Any) -> SSAValue:
    """A cast at the node's location."""
    made = op.create(operands=[value], result_types=[tensor(shape_of(value), element)])  # type: ignore[attr-defined]
    made.location = node.location
    node.builder.append(made)
    return made.results[0]


# --- types -----------------------------------------------------------------------------------------------
def storage_of_dtype(dtype: np.dtype, what: str) -> IntegerType:
    """The storage type of a dtype. Raises Unsupported for one that cannot be computed with."""
    storage = STORAGE.get(np.dtype(dtype))
    if storage is None:
        known = "int8, uint8, int16 and, for biases, int32"
        raise Unsupported(f"{what} is quantised to {dtype}, which cannot be imported; {known} can")
    return storage


def storage_of_result(node: Node) -> IntegerType:
    """What QuantizeLinear quantises to: the zero point's type, else `output_dtype`, else uint8."""
    wanted = node.attribute("output_dtype", 0)
    if node.has(2):
        dtype = node.dtype(2)
    else:
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(wanted or TensorProto.UINT8))
    storage = storage_of_dtype(dtype, "its result")
    if storage == i32:
        raise Unsupported("it quantises to int32; int8, uint8 and int16 can be imported")
    return storage


def cast_type(node: Node, storage: IntegerType) -> QuantType:
    """The quantised type that inputs 1 and 2, scale and zero point, give input 0."""
    if node.attribute("block_size", 0):
        raise Unsupported("it quantises in blocks; scales per tensor or per axis can be imported")
    scale = checked_scale(node)
    zero = checked_zero(node, storage, scale)
    shape = node.shape(0)
    axis = slice_axis(node, scale, shape) if scale.size > 1 else None
    try:
        return quantised(storage, scale.ravel(), zero.ravel(), axis)  # type: ignore[arg-type]
    except VerifyException as error:
        raise Unsupported(str(error)) from None


def slice_axis(node: Node, scale: np.ndarray, shape: Sequence[int]) -> int:
    """The axis whose slices have a scale each. Raises Unsupported where the scales do not fit it."""
    if scale.ndim != 1:
        raise Unsupported(
            f"its scales '{node.input_name(1)}' are {list(scale.shape)}, so it quantises in blocks; "
            "scales per tensor or per axis can be imported"
        )
    axis = node.axis(node.attribute("axis", 1), len(shape))
    if shape[axis] != scale.size:
        raise Unsupported(
            f"'{node.input_name(1)}' has {scale.size} scales, but axis {axis} of {list(shape)} "
            f"has {shape[axis]} slices"
        )
    return axis


def checked_scale(node: Node) -> np.ndarray:
    """The scales of a cast: constant float32, finite, above zero."""
    scale = node.constant(1, "its scale")
    if scale.dtype != np.float32:
        raise Unsupported(f"its scale '{node.input_name(1)}' is {scale.dtype}, but scales have to be float32")
    bad = scale[~(np.isfinite(scale) & (scale > 0))]
    if bad.size or not scale.size:
        found = f"is {bad[0]:g}" if bad.size else "is empty"
        raise Unsupported(f"its scale '{node.input_name(1)}' {found}; scales are finite and above zero")
    return scale


def checked_zero(node: Node, storage: IntegerType, scale: np.ndarray) -> np.ndarray:
    """The zero points of a cast: constants of the storage type, as many as scales; 0 where there is none."""
    if not node.has(2):
        return np.zeros(scale.shape, np.int32)
    zero = node.constant(2, "its zero point")
    if STORAGE.get(zero.dtype) != storage:
        raise Unsupported(
            f"its zero point '{node.input_name(2)}' is {zero.dtype}, but '{node.input_name(0)}' is "
            f"{node.dtype(0)}: both have one type"
        )
    if zero.size != scale.size:
        raise Unsupported(
            f"it has {zero.size} zero points ('{node.input_name(2)}') and {scale.size} scales "
            f"('{node.input_name(1)}')"
        )
    return zero


# --- quantised operators as casts around floats ----------------------------------------------------------
class Definition:
    """Nodes that define an operator, imported in its place under its name; they see its inputs."""

    def __init__(self, node: Node):
        self.node = node
        self.body: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}

    def constant(self, name: str, array: np.ndarray) -> str:
        """A named array."""
        full = f"{self.node.name}/{name}"
        self.constants[full] = array
        return full

    def add(self, op: str, inputs: Sequence[str], result: str, **attributes: Any) -> str:
        """A node with one output."""
        full = f"{self.node.name}/{result}"
        self.body.append(helper.make_node(op, list(inputs), [full], **attributes))
        return full

    def real(self, data: int, scale: int | str, zero: int | None, axis: int = 1) -> str:
        """The reals of a quantised input; scale: an input, or a constant's name."""
        given, node = self.node.proto.input, self.node
        inputs = [given[data], given[scale] if isinstance(scale, int) else scale]
        if zero is not None and node.has(zero):
            inputs.append(given[zero])
        return self.add("DequantizeLinear", inputs, f"real{data}", axis=axis)

    def quantised(self, real: str, scale: int, zero: int) -> str:
        """A result with the scale and zero point that are inputs of the node."""
        given = self.node.proto.input
        casts = [given[scale], given[zero]] if self.node.has(zero) else [given[scale]]
        return self.add("QuantizeLinear", [real, *casts], "quantised")

    def run(self, result: str) -> Value:
        """Import the nodes and give what the named one computes."""
        node = self.node
        function = onnx.FunctionProto(name=node.proto.op_type)
        given = {n: v for n, v in zip(node.proto.input, node.inputs) if n and v is not None}
        function.input.extend([*given, *self.constants])
        function.output.append(result)
        function.node.extend(self.body)
        opset = max(node.scope.opsets.get("", 1), FUNCTION_OPSET)
        function.opset_import.append(helper.make_opsetid("", opset))
        values = [*given.values(), *self.constants.values()]
        [found] = node.builder.run_function(function, node.name, values, node.scope.opsets)
        if isinstance(found, (SSAValue, np.ndarray)):
            return found
        raise Unsupported("its definition gives no result")


def own_attributes(node: Node, *names: str) -> dict[str, Any]:
    """Those of the named attributes that a node gives."""
    return {a.name: helper.get_attribute_value(a) for a in node.proto.attribute if a.name in names}


WINDOW = ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")


@importer("QLinearConv", since=10)
def qlinear_conv(node: Node) -> Value:
    """Inputs: x, w and result, each with scale and zero point (x and w: data too), int32 bias."""
    d = Definition(node)
    operands = [d.real(0, 1, 2), d.real(3, 4, 5, axis=0)]
    if node.has(8):
        operands.append(d.real(8, bias_scale(d, 1, 4), None, axis=0))
    return d.run(d.quantised(d.add("Conv", operands, "conv", **own_attributes(node, *WINDOW)), 6, 7))


def bias_scale(d: Definition, ifm: int, weight: int, factor: float = 1.0) -> str:
    """A bias has the scales of the products it is added to."""
    scales = [d.node.constant(i, "its scale") for i in (ifm, weight)]
    product = np.float32(factor) * scales[0].ravel()[:1] * scales[1].ravel()
    return d.constant("bias_scale", product.astype(np.float32))


@importer("QLinearMatMul", since=10)
def qlinear_matmul(node: Node) -> Value:
    """a, b and result, each with scale and zero point."""
    d = Definition(node)
    operands = [d.real(0, 1, 2), d.real(3, 4, 5, axis=len(node.shape(3)) - 1)]
    return d.run(d.quantised(d.add("MatMul", operands, "product"), 6, 7))


@importer("QGemm", domain=MICROSOFT)
def qgemm(node: Node) -> Value:
    """A and B with scale and zero point, int32 C, scale and zero point of the result, if it is quantised."""
    d = Definition(node)
    attributes = own_attributes(node, "alpha", "transA", "transB")
    operands = [d.real(0, 1, 2), d.real(3, 4, 5, axis=0 if attributes.get("transB") else 1)]
    if node.has(6):
        operands.append(d.real(6, bias_scale(d, 1, 4, attributes.get("alpha", 1.0)), None, axis=0))
    product = d.add("Gemm", operands, "product", **attributes)
    return d.run(d.quantised(product, 7, 8) if node.has(7) else product)


def binary(float_op: str) -> None:
    """Register QLinear… of two operands: A, B and C, each with scale and zero point."""

    @importer(f"QLinear{float_op}", domain=MICROSOFT)
    def qlinear_binary(node: Node) -> Value:
        d = Definition(node)
        return d.run(d.quantised(d.add(float_op, [d.real(0, 1, 2), d.real(3, 4, 5)], "result"), 6, 7))


def unary(float_op: str, *attributes: str) -> None:
    """Register QLinear… of one operand: X with scale and zero point, those of the result."""

    @importer(f"QLinear{float_op}", domain=MICROSOFT)
    def qlinear_unary(node: Node) -> Value:
        if node.attribute("channels_last", 0):
            raise Unsupported("it is channels-last (channels_last = 1); export it channels-first")
        d = Definition(node)
        given = own_attributes(node, *attributes)
        return d.run(d.quantised(d.add(float_op, [d.real(0, 1, 2)], "result", **given), 3, 4))


for name in ("Add", "Mul"):
    binary(name)
unary("Sigmoid")
unary("LeakyRelu", "alpha")
unary("GlobalAveragePool")
unary("AveragePool", *WINDOW, "ceil_mode", "count_include_pad")
unary("Softmax", "axis")
unary("ReduceMean", "axes", "keepdims")


@importer("QLinearConcat", domain=MICROSOFT)
def qlinear_concat(node: Node) -> Value:
    """Scale and zero point of the result, then data, scale and zero point of each operand."""
    d = Definition(node)
    parts = [d.real(i, i + 1, i + 2) for i in range(2, len(node.inputs), 3)]
    return d.run(d.quantised(d.add("Concat", parts, "joined", axis=node.attribute("axis")), 0, 1))


@importer("ConvInteger", since=10)
def conv_integer(node: Node) -> Value:
    """x, w and their zero points: int32 sums of the products of what is left."""
    d = Definition(node)
    weight_scale = ones_like_zero(d, 3)
    operands = [d.real(0, d.constant("one", np.ones((), np.float32)), 2), d.real(1, weight_scale, 3, axis=0)]
    sums = d.add("Conv", operands, "sums", **own_attributes(node, *WINDOW))
    return d.run(d.add("Cast", [sums], "integers", to=TensorProto.INT32))


@importer("MatMulInteger", since=10)
def matmul_integer(node: Node) -> Value:
    """a, b and their zero points: int32 sums of the products of what is left."""
    d = Definition(node)
    b_scale = ones_like_zero(d, 3)
    operands = [
        d.real(0, d.constant("one", np.ones((), np.float32)), 2),
        d.real(1, b_scale, 3, axis=len(node.shape(1)) - 1),
    ]
    sums = d.add("MatMul", operands, "sums")
    return d.run(d.add("Cast", [sums], "integers", to=TensorProto.INT32))


def ones_like_zero(d: Definition, zero: int) -> str:
    """A scale of 1, or one for each zero point."""
    shape = d.node.shape(zero) if d.node.has(zero) else ()
    return d.constant("ones", np.ones(shape, np.float32))


# --- refusals --------------------------------------------------------------------------------------------
DYNAMIC = (
    "its scale depends on the data of each run, and scales are constants here: quantise the model statically "
    "(onnxruntime.quantization.quantize_static), or import the float model and let Nacre quantise it"
)
refuse("DynamicQuantizeLinear", reason=DYNAMIC)
refuse("DynamicQuantizeMatMul", "DynamicQuantizeLSTM", reason=DYNAMIC, domain=MICROSOFT)
