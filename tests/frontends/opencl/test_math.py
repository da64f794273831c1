"""The mathematical functions of the library: accuracy, special values, and the same bits under another OpenCL.

The table in docs/opencl.md is what this prints:

    pytest tests/frontends/opencl/test_math.py -k accuracy -s
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pytest
from nacre.frontends.opencl import compile_opencl
from nacre.frontends.opencl.prelude import FILES, MEANING, definitions, inner_function, text
from xdsl.dialects.builtin import FileLineColLoc

Run = Callable[..., np.ndarray]
RNG = np.random.default_rng(5)
SPECIAL = np.array(
    [0.0, -0.0, np.inf, -np.inf, np.nan, 1, -1, 0.5, -0.5, 2, -2, 3, -3, 1e-45, -1e-45, 1.17549435e-38, -1e-38, 1e-8,
     -1e-8, 3.4028235e38, -3.4028235e38, 88.72, 89, -87.4, -103.9, -104.1, 1e4, -1e4, 1.5, -1.5, 16777217, 8388607.5],
    np.float32,
)  # fmt: skip


class Function(NamedTuple):
    """What a function should be, how far it may be off, and where else than everywhere it is looked at."""

    exact: Callable[..., np.ndarray]
    ulp: float
    near: Sequence[tuple[float, float]] = ((-4, 4),)


each = np.vectorize
FUNCTIONS = {
    "exp": Function(np.exp, 1.0, [(-104, 89), (-1, 1)]),
    "exp2": Function(np.exp2, 1.2, [(-150, 128), (-1, 1)]),
    "exp10": Function(lambda x: np.power(10.0, x), 1.3, [(-46, 39), (-1, 1)]),
    "expm1": Function(np.expm1, 2.0, [(-20, 89), (-1, 1)]),
    "log": Function(np.log, 1.0, [(0.3, 3)]),
    "log2": Function(np.log2, 1.6, [(0.3, 3)]),
    "log10": Function(np.log10, 1.8, [(0.3, 3)]),
    "log1p": Function(np.log1p, 1.6, [(-0.99, 3)]),
    "sin": Function(np.sin, 3.2, [(-10, 10), (-1e5, 1e5), (-1e30, 1e30)]),
    "cos": Function(np.cos, 3.2, [(-10, 10), (-1e5, 1e5), (-1e30, 1e30)]),
    "tan": Function(np.tan, 5.0, [(-10, 10), (-1e5, 1e5), (-1e30, 1e30)]),
    "asin": Function(np.arcsin, 2.5, [(-1, 1)]),
    "acos": Function(np.arccos, 1.5, [(-1, 1)]),
    "atan": Function(np.arctan, 1.6),
    "atan2": Function(np.arctan2, 1.6),
    "sinh": Function(np.sinh, 1.8, [(-89, 89), (-2, 2)]),
    "cosh": Function(np.cosh, 1.5, [(-89, 89), (-2, 2)]),
    "tanh": Function(np.tanh, 2.3, [(-9, 9), (-1, 1)]),
    "erf": Function(each(math.erf), 3.0, [(-4, 4)]),
    "erfc": Function(each(math.erfc), 6.0, [(-4, 10.1)]),
    "asinh": Function(np.arcsinh, 3.5),
    "acosh": Function(np.arccosh, 3.5, [(1, 2), (1, 50)]),
    "atanh": Function(np.arctanh, 3.5, [(-1, 1)]),
    "pow": Function(np.power, 6.0, [(0, 20)]),
    "powr": Function(np.power, 6.0, [(0, 20)]),
    "cbrt": Function(np.cbrt, 1.0),
    "rsqrt": Function(lambda x: 1 / np.sqrt(x), 1.6, [(0, 9)]),
    "hypot": Function(np.hypot, 1.5),
}
PAIRS = ("atan2", "pow", "powr", "hypot")


def every(step: int) -> np.ndarray:
    """Every so manieth float there is."""
    return np.arange(0, 2**32, step, dtype=np.uint64).astype(np.uint32).view(np.float32)


def samples(name: str, count: int = 40_000) -> list[np.ndarray]:
    """Arguments: floats of all magnitudes, dense ones where it matters, special values; for pairs, results in range."""
    parts = [every(104_729), SPECIAL]
    parts += [RNG.uniform(*ends, count).astype(np.float32) for ends in FUNCTIONS[name].near]
    x = np.concatenate(parts)
    if name not in PAIRS:
        return [x]
    y = RNG.permutation(x)
    if name in ("pow", "powr"):
        base = np.concatenate([np.exp2(RNG.uniform(-126, 126, count)), 1 + RNG.uniform(1e-6, 1e-2, count)])
        power = RNG.uniform(-140, 128, base.size) / np.log2(base)
        x, y = np.concatenate([x, base.astype(np.float32)]), np.concatenate([y, power.astype(np.float32)])
    a, b = np.meshgrid(SPECIAL, SPECIAL)
    return [np.concatenate([x, a.ravel()]), np.concatenate([y, b.ravel()])]


def call(name: str, count: int, type_: str = "float") -> str:
    """A kernel that calls a function for every work item."""
    parameters = "".join(f"__global const {type_} *x{k}, " for k in range(count))
    arguments = ", ".join(f"x{k}[i]" for k in range(count))
    body = f"size_t i = get_global_id(0); y[i] = {name}({arguments});"
    return f"__kernel void f({parameters}__global {type_} *y) {{ {body} }}"


def oracle(name: str, inputs: Sequence[np.ndarray]) -> np.ndarray:
    """The result in float64."""
    with np.errstate(all="ignore"):
        return FUNCTIONS[name].exact(*(x.astype(np.float64) for x in inputs))


def powr_differs(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Where powr is no number although pow is one (OpenCL C 1.2, 7.5.1)."""
    return (x < 0) | np.isnan(x) | np.isnan(y) | ((x == 1) & np.isinf(y)) | ((y == 0) & ((x == 0) | np.isinf(x)))


def ulps(found: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """Errors in units of the last place of the exact result; infinite where one is not finite and the other is."""
    with np.errstate(all="ignore"):
        nearest = exact.astype(np.float32)
        exponent = np.floor(np.log2(np.maximum(np.abs(exact), 2.0**-126)))
        error = np.abs(found.astype(np.float64) - exact) / 2.0 ** (np.clip(exponent, -126, 127) - 23)
    same = (found == nearest) | (np.isnan(found) & np.isnan(nearest))
    wrong = ~(np.isfinite(found) & np.isfinite(nearest))
    return np.where(same & wrong, 0, np.where(wrong, np.inf, error))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_accuracy(name: str, engine: Run) -> None:
    inputs = samples(name)
    found = engine(call(name, len(inputs)), "f", [*inputs, np.empty_like(inputs[0])], len(inputs[0]))
    exact = oracle(name, inputs)
    if name == "powr":
        exact = np.where(powr_differs(*inputs), np.nan, np.abs(exact))
    error = ulps(found, exact)
    worst = int(np.argmax(error))
    print(f"{name:6} {error[worst]:.2f} ulp at {', '.join(str(x[worst]) for x in inputs)}")
    assert error[worst] <= FUNCTIONS[name].ulp, (name, [x[worst] for x in inputs], found[worst], exact[worst])
    zero = (found == 0) & (exact == 0)
    np.testing.assert_array_equal(np.signbit(found[zero]), np.signbit(exact[zero]))


@pytest.mark.parametrize("name", ["tanh", "erf", "sin", "cos"])
def test_nothing_exceeds_one(name: str, engine: Run) -> None:
    x = np.concatenate([np.linspace(-20, 20, 200_001, dtype=np.float32), every(1_000_003)])
    assert np.nanmax(np.abs(engine(call(name, 1), "f", [x, np.empty_like(x)], x.size))) <= 1


LINEAR = ("sin", "tan", "asin", "atan", "sinh", "tanh", "erf", "expm1", "log1p", "cbrt", "asinh", "atanh")


@pytest.mark.parametrize("name", LINEAR)
def test_tiny_arguments(name: str, engine: Run) -> None:
    """f(x) = f'(0) x up to subnormals, with the sign of zero."""
    x = (np.array([0, 1, 3, 2**-20, 2.0**100 * 5, 2.0**120]) * 2.0**-149).astype(np.float32)
    x = np.concatenate([x, -x])
    found = engine(call(name, 1), "f", [x, np.empty_like(x)], x.size)
    assert np.all(ulps(found, oracle(name, [x])) <= 1)
    np.testing.assert_array_equal(np.signbit(found), np.signbit(x))


# --- the library's own text under PoCL --------------------------------------------------------------------
def renamed_library() -> str:
    """Both files, their functions with a prefix that keeps them apart from the built-in ones."""
    names = "|".join(definitions())
    whole = "\n".join(text(file) for file in FILES)
    return re.sub(rf"\b({names})(?=\()", r"own_\1", whole)


PUBLIC = [name for name in definitions() if not name.startswith("_")]


def types_of(name: str) -> tuple[list[str], str]:
    function = inner_function(name)
    assert function is not None
    return [str(p.type) for p in function.parameters], str(function.result)


def program(name: str, prefix: str) -> str:
    parameters, result = types_of(name)
    head = "".join(f"__global const {t} *x{k}, " for k, t in enumerate(parameters))
    given = ", ".join(f"x{k}[i]" for k in range(len(parameters)))
    body = f"size_t i = get_global_id(0); y[i] = {prefix}{name}({given});"
    return f"__kernel void k_{name}({head}__global {result} *y) {{ {body} }}\n"


def values_for(name: str) -> list[np.ndarray]:
    parameters, result = types_of(name)
    x = np.concatenate([every(2_000_003), RNG.uniform(-110, 110, 3000).astype(np.float32), SPECIAL])
    a, b = (m.ravel() for m in np.meshgrid(SPECIAL, SPECIAL))
    if len(parameters) > 1:
        x = np.concatenate([x, a])
    others = [np.concatenate([RNG.permutation(x[: x.size - b.size]), b]) for _ in parameters[1:]]
    found = [x, *others]
    for k, type_ in enumerate(parameters):
        if type_ == "int":
            found[k] = RNG.integers(-330, 330, x.size).astype(np.int32)
    return [*found, np.zeros(x.size, np.int32 if result == "int" else np.float32)]


@pytest.fixture(scope="module")
def own() -> str:
    return "#pragma OPENCL FP_CONTRACT OFF\n" + renamed_library() + "".join(program(n, "own_") for n in PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_the_same_bits_under_pocl(name: str, engine: Run, reference: Run, own: str) -> None:
    values = values_for(name)
    found = engine(program(name, ""), f"k_{name}", values, values[0].size)
    expected = reference(own, f"k_{name}", values, values[0].size)
    same = (found.view(np.int32) == expected.view(np.int32)) | ((found != found) & (expected != expected))
    assert same.all(), [v[~same][:4] for v in (*values[:-1], found, expected)]


EXACT = ("round", "sign", "step", "fdim", "maxmag", "minmag", "ldexp", "logb", "nextafter", "fmod", "remainder")


@pytest.fixture(scope="module")
def builtin() -> str:
    return "".join(program(n, "") for n in EXACT)


@pytest.mark.parametrize("name", EXACT)
def test_exact_functions_equal_those_of_pocl(name: str, engine: Run, reference: Run, builtin: str) -> None:
    values = values_for(name)
    found = engine(program(name, ""), f"k_{name}", values, values[0].size)
    expected = reference(builtin, f"k_{name}", values, values[0].size)
    same = (found.view(np.int32) == expected.view(np.int32)) | ((found != found) & (expected != expected))
    assert same.all(), [v[~same][:4] for v in (*values[:-1], found, expected)]


@pytest.mark.parametrize("name", ["fmod", "remainder"])
def test_remainders_equal_python(name: str, engine: Run) -> None:
    x, y, out = values_for(name)
    good = np.isfinite(x) & (y != 0) & ~np.isnan(y)
    found = engine(program(name, ""), f"k_{name}", [x, y, out], x.size)[good]
    exact = getattr(math, name)
    np.testing.assert_array_equal(found, [exact(float(a), float(b)) for a, b in zip(x[good], y[good])])


def test_vectors_go_element_by_element(engine: Run) -> None:
    x = RNG.uniform(0.1, 4, 64).astype(np.float32)
    source = """__kernel void f(__global const float4 *x, __global float4 *y) {
      size_t i = get_global_id(0); y[i] = pow(exp(x[i]), 0.5f) + native_sin(x[i]) + ldexp(x[i], 2); }"""
    plain = """__kernel void f(__global const float *x, __global float *y) {
      size_t i = get_global_id(0); y[i] = pow(exp(x[i]), 0.5f) + sin(x[i]) + x[i] * 4.0f; }"""
    found = engine(source, "f", [x, np.empty_like(x)], x.size // 4)
    np.testing.assert_array_equal(found, engine(plain, "f", [x, np.empty_like(x)], x.size))


@pytest.mark.parametrize("name", MEANING)
def test_other_names(name: str, engine: Run) -> None:
    count = 2 if name.endswith(("powr", "divide")) else 1
    x = [RNG.uniform(0.1, 2, 8).astype(np.float32) for _ in range(count)]
    plain = {"recip": "1.0f / x0[i] + 0.0f *", "divide": "x0[i] / x1[i] + 0.0f * fdim"}
    word = name.partition("_")[2]
    expected = engine(call(plain.get(word, word), count), "f", [*x, np.empty_like(x[0])], 8)
    np.testing.assert_array_equal(engine(call(name, count), "f", [*x, np.empty_like(x[0])], 8), expected)


def test_a_source_may_define_a_function_of_that_name(engine: Run) -> None:
    x = np.ones(4, np.float32)
    source = "float exp(float x) { return x + 2.0f; } float _near(float x) { return 7.0f; }\n"
    body = "int i = get_global_id(0); x[i] = exp(x[i]) + exp10(0.0f) + cosh(0.0f);"
    source += f"__kernel void f(__global float *x) {{ {body} }}"
    np.testing.assert_array_equal(engine(source, "f", [x], 4), np.full(4, 5, np.float32))


def test_what_is_emitted_stands_at_the_call() -> None:
    module = compile_opencl("__kernel void f(__global float *x) {\n\n  x[0] = 1.0f +\n    sin(x[0]);\n}\n", "k.cl")
    function = next(iter(module.ops))
    places = [op.location for op in function.body.walk() if isinstance(op.location, FileLineColLoc)]
    assert {p.filename.data for p in places} == {"k.cl"}
    assert sum((p.line.data, p.column.data) == (4, 5) for p in places) > 30
