"""`make demo`: compiles the digits network for two machines, runs it on their emulators, shows every level.

Everything printed is computed here and now. The exit code is 1 when int8 loses more than half a point of
accuracy, or when two machines or two levels of the compiler give different bits.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nacre
import numpy as np
from nacre.dialects.nacre import sources_of
from nacre.dialects.npu import Instruction
from nacre.runtime.comparison import Statistic, collect_module
from nacre.runtime.interpreter import interpret, main_function
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import track
from rich.table import Table
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation

FOLDER = Path(__file__).parent
MODEL = FOLDER / "digits.onnx"
MACHINES = ("v853", "tiny")
TOLERATED_LOSS = 0.005
COMPARED_LAYERWISE = 16
BUSIEST = 6

out = Console(width=80, highlight=False, soft_wrap=False)
err = Console(stderr=True, highlight=False)


@dataclass
class Results:
    """Output probabilities `[images, 10]` of each way to run; `tiny` and `qnn` hold fewer images."""

    labels: np.ndarray
    graph: np.ndarray
    npu: np.ndarray
    tiny: np.ndarray
    qnn: np.ndarray
    onnxruntime: np.ndarray | None = None


def main(arguments: Sequence[str] | None = None) -> int:
    """The demo; gives the exit code."""
    options = parse(arguments)
    started = time.perf_counter()
    images, labels, calibration = load(options.images)
    out.print(f"[bold]Nacre[/] compiles {MODEL.name} to int8 and runs it on emulated NPUs\n")
    programs = {machine: compiled(machine, calibration) for machine in MACHINES}
    sessions = {machine: nacre.Session(program) for machine, program in programs.items()}
    show_levels(programs)

    big, small = programs["v853"], sessions["tiny"]
    few = images[: options.tiny_images]
    results = Results(
        labels=labels,
        graph=run("float, graph level", images, lambda feeds: only(interpret(big.levels["graph"], feeds))),
        npu=run("int8 on v853", images, lambda feeds: sessions["v853"].run(None, feeds)[0]),
        tiny=run("int8 on tiny", few, lambda feeds: small.run(None, feeds)[0]),
        qnn=run("int8, qnn level", few, lambda feeds: only(interpret(big.levels["qnn"], feeds))),
        onnxruntime=run_onnxruntime(images),
    )
    show_accuracy(results)
    profiles = {machine: session.profile() for machine, session in sessions.items()}
    show_machines(sessions, profiles)
    show_layers(layer_sqnr(big, sessions["v853"], images[:COMPARED_LAYERWISE]))
    show_busiest(profiles)

    complaints = verdict(results)
    seconds = time.perf_counter() - started
    for complaint in complaints:
        out.print(f"[red]FAILED[/] {complaint}")
    if not complaints:
        integer, exact = top1(results.npu, labels), top1(results.graph, labels)
        out.print(f"[green]OK[/] int8 gets {integer:.2%} of {len(labels)} images right, float {exact:.2%};")
        out.print(f"   the same bits on v853, on tiny and at the qnn level; {seconds:.0f} s in all")
    return 1 if complaints else 0


def verdict(results: Results) -> list[str]:
    """What is wrong with the results, in sentences; nothing when all is well."""
    complaints = []
    exact, integer = top1(results.graph, results.labels), top1(results.npu, results.labels)
    if round(exact - integer, 9) > TOLERATED_LOSS:
        complaints.append(f"int8 top-1 is {integer:.2%}, more than half a point below float's {exact:.2%}")
    for name, other in {"tiny": results.tiny, "the qnn level": results.qnn}.items():
        if not len(other):
            complaints.append(f"nothing ran on {name}, so no bits were compared")
        differing = int((results.npu[: len(other)] != other).any(axis=1).sum())
        if differing:
            complaints.append(f"v853 and {name} give different bits for {differing} of {len(other)} images")
    return complaints


# --- data and runs ---------------------------------------------------------------------------------------
def load(count: int) -> tuple[np.ndarray, np.ndarray, list[dict[str, np.ndarray]]]:
    """Held-out images [N, 1, 1, 48, 48] and labels [N], and the calibration samples."""
    with np.load(FOLDER / "digits.npz") as arrays:
        images, labels, calibration = arrays["images"], arrays["labels"], arrays["calibration"]
    return as_input(images[:count]), labels[:count], [{"image": image} for image in as_input(calibration)]


def as_input(pixels: np.ndarray) -> np.ndarray:
    """uint8 [N, 48, 48] as what the network takes: float32 [N, 1, 1, 48, 48] in 0 … 1."""
    return pixels[:, None, None].astype(np.float32) / np.float32(255)


def compiled(machine: str, calibration: Sequence[Mapping[str, np.ndarray]]) -> nacre.Program:
    """The network compiled for a machine."""
    start = time.perf_counter()
    with err.status(f"compiling for {machine}"):
        program = nacre.compile(MODEL, target=machine, dtype="int8", calibration=calibration)
    seconds = time.perf_counter() - start
    err.print(f"compiled for {machine} with {len(calibration)} calibration images: {seconds:.1f} s")
    return program


def run(what: str, images: np.ndarray, infer: Callable[[dict[str, np.ndarray]], np.ndarray]) -> np.ndarray:
    """The outputs `[N, 10]` for images, with progress."""
    start = time.perf_counter()
    shown = track(images, f"{what:20}", console=err, transient=True, disable=not err.is_terminal)
    found = np.array([infer({"image": image}).reshape(-1) for image in shown])
    err.print(f"{what}: {len(images)} images, {time.perf_counter() - start:.1f} s")
    return found


def run_onnxruntime(images: np.ndarray) -> np.ndarray | None:
    """The outputs of ONNX Runtime in float32; None where it is not installed."""
    if importlib.util.find_spec("onnxruntime") is None:
        return None
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(MODEL, settings, providers=["CPUExecutionProvider"])
    return run("float, ONNX Runtime", images, lambda feeds: session.run(None, feeds)[0])


def only(results: Mapping[str, np.ndarray]) -> np.ndarray:
    """The single output."""
    (array,) = results.values()
    return array


# --- figures ---------------------------------------------------------------------------------------------
def top1(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The share of images whose label is the most probable class."""
    return float((probabilities.argmax(axis=1) == labels).mean())


def sqnr(signal: float, noise: float) -> float:
    """Signal to quantisation noise in dB."""
    return 10 * float(np.log10(signal / noise)) if noise else float("inf")


def layer_sqnr(program: nacre.Program, session: nacre.Session, images: np.ndarray) -> dict[str, float | None]:
    """SQNR in dB of each tensor of the source model in the npu program against the float graph.

    None for a tensor that fusion left no place for in memory.
    """
    graph = program.levels["graph"]
    tensors = {s.tensor for op in graph.walk() for value in op.results for s in sources_of(value)}
    found: dict[str, Statistic | None] = {}
    for image in images:
        exact = collect_module("graph", graph, {"image": image}, tensors)
        compiled = session.executor.collect({"image": image}, tensors)
        for name, (expected, *_) in exact.held.items():
            held = compiled.held.get(name)
            statistic = found.setdefault(name, Statistic() if held else None)
            if statistic is not None and held:
                statistic.add(expected.real, held[0].real)
    return {name: statistic.sqnr if statistic else None for name, statistic in found.items()}


# --- tables ----------------------------------------------------------------------------------------------
def table(title: str, *columns: str) -> Table:
    """A table whose first column is text and whose others are numbers."""
    made = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(columns):
        made.add_column(column, justify="right" if index else "left", overflow="fold")
    return made


def operations(module: ModuleOp) -> Iterator[Operation]:
    """What a level computes: its ops without constants, views and the bookkeeping of memory."""
    silent = ("constant", "alloc", "view", "reshape", "data", "tensor", "return")
    for op in main_function(module).body.block.ops:
        if op.name.split(".")[-1] not in silent:
            yield op


def show_levels(programs: Mapping[str, nacre.Program]) -> None:
    """How many ops of which kind there are at each level."""
    made = table("Levels", "level", "ops", "what they are")
    made.columns[2].justify = "left"
    made.columns[2].overflow = "fold"
    rows = [("graph", "v853", "graph"), ("qnn", "v853", "qnn"), ("npu (whole layers)", "v853", "npu")]
    rows += [(f"instructions, {m}", m, "schedule") for m in programs]
    for title, machine, level in rows:
        ops = list(operations(programs[machine].levels[level]))
        if level == "schedule":
            ops = [op for op in ops if isinstance(op, Instruction)]
        kinds = Counter(op.name.split(".")[-1] for op in ops)
        text = ", ".join(f"{n} {name}" for name, n in kinds.most_common(6))
        made.add_row(title, f"{len(ops):,}", text + (", …" if len(kinds) > 6 else ""))
    out.print(made)


def show_accuracy(results: Results) -> None:
    """Accuracy of float and int8, and how far apart their outputs are."""
    made = table("Accuracy", "run", "images", "top-1", "output SQNR", "largest Δ probability")

    def row(name: str, found: np.ndarray, against: np.ndarray | None) -> None:
        cells = ["", ""]
        if against is not None:
            wanted = against[: len(found)].astype(np.float64)
            error = wanted - found
            ratio = sqnr(float(np.square(wanted).sum()), float(np.square(error).sum()))
            cells = [f"{ratio:.1f} dB", f"{np.abs(error).max():.6f}"]
        made.add_row(name, f"{len(found)}", f"{top1(found, results.labels[: len(found)]):.2%}", *cells)

    row("float, graph level", results.graph, None)
    if results.onnxruntime is not None:
        row("float, ONNX Runtime", results.onnxruntime, results.graph)
    row("int8, v853", results.npu, results.graph)
    row("int8, tiny", results.tiny, results.graph)
    row("int8, qnn level", results.qnn, results.graph)
    out.print(made)
    out.print("[dim]SQNR and Δ against the float graph level.[/]\n")


def show_machines(sessions: Mapping[str, nacre.Session], profiles: Mapping[str, Mapping[str, Any]]) -> None:
    """One inference on each machine, by the event simulation."""
    made = table("One inference", "", *profiles)
    machines = {m: s.executor.program.machine for m, s in sessions.items()}  # type: ignore[attr-defined]

    def row(title: str, cell: Callable[[Any, Mapping[str, Any]], str]) -> None:
        made.add_row(title, *(cell(machines[m], p) for m, p in profiles.items()))

    row("clock", lambda machine, p: f"{machine.clock_hz / 1e6:,.0f} MHz")
    row("MACs a cycle, peak", lambda machine, p: f"{machine.macs_per_cycle:,}")
    row("instructions", lambda machine, p: f"{p['instructions']:,}")
    row("cycles", lambda machine, p: f"{p['cycles']:,}")
    row("latency", lambda machine, p: f"{p['seconds'] * 1e3:.3f} ms")
    row("MAC utilisation", lambda machine, p: f"{p['utilisation']:.1%}")
    row("DRAM read", lambda machine, p: f"{p['dram_bytes_read']:,} B")
    row("DRAM written", lambda machine, p: f"{p['dram_bytes_written']:,} B")
    row("SRAM, peak of", lambda machine, p: f"{p['sram_peak_bytes']:,} of {machine.sram_bytes:,} B")
    row("DRAM arena", lambda machine, p: f"{p['arena_bytes']:,} B")
    row("constants", lambda machine, p: f"{p['constant_bytes']:,} B")
    for engine in ("nn", "fabric", "ppu", "dma"):
        row(f"{engine} busy", lambda machine, p, e=engine: f"{p['busy_cycles'].get(e, 0) / p['cycles']:.1%}")  # type: ignore[misc]
    out.print(made)


def show_layers(found: Mapping[str, float | None]) -> None:
    """Fidelity of each source tensor, and what fusion took away."""
    made = table("Layer by layer: v853 against float", "source tensor", "SQNR")
    for name, value in found.items():
        if value is not None:
            made.add_row(name, f"{value:.1f} dB")
    out.print(made)
    gone = [name for name, value in found.items() if value is None]
    if gone:
        out.print(f"[dim]Fused away, in no memory to look at: {', '.join(gone)}[/]\n")


def show_busiest(profiles: Mapping[str, Mapping[str, Any]]) -> None:
    """Where each machine's cycles go."""
    for machine, profile in profiles.items():
        made = table(f"Busiest layers on {machine}", "layer", "cycles", "share", "MACs", "DRAM bytes")
        ranked = sorted(profile["layers"].items(), key=lambda item: -item[1]["cycles"])
        for layer, figures in ranked[:BUSIEST]:
            share = figures["cycles"] / profile["cycles"]
            moved = figures["dram_bytes_read"] + figures["dram_bytes_written"]
            row = [f"{figures['cycles']:,}", f"{share:.1%}", f"{figures['macs']:,}", f"{moved:,}"]
            made.add_row(short(layer), *row)
        out.print(made)


def short(layer: str) -> str:
    """`a.conv+a.bn+a.relu` as `a.conv+bn+relu`."""
    first, *others = layer.split("+")
    prefix = first.rpartition(".")[0] + "."
    return "+".join([first, *(other.removeprefix(prefix) for other in others)])


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m nacre.examples.digits.demo",
        description="Compile the digits network for two NPUs, run it on emulators, and show every level.",
    )
    parser.add_argument("--images", type=int, default=450, help="held-out images on v853 (default: all 450)")
    parser.add_argument("--tiny-images", type=int, default=24, help="how many of them on tiny (default: 24)")
    options = parser.parse_args(arguments)
    if not 1 <= options.tiny_images <= options.images <= 450:
        parser.error("1 ≤ --tiny-images ≤ --images ≤ 450 is needed")
    return options


if __name__ == "__main__":
    sys.exit(main())
