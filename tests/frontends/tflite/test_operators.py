"""Files of one operator at random, imported and run, against LiteRT's reference kernels: integers bit for
bit.

A maker gives one case of an operator and element type; OUTPUTS says how many numbers a test compares.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pytest
from nacre.backends.compile import compile
from nacre.backends.session import Session
from nacre.dialects.nacre import sources_of
from nacre.frontends.tflite import import_tflite
from nacre.frontends.tflite.build import Operator, Tensor, build_model
from nacre.frontends.tflite.golden import TfliteGolden
from nacre.runtime.interpreter import interpret

OUTPUTS = 1_000
INTEGERS = ("int8", "uint8", "int16")
EIGHT = ("int8", "uint8")
ALL = ("float32", *INTEGERS)
RELU, RELU_N1_TO_1, RELU6 = 1, 2, 3


class Case(NamedTuple):
    """A model and inputs for it."""

    tensors: Sequence[Tensor]
    operators: Sequence[Operator]
    feeds: Mapping[str, np.ndarray]
    outputs: Sequence[str]

    def content(self) -> bytes:
        """The file's bytes."""
        return build_model(self.tensors, self.operators, list(self.feeds), self.outputs)


Maker = Callable[["Draw"], Case]
MAKERS: dict[tuple[str, str], Maker] = {}


def case(kind: str, *dtypes: str) -> Callable[[Maker], Maker]:
    """Register what makes cases of an operator for element types."""

    def register(maker: Maker) -> Maker:
        for dtype in dtypes:
            assert (kind, dtype) not in MAKERS
            MAKERS[kind, dtype] = maker
        return maker

    return register


class Draw:
    """Random numbers of one element type, for cases of one operator."""

    def __init__(self, kind: str, dtype: str):
        self.kind, self.dtype = kind, np.dtype(dtype)
        self.rng = np.random.default_rng(zlib.crc32(f"{kind} {dtype}".encode()))

    @property
    def quantised(self) -> bool:
        return self.dtype.kind != "f"

    def whole(self, low: int, high: int) -> int:
        """low … high, both included."""
        return int(self.rng.integers(low, high + 1))

    def choice(self, *values):
        return values[self.whole(0, len(values) - 1)]

    def values(self, *shape: int, dtype=None) -> np.ndarray:
        dtype = self.dtype if dtype is None else np.dtype(dtype)
        if dtype.kind == "f":
            return (self.rng.standard_normal(shape) * 3).astype(dtype)
        if dtype.kind == "b":
            return self.rng.random(shape) < 0.5
        info = np.iinfo(dtype)
        return self.rng.integers(info.min, info.max + 1, shape).astype(dtype)

    def scale(self, low: float = -5.0, high: float = 1.0) -> float:
        return float(np.float32(np.exp(self.rng.uniform(low, high))))

    def zero(self, dtype=None) -> int:
        dtype = self.dtype if dtype is None else np.dtype(dtype)
        return 0 if dtype == np.int16 else int(self.values(1, dtype=dtype)[0])

    def tensor(self, name: str, shape: Sequence[int], scale=None, zero=None, **given) -> Tensor:
        """An activation; quantised at random unless told."""
        if not self.quantised:
            return Tensor(name, tuple(shape), self.dtype, **given)
        scale = self.scale() if scale is None else scale
        return Tensor(name, tuple(shape), self.dtype, scale, self.zero() if zero is None else zero, **given)

    def one(self, options: str | None, fields: Mapping, tensors: Sequence[Tensor], outputs=("out",)) -> Case:
        """A case of one operator on tensors in order; None stands for an absent input."""
        given = [t for t in tensors if t is not None]
        inputs = [None if t is None else t.name for t in tensors if t is None or t.name not in outputs]
        fed = {t.name: self.values(*t.shape, dtype=t.dtype) for t in given if t.data is None and t.name not in outputs}
        return Case(given, [Operator(self.kind, inputs, list(outputs), options, fields)], fed, list(outputs))


def like(tensor: Tensor, shape: Sequence[int], name: str = "out") -> Tensor:
    """A computed tensor of the same type."""
    return tensor._replace(name=name, shape=tuple(shape), data=None)


def constant(name: str, values, dtype=np.int32) -> Tensor:
    array = np.asarray(values, dtype)
    return Tensor(name, array.shape, dtype, data=array)


def compare(content: bytes, feeds: Mapping[str, np.ndarray], tolerance: float) -> int:
    """Every tensor that the module still holds: integers exactly, floats closely. Gives the number of
    values.
    """
    module, golden = import_tflite(content), TfliteGolden(content)
    compared = 0

    def watch(value, array):
        nonlocal compared
        for source in sources_of(value):
            want = golden.stored(feeds, [source.tensor])[source.tensor]
            assert (array.dtype, array.shape) == (want.dtype, want.shape), source.tensor
            if array.dtype.kind == "f":
                np.testing.assert_allclose(array, want, rtol=tolerance, atol=tolerance, err_msg=source.tensor)
            else:
                np.testing.assert_array_equal(array, want, err_msg=source.tensor)
            compared += array.size

    outputs = interpret(module, feeds, watch)
    for name, array in outputs.items():
        np.testing.assert_allclose(array, golden.stored(feeds, [name])[name], rtol=tolerance, atol=tolerance)
    return compared


# --- convolutions and products ---------------------------------------------------------------------------
def weights(draw: Draw, shape: Sequence[int], axis: int, channels: int) -> Tensor:
    """Floats; symmetric int8, per channel or not; asymmetric uint8."""
    if not draw.quantised:
        return Tensor("w", tuple(shape), np.float32, data=draw.values(*shape) / 3)
    if draw.dtype == np.uint8:
        return Tensor("w", tuple(shape), np.uint8, draw.scale(-6, -2), draw.zero(), 0, draw.values(*shape))
    data = draw.rng.integers(-127, 128, shape).astype(np.int8)
    per_channel = channels > 1 and draw.rng.random() < 0.7
    scale = np.exp(draw.rng.uniform(-6, -2, channels)).astype(np.float32) if per_channel else draw.scale(-6, -2)
    return Tensor("w", tuple(shape), np.int8, scale, 0, axis, data)


def product(draw: Draw, ifm: Tensor, weight: Tensor, depth: int, channels: int, out: Sequence[int], needed=False):
    """Bias (sometimes none) and result of sums of `depth` products; most results stay inside the clamp."""
    bias = needed or draw.rng.random() < 0.8
    if not draw.quantised:
        made = Tensor("b", (channels,), np.float32, data=draw.values(channels)) if bias else None
        return made, Tensor("out", tuple(out), np.float32)
    scales = np.float64(ifm.scale) * np.atleast_1d(np.asarray(weight.scale, np.float64))
    info = np.iinfo(draw.dtype)
    spread = np.sqrt(depth) * (info.max - info.min) / 3.5 * 74 * scales.mean() * np.exp(draw.rng.uniform(-1, 1))
    ofm = draw.tensor("out", out, scale=float(np.float32(6 * spread / (info.max - info.min))))
    if not bias:
        return None, ofm
    kind = np.int64 if draw.dtype == np.int16 else np.int32
    values = draw.rng.integers(-3000, 3000, channels).astype(kind)
    return Tensor("b", (channels,), kind, scales.astype(np.float32), 0, 0, values), ofm


def window(draw: Draw, size: Sequence[int], kernel: Sequence[int], dilations=(1, 1)):
    """Strides and padding at random: options, size of the result."""
    strides = (1, 1) if dilations != (1, 1) else (draw.whole(1, 3), draw.whole(1, 3))
    extents = [(k - 1) * d + 1 for k, d in zip(kernel, dilations)]
    valid = all(e <= s for e, s in zip(extents, size)) and draw.rng.random() < 0.5
    out = [(s - e) // t + 1 if valid else -(-s // t) for s, e, t in zip(size, extents, strides)]
    return {"Padding": int(valid), "StrideH": strides[0], "StrideW": strides[1]}, out


def activation(draw: Draw) -> dict[str, int]:
    return {"FusedActivationFunction": draw.choice(0, 0, RELU, RELU6, RELU_N1_TO_1)}


@case("CONV_2D", *ALL)
@case("DEPTHWISE_CONV_2D", *ALL)
def convolution(draw: Draw) -> Case:
    depthwise = draw.kind != "CONV_2D"
    kernel, size = (draw.whole(1, 4), draw.whole(1, 4)), (draw.whole(5, 12), draw.whole(5, 12))
    dilations = draw.choice((1, 1), (1, 1), (2, 3))
    fields, out = window(draw, size, kernel, dilations)
    groups = 1 if depthwise or draw.quantised else draw.choice(1, 1, 2)
    channels, filters = draw.whole(1, 12) * groups, draw.whole(1, 12) * groups
    multiplier = draw.whole(1, 3)
    filters = channels * multiplier if depthwise else filters
    ifm = draw.tensor("x", (2, *size, channels))
    shape = (1, *kernel, filters) if depthwise else (filters, *kernel, channels // groups)
    weight = weights(draw, shape, 3 if depthwise else 0, filters)
    depth = kernel[0] * kernel[1] * (1 if depthwise else channels // groups)
    bias, ofm = product(draw, ifm, weight, depth, filters, (2, *out, filters), needed=True)
    fields |= {"DilationHFactor": dilations[0], "DilationWFactor": dilations[1], **activation(draw)}
    if depthwise:
        fields["DepthMultiplier"] = multiplier
    options = "DepthwiseConv2DOptions" if depthwise else "Conv2DOptions"
    return draw.one(options, fields, [ifm, weight, bias, ofm])


@case("TRANSPOSE_CONV", *ALL)
def transpose_conv(draw: Draw) -> Case:
    kernel, size = (draw.whole(1, 4), draw.whole(1, 4)), (draw.whole(2, 7), draw.whole(2, 7))
    strides, same = (draw.whole(1, 3), draw.whole(1, 3)), draw.rng.random() < 0.5
    channels, filters = draw.whole(1, 8), draw.whole(1, 8)
    if same:
        out = [d * s - draw.whole(0, s - 1) for d, s in zip(size, strides)]
    else:
        out = [(d - 1) * s + k + draw.whole(0, s - 1) for d, s, k in zip(size, strides, kernel)]
    ifm = draw.tensor("x", (1, *size, channels))
    weight = weights(draw, (filters, *kernel, channels), 0, filters)
    depth = max(1, kernel[0] * kernel[1] * channels // (strides[0] * strides[1]))
    bias, ofm = product(draw, ifm, weight, depth, filters, (1, *out, filters))
    fields = {"Padding": int(not same), "StrideH": strides[0], "StrideW": strides[1]}
    tensors = [constant("shape", [1, *out, filters]), weight, ifm, *([bias] if bias else []), ofm]
    return draw.one("TransposeConvOptions", fields, tensors)


@case("FULLY_CONNECTED", *ALL)
def fully_connected(draw: Draw) -> Case:
    rows, depth, columns = draw.whole(1, 8), draw.whole(1, 60), draw.whole(1, 40)
    keep = draw.rng.random() < 0.5
    ifm = draw.tensor("x", (2, rows, depth))
    weight = weights(draw, (columns, depth), 0, columns)
    bias, ofm = product(draw, ifm, weight, depth, columns, (2, rows, columns) if keep else (2 * rows, columns))
    return draw.one("FullyConnectedOptions", {"KeepNumDims": keep, **activation(draw)}, [ifm, weight, bias, ofm])


@case("BATCH_MATMUL", "float32", "int8", "int16")
def batch_matmul(draw: Draw) -> Case:
    m, k, n = draw.whole(1, 9), draw.whole(1, 30), draw.whole(1, 9)
    adj_x, adj_y = (bool(draw.whole(0, 1)) for _ in range(2))
    a = draw.tensor("x", (2, k, m) if adj_x else (2, m, k))
    b = draw.tensor("y", (2, n, k) if adj_y else (2, k, n))
    out = draw.tensor("out", (2, m, n))
    if draw.quantised:
        info = np.iinfo(draw.dtype)
        out = out._replace(scale=float(np.float32(a.scale * b.scale * np.sqrt(k) * (info.max - info.min) / 2)))
    return draw.one("BatchMatMulOptions", {"AdjX": adj_x, "AdjY": adj_y}, [a, b, out])


# --- pools -----------------------------------------------------------------------------------------------
@case("AVERAGE_POOL_2D", *ALL)
@case("MAX_POOL_2D", *ALL)
@case("L2_POOL_2D", "float32")
def pool(draw: Draw) -> Case:
    kernel, size = (draw.whole(1, 5), draw.whole(1, 5)), (draw.whole(5, 12), draw.whole(5, 12))
    fields, out = window(draw, size, kernel)
    x = draw.tensor("x", (2, *size, 7))
    fields |= {"FilterHeight": kernel[0], "FilterWidth": kernel[1], **activation(draw)}
    return draw.one("Pool2DOptions", fields, [x, like(x, (2, *out, 7))])


# --- elementwise -----------------------------------------------------------------------------------------
@case("ADD", *ALL, "int32")
@case("SUB", *ALL, "int32")
@case("MUL", *ALL, "int32")
@case("DIV", "float32")
def arithmetic(draw: Draw) -> Case:
    shape = (2, 5, 6, 9)
    other = draw.choice(shape, (9,), (1, 1, 6, 1), (5, 1, 9), ())
    options = f"{draw.kind.capitalize()}Options"
    if draw.dtype == np.int32:
        a, b = Tensor("a", shape, np.int32), Tensor("b", other, np.int32)
        made = draw.one(options, {}, [a, b, Tensor("out", shape, np.int32)])
        return made._replace(feeds={n: v % 1000 for n, v in made.feeds.items()})
    a, b = draw.tensor("a", shape), draw.tensor("b", other)
    fields = activation(draw)
    if draw.kind in ("ADD", "SUB"):
        fields["PotScaleInt16"] = False
    tensors = [a, b] if draw.whole(0, 1) or draw.kind == "DIV" else [b, a]
    return draw.one(options, fields, [*tensors, draw.tensor("out", shape)])


@case("MINIMUM", *ALL)
@case("MAXIMUM", *ALL)
def extremum(draw: Draw) -> Case:
    a = draw.tensor("a", (2, 3, 4, 50))
    b = like(a, draw.choice((2, 3, 4, 50), (50,), (1, 4, 1)), "b")
    return draw.one("MaximumMinimumOptions", {}, [a, b, like(a, a.shape)])


@case("SQUARED_DIFFERENCE", "float32", "int8")
@case("POW", "float32")
def two_floats(draw: Draw) -> Case:
    a, b = draw.tensor("a", (3, 40, 10)), draw.tensor("b", (40, 1))
    options = "PowOptions" if draw.kind == "POW" else "SquaredDifferenceOptions"
    made = draw.one(options, {}, [a, b, draw.tensor("out", (3, 40, 10))])
    if draw.quantised:
        return made
    return made._replace(feeds={**made.feeds, "a": np.abs(made.feeds["a"]) + np.float32(0.1)})


@case("EQUAL", "float32", *EIGHT)
@case("NOT_EQUAL", "float32", *EIGHT)
@case("LESS", "float32", *EIGHT)
@case("LESS_EQUAL", "float32", *EIGHT)
@case("GREATER", "float32", *EIGHT)
@case("GREATER_EQUAL", "float32", *EIGHT)
def comparison(draw: Draw) -> Case:
    a, b = draw.tensor("a", (3, 40, 10)), draw.tensor("b", (40, 1))
    if draw.quantised:
        a, b = draw.tensor("a", a.shape, scale=draw.scale(-7, -1)), draw.tensor("b", b.shape, scale=draw.scale(-7, -1))
        b = draw.choice(b, like(a, b.shape, "b"))
    names = "".join(word.capitalize() for word in draw.kind.split("_"))
    made = draw.one(f"{names}Options", {}, [a, b, Tensor("out", a.shape, np.bool_)])
    return made if draw.quantised else made._replace(feeds={n: np.round(v) for n, v in made.feeds.items()})


@case("SELECT_V2", *ALL)
def select(draw: Draw) -> Case:
    a = draw.tensor("a", (3, 40, 10))
    condition = Tensor("c", draw.choice((3, 40, 10), (40, 1)), np.bool_)
    return draw.one("SelectV2Options", {}, [condition, a, like(a, (10,), "b"), like(a, a.shape)])


# --- functions of one value ------------------------------------------------------------------------------
@case("RELU", *ALL)
@case("RELU6", *ALL)
@case("RELU_N1_TO_1", "float32", *EIGHT)
def relu(draw: Draw) -> Case:
    x = draw.tensor("x", (7, 90))
    return draw.one(None, {}, [x, draw.tensor("out", x.shape)])


@case("LEAKY_RELU", *ALL)
def leaky_relu(draw: Draw) -> Case:
    x = draw.tensor("x", (7, 90))
    alpha = {"Alpha": float(np.float32(draw.rng.uniform(-1, 1)))}
    return draw.one("LeakyReluOptions", alpha, [x, draw.tensor("out", x.shape)])


@case("PRELU", "float32", *EIGHT)
def prelu(draw: Draw) -> Case:
    x = draw.tensor("x", (1, 6, 5, 20))
    alpha = draw.tensor("alpha", (1, 1, 20), data=draw.values(1, 1, 20))
    return draw.one(None, {}, [x, alpha, draw.tensor("out", x.shape)])


@case("LOGISTIC", *ALL)
@case("TANH", *ALL)
@case("HARD_SWISH", "float32", *EIGHT)
@case("EXP", "float32", "int8")
@case("SQRT", "float32")
@case("RSQRT", "float32", "int8")
@case("LOG", "float32", "int8")
@case("SIN", "float32")
@case("COS", "float32")
@case("NEG", "float32")
@case("ABS", "float32")
@case("SQUARE", "float32")
@case("FLOOR", "float32")
def unary(draw: Draw) -> Case:
    x = draw.tensor("x", (7, 90))
    out = draw.tensor("out", x.shape)
    if draw.quantised:
        low = np.iinfo(draw.dtype).min
        fixed = {"LOGISTIC": (1 / 256, low), "TANH": (1 / 128, low + 128)}
        if draw.dtype == np.int16:
            fixed = {"LOGISTIC": (1 / 32768, 0), "TANH": (1 / 32768, 0)}
            x = x._replace(scale=draw.choice(2.0**-12, 2.0**-11, 2.0**-10, draw.scale(-12, -3)))
        if draw.kind in fixed:
            out = out._replace(scale=fixed[draw.kind][0], zero=fixed[draw.kind][1])
        if draw.kind == "HARD_SWISH":
            out = draw.tensor("out", x.shape, scale=draw.scale(-5, 1) + np.float32(x.scale) / 100)
    made = draw.one(None, {}, [x, out])
    if draw.kind == "RSQRT" and draw.quantised:  # TFLite's kernel stops at values below zero
        return made._replace(feeds={"x": np.maximum(made.feeds["x"], np.int8(x.zero))})
    if draw.kind in ("SQRT", "RSQRT", "LOG") and not draw.quantised:
        return made._replace(feeds={"x": np.abs(made.feeds["x"]) + np.float32(0.01)})
    return made


@case("GELU", "float32", *EIGHT)
def gelu(draw: Draw) -> Case:
    x = draw.tensor("x", (7, 90))
    return draw.one("GeluOptions", {"Approximate": bool(draw.whole(0, 1))}, [x, draw.tensor("out", x.shape)])


@case("SOFTMAX", *ALL)
def softmax(draw: Draw) -> Case:
    x = draw.tensor("x", draw.choice((9, 60), (2, 3, 30), (1, 2, 5, 17)))
    out = like(x, x.shape)
    if draw.quantised:
        scale, zero = {"int8": (1 / 256, -128), "uint8": (1 / 256, 0), "int16": (1 / 32768, 0)}[draw.dtype.name]
        x = x._replace(scale=draw.scale(-12, -3) if draw.dtype == np.int16 else draw.scale(-6, 0))
        out = like(x, x.shape)._replace(scale=scale, zero=zero)
    beta = draw.choice(1.0, float(np.float32(draw.scale(-1, 1))))
    return draw.one("SoftmaxOptions", {"Beta": beta}, [x, out])


@case("LOG_SOFTMAX", "float32")
def log_softmax(draw: Draw) -> Case:
    x = draw.tensor("x", (9, 60))
    return draw.one("LogSoftmaxOptions", {}, [x, draw.tensor("out", x.shape)])


@case("L2_NORMALIZATION", "float32", *EIGHT)
def l2_normalisation(draw: Draw) -> Case:
    x = draw.tensor("x", (9, draw.whole(1, 90)))
    out = draw.tensor("out", x.shape, scale=1 / 128, zero=0 if draw.dtype == np.int8 else 128)
    return draw.one("L2NormOptions", {}, [x, out])


# --- reductions ------------------------------------------------------------------------------------------
def reduced(draw: Draw, out: Callable[[Tensor, tuple[int, ...]], Tensor]) -> Case:
    shape = tuple(draw.whole(1, 9) for _ in range(4))
    axes = draw.choice((1, 2), (3,), (1,), (0, 1, 2), (1, 2, 3), (2, 3))
    keep = bool(draw.whole(0, 1))
    x = draw.tensor("x", shape)
    kept = tuple(1 if i in axes else d for i, d in enumerate(shape) if keep or i not in axes)
    named = [a - draw.choice(0, 4) for a in axes]
    return draw.one("ReducerOptions", {"KeepDims": keep}, [x, constant("axes", named), out(x, kept)])


@case("MEAN", *ALL)
@case("SUM", "float32", "uint8")
def mean_or_sum(draw: Draw) -> Case:
    same = draw.kind == "MEAN" and draw.whole(0, 2) == 0
    return reduced(draw, lambda x, shape: like(x, shape) if same else draw.tensor("out", shape))


@case("REDUCE_MAX", *ALL)
@case("REDUCE_MIN", *ALL)
def reduced_extremum(draw: Draw) -> Case:
    return reduced(draw, lambda x, shape: like(x, shape))


@case("ARG_MAX", "float32", *EIGHT)
def arg_max(draw: Draw) -> Case:
    shape, axis = (5, 30, 20), draw.whole(-3, 2)
    kind = draw.choice(np.int32, np.int64)
    out = Tensor("out", tuple(d for i, d in enumerate(shape) if i != axis % 3), kind)
    fields = {"OutputType": 2 if kind == np.int32 else 4}
    return draw.one("ArgMaxOptions", fields, [draw.tensor("x", shape), constant("axis", [axis]), out])


# --- moves -----------------------------------------------------------------------------------------------
@case("RESHAPE", *ALL)
def reshape(draw: Draw) -> Case:
    x = draw.tensor("x", (2, 12, 25))
    shape = draw.choice([4, 150], [-1, 3, 10], [600])
    out = like(x, np.empty(600).reshape(shape).shape)
    if draw.whole(0, 1):
        return draw.one("ReshapeOptions", {"NewShape": shape}, [x, constant("shape", shape), out])
    return draw.one("ReshapeOptions", {"NewShape": shape}, [x, out])


@case("SQUEEZE", *ALL)
def squeeze(draw: Draw) -> Case:
    x = draw.tensor("x", (1, 600, 1))
    dims, shape = draw.choice(([], (600,)), ([0], (600, 1)), ([-1], (1, 600)))
    return draw.one("SqueezeOptions", {"SqueezeDims": dims}, [x, like(x, shape)])


@case("EXPAND_DIMS", *ALL)
def expand_dims(draw: Draw) -> Case:
    x, axis = draw.tensor("x", (20, 30)), draw.whole(-3, 2)
    shape = [20, 30]
    shape.insert(axis % 3, 1)
    return draw.one("ExpandDimsOptions", {}, [x, constant("axis", [axis]), like(x, shape)])


@case("TRANSPOSE", *ALL)
def transpose(draw: Draw) -> Case:
    shape = (3, 4, 5, 6)
    permutation = [int(v) for v in draw.rng.permutation(4)]
    x = draw.tensor("x", shape)
    out = like(x, [shape[i] for i in permutation])
    return draw.one("TransposeOptions", {}, [x, constant("p", permutation), out])


@case("CONCATENATION", *ALL)
def concatenation(draw: Draw) -> Case:
    axis = draw.whole(-3, 2)
    shapes = [[4, 5, 6] for _ in range(3)]
    for shape in shapes:
        shape[axis] = draw.whole(1, 9)
    total = [4, 5, 6]
    total[axis] = sum(shape[axis] for shape in shapes)
    first = draw.tensor("out", total)
    alike = draw.dtype != np.uint8 or draw.whole(0, 1)
    parts = [like(first, s, f"x{i}") if alike else draw.tensor(f"x{i}", s) for i, s in enumerate(shapes)]
    return draw.one("ConcatenationOptions", {"Axis": axis}, [*parts, first])


@case("PACK", *ALL)
def pack(draw: Draw) -> Case:
    axis = draw.whole(0, 2)
    x = draw.tensor("x0", (20, 15))
    shape = [20, 15]
    shape.insert(axis, 3)
    fields = {"Axis": axis, "ValuesCount": 3}
    return draw.one("PackOptions", fields, [x, like(x, x.shape, "x1"), like(x, x.shape, "x2"), like(x, shape)])


@case("UNPACK", *ALL)
def unpack(draw: Draw) -> Case:
    x = draw.tensor("x", (20, 3, 15))
    outs = [like(x, (20, 15), f"out{i}") for i in range(3)]
    return draw.one("UnpackOptions", {"Axis": 1, "Num": 3}, [x, *outs], [t.name for t in outs])


@case("SPLIT", *ALL)
def split(draw: Draw) -> Case:
    x = draw.tensor("x", (20, 6, 5))
    outs = [like(x, (20, 2, 5), f"out{i}") for i in range(3)]
    return draw.one("SplitOptions", {"NumSplits": 3}, [constant("axis", 1), x, *outs], [t.name for t in outs])


@case("SPLIT_V", *ALL)
def split_v(draw: Draw) -> Case:
    x = draw.tensor("x", (20, 6, 5))
    outs = [like(x, (20, s, 5), f"out{i}") for i, s in enumerate((1, 3, 2))]
    tensors = [x, constant("sizes", [1, -1, 2]), constant("axis", -2), *outs]
    return draw.one("SplitVOptions", {"NumSplits": 3}, tensors, [t.name for t in outs])


@case("SLICE", *ALL)
def slice_(draw: Draw) -> Case:
    x = draw.tensor("x", (10, 11, 12))
    tensors = [x, constant("begin", [1, 0, 3]), constant("size", [4, -1, 9]), like(x, (4, 11, 9))]
    return draw.one("SliceOptions", {}, tensors)


STRIDED = [
    ([1, 0, 2], [9, 11, 12], [2, 1, 3], {}, np.s_[1:9:2, 0:11, 2:12:3]),
    ([0, -1, 0], [0, -12, 5], [1, -2, 1], {"BeginMask": 1, "EndMask": 1}, np.s_[:, -1:-12:-2, 0:5]),
    ([3, 0, 0], [4, 5, 6], [1, 1, 1], {"ShrinkAxisMask": 1}, np.s_[3, 0:5, 0:6]),
    ([-1, 0], [0, 9], [1, 2], {"ShrinkAxisMask": 1, "EllipsisMask": 0}, np.s_[-1, 0:9:2]),
    ([0, 2], [0, 12], [1, 5], {"EllipsisMask": 1}, np.s_[..., 2:12:5]),
]


@case("STRIDED_SLICE", *ALL)
def strided_slice(draw: Draw) -> Case:
    begin, end, strides, masks, index = STRIDED[draw.whole(0, len(STRIDED) - 1)]
    x = draw.tensor("x", (10, 11, 12))
    vectors = [constant(n, v) for n, v in (("begin", begin), ("end", end), ("strides", strides))]
    return draw.one("StridedSliceOptions", masks, [x, *vectors, like(x, np.empty(x.shape)[index].shape)])


@case("GATHER", *ALL)
def gather(draw: Draw) -> Case:
    x, axis = draw.tensor("x", (9, 10, 11)), draw.whole(0, 2)
    index = draw.rng.integers(0, 9, draw.choice((4,), (2, 3)))
    shape = (*x.shape[:axis], *index.shape, *x.shape[axis + 1 :])
    return draw.one("GatherOptions", {"Axis": axis}, [x, constant("index", index), like(x, shape)])


def padding(draw: Draw, most: int):
    amounts = draw.rng.integers(0, most, (3, 2))
    x = draw.tensor("x", (5, 6, 7))
    return x, constant("pads", amounts), like(x, [d + lo + hi for d, (lo, hi) in zip(x.shape, amounts)])


@case("PAD", *ALL)
def pad(draw: Draw) -> Case:
    return draw.one("PadOptions", {}, padding(draw, 4))


@case("PADV2", "float32", *EIGHT)
def pad_with(draw: Draw) -> Case:
    x, pads, out = padding(draw, 4)
    value = x._replace(name="value", shape=(1,), data=draw.values(1))
    return draw.one("PadV2Options", {}, [x, pads, value, out])


@case("MIRROR_PAD", "float32", *EIGHT)
def mirror_pad(draw: Draw) -> Case:
    return draw.one("MirrorPadOptions", {"Mode": draw.whole(0, 1)}, padding(draw, 5))


@case("TILE", "float32", *EIGHT)
def tile(draw: Draw) -> Case:
    x = draw.tensor("x", (3, 10, 5))
    return draw.one("TileOptions", {}, [x, constant("repeats", [2, 1, 3]), like(x, (6, 10, 15))])


@case("RESIZE_BILINEAR", *ALL)
@case("RESIZE_NEAREST_NEIGHBOR", *ALL)
def resize(draw: Draw) -> Case:
    x = draw.tensor("x", (2, draw.whole(1, 9), draw.whole(1, 9), 5))
    size = (draw.whole(1, 20), draw.whole(1, 20))
    align, half = draw.choice((False, False), (True, False), (False, True))
    options = "ResizeBilinearOptions" if "BILINEAR" in draw.kind else "ResizeNearestNeighborOptions"
    fields = {"AlignCorners": align, "HalfPixelCenters": half}
    return draw.one(options, fields, [x, constant("size", size), like(x, (2, *size, 5))])


@case("SPACE_TO_DEPTH", "float32", *EIGHT)
def space_to_depth(draw: Draw) -> Case:
    x = draw.tensor("x", (2, 6, 8, 5))
    return draw.one("SpaceToDepthOptions", {"BlockSize": 2}, [x, like(x, (2, 3, 4, 20))])


@case("DEPTH_TO_SPACE", "float32", *EIGHT)
def depth_to_space(draw: Draw) -> Case:
    x = draw.tensor("x", (2, 3, 4, 20))
    return draw.one("DepthToSpaceOptions", {"BlockSize": 2}, [x, like(x, (2, 6, 8, 5))])


@case("SPACE_TO_BATCH_ND", "float32", *EIGHT)
def space_to_batch(draw: Draw) -> Case:
    x = draw.tensor("x", (2, 5, 7, 5))
    tensors = [x, constant("block", [2, 3]), constant("pads", [[1, 0], [0, 2]]), like(x, (12, 3, 3, 5))]
    return draw.one("SpaceToBatchNDOptions", {}, tensors)


@case("BATCH_TO_SPACE_ND", "float32", *EIGHT)
def batch_to_space(draw: Draw) -> Case:
    x = draw.tensor("x", (12, 3, 3, 5))
    tensors = [x, constant("block", [2, 3]), constant("crops", [[1, 0], [0, 2]]), like(x, (2, 5, 7, 5))]
    return draw.one("BatchToSpaceNDOptions", {}, tensors)


# --- changes of type -------------------------------------------------------------------------------------
@case("QUANTIZE", *ALL)
def quantise(draw: Draw) -> Case:
    x = draw.tensor("x", (30, 20))
    kinds = {"float32": INTEGERS, "int16": ("int8", "int16"), "int8": INTEGERS, "uint8": INTEGERS}
    to = Draw(draw.kind, draw.choice(*kinds[draw.dtype.name]))
    to.rng = draw.rng
    return draw.one("QuantizeOptions", {}, [x, to.tensor("out", x.shape)])


@case("DEQUANTIZE", *INTEGERS)
def dequantise(draw: Draw) -> Case:
    x = draw.tensor("x", (30, 20))
    return draw.one("DequantizeOptions", {}, [x, Tensor("out", x.shape, np.float32)])


@case("CAST", "float32", "int32")
def cast(draw: Draw) -> Case:
    x = Tensor("x", (30, 20), draw.dtype)
    to = draw.choice(np.float32, np.int32, np.int64, np.bool_)
    made = draw.one("CastOptions", {}, [x, Tensor("out", x.shape, to)])
    return made._replace(feeds={"x": (made.feeds["x"] % 1000).astype(draw.dtype)})


# --- the tests -------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("kind", "dtype"), MAKERS, ids=lambda v: v)
def test_operator(kind, dtype):
    pytest.importorskip("ai_edge_litert")
    draw, compared = Draw(kind, dtype), 0
    while compared < OUTPUTS:
        made = MAKERS[kind, dtype](draw)
        compared += compare(made.content(), made.feeds, tolerance=1e-4)


INTEGER_CASES = [key for key in MAKERS if key[1] in INTEGERS]


@pytest.mark.slow
@pytest.mark.parametrize("target", ["tiny", "v853"])
@pytest.mark.parametrize(("kind", "dtype"), INTEGER_CASES, ids=lambda v: v)
def test_operator_on_the_emulator(kind, dtype, target):
    run_on_emulator(MAKERS[kind, dtype](Draw(kind, dtype)), target)


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        ("CONV_2D", "int8"),
        ("TRANSPOSE_CONV", "uint8"),
        ("FULLY_CONNECTED", "uint8"),
        ("MEAN", "int8"),
        ("MEAN", "int16"),
        ("SUM", "uint8"),
        ("CONCATENATION", "uint8"),
        ("SQUARED_DIFFERENCE", "int8"),
        ("L2_NORMALIZATION", "int8"),
        ("LOGISTIC", "int16"),
        ("EQUAL", "uint8"),
        ("QUANTIZE", "int16"),
        ("RESIZE_BILINEAR", "uint8"),
    ],
)
def test_operator_on_the_tiny_machine(kind, dtype):
    run_on_emulator(MAKERS[kind, dtype](Draw(kind, dtype)), "tiny")


def run_on_emulator(made: Case, target: str) -> None:
    """The compiled program's bytes, sanitizers on."""
    pytest.importorskip("ai_edge_litert")
    content = made.content()
    outputs = Session(compile(content, target=target), sanitize=True).run(None, dict(made.feeds))
    golden = TfliteGolden(content).stored(made.feeds, made.outputs)
    for name, array in zip(made.outputs, outputs):
        assert array.dtype == golden[name].dtype
        np.testing.assert_array_equal(array, golden[name], err_msg=name)


# --- the precision of multipliers ------------------------------------------------------------------------
CHANNELS = 2048
PRODUCTS = {
    "CONV_2D": ((CHANNELS, 1, 1, 1), 0, "Conv2DOptions", {"StrideH": 1, "StrideW": 1}),
    "DEPTHWISE_CONV_2D": (
        (1, 1, 1, CHANNELS),
        3,
        "DepthwiseConv2DOptions",
        {"StrideH": 1, "StrideW": 1, "DepthMultiplier": CHANNELS},
    ),
    "TRANSPOSE_CONV": ((CHANNELS, 1, 1, 1), 0, "TransposeConvOptions", {"StrideH": 1, "StrideW": 1}),
    "FULLY_CONNECTED": ((CHANNELS, 1), 0, "FullyConnectedOptions", {}),
}


@pytest.mark.parametrize("kind", PRODUCTS)
@pytest.mark.parametrize("dtype", ["int8", "uint8", "int8 per channel"])
def test_multipliers_have_the_precision_of_the_reference(kind, dtype):
    """Sums, held in the bias, where a product of scales in float32 and one in float64 round to two sides.

    FULLY_CONNECTED multiplies by a float64, which a Q31 multiplier follows but for the closest ties.
    """
    pytest.importorskip("ai_edge_litert")
    rng, stored = np.random.default_rng(9), np.dtype(dtype.split()[0])
    shape, axis, options, fields = PRODUCTS[kind]
    scale, weight_scale, out_scale = np.float32(0.0123), np.float32(7.1e-6), np.float32(1.3)
    double = np.float64(scale) * np.float64(weight_scale) / np.float64(out_scale)
    single = np.float64(scale * weight_scale) / np.float64(out_scale)
    results = rng.integers(-120, 120, CHANNELS) + 0.5
    bias = np.rint(results / ((double + single) / 2)).astype(np.int32)
    assert (np.floor(bias * double + 0.5) != np.floor(bias * single + 0.5)).mean() > 0.5
    one = (1,) * (2 if kind == "FULLY_CONNECTED" else 4)
    scales = np.full(CHANNELS, weight_scale) if "channel" in dtype else weight_scale
    weight = Tensor("w", shape, stored, scales, 0, axis, np.ones(shape, stored))
    ifm, ofm = Tensor("x", one, stored, scale, 3), Tensor("out", (*one[:-1], CHANNELS), stored, out_scale, 5)
    ofm = ofm._replace(zero=5 if stored == np.int8 else 128)
    tensors = [ifm, weight, Tensor("b", (CHANNELS,), np.int32, scale * weight_scale, 0, 0, bias), ofm]
    inputs = ["x", "w", "b"]
    if kind == "TRANSPOSE_CONV":
        tensors.append(constant("shape", ofm.shape))
        inputs = ["shape", "w", "x", "b"]
    content = build_model(tensors, [Operator(kind, inputs, ["out"], options, fields)], ["x"], ["out"])
    feeds = {"x": np.full(one, 3, stored)}
    want = TfliteGolden(content).stored(feeds, ["out"])["out"]
    differ = (interpret(import_tflite(content), feeds)["out"] != want).mean()
    assert differ <= (0.01 if kind == "FULLY_CONNECTED" else 0)


def test_batched_products_multiply_scales_in_float32():
    """As above, with sums made of products."""
    pytest.importorskip("ai_edge_litert")
    rng, depth, columns = np.random.default_rng(9), 70_000, 64
    scale, other, out_scale = np.float32(0.0123), np.float32(7.1e-6), np.float32(9.3)
    double = np.float64(scale) * np.float64(other) / np.float64(out_scale)
    single = np.float64(scale * other) / np.float64(out_scale)
    sums = np.rint((rng.integers(-9, 9, columns) + 0.5) / ((double + single) / 2)).astype(np.int64)
    assert (np.floor(sums * double + 0.5) != np.floor(sums * single + 0.5)).mean() > 0.5
    a, b = np.full((1, depth), 127, np.int8), np.zeros((depth, columns), np.int8)
    a[0, 0] = 1
    rounds = np.rint(sums / 127).astype(np.int64)
    b[0] = sums - 127 * rounds
    for column, count in enumerate(rounds):
        whole, rest = divmod(abs(int(count)), 127)
        b[1 : 1 + whole, column] = 127 * np.sign(count)
        b[1 + whole, column] = rest * np.sign(count)
    tensors = [
        Tensor("a", a.shape, np.int8, scale),
        Tensor("b", b.shape, np.int8, other),
        Tensor("out", (1, columns), np.int8, out_scale),
    ]
    operator = Operator("BATCH_MATMUL", ["a", "b"], ["out"], "BatchMatMulOptions")
    assert compare(build_model(tensors, [operator], ["a", "b"], ["out"]), {"a": a, "b": b}, 0) == columns
