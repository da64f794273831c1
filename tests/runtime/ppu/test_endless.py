"""Loops that cannot end are found by their state, and no others are taken for such."""

from __future__ import annotations

import numpy as np
import pytest
from nacre.errors import Fault
from nacre.frontends.opencl import compile_opencl
from nacre.runtime.ppu import kernel_named, launch
from nacre.runtime.ppu.endless import LOOKS_FOR, LOOKS_FROM

N = 8
HEAD = "__kernel void f(__global int *x, __global int *y) { int i = get_global_id(0), k = 0;\n"


def run(body: str, x: np.ndarray | None = None, y: np.ndarray | None = None, max_steps: int = 5000) -> np.ndarray:
    y = np.zeros(N, np.int32) if y is None else y
    function = kernel_named(compile_opencl(f"{HEAD}{body} }}", "k.cl"), "f")
    launch(function, [np.zeros(N, np.int32) if x is None else x, y], N, 4, max_steps, sanitize=True)
    return y


def fault(body: str, x: np.ndarray | None = None, y: np.ndarray | None = None) -> str:
    with pytest.raises(Fault) as found:
        run(body, x, y)
    return str(found.value)


ENDLESS = {
    "while (i != 3) y[i] += 1;": (1, 0),
    "while (i == 3) y[i] += 1;": (1, 3),
    "while (x[i] == 0) y[i] += 1;": (1, 0),
    "for (int j = 0; j < 9; ) { if (x[i] == 7) break; y[i] = k++; }": (1, 0),
    "while (k < 12) { k = (k + 1) % 5; y[i]++; }": (5, 0),
    f"while (k >= 0) {{ k = (k + 1) % {LOOKS_FOR}; y[i]++; }}": (LOOKS_FOR, 0),
    "do { for (int j = 0; j < i; j++) y[i]++; } while (i > 5);": (1, 6),
    "__local int t[4]; t[i & 3] = 0; while (t[i & 3] == 0) { barrier(1); y[i]++; }": (1, 0),
}


@pytest.mark.parametrize("body", ENDLESS)
def test_a_state_that_comes_again_is_found(body: str) -> None:
    period, item = ENDLESS[body]
    y = np.zeros(N, np.int32)
    found = fault(body, y=y)
    before = "the round before" if period == 1 else f"{period} rounds before"
    assert f"a loop does not end: what its condition depends on is as it was {before}, in work item ({item})" in found
    assert y.max() <= (LOOKS_FROM + LOOKS_FOR) * N


UNKNOWN = {
    "it counts the wrong way": "while (k < 9) { k--; }",
    "it changes what it looks at": "while (x[i] >= 0) { x[i] ^= 1; }",
    "its period is long": f"while (k >= 0) {{ k = (k + 1) % {LOOKS_FOR + 1}; y[i]++; }}",
    "its count is in private memory": "int t[2]; t[0] = 1; while (t[0]) { t[0] ^= 2; }",
}


@pytest.mark.parametrize("why", UNKNOWN)
def test_others_go_on_until_the_bound(why: str) -> None:
    assert "a loop did not end within 5000 rounds" in fault(UNKNOWN[why])


ROUNDS = 2 * LOOKS_FROM + 3


@pytest.mark.parametrize(
    "body",
    [
        f"while (k < {ROUNDS}) k++; y[i] = k;",
        f"int a = 0, b = 0; while (b < 2) {{ k++; if (++a == {ROUNDS // 2}) {{ a = 0; b++; }} }} y[i] = k + 1;",
        f"while (x[i] < {ROUNDS}) x[i]++; y[i] = x[i];",
        f"int t[1]; t[0] = 0; while (t[0] < {ROUNDS}) t[0]++; y[i] = t[0];",
        f"for (; k < {ROUNDS} << 5; k++) if (k % 32 == 0) y[i]++;",
        f"float s = 0; while (s < {ROUNDS}.0f) s += 1; y[i] = s;",
    ],
)
def test_loops_that_end_do(body: str) -> None:
    found = run(body, max_steps=100_000)
    assert len(set(found.tolist())) == 1 and found[0] > LOOKS_FROM


def test_a_count_in_memory_that_another_argument_leads_to() -> None:
    """The loop looks at x and writes y, which lies there too."""
    shared = np.zeros(N, np.int32)
    run(f"while (x[i] < {ROUNDS}) y[i] += 1;", shared, shared)
    assert shared.tolist() == [ROUNDS] * N
