"""What each hardware instruction computes: the one definition, for the IR interpreters and the emulator.

    @execute(npu.ClampOp)
    def clamp(f, p): np.clip(p.src, f.low, f.high, out=p.dst)

`f` holds the fields, `p` the arrays at the ports: an array, None for an optional port that is not connected,
a tuple for a port of many. Results are written into the arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np

from ..dialects import npu_instructions as npu
from ..dialects import ppu
from ..dialects.npu import Arity, Instruction
from ..dialects.npu_instructions import PoolKind, ResizeKind
from .fixed_point import Rounding
from .kernels.qnn import resample
from .kernels.quantised_conv import conv2d_accumulate, depthwise_accumulate, finish, matmul_accumulate
from .kernels.quantised_elementwise import (
    AddParameters,
    MulParameters,
    add,
    dequantise,
    lookup,
    mul,
    quantise,
    requantise_tensor,
    sub,
)
from .kernels.quantised_pool import average_finish, average_pool2d, max_pool2d, pool_sum
from .ppu import MAX_STEPS, Kernel

Execute = Callable[[Any, Any], None]
EXECUTE: dict[type[Instruction], Execute] = {}


def execute(*instructions: type[Instruction]) -> Callable[[Execute], Execute]:
    """Register a function as the definition of instruction classes."""

    def register(function: Execute) -> Execute:
        for instruction in instructions:
            EXECUTE[instruction] = function
        return function

    return register


def port_arrays(cls: type[Instruction], arrays: Mapping[str, list[np.ndarray]]) -> SimpleNamespace:
    """The namespace `p` of a definition from lists of arrays by port."""
    found: dict[str, Any] = {}
    for port in cls.PORTS:
        given = arrays.get(port.name, [])
        found[port.name] = tuple(given) if port.arity is Arity.MANY else given[0] if given else None
    return SimpleNamespace(**found)


# --- programmable engine ---------------------------------------------------------------------------------
@execute(npu.LaunchOp)
def launch(f: Any, p: Any) -> None:
    """Run a kernel."""
    launch_kernel(f, p, sanitize=False)


def launch_kernel(f: Any, p: Any, sanitize: bool) -> None:
    """Run a kernel: its pointers are the inputs, the partial results if it takes any, the outputs; then the scalars.

    To a kernel every buffer is dense: the engine's address generators walk the strides. `f.kernel` is the prepared
    kernel; `sanitize` makes races of its work items Faults.
    """
    kernel: Kernel = f.kernel
    pointers = sum(isinstance(t, ppu.PointerType) for t in kernel.types)
    outputs = [dense(out) for out in p.outputs]
    if not all(out.size for out in outputs):
        return
    given = [dense(x) for x in p.inputs]
    if pointers > len(given) + len(outputs):
        given.append(np.zeros(0, outputs[0].dtype) if p.acc is None else dense(p.acc))
    most = MAX_STEPS + sum(x.size for x in given)  # a kernel goes over its inputs, which may be a whole layer
    kernel.launch([*given, *outputs, *f.scalars], f.grid, max_steps=most, sanitize=sanitize)
    for out, written in zip(p.outputs, outputs):
        if not np.shares_memory(out, written):
            out[...] = written.view(out.dtype)


def dense(x: np.ndarray) -> np.ndarray:
    """An array without gaps, booleans as bytes."""
    row_major = np.ascontiguousarray(x)
    return row_major.view(np.uint8) if x.dtype == np.bool_ else row_major


@execute(npu.ConvertOp)
def convert(f: Any, p: Any) -> None:
    """dst = src in another floating-point type."""
    with np.errstate(over="ignore"):
        p.dst[...] = p.src.astype(p.dst.dtype)


# --- DMA and moves ---------------------------------------------------------------------------------------
@execute(npu.LoadOp, npu.StoreOp, npu.CopyOp)
def copy(f: Any, p: Any) -> None:
    """dst = src."""
    p.dst[...] = p.src


@execute(npu.TransposeOp)
def transpose(f: Any, p: Any) -> None:
    """dst = src with permuted axes."""
    p.dst[...] = p.src.transpose(f.permutation)


@execute(npu.FillOp)
def fill(f: Any, p: Any) -> None:
    """dst = value."""
    p.dst[...] = np.asarray(f.value).astype(p.dst.dtype)


@execute(npu.PadOp)
def pad(f: Any, p: Any) -> None:
    """src in the middle of value."""
    p.dst[...] = np.asarray(f.value).astype(p.dst.dtype)
    p.dst[tuple(slice(lo, lo + d) for lo, d in zip(f.low, p.src.shape))] = p.src


# --- NN engine -------------------------------------------------------------------------------------------
def _window(f: Any) -> dict[str, Any]:
    return {
        "strides": (f.stride_h, f.stride_w),
        "pads": (f.pad_top, f.pad_left, f.pad_bottom, f.pad_right),
    }


@execute(npu.ConvOp)
def conv(f: Any, p: Any) -> None:
    """Dense convolution with epilogue."""
    acc = conv2d_accumulate(
        p.ifm, p.weight, **_window(f), dilations=(f.dilation_h, f.dilation_w),
        ifm_zero=f.ifm_zero, weight_zero=f.weight_zero,
    )  # fmt: skip
    epilogue(f, p, acc)


@execute(npu.DepthwiseOp)
def depthwise(f: Any, p: Any) -> None:
    """Depthwise convolution with epilogue."""
    acc = depthwise_accumulate(
        p.ifm, p.weight, **_window(f), dilations=(f.dilation_h, f.dilation_w),
        ifm_zero=f.ifm_zero, weight_zero=f.weight_zero,
    )  # fmt: skip
    epilogue(f, p, acc)


@execute(npu.MatmulOp)
def matmul(f: Any, p: Any) -> None:
    """Matrix product with epilogue."""
    epilogue(f, p, matmul_accumulate(p.ifm, p.weight, f.ifm_zero, f.weight_zero))


def epilogue(f: Any, p: Any, acc: np.ndarray) -> None:
    """Partial sums, bias, requantisation, table, residual and pooling, in this order; then the write."""
    if p.acc is not None:
        acc = np.add(acc, p.acc, dtype=acc.dtype)
    if p.multiplier is None:
        p.ofm[...] = acc
        return
    out_type = p.table.dtype if p.table is not None else p.ofm.dtype
    result = finish(
        acc, p.bias, p.multiplier, p.shift, f.ofm_zero, f.low, f.high, Rounding(f.rounding), out_type
    )
    if p.table is not None:
        result = lookup(result, p.table)
    if getattr(p, "residual", None) is not None:
        result = add(result, p.residual, AddParameters(*f.residual_parameters))
    if getattr(f, "pool", PoolKind.NONE) != PoolKind.NONE:
        window = f.pool_window
        result = max_pool2d(result, window[0:2], window[2:4], window[4:8])
    p.ofm[...] = result


# --- fabric ----------------------------------------------------------------------------------------------
@execute(npu.PoolOp)
def pool(f: Any, p: Any) -> None:
    """Max or average pooling."""
    kernel, window = (f.kernel_h, f.kernel_w), _window(f)
    if f.kind == PoolKind.MAX:
        largest = max_pool2d(p.ifm, kernel, **window)
        if p.acc is not None:
            largest = np.maximum(largest, p.acc)
        p.ofm[...] = np.clip(largest, f.low, f.high)
    else:
        p.ofm[...] = average_pool2d(p.ifm, kernel, **window, low=f.low, high=f.high)


@execute(npu.PoolSumOp)
def pool_sums(f: Any, p: Any) -> None:
    """Sums of windows, added to the sums so far."""
    total = pool_sum(p.ifm, (f.kernel_h, f.kernel_w), **_window(f))
    p.ofm[...] = total if p.acc is None else total + p.acc


@execute(npu.AverageOp)
def average(f: Any, p: Any) -> None:
    """acc / count."""
    p.ofm[...] = average_finish(p.acc, f.count, f.low, f.high, p.ofm.dtype)


@execute(npu.AddOp)
def add_or_subtract(f: Any, p: Any) -> None:
    """Rescaled a ± b."""
    p.ofm[...] = (sub if f.subtract else add)(p.a, p.b, AddParameters(*f.parameters))


@execute(npu.MulOp)
def multiply(f: Any, p: Any) -> None:
    """Requantised product."""
    p.ofm[...] = mul(
        p.a, p.b, MulParameters(f.a_zero, f.b_zero, f.ofm_zero, f.multiplier, f.shift, f.low, f.high)
    )


@execute(npu.RequantiseOp)
def requantise(f: Any, p: Any) -> None:
    """A change of scale."""
    p.dst[...] = requantise_tensor(p.src, f.multiplier, f.shift, f.src_zero, f.dst_zero, p.dst.dtype)


@execute(npu.TableOp)
def table(f: Any, p: Any) -> None:
    """dst = table[bits of src]."""
    p.dst[...] = lookup(p.src, p.table)


@execute(npu.ClampOp)
def clamp(f: Any, p: Any) -> None:
    """min(max(src, low), high)."""
    np.clip(p.src, f.low, f.high, out=p.dst)


@execute(npu.ExtremumOp)
def extremum(f: Any, p: Any) -> None:
    """Elementwise minimum or maximum."""
    (np.maximum if f.larger else np.minimum)(p.a, p.b, out=p.ofm)


@execute(npu.ResizeOp)
def resize(f: Any, p: Any) -> None:
    """Resampling by index tables that count from the offsets."""
    rows, cols = p.rows.copy(), p.cols.copy()
    rows[:, :2] -= f.row_offset
    cols[:, :2] -= f.col_offset
    p.ofm[...] = resample(p.ifm, rows, cols, f.kind == ResizeKind.BILINEAR)


# --- conversions -----------------------------------------------------------------------------------------
@execute(npu.QuantiseOp)
def quantise_floats(f: Any, p: Any) -> None:
    """Float to integer."""
    p.dst[...] = quantise(p.src, f.scale, f.zero, p.dst.dtype)


@execute(npu.DequantiseOp)
def dequantise_integers(f: Any, p: Any) -> None:
    """Integer to float."""
    p.dst[...] = dequantise(p.src, f.scale, f.zero)
