"""npu-elide-copies: what is copied from one DRAM buffer into another is written there in the first place.

A copy goes when its source is a buffer of its own that is complete before the copy, and nobody else writes
the place it goes to; readers of the source then read that place. Reshapes of it ask for a dense place.
"""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Block, Operation, SSAValue

from ...dialects import npu_instructions as npu
from ...dialects.nacre import sources_of
from ...dialects.npu import Instruction, buffer_type
from ...dialects.npu_instructions import dense_layout, layout_of
from ...runtime.interpreter import main_function
from ..base import NacrePass
from ..rewrite import add_sources
from .dataflow import accesses_of, intermediate, may_overlap
from .form import LAYER, require_form


@dataclass(frozen=True)
class ElideCopiesPass(NacrePass):
    """Write feature maps straight to where they would be copied."""

    name = "npu-elide-copies"

    def run(self, module: ModuleOp) -> None:
        require_form(module, LAYER, self.name)
        block = main_function(module).body.block
        for op in list(block.ops):
            if isinstance(op, npu.CopyOp):
                _elide(op, block)


def _elide(copy: npu.CopyOp, block: Block) -> None:
    place = copy.buffers("dst")[0]
    root = intermediate(copy.buffers("src")[0])
    if root is None or not _may_stand_for(root, place, copy):
        return
    allocation = root.owner
    assert isinstance(allocation, Operation)
    _define_before(place, allocation, block)
    if buffer_type(place).shape != buffer_type(root).shape:
        reshape = npu.ReshapeOp.create(operands=[place], result_types=[root.type])
        reshape.location = copy.location
        block.insert_op_before(reshape, allocation)
        place = reshape.result
    copy.detach()
    copy.erase()
    add_sources(place, sources_of(root))
    root.replace_all_uses_with(place)
    allocation.detach()
    allocation.erase()


def _may_stand_for(root: SSAValue, place: SSAValue, copy: Instruction) -> bool:
    """Whether the place of a copy could hold the source from the beginning."""
    place_root = layout_of(place).root
    if place_root is root or (_is_reshaped(root) and dense_layout(place) is None):
        return False
    written = [a.op for a in accesses_of(root) if a.writing]
    if not written or not all(op.is_before_in_block(copy) for op in written):
        return False
    others = [a for a in accesses_of(place_root) if a.op is not copy and may_overlap(a.value, place)]
    return not any(a.writing or a.op.is_before_in_block(copy) for a in others)


def _is_reshaped(value: SSAValue) -> bool:
    users = [use.operation for use in value.uses]
    return any(
        isinstance(u, npu.ReshapeOp) or (isinstance(u, npu.ViewOp) and _is_reshaped(u.result)) for u in users
    )


def _define_before(value: SSAValue, op: Operation, block: Block) -> None:
    """Move the allocation and the views that make a value up in front of an op, where they are not yet."""
    owner = value.owner
    if not isinstance(owner, Operation) or owner.is_before_in_block(op):
        return
    if isinstance(owner, (npu.ViewOp, npu.ReshapeOp)):
        _define_before(owner.source, op, block)
    owner.detach()
    block.insert_op_before(owner, op)
