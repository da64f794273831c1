"""One-dimensional spatial ops become two-dimensional with height 1, since engines slide in two dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation, SSAValue
from xdsl.pattern_rewriter import PatternRewriter
from xdsl.transforms.dead_code_elimination import region_dce

from ...dialects import graph
from ...dialects.declarative import floats_attribute
from ...dialects.types import shape_of
from ..base import NacrePass
from ..pattern import defined_by, pattern, with_operands
from ..rewrite import rewrite
from .canonical_folding import fold_constants
from .canonical_moves import reshape_of_reshape, same_type


@dataclass(frozen=True)
class Lower1dPass(NacrePass):
    """Give [N, W, C] convolutions, pools and resizes a height of 1; the reshapes between them cancel."""

    name = "graph-lower-1d"

    def run(self, module: ModuleOp) -> None:
        rewrite(
            module,
            spatial_1d,
            elementwise_above_squeeze,
            concat_above_squeeze,
            reshape_of_reshape,
            same_type,
            fold_constants,
            after=region_dce,
        )


def with_height(shape: Sequence[int]) -> tuple[int, ...]:
    """[N, W, C] -> [N, 1, W, C]."""
    return (shape[0], 1, *shape[1:])


@pattern(graph.ConvOp, graph.ConvTransposeOp, graph.PoolOp, graph.ResizeOp)
def spatial_1d(op: Any, rewriter: PatternRewriter) -> None:
    """op([N, W, C]) -> reshape(op(reshape to [N, 1, W, C]))."""
    shape = shape_of(op.ifm)
    if len(shape) != 3:
        return
    ifm = graph.ReshapeOp.make(op.ifm, shape=with_height(shape))
    new: list[Operation] = [ifm]
    operands = [ifm.result, *list(op.operands)[1:]]
    if isinstance(op, (graph.ConvOp, graph.ConvTransposeOp)):
        weight = graph.ReshapeOp.make(op.weight, shape=(1, *shape_of(op.weight)))
        new.append(weight)
        operands[1] = weight.result
    made = with_operands(op, operands, **parameters_2d(op))
    back = graph.ReshapeOp.make(made.results[0], shape=shape_of(op.results[0]))
    rewriter.replace(op, [*new, made, back])


BESIDE_HEIGHT = {"kernel": 1, "strides": 1, "dilations": 1, "output_pads": 0, "sizes": 1}


def parameters_2d(op: Any) -> dict[str, Any]:
    """The lists of a 1-D op with an entry for the height in front."""
    p, found = op.parameters(), {}
    for name, value in BESIDE_HEIGHT.items():
        if name in p:
            found[name] = (value, *p[name])
    if "pads" in p:
        found["pads"] = (0, p.pads[0], 0, p.pads[1])
    if p.get("overhang"):
        found["overhang"] = (0, *p.overhang)
    if p.get("scales"):
        found["scales"] = floats_attribute((1.0, *p.scales))  # type: ignore[assignment]
    return found


# --- squeezes move down until they meet ------------------------------------------------------------------
def squeezed(value: SSAValue) -> SSAValue | None:
    """The [N, 1, W, C] behind a reshape to [N, W, C] that a lowered spatial op left."""
    op = defined_by(value, graph.ReshapeOp)
    if not op or not defined_by(
        op.input, *MOVED, graph.ConvOp, graph.ConvTransposeOp, graph.PoolOp, graph.ResizeOp
    ):
        return None
    return (
        op.input if shape_of(op.input) == with_height(shape_of(value)) and len(shape_of(value)) == 3 else None
    )


@pattern(graph.UnaryOp, graph.BinaryOp)
def elementwise_above_squeeze(op: Any, rewriter: PatternRewriter) -> None:
    """f(squeeze(x)) -> squeeze(f(x)); other operands get the height as well."""
    shape = shape_of(op.result)
    if len(shape) != 3 or not any(squeezed(v) is not None for v in op.operands):
        return
    new: list[Operation] = []
    operands = []
    for value in op.operands:
        inner = squeezed(value)
        if inner is None and len(shape_of(value)) == 3:
            new.append(graph.ReshapeOp.make(value, shape=with_height(shape_of(value))))
            inner = new[-1].results[0]
        operands.append(value if inner is None else inner)
    if any(inner is value and len(shape_of(value)) > 2 for inner, value in zip(operands, op.operands)):
        return
    made = with_operands(op, operands)
    rewriter.replace(op, [*new, made, graph.ReshapeOp.make(made.result, shape=shape)])


@pattern(graph.ConcatOp)
def concat_above_squeeze(op: graph.ConcatOp, rewriter: PatternRewriter) -> None:
    """concat(squeeze(x), …) -> squeeze(concat(x, …)) where all operands are squeezed."""
    inner = [squeezed(v) for v in op.inputs]
    operands = [v for v in inner if v is not None]
    if len(operands) != len(inner) or len(shape_of(op.result)) != 3:
        return
    axis = op.parameters().axis
    made = with_operands(op, operands, axis=axis + (axis > 0))
    rewriter.replace(op, [made, graph.ReshapeOp.make(made.result, shape=shape_of(op.result))])


MOVED = (graph.UnaryOp, graph.BinaryOp, graph.ConcatOp)
