"""Graph operations along axes: reductions, softmax, argmax, normalisations.

A float sum has one order, that of the indices, and starts from +0: a program that carries a partial sum from
tile to tile gets the same bits. numpy's own float sum has an order that depends on the memory layout.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ...dialects import graph
from ...dialects.declarative import Parameters
from ..kernel import kernel
from .graph_elementwise import divide, quiet


# --- sums ------------------------------------------------------------------------------------------------
def sequential_sum(x: np.ndarray, axis: int, initial: np.ndarray | None = None) -> np.ndarray:
    """((initial + x₀) + x₁) + … along an axis, which stays with size 1; each step rounds to the dtype of x.

    `initial` is what a call on the elements before these returned; without it the sum starts from +0.
    """
    rows = np.moveaxis(x, axis, 0)
    acc = np.zeros(rows.shape[1:], x.dtype)
    if initial is not None:
        acc[...] = np.moveaxis(initial, axis, 0)[0]
    if acc.size >= WIDE:
        for row in rows:
            np.add(acc, row, out=acc)
    elif len(rows):
        partial = np.concatenate([acc[None], rows]).reshape(len(rows) + 1, -1).T.copy()
        acc = np.add.accumulate(partial, axis=1)[:, -1].reshape(acc.shape)
    return np.expand_dims(acc, axis)


WIDE = 128  # sums side by side from which a loop over the axis is faster than one accumulation (measured)


def folded(x: np.ndarray, axes: Sequence[int]) -> np.ndarray:
    """The reduced axes as one last axis, their indices in row-major order."""
    kept = [i for i in range(x.ndim) if i not in axes]
    order = (*kept, *sorted(axes))
    return x.transpose(order).reshape(*(x.shape[i] for i in kept), math.prod(x.shape[i] for i in axes))


def sum_over(x: np.ndarray, axes: Sequence[int], keepdims: bool) -> np.ndarray:
    """Sum in index order over several axes; integers wrap around in their own dtype."""
    axes = sorted(set(axes))
    if not np.issubdtype(x.dtype, np.floating):
        return np.asarray(np.sum(x, axis=tuple(axes), keepdims=keepdims, dtype=x.dtype))
    if not axes:
        return x
    total = sequential_sum(folded(x, axes), axis=x.ndim - len(axes))
    return total.reshape(graph.reduced_shape(x.shape, set(axes), keepdims))


# --- reductions ------------------------------------------------------------------------------------------
@kernel(graph.ReduceSumOp)
def reduce_sum(p: Parameters, x: np.ndarray) -> np.ndarray:
    """Sum in index order."""
    with quiet():
        return sum_over(x, p.axes, p.keepdims)


@kernel(graph.ReduceMeanOp)
def reduce_mean(p: Parameters, x: np.ndarray) -> np.ndarray:
    """Sum in index order, divided by the count; integers truncate."""
    count = np.asarray(math.prod(x.shape[i] for i in set(p.axes)), x.dtype)
    with quiet():
        return np.asarray(divide(sum_over(x, p.axes, p.keepdims), count), x.dtype)


@kernel(graph.ReduceMaxOp)
def reduce_max(p: Parameters, x: np.ndarray) -> np.ndarray:
    """Largest value; NaN wins."""
    return np.asarray(np.max(x, axis=tuple(set(p.axes)), keepdims=p.keepdims))


@kernel(graph.ReduceMinOp)
def reduce_min(p: Parameters, x: np.ndarray) -> np.ndarray:
    """Smallest value; NaN wins."""
    return np.asarray(np.min(x, axis=tuple(set(p.axes)), keepdims=p.keepdims))


@kernel(graph.ArgmaxOp)
def argmax(p: Parameters, x: np.ndarray) -> np.ndarray:
    """Index of the first largest value, or of the last."""
    if not p.select_last:
        return np.asarray(np.argmax(x, axis=p.axis, keepdims=p.keepdims), np.int64)
    from_end = np.argmax(np.flip(x, p.axis), axis=p.axis, keepdims=p.keepdims)
    return np.asarray(x.shape[p.axis] - 1 - from_end, np.int64)


# --- softmax ---------------------------------------------------------------------------------------------
@kernel(graph.SoftmaxOp)
def softmax(p: Parameters, x: np.ndarray) -> np.ndarray:
    """Its three steps one after the other."""
    with quiet():
        maximum = softmax_max(x, p.axis)
        return softmax_output(x, maximum, softmax_sum(x, maximum, p.axis))


def softmax_max(x: np.ndarray, axis: int, initial: np.ndarray | None = None) -> np.ndarray:
    """Maximum along an axis, which stays with size 1; continues from the maximum of earlier elements."""
    maximum = np.max(x, axis=axis, keepdims=True)
    return maximum if initial is None else np.maximum(initial, maximum)


def softmax_sum(
    x: np.ndarray, maximum: np.ndarray, axis: int, initial: np.ndarray | None = None
) -> np.ndarray:
    """Σ e^(x − maximum) in index order, continued from the sum over earlier elements."""
    return sequential_sum(np.exp(x - maximum), axis, initial)


def softmax_output(x: np.ndarray, maximum: np.ndarray, total: np.ndarray) -> np.ndarray:
    """e^(x − maximum) / total."""
    return np.exp(x - maximum) / total


# --- normalisation ---------------------------------------------------------------------------------------
@kernel(graph.BatchNormOp)
def batch_norm(
    p: Parameters, x: np.ndarray, scale: np.ndarray, bias: np.ndarray, mean: np.ndarray, variance: np.ndarray
) -> np.ndarray:
    """(x − mean) / √(variance + epsilon) · scale + bias, in this order."""
    along = [-1 if i == p.axis else 1 for i in range(x.ndim)]
    scale, bias, mean, variance = (v.reshape(along) for v in (scale, bias, mean, variance))
    with quiet():
        return (x - mean) / np.sqrt(variance + p.epsilon) * scale + bias


@kernel(graph.LayerNormOp)
def layer_norm(p: Parameters, x: np.ndarray, scale: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
    """(x − mean) / √(variance + epsilon) · scale + bias; each mean is a sum in index order / count."""
    axes = tuple(range(p.axis, x.ndim))
    count = np.asarray(math.prod(x.shape[p.axis :]), x.dtype)
    with quiet():
        centred = x - sum_over(x, axes, keepdims=True) / count
        variance = sum_over(centred * centred, axes, keepdims=True) / count
        normalised = centred / np.sqrt(variance + p.epsilon) * scale
        return normalised if bias is None else normalised + bias
