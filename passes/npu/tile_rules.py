"""The tile rules of the fixed engines' instructions: one function a family."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from xdsl.ir import Attribute

from ...dialects import npu_instructions as npu
from ...dialects.npu import Instruction, buffer_type, itemsize
from ...dialects.npu_instructions import PoolKind
from ...dialects.types import i16, i32, i64
from ...runtime.machine import Machine
from .tiling import Box, Halo, Interval, Piece, Tiling, follow, halo, tiles


def _shape(op: Instruction, port: str) -> tuple[int, ...]:
    return buffer_type(op.buffers(port)[0]).shape


def _vectors(op: Instruction) -> Callable[[Interval], dict[str, Box]]:
    """Boxes of bias, multiplier, shift and table by a stretch of output channels."""
    shapes = {p: _shape(op, p) for p in ("bias", "multiplier", "shift", "table") if op.buffers(p)}
    whole: dict[str, Box] = {p: ((0, s[0]),) for p, s in shapes.items() if p == "table" or s == (1,)}
    return lambda channels: {p: whole.get(p, (channels,)) for p in shapes}


# --- windows ---------------------------------------------------------------------------------------------
class Axis:
    """One spatial axis of a convolution with its fused pooling: from results back to inputs."""

    def __init__(self, f: dict[str, Any], letter: str, size: int, kernel: int):
        vertical = letter == "h"
        self.stride, self.dilation = f[f"stride_{letter}"], f[f"dilation_{letter}"]
        self.pad = f["pad_top" if vertical else "pad_left"]
        pad_after = f["pad_bottom" if vertical else "pad_right"]
        self.size, self.kernel = size, kernel
        extent = self.dilation * (kernel - 1) + 1
        self.convolved = (size + self.pad + pad_after - extent) // self.stride + 1
        self.pooled = f.get("pool", PoolKind.NONE) != PoolKind.NONE
        if self.pooled:
            window = f["pool_window"]
            first = 0 if vertical else 1
            self.pool_kernel, self.pool_stride = window[first], window[2 + first]
            self.pool_pad = window[4 + first]

    def results(self, out: tuple[int, int]) -> Halo:
        """The convolution's results that a stretch of the (pooled) output needs."""
        if not self.pooled:
            return Halo(out, 0, 0)
        return halo(out, self.pool_stride, self.pool_pad, self.pool_kernel, self.convolved)

    def inputs(self, out: tuple[int, int], taps: tuple[int, int]) -> Halo:
        """The inputs those results need for a stretch of the kernel's taps."""
        results = self.results(out).interval
        extent = self.dilation * (taps[1] - 1) + 1
        return halo(results, self.stride, self.pad - taps[0] * self.dilation, extent, self.size)


@tiles(npu.ConvOp)
def conv(op: npu.ConvOp) -> Tiling:
    """Iteration: N, H', W', M; reduced: C, KH, KW."""
    return _convolution(op, depthwise=False)


@tiles(npu.DepthwiseOp)
def depthwise(op: npu.DepthwiseOp) -> Tiling:
    """Iteration: N, H', W', C·M; reduced: KH, KW."""
    return _convolution(op, depthwise=True)


def _convolution(op: npu.ConvOp | npu.DepthwiseOp, depthwise: bool) -> Tiling:
    f = op.fields()
    _, height, width, channels = _shape(op, "ifm")
    kh, kw, _, filters = _shape(op, "weight")
    rows, cols = Axis(f, "h", height, kh), Axis(f, "w", width, kw)
    vectors, residual, takes = _vectors(op), bool(op.buffers("residual")), products_of_8_bits(op)

    def piece(box: Box) -> Piece:
        n, h, w, m = box[:4]
        c, taps_h, taps_w = ((0, channels), *box[4:]) if depthwise else box[4:]
        high, wide = rows.inputs(h, taps_h), cols.inputs(w, taps_w)
        if depthwise:
            c = (m[0] // filters, m[1] // filters)
            weight: Box = (taps_h, taps_w, c, (0, filters))
        else:
            weight = (taps_h, taps_w, c, m)
        out = (n, h, w, m)
        ports: dict[str, Box] = {"ifm": (n, high.interval, wide.interval, c), "weight": weight, "ofm": out}
        ports |= vectors(m)
        if residual:  # added before the pooling
            ports["residual"] = (n, rows.results(h).interval, cols.results(w).interval, m)
        fields: dict[str, Any] = {
            "pad_top": high.before, "pad_bottom": high.after,
            "pad_left": wide.before, "pad_right": wide.after,
        }  # fmt: skip
        if rows.pooled:
            up, side = rows.results(h), cols.results(w)
            window = f["pool_window"]
            fields["pool_window"] = (*window[:4], up.before, side.before, up.after, side.after)
        return Piece(ports, fields)

    def sums(box: Box) -> Box:  # what is summed up comes before the pooling
        return (box[0], rows.results(box[1]).interval, cols.results(box[2]).interval, box[3])

    def cycles(box: Box, machine: Machine) -> int:
        high, wide = rows.results(box[1]).interval[1], cols.results(box[2]).interval[1]
        points = box[0][1] * high * wide
        if depthwise:
            return takes * -(-points * box[3][1] * box[4][1] * box[5][1] // machine.depthwise_macs)
        passes = -(-box[4][1] // machine.mac_rows) * -(-box[3][1] // machine.mac_columns)
        return takes * points * passes * box[5][1] * box[6][1]

    out = _shape(op, "ofm")
    reduced = 2 if depthwise else 3
    extents = (*out, kh, kw) if depthwise else (*out, channels, kh, kw)
    return Tiling(
        op, extents, piece, reduced=reduced, macs=cycles, acc=accumulator(op), acc_box=sums,
        step={3: filters} if depthwise else {},  # channels are c·M + m: a cut falls between input channels
    )  # fmt: skip


def accumulator(op: Instruction) -> Attribute:
    """The element of partial sums: 64 bits wide where a factor has 16."""
    wide = any(buffer_type(op.buffers(p)[0]).element == i16 for p in ("ifm", "weight"))
    return i64 if wide else i32


def products_of_8_bits(op: Instruction) -> int:
    """How many of them a product takes: 2 where one factor has 16 bits, 4 where both have."""
    ifm, weight = (itemsize(buffer_type(op.buffers(p)[0]).element) for p in ("ifm", "weight"))
    return ifm * weight


@tiles(npu.MatmulOp)
def matmul(op: npu.MatmulOp) -> Tiling:
    """Iteration: batch…, M, N; reduced: K."""
    a, b, out, vectors = _shape(op, "ifm"), _shape(op, "weight"), _shape(op, "ofm"), _vectors(op)
    takes = products_of_8_bits(op)

    def piece(box: Box) -> Piece:
        batch, (m, n, k) = box[:-3], box[-3:]
        ports: dict[str, Box] = {
            "ifm": (*follow(batch, a[:-2]), m, k),
            "weight": (*follow(batch, b[:-2]), k, n),
            "ofm": (*batch, m, n),
        }
        return Piece(ports | vectors(n), {})

    def cycles(box: Box, machine: Machine) -> int:
        rows = math.prod(n for _, n in box[:-2])
        blocks = -(-box[-1][1] // machine.mac_rows) * -(-box[-2][1] // machine.mac_columns)
        return takes * rows * blocks

    return Tiling(op, (*out, a[-1]), piece, reduced=1, macs=cycles, acc=accumulator(op))


@tiles(npu.PoolOp)
def pool(op: npu.PoolOp) -> Tiling:
    """Iteration: N, H', W', C; reduced: KH, KW. Averages in parts are sums that npu.average finishes."""
    f = op.fields()
    _, height, width, _ = _shape(op, "ifm")
    rows, cols = Axis(f, "h", height, f["kernel_h"]), Axis(f, "w", width, f["kernel_w"])

    def piece(box: Box) -> Piece:
        n, h, w, c, taps_h, taps_w = box
        high, wide = rows.inputs(h, taps_h), cols.inputs(w, taps_w)
        fields = {
            "pad_top": high.before, "pad_bottom": high.after, "pad_left": wide.before,
            "pad_right": wide.after, "kernel_h": taps_h[1], "kernel_w": taps_w[1],
        }  # fmt: skip
        return Piece({"ifm": (n, high.interval, wide.interval, c), "ofm": (n, h, w, c)}, fields)

    extents = (*_shape(op, "ofm"), f["kernel_h"], f["kernel_w"])
    if f["kind"] == PoolKind.MAX:
        return Tiling(op, extents, piece, reduced=2, acc=buffer_type(op.buffers("ofm")[0]).element)

    def partial(emitter: Any, ports: Any, fields: Any) -> Instruction:
        kept = {p.name for p in npu.PoolSumOp.FIELDS}
        return npu.PoolSumOp.make(ports, **{n: v for n, v in fields.items() if n in kept})

    def finish(emitter: Any, box: Box, acc: Any, ofm: Any) -> None:
        inside = [
            rows.inputs(box[1], (0, f["kernel_h"])).interval[1],
            cols.inputs(box[2], (0, f["kernel_w"])).interval[1],
        ]
        emitter.put(
            npu.AverageOp.make(
                {"acc": acc, "ofm": ofm}, count=math.prod(inside), low=f["low"], high=f["high"]
            )
        )

    return Tiling(
        op, extents, piece, reduced=2, acc=i32, partial=partial, finish=finish, single=frozenset({1, 2})
    )


# --- elementwise -----------------------------------------------------------------------------------------
@tiles(npu.AddOp, npu.MulOp, npu.ExtremumOp)
def binary(op: Instruction) -> Tiling:
    """Every axis; broadcast operands stay whole along theirs."""
    a, b = _shape(op, "a"), _shape(op, "b")

    def piece(box: Box) -> Piece:
        return Piece({"a": follow(box, a), "b": follow(box, b), "ofm": box}, {})

    return Tiling(op, _shape(op, "ofm"), piece)


@tiles(npu.QuantiseOp, npu.DequantiseOp, npu.ConvertOp, npu.RequantiseOp, npu.ClampOp, npu.TableOp, npu.CopyOp)
def unary(op: Instruction) -> Tiling:
    """Every axis; a table stays whole."""
    table = {"table": ((0, _shape(op, "table")[0]),)} if "table" in op.PORT else {}

    def piece(box: Box) -> Piece:
        return Piece({"src": box, "dst": box, **table}, {})

    return Tiling(op, _shape(op, "dst"), piece, output="dst")


@tiles(npu.FillOp)
def fill(op: npu.FillOp) -> Tiling:
    """Every axis."""
    return Tiling(op, _shape(op, "dst"), lambda box: Piece({"dst": box}, {}), output="dst")


# --- moves -----------------------------------------------------------------------------------------------
@tiles(npu.TransposeOp)
def transpose(op: npu.TransposeOp) -> Tiling:
    """Every axis of the result."""
    permutation = op.fields()["permutation"]

    def piece(box: Box) -> Piece:
        src: list[tuple[int, int]] = [(0, 0)] * len(box)
        for axis, interval in zip(permutation, box):
            src[axis] = interval
        return Piece({"src": tuple(src), "dst": box}, {})

    return Tiling(op, _shape(op, "dst"), piece, output="dst")


@tiles(npu.PadOp)
def pad(op: npu.PadOp) -> Tiling:
    """Every axis; a tile of padding alone has an empty source."""
    low, shape = op.fields()["low"], _shape(op, "src")

    def piece(box: Box) -> Piece:
        src, before = [], []
        for (start, size), lo, d in zip(box, low, shape):
            first, last = min(max(start - lo, 0), d), min(max(start + size - lo, 0), d)
            src.append((first, last - first))
            before.append(min(max(lo - start, 0), size))
        return Piece({"src": tuple(src), "dst": box}, {"low": tuple(before)})

    return Tiling(op, _shape(op, "dst"), piece, output="dst")


@tiles(npu.ResizeOp)
def resize(op: npu.ResizeOp) -> Tiling:
    """N, H', W', C; the tables say which rows and columns a tile needs."""
    from .constants import constant_buffer

    rows, cols = constant_buffer(op.buffers("rows")[0]), constant_buffer(op.buffers("cols")[0])

    def needed(table: Any, interval: tuple[int, int]) -> tuple[int, int]:
        part = table[interval[0] : interval[0] + interval[1], :2]
        return int(part.min()), int(part.max() - part.min() + 1)

    def piece(box: Box) -> Piece:
        n, h, w, c = box
        high, wide = needed(rows, h), needed(cols, w)
        ports = {"ifm": (n, high, wide, c), "rows": (h, (0, 3)), "cols": (w, (0, 3)), "ofm": box}
        return Piece(ports, {"row_offset": high[0], "col_offset": wide[0]})

    return Tiling(op, _shape(op, "ofm"), piece)
