"""The definition of every qnn operation, in terms of the integer kernels beside this file."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...dialects import qnn
from ...dialects.declarative import Parameters
from ...dialects.quant import STORAGE_NAMES
from ...dialects.types import dtype_of
from ..fixed_point import Rounding
from ..kernel import kernel
from .quantised_conv import conv2d_accumulate, depthwise_accumulate, finish, matmul_accumulate
from .quantised_elementwise import (
    AddParameters,
    LeakyParameters,
    MulParameters,
    add,
    leaky_relu,
    lookup,
    mul,
    prelu,
    requantise_tensor,
    sub,
)
from .quantised_functions import CurveParameters, l2_normalise, logistic16, squared_difference, tanh16
from .quantised_pool import average_pool2d, mean, resize_bilinear, sum
from .quantised_softmax import SoftmaxParameters, softmax
from .quantised_softmax16 import Softmax16Parameters, softmax16

Array = np.ndarray


@kernel(qnn.ConvOp)
def conv(
    p: Parameters, ifm: Array, weight: Array, multiplier: Array, shift: Array, bias: Array | None = None
) -> Array:
    """ifm [N, H, W, C], weight [KH, KW, C / groups, M] -> [N, H', W', M]."""
    acc = accumulate_groups(p, ifm, weight)
    return finish(acc, bias, multiplier, shift, p.ofm_zero, p.low, p.high, Rounding(p.rounding), ifm.dtype)


def accumulate_groups(p: Parameters, ifm: Array, weight: Array) -> Array:
    """The accumulators of a grouped convolution, depthwise or dense ones among them."""
    channels = ifm.shape[-1]
    window = {"strides": p.strides, "pads": p.pads, "dilations": p.dilations}
    zeros = {"ifm_zero": p.ifm_zero, "weight_zero": p.weight_zero}
    if p.groups == 1:
        return conv2d_accumulate(ifm, weight, **window, **zeros)
    if p.groups == channels:
        return depthwise_accumulate(ifm, depthwise_weight(weight, channels), **window, **zeros)
    parts = zip(np.split(ifm, p.groups, axis=-1), np.split(weight, p.groups, axis=-1))
    return np.concatenate([conv2d_accumulate(i, w, **window, **zeros) for i, w in parts], axis=-1)


def depthwise_weight(weight: Array, channels: int) -> Array:
    """[KH, KW, 1, C·M] as [KH, KW, C, M]."""
    return weight.reshape(*weight.shape[:2], channels, weight.shape[3] // channels)


@kernel(qnn.MatmulOp)
def matmul(
    p: Parameters, a: Array, b: Array, multiplier: Array, shift: Array, bias: Array | None = None
) -> Array:
    """a […, M, K], b […, K, N] -> […, M, N]."""
    acc = matmul_accumulate(a, b, p.a_zero, p.b_zero)
    dtype = dtype_of(STORAGE_NAMES[p.to]) if p.to else a.dtype
    return finish(acc, bias, multiplier, shift, p.ofm_zero, p.low, p.high, Rounding(p.rounding), dtype)


@kernel(qnn.AddOp)
def add_or_subtract(p: Parameters, a: Array, b: Array) -> Array:
    """Rescaled a ± b."""
    return (sub if p.subtract else add)(a, b, AddParameters(*p.rescale))


@kernel(qnn.MulOp)
def multiply(p: Parameters, a: Array, b: Array) -> Array:
    """Requantised product."""
    return mul(a, b, MulParameters(p.a_zero, p.b_zero, p.ofm_zero, p.multiplier, p.shift, p.low, p.high))


@kernel(qnn.PreluOp)
def parametric_relu(p: Parameters, x: Array, slope: Array) -> Array:
    """x where it is not negative, x · slope elsewhere."""
    return prelu(x, slope, LeakyParameters(*p.rescale))


@kernel(qnn.RequantiseOp)
def requantise(p: Parameters, x: Array) -> Array:
    """A change of scale, maybe to another storage type."""
    dtype = dtype_of(STORAGE_NAMES[p.to]) if p.to else x.dtype
    return requantise_tensor(x, p.multiplier, p.shift, p.input_zero, p.result_zero, dtype)


@kernel(qnn.ClampOp)
def clamp(p: Parameters, x: Array) -> Array:
    """Clamp stored integers."""
    return np.clip(x, p.low, p.high).astype(x.dtype)


@kernel(qnn.TableOp)
def table_lookup(p: Parameters, x: Array, table: Array) -> Array:
    """table[bits of x], or what lies between two samples."""
    return lookup(x, table)


@kernel(qnn.AvgPoolOp)
def average_pool(p: Parameters, ifm: Array) -> Array:
    """Mean over the values inside the window."""
    return average_pool2d(ifm, p.kernel, p.strides, p.pads, p.low, p.high)


@kernel(qnn.MeanOp)
def mean_over_axes(p: Parameters, x: Array) -> Array:
    """The requantised mean over `axes`."""
    return reduced(p, x, mean)


@kernel(qnn.SumOp)
def sum_over_axes(p: Parameters, x: Array) -> Array:
    """The requantised sum over `axes`."""
    return reduced(p, x, sum)


def reduced(p: Parameters, x: Array, function: Callable[..., Array]) -> Array:
    """A reduction that keeps its axes, without them where they go."""
    kept = function(x, p.axes, p.multiplier, p.shift, p.input_zero, p.result_zero)
    return kept if p.keepdims else np.squeeze(kept, axis=p.axes)


@kernel(qnn.SoftmaxOp)
def softmax_last_axis(p: Parameters, x: Array) -> Array:
    """Fixed-point softmax over the last axis."""
    return softmax(x, SoftmaxParameters(p.multiplier, p.left_shift, p.smallest_difference))


@kernel(qnn.ResizeOp)
def resize(p: Parameters, ifm: Array, rows: Array, cols: Array) -> Array:
    """Resampling by index tables."""
    return resample(ifm, rows, cols, p.mode == "linear")


def resample(ifm: Array, rows: Array, cols: Array, linear: bool) -> Array:
    """ifm [N, H, W, C] at rows and columns given as [lower, upper, weight of upper / 1024].

    Linear: Σ q · weight over the four neighbours in units of 2^-20, rounded half away from zero (TFLite's
    integer RESIZE_BILINEAR). Nearest: the lower neighbour.
    """
    if not linear:
        return ifm[:, rows[:, 0]][:, :, cols[:, 0]]
    x = ifm.astype(np.int64)
    row_weight, col_weight = rows[:, 2].astype(np.int64)[:, None, None], cols[:, 2].astype(np.int64)[:, None]
    vertical = x[:, rows[:, 0]] * (1024 - row_weight) + x[:, rows[:, 1]] * row_weight
    total = vertical[:, :, cols[:, 0]] * (1024 - col_weight) + vertical[:, :, cols[:, 1]] * col_weight
    half = np.where(total >= 0, 1 << 19, -(1 << 19))
    return (np.sign(total + half) * (np.abs(total + half) >> 20)).astype(ifm.dtype)


@kernel(qnn.ResizeFloatOp)
def resize_float(p: Parameters, ifm: Array) -> Array:
    """Bilinear in float32 on stored integers."""
    return resize_bilinear(ifm, p.sizes, p.align_corners, p.half_pixel)


@kernel(qnn.Softmax16Op)
def softmax16_last_axis(p: Parameters, x: Array) -> Array:
    """Softmax of int16 over the last axis."""
    return softmax16(x, Softmax16Parameters(p.multiplier, p.shift))


@kernel(qnn.LeakyReluOp)
def leaky(p: Parameters, x: Array) -> Array:
    """x where it is not negative, alpha · x elsewhere."""
    return leaky_relu(x, LeakyParameters(*p.rescale))


@kernel(qnn.LogisticOp)
def logistic(p: Parameters, x: Array) -> Array:
    """Logistic function of int16."""
    return logistic16(x, CurveParameters(p.multiplier, p.shift))


@kernel(qnn.TanhOp)
def tanh(p: Parameters, x: Array) -> Array:
    """Hyperbolic tangent of int16."""
    return tanh16(x, CurveParameters(p.multiplier, p.shift))


@kernel(qnn.L2NormalizeOp)
def l2_normalize(p: Parameters, x: Array) -> Array:
    """x / √Σ x² over the last axis."""
    return l2_normalise(x, p.input_zero)


@kernel(qnn.SquaredDifferenceOp)
def squared(p: Parameters, a: Array, b: Array) -> Array:
    """(a − b)²."""
    return squared_difference(a, b, AddParameters(*p.rescale))
