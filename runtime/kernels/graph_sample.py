"""Sampling of images at computed coordinates, in float32: the same formulas in the same order on every level."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ...dialects import graph
from ...dialects.declarative import Parameters
from ..kernel import kernel
from .graph_elementwise import quiet

F = np.float32
CUBIC_A = F(-0.75)


class Taps(NamedTuple):
    """The neighbours of coordinates along an axis: their places, whether they count, their weights [taps, …]."""

    places: np.ndarray
    inside: np.ndarray
    weights: np.ndarray


def reflected(x: np.ndarray, low: np.float32, high: np.float32) -> np.ndarray:
    """Coordinates mirrored at both borders until they lie between them; 0 where the borders are one point."""
    width = high - low
    if not width > 0:
        return np.zeros_like(x)
    beyond = np.fmax(low - x, x - high)
    turns = np.floor(beyond / width)
    rest = beyond - turns * width
    odd = turns - F(2) * np.floor(turns / F(2)) != 0
    from_low = (x < low) != odd
    return np.where(beyond > 0, np.where(from_low, low + rest, high - rest), x)


def place_of(x: np.ndarray, size: int, p: Parameters) -> np.ndarray:
    """Coordinates −1 … 1 as positions in pixels, brought back inside as the padding says.

    With zeros, positions far outside move to where all their neighbours lie outside as well; NaN is one of them. Cubic
    interpolation at the border keeps the position, as PyTorch and ONNX Runtime do; ONNX's reference moves it.
    """
    position = (x + F(1)) / F(2) * F(size - 1) if p.align_corners else ((x + F(1)) * F(size) - F(1)) / F(2)
    if p.mode == "nearest":
        position = np.rint(position)
    last = F(size - 1)
    if p.padding == "zeros":
        return np.fmin(np.fmax(position, F(-4)), last + F(4))
    if p.padding == "reflection":
        return reflected(position, *borders(size, p))
    return position if p.mode == "cubic" else np.fmin(np.fmax(position, F(0)), last)


def borders(size: int, p: Parameters) -> tuple[np.float32, np.float32]:
    """Where the image begins and ends."""
    return (F(0), F(size - 1)) if p.align_corners else (F(-0.5), F(size - 0.5))


def taps_at(x: np.ndarray, size: int, p: Parameters) -> Taps:
    """One neighbour, two, or four, from the first pixel on."""
    position = place_of(x, size, p)
    first = np.floor(position)
    t = position - first
    if p.mode == "nearest":
        weights = [np.ones_like(t)]
    elif p.mode == "linear":
        weights = [F(1) - t, t]
    else:
        first = first - F(1)
        weights = [outer(t + F(1)), inner(t), inner(F(1) - t), outer(F(2) - t)]
    places = np.stack([first + F(i) for i in range(len(weights))])
    if p.padding == "reflection":
        places = reflected(places, *borders(size, p))
    near = np.fmin(np.fmax(places, F(0)), F(size - 1))
    return Taps(near.astype(np.int64), near == places, np.stack(weights))


def inner(t: np.ndarray) -> np.ndarray:
    """Cubic convolution's weight at a distance up to 1 (https://onnx.ai/onnx/operators/onnx__Resize.html)."""
    return ((CUBIC_A + F(2)) * t - (CUBIC_A + F(3))) * t * t + F(1)


def outer(t: np.ndarray) -> np.ndarray:
    """The weight at a distance from 1 to 2."""
    return ((CUBIC_A * t - F(5) * CUBIC_A) * t + F(8) * CUBIC_A) * t - F(4) * CUBIC_A


@kernel(graph.GridSampleOp)
def grid_sample(p: Parameters, ifm: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Neighbours in a row are summed by their weights, then the rows: 0 + w₀ · v₀ + w₁ · v₁ + …"""
    n, height, width, channels = ifm.shape
    with quiet():
        cols, rows = taps_at(grid[..., 0], width, p), taps_at(grid[..., 1], height, p)
        image = np.arange(n).reshape(-1, 1, 1)
        if p.mode == "nearest":
            found = ifm[image, rows.places[0], cols.places[0]]
            counts = (rows.inside[0] & cols.inside[0]) | (p.padding != "zeros")
            return np.where(counts[..., None], found, F(0))
        total = np.zeros((*grid.shape[:3], channels), np.float32)
        for row, row_inside, row_weight in zip(*rows):
            line = np.zeros_like(total)
            for col, col_inside, col_weight in zip(*cols):
                value = ifm[image, row, col]
                if p.padding == "zeros":
                    value = np.where((row_inside & col_inside)[..., None], value, F(0))
                line = line + col_weight[..., None] * value
            total = total + row_weight[..., None] * line
    return total
