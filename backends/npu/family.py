"""The npu family as a record: its pipeline, the encoding of its programs, and their executor."""

from __future__ import annotations

import functools
import json
import struct
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from xdsl.dialects.builtin import IntegerAttr, ModuleOp
from xdsl.passes import ModulePass

from ...dialects.npu import ENGINE_OF, Region, Space
from ...dialects.npu_instructions import DataOp, LaunchOp
from ...dialects.ppu import FuncOp
from ...dialects.types import dtype_of
from ...errors import FileFormatError
from ...passes.npu.allocate import AllocatePass
from ...passes.npu.elide_copies import ElideCopiesPass
from ...passes.npu.fuse_activation import FuseActivationPass
from ...passes.npu.fuse_pad import FusePadPass
from ...passes.npu.fuse_pool import FusePoolPass
from ...passes.npu.fuse_residual import FuseResidualPass
from ...passes.npu.keep_on_chip import KeepOnChipPass
from ...passes.npu.schedule import SchedulePass
from ...passes.npu.tile import TilePass
from ...passes.quantise.report import LayerRow, keep_rows, kept_rows, rows_of
from ...runtime import isa, ppu
from ...runtime.comparison import Feeds, Level, collect_program
from ...runtime.cost import launch_cost
from ...runtime.emulator import Emulator
from ...runtime.executable import Binding, Executable, Tensor
from ...runtime.flatfile import STATE, FlatFile, pack_states, read_states
from ...runtime.link import link
from ...runtime.machine import Machine, load_machine, machine_names
from ...runtime.timing import Timing, simulate
from ..target import CompileOptions, Sections, TargetFamily
from . import selections  # noqa: F401  registers how ops become instructions
from .disassemble import disassemble
from .select import SelectPass, legal, reorders


def pipeline(machine: Machine, options: CompileOptions) -> Mapping[str, Sequence[ModulePass]]:
    """From qnn (or graph) to buffers, and from buffers to addresses."""
    return {
        "npu": [SelectPass(), ElideCopiesPass(), *(fusion() if options.fuse else [])],
        "schedule": [KeepOnChipPass(), TilePass(), AllocatePass(), SchedulePass()],
    }


def fusion() -> list[ModulePass]:
    """The passes that `--no-fuse` leaves out."""
    return [FusePadPass(), FuseActivationPass(), FuseResidualPass(), FuseActivationPass(), FusePoolPass()]


# --- encoding --------------------------------------------------------------------------------------------
def encode(module: ModuleOp, machine: Machine) -> Sections:
    """A module in address form as the sections of a file."""
    program = link(module, machine)
    kernels = list(program.kernels)
    numbers = {name: i for i, name in enumerate(kernels)}
    peak = module.attributes["npu.sram_peak_bytes"]
    assert isinstance(peak, IntegerAttr)
    plan = {
        "machine": machine.model_dump(),
        "dram_bytes": program.dram_bytes,
        "sram_peak_bytes": peak.value.data,
        "kernels": kernels,
        "inputs": [_binding_json(b) for b in program.inputs],
        "outputs": [_binding_json(b) for b in program.outputs],
        "states": [_binding_json(b) for b in program.states],
    }
    names = sorted(set(program.layers))
    places = {name: i for i, name in enumerate(names)}
    debug = {
        "layers": names,
        "commands": [places[layer] for layer in program.layers],
        "tensors": [[*t[:2], _region_json(t.region), *t[3:]] for t in program.tensors],
        "constants": [
            [op.label.data, _region_json(op.at.data)]
            for op in module.walk()
            if isinstance(op, DataOp) and op.kind.data == "constant"
        ],
        "types": kept_rows(module),
    }  # fmt: skip
    return {
        "plan": _json(plan),
        "code": b"".join(isa.encode(c, numbers) for c in program.commands),
        "debug": _json(debug),
        "kernels": encode_functions([program.kernels[name] for name in kernels]),
        **({STATE: pack_states(program.initial)} if program.states else {}),
        "constants": program.constants,
    }


def decode(file: FlatFile) -> Executable:
    """The executable in a file; constants stay where the file is mapped. Raises FileFormatError."""
    try:
        plan, debug = json.loads(bytes(file["plan"])), json.loads(bytes(file["debug"]))
        kernels = dict(zip(plan["kernels"], decode_functions(bytes(file["kernels"])), strict=True))
        return Executable(
            machine=Machine.model_validate(plan["machine"]),
            commands=isa.decode(bytes(file["code"]), list(kernels)),
            kernels=kernels,
            constants=file["constants"],
            dram_bytes=plan["dram_bytes"],
            inputs=[Binding(b["name"], _region(b["region"])) for b in plan["inputs"]],
            outputs=[Binding(b["name"], _region(b["region"])) for b in plan["outputs"]],
            states=states_in(file, plan["states"], initial := read_states(file)),
            initial=initial,
            tensors=[
                Tensor(n, layer, _region(r), i, tuple(a), s, z)
                for n, layer, r, i, a, s, z in debug["tensors"]
            ],
            layers=[debug["layers"][i] for i in debug["commands"]],
        )
    except (ValueError, KeyError, TypeError, IndexError, struct.error) as error:
        raise FileFormatError(f"'{file.label}' holds no sound plan: {error}") from None


def states_in(file: FlatFile, plan: Sequence[Any], initial: Mapping[str, np.ndarray]) -> list[Binding]:
    """Where the states lie. Raises FileFormatError where the plan and the section of states differ."""
    states = [Binding(b["name"], _region(b["region"])) for b in plan]
    for name, region in states:
        found = initial.get(name)
        if found is None or found.shape != region.shape or found.dtype != dtype_of(region.element):
            raise FileFormatError(f"'{file.label}' has no initial value for the state '{name}' at {region}")
    return states


def disassemble_file(file: FlatFile) -> ModuleOp:
    """A file as the module in address form that `encode` turns into its sections. Raises FileFormatError."""
    program = decode(file)
    try:
        debug = json.loads(bytes(file["debug"]))
        constants = [(label, _region(r)) for label, r in debug["constants"]]
        peak = json.loads(bytes(file["plan"]))["sram_peak_bytes"]
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise FileFormatError(f"'{file.label}' holds no sound plan: {error}") from None
    module = disassemble(program, constants, peak)
    keep_rows(module, debug.get("types"))
    return module


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def _region_json(r: Region) -> list[Any]:
    return [r.space.value, r.address, list(r.shape), list(r.strides), isa.ELEMENTS.index(r.element)]


def _region(value: Sequence[Any]) -> Region:
    space, address, shape, strides, element = value
    return Region(Space(space), address, tuple(shape), tuple(strides), isa.ELEMENTS[element])


def _binding_json(b: Binding) -> dict[str, Any]:
    return {"name": b.name, "region": _region_json(b.region)}


def encode_functions(functions: Iterable[FuncOp]) -> bytes:
    """Machine code of the programmable engine: of each function its length (u32) and its words."""
    codes = [ppu.encode(f) for f in functions]
    return b"".join(struct.pack("<I", len(code)) + code for code in codes)


def decode_functions(section: bytes) -> list[FuncOp]:
    """The functions of a section. Raises FileFormatError for damaged code."""
    found, at = [], 0
    while at < len(section):
        (length,) = struct.unpack_from("<I", section, at)
        found.append(ppu.decode(section[at + 4 : at + 4 + length]))
        at += 4 + length
    return found


# --- running ---------------------------------------------------------------------------------------------
class NpuExecutor:
    """A program of the npu family on the emulator."""

    def __init__(self, file: FlatFile, sanitize: bool = False):
        self.program = decode(file)
        self.sram_peak_bytes = json.loads(bytes(file["plan"]))["sram_peak_bytes"]
        self.emulator = Emulator(self.program, sanitize=sanitize)
        self.file = file

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """One inference."""
        return self.emulator.run(feeds)

    def reset(self) -> None:
        """The states as the file has them."""
        self.emulator.reset()

    def collect(self, feeds: Feeds, wanted: Collection[str]) -> Level:
        """One inference from the initial states, read from the emulated memory as it goes."""
        self.reset()
        return collect_program("program", self.emulator, feeds, wanted)

    def layers(self) -> list[LayerRow] | None:
        """The layers' types, from the debug map."""
        kept = json.loads(bytes(self.file["debug"])).get("types")
        return None if kept is None else rows_of(kept)

    @functools.cached_property
    def timing(self) -> Timing:
        """The event simulation, done once."""
        return simulate(self.program)

    @functools.cached_property
    def kernel_costs(self) -> dict[str, dict[str, Any]]:
        """`costs_of_kernels`, counted once."""
        return costs_of_kernels(self.program)

    def profile(self) -> dict[str, Any]:
        """Cycles, seconds, traffic and memory of one inference."""
        t = self.timing
        engines = engines_of_layers(self.program)
        return {
            "machine": self.program.machine.name,
            "cycles": t.cycles,
            "seconds": t.seconds,
            "macs": t.macs,
            "utilisation": t.utilisation,
            "dram_bytes_read": t.dram_bytes_read,
            "dram_bytes_written": t.dram_bytes_written,
            "sram_peak_bytes": self.sram_peak_bytes,
            "arena_bytes": self.program.arena_bytes,
            "constant_bytes": len(self.program.constants),
            "instructions": len(self.program.commands),
            "busy_cycles": dict(t.busy_cycles),
            "kernels": self.kernel_costs,
            "layers": {
                name: {
                    "engines": engines.get(name, []), "cycles": round(x.cycles), "macs": x.macs,
                    "dram_bytes_read": x.dram_bytes_read,
                    "dram_bytes_written": x.dram_bytes_written,
                }
                for name, x in t.layers.items()
            },
        }  # fmt: skip


def costs_of_kernels(program: Executable) -> dict[str, dict[str, Any]]:
    """What the launches of each kernel take together: cycles, instructions by class, the share of idle lanes."""
    found: dict[str, dict[str, Any]] = {
        name: {"launches": 0, "cycles": 0, "instructions": Counter(), "idle": 0.0} for name in program.kernels
    }
    for command in program.commands:
        if command.cls is LaunchOp:
            spent = launch_cost(command.fields, program.prepared[command.fields.kernel], program.machine)
            kernel = found[command.fields.kernel]
            kernel["launches"] += 1
            kernel["cycles"] += spent.cycles
            kernel["instructions"].update(spent.issued)
            kernel["idle"] += spent.divergence * sum(spent.issued.values())
    for kernel in found.values():
        issued = sum(kernel["instructions"].values())
        kernel["divergence"] = round(kernel.pop("idle") / issued, 4) if issued else 0.0
        kernel["instructions"] = dict(kernel["instructions"])
    return found


def engines_of_layers(program: Executable) -> dict[str, list[str]]:
    """The engines that compute each layer, most instructions first; the DMA where nothing computes."""
    counts: dict[str, Counter[str]] = {}
    for index, command in enumerate(program.commands):
        counts.setdefault(program.layer_of(index), Counter())[ENGINE_OF[command.queue]] += 1
    return {
        layer: [e for e, _ in found.most_common() if e != "dma"] or ["dma"] for layer, found in counts.items()
    }


FAMILY = TargetFamily(
    name="npu",
    description="NN engine, tensor fabric, programmable engine and DMA around an SRAM, emulated",
    machines=machine_names,
    load=load_machine,
    legal=legal,
    pipeline=pipeline,
    encode=encode,
    executor=NpuExecutor,
    disassemble=disassemble_file,
    reorders=reorders,
)
