"""`nacre targets`: target families, machines and their figures, each with its source."""

from __future__ import annotations

import argparse
import textwrap
from typing import Any

from . import screen

HELP = "list targets, or the figures of one"
DESCRIPTION = """\
List the machines that can be compiled for, or all figures of one with their sources.

  nacre targets
  nacre targets v853
  nacre targets my-machine.toml
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("target", nargs="?", metavar="NAME|FILE", help="a machine's name or .toml file")
    parser.add_argument("--json", action="store_true", help="print as JSON")


def run(args: argparse.Namespace) -> None:
    """One machine, or all."""
    from ..backends.target import families, resolve_target

    if args.target:
        family, machine = resolve_target(args.target)
        show_machine(family.name, machine, args.json)
        return
    found = [
        {"family": f.name, "about": f.description, "machines": [f.load(n) for n in f.machines()]}
        for f in families().values()
    ]
    if args.json:
        screen.show_json([f | {"machines": [figures_of(m) for m in f["machines"]]} for f in found])
        return
    for family in found:  # type: ignore[assignment]
        line = f"{family['family']}: {family['about']}"  # type: ignore[index]
        print(textwrap.fill(line, screen.WIDTH, subsequent_indent="     "))
    print()
    columns = ("target", "family", "types", "MHz", "MACs", "SRAM KiB", "DRAM B/cycle")
    rows = [summary(f["family"], m) for f in found for m in f["machines"]]  # type: ignore[arg-type]
    screen.show_table("", columns, rows, text=3)
    print("\nMACs: of the MAC array in a cycle.")
    print("nacre targets NAME shows all figures and where they are from.")


def summary(family: str, machine: Any) -> list[Any]:
    """A row of the list. The host has no figures."""
    row = [machine.name, family, " ".join(types_of(machine))]
    if not hasattr(machine, "clock_hz"):
        return [*row, None, None, None, None]
    rates = (machine.clock_hz / 1e6, machine.macs_per_cycle)
    return [*row, *rates, machine.sram_bytes / 1024, machine.dram_bytes_per_cycle]


def types_of(machine: Any) -> list[str]:
    """What can be computed in; the programmable engine of a machine takes float32 as well."""
    return [*machine.types, *(["float32"] if hasattr(machine, "ppu_lanes") else [])]


def figures_of(machine: Any) -> dict[str, Any]:
    """A machine as plain values."""
    return machine.model_dump() if hasattr(machine, "model_dump") else dict(machine._asdict())


def show_machine(family: str, machine: Any, as_json: bool) -> None:
    """All figures of a machine."""
    from ..runtime.machine import Machine, figures

    values = figures_of(machine)
    if as_json:
        screen.show_json({"family": family, **values})
        return
    words = {k: v for k, v in values.items() if k in ("name", "description", "types", "fused")}
    shown = {k: " ".join(v) if isinstance(v, (list, tuple)) else v for k, v in words.items()}
    screen.show_pairs({"family": family, **shown})
    if isinstance(machine, Machine):
        print()
        rows = [(name, screen.number(values[name]), machine.source(name)) for name in figures()]
        screen.show_table("", ("figure", "value", "source"), rows, text=3)
