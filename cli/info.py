"""`nacre info`: what is in a program, in text of any level, in kernels, or in a source model."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import NacreError
from . import screen

if TYPE_CHECKING:
    from xdsl.dialects.builtin import ModuleOp

    from ..backends.program import NodeArg
    from ..backends.session import Session
    from ..dialects.ppu import FuncOp
    from ..passes.quantise.report import LayerRow
    from ..runtime.executable import Executable

HELP = "show what is in a program, text or model"
DESCRIPTION = """\
Show a .nacre program (memory, instructions, what each layer takes, where it runs, in which type and why), or
count what is in .mlir text, in OpenCL C kernels or in a source model. Of kernels, instructions are those
of the text, each counted once; 'nacre opt' shows what passes make of them.

  nacre info model.nacre
  nacre info model.nacre --check      # every checksum, the constants' too
  nacre info model.onnx --json
  nacre info kernel.cl -D T=float
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("file", metavar="FILE", help="a .nacre, .mlir, .cl, .onnx or .tflite file")
    parser.add_argument(
        "-D", action="append", default=[], dest="defines", metavar="NAME[=VALUE]", help="a macro for a .cl file; repeat"
    )  # fmt: skip
    parser.add_argument(
        "--shape", action="append", default=[], metavar="NAME=1,3,…", help="fixes an open input; repeat"
    )  # fmt: skip
    parser.add_argument("--check", action="store_true", help="compare all checksums of a .nacre file")
    parser.add_argument("--json", action="store_true", help="print as JSON")


def run(args: argparse.Namespace) -> None:
    """Look, then show."""
    from .opt import is_source
    from .output import mistake

    program = Path(args.file).suffix == ".nacre"
    if args.check and not program:
        raise mistake(f"--check compares the checksums of a .nacre file, and '{args.file}' is none")
    if args.shape and program:
        raise mistake("--shape: shapes are fixed in a compiled program; give it to nacre compile instead")
    if args.defines and not is_source(args.file):
        raise mistake(f"-D is for .cl sources, and '{args.file}' is none")
    if args.shape and is_source(args.file):
        raise mistake("--shape: kernels have no shapes; -D gives a .cl source its macros")
    if program:
        found = program_info(args.file, args.check)
    elif is_source(args.file):
        found = source_info(args.file, args.defines)
    else:
        found = model_info(args.file, args.shape)
    if args.json:
        screen.show_json(found)
    elif "kernels" in found:
        show_kernels(found)
    else:
        show(found)


# --- programs --------------------------------------------------------------------------------------------
def program_info(path: str, check: bool) -> dict[str, Any]:
    """What a .nacre file holds."""
    from ..backends.session import Session
    from ..runtime.executable import Executable
    from ..runtime.flatfile import open_file

    file = open_file(path)
    if check:
        file.check()
    session = Session(file)
    found: dict[str, Any] = {
        "file": path,
        "bytes": len(file.data),
        "family": file.family,
        "checked": "all checksums fit" if check else None,
        **signature(session),
        "sections": {name: len(body) for name, body in file.sections.items()},
        "profile": session.profile(),
        **program_types(session),
    }
    executable = getattr(session.executor, "program", None)
    if isinstance(executable, Executable):
        found |= executable_info(executable)
    else:
        found["operations"] = operations(session.executor.module)  # type: ignore[attr-defined]
    return found


def program_types(session: Session) -> dict[str, Any]:
    """The layers' types, if the program was told."""
    rows = session.executor.layers()
    if rows is None:
        return {}
    on_host = {row.layer: {"engines": [session.file.family]} for row in rows}
    return types(rows, session.profile().get("layers") or on_host)


def types(rows: Sequence[LayerRow], profiled: Mapping[str, Mapping[str, Any]] | None = None) -> dict[str, Any]:
    """Layers with type, reason, MACs and, of a program, engines; and each type's share of the MACs."""
    from ..passes.quantise.report import share_by_type

    found = []
    for row in rows:
        shown: dict[str, Any] = {"layer": row.layer, "operation": row.op, "type": row.type, "why": row.why}
        if profiled is not None:
            shown["engines"] = engines_of(row.layer, profiled)
        found.append({**shown, "macs": row.macs})
    return {"macs_by_type": share_by_type(rows), "layers": found}


def engines_of(layer: str, profiled: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The engines of the program's layers that hold a layer, itself or fused with others; none: it is gone."""
    parts = set(layer.split("+"))
    held = [x["engines"] for name, x in profiled.items() if name == layer] or [
        x["engines"] for name, x in profiled.items() if parts & set(name.split("+"))
    ]
    return list(dict.fromkeys(engine for engines in held for engine in engines))


def signature(session: Session) -> dict[str, Any]:
    """Inputs and outputs as plain values."""
    return {"inputs": sides(session.get_inputs()), "outputs": sides(session.get_outputs())}


def sides(values: Sequence[NodeArg]) -> list[dict[str, Any]]:
    """Inputs or outputs as plain values."""
    return [{"name": a.name, "shape": list(a.shape), "type": str(a.dtype)} for a in values]


def executable_info(program: Executable) -> dict[str, Any]:
    """Memory plan and instructions of a program of the npu family."""
    plan = [{"name": "constants", "address": 0, "bytes": len(program.constants)}]
    for kind, bindings in (("input", program.inputs), ("output", program.outputs), ("state", program.states)):
        for name, region in bindings:
            plan.append({"name": f"{kind} {name}", "address": region.address, "bytes": region.nbytes})
    plan.append({"name": "all of DRAM", "address": 0, "bytes": program.dram_bytes})
    return {
        "memory": plan,
        "sram_bytes": program.machine.sram_bytes,
        "operations": dict(Counter(c.cls.name for c in program.commands).most_common()),
    }


# --- modules ---------------------------------------------------------------------------------------------
def model_info(path: str, shapes: Sequence[str]) -> dict[str, Any]:
    """What a source model or text holds."""
    from ..backends.compile import load_model, with_static_main
    from ..backends.runnable import of_module
    from ..dialects.text import load_module
    from ..passes.quantise.report import kept_rows, layer_rows
    from .compile import parse_shapes

    if Path(path).suffix == ".mlir" and not shapes:
        text = load_module(path)
        if kernels := only_kernels(text):
            return kernels_info(path, kernels)
        module = with_static_main(text, Path(path))
    else:
        module = load_model(path, parse_shapes(list(shapes)) or None)
    runnable = of_module(module)
    found: dict[str, Any] = {
        "file": path,
        "level": runnable.level,
        "inputs": sides(runnable.inputs),
        "outputs": sides(runnable.outputs),
        "operations": operations(module),
        **constants(module),
    }
    if runnable.session is not None:
        found["profile"] = runnable.session.profile()
    elif runnable.level in ("graph", "qnn"):
        found["macs"] = sum(multiplications(module).values())
    rows = kept_rows(module) if runnable.level in ("npu", "schedule") else layer_rows(module)
    if rows is not None:
        found |= types(rows, found["profile"]["layers"] if "profile" in found else None)
    return found


def operations(module: ModuleOp) -> dict[str, int]:
    """Ops of @main by name, constants left out."""
    from ..runtime.interpreter import main_function

    names = (op.name for op in main_function(module).body.block.ops)
    quiet = ("func.return", "graph.constant", "npu.constant", "npu.data", "npu.tensor")
    return dict(Counter(name for name in names if name not in quiet).most_common())


def constants(module: ModuleOp) -> dict[str, int]:
    """Number of constant elements and their bytes."""
    from ..dialects.graph import ConstantOp
    from ..dialects.types import dtype_of, element_type, size_of

    found = [op.result for op in module.walk() if isinstance(op, ConstantOp)]
    if not found:
        return {}
    return {
        "parameters": sum(map(size_of, found)),
        "parameter_bytes": sum(size_of(v) * dtype_of(element_type(v)).itemsize for v in found),
    }


def multiplications(module: ModuleOp) -> dict[str, int]:
    """MACs of convolutions and matrix products, by op."""
    from ..runtime.macs import macs_of

    found: Counter[str] = Counter()
    for op in module.walk():
        if macs := macs_of(op):
            found[op.name] += macs
    return dict(found)


# --- kernels ---------------------------------------------------------------------------------------------
def source_info(path: str, defines: list[str]) -> dict[str, Any]:
    """What an OpenCL C source holds, as `nacre opt` gives it without passes. Raises NacreError where it is wrong."""
    from .opt import read_kernels

    kernels = only_kernels(read_kernels(path, defines))
    if not kernels:
        raise NacreError(f"'{path}' holds no kernel with these macros")
    return kernels_info(path, kernels)


def only_kernels(module: ModuleOp) -> list[FuncOp]:
    """The kernels of a module that holds nothing else; none where it does."""
    from ..dialects.ppu import FuncOp

    kernels = [op for op in module.ops if isinstance(op, FuncOp)]
    return kernels if len(kernels) == len(module.ops) else []


def kernels_info(path: str, kernels: Sequence[FuncOp]) -> dict[str, Any]:
    """Kernels with parameters, memory and instructions, none of which takes a launch."""
    return {"file": path, "level": "ppu", "kernels": [kernel_info(function) for function in kernels]}


def kernel_info(function: FuncOp) -> dict[str, Any]:
    """One kernel. `private_bytes` are a work item's, `local_bytes` a group's without what a launch passes.

    `cycles` are those of a wave that goes once through every instruction, both sides of decisions among them.
    """
    from ..dialects.ppu import Space
    from ..dialects.types import DTYPE_OF
    from ..runtime.ppu import prepare
    from ..runtime.ppu.slices import PRICES, instructions_by_class

    kernel = prepare(function)
    counts = instructions_by_class(kernel.body)
    memory = dict.fromkeys((Space.LOCAL, Space.PRIVATE), 0)
    for array in kernel.arrays:
        memory[array.target.space] += array.size * DTYPE_OF[array.target.element].itemsize
    return {
        "name": kernel.name,
        "parameters": [{"name": n, "type": str(t)} for n, t in zip(kernel.names, kernel.types)],
        "group": None if kernel.group is None else list(kernel.group),
        "local_bytes": memory[Space.LOCAL],
        "private_bytes": memory[Space.PRIVATE],
        "table_bytes": sum(t.contents.nbytes for t in kernel.tables),
        "instructions": {name: counts[name] for name in PRICES if counts[name]},
        "cycles": sum(n * PRICES[name].cycles for name, n in counts.items()),
    }


# --- showing ---------------------------------------------------------------------------------------------
def show(found: Mapping[str, Any]) -> None:
    """All of it for people."""
    profile = found.get("profile", {})
    names = ("file", "bytes", "family", "level", "checked", "parameters", "parameter_bytes", "macs")
    head = {n.replace("_", " "): found[n] for n in names if found.get(n) is not None}
    for side in ("inputs", "outputs"):
        for index, a in enumerate(found[side]):
            label = side if index == 0 else " " * index
            head[label] = f"{a['name']}  {a['type']}{a['shape']}"
    if found.get("macs_by_type"):
        shares = (f"{type_} {share:.1%}" for type_, share in found["macs_by_type"].items())
        head["macs by type"] = ", ".join(shares)
    screen.show_pairs(head | screen.profile_pairs(profile))
    if "sections" in found:
        table("section", ("bytes",), [(n, size) for n, size in found["sections"].items()])
    if "memory" in found:
        rows = [(m["name"], m["address"], m["bytes"]) for m in found["memory"]]
        table("in DRAM", ("address", "bytes"), rows)
    what = "instruction" if "memory" in found else "operation"
    table(what, ("count",), list(found["operations"].items()))
    if profile.get("kernels"):
        spent = [
            (f"@{n}", k["launches"], k["cycles"], sum(k["instructions"].values()), f"{k['divergence']:.0%}")
            for n, k in profile["kernels"].items()
        ]
        table("kernel", ("launches", "cycles", "instructions", "idle lanes"), spent)
    if profile.get("layers"):
        print()
        screen.show_layers(profile["layers"])
    show_types(found.get("layers", ()))


def show_kernels(found: Mapping[str, Any]) -> None:
    """A paragraph a kernel, and a row of its instructions by class."""
    screen.show_pairs({n: found[n] for n in ("file", "level")})
    for kernel in found["kernels"]:
        print()
        head: dict[str, Any] = {"kernel": f"@{kernel['name']}"}
        for index, p in enumerate(kernel["parameters"]):
            head["parameters" if index == 0 else " " * index] = f"{p['name']}  {p['type']}"
        head["group"] = kernel["group"] or "any"
        sizes = ("local_bytes", "private_bytes", "table_bytes")
        screen.show_pairs(head | {n.replace("_", " "): kernel[n] for n in sizes if kernel[n]})
    classes = list(dict.fromkeys(name for kernel in found["kernels"] for name in kernel["instructions"]))
    rows = [(f"@{k['name']}", *(k["instructions"].get(c, 0) for c in classes), k["cycles"]) for k in found["kernels"]]
    table("kernel", (*classes, "cycles once"), rows)


def show_types(layers: Sequence[Mapping[str, Any]]) -> None:
    """A row a layer: where it runs, in which type and why."""
    if not layers:
        return
    compiled = "engines" in layers[0]
    columns = ("layer", *(["runs on"] if compiled else []), "type and why", "MACs")
    rows = []
    for x in layers:
        engines = [" ".join(x["engines"]) or "(gone)"] if compiled else []
        why = f": {x['why']}" if x["why"] else ""
        rows.append((x["layer"] or f"({x['operation']})", *engines, f"{x['type']}{why}", x["macs"]))
    print()
    screen.show_table("", columns, rows, text=len(columns) - 1)


def table(what: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A small table below a free line."""
    print()
    screen.show_table("", (what, *columns), rows)
