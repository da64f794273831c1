"""Operators that go by places, and what else came with them, against LiteRT's reference kernels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from nacre.errors import ImportFailed
from nacre.frontends.tflite import import_tflite
from nacre.frontends.tflite.build import Operator, Tensor, build_model
from nacre.frontends.tflite.golden import TfliteGolden
from nacre.runtime.interpreter import interpret

RNG = np.random.default_rng(17)
Array = np.ndarray


def floats(*shape: int) -> Array:
    return RNG.normal(size=shape).astype(np.float32)


def model_of(
    kind: str, feeds: Mapping[str, Array], constants: Mapping[str, Array], outputs: Sequence[Tensor],
    options: str | None = None, fields: Mapping[str, object] | None = None, order: str = "", scale: object = None,
) -> bytes:  # fmt: skip
    """A file of one operator; `order`: its inputs' names, fed ones first by default."""
    tensors = [Tensor(n, a.shape, a.dtype, *((scale, 3) if a.dtype == np.int8 else ())) for n, a in feeds.items()]
    tensors += [Tensor(n, a.shape, a.dtype, data=a) for n, a in constants.items()] + list(outputs)
    names = list(order) or [*feeds, *constants]
    operator = Operator(kind, names, [t.name for t in outputs], options, dict(fields or {}))
    return build_model(tensors, [operator], list(feeds), [t.name for t in outputs])


def check(kind: str, feeds: Mapping[str, Array], constants: Mapping[str, Array], outputs, **more) -> None:
    """Integers exactly, floats within a few roundings."""
    pytest.importorskip("ai_edge_litert")
    content = model_of(kind, feeds, constants, outputs, **more)
    found = interpret(import_tflite(content), feeds)
    wanted = TfliteGolden(content).stored(feeds, [t.name for t in outputs])
    for name, want in wanted.items():
        have = found[name]
        assert (have.dtype, have.shape) == (want.dtype, want.shape)
        if want.dtype.kind == "f":
            np.testing.assert_allclose(have, want, rtol=1e-5, atol=1e-6)
        else:
            np.testing.assert_array_equal(have, want)


def out(shape: Sequence[int], dtype: object = np.float32, name: str = "y", **more) -> Tensor:
    return Tensor(name, tuple(shape), dtype, **more)


@pytest.mark.parametrize("dtype", ["float32", "int32", "int8"])
def test_top_k(dtype):
    x = floats(4, 9) if dtype == "float32" else RNG.integers(-3, 4, (4, 9)).astype(dtype)
    kept = {"scale": 0.5, "zero": 3} if dtype == "int8" else {}
    outputs = [out((4, 5), dtype, "v", **kept), out((4, 5), np.int32, "i")]
    check("TOPK_V2", {"x": x}, {"k": np.array(5, np.int32)}, outputs, options="TopKV2Options", scale=0.5)


@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("axis", [0, -1])
def test_cumulative_sum(exclusive, reverse, axis):
    fields = {"Exclusive": exclusive, "Reverse": reverse}
    for x in (floats(4, 5, 6), RNG.integers(-9, 9, (4, 5, 6)).astype(np.int32)):
        made = [out(x.shape, x.dtype)]
        check("CUMSUM", {"x": x}, {"a": np.array(axis, np.int32)}, made, options="CumsumOptions", fields=fields)


@pytest.mark.parametrize("keep", [False, True])
def test_product(keep):
    shape = (4, 1, 6) if keep else (4, 6)
    axes, fields = {"a": np.array([1], np.int32)}, {"KeepDims": keep}
    check("REDUCE_PROD", {"x": floats(4, 5, 6)}, axes, [out(shape)], options="ReducerOptions", fields=fields)


@pytest.mark.parametrize("kind", ["REDUCE_ANY", "REDUCE_ALL"])
def test_any_and_all(kind):
    x = RNG.random((6, 3)) < 0.5
    check(kind, {"x": x}, {"a": np.array([1], np.int32)}, [out((6,), np.bool_)], options="ReducerOptions")


@pytest.mark.parametrize("dtype", ["float32", "int32"])
def test_arg_min(dtype):
    x = floats(4, 7) if dtype == "float32" else np.array([[3, -(2**31), -(2**31)], [0, 2**31 - 1, 0]], np.int32)
    made, options = [out(x.shape[:1], np.int64)], {"OutputType": 4}
    check("ARG_MIN", {"x": x}, {"a": np.array([1], np.int32)}, made, options="ArgMinOptions", fields=options)


def test_reversal():
    axes = {"a": np.array([1, 2], np.int32)}
    check("REVERSE_V2", {"x": floats(3, 4, 5)}, axes, [out((3, 4, 5))], options="ReverseV2Options")


@pytest.mark.parametrize("fields", [{"SeqDim": 1, "BatchDim": 0}, {"SeqDim": 0, "BatchDim": 2}])
def test_reversal_of_sequences(fields):
    x = floats(4, 5, 6)
    n = x.shape[fields["BatchDim"]]
    feeds = {"x": x, "n": RNG.integers(1, x.shape[fields["SeqDim"]] + 1, n).astype(np.int32)}
    check("REVERSE_SEQUENCE", feeds, {}, [out(x.shape)], options="ReverseSequenceOptions", fields=fields)


@pytest.mark.parametrize("axis", [-1, 0, 1])
def test_one_hot(axis):
    x = np.array([[0, 3, -1], [6, 2, 4]], np.int32)
    shape = {-1: (2, 3, 5), 0: (5, 2, 3), 1: (2, 5, 3)}[axis]
    constants = {"d": np.array(5, np.int32), "p": np.array(2.5, np.float32), "q": np.array(-1, np.float32)}
    check("ONE_HOT", {"x": x}, constants, [out(shape)], options="OneHotOptions", fields={"Axis": axis})


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_gathering_by_tuples(depth):
    index = RNG.integers(0, 4, (2, 7, depth)).astype(np.int32)
    made = [out((2, 7, *(4, 5, 6)[depth:]))]
    check("GATHER_ND", {"x": floats(4, 5, 6), "i": index}, {}, made, options="GatherNdOptions")


@pytest.mark.parametrize("depth", [1, 2])
def test_scattering_by_tuples(depth):
    index = RNG.integers(0, 4, (9, depth)).astype(np.int32)  # some twice: they are added
    feeds = {"i": index, "u": floats(9, *(4, 5, 6)[depth:])}
    shape = {"s": np.array([4, 5, 6], np.int32)}
    check("SCATTER_ND", feeds, shape, [out((4, 5, 6))], options="ScatterNdOptions")


@pytest.mark.parametrize("kind", ["FLOOR_MOD", "FLOOR_DIV"])
@pytest.mark.parametrize("dtype", ["float32", "int32"])
def test_floored_division(kind, dtype):
    a = floats(50) * 5 if dtype == "float32" else RNG.integers(-20, 21, 50).astype(np.int32)
    b = RNG.choice([-7, -3, -1, 1, 2, 5], 50).astype(dtype)
    name = "FloorModOptions" if kind == "FLOOR_MOD" else "FloorDivOptions"
    check(kind, {"a": a, "b": b}, {}, [out((50,), dtype)], options=name)


def test_elements():
    x = floats(40)
    check("SIGN", {"x": np.append(x, np.float32(0))}, {}, [out((41,))], options="SignOptions")
    check("ADD_N", {"x": x, "z": floats(40), "w": floats(40)}, {}, [out((40,))], options="AddNOptions")
    check("ZEROS_LIKE", {"x": x}, {}, [out((40,))], options="ZerosLikeOptions")
    check("FILL", {"v": np.array(3.5, np.float32)}, {"s": np.array([2, 3], np.int32)}, [out((2, 3))], order="sv")
    a, b = (RNG.integers(-99, 99, 40).astype(np.int32) for _ in range(2))
    check("BITWISE_XOR", {"a": a, "b": b}, {}, [out((40,), np.int32)], options="BitwiseXorOptions")
    check("RIGHT_SHIFT", {"a": a, "b": np.abs(b) % 31}, {}, [out((40,), np.int32)], options="RightShiftOptions")


def test_a_constant_index_that_leaves_the_data_is_refused():
    made = model_of("GATHER_ND", {"x": floats(4, 5)}, {"i": np.array([[4, 0]], np.int32)}, [out((1,))])
    with pytest.raises(ImportFailed, match=r"its indices leave axes of \[4, 5\]"):
        import_tflite(made)
