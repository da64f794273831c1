"""reduce.cl: sums in index order, extrema in which NaN wins, and places of values."""

from __future__ import annotations

import itertools
import math
from typing import Any

import nacre.backends.npu.kernels.reduce  # registers the kernels
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacre.dialects.declarative import Parameters
from nacre.errors import CompileError
from nacre.passes.npu.soft_kernels import Call
from nacre.runtime.kernel import operations, run_kernel
from onnx import helper
from onnx.reference import ReferenceEvaluator

Array = np.ndarray
INTEGERS = ["int8", "uint8", "int16", "int32", "int64"]
CASES = [
    ((7,), (0,)),
    ((3, 5), (1,)),
    ((3, 5), (0,)),
    ((2, 3, 4, 5), (1, 2)),
    ((2, 3, 4, 5), (0, 2)),
    ((2, 3, 4, 5), (1, 3)),
    ((2, 1, 4, 1), (1, 3)),
    ((2, 3, 2, 3, 2, 3), (0, 2, 4)),
    ((2, 3, 2, 3, 2, 3), (1, 3, 5)),
    ((2, 3, 4), (0, 1, 2)),
]


def values(seed: int, shape: tuple[int, ...], dtype: str = "float32") -> Array:
    rng = np.random.default_rng(seed)
    if dtype == "float32":
        return rng.standard_normal(shape).astype(np.float32)
    limits = np.iinfo(dtype)
    return rng.integers(max(limits.min, -1000), min(limits.max, 1000), shape, endpoint=True).astype(dtype)


def same(found: Array, expected: Array) -> None:
    """The same bits; one NaN is as good as another."""
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)
    if found.dtype.kind == "f":
        real = ~np.isnan(found)
        np.testing.assert_array_equal(np.signbit(found)[real], np.signbit(expected)[real])


def shape_of(shape: tuple[int, ...], axes: tuple[int, ...], keepdims: bool) -> tuple[int, ...]:
    return tuple(1 if i in axes else d for i, d in enumerate(shape) if keepdims or i not in axes)


def in_order(x: Array, axes: tuple[int, ...], start: float = 0) -> Array:
    """The sum over axes, in row-major order of their indices; they stay with size 1."""
    total = np.full(shape_of(x.shape, axes, True), start, x.dtype)
    for at in itertools.product(*(range(x.shape[a]) for a in axes)):
        where: list[Any] = [slice(None)] * x.ndim
        for a, i in zip(axes, at):
            where[a] = slice(i, i + 1)
        total = total + x[tuple(where)]
    return total


def settled_for(operation: str, x: Array, axes: tuple[int, ...], keepdims: bool = True) -> tuple[Any, Any]:
    """Settled and open parameters of a reduction in one piece."""
    settled: dict[str, Any] = {"axes": axes, "keepdims": keepdims}
    if operation in ("ppu.reduce_mean", "ppu.variance"):
        settled["count"] = math.prod(x.shape[a] for a in axes)
        return settled, {"last": 1}
    return settled, {}


def graph_kernel(name: str, parameters: dict[str, Any], *inputs: Array) -> Array:
    (found,) = run_kernel(operations()[name], Parameters(parameters), *inputs)
    return found


# --- sums ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("shape", "axes"), CASES)
@pytest.mark.parametrize("keepdims", [False, True])
def test_sums(on_engine: Any, under_pocl: Any, shape: Any, axes: Any, keepdims: bool) -> None:
    x = values(1, shape)
    out = shape_of(shape, axes, keepdims)
    expected = in_order(x, axes).reshape(out)
    for name, divisor in (("reduce_sum", 1), ("reduce_mean", math.prod(shape[a] for a in axes))):
        settled, open_ = settled_for(f"ppu.{name}", x, axes, keepdims)
        for run in (on_engine, under_pocl):
            same(run(f"ppu.{name}", [x], [(out, np.float32)], settled, open_)[0], expected / np.float32(divisor))
        p = {"axes": axes, "keepdims": keepdims}
        same(graph_kernel(f"graph.{name}", p, x).reshape(out), expected / np.float32(divisor))


@pytest.mark.parametrize("dtype", INTEGERS)
def test_sums_of_integers(on_engine: Any, under_pocl: Any, dtype: str) -> None:
    x = values(2, (2, 3, 4, 5), dtype)
    for name in ("reduce_sum", "reduce_mean"):
        expected = graph_kernel(f"graph.{name}", {"axes": (1, 2), "keepdims": False}, x)
        settled, open_ = settled_for(f"ppu.{name}", x, (1, 2), False)
        for run in (on_engine, under_pocl):
            same(run(f"ppu.{name}", [x], [((2, 5), dtype)], settled, open_)[0], expected)


def test_a_sum_of_minus_zeros_is_zero_and_of_nothing_the_value(on_engine: Any, under_pocl: Any) -> None:
    x = np.full((2, 3), -0.0, np.float32)
    for run in (on_engine, under_pocl):
        settled, open_ = settled_for("ppu.reduce_sum", x, (1,))
        same(run("ppu.reduce_sum", [x], [((2, 1), np.float32)], settled, open_)[0], np.zeros((2, 1), np.float32))
        settled, open_ = settled_for("ppu.reduce_sum", x, ())
        same(run("ppu.reduce_sum", [x], [((2, 3), np.float32)], settled, open_)[0], x)


@pytest.mark.parametrize(("shape", "axes"), CASES[::2])
def test_variance(on_engine: Any, under_pocl: Any, shape: Any, axes: Any) -> None:
    x = values(3, shape)
    count = np.float32(math.prod(shape[a] for a in axes))
    mean = in_order(x, axes) / count
    expected = in_order((x - mean) * (x - mean), axes) / count
    settled, open_ = settled_for("ppu.variance", x, axes)
    for run in (on_engine, under_pocl):
        same(run("ppu.variance", [x, mean], [(mean.shape, np.float32)], settled, open_)[0], expected)
    np.testing.assert_allclose(expected, x.var(axis=axes, keepdims=True), rtol=1e-4, atol=1e-6)


# --- extrema ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("shape", "axes", "dtype"), [*((s, a, "float32") for s, a in CASES), *((*CASES[3], d) for d in INTEGERS)]
)
@pytest.mark.parametrize("name", ["reduce_max", "reduce_min"])
def test_extrema(on_engine: Any, name: str, shape: Any, axes: Any, dtype: str) -> None:
    x = values(4, shape, dtype)
    expected = graph_kernel(f"graph.{name}", {"axes": axes, "keepdims": False}, x)
    settled, open_ = settled_for(f"ppu.{name}", x, axes, False)
    same(on_engine(f"ppu.{name}", [x], [(expected.shape, dtype)], settled, open_)[0], expected)


@pytest.mark.parametrize("name", ["reduce_max", "reduce_min"])
@pytest.mark.parametrize("dtype", ["float32", "int8", "uint8", "int64"])
def test_extrema_under_pocl(on_engine: Any, under_pocl: Any, name: str, dtype: str) -> None:
    x = values(5, (2, 3, 4, 5), dtype)
    if dtype == "float32":
        x[0, 0], x[0, 1, :, 1], x[1, 2, 3, 4] = -0.0, np.inf, np.nan
        x[0, :, :, 0], x[0, 0, 0, 0] = -0.0, 0.0
    settled, open_ = settled_for(f"ppu.{name}", x, (1, 2), False)
    same(*(run(f"ppu.{name}", [x], [((2, 5), dtype)], settled, open_)[0] for run in (on_engine, under_pocl)))


@pytest.mark.parametrize(("name", "end"), [("reduce_max", np.inf), ("reduce_min", -np.inf)])
def test_nan_wins_and_zeros_are_positive(on_engine: Any, name: str, end: float) -> None:
    x = np.array([[np.nan, end], [end, np.nan], [-0.0, 0.0], [0.0, -0.0], [-end, -end], [-0.0, -0.0]], np.float32)
    expected = np.array([np.nan, np.nan, 0, 0, -end, 0], np.float32)
    settled, open_ = settled_for(f"ppu.{name}", x, (1,), False)
    same(on_engine(f"ppu.{name}", [x], [((6,), np.float32)], settled, open_)[0], expected)
    (acc,) = on_engine(f"ppu.{name}", [x[:, :1]], [((6,), np.float32)], settled, open_)
    (found,) = on_engine(f"ppu.{name}", [x[:, 1:]], [((6,), np.float32)], settled, open_, acc)
    same(found, expected)


def test_booleans(on_engine: Any) -> None:
    x = np.array([[False, True], [False, False], [True, True]])
    for name, expected in (("reduce_max", x.any(axis=1)), ("reduce_min", x.all(axis=1))):
        (found,) = on_engine(f"ppu.{name}", [x], [((3,), np.bool_)], {"axes": (1,), "keepdims": False})
        np.testing.assert_array_equal(found, expected)


# --- parts -----------------------------------------------------------------------------------------------
@settings(derandomize=True, deadline=None, max_examples=25)
@given(data=st.data())
def test_parts_give_the_same_bits(on_engine: Any, data: Any) -> None:
    """Boxes of the reduced axes in row-major order, all but the first axis whole so that the order stays."""
    shape = tuple(data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=6)))
    axes = tuple(sorted(data.draw(st.sets(st.integers(0, len(shape) - 1), min_size=1))))
    names = ["reduce_sum", "reduce_mean", "reduce_max", "reduce_min", "variance"]
    operation = "ppu." + data.draw(st.sampled_from(names))
    x = values(data.draw(st.integers(0, 99)), shape)
    out = shape_of(shape, axes, True)
    others = [x.mean(axis=axes, keepdims=True)] if operation == "ppu.variance" else []
    settled, open_ = settled_for(operation, x, axes)
    (whole,) = on_engine(operation, [x, *others], [(out, np.float32)], settled, open_)
    terms = (x - others[0]) * (x - others[0]) if others else x
    if operation in ("ppu.reduce_max", "ppu.reduce_min"):
        expected = np.max(x, axis=axes) if operation == "ppu.reduce_max" else np.min(x, axis=axes)
        same(whole, expected.reshape(out))
    else:
        same(whole, in_order(terms, axes) / np.float32(settled.get("count", 1)))
    acc, step = None, data.draw(st.integers(1, 3))
    for first in range(0, shape[axes[0]], step):
        piece = np.ascontiguousarray(np.take(x, range(first, min(first + step, shape[axes[0]])), axis=axes[0]))
        part = {name: int(first + step >= shape[axes[0]]) for name in open_}
        (acc,) = on_engine(operation, [piece, *others], [(out, np.float32)], settled, part, acc)
    same(acc, whole)


@pytest.mark.parametrize("operation", ["ppu.reduce_sum", "ppu.reduce_mean", "ppu.reduce_max", "ppu.reduce_min"])
@pytest.mark.parametrize("dtype", ["uint8", "int32"])
def test_parts_of_integers(on_engine: Any, operation: str, dtype: str) -> None:
    """Sums wrap around in the type itself, so parts of them do not matter."""
    x = np.random.default_rng(6).integers(0, 120, (3, 10, 4)).astype(dtype)
    x[:, 3:6] = np.iinfo(dtype).max
    settled, open_ = settled_for(operation, x, (1,))
    (whole,) = on_engine(operation, [x], [((3, 1, 4), dtype)], settled, open_)
    same(whole, graph_kernel(operation.replace("ppu", "graph"), {"axes": (1,), "keepdims": True}, x))
    acc = None
    for first in range(0, 10, 3):
        part = np.ascontiguousarray(x[:, first : first + 3])
        last = dict.fromkeys(open_, int(first + 3 >= 10))
        (acc,) = on_engine(operation, [part], [((3, 1, 4), dtype)], settled, last, acc)
    same(acc, whole)


def test_too_many_runs_are_refused() -> None:
    x = (2,) * 8
    call = Call(Parameters({"axes": (0, 2, 4, 6), "keepdims": True}), (x,), ((1, 2) * 4,))
    with pytest.raises(CompileError, match="4 separate runs of axes"):
        nacre.backends.npu.kernels.reduce.reduce(call)


# --- places ----------------------------------------------------------------------------------------------
def places(dtype: str) -> Array:
    """Many equal values, and of floats NaN, both infinities and both zeros."""
    x = values(7, (3, 40, 5), dtype) % 4
    if dtype == "float32":
        x = np.floor(x)
        x[0, 3, 0] = x[0, 30, 0] = x[1, 39, 1] = x[2, 0, 2] = np.nan
        x[0, 1, 3], x[:, :, 4] = np.inf, -np.inf
        x[2, ::2, 4], x[1, :, 3] = -0.0, -0.0
        x[2, 1::2, 4] = 0.0
    return x.astype(dtype)


@pytest.mark.parametrize(
    ("dtype", "axis", "keepdims"),
    [("float32", 0, True), ("float32", 1, False), ("float32", 2, False), *((d, 1, True) for d in ("uint8", "int64"))],
)
@pytest.mark.parametrize("last", [False, True])
def test_argmax(on_engine: Any, under_pocl: Any, dtype: str, axis: int, keepdims: bool, last: bool) -> None:
    x, p = places(dtype), {"axis": axis, "keepdims": keepdims, "select_last": last}
    expected = graph_kernel("graph.argmax", p, x)
    for run in (on_engine, under_pocl):
        same(run("graph.argmax", [x], [(expected.shape, np.int64)], p)[0], expected)
    maximum = np.max(x, axis=axis, keepdims=True)
    for run in (on_engine, under_pocl):
        same(run("ppu.index_of", [x, maximum], [(expected.shape, np.int64)], p, {"offset": 0})[0], expected)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("step", [1, 7, 39])
def test_index_of_in_parts(on_engine: Any, last: bool, step: int) -> None:
    x, p = places("float32"), {"axis": 1, "keepdims": False, "select_last": last}
    maximum = np.max(x, axis=1, keepdims=True)
    acc = None
    for first in range(0, 40, step):
        part = np.ascontiguousarray(x[:, first : first + step])
        (acc,) = on_engine("ppu.index_of", [part, maximum], [((3, 5), np.int64)], p, {"offset": first}, acc)
        missing = ~np.any((x == maximum) | (np.isnan(x) & np.isnan(maximum)), axis=1, where=_upto(x, first + step))
        np.testing.assert_array_equal(acc == -1, missing)
    same(acc, graph_kernel("graph.argmax", p, x))


def _upto(x: Array, end: int) -> Array:
    return np.broadcast_to(np.arange(x.shape[1])[:, None] < end, x.shape)


# --- ONNX ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("operator", "operation"),
    [
        ("ReduceSum", "ppu.reduce_sum"),
        ("ReduceMean", "ppu.reduce_mean"),
        ("ReduceMax", "ppu.reduce_max"),
        ("ReduceMin", "ppu.reduce_min"),
    ],
)
@pytest.mark.parametrize(("shape", "axes"), CASES[3:5])
def test_reductions_of_onnx(on_engine: Any, operator: str, operation: str, shape: Any, axes: Any) -> None:
    x = values(8, shape)
    node = helper.make_node(operator, ["x", "axes"], ["y"], keepdims=1)
    (expected,) = evaluated(node, {"x": x, "axes": np.array(axes, np.int64)})
    settled, open_ = settled_for(operation, x, axes)
    (found,) = on_engine(operation, [x], [(expected.shape, np.float32)], settled, open_)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("last", [0, 1])
def test_argmax_of_onnx(on_engine: Any, last: int) -> None:
    x = values(9, (3, 40, 5), "int32") % 4
    node = helper.make_node("ArgMax", ["x"], ["y"], axis=1, keepdims=1, select_last_index=last)
    (expected,) = evaluated(node, {"x": x})
    p = {"axis": 1, "keepdims": True, "select_last": bool(last)}
    same(on_engine("graph.argmax", [x], [(expected.shape, np.int64)], p)[0], expected)


def evaluated(node: onnx.NodeProto, inputs: dict[str, Array]) -> Any:
    """A model of one node by the reference evaluator."""
    types = {n: helper.np_dtype_to_tensor_dtype(x.dtype) for n, x in inputs.items()}
    given_ = [helper.make_tensor_value_info(n, types[n], x.shape) for n, x in inputs.items()]
    out = helper.make_tensor_value_info("y", onnx.TensorProto.UNDEFINED, None)
    graph = helper.make_graph([node], "one", given_, [out])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    return ReferenceEvaluator(model).run(None, inputs)
