"""Importers of reductions."""

from __future__ import annotations

import numpy as np
from xdsl.ir import SSAValue

from ...dialects import graph, qnn
from ...dialects.declarative import DeclarativeOp
from ...dialects.types import i32, i64, storage_of
from ...runtime.fixed_point import quantise_multiplier
from .node import Node, text_of
from .registry import Unsupported, tflite_importer

FLOAT: dict[str, type[DeclarativeOp]] = {
    "MEAN": graph.ReduceMeanOp, "SUM": graph.ReduceSumOp, "REDUCE_MAX": graph.ReduceMaxOp,
    "REDUCE_MIN": graph.ReduceMinOp,
}  # fmt: skip
INTEGER: dict[str, type[DeclarativeOp]] = {"MEAN": qnn.MeanOp, "SUM": qnn.SumOp}


def axes_of(node: Node) -> dict[str, object]:
    """Axes (all, where none are named) and whether they stay."""
    rank = len(node.shape(0))
    axes = sorted({node.axis(a, rank) for a in node.ints(1, "its list of axes")})
    return {"axes": tuple(axes), "keepdims": bool(node.option("KeepDims", False))}


@tflite_importer("MEAN", "SUM")
def mean_or_sum(node: Node) -> SSAValue:
    """Quantised, the mean's multiplier is that of scale_in / scale_out divided by the count."""
    if not node.is_quantised():
        return node.emit(FLOAT[node.kind], node.operand(0), **axes_of(node))
    source, result = node.quant(0), node.result_quant()
    if source.storage != result.storage:
        raise Unsupported(f"it goes from {text_of(source)} to {text_of(result)}")
    multiplier, shift = (int(v) for v in quantise_multiplier(np.float64(source.scale) / np.float64(result.scale)))
    integers = {
        "multiplier": multiplier,
        "shift": shift,
        "input_zero": source.zero,
        "result_zero": result.zero,
    }
    return node.emit(INTEGER[node.kind], node.operand(0), element=result, **axes_of(node), **integers)


@tflite_importer("REDUCE_MAX", "REDUCE_MIN")
def extremum(node: Node) -> SSAValue:
    """On stored integers, whose quantisation stays."""
    if node.is_quantised():
        node.same_quantisation()
    return node.emit(FLOAT[node.kind], node.operand(0), **axes_of(node))


@tflite_importer("ARG_MAX")
def arg_max(node: Node) -> SSAValue:
    """The first index of the largest value, as int32 or int64."""
    axes = node.ints(1, "its axis")
    if len(axes) != 1:
        raise Unsupported(f"its axis is {list(axes)}, and has to be one number")
    axis = node.axis(axes[0], len(node.shape(0)))
    index = node.emit(graph.ArgmaxOp, node.operand(0), axis=axis, keepdims=False)
    want = storage_of(node.result())
    if want not in (i32, i64):
        raise Unsupported(f"its result is {want}, and indices are i32 or i64")
    return index if want == i64 else node.emit(graph.CastOp, index, to=want)
