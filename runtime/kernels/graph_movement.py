"""Graph operations that only move values; of quantised tensors they move the stored integers.

A result may be a view of an input: nobody writes into a kernel's inputs or results.
"""

from __future__ import annotations

import numpy as np

from ...dialects import graph
from ...dialects.declarative import Parameters
from ...errors import NacreError
from ..kernel import kernel


@kernel(graph.ReshapeOp)
def reshape(p: Parameters, x: np.ndarray) -> np.ndarray:
    """The same values in row-major order."""
    return x.reshape(p.shape)


@kernel(graph.TransposeOp)
def transpose(p: Parameters, x: np.ndarray) -> np.ndarray:
    """Axis i of the result is axis permutation[i] of the input."""
    return x.transpose(p.permutation)


@kernel(graph.BroadcastOp)
def broadcast(p: Parameters, x: np.ndarray) -> np.ndarray:
    """A read-only view, with stride 0 along the repeated axes."""
    return np.broadcast_to(x, p.shape)


@kernel(graph.ConcatOp)
def concat(p: Parameters, *inputs: np.ndarray) -> np.ndarray:
    """One after the other."""
    return np.concatenate(inputs, axis=p.axis)


@kernel(graph.SplitOp)
def split(p: Parameters, x: np.ndarray) -> tuple[np.ndarray, ...]:
    """One view a part."""
    return tuple(np.split(x, np.cumsum(p.sizes)[:-1], axis=p.axis)) if p.sizes else ()


@kernel(graph.SliceOp)
def slice_(p: Parameters, x: np.ndarray) -> np.ndarray:
    """input[start + i · step …]."""
    return x[tuple(slice_of(*axis) for axis in zip(p.starts, p.sizes, p.steps))]


def slice_of(start: int, size: int, step: int) -> slice:
    """`size` elements from `start`; a stop of −1 would count from the end, so it becomes None."""
    if size == 0:
        return slice(0, 0)
    stop = start + size * step
    return slice(start, stop if stop >= 0 else None, step)


@kernel(graph.PadOp)
def pad(p: Parameters, x: np.ndarray) -> np.ndarray:
    """Modes as in ONNX (https://onnx.ai/onnx/operators/onnx__Pad.html); numpy calls them the same."""
    if p.mode != "constant":
        return np.pad(x, tuple(zip(p.low, p.high)), mode=p.mode)
    value = np.asarray(p.value)
    if not np.issubdtype(x.dtype, np.floating):
        value = exactly(p.value, x.dtype)
    padded = np.full([d + lo + hi for d, lo, hi in zip(x.shape, p.low, p.high)], value, x.dtype)
    padded[tuple(slice(lo, lo + d) for d, lo in zip(x.shape, p.low))] = x
    return padded


def exactly(value: float, dtype: np.dtype) -> np.ndarray:
    """The value as an integer of the dtype. Raises NacreError where it is none."""
    low, high = (0, 1) if dtype == np.bool_ else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    if not low <= value <= high or value != int(value):
        raise NacreError(f"graph.pad: the value {value} has to be an integer in [{low}, {high}] for {dtype}")
    return np.asarray(int(value), dtype)


@kernel(graph.GatherOp)
def gather(p: Parameters, data: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """data[…, indices[…], …] along one axis; negative indices count from the end."""
    try:
        return np.asarray(np.take(data, indices, axis=p.axis))
    except IndexError:
        size = data.shape[p.axis]
        raise NacreError(
            f"graph.gather: the indices {indices.min()} to {indices.max()} leave an axis of {size}; "
            f"they have to lie in [{-size}, {size - 1}]"
        ) from None
