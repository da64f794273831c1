"""npu-fuse-pool: maximum pooling of a convolution's result becomes part of the convolution.

Tiles of overlapping windows compute some rows twice, and a fused tile has to hold a window whole. So the tile
search is asked for both ways, and the pooling is fused where it estimates fewer cycles.
"""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.dialects.builtin import ModuleOp

from ...dialects import npu_instructions as npu
from ...dialects.npu import Instruction, buffer_type
from ...dialects.npu_instructions import PoolKind
from ...dialects.quant import storage_range
from ...errors import MachineError
from ...runtime.interpreter import main_function
from ...runtime.machine import Machine
from ..base import NacrePass
from . import tile_rules  # noqa: F401  registers the rules
from .dataflow import merged, only_producer, replace_pair
from .form import LAYER, require_form
from .fuse_activation import tightened
from .target import machine_of
from .tile import plan
from .tiling import RULES, estimate


@dataclass(frozen=True)
class FusePoolPass(NacrePass):
    """Let convolutions pool their results."""

    name = "npu-fuse-pool"
    target: str | None = None

    def run(self, module: ModuleOp) -> None:
        machine = machine_of(module, self.target)
        require_form(module, LAYER, self.name)
        if "pool" not in machine.fused:
            return
        for op in list(main_function(module).body.block.ops):
            if isinstance(op, npu.PoolOp) and op.fields()["kind"] == PoolKind.MAX and "acc" not in op.ports():
                _fuse(op, machine)


def _fuse(pool: npu.PoolOp, machine: Machine) -> None:
    convolution = only_producer(pool.buffers("ifm")[0])
    if not isinstance(convolution, (npu.ConvOp, npu.DepthwiseOp)) or not _can_pool(convolution, pool):
        return
    fields = _clamped(convolution, pool, machine)
    if fields is None:
        return
    made = merged(
        convolution, pool, pool.buffers("ofm")[0], {}, pool=PoolKind.MAX, pool_window=_window(pool), **fields
    )
    if made is None:
        return
    apart = cycles(convolution, machine) + cycles(pool, machine)
    if cycles(made, machine) < apart:
        replace_pair(convolution, pool, made)
    else:
        made.erase()


def _can_pool(convolution: Instruction, pool: npu.PoolOp) -> bool:
    f = pool.fields()
    plain = convolution.fields()["pool"] == PoolKind.NONE and "multiplier" in convolution.ports()
    same = buffer_type(convolution.buffers("ofm")[0]) == buffer_type(pool.buffers("ifm")[0])
    return plain and same and f["dilation_h"] == f["dilation_w"] == 1


def _clamped(convolution: Instruction, pool: npu.PoolOp, machine: Machine) -> dict | None:
    """What the pooling's clamp asks of the convolution: clamping before the maximum gives the same."""
    f, element = pool.fields(), buffer_type(pool.buffers("ifm")[0]).element
    low, high = storage_range(element)
    if f["low"] <= low and f["high"] >= high:
        return {}
    return tightened(convolution, f["low"], f["high"], machine)


def _window(pool: npu.PoolOp) -> tuple[int, ...]:
    f = pool.fields()
    names = ("kernel_h", "kernel_w", "stride_h", "stride_w", "pad_top", "pad_left", "pad_bottom", "pad_right")
    return tuple(f[name] for name in names)


def cycles(op: Instruction, machine: Machine) -> float:
    """The tile search's estimate for a layer; infinite where no tile fits."""
    tiling = RULES[type(op)](op)
    try:
        cut = plan(op, tiling, machine)
    except MachineError:
        return float("inf")
    return estimate(tiling, cut.sizes, cut.order, machine)
