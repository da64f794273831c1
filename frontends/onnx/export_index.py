"""Operations that go by places on the way back to ONNX; importing this module registers them with `exports`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from xdsl.ir import SSAValue

from ...dialects import graph
from ...dialects.types import dtype_of, element_type, shape_of
from ...errors import CompileError
from .exporter import Exporter, exports, first


@exports(graph.FmodOp)
def remainder(op: graph.FmodOp, e: Exporter) -> None:
    e.define(op.result, e.node("Mod", [e.real(op.a), e.real(op.b)], fmod=1))


@exports(graph.BitwiseOp)
def bitwise(op: graph.BitwiseOp, e: Exporter) -> None:
    """ONNX shifts integers without sign only."""
    operation, operands = op.parameters().operation, [e.tensor(op.a), e.tensor(op.b)]
    if operation not in ("left", "right"):
        e.define(op.result, e.node(f"Bitwise{operation.capitalize()}", operands))
    elif dtype_of(element_type(op.a)).kind == "u":
        e.define(op.result, e.node("BitShift", operands, direction=operation.upper()))
    else:
        raise CompileError(f"layer '{e.layer}': a shift of {element_type(op.a)} cannot be exported to ONNX")


@exports(graph.CumsumOp)
def cumulative_sum(op: graph.CumsumOp, e: Exporter) -> None:
    p = op.parameters()
    axis = e.scalar(p.axis, np.int64, "axis")
    made = e.node("CumSum", [e.real(op.input), axis], exclusive=int(p.exclusive), reverse=int(p.reverse))
    e.define(op.result, made)


@exports(graph.TopkOp)
def top_k(op: graph.TopkOp, e: Exporter) -> None:
    p = op.parameters()
    inputs = [e.real(op.input), e.array(np.array([p.k], np.int64), "k")]
    e.node("TopK", inputs, outputs=2, axis=p.axis, largest=int(p.largest))
    values, e.tensors[op.indices, None] = e.nodes[-1].output
    e.define(op.values, values)


@exports(graph.GatherElementsOp)
def gather_elements(op: graph.GatherElementsOp, e: Exporter) -> None:
    """ONNX has an index for every element."""
    axis, shape = op.parameters().axis, shape_of(op.result)
    indices = spread(op.indices, shape, e)
    e.define(op.result, e.node("GatherElements", [e.real(op.data), indices], axis=axis))


def spread(indices: SSAValue, shape: Sequence[int], e: Exporter) -> str:
    """Indices of a whole shape."""
    if shape_of(indices) == tuple(shape):
        return e.tensor(indices)
    return e.node("Expand", [e.tensor(indices), e.array(np.array(shape, np.int64), "shape")])


@exports(graph.ScatterElementsOp)
def scatter_elements(op: graph.ScatterElementsOp, e: Exporter) -> None:
    p, indices = op.parameters(), spread(op.indices, shape_of(op.updates), e)
    operands = [e.real(op.data), indices, e.real(op.updates)]
    e.define(op.result, e.node("ScatterElements", operands, axis=p.axis, reduction=p.reduction))


@exports(graph.GridSampleOp)
def grid_sample(op: graph.GridSampleOp, e: Exporter) -> None:
    p, order = op.parameters(), first(4)
    made = e.node(
        "GridSample", [e.real(op.ifm, order), e.real(op.grid)], mode=p.mode, padding_mode=p.padding,
        align_corners=int(p.align_corners),
    )  # fmt: skip
    e.define(op.ofm, made, order)
