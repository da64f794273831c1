"""Importers of resizing and of blocks: resize, space and depth, space and batch."""

from __future__ import annotations

from xdsl.ir import SSAValue

from ...dialects import graph
from .linear import image
from .node import Node
from .registry import tflite_importer
from .scales import positive


@tflite_importer("SPACE_TO_DEPTH")
def space_to_depth(node: Node) -> SSAValue:
    """Blocks of pixels become channels."""
    image(node, 0)
    return node.emit(graph.SpaceToDepthOp, node.operand(0), block=positive(node, "BlockSize")[0])


@tflite_importer("DEPTH_TO_SPACE")
def depth_to_space(node: Node) -> SSAValue:
    """Channels become blocks of pixels."""
    image(node, 0)
    return node.emit(graph.DepthToSpaceOp, node.operand(0), block=positive(node, "BlockSize")[0])
