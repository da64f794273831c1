"""Elementwise graph operations beside the four of arithmetic: the arc tangent, remainders, operations on bits."""

from __future__ import annotations

import numpy as np

from ...dialects import graph
from ...dialects.declarative import Parameters
from ..kernel import kernel
from .graph_elementwise import binary, unary

unary(graph.AtanOp, np.arctan)
binary(graph.FmodOp, np.fmod)


@kernel(graph.BitwiseOp)
def bitwise(p: Parameters, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Shifts beyond the width leave zeros, or the sign; numpy leaves them open for signed amounts."""
    if p.operation in ("left", "right"):
        bits = 8 * a.dtype.itemsize
        outside = (b < 0) | (b >= bits)
        amount = np.where(outside, bits - 1, b).astype(b.dtype)
        shifted = np.left_shift(a, amount) if p.operation == "left" else np.right_shift(a, amount)
        zero = p.operation == "left" or a.dtype.kind == "u"
        return np.where(outside, 0, shifted).astype(a.dtype) if zero else shifted
    return np.asarray({"and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor}[p.operation](a, b))
