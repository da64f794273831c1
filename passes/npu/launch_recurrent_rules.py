"""The tile rules of launches of LSTM and GRU cells, whose gates selection gives as [N, k, H]."""

from __future__ import annotations

from ...dialects import npu_instructions as npu
from ...dialects.declarative import Parameters
from ...dialects.graph_recurrent import GruCellOp, GruResetOp, LstmCellOp
from ...dialects.qnn_recurrent import LstmCellOp as QuantisedLstmCellOp
from ...dialects.qnn_recurrent import NormLstmCellOp
from .launch_tile_rules import launch_tiles, shapes
from .tiling import Box, Piece, Tiling, follow


@launch_tiles(LstmCellOp, GruResetOp, GruCellOp)
def cell(op: npu.LaunchOp, p: Parameters) -> Tiling:
    """Both axes of the state [N, H]; all gates of a column go with it."""
    inputs, outputs = shapes(op)

    def operand(shape: tuple[int, ...], box: Box) -> Box:
        rows, columns = box
        if len(shape) == 3:
            return (rows, (0, shape[1]), columns)
        return box if shape == outputs[0] else ((0, shape[0]), columns)  # peepholes are [3, H]

    def piece(box: Box) -> Piece:
        return Piece({"inputs": [operand(s, box) for s in inputs], "outputs": [box] * len(outputs)}, {})

    return Tiling(op, outputs[0], piece, output="outputs")


@launch_tiles(QuantisedLstmCellOp, NormLstmCellOp)
def quantised_cell(op: npu.LaunchOp, p: Parameters) -> Tiling:
    """Both axes of the state [N, H], the rows alone where they are normalised; all gates of a column go with it."""
    inputs, outputs = shapes(op)

    def operand(shape: tuple[int, ...], box: Box) -> Box:
        rows, columns = box
        if len(shape) == 3:  # gates, and peepholes [1 or N, k, H]
            return follow((rows, (0, shape[1]), columns), shape)
        return box if shape == outputs[0] else ((0, shape[0]), columns)  # coefficients and biases are [k, H]

    def piece(box: Box) -> Piece:
        return Piece({"inputs": [operand(s, box) for s in inputs], "outputs": [box] * len(outputs)}, {})

    whole = frozenset({1} if "guard" in p else ())
    return Tiling(op, outputs[0], piece, whole=whole, output="outputs")
