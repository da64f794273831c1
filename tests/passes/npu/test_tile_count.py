"""A machine that is far too small for a model is refused before its millions of tiles are written."""

from __future__ import annotations

import re
import time
from pathlib import Path

import nacre
import numpy as np
import pytest
from nacre.errors import MachineError
from nacre.passes.npu import tile

PACKAGE = Path(nacre.__file__).parent
DIGITS = PACKAGE / "examples" / "digits" / "digits.onnx"


def compiled(tmp_path: Path, sram_bytes: int) -> nacre.Program:
    """The digits on the machine `tiny` with another SRAM."""
    text = (PACKAGE / "runtime" / "machines" / "tiny.toml").read_text(encoding="utf-8")
    file = tmp_path / "small.toml"
    file.write_text(text.replace("= 8_192", f"= {sram_bytes}").replace('"tiny"', '"small"'), encoding="utf-8")
    sample = {"image": np.linspace(0, 1, 48 * 48, dtype=np.float32).reshape(1, 1, 48, 48)}
    return nacre.compile(DIGITS, target=str(file), dtype="int8", calibration=[sample])


def test_one_layer_of_too_many_tiles_is_refused_soon(tmp_path):
    started = time.process_time()
    with pytest.raises(MachineError, match=r"layer 'residual\.first\.\S+: it alone takes \d+ tiles .* 256 bytes"):
        compiled(tmp_path, 256)
    assert time.process_time() - started < 20


def test_layers_of_too_many_tiles_together_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(tile, "MOST_TILES", 400)
    with pytest.raises(MachineError, match="and a program has at most 400;") as error:
        compiled(tmp_path, 8192)
    found = re.search(r"it alone takes (\d+) of the (\d+) tiles", str(error.value))
    assert found and int(found[1]) <= 400 < int(found[2])
