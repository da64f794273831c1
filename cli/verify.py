"""`nacre verify`: all levels of a compilation, or a saved program, against the source framework."""

from __future__ import annotations

import argparse
import importlib.util
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import output, screen

if TYPE_CHECKING:
    from ..backends.verify import Report
    from ..runtime.comparison import Row

HELP = "compare all levels with the source framework, layer by layer"
DESCRIPTION = """\
Compile an .onnx or .tflite model and compare every level with ONNX Runtime or LiteRT, tensor by tensor.

  nacre verify model.onnx --calibration samples/ --input image=cat.npy
  nacre verify model.onnx --calibration samples/ --samples others.npz --worst 5
  nacre verify model.onnx --dtype float32 --random 0 --json
  nacre verify model.onnx --calibration samples/ --random 0 --program own.nacre

The float level has to agree with the source within a tolerance, the levels below and the program bit for bit,
and the outputs with the source to --min-sqnr. A tensor that the compiler fused away is listed with the layer
that took it in; one behind a convolution or matrix product that stays float may differ a little (≈). The exit
code is 1 where something does not hold, or where nothing could be compared.
"""
WIDTH = 80
NUMBERS = 28
"""Columns of the table's numbers, with the gaps between all columns."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    from .compile import compile_options

    compile_options(parser)
    inputs = parser.add_mutually_exclusive_group(required=True)
    inputs.add_argument(
        "--input", action="append", metavar="NAME=FILE.npy", help="an input's array to compare on; repeat"
    )
    inputs.add_argument("--samples", metavar="DIR|NPZ", help="many samples, in the forms of --calibration")
    inputs.add_argument("--random", type=screen.seed, metavar="SEED", help="random values in the calibrated range")
    parser.add_argument("--program", metavar="FILE.nacre", help="compare this program with the source")
    parser.add_argument(
        "--min-sqnr", type=float, metavar="DB", help="what quantised outputs must have; default 20"
    )
    parser.add_argument("--worst", type=int, metavar="N", help="show the N tensors with the lowest SQNR only")
    parser.add_argument("--plot", metavar="FILE.png", help="draw the SQNR of each tensor")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")


def run(args: argparse.Namespace) -> None:
    """Compare, show, and raise NacreError where it does not hold."""
    if args.plot:
        from .compile import files_read

        read = [*files_read(args), *(Path(p) for p in (args.samples, args.program) if p)]
        output.check_writable(Path(args.plot), *read)
        if importlib.util.find_spec("matplotlib") is None:
            raise output.mistake("--plot needs matplotlib, which the extra 'plot' installs: nacre[plot]")
    if args.worst is not None and args.worst < 1:
        raise output.mistake(f"--worst {args.worst} shows nothing: give a number from 1 on")
    from ..backends.verify import verify
    from .compile import compile_settings

    settings = compile_settings(args)
    inputs = args.samples
    if args.input:
        inputs = given_inputs(args.input, args.model, settings["shapes"])
    with screen.progress() as progress:
        report = verify(
            args.model,
            inputs,
            random=args.random,
            program=args.program,
            progress=progress,
            **settings,
            **({} if args.min_sqnr is None else {"min_sqnr": args.min_sqnr}),
        )
    if args.json:
        screen.show_json(report.to_json())
    else:
        show(report, args.worst)
    if args.plot:
        plot(report, args.plot)
    if not report.holds:
        sys.stdout.flush()
        raise output.mistake("verification failed:\n" + "\n".join(f"  {text}" for text in report.failures))


def given_inputs(given: Sequence[str], model: str, shapes: Any) -> list[dict[str, Any]]:
    """The one sample of `--input`."""
    from ..backends.runnable import open_runnable
    from .run import read_inputs

    return [read_inputs(given, open_runnable(model, shapes=shapes).inputs)]


# --- the table -------------------------------------------------------------------------------------------
def show(report: Report, worst: int | None) -> None:
    """A row a tensor, then the summary."""
    from rich.table import Table
    from rich.text import Text

    names = (screen_width() - NUMBERS) // 2
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("layer", width=names)
    table.add_column("tensor", width=names)
    for title in ("graph", "SQNR", "bits"):
        table.add_column(title, justify="right", no_wrap=True)
    for row in rows_to_show(report, worst):
        into = row.fused.get(report.measured)
        tensor = short(row.tensor.name, names)
        if into is not None:
            tensor += "\n→ " + short(into or "nothing: reaches no output", names - 2)
        figures = graph_cell(row), sqnr_cell(report, row), bits_cell(report, row)
        table.add_row(*(Text(cell) for cell in (short(row.tensor.layer, names), tensor, *figures)))
    screen.show_table_on_stdout(table)
    print()
    screen.show_pairs(summary(report))
    for text in report.warnings:
        screen.note(f"nacre: warning: {text}")


def screen_width() -> int:
    """The terminal's width, 80 elsewhere."""
    import shutil

    return max(shutil.get_terminal_size((WIDTH, 24)).columns, WIDTH) if sys.stdout.isatty() else WIDTH


def rows_to_show(report: Report, worst: int | None) -> list[Row]:
    """All tensors in the model's order, or those with the lowest SQNR, the worst first."""
    if worst is None:
        return report.rows
    compared = [row for row in report.rows if report.measured in row.statistics]
    return sorted(compared, key=lambda row: row.statistics[report.measured].sqnr)[:worst]


def short(name: str, width: int) -> str:
    """A name that fits: its middle left out, since exporters tell names apart at both ends."""
    if len(name) <= width:
        return name
    head = (width - 1) // 3
    return f"{name[:head]}…{name[head + 1 - width :]}"


def graph_cell(row: Row) -> str:
    """The float level's largest error as a share of the tensor's largest magnitude."""
    statistic = row.statistics.get("graph")
    if statistic is None:
        return "-"
    return "equal" if statistic.max_abs == 0 else f"{statistic.relative:.1e}"


def sqnr_cell(report: Report, row: Row) -> str:
    """The lowest level's signal-to-noise ratio."""
    statistic = row.statistics.get(report.measured)
    if statistic is None:
        return "fused"
    if not math.isfinite(statistic.sqnr):
        return "equal" if statistic.sqnr > 0 else "-inf"
    return f"{statistic.sqnr:.1f}"


def bits_cell(report: Report, row: Row) -> str:
    """Whether the levels below the graph have the same bits; ≈ where they need not."""
    from ..backends.verify import unequal

    if not row.bits:
        return "-"
    differing = max(bits.differing for bits in row.bits.values())
    if differing and not any(unequal(report, row, pair) for pair in row.bits):
        return f"≈{differing}"
    return f"≠{differing}" if differing else "="


def summary(report: Report) -> dict[str, Any]:
    """The figures in short."""
    measured = [row for row in report.rows if report.measured in row.statistics]
    found = {
        "compared": f"{len(measured)} of {len(report.rows)} tensors on {report.samples} "
        f"sample{'' if report.samples == 1 else 's'}, the others are fused",
        "levels": " → ".join([report.framework, *report.levels]),
        "program": report.program or f"compiled for {report.target}, {report.dtype}",
    }
    for name in report.outputs:
        row = report.comparison.rows.get(name)
        if row is not None and (statistic := row.statistics.get(report.measured)) is not None:
            found[f"output {short(name, 24)}"] = (
                f"SQNR {sqnr_cell(report, row)} dB, cosine {statistic.cosine:.6f}, "
                f"largest error {statistic.max_abs:.3g}"
            )
    found["verdict"] = "holds" if report.holds else "does not hold, for the reasons below"
    return found


# --- the plot --------------------------------------------------------------------------------------------
def plot(report: Report, path: str) -> None:
    """A bar a tensor: the SQNR at the lowest level, in the model's order; what is equal has no bar."""
    from matplotlib.figure import Figure  # pyright: ignore[reportMissingImports]

    rows = [row for row in report.rows if report.measured in row.statistics]
    heights = [row.statistics[report.measured].sqnr for row in rows]
    figure = Figure(figsize=(max(6.0, 0.18 * len(rows)), 4.5), layout="constrained")
    axes = figure.subplots()
    axes.bar(range(len(rows)), [h if math.isfinite(h) else 0.0 for h in heights])
    axes.set_xticks(range(len(rows)), [short(row.tensor.name, 24) for row in rows], rotation=90, fontsize=6)
    axes.set_ylabel(f"SQNR against {report.framework}, dB")
    axes.set_title(f"{Path(report.model).name}, {report.dtype}, {report.measured} level")
    try:
        figure.savefig(path)
    except ValueError as error:  # an ending that is no format it knows
        raise output.mistake(f"'{path}' cannot be drawn: {error}") from None
    screen.note(f"nacre: written: {path}")
