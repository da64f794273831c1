"""The tile rules of launches that go by places: scans, the top k, gathering and scattering, sampling."""

from __future__ import annotations

from ...dialects import graph
from ...dialects import npu_instructions as npu
from ...dialects.declarative import Parameters
from .launch_reduce_rules import reduce, rows
from .launch_tile_rules import element, launch_tiles, shapes
from .tiling import Box, Piece, Tiling, follow

launch_tiles(graph.CumsumOp, graph.CumprodOp)(rows)
launch_tiles("ppu.reduce_prod")(reduce)


@launch_tiles("ppu.cumsum", "ppu.cumprod")
def scan_on(op: npu.LaunchOp, p: Parameters) -> Tiling:
    """Every axis but the one that is scanned, of which the part before has one element."""
    _, (out,) = shapes(op)

    def piece(box: Box) -> Piece:
        before: Box = (*box[: p.axis], (0, 1), *box[p.axis + 1 :])
        return Piece({"inputs": [box, before, before], "outputs": [box]}, {})

    return Tiling(op, out, piece, whole=frozenset({p.axis}), output="outputs")


@launch_tiles(graph.TopkOp)
def topk(op: npu.LaunchOp, p: Parameters) -> Tiling:
    """Every axis but the one that is sorted, which both results have with k elements."""
    (source,), (values, _) = shapes(op)

    def piece(box: Box) -> Piece:
        whole: Box = (*box[: p.axis], (0, source[p.axis]), *box[p.axis + 1 :])
        return Piece({"inputs": [whole], "outputs": [box, box]}, {})

    return Tiling(op, values, piece, whole=frozenset({p.axis}), output="outputs")


@launch_tiles("ppu.gather_elements")
def gather_elements(op: npu.LaunchOp, p: Parameters) -> Tiling:
    """The result's axes; reduced: the axis of the data that the indices choose from."""
    (data, indices), (out,) = shapes(op)

    def piece(box: Box) -> Piece:
        result, part = box[:-1], box[-1]
        taken: Box = (*result[: p.axis], part, *result[p.axis + 1 :])
        return Piece({"inputs": [taken, follow(result, indices)], "outputs": [result]}, {"open": (part[0],)})

    return Tiling(op, (*out, data[p.axis]), piece, reduced=1, output="outputs", acc=element(op))


@launch_tiles("ppu.scatter_elements")
def scatter_elements(op: npu.LaunchOp, p: Parameters) -> Tiling:
    """The result's axes; reduced: the updates along the axis, one after the other."""
    (_, indices, updates), (out,) = shapes(op)

    def piece(box: Box) -> Piece:
        result, part = box[:-1], box[-1]
        given: Box = (*result[: p.axis], part, *result[p.axis + 1 :])
        boxes: list[Box] = [result, follow(given, indices), given]
        return Piece({"inputs": boxes, "outputs": [result]}, {"open": (result[p.axis][0],)})

    return Tiling(op, (*out, updates[p.axis]), piece, reduced=1, output="outputs", acc=element(op))


@launch_tiles(graph.GridSampleOp)
def grid_sample(op: npu.LaunchOp, p: Parameters) -> Tiling:
    """Every axis of the result; any of it may come from anywhere in the image."""
    (source, _), (out,) = shapes(op)

    def piece(box: Box) -> Piece:
        n, rows_, columns, channels = box
        image: Box = (n, (0, source[1]), (0, source[2]), channels)
        return Piece({"inputs": [image, (n, rows_, columns, (0, 2))], "outputs": [box]}, {})

    return Tiling(op, out, piece, output="outputs")
