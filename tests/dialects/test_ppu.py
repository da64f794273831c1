"""The ppu dialect: everything prints and reads back in both forms, and refuses what does not fit."""

import numpy as np
import pytest
from nacre.dialects import ppu
from nacre.dialects.text import parse_module

HEAD = """ppu.func @f("x" %x : !ppu.ptr<f32, global>, "k" %k : !ppu.ptr<i8, constant>, "n" %n : i32, "s" %s : f32) {
  %i = ppu.work_item {query = "global_id"} : i64
  %c = ppu.compare %n, %n {predicate = "ltu"} : i1
"""
LINES = {
    "constants": "%a = ppu.constant -3 : i8\n%b = ppu.constant 0.5 : f32\n%d = ppu.constant 0x7FC00000 : f32\n"
    "%e = ppu.constant true : i1",
    "memory": "%a = ppu.load %k, %i : i8\n%b = ppu.load %x, %i : f32\nppu.store %b, %x, %i",
    "arrays": "%a = ppu.alloc {size = 4, label = \"part\"} : !ppu.ptr<i16, local>\nppu.barrier",
    "conversions": '%a = ppu.convert %s {to_signed = false, saturate = true, rounding = "rtn"} : i8\n'
    "%b = ppu.bitcast %s : i32",
    "select": "%a = ppu.select %c, %s, %s : f32\n%b = ppu.fma %a, %s, %s : f32",
    "if": "%a, %b = ppu.if %c -> (f32, i32) {\nppu.yield %s, %n : f32, i32\n} else {\nppu.yield %s, %n : f32, i32\n}",
    "if without results": "ppu.if %c {\nppu.store %s, %x, %i\nppu.yield\n} else {\nppu.yield\n}",
    "loop": "%a, %b = ppu.loop (%p = %s, %q = %n) : (f32, i32) {\nppu.yield %c, %s, %q : i1, f32, i32\n}",
    "loop that carries nothing": "ppu.loop () : () {\nppu.yield %c : i1\n}",
}  # fmt: skip
BINARY = [op for op in ppu.OPS if issubclass(op, ppu.Binary)]
UNARY = [op for op in ppu.OPS if issubclass(op, ppu.Unary)]


@pytest.mark.parametrize("name", LINES)
def test_round_trip(name, syntax):
    text = syntax.both_forms(f"builtin.module {{\n{HEAD}{LINES[name]}\nppu.return }} }}")
    plain = "".join(text.split())
    lines = [line for line in LINES[name].splitlines() if "constant" not in line and "label" not in line]
    assert all("".join(line.split()) in plain for line in lines)


@pytest.mark.parametrize("op", [*BINARY, *UNARY], ids=lambda op: op.name)
def test_arithmetic_reads_back_and_has_its_types(op, syntax):
    for type_, value in (("i32", "%n"), ("f32", "%s")):
        operands = f"{value}, {value}" if op in BINARY else value
        text = f"builtin.module {{\n{HEAD}%r = {op.name} {operands} : {type_}\nppu.return }} }}"
        if any(str(t) == type_ for t in op.ALLOWED):
            assert f"{op.name} {operands} : {type_}" in syntax.both_forms(text)
        else:
            syntax.refuses(text, f"an operand is {type_}, which is none of")


WRONG = {
    "%a = ppu.add %n, %s : i32": "operands of one type are expected, not i32 and f32",
    "%a = ppu.add %n, %n : i64": "the result should be i32, but is i64",
    "%a = ppu.constant 1 : i24": "i24 is no type of the programmable engine",
    "%a = ppu.constant 1.5 : i32": "1.5 is no number of type i32",
    '%a = ppu.compare %n, %n {predicate = "less"} : i1': "'less' is no predicate; eq, ne",
    '%a = ppu.compare %s, %s {predicate = "ltu"} : i1': "an operand is f32, which is none of i8",
    '%a = ppu.convert %s {rounding = "up"} : i8': "'up' is no rounding; rte, rtz, rtp, rtn are",
    "%a = ppu.convert %s : i1": "compare with zero to make an i1",
    '%a = ppu.convert %i {rounding = "rtz"} : f32': "i64 becomes f32 with the rounding 'rte' only",
    "%a = ppu.bitcast %s : i16": "f32 has not the bits of i16",
    "%a = ppu.load %n, %i : f32": "a pointer is expected, not i32",
    "%a = ppu.load %x, %n : f32": "an operand is i32, which is none of i64",
    "ppu.store %n, %x, %i": "i32 does not fit an array of f32",
    "%a = ppu.load %k, %i : i8\nppu.store %a, %k, %i": "constant memory is not written",
    "%a = ppu.alloc {size = 4} : !ppu.ptr<f32, global>": "a pointer to local or private memory",
    "%a = ppu.alloc {size = 0} : !ppu.ptr<f32, local>": "an array has at least one element",
    "%a = ppu.alloc {size = 4} : !ppu.ptr<f32, shared>": "'shared' is no memory; global, constant, local, private are",
    "%a = ppu.alloc {size = 4} : !ppu.ptr<f64, local>": "a ppu pointer leads to i8, i16, i32, i64 or f32, not to f64",
    "%a = ppu.table [1, 2] : !ppu.ptr<i8, global>": "the result is a pointer to constant memory, not",
    "%a = ppu.table [] : !ppu.ptr<i8, constant>": "a table has at least one element",
    "%a = ppu.table [1, 2.5] : !ppu.ptr<i8, constant>": "2.5 is no number of type i8",
    "%a = ppu.table [1] {size = 1} : !ppu.ptr<i8, constant>": "ppu.table has no parameter 'size'",
    "%a = ppu.table [1] {values = [2]} : !ppu.ptr<i8, constant>": "multiple values for keyword argument 'values'",
    '%a = "ppu.table"() <{values = array<i16: 1>}> : () -> !ppu.ptr<i8, constant>': "are written as i8, not as i16",
    '%a = ppu.work_item {query = "lane"} : i64': "'lane' is no query; global_id",
    '%a = ppu.work_item {query = "global_id", dimension = 3} : i64': "the dimensions are 0, 1 and 2, not 3",
    "%a = ppu.if %c -> (i32) {\nppu.yield %n : i32\n} else {\nppu.yield %s : f32\n}": "i32 expected, but found f32",
    "ppu.loop (%p = %s) : (f32) {\nppu.yield %p : f32\n}": "the yielded values: i1, f32 expected, but found f32",
    "ppu.loop (%p = %s) : (f32, i32) {\nppu.yield %p : f32\n}": "1 types expected, 2 found",
    "%a = ppu.add %n, %n {fast = true} : i32": "ppu.add has no parameter 'fast'",
}


@pytest.mark.parametrize("body", WRONG)
def test_refusals(body, syntax):
    syntax.refuses(f"builtin.module {{\n{HEAD}{body}\nppu.return }} }}", WRONG[body])


def test_a_function_ends_with_return_and_has_types_of_the_engine(syntax):
    syntax.refuses('builtin.module { ppu.func @f("x" %x : i32) { ppu.barrier } }', "ppu.func @f ends with ppu.return")
    syntax.refuses('builtin.module { ppu.func @f("x" %x : i1) { ppu.return } }', "no argument is of type i1")
    syntax.refuses(
        'builtin.module { ppu.func @f("x" %x : !ppu.ptr<f32, private>) { ppu.return } }', "leads into private memory"
    )


def test_constants_wrap_and_keep_every_float():
    module = parse_module(
        'ppu.func @f("n" %n : i32) {\n%a = ppu.constant 200 : i8\n%b = ppu.constant 0xFF800000 : f32\nppu.return }'
    )
    found = [op.number() for op in module.walk() if isinstance(op, ppu.ConstantOp)]
    assert found == [-56, float("-inf")]


TABLES = {
    "[3, -1, 127] {label = \"t\"} : !ppu.ptr<i8, constant>": np.array([3, -1, 127], np.int8),
    "[-9223372036854775808] : !ppu.ptr<i64, constant>": np.array([-(2**63)], np.int64),
    "[0.1, -0.0, 1.0e+30, 0x7F800000, 0x7FC00001, 0xFF800001] : !ppu.ptr<f32, constant>": np.array(
        [0x3DCCCCCD, 0x80000000, 0x7149F2CA, 0x7F800000, 0x7FC00001, 0xFF800001], np.uint32
    ).view(np.float32),
}


@pytest.mark.parametrize("text", TABLES)
def test_tables_keep_every_bit(text, syntax):
    found = syntax.both_forms(f"builtin.module {{\n{HEAD}%t = ppu.table {text}\nppu.return }} }}")
    assert f"ppu.table {text}" in found
    (table,) = (op for op in parse_module(found).walk() if isinstance(op, ppu.TableOp))
    assert table.contents().tobytes() == TABLES[text].tobytes()
    again = ppu.TableOp.of(TABLES[text], table.label.data)
    assert again.is_structurally_equivalent(table)
    assert not table.contents().flags.writeable


def test_tables_differ_where_a_bit_does():
    zero, negative = (ppu.TableOp.of(np.array([x], np.float32)) for x in (0.0, -0.0))
    assert not zero.is_structurally_equivalent(negative)
