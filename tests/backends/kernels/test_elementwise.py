"""elementwise.cl: on the engine, under PoCL and as the graph level defines the operations."""

from __future__ import annotations

from typing import Any

import nacre.backends.npu.kernels.elementwise as elementwise
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacre.dialects import graph
from nacre.dialects.declarative import Parameters
from nacre.dialects.types import element_of, f32, i1
from nacre.errors import CompileError, Fault
from nacre.passes.npu.soft_kernels import SOFT_KERNELS, Build, Call
from nacre.runtime.kernel import run_kernel

Array = np.ndarray
INTEGERS = ["int8", "uint8", "int16", "uint16", "int32", "int64"]
TYPES = ["float32", "bool", *INTEGERS]
SPECIAL = np.array([0, -0.0, 1, -1, 0.5, -0.5, 2.5, -2.5, 3, -3, np.inf, -np.inf, np.nan, 1e-40, 3e38], np.float32)
PARAMETERS: dict[str, list[dict[str, Any]]] = {
    "graph.clamp": [{"low": 0.0, "high": 6.0}, {"low": -np.inf, "high": 2.0}, {"low": -1.5, "high": np.inf}],
    "graph.leaky_relu": [{"alpha": 0.01}, {"alpha": 1.5}, {"alpha": -0.5}],
    "graph.elu": [{"alpha": 1.0}, {"alpha": 0.7}],
    "graph.hard_sigmoid": [{"alpha": 0.2, "beta": 0.5}],
    "graph.gelu": [{"approximate": False}, {"approximate": True}],
}
ULPS = {
    "graph.exp": 4, "graph.log": 4, "graph.erf": 4, "graph.tanh": 5, "graph.sin": 4, "graph.cos": 4, "graph.atan": 5,
    "graph.elu": 5, "graph.sigmoid": 6,
}  # fmt: skip
"""Between numpy and an OpenCL C function, by operation. OpenCL C 1.2 (7.4) allows 3 to 16 in these; gelu cancels."""
CLOSE = {"graph.gelu"}
EXACT = [op for op in elementwise.UNARY if op.name not in ULPS and op.name not in CLOSE]
ROUNDED = [op for op in elementwise.UNARY if op.name in ULPS or op.name in CLOSE]


def values(seed: int, shape: tuple[int, ...], dtype: str) -> Array:
    """Normal floats with special ones among them; integers of the whole range, or small ones, half and half."""
    rng = np.random.default_rng(seed)
    if dtype == "float32":
        return np.where(rng.random(shape) < 0.3, rng.choice(SPECIAL, shape), 4 * rng.standard_normal(shape)).astype(
            "f4"
        )
    if dtype == "bool":
        return np.asarray(rng.random(shape) < 0.5)
    limits = np.iinfo(dtype)
    wide = rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)
    small = rng.integers(max(limits.min, -3), 4, shape, dtype)
    ends = rng.choice(np.array([limits.min, limits.max], dtype), shape)
    return np.asarray(np.choose(rng.integers(0, 3, shape), [wide, small, ends]), dtype)


def same(found: Array, expected: Array) -> None:
    """The same bits; one NaN is as good as another."""
    assert found.dtype == expected.dtype and found.shape == expected.shape
    np.testing.assert_array_equal(found, expected)
    if found.dtype.kind == "f":
        real = ~np.isnan(found)
        np.testing.assert_array_equal(np.signbit(found)[real], np.signbit(expected)[real])


def of_graph(op: Any, parameters: dict[str, Any], *inputs: Array) -> Array:
    return np.asarray(run_kernel(op, Parameters(parameters), *inputs)[0])


def kernel(run: Any, op: Any, parameters: dict[str, Any], expected: Array, *inputs: Array) -> Array:
    return run(op.name, list(inputs), [(expected.shape, expected.dtype)], parameters)[0]


def machines(*types: str, quick: tuple[str, ...] = ("float32", "int8")) -> Any:
    """Parameters `run` and `dtype`: the engine on all types; PoCL, whose compiler is slow, on few but in slow tests."""
    slow = [("under_pocl", t, () if t in quick else pytest.mark.slow) for t in types]
    params = [("on_engine", t, ()) for t in types] + slow
    return pytest.mark.parametrize(("run", "dtype"), [pytest.param(r, t, marks=m) for r, t, m in params])


def one(request: Any, run: str, op: Any, parameters: dict[str, Any], *inputs: Array) -> None:
    """Engine or PoCL, and the graph level, give the same bits."""
    expected = of_graph(op, parameters, *inputs)
    same(kernel(request.getfixturevalue(run), op, parameters, expected, *inputs), expected)


def both(on_engine: Any, under_pocl: Any, op: Any, parameters: dict[str, Any], *inputs: Array) -> None:
    """Engine, PoCL and the graph level give the same bits."""
    expected = of_graph(op, parameters, *inputs)
    same(kernel(on_engine, op, parameters, expected, *inputs), expected)
    same(kernel(under_pocl, op, parameters, expected, *inputs), expected)


def test_every_operation_has_a_line() -> None:
    for base, table in ((graph.UnaryOp, elementwise.UNARY), (graph.BinaryOp, elementwise.BINARY)):
        assert set(table) == {op for op in graph.OPS if issubclass(op, base)} - {graph.BitwiseOp}
    assert set(elementwise.BITWISE) == set(graph.BITWISE)
    assert {op.name for op in graph.OPS if issubclass(op, (graph.UnaryOp, graph.BinaryOp))} <= set(SOFT_KERNELS)


# --- unary functions -------------------------------------------------------------------------------------
@pytest.mark.parametrize("op", EXACT, ids=lambda op: op.name)
def test_exact_functions(on_engine: Any, under_pocl: Any, op: Any) -> None:
    for parameters in PARAMETERS.get(op.name, [{}]):
        for shape in ((), (40,), (2, 3, 1, 5, 2, 3, 2)):
            both(on_engine, under_pocl, op, parameters, values(len(shape), shape, "float32"))
        both(on_engine, under_pocl, op, parameters, SPECIAL)


@machines(*INTEGERS)
@pytest.mark.parametrize("op", [op for op, f in elementwise.UNARY.items() if f.integers], ids=lambda op: op.name)
def test_functions_of_integers(request: Any, run: str, op: Any, dtype: str) -> None:
    for parameters in PARAMETERS.get(op.name, [{}]):
        one(request, run, op, parameters, values(3, (5, 13), dtype))


def close(op: Any, x: Array, found: Array, expected: Array) -> None:
    """Within ULPS; gelu within 5 ulps of its 1 + tanh (or erf), which has to be exactly 0 to make a NaN of -inf."""
    if op.name in CLOSE:
        real = np.isfinite(x)
        assert (np.abs(found - expected)[real] <= 5 * 2.0**-24 * np.abs(x[real])).all()
        real = np.isposinf(x) | np.isnan(x)
        np.testing.assert_array_equal(found[real], expected[real])
    else:
        real = ~np.isnan(expected)
        np.testing.assert_array_equal(np.isnan(found), ~real)
        np.testing.assert_array_max_ulp(found[real], expected[real], ULPS[op.name])


@pytest.mark.parametrize("run", ["under_pocl", "on_engine"])
@pytest.mark.parametrize("op", ROUNDED, ids=lambda op: op.name)
def test_transcendental_functions(request: Any, op: Any, run: str) -> None:
    for parameters in PARAMETERS.get(op.name, [{}]):
        x = values(4, (50, 7), "float32")
        expected = of_graph(op, parameters, x)
        close(op, x, kernel(request.getfixturevalue(run), op, parameters, expected, x), expected)


def test_what_has_no_meaning_is_refused() -> None:
    with pytest.raises(CompileError, match=r"graph\.exp of i1 .* computes it for floats; cast"):
        SOFT_KERNELS["graph.exp"].macros(Build(Parameters({}), (i1,), (i1,)))
    with pytest.raises(CompileError, match=r"graph\.sub of i1 .* for floats and integers; cast"):
        SOFT_KERNELS["graph.sub"].macros(Build(Parameters({}), (i1, i1), (i1,)))


# --- casts -----------------------------------------------------------------------------------------------
@machines(*TYPES, quick=("float32",))
@pytest.mark.parametrize("target", TYPES)
def test_casts(request: Any, run: str, dtype: str, target: str) -> None:
    """Fractions are cut off, integers wrap around. Floats here fit an int: beyond, numpy does what its machine does."""
    x = values(5, (9, 11), dtype)
    if dtype == "float32":
        x = np.clip(np.nan_to_num(x * 1000), -2e9, 2e9) if target != "bool" else x
    one(request, run, graph.CastOp, {"to": element_of(np.dtype(target))}, x)


@pytest.mark.parametrize("target", INTEGERS)
def test_floats_that_do_not_fit(on_engine: Any, under_pocl: Any, target: str) -> None:
    """They become the smallest int, or long, which then wraps around."""
    x = np.array([np.nan, np.inf, -np.inf, 1e20, -1e20, 2.0**63, 2.0**31, 300, -129, 70000], np.float32)
    smallest = -(2**63) if target == "int64" else -(2**31)
    big = 2**31 if target == "int64" else smallest
    expected = np.array([*[smallest] * 6, big, 300, -129, 70000]).astype(target)
    for run in (on_engine, under_pocl):
        same(kernel(run, graph.CastOp, {"to": element_of(np.dtype(target))}, expected, x), expected)


# --- functions of several tensors ------------------------------------------------------------------------
@st.composite
def broadcasting(draw: Any, operands: int, rank: int = 6) -> list[tuple[int, ...]]:
    """Shapes that broadcast to one of up to `rank` axes: some axes are 1, some in front are missing."""
    onto = draw(st.lists(st.integers(1, 4), max_size=rank))
    shapes = []
    for _ in range(operands):
        kept = [d if draw(st.booleans()) else 1 for d in onto]
        shapes.append(tuple(kept[draw(st.integers(0, len(onto))) :]))
    return shapes


@pytest.mark.parametrize("op", [op for op in elementwise.BINARY if op is not graph.PowOp], ids=lambda op: op.name)
@settings(derandomize=True, deadline=None, max_examples=12)
@given(shapes=broadcasting(2), seed=st.integers(0, 99))
def test_floats_broadcast(on_engine: Any, under_pocl: Any, op: Any, shapes: Any, seed: int) -> None:
    a, b = (values(seed + i, s, "float32") for i, s in enumerate(shapes))
    both(on_engine, under_pocl, op, {}, a, b)


@pytest.mark.parametrize("run", ["on_engine", "under_pocl"])
@pytest.mark.parametrize("op", [op for op in elementwise.BINARY if op is not graph.PowOp], ids=lambda op: op.name)
def test_special_values(request: Any, run: str, op: Any) -> None:
    """Each with each: zeros of two signs, infinities, NaN."""
    a, b = (np.ascontiguousarray(x) for x in np.meshgrid(SPECIAL, SPECIAL))
    one(request, run, op, {}, a, b)


@pytest.mark.parametrize("run", ["on_engine", "under_pocl"])
def test_remainders_of_any_bits(request: Any, run: str) -> None:
    """Subnormal numbers, and quotients of up to 277 bits, are among them."""
    bits = np.random.default_rng(16).integers(0, 2**32, (2, 20000), np.uint32)
    a, b = bits.view(np.float32)
    b[:5000] = (bits[1, :5000] & 0x807FFFFF).view(np.float32)
    one(request, run, graph.FmodOp, {}, a, b)


@machines(*INTEGERS)
@pytest.mark.parametrize("op", list(elementwise.BINARY), ids=lambda op: op.name)
def test_integers_wrap_around(request: Any, run: str, op: Any, dtype: str) -> None:
    a, b = values(6, (2, 3, 1, 7), dtype), values(7, (3, 6, 7), dtype)
    b = np.where(b == 0, 1, b).astype(dtype) if op is graph.DivOp else b
    one(request, run, op, {}, a, b)


@machines("bool", *INTEGERS)
@pytest.mark.parametrize("operation", graph.BITWISE)
def test_bits(request: Any, run: str, operation: str, dtype: str) -> None:
    """Shifts by negative and by large amounts are among them."""
    if dtype == "bool" and elementwise.BITWISE[operation].booleans is None:
        with pytest.raises(CompileError, match=r"graph\.bitwise of i1"):
            SOFT_KERNELS["graph.bitwise"].macros(Build(Parameters({"operation": operation}), (i1, i1), (i1,)))
        return
    a, b = values(14, (4, 30), dtype), values(15, (30,), dtype)
    if dtype != "bool":
        b[:20] = np.arange(20) * 4 - 4
    one(request, run, graph.BitwiseOp, {"operation": operation}, a, b)


@pytest.mark.parametrize("op", [op for op, f in elementwise.BINARY.items() if f.booleans], ids=lambda op: op.name)
def test_booleans(on_engine: Any, under_pocl: Any, op: Any) -> None:
    a, b = np.array([[False], [True]]), np.array([False, True])
    both(on_engine, under_pocl, op, {}, a, b)


@pytest.mark.parametrize("run", ["under_pocl", "on_engine"])
def test_powers(request: Any, run: str) -> None:
    """Special cases are C's (C99, F.9.4.4), which are numpy's."""
    a, b = values(8, (30, 1), "float32"), values(9, (20,), "float32")
    expected = of_graph(graph.PowOp, {}, a, b)
    found = kernel(request.getfixturevalue(run), graph.PowOp, {}, expected, a, b)
    real = ~np.isnan(expected)
    np.testing.assert_array_equal(np.isnan(found), ~real)
    np.testing.assert_array_max_ulp(found[real], expected[real], 16)


def test_an_integer_over_zero_is_a_fault(on_engine: Any) -> None:
    a, b = np.array([4, 5], np.int32), np.array([2, 0], np.int32)
    with pytest.raises(Fault, match="zero"):
        kernel(on_engine, graph.DivOp, {}, a, a, b)


@machines(*TYPES, quick=("float32",))
@pytest.mark.parametrize("predicate", graph.PREDICATES)
def test_comparisons(request: Any, run: str, predicate: str, dtype: str) -> None:
    a, b = values(10, (4, 1, 5), dtype), values(11, (3, 5), dtype)
    one(request, run, graph.CompareOp, {"predicate": predicate}, a, b)


@machines(*TYPES, quick=("float32",))
@settings(derandomize=True, deadline=None, max_examples=8)
@given(shapes=broadcasting(3), seed=st.integers(0, 99))
def test_selections(request: Any, run: str, dtype: str, shapes: Any, seed: int) -> None:
    operands = [values(seed + i, s, "bool" if i == 0 else dtype) for i, s in enumerate(shapes)]
    one(request, run, graph.SelectOp, {}, *operands)


@pytest.mark.parametrize(("shape", "axis"), [((6,), 0), ((2, 3, 4), 1), ((2, 3, 4, 5), 3), ((2, 2, 3, 2, 3, 2), 2)])
def test_batch_norm(on_engine: Any, under_pocl: Any, shape: Any, axis: int) -> None:
    rng = np.random.default_rng(12)
    x = values(13, shape, "float32")
    scale, bias, mean = (rng.standard_normal(shape[axis]).astype(np.float32) for _ in range(3))
    variance = rng.random(shape[axis]).astype(np.float32)
    both(on_engine, under_pocl, graph.BatchNormOp, {"axis": axis, "epsilon": 1e-3}, x, scale, bias, mean, variance)


# --- launches --------------------------------------------------------------------------------------------
def test_axes_join() -> None:
    """Operands of one shape are one run of axes; a vector of channels makes two; eight axes may be four runs."""
    arguments = SOFT_KERNELS["graph.add"].arguments
    whole, channels = (2, 3, 4, 5), (5,)
    assert arguments(Call(Parameters({}), (whole, whole), (whole,))).grid == (120, 1, 1)
    assert arguments(Call(Parameters({}), (whole, channels), (whole,))).grid == (5, 24, 1)
    eight = (2, 2, 3, 3, 2, 2, 3, 3)
    paired = (2, 2, 1, 1, 2, 2, 1, 1)
    assert arguments(Call(Parameters({}), (eight, paired), (eight,))).grid == (9, 4, 36)


def test_too_many_runs_are_refused() -> None:
    onto = (2,) * 7
    with pytest.raises(CompileError, match="7 separate runs of axes"):
        SOFT_KERNELS["graph.add"].arguments(Call(Parameters({}), (onto, (2, 1, 2, 1, 2, 1, 2)), (onto,)))


def test_few_functions() -> None:
    """Shapes are no macros: an operation on one type is compiled once."""
    build = Build(Parameters({"predicate": "lt"}), (f32, f32), (i1,))
    assert SOFT_KERNELS["graph.compare"].macros(build) == {
        "IN0": "float", "IN1": "float", "OUT0": "uchar", "FUNCTION": "lt",
    }  # fmt: skip
