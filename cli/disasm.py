"""`nacre disasm`: a program as readable assembly, from which `nacre asm` makes the same bytes."""

from __future__ import annotations

import argparse
from pathlib import Path

from . import output

HELP = "show a program as readable assembly"
DESCRIPTION = """\
Disassemble a .nacre file: every instruction with its layer, kernels, constants, and where tensors lie.

  nacre disasm model.nacre | less
  nacre disasm model.nacre -o model.s      # and model.safetensors beside it
  nacre asm model.s -o same.nacre          # the same bytes again
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("file", metavar="FILE.nacre")
    parser.add_argument("-o", "--output", metavar="OUT.s", help="write text and constants, for asm")


def run(args: argparse.Namespace) -> None:
    """Disassemble to stdout or a file."""
    if args.output:
        output.check_text_writable(Path(args.output), args.file)
    from ..backends.target import family_named
    from ..dialects.text import print_module, save_module
    from ..runtime.flatfile import open_file

    file = open_file(args.file)
    file.check()
    module = family_named(file.family).disassemble(file)
    if args.output:
        save_module(module, args.output)
        print(f"written: {args.output}")
    else:
        print(print_module(module), end="")
