"""Graph operations that go along an axis element by element: cumulative sums and products, products, the top k."""

from __future__ import annotations

import numpy as np

from ...dialects import graph
from ...dialects.declarative import Parameters
from ..kernel import kernel
from .graph_elementwise import quiet
from .graph_reduce import folded


def scan(p: Parameters, x: np.ndarray, function: np.ufunc, start: int) -> np.ndarray:
    """start ∘ x₀ ∘ x₁ …, from left to right, up to each element or, exclusive, up to the one before it."""
    axis, size = p.axis, x.shape[p.axis]
    rows = np.flip(x, axis) if p.reverse else x
    head = np.full([1 if i == axis else d for i, d in enumerate(x.shape)], start, x.dtype)
    with quiet():
        found = function.accumulate(np.concatenate([head, rows], axis), axis=axis, dtype=x.dtype)
    found = np.take(found, range(size) if p.exclusive else range(1, size + 1), axis=axis)
    return np.flip(found, axis) if p.reverse else found


@kernel(graph.CumsumOp)
def cumsum(p: Parameters, x: np.ndarray) -> np.ndarray:
    """0 + x₀ + x₁ + …; integers wrap around."""
    return scan(p, x, np.add, 0)


@kernel(graph.CumprodOp)
def cumprod(p: Parameters, x: np.ndarray) -> np.ndarray:
    """1 · x₀ · x₁ · …; integers wrap around."""
    return scan(p, x, np.multiply, 1)


@kernel(graph.ReduceProdOp)
def reduce_prod(p: Parameters, x: np.ndarray) -> np.ndarray:
    """1 · x₀ · x₁ · … in index order; integers wrap around."""
    axes = sorted(set(p.axes))
    rows = folded(x, axes)
    start = np.ones((*rows.shape[:-1], 1), x.dtype)
    with quiet():
        found = np.multiply.accumulate(np.concatenate([start, rows], -1), axis=-1, dtype=x.dtype)[..., -1]
    return found.reshape(graph.reduced_shape(x.shape, set(axes), p.keepdims))


@kernel(graph.TopkOp)
def topk(p: Parameters, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A stable sort, which puts NaN last; the largest are the end of one from the back, which keeps ties in order."""
    axis = p.axis
    if p.largest:
        order = x.shape[axis] - 1 - np.flip(np.argsort(np.flip(x, axis), axis=axis, kind="stable"), axis)
    else:
        order = np.argsort(x, axis=axis, kind="stable")
    chosen = np.take(order, range(p.k), axis=axis)
    return np.take_along_axis(x, chosen, axis), np.asarray(chosen, np.int64)
