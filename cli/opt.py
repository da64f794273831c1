"""`nacre opt`: runs passes over text, as mlir-opt does; names survive, and the output parses back."""

from __future__ import annotations

import argparse
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import NacreError
from . import output, screen

if TYPE_CHECKING:
    from xdsl.dialects.builtin import ModuleOp
    from xdsl.passes import ModulePass

HELP = "run passes over .mlir text, or over OpenCL C kernels"
DESCRIPTION = """\
Run passes over .mlir text of any level and print the result.

  nacre opt model.graph.mlir -p graph-simplify
  nacre opt model.graph.mlir -p 'quantise-to-qnn{dtype=uint8},cse' -o q.mlir
  nacre opt model.npu.mlir -p 'npu-tile{target=tiny}' --time-passes
  nacre opt kernel.cl -D T=float -p canonicalize,ppu-rotate-loops,ppu-hoist,cse
  nacre opt --list

Constants above 64 elements lie in a .safetensors file beside the text; -o writes both.
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("file", nargs="?", metavar="FILE.mlir", help="the text, or a .cl source; - for stdin")
    parser.add_argument(
        "-D", action="append", default=[], dest="defines", metavar="NAME[=VALUE]", help="a macro for a .cl file; repeat"
    )  # fmt: skip
    parser.add_argument("-p", "--passes", default="", metavar="PASSES", help="'pass-a,pass-b{x=1 y=true}'")
    parser.add_argument("--list", action="store_true", help="show all passes and their options")
    parser.add_argument("-o", "--output", metavar="OUT.mlir", help="default: stdout")
    parser.add_argument("--verify-each", action="store_true", help="verify after each pass, too")
    parser.add_argument("--print-after-all", action="store_true", help="show each result (stderr)")
    parser.add_argument(
        "--print-after", action="append", default=[], metavar="PASS", help="show this one's (stderr); repeat"
    )  # fmt: skip
    parser.add_argument("--time-passes", action="store_true", help="show what each pass took (stderr)")
    parser.add_argument("--generic", action="store_true", help="print the generic form, which mlir-opt reads")
    parser.add_argument("--no-locations", action="store_true", help="leave out the layers' names")


def run(args: argparse.Namespace) -> None:
    """List, or parse, run and print."""
    if args.list:
        show_list()
        return
    if args.file is None:
        raise output.mistake("name a .mlir file, or - for stdin (nacre opt --list shows the passes)")
    if args.output:
        output.check_text_writable(Path(args.output), *output.with_constants(args.file))
    from ..passes.pipeline import near, parse_passes

    passes = parse_passes(args.passes)
    for name in args.print_after:
        if name not in (names := [p.name for p in passes]):
            raise output.mistake(f"--print-after={name}: the pipeline has no such pass{near(name, names)}")
    module = read_kernels(args.file, args.defines) if is_source(args.file) else read_module(args.file)
    if args.defines and not is_source(args.file):
        raise output.mistake("-D is for .cl sources; text has its values already")
    apply(passes, module, args)
    write(module, args)


def is_source(file: str) -> bool:
    """Whether a file holds OpenCL C."""
    return file.endswith(".cl")


def read_kernels(file: str, defines: list[str]) -> ModuleOp:
    """The kernels of an OpenCL C source as ppu functions. Raises NacreError where it cannot be read or is wrong."""
    from ..frontends.opencl import compile_opencl
    from ..passes.ppu import canonical_ppu  # noqa: F401  registers what canonicalize does with kernels

    def read(name: str) -> str:
        return Path(name).read_text(encoding="utf-8")

    try:
        text = read(file)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise NacreError(f"'{file}' cannot be read: {reason}") from None
    macros = {name: value if equals else "1" for name, equals, value in (d.partition("=") for d in defines)}
    return compile_opencl(text, file, defines=macros, read=read)


def read_module(file: str) -> ModuleOp:
    """The module of a file or of stdin, in any dialect that is installed."""
    from xdsl.context import Context
    from xdsl.universe import Universe

    from ..dialects.text import DIALECTS, load_module, parse_module

    context = Context()
    installed = Universe.get_multiverse().all_dialects
    for name, factory in installed.items():
        context.register_dialect(name, factory)
    for dialect in DIALECTS:  # those of outside packages, which need no universe of their own
        if dialect.name not in installed:
            context.load_dialect(dialect)
    if file == "-":
        return parse_module(sys.stdin.read(), context, "<stdin>")
    return load_module(file, context)


def apply(passes: list[ModulePass], module: ModuleOp, args: argparse.Namespace) -> None:
    """Run the pipeline. Raises NacreError naming the pass that failed."""
    from xdsl.utils.exceptions import DiagnosticException

    from ..dialects.text import first_line, print_module, verification_error
    from ..passes.manager import PassManager

    seconds: list[tuple[str, float]] = []
    current = ""

    def before(one: ModulePass) -> None:
        nonlocal current
        current = one.name

    def after(one: ModulePass, module: ModuleOp, taken: float) -> None:
        seconds.append((one.name, taken))
        if args.print_after_all or one.name in args.print_after:
            screen.note(f"// ----- after {one.name} -----")
            screen.note(print_module(module, args.generic, not args.no_locations))

    try:
        PassManager(passes, args.verify_each, after, before=before).run(module)
    except DiagnosticException as error:
        raise NacreError(f"{current} failed: {first_line(error)}") from None
    if (wrong := verification_error(module)) is not None:
        raise NacreError(f"the result is not valid ({args.passes}): {wrong}")
    if args.time_passes:
        total = sum(taken for _, taken in seconds) or 1.0
        for name, taken in seconds:
            screen.note(f"{taken:9.4f} s  {taken / total:6.1%}  {name}")
        screen.note(f"{total:9.4f} s  100.0%  all passes")


def write(module: ModuleOp, args: argparse.Namespace) -> None:
    """Print, or write text and constants."""
    from ..dialects.nacre import BlobAttr, store_of
    from ..dialects.text import print_module, save_module

    if args.output:
        save_module(module, args.output, generic=args.generic, locations=not args.no_locations)
        return
    blobs = sum(isinstance(a, BlobAttr) for op in module.walk() for a in op.properties.values())
    if blobs and store_of(module).path is None:
        screen.note(f"nacre: {blobs} constants are in memory only and not in this text: use -o to keep them")
    print(print_module(module, args.generic, not args.no_locations), end="")


def show_list() -> None:
    """Passes with their options."""
    from ..passes.pipeline import list_passes

    described, others = list_passes()
    for one in described:
        print(one.name)
        show_indented(one.summary)
        for option in one.options:
            show_indented(f"{{{option}}}")
    print("\nxDSL's own passes:")
    show_indented(", ".join(others))


def show_indented(text: str) -> None:
    """A paragraph below a name, in lines of 80 columns."""
    if text:
        print(
            textwrap.fill(
                text, 80, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False
            )
        )
