"""Importers of Fourier transforms: products with matrices of sines and cosines, which are constant.

X_k = Σ x_t · e^(∓2πi·t·k / n) (https://onnx.ai/onnx/operators/onnx__DFT.html); a complex number is a last axis of 2.
"""

from __future__ import annotations

import math

import numpy as np
from xdsl.ir import SSAValue

from ...dialects import graph
from ...dialects.types import shape_of
from .linear import moved
from .movement import reshape_to, sliced
from .node import Node
from .registry import Unsupported, Value, importer


def rotations(steps: int, bins: int, length: int, sign: int) -> np.ndarray:
    """e^(sign · 2πi · t · k / length) [steps, bins]; the product t · k is reduced first, so angles are exact."""
    turns = np.outer(np.arange(steps), np.arange(bins)) % length
    return np.exp(sign * 2j * math.pi * turns / length)


def as_matrix(factors: np.ndarray, parts: int) -> np.ndarray:
    """Complex factors [T, K] as a real matrix [T · parts, K · 2]; a row for x, or one for Re x and one for Im x."""
    rows = [factors, 1j * factors][:parts]
    both = np.stack([np.stack([r.real, r.imag], -1) for r in rows], 1)  # [T, parts, K, 2]
    return both.reshape(factors.shape[0] * parts, -1).astype(np.float32)


def dft(node: Node, axis: int) -> Value:
    """Along one axis, which becomes the last but one; what is longer is cut, what is shorter ends in zeros."""
    value = node.operand(0)
    *sizes, parts = shape_of(value)
    axis = node.axis(axis, len(sizes) + 1)
    if axis == len(sizes) or parts not in (1, 2):
        raise Unsupported(f"axis {axis} of {[*sizes, parts]}: the last axis is 1 for real, 2 for complex numbers")
    inverse, onesided = bool(node.attribute("inverse")), bool(node.attribute("onesided"))
    length = int(node.constant(1, "the length").item()) if node.has(1) else sizes[axis]
    if onesided and inverse:
        if not node.has(1):
            length = 2 * (sizes[axis] - 1)
        return from_half(node, value, axis, length)
    steps = min(sizes[axis], length)
    bins = length // 2 + 1 if onesided else length
    factors = rotations(steps, bins, length, 1 if inverse else -1) / (length if inverse else 1)
    return transformed(node, value, axis, as_matrix(factors, parts), (steps, bins, 2))


def from_half(node: Node, value: SSAValue, axis: int, length: int) -> Value:
    """A real signal from its bins 0 … n / 2: the others are conjugates of them, so most count twice."""
    *sizes, parts = shape_of(value)
    bins = min(sizes[axis], length // 2 + 1)
    factors = rotations(bins, length, length, 1) / length
    twice = [1 if k == 0 or 2 * k == length else 2 for k in range(bins)]
    factors = factors * np.array(twice).reshape(-1, 1)
    rows = np.stack([factors.real, -factors.imag][:parts], 1)
    matrix = rows.reshape(bins * parts, length).astype(np.float32)
    return transformed(node, value, axis, matrix, (bins, length, 1))


def transformed(node: Node, value: SSAValue, axis: int, matrix: np.ndarray, shape: tuple[int, int, int]) -> Value:
    """A product along an axis and the parts of complex numbers; shape: steps that are read, results, their parts."""
    *sizes, parts = shape_of(value)
    steps, results, result_parts = shape
    value = sliced(node, value, [range(steps if i == axis else d) for i, d in enumerate((*sizes, parts))])
    others = [i for i in range(len(sizes)) if i != axis]
    rows = moved(node, value, [*others, axis, len(sizes)])
    rows = reshape_to(node, rows, (math.prod(sizes[i] for i in others), steps * parts))
    product = node.emit(graph.MatmulOp, rows, matrix)
    found = reshape_to(node, product, (*(sizes[i] for i in others), results, result_parts))
    return moved(node, found, [*np.argsort([*others, axis]).tolist(), len(sizes)])


@importer("DFT", since=17)
def dft_attribute(node: Node) -> Value:
    return dft(node, node.attribute("axis"))


@importer("DFT", since=20)
def dft_input(node: Node) -> Value:
    return dft(node, int(node.constant(2, "the axis").item()) if node.has(2) else -2)


@importer("STFT", since=17)
def stft(node: Node) -> Value:
    """A convolution over the signal [B, L, 1 or 2]: a step a frame, windowed sines and cosines as weights."""
    value = node.operand(0)
    if len(shape_of(value)) == 2:
        value = reshape_to(node, value, (*shape_of(value), 1))
    batch, length, parts = shape_of(value)
    step = int(node.constant(1, "the step of frames").item())
    window = node.constant(2, "the window") if node.has(2) else None
    given = 0 if window is None else len(window)
    size = int(node.constant(3, "the length of frames").item()) if node.has(3) else given or length
    if not 0 < size <= length or step < 1 or parts not in (1, 2) or given not in (0, size):
        raise Unsupported(f"frames of {size} every {step} do not fit a signal {[batch, length, parts]} and its window")
    bins = size // 2 + 1 if node.attribute("onesided") else size
    factors = rotations(size, bins, size, -1) * (1 if window is None else window.astype(np.float64).reshape(-1, 1))
    weight = as_matrix(factors, parts).reshape(size, parts, bins * 2)
    frames = node.emit(graph.ConvOp, value, weight, strides=(step,), pads=(0, 0), dilations=(1,), groups=1)
    return reshape_to(node, frames, (batch, shape_of(frames)[1], bins, 2))
