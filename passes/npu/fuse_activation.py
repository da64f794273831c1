"""npu-fuse-activation: a clamp or table look-up becomes part of the instruction that makes its operand.

The NN engine clamps its requantised values and then maps them through a table; addition, multiplication,
pooling and clamp have clamps of their own. The roundings and their order stay the same, so do all bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from xdsl.dialects.builtin import ModuleOp

from ...dialects import npu_instructions as npu
from ...dialects.npu import Instruction, buffer_type, itemsize
from ...dialects.npu_instructions import PoolKind
from ...runtime.interpreter import main_function
from ...runtime.machine import Machine
from ..base import NacrePass
from .dataflow import erase_buffer, merged, only_producer, output, replace_pair, shaped_like
from .form import LAYER, require_form
from .target import machine_of

NN = (npu.ConvOp, npu.DepthwiseOp, npu.MatmulOp)
LOW, HIGH = 10, 11
"""Where npu.add's twelve parameters hold its clamp."""


@dataclass(frozen=True)
class FuseActivationPass(NacrePass):
    """Let instructions clamp and map their results themselves."""

    name = "npu-fuse-activation"
    target: str | None = None

    def run(self, module: ModuleOp) -> None:
        machine = machine_of(module, self.target)
        require_form(module, LAYER, self.name)
        # In program order, so a chain of activations is taken one after the other.
        for op in list(main_function(module).body.block.ops):
            if isinstance(op, npu.ClampOp):
                _fuse_clamp(op, machine)
            elif isinstance(op, npu.TableOp):
                _fuse_table(op, machine)


def _fuse_clamp(clamp: npu.ClampOp, machine: Machine) -> None:
    producer = only_producer(clamp.buffers("src")[0])
    limits = clamp.fields()
    fields = tightened(producer, limits["low"], limits["high"], machine) if producer is not None else None
    if producer is not None and fields is not None:
        _take_over(producer, clamp, {}, **fields)


def _fuse_table(table: npu.TableOp, machine: Machine) -> None:
    producer = only_producer(table.buffers("src")[0])
    if not isinstance(producer, NN) or "table" not in machine.fused or not _free_for_table(producer):
        return
    entries = table.buffers("table")[0]
    element = buffer_type(table.buffers("src")[0]).element
    # The engine requantises to the table's own type before it looks up.
    if element == buffer_type(entries).element and itemsize(element) == 1:
        _take_over(producer, table, {"table": [entries]})


def _free_for_table(producer: Instruction) -> bool:
    """Whether the table would come last: behind it the epilogue has residual and pooling."""
    connected, pool = producer.ports(), producer.fields().get("pool", PoolKind.NONE)
    taken = connected.keys() & {"table", "residual"} or pool != PoolKind.NONE
    return "multiplier" in connected and not taken


def _take_over(producer: Instruction, consumer: Instruction, ports: dict[str, Any], **fields: Any) -> None:
    result = consumer.buffers("dst")[0]
    ofm = shaped_like(result, output(producer)[1], consumer)
    if ofm is None:
        return
    made = merged(producer, consumer, ofm, ports, **fields)
    if made is not None:
        replace_pair(producer, consumer, made)
    elif ofm is not result:
        erase_buffer(ofm)


# --- clamps ----------------------------------------------------------------------------------------------
def tightened(op: Instruction, low: int, high: int, machine: Machine) -> dict[str, Any] | None:
    """The fields with which an instruction clamps its results to low..high as well; None where it cannot.

    A fused maximum pooling changes nothing: max and clamp are both monotone, so they commute.
    """
    f = op.fields()
    if isinstance(op, NN):
        connected = op.ports()
        if "activation" not in machine.fused or "multiplier" not in connected:
            return None
        if "residual" in connected:
            return {"residual_parameters": _tightened_sum(f["residual_parameters"], low, high)}
        return None if "table" in connected else _tightened_range(f, low, high)
    if isinstance(op, npu.AddOp):
        return {"parameters": _tightened_sum(f["parameters"], low, high)}
    if isinstance(op, (npu.MulOp, npu.PoolOp, npu.ClampOp)):
        return _tightened_range(f, low, high)
    return None


def _tightened_range(f: dict[str, Any], low: int, high: int) -> dict[str, Any]:
    return {"low": _clip(f["low"], low, high), "high": _clip(f["high"], low, high)}


def _tightened_sum(parameters: tuple[int, ...], low: int, high: int) -> tuple[int, ...]:
    return (*parameters[:LOW], _clip(parameters[LOW], low, high), _clip(parameters[HIGH], low, high))


def _clip(x: int, low: int, high: int) -> int:
    """As np.clip does, for limits that cross too: the upper one wins."""
    return min(max(x, low), high)
