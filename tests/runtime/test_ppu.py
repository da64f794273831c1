"""Kernels run for all work items together: exact arithmetic, and a Fault that names place and work item."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacre.dialects.text import parse_module, print_module
from nacre.errors import Fault, FileFormatError, InputError
from nacre.frontends.opencl import compile_opencl
from nacre.runtime.ppu import (
    Grid,
    cost,
    decode,
    encode,
    float_to_integer,
    fused_multiply_add,
    integer_to_float,
    kernel_named,
    launch,
    prepare,
)
from nacre.runtime.ppu.code import Control


def run(source: str, arguments, items=8, local=None, **options) -> None:
    launch(kernel_named(compile_opencl(source, "k.cl"), "f"), arguments, items, local, **options)


def fault(source: str, arguments, **options) -> str:
    with pytest.raises(Fault) as stop:
        run(source, arguments, **options)
    return str(stop.value)


# --- what a kernel must not do ---------------------------------------------------------------------------
def test_reading_out_of_bounds():
    source = """__kernel void f(__global const float *x, __global float *y) {
  int i = get_global_id(0);
  y[i] = x[i + 3];
}"""
    found = fault(source, [np.ones(8, np.float32), np.zeros(8, np.float32)])
    assert found == "k.cl:3:10: kernel 'f': reads 'x'[8], which has 8 elements, in work item (5)"


def test_writing_out_of_bounds_below_in_two_dimensions():
    source = "__kernel void f(__global int *y) { y[(int)get_global_id(0) * (int)get_global_id(1) - 3] = 1; }"
    found = fault(source.replace("- 3", "* -1"), [np.zeros(8, np.int32)], items=(3, 2))
    assert "writes 'y'[-1], which has 8 elements, in work item (1, 1)" in found


def test_a_guard_keeps_others_out_of_bounds():
    y = np.zeros(5, np.int32)
    guarded = "int i = get_global_id(0); if (i < n && y[i] == 0) y[i] = i + 1;"
    source = f"__kernel void f(__global int *y, int n) {{ {guarded} }}"
    run(source, [y, 5], items=64)
    assert y.tolist() == [1, 2, 3, 4, 5]


def test_local_and_private_arrays_have_bounds_of_their_own():
    for space in ("__local int", "int"):
        source = f"__kernel void f(__global int *y) {{ {space} a[4]; a[get_global_id(0)] = 1; y[0] = a[0]; }}"
        found = fault(source, [np.zeros(8, np.int32)], local=2)
        assert "writes 'a'[4], which has 4 elements, in work item (4)" in found


def test_an_endless_loop_stops():
    source = "__kernel void f(__global int *y) {\n  int i = get_global_id(0);\n  while (i != 3) y[i] += 1;\n}"
    found = fault(source, [np.zeros(8, np.int32)], max_steps=100)
    assert found == "k.cl:3:3: kernel 'f': a loop did not end within 100 rounds, in work item (0)"
    found = fault(source.replace("i != 3", "i == 3"), [np.zeros(8, np.int32)], max_steps=100)
    assert found.endswith("in work item (3)")


def test_division_by_zero_only_where_it_happens():
    source = "__kernel void f(__global int *y) { int i = get_global_id(0); y[i] = i == 2 ? 7 : 100 / (i - 2); }"
    y = np.zeros(8, np.int32)
    run(source, [y])
    assert y.tolist() == [-50, -100, 7, 100, 50, 33, 25, 20]
    found = fault(source.replace("i == 2", "i == 3"), [y])
    assert "an integer is divided by zero, in work item (2)" in found


def test_a_barrier_that_some_miss():
    source = "__kernel void f(__global int *y) { if (get_local_id(0) < 3) barrier(1); y[0] = 1; }"
    assert "a barrier that others of the group wait at is not reached, in work item (3)" in fault(
        source, [np.zeros(8, np.int32)], local=4
    )
    run(source.replace("local_id(0) < 3", "group_id(0) == 1"), [np.zeros(8, np.int32)], local=4)


def test_a_read_only_array_is_not_written():
    y = np.zeros(8, np.int32)
    y.setflags(write=False)
    assert "writes 'y', an array that is read-only" in fault("__kernel void f(__global int *y) { y[0] = 1; }", [y])


# --- arguments and grids ---------------------------------------------------------------------------------
SOURCE = """__kernel void f(__global const float *x, __local int *l, uchar n, float s, __global uint *y) {
  y[0] = n + (int)s;
}"""
X, Y = np.zeros(4, np.float32), np.zeros(4, np.uint32)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([X], "the kernel 'f' takes 5 arguments (x, l, n, s, y), but 1 are given"),
        ([Y, 4, 1, 1.0, Y], "the argument 'x' of the kernel 'f' is an array of float32"),
        ([X.astype(np.float64), 4, 1, 1.0, Y], "is an array of float32, not an array of float64"),
        ([X, 0, 1, 1.0, Y], "the argument 'l' of the kernel 'f' lies in local memory"),
        ([X, 4, 256, 1.0, Y], "a number of type i8, which 256 does not fit"),
        ([X, 4, 1.5, 1.0, Y], "a number of type i8, not 1.5"),
        ([X, 4, 1, X, Y], "the argument 's' of the kernel 'f' is a number of type f32"),
        ([X, 4, 1, 1.0, np.zeros(8, np.uint32)[::2]], "an array that is not contiguous"),
    ],
)
def test_arguments_that_do_not_fit(arguments, reason):
    with pytest.raises(InputError) as refusal:
        run(SOURCE, arguments)
    assert reason in str(refusal.value)


def test_scalars_of_either_sign_fit():
    for n in (200, -56):
        run(SOURCE, [X, 4, n, 2.0, Y])
        assert Y[0] == 202


@pytest.mark.parametrize(
    "sizes",
    [((0,), None), ((8,), (3,)), ((8, 8), (4,)), ((1, 1, 1, 1), None), ((1 << 31,), None), ((1 << 40, 64), None)],
)
def test_grids_that_are_none(sizes):
    with pytest.raises(InputError, match="grid"):
        Grid.of(*sizes)


def test_a_grid_beyond_the_memory():
    source = "__kernel void f(__global int *x) { int a[1 << 20]; a[x[0]] = 1; x[0] = a[1]; }"
    with pytest.raises(InputError, match=r"the kernel 'f' on a grid of \[32768, 32768\] takes more memory"):
        run(source, [np.zeros(1, np.int32)], (1 << 15, 1 << 15))  # 4 PiB


def test_an_unknown_kernel():
    with pytest.raises(InputError, match="no kernel 'g'; the module has f"):
        kernel_named(compile_opencl(SOURCE, "k.cl"), "g")


def test_work_items_know_where_they_are():
    source = """__kernel void f(__global int *y) {
      int i = get_global_id(0) + get_global_size(0) * get_global_id(1);
      y[i] = get_local_id(0) + 10 * get_local_id(1) + 100 * get_group_id(0) + 1000 * get_group_id(1)
          + 10000 * get_num_groups(0) + 100000 * get_local_size(1) + 1000000 * get_work_dim();
    }"""
    y = np.zeros(24, np.int32)
    run(source, [y], items=(6, 4), local=(3, 2))
    expected = [
        i % 3 + 10 * (j % 2) + 100 * (i // 3) + 1000 * (j // 2) + 20000 + 200000 + 2000000
        for j in range(4) for i in range(6)
    ]  # fmt: skip
    assert y.tolist() == expected


def test_the_ir_runs_as_it_is_written():
    module = parse_module("""ppu.func @power("y" %y : !ppu.ptr<i16, global>) {
      %i = ppu.work_item {query = "global_id"} : i64
      %n = ppu.convert %i : i16
      %one = ppu.constant 1 : i16
      %zero = ppu.constant 0 : i16
      %r, %m = ppu.loop (%p = %one, %k = %n) : (i16, i16) {
        %q = ppu.add %p, %p : i16
        %l = ppu.sub %k, %one : i16
        %again = ppu.compare %l, %zero {predicate = "gt"} : i1
        ppu.yield %again, %q, %l : i1, i16, i16
      }
      ppu.store %r, %y, %i
      ppu.return
    }""")
    y = np.zeros(17, np.int16)
    launch(kernel_named(module, "power"), [y], 17)
    assert y.tolist() == [2, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, -32768, 0]


# --- arithmetic against exact numbers --------------------------------------------------------------------
FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


def nearest(exact: Fraction) -> np.float32:
    """The float32 nearest to a number, ties to even."""
    guess = np.float32(float(exact))
    around = [guess, np.nextafter(guess, np.float32(-np.inf)), np.nextafter(guess, np.float32(np.inf))]
    finite = [x for x in around if np.isfinite(x)]
    return min(finite, key=lambda x: (abs(Fraction(float(x)) - exact), int(x.view(np.uint32)) & 1))


@settings(max_examples=300, deadline=None)
@given(FLOATS, FLOATS, FLOATS)
def test_fma_rounds_once(a: float, b: float, c: float):
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    if abs(exact) > Fraction(3.4e38):
        return
    with np.errstate(all="ignore"):
        found = fused_multiply_add(np.float32(a), np.float32(b), np.float32(c))
    assert found == nearest(exact)


def test_fma_where_two_roundings_would_differ():
    a, b = np.float32(1 + 2.0**-12), np.float32(1 + 2.0**-12)
    c = np.float32(2.0**-60)  # the product lies midway between two floats, and c decides
    assert fused_multiply_add(a, b, c) == np.float32(1 + 2.0**-11 + 2.0**-23)
    assert np.float32(np.float64(a) * np.float64(b) + np.float64(c)) == np.float32(1 + 2.0**-11)


@settings(max_examples=200, deadline=None)
@given(st.floats(width=32), st.sampled_from([np.int8, np.int16, np.int32, np.int64]), st.booleans())
def test_floats_become_integers(x: float, dtype: type, signed: bool):
    bits = np.dtype(dtype).itemsize * 8
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    with np.errstate(all="ignore"):
        found = float_to_integer(np.float32(x), np.dtype(dtype), signed, "rte")
    if not np.isfinite(x):
        expected = 0 if np.isnan(x) else (high if x > 0 else low)
    else:
        expected = min(max(round(Fraction(x)), low), high)  # Python rounds ties to even
    assert int(found) & ((1 << bits) - 1) == expected & ((1 << bits) - 1)


@settings(max_examples=200, deadline=None)
@given(st.integers(-(2**31), 2**31 - 1), st.sampled_from(["rtz", "rtp", "rtn"]))
def test_integers_become_floats(x: int, rounding: str):
    found = integer_to_float(np.int32(x), rounding)
    upwards = rounding == "rtp" or (rounding == "rtz" and x < 0)
    step = np.nextafter(found, np.float32(-np.inf if upwards else np.inf))
    assert (float(step) < x <= float(found)) if upwards else (float(found) <= x < float(step))


# --- work groups of one size -----------------------------------------------------------------------------
GROUPED = """
#define HALF 4
__kernel __attribute__((reqd_work_group_size(2 * HALF, 1, 1))) void reverse(__global const int *x, __global int *y) {
  __local int t[8];
  int l = get_local_id(0);
  t[l] = x[get_global_id(0)];
  barrier(CLK_LOCAL_MEM_FENCE);
  y[get_global_id(0)] = t[7 - l];
}
"""


def test_a_kernel_runs_in_the_groups_that_it_is_written_for():
    function = kernel_named(compile_opencl(GROUPED, "k.cl"), "reverse")
    x, y = np.arange(24, dtype=np.int32), np.zeros(24, np.int32)
    text = print_module(compile_opencl(GROUPED))
    assert "group(8, 1, 1)" in text
    for made in (function, decode(encode(function)), kernel_named(parse_module(text), "reverse")):
        assert made.group_size() == (8, 1, 1)
        y[:] = 0
        launch(made, [x, y], 24, sanitize=True)
        assert (y.reshape(3, 8) == x.reshape(3, 8)[:, ::-1]).all()
        launch(made, [x, y], (24, 1), (8, 1))
    kernel = prepare(function)
    assert cost(kernel, [None, None], 24, lanes=4) == cost(kernel, [None, None], 24, lanes=4, local_size=8)


@pytest.mark.parametrize(
    ("sizes", "reason"),
    [
        ((24, 4), r"the kernel 'reverse' is written for groups of \[8, 1, 1\], not \[4\]"),
        ((20, None), r"the kernel 'reverse': the grid \[20\] is no multiple of its groups \[8\]"),
    ],
)
def test_a_kernel_runs_in_no_other_groups(sizes, reason):
    function = kernel_named(compile_opencl(GROUPED, "k.cl"), "reverse")
    with pytest.raises(InputError, match=reason):
        launch(function, [np.zeros(24, np.int32), np.zeros(24, np.int32)], *sizes)
    with pytest.raises(InputError, match=reason):
        cost(prepare(function), [None, None], sizes[0], 4, sizes[1])


def test_a_group_of_two_dimensions_needs_a_grid_of_two():
    text = GROUPED.replace("2 * HALF, 1, 1", "HALF, 2, 1")
    function = kernel_named(compile_opencl(text, "k.cl"), "reverse")
    with pytest.raises(InputError, match="not a grid of 1 dimensions"):
        launch(function, [np.zeros(8, np.int32), np.zeros(8, np.int32)], 8)


def test_code_in_which_the_group_is_not_the_first_instruction_is_refused():
    code = bytearray(encode(kernel_named(compile_opencl(GROUPED, "k.cl"), "reverse"), lines=False))
    words = code.index(bytes([Control.GROUP, 0, 0xFF, 0xFF]))
    group, after = code[words : words + 36], code[words + 36 :]
    size = 12 + 8 * int.from_bytes(after[10:12], "little")
    with pytest.raises(FileFormatError, match="the work group is not the first instruction"):
        decode(bytes(code[:words] + after[:size] + group + after[size:]))
