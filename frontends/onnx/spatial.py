"""Importers of spatial operators: convolution, pooling, resize, space/depth, local response normalisation.

ONNX puts channels first, graph last: each spatial op stands between two transposes that passes cancel later.
Constant weights are permuted here. Operator pages: https://onnx.ai/onnx/operators/.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from xdsl.ir import SSAValue

from ...dialects import graph
from ...dialects.declarative import DeclarativeOp, floats_attribute
from ...dialects.types import FLOATS, element_type, f32, shape_of
from .node import Node
from .registry import Unsupported, Value, importer, refuse
from .sampling import pooled_places
from .volumes import conv_3d, pool_3d
from .windows import (
    Window,
    ceil_overhang,
    channels_last,
    extend,
    same_pads,
    spatial_rank,
    window_of,
)


# --- convolution -----------------------------------------------------------------------------------------
@importer("Conv")
def conv(node: Node) -> Value:
    ifm, weight = node.operand(0), node.shape(1)
    rank = spatial_rank(node, len(shape_of(ifm)), most=3)
    if len(weight) != rank + 2:
        raise Unsupported(f"the weight {list(weight)} does not fit an input of rank {rank + 2}")
    kernel = node.attribute("kernel_shape", weight[2:])
    if tuple(kernel) != tuple(weight[2:]):
        raise Unsupported(f"kernel_shape {list(kernel)} is not the weight's {list(weight[2:])}")
    window = window_of(node, shape_of(ifm)[2:], kernel)
    if rank == 3:
        return conv_3d(node, window)
    permuted = permute(node, 1, (*range(2, rank + 2), 1, 0))
    return channels_last(
        node, graph.ConvOp, ifm, permuted, node.optional(2),
        strides=window.strides, pads=window.pads, dilations=window.dilations, groups=node.attribute("group"),
    )  # fmt: skip


def permute(node: Node, index: int, permutation: Sequence[int]) -> SSAValue:
    """An input in another axis order; a constant is permuted at once."""
    array = node.array(index)
    if array is not None:
        return node.literal(array.transpose(permutation), node.input_name(index))
    return node.emit(graph.TransposeOp, node.operand(index), permutation=permutation)


@importer("ConvTranspose")
def conv_transpose(node: Node) -> Value:
    ifm, groups = node.operand(0), node.attribute("group")
    rank = spatial_rank(node, len(shape_of(ifm)))
    kernel = node.shape(1)[2:]
    window = window_of(node, shape_of(ifm)[2:], kernel)
    window, output_pads = transposed_pads(node, window, shape_of(ifm)[2:])
    return channels_last(
        node, graph.ConvTransposeOp, ifm, transposed_weight(node, rank, groups), node.optional(2),
        strides=window.strides, pads=window.pads, dilations=window.dilations, output_pads=output_pads,
        groups=groups,
    )  # fmt: skip


def transposed_pads(node: Node, window: Window, sizes: Sequence[int]) -> tuple[Window, tuple[int, ...]]:
    """Pads and output pads that give `output_shape`, or stride · size for SAME (ConvTranspose's page)."""
    rank, auto_pad = len(sizes), node.attribute("auto_pad", "NOTSET")
    output_pads = tuple(node.attribute("output_padding", [0] * rank))
    wanted = node.attribute("output_shape")
    if wanted is None and auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        wanted = [size * stride for size, stride in zip(sizes, window.strides)]
    if wanted is None:
        return window, output_pads
    wanted = wanted[-rank:]
    totals = [
        window.strides[i] * (sizes[i] - 1) + output_pads[i] + window.reach(i) - wanted[i] for i in range(rank)
    ]
    missing = [max(-t, 0) for t in totals]
    pads = same_pads([max(t, 0) for t in totals], more_before=auto_pad != "SAME_UPPER")
    return window._replace(pads=pads), tuple(p + m for p, m in zip(output_pads, missing))


def transposed_weight(node: Node, rank: int, groups: int) -> SSAValue:
    """ONNX's [C, M / groups, K…] as graph's [K…, C / groups, M]."""
    channels, outputs, *kernel = node.shape(1)
    if len(kernel) != rank or channels % groups:
        raise Unsupported(
            f"the weight {list(node.shape(1))} does not fit {rank} spatial axes and {groups} groups"
        )
    split = (groups, channels // groups, outputs, *kernel)
    order = (*range(3, rank + 3), 1, 0, 2)
    joined = (*kernel, channels // groups, groups * outputs)
    array = node.array(1)
    if array is not None:
        return node.literal(array.reshape(split).transpose(order).reshape(joined), node.input_name(1))
    value = node.emit(graph.ReshapeOp, node.operand(1), shape=split)
    return node.emit(graph.ReshapeOp, node.emit(graph.TransposeOp, value, permutation=order), shape=joined)


# --- pooling ---------------------------------------------------------------------------------------------
def pool_window(node: Node, most: int = 2) -> tuple[Window, tuple[int, ...]]:
    """The pooling window over one to `most` axes, and what ceil mode adds to its end pads."""
    sizes = node.shape(0)[2:]
    spatial_rank(node, len(sizes) + 2, most)
    window = window_of(node, sizes, node.attribute("kernel_shape"))
    over = ceil_overhang(window, sizes) if node.attribute("ceil_mode", 0) else (0,) * len(sizes)
    return extend(window, over), over


@importer("MaxPool")
def max_pool(node: Node) -> tuple[Value, ...]:
    window, _ = pool_window(node, most=3)
    if len(window.kernel) == 3:
        pooled = pool_3d(node, graph.MaxPoolOp, window)
    else:
        pooled = channels_last(node, graph.MaxPoolOp, node.operand(0), **window._asdict())
    if len(node.used) > 1 and node.used[1]:
        return pooled, pooled_places(node, **window._asdict())
    return (pooled,)


@importer("AveragePool")
def average_pool(node: Node) -> Value:
    window, over = pool_window(node, most=3)
    counting = {"count_include_pad": bool(node.attribute("count_include_pad", 0))}
    if len(window.kernel) == 3:
        return pool_3d(node, graph.AvgPoolOp, window, over, **counting)
    return channels_last(
        node, graph.AvgPoolOp, node.operand(0), **window._asdict(), **counting,
        overhang=over if any(over) else (),
    )  # fmt: skip


@importer("LpPool", since=2)
def lp_pool(node: Node) -> Value:
    """(Σ |x|^p)^(1/p): the mean over the window times its size, with padding that counts as zeros."""
    window, _ = pool_window(node)
    powered = power_of_magnitude(node, node.operand(0), node.attribute("p"))
    mean = channels_last(node, graph.AvgPoolOp, powered, **window._asdict(), count_include_pad=True)
    total = node.emit(graph.MulOp, mean, node.scalar(math.prod(window.kernel), mean))
    return root(node, total, node.attribute("p"))


@importer("GlobalLpPool", since=2)
def global_lp_pool(node: Node) -> Value:
    powered = power_of_magnitude(node, node.operand(0), node.attribute("p"))
    total = node.emit(graph.ReduceSumOp, powered, axes=tuple(range(2, len(node.shape(0)))))
    return root(node, total, node.attribute("p"))


def power_of_magnitude(node: Node, value: SSAValue, p: int) -> SSAValue:
    """|x|^p."""
    if p == 2:
        return node.emit(graph.MulOp, value, value)
    magnitude = node.emit(graph.AbsOp, value)
    return magnitude if p == 1 else node.emit(graph.PowOp, magnitude, node.scalar(p, value))


def root(node: Node, value: SSAValue, p: int) -> SSAValue:
    """x^(1/p) of a value that is not negative."""
    if p == 1:
        return value
    return (
        node.emit(graph.SqrtOp, value) if p == 2 else node.emit(graph.PowOp, value, node.scalar(1 / p, value))
    )


def global_pool(node: Node, pool: type[DeclarativeOp], reduce: type[DeclarativeOp]) -> Value:
    """One window over all spatial axes; a reduction where graph has no pooling of that rank."""
    sizes = node.shape(0)[2:]
    if len(sizes) not in (1, 2):
        return node.emit(reduce, node.operand(0), axes=tuple(range(2, len(sizes) + 2)))
    ones, zeros = (1,) * len(sizes), (0,) * 2 * len(sizes)
    return channels_last(node, pool, node.operand(0), kernel=sizes, strides=ones, pads=zeros, dilations=ones)


@importer("GlobalAveragePool")
def global_average_pool(node: Node) -> Value:
    return global_pool(node, graph.AvgPoolOp, graph.ReduceMeanOp)


@importer("GlobalMaxPool")
def global_max_pool(node: Node) -> Value:
    return global_pool(node, graph.MaxPoolOp, graph.ReduceMaxOp)


@importer("LRN")
def lrn(node: Node) -> Value:
    names = ("size", "alpha", "beta", "bias")
    return channels_last(node, graph.LrnOp, node.operand(0), **{n: node.attribute(n) for n in names})


# --- space and depth -------------------------------------------------------------------------------------
@importer("DepthToSpace")
def depth_to_space(node: Node) -> Value:
    order = node.attribute("mode", "DCR")
    return channels_last(
        node, graph.DepthToSpaceOp, node.operand(0), block=node.attribute("blocksize"), order=order
    )


@importer("SpaceToDepth")
def space_to_depth(node: Node) -> Value:
    if node.attribute("mode", "DCR") != "DCR":
        return space_to_depth_crd(node)
    return channels_last(node, graph.SpaceToDepthOp, node.operand(0), block=node.attribute("blocksize"))


def space_to_depth_crd(node: Node) -> Value:
    """Channel-major order (SpaceToDepth-28's CRD): [N, C, H/b, b, W/b, b] -> [N, C, b, b, H/b, W/b]."""
    n, c, h, w = node.shape(0)
    b = node.attribute("blocksize")
    blocks = node.emit(graph.ReshapeOp, node.operand(0), shape=(n, c, h // b, b, w // b, b))
    moved = node.emit(graph.TransposeOp, blocks, permutation=(0, 1, 3, 5, 2, 4))
    return node.emit(graph.ReshapeOp, moved, shape=(n, c * b * b, h // b, w // b))


# --- resize ----------------------------------------------------------------------------------------------
class Resampling(NamedTuple):
    """Sizes and scales for each axis of the input, and graph.resize's parameters."""

    sizes: tuple[int, ...]
    scales: tuple[float, ...]
    parameters: dict[str, Any]


def resample(node: Node, plan: Resampling) -> Value:
    """graph.resize over the axes that change, which have to be the spatial ones of either layout.

    Integers between which it interpolates go through floats, and are cut off behind the point as ONNX Runtime does.
    """
    value = node.operand(0)
    element = element_type(value)
    if plan.parameters["mode"] == "nearest" or element in FLOATS:
        return resampled(node, value, plan)
    if plan.parameters["mode"] == "cubic":
        raise Unsupported(f"its mode 'cubic' on {element} may leave what that holds; cast its input to float32")
    floats = resampled(node, node.emit(graph.CastOp, value, to=f32), plan)
    return node.emit(graph.CastOp, floats, to=element)


def resampled(node: Node, value: SSAValue, plan: Resampling) -> SSAValue:
    """`resample` of a type that the mode has a meaning for."""
    shape = node.shape(0)
    changed = [i for i, (d, s, f) in enumerate(zip(shape, plan.sizes, plan.scales)) if d != s or f != 1.0]
    if not changed:
        return value
    rank = len(shape)
    if rank in (3, 4) and changed[0] >= 1 and changed[-1] < rank - 1 and (rank == 3 or changed != [2]):
        axes = tuple(range(1, rank - 1))  # the model is channels-last already
        return node.emit(graph.ResizeOp, value, **resize_parameters(plan, axes))
    if rank not in (3, 4) or changed[0] < 2:
        raise Unsupported(
            f"it resizes the axes {changed} of {list(shape)}; only the spatial axes of [N, C, W] and "
            f"[N, C, H, W] can be resized"
        )
    return channels_last(node, graph.ResizeOp, value, **resize_parameters(plan, tuple(range(2, rank))))


def resize_parameters(plan: Resampling, axes: Sequence[int]) -> dict[str, Any]:
    """The parameters of graph.resize for the axes it works on."""
    scales = floats_attribute([plan.scales[a] for a in axes])
    return {"sizes": tuple(plan.sizes[a] for a in axes), "scales": scales, **plan.parameters}


def scaled_sizes(shape: Sequence[int], scales: Sequence[float]) -> tuple[int, ...]:
    """floor(size · scale), computed in float32 as ONNX's scales are."""
    return tuple(math.floor(np.float32(d) * np.float32(s)) for d, s in zip(shape, scales))


MODES = {"nearest": "nearest", "linear": "linear", "bilinear": "linear", "cubic": "cubic"}


def resize_mode(node: Node) -> str:
    """graph's name of the interpolation."""
    mode = node.attribute("mode")
    if mode not in MODES:
        raise Unsupported(f"the mode '{mode}' is none of {', '.join(MODES)}")
    return MODES[mode]


def upsampling(node: Node, scales: Sequence[float]) -> Value:
    """The one meaning of Upsample and Resize-10: asymmetric coordinates, nearest rounds down."""
    scales = tuple(float(s) for s in scales)
    if len(scales) != len(node.shape(0)):
        raise Unsupported(f"'scales' has {len(scales)} entries for an input of rank {len(node.shape(0))}")
    parameters = {"mode": resize_mode(node), "coordinates": "asymmetric", "nearest": "floor"}
    return resample(node, Resampling(scaled_sizes(node.shape(0), scales), scales, parameters))


@importer("Upsample", since=7)
def upsample_attribute(node: Node) -> Value:
    return upsampling(node, node.attribute("scales"))


@importer("Upsample", since=9)
@importer("Resize", since=10)
def upsample_input(node: Node) -> Value:
    return upsampling(node, node.constant(1, "the scale list").tolist())


@importer("Resize", since=11)
def resize(node: Node) -> Value:
    coordinates = node.attribute("coordinate_transformation_mode")
    if coordinates not in graph.COORDINATES:
        known = ", ".join(graph.COORDINATES)
        raise Unsupported(f"the coordinate_transformation_mode '{coordinates}' is not supported; {known} are")
    sizes, scales = resize_target(node)
    partial = [d * s for d, s in zip(node.shape(0), scales) if abs(d * s - round(d * s)) > 1e-4 * d]
    if coordinates == "align_corners" and partial:
        raise Unsupported(
            f"align_corners with a scale that gives {partial[0]:g} positions: ONNX's definition and its "
            f"runtimes differ there; export it with 'sizes'"
        )
    if node.attribute("antialias", 0) and min(scales) < 1:
        raise Unsupported("antialias while downsampling is not supported")
    parameters = {
        "mode": resize_mode(node),
        "coordinates": coordinates,
        "nearest": node.attribute("nearest_mode", "round_prefer_floor"),
        "cubic_a": node.attribute("cubic_coeff_a"),
        "exclude_outside": bool(node.attribute("exclude_outside", 0)),
    }
    return resample(node, Resampling(sizes, scales, parameters))


def resize_target(node: Node) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Sizes and scales of all axes, from `scales` or `sizes`, `axes` and the aspect-ratio policy."""
    shape = node.shape(0)
    axes = [node.axis(a, len(shape)) for a in node.attribute("axes", range(len(shape)))]
    sizes, scales = list(shape), [1.0] * len(shape)
    if node.has(2) and node.shape(2) != (0,):
        given = node.constant(2, "the scale list").tolist()
        if len(given) != len(axes):
            raise Unsupported(f"'scales' has {len(given)} entries for {len(axes)} axes")
        for axis, scale in zip(axes, given):
            scales[axis] = float(scale)
        return scaled_sizes(shape, scales), tuple(scales)
    wanted = [int(v) for v in node.constant(3, "the list of sizes")]
    if len(wanted) != len(axes):
        raise Unsupported(f"'sizes' has {len(wanted)} entries for {len(axes)} axes")
    factors = [w / shape[a] for a, w in zip(axes, wanted)]
    policy = node.attribute("keep_aspect_ratio_policy", "stretch")
    if policy != "stretch":
        factor = min(factors) if policy == "not_larger" else max(factors)
        factors = [factor] * len(axes)
        wanted = [math.floor(shape[a] * factor + 0.5) for a in axes]
    for axis, size, factor in zip(axes, wanted, factors):
        sizes[axis], scales[axis] = size, factor
    return tuple(sizes), tuple(scales)


refuse("MaxRoiPool", "RoiAlign", "DeformConv", reason="this operator cannot be imported yet")
