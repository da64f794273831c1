"""The npu family as a record: its pipeline, the encoding of its programs, and their executor."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from xdsl.dialects.builtin import IntegerAttr, ModuleOp
from xdsl.passes import ModulePass

from ...dialects.declarative import Parameters
from ...dialects.npu import ENGINE_OF, Region, Space
from ...dialects.npu_instructions import DataOp
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
from ...runtime import isa
from ...runtime.comparison import Feeds, Level, collect_program
from ...runtime.emulator import Emulator
from ...runtime.executable import Binding, Executable, Tensor
from ...runtime.execute import LaunchKernel
from ...runtime.flatfile import FlatFile
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
        "kernels": [_kernel_json(name, program.kernels[name]) for name in kernels],
        "inputs": [_binding_json(b) for b in program.inputs],
        "outputs": [_binding_json(b) for b in program.outputs],
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
    }  # fmt: skip
    return {
        "plan": _json(plan),
        "code": b"".join(isa.encode(c, numbers) for c in program.commands),
        "debug": _json(debug),
        "constants": program.constants,
    }


def decode(file: FlatFile) -> Executable:
    """The executable in a file; constants stay where the file is mapped. Raises FileFormatError."""
    try:
        plan, debug = json.loads(bytes(file["plan"])), json.loads(bytes(file["debug"]))
        kernels = {k["symbol"]: _kernel(k) for k in plan["kernels"]}
        return Executable(
            machine=Machine.model_validate(plan["machine"]),
            commands=isa.decode(bytes(file["code"]), list(kernels)),
            kernels=kernels,
            constants=file["constants"],
            dram_bytes=plan["dram_bytes"],
            inputs=[Binding(b["name"], _region(b["region"])) for b in plan["inputs"]],
            outputs=[Binding(b["name"], _region(b["region"])) for b in plan["outputs"]],
            tensors=[
                Tensor(n, layer, _region(r), i, tuple(a), s, z)
                for n, layer, r, i, a, s, z in debug["tensors"]
            ],
            layers=[debug["layers"][i] for i in debug["commands"]],
        )
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise FileFormatError(f"'{file.label}' holds no sound plan: {error}") from None


def disassemble_file(file: FlatFile) -> ModuleOp:
    """A file as the module in address form that `encode` turns into its sections. Raises FileFormatError."""
    program = decode(file)
    try:
        constants = [(label, _region(r)) for label, r in json.loads(bytes(file["debug"]))["constants"]]
        peak = json.loads(bytes(file["plan"]))["sram_peak_bytes"]
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise FileFormatError(f"'{file.label}' holds no sound plan: {error}") from None
    return disassemble(program, constants, peak)


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def _region_json(r: Region) -> list[Any]:
    return [r.space.value, r.address, list(r.shape), list(r.strides), isa.ELEMENTS.index(r.element)]


def _region(value: Sequence[Any]) -> Region:
    space, address, shape, strides, element = value
    return Region(Space(space), address, tuple(shape), tuple(strides), isa.ELEMENTS[element])


def _binding_json(b: Binding) -> dict[str, Any]:
    return {"name": b.name, "region": _region_json(b.region)}


def _kernel_json(symbol: str, kernel: LaunchKernel) -> dict[str, Any]:
    settings = {n: _plain(v) for n, v in kernel.parameters.items()}
    return {"symbol": symbol, "operation": kernel.operation, "settings": settings, "open": dict(kernel.open)}


def _plain(value: Any) -> Any:
    # An element type (of a cast) is the one parameter that JSON has no word for.
    return (
        value
        if isinstance(value, (int, float, str, bool, tuple, list))
        else {"type": isa.ELEMENTS.index(value)}
    )


def _kernel(value: Mapping[str, Any]) -> LaunchKernel:
    def back(v: Any) -> Any:
        if isinstance(v, dict):
            return isa.ELEMENTS[v["type"]]
        return tuple(v) if isinstance(v, list) else v

    settings = Parameters({n: back(v) for n, v in value["settings"].items()})
    return LaunchKernel(value["operation"], settings, value["open"])


# --- running ---------------------------------------------------------------------------------------------
class NpuExecutor:
    """A program of the npu family on the emulator."""

    def __init__(self, file: FlatFile, sanitize: bool = False):
        self.program = decode(file)
        self.sram_peak_bytes = json.loads(bytes(file["plan"]))["sram_peak_bytes"]
        self.emulator = Emulator(self.program, sanitize=sanitize)
        self._timing: Timing | None = None

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """One inference."""
        return self.emulator.run(feeds)

    def collect(self, feeds: Feeds, wanted: Collection[str]) -> Level:
        """One inference, read from the emulated memory as it goes."""
        return collect_program("program", self.emulator, feeds, wanted)

    def timing(self) -> Timing:
        """The event simulation, done once."""
        if self._timing is None:
            self._timing = simulate(self.program)
        return self._timing

    def profile(self) -> dict[str, Any]:
        """Cycles, seconds, traffic and memory of one inference."""
        t = self.timing()
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
            "layers": {
                name: {
                    "engines": engines.get(name, []), "cycles": round(x.cycles), "macs": x.macs,
                    "dram_bytes_read": x.dram_bytes_read,
                    "dram_bytes_written": x.dram_bytes_written,
                }
                for name, x in t.layers.items()
            },
        }  # fmt: skip


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
