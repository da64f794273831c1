"""The engine's opcodes, types and prices as Markdown tables, derived from the code; docs/ppu.md holds them.

    python -m nacre.runtime.ppu.table
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator

from xdsl.ir import Operation

from ...dialects import ppu
from .code import OPCODE, TYPES, Control, operands_of, parameters_of
from .slices import PRICES

CONTROL = {
    Control.MOVE: "a value into the register of a result or of what a loop carries",
    Control.ELSE: "ends the first region of a `ppu.if`",
    Control.END: "ends a region; of a loop, operand a says whether it goes on",
    Control.GROUP: "the first instruction, if the kernel is written for a work group of one size",
}

IMMEDIATES: dict[type[Operation], str] = {ppu.ConstantOp: "value", ppu.TableOp: "label, length in bytes, bytes"}
"""Of instructions whose immediates are not their parameters in order."""


def opcodes() -> Iterator[str]:
    """One row an opcode."""
    yield "| opcode | instruction | operands | immediates | |"
    yield "|---|---|---|---|---|"
    for cls, opcode in OPCODE.items():
        if cls in (ppu.YieldOp, ppu.FuncOp):  # what they say is in moves and in the head
            continue
        names = IMMEDIATES.get(cls) or ", ".join(name for name, _ in parameters_of(cls))
        operands = 0 if cls is ppu.LoopOp else operands_of(cls)
        says = (inspect.getdoc(cls) or "").split("\n")[0].replace("|", "\\|")
        yield f"| `{opcode:#04x}` | `{cls.name}` | {operands} | {names} | {says} |"
    for control, says in CONTROL.items():
        operands = 0 if control in (Control.ELSE, Control.GROUP) else 1
        sizes = "size 0, 1, 2" if control is Control.GROUP else ""
        yield f"| `{control:#04x}` | {control.name.lower()} | {operands} | {sizes} | {says} |"


def types() -> str:
    """The codes of types."""
    return ", ".join(f"{code} `{type_}`" for code, type_ in enumerate(TYPES))


def prices() -> Iterator[str]:
    """One row a class of instructions."""
    yield "| class | cycles a wave | why |"
    yield "|---|---|---|"
    for name, price in PRICES.items():
        yield f"| {name} | {price.cycles} | {price.reason} |"


def tables() -> list[str]:
    """All of them."""
    return ["\n".join(opcodes()), types(), "\n".join(prices())]


if __name__ == "__main__":
    print("\n\n".join(tables()))
