"""What subcommands show: results on stdout as tables or JSON, progress and notes on stderr."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

WIDTH = 80
"""Columns where there is no terminal."""
QUIET_SECONDS = 2.0
"""Without a terminal, a line of progress comes at most this often: short work stays silent."""


def show_table_on_stdout(table: Table) -> None:
    """Print a table as wide as the terminal, 80 columns in a file or pipe; no blanks at the end."""
    console = Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False)
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        print(line.rstrip())


def show_json(value: Any) -> None:
    """A result for programs to read."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def note(text: str) -> None:
    """Something beside the result."""
    print(text, file=sys.stderr)


def show_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], text: int = 1, fold: bool = True
) -> None:
    """A table whose first `text` columns are words, the others numbers.

    On a narrow terminal words go on in the next line, or are cut where they should not `fold`.
    """
    table = Table(title=title or None, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for index, column in enumerate(columns):
        words = index < text
        table.add_column(
            column,
            justify="left" if words else "right",
            overflow="fold" if fold else "ellipsis",
            no_wrap=not (words and fold),
            min_width=4 if words else widest([column, *(number(row[index]) for row in rows)]),
        )
    for row in rows:
        table.add_row(*(number(cell) for cell in row))
    show_table_on_stdout(table)


def widest(cells: Sequence[str]) -> int:
    """The width of a column whose cells are never cut."""
    return max(len(cell) for cell in cells)


def number(value: Any) -> str:
    """A cell: whole numbers with thousands apart, floats short, words as they are."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value).replace("[", r"\[")


def seed(text: str) -> int:
    """The value of --random, for argparse."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"'{text}' is no seed: give a whole number from 0 on")
    return int(text)


def show_pairs(pairs: Mapping[str, Any]) -> None:
    """Names and values, a line each."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for name, value in pairs.items():
        table.add_row(name, number(value))
    show_table_on_stdout(table)


@contextlib.contextmanager
def progress() -> Iterator[Callable[[str, int, int | None], None]]:
    """A callback for `compile`: a bar on a terminal, otherwise a line now and then."""
    if sys.stderr.isatty():
        with _bar() as bar:
            yield bar
    else:
        yield _lines()


@contextlib.contextmanager
def _bar() -> Iterator[Callable[[str, int, int | None], None]]:
    columns = (
        TextColumn("{task.description:<24.24}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as display:
        passes = display.add_task("", total=1)

        def report(what: str, done: int, total: int | None) -> None:
            if total is None:
                display.update(passes, description=f"{what}: {done}")
            else:
                display.update(passes, description=what, completed=done - 1, total=total)

        yield report


def _lines() -> Callable[[str, int, int | None], None]:
    last = time.monotonic()

    def report(what: str, done: int, total: int | None) -> None:
        nonlocal last
        if time.monotonic() - last >= QUIET_SECONDS:
            last = time.monotonic()
            note(f"nacre: {what} ({done} of {total})" if total else f"nacre: {what} ({done} done)")

    return report


def seconds_text(seconds: float) -> str:
    """A duration with a unit that fits."""
    for factor, unit in ((1.0, "s"), (1e3, "ms"), (1e6, "µs")):
        if seconds * factor >= 1:
            return f"{seconds * factor:.4g} {unit}"
    return f"{seconds * 1e9:.4g} ns"


def profile_pairs(profile: Mapping[str, Any]) -> dict[str, Any]:
    """A profile as lines to show; layers and kernels are left to tables."""
    shown: dict[str, Any] = {}
    for name, value in profile.items():
        if name in ("layers", "kernels") or value is None:
            continue
        if name == "busy_cycles":
            shown["busy cycles"] = "  ".join(f"{engine} {number(cycles)}" for engine, cycles in value.items())
        elif name == "seconds":
            shown["time"] = seconds_text(value)
        elif name == "utilisation":
            shown["MAC utilisation"] = f"{value:.1%}"
        elif name == "macs":
            shown["MACs"] = value
        else:
            shown[name.replace("_", " ")] = value
    return shown


def show_layers(layers: Mapping[str, Mapping[str, Any]]) -> None:
    """A row a layer, in program order: where it runs, what it takes."""
    columns = ("layer", "engines", "cycles", "MACs", "DRAM read", "written")
    figures = ("cycles", "macs", "dram_bytes_read", "dram_bytes_written")
    rows = [(n or "(none)", " ".join(x["engines"]), *(x[f] for f in figures)) for n, x in layers.items()]
    show_table("", columns, rows, text=2, fold=False)
