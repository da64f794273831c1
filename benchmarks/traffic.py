"""DRAM traffic and time of compiled programs on the machines that stand beside Vela's Ethos-U65.

    python -m nacre.benchmarks.traffic MODEL.tflite … [--target u65-512 --target u65-512-384k]

Prints a row a model and machine: compile seconds, DRAM bytes read and written, simulated time, MAC utilisation.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import nacre


def row(path: Path, target: str) -> str:
    """Compile one quantised model and give its figures."""
    start = time.perf_counter()
    program = nacre.compile(path, target=target)
    seconds = time.perf_counter() - start
    p = nacre.Session(program).profile()
    total = p["dram_bytes_read"] + p["dram_bytes_written"]
    return (
        f"{path.stem:28} {target:14} {seconds:8.2f} {p['dram_bytes_read']:12,} {p['dram_bytes_written']:12,} "
        f"{total:12,} {p['seconds'] * 1e3:9.4f} {p['utilisation']:7.1%}"
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path, help="quantised TFLite files")
    parser.add_argument("--target", action="append", help="machine (default: u65-512 and u65-512-384k)")
    arguments = parser.parse_args()
    print(f"{'model':28} {'target':14} {'comp. s':>8}", *(f"{h:>12}" for h in ("read", "written", "bytes")), end=" ")
    print(f"{'ms':>9} {'MACs':>7}")
    for path in arguments.models:
        for target in arguments.target or ["u65-512", "u65-512-384k"]:
            print(row(path, target))


if __name__ == "__main__":
    main()
