"""The built-in functions on integers, of every width and sign, against Python's integers and PoCL."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest

Run = Callable[..., np.ndarray]
RNG = np.random.default_rng(9)
DTYPES = {"char": "i1", "short": "i2", "int": "i4", "long": "i8"}
DTYPES |= {f"u{name}": code.replace("i", "u") for name, code in DTYPES.items()}


class Function(NamedTuple):
    """What a function computes from integers; `bits` and the limits of the type come first."""

    exact: Callable[..., int]
    arity: int
    types: tuple[str, ...] = tuple(DTYPES)


def rotated(bits: int, low: int, high: int, a: int, b: int) -> int:
    a, b = a & ((1 << bits) - 1), b % bits
    return a << b | a >> (bits - b)


NARROW = ("int", "uint")
FUNCTIONS = {
    "mul_hi": Function(lambda bits, low, high, a, b: a * b >> bits, 2),
    "mad_hi": Function(lambda bits, low, high, a, b, c: (a * b >> bits) + c, 3),
    "mul24": Function(lambda bits, low, high, a, b: a * b, 2, NARROW),
    "mad24": Function(lambda bits, low, high, a, b, c: a * b + c, 3, NARROW),
    "hadd": Function(lambda bits, low, high, a, b: a + b >> 1, 2),
    "rhadd": Function(lambda bits, low, high, a, b: a + b + 1 >> 1, 2),
    "abs_diff": Function(lambda bits, low, high, a, b: abs(a - b), 2),
    "add_sat": Function(lambda bits, low, high, a, b: min(max(a + b, low), high), 2),
    "sub_sat": Function(lambda bits, low, high, a, b: min(max(a - b, low), high), 2),
    "rotate": Function(rotated, 2),
    "popcount": Function(lambda bits, low, high, a: (a & ((1 << bits) - 1)).bit_count(), 1),
    "clz": Function(lambda bits, low, high, a: bits - (a & ((1 << bits) - 1)).bit_length(), 1),
}
CASES = [(name, type_) for name, f in FUNCTIONS.items() for type_ in f.types]


def operands(name: str, type_: str, count: int) -> list[np.ndarray]:
    """Random values and all pairs of the extreme ones; 24 bits for the functions that take no more."""
    limits = np.iinfo(DTYPES[type_])
    low, high = (limits.min, limits.max) if "24" not in name else (-(2**23) if limits.min else 0, 2**23 - 1)
    edges = np.array([low, low + 1, 0, 1, high // 2, high - 1, high] + [-1] * (low < 0), DTYPES[type_])
    a, b = (m.ravel() for m in np.meshgrid(edges, edges))
    found = []
    for k in range(count):
        shifts = RNG.integers(0, limits.bits, 100).astype(DTYPES[type_])
        spread = RNG.integers(low, high, 100, DTYPES[type_], endpoint=True) >> shifts
        found.append(np.concatenate([spread.astype(DTYPES[type_]), (a, b, a)[k]]))
    return found


def source(name: str, type_: str, count: int, width: str = "") -> str:
    result = f"u{type_}" if name == "abs_diff" and not type_.startswith("u") else type_
    head = "".join(f"__global const {type_}{width} *x{k}, " for k in range(count))
    given = ", ".join(f"x{k}[i]" for k in range(count))
    body = f"size_t i = get_global_id(0); y[i] = {name}({given});"
    return f"__kernel void f({head}__global {result}{width} *y) {{ {body} }}"


@pytest.mark.parametrize(("name", "type_"), CASES)
def test_equals_python(name: str, type_: str, engine: Run) -> None:
    function, limits = FUNCTIONS[name], np.iinfo(DTYPES[type_])
    values = operands(name, type_, function.arity)
    found = engine(source(name, type_, function.arity), "f", [*values, np.zeros_like(values[0])], values[0].size)
    mask = (1 << limits.bits) - 1
    exact = [
        function.exact(limits.bits, int(limits.min), int(limits.max), *row) & mask
        for row in zip(*(v.tolist() for v in values))
    ]
    assert [x & mask for x in found.tolist()] == exact


@pytest.mark.parametrize("type_", DTYPES)
def test_equals_pocl(type_: str, engine: Run, reference: Run) -> None:
    """Vectors of two, all functions in one kernel."""
    names = [n for n, f in FUNCTIONS.items() if type_ in f.types]
    values = operands("24" if type_ in NARROW else "", type_, 3)
    items = values[0].size // 2
    values = [v[: items * 2] for v in values]
    lines = []
    for k, name in enumerate(names):
        given = ", ".join("abc"[: FUNCTIONS[name].arity])
        call = f"{name}({given})" if name != "abs_diff" else f"convert_{type_}2({name}({given}))"
        lines.append(f"y[i * {len(names)} + {k}] = {call};")
    head = "".join(f"__global const {type_}2 *x{k}, " for k in range(3))
    text = f"""__kernel void f({head}__global {type_}2 *y) {{
      size_t i = get_global_id(0); {type_}2 a = x0[i], b = x1[i], c = x2[i]; {" ".join(lines)} }}"""
    arguments = [*values, np.zeros(items * 2 * len(names), DTYPES[type_])]
    np.testing.assert_array_equal(engine(text, "f", arguments, items), reference(text, "f", arguments, items))


def test_the_type_of_a_difference_has_no_sign(engine: Run) -> None:
    x = np.array([-(2**31)], np.int32)
    text = "__kernel void f(__global const int *x, __global float *y) { y[0] = (float)abs_diff(x[0], 2147483647); }"
    assert engine(text, "f", [x, np.zeros(1, np.float32)], 1) == [np.float32(2.0**32)]


TESTS = ("isnan", "isinf", "isfinite", "isnormal", "signbit")
RELATIONS = ("isequal", "isnotequal", "isgreater", "isgreaterequal", "isless", "islessequal", "islessgreater",
             "isordered", "isunordered")  # fmt: skip


def test_tests_of_floats_equal_pocl(engine: Run, reference: Run) -> None:
    edges = np.array([0, -0.0, 1, -1, 1e-40, -1e-40, 1.17549435e-38, np.inf, -np.inf, np.nan, 3e38, 2], np.float32)
    x, z = (m.ravel().copy() for m in np.meshgrid(edges, edges))
    calls = [f"{t}(a)" for t in TESTS] + [f"{t}(a, b)" for t in RELATIONS]
    calls += [f"any({t}(a4, b4)) + 2 * all({t}(a4, b4))" for t in RELATIONS] + ["any(as_int(a))", "all(isnan(a4))"]
    vector = [f"{t}(a4, b4)" for t in RELATIONS]
    lines = [f"y[i * {len(calls) + len(vector)} + {k}] = {c};" for k, c in enumerate(calls)]
    lines += [
        f"y[i * {len(calls) + len(vector)} + {len(calls) + k}] = ({c}).x + 2 * ({c}).w;" for k, c in enumerate(vector)
    ]
    text = f"""__kernel void f(__global const float *x, __global const float *z, __global int *y) {{
      size_t i = get_global_id(0); float a = x[i], b = z[i];
      float4 a4 = (float4)(a, b, a, 1.0f), b4 = (float4)(b, b, 1.0f, a); {" ".join(lines)} }}"""
    arguments = [x, z, np.zeros(x.size * (len(calls) + len(vector)), np.int32)]
    np.testing.assert_array_equal(engine(text, "f", arguments, x.size), reference(text, "f", arguments, x.size))
