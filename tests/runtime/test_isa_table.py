"""docs/isa.md: current, complete, and true about the bytes."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from nacre.dialects.npu import INSTRUCTIONS, Instruction
from nacre.dialects.npu_instructions import ConvOp, LaunchOp
from nacre.runtime import isa
from nacre.runtime.isa_table import isa_markdown, section

PAGE = Path(__file__).parents[2] / "docs" / "isa.md"


def test_the_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == isa_markdown(), "run `make docs`"


def test_every_instruction_port_and_field_is_on_the_page() -> None:
    page = isa_markdown()
    for cls in INSTRUCTIONS.values():
        text = page.split(f"\n## {cls.name}\n")[1].split("\n## ")[0]
        for name in [p.name for p in cls.PORTS] + [f.name for f in cls.FIELDS]:
            assert f"| `{name}` |" in text, f"{cls.name}: {name}"


def test_a_field_lies_at_the_byte_the_page_says() -> None:
    """Change one field of an encoded instruction: the first byte that differs is the one in the table."""
    for cls, name, value in ((ConvOp, "high", 126), (ConvOp, "pad_right", 3), (LaunchOp, "kernel", "b")):
        given = {"kernel": "a"} if cls is LaunchOp else {}
        plain, changed = (
            isa.encode(command(cls, given | more), {"a": 0, "b": 1})
            for more in ({}, {name: value})
        )
        (row,) = [line for line in section(cls) if f"| `{name}` |" in line]
        place = re.match(r"\| (\d+) \|", row)
        assert place is not None
        assert int(place[1]) == next(i for i, (a, b) in enumerate(zip(plain, changed)) if a != b)


def command(cls: type[Instruction], given: dict[str, Any]) -> isa.Command:
    fields = {f.name: f.default for f in cls.FIELDS} | given
    return isa.Command(cls, SimpleNamespace(**fields), {}, (0,) * isa.QUEUES)
