"""resize.cl: the bits of the graph and qnn operations, whole and in tiles; ONNX Runtime as an outside oracle."""

from __future__ import annotations

import itertools
from typing import Any

import nacre.backends.npu.kernels.resize  # noqa: F401  registers the kernels
import numpy as np
import onnx
import onnxruntime
import pytest
from nacre.dialects.declarative import Parameters
from nacre.dialects.graph import COORDINATES, NEAREST_MODES
from nacre.errors import CompileError
from nacre.runtime.kernel import operations, run_kernel
from nacre.runtime.kernels.graph_resize import source_coordinates
from onnx import helper

Array = np.ndarray
GEOMETRIES = [
    # image [N, …, C], sizes
    ((2, 5, 7, 3), (9, 4)),
    ((1, 4, 4, 2), (8, 12)),
    ((1, 6, 9, 1), (6, 5)),
    ((1, 1, 3, 4), (5, 1)),
    ((2, 8, 3), (13,)),
    ((1, 3, 4, 5, 2), (4, 4, 7)),
]


def settled(shape: tuple[int, ...], sizes: tuple[int, ...], **chosen: Any) -> dict[str, Any]:
    defaults = {
        "scales": (), "mode": "nearest", "coordinates": "half_pixel", "nearest": "round_prefer_floor",
        "cubic_a": -0.75, "exclude_outside": False,
    }  # fmt: skip
    return {**defaults, **chosen, "inputs": shape[1:-1], "sizes": sizes}


def whole(sizes: tuple[int, ...]) -> dict[str, Any]:
    return {"place": tuple(v for n in sizes for v in (0, n, 0))}


def expected_of(x: Array, p: dict[str, Any]) -> Array:
    return run_kernel(operations()["graph.resize"], Parameters(p), x)[0]


def image(shape: tuple[int, ...], dtype: str = "float32") -> Array:
    rng = np.random.default_rng(1)
    if dtype == "float32":
        return rng.standard_normal(shape).astype(dtype)
    return rng.integers(0, 2 if dtype == "bool" else 120, shape).astype(dtype)


def same(found: Array, expected: Array) -> None:
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


def check(run: Any, x: Array, p: dict[str, Any]) -> None:
    expected = expected_of(x, p)
    (found,) = run("ppu.resize", [x], [(expected.shape, expected.dtype)], p, whole(p["sizes"]))
    same(found, expected)


# --- whole layers ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("coordinates", COORDINATES)
@pytest.mark.parametrize("nearest", NEAREST_MODES)
def test_nearest(on_engine: Any, coordinates: str, nearest: str) -> None:
    shape, sizes = GEOMETRIES[0]
    check(on_engine, image(shape), settled(shape, sizes, coordinates=coordinates, nearest=nearest))


@pytest.mark.parametrize(("shape", "sizes"), GEOMETRIES[1:])
def test_nearest_of_other_images(on_engine: Any, shape: tuple[int, ...], sizes: tuple[int, ...]) -> None:
    check(on_engine, image(shape), settled(shape, sizes))


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int32", "int64", "bool"])
def test_nearest_moves_any_type(on_engine: Any, dtype: str) -> None:
    check(on_engine, image((2, 5, 7, 3), dtype), settled((2, 5, 7, 3), (9, 4)))


@pytest.mark.parametrize("coordinates", COORDINATES)
def test_linear(on_engine: Any, coordinates: str) -> None:
    for shape, sizes in GEOMETRIES[2:]:
        check(on_engine, image(shape), settled(shape, sizes, mode="linear", coordinates=coordinates))


@pytest.mark.parametrize("coordinates", COORDINATES)
@pytest.mark.parametrize(("exclude", "a"), [(False, -0.75), (True, -0.5)])
def test_cubic(on_engine: Any, coordinates: str, exclude: bool, a: float) -> None:
    chosen = {"mode": "cubic", "coordinates": coordinates, "exclude_outside": exclude, "cubic_a": a}
    for shape, sizes in GEOMETRIES[2:5]:
        check(on_engine, image(shape), settled(shape, sizes, **chosen))


def test_cubic_of_three_axes(on_engine: Any) -> None:
    shape, sizes = GEOMETRIES[-1]
    check(on_engine, image(shape), settled(shape, sizes, mode="cubic", exclude_outside=True))


def test_tiles_of_three_axes(on_engine: Any) -> None:
    test_tiles_make_the_whole(on_engine, *GEOMETRIES[-1], "linear", "asymmetric")


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("coordinates", COORDINATES)
def test_under_pocl(under_pocl: Any, mode: str, coordinates: str) -> None:
    shape, sizes = GEOMETRIES[0]
    check(under_pocl, image(shape), settled(shape, sizes, mode=mode, coordinates=coordinates, exclude_outside=True))


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("coordinates", COORDINATES)
def test_scales_of_their_own(on_engine: Any, mode: str, coordinates: str) -> None:
    shape = (1, 5, 7, 2)
    for scales in ((1.7, 0.6), (1.0, 0.5714)):
        sizes = tuple(int(n * s) for n, s in zip(shape[1:], scales))
        check(on_engine, image(shape), settled(shape, sizes, mode=mode, scales=scales, coordinates=coordinates))


@pytest.mark.slow
@pytest.mark.parametrize("coordinates", COORDINATES)
def test_many_geometries(on_engine: Any, coordinates: str) -> None:
    """One axis of 1 to 60 pixels: coordinates, ties and weights decide every bit."""
    rng = np.random.default_rng(2)
    for _ in range(100):
        size, out = (int(n) for n in rng.integers(1, 60, 2))
        x = image((1, size, 1))
        check(on_engine, x, settled(x.shape, (out,), coordinates=coordinates, nearest=str(rng.choice(NEAREST_MODES))))
        check(on_engine, x, settled(x.shape, (out,), coordinates=coordinates, mode="linear"))


# --- tiles -----------------------------------------------------------------------------------------------
def needed(p: dict[str, Any], axis: int, first: int, count: int) -> tuple[int, int]:
    """The inputs that some results of an axis may take, with room around them: [start, stop)."""
    size, out = p["inputs"][axis], p["sizes"][axis]
    scale = np.float32(p["scales"][axis]) if p["scales"] else np.float32(out) / np.float32(size)
    at = source_coordinates(p["coordinates"], size, out, scale)[first : first + count]
    start, stop = (np.clip(v, 0, size - 1) for v in (np.floor(at.min()) - 1, np.ceil(at.max()) + 2))
    return int(start), int(stop) + 1


def pieces(n: int, parts: int) -> list[tuple[int, int]]:
    """[0, n) cut into stretches: first and number."""
    cuts = sorted({round(i * n / parts) for i in range(parts + 1)})
    return [(a, b - a) for a, b in itertools.pairwise(cuts)]


@pytest.mark.parametrize(("shape", "sizes"), [GEOMETRIES[0], GEOMETRIES[4]])
@pytest.mark.parametrize(
    ("mode", "coordinates"),
    [
        ("nearest", "half_pixel"),
        ("linear", "align_corners"),
        ("linear", "half_pixel_symmetric"),
        ("cubic", "half_pixel"),
    ],
)
def test_tiles_make_the_whole(
    on_engine: Any, shape: tuple[int, ...], sizes: tuple[int, ...], mode: str, coordinates: str
) -> None:
    x, p = image(shape), settled(shape, sizes, mode=mode, coordinates=coordinates, exclude_outside=True)
    expected = expected_of(x, p)
    found = np.zeros_like(expected)
    for boxes in itertools.product(*(pieces(n, 2) for n in sizes)):
        spans = [needed(p, axis, *box) for axis, box in enumerate(boxes)]
        part = np.ascontiguousarray(x[(slice(None), *(slice(a, b) for a, b in spans))])
        place = tuple(v for (first, n), (origin, _) in zip(boxes, spans) for v in (first, n, origin))
        target = (slice(None), *(slice(first, first + n) for first, n in boxes))
        out = found[target]
        (found[target],) = on_engine("ppu.resize", [part], [(out.shape, out.dtype)], p, {"place": place})
    same(found, expected)


# --- an outside oracle, and what is refused ----------------------------------------------------------------
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("coordinates", ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"])
def test_against_onnx_runtime(on_engine: Any, mode: str, coordinates: str) -> None:
    shape, sizes = (1, 5, 7, 2), (8, 10)
    node = helper.make_node(
        "Resize", ["x", "", "", "sizes"], ["y"], mode=mode, coordinate_transformation_mode=coordinates
    )
    x = image(shape)
    given = [
        helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, (1, 2, 5, 7)),
        helper.make_tensor_value_info("sizes", onnx.TensorProto.INT64, (4,)),
    ]
    out = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    model = helper.make_model(
        helper.make_graph([node], "one", given, [out]), opset_imports=[helper.make_opsetid("", 18)], ir_version=9
    )
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"x": x.transpose(0, 3, 1, 2), "sizes": np.array([1, 2, *sizes])})
    p = settled(shape, sizes, mode=mode, coordinates=coordinates)
    (found,) = on_engine("ppu.resize", [x], [((1, *sizes, 2), "float32")], p, whole(sizes))
    np.testing.assert_allclose(found, expected.transpose(0, 2, 3, 1), rtol=1e-5, atol=2e-6)


def test_sums_of_integers_are_refused(on_engine: Any) -> None:
    x = image((1, 4, 4, 1), "int8")
    with pytest.raises(CompileError, match="sums floats, not i8"):
        on_engine("ppu.resize", [x], [((1, 8, 8, 1), "int8")], settled(x.shape, (8, 8), mode="linear"), whole((8, 8)))


def test_four_axes_are_refused(on_engine: Any) -> None:
    x = image((1, 2, 2, 2, 2, 1))
    p = settled(x.shape, (4, 4, 4, 4))
    with pytest.raises(CompileError, match="along 4 spatial axes"):
        on_engine("ppu.resize", [x], [((1, 4, 4, 4, 4, 1), "float32")], p, whole(p["sizes"]))


# --- TFLite's bilinear one of uint8 ----------------------------------------------------------------------
def check_bilinear(run: Any, shape: tuple[int, ...], sizes: tuple[int, int], corners: bool, half_pixel: bool) -> None:
    """The whole, and tiles of what has the whole input."""
    x = np.random.default_rng(3).integers(0, 256, shape).astype(np.uint8)
    x[:, :1] = 255  # the largest sums
    p = {"sizes": sizes, "inputs": shape[1:-1], "align_corners": corners, "half_pixel": half_pixel}
    expected = run_kernel(operations()["qnn.resize_float"], Parameters(p), x)[0]
    (found,) = run("ppu.resize_float", [x], [(expected.shape, "uint8")], p, whole(sizes))
    same(found, expected)
    for (r, h), (c, w) in itertools.product(pieces(sizes[0], 2), pieces(sizes[1], 3)):
        out = expected[:, r : r + h, c : c + w]
        low, high = r * shape[1] // sizes[0], shape[1]  # the rows above are not loaded, but for one
        origin = max(low - 1, 0)
        part, place = np.ascontiguousarray(x[:, origin:high]), (r, h, origin, c, w, 0)
        (found,) = run("ppu.resize_float", [part], [(out.shape, "uint8")], p, {"place": place})
        same(found, out)


BILINEAR = [((2, 5, 7, 3), (9, 4)), ((1, 4, 4, 2), (8, 11)), ((1, 6, 1, 1), (1, 5))]
WAYS = [(False, False), (True, False), (False, True)]


@pytest.mark.parametrize(("shape", "sizes"), BILINEAR)
@pytest.mark.parametrize(("corners", "half_pixel"), WAYS)
def test_bilinear(
    on_engine: Any, shape: tuple[int, ...], sizes: tuple[int, int], corners: bool, half_pixel: bool
) -> None:
    check_bilinear(on_engine, shape, sizes, corners, half_pixel)


@pytest.mark.parametrize(("corners", "half_pixel"), WAYS)
def test_bilinear_under_pocl(under_pocl: Any, corners: bool, half_pixel: bool) -> None:
    check_bilinear(under_pocl, *BILINEAR[0], corners, half_pixel)
