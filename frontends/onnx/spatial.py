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
from ...dialects.types import shape_of
from .node import Node
from .registry import Unsupported, Value, importer, refuse
from .sampling import pooled_places


# --- layout ----------------------------------------------------------------------------------------------
def spatial_rank(node: Node, rank: int) -> int:
    """Number of spatial axes of `[N, C, …]`. Raises Unsupported for other than one or two."""
    if rank not in (3, 4):
        kind = f"{rank - 2}-D" if rank > 2 else f"rank-{rank}"
        raise Unsupported(
            f"{kind} {node.proto.op_type} is not supported, only 1-D and 2-D ([N, C, W] and [N, C, H, W])"
        )
    return rank - 2


def last(rank: int) -> tuple[int, ...]:
    """The permutation from channels-first to channels-last."""
    return (0, *range(2, rank), 1)


def first(rank: int) -> tuple[int, ...]:
    """The permutation from channels-last to channels-first."""
    return (0, rank - 1, *range(1, rank - 1))


def channels_last(
    node: Node, op: type[DeclarativeOp], ifm: SSAValue, *others: SSAValue | None, **parameters: Any
) -> SSAValue:
    """The spatial op on a channels-first tensor: transpose, op, transpose back."""
    rank = len(shape_of(ifm))
    moved = node.emit(graph.TransposeOp, ifm, permutation=last(rank))
    result = node.emit(op, moved, *others, **parameters)
    return node.emit(graph.TransposeOp, result, permutation=first(rank))


# --- windows ---------------------------------------------------------------------------------------------
class Window(NamedTuple):
    """A sliding window; pads: all beginnings, then all ends."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[int, ...]
    dilations: tuple[int, ...]

    def reach(self, axis: int) -> int:
        """Number of input positions that a dilated window spans."""
        return self.dilations[axis] * (self.kernel[axis] - 1) + 1


def window_of(node: Node, sizes: Sequence[int], kernel: Sequence[int]) -> Window:
    """The node's window with `auto_pad` resolved."""
    rank = len(sizes)
    strides = tuple(node.attribute("strides", [1] * rank))
    dilations = tuple(node.attribute("dilations", [1] * rank))
    auto_pad = node.attribute("auto_pad", "NOTSET")
    window = Window(tuple(kernel), strides, tuple(node.attribute("pads", [0] * 2 * rank)), dilations)
    for name, values in (("kernel_shape", kernel), ("strides", strides), ("dilations", dilations)):
        if len(values) != rank:
            raise Unsupported(
                f"'{name}' = {list(values)} does not have an entry for each of {rank} spatial axes"
            )
    if auto_pad == "NOTSET":
        return window
    if auto_pad == "VALID":
        return window._replace(pads=(0,) * 2 * rank)
    if auto_pad not in ("SAME_UPPER", "SAME_LOWER"):
        raise Unsupported(f"auto_pad '{auto_pad}' is none of NOTSET, VALID, SAME_UPPER, SAME_LOWER")
    totals = [
        max((math.ceil(size / stride) - 1) * stride + window.reach(i) - size, 0)
        for i, (size, stride) in enumerate(zip(sizes, strides))
    ]
    return window._replace(pads=same_pads(totals, auto_pad == "SAME_LOWER"))


def same_pads(totals: Sequence[int], more_before: bool) -> tuple[int, ...]:
    """Padding shared between both ends, the odd one after (SAME_UPPER) or before (SAME_LOWER)."""
    small, large = [t // 2 for t in totals], [t - t // 2 for t in totals]
    return (*large, *small) if more_before else (*small, *large)


def ceil_overhang(window: Window, sizes: Sequence[int]) -> tuple[int, ...]:
    """How far the last window of ceil mode reaches beyond the padded axis.

    A window that would start in the end padding does not count (MaxPool's page, ceil_mode).
    """
    rank, over = len(sizes), []
    for i, (size, stride) in enumerate(zip(sizes, window.strides)):
        padded = size + window.pads[i] + window.pads[rank + i]
        count = math.ceil((padded - window.reach(i)) / stride) + 1
        if (count - 1) * stride >= size + window.pads[i]:
            count -= 1
        over.append(max((count - 1) * stride + window.reach(i) - padded, 0))
    return tuple(over)


def extend(window: Window, over: Sequence[int]) -> Window:
    """The window with longer end pads."""
    rank = len(over)
    return window._replace(pads=(*window.pads[:rank], *(p + o for p, o in zip(window.pads[rank:], over))))


# --- convolution -----------------------------------------------------------------------------------------
@importer("Conv")
def conv(node: Node) -> Value:
    ifm, weight = node.operand(0), node.shape(1)
    rank = spatial_rank(node, len(shape_of(ifm)))
    if len(weight) != rank + 2:
        raise Unsupported(f"the weight {list(weight)} does not fit an input of rank {rank + 2}")
    kernel = node.attribute("kernel_shape", weight[2:])
    if tuple(kernel) != tuple(weight[2:]):
        raise Unsupported(f"kernel_shape {list(kernel)} is not the weight's {list(weight[2:])}")
    window = window_of(node, shape_of(ifm)[2:], kernel)
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
def pool_window(node: Node) -> tuple[Window, tuple[int, ...]]:
    """The pooling window and what ceil mode adds to its end pads."""
    sizes = node.shape(0)[2:]
    spatial_rank(node, len(sizes) + 2)
    window = window_of(node, sizes, node.attribute("kernel_shape"))
    over = ceil_overhang(window, sizes) if node.attribute("ceil_mode", 0) else (0,) * len(sizes)
    return extend(window, over), over


@importer("MaxPool")
def max_pool(node: Node) -> tuple[Value, ...]:
    window, _ = pool_window(node)
    pooled = channels_last(node, graph.MaxPoolOp, node.operand(0), **window._asdict())
    if len(node.used) > 1 and node.used[1]:
        return pooled, pooled_places(node, **window._asdict())
    return (pooled,)


@importer("AveragePool")
def average_pool(node: Node) -> Value:
    window, over = pool_window(node)
    return channels_last(
        node, graph.AvgPoolOp, node.operand(0), **window._asdict(),
        count_include_pad=bool(node.attribute("count_include_pad", 0)), overhang=over if any(over) else (),
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
    """graph.resize over the axes that change, which have to be the spatial ones of either layout."""
    value, shape = node.operand(0), node.shape(0)
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
