"""Messages about a source text as C compilers give them: place, reason, the line and a caret below it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple, NoReturn

from ...errors import NacreError, did_you_mean


class SourceError(NacreError):
    """A mistake in a kernel's source text."""


Read = Callable[[str], str]
"""The text of a file by its name, for `#include`. Raises OSError where it cannot be read."""


class Place(NamedTuple):
    """A line of a file; lines count from 1."""

    file: str
    line: int


class Source:
    """A source text with its name, and the files that it includes.

    A line's number is its place among all lines, where those of an included file stand behind its directive.
    """

    def __init__(self, text: str, name: str, read: Read | None = None):
        self.text, self.name, self.read = text, name, read
        self.lines: list[str] = []
        self.places: list[Place] = []
        self.insert(1, text, name)

    def insert(self, line: int, text: str, name: str) -> None:
        """Let a file's text begin at a line."""
        lines = lines_of(text)
        self.lines[line - 1 : line - 1] = lines
        self.places[line - 1 : line - 1] = [Place(name, k + 1) for k in range(len(lines))]

    def place(self, line: int) -> Place:
        """File and line of a line's number."""
        return self.places[line - 1] if 0 < line <= len(self.places) else Place(self.name, line)

    def fail(self, line: int, column: int, reason: str) -> NoReturn:
        """Raise SourceError about a place; both count from 1, the column in characters."""
        shown = self.lines[line - 1].rstrip() if 0 < line <= len(self.lines) else ""
        margin = "".join("\t" if c == "\t" else " " for c in shown[: column - 1]).ljust(column - 1)
        file, number = self.place(line)
        gutter = f"{number:5} | "
        blank = " " * (len(gutter) - 2) + "| "
        raise SourceError(f"{file}:{number}:{column}: error: {reason}\n{gutter}{shown}\n{blank}{margin}^")


def near(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` if a known name looks alike."""
    hint = did_you_mean(name, known, 0.8)
    return f"; {hint}" if hint else ""


def lines_of(text: str) -> list[str]:
    """The lines of a text; a last one that is empty is none."""
    return text.removesuffix("\n").split("\n") if text else []
