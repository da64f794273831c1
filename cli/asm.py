"""`nacre asm`: assembly text becomes a program."""

from __future__ import annotations

import argparse
from pathlib import Path

from . import output

HELP = "make a program of assembly"
DESCRIPTION = """\
Assemble what `nacre disasm -o` or `nacre compile --stop-after schedule` wrote, perhaps edited since.

  nacre disasm model.nacre -o model.s
  nacre asm model.s -o model.nacre
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("file", metavar="FILE.s", help="text in address form, its constants beside it")
    parser.add_argument("-o", "--output", metavar="OUT", help="default: the text's name, in this folder")


def run(args: argparse.Namespace) -> None:
    """Assemble, load once (which checks all bounds), write."""
    out = Path(args.output) if args.output else Path(f"{Path(args.file).stem}.nacre")
    output.check_writable(out, *output.with_constants(args.file))
    from ..backends.assemble import assemble
    from ..backends.session import Session
    from ..dialects.text import load_module

    program = assemble(load_module(args.file))
    Session(program)
    program.save(out)
    print(f"written: {out}")
