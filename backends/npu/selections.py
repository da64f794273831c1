"""How graph and qnn operations become instructions of the fixed engines, one function a family."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...dialects import graph, qnn, quant
from ...dialects import npu_instructions as npu
from ...dialects.locations import layer_name
from ...dialects.npu import buffer_type
from ...dialects.npu_instructions import PoolKind, ResizeKind
from ...dialects.quant import QuantType, storage_range
from ...dialects.types import element_type, f16, f64, shape_of, size_of
from ...errors import CompileError
from ...runtime.kernel import evaluate
from . import (  # noqa: F401  they register theirs
    selections_float,
    selections_moves,
    selections_recurrent,
    selections_rows,
    selections_scan,
    selections_tflite,
)
from .select import Selector, selects
from .selections_float import MULTIPLIER


# --- conversions -----------------------------------------------------------------------------------------
@selects(quant.QCastOp)
def quantise(op: quant.QCastOp, s: Selector) -> None:
    """float -> integer."""
    type_ = element_type(op.result)
    assert isinstance(type_, QuantType)
    ports = {"src": s.buffer(op.input), "dst": s.result(op.result)}
    s.emit(npu.QuantiseOp, ports, scale=type_.scale, zero=type_.zero)


@selects(quant.DCastOp)
def dequantise(op: quant.DCastOp, s: Selector) -> None:
    """integer -> float."""
    type_ = element_type(op.input)
    assert isinstance(type_, QuantType)
    ports = {"src": s.buffer(op.input), "dst": s.result(op.result)}
    s.emit(npu.DequantiseOp, ports, scale=type_.scale, zero=type_.zero)


@selects(quant.SCastOp)
def see_as_storage(op: quant.SCastOp, s: Selector) -> None:
    """No bit changes; a copy where the result has a place of its own, as an output or in a concat."""
    if op.result in s.returned or op.result in s.in_place:
        s.emit(npu.CopyOp, {"src": s.buffer(op.input), "dst": s.result(op.result)})
    else:
        s.alias(op.result, s.buffer(op.input))


# --- NN engine -------------------------------------------------------------------------------------------
@selects(qnn.ConvOp)
def conv(op: qnn.ConvOp, s: Selector) -> None:
    """Dense and depthwise ones directly, grouped ones a group at a time on views of the channels."""
    p = op.parameters()
    ifm, ofm = s.buffer(op.ifm), s.result(op.ofm)
    channels, filters = shape_of(op.ifm)[-1], shape_of(op.weight)[-1]
    ports: dict[str, Any] = {"ifm": ifm, "ofm": ofm, "weight": s.buffer(op.weight)}
    ports |= {"multiplier": s.buffer(op.multiplier), "shift": s.buffer(op.shift)}
    if op.bias is not None:
        ports["bias"] = s.buffer(op.bias)
    fields = {
        "stride_h": p.strides[0], "stride_w": p.strides[1], "dilation_h": p.dilations[0],
        "dilation_w": p.dilations[1], "pad_top": p.pads[0], "pad_left": p.pads[1], "pad_bottom": p.pads[2],
        "pad_right": p.pads[3], "ifm_zero": p.ifm_zero, "weight_zero": p.weight_zero,
        "ofm_zero": p.ofm_zero, "low": p.low, "high": p.high, "rounding": p.rounding,
    }  # fmt: skip
    if p.groups == 1:
        s.emit(npu.ConvOp, ports, **fields)
    elif p.groups == channels and filters // channels <= MULTIPLIER:
        kernel = shape_of(op.weight)[:2]
        ports["weight"] = s.reshape(s.dense(op.weight), (*kernel, channels, filters // channels))
        s.emit(npu.DepthwiseOp, ports, **fields)
    else:
        _grouped(s, ports, fields, p.groups)


def _grouped(s: Selector, ports: dict[str, Any], fields: dict[str, Any], groups: int) -> None:
    for group in range(groups):
        part = {}
        for name, whole in ports.items():
            shape = buffer_type(whole).shape
            if shape == (1,):
                part[name] = whole
                continue
            size = shape[-1] // groups
            offsets = (*(0 for _ in shape[:-1]), group * size)
            part[name] = s.view(whole, offsets, (*shape[:-1], size))
        s.emit(npu.ConvOp, part, **fields)


@selects(qnn.MatmulOp)
def matmul(op: qnn.MatmulOp, s: Selector) -> None:
    """Batch axes in front; a matrix on the right that serves all of them makes one tall product."""
    p = op.parameters()
    a, b, out = s.buffer(op.a), s.buffer(op.b), s.result(op.result)
    if len(shape_of(op.b)) == 2 and len(shape_of(op.a)) != 2 and npu.dense_layout(out) is not None:
        a = s.reshape(s.dense(op.a), (size_of(op.a) // shape_of(op.a)[-1], shape_of(op.a)[-1]))
        out = s.reshape(out, (buffer_type(a).shape[0], shape_of(op.result)[-1]))
    rank = len(buffer_type(out).shape)
    b = s.reshape(b, (1,) * (rank - len(buffer_type(b).shape)) + buffer_type(b).shape)
    a = s.reshape(a, (1,) * (rank - len(buffer_type(a).shape)) + buffer_type(a).shape)
    ports = {
        "ifm": a, "weight": b, "ofm": out,
        "multiplier": s.buffer(op.multiplier), "shift": s.buffer(op.shift),
    }  # fmt: skip
    if op.bias is not None:
        ports["bias"] = s.buffer(op.bias)
    s.emit(
        npu.MatmulOp, ports, ifm_zero=p.a_zero, weight_zero=p.b_zero, ofm_zero=p.ofm_zero,
        low=p.low, high=p.high, rounding=p.rounding,
    )  # fmt: skip


# --- fabric ----------------------------------------------------------------------------------------------
def _aligned(s: Selector, value: Any, rank: int) -> Any:
    """An operand with leading axes of size 1 up to a rank."""
    shape = shape_of(value)
    if len(shape) == rank:
        return s.buffer(value)
    return s.reshape(s.dense(value), (1,) * (rank - len(shape)) + shape)


@selects(qnn.AddOp)
def add(op: qnn.AddOp, s: Selector) -> None:
    """Rescaled sum or difference."""
    p, rank = op.parameters(), len(shape_of(op.result))
    ports = {"a": _aligned(s, op.a, rank), "b": _aligned(s, op.b, rank), "ofm": s.result(op.result)}
    s.emit(npu.AddOp, ports, parameters=p.rescale, subtract=int(p.subtract))


@selects(qnn.MulOp)
def mul(op: qnn.MulOp, s: Selector) -> None:
    """Requantised product."""
    rank = len(shape_of(op.result))
    ports = {"a": _aligned(s, op.a, rank), "b": _aligned(s, op.b, rank), "ofm": s.result(op.result)}
    s.emit(npu.MulOp, ports, **op.parameters())


@selects(graph.MinOp, graph.MaxOp)
def extremum(op: graph.MinOp | graph.MaxOp, s: Selector) -> None:
    """On integers of one quantisation; floats are the programmable engine's."""
    if not isinstance(element_type(op.result), QuantType):
        selections_float.elementwise(op, s)
        return
    rank = len(shape_of(op.result))
    ports = {"a": _aligned(s, op.a, rank), "b": _aligned(s, op.b, rank), "ofm": s.result(op.result)}
    s.emit(npu.ExtremumOp, ports, larger=int(isinstance(op, graph.MaxOp)))


@selects(qnn.RequantiseOp)
def requantise(op: qnn.RequantiseOp, s: Selector) -> None:
    """A change of scale."""
    p = op.parameters()
    ports = {"src": s.buffer(op.input), "dst": s.result(op.result)}
    s.emit(
        npu.RequantiseOp, ports, multiplier=p.multiplier, shift=p.shift,
        src_zero=p.input_zero, dst_zero=p.result_zero,
    )  # fmt: skip


@selects(qnn.ClampOp)
def clamp(op: qnn.ClampOp, s: Selector) -> None:
    """Clamped integers."""
    p = op.parameters()
    s.emit(npu.ClampOp, {"src": s.buffer(op.input), "dst": s.result(op.result)}, low=p.low, high=p.high)


@selects(qnn.TableOp)
def table(op: qnn.TableOp, s: Selector) -> None:
    """A table look-up."""
    ports = {"src": s.buffer(op.input), "table": s.buffer(op.table), "dst": s.result(op.result)}
    s.emit(npu.TableOp, ports)


@selects(qnn.AvgPoolOp)
def average_pool(op: qnn.AvgPoolOp, s: Selector) -> None:
    """Mean over what lies inside."""
    p = op.parameters()
    if any(pad >= k for pad, k in zip(p.pads, (*p.kernel, *p.kernel))):
        raise CompileError(
            f"{layer_name(op)}: pads {list(p.pads)} around windows of {list(p.kernel)} leave windows without "
            "a value to average; pads have to be smaller than the window"
        )
    _pool(op, s, PoolKind.AVERAGE, p.low, p.high)


@selects(graph.MaxPoolOp)
def max_pool(op: graph.MaxPoolOp, s: Selector) -> None:
    """On integers without dilation; others are the programmable engine's."""
    type_ = element_type(op.ofm)
    dilated = any(d != 1 for d in op.parameters().dilations)
    if not isinstance(type_, QuantType) or dilated or len(shape_of(op.ofm)) != 4:
        selections_float.max_pool(op, s)
        return
    _pool(op, s, PoolKind.MAX, *storage_range(type_.storage))


def _pool(op: Any, s: Selector, kind: PoolKind, low: int, high: int) -> None:
    p = op.parameters()
    ports = {"ifm": s.buffer(op.ifm), "ofm": s.result(op.ofm)}
    s.emit(
        npu.PoolOp, ports, kind=kind, kernel_h=p.kernel[0], kernel_w=p.kernel[1], stride_h=p.strides[0],
        stride_w=p.strides[1], pad_top=p.pads[0], pad_left=p.pads[1], pad_bottom=p.pads[2],
        pad_right=p.pads[3], low=low, high=high,
    )  # fmt: skip


@selects(qnn.ResizeOp)
def resize_linear(op: qnn.ResizeOp, s: Selector) -> None:
    """Resampling by tables."""
    kind = ResizeKind.BILINEAR if op.parameters().mode == "linear" else ResizeKind.NEAREST
    ports = {
        "ifm": s.buffer(op.ifm), "rows": s.buffer(op.rows), "cols": s.buffer(op.cols),
        "ofm": s.result(op.ofm),
    }  # fmt: skip
    s.emit(npu.ResizeOp, ports, kind=kind)


@selects(graph.ResizeOp)
def resize_nearest(op: graph.ResizeOp, s: Selector) -> None:
    """Nearest on integers; floats are the programmable engine's."""
    if not isinstance(element_type(op.ofm), QuantType) or len(shape_of(op.ofm)) != 4:
        selections_float.resize(op, s)
        return
    _, height, width, _ = shape_of(op.ifm)
    ports = {
        "ifm": s.buffer(op.ifm), "ofm": s.result(op.ofm),
        "rows": s.constant(_nearest_table(op, height, 1), "rows"),
        "cols": s.constant(_nearest_table(op, width, 2), "cols"),
    }  # fmt: skip
    s.emit(npu.ResizeOp, ports, kind=ResizeKind.NEAREST)


def _nearest_table(op: graph.ResizeOp, size: int, axis: int) -> np.ndarray:
    """Which input each output takes along an axis: the operation itself, applied to the indices."""
    shape = list(shape_of(op.ifm))
    ramp = np.arange(size, dtype=np.int32).reshape([size if i == axis else 1 for i in range(4)])
    (picked,) = evaluate(op, np.ascontiguousarray(np.broadcast_to(ramp, (1, *shape[1:3], 1))))
    index = picked[0, :, 0, 0] if axis == 1 else picked[0, 0, :, 0]
    return np.stack([index, index, np.zeros_like(index)], axis=1).astype(np.int32)


@selects(graph.CastOp)
def cast(op: graph.CastOp, s: Selector) -> None:
    """Wide and half floats at the model's interface by an instruction; between what kernels load, by a kernel."""
    if {element_type(op.input), element_type(op.result)} & {f16, f64}:
        s.emit(npu.ConvertOp, {"src": s.buffer(op.input), "dst": s.result(op.result)})
    else:
        s.launch(op)
