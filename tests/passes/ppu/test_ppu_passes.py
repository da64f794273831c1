"""The passes over kernels: what they make of small functions, and that a kernel computes the same after them."""

from __future__ import annotations

import numpy as np
import pytest
from nacre.dialects import ppu
from nacre.dialects.text import parse_module
from nacre.frontends.opencl import compile_opencl
from nacre.passes.ppu.hoist import HoistPass
from nacre.passes.ppu.optimise import optimise
from nacre.passes.ppu.rotate_loops import RotateLoopsPass
from nacre.passes.rewrite import canonicalize
from nacre.runtime.ppu import kernel_named, launch


def function(body: str, arguments: str = '"x" %x : !ppu.ptr<i32, global>, "n" %n : i32'):
    return parse_module(f"builtin.module {{ ppu.func @f({arguments}) {{ {body} ppu.return }} }}")


def names(module) -> list[str]:
    return [op.name for op in module.walk() if op.name not in ("builtin.module", "ppu.func", "ppu.return")]


def stored(body: str) -> str | None:
    """What a stored value becomes, as text."""
    module = function(f"%i = ppu.constant 0 : i64  {body}  ppu.store %r, %x, %i")
    canonicalize(module)
    (store,) = (op for op in module.walk() if isinstance(op, ppu.StoreOp))
    value = store.value
    if isinstance(value.owner, ppu.ConstantOp):
        return str(value.owner.number())
    return value.name_hint if not isinstance(value.owner, ppu.DeclarativeOp) else value.owner.name


@pytest.mark.parametrize(
    ("body", "becomes"),
    [
        ("%a = ppu.constant 7 : i32  %b = ppu.constant -3 : i32  %r = ppu.mul %a, %b : i32", "-21"),
        ("%a = ppu.constant 2147483647 : i32  %b = ppu.constant 1 : i32  %r = ppu.add %a, %b : i32", "-2147483648"),
        ("%a = ppu.constant 0 : i32  %r = ppu.add %n, %a : i32", "n"),
        ("%a = ppu.constant 0 : i32  %r = ppu.add %a, %n : i32", "n"),
        ("%a = ppu.constant 0 : i32  %r = ppu.mul %n, %a : i32", "0"),
        ("%a = ppu.constant 1 : i32  %r = ppu.mul %n, %a : i32", "n"),
        ("%a = ppu.constant 1 : i32  %b = ppu.constant 0 : i32  %r = ppu.div %a, %b : i32", "ppu.div"),
        ("%c = ppu.constant true : i1  %a = ppu.constant 4 : i32  %r = ppu.select %c, %n, %a : i32", "n"),
        ("%a = ppu.constant 2.5 : f32  %r = ppu.convert %a : i32", "2"),
        ("%r = ppu.convert %n : i32", "n"),
    ],
)  # fmt: skip
def test_folding(body: str, becomes: str) -> None:
    assert stored(body) == becomes


def test_sums_of_constants_meet() -> None:
    assert stored("%a = ppu.constant 2 : i32  %b = ppu.constant 3 : i32  %s = ppu.add %n, %a : i32  "
                  "%t = ppu.add %s, %b : i32  %r = ppu.sub %t, %n : i32") == "ppu.sub"


def test_a_known_branch_is_inlined() -> None:
    module = function(
        "%c = ppu.constant false : i1  %i = ppu.constant 0 : i64  %r = ppu.if %c -> (i32) { ppu.yield %n : i32 } "
        "else { %d = ppu.add %n, %n : i32  ppu.yield %d : i32 }  ppu.store %r, %x, %i"
    )
    canonicalize(module)
    assert names(module) == ["ppu.constant", "ppu.add", "ppu.store"]


TABLE = "%t = ppu.table [7, -8] : !ppu.ptr<i32, constant>  "


@pytest.mark.parametrize(
    ("index", "becomes"), [(0, "7"), (1, "-8"), (2, "ppu.load"), (-1, "ppu.load"), (2**62, "ppu.load")]
)
def test_an_element_of_a_table_is_a_constant(index: int, becomes: str) -> None:
    assert stored(f"{TABLE}%k = ppu.constant {index} : i64  %r = ppu.load %t, %k : i32") == becomes


def test_a_float_of_a_table_is_a_constant() -> None:
    table = "%t = ppu.table [0x7F800000, -0.0] : !ppu.ptr<f32, constant>"
    sign = "%k = ppu.constant 1 : i64  %v = ppu.load %t, %k : f32  %r = ppu.bitcast %v : i32"
    assert stored(f"{table}  {sign}") == str(-(2**31))


def test_equal_tables_are_one_and_leave_loops() -> None:
    reads = "".join(
        f"%t{k} = ppu.table [{values}] : !ppu.ptr<i32, constant>  %v{k} = ppu.load %t{k}, %i : i32  "
        f"ppu.store %v{k}, %x, %i  "
        for k, values in enumerate(["7, -8", "7, -8", "7, -9"])
    )
    module = function(
        '%i = ppu.work_item {query = "global_id"} : i64  %c = ppu.compare %n, %n {predicate = "ne"} : i1  '
        f"ppu.loop () : () {{ {reads} ppu.yield %c : i1 }}"
    )
    optimise(module)
    before, _, inside = " ".join(names(module)).partition("ppu.loop")
    assert before.count("ppu.table") == 2 and "ppu.table" not in inside
    assert inside.count("ppu.load") == 3


LOOP = """__kernel void f(__global const float *x, __global float *y, int n, int m) {
  int i = get_global_id(0);
  float sum = 0.0f;
  for (int k = 0; k < n; k++) {
    if (k % 3 == 1) continue;
    sum += x[(i * m + k) & 31] * (float)(m * 2);
  }
  y[i] = sum;
}"""


def ops_in_loops(module) -> int:
    return sum(1 for op in module.walk() if isinstance(op, ppu.LoopOp) for inner in op.walk() if inner is not op)


def run(module, n: int) -> np.ndarray:
    x, y = np.linspace(-1, 2, 32, dtype=np.float32), np.zeros(9, np.float32)
    launch(kernel_named(module, "f"), [x, y, n, 3], 9)
    return y


@pytest.mark.parametrize("n", [0, 1, 2, 20])
def test_rotated_and_hoisted_loops_compute_the_same(n: int) -> None:
    plain, turned = compile_opencl(LOOP, "loop.cl"), compile_opencl(LOOP, "loop.cl")
    RotateLoopsPass().run(turned)
    HoistPass().run(turned)
    turned.verify()
    np.testing.assert_array_equal(run(plain, n), run(turned, n))


def test_a_rotated_loop_decides_once() -> None:
    module = compile_opencl(LOOP.replace("if (k % 3 == 1) continue;", ""), "loop.cl")
    RotateLoopsPass().run(module)
    (loop,) = (op for op in module.walk() if isinstance(op, ppu.LoopOp))
    assert isinstance(loop.parent_op(), ppu.IfOp)
    assert not any(isinstance(op, ppu.IfOp) for op in loop.walk())


def test_hoisting_empties_a_loop() -> None:
    module = compile_opencl(LOOP, "loop.cl")
    before = ops_in_loops(module)
    HoistPass().run(module)
    assert ops_in_loops(module) < before
    (loop,) = (op for op in module.walk() if isinstance(op, ppu.LoopOp))
    products = [op for op in loop.walk() if isinstance(op, ppu.MulOp) and str(op.result.type) == "i32"]
    assert products == [], "m * 2 and i * m do not change from round to round"


def test_an_integer_division_stays_behind_its_condition() -> None:
    source = """__kernel void f(__global int *x, int n, int m) {
      for (int k = 0; k < n; k++) if (m != 0) x[k] = n / m;
    }"""
    module = compile_opencl(source, "divide.cl")
    optimise(module)
    x = np.ones(4, np.int32)
    launch(kernel_named(module, "f"), [x, 4, 0], 1)
    assert x.tolist() == [1, 1, 1, 1]
