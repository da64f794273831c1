"""docs/ppu.md holds the tables that the code gives."""

from __future__ import annotations

from pathlib import Path

import pytest
from nacre.runtime.ppu.table import tables

PAGE = Path(__file__).parents[3] / "docs" / "ppu.md"


@pytest.mark.parametrize("table", tables(), ids=["opcodes", "types", "prices"])
def test_the_page_is_current(table: str):
    assert table in PAGE.read_text(), "paste what `python -m nacre.runtime.ppu.table` prints"
