"""npu-fuse-residual: the addition of a convolution's result and another feature map becomes part of the
convolution, which then reads that feature map at its port `residual`.

The fused convolution stands where the addition stood, so the other feature map is written before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.dialects.builtin import ModuleOp

from ...dialects import npu_instructions as npu
from ...dialects.npu import Instruction, buffer_type
from ...dialects.npu_instructions import PoolKind
from ...runtime.interpreter import main_function
from ..base import NacrePass
from .dataflow import merged, only_producer, replace_pair
from .form import LAYER, require_form
from .target import machine_of


@dataclass(frozen=True)
class FuseResidualPass(NacrePass):
    """Let convolutions add a second feature map to their results."""

    name = "npu-fuse-residual"
    target: str | None = None

    def run(self, module: ModuleOp) -> None:
        machine = machine_of(module, self.target)
        require_form(module, LAYER, self.name)
        if "residual" not in machine.fused:
            return
        for op in list(main_function(module).body.block.ops):
            if isinstance(op, npu.AddOp) and not op.fields()["subtract"]:
                _fuse(op)


def _fuse(add: npu.AddOp) -> None:
    for mine, other, convolution in _candidates(add):
        parameters = add.fields()["parameters"]
        made = merged(
            convolution, add, add.buffers("ofm")[0], {"residual": [add.buffers(other)[0]]},
            residual_parameters=parameters if mine == "a" else swapped(parameters),
        )  # fmt: skip
        if made is not None:
            replace_pair(convolution, add, made)
            return


def _candidates(add: npu.AddOp) -> list[tuple[str, str, Instruction]]:
    """Operands that a convolution makes which could add the other one, the later convolution first."""
    found = []
    for mine, other in (("a", "b"), ("b", "a")):
        producer = only_producer(add.buffers(mine)[0])
        if producer is not None and _adds(producer, add):
            found.append((mine, other, producer))
    return found[::-1] if len(found) == 2 and found[0][2].is_before_in_block(found[1][2]) else found


def _adds(producer: Instruction, add: npu.AddOp) -> bool:
    if not isinstance(producer, (npu.ConvOp, npu.DepthwiseOp)):
        return False
    connected = producer.ports()
    if "multiplier" not in connected or "residual" in connected or producer.fields()["pool"] != PoolKind.NONE:
        return False
    operands = [buffer_type(add.buffers(p)[0]) for p in ("a", "b", "ofm")]
    return all(t == buffer_type(connected["ofm"][0]) for t in operands)


def swapped(parameters: Sequence[int]) -> tuple[int, ...]:
    """npu.add's parameters with the roles of its operands exchanged."""
    return (*parameters[3:6], *parameters[:3], *parameters[6:])
