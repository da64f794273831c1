"""The kernels of the graph dialect against ONNX Runtime and ONNX's reference evaluator, on one-node models.

Tolerances: 1e-5 relative for elementwise functions, 1e-4 where a BLAS sum or interpolation has another order;
what only moves, selects or compares values has to be equal.
"""

from __future__ import annotations

import math

import nacre.runtime.kernels.graph  # noqa: F401  (registers the kernels)
import numpy as np
import onnx
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from nacre.dialects import graph
from nacre.dialects.declarative import floats_attribute
from nacre.dialects.types import (
    dtype_of,
    element_of,
    element_type,
    f16,
    f32,
    i1,
    i8,
    i32,
    i64,
    shape_of,
    tensor,
)
from nacre.errors import NacreError
from nacre.runtime import kernel
from nacre.runtime.kernels import graph_elementwise, graph_linear, graph_reduce
from onnx.reference import ReferenceEvaluator
from xdsl.utils.exceptions import VerifyException
from xdsl.utils.test_value import create_ssa_value

ort = pytest.importorskip("onnxruntime")
F32 = np.float32
some = settings(max_examples=60, deadline=None, derandomize=True)
seeds = st.integers(0, 2**32 - 1)


# --- helpers ---------------------------------------------------------------------------------------------
def run(op: type, *arrays: np.ndarray, **parameters) -> np.ndarray | tuple[np.ndarray, ...]:
    """Build the op on values of the arrays' types, evaluate it, hold the result against the shape rule."""
    made = op.make(*(create_ssa_value(tensor(a.shape, element_of(a.dtype))) for a in arrays), **parameters)
    before = [a.copy() for a in arrays]
    results = kernel.evaluate(made, *arrays)
    assert all(np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in zip(arrays, before))
    assert len(results) == len(made.results)
    for array, result in zip(results, made.results):
        assert isinstance(array, np.ndarray)
        assert (array.shape, array.dtype) == (shape_of(result), dtype_of(element_type(result)))
    return results[0] if len(results) == 1 else results


def model(
    op_type: str, *arrays: np.ndarray, opset: int = 21, outputs: int = 1, **attributes
) -> onnx.ModelProto:
    """A model of one node whose inputs are the arrays; None leaves an optional input out."""
    names = ["" if a is None else f"x{i}" for i, a in enumerate(arrays)]
    results = [f"y{i}" for i in range(outputs)]
    helper = onnx.helper
    node = helper.make_node(op_type, names, results, **attributes)
    inputs = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
        for n, a in zip(names, arrays)
        if a is not None
    ]
    made = helper.make_graph([node], "one", inputs, [onnx.ValueInfoProto(name=r) for r in results])
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def feeds(arrays) -> dict[str, np.ndarray]:
    return {f"x{i}": np.ascontiguousarray(a) for i, a in enumerate(arrays) if a is not None}


def onnxruntime(op_type: str, *arrays, **kwargs) -> np.ndarray:
    """What ONNX Runtime gives for the node."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    made = model(op_type, *arrays, **kwargs).SerializeToString()
    results = ort.InferenceSession(made, options, ["CPUExecutionProvider"]).run(None, feeds(arrays))
    return results[0] if len(results) == 1 else tuple(results)  # type: ignore[return-value]


def reference(op_type: str, *arrays, **kwargs) -> np.ndarray:
    """What ONNX's reference evaluator gives for the node."""
    return ReferenceEvaluator(model(op_type, *arrays, **kwargs)).run(None, feeds(arrays))[0]


def nchw(x: np.ndarray) -> np.ndarray:
    return np.moveaxis(x, -1, 1)


def nhwc(x: np.ndarray) -> np.ndarray:
    return np.moveaxis(x, 1, -1)


def oihw(weight: np.ndarray) -> np.ndarray:
    """[K…, C, M] -> [M, C, K…]."""
    return np.moveaxis(weight, (-1, -2), (0, 1))


def floats(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return np.asarray(rng.normal(size=shape), F32)


def close(ours: np.ndarray, theirs: np.ndarray, tolerance: float = 1e-5) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)


# --- the registry ----------------------------------------------------------------------------------------
def test_every_op_but_the_constant_has_a_kernel():
    missing = [op.name for op in graph.OPS if op is not graph.ConstantOp and op not in kernel.KERNELS]
    assert len(graph.OPS) > 50 and not missing


# --- convolution -----------------------------------------------------------------------------------------
@st.composite
def windows(draw, rank: int):
    """(sizes, kernel, strides, pads, dilations) of a window that fits."""
    each = lambda low, high: [draw(st.integers(low, high)) for _ in range(rank)]  # noqa: E731
    kernel_, strides, dilations = each(1, 4), each(1, 3), each(1, 3)
    pads = [draw(st.integers(0, k - 1)) for k in kernel_ * 2]
    sizes = [
        max(1, d * (k - 1) + 1 - pads[i] - pads[rank + i]) + draw(st.integers(0, 8))
        for i, (k, d) in enumerate(zip(kernel_, dilations))
    ]
    return sizes, kernel_, strides, pads, dilations


@st.composite
def channels(draw):
    """(groups, C, M): dense, grouped, depthwise with and without multiplier."""
    groups = draw(st.integers(1, 4))
    return groups, groups * draw(st.integers(1, 4)), groups * draw(st.integers(1, 3))


@some
@given(st.data(), st.integers(1, 2), channels(), st.integers(1, 2), st.booleans(), seeds)
def test_conv(data, rank, channels, n, biased, seed):
    sizes, kernel_, strides, pads, dilations = data.draw(windows(rank))
    groups, c, m = channels
    rng = np.random.default_rng(seed)
    ifm, weight = floats(rng, n, *sizes, c), floats(rng, *kernel_, c // groups, m)
    bias = [floats(rng, m)] if biased else []
    window = {"strides": strides, "pads": pads, "dilations": dilations}
    ours = run(graph.ConvOp, ifm, weight, *bias, groups=groups, **window)
    theirs = onnxruntime("Conv", nchw(ifm), oihw(weight), *bias, group=groups, **window)
    close(ours, nhwc(theirs), 1e-4)


@pytest.mark.parametrize("piece", [1, 3000, 1 << 30])
def test_conv_does_not_depend_on_the_size_of_its_pieces(monkeypatch, piece):
    rng = np.random.default_rng(1)
    ifm, weight = floats(rng, 2, 11, 9, 5), floats(rng, 3, 3, 5, 7)
    window = {"strides": (1, 2), "pads": (1, 1, 1, 1), "dilations": (1, 1)}
    monkeypatch.setattr(graph_linear, "COLUMN_BYTES", piece)
    theirs = onnxruntime("Conv", nchw(ifm), oihw(weight), **window)
    close(run(graph.ConvOp, ifm, weight, **window), nhwc(theirs), 1e-4)


@some
@given(st.data(), st.integers(1, 2), channels(), st.booleans(), seeds)
def test_conv_transpose(data, rank, channels, biased, seed):
    each = lambda low, high: [data.draw(st.integers(low, high)) for _ in range(rank)]  # noqa: E731
    sizes, kernel_, strides, dilations = each(1, 6), each(1, 4), each(1, 3), each(1, 2)
    output_pads = [data.draw(st.integers(0, s - 1)) for s in strides]
    pads = [data.draw(st.integers(0, k - 1)) for k in kernel_ * 2]
    full = [
        s * (i - 1) + o + d * (k - 1) + 1
        for s, i, o, d, k in zip(strides, sizes, output_pads, dilations, kernel_)
    ]
    assume(all(f - pads[i] - pads[rank + i] > 0 for i, f in enumerate(full)))
    groups, c, m = channels
    rng = np.random.default_rng(seed)
    ifm, weight = floats(rng, 2, *sizes, c), floats(rng, *kernel_, c // groups, m)
    bias = [floats(rng, m)] if biased else []
    window = {"strides": strides, "pads": pads, "dilations": dilations}
    ours = run(graph.ConvTransposeOp, ifm, weight, *bias, groups=groups, output_pads=output_pads, **window)
    # ONNX's weight is [C, M / groups, K…]: the groups' input channels one after the other
    parts = np.split(np.moveaxis(weight, (-2, -1), (0, 1)), groups, axis=1)
    theirs = onnxruntime(
        "ConvTranspose",
        nchw(ifm),
        np.concatenate(parts),
        *bias,
        group=groups,
        output_padding=output_pads,
        **window,
    )
    close(ours, nhwc(theirs), 1e-4)


@some
@given(st.lists(st.integers(1, 3), max_size=2), st.integers(0, 2), st.booleans(), seeds)
def test_matmul(batch, dropped, biased, seed):
    rng = np.random.default_rng(seed)
    m, k, n = rng.integers(1, 9, 3)
    a, b = floats(rng, *batch, m, k), floats(rng, *batch[dropped:], k, n)
    bias = [floats(rng, n)] if biased else []
    theirs = onnxruntime("MatMul", a, b) + (bias[0] if biased else 0)
    close(run(graph.MatmulOp, a, b, *bias), theirs, 1e-4)


# --- pooling ---------------------------------------------------------------------------------------------
@some
@given(st.data(), st.integers(1, 2), st.sampled_from([np.float32, np.int8, np.uint8]), seeds)
def test_max_pool(data, rank, dtype, seed):
    sizes, kernel_, strides, pads, dilations = data.draw(windows(rank))
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 120, (2, *sizes, 3)) - (0 if dtype == np.uint8 else 128)
    ifm = values.astype(dtype)
    window = {"strides": strides, "pads": pads, "dilations": dilations}
    ours = run(graph.MaxPoolOp, ifm, kernel=kernel_, **window)
    theirs = onnxruntime("MaxPool", nchw(ifm), kernel_shape=kernel_, **window)
    np.testing.assert_array_equal(ours, nhwc(theirs))


@some
@given(st.data(), st.integers(1, 2), st.booleans(), seeds)
def test_avg_pool(data, rank, include, seed):
    sizes, kernel_, strides, pads, dilations = data.draw(windows(rank))
    ifm = floats(np.random.default_rng(seed), 2, *sizes, 3)
    window = {"strides": strides, "pads": pads, "dilations": dilations}
    ours = run(graph.AvgPoolOp, ifm, kernel=kernel_, count_include_pad=include, **window)
    theirs = onnxruntime(
        "AveragePool", nchw(ifm), kernel_shape=kernel_, count_include_pad=int(include), **window
    )
    close(ours, nhwc(theirs))


@pytest.mark.parametrize("include", [False, True])
@pytest.mark.parametrize("size", [5, 6, 7, 8])
def test_avg_pool_does_not_count_what_ceil_mode_adds(size, include):
    ifm = floats(np.random.default_rng(size), 1, size, size, 2)
    window = {"strides": (3, 2), "dilations": (1, 1)}
    pads, kernel_ = (1, 0, 1, 1), (3, 4)
    theirs = onnxruntime(
        "AveragePool",
        nchw(ifm),
        kernel_shape=kernel_,
        pads=pads,
        ceil_mode=1,
        count_include_pad=int(include),
        **window,
    )
    overhang = [
        max(0, (out - 1) * s + k - (size + pads[i] + pads[i + 2]))
        for i, (out, s, k) in enumerate(zip(theirs.shape[2:], window["strides"], kernel_))
    ]
    wide = (pads[0], pads[1], pads[2] + overhang[0], pads[3] + overhang[1])
    ours = run(
        graph.AvgPoolOp,
        ifm,
        kernel=kernel_,
        pads=wide,
        overhang=overhang,
        count_include_pad=include,
        **window,
    )
    close(ours, nhwc(theirs))


def test_avg_pool_sums_its_taps_in_order():
    values = np.array([1e8, 1, 1, -1e8, 3, 7, 1e8, 5, -1e8], F32)
    total = F32(0)
    for value in values:
        total = total + value
    assert total != values.sum(dtype=np.float64)
    plain = {"strides": (1, 1), "pads": (0, 0, 0, 0), "dilations": (1, 1)}
    ours = run(graph.AvgPoolOp, values.reshape(1, 3, 3, 1), kernel=(3, 3), **plain)
    assert ours.item() == total / F32(9)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8])
def test_lrn(size):
    """Against the sentence of the operator's page; ONNX Runtime takes odd sizes alone."""
    ifm = floats(np.random.default_rng(size), 2, 3, 4, 6)
    expected = np.empty_like(ifm)
    for c in range(6):
        window = ifm[..., max(0, c - (size - 1) // 2) : min(5, c + math.ceil((size - 1) / 2)) + 1]
        expected[..., c] = ifm[..., c] / (1.5 + 0.3 / size * np.sum(window**2, axis=-1)) ** 0.6
    close(run(graph.LrnOp, ifm, size=size, alpha=0.3, beta=0.6, bias=1.5), expected)


def test_lrn_of_odd_size_equals_onnxruntime():
    ifm = floats(np.random.default_rng(0), 2, 3, 4, 9)
    parameters = {"size": 5, "alpha": 0.3, "beta": 0.75, "bias": 1.0}
    close(run(graph.LrnOp, ifm, **parameters), nhwc(onnxruntime("LRN", nchw(ifm), **parameters)))


# --- resize, space and depth -----------------------------------------------------------------------------
def onnx_resize(ifm, sizes=None, scales=None, runner=onnxruntime, **attributes) -> np.ndarray:
    """Resize of a channels-last array; sizes or scales of the spatial axes as constants of the model."""
    x = nchw(ifm)
    given_ = np.array([1, 1, *scales], F32) if scales else np.array([*x.shape[:2], *sizes], np.int64)
    arrays = [x, None, given_] if scales else [x, None, None, given_]
    return nhwc(runner("Resize", *arrays, opset=19, **attributes))


resize_sizes = st.tuples(st.integers(1, 7), st.integers(1, 9))


@pytest.mark.parametrize(
    "before, after, coordinates, nearest",
    [
        (7, 8, "asymmetric", "round_prefer_ceil"),  # 4 / (8 / 7) is 3.4999998 in float32
        (52, 224, "asymmetric", "round_prefer_ceil"),
        (14, 19, "half_pixel", "round_prefer_floor"),
        (52, 14, "half_pixel", "round_prefer_ceil"),
        (3, 11, "half_pixel_symmetric", "floor"),
        (13, 26, "asymmetric", "floor"),
    ],
)
def test_resize_nearest_at_ties(before, after, coordinates, nearest):
    ifm = np.arange(before, dtype=F32).reshape(1, 1, before, 1)
    ours = run(graph.ResizeOp, ifm, sizes=(1, after), coordinates=coordinates, nearest=nearest)
    theirs = onnx_resize(
        ifm, (1, after), mode="nearest", coordinate_transformation_mode=coordinates, nearest_mode=nearest
    )
    np.testing.assert_array_equal(ours, theirs)


@settings(some, max_examples=150)
@given(
    resize_sizes,
    resize_sizes,
    st.sampled_from(graph.COORDINATES),
    st.sampled_from(graph.NEAREST_MODES),
    seeds,
)
def test_resize_nearest(before, after, coordinates, nearest, seed):
    ifm = floats(np.random.default_rng(seed), 1, *before, 2)
    ours = run(graph.ResizeOp, ifm, sizes=after, coordinates=coordinates, nearest=nearest)
    theirs = onnx_resize(
        ifm, after, mode="nearest", coordinate_transformation_mode=coordinates, nearest_mode=nearest
    )
    np.testing.assert_array_equal(ours, theirs)


@settings(some, max_examples=100)
@given(
    resize_sizes,
    resize_sizes,
    st.sampled_from(graph.COORDINATES),
    st.sampled_from(["linear", "cubic"]),
    seeds,
)
def test_resize_interpolating(before, after, coordinates, mode, seed):
    ifm = floats(np.random.default_rng(seed), 2, *before, 3)
    ours = run(graph.ResizeOp, ifm, sizes=after, coordinates=coordinates, mode=mode)
    theirs = onnx_resize(ifm, after, mode=mode, coordinate_transformation_mode=coordinates)
    close(ours, theirs, 1e-4)


@settings(some, max_examples=60)
@given(resize_sizes, st.tuples(*[st.floats(0.4, 2.9)] * 2), st.sampled_from(graph.COORDINATES),
       st.sampled_from(graph.RESIZE_MODES), seeds)  # fmt: skip
def test_resize_by_scales(before, scales, coordinates, mode, seed):
    scales = [float(F32(s)) for s in scales]
    sizes = [math.floor(d * s) for d, s in zip(before, scales)]
    assume(min(sizes) >= 1 and tuple(sizes) != before)  # ONNX Runtime copies where no size changes
    ifm = floats(np.random.default_rng(seed), 1, *before, 2)
    ours = run(
        graph.ResizeOp, ifm, sizes=sizes, scales=floats_attribute(scales), coordinates=coordinates, mode=mode
    )
    theirs = onnx_resize(ifm, scales=scales, mode=mode, coordinate_transformation_mode=coordinates)
    close(ours, theirs, 1e-4)


@pytest.mark.parametrize("coordinates", ["half_pixel", "asymmetric", "align_corners"])
def test_resize_cubic_without_what_lies_outside(coordinates):
    ifm = floats(np.random.default_rng(3), 1, 4, 5, 2)
    ours = run(graph.ResizeOp, ifm, sizes=(9, 3), coordinates=coordinates, mode="cubic", cubic_a=-0.5,
               exclude_outside=True)  # fmt: skip
    theirs = onnx_resize(ifm, (9, 3), mode="cubic", coordinate_transformation_mode=coordinates,
                         cubic_coeff_a=-0.5, exclude_outside=1)  # fmt: skip
    close(ours, theirs, 1e-4)


def test_resize_nearest_moves_integers():
    ifm = np.arange(-12, 12, dtype=np.int8).reshape(1, 3, 4, 2)
    ours = run(graph.ResizeOp, ifm, sizes=(6, 8), coordinates="asymmetric", nearest="floor")
    np.testing.assert_array_equal(ours, ifm.repeat(2, 1).repeat(2, 2))
    with pytest.raises(VerifyException, match="mode 'linear' computes floats, not i8"):
        run(graph.ResizeOp, ifm, sizes=(6, 8), mode="linear")


def test_resize_of_one_axis():
    ifm = floats(np.random.default_rng(3), 2, 5, 3)
    ours = run(graph.ResizeOp, ifm, sizes=(8,), mode="linear")
    close(ours, onnx_resize(ifm, (8,), mode="linear"))


@pytest.mark.parametrize("order", ["DCR", "CRD"])
@pytest.mark.parametrize("dtype", [np.float32, np.int8])
def test_depth_to_space(order, dtype):
    ifm = np.arange(2 * 3 * 4 * 18).reshape(2, 3, 4, 18).astype(dtype)
    ours = run(graph.DepthToSpaceOp, ifm, block=3, order=order)
    np.testing.assert_array_equal(ours, nhwc(reference("DepthToSpace", nchw(ifm), blocksize=3, mode=order)))


@pytest.mark.parametrize("dtype", [np.float32, np.int8])
def test_space_to_depth(dtype):
    ifm = np.arange(2 * 6 * 4 * 5).reshape(2, 6, 4, 5).astype(dtype)
    theirs = nhwc(onnxruntime("SpaceToDepth", nchw(ifm).astype(F32), blocksize=2))
    np.testing.assert_array_equal(run(graph.SpaceToDepthOp, ifm, block=2), theirs)


# --- elementwise -----------------------------------------------------------------------------------------
UNARY = {
    graph.NegOp: "Neg", graph.AbsOp: "Abs", graph.ExpOp: "Exp", graph.LogOp: "Log", graph.SqrtOp: "Sqrt",
    graph.ErfOp: "Erf", graph.FloorOp: "Floor", graph.CeilOp: "Ceil", graph.RoundOp: "Round",
    graph.SinOp: "Sin", graph.CosOp: "Cos", graph.ReluOp: "Relu", graph.SigmoidOp: "Sigmoid",
    graph.TanhOp: "Tanh", graph.HardSwishOp: "HardSwish", graph.GeluOp: "Gelu",
    graph.LeakyReluOp: "LeakyRelu",
    graph.EluOp: "Elu", graph.HardSigmoidOp: "HardSigmoid",
}  # fmt: skip
SPECIAL = np.array(
    [0, -0.0, 1, -1, 0.5, -0.5, 1.5, 2.5, -2.5, 88, -88, 300, -300, np.inf, -np.inf, np.nan], F32
)


@pytest.mark.parametrize("op", UNARY, ids=lambda op: op.name)
def test_unary(op):
    x = np.concatenate([SPECIAL, floats(np.random.default_rng(5), 2000) * 3])
    x = np.where(np.isnan(x), F32(1), x) if op is graph.ReluOp else x  # ONNX Runtime's Relu turns NaN into 0
    close(run(op, x), onnxruntime(UNARY[op], x))
    close(run(op, x.reshape(-1, 2).T), onnxruntime(UNARY[op], x.reshape(-1, 2)).T)


@pytest.mark.parametrize(
    "op, parameters",
    [
        (graph.LeakyReluOp, {"alpha": 0.3}),
        (graph.LeakyReluOp, {"alpha": 1.3}),
        (graph.LeakyReluOp, {"alpha": -0.3}),
        (graph.EluOp, {"alpha": 1.7}),
        (graph.HardSigmoidOp, {"alpha": 0.3, "beta": 0.1}),
        (graph.GeluOp, {"approximate": True}),
    ],
)
def test_unary_with_parameters(op, parameters):
    x = np.append(floats(np.random.default_rng(5), 500) * 3, F32(0))
    attributes = {n: "tanh" if v is True else v for n, v in parameters.items()}
    close(run(op, x, **parameters), onnxruntime(UNARY[op], x, **attributes))


def test_rsqrt():
    x = np.exp(floats(np.random.default_rng(5), 100))
    close(run(graph.RsqrtOp, x), 1 / np.sqrt(x.astype(np.float64)))


def test_clamp():
    x = floats(np.random.default_rng(5), 100) * 4
    close(
        run(graph.ClampOp, x, low=-1.0, high=2.0),
        onnxruntime("Clip", x, np.array(-1, F32), np.array(2, F32)),
        0,
    )
    close(run(graph.ClampOp, x, high=2.0), np.minimum(x, 2), 0)
    integers = np.arange(-128, 128, dtype=np.int8)
    close(run(graph.ClampOp, integers, low=-3.0, high=1000.0), np.maximum(integers, -3), 0)
    close(run(graph.ClampOp, integers), integers, 0)


def test_erf_is_within_half_a_float32_step_and_a_bit():
    x = np.concatenate([np.linspace(-6, 6, 60001), np.geomspace(1e-30, 1, 1000), SPECIAL]).astype(F32)
    exact = np.array([math.erf(v) for v in x])
    ours = run(graph.ErfOp, x)
    finite = ~np.isnan(exact)
    assert np.isnan(ours[~finite]).all()
    error = np.abs(ours[finite] - exact[finite])
    assert np.all(error <= np.spacing(np.abs(exact[finite]).astype(F32)) * 0.51)
    assert error.max() < 1e-7


def test_erf_coefficients_are_those_of_the_interpolation():
    def ratio(s):
        x = np.sqrt(8 * (s + 1))
        return np.array([math.erf(v) / v for v in x])

    chebyshev = np.polynomial.chebyshev.chebinterpolate(ratio, len(graph_elementwise.ERF_POLYNOMIAL) - 1)
    close(np.polynomial.chebyshev.cheb2poly(chebyshev), np.array(graph_elementwise.ERF_POLYNOMIAL), 1e-11)


@pytest.mark.parametrize("op", UNARY, ids=lambda op: op.name)
def test_unary_gives_the_same_bits_wherever_a_value_stands(op):
    x = floats(np.random.default_rng(7), 997) * 5
    whole = run(op, x)
    for part in (slice(3, 600), slice(1, None, 3), slice(None, None, -1), slice(5, 6)):
        np.testing.assert_array_equal(run(op, x[part]), whole[part])


BINARY = {
    graph.AddOp: "Add", graph.SubOp: "Sub", graph.MulOp: "Mul", graph.DivOp: "Div", graph.MinOp: "Min",
    graph.MaxOp: "Max", graph.PowOp: "Pow",
}  # fmt: skip


@st.composite
def broadcastable(draw):
    """Two shapes that broadcast."""
    shape = draw(st.lists(st.integers(1, 4), max_size=4))

    def thinned() -> tuple[int, ...]:
        start = draw(st.integers(0, len(shape)))
        return tuple(1 if draw(st.booleans()) else d for d in shape[start:])

    return thinned(), thinned()


@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.int64])
@pytest.mark.parametrize("op", BINARY, ids=lambda op: op.name)
@settings(max_examples=12, deadline=None, derandomize=True)
@given(shapes=broadcastable(), seed=seeds)
def test_binary(op, dtype, shapes, seed):
    rng = np.random.default_rng(seed)
    a, b = (np.asarray(rng.normal(size=s) * 5).astype(dtype) for s in shapes)
    b = np.asarray(np.where(b == 0, 1, b), dtype)
    if op is graph.PowOp:
        a, b = np.abs(a), np.abs(b)
    close(run(op, a, b), onnxruntime(BINARY[op], a, b))


def test_integer_division_truncates_and_refuses_zero():
    a, b = np.meshgrid(np.arange(-7, 8), [-3, -2, -1, 1, 2, 3])
    np.testing.assert_array_equal(run(graph.DivOp, a, b), np.trunc(a / b).astype(np.int64))
    with pytest.raises(NacreError, match=r"graph\.div: an integer divisor is 0"):
        run(graph.DivOp, a, np.zeros(1, np.int64))


def test_integer_power_of_negative_exponents_truncates():
    a, b = np.meshgrid([-3, -1, 1, 2], np.arange(-3, 4))
    np.testing.assert_array_equal(run(graph.PowOp, a, b), np.trunc(a.astype(float) ** b).astype(np.int64))


def test_prelu():
    rng = np.random.default_rng(0)
    x, slope = floats(rng, 2, 3, 4), floats(rng, 4)
    close(run(graph.PreluOp, x, slope), onnxruntime("PRelu", x, slope))


PREDICATES = {"eq": "Equal", "lt": "Less", "le": "LessOrEqual", "gt": "Greater", "ge": "GreaterOrEqual"}


@pytest.mark.parametrize("dtype", [np.float32, np.int64])
@pytest.mark.parametrize("predicate", graph.PREDICATES)
def test_compare(predicate, dtype):
    rng = np.random.default_rng(0)
    a, b = rng.integers(-2, 3, (5, 6)).astype(dtype), rng.integers(-2, 3, (6,)).astype(dtype)
    ours = run(graph.CompareOp, a, b, predicate=predicate)
    theirs = ~onnxruntime("Equal", a, b) if predicate == "ne" else onnxruntime(PREDICATES[predicate], a, b)
    np.testing.assert_array_equal(ours, theirs)


def test_select():
    rng = np.random.default_rng(0)
    condition, a, b = rng.integers(0, 2, (4, 1)).astype(bool), floats(rng, 3), floats(rng, 4, 3)
    np.testing.assert_array_equal(run(graph.SelectOp, condition, a, b), onnxruntime("Where", condition, a, b))


@pytest.mark.parametrize("to", [f32, f16, i1, i8, i32, i64], ids=str)
def test_cast(to):
    x = np.array([-2.7, -1, -0.5, 0, 0.5, 1, 2.7, 100], F32)
    theirs = onnxruntime("Cast", x, to=onnx.helper.np_dtype_to_tensor_dtype(dtype_of(to)))
    np.testing.assert_array_equal(run(graph.CastOp, x, to=to), theirs)


# --- along axes ------------------------------------------------------------------------------------------
def loop_sum(values: np.ndarray) -> np.ndarray:
    """The sum in index order, one scalar after the other."""
    total = F32(0)
    for value in values:
        total = total + value
    return total  # type: ignore[return-value]


@settings(some, max_examples=40)
@given(
    st.integers(1, 40), st.sampled_from([1, 3, graph_reduce.WIDE, 700]), st.integers(0, 2), st.data(), seeds
)
def test_sequential_sum_continues_exactly(n, others, axis, data, seed):
    x = np.moveaxis(floats(np.random.default_rng(seed), n, others, 2) * 1000, 0, axis)
    x = np.where(np.abs(x) < 10, F32(-0.0), x)
    whole = graph_reduce.sequential_sum(x, axis)
    cuts = sorted(data.draw(st.lists(st.integers(0, n), max_size=4)))
    carry = None
    for part in np.split(x, cuts, axis=axis):
        carry = graph_reduce.sequential_sum(part, axis, carry)
    assert whole.dtype == F32 and np.moveaxis(whole, axis, 0).shape == (1, others, 2)
    np.testing.assert_array_equal(carry.view(np.int32), whole.view(np.int32))
    np.testing.assert_array_equal(
        np.moveaxis(whole, axis, 0)[0, 0, 0], loop_sum(np.moveaxis(x, axis, 0)[:, 0, 0])
    )
    copied = graph_reduce.sequential_sum(np.asfortranarray(x), axis)
    np.testing.assert_array_equal(copied, whole)


REDUCTIONS = {
    graph.ReduceSumOp: "ReduceSum", graph.ReduceMeanOp: "ReduceMean", graph.ReduceMaxOp: "ReduceMax",
    graph.ReduceMinOp: "ReduceMin",
}  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float32, np.int64])
@pytest.mark.parametrize("op", REDUCTIONS, ids=lambda op: op.name)
@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    keepdims=st.booleans(),
    data=st.data(),
    seed=seeds,
)
def test_reduce(op, dtype, shape, keepdims, data, seed):
    axes = data.draw(st.sets(st.integers(0, len(shape) - 1), min_size=1))
    x = (floats(np.random.default_rng(seed), *shape) * 9).astype(dtype)
    ours = run(op, x, axes=sorted(axes), keepdims=keepdims)
    theirs = onnxruntime(REDUCTIONS[op], x, np.array(sorted(axes), np.int64), keepdims=int(keepdims))
    close(ours, theirs)


def test_reduce_sum_goes_through_its_axes_in_row_major_order():
    x = floats(np.random.default_rng(2), 3, 5, 4, 6) * 1e4
    ours = run(graph.ReduceSumOp, x, axes=(1, 3), keepdims=False)
    for i, j in np.ndindex(3, 4):
        assert ours[i, j] == loop_sum(x[i, :, j].ravel())  # type: ignore[call-overload]


def test_reduce_over_no_axes_is_the_input():
    x = floats(np.random.default_rng(2), 3, 5)
    for op in REDUCTIONS:
        np.testing.assert_array_equal(run(op, x, axes=()), x)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("keepdims", [False, True])
def test_argmax(axis, last, keepdims):
    x = np.random.default_rng(0).integers(0, 3, (3, 6, 4)).astype(F32)
    ours = run(graph.ArgmaxOp, x, axis=axis, keepdims=keepdims, select_last=last)
    theirs = onnxruntime("ArgMax", x, axis=axis, keepdims=int(keepdims), select_last_index=int(last))
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_softmax(axis):
    x = floats(np.random.default_rng(axis), 3, 7, 5) * 20
    close(run(graph.SoftmaxOp, x, axis=axis), onnxruntime("Softmax", x, axis=axis))


@settings(some, max_examples=30)
@given(st.integers(1, 50), st.lists(st.integers(1, 49), max_size=4), seeds)
def test_softmax_in_pieces_gives_the_same_bits(n, cuts, seed):
    x = floats(np.random.default_rng(seed), 4, n) * 10
    parts = [part for part in np.split(x, sorted(c for c in cuts if c < n), axis=1) if part.size]
    maximum = total = None
    for part in parts:
        maximum = graph_reduce.softmax_max(part, 1, maximum)
    for part in parts:
        total = graph_reduce.softmax_sum(part, maximum, 1, total)
    pieces = [graph_reduce.softmax_output(part, maximum, total) for part in parts]
    np.testing.assert_array_equal(np.concatenate(pieces, axis=1), run(graph.SoftmaxOp, x, axis=1))


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("axis", [1, 2])
def test_layer_norm(axis, biased):
    rng = np.random.default_rng(axis)
    x = floats(rng, 3, 4, 8)
    parameters = [floats(rng, *x.shape[axis:]) for _ in range(1 + biased)]
    ours = run(graph.LayerNormOp, x, *parameters, axis=axis, epsilon=1e-3)
    close(ours, onnxruntime("LayerNormalization", x, *parameters, axis=axis, epsilon=1e-3))


def test_batch_norm():
    rng = np.random.default_rng(0)
    x, scale, bias, mean, deviation = floats(rng, 2, 3, 4, 5), *floats(rng, 4, 3)
    variance = deviation**2
    ours = run(graph.BatchNormOp, x, scale, bias, mean, variance, axis=1, epsilon=1e-3)
    close(ours, onnxruntime("BatchNormalization", x, scale, bias, mean, variance, epsilon=1e-3))
    moved = run(graph.BatchNormOp, nhwc(x), scale, bias, mean, variance, axis=3, epsilon=1e-3)
    np.testing.assert_array_equal(moved, nhwc(ours))


# --- moving values ---------------------------------------------------------------------------------------
STORED = [np.float32, np.int8, np.uint8, np.int32, np.int64, np.bool_]


def stored(dtype: type, *shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 100, shape).astype(dtype)


@pytest.mark.parametrize("dtype", STORED)
def test_reshape_transpose_broadcast(dtype):
    x = stored(dtype, 2, 3, 4)
    np.testing.assert_array_equal(
        run(graph.ReshapeOp, x, shape=(4, 6)), onnxruntime("Reshape", x, np.array([4, 6]))
    )
    np.testing.assert_array_equal(
        run(graph.TransposeOp, x, permutation=(2, 0, 1)), onnxruntime("Transpose", x, perm=[2, 0, 1])
    )
    np.testing.assert_array_equal(
        run(graph.BroadcastOp, x[:, :1], shape=(5, 2, 3, 4)),
        reference("Expand", x[:, :1], np.array([5, 2, 3, 4])),
    )


@pytest.mark.parametrize("dtype", STORED)
def test_concat_and_split(dtype):
    x = stored(dtype, 2, 6, 3)
    parts = run(graph.SplitOp, x, axis=1, sizes=(1, 3, 0, 2))
    for ours, theirs in zip(parts, np.split(x, [1, 4, 4], axis=1), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(run(graph.ConcatOp, *parts, axis=1), x)
    np.testing.assert_array_equal(run(graph.ConcatOp, x, x, axis=2), onnxruntime("Concat", x, x, axis=2))
    np.testing.assert_array_equal(run(graph.SplitOp, x, axis=1, sizes=(6,)), x)


@some
@given(st.data(), st.lists(st.integers(1, 6), min_size=1, max_size=3))
def test_slice(data, shape):
    starts, sizes, steps = [], [], []
    for d in shape:
        start, step = data.draw(st.integers(0, d - 1)), data.draw(st.sampled_from([-3, -2, -1, 1, 2, 3]))
        room = (d - 1 - start) // step if step > 0 else start // -step
        starts, sizes, steps = [*starts, start], [*sizes, data.draw(st.integers(0, room + 1))], [*steps, step]
    x = np.arange(math.prod(shape)).reshape(shape)
    ours = run(graph.SliceOp, x, starts=starts, sizes=sizes, steps=steps)
    theirs = x[np.ix_(*(s + np.arange(n) * t for s, n, t in zip(starts, sizes, steps)))]
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("mode", graph.PAD_MODES)
@pytest.mark.parametrize("dtype", [np.float32, np.int8, np.int64])
def test_pad(mode, dtype):
    x = stored(dtype, 3, 4)
    parameters = {"value": -3.0} if mode == "constant" else {}
    ours = run(graph.PadOp, x, low=(2, 0), high=(1, 3), mode=mode, **parameters)
    theirs = onnxruntime("Pad", x, np.array([2, 0, 1, 3]), np.array(-3, dtype), mode=mode)
    np.testing.assert_array_equal(ours, theirs)


def test_pad_with_infinity_and_with_what_no_integer_holds():
    x = floats(np.random.default_rng(0), 2)
    np.testing.assert_array_equal(run(graph.PadOp, x, low=(1,), high=(0,), value=-math.inf), [-math.inf, *x])
    for value in (200.0, 0.5, -math.inf):
        with pytest.raises(NacreError, match=r"graph.pad: the value .* in \[-128, 127\]"):
            run(graph.PadOp, x.astype(np.int8), low=(1,), high=(0,), value=value)


@pytest.mark.parametrize("dtype", STORED)
@pytest.mark.parametrize("axis", [0, 1])
def test_gather(dtype, axis):
    x, indices = stored(dtype, 4, 3), np.array([[0, -1, 2], [1, 1, -3]])
    np.testing.assert_array_equal(
        run(graph.GatherOp, x, indices, axis=axis), onnxruntime("Gather", x, indices, axis=axis)
    )
    assert run(graph.GatherOp, x[:, 0], np.array(2)).shape == ()


def test_gather_refuses_an_index_outside():
    with pytest.raises(
        NacreError, match=r"indices -1 to 4 leave an axis of 4; they have to lie in \[-4, 3\]"
    ):
        run(graph.GatherOp, np.zeros(4, F32), np.array([-1, 4]))


# --- scalars ---------------------------------------------------------------------------------------------
def test_scalars_stay_arrays():
    x = np.array(2, F32)
    for op in (*UNARY, graph.RsqrtOp, graph.ClampOp):
        run(op, x)  # run checks that the result is an array of the right type
    for op in (*BINARY, graph.PreluOp):  # type: ignore[assignment]
        run(op, x, x)
        run(op, np.array(2), np.array(3))
    run(graph.CompareOp, x, x, predicate="lt")
    run(graph.SelectOp, np.array(True), x, x)
    run(graph.CastOp, x, to=i64)
    for op in REDUCTIONS:  # type: ignore[assignment]
        run(op, x.reshape(1), axes=(0,), keepdims=False)
    run(graph.ArgmaxOp, x.reshape(1), axis=0, keepdims=False)
