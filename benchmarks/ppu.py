"""Times the programmable engine of the emulator on three kernels, and its preparation, machine code and cost model.

    python -m nacre.benchmarks.ppu [--plain] [--repeat 5]

Each figure is the best of some repetitions. Kernels go through the passes first, unless --plain.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..frontends.opencl import compile_opencl
from ..passes.ppu.optimise import optimise
from ..runtime.ppu import Kernel, costs, decode, encode, kernel_named, prepare

SOURCE = """#pragma OPENCL FP_CONTRACT OFF
__kernel void matmul(__global const float *a, __global const float *b, __global float *y, int m, int k) {
  int j = get_global_id(0), i = get_global_id(1);
  float s = 0.0f;
  for (int p = 0; p < k; p++) s += a[i * k + p] * b[p * m + j];
  y[i * m + j] = s;
}
__kernel void conv(__global const float *x, __global const float *w, __global float *y, int size, int c, int channels) {
  int o = get_global_id(0), q = get_global_id(1), r = get_global_id(2);
  float s = 0.0f;
  for (int i = 0; i < 3; i++) {
    int row = r + i - 1;
    if (row < 0 || row >= size) continue;
    for (int j = 0; j < 3; j++) {
      int column = q + j - 1;
      if (column >= 0 && column < size)
        for (int k = 0; k < c; k++)
          s += x[(row * size + column) * c + k] * w[((i * 3 + j) * c + k) * channels + o];
    }
  }
  y[(r * size + q) * channels + o] = s;
}
__kernel void elementwise(__global const float *x, __global const float *z, __global float *y, int n, float scale) {
  int i = get_global_id(0);
  if (i < n) y[i] = fmax(x[i] * scale + z[i], 0.0f);
}
"""
LANES = 64


@dataclass(frozen=True)
class Case:
    """A kernel of the source with its launch; the unit is what a work item does most often."""

    kernel: str
    arguments: Sequence[Any]
    grid: tuple[int, ...]
    units: int
    unit: str


def cases() -> list[Case]:
    """The launches that are timed."""
    rng = np.random.default_rng(0)

    def floats(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    n, m, k, size, c, count = 128, 128, 256, 24, 64, 100_000
    return [
        Case("matmul", [floats(n, k), floats(k, m), floats(n, m), m, k], (m, n), n * m * k, "multiply-add"),
        Case(
            "conv", [floats(size, size, c), floats(3, 3, c, c), floats(size, size, c), size, c, c], (c, size, size),
            size * size * c * 9 * c, "multiply-add",
        ),
        Case("elementwise", [floats(count), floats(count), floats(count), count, 0.5], (count,), count, "element"),
    ]  # fmt: skip


def best(run: Callable[[], object], repeat: int) -> float:
    """Seconds of the fastest run."""
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def count(kernel: Kernel, case: Case) -> costs.Cost:
    """The cost of a launch, counted anew."""
    costs.forget(kernel)
    return costs.cost(kernel, case.arguments, case.grid, LANES)


def main(argv: Sequence[str] | None = None) -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plain", action="store_true", help="kernels as the front end leaves them, without passes")
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args(argv)
    module = compile_opencl(SOURCE, "benchmark.cl")
    if not options.plain:
        optimise(module)
    heads = f"{'prepare':>9} {'code':>7} {'decode':>8} {'cost':>8} {'cycles':>10}"
    print(f"{'kernel':12} {'launch':>9} {'a unit':>22} {heads}")
    for case in cases():
        function = kernel_named(module, case.kernel)
        kernel, code = prepare(function), encode(function)
        launch = best(lambda: kernel.launch(case.arguments, case.grid), options.repeat)  # noqa: B023  runs at once
        preparing = best(lambda: prepare(function), options.repeat)  # noqa: B023
        decoding = best(lambda: decode(code), options.repeat)  # noqa: B023
        counting = best(lambda: count(kernel, case), options.repeat)  # noqa: B023
        unit = f"{launch / case.units * 1e9:.2f} ns/{case.unit}"
        print(
            f"{case.kernel:12} {launch * 1e3:6.2f} ms {unit:>22} {preparing * 1e3:6.2f} ms {len(code):5} B "
            f"{decoding * 1e3:5.2f} ms {counting * 1e3:5.2f} ms {count(kernel, case).cycles:10}"
        )


if __name__ == "__main__":
    main()
