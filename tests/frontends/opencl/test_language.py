"""`switch`, arrays with initial values, `__constant` variables, directives and macros: against Python and PoCL."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from nacre.dialects import ppu
from nacre.frontends.opencl import compile_opencl

Run = Callable[..., np.ndarray]
ITEMS = 24


def switched() -> list[int]:
    found = []
    for i in range(ITEMS):
        r = 0
        for k in range(3):
            if i == 0:
                r += 1
            if i in (0, 1, 2):
                r += 10
                if k == 1:
                    continue
            elif i == 5:
                r += 7
                if k:
                    break
            else:
                r += 100 * (i == 3) + 1000
            r += 100000
        else:
            found.append(r)
            continue
        found.append(-1)
    return found


PROGRAMS: dict[str, tuple[str, Callable[[], list[int]]]] = {
    "switch: falling through, continue, return": (
        """__kernel void f(__global int *y) { int i = get_global_id(0), r = 0; y[i] = -1;
        for (int k = 0; k < 3; k++) {
          switch (i) {
            case 0: r += 1;
            case 1: case 2: r += 10; if (k == 1) continue; break;
            case 1 + 2: r += 100;
            default: r += 1000; break;
            case 5: { r += 7; if (k > 0) return; }
          }
          r += 100000;
        }
        y[i] = r; }""",
        switched,
    ),
    "switch: default first, negative and unsigned labels, nested": (
        """__kernel void f(__global int *y) { int i = get_global_id(0), r = 0;
        switch (i - 4) { default: r = 5; case -1: r += 2; break; case 0x2: switch (i) { case 6: r = 9; break; } r += 1;
          break; case ~0 - 2: while (1) { if (r++ > i) break; } }
        switch ((uchar)(i + 250)) { case 255: r += 1000; break; case 0: r += 2000; }
        switch (i) { }
        y[i] = r; }""",
        lambda: [
            {3: 2, 6: 10, 1: 3}.get(i, 7) + {5: 1000, 6: 2000}.get(i, 0) for i in range(ITEMS)
        ],
    ),
    "constant and private arrays with initial values": (
        """__constant short table[] = {3, -1, 4, 1, 5, 9, 2, 6, };
        __constant float2 pairs[2] = {(float2)(1.5f, 2.5f), 7};
        __constant int one = 1, two = one + 1;
        int look(__constant const short *t, int k) { return t[k] * two; }
        __kernel void f(__global int *y) { int i = get_global_id(0), r = 0;
          for (int k = 0; k < 2; ++k) { int a[6] = {i, 20 + i, one}; a[k + 3] += 7; r += a[i % 6]; a[0] = 99; }
          y[i] = r + look(table, i & 7) + (int)pairs[i & 1].y; }""",
        lambda: [
            [2 * i, 2 * (20 + i), 2, 7, 7, 0][i % 6] + [3, -1, 4, 1, 5, 9, 2, 6][i & 7] * 2 + [2, 7][i & 1]
            for i in range(ITEMS)
        ],
    ),
    "a table of 256 entries": (
        f"""__constant uchar table[256] = {{{', '.join(str(k * 37 % 256) for k in range(256))}}};
        __kernel void f(__global int *y) {{
          int i = get_global_id(0); y[i] = table[i * 11 % 256] + table[255 - i]; }}""",
        lambda: [i * 11 % 256 * 37 % 256 + (255 - i) * 37 % 256 for i in range(ITEMS)],
    ),
    "tables of what is computed here": (
        """__constant int base = 40;
        __constant int wrapped[5] = {base, -base / 7, (char)(base * 10), base > 3 ? 1 << 4 : 2};
        __constant float2 parts[3] = {(float2)(2.0f / 3, -0.0f), base, (float2)(1.0f / 0.0f)};
        int look(__constant const int *t, int k) {
          int r = 0; for (int j = 0; j <= k; j++) if (j != 2) r += t[j]; return r; }
        __kernel void f(__global int *y) { int i = get_global_id(0);
          y[i] = look(wrapped, i % 5) + wrapped[2] + as_int(parts[i % 3].y) + (int)(parts[0].x * 3000000); }""",
        lambda: [
            [40, 35, 35, 51, 51][i % 5] - 112 + [-(2**31), 0x42200000, 0x7F800000][i % 3] + 2000000
            for i in range(ITEMS)
        ],
    ),
    "directives": (
        """#define A 3
        #if defined(A) && !defined B && (A * 2 + 1 == 7 ? 1 : 0)
        #  define B (A + 1)
        #elif UNKNOWN / 0
        #  error not here
        #else
        @ not even C
        #endif
        #ifndef B
        #  error B is missing
        #elif B > A
        #  undef A
        #  define A 10 \\
             + 4
        #else
        #  error wrong
        #endif
        #if 0
        # if 1
        # else
        # endif
        # nonsense
        #elif A - 1 << 1 == 12 || 1
        #endif
        #if -1 > 0u && ~0 < 0 && 7 / 2 == 3 && -7 % 3 == -1 && (1 ? 0 : 1) == 0 && 0x10 == 020 && !0
        __kernel void f(__global int *y) { int i = get_global_id(0); y[i] = A * 2 + B * i; }
        #endif""",
        lambda: [18 + 15 * i for i in range(ITEMS)],
    ),
    "pragmas that say nothing": (
        """#pragma OPENCL EXTENSION cl_khr_byte_addressable_store : enable
        #pragma OPENCL EXTENSION cl_khr_fp64 : disable
        #pragma OPENCL EXTENSION all:disable
        #pragma
        #pragma some compiler's "own": @
        #
        #if 0
        #pragma OPENCL EXTENSION cl_khr_subgroups : enable
        #endif
        __kernel void f(__global int *y) { int i = get_global_id(0), r = 0;
          #pragma unroll
          for (int k = 0; k < 4; k++) {
            #pragma unroll 2
            for (int j = 0; j < k; j++) r += i * j;
          }
          y[i] = r; }""",
        lambda: [4 * i for i in range(ITEMS)],
    ),
    "macros with parameters": (
        """#define MAX(a, b) ((a) > (b) ? (a) : (b))
        #define TWICE(f, x) f(f(x, 1), 2)
        #define SUM(a, b) a + b
        #define NOTHING() 4
        #define g(x) (x * g)
        #define OPEN MAX (
        #define COMMAS(x) x
        #define recursive(x) recursive
        __kernel void f(__global int *y) { int i = get_global_id(0), g = 2, recursive = 1;
          y[i] = MAX(i, 5) + MAX(MAX(1, 2), (i, 3)) * NOTHING() + TWICE(SUM, i) * 2 + OPEN 3, i) + g(3) + g
            + COMMAS((1, 2)) + SUM(
              1,
              2
            ) + recursive(1); }""",
        lambda: [max(i, 5) + 12 + (i + 1 + 2 * 2) + max(3, i) + 6 + 2 + 2 + 3 + 1 for i in range(ITEMS)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PROGRAMS)
def test_equals_python(name: str, engine: Run) -> None:
    text, expected = PROGRAMS[name]
    np.testing.assert_array_equal(engine(text, "f", [np.zeros(ITEMS, np.int32)], ITEMS), expected())


@pytest.mark.parametrize("name", PROGRAMS)
def test_equals_pocl(name: str, engine: Run, reference: Run) -> None:
    text, _ = PROGRAMS[name]
    arguments = [np.zeros(ITEMS, np.int32)]
    np.testing.assert_array_equal(engine(text, "f", arguments, ITEMS), reference(text, "f", arguments, ITEMS))


def test_constant_arrays_are_tables_and_private_ones_are_not() -> None:
    text = """__constant short used[3] = {1, -2}; __constant short other[] = {3};
    __kernel void f(__global int *y) { int a[2] = {4, 5}; y[0] = used[y[0]] + a[y[1]]; }"""
    ops = [*compile_opencl(text, "k.cl").walk()]
    (table,) = (op for op in ops if isinstance(op, ppu.TableOp))
    assert (table.label.data, table.contents().tolist()) == ("used", [1, -2, 0])
    assert str(table.location).startswith('loc("k.cl":1:')
    assert [op.label.data for op in ops if isinstance(op, ppu.AllocOp)] == ["a"]
    assert sum(isinstance(op, ppu.StoreOp) for op in ops) == 3


def test_macros_from_outside() -> None:
    """A name with its text, as `-D` gives it; only the kernel that is wanted is looked at."""
    text = "#ifdef HALF\n__kernel void f(__global TYPE *y) { y[0] = HALF; }\n#endif\n__kernel void g(int n) { wrong; }"
    module = compile_opencl(text, "k.cl", {"TYPE": "float", "HALF": "(1.0f / 2)"}, entry="f")
    (function,) = module.ops
    assert function.sym_name.data == "f" and "f32" in str(function.function_type)
