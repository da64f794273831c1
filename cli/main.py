"""`nacre`: finds the subcommand, and shows what goes wrong as one message instead of a traceback.

A subcommand is a module of this folder named in COMMANDS. It has HELP (one line), DESCRIPTION (what `--help`
teaches, with an example), `arguments(parser)` and `run(args)`; what takes long to import it imports in `run`.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import textwrap
from collections.abc import Sequence
from importlib.metadata import version

from ..errors import NacreError
from ..extensions import load_operators

COMMANDS = ("compile", "run", "verify", "info", "opt", "disasm", "asm", "export", "targets", "ops")

DESCRIPTION = """\
Nacre compiles neural networks for NPUs and runs the result on an emulator of the NPU.

  nacre compile model.onnx --target v853 --calibration samples/ -o model.nacre
  nacre run model.nacre --input image=cat.npy --profile
  nacre info model.nacre
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; gives the exit code (usage errors leave through SystemExit, as argparse does)."""
    args = make_parser().parse_args(argv)
    try:
        load_operators()
        args.run(args)
        sys.stdout.flush()
    except NacreError as error:
        return complain(str(error))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # What reads our output has gone; Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        if error.filename is None:
            raise
        return complain(f"'{error.filename}': {error.strerror}")
    except Exception as error:
        told = told_by_xdsl(error)
        if told is None:
            raise  # a bug in Nacre
        return complain(told)
    return 0


def told_by_xdsl(error: Exception) -> str | None:
    """What an error means that xDSL raises about the user's text or a user's pass; None for any other."""
    from xdsl.utils.exceptions import DiagnosticException, ParseError

    from ..dialects.text import first_line, make_context, place_and_reason

    if isinstance(error, ParseError):
        return place_and_reason(error, make_context())
    return first_line(error) if isinstance(error, DiagnosticException) else None


class Help(argparse.RawDescriptionHelpFormatter):
    """Fits paragraphs to the terminal and leaves indented lines, the examples, alone."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        paragraphs = text.strip("\n").split("\n\n")
        filled = [
            p if p.startswith(" ") else textwrap.fill(p, width, break_on_hyphens=False) for p in paragraphs
        ]
        return textwrap.indent("\n\n".join(filled), indent)


def make_parser() -> argparse.ArgumentParser:
    """The parser of all subcommands."""
    parser = argparse.ArgumentParser(prog="nacre", description=DESCRIPTION, formatter_class=Help)
    parser.add_argument("--version", action="version", version=f"nacre {version('nacre')}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name in COMMANDS:
        module = importlib.import_module(f".{name}", __package__)
        sub = commands.add_parser(
            name,
            help=module.HELP,
            description=module.DESCRIPTION,
            formatter_class=Help,
        )
        module.arguments(sub)
        sub.set_defaults(run=module.run)
    return parser


def complain(message: str) -> int:
    """Show a user's mistake on stderr; gives the exit code."""
    lines = [line.rstrip() for line in message.strip().splitlines()]
    if len(lines) == 2 and lines[0].endswith(":"):  # a list of one reads as a sentence
        lines = [f"{lines[0]} {lines[1].strip()}"]
    print("nacre: error: " + "\n".join(lines), file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
