"""Compiling twice gives the same bytes: in one process, under other hash seeds, with other thread counts."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import nacre
import numpy as np

DIGITS = Path(nacre.__file__).parent / "examples" / "digits"

SCRIPT = """
import hashlib, sys
import numpy as np, nacre
x = np.load(sys.argv[1] + "/digits.npz")["calibration"][:4, None, None].astype(np.float32) / np.float32(255)
program = nacre.compile(sys.argv[1] + "/digits.onnx", target="tiny", calibration=[{"image": a} for a in x])
print(hashlib.sha256(program.to_bytes()).hexdigest())
"""


def compiled_elsewhere(hash_seed: str, threads: str) -> str:
    """The hash of a program compiled in a process of its own."""
    environment = {
        **os.environ,
        "PYTHONHASHSEED": hash_seed,
        "OMP_NUM_THREADS": threads,
        "OPENBLAS_NUM_THREADS": threads,
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(DIGITS)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_same_bytes_everywhere() -> None:
    x = np.load(DIGITS / "digits.npz")["calibration"][:4].astype(np.float32)[:, None, None] / np.float32(255)
    calibration = [{"image": a} for a in x]
    here = {
        hashlib.sha256(
            nacre.compile(DIGITS / "digits.onnx", target="tiny", calibration=calibration).to_bytes()
        ).hexdigest()
        for _ in range(2)
    }
    assert here == {compiled_elsewhere("1", "1"), compiled_elsewhere("2", "2")}
    assert len(here) == 1
