"""What importers share: fused activations as clamps, padding schemes, and real factors in TFLite's precision.

Sources: the TFLite quantisation specification and the schema's comments on Padding and
ActivationFunctionType.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from xdsl.ir import SSAValue

from ...dialects import graph, qnn
from ...dialects.quant import QuantType, storage_range
from .node import Node
from .registry import Unsupported

LIMITS = {
    "NONE": (-math.inf, math.inf),
    "RELU": (0.0, math.inf),
    "RELU6": (0.0, 6.0),
    "RELU_N1_TO_1": (-1.0, 1.0),
}
"""The reals a fused activation clamps to."""


# --- fused activations -----------------------------------------------------------------------------------
def fused(node: Node) -> str:
    """The operator's fused activation, by its name in the schema."""
    return node.word("FusedActivationFunction", "ActivationFunctionType", 0)


def limits_of(activation: str) -> tuple[float, float]:
    """The reals an activation clamps to. Raises Unsupported for one that is no clamp."""
    if activation not in LIMITS:
        raise Unsupported(
            f"its fused activation {activation} is no clamp; {', '.join(LIMITS)} can be imported in integers"
        )
    return LIMITS[activation]


def clamp_of(type_: QuantType, activation: str) -> dict[str, int]:
    """The stored integers an activation leaves, as `low` and `high`: zero + round(limit / scale) in
    float32.
    """
    smallest, largest = storage_range(type_.storage)
    ends = []
    for limit, default in zip(limits_of(activation), (smallest, largest)):
        if math.isinf(limit):
            ends.append(default)
            continue
        quotient = float(np.float32(limit) / np.float32(type_.scale))
        ends.append(type_.zero + int(math.copysign(math.floor(abs(quotient) + 0.5), quotient)))
    return {"low": max(smallest, ends[0]), "high": min(largest, ends[1])}


def activated(node: Node, value: SSAValue) -> SSAValue:
    """A float value behind the operator's fused activation."""
    match fused(node):
        case "NONE":
            return value
        case "RELU":
            return node.emit(graph.ReluOp, value)
        case "TANH":
            return node.emit(graph.TanhOp, value)
        case activation:
            low, high = limits_of(activation)
            return node.emit(graph.ClampOp, value, low=low, high=high)


def clamped(node: Node, value: SSAValue, type_: QuantType) -> SSAValue:
    """A quantised value behind the operator's fused activation."""
    limits = clamp_of(type_, fused(node))
    if (limits["low"], limits["high"]) == storage_range(type_.storage):
        return value
    return node.emit(qnn.ClampOp, value, element=type_, **limits)


# --- windows ---------------------------------------------------------------------------------------------
def window_of(
    node: Node, size: Sequence[int], kernel: Sequence[int], dilations: Sequence[int] = (1, 1)
) -> dict[str, Any]:
    """Strides, pads and dilations of a window over [H, W]; SAME puts the odd row or column at the end."""
    strides = positive(node, "StrideH", "StrideW")
    scheme = node.word("Padding", "Padding")
    pads = [0, 0, 0, 0]
    if scheme == "SAME":
        for axis in range(2):
            extent = (kernel[axis] - 1) * dilations[axis] + 1
            reach = (-(-size[axis] // strides[axis]) - 1) * strides[axis] + extent
            total = max(reach - size[axis], 0)
            pads[axis], pads[2 + axis] = total // 2, total - total // 2
    elif scheme != "VALID":
        raise Unsupported(f"its padding {scheme} is neither SAME nor VALID")
    return {"strides": strides, "pads": tuple(pads), "dilations": tuple(dilations)}


def positive(node: Node, *names: str) -> tuple[int, ...]:
    """Options that have to be above zero."""
    values = tuple(int(node.option(n)) for n in names)
    for name, value in zip(names, values):
        if value < 1:
            raise Unsupported(f"its option {name} is {value}, and has to be 1 at least")
    return values


# --- factors ---------------------------------------------------------------------------------------------
def product_factor(left: float, right: np.ndarray | float, result: float, single: bool = False) -> np.ndarray:
    """scale · scale / scale_out in float64; `single`: with the product in float32.

    TFLite's kernels with one factor for all channels multiply in float32 (uint8 convolutions, BATCH_MATMUL; not
    FULLY_CONNECTED), those with a factor a channel in float64; near a tie that decides the last bit.
    """
    if single:
        product = (np.float32(left) * np.asarray(right, np.float32)).astype(np.float64)
    else:
        product = np.float64(left) * np.asarray(right, np.float64)
    return product / np.float64(result)
