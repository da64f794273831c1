"""npu-fuse-pad: padding with the zero point before a convolution becomes the convolution's own padding.

Models from TFLite converters carry such PADs; the sums are the same, since padding of a convolution counts as the
zero point of its ifm.
"""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.dialects.builtin import ModuleOp

from ...dialects import npu_instructions as npu
from ...dialects.locations import fuse_locations
from ...dialects.npu import Instruction, buffer_type
from ...runtime.interpreter import main_function
from ..base import NacrePass
from .dataflow import may_move, only_producer, replace_pair
from .form import LAYER, require_form


@dataclass(frozen=True)
class FusePadPass(NacrePass):
    """Let convolutions pad their own feature maps."""

    name = "npu-fuse-pad"

    def run(self, module: ModuleOp) -> None:
        require_form(module, LAYER, self.name)
        for op in list(main_function(module).body.block.ops):
            if isinstance(op, (npu.ConvOp, npu.DepthwiseOp)):
                _fuse(op)


def _fuse(convolution: Instruction) -> None:
    pad = only_producer(convolution.buffers("ifm")[0])
    if not isinstance(pad, npu.PadOp) or pad.fields()["value"] != convolution.fields()["ifm_zero"]:
        return
    margins = _margins(pad)
    if margins is None or not may_move(pad, convolution):
        return
    f = convolution.fields()
    names = ("pad_top", "pad_left", "pad_bottom", "pad_right")
    pads = {name: f[name] + more for name, more in zip(names, margins)}
    if not _within_window(convolution, pads):
        return
    ports = {**convolution.ports(), "ifm": pad.buffers("src")}
    made = type(convolution).make(
        ports, location=fuse_locations(pad.location, convolution.location), **(f | pads)
    )
    made.attributes |= convolution.attributes
    replace_pair(pad, convolution, made)


def _margins(pad: npu.PadOp) -> tuple[int, int, int, int] | None:
    """Rows and columns added at top, left, bottom and right; None when other axes are padded as well."""
    src, dst = buffer_type(pad.buffers("src")[0]).shape, buffer_type(pad.buffers("dst")[0]).shape
    low = pad.fields()["low"]
    if len(src) != 4 or src[0] != dst[0] or src[3] != dst[3]:
        return None
    return low[1], low[2], dst[1] - src[1] - low[1], dst[2] - src[2] - low[2]


def _within_window(convolution: Instruction, pads: dict[str, int]) -> bool:
    """Whether every window still sees an element, which tiles rely on."""
    f, kernel = convolution.fields(), buffer_type(convolution.buffers("weight")[0]).shape
    high, wide = f["dilation_h"] * (kernel[0] - 1) + 1, f["dilation_w"] * (kernel[1] - 1) + 1
    return max(pads["pad_top"], pads["pad_bottom"]) < high and max(pads["pad_left"], pads["pad_right"]) < wide
