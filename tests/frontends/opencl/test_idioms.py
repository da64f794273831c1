"""What people write in kernels, in groups and on grids of several dimensions: the engine and PoCL agree bit for bit.

Each kernel runs as it is, with the sanitizer, and once more optimised and through its machine code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
from nacre.frontends.opencl import compile_opencl
from nacre.passes.ppu.optimise import optimise
from nacre.runtime.ppu import decode, encode, kernel_named, launch

HEAD = "#pragma OPENCL FP_CONTRACT OFF\n"
RNG = np.random.default_rng(7)


class Local(NamedTuple):
    """An argument in local memory, of so many floats."""

    elements: int


class Idiom(NamedTuple):
    """A kernel `k`, its arguments and its grid."""

    source: str
    arguments: Sequence[Any]
    grid: tuple[int, ...]
    group: tuple[int, ...] | None = None


def floats(n: int) -> np.ndarray:
    return RNG.normal(0, 3, n).astype(np.float32)


def ints(n: int, low: int = -1000, high: int = 1000, dtype: type = np.int32) -> np.ndarray:
    return RNG.integers(low, high, n).astype(dtype)


def zeros(n: int, dtype: type = np.float32) -> np.ndarray:
    return np.zeros(n, dtype)


IDIOMS = {
    "vec ptr": Idiom(
        """
        __kernel void k(__global const float4 *x, __global float4 *y) {
        int i = get_global_id(0); float4 v = x[i];
        v.xz += v.yw; v.hi *= (float2)(0.5f, 3.0f);
        y[i] = v; }
        """,
        [floats(64), zeros(64)],
        (16,),
    ),
    "swizzle16": Idiom(
        """
        __kernel void k(__global const int *x, __global int *y) {
        int16 v = vload16(get_global_id(0), x); int8 e = v.even, o = v.odd;
        v.lo = e - o; v.hi = e ^ o;
        vstore16(v.s0f1e2d3c4b5a6978, get_global_id(0), y);
        }
        """,
        [ints(64), zeros(64, np.int32)],
        (4,),
    ),
    "as type": Idiom(
        """
        __kernel void k(__global const float *x, __global int *y) {
        int i = get_global_id(0); uint b = as_uint(x[i]);
        int e = (int)((b >> 23) & 0xffu) - 127;
        float m = as_float((b & 0x7fffffu) | 0x3f800000u);
        y[i] = e * 1000 + (int)(m * 100.0f); }
        """,
        [floats(64), zeros(64, np.int32)],
        (64,),
    ),
    "as vec": Idiom(
        """
        __kernel void k(__global const float *x, __global uchar *y) {
        int i = get_global_id(0); uchar4 b = as_uchar4(x[i]);
        uint u = as_uint(b.wzyx); vstore4(as_uchar4(u), i, y);
        }
        """,
        [floats(32), zeros(128, np.uint8)],
        (32,),
    ),
    "select": Idiom(
        """
        __kernel void k(__global const float *x, __global float *y) {
        int i = get_global_id(0); float4 v = vload4(i, x);
        float4 r = select(v, -v, v < 0.0f); r = select(r, (float4)(9.0f), isgreater(r, (float4)(4.0f)));
        y[i] = r.x + r.y + r.z + r.w; }
        """,
        [floats(64), zeros(16)],
        (16,),
    ),
    "convert sat rte": Idiom(
        """
        __kernel void k(__global const float *x, __global char *y) {
        int i = get_global_id(0); char4 q = convert_char4_sat_rte(vload4(i, x) * 40.0f);
        vstore4(q, i, y); }
        """,
        [floats(64), zeros(64, np.int8)],
        (16,),
    ),
    "convert family": Idiom(
        """
        __kernel void k(__global const float *x, __global int *y) {
        int i = get_global_id(0); float v = x[i] * 10.0f;
        y[4*i] = convert_int_rtz(v); y[4*i+1] = convert_int_rtp(v);
        y[4*i+2] = convert_int_rtn(v); y[4*i+3] = convert_uchar_sat(v) + convert_short_sat_rte(v * 1e5f);
        }
        """,
        [floats(32), zeros(128, np.int32)],
        (32,),
    ),
    "local reduce": Idiom(
        """
        __kernel void k(__global const float *x, __global float *y) {
        __local float t[64]; int l = get_local_id(0);
        t[l] = x[get_global_id(0)]; barrier(CLK_LOCAL_MEM_FENCE);
        for (int s = get_local_size(0) / 2; s > 0; s >>= 1) { if (l < s) t[l] += t[l + s];
        barrier(CLK_LOCAL_MEM_FENCE); }
        if (l == 0) y[get_group_id(0)] = t[0]; }
        """,
        [floats(256), zeros(4)],
        (256,), (64,),
    ),
    "local arg reduce": Idiom(
        """
        __kernel void k(__global const float *x, __local float *t, __global float *y) {
        int l = get_local_id(0); t[l] = x[get_global_id(0)];
        barrier(CLK_LOCAL_MEM_FENCE);
        for (uint s = get_local_size(0) >> 1; s; s >>= 1) { if (l < s) t[l] = fmax(t[l], t[l + s]);
        barrier(CLK_LOCAL_MEM_FENCE); }
        if (!l) y[get_group_id(0)] = t[0]; }
        """,
        [floats(128), Local(32), zeros(4)],
        (128,), (32,),
    ),
    "scan hillis": Idiom(
        """
        __kernel void k(__global const int *x, __global int *y) {
        __local int a[64]; int l = get_local_id(0);
        a[l] = x[get_global_id(0)]; barrier(CLK_LOCAL_MEM_FENCE);
        for (int o = 1; o < 64; o <<= 1) { int v = l >= o ? a[l - o] : 0;
        barrier(CLK_LOCAL_MEM_FENCE); a[l] += v;
        barrier(CLK_LOCAL_MEM_FENCE); }
        y[get_global_id(0)] = a[l]; }
        """,
        [ints(128), zeros(128, np.int32)],
        (128,), (64,),
    ),
    "scan blelloch": Idiom(
        """
        #define N 32
        __kernel void k(__global const int *x, __global int *y) {
        __local int t[N]; const int l = get_local_id(0);
        int off = 1;
        t[2*l] = x[2*l]; t[2*l+1] = x[2*l+1];
        for (int d = N >> 1; d > 0; d >>= 1) { barrier(CLK_LOCAL_MEM_FENCE);
        if (l < d) { int a = off*(2*l+1)-1, b = off*(2*l+2)-1;
        t[b] += t[a]; } off *= 2; }
        if (l == 0) t[N-1] = 0;
        for (int d = 1; d < N; d *= 2) { off >>= 1;
        barrier(CLK_LOCAL_MEM_FENCE); if (l < d) { int a = off*(2*l+1)-1, b = off*(2*l+2)-1;
        int q = t[a]; t[a] = t[b]; t[b] += q; } }
        barrier(CLK_LOCAL_MEM_FENCE); y[2*l] = t[2*l];
        y[2*l+1] = t[2*l+1]; }
        """,
        [ints(32), zeros(32, np.int32)],
        (16,), (16,),
    ),
    "stencil": Idiom(
        """
        int clampi(int v, int n) { return clamp(v, 0, n - 1);
        }
        __kernel void k(__global const float *x, __global float *y, int w, int h) {
        int c = get_global_id(0), r = get_global_id(1);
        float s = 0.0f;
        for (int dy = -1; dy <= 1; ++dy) for (int dx = -1; dx <= 1; ++dx) s += x[clampi(r + dy, h) * w
        + clampi(c + dx, w)] * (dx == 0 && dy == 0 ? 4.0f : -0.5f);
        y[r * w + c] = s; }
        """,
        [floats(96), zeros(96), 12, 8],
        (12, 8),
    ),
    "tile matmul": Idiom(
        """
        #define T 4
        __kernel void k(__global const float *a, __global const float *b, __global float *y, int n) {
        __local float A[T * T]; __local float B[T * T];
        int c = get_local_id(0), r = get_local_id(1);
        int C = get_global_id(0), R = get_global_id(1);
        float s = 0.0f;
        for (int t = 0; t < n / T; t++) { A[r*T+c] = a[R*n + t*T + c];
        B[r*T+c] = b[(t*T+r)*n + C]; barrier(CLK_LOCAL_MEM_FENCE);
        for (int q = 0; q < T; q++) s += A[r*T+q] * B[q*T+c];
        barrier(CLK_LOCAL_MEM_FENCE); }
        y[R*n+C] = s; }
        """,
        [floats(64), floats(64), zeros(64), 8],
        (8, 8), (4, 4),
    ),
    "gcd": Idiom(
        """
        uint gcd(uint a, uint b) { while (b != 0) { uint t = a % b;
        a = b; b = t; } return a; }
        __kernel void k(__global const uint *x, __global uint *y) {
        int i = get_global_id(0); y[i] = gcd(x[i], x[63 - i]);
        }
        """,
        [ints(64, 1, 5000, np.uint32), zeros(64, np.uint32)],
        (64,),
    ),
    "swizzle compound": Idiom(
        """
        __kernel void k(__global const int *x, __global int *y) {
        int i = get_global_id(0); int4 v = vload4(i, x);
        v.xy += v.zw; v.zw <<= (int2)(1, 2); v.s03 ^= 5;
        v.yx -= v.xy; v.w++; --v.x; vstore4(v, i, y);
        }
        """,
        [ints(64), zeros(64, np.int32)],
        (16,),
    ),
    "pointer arith": Idiom(
        """
        float dot4(__global const float *a, __global const float *b) { float s = 0.0f;
        for (int i = 0; i < 4; i++) s += *(a + i) * b[i];
        return s; }
        __kernel void k(__global const float *x, __global float *y) {
        int i = get_global_id(0); __global const float *p = x + i * 4;
        __global float *q = y + i; *q = dot4(p, &x[60 - i * 4]);
        }
        """,
        [floats(64), zeros(16)],
        (16,),
    ),
    "pointer step": Idiom(
        """
        __kernel void k(__global const float *x, __global float *y) {
        int i = get_global_id(0); __global const float *p = x + i * 4;
        float s = 0.0f;
        for (int j = 0; j < 4; j++, p++) s += *p;
        y[i] = s; }
        """,
        [floats(64), zeros(16)],
        (16,),
    ),
    "pointer step deref": Idiom(
        """
        __kernel void k(__global const float *x, __global float *y) {
        int i = get_global_id(0); __global const float *p = x + i * 4;
        float s = 0.0f;
        s += *p++; s -= *p++; s *= p[1]; p -= 2; s += p[0];
        p = p + 1; s -= *p; y[i] = s; }
        """,
        [floats(64), zeros(16)],
        (16,),
    ),
    "constant table": Idiom(
        """
        __constant float W[3] = {0.25f, 0.5f, 0.25f}
        ; __constant int OFF[] = {-1, 0, 1};
        __kernel void k(__global const float *x, __global float *y, int n) {
        int i = get_global_id(0); float s = 0.0f;
        for (int t = 0; t < 3; t++) s += W[t] * x[min(max(i + OFF[t], 0), n - 1)];
        y[i] = s; }
        """,
        [floats(64), zeros(64), 64],
        (64,),
    ),
    "constant vec": Idiom(
        """
        __constant float4 W = (float4)(0.25f, 0.5f, 0.25f, 1.0f);
        __kernel void k(__global const float *x, __global float *y) {
        int i = get_global_id(0); vstore4(vload4(i, x) * W, i, y);
        }
        """,
        [floats(64), zeros(64)],
        (16,),
    ),
    "constant vec table": Idiom(
        """
        __constant float2 W[2] = {(float2)(0.25f, 0.5f), (float2)(2.0f, 4.0f)}
        ;
        __kernel void k(__global const float *x, __global float *y) {
        int i = get_global_id(0); vstore2(vload2(i, x) * W[i & 1], i, y);
        }
        """,
        [floats(64), zeros(64)],
        (32,),
    ),
    "macros": Idiom(
        """
        #define TYPE float
        #define SQR(a) ((a) * (a))
        #define LERP(a, b, t) ((a) + ((b) - (a)) * (t))
        #if defined(FAST) && FAST
        #define MODE 1
        #else
        #define MODE 0
        #endif
        #define FOR(i, n) for (int i = 0; i < (n); ++i)
        __kernel void k(__global const TYPE *x, __global TYPE *y) {
        int i = get_global_id(0); TYPE s = 0;
        FOR(j, 3) { s += SQR(x[i] + j); }
        #if MODE == 1
        s = 0;
        #elif MODE == 0
        s = LERP(s, x[i], 0.25f);
        #endif
        y[i] = s; }
        """,
        [floats(64), zeros(64)],
        (64,),
    ),
    "macro multiline": Idiom(
        """
        #define SWAP(T, a, b) do { T t_ = (a); \\
        (a) = (b); \\
        (b) = t_; } while (0)
        __kernel void k(__global const int *x, __global int *y) {
        int i = get_global_id(0); int a = x[i], b = x[63 - i];
        if (a > b) SWAP(int, a, b); else a--; y[i] = a * 3 - b;
        }
        """,
        [ints(64), zeros(64, np.int32)],
        (64,),
    ),
    "helper chain": Idiom(
        """
        inline float relu(float x) { return x > 0.0f ? x : 0.0f;
        }
        static float hard_sigmoid(float x) { return clamp(x * 0.2f + 0.5f, 0.0f, 1.0f);
        }
        float hswish(float x) { return x * hard_sigmoid(relu(x) - relu(-x));
        }
        __kernel void k(__global const float *x, __global float *y) {
        y[get_global_id(0)] = hswish(x[get_global_id(0)]);
        }
        """,
        [floats(64), zeros(64)],
        (64,),
    ),
    "helper early return": Idiom(
        """
        int sign3(float x) { if (x > 1.0f) return 1;
        if (x < -1.0f) return -1; for (int i = 0; i < 3; i++) { if (x * i > 1.0f) return i + 10;
        } return 0; }
        __kernel void k(__global const float *x, __global int *y) {
        int i = get_global_id(0); y[i] = sign3(x[i]);
        }
        """,
        [floats(64), zeros(64, np.int32)],
        (64,),
    ),
    "helper out ptr": Idiom(
        """
        void minmax(__private const int *a, int n, __private int *r) {
        r[0] = a[0]; r[1] = a[0]; for (int i = 1; i < n; i++) { r[0] = min(r[0], a[i]);
        r[1] = max(r[1], a[i]); } }
        __kernel void k(__global const int *x, __global int *y) {
        int i = get_global_id(0); int a[4], r[2];
        for (int j = 0; j < 4; j++) a[j] = x[4*i+j];
        minmax(a, 4, r); y[i] = r[1] - r[0]; }
        """,
        [ints(64), zeros(16, np.int32)],
        (16,),
    ),
    "grid stride": Idiom(
        """
        __kernel void k(__global const float *x, __global float *y, int n) {
        for (int i = get_global_id(0); i < n; i += get_global_size(0)) y[i] = x[i] - 1.0f;
        }
        """,
        [floats(50), zeros(50), 50],
        (8,),
    ),
    "bitonic": Idiom(
        """
        __kernel void k(__global const int *x, __global int *y) {
        __local int t[32]; int l = get_local_id(0);
        t[l] = x[get_global_id(0)]; barrier(CLK_LOCAL_MEM_FENCE);
        for (int size = 2; size <= 32; size <<= 1) for (int s = size >> 1; s > 0; s >>= 1) { int p = l ^ s;
        if (p > l) { int up = (l & size) == 0; int a = t[l], b = t[p];
        if ((a > b) == up) { t[l] = b; t[p] = a;
        } } barrier(CLK_LOCAL_MEM_FENCE); }
        y[get_global_id(0)] = t[l]; }
        """,
        [ints(64), zeros(64, np.int32)],
        (64,), (32,),
    ),
    "quant": Idiom(
        """
        __kernel void k(__global const float *x, __global char *y, float scale, int zero) {
        int i = get_global_id(0); y[i] = convert_char_sat(convert_int_rte(x[i] / scale) + zero);
        }
        """,
        [floats(64), zeros(64, np.int8), np.float32(0.05), 3],
        (64,),
    ),
    "dequant uchar4": Idiom(
        """
        __kernel void k(__global const uchar4 *x, __global float4 *y) {
        int i = get_global_id(0); y[i] = (convert_float4(x[i]) - 128.0f) * 0.0625f;
        }
        """,
        [ints(64, 0, 256, np.uint8), zeros(64)],
        (16,),
    ),
    "q31": Idiom(
        """
        int mulh(int a, int b) { long p = (long)a * b;
        int n = p >= 0 ? (1 << 30) : (1 - (1 << 30));
        return (int)((p + n) / (1L << 31)); }
        __kernel void k(__global const int *x, __global int *y) {
        int i = get_global_id(0); y[i] = mulh(x[i] * 1000003, 1518500250) + mul_hi(x[i] << 20, 77777);
        }
        """,
        [ints(64), zeros(64, np.int32)],
        (64,),
    ),
    "narrow wrap": Idiom(
        """
        __kernel void k(__global const char *x, __global short *y) {
        int i = get_global_id(0); char a = x[i];
        a += 100; uchar b = (uchar)a; b *= 3; short s = (short)(a << 9);
        y[i] = s + b; }
        """,
        [ints(64, -128, 128, np.int8), zeros(64, np.int16)],
        (64,),
    ),
    "add sat hadd": Idiom(
        """
        __kernel void k(__global const short *x, __global short *y) {
        int i = get_global_id(0); short4 a = vload4(i, x), b = a.yzwx;
        short4 r = add_sat(a, b) - sub_sat(a, b) + hadd(a, b) + rhadd(b, a) + max(a, b);
        vstore4(r, i, y); }
        """,
        [ints(64, -32768, 32768, np.int16), zeros(64, np.int16)],
        (16,),
    ),
    "rotate hash": Idiom(
        """
        uint h(uint x) { x ^= x >> 16; x *= 0x85ebca6bu;
        x ^= x >> 13; x = rotate(x, 7u) * 0xc2b2ae35u;
        return x ^ (x >> 16); }
        __kernel void k(__global uint *y) {
        int i = get_global_id(0); uint s = i + 1u;
        for (int j = 0; j < 4; j++) s = h(s + j);
        y[i] = s; }
        """,
        [zeros(64, np.uint32)],
        (64,),
    ),
    "histogram private": Idiom(
        """
        __kernel void k(__global const uchar *x, __global int *y) {
        int b = get_global_id(0); int n = 0; for (int i = 0; i < 256; i++) n += (x[i] >> 4) == b;
        y[b] = n; }
        """,
        [ints(256, 0, 256, np.uint8), zeros(16, np.int32)],
        (16,),
    ),
    "int div vec": Idiom(
        """
        __kernel void k(__global const int *x, __global int *y) {
        int i = get_global_id(0); int4 v = vload4(i, x);
        int4 d = (int4)(3, -7, 2, 5); vstore4(v / d * 10 + v % d, i, y);
        }
        """,
        [ints(64), zeros(64, np.int32)],
        (16,),
    ),
    "any all": Idiom(
        """
        __kernel void k(__global const float *x, __global int *y) {
        int i = get_global_id(0); float4 v = vload4(i, x);
        y[i] = any(v > 3.0f) * 4 + all(v > -3.0f) * 2 + any(isnan(v)) + (v.x > 0.0f && v.y > 0.0f);
        }
        """,
        [floats(64), zeros(16, np.int32)],
        (16,),
    ),
    "vec compare mask": Idiom(
        """
        __kernel void k(__global const float *x, __global int *y) {
        int i = get_global_id(0); float4 v = vload4(i, x);
        int4 m = v > 0.0f; vstore4((m & 0x55) | (~m & 0x22), i, y);
        }
        """,
        [floats(64), zeros(64, np.int32)],
        (16,),
    ),
    "ternary vec": Idiom(
        """
        __kernel void k(__global const float *x, __global float *y) {
        int i = get_global_id(0); float4 v = vload4(i, x);
        float4 r = v > 0.0f ? v : v * 0.1f; vstore4(r, i, y);
        }
        """,
        [floats(64), zeros(64)],
        (16,),
    ),
    "const int size": Idiom(
        """
        __kernel void k(__global const float *x, __global float *y) {
        const int N = 4; float t[4]; int i = get_global_id(0);
        for (int j = 0; j < N; j++) t[j] = x[i * N + j];
        y[i] = t[0] * t[3]; }
        """,
        [floats(64), zeros(16)],
        (16,),
    ),
    "reqd": Idiom(
        """
        __kernel __attribute__((reqd_work_group_size(16, 1, 1))) void k(__global const float *x,
        __global float *y) {
        __local float t[16]; int l = get_local_id(0);
        t[l] = x[get_global_id(0)]; barrier(CLK_LOCAL_MEM_FENCE);
        y[get_global_id(0)] = t[15 - l]; }
        """,
        [floats(64), zeros(64)],
        (64,), (16,),
    ),
    "hex float": Idiom(
        """
        __kernel void k(__global const float *x, __global float *y) {
        int i = get_global_id(0); y[i] = x[i] * 0x1.8p-2f + 1e-3F;
        }
        """,
        [floats(64), zeros(64)],
        (64,),
    ),
    "char lit": Idiom(
        """
        __kernel void k(__global const char *x, __global char *y) {
        int i = get_global_id(0); y[i] = x[i] > 0 ? 'a' : '\\n';
        }
        """,
        [ints(64, -128, 128, np.int8), zeros(64, np.int8)],
        (64,),
    ),
    "nested ternary": Idiom(
        """
        __kernel void k(__global const int *x, __global int *y) {
        int i = get_global_id(0), v = x[i]; y[i] = v < -500 ? -2 : v < 0 ? -1 : v == 0 ? 0 : v > 500 ? 2 : 1;
        }
        """,
        [ints(64), zeros(64, np.int32)],
        (64,),
    ),
    "remainder neg": Idiom(
        """
        __kernel void k(__global const int *x, __global int *y) {
        int i = get_global_id(0), v = x[i]; int m = v % 7;
        if (m < 0) m += 7; y[i] = m + (v >> 2) + (int)((uint)v >> 28) + !v + ~v + -v;
        }
        """,
        [ints(64), zeros(64, np.int32)],
        (64,),
    ),
    "groups3d": Idiom(
        """
        __kernel void k(__global int *y) {
        int x = get_global_id(0), w = get_global_id(1), d = get_global_id(2);
        y[(d * get_global_size(1) + w) * get_global_size(0) + x] = get_group_id(0) + 10 * get_group_id(1)
        + 100 * get_group_id(2) + 1000 * get_local_id(0) + (int)get_num_groups(1);
        }
        """,
        [zeros(64, np.int32)],
        (4, 4, 4), (2, 2, 1),
    ),
    "bilinear": Idiom(
        """
        float px(__global const float *im, int x, int y, int w,
        int h) { return (x < 0 || y < 0 || x >= w || y >= h) ? 0.0f : im[y * w + x];
        }
        __kernel void k(__global const float *im, __global const float *at, __global float *o, int w, int h) {
        int i = get_global_id(0); float fx = at[2*i] + 4.0f, fy = at[2*i+1] + 4.0f;
        int x = (int)floor(fx), y = convert_int_rtn(fy);
        float a = fx - x, b = fy - y;
        o[i] = px(im,x,y,w,h) * (1.0f - a) * (1.0f - b) + px(im,x+1,y,w,h) * a * (1.0f - b)
        + px(im,x,y+1,w,h) * (1.0f - a) * b + px(im,x+1,y+1,w,h) * a * b;
        }
        """,
        [floats(64), floats(64), zeros(32), 8, 8],
        (32,),
    ),
    "while assign": Idiom(
        """
        __kernel void k(__global const int *x, __global int *y) {
        int i = get_global_id(0), n = 0, v; while ((v = x[(i + n) & 63]) > 0 && n < 20) n++;
        y[i] = n * 10000 + v; }
        """,
        [ints(64), zeros(64, np.int32)],
        (64,),
    ),
    "shadow": Idiom(
        """
        __kernel void k(__global const int *x, __global int *y) {
        int i = get_global_id(0); int a = x[i]; { int a = 3;
        a += i; if (a & 1) { int i = 7; a *= i; }
        y[i] = a; } y[i] += a; }
        """,
        [ints(64), zeros(64, np.int32)],
        (64,),
    ),
    "private 2d": Idiom(
        """
        float det(const float *r0, const float *r1) { return r0[0] * r1[1] - r0[1] * r1[0];
        }
        __kernel void k(__global const float *x, __global float *y) {
        float m[2][2]; int i = get_global_id(0); for (int r = 0; r < 2; r++) for (int c = 0; c < 2;
        c++) m[r][c] = x[i * 4 + r * 2 + c];
        m[1][0] += 1.0f; m[0][1]++; float *p = m[1];
        p[1] *= 2.0f; *(m[0] + 1) -= 3.0f; **m += 1.0f;
        (*(m + 1))[1] += 4.0f; float *q = &m[1][1];
        q[-1] += q[0];
        y[i] = det(m[0], m[1]); }
        """,
        [floats(64), zeros(16)],
        (16,),
    ),
    "init3": Idiom(
        """
        __constant int T[2][3] = {{1, 2, 3}, {4, 5}
        }; __constant short U[][2] = {1, 2, 3, 4, 5, 6}
        ; __constant float2 V[2][2] = {{(float2)(1.0f, 2.0f)}
        , {(float2)(3.0f), (float2)(4.0f, 5.0f)}}
        ;
        __kernel void k(__global float *y) {
        int i = get_global_id(0); int a[2][2][3] = {{{1, 2}
        , {i}}, {{7, 8, 9}, {10, 11, 12}}};
        float s = 0.0f; for (int p = 0; p < 2; p++) for (int q = 0; q < 2; q++) { for (int r = 0; r < 3;
        r++) s = s * 1.5f + a[p][q][r] * T[q][r];
        s += U[p + q][q] + V[p][q].x - V[q][p].y;
        }
        y[i] = s; }
        """,
        [zeros(16)],
        (16,),
    ),
    "vec rows": Idiom(
        """
        __kernel void k(__global const float *x, __global float *y) {
        int i = get_global_id(0); float4 m[2][2];
        m[0][0] = vload4(i, x); m[0][1] = m[0][0].wzyx;
        m[1][0] = m[0][0] * m[0][1]; m[1][1] = -m[1][0];
        m[1][1].xw += m[0][i & 1].yz;
        float t[3][4]; vstore4(m[1][1], 0, t[2]);
        y[i] = t[2][0] + t[2][3] + vload4(0, t[2]).y;
        }
        """,
        [floats(64), zeros(16)],
        (16,),
    ),
    "bytes of a float": Idiom(
        """
        __kernel void k(__global const float *x, __global uchar *y) {
        int i = get_global_id(0);
        uchar4 b = as_uchar4(x[i]);
        uint u = as_uint(b.wzyx);
        vstore4(as_uchar4(u), i, y);
        }
        """,
        [floats(32), zeros(128, np.uint8)],
        (32,),
    ),
    "as_ between widths": Idiom(
        """
        __kernel void k(__global const int *x, __global int *y) {
        int i = get_global_id(0);
        int4 v = vload4(i, x);
        long2 l = as_long2(v) + as_long2(as_short8(v).s76543210);
        float2 f = as_float2(as_long(v.xy));
        short2 s = as_short2(as_float(v.z));
        ushort4 q = as_ushort4(as_char8(v.zw));
        int4 r = as_int4(l) ^ (int4)(as_int2(f), s.x, s.y);
        r.xy += as_int2(q) + as_int(as_uchar4(v.w).yxwz);
        vstore4(r, i, y);
        }
        """,
        [ints(64, -(2**31), 2**31 - 1), zeros(64, np.int32)],
        (16,),
    ),
    "vectors in ?:": Idiom(
        """
        __kernel void k(__global const float *x, __global float *y) {
        int i = get_global_id(0);
        float4 v = vload4(i, x);
        float4 r = v > 0.0f ? v : v * 0.1f;
        int4 m = r > 1.0f ? 3 : convert_int4_rtz(r);
        r.xy = m.xy == 3 ? (float2)(9.0f, -9.0f) : r.wz;
        vstore4(r + (isnan(v) ? 1.0f : 0.5f), i, y);
        }
        """,
        [floats(64), zeros(64)],
        (16,),
    ),
    "characters and hexadecimal floats": Idiom(
        """
        __kernel void k(__global const float *x, __global float *y) {
        int i = get_global_id(0);
        char c = x[i] > 0.0f ? 'a' : '\\n';
        y[i] = x[i] * 0x1.8p-2f + 0X.4P+3F + 0x1p-149f + (c - '0') + 1e-3F;
        }
        """,
        [floats(64), zeros(64)],
        (64,),
    ),
}


def given(idiom: Idiom) -> list[Any]:
    return [a.copy() if isinstance(a, np.ndarray) else a[0] if isinstance(a, Local) else a for a in idiom.arguments]


def on_pocl(pocl: Any, idiom: Idiom) -> list[Any]:
    """The arguments after a run of PoCL."""
    arguments: list[Any] = []
    for a in idiom.arguments:
        if isinstance(a, np.ndarray):
            arguments.append(pocl.buffer(a))
        elif isinstance(a, Local):
            arguments.append(pocl.cl.LocalMemory(4 * a.elements))
        else:
            arguments.append(a if isinstance(a, np.float32) else np.int32(a))
    pocl.cl.Kernel(pocl.program(HEAD + idiom.source, "-w"), "k")(pocl.queue, idiom.grid, idiom.group, *arguments)
    found = given(idiom)
    for array, buffer in zip(found, arguments):
        if isinstance(array, np.ndarray):
            pocl.cl.enqueue_copy(pocl.queue, array, buffer)
    return found


def same(a: Sequence[Any], b: Sequence[Any]) -> bool:
    return all(x.tobytes() == y.tobytes() for x, y in zip(a, b) if isinstance(x, np.ndarray))


@pytest.mark.parametrize("name", IDIOMS)
def test_equals_pocl(name: str, pocl: Any) -> None:
    idiom = IDIOMS[name]
    module = compile_opencl(HEAD + idiom.source, "k.cl")
    plain, optimised = given(idiom), given(idiom)
    launch(kernel_named(module, "k"), plain, idiom.grid, idiom.group, sanitize=True)
    optimise(module)
    launch(decode(encode(kernel_named(module, "k"))), optimised, idiom.grid, idiom.group)
    expected = on_pocl(pocl, idiom)
    assert not same(expected, given(idiom)), "it writes something"
    assert same(plain, expected)
    assert same(optimised, expected)
