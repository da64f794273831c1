"""The tile rules of launches of kernels that only TFLite's quantised models have."""

from __future__ import annotations

from ...dialects import npu_instructions as npu
from ...dialects import qnn
from ...dialects.declarative import Parameters
from .launch_tile_rules import elementwise, launch_tiles, shapes
from .tiling import Box, Piece, Tiling

launch_tiles(qnn.LogisticOp, qnn.TanhOp, qnn.SquaredDifferenceOp)(elementwise)


@launch_tiles(qnn.L2NormalizeOp)
def normalised_rows(op: npu.LaunchOp, p: Parameters) -> Tiling:
    """Every axis but the last, whose elements are divided by their common length."""
    _, (out,) = shapes(op)

    def piece(box: Box) -> Piece:
        return Piece({"inputs": [box], "outputs": [box]}, {})

    return Tiling(op, out, piece, whole=frozenset({len(out) - 1}), output="outputs")
