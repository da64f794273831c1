"""Machine code of the programmable engine: nothing is lost on the way there and back, and damage is told."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacre.dialects import ppu
from nacre.dialects.text import parse_module, print_module
from nacre.dialects.types import i8, i16
from nacre.errors import CompileError, Fault, FileFormatError
from nacre.frontends.opencl import compile_opencl
from nacre.runtime.ppu import decode, encode, kernel_named, launch
from nacre.runtime.ppu.code import MAX_DEPTH, MAX_TABLE, OPCODE, TYPES, WORD
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Block, Region

SOURCE = """__constant short steps[] = {3, -7, 11};
__kernel void f(__global const float *x, __local int *l, __constant uchar *t, int n,
                float s, __global int *y) {
  int i = get_global_id(1), a = 0, b = 1, p[3];
  for (int k = 0; k < n; k++) {
    if (x[k] < s) {
      a += (int)t[k] / (n | 1) + steps[k % 3]; p[k % 3] = convert_char_sat_rte(x[k]);
    } else { int c = a; a = b; b = c; }
    if (isnan(x[k])) break;
  }
  l[get_local_id(0)] = a;
  barrier(CLK_LOCAL_MEM_FENCE);
  y[i] = l[0] + b * p[0] + (int)fma(s, INFINITY, sqrt(fabs(s))) + (int)as_uint(NAN) + (long)0x7fffffffffffffff;
}"""
KERNEL = compile_opencl(SOURCE, "k.cl")
CODE = encode(kernel_named(KERNEL, "f"))


def text_of(function: ppu.FuncOp) -> str:
    """The text without names of values that only the source has."""
    clone = function.clone()
    for op in clone.walk():
        for value in (*op.results, *(a for r in op.regions for b in r.blocks for a in b.args)):
            value.name_hint = None
    return print_module(ModuleOp([clone]))


def test_the_way_there_and_back_keeps_the_text():
    function = kernel_named(KERNEL, "f")
    decoded = decode(CODE)
    assert text_of(decoded) == text_of(function)
    assert encode(decoded) == CODE
    assert 'loc("k.cl":7:' in text_of(decoded)


def test_without_lines_all_but_the_places_stays():
    bare = encode(kernel_named(KERNEL, "f"), lines=False)
    assert len(bare) < len(CODE)
    assert "k.cl" not in text_of(decode(bare))
    assert encode(decode(bare)) == bare


ONE_OF_EACH = """ppu.func @all("p" %p : !ppu.ptr<i32, global>, "n" %n : i32, "w" %w : i64, "x" %x : f32) {
  %c = ppu.constant true : i1
  %i = ppu.constant -3 : i64
  %q = ppu.constant 0x7FC00001 : f32
  %a = ppu.alloc {size = 7, label = "tmp"} : !ppu.ptr<i16, private>
  %t = ppu.table [0.1, -0.0, 0x7FC00001] {label = "curve"} : !ppu.ptr<f32, constant>
  %u8 = ppu.table [3, -1, 127, 4, 5, 6, 7, 8, 9] : !ppu.ptr<i8, constant>
  %id = ppu.work_item {query = "local_id", dimension = 2} : i64
  %v = ppu.bitcast %n : f32
  %s = ppu.select %c, %v, %q : f32
  %m = ppu.fma %s, %x, %q : f32
  %k = ppu.convert %m {rounding = "rtn", saturate = true, to_signed = false} : i8
  %u = ppu.shru %w, %i : i64
  %e = ppu.compare %u, %w {predicate = "geu"} : i1
  %r0, %r1 = ppu.if %e -> (i64, i64) { ppu.yield %u, %w : i64, i64 } else { ppu.yield %w, %u : i64, i64 }
  %l0, %l1 = ppu.loop (%g = %r0, %h = %r1) : (i64, i64) { ppu.yield %e, %h, %g : i1, i64, i64 }
  ppu.if %c { ppu.barrier ppu.yield } else { ppu.yield }
  ppu.store %n, %p, %l0
  ppu.return
}"""


def test_every_form_of_operation():
    function = kernel_named(parse_module(ONE_OF_EACH), "all")
    assert text_of(decode(encode(function))) == text_of(function)


def test_faults_of_decoded_code_name_the_source():
    source = "__kernel void f(__global int *y) {\n  y[get_global_id(0) * 2] = 1;\n}"
    with pytest.raises(Fault, match=r"^k.cl:2:3: kernel 'f': writes 'y'\[4\], .* in work item \(2\)"):
        launch(decode(encode(kernel_named(compile_opencl(source, "k.cl"), "f"))), [np.zeros(4, np.int32)], 4)


def test_opcodes_are_places_in_the_dialect():
    assert OPCODE[ppu.AddOp] == ppu.OPS.index(ppu.AddOp)


def test_a_kernel_nested_too_deeply_is_refused():
    inner = "y[0] = 1;"
    for k in range(MAX_DEPTH):
        inner = f"if (n > {k}) {{ {inner} }}"
    source = f"__kernel void f(__global int *y, int n) {{ {inner} }}"
    with pytest.raises(CompileError, match="split it"):
        encode(kernel_named(compile_opencl(source, "k.cl"), "f"))


# --- tables --------------------------------------------------------------------------------------------------
LETTERS = "ppu.func @f() { %t = ppu.table [97, 98, 99] {label = \"t\"} : !ppu.ptr<i8, constant>  ppu.return }"
TABLE = encode(kernel_named(parse_module(LETTERS), "f"))
BYTES = TABLE.index(b"abc\0\0\0\0\0")
"""Where its contents begin; before them label and length, eight bytes each."""


def damage(at: int, byte: int) -> str:
    damaged = bytearray(TABLE)
    damaged[at] = byte
    with pytest.raises(FileFormatError, match="damaged") as refusal:
        decode(bytes(damaged))
    return str(refusal.value)


def test_a_table_is_its_bytes():
    (table,) = (op for op in decode(TABLE).walk() if isinstance(op, ppu.TableOp))
    assert table.contents().tolist() == [97, 98, 99] and table.label.data == "t"


@pytest.mark.parametrize("length", [0, 9, 255])
def test_a_table_with_a_wrong_length_is_damaged(length: int):
    assert f"8 bytes are no table of {length} bytes of i8" in damage(BYTES - 8, length)


def test_a_table_with_bytes_behind_its_end_is_damaged():
    assert "8 bytes are no table of 3 bytes" in damage(BYTES + 3, 1)


def test_a_table_of_half_an_element_is_damaged():
    code = TYPES.index(ppu.pointer(i16, ppu.Space.CONSTANT))
    assert "8 bytes are no table of 3 bytes of i16" in damage(BYTES - 16 - WORD.size + 1, code)


def test_a_table_elsewhere_than_in_constant_memory_is_damaged():
    code = TYPES.index(ppu.pointer(i8, ppu.Space.PRIVATE))
    assert "a table lies in constant memory" in damage(BYTES - 16 - WORD.size + 1, code)


def test_a_table_without_a_label_that_there_is_is_damaged():
    assert "a word has no negative number" in damage(BYTES - 9, 0xFF)
    assert "names a register, type or word that there is not" in damage(BYTES - 16, 99)


def test_a_table_that_does_not_fit_is_refused():
    def code(size: int) -> bytes:
        block = Block([ppu.TableOp.of(np.zeros(size, np.int8), "t"), ppu.ReturnOp.make()])
        return encode(ppu.FuncOp.of("f", [], Region(block)))

    assert decode(code(MAX_TABLE)).body.block.first_op.contents().size == MAX_TABLE
    with pytest.raises(CompileError, match="the table 't' has 524265 bytes, of which at most 524264 fit"):
        code(MAX_TABLE + 1)


# --- damage --------------------------------------------------------------------------------------------------
@settings(max_examples=120, derandomize=True, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(CODE) - 1), st.integers(1, 255)), min_size=1, max_size=4))
def test_damaged_bytes_are_told_or_are_other_code(flips: list):
    damaged = bytearray(CODE)
    for at, bits in flips:
        damaged[at] ^= bits
    try:
        function = decode(bytes(damaged))
    except FileFormatError as error:
        assert "damaged" in str(error)
    else:
        function.verify()
        assert encode(decode(encode(function))) == encode(function)


def test_truncated_code_is_told():
    for length in range(0, len(CODE), 7):
        with pytest.raises(FileFormatError, match="damaged"):
            decode(CODE[:length])


def test_code_of_another_version_is_told():
    with pytest.raises(FileFormatError, match="of another version of the engine; compile the kernel anew"):
        decode(CODE[:4] + b"\0\0\0\0" + CODE[8:])
