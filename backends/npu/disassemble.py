"""A file of the npu family as a module in address form again: what `encode` turns into the same bytes.

Wait counts become tokens, the debug map becomes locations and `npu.tensor` ops, constants become data. A
machine that is not shipped is written into the module, so that the text stands alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
from xdsl.dialects.builtin import (
    UNKNOWN_LOC,
    IntegerAttr,
    LocationAttr,
    ModuleOp,
    NameLoc,
    NoneAttr,
    StringAttr,
    i64,
)
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Block, Operation
from xdsl.ir import Region as Body

from ...dialects.nacre import Source, SourceAttr, StateOp, StoreAttr, constant_attribute
from ...dialects.npu import Region
from ...dialects.npu_instructions import DataOp, TensorOp
from ...dialects.store import Store
from ...dialects.types import dtype_of
from ...errors import FileFormatError, MachineError
from ...passes.npu.form import ADDRESS, set_form
from ...passes.npu.target import machine_of, set_target
from ...runtime.executable import Executable
from ...runtime.isa import to_ops
from ...runtime.machine import Machine, load_machine, parse_machine_json

MACHINE = "npu.machine"
"""The module attribute that holds a machine's figures as JSON."""


def disassemble(program: Executable, constants: list[tuple[str, Region]], sram_peak_bytes: int) -> ModuleOp:
    """The module in address form; `constants` says what the bytes of the constant section are."""
    store = Store()
    block = Block()
    sides = (("input", program.inputs), ("output", program.outputs), ("state", program.states))
    for kind, bindings in sides:
        for binding in bindings:
            block.add_op(DataOp.of(binding.name, kind, binding.region))
    for label, region in constants:
        block.add_op(DataOp.of(label, "constant", region, _value(program, label, region, store)))
    block.add_ops(_instructions(program))
    for t in program.tensors:
        tensor = TensorOp.of(t.region, t.after, SourceAttr((Source(t.name, t.axes, t.scale, t.zero),)))
        tensor.location = _location(t.layer)
        block.add_op(tensor)
    block.add_op(ReturnOp())
    kernels = [function.clone() for function in program.kernels.values()]
    states = [StateOp.of(name, program.initial[name], store) for name, _ in program.states]
    module = ModuleOp([*states, *kernels, FuncOp("main", ([], []), Body(block))])
    module.attributes["nacre.store"] = StoreAttr(store)
    for name, number in (
        ("dram_bytes", program.dram_bytes),
        ("constant_bytes", len(program.constants)),
        ("sram_peak_bytes", sram_peak_bytes),
    ):
        module.attributes[f"npu.{name}"] = IntegerAttr(number, i64)
    set_form(module, ADDRESS)
    _name_machine(module, program.machine)
    return module


def machine_of_text(module: ModuleOp) -> Machine:
    """The machine of a module in address form: the one written into it, or else the one it names."""
    written = module.attributes.get(MACHINE)
    if isinstance(written, StringAttr):
        return parse_machine_json(written.data, f"the module's {MACHINE}")
    return machine_of(module)


def _name_machine(module: ModuleOp, machine: Machine) -> None:
    set_target(module, machine.name)
    try:
        shipped = load_machine(machine.name)
    except MachineError:
        shipped = None
    if shipped != machine:
        figures = json.dumps(machine.model_dump(), separators=(",", ":"))
        module.attributes[MACHINE] = StringAttr(figures)


def _instructions(program: Executable) -> Iterator[Operation]:
    for index, op in enumerate(to_ops(program.commands)):
        op.location = _location(program.layer_of(index))
        yield op


def _location(layer: str) -> LocationAttr:
    return NameLoc(StringAttr(layer), NoneAttr()) if layer else UNKNOWN_LOC


def _value(program: Executable, label: str, region: Region, store: Store):
    raw = program.constants[region.address : region.address + region.nbytes]
    if len(raw) != region.nbytes:
        raise FileFormatError(f"the constant '{label}' leaves the constant section")
    array = np.frombuffer(raw.tobytes(), dtype_of(region.element)).reshape(region.shape)
    return constant_attribute(array, store, label)
