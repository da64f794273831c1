"""Importers of pools: quantised ones keep scale and zero point."""

from __future__ import annotations

from typing import Any

from xdsl.ir import SSAValue

from ...dialects import graph, qnn
from .linear import image
from .node import Node
from .registry import tflite_importer
from .scales import activated, clamp_of, clamped, fused, positive, window_of


def pool_of(node: Node) -> dict[str, Any]:
    """Kernel and window of a pool."""
    _, *size, _ = image(node, 0)
    kernel = positive(node, "FilterHeight", "FilterWidth")
    return {"kernel": kernel, **window_of(node, size, kernel)}


@tflite_importer("AVERAGE_POOL_2D")
def average_pool(node: Node) -> SSAValue:
    """The mean over what lies inside the image."""
    window = pool_of(node)
    if not node.is_quantised():
        return activated(node, node.emit(graph.AvgPoolOp, node.operand(0), **window))
    type_ = node.same_quantisation()
    del window["dilations"]
    return node.emit(qnn.AvgPoolOp, node.operand(0), element=type_, **window, **clamp_of(type_, fused(node)))


@tflite_importer("MAX_POOL_2D")
def max_pool(node: Node) -> SSAValue:
    """The largest value."""
    pooled = node.emit(graph.MaxPoolOp, node.operand(0), **pool_of(node))
    if not node.is_quantised():
        return activated(node, pooled)
    return clamped(node, pooled, node.same_quantisation())


@tflite_importer("L2_POOL_2D", floats=True)
def l2_pool(node: Node) -> SSAValue:
    """√ of the mean of the squares."""
    x = node.operand(0)
    mean = node.emit(graph.AvgPoolOp, node.emit(graph.MulOp, x, x), **pool_of(node))
    return activated(node, node.emit(graph.SqrtOp, mean))
