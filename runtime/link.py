"""From a module in address form to what the machine runs: decoded commands, kernels, constants, memory
sizes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from xdsl.dialects.builtin import IntegerAttr, ModuleOp

from ..dialects.declarative import value_of
from ..dialects.locations import layer_of
from ..dialects.nacre import array_of, initial_states
from ..dialects.npu import Instruction
from ..dialects.npu_instructions import DataOp, TensorOp
from ..dialects.ppu import FuncOp
from ..dialects.types import tensor
from ..errors import CompileError
from .executable import Binding, Executable, Tensor
from .interpreter import main_function
from .isa import to_commands
from .machine import Machine


def link(module: ModuleOp, machine: Machine) -> Executable:
    """The executable of a module in address form. Raises CompileError for a module of another form."""
    total = module.attributes.get("npu.dram_bytes")
    if not isinstance(total, IntegerAttr):
        raise CompileError("the module is not in address form: run npu-allocate and npu-schedule")
    ops = list(main_function(module).body.block.ops)
    data = [op for op in ops if isinstance(op, DataOp)]
    instructions = [op for op in ops if isinstance(op, Instruction)]
    return Executable(
        machine=machine,
        commands=to_commands(instructions),
        kernels={op.sym_name.data: op for op in module.ops if isinstance(op, FuncOp)},
        constants=constant_bytes(data, value_of(module.attributes["npu.constant_bytes"])),
        dram_bytes=value_of(total),
        inputs=[Binding(op.label.data, op.at.data) for op in data if op.kind.data == "input"],
        outputs=[Binding(op.label.data, op.at.data) for op in data if op.kind.data == "output"],
        states=[Binding(op.label.data, op.at.data) for op in data if op.kind.data == "state"],
        initial=initial_states(module),
        tensors=[t for op in ops if isinstance(op, TensorOp) for t in tensors_of(op)],
        layers=[layer_of(op.location) for op in instructions],
    )


def constant_bytes(data: Sequence[DataOp], size: int) -> np.ndarray:
    """The first bytes of DRAM: all constants at their addresses."""
    memory = np.zeros(size, np.uint8)
    for op in data:
        if op.kind.data == "constant":
            region = op.at.data
            array = array_of(op.value, tensor(region.shape, region.element), op)
            raw = np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8)
            memory[region.address : region.address + len(raw)] = raw
    return memory


def tensors_of(op: TensorOp) -> list[Tensor]:
    """The debug map's entries of one op."""
    return [
        Tensor(s.tensor, layer_of(op.location), op.at.data, value_of(op.index), s.axes, s.scale, s.zero)
        for s in op.source.data
    ]
