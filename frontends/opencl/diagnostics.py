"""Messages about a source text as C compilers give them: place, reason, the line and a caret below it."""

from __future__ import annotations

from typing import NoReturn

from ...errors import NacreError


class SourceError(NacreError):
    """A mistake in a kernel's source text."""


class Source:
    """A source text with its name."""

    def __init__(self, text: str, name: str):
        self.text, self.name = text, name
        self.lines = text.splitlines()

    def fail(self, line: int, column: int, reason: str) -> NoReturn:
        """Raise SourceError about a place; both count from 1, the column in characters."""
        shown = self.lines[line - 1].rstrip() if 0 < line <= len(self.lines) else ""
        margin = "".join("\t" if c == "\t" else " " for c in shown[: column - 1]).ljust(column - 1)
        gutter = f"{line:5} | "
        blank = " " * (len(gutter) - 2) + "| "
        raise SourceError(f"{self.name}:{line}:{column}: error: {reason}\n{gutter}{shown}\n{blank}{margin}^")
