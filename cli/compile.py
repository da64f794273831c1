"""`nacre compile`: from a model to a `.nacre` file, or to the text of a level on the way."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from . import output, screen

HELP = "compile a model into a .nacre file"
DESCRIPTION = """\
Compile an .onnx or .tflite model (or .mlir text at the graph or qnn level) for a target.

  nacre compile model.onnx --target v853 --calibration samples/ -o model.nacre
  nacre compile model.onnx --dtype float32 --shape image=1,3,224,224
  nacre compile model.onnx --calibration samples.npz --stop-after qnn
  nacre compile model.onnx --calibration samples/ --quant-table mixed.yaml

Integer types need calibration data: .npy or .npz files with representative inputs.
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    compile_options(parser)
    parser.add_argument(
        "--stop-after", choices=("graph", "qnn", "npu", "schedule"), help="write that level as .mlir instead"
    )
    parser.add_argument(
        "--write-quant-table", metavar="FILE", help="write what was quantised how, for --quant-table"
    )
    parser.add_argument("-o", "--output", metavar="OUT", help="default: the model's name, in this folder")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def compile_options(parser: argparse.ArgumentParser) -> None:
    """The model and how to compile it, for every command that compiles."""
    parser.add_argument("model", metavar="MODEL", help="an .onnx or .tflite file, or .mlir text")
    parser.add_argument(
        "--target", default="v853", metavar="NAME|FILE", help="a machine's name or .toml file; default v853"
    )
    parser.add_argument(
        "--dtype",
        help="int8, uint8, int16, int16x8 or float32; default int8, or what a quantised model is in",
    )
    parser.add_argument(
        "--calibration", metavar="DIR|NPZ", help="a folder of .npy/.npz files, or one such file"
    )
    parser.add_argument(
        "--calibration-method", default="min-max", metavar="METHOD", help="min-max or percentile"
    )  # fmt: skip
    parser.add_argument(
        "--quant-table", metavar="T.yaml", help="types of layers, ranges of tensors; see docs/quantisation.md"
    )
    parser.add_argument(
        "--shape", action="append", default=[], metavar="NAME=1,3,…", help="fixes an open input; repeat"
    )  # fmt: skip
    parser.add_argument("--no-fuse", action="store_true", help="keep layers apart that could be joined")


def compile_settings(args: argparse.Namespace) -> dict[str, Any]:
    """What `compile_options` took, as keyword arguments of `nacre.compile`."""
    return {
        "target": args.target,
        "dtype": args.dtype,
        "calibration": args.calibration,
        "calibration_method": args.calibration_method,
        "quant_table": args.quant_table,
        "shapes": parse_shapes(args.shape) or None,
        "fuse": not args.no_fuse,
    }


def run(args: argparse.Namespace) -> None:
    """Compile, write, report."""
    out = output_path(args)
    check = output.check_text_writable if args.stop_after else output.check_writable
    check(out, *files_read(args))
    table = checked_table_path(args, out)
    settings = compile_settings(args)
    from ..backends.compile import compile

    with screen.progress() as progress:
        program = compile(args.model, **settings, stop_after=args.stop_after, progress=progress)
    report: dict[str, Any] = {**program.report, "output": str(out)}
    used = report.pop("quant_table", None)
    if table is not None:
        write_table(table, used)
        report["quant_table"] = str(table)
    if args.stop_after:
        from ..dialects.text import save_module

        save_module(program.levels[args.stop_after], out)
    else:
        from ..backends.session import Session

        report["profile"] = Session(program).profile()  # before the file is there: this can still refuse
        program.save(out)
        if out.is_file():
            report["bytes"] = out.stat().st_size
    if args.json:
        screen.show_json(report)
    else:
        show(report)


def checked_table_path(args: argparse.Namespace, out: Path) -> Path | None:
    """Where the table used goes, if anywhere; refused before the work begins."""
    if args.write_quant_table is None:
        return None
    path = Path(args.write_quant_table)
    if args.stop_after == "graph":
        raise output.mistake("--write-quant-table: nothing is quantised with --stop-after graph")
    if path.absolute() == out.absolute():
        raise output.mistake(f"--write-quant-table and -o both name '{path}': give each a file of its own")
    output.check_writable(path, *files_read(args))
    return path


def write_table(path: Path, used: str | None) -> None:
    """Write the table that a compilation used."""
    from ..runtime.flatfile import write_whole

    if used is None:
        raise output.mistake("--write-quant-table: no layer was quantised here, so there is no table to write")
    write_whole(path, used.encode())


def files_read(args: argparse.Namespace) -> list[Path]:
    """The files that a compilation reads, which no output may replace."""
    calibration = Path(args.calibration) if args.calibration else None
    inside = sorted(calibration.iterdir()) if calibration is not None and calibration.is_dir() else []
    named = [calibration] if calibration is not None else []
    if args.quant_table:
        named.append(Path(args.quant_table))
    return [*output.with_constants(args.model), Path(args.target), *named, *inside]


def output_path(args: argparse.Namespace) -> Path:
    """Where the result goes."""
    suffix = ".mlir" if args.stop_after else ".nacre"
    if args.output is None:
        stem = Path(args.model).stem
        return Path(f"{stem}.{args.stop_after}{suffix}" if args.stop_after else f"{stem}{suffix}")
    path = Path(args.output)
    if args.stop_after and path.suffix != suffix:
        raise output.mistake(f"--stop-after writes {suffix} text, so '{path}' should end in {suffix}")
    return path


def parse_shapes(given: list[str]) -> dict[str, list[int]]:
    """`name=1,3,224,224` by name."""
    shapes = {}
    for text in given:
        name, equals, sizes = text.rpartition("=")
        try:
            shapes[name] = [int(size) for size in sizes.split(",")]
        except ValueError:
            equals = ""
        if not equals or not name:
            raise output.mistake(f"--shape '{text}' is not of the form NAME=1,3,224,224")
    return shapes


def show(report: dict[str, Any]) -> None:
    """The report for people."""
    head = {"written": report["output"]}
    if "quant_table" in report:
        head["table"] = report["quant_table"]
    head |= {"target": report["target"], "dtype": report["dtype"]}
    if "bytes" in report:
        head["file bytes"] = report["bytes"]
    head["compiled in"] = screen.seconds_text(report["total_seconds"])
    profile = {k: v for k, v in report.get("profile", {}).items() if k != "machine"}
    screen.show_pairs(head | screen.profile_pairs(profile))
