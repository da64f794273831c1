"""Importers of normalisations (inference): all but batch normalisation are a layer norm over suitable axes.

Operator pages: https://onnx.ai/onnx/operators/.
"""

from __future__ import annotations

import math

from xdsl.ir import SSAValue

from ...dialects import graph
from ...dialects.types import shape_of
from .node import Node
from .reduction import square
from .registry import Unsupported, Value, importer


@importer("BatchNormalization", since=7)
def batch_normalization(node: Node) -> Value:
    if node.attribute("training_mode", 0):
        raise Unsupported("training_mode is set; export the model for inference")
    if not node.attribute("spatial", 1):
        raise Unsupported("spatial = 0 (statistics for each pixel) is not supported")
    if any(node.used[1:]):
        raise Unsupported("its running statistics are used as outputs; export the model for inference")
    return node.emit(graph.BatchNormOp, *node.operands(), axis=1, epsilon=node.attribute("epsilon"))


@importer("InstanceNormalization", since=6)
def instance_normalization(node: Node) -> Value:
    shape = node.shape(0)
    ones = (1,) * (len(shape) - 2)
    scale, bias = (reshaped(node, i, (shape[1], *ones)) for i in (1, 2))
    return node.emit(
        graph.LayerNormOp, node.operand(0), scale, bias, axis=2, epsilon=node.attribute("epsilon")
    )


def reshaped(node: Node, index: int, shape: tuple[int, ...]) -> SSAValue:
    """An input in another shape; a constant at once."""
    array = node.array(index)
    if array is not None:
        return node.literal(array.reshape(shape), node.input_name(index))
    return node.emit(graph.ReshapeOp, node.operand(index), shape=shape)


def group_norm(node: Node, per_channel: bool) -> Value:
    """[N, C, …] as [N, G, C / G, …] under a layer norm over all but N and G; scales of channels or groups."""
    n, channels, *sizes = node.shape(0)
    groups = node.attribute("num_groups")
    if groups < 1 or channels % groups:
        raise Unsupported(f"{channels} channels do not fall into {groups} groups")
    each = channels // groups
    split = node.emit(graph.ReshapeOp, node.operand(0), shape=(n, groups, each, *sizes))
    wanted = (groups, each if per_channel else 1, *[1] * len(sizes))
    if node.shape(1) != (math.prod(wanted),):
        raise Unsupported(f"its scale {list(node.shape(1))} should be [{math.prod(wanted)}]")
    scale, bias = reshaped(node, 1, wanted), reshaped(node, 2, wanted)
    result = node.emit(graph.LayerNormOp, split, scale, bias, axis=2, epsilon=node.attribute("epsilon"))
    return node.emit(graph.ReshapeOp, result, shape=node.shape(0))


@importer("GroupNormalization", since=18)
def group_normalization_by_group(node: Node) -> Value:
    return group_norm(node, per_channel=False)


@importer("GroupNormalization", since=21)
def group_normalization(node: Node) -> Value:
    return group_norm(node, per_channel=True)


@importer("LayerNormalization", since=17)
def layer_normalization(node: Node) -> tuple[Value, ...]:
    value, epsilon = node.operand(0), node.attribute("epsilon")
    rank = len(shape_of(value))
    axis = node.axis(node.attribute("axis"), rank)
    result = node.emit(
        graph.LayerNormOp, value, node.operand(1), node.optional(2), axis=axis, epsilon=epsilon
    )
    if not any(node.used[1:]):
        return (result,)
    axes = tuple(range(axis, rank))
    mean = node.emit(graph.ReduceMeanOp, value, axes=axes)
    deviation = node.emit(graph.SubOp, value, mean)
    variance = node.emit(graph.ReduceMeanOp, square(node, deviation), axes=axes)
    inverse = node.emit(graph.RsqrtOp, node.emit(graph.AddOp, variance, node.scalar(epsilon, value)))
    return (result, mean, inverse)[: len(node.proto.output)]


@importer("LpNormalization")
def lp_normalization(node: Node) -> Value:
    """x / ‖x‖ along one axis."""
    value, p = node.operand(0), node.attribute("p")
    axis = node.axis(node.attribute("axis"), len(shape_of(value)))
    if p not in (1, 2):
        raise Unsupported(f"p = {p} is neither 1 nor 2")
    magnitude = node.emit(graph.AbsOp, value) if p == 1 else square(node, value)
    norm = node.emit(graph.ReduceSumOp, magnitude, axes=(axis,))
    norm = norm if p == 1 else node.emit(graph.SqrtOp, norm)
    zero = node.scalar(0, value)
    empty = node.emit(graph.CompareOp, norm, zero, predicate="eq")  # where all is zero the result is zero
    return node.emit(graph.DivOp, value, node.emit(graph.SelectOp, empty, node.scalar(1, value), norm))
