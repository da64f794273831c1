"""The way back: a module as an ONNX model, quantised ops as QDQ; ONNX Runtime runs what Nacre quantised.

    onnx.save(export_onnx(program.levels["qnn"]), "model.onnx")

Every quantised value is one integer tensor of the model, written by QuantizeLinear behind the float operator
that computes it from DequantizeLinear of its operands; a table is a Gather. `exports` registers an op class.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import ReturnOp
from xdsl.ir import Operation, SSAValue

from ...dialects import graph, qnn
from ...dialects.declarative import DeclarativeOp
from ...dialects.quant import DCastOp, QCastOp, QuantType, SCastOp
from ...dialects.types import dtype_of, element_type, i32, shape_of
from ...errors import CompileError
from ...runtime.interpreter import argument_names, main_function, result_names
from ...runtime.kernel import evaluate
from . import export_index  # noqa: F401  registers its operations
from .exporter import EXPORTS, Exporter, Permutation, exports, first, onnx_type

OPSET, OPSET_16_BITS = 20, 21
"""Casts of 16 bits came with opset 21; with those of 8 bits in it, ONNX Runtime's optimiser makes mistakes."""
IR_VERSION = 10


def export_onnx(module: ModuleOp, name: str = "nacre") -> onnx.ModelProto:
    """A module at the graph or qnn level as an ONNX model with the same inputs and outputs.

    Raises CompileError for an op that ONNX has no operator for.
    """
    function = main_function(module)
    exporter = Exporter()
    inputs = []
    for argument, label in zip(function.args, argument_names(function)):
        exporter.used.add(label)
        exporter.tensors[argument, None] = label
        inputs.append(value_info(label, argument))
    exporter.used.update(result_names(function))
    for op in function.body.block.ops:
        if isinstance(op, ReturnOp):
            results = list(zip(op.operands, result_names(function)))
            outputs = [value_info(label, value) for value, label in results]
            finish_outputs(exporter, results)
        else:
            exporter.run(op)
    proto = helper.make_graph(exporter.nodes, name, inputs, outputs, exporter.initialisers)
    wide = any(i.data_type == onnx.TensorProto.INT16 for i in exporter.initialisers)
    opset = [helper.make_opsetid("", OPSET_16_BITS if wide else OPSET)]
    model = helper.make_model(proto, opset_imports=opset, ir_version=IR_VERSION, producer_name="nacre")
    remove_unread(model.graph)
    onnx.checker.check_model(model)
    return model


def value_info(name: str, value: SSAValue) -> onnx.ValueInfoProto:
    """A graph input or output; a quantised one is its stored integers."""
    return helper.make_tensor_value_info(name, onnx_type(element_type(value)), shape_of(value))


def finish_outputs(exporter: Exporter, results: Sequence[tuple[SSAValue, str]]) -> None:
    """Give what is returned the outputs' names."""
    exporter.layer = ""
    for value, label in results:
        found = exporter.tensor(value)
        writer = next((node for node in exporter.nodes if found in node.output), None)
        if writer is None or found in {o for _, o in results}:  # an input, a constant, or returned twice
            exporter.nodes.append(helper.make_node("Identity", [found], [label], name=label))
            continue
        for node in exporter.nodes:
            node.input[:] = [label if n == found else n for n in node.input]
        writer.output[:] = [label if n == found else n for n in writer.output]
        for key, known in exporter.tensors.items():
            if known == found:
                exporter.tensors[key] = label


def remove_unread(proto: onnx.GraphProto) -> None:
    """Drop nodes and initialisers that nothing reads."""
    kept: list[onnx.NodeProto] = []
    read = {o.name for o in proto.output}
    for node in reversed(proto.node):
        if any(o in read for o in node.output):
            read.update(node.input)
            kept.append(node)
    left = [i for i in proto.initializer if i.name in read]
    del proto.node[:], proto.initializer[:]
    proto.node.extend(reversed(kept))
    proto.initializer.extend(left)


# --- casts and constants ---------------------------------------------------------------------------------
@exports(graph.ConstantOp)
def constant(op: graph.ConstantOp, e: Exporter) -> None:
    """Written where it is read, in the axis order in which it is read."""


@exports(QCastOp)
def quantise(op: QCastOp, e: Exporter) -> None:
    e.define(op.result, e.real(op.input))


@exports(DCastOp)
def dequantise(op: DCastOp, e: Exporter) -> None:
    for (value, order), stored in list(e.tensors.items()):
        if value is op.input:
            type_ = element_type(op.input)
            assert isinstance(type_, QuantType)
            e.tensors[op.result, order] = e.dequantised(stored, type_, type_.data.axis)
            return
    e.tensors[op.result, None] = e.real(op.input)


@exports(SCastOp)
def see_as(op: SCastOp, e: Exporter) -> None:
    e.tensors[op.result, None] = e.tensor(op.input)


# --- sums of products ------------------------------------------------------------------------------------
def weight_order(rank: int) -> Permutation:
    """[K…, C, M] as [M, C, K…]."""
    return (rank - 1, rank - 2, *range(rank - 2))


@exports(qnn.ConvOp, graph.ConvOp)
def conv(op: Any, e: Exporter) -> None:
    p, order = op.parameters(), first(len(shape_of(op.ifm)))
    operands = [e.real(op.ifm, order), e.real(op.weight, weight_order(len(shape_of(op.weight))))]
    bias = bias_of(op, op.ifm, op.weight, e)
    window = {"strides": p.strides, "pads": p.pads, "dilations": p.dilations, "group": p.groups}
    e.define(op.ofm, e.node("Conv", [*operands, *bias], **window), order, limits_of(op))


def limits_of(op: DeclarativeOp) -> tuple[int, int] | None:
    """The clamp of an op's result, in stored integers."""
    p = op.parameters()
    return (p.low, p.high) if isinstance(op, qnn.QnnOp) and "low" in p else None


def bias_of(op: Any, a: SSAValue, b: SSAValue, e: Exporter) -> list[str]:
    """The bias as floats, if there is one: int32 at scale_a · scale_b behind a cast; int64 has none."""
    if op.bias is None:
        return []
    left, right = element_type(a), element_type(b)
    if not isinstance(left, QuantType) or not isinstance(right, QuantType):
        return [e.real(op.bias)]
    integers = graph.constant_of(op.bias)
    scales = np.float64(left.scale) * np.array(right.data.scales, np.float64)
    if integers is None:
        raise CompileError(f"layer '{e.layer}': its bias is computed, so it cannot be exported to ONNX")
    if element_type(op.bias) != i32:
        return [e.array((integers * scales).astype(np.float32), "bias")]
    stored = e.array(integers, "bias")
    if len(scales) == 1:
        scale, axis = e.scalar(np.float32(scales[0]), np.float32, "scale"), {}
    else:
        scale, axis = e.array(scales.astype(np.float32), "bias_scales"), {"axis": 0}
    return [e.node("DequantizeLinear", [stored, scale], "bias_real", **axis)]


@exports(qnn.MatmulOp, graph.MatmulOp)
def matmul(op: Any, e: Exporter) -> None:
    operands, bias = [e.real(op.a), e.real(op.b)], bias_of(op, op.a, op.b, e)
    if len(shape_of(op.a)) == len(shape_of(op.b)) == 2 and bias:
        product = e.node("Gemm", [*operands, *bias])
    else:
        product = e.node("MatMul", operands)
        product = e.node("Add", [product, *bias]) if bias else product
    e.define(op.result, product, limits=limits_of(op))


@exports(graph.ConvTransposeOp)
def conv_transpose(op: graph.ConvTransposeOp, e: Exporter) -> None:
    """graph's weight [K…, C / groups, M] as ONNX's [C, M / groups, K…]."""
    p, weight, order = op.parameters(), graph.constant_of(op.weight), first(len(shape_of(op.ifm)))
    if weight is None:
        raise CompileError(f"layer '{e.layer}': its weights are computed, so it cannot be exported to ONNX")
    *kernel, depth, filters = weight.shape
    parts = weight.reshape(*kernel, depth, p.groups, filters // p.groups)
    rank = len(kernel)
    moved = parts.transpose(rank + 1, rank, rank + 2, *range(rank))
    given = e.array(moved.reshape(depth * p.groups, filters // p.groups, *kernel), "weight")
    operands = [e.real(op.ifm, order), given, *([e.real(op.bias)] if op.bias is not None else [])]
    window = {"strides": p.strides, "pads": p.pads, "dilations": p.dilations, "group": p.groups}
    made = e.node("ConvTranspose", operands, output_padding=p.output_pads, **window)
    e.define(op.ofm, made, order)


# --- elementwise -----------------------------------------------------------------------------------------
BINARY: dict[type[Operation], str] = {
    qnn.MulOp: "Mul", qnn.PreluOp: "PRelu", graph.AddOp: "Add", graph.SubOp: "Sub", graph.MulOp: "Mul",
    graph.DivOp: "Div", graph.MinOp: "Min", graph.MaxOp: "Max", graph.PowOp: "Pow", graph.PreluOp: "PRelu",
}  # fmt: skip
UNARY: dict[type[Operation], str] = {
    graph.NegOp: "Neg", graph.AbsOp: "Abs", graph.ExpOp: "Exp", graph.LogOp: "Log", graph.SqrtOp: "Sqrt",
    graph.ErfOp: "Erf", graph.FloorOp: "Floor", graph.CeilOp: "Ceil", graph.RoundOp: "Round",
    graph.SinOp: "Sin", graph.CosOp: "Cos", graph.AtanOp: "Atan", graph.ReluOp: "Relu", graph.LeakyReluOp: "LeakyRelu",
    graph.EluOp: "Elu", graph.SigmoidOp: "Sigmoid", graph.HardSigmoidOp: "HardSigmoid",
    graph.TanhOp: "Tanh", graph.HardSwishOp: "HardSwish",
}  # fmt: skip
"""Ops whose operators have the same operands, and attributes of the same names."""


@exports(*BINARY)
def binary(op: Any, e: Exporter) -> None:
    order = e.layout(op.a, op.b)
    made = e.node(BINARY[type(op)], [e.real(op.a, order), e.real(op.b, order)])
    e.define(op.result, made, order, limits_of(op))


@exports(qnn.AddOp)
def add(op: qnn.AddOp, e: Exporter) -> None:
    p, order = op.parameters(), e.layout(op.a, op.b)
    made = e.node("Sub" if p.subtract else "Add", [e.real(op.a, order), e.real(op.b, order)])
    e.define(op.result, made, order, p.rescale[10:12])


@exports(*UNARY)
def unary(op: Any, e: Exporter) -> None:
    order = e.layout(op.input)
    e.define(op.result, e.node(UNARY[type(op)], [e.real(op.input, order)], **op.parameters()), order)


@exports(graph.RsqrtOp)
def rsqrt(op: graph.RsqrtOp, e: Exporter) -> None:
    e.define(op.result, e.node("Reciprocal", [e.node("Sqrt", [e.real(op.input)])]))


@exports(graph.GeluOp)
def gelu(op: graph.GeluOp, e: Exporter) -> None:
    how = "tanh" if op.parameters().approximate else "none"
    e.define(op.result, e.node("Gelu", [e.real(op.input)], approximate=how))


@exports(graph.ClampOp)
def clamp(op: graph.ClampOp, e: Exporter) -> None:
    p, order = op.parameters(), e.layout(op.input)
    ends = ["" if math.isinf(end) else e.scalar(end, np.float32, "limit") for end in (p.low, p.high)]
    e.define(op.result, e.node("Clip", [e.real(op.input, order), *ends]), order)


@exports(qnn.ClampOp)
def clamp_integers(op: qnn.ClampOp, e: Exporter) -> None:
    order = e.layout(op.input)
    e.define(op.result, e.real(op.input, order), order, limits_of(op))


@exports(qnn.RequantiseOp)
def requantise(op: qnn.RequantiseOp, e: Exporter) -> None:
    order = e.layout(op.input)
    e.define(op.result, e.real(op.input, order), order)


@exports(qnn.TableOp, qnn.LeakyReluOp, qnn.LogisticOp, qnn.TanhOp)
def table(op: Any, e: Exporter) -> None:
    """Any function of one stored integer, entry by entry: exact whatever the function was.

    A negative index counts from the end, which is where the bits of a negative integer are.
    """
    dtype = dtype_of(element_type(op.input))
    bits = np.arange(2 ** (8 * dtype.itemsize)).astype(dtype)
    constants = [graph.constant_of(v) for v in list(op.operands)[1:]]
    if any(array is None for array in constants):
        raise CompileError(f"layer '{e.layer}': its table is computed, so it cannot be exported to ONNX")
    entries = np.asarray(evaluate(op, bits, *constants)[0])
    order = e.layout(op.input)
    index = e.node("Cast", [e.tensor(op.input, order)], "index", to=onnx_type(i32))
    e.tensors[op.result, order] = e.node("Gather", [e.array(entries, "table"), index], "stored", axis=0)


@exports(graph.CompareOp)
def compare(op: graph.CompareOp, e: Exporter) -> None:
    names = {"eq": "Equal", "lt": "Less", "le": "LessOrEqual", "gt": "Greater", "ge": "GreaterOrEqual"}
    a, b, predicate = e.real(op.a), e.real(op.b), op.parameters().predicate
    made = e.node(names.get(predicate, "Equal"), [a, b])
    e.define(op.result, e.node("Not", [made]) if predicate == "ne" else made)


@exports(graph.SelectOp)
def select(op: graph.SelectOp, e: Exporter) -> None:
    e.define(op.result, e.node("Where", [e.tensor(op.condition), e.real(op.a), e.real(op.b)]))


@exports(graph.CastOp)
def cast(op: graph.CastOp, e: Exporter) -> None:
    e.define(op.result, e.node("Cast", [e.real(op.input)], to=onnx_type(element_type(op.result))))


# --- windows ---------------------------------------------------------------------------------------------
@exports(graph.MaxPoolOp, graph.AvgPoolOp)
def pool(op: graph.PoolOp, e: Exporter) -> None:
    p, order = op.parameters(), first(len(shape_of(op.ifm)))
    window: dict[str, Any] = {"kernel_shape": p.kernel, "strides": p.strides, "dilations": p.dilations}
    pads, over = p.pads, p.get("overhang", ())
    if any(over):  # what the last window of ceil mode reaches beyond the pads never counts
        rank = len(over)
        pads = (*pads[:rank], *(pad - reach for pad, reach in zip(pads[rank:], over)))
        window["ceil_mode"] = 1
    if isinstance(op, graph.AvgPoolOp):
        window["count_include_pad"] = int(p.count_include_pad)
    name = "AveragePool" if isinstance(op, graph.AvgPoolOp) else "MaxPool"
    e.define(op.ofm, e.node(name, [e.real(op.ifm, order)], pads=pads, **window), order)


@exports(qnn.AvgPoolOp)
def average(op: qnn.AvgPoolOp, e: Exporter) -> None:
    p, order = op.parameters(), first(4)
    window = {"kernel_shape": p.kernel, "strides": p.strides, "pads": p.pads}
    e.define(op.ofm, e.node("AveragePool", [e.real(op.ifm, order)], **window), order, limits_of(op))


@exports(graph.ResizeOp)
def resize(op: graph.ResizeOp, e: Exporter) -> None:
    p, order = op.parameters(), first(len(shape_of(op.ifm)))
    n, *sizes, c = shape_of(op.ifm)
    scales = list(p.scales) or [out / size for out, size in zip(p.sizes, sizes)]
    exact = [math.floor(size * np.float32(scale)) for size, scale in zip(sizes, scales)] == list(p.sizes)
    if exact:
        inputs = ["", "", e.array(np.array([1, 1, *scales], np.float32), "scales")]
    else:
        inputs = ["", "", "", e.array(np.array([n, c, *p.sizes], np.int64), "sizes")]
    made = e.node(
        "Resize", [e.real(op.ifm, order), *inputs[1:]], mode=p.mode, nearest_mode=p.nearest,
        coordinate_transformation_mode=p.coordinates, cubic_coeff_a=p.cubic_a,
        exclude_outside=int(p.exclude_outside),
    )  # fmt: skip
    e.define(op.ofm, made, order)


@exports(qnn.ResizeOp)
def resize_by_tables(op: qnn.ResizeOp, e: Exporter) -> None:
    """Products with the matrices that the tables of neighbours and weights stand for."""
    made = e.real(op.ifm, first(4))
    rows, cols = (graph.constant_of(v) for v in (op.rows, op.cols))
    if rows is None or cols is None or op.parameters().mode != "linear":
        raise CompileError(f"layer '{e.layer}': this resampling cannot be exported to ONNX")
    _, height, width, _ = shape_of(op.ifm)
    if not is_identity(rows, height):
        made = e.node("MatMul", [e.array(interpolation(rows, height), "rows"), made])
    if not is_identity(cols, width):
        made = e.node("MatMul", [made, e.array(interpolation(cols, width).T, "cols")])
    e.define(op.ofm, made, first(4))


def interpolation(table_: np.ndarray, size: int) -> np.ndarray:
    """float32 [out, size]: the weights of all inputs in each output."""
    matrix = np.zeros((len(table_), size), np.float32)
    at = np.arange(len(table_))
    np.add.at(matrix, (at, table_[:, 0]), (1024 - table_[:, 2]) / np.float32(1024))
    np.add.at(matrix, (at, table_[:, 1]), table_[:, 2] / np.float32(1024))
    return matrix


def is_identity(table_: np.ndarray, size: int) -> bool:
    """Whether a table takes every input as it is."""
    return len(table_) == size and bool((interpolation(table_, size) == np.eye(size)).all())


@exports(graph.DepthToSpaceOp)
def depth_to_space(op: graph.DepthToSpaceOp, e: Exporter) -> None:
    p, order = op.parameters(), first(4)
    made = e.node("DepthToSpace", [e.real(op.ifm, order)], blocksize=p.block, mode=p.order)
    e.define(op.ofm, made, order)


@exports(graph.SpaceToDepthOp)
def space_to_depth(op: graph.SpaceToDepthOp, e: Exporter) -> None:
    order = first(4)
    e.define(op.ofm, e.node("SpaceToDepth", [e.real(op.ifm, order)], blocksize=op.parameters().block), order)


@exports(graph.LrnOp)
def lrn(op: graph.LrnOp, e: Exporter) -> None:
    order = first(len(shape_of(op.ifm)))
    e.define(op.ofm, e.node("LRN", [e.real(op.ifm, order)], **op.parameters()), order)


# --- along axes ------------------------------------------------------------------------------------------
@exports(qnn.SoftmaxOp, qnn.Softmax16Op, graph.SoftmaxOp)
def softmax(op: Any, e: Exporter) -> None:
    axis = op.parameters().get("axis", len(shape_of(op.input)) - 1)
    e.define(op.result, e.node("Softmax", [e.real(op.input)], axis=axis))


REDUCTIONS: dict[type[Operation], str] = {
    graph.ReduceSumOp: "ReduceSum", graph.ReduceMeanOp: "ReduceMean", graph.ReduceMaxOp: "ReduceMax",
    graph.ReduceMinOp: "ReduceMin", graph.ReduceProdOp: "ReduceProd",
}  # fmt: skip


@exports(*REDUCTIONS)
def reduction(op: graph.ReduceOp, e: Exporter) -> None:
    p = op.parameters()
    axes = e.array(np.array(p.axes, np.int64), "axes")
    made = e.node(
        REDUCTIONS[type(op)], [e.real(op.input), axes], keepdims=int(p.keepdims), noop_with_empty_axes=1
    )
    e.define(op.result, made)


@exports(graph.ArgmaxOp)
def argmax(op: graph.ArgmaxOp, e: Exporter) -> None:
    p = op.parameters()
    made = e.node(
        "ArgMax", [e.real(op.input)], axis=p.axis, keepdims=int(p.keepdims), select_last_index=int(p.select_last)
    )
    e.define(op.result, made)


@exports(graph.LayerNormOp)
def layer_norm(op: graph.LayerNormOp, e: Exporter) -> None:
    p, shape = op.parameters(), shape_of(op.input)
    if any(shape_of(v) != shape[p.axis :] for v in list(op.operands)[1:]):
        raise CompileError(f"layer '{e.layer}': a scale that broadcasts cannot be exported to ONNX")
    operands = [e.real(v) for v in op.operands]
    e.define(op.result, e.node("LayerNormalization", operands, axis=p.axis, epsilon=p.epsilon))


@exports(graph.BatchNormOp)
def batch_norm(op: graph.BatchNormOp, e: Exporter) -> None:
    p, rank = op.parameters(), len(shape_of(op.input))
    order = (0, p.axis, *(i for i in range(1, rank) if i != p.axis)) if p.axis else None
    if order is None:
        raise CompileError(f"layer '{e.layer}': a batch norm of axis 0 cannot be exported to ONNX")
    operands = [e.real(op.input, order), *(e.real(v) for v in list(op.operands)[1:])]
    e.define(op.result, e.node("BatchNormalization", operands, epsilon=p.epsilon), order)


# --- moving values: on the integers' reals, which quantise back to the same integers ------------------------
@exports(graph.TransposeOp)
def transpose(op: graph.TransposeOp, e: Exporter) -> None:
    """No node yet: the tensors that hold the input hold the result as well, its axes in another order."""
    permutation = op.parameters().permutation
    if graph.constant_of(op.input) is not None:
        e.tensor(op.input)
    for (value, order), name in list(e.tensors.items()):
        if value is op.input:
            moved = tuple(permutation.index(axis) for axis in order or range(len(permutation)))
            e.tensors[op.result, None if list(moved) == sorted(moved) else moved] = name


@exports(graph.ReshapeOp)
def reshape(op: graph.ReshapeOp, e: Exporter) -> None:
    shape = e.array(np.array(op.parameters().shape, np.int64), "shape")
    e.tensors[op.result, None] = e.node("Reshape", [e.tensor(op.input), shape], allowzero=1)


@exports(graph.BroadcastOp)
def broadcast(op: graph.BroadcastOp, e: Exporter) -> None:
    shape = e.array(np.array(op.parameters().shape, np.int64), "shape")
    e.define(op.result, e.node("Expand", [e.real(op.input), shape]))


@exports(graph.ConcatOp)
def concat(op: graph.ConcatOp, e: Exporter) -> None:
    axis = op.parameters().axis
    e.define(op.result, e.node("Concat", [e.real(v) for v in op.inputs], axis=axis))


@exports(graph.SplitOp)
def split(op: graph.SplitOp, e: Exporter) -> None:
    p = op.parameters()
    sizes = e.array(np.array(p.sizes, np.int64), "sizes")
    e.node("Split", [e.real(op.input), sizes], outputs=len(p.sizes), axis=p.axis)
    for value, name in zip(op.parts, list(e.nodes[-1].output)):
        e.define(value, name)


@exports(graph.SliceOp)
def slice_(op: graph.SliceOp, e: Exporter) -> None:
    p = op.parameters()
    ends = [start + size * step for start, size, step in zip(p.starts, p.sizes, p.steps)]
    beyond = [np.iinfo(np.int64).min if end < 0 else end for end in ends]
    lists = (p.starts, beyond, range(len(p.starts)), p.steps)
    inputs = [e.array(np.array(list(v), np.int64), "slice") for v in lists]
    e.define(op.result, e.node("Slice", [e.real(op.input), *inputs]))


@exports(graph.PadOp)
def pad(op: graph.PadOp, e: Exporter) -> None:
    """A quantised tensor's pad value is a stored integer."""
    p, type_ = op.parameters(), element_type(op.input)
    value = (p.value - type_.zero) * type_.scale if isinstance(type_, QuantType) else p.value
    dtype = np.float32 if isinstance(type_, QuantType) else dtype_of(type_)
    pads = e.array(np.array([*p.low, *p.high], np.int64), "pads")
    inputs = [e.real(op.input), pads, e.scalar(value, dtype, "pad")]
    e.define(op.result, e.node("Pad", inputs, mode=p.mode))


@exports(graph.GatherOp)
def gather(op: graph.GatherOp, e: Exporter) -> None:
    made = e.node("Gather", [e.real(op.data), e.tensor(op.indices)], axis=op.parameters().axis)
    e.define(op.result, made)


__all__ = ["EXPORTS", "Exporter", "export_onnx", "exports"]
