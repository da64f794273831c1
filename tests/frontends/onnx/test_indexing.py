"""Operators that go by places: against ONNX Runtime over attributes and opsets, else against ONNX's definition."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacre.errors import ImportFailed
from nacre.frontends.onnx import import_onnx
from onnx import helper
from onnx.reference import ReferenceEvaluator

ort = pytest.importorskip("onnxruntime")

Array = np.ndarray
RNG = np.random.default_rng(23)
SHAPES = st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple)


def floats(*shape: int) -> Array:
    return RNG.normal(size=shape).astype(np.float32)


def model_of(nodes, feeds, weights, outputs, opset) -> onnx.ModelProto:
    """A model around nodes; inputs have the types of the arrays fed, outputs those that are computed."""
    types = {n: helper.np_dtype_to_tensor_dtype(a.dtype) for n, a in feeds.items()}
    values = [helper.make_tensor_value_info(n, types[n], a.shape) for n, a in feeds.items()]
    results = [onnx.ValueInfoProto(name=n) for n in outputs]
    arrays = [onnx.numpy_helper.from_array(np.asarray(a), n) for n, a in weights.items()]
    graph = helper.make_graph(nodes, "g", values, results, arrays)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def check(
    interpret, op_type, feeds, weights=None, outputs=("y",), opset=18, by=None, order=(), exact=False, **attributes
):
    """Nacre against ONNX Runtime, or against what `by` says: "reference" or arrays."""
    weights = weights or {}
    node = helper.make_node(op_type, list(order) or [*feeds, *weights], list(outputs), **attributes)
    model = model_of([node], feeds, weights, outputs, opset)
    if by == "reference":
        expected = ReferenceEvaluator(model).run(None, feeds)
    elif by is None:
        options = ort.SessionOptions()
        options.log_severity_level, options.intra_op_num_threads = 4, 1
        expected = ort.InferenceSession(model.SerializeToString(), options).run(None, feeds)
    else:
        expected = by
    found = interpret(import_onnx(model), list(feeds.values()))
    for want, have in zip(expected, found, strict=True):
        assert (have.shape, have.dtype) == (want.shape, want.dtype)
        if exact or want.dtype.kind != "f":
            np.testing.assert_array_equal(have, want)
        else:
            np.testing.assert_allclose(have, want, rtol=1e-4, atol=1e-5)


# --- along an axis -----------------------------------------------------------------------------------------
@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    data=st.data(), shape=SHAPES, largest=st.booleans(), opset=st.sampled_from([10, 11, 17]),
    dtype=st.sampled_from(["float32", "int64"]),
)  # fmt: skip
def test_top_k(interpret, data, shape, largest, opset, dtype):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    k = data.draw(st.integers(1, shape[axis]))
    x = RNG.integers(-3, 4, shape).astype(dtype)  # some are equal
    if opset == 10:
        dtype, largest, more = "float32", True, {}
        x = x.astype(np.float32)
    else:
        more = {"largest": int(largest)}
    check(interpret, "TopK", {"x": x}, {"k": np.array([k])}, ("v", "i"), opset, axis=axis, exact=True, **more)


def test_top_k_with_an_attribute(interpret):
    x = floats(3, 7)
    order = np.argsort(-x, 1, kind="stable")[:, :4]
    check(interpret, "TopK", {"x": x}, {}, ("v", "i"), 9, [np.take_along_axis(x, order, 1), order], axis=1, k=4)


def test_of_unsorted_results_the_set_is_right(interpret):
    x = floats(20)
    node = helper.make_node("TopK", ["x", "k"], ["v", "i"], sorted=0)
    (found, places) = interpret(import_onnx(model_of([node], {"x": x}, {"k": np.array([6])}, ("v", "i"), 17)), [x])
    assert set(found) == set(np.sort(x)[-6:]) and (x[places] == found).all()


@pytest.mark.parametrize("k, axis", [(8, 1), (-1, 1), (2, 2)])
def test_a_k_or_an_axis_that_does_not_fit_is_refused(k, axis):
    node = helper.make_node("TopK", ["x", "k"], ["v", "i"], axis=axis)
    model = model_of([node], {"x": floats(3, 7)}, {"k": np.array([k])}, ("v", "i"), 17)
    with pytest.raises(ImportFailed, match=r"\(TopK\)"):
        import_onnx(model)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    data=st.data(), shape=SHAPES, exclusive=st.integers(0, 1), reverse=st.integers(0, 1),
    dtype=st.sampled_from(["float32", "int32", "int64"]),
)  # fmt: skip
def test_cumulative_sum(interpret, data, shape, exclusive, reverse, dtype):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    x = (RNG.normal(size=shape) * 9).astype(dtype)
    weights = {"axis": np.array(axis)}
    check(interpret, "CumSum", {"x": x}, weights, opset=14, exclusive=exclusive, reverse=reverse)


def test_a_long_cumulative_sum(interpret):
    check(interpret, "CumSum", {"x": np.ones((2, 5000), np.float32)}, {"axis": np.array(1)}, exact=True)


@pytest.mark.parametrize("axes", [[0], [1, -1], [0, 1, 2]])
@pytest.mark.parametrize("opset", [11, 13])
def test_product(interpret, axes, opset):
    check(interpret, "ReduceProd", {"x": floats(3, 80, 2)}, opset=opset, axes=axes, keepdims=axes[0])


@pytest.mark.parametrize("dtype", ["int32", "int8", "float32"])
@pytest.mark.parametrize("select_last_index", [0, 1])
def test_arg_min_of_the_ends_of_the_types(interpret, dtype, select_last_index):
    x = np.array([[3, -128, -128, 127], [5, 5, 127, 126]], dtype)
    if dtype == "int32":
        x[x == -128] = np.iinfo(dtype).min
    check(interpret, "ArgMin", {"x": x}, axis=1, select_last_index=select_last_index)


# --- gathering -----------------------------------------------------------------------------------------------
@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data(), shape=SHAPES, opset=st.sampled_from([11, 13]), known=st.booleans(), wide=st.booleans())
def test_gather_elements(interpret, data, shape, opset, known, wide):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    size = shape[axis]
    wanted = [data.draw(st.integers(1, d)) for d in shape]
    wanted[axis] = data.draw(st.integers(1, 6))
    index = {"i": RNG.integers(-size, size, wanted).astype(np.int64 if wide else np.int32)}
    feeds = {"x": floats(*shape), **({} if known else index)}
    check(interpret, "GatherElements", feeds, index if known else {}, opset=opset, axis=axis, exact=True)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data(), shape=SHAPES, known=st.booleans())
def test_gather_nd(interpret, data, shape, known):
    batch = data.draw(st.integers(0, len(shape) - 1))
    depth = data.draw(st.integers(1, len(shape) - batch))
    outer = (*shape[:batch], *data.draw(st.lists(st.integers(1, 3), min_size=0, max_size=2)))
    limits = np.array(shape[batch : batch + depth])
    index = {"i": np.asarray(RNG.integers(-limits, limits, (*outer, depth)))}
    feeds = {"x": floats(*shape), **({} if known else index)}
    check(interpret, "GatherND", feeds, index if known else {}, opset=13, batch_dims=batch, exact=True)


@pytest.mark.parametrize("axis", [None, 0, -1])
def test_a_known_condition_compresses(interpret, axis):
    more = {} if axis is None else {"axis": axis}
    weights = {"c": np.array([False, True, True, False, True])}
    check(interpret, "Compress", {"x": floats(5, 5)}, weights, **more)


@pytest.mark.parametrize("time", [0, 1])
def test_reverse_sequence(interpret, time):
    x = floats(5, 4, 3)
    lengths = RNG.integers(1, x.shape[time] + 1, x.shape[1 - time])
    check(interpret, "ReverseSequence", {"x": x, "n": lengths}, time_axis=time, batch_axis=1 - time, exact=True)


# --- scattering ----------------------------------------------------------------------------------------------
REDUCTIONS = st.sampled_from(["none", "add", "mul", "min", "max"])


@settings(max_examples=80, deadline=None, derandomize=True)
@given(data=st.data(), shape=SHAPES, reduction=REDUCTIONS, known=st.booleans())
def test_scatter_elements(interpret, data, shape, reduction, known):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    size = shape[axis]
    wanted = [data.draw(st.integers(1, d)) for d in shape]
    index = {"i": RNG.integers(-size, size, wanted)}
    if reduction == "none":  # of several updates, ONNX leaves open which one stays
        drawn = RNG.random([d if i == axis % len(shape) else n for i, (d, n) in enumerate(zip(shape, wanted))])
        index["i"] = np.take(np.argsort(drawn, axis), range(wanted[axis]), axis)
    feeds = {"x": floats(*shape), **({} if known else index), "u": floats(*wanted)}
    more = {} if reduction == "none" else {"reduction": reduction}
    check(interpret, "ScatterElements", feeds, index if known else {}, order="xiu", axis=axis, **more)


def test_the_last_of_several_updates_stays(interpret):
    feeds = {"x": floats(3), "i": np.array([1, 1, 1]), "u": np.array([5, 6, 7], np.float32)}
    check(interpret, "ScatterElements", feeds, by=[np.array([feeds["x"][0], 7, feeds["x"][2]], np.float32)])


@pytest.mark.parametrize("op_type, opset", [("Scatter", 9), ("ScatterElements", 11), ("ScatterElements", 16)])
def test_opsets_of_scatter(interpret, op_type, opset):
    feeds = {"x": floats(4, 5), "i": RNG.permutation(5)[:3].reshape(1, 3), "u": floats(1, 3)}
    check(interpret, op_type, feeds, opset=opset, axis=1, exact=True)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(data=st.data(), shape=SHAPES, reduction=REDUCTIONS, known=st.booleans())
def test_scatter_nd(interpret, data, shape, reduction, known):
    depth = data.draw(st.integers(1, len(shape)))
    rows = int(np.prod(shape[:depth]))
    count = data.draw(st.integers(1, rows))
    chosen = RNG.permutation(rows)[:count] if reduction == "none" else RNG.integers(0, rows, count)
    tuples = np.stack(np.unravel_index(chosen, shape[:depth]), -1)
    tuples = tuples - np.array(shape[:depth]) * (RNG.random(tuples.shape) < 0.3)  # some count from the end
    feeds = {"x": floats(*shape), **({} if known else {"i": tuples}), "u": floats(count, *shape[depth:])}
    more = {} if reduction == "none" else {"reduction": reduction}
    check(interpret, "ScatterND", feeds, {"i": tuples} if known else {}, order="xiu", **more)


def test_a_known_index_that_leaves_the_data_is_refused():
    for op_type, index in (("GatherElements", [[5]]), ("GatherND", [[0, -6]]), ("ScatterND", [[5]])):
        inputs = ["x", "i", "u"][: 3 if op_type == "ScatterND" else 2]
        node = helper.make_node(op_type, inputs, ["y"], name="pick")
        feeds = {"x": floats(5, 5), **({"u": floats(1, 5)} if "u" in inputs else {})}
        with pytest.raises(ImportFailed, match=rf"'pick' \({op_type}\): an index lies outside an axis of 5"):
            import_onnx(model_of([node], feeds, {"i": np.array(index)}, ("y",), 18))


# --- pooling and folding -------------------------------------------------------------------------------------
@pytest.mark.parametrize("pads", [[0, 0, 0, 0], [1, 0, 1, 1]])
@pytest.mark.parametrize("strides, dilations", [([2, 2], [1, 1]), ([1, 2], [2, 1])])
def test_places_of_a_max_pool(interpret, pads, strides, dilations):
    window = {"kernel_shape": [3, 2], "pads": pads, "strides": strides, "dilations": dilations}
    check(interpret, "MaxPool", {"x": floats(2, 3, 7, 8)}, outputs=("y", "i"), opset=12, **window)


def test_unpooling_puts_back_what_pooling_found(interpret):
    x = floats(2, 3, 6, 8)
    window = {"kernel_shape": [2, 2], "strides": [2, 2]}
    pool = helper.make_node("MaxPool", ["x"], ["p", "i"], **window)
    back = helper.make_node("MaxUnpool", ["p", "i"], ["y"], **window)
    model = model_of([pool, back], {"x": x}, {}, ("y",), 11)
    (found,) = interpret(import_onnx(model), [x])
    tiles = x.reshape(2, 3, 3, 2, 4, 2)
    largest = tiles == tiles.max(axis=(3, 5), keepdims=True)
    np.testing.assert_array_equal(found, np.where(largest, tiles, 0).reshape(x.shape))


@pytest.mark.parametrize("more", [{}, {"strides": [2, 1], "pads": [1, 0, 0, 2]}, {"dilations": [2, 2]}])
def test_blocks_are_added_to_an_image(interpret, more):
    image, block = np.array([6, 7]), np.array([2, 3])
    given = {"pads": [0] * 4, "strides": [1] * 2, "dilations": [1] * 2} | more
    pads, strides, dilations = given.values()
    counts = [(image[i] + pads[i] + pads[2 + i] - dilations[i] * (block[i] - 1) - 1) // strides[i] + 1 for i in (0, 1)]
    feeds = {"x": floats(2, 3 * 6, int(np.prod(counts)))}
    check(interpret, "Col2Im", feeds, {"image": image, "block": block}, by="reference", **more)


# --- sampling and transforms ---------------------------------------------------------------------------------
@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bicubic"])
@pytest.mark.parametrize("padding_mode", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("align_corners", [0, 1])
@pytest.mark.parametrize("opset", [16, 20])
def test_grid_sample(interpret, mode, padding_mode, align_corners, opset):
    names = {"bilinear": "linear", "bicubic": "cubic"} if opset == 20 else {}
    grid = RNG.uniform(-1.6, 1.6, (2, 4, 5, 2)).astype(np.float32)
    grid[0, 0, :3] = [[-1, -1], [1, 1], [0, 0]]
    more = {"mode": names.get(mode, mode), "padding_mode": padding_mode, "align_corners": align_corners}
    # The reference knows the new names only, and its cubic border is not that of ONNX Runtime and PyTorch.
    by = "reference" if opset == 20 and (mode, padding_mode) != ("bicubic", "border") else None
    check(interpret, "GridSample", {"x": floats(2, 3, 6, 7), "g": grid}, opset=opset, by=by, **more)


@pytest.mark.parametrize(
    ("sizes", "align_corners"), [((5, 6), 0), ((5, 6), 1), ((1, 4), 0), ((3, 4, 5), 0), ((3, 4, 5), 1)]
)
def test_affine_grid(interpret, sizes, align_corners):
    rank = len(sizes)
    weights = {"s": np.array([2, 3, *sizes])}
    feeds = {"t": floats(2, rank, rank + 1)}
    check(interpret, "AffineGrid", feeds, weights, opset=20, align_corners=align_corners)


def test_a_volume_is_not_sampled():
    node = helper.make_node("GridSample", ["x", "g"], ["y"])
    model = model_of([node], {"x": floats(1, 1, 3, 3, 3), "g": floats(1, 2, 2, 2, 3)}, {}, ("y",), 20)
    with pytest.raises(ImportFailed, match=r"\(GridSample\): 3-D GridSample is not supported"):
        import_onnx(model)


def pair(z: Array) -> Array:
    return np.stack([z.real, z.imag], -1).astype(np.float32)


@pytest.mark.parametrize("length", [None, 5, 12])
@pytest.mark.parametrize("opset", [17, 20])
def test_fourier_transform(interpret, length, opset):
    x = floats(2, 8, 3)
    weights = {} if length is None else {"n": np.array(length)}
    order = ["x", "n" if weights else "", *(["a"] if opset == 20 else [])]
    axis = {"axis": 1} if opset == 17 else {}
    weights |= {"a": np.array(1)} if opset == 20 else {}
    for values, real in ((x[..., None], x), (pair(x + 1j * x[::-1]), x + 1j * x[::-1])):
        for inverse, transform in ((0, np.fft.fft), (1, np.fft.ifft)):
            wanted = [pair(transform(real, length, axis=1))]
            more = {"by": wanted, "order": order, "inverse": inverse, **axis}
            check(interpret, "DFT", {"x": values}, weights, opset=opset, **more)
    half = [pair(np.fft.rfft(x, length, axis=1))]
    check(interpret, "DFT", {"x": x[..., None]}, weights, opset=opset, by=half, order=order, onesided=1, **axis)


@pytest.mark.parametrize("window", [True, False])
@pytest.mark.parametrize("onesided", [0, 1])
def test_short_time_fourier_transform(interpret, window, onesided):
    x, shape = floats(2, 100), np.hanning(16).astype(np.float32) if window else np.ones(16, np.float32)
    frames = np.stack([x[:, i : i + 16] * shape for i in range(0, 85, 6)], 1)
    wanted = [pair(np.fft.fft(frames)[..., : 9 if onesided else 16])]
    weights = {"s": np.array(6), **({"w": shape} if window else {"l": np.array(16)})}
    order = ["x", "s", *(["w"] if window else ["", "l"])]
    check(interpret, "STFT", {"x": x[..., None]}, weights, by=wanted, order=order, onesided=onesided)


@pytest.mark.parametrize(
    "equation, shapes",
    [
        ("...ij,...jk->...ik", [(2, 3, 4, 5), (2, 3, 5, 6)]),
        ("...ij,...jk", [(2, 4, 5), (2, 5, 6)]),
        ("b...d,de->b...e", [(2, 3, 4, 5), (5, 6)]),
        ("...i,i->...", [(3, 4, 5), (5,)]),
        ("ij...->...ji", [(2, 3, 4)]),
        ("bchw,bnc->bnhw", [(2, 3, 4, 5), (2, 6, 3)]),
    ],
)
def test_einsum_with_ellipses(interpret, equation, shapes):
    check(interpret, "Einsum", {f"x{i}": floats(*s) for i, s in enumerate(shapes)}, equation=equation)


@pytest.mark.parametrize("equation, part", [("...i,...i->...", "has the sizes"), ("ii->i", "repeats a letter")])
def test_an_einsum_that_is_no_matrix_product_is_refused(equation, part):
    shapes = [(1, 4), (3, 4)] if "," in equation else [(4, 4)]
    feeds = {f"x{i}": floats(*s) for i, s in enumerate(shapes)}
    with pytest.raises(ImportFailed, match=rf"\(Einsum\): .*{part}"):
        import_onnx(model_of([helper.make_node("Einsum", [*feeds], ["y"], equation=equation)], feeds, {}, ("y",), 18))


# --- elements --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("op_type", ["Asin", "Acos", "Atan"])
def test_arc_functions(interpret, op_type):
    x = np.concatenate([np.linspace(-1, 1, 201), [1e-6, -1e-6, 1 - 1e-6]]).astype(np.float32)
    check(interpret, op_type, {"x": x * 50 if op_type == "Atan" else x})


@pytest.mark.parametrize("op_type", ["BitwiseAnd", "BitwiseOr", "BitwiseXor"])
def test_bits(interpret, op_type):
    a, b = (RNG.integers(-128, 128, (3, 4)).astype(np.int8) for _ in range(2))
    check(interpret, op_type, {"a": a, "b": b[:1]})
    check(interpret, "BitwiseNot", {"a": a})


@pytest.mark.parametrize("direction", ["LEFT", "RIGHT"])
def test_shifts(interpret, direction):
    a, b = RNG.integers(0, 256, 40).astype(np.uint8), RNG.integers(0, 8, 40).astype(np.uint8)
    check(interpret, "BitShift", {"a": a, "b": b}, opset=11, direction=direction)


def test_remainders_of_floats_are_exact(interpret):
    a, b = floats(200) * np.float32(1e6), floats(200)
    check(interpret, "Mod", {"a": a, "b": b}, by=[np.fmod(a, b)], exact=True, fmod=1)
    special = {"a": np.float32([np.inf, -5.5, -0.0]), "b": np.float32([2, np.inf, 3])}
    check(interpret, "Mod", special, by=[np.float32([np.nan, -5.5, -0.0])], exact=True, fmod=1)
