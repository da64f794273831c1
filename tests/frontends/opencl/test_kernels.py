"""OpenCL C kernels on the programmable engine, against numpy written out by hand and against PoCL where it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
from nacre.dialects.text import parse_module, print_module
from nacre.frontends.opencl import compile_opencl
from nacre.runtime.ppu import kernel_named, launch

HEAD = "#pragma OPENCL FP_CONTRACT OFF\n"
N = 64
RNG = np.random.default_rng(7)
X = (RNG.normal(size=N) * 100).astype(np.float32)
Y = (RNG.normal(size=N) * 3).astype(np.float32)
BIG = RNG.integers(-(2**31), 2**31, N).astype(np.int32)
J = RNG.integers(-50, 50, N).astype(np.int32)
SPECIAL = np.array([0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 127.5, 128.5, -128.5, -129, 254.5, 255.5, 1e9, -1e9, 3e9, 0.0] * 4)
SPECIAL32 = SPECIAL.astype(np.float32)


class Case(NamedTuple):
    """A kernel `f`, its arguments (the last array is what it writes) and what it should write."""

    source: str
    arguments: Sequence[Any]
    expected: Callable[[], np.ndarray]
    local: int | None = None


def collatz() -> np.ndarray:
    def steps(n: int) -> int:
        count = 0
        while n != 1 and count < 60:
            n, count = (n // 2 if n % 2 == 0 else 3 * n + 1), count + 1
        return count

    return np.array([steps(i + 1) for i in range(N)], np.int32)


def jumps() -> np.ndarray:
    found = []
    for j in J:
        total = 0
        for k in range(20):
            if k % 3 == 1:
                continue
            if k > abs(int(j)) % 17:
                break
            total += k
        found.append(total)
    return np.array(found, np.int32)


def rows(x: int) -> int:
    t, u = [[1, 2, 3], [4, 5, 0]], [[1, 2], [3, 4], [5, 0]]
    m = [[x + t[r][c + 1] * u[r + 1][c] for c in range(2)] for r in range(2)]
    m[0][1] += x
    m[1][0] += 1 - m[0][1]
    return m[0][0] * m[1][1] - m[0][1] * m[1][0] + 3


def early_return() -> np.ndarray:
    def position(j: int) -> int:
        for k in range(8):
            for m in range(8):
                if k * 8 + m == abs(j):
                    return k * 100 + m
        return -1

    return np.array([position(int(j)) for j in J], np.int32)


CASES: dict[str, Case] = {
    "float elementwise": Case(
        """__kernel void f(__global const float *x, __global const float *y, float scale, __global float *out) {
          size_t i = get_global_id(0);
          out[i] = (x[i] * scale + y[i]) / (y[i] - 0.3f);
        }""",
        [X, Y, 1.7, np.zeros(N, np.float32)],
        lambda: (X * np.float32(1.7) + Y) / (Y - np.float32(0.3)),
    ),
    "integers wrap around": Case(
        """__kernel void f(__global const int *x, __global const int *y, __global int *out) {
          int i = get_global_id(0);
          out[i] = x[i] * 77777 + (x[i] / y[63 - i == i ? 0 : i] ^ x[i] % 13) - (x[i] >> 3) + (int)((uint)x[i] >> 5);
        }""",
        [BIG, np.where(J == 0, 7, J).astype(np.int32), np.zeros(N, np.int32)],
        lambda: np.array(
            [
                np.int64(int(x) * 77777 + (int(x / y) ^ int(np.fmod(x, 13))) - (x >> 3) + ((x % 2**32) >> 5))
                .astype(np.int32)
                for x, y in zip(BIG.astype(np.int64).tolist(), np.where(J == 0, 7, J).tolist())
            ]
        ),
    ),
    "narrow types are promoted": Case(
        """__kernel void f(__global const uchar *a, __global const char *b, __global int *out) {
          int i = get_global_id(0);
          char narrow = (char)(a[i] + b[i]);
          ushort wide = a[i] * b[i];
          out[i] = (a[i] - b[i]) * 1000 + narrow + (wide >> 2) + (a[i] > b[i]) + (~a[i] & 255) + (-1 < 1u);
        }""",
        [np.arange(192, 256).astype(np.uint8), np.arange(-64, 0).astype(np.int8) * 2, np.zeros(N, np.int32)],
        lambda: (
            lambda a, b: (a - b) * 1000 + (a + b).astype(np.int8) + ((a * b).astype(np.uint16) >> 2) + 1 + (~a & 255)
        )(np.arange(192, 256), (np.arange(-64, 0).astype(np.int8) * 2).astype(np.int64)),
    ),
    "divergent branches": Case(
        """__kernel void f(__global const int *x, __global int *out) {
          int i = get_global_id(0), r = 5;
          if (x[i] > 10) { if (i & 1) r = x[i] / (x[i] - 10); else r += 2; }
          else if (x[i] < -10) { r = -x[i]; out[i] = 1; }
          out[i] += r;
        }""",
        [J, np.zeros(N, np.int32)],
        lambda: np.array(
            [
                (x // (x - 10) if i & 1 else 7) if x > 10 else (1 - x if x < -10 else 5)
                for i, x in enumerate(J.tolist())
            ]
        ),
    ),
    "a while loop of its own length for each": Case(
        """__kernel void f(__global int *out) {
          int n = get_global_id(0) + 1, count = 0;
          while (n != 1 && count < 60) { n = n % 2 ? 3 * n + 1 : n / 2; count++; }
          out[get_global_id(0)] = count;
        }""",
        [np.zeros(N, np.int32)],
        collatz,
    ),
    "break and continue": Case(
        """__kernel void f(__global const int *x, __global int *out) {
          int i = get_global_id(0), total = 0;
          for (int k = 0; k < 20; ++k) {
            if (k % 3 == 1) continue;
            if (k > abs(x[i]) % 17) break;
            total += k;
          }
          out[i] = total;
        }""",
        [J, np.zeros(N, np.int32)],
        jumps,
    ),
    "return from two loops of a helper": Case(
        """int position(int wanted) {
          for (int k = 0; k < 8; k++)
            for (int m = 0; m < 8; m++)
              if (k * 8 + m == wanted) return k * 100 + m;
          return -1;
        }
        __kernel void f(__global const int *x, __global int *out) {
          out[get_global_id(0)] = position(abs(x[get_global_id(0)]));
        }""",
        [J, np.zeros(N, np.int32)],
        early_return,
    ),
    "return from a loop that would go on": Case(
        """int below(__global const int *x, int wanted) {
          for (int k = 0; k < 64; k++) if (x[k] < wanted) return k;
          return -1;
        }
        __kernel void f(__global const int *x, __global int *out) {
          out[get_global_id(0)] = below(x, x[get_global_id(0)]);
        }""",
        [J, np.zeros(N, np.int32)],
        lambda: np.array([next((k for k in range(N) if J[k] < j), -1) for j in J], np.int32),
    ),
    "do runs once at least": Case(
        """__kernel void f(__global const int *x, __global int *out) {
          int i = get_global_id(0), n = x[i], rounds = 0;
          do { n -= 7; rounds++; if (rounds == 5) continue; } while (n > 0);
          out[i] = rounds * 100 + n;
        }""",
        [J, np.zeros(N, np.int32)],
        lambda: np.array([(lambda r: r * 100 + j - 7 * r)(max(1, -(-j // 7))) for j in J.tolist()]),
    ),
    "sum of each work group": Case(
        """#define SIZE 16
        __kernel void f(__global const float *x, __global float *out) {
          __local float part[SIZE];
          int l = get_local_id(0);
          part[l] = x[get_global_id(0)];
          barrier(CLK_LOCAL_MEM_FENCE);
          for (int step = SIZE / 2; step > 0; step >>= 1) {
            if (l < step) part[l] += part[l + step];
            barrier(CLK_LOCAL_MEM_FENCE);
          }
          if (l == 0) out[get_group_id(0)] = part[0];
        }""",
        [X, np.zeros(4, np.float32)],
        lambda: np.array([tree_sum(X[g * 16 : g * 16 + 16]) for g in range(4)], np.float32),
        16,
    ),
    "groups of the size that the kernel asks for": Case(
        """__kernel __attribute__((reqd_work_group_size(16, 1, 1)))
        void f(__global const int *x, __global int *out) {
          __local int part[16];
          int l = get_local_id(0);
          part[l] = x[get_global_id(0)];
          barrier(CLK_LOCAL_MEM_FENCE);
          out[get_global_id(0)] = part[15 - l] * (int)get_local_size(0);
        }""",
        [J, np.zeros(N, np.int32)],
        lambda: J.reshape(-1, 16)[:, ::-1].reshape(-1) * 16,
        16,
    ),
    "a transposed tile": Case(
        """#define T 4
        __kernel void f(__global const int *x, __global int *out) {
          __local int tile[T][T + 1];
          int l = get_local_id(0), base = get_group_id(0) * T * T;
          tile[l / T][l % T] = x[base + l];
          barrier(CLK_LOCAL_MEM_FENCE);
          out[base + l] = tile[l % T][l / T];
        }""",
        [J, np.zeros(N, np.int32)],
        lambda: J.reshape(-1, 4, 4).transpose(0, 2, 1).reshape(-1),
        16,
    ),
    "arrays of arrays": Case(
        """__constant int T[2][3] = {{1, 2, 3}, {4, 5}};
        __constant short U[][2] = {1, 2, 3, 4, 5};
        int determinant(const int *a, const int *b) { return a[0] * b[1] - a[1] * b[0]; }
        __kernel void f(__global const int *x, __global int *out) {
          int i = get_global_id(0);
          int m[2][2], n[2][2][2] = {{{1, 2}, {x[i]}}, {{5, 6}, {7, 8}}};
          for (int r = 0; r < 2; r++) for (int c = 0; c < 2; c++) m[r][c] = x[i] + T[r][c + 1] * U[r + 1][c];
          m[0][1] += n[0][1][0] - n[0][1][1];
          int *p = m[1], *q = &m[1][1];
          p[0]++;
          q[-1] -= *(m[0] + 1);
          **n[1] = 3;
          out[i] = determinant(m[0], m[1]) + (*(n + 1))[0][0];
        }""",
        [J, np.zeros(N, np.int32)],
        lambda: np.array([rows(int(j)) for j in J], np.int32),
    ),
    "private arrays and pointers": Case(
        """void fill(int *a, int n, int start) { for (int k = 0; k < n; k++) a[k] = start + k * k; }
        __kernel void f(__global const int *x, __global int *out) {
          int table[8];
          __global const int *mine = x + get_global_id(0);
          fill(table, 8, *mine);
          int best = table[0], *p = table;
          for (int k = 1; k < 8; ++k) { p += 1; best = max(best, *p * (k & 1 ? -1 : 1)); }
          *(out + get_global_id(0)) = best + *mine++ + p[-7];
        }""",
        [J, np.zeros(N, np.int32)],
        lambda: np.array(
            [max([j, *((j + k * k) * (-1 if k & 1 else 1) for k in range(1, 8))]) + 2 * j for j in J.tolist()]
        ),
    ),
    "conversions saturate and round": Case(
        """__kernel void f(__global const float *x, __global int *out) {
          int i = get_global_id(0);
          float v = x[i];
          out[i * 8] = convert_char_sat_rte(v);
          out[i * 8 + 1] = convert_uchar_sat(v);
          out[i * 8 + 2] = convert_int_sat_rtp(v);
          out[i * 8 + 3] = (int)convert_uint_sat_rtn(v);
          out[i * 8 + 4] = convert_short_sat_rtz(v);
          out[i * 8 + 5] = convert_char_sat(convert_int_sat(v));
          out[i * 8 + 6] = convert_uchar(convert_int_sat_rte(v));
          out[i * 8 + 7] = convert_ushort_sat(convert_long_sat_rte(v));
        }""",
        [SPECIAL32, np.zeros(8 * N, np.int32)],
        lambda: np.stack(
            [
                np.clip(np.rint(SPECIAL), -128, 127),
                np.clip(np.trunc(SPECIAL), 0, 255),
                np.clip(np.ceil(SPECIAL), -(2**31), 2**31 - 1),
                np.clip(np.floor(SPECIAL), 0, 2**32 - 1).astype(np.uint32).view(np.int32),
                np.clip(np.trunc(SPECIAL), -32768, 32767),
                np.clip(np.trunc(SPECIAL), -128, 127),
                np.clip(np.rint(SPECIAL), -(2**31), 2**31 - 1).astype(np.int64) & 255,
                np.clip(np.rint(SPECIAL), 0, 65535),
            ],
            axis=1,
        ).reshape(-1),
    ),
    "integers become floats": Case(
        """__kernel void f(__global const int *x, __global float *out) {
          int i = get_global_id(0);
          out[i * 4] = x[i]; out[i * 4 + 1] = (uint)x[i];
          out[i * 4 + 2] = convert_float_rtz(x[i]) - convert_float_rtp((uint)x[i]);
          out[i * 4 + 3] = (float)((long)x[i] * x[i]) + as_float(x[i] & 0x3fffffff);
        }""",
        [BIG, np.zeros(4 * N, np.float32)],
        lambda: np.stack(
            [
                BIG.astype(np.float32),
                BIG.view(np.uint32).astype(np.float32),
                directed(BIG.astype(np.float64), False) - directed(BIG.view(np.uint32).astype(np.float64), True),
                (BIG.astype(np.int64) * BIG).astype(np.float32) + (BIG & 0x3FFFFFFF).view(np.float32),
            ],
            axis=1,
        ).reshape(-1),
    ),
    "built-in functions": Case(
        """__kernel void f(__global const float *x, __global const int *y, __global float *out) {
          int i = get_global_id(0);
          float a = x[i] * 0.01f, b = y[i] * 0.25f;
          out[i] = floor(a) + ceil(b) * rint(a) - trunc(b) + sqrt(fabs(a)) + fmin(a, b) * fmax(a, 2.0f)
              + clamp(b, -1.0f, 1.0f) + fma(a, b, -0.1f) + min(y[i], 3) + max((uint)y[i], 4u) * 1e-9f
              + select(1.5f, 2.5f, y[i] > 0) + isnan(a / 0.0f - a / 0.0f);
        }""",
        [X, J, np.zeros(N, np.float32)],
        lambda: many_functions(X, J),
    ),
    "vectors": Case(
        """__kernel void f(__global const float4 *x, __global const int *y, __global float4 *out) {
          int i = get_global_id(0) / 4;
          if (get_global_id(0) % 4 != 0) return;
          float4 v = x[i], w = (float4)(1.0f, v.xy * 2.0f, 4.0f);
          v.zw = w.yx;
          int4 c = vload4(i, y);
          v += convert_float4(c << 2) * w.s0;
          v.s3 = -v.w;
          v = c > 3 ? v : w;
          out[i] = fmax(v, w) + (v.lo.x + v.hi.y);
        }""".replace("c > 3 ? v : w", "select(w, v, c > 3)"),
        [X, J, np.zeros(N, np.float32)],
        lambda: vectors(X.reshape(-1, 4), J.reshape(-1, 4)),
    ),
}


def tree_sum(values: np.ndarray) -> np.float32:
    part = values.copy()
    for step in (8, 4, 2, 1):
        part[:step] += part[step : 2 * step]
    return part[0]


def directed(exact: np.ndarray, up: bool) -> np.ndarray:
    near = exact.astype(np.float32)
    if up:
        return np.where(near < exact, np.nextafter(near, np.float32(np.inf)), near)
    return np.where(np.abs(near.astype(np.float64)) > np.abs(exact), np.nextafter(near, np.float32(0)), near)


def many_functions(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    f = np.float32
    a, b = x * f(0.01), y.astype(f) * f(0.25)
    total = np.floor(a) + np.ceil(b) * np.rint(a) - np.trunc(b) + np.sqrt(np.abs(a))
    total = total + np.minimum(a, b) * np.maximum(a, f(2)) + np.clip(b, f(-1), f(1))
    total = total + (a.astype(np.longdouble) * b + np.longdouble(f(-0.1))).astype(f) + np.minimum(y, 3).astype(f)
    total = total + np.maximum(y.view(np.uint32), 4).astype(f) * f(1e-9)
    return total + np.where(y > 0, f(2.5), f(1.5)) + f(1)


def vectors(x: np.ndarray, c: np.ndarray) -> np.ndarray:
    one = np.ones(len(x), np.float32)
    w = np.stack([one, x[:, 0] * 2, x[:, 1] * 2, one * 4], axis=1)
    v = np.stack([x[:, 0], x[:, 1], w[:, 1], w[:, 0]], axis=1) + (c << 2).astype(np.float32) * w[:, :1]
    v[:, 3] = -v[:, 3]
    v = np.where(c > 3, v, w)
    return (np.maximum(v, w) + (v[:, 0] + v[:, 3])[:, None]).reshape(-1)


def emulate(source: str, arguments: Sequence[Any], local: int | None = None, items: int = N) -> np.ndarray:
    """What the kernel `f` writes, by way of the text of its ppu function."""
    module = parse_module(print_module(compile_opencl(source, "f.cl")))
    given = [a.copy() if isinstance(a, np.ndarray) else a for a in arguments]
    launch(kernel_named(module, "f"), given, items, local)
    return given[-1]


@pytest.mark.parametrize("name", CASES)
def test_equals_numpy(name: str) -> None:
    case = CASES[name]
    found = emulate(case.source, case.arguments, case.local)
    np.testing.assert_array_equal(found, np.asarray(case.expected()).astype(found.dtype))


# --- PoCL ------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def under_pocl(pocl: Any) -> Callable[..., np.ndarray]:
    """Runs a kernel `f` under PoCL."""

    def run(source: str, arguments: Sequence[Any], local: int | None = None, items: int = N) -> np.ndarray:
        kernel = pocl.cl.Kernel(pocl.program(HEAD + source), "f")
        given = [pocl.buffer(a) if isinstance(a, np.ndarray) else np.float32(a) for a in arguments]
        kernel(pocl.queue, (items,), None if local is None else (local,), *given)
        out = np.empty_like(arguments[-1])
        pocl.cl.enqueue_copy(pocl.queue, out, given[-1])
        return out

    return run


@pytest.mark.parametrize("name", CASES)
def test_equals_pocl(name: str, under_pocl: Callable[..., np.ndarray]) -> None:
    case = CASES[name]
    np.testing.assert_array_equal(
        emulate(case.source, case.arguments, case.local), under_pocl(case.source, case.arguments, case.local)
    )


DTYPES: dict[str, Any] = {
    "char": np.int8, "uchar": np.uint8, "short": np.int16, "ushort": np.uint16, "int": np.int32, "uint": np.uint32,
    "long": np.int64, "ulong": np.uint64,
}  # fmt: skip
PAIRS = [
    ("char", "uint"), ("uchar", "short"), ("int", "ulong"), ("uint", "long"), ("short", "ushort"), ("long", "char"),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:Non-empty compiler output")  # comparisons of signed and unsigned, as is meant
@pytest.mark.parametrize(("left", "right"), PAIRS)
def test_integer_operators_equal_pocl(left: str, right: str, under_pocl: Callable[..., np.ndarray]) -> None:
    """Every operator on types that C converts, with the extreme values among the operands."""
    rng = np.random.default_rng(11)
    operands = []
    for type_ in (left, right):
        limits = np.iinfo(DTYPES[type_])
        values = rng.integers(limits.min, limits.max, N, DTYPES[type_], endpoint=True)
        values[rng.permutation(N)[:12]] = np.array([limits.min, limits.max, 1, 2, 3, 5] * 2, DTYPES[type_])
        operands.append(values)
    a, b = operands
    b[(b == 0) | (b == -1)] = 3  # division by zero is undefined, and so is the smallest number by -1
    operators = ["+", "-", "*", "/", "%", "&", "|", "^", "<<", ">>", "<", "<=", "==", "!=", "&&", "||"]
    row = len(operators) + 3
    right_side = {"<<": "(b & 31)", ">>": "(b & 31)"}
    lines = [f"out[i * {row} + {k}] = a {o} {right_side.get(o, 'b')};" for k, o in enumerate(operators)]
    tail = f"""out[i * {row} + {row - 3}] = -a + ~b;
      {left} t = a; t += b; t *= 3; t -= !b; t |= 1;
      out[i * {row} + {row - 2}] = t++ + --t * 2;
      out[i * {row} + {row - 1}] = (a < b ? a : b) + abs(a);"""
    source = f"""__kernel void f(__global const {left} *x, __global const {right} *y, __global long *out) {{
      int i = get_global_id(0); {left} a = x[i]; {right} b = y[i];
      {" ".join(lines)} {tail} }}"""
    arguments = [a, b, np.zeros(N * row, np.int64)]
    np.testing.assert_array_equal(emulate(source, arguments), under_pocl(source, arguments))
