"""linear.cl: products of matrices and convolutions, in the order of sums that every tiling keeps."""

from __future__ import annotations

import itertools
from typing import Any

import nacre.backends.npu.kernels.linear  # noqa: F401  registers the kernels
import numpy as np
import onnx
import pytest
from nacre.dialects.declarative import Parameters
from nacre.passes.npu.tiling import halo
from nacre.runtime.kernel import operations, run_kernel
from onnx import helper
from onnx.reference import ReferenceEvaluator

Array = np.ndarray
SPATIAL = [
    # image [N, H, W, C], taps, filters, strides, dilations, pads
    ((1, 5, 6, 3), (3, 3), 4, (1, 1), (1, 1), (1, 1, 1, 1)),
    ((2, 7, 5, 2), (3, 2), 3, (2, 1), (1, 2), (0, 2, 1, 0)),
    ((1, 6, 9, 4), (1, 1), 5, (2, 2), (1, 1), (0, 0, 0, 0)),
    ((2, 4, 4, 1), (2, 4), 2, (3, 2), (2, 1), (2, 3, 1, 3)),
]


def normal(seed: int, *shapes: tuple[int, ...]) -> list[Array]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(s).astype(np.float32) for s in shapes]


def small(seed: int, dtype: str, *shapes: tuple[int, ...]) -> list[Array]:
    """Integers whose products fit an int, for PoCL: in C their overflow is undefined."""
    rng = np.random.default_rng(seed)
    limits = np.iinfo(dtype)
    return [rng.integers(max(limits.min, -1000), min(limits.max, 1000), s, endpoint=True).astype(dtype) for s in shapes]


def same(found: Array, expected: Array) -> None:
    """The same bits; one NaN is as good as another."""
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)
    if found.dtype.kind == "f":
        real = ~np.isnan(found)
        np.testing.assert_array_equal(np.signbit(found)[real], np.signbit(expected)[real])


def graph_kernel(name: str, parameters: dict[str, Any], *inputs: Array) -> Array:
    (found,) = run_kernel(operations()[name], Parameters(parameters), *inputs)
    return found


def onnx_node(operator: str, inputs: list[Array], **attributes: Any) -> Array:
    names = [f"x{i}" for i in range(len(inputs))]
    node = helper.make_node(operator, names, ["y"], **attributes)
    given = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, x.shape) for n, x in zip(names, inputs)]
    out = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    model = helper.make_model(
        helper.make_graph([node], "one", given, [out]), opset_imports=[helper.make_opsetid("", 18)]
    )
    return ReferenceEvaluator(model).run(None, dict(zip(names, inputs)))[0]


# --- references: one accumulator an element, a plain loop over the terms ----------------------------------
def matmul_loop(a: Array, b: Array, bias: Array | None = None) -> Array:
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    total = np.zeros((*batch, a.shape[-2], b.shape[-1]), a.dtype)
    if bias is not None:
        total = total + bias if a.dtype.kind != "f" else np.broadcast_to(bias, total.shape)
    for k in range(a.shape[-1]):
        total = total + a[..., :, k, None] * b[..., k, None, :]
    return total


def windows(x: Array, w: Array, s: Any, d: Any, pads: Any) -> tuple[Array, int, int]:
    """The padded image and the number of rows and columns of the result."""
    image = np.pad(x, [(0, 0), (pads[0], pads[2]), (pads[1], pads[3]), (0, 0)])
    rows, columns = (
        (n - (k - 1) * dil - 1) // step + 1 for n, k, step, dil in zip(image.shape[1:3], w.shape[:2], s, d)
    )
    return image, rows, columns


def seen(image: Array, i: int, j: int, rows: int, columns: int, s: Any, d: Any) -> Array:
    """What the tap (i, j) sees."""
    top, left = i * d[0], j * d[1]
    return image[:, top : top + (rows - 1) * s[0] + 1 : s[0], left : left + (columns - 1) * s[1] + 1 : s[1]]


def started(shape: tuple[int, ...], dtype: Any, bias: Array | None) -> Array:
    return np.zeros(shape, dtype) if bias is None else np.broadcast_to(bias, shape)


def conv_loop(x: Array, w: Array, bias: Array | None, s: Any, d: Any, pads: Any) -> Array:
    image, rows, columns = windows(x, w, s, d, pads)
    total = started((len(x), rows, columns, w.shape[3]), x.dtype, bias)
    for c, i, j in itertools.product(range(w.shape[2]), range(w.shape[0]), range(w.shape[1])):
        total = total + seen(image, i, j, rows, columns, s, d)[..., c, None] * w[i, j, c]
    return total


def depthwise_loop(x: Array, w: Array, bias: Array | None, s: Any, d: Any, pads: Any) -> Array:
    image, rows, columns = windows(x, w, s, d, pads)
    image = np.repeat(image, w.shape[3] // x.shape[3], axis=3)
    total = started((len(x), rows, columns, w.shape[3]), x.dtype, bias)
    for i, j in itertools.product(range(w.shape[0]), range(w.shape[1])):
        total = total + seen(image, i, j, rows, columns, s, d) * w[i, j, 0]
    return total


def transposed_loop(x: Array, w: Array, bias: Array | None, s: Any, d: Any, origin: Any, size: Any) -> Array:
    """Element by element: only the products that exist are summed."""
    (_, h, width, channels), (kh, kw, _, _) = x.shape, w.shape
    total = np.array(started((len(x), *size, w.shape[3]), x.dtype, bias))
    for c, i, j, r, q in itertools.product(range(channels), range(kh), range(kw), range(h), range(width)):
        row, column = r * s[0] + i * d[0] - origin[0], q * s[1] + j * d[1] - origin[1]
        if 0 <= row < size[0] and 0 <= column < size[1]:
            total[:, row, column] += x[:, r, q, c, None] * w[i, j, c]
    return total


# --- matrix products --------------------------------------------------------------------------------------
BATCHES = [
    ((), ()),
    ((2,), ()),
    ((), (3,)),
    ((2, 3), (2, 3)),
    ((2, 1), (1, 3)),
    ((2, 3), (2, 1)),
    ((2, 1, 3, 1), (1, 2, 1, 2)),
    ((3, 1), (2,)),
]


@pytest.mark.parametrize(("left", "right"), BATCHES)
@pytest.mark.parametrize(("m", "k", "n"), [(4, 5, 3), (1, 7, 2), (3, 1, 1)])
@pytest.mark.parametrize("biased", [False, True])
def test_matmul(on_engine: Any, left: Any, right: Any, m: int, k: int, n: int, biased: bool) -> None:
    a, b, bias = normal(1, (*left, m, k), (*right, k, n), (n,))
    inputs = [a, b, bias] if biased else [a, b]
    expected = matmul_loop(*inputs)
    (found,) = on_engine("ppu.matmul", inputs, [(expected.shape, np.float32)])
    same(found, expected)
    np.testing.assert_allclose(found, graph_kernel("graph.matmul", {}, *inputs), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found - (bias if biased else 0), onnx_node("MatMul", [a, b]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("left", "right"), BATCHES)
def test_matmul_under_pocl(on_engine: Any, under_pocl: Any, left: Any, right: Any) -> None:
    inputs = normal(2, (*left, 3, 6), (*right, 6, 4), (4,))
    shape = (*np.broadcast_shapes(left, right), 3, 4)
    same(*(run("ppu.matmul", inputs, [(shape, np.float32)])[0] for run in (on_engine, under_pocl)))


def test_matmul_in_parts(on_engine: Any) -> None:
    a, b, bias = normal(3, (2, 5, 9), (9, 4), (4,))
    (whole,) = on_engine("ppu.matmul", [a, b, bias], [((2, 5, 4), np.float32)])
    acc = None
    for part in (slice(0, 4), slice(4, 5), slice(5, 9)):
        (acc,) = on_engine("ppu.matmul", [a[..., part], b[part], bias], [((2, 5, 4), np.float32)], acc=acc)
    same(acc, whole)
    (box,) = on_engine("ppu.matmul", [a[1:, 2:4], b[:, 1:], bias[1:]], [((1, 2, 3), np.float32)])
    same(box, whole[1:, 2:4, 1:])


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int32", "int64"])
def test_matmul_of_integers(on_engine: Any, under_pocl: Any, dtype: str) -> None:
    a, b, bias = small(4, dtype, (2, 3, 6), (6, 4), (4,))
    expected = matmul_loop(a, b, bias)
    for run in (on_engine, under_pocl):
        same(run("ppu.matmul", [a, b, bias], [((2, 3, 4), dtype)])[0], expected)


# --- convolutions -----------------------------------------------------------------------------------------
def conv_case(seed: int, depthwise: bool, spatial: Any, multiplier: int = 1, dtype: str = "float32") -> Any:
    image, taps, filters, strides, dilations, pads = spatial
    channels = image[3]
    weight = (*taps, 1, channels * multiplier) if depthwise else (*taps, channels, filters)
    shapes = (image, weight, weight[3:])
    inputs = normal(seed, *shapes) if dtype == "float32" else small(seed, dtype, *shapes)
    settled = {"strides": strides, "dilations": dilations}
    return inputs, settled, {"pads": pads}


LOOPS = {"ppu.conv": conv_loop, "ppu.depthwise": depthwise_loop}


def convolved(operation: str, inputs: list[Array], settled: Any, open_: Any) -> Array:
    x, w, *bias = inputs
    found = LOOPS[operation](x, w, bias[0] if bias else None, settled["strides"], settled["dilations"], open_["pads"])
    return found.astype(x.dtype)


def reference_conv(operator: str, inputs: list[Array], **attributes: Any) -> Array:
    """ONNX's own, which is channels first; a depthwise weight is one group a channel."""
    x, w, *bias = inputs
    order = (3, 2, 0, 1) if operator == "Conv" else (2, 3, 0, 1)
    found = onnx_node(operator, [x.transpose(0, 3, 1, 2), w.transpose(order), *bias], **attributes)
    return found.transpose(0, 2, 3, 1)


@pytest.mark.parametrize("spatial", SPATIAL)
@pytest.mark.parametrize(("operation", "multiplier"), [("ppu.conv", 1), ("ppu.depthwise", 1), ("ppu.depthwise", 3)])
@pytest.mark.parametrize("biased", [False, True])
def test_conv(on_engine: Any, operation: str, multiplier: int, spatial: Any, biased: bool) -> None:
    inputs, settled, open_ = conv_case(5, operation == "ppu.depthwise", spatial, multiplier)
    inputs = inputs if biased else inputs[:2]
    expected = convolved(operation, inputs, settled, open_)
    (found,) = on_engine(operation, inputs, [(expected.shape, np.float32)], settled, open_)
    same(found, expected)
    groups = 1 if operation == "ppu.conv" else inputs[0].shape[3]
    whole = {**settled, **open_, "groups": groups}
    np.testing.assert_allclose(found, graph_kernel("graph.conv", whole, *inputs), rtol=1e-5, atol=1e-5)
    outside = reference_conv("Conv", inputs, group=groups, **settled, **open_)
    np.testing.assert_allclose(found, outside, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "int8", "int32"])
@pytest.mark.parametrize("spatial", SPATIAL[:2])
@pytest.mark.parametrize("operation", ["ppu.conv", "ppu.depthwise"])
def test_conv_under_pocl(on_engine: Any, under_pocl: Any, operation: str, spatial: Any, dtype: str) -> None:
    inputs, settled, open_ = conv_case(6, operation == "ppu.depthwise", spatial, 2, dtype)
    expected = convolved(operation, inputs, settled, open_)
    for run in (on_engine, under_pocl):
        same(run(operation, inputs, [(expected.shape, dtype)], settled, open_)[0], expected)


@pytest.mark.parametrize("operation", ["ppu.conv", "ppu.depthwise"])
def test_the_border_counts_as_zeros(on_engine: Any, under_pocl: Any, operation: str) -> None:
    """A product of a zero and an infinite weight is NaN, there as well."""
    inputs, settled, open_ = conv_case(7, operation == "ppu.depthwise", SPATIAL[0], 2)
    inputs[1][0, 0, 0, 0], inputs[1][2, 1, 0, 1] = np.inf, np.nan
    inputs[2][2] = -0.0
    with np.errstate(invalid="ignore"):
        expected = convolved(operation, inputs, settled, open_)
    assert np.isnan(expected[0, 0, 0, 0]) and not np.isnan(expected[0, 2, 2, 0])
    for run in (on_engine, under_pocl):
        same(run(operation, inputs, [(expected.shape, np.float32)], settled, open_)[0], expected)


def stretches(size: int, step: int) -> list[tuple[int, int]]:
    return [(at, min(step, size - at)) for at in range(0, size, step)]


def cut(array: Array, *stretch: tuple[int, int]) -> Array:
    return np.ascontiguousarray(array[tuple(slice(at, at + n) for at, n in stretch)])


@pytest.mark.parametrize("spatial", SPATIAL)
@pytest.mark.parametrize("operation", ["ppu.conv", "ppu.depthwise"])
def test_conv_in_parts(on_engine: Any, operation: str, spatial: Any) -> None:
    """Output boxes of two by two, each in parts of one channel and one row of taps: pads and inputs by `halo`.

    Some parts see nothing but the border: their piece of the image is empty.
    """
    (x, w, bias), settled, open_ = conv_case(8, operation == "ppu.depthwise", spatial)
    strides, dilations, pads = settled["strides"], settled["dilations"], open_["pads"]
    expected = convolved(operation, [x, w, bias], settled, open_)
    _, rows, columns, filters = expected.shape
    dense = operation == "ppu.conv"
    found = np.zeros_like(expected)
    for h, v in itertools.product(stretches(rows, 2), stretches(columns, 2)):
        acc = None
        for c, i in itertools.product(range(x.shape[3] if dense else 1), range(w.shape[0])):
            high = halo(h, strides[0], pads[0] - i * dilations[0], 1, x.shape[1])
            wide = halo(v, strides[1], pads[1], dilations[1] * (w.shape[1] - 1) + 1, x.shape[2])
            channels = (c, 1) if dense else (0, x.shape[3])
            part = [
                cut(x, (0, len(x)), high.interval, wide.interval, channels),
                cut(w, (i, 1), (0, w.shape[1]), (c, 1), (0, filters)),
                bias,
            ]
            own = {"pads": (high.before, wide.before, high.after, wide.after)}
            shape = (len(x), h[1], v[1], filters)
            (acc,) = on_engine(operation, part, [(shape, np.float32)], settled, own, acc)
        found[:, h[0] : h[0] + h[1], v[0] : v[0] + v[1]] = acc
    same(found, expected)


# --- transposed convolutions ------------------------------------------------------------------------------
def transposed_case(seed: int, spatial: Any) -> Any:
    image, taps, filters, strides, dilations, _ = spatial
    x, w, bias = normal(seed, image, (*taps, image[3], filters), (filters,))
    origin = (1, 0)
    full = [(n - 1) * s + d * (k - 1) + 1 for n, s, d, k in zip(image[1:3], strides, dilations, taps)]
    size = (full[0] - 1, full[1] - 1)  # pads of one row in front and one column behind
    return [x, w, bias], {"strides": strides, "dilations": dilations}, {"origin": origin, "size": size}


def transposed(inputs: list[Array], settled: Any, open_: Any) -> Array:
    x, w, *bias = inputs
    order = (settled["strides"], settled["dilations"], open_["origin"], open_["size"])
    return transposed_loop(x, w, bias[0] if bias else None, *order)


@pytest.mark.parametrize("spatial", SPATIAL)
@pytest.mark.parametrize("biased", [False, True])
def test_conv_transpose(on_engine: Any, under_pocl: Any, spatial: Any, biased: bool) -> None:
    inputs, settled, open_ = transposed_case(9, spatial)
    inputs = inputs if biased else inputs[:2]
    if biased:
        inputs[2][0] = -0.0
        inputs[1][0, 0, 0, -1] = np.inf  # where no input meets a tap, nothing is added
    expected = transposed(inputs, settled, open_)
    found, outside = (
        run("ppu.conv_transpose", inputs, [(expected.shape, np.float32)], settled, open_)[0]
        for run in (on_engine, under_pocl)
    )
    same(found, expected)
    same(outside, expected)


@pytest.mark.parametrize("spatial", SPATIAL)
def test_conv_transpose_at_the_graph_level(on_engine: Any, spatial: Any) -> None:
    inputs, settled, open_ = transposed_case(10, spatial)
    shape = (len(inputs[0]), *open_["size"], inputs[1].shape[3])
    (found,) = on_engine("ppu.conv_transpose", inputs, [(shape, np.float32)], settled, open_)
    pads = (1, 0, 0, 1)
    whole = {**settled, "groups": 1, "pads": pads, "output_pads": (0, 0)}
    np.testing.assert_allclose(found, graph_kernel("graph.conv_transpose", whole, *inputs), rtol=1e-5, atol=1e-5)
    outside = reference_conv("ConvTranspose", inputs, pads=pads, **settled)
    np.testing.assert_allclose(found, outside, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("spatial", SPATIAL)
def test_conv_transpose_in_parts(on_engine: Any, spatial: Any) -> None:
    """Parts of one channel and one tap row; each box of the output sees the image from its own origin."""
    (x, w, bias), settled, open_ = transposed_case(11, spatial)
    expected = transposed([x, w, bias], settled, open_)
    _, rows, columns, filters = expected.shape
    found = np.zeros_like(expected)
    for h in stretches(rows, 3):
        acc = None
        for c, i in itertools.product(range(x.shape[3]), range(w.shape[0])):
            own = {
                "origin": (open_["origin"][0] + h[0] - i * settled["dilations"][0], open_["origin"][1]),
                "size": (h[1], columns),
            }
            part = [x[..., c : c + 1], w[i : i + 1, :, c : c + 1], bias]
            shape = (len(x), h[1], columns, filters)
            part = [np.ascontiguousarray(v) for v in part]
            (acc,) = on_engine("ppu.conv_transpose", part, [(shape, np.float32)], settled, own, acc)
        found[:, h[0] : h[0] + h[1]] = acc
    same(found, expected)
