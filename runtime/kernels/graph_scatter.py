"""Graph operations that gather and scatter by an index an element."""

from __future__ import annotations

import numpy as np

from ...dialects import graph
from ...dialects.declarative import Parameters
from ...errors import NacreError
from ..kernel import kernel
from .graph_elementwise import quiet


def places(operation: str, indices: np.ndarray, size: int) -> np.ndarray:
    """Indices counted from the start. Raises NacreError where one leaves the axis."""
    if indices.size and not (-size <= indices.min() and indices.max() < size):
        raise NacreError(
            f"{operation}: the indices {indices.min()} to {indices.max()} leave an axis of {size}; "
            f"they have to lie in [{-size}, {size - 1}]"
        )
    return np.where(indices < 0, indices + size, indices)


@kernel(graph.GatherElementsOp)
def gather_elements(p: Parameters, data: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """data[…, indices[…, j, …], …]."""
    wanted = places("graph.gather_elements", indices, data.shape[p.axis])
    shape = [n if i == p.axis else d for i, (d, n) in enumerate(zip(data.shape, indices.shape))]
    return np.take_along_axis(data, np.broadcast_to(wanted, shape), p.axis)


COMBINE = {"add": np.add, "mul": np.multiply, "min": np.minimum, "max": np.maximum}


@kernel(graph.ScatterElementsOp)
def scatter_elements(p: Parameters, data: np.ndarray, indices: np.ndarray, updates: np.ndarray) -> np.ndarray:
    """One update an element of the other axes after the other, so floats are combined in this order."""
    wanted = places("graph.scatter_elements", indices, data.shape[p.axis])
    wanted = np.broadcast_to(wanted, updates.shape)
    result = data.copy()
    rows = np.moveaxis(result, p.axis, -1)
    others = np.ix_(*(range(d) for i, d in enumerate(updates.shape) if i != p.axis))
    with quiet():
        for at, update in zip(np.moveaxis(wanted, p.axis, 0), np.moveaxis(updates, p.axis, 0)):
            place = (*others, at)
            rows[place] = update if p.reduction == "none" else COMBINE[p.reduction](rows[place], update)
    return result
