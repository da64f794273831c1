"""Batch norms of constant parameters become part of a neighbouring linear op, or a mul and an add."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from xdsl.dialects.builtin import ModuleOp
from xdsl.pattern_rewriter import PatternRewriter
from xdsl.transforms.dead_code_elimination import region_dce

from ...dialects import graph
from ...dialects.types import element_type, f32, shape_of
from ..base import NacrePass
from ..pattern import along, defined_by, name_of, pattern
from ..rewrite import rewrite
from .affine import batch_norm_affine, fold_after, fold_before


@dataclass(frozen=True)
class FoldBatchNormPass(NacrePass):
    """Fold batch norms into the linear op before or after; the rest become a mul and an add."""

    name = "graph-fold-batch-norm"

    def run(self, module: ModuleOp) -> None:
        rewrite(module, batch_norm_after_linear, after=region_dce)
        rewrite(module, batch_norm_before_conv, after=region_dce)
        rewrite(module, batch_norm_to_mul_add, after=region_dce)


@pattern(graph.BatchNormOp)
def batch_norm_after_linear(op: graph.BatchNormOp, rewriter: PatternRewriter) -> None:
    """batch_norm(conv(x)) -> conv(x) with other weights and bias."""
    if affine := batch_norm_affine(op):
        fold_after(op, op.input, affine, rewriter)


@pattern(graph.ConvOp)
def batch_norm_before_conv(op: graph.ConvOp, rewriter: PatternRewriter) -> None:
    """conv(batch_norm(x)) -> conv(x) with other weights and bias, where padding allows."""
    below = defined_by(op.ifm, graph.BatchNormOp)
    if (
        below
        and op.ifm.has_one_use()
        and element_type(op.ifm) == f32
        and (affine := batch_norm_affine(below))
    ):
        fold_before(op, below, affine, rewriter)


@pattern(graph.BatchNormOp)
def batch_norm_to_mul_add(op: graph.BatchNormOp, rewriter: PatternRewriter) -> None:
    """batch_norm(x) -> x · scale + shift."""
    affine = batch_norm_affine(op)
    if affine is None or element_type(op.input) != f32:
        return
    rank = len(shape_of(op.input))
    scale, shift = (
        graph.constant(along(v, affine.axis, rank).astype(np.float32), op, name)
        for v, name in ((affine.scale, name_of(op.scale)), (affine.shift, name_of(op.bias)))
    )
    scaled = graph.MulOp.make(op.input, scale.result)
    rewriter.replace(op, [scale, shift, scaled, graph.AddOp.make(scaled.result, shift.result)])
