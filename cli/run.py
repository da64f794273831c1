"""`nacre run`: one inference of a program, of text at any level, or of a source model."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from . import output, screen

if TYPE_CHECKING:
    from ..backends.program import NodeArg
    from ..backends.runnable import Runnable

HELP = "run a program, a model, or text of any level"
DESCRIPTION = """\
Run a .nacre program on the emulator, .mlir text of any level, or a source model.

  nacre run model.nacre --input image=cat.npy --output result.npz
  nacre run model.nacre --random 0 --profile
  nacre run model.qnn.mlir --input image=cat.npy
  nacre run model.nacre --random 0 --sanitize --trace trace.json

Without --output a summary of each output is printed.
"""
SHOWN_VALUES = 16
"""Outputs of up to this many values are shown in full."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("file", metavar="FILE", help="a .nacre, .mlir, .onnx or .tflite file")
    parser.add_argument(
        "--input", action="append", default=[], metavar="NAME=FILE.npy", help="an input's array; repeat"
    )
    parser.add_argument(
        "--random", type=screen.seed, metavar="SEED", help="random values for the inputs that --input does not give"
    )
    parser.add_argument(
        "--shape", action="append", default=[], metavar="NAME=1,3,…", help="fixes an open input; repeat"
    )  # fmt: skip
    parser.add_argument("--output", metavar="OUT.npz", help="write the outputs by name")
    parser.add_argument(
        "--sanitize", action="store_true", help="look for races, unwritten bytes, bounds and overflow"
    )
    parser.add_argument("--trace", metavar="T.json", help="write the run's time line, for ui.perfetto.dev")
    parser.add_argument("--profile", action="store_true", help="show cycles, traffic and memory")
    parser.add_argument("--json", action="store_true", help="print outputs and profile as JSON")


def run(args: argparse.Namespace) -> None:
    """Load, feed, run, show."""
    if args.shape and Path(args.file).suffix == ".nacre":
        raise InputError("--shape: shapes are fixed in a compiled program; give it to nacre compile instead")
    if args.output and args.trace and Path(args.output).absolute() == Path(args.trace).absolute():
        raise InputError(f"--output and --trace both name '{args.output}': give each a file of its own")
    for path in (args.output, args.trace):
        if path:
            output.check_writable(Path(path), *files_read(args))
    from ..backends.runnable import open_runnable
    from .compile import parse_shapes

    runnable = open_runnable(args.file, args.sanitize, parse_shapes(args.shape) or None)
    feeds = read_inputs(args.input, runnable.inputs)
    known = [a.name for a in runnable.inputs]
    for name in feeds:
        if name not in known:
            raise InputError(f"there is no input '{name}'; the inputs are {', '.join(map(repr, known))}")
    missing = [a for a in runnable.inputs if a.name not in feeds]
    if missing and args.random is None:
        raise InputError(
            f"'{args.file}' needs " + ", ".join(f"{a.name} ({a.dtype}{a.shape})" for a in missing)
            + ": give --input NAME=FILE.npy for each, or --random SEED"
        )  # fmt: skip
    if args.random is not None:
        feeds |= random_feeds(missing, args.random)
    refuse_clockless(args, runnable)
    results = runnable.run(feeds)
    if args.output:
        output.write_npz(Path(args.output), results)
    if args.trace:
        write_trace(runnable, args.trace)
    profile = runnable.session.profile() if args.profile and runnable.session is not None else None
    show(args, results, profile)


def files_read(args: argparse.Namespace) -> list[Path]:
    """The files of a run, which no output may replace."""
    arrays = [Path(text[i + 1 :]) for text in args.input for i, c in enumerate(text) if c == "="]
    return [*output.with_constants(args.file), *arrays]


def read_inputs(given: Sequence[str], inputs: Sequence[NodeArg]) -> dict[str, np.ndarray]:
    """The arrays of `NAME=FILE.npy`. Raises InputError for a file without one, or a name given twice."""
    feeds: dict[str, np.ndarray] = {}
    known = [a.name for a in inputs]
    for text in given:
        name, equals, file = text.partition("=")
        if name not in known and (longer := [n for n in known if text.startswith(f"{n}=")]):
            name, equals, file = longer[0], "=", text[len(longer[0]) + 1 :]  # a name may hold '=' itself
        if not equals or not file:
            raise InputError(f"--input '{text}' is not of the form NAME=FILE.npy")
        if name in feeds:
            raise InputError(f"the input '{name}' is given twice")
        feeds[name] = read_array(file)
    return feeds


def read_array(file: str) -> np.ndarray:
    """The array of an .npy file."""
    from ..backends.calibration import read_arrays

    array = read_arrays(file)
    if not isinstance(array, np.ndarray):
        raise InputError(f"'{file}' holds several arrays: give one .npy file an input")
    return array


def random_feeds(inputs: Sequence[NodeArg], seed: int) -> dict[str, np.ndarray]:
    """Standard normal floats, any 8- and 16-bit integers; wider ones, mostly indices, are 0 or 1."""
    rng = np.random.default_rng(seed)
    feeds = {}
    for item in inputs:
        if item.dtype.kind == "f":
            feeds[item.name] = rng.standard_normal(item.shape).astype(item.dtype)
        elif item.dtype.kind == "b" or item.dtype.itemsize > 2:
            feeds[item.name] = rng.integers(0, 2, item.shape).astype(item.dtype)
        else:
            info = np.iinfo(item.dtype)
            feeds[item.name] = rng.integers(info.min, info.max, item.shape, item.dtype, endpoint=True)
    return feeds


def refuse_clockless(args: argparse.Namespace, runnable: Runnable) -> None:
    """Raise InputError where a time line or profile is asked of something that has none."""
    if args.profile and runnable.session is None:
        level = runnable.level
        raise InputError(f"--profile is for compiled programs; '{args.file}' is at the {level} level")
    if args.trace and not has_clock(runnable):
        raise InputError(f"--trace is for programs of the npu family, and '{args.file}' is none")


def has_clock(runnable: Runnable) -> bool:
    """Whether what runs the program simulates its time, as `timing`."""
    return runnable.session is not None and hasattr(type(runnable.session.executor), "timing")


def write_trace(runnable: Runnable, path: str) -> None:
    """The run's time line as Chrome trace JSON."""
    import json

    from ..runtime.flatfile import write_whole
    from ..runtime.trace import trace_events

    assert runnable.session is not None
    timing = runnable.session.executor.timing  # type: ignore[attr-defined]
    document = {"displayTimeUnit": "ns", "traceEvents": list(trace_events(timing))}
    write_whole(path, json.dumps(document).encode())


def show(
    args: argparse.Namespace, results: Mapping[str, np.ndarray], profile: Mapping[str, Any] | None
) -> None:
    """Outputs, then the profile."""
    summaries = {name: summary(array) for name, array in results.items()}
    if args.json:
        screen.show_json({"outputs": summaries} | ({"profile": profile} if profile is not None else {}))
        return
    rows = [[n, s["dtype"], str(s["shape"]), s["min"], s["max"], s["mean"]] for n, s in summaries.items()]
    screen.show_table("", ("output", "type", "shape", "min", "max", "mean"), rows, text=3)
    for name, found in summaries.items():
        if "values" in found:
            with np.printoptions(precision=6, suppress=True, linewidth=78):
                print(f"{name} = {results[name]}")
    if args.output:
        print(f"written: {args.output}")
    if args.trace:
        print(f"written: {args.trace}")
    if profile is not None:
        print()
        screen.show_pairs(screen.profile_pairs(profile))
        if profile.get("layers"):
            print()
            screen.show_layers(profile["layers"])


def summary(array: np.ndarray) -> dict[str, Any]:
    """What is shown of an output."""
    found: dict[str, Any] = {"dtype": str(array.dtype), "shape": list(array.shape)}
    wide = array.astype(np.float64) if array.size else np.zeros(0)
    for name in ("min", "max", "mean"):
        found[name] = float(getattr(wide, name)()) if array.size else None
    if array.size <= SHOWN_VALUES:
        found["values"] = array.tolist()
    return found
