"""From a lowered module to a program: the way back from `nacre disasm`, and how address form runs."""

from __future__ import annotations

from xdsl.dialects.builtin import ModuleOp, StringAttr

from ..dialects.npu import Region
from ..dialects.npu_instructions import DATA_KINDS, DataOp
from ..dialects.types import dtype_of
from ..errors import CompileError
from ..runtime.interpreter import main_function
from .compile import level_of, signature_of
from .npu.disassemble import machine_of_text
from .program import NodeArg, Program, node_arg, signature_section
from .target import families, resolve_target


def assemble(module: ModuleOp) -> Program:
    """The program of a module in address form, or of one for the cpu. Raises CompileError for others."""
    level = level_of(module)
    if level == "schedule":
        family = families()["npu"]
        sections = {"signature": _signature(module), **family.encode(module, machine_of_text(module))}
        return Program(family, sections, {level: module}, {})
    named = module.attributes.get("nacre.target")
    target = named.data if isinstance(named, StringAttr) else ""
    if level == "npu" or target != "cpu":
        raise CompileError(
            f"a module at the {level} level is no assembly: it takes address form (nacre compile "
            "--stop-after schedule, nacre disasm), or a module compiled for the target cpu"
        )
    family, machine = resolve_target("cpu")
    sections = {"signature": signature_of(module), **family.encode(module, machine)}
    return Program(family, sections, {level: module}, {})


def _signature(module: ModuleOp) -> bytes:
    sides: dict[str, list[NodeArg]] = {kind: [] for kind in DATA_KINDS}
    for op in main_function(module).body.block.ops:
        if isinstance(op, DataOp):
            region: Region = op.at.data
            sides[op.kind.data].append(node_arg(op.label.data, region.shape, dtype_of(region.element)))
    return signature_section(sides["input"], sides["output"])
