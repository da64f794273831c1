"""pool.cl: pools of floats and integers, and local response normalisation."""

from __future__ import annotations

import itertools
from typing import Any

import nacre.backends.npu.kernels.pool  # noqa: F401  registers the kernels
import numpy as np
import onnx
import pytest
from nacre.dialects.declarative import Parameters
from nacre.passes.npu.tiling import halo
from nacre.runtime.kernel import operations, run_kernel
from onnx import helper
from onnx.reference import ReferenceEvaluator

Array = np.ndarray
INTEGERS = ["int8", "uint8", "int16", "int32", "int64"]
WINDOWS = [
    # image [N, H, W, C], window, strides, dilations, pads
    ((1, 6, 7, 3), (3, 3), (1, 1), (1, 1), (1, 1, 1, 1)),
    ((2, 8, 5, 2), (2, 3), (2, 1), (1, 2), (1, 2, 0, 1)),
    ((1, 7, 7, 4), (7, 7), (1, 1), (1, 1), (0, 0, 0, 0)),
    ((2, 5, 9, 1), (3, 2), (3, 2), (1, 1), (2, 1, 2, 0)),
]


def values(seed: int, shape: tuple[int, ...], dtype: str = "float32") -> Array:
    rng = np.random.default_rng(seed)
    if dtype == "float32":
        return rng.standard_normal(shape).astype(np.float32)
    limits = np.iinfo(dtype)
    return rng.integers(limits.min, limits.max, shape, endpoint=True).astype(dtype)


def same(found: Array, expected: Array) -> None:
    """Equal values and one type; a NaN equals a NaN."""
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


def graph_kernel(name: str, parameters: dict[str, Any], *inputs: Array) -> Array:
    (found,) = run_kernel(operations()[name], Parameters(parameters), *inputs)
    return found


def of_max(window: Any) -> tuple[Any, Any]:
    """Settled and open parameters of a largest value in one piece."""
    _, kernel, strides, dilations, pads = window
    return {"strides": strides, "dilations": dilations}, {"kernel": kernel, "pads": pads}


def of_average(window: Any, include: bool = False, overhang: Any = ()) -> tuple[Any, Any]:
    """Settled and open parameters of a mean in one piece."""
    settled, open_ = of_max(window)
    image, kernel, *_, pads = window
    settled |= {
        "count_include_pad": include, "overhang": overhang, "window": (*kernel, *pads), "sizes": image[1:3],
    }  # fmt: skip
    return settled, {**open_, "offset": (0, 0), "last": 1}


def whole(settled: Any, open_: Any) -> dict[str, Any]:
    """The same as parameters of graph.max_pool and graph.avg_pool."""
    names = ("strides", "dilations", "count_include_pad", "overhang")
    return {**{n: settled[n] for n in names if n in settled}, "kernel": open_["kernel"], "pads": open_["pads"]}


def onnx_model(operator: str, shape: tuple[int, ...], attributes: dict[str, Any]) -> onnx.ModelProto:
    """A model of one node."""
    node = helper.make_node(operator, ["x"], ["y"], **attributes)
    given = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)
    out = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    graph = helper.make_graph([node], "one", [given], [out])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)


def onnx_node(operator: str, x: Array, **attributes: Any) -> Array:
    """By the reference evaluator, whose images are channels first."""
    image = x.transpose(0, 3, 1, 2)
    model = onnx_model(operator, image.shape, attributes)
    return ReferenceEvaluator(model).run(None, {"x": image})[0].transpose(0, 2, 3, 1)


# --- largest values ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("window", WINDOWS)
def test_max_pool(on_engine: Any, under_pocl: Any, window: Any) -> None:
    x, (settled, open_) = values(1, window[0]), of_max(window)
    expected = graph_kernel("graph.max_pool", whole(settled, open_), x)
    for run in (on_engine, under_pocl):
        same(run("ppu.max_pool", [x], [(expected.shape, np.float32)], settled, open_)[0], expected)
    attributes = {"kernel_shape": open_["kernel"], "pads": open_["pads"], **settled}
    same(onnx_node("MaxPool", x, **attributes).astype(np.float32), expected)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_max_pool_of_integers(on_engine: Any, under_pocl: Any, dtype: str) -> None:
    x, (settled, open_) = values(2, WINDOWS[1][0], dtype), of_max(WINDOWS[1])
    expected = graph_kernel("graph.max_pool", whole(settled, open_), x)
    for run in (on_engine, under_pocl):
        same(run("ppu.max_pool", [x], [(expected.shape, dtype)], settled, open_)[0], expected)


def test_max_pool_of_special_values(on_engine: Any, under_pocl: Any) -> None:
    """NaN wins, a border is below -inf's like, and a zero is +0."""
    x = values(3, WINDOWS[0][0])
    x[0, 0, 0, 0], x[0, 5, :, 1], x[0, 4:, :, 1], x[0, 3, 3, 2] = np.nan, -np.inf, -np.inf, np.inf
    x[0, :3, 4:, 0] = -0.0
    settled, open_ = of_max(WINDOWS[0])
    expected = graph_kernel("graph.max_pool", whole(settled, open_), x)
    assert np.isnan(expected[0, 1, 1, 0]) and expected[0, 5, 0, 1] == -np.inf
    for run in (on_engine, under_pocl):
        (found,) = run("ppu.max_pool", [x], [(expected.shape, np.float32)], settled, open_)
        same(found, expected)
        assert not np.signbit(found[found == 0]).any() and (found == 0).any()


# --- means ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("include", [False, True])
def test_avg_pool(on_engine: Any, under_pocl: Any, window: Any, include: bool) -> None:
    x, (settled, open_) = values(4, window[0]), of_average(window, include)
    expected = graph_kernel("graph.avg_pool", whole(settled, open_), x)
    for run in (on_engine, under_pocl):
        same(run("ppu.avg_pool", [x], [(expected.shape, np.float32)], settled, open_)[0], expected)
    attributes = {"kernel_shape": open_["kernel"], "pads": open_["pads"], "count_include_pad": int(include)}
    outside = onnx_node("AveragePool", x, strides=settled["strides"], dilations=settled["dilations"], **attributes)
    np.testing.assert_allclose(expected, outside, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("include", [False, True])
@pytest.mark.parametrize("overhang", [(1, 0), (1, 2)])
def test_avg_pool_with_an_overhang(on_engine: Any, include: bool, overhang: Any) -> None:
    """Rounding up adds rows behind the padding that no window counts."""
    window = ((1, 6, 7, 2), (3, 3), (2, 2), (1, 1), (1, 1, 2, 3))
    x, (settled, open_) = values(5, window[0]), of_average(window, include, overhang)
    expected = graph_kernel("graph.avg_pool", whole(settled, open_), x)
    same(on_engine("ppu.avg_pool", [x], [(expected.shape, np.float32)], settled, open_)[0], expected)


def test_a_window_of_padding_alone_is_zero(on_engine: Any) -> None:
    window = ((1, 2, 2, 1), (1, 1), (1, 1), (1, 1), (1, 1, 1, 1))
    x, (settled, open_) = values(6, window[0]), of_average(window)
    (found,) = on_engine("ppu.avg_pool", [x], [((1, 4, 4, 1), np.float32)], settled, open_)
    same(found, np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)]))


def test_avg_pool_of_integers_truncates(on_engine: Any, under_pocl: Any) -> None:
    x = values(7, WINDOWS[0][0], "int32") // 1000
    settled, open_ = of_average(WINDOWS[0])
    expected = graph_kernel("graph.avg_pool", whole(settled, open_), x)
    for run in (on_engine, under_pocl):
        same(run("ppu.avg_pool", [x], [(expected.shape, np.int32)], settled, open_)[0], expected)


# --- parts ------------------------------------------------------------------------------------------------
def stretches(size: int, step: int) -> list[tuple[int, int]]:
    return [(at, min(step, size - at)) for at in range(0, size, step)]


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("operation", ["ppu.max_pool", "ppu.avg_pool"])
def test_parts_give_the_same_bits(on_engine: Any, operation: str, window: Any) -> None:
    """Output boxes of three by two, each in parts of one row of the window; some see the border alone."""
    x = values(8, window[0])
    settled, open_ = of_average(window) if operation == "ppu.avg_pool" else of_max(window)
    (_, size_h, size_w, _), (taps_h, taps_w), strides, dilations, pads = window
    name = operation.replace("ppu", "graph")
    expected = graph_kernel(name, whole(settled, open_), x)
    found = np.zeros_like(expected)
    for h, v in itertools.product(stretches(expected.shape[1], 3), stretches(expected.shape[2], 2)):
        acc = None
        for i in range(taps_h):
            high = halo(h, strides[0], pads[0] - i * dilations[0], 1, size_h)
            wide = halo(v, strides[1], pads[1], dilations[1] * (taps_w - 1) + 1, size_w)
            (top, rows), (left, columns) = high.interval, wide.interval
            part = np.ascontiguousarray(x[:, top : top + rows, left : left + columns])
            around = (high.before, wide.before, high.after, wide.after)
            own: dict[str, Any] = {"kernel": (1, taps_w), "pads": around}
            if operation == "ppu.avg_pool":
                own |= {"offset": (h[0], v[0]), "last": int(i == taps_h - 1)}
            shape = (len(x), h[1], v[1], x.shape[3])
            (acc,) = on_engine(operation, [part], [(shape, np.float32)], settled, own, acc)
        found[:, h[0] : h[0] + h[1], v[0] : v[0] + v[1]] = acc
    same(found, expected)


# --- local response normalisation -------------------------------------------------------------------------
LRN = [(5, 1e-4, 0.75, 1.0, 9), (3, 0.2, 0.5, 2.0, 4), (4, 0.01, 1.3, 0.5, 6), (7, 0.3, 0.75, 1.0, 2)]


def of_lrn(case: Any) -> tuple[Array, Any, Any]:
    size, alpha, beta, bias, channels = case
    x = 3 * values(9, (2, 3, 2, channels))
    before = (size - 1) // 2
    settled = {"size": size, "alpha": alpha, "beta": beta, "bias": bias}
    return x, settled, {"window": (size, before, size - 1 - before), "last": 1}


@pytest.mark.parametrize("case", LRN)
def test_lrn(on_engine: Any, under_pocl: Any, case: Any) -> None:
    """A power is within a few ulps of numpy's; PoCL may be 16 off (OpenCL 1.2, 7.4)."""
    x, settled, open_ = of_lrn(case)
    expected = graph_kernel("graph.lrn", settled, x)
    (found,) = on_engine("ppu.lrn", [x, x], [(x.shape, np.float32)], settled, open_)
    (outside,) = under_pocl("ppu.lrn", [x, x], [(x.shape, np.float32)], settled, open_)
    np.testing.assert_array_max_ulp(found, expected, 6)
    np.testing.assert_array_max_ulp(found, outside, 24)


@pytest.mark.parametrize("case", [c for c in LRN if c[0] % 2])
def test_lrn_of_onnx(on_engine: Any, case: Any) -> None:
    """By onnxruntime, which takes odd sizes.

    The reference evaluator sums for no more channels than there are images (its op_lrn.py).
    """
    runtime = pytest.importorskip("onnxruntime")
    x, settled, open_ = of_lrn(case)
    model = onnx_model("LRN", x.transpose(0, 3, 1, 2).shape, settled)
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    expected = session.run(None, {"x": x.transpose(0, 3, 1, 2)})[0].transpose(0, 2, 3, 1)
    (found,) = on_engine("ppu.lrn", [x, x], [(x.shape, np.float32)], settled, open_)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("case", LRN)
def test_sums_of_squares_are_exact(on_engine: Any, under_pocl: Any, case: Any) -> None:
    """All but the last part is a sum."""
    x, settled, open_ = of_lrn(case)
    taps, before, after = open_["window"]
    squares = np.pad(x * x, [(0, 0), (0, 0), (0, 0), (before, after)])
    expected = np.zeros_like(x)
    for i in range(taps):
        expected += squares[..., i : i + x.shape[3]]
    for run in (on_engine, under_pocl):
        same(run("ppu.lrn", [x, x], [(x.shape, np.float32)], settled, {**open_, "last": 0})[0], expected)


@pytest.mark.parametrize("case", LRN)
def test_lrn_in_parts(on_engine: Any, case: Any) -> None:
    """Stretches of two channels, each neighbour by itself."""
    x, settled, open_ = of_lrn(case)
    (expected,) = on_engine("ppu.lrn", [x, x], [(x.shape, np.float32)], settled, open_)
    found = np.zeros_like(x)
    for c, n in stretches(x.shape[3], 2):
        acc, own = None, np.ascontiguousarray(x[..., c : c + n])
        for tap in range(case[0]):
            near = halo((c, n), 1, (case[0] - 1) // 2 - tap, 1, x.shape[3])
            neighbours = np.ascontiguousarray(x[..., near.interval[0] : sum(near.interval)])
            part = {"window": (1, near.before, near.after), "last": int(tap == case[0] - 1)}
            (acc,) = on_engine("ppu.lrn", [neighbours, own], [(own.shape, np.float32)], settled, part, acc)
        found[..., c : c + n] = acc
    same(found, expected)
