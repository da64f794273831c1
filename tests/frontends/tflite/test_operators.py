"""Files of one operator at random, imported and run, against LiteRT's reference kernels: integers bit for
bit.

A maker gives one case of an operator and element type. The quick tests compare QUICK outputs of each, the slow
ones SLOW outputs, on the emulator too; the last section breaks every rule of rounding once and sees it caught.
Run as a program, the file prints the table of docs/numerics.md.
"""

from __future__ import annotations

import sys
import types
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pytest
from nacre.backends.compile import compile
from nacre.backends.session import Session
from nacre.dialects.nacre import sources_of
from nacre.dialects.rounding import Rounding
from nacre.frontends.tflite import import_tflite, linear, node
from nacre.frontends.tflite.build import Operator, Tensor, build_model
from nacre.frontends.tflite.golden import TfliteGolden
from nacre.runtime.fixed_point import quantise_multiplier, requantise
from nacre.runtime.interpreter import interpret
from nacre.runtime.kernels import (
    qnn,
    quantised,
    quantised_conv,
    quantised_elementwise,
    quantised_functions,
    quantised_pool,
    quantised_softmax,
    quantised_softmax16,
)

QUICK, SLOW = 1_000, 40_000
FILES = 40  # at least, of an operator and type in the slow tests
BATCH = 4  # by how much their files are larger
TOLERANCE = 1e-4  # of float results, absolute and relative
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

    def __init__(self, kind: str, dtype: str, batch: int = 1):
        self.kind, self.dtype, self.batch = kind, np.dtype(dtype), batch
        self.rng = np.random.default_rng(zlib.crc32(f"{kind} {dtype}".encode()))

    @property
    def quantised(self) -> bool:
        return self.dtype.kind != "f"

    def many(self, images: int) -> int:
        """The extent of a leading axis."""
        return images * self.batch

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


def compare(made: Case) -> int:
    """Every tensor that the imported module still holds: exactly, or closely where floats are computed with.
    Gives the number of outputs.
    """
    content, floats = made.content(), any(array.dtype.kind == "f" for array in made.feeds.values())
    module, golden = import_tflite(content), TfliteGolden(content)

    def check(name, array):
        want = golden.stored(made.feeds, [name])[name]
        assert (array.dtype, array.shape) == (want.dtype, want.shape), name
        if floats and array.dtype.kind == "f":
            np.testing.assert_allclose(array, want, rtol=TOLERANCE, atol=TOLERANCE, err_msg=name)
        else:
            np.testing.assert_array_equal(array, want, err_msg=name)

    def watch(value, array):
        for source in sources_of(value):
            check(source.tensor, array)

    outputs = interpret(module, made.feeds, watch)
    assert list(outputs) == list(made.outputs)
    for name, array in outputs.items():
        check(name, array)
    return sum(array.size for array in outputs.values())


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
    images = draw.many(2)
    ifm = draw.tensor("x", (images, *size, channels))
    shape = (1, *kernel, filters) if depthwise else (filters, *kernel, channels // groups)
    weight = weights(draw, shape, 3 if depthwise else 0, filters)
    depth = kernel[0] * kernel[1] * (1 if depthwise else channels // groups)
    bias, ofm = product(draw, ifm, weight, depth, filters, (images, *out, filters), needed=True)
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
    images = draw.many(1)
    ifm = draw.tensor("x", (images, *size, channels))
    weight = weights(draw, (filters, *kernel, channels), 0, filters)
    depth = max(1, kernel[0] * kernel[1] * channels // (strides[0] * strides[1]))
    bias, ofm = product(draw, ifm, weight, depth, filters, (images, *out, filters))
    fields = {"Padding": int(not same), "StrideH": strides[0], "StrideW": strides[1]}
    tensors = [constant("shape", [images, *out, filters]), weight, ifm, *([bias] if bias else []), ofm]
    return draw.one("TransposeConvOptions", fields, tensors)


@case("FULLY_CONNECTED", *ALL)
def fully_connected(draw: Draw) -> Case:
    rows, depth, columns = draw.whole(1, 8), draw.whole(1, 60), draw.whole(1, 40)
    keep = draw.rng.random() < 0.5
    images = draw.many(2)
    ifm = draw.tensor("x", (images, rows, depth))
    weight = weights(draw, (columns, depth), 0, columns)
    out = (images, rows, columns) if keep else (images * rows, columns)
    bias, ofm = product(draw, ifm, weight, depth, columns, out)
    return draw.one("FullyConnectedOptions", {"KeepNumDims": keep, **activation(draw)}, [ifm, weight, bias, ofm])


@case("BATCH_MATMUL", "float32", "int8", "int16")
def batch_matmul(draw: Draw) -> Case:
    m, k, n = draw.whole(1, 9), draw.whole(1, 30), draw.whole(1, 9)
    adj_x, adj_y = (bool(draw.whole(0, 1)) for _ in range(2))
    images = draw.many(2)
    a = draw.tensor("x", (images, k, m) if adj_x else (images, m, k))
    b = draw.tensor("y", (images, n, k) if adj_y else (images, k, n))
    out = draw.tensor("out", (images, m, n))
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
    images = draw.many(2)
    x = draw.tensor("x", (images, *size, 7))
    fields |= {"FilterHeight": kernel[0], "FilterWidth": kernel[1], **activation(draw)}
    return draw.one("Pool2DOptions", fields, [x, like(x, (images, *out, 7))])


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
    x = draw.tensor("x", draw.choice((draw.many(9), 60), (2, draw.many(3), 30), (draw.many(1), 2, 5, 17)))
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
    x = draw.tensor("x", (draw.many(9), draw.whole(1, 90)))
    out = draw.tensor("out", x.shape, scale=1 / 128, zero=0 if draw.dtype == np.int8 else 128)
    return draw.one("L2NormOptions", {}, [x, out])


# --- reductions ------------------------------------------------------------------------------------------
def reduced(draw: Draw, out: Callable[[Tensor, tuple[int, ...]], Tensor]) -> Case:
    shape = tuple(draw.whole(1, 9) for _ in range(4))
    axes = draw.choice((1, 2), (3,), (1,), (0, 1, 2), (1, 2, 3), (2, 3))
    keep = bool(draw.whole(0, 1))
    shape = tuple(d if i in axes else draw.many(d) for i, d in enumerate(shape))
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


@case("EMBEDDING_LOOKUP", "float32", "int8")
def embedding_lookup(draw: Draw) -> Case:
    table, rows = draw.tensor("w", (draw.whole(1, 20), 40), data=None), draw.many(16)
    table = table._replace(data=draw.values(*table.shape), zero=0)
    made = draw.one(None, {}, [Tensor("x", (rows,), np.int32), table, like(table, (rows, 40))])
    return made._replace(feeds={"x": made.feeds["x"] % table.shape[0]})


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
def cases(kind: str, dtype: str, outputs: int, check: Callable[[Case], int], files: int = 1, batch: int = 1):
    """Check random cases until enough outputs and files were compared; gives both numbers."""
    draw, compared, made = Draw(kind, dtype, batch), 0, 0
    while compared < outputs or made < files:
        compared += check(MAKERS[kind, dtype](draw))
        made += 1
    return compared, made


def compare_on_both(made: Case) -> int:
    """At qnn level and on the emulator."""
    run_on_emulator(made, "v853")
    return compare(made)


@pytest.mark.parametrize(("kind", "dtype"), MAKERS, ids=lambda v: v)
def test_operator(kind, dtype):
    pytest.importorskip("ai_edge_litert")
    cases(kind, dtype, QUICK, compare)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "dtype"), MAKERS)
def test_operator_in_depth(kind, dtype):
    pytest.importorskip("ai_edge_litert")
    compared, files = cases(kind, dtype, SLOW, compare_on_both if dtype in INTEGERS else compare, FILES, BATCH)
    assert compared >= SLOW and files >= FILES


INTEGER_CASES = [key for key in MAKERS if key[1] in INTEGERS]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "dtype"), INTEGER_CASES, ids=lambda v: v)
def test_operator_on_the_tiny_emulator(kind, dtype):
    run_on_emulator(MAKERS[kind, dtype](Draw(kind, dtype)), "tiny")


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


def precision_case(kind: str, dtype: str) -> Case:
    """Sums, held in the bias, where a product of scales in float32 and one in float64 round to two sides."""
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
    return Case(tensors, [Operator(kind, inputs, ["out"], options, fields)], {"x": np.full(one, 3, stored)}, ["out"])


def share_of_differences(made: Case) -> float:
    """How many of the outputs are not those of LiteRT."""
    content = made.content()
    want = TfliteGolden(content).stored(made.feeds, ["out"])["out"]
    return float((interpret(import_tflite(content), made.feeds)["out"] != want).mean())


PRECISIONS = [(kind, dtype) for kind in PRODUCTS for dtype in ("int8", "uint8", "int8 per channel")]


@pytest.mark.parametrize(("kind", "dtype"), PRECISIONS)
def test_multipliers_have_the_precision_of_the_reference(kind, dtype):
    """FULLY_CONNECTED multiplies by a float64, which a Q31 multiplier follows but for the closest ties."""
    pytest.importorskip("ai_edge_litert")
    assert share_of_differences(precision_case(kind, dtype)) <= (0.01 if kind == "FULLY_CONNECTED" else 0)


def batched_product_case() -> Case:
    """As above for BATCH_MATMUL, with sums made of products."""
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
    return Case(tensors, [operator], {"a": a, "b": b}, ["out"])


def test_batched_products_multiply_scales_in_float32():
    pytest.importorskip("ai_edge_litert")
    assert compare(batched_product_case()) == 64


# --- every rule broken once ------------------------------------------------------------------------------
DIFFERENT = "Arrays are not equal"


def forget_tables() -> None:
    """Empty the caches of what kernels computed under other rules."""
    for module in [m for name, m in sys.modules.items() if name.startswith("nacre.runtime")]:
        for value in list(vars(module).values()):
            if hasattr(value, "cache_clear"):
                value.cache_clear()


@pytest.fixture
def breaking(monkeypatch):
    """A function that replaces a module's function: breaking(module, name, wrap)."""

    def replace(module, name, wrap):
        monkeypatch.setattr(module, name, wrap(getattr(module, name)))
        forget_tables()

    yield replace
    monkeypatch.undo()
    forget_tables()


def rounding(before: Rounding, after: Rounding):
    """Wrap requantise or requantise_to so that one rounding is another."""

    def wrap(function):
        return lambda *given: function(*(after if value is before else value for value in given))

    return wrap


def half_to_even(average_finish):
    def finish(total, count, low, high, dtype):
        return np.clip(np.rint(total / np.asarray(count, np.float64)), low, high).astype(dtype)

    return finish


def nearest_factor(mean_factor):
    def factor(count, multiplier, shift):
        bits = min(int(count).bit_length() - 1, 32, 31 + int(shift))
        return ((int(multiplier) << bits) + count // 2) // count, int(shift) - bits

    return factor


def half_up(resample):
    def changed(ifm, rows, cols, linear):
        if not linear:
            return resample(ifm, rows, cols, linear)
        x, upper = ifm.astype(np.int64), lambda places, axes: places[:, 2].astype(np.int64).reshape(-1, *axes)
        r, c = upper(rows, (1, 1)), upper(cols, (1,))
        tall = x[:, rows[:, 0]] * (1024 - r) + x[:, rows[:, 1]] * r
        total = tall[:, :, cols[:, 0]] * (1024 - c) + tall[:, :, cols[:, 1]] * c
        return ((total + (1 << 19)) >> 20).astype(ifm.dtype)

    return changed


def ties_up(divide):
    return lambda x, exponent: (np.asarray(x, np.int64) + ((1 << exponent) >> 1)) >> exponent


CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV")
ONCE = rounding(Rounding.DOUBLE, Rounding.SINGLE)
UNCUT = rounding(Rounding.ACC64, Rounding.SINGLE)
BROKEN_AT_RANDOM = [
    *[(kind, dtype, quantised_conv, "requantise_to", ONCE) for kind in CONVOLUTIONS for dtype in EIGHT],
    ("BATCH_MATMUL", "int8", quantised_conv, "requantise_to", ONCE),
    *[(kind, "int16", quantised_conv, "requantise_to", UNCUT) for kind in (*CONVOLUTIONS, "BATCH_MATMUL")],
    *[("MUL", dtype, quantised_elementwise, "requantise_to", ONCE) for dtype in INTEGERS],
    *[("QUANTIZE", dtype, quantised_elementwise, "requantise_to", ONCE) for dtype in EIGHT],
    *[("LEAKY_RELU", dtype, quantised_elementwise, "requantise", ONCE) for dtype in INTEGERS],
    *[("PRELU", dtype, quantised_elementwise, "requantise", ONCE) for dtype in EIGHT],
    *[("HARD_SWISH", dtype, quantised_elementwise, "rounding_divide_by_power_of_two", ties_up) for dtype in EIGHT],
    *[("AVERAGE_POOL_2D", dtype, quantised_pool, "average_finish", half_to_even) for dtype in INTEGERS],
    *[("MEAN", dtype, quantised_pool, "requantise", ONCE) for dtype in INTEGERS],
    ("SUM", "uint8", quantised_pool, "requantise", ONCE),
    ("SQUARED_DIFFERENCE", "int8", quantised_functions, "requantise_to", ONCE),
    ("SOFTMAX", "int16", quantised_softmax16, "requantise", ONCE),
    ("RESIZE_BILINEAR", "int8", qnn, "resample", half_up),
]


@pytest.mark.parametrize(("kind", "dtype", "module", "name", "wrap"), BROKEN_AT_RANDOM)
def test_a_broken_rule_shows_in_random_files(breaking, kind, dtype, module, name, wrap):
    """The suite as it is, and one rule of the kernels another: some file of the slow test has to differ."""
    pytest.importorskip("ai_edge_litert")
    breaking(module, name, wrap)
    with pytest.raises(AssertionError, match=DIFFERENT):
        cases(kind, dtype, SLOW, compare, FILES, BATCH)


def ties_of_fully_connected(dtype: str) -> Case:
    """Every value halved: odd ones are ties."""
    zero, kind = {"int8": 0, "uint8": 128, "int16": 0}[dtype], "uint8" if dtype == "uint8" else "int8"
    x = np.arange(-128, 128).reshape(256, 1) + zero
    tensors = [
        Tensor("x", x.shape, dtype, 0.5, zero),
        Tensor("w", (1, 1), kind, 1.0, 0, 0, np.ones((1, 1), kind)),
        Tensor("out", x.shape, dtype, 1.0, zero),
    ]
    operator = Operator("FULLY_CONNECTED", ["x", "w"], ["out"], "FullyConnectedOptions")
    return Case(tensors, [operator], {"x": x.astype(dtype)}, ["out"])


@pytest.mark.parametrize("instead", [Rounding.SINGLE, Rounding.DOUBLE, Rounding.EVEN])
@pytest.mark.parametrize("dtype", INTEGERS)
def test_ties_away_from_zero_show_in_fully_connected(breaking, dtype, instead):
    pytest.importorskip("ai_edge_litert")
    made = ties_of_fully_connected(dtype)
    assert compare(made) == 256
    breaking(quantised_conv, "requantise_to", rounding(Rounding.AWAY, instead))
    with pytest.raises(AssertionError, match=DIFFERENT):
        compare(made)


def arithmetic_case(kind: str, dtype: str, scales: Sequence[float], a: Sequence[int], b: Sequence[int]) -> Case:
    """Pairs of numbers, given without their zero point."""
    zero = 128 if dtype == "uint8" else 0
    shape = (len(a),)
    tensors = [Tensor(n, shape, dtype, s, zero) for n, s in zip(("a", "b", "out"), scales, strict=True)]
    feeds = {n: (np.array(v) + zero).astype(dtype) for n, v in (("a", a), ("b", b))}
    options = f"{kind.capitalize()}Options"
    return Case(tensors, [Operator(kind, ["a", "b"], ["out"], options, {"PotScaleInt16": False})], feeds, ["out"])


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("kind", ["ADD", "SUB"])
def test_ties_of_a_sum_show(breaking, kind, dtype):
    """Odd sums halved: below zero they go away from it."""
    pytest.importorskip("ai_edge_litert")
    made = arithmetic_case(kind, dtype, (1, 1, 2), range(-60, 60), [0] * 120)
    assert compare(made) == 120
    breaking(quantised_elementwise, "requantise_to", ONCE)
    with pytest.raises(AssertionError, match=DIFFERENT):
        compare(made)


EIGHT_BIT_SUM = ("0x1.53631p-2", "0x1.eb5a12p-6", "0x1.650472p-2"), (-70, 70), (-46, 46)
EIGHT_BIT_DIFFERENCE = ("0x1.6679p-1", "0x1.cf223ap-6", "0x1.0621b6p-1"), (-70, 70), (14, -14)
TERMS = [
    ("ADD", "int8", *EIGHT_BIT_SUM),
    ("ADD", "uint8", *EIGHT_BIT_SUM),
    ("SUB", "int8", *EIGHT_BIT_DIFFERENCE),
    ("SUB", "uint8", *EIGHT_BIT_DIFFERENCE),
    ("ADD", "int16", ("0x1.090764p-2", "0x1.224b8ep-4", "0x1.d352fep-2"), (-3720,), (-19072,)),
    ("SUB", "int16", ("0x1.1304dp-1", "0x1.3bdb6p-8", "0x1.f62e32p-2"), (21302,), (13793,)),
]


@pytest.mark.parametrize(("kind", "dtype", "scales", "a", "b"), TERMS)
def test_the_rounding_of_terms_shows(breaking, kind, dtype, scales, a, b):
    """Terms one unit of 2^-20 from where the sum rounds to the other side; a search found them."""
    pytest.importorskip("ai_edge_litert")
    made = arithmetic_case(kind, dtype, [float.fromhex(scale) for scale in scales], a, b)
    assert compare(made) == len(a)
    breaking(quantised_elementwise, "requantise", ONCE)
    with pytest.raises(AssertionError, match=DIFFERENT):
        compare(made)


def test_the_division_of_a_multiplier_shows_in_mean(breaking):
    """Sums of 5,000 values where the multiplier truncated and the nearest one round to two sides."""
    pytest.importorskip("ai_edge_litert")
    count, scale, out_scale = 5_000, 0.7, 1.1
    multiplier, shift = (int(v) for v in quantise_multiplier(np.float64(np.float32(scale)) / np.float32(out_scale)))
    sums = np.arange(120_000_000, 160_000_000, 7, dtype=np.int32)
    factors = [f(count, multiplier, shift) for f in (quantised_pool.mean_factor, nearest_factor(None))]
    first, second = (requantise(sums, m, s, Rounding.DOUBLE) for m, s in factors)
    sums = sums[first != second][:16]
    assert len(sums)
    x = np.repeat(sums[None, None] // count, count, axis=1).astype(np.int16)
    x[0, :, :] += np.arange(count)[:, None] < sums % count
    tensors = [
        Tensor("x", x.shape, np.int16, scale),
        constant("axes", [1]),
        Tensor("out", (1, len(sums)), np.int16, out_scale),
    ]
    made = Case(tensors, [Operator("MEAN", ["x", "axes"], ["out"], "ReducerOptions")], {"x": x}, ["out"])
    assert compare(made) == len(sums)
    breaking(quantised_pool, "mean_factor", nearest_factor)
    with pytest.raises(AssertionError, match=DIFFERENT):
        compare(made)


def ties_of_table(kind: str, dtype: str) -> Case:
    """LOGISTIC: a scale whose 1 is 0.5 + 2^-9, half a step of the result; EXP: e^0 in steps of 2."""
    x = np.arange(256, dtype=np.uint8).view(dtype)
    scale, zero_out = 0.3, 0
    steps = np.float32(2.0**-7) + np.arange(-99, 99, dtype=np.float32) * np.float32(2.0**-26)
    if kind == "LOGISTIC":
        (places,) = np.nonzero(quantised.logistic(steps) == np.float32(0.5 + 2.0**-9))
        scale, zero_out = float(steps[places[len(places) // 2]]), np.iinfo(dtype).min
    tensors = [Tensor("x", x.shape, dtype, scale, 0), Tensor("out", x.shape, dtype, 2.0, zero_out)]
    if kind == "LOGISTIC":
        tensors[1] = tensors[1]._replace(scale=1 / 256)
    return Case(tensors, [Operator(kind, ["x"], ["out"])], {"x": x}, ["out"])


def ties_of_quantise(dtype: str) -> Case:
    """Halves."""
    x = np.arange(-50, 50, dtype=np.float32) + np.float32(0.5)
    tensors = [Tensor("x", x.shape, np.float32), Tensor("out", x.shape, dtype, 1.0, {"uint8": 100}.get(dtype, 0))]
    return Case(tensors, [Operator("QUANTIZE", ["x"], ["out"])], {"x": x}, ["out"])


TIES = [
    *[(ties_of_table, ("LOGISTIC", dtype)) for dtype in EIGHT],
    (ties_of_table, ("EXP", "int8")),
    *[(ties_of_quantise, (dtype,)) for dtype in INTEGERS],
]


@pytest.mark.parametrize(("maker", "given"), TIES)
def test_ties_away_from_zero_show_in_tables_and_quantise(breaking, maker, given):
    pytest.importorskip("ai_edge_litert")
    made = maker(*given)
    compare(made)
    breaking(quantised_elementwise, "_round_half_away", lambda away: np.rint)
    with pytest.raises(AssertionError, match=DIFFERENT):
        compare(made)


def row_at_a_threshold(dtype: str) -> Case:
    """Softmax: the second and third quotient are within one unit of 2^-31 from the next output.

    Found by a search through 44 million outputs.
    """
    row, scale = [69, 62, 62, -89, 95, -2, 39, -63], float.fromhex("0x1.4c4d7ep-8")
    zero = 128 if dtype == "uint8" else 0
    x = np.array([row]) + zero
    smallest = np.iinfo(dtype).min
    tensors = [Tensor("x", x.shape, dtype, scale, zero), Tensor("out", x.shape, dtype, 1 / 256, smallest)]
    operator = Operator("SOFTMAX", ["x"], ["out"], "SoftmaxOptions", {"Beta": 1.0})
    return Case(tensors, [operator], {"x": x.astype(dtype)}, ["out"])


def with_constant(before: int, after: int):
    """Wrap a function so that it computes with another constant."""

    def changed(value):
        if isinstance(value, tuple):
            return tuple(changed(part) for part in value)
        return after if type(value) is int and value == before else value

    def wrap(function):
        code = function.__code__
        constants = changed(code.co_consts)
        assert constants != code.co_consts
        return types.FunctionType(code.replace(co_consts=constants), function.__globals__)

    return wrap


@pytest.mark.parametrize("dtype", EIGHT)
def test_a_softmax_constant_off_by_one_shows(breaking, dtype):
    pytest.importorskip("ai_edge_litert")
    made = row_at_a_threshold(dtype)
    assert compare(made) == 8
    exp_of_minus_eighth = 1895147668
    breaking(quantised_softmax, "_exp_near_zero", with_constant(exp_of_minus_eighth, exp_of_minus_eighth + 1))
    with pytest.raises(AssertionError, match=DIFFERENT):
        compare(made)


def vanishing_case() -> Case:
    """A multiplier of 2^-34, which TFLite takes for 0, and sums that it would bring to 16 and more."""
    bias = (np.arange(1, 9, dtype=np.int64) << 38) * np.where(np.arange(8) % 2, 1, -1)
    scale = 2.0**-34
    tensors = [
        Tensor("x", (1, 1, 1, 1), np.int16, scale),
        Tensor("w", (8, 1, 1, 1), np.int8, np.ones(8, np.float32), 0, 0, np.ones((8, 1, 1, 1), np.int8)),
        Tensor("b", (8,), np.int64, np.full(8, scale, np.float32), 0, 0, bias),
        Tensor("out", (1, 1, 1, 8), np.int16, 1.0),
    ]
    fields = {"StrideH": 1, "StrideW": 1}
    operator = Operator("CONV_2D", ["x", "w", "b"], ["out"], "Conv2DOptions", fields)
    return Case(tensors, [operator], {"x": np.ones((1, 1, 1, 1), np.int16)}, ["out"])


def test_a_multiplier_below_the_smallest_exponent_that_stays_shows(breaking):
    pytest.importorskip("ai_edge_litert")
    made = vanishing_case()
    assert compare(made) == 8

    def kept(quantise_multiplier):
        def split(real):
            multiplier, shift = quantise_multiplier(np.ldexp(real, 20))
            return multiplier, shift - np.int32(20)

        return split

    breaking(node, "quantise_multiplier", kept)
    with pytest.raises(AssertionError, match=DIFFERENT):
        compare(made)


def other_precision(product_factor):
    return lambda left, right, result, single=False: product_factor(left, right, result, single=not single)


@pytest.mark.parametrize(("kind", "dtype"), PRECISIONS)
def test_the_other_precision_of_a_multiplier_shows(breaking, kind, dtype):
    pytest.importorskip("ai_edge_litert")
    breaking(linear, "product_factor", other_precision)
    assert share_of_differences(precision_case(kind, dtype)) > 0.25


def test_the_other_precision_of_a_batched_product_shows(breaking):
    pytest.importorskip("ai_edge_litert")
    breaking(linear, "product_factor", other_precision)
    assert share_of_differences(batched_product_case()) > 0.25


# --- the table of docs/numerics.md -----------------------------------------------------------------------
class Rule(NamedTuple):
    """A formula on stored integers; rounding and precision of the product of scales, by type where they differ."""

    formula: str
    rounding: str | Mapping[str, str] = "none"
    product: str | Mapping[str, str] = "none"


DOUBLE_OR_CUT = {"int8": "DOUBLE", "uint8": "DOUBLE", "int16": "ACC64"}
SUM_OF_PRODUCTS = "round(m · (Σ (x − zx)(w − zw) + b)) + zo"
CONVOLUTION = Rule(SUM_OF_PRODUCTS, DOUBLE_OR_CUT, {"int8": "float64", "uint8": "float32", "int16": "float64"})
SUM = Rule("round(mo · (round(ma · (a − za)) ± round(mb · (b − zb)))) + zo", "DOUBLE, thrice", "float64")
TABLE = "table: round(f(s · (x − z)) / so) + zo; LOGISTIC, TANH of int16 interpolate 256 samples"
CURVE = Rule(
    TABLE,
    {"int8": "AWAY", "uint8": "AWAY", "int16": "once, ties up"},
    {"int8": "float32", "uint8": "float32", "int16": "float64, cut"},
)
RESCALE = Rule("round(m · (x − z)) + zo", "DOUBLE", "float64")
RULES = {
    **dict.fromkeys(("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV"), CONVOLUTION),
    "BATCH_MATMUL": Rule(SUM_OF_PRODUCTS, DOUBLE_OR_CUT, "float32"),
    "FULLY_CONNECTED": Rule(SUM_OF_PRODUCTS, "AWAY", "float64"),
    **dict.fromkeys(("ADD", "SUB"), SUM),
    "MUL": Rule("round(m · (a − za)(b − zb)) + zo", "DOUBLE", "float32"),
    "SQUARED_DIFFERENCE": Rule(
        "round(mo · (round(ma · (a − za)) − round(mb · (b − zb)))²) + zo", "DOUBLE, thrice", "float64"
    ),
    **dict.fromkeys(("RELU", "RELU6", "RELU_N1_TO_1"), Rule("clamp(round(m · (x − z)) + zo)", "DOUBLE", "float32")),
    "LEAKY_RELU": Rule("round(m · (x − z)) + zo, m by sign", "DOUBLE", "float32"),
    "PRELU": Rule("round(m · (x − z)) or round(m · (x − z)(a − za)), + zo", "DOUBLE", "float32"),
    **dict.fromkeys(("LOGISTIC", "TANH", "EXP", "LOG", "GELU"), CURVE),
    "HARD_SWISH": Rule("x · relu6(x + 3) / 6 in 16-bit fixed point", "gemmlowp", "float32"),
    "RSQRT": Rule("round(m · Newton's 1 / √(x − z)) + zo", "DOUBLE, twice", "float32"),
    "SOFTMAX": Rule(
        "exp(x − max) / Σ in fixed point; int16 by two tables",
        {"int8": "gemmlowp", "uint8": "gemmlowp", "int16": "DOUBLE"},
        {"int8": "float64", "uint8": "float64", "int16": "float32"},
    ),
    "L2_NORMALIZATION": Rule("(x − z) · Newton's 1 / √Σ (x − z)²", "DOUBLE"),
    "AVERAGE_POOL_2D": Rule("Σ x / count", "AWAY"),
    "MEAN": Rule("round(⌊m / count⌋ · Σ (x − z)) + zo", "DOUBLE", "float64"),
    "SUM": Rule("round(m · Σ (x − z)) + zo", "DOUBLE", "float64"),
    "RESIZE_BILINEAR": Rule(
        "Σ x · weight of four neighbours", {"int8": "AWAY", "int16": "AWAY", "uint8": "of float32"}
    ),
    "QUANTIZE": RESCALE,
    "DEQUANTIZE": Rule("s · (x − z) in float32"),
    "CONCATENATION": Rule(
        "copies; uint8 of another scale: round(x · s / so − z · s / so) + zo", {"uint8": "AWAY"}, {"uint8": "float32"}
    ),
    **dict.fromkeys(
        ("EQUAL", "NOT_EQUAL", "LESS", "LESS_EQUAL", "GREATER", "GREATER_EQUAL"),
        Rule("compares round(m · 256 · (x − z))", "DOUBLE"),
    ),
}


def row_of(kind: str, dtype: str) -> str:
    """A line of the table, of numbers compared now."""
    rule, agreement = RULES.get(kind, Rule("copies or picks")), "exact"
    if dtype not in INTEGERS:
        rule = Rule("in " + dtype, "AWAY" if kind == "QUANTIZE" else "none")
    if dtype == "float32":
        agreement = "integers exact, floats 1e-4"
    by_type = [field if isinstance(field, str) else field.get(dtype, "none") for field in rule[1:]]
    check = compare_on_both if dtype in INTEGERS else compare
    outputs, files = cases(kind, dtype, SLOW, check, FILES, BATCH)
    return f"| {kind} | {dtype} | {rule.formula} | {' | '.join(by_type)} | {outputs:,} | {files} | {agreement} |"


if __name__ == "__main__":
    print("| operator | type | formula | rounding | product of scales | outputs | files | against LiteRT |")
    print("|---|---|---|---|---|---|---|---|")
    for key in MAKERS:
        print(row_of(*key), flush=True)
