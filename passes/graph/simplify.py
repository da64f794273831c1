"""The usual order of the graph-level passes, as one pass."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.dialects.builtin import ModuleOp

from ..base import NacrePass
from ..rewrite import canonicalize, cse
from . import canonical as _canonical  # noqa: F401  registers the patterns
from .fold_batch_norm import FoldBatchNormPass
from .fold_scale import FoldScalePass
from .fuse_patterns import FusePatternsPass
from .lower_1d import Lower1dPass
from .sink_transposes import SinkTransposesPass

STEPS = (FusePatternsPass, SinkTransposesPass, FoldBatchNormPass, FoldScalePass, Lower1dPass)
"""Layout before folding, so that batch norms and constants stand next to their convolutions."""


@dataclass(frozen=True)
class SimplifyPass(NacrePass):
    """Everything a float graph goes through before quantisation: patterns, layout, folding, 1-D to 2-D."""

    name = "graph-simplify"

    def run(self, module: ModuleOp) -> None:
        canonicalize(module)
        cse(module)
        for step in STEPS:
            step().run(module)
            canonicalize(module)
        cse(module)
