"""Integer kernels against LiteRT's reference kernels, bit for bit: 40,000 outputs an operator and type."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacre.frontends.tflite.build import Operator, Tensor, build_model
from nacre.runtime.fixed_point import Rounding, full_range, quantise_multiplier
from nacre.runtime.kernels import quantised

ENOUGH = 40_000
INT8_UINT8 = pytest.mark.parametrize("dtype", [np.int8, np.uint8])
ALL_TYPES = pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16])


class Reference:
    """Compares results with LiteRT and counts them; `finish` fails unless enough were compared."""

    def __init__(self, dtype, seed: int):
        self.dtype = np.dtype(dtype)
        self.rng = np.random.default_rng(seed)
        self.compared = 0

    def values(self, *shape: int) -> np.ndarray:
        low, high = full_range(self.dtype)
        return self.rng.integers(low, high + 1, shape).astype(self.dtype)

    def scale(self, low: float = -5, high: float = 1) -> float:
        return float(np.float32(np.exp(self.rng.uniform(low, high))))

    def zero(self) -> int:
        return 0 if self.dtype == np.int16 else int(self.values(1)[0])

    def check(self, result: np.ndarray, operator: Operator, tensors: list[Tensor], **feeds) -> None:
        np.testing.assert_array_equal(result, run(operator, tensors, **feeds))
        self.compared += result.size

    def finish(self) -> None:
        assert self.compared >= ENOUGH, f"only {self.compared} outputs were compared"


def run(operator: Operator, tensors: list[Tensor], **feeds) -> np.ndarray:
    """The only output of a model of one operator on LiteRT's reference kernels."""
    litert = pytest.importorskip("ai_edge_litert.interpreter")
    content = build_model(tensors, [operator], list(feeds), operator.outputs)
    interpreter = litert.Interpreter(
        model_content=content,
        experimental_op_resolver_type=litert.OpResolverType.BUILTIN_REF,
        num_threads=1,
    )
    interpreter.allocate_tensors()
    for detail in interpreter.get_input_details():
        interpreter.set_tensor(detail["index"], feeds[detail["name"]])
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def same_padding(size: int, extent: int, stride: int) -> tuple[int, int]:
    total = max((-(-size // stride) - 1) * stride + extent - size, 0)
    return total // 2, total - total // 2


def window(rng: np.random.Generator, size: tuple[int, int], kernel: tuple[int, int], strides, dilations):
    """Padding for SAME or VALID at random: pads, schema value, output size."""
    extents = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    if rng.random() < 0.5:
        (top, bottom), (left, right) = map(same_padding, size, extents, strides)
        return (top, left, bottom, right), 0, tuple(-(-s // t) for s, t in zip(size, strides, strict=True))
    out = tuple((s - e) // t + 1 for s, e, t in zip(size, extents, strides, strict=True))
    return (0, 0, 0, 0), 1, out


# --- convolution and matrix products -------------------------------------------------------------


def weights(reference: Reference, shape: tuple[int, ...], channels: int):
    """Weights, their zero point and scales: symmetric per channel, or asymmetric uint8."""
    if reference.dtype == np.uint8:
        return reference.values(*shape), reference.zero(), np.float32(reference.scale(-6, -2))
    weight = reference.rng.integers(-127, 128, shape).astype(np.int8)
    return weight, 0, np.exp(reference.rng.uniform(-6, -2, channels)).astype(np.float32)


def output_scale(reference: Reference, acc: np.ndarray, product_scale) -> float:
    """One that lets most results stay inside the clamp."""
    spread = float(np.std(acc.astype(np.float64) * product_scale)) + 1e-9
    factor = 3 * np.exp(reference.rng.uniform(-1, 1)) / full_range(reference.dtype)[1]
    return float(np.float32(spread * factor))


def convolution_case(reference: Reference, depthwise: bool) -> None:
    """One random CONV_2D or DEPTHWISE_CONV_2D."""
    rng, dtype = reference.rng, reference.dtype
    kernel = tuple(int(v) for v in rng.integers(1, 5, 2))
    strides = tuple(int(v) for v in rng.integers(1, 4, 2))
    dilations = (1, 1) if rng.random() < 0.6 else (2, 3)
    strides = strides if dilations == (1, 1) else (1, 1)
    channels, filters, height, width = (int(v) for v in rng.integers((1, 1, 13, 13), (40, 40, 20, 20)))
    multiplier = int(rng.integers(1, 4)) if depthwise else 1
    filters = channels * multiplier if depthwise else filters
    pads, padding, out_size = window(rng, (height, width), kernel, strides, dilations)
    ifm, ifm_scale, ifm_zero, ofm_zero = (
        reference.values(1, height, width, channels),
        reference.scale(),
        reference.zero(),
        reference.zero(),
    )
    weight, weight_zero, weight_scale = weights(
        reference, (*kernel, channels, multiplier if depthwise else filters), filters
    )
    accumulate = quantised.depthwise_accumulate if depthwise else quantised.conv2d_accumulate
    acc = accumulate(
        ifm,
        weight,
        strides=strides,
        pads=pads,
        dilations=dilations,
        ifm_zero=ifm_zero,
        weight_zero=weight_zero,
    )
    bias = rng.integers(-3000, 3000, filters).astype(acc.dtype)
    product_scale = np.float64(np.float32(ifm_scale)) * weight_scale.astype(np.float64)
    ofm_scale = output_scale(reference, acc, product_scale)
    rounding = Rounding.ACC64 if dtype == np.int16 else Rounding.DOUBLE
    result = quantised.finish(
        acc,
        bias,
        *quantise_multiplier(product_scale / ofm_scale),
        ofm_zero,
        *full_range(dtype),
        rounding,
        dtype,
    )
    stored = weight.reshape(1, *kernel, filters) if depthwise else weight.transpose(3, 0, 1, 2)
    fields = {
        "Padding": padding,
        "StrideH": strides[0],
        "StrideW": strides[1],
        "DilationHFactor": dilations[0],
        "DilationWFactor": dilations[1],
    }
    kind, options = "CONV_2D", "Conv2DOptions"
    if depthwise:
        kind, options = "DEPTHWISE_CONV_2D", "DepthwiseConv2DOptions"
        fields["DepthMultiplier"] = multiplier
    tensors = [
        Tensor("ifm", ifm.shape, dtype, ifm_scale, ifm_zero),
        Tensor("w", stored.shape, weight.dtype, weight_scale, weight_zero, 3 if depthwise else 0, stored),
        Tensor("b", bias.shape, bias.dtype, product_scale, 0, 0, bias),
        Tensor("out", (1, *out_size, filters), dtype, ofm_scale, ofm_zero),
    ]
    reference.check(result, Operator(kind, ["ifm", "w", "b"], ["out"], options, fields), tensors, ifm=ifm)


@ALL_TYPES
@pytest.mark.parametrize("depthwise", [False, True], ids=["dense", "depthwise"])
def test_convolution(dtype, depthwise):
    reference = Reference(dtype, 10 + depthwise)
    while reference.compared < ENOUGH:
        convolution_case(reference, depthwise)
    reference.finish()


@ALL_TYPES
@pytest.mark.parametrize("per_channel", [False, True])
def test_fully_connected(dtype, per_channel):
    if per_channel and dtype == np.uint8:
        pytest.skip("uint8 weights are quantised per tensor")
    reference = Reference(dtype, 20)
    rng = reference.rng
    while reference.compared < ENOUGH:
        rows, depth, columns = 32, int(rng.integers(1, 3000)), 128
        a, scale, zero, out_zero = (
            reference.values(rows, depth),
            reference.scale(),
            reference.zero(),
            reference.zero(),
        )
        weight, weight_zero, weight_scale = weights(
            reference, (columns, depth), columns if per_channel else 1
        )
        acc = quantised.matmul_accumulate(a, np.ascontiguousarray(weight.T), zero, weight_zero)
        bias = rng.integers(-3000, 3000, columns).astype(acc.dtype)
        product_scale = np.float64(np.float32(scale)) * weight_scale.astype(np.float64)
        out_scale = output_scale(reference, acc, product_scale)
        multiplier, shift = quantise_multiplier(product_scale / out_scale)
        limits = full_range(dtype)
        result = quantised.finish(acc, bias, multiplier, shift, out_zero, *limits, Rounding.AWAY, dtype)
        tensors = [
            Tensor("a", a.shape, dtype, scale, zero),
            Tensor("w", weight.shape, weight.dtype, weight_scale, weight_zero, 0, weight),
            Tensor("b", bias.shape, bias.dtype, product_scale, 0, 0, bias),
            Tensor("out", result.shape, dtype, out_scale, out_zero),
        ]
        operator = Operator("FULLY_CONNECTED", ["a", "w", "b"], ["out"], "FullyConnectedOptions")
        reference.check(result, operator, tensors, a=a)
    reference.finish()


def test_fully_connected_has_a_float64_scale_in_the_reference():
    """What a Q31 multiplier cannot follow: results within 2^-32, relative, of a tie may differ by one.

    The accumulator is the bias, beside a tie at 16-bit results, so that the last bits of the scale decide.
    """
    rng, channels, differ = np.random.default_rng(21), 2048, 0
    ifm, weight = np.zeros((1, 1), np.int16), np.ones((channels, 1), np.int8)
    for scales in ((0.013, 0.17, 171.0), (0.4, 0.003, 93.0), (0.07, 0.011, 41.7)):
        scale, weight_scale, out_scale = (float(np.float32(value)) for value in scales)
        real = scale * weight_scale / out_scale
        bias = np.rint((rng.integers(-32000, 32000, channels) + 0.5) / real).astype(np.int64)
        tensors = [
            Tensor("ifm", ifm.shape, np.int16, scale),
            Tensor("w", weight.shape, np.int8, weight_scale, 0, 0, weight),
            Tensor("b", bias.shape, np.int64, scale * weight_scale, 0, 0, bias),
            Tensor("out", (1, channels), np.int16, out_scale),
        ]
        operator = Operator("FULLY_CONNECTED", ["ifm", "w", "b"], ["out"], "FullyConnectedOptions")
        expected = run(operator, tensors, ifm=ifm)
        np.testing.assert_array_equal(expected[0], np.trunc(bias * real + np.copysign(0.5, bias)))
        acc, limits = np.zeros((1, channels), np.int64), full_range(np.int16)
        multiplier, shift = quantise_multiplier(real)
        result = quantised.finish(acc, bias, multiplier, shift, 0, *limits, Rounding.AWAY, np.int16)
        assert np.abs(result.astype(np.int32) - expected).max() <= 1
        differ += int((result != expected).sum())
    assert 0 < differ < channels


@pytest.mark.parametrize("dtype", [np.int8, np.int16])
def test_batch_matmul(dtype):
    reference = Reference(dtype, 30)
    rounding = Rounding.ACC64 if dtype == np.int16 else Rounding.DOUBLE
    while reference.compared < ENOUGH:
        depth = int(reference.rng.integers(1, 600))
        a, b = reference.values(2, 32, depth), reference.values(2, depth, 64)
        scale_a, scale_b, zero_a, zero_b, zero = (
            reference.scale(),
            reference.scale(),
            reference.zero(),
            reference.zero(),
            reference.zero(),
        )
        acc = quantised.matmul_accumulate(a, b, zero_a, zero_b)
        out_scale = output_scale(reference, acc, scale_a * scale_b)
        multiplier, shift = quantise_multiplier(scale_a * scale_b / out_scale)
        result = quantised.finish(acc, None, multiplier, shift, zero, *full_range(dtype), rounding, dtype)
        tensors = [
            Tensor("a", a.shape, dtype, scale_a, zero_a),
            Tensor("b", b.shape, dtype, scale_b, zero_b),
            Tensor("out", result.shape, dtype, out_scale, zero),
        ]
        reference.check(
            result, Operator("BATCH_MATMUL", ["a", "b"], ["out"], "BatchMatMulOptions"), tensors, a=a, b=b
        )
    reference.finish()


@INT8_UINT8
@pytest.mark.parametrize("kind", ["CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"])
def test_rounding_one_unit_from_ties(dtype, kind):
    """The accumulator is the bias alone: every channel holds one value beside a tie of its multiplier."""
    reference = Reference(dtype, 40)
    channels, compared = 4096, 0
    rounding = Rounding.AWAY if kind == "FULLY_CONNECTED" else Rounding.DOUBLE
    disagreements = 0
    for scale in (2.0**-9, 0.75 * 2.0**-9, 2.0**-13 * (1 + 2.0**-6), 0.0017, 3.1e-5):
        zero = reference.zero()
        multiplier, shift = quantise_multiplier(np.float64(np.float32(scale)))
        results = reference.rng.integers(-300, 300, channels)
        ties = np.floor((2 * results + 1) * 2.0 ** (30 - int(shift)) / float(multiplier))
        bias = (ties + reference.rng.integers(-1, 3, channels)).astype(np.int32)
        ifm = np.full((1, 1, 1, 1) if kind != "FULLY_CONNECTED" else (1, 1), 3, dtype)
        shapes = {
            "CONV_2D": (channels, 1, 1, 1),
            "DEPTHWISE_CONV_2D": (1, 1, 1, channels),
            "FULLY_CONNECTED": (channels, 1),
        }
        weight = np.ones(shapes[kind], np.uint8 if dtype == np.uint8 else np.int8)
        options = {
            "CONV_2D": ("Conv2DOptions", {"StrideH": 1, "StrideW": 1}),
            "DEPTHWISE_CONV_2D": (
                "DepthwiseConv2DOptions",
                {"StrideH": 1, "StrideW": 1, "DepthMultiplier": channels},
            ),
            "FULLY_CONNECTED": ("FullyConnectedOptions", {}),
        }
        tensors = [
            Tensor("ifm", ifm.shape, dtype, scale, 3),
            Tensor("w", weight.shape, weight.dtype, 1.0, 0, 0, weight),
            Tensor("b", bias.shape, np.int32, scale, 0, 0, bias),
            Tensor("out", (*ifm.shape[:-1], channels), dtype, 1.0, zero),
        ]
        expected = run(Operator(kind, ["ifm", "w", "b"], ["out"], *options[kind]), tensors, ifm=ifm)
        acc = np.zeros((1, channels), np.int32)
        both = {
            mode: quantised.finish(
                acc, bias, int(multiplier), int(shift), zero, *full_range(dtype), mode, dtype
            )
            for mode in (Rounding.AWAY, Rounding.DOUBLE)
        }
        np.testing.assert_array_equal(both[rounding].reshape(-1), expected.reshape(-1))
        disagreements += int((both[Rounding.AWAY] != both[Rounding.DOUBLE]).sum())
        compared += channels
    assert disagreements > 100, "these accumulators do not tell the roundings apart"


@ALL_TYPES
def test_accumulators_are_exact_at_the_extremes(dtype):
    """Long reductions of the largest values, where an unsplit float32 sum would be wrong."""
    reference = Reference(dtype, 50)
    rng, (low, high) = reference.rng, full_range(dtype)
    for depth in (1, 500, 520, 1030, 1040, 2500):
        zero, weight_zero = reference.zero(), reference.zero()
        a = rng.choice([low, low + 1, high], (2, 3, 4, depth)).astype(dtype)
        a[0] = low + 1  # all of one sign and odd: the sum passes every odd number
        b = rng.choice([low, high - 1, high], (depth, 5)).astype(dtype)
        b[:, :2] = high, low + 1
        exact = (a.astype(np.int64) - zero) @ (b.astype(np.int64) - weight_zero)
        acc = quantised.conv2d_accumulate(a, b[None, None], ifm_zero=zero, weight_zero=weight_zero)
        np.testing.assert_array_equal(acc, exact)
        np.testing.assert_array_equal(quantised.matmul_accumulate(a, b, zero, weight_zero), exact)
        assert acc.dtype == (np.int64 if dtype == np.int16 else np.int32)


def test_int16_sums_beyond_the_mantissa_of_a_double_are_exact():
    """A reduction whose sum passes 2^53 in odd steps is summed in slices."""
    depth = 2**23 + 2001
    a, b = np.full((1, depth), 32767, np.int16), np.full((depth, 1), 32767, np.int16)
    exact = depth * 32767**2
    assert exact > 2**53 and exact % 2 == 1
    assert quantised.matmul_accumulate(a, b).item() == exact
    acc = quantised.conv2d_accumulate(a[None, None], b[None, None])
    assert acc.item() == exact


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_convolution_in_pieces_is_the_convolution(data):
    """Partial sums over input channels and over the window's rows add up, and weights may be prepared."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    dtype = data.draw(st.sampled_from([np.int8, np.uint8]))
    low, high = full_range(dtype)
    ifm = rng.integers(low, high + 1, (2, 9, 8, 6)).astype(dtype)
    weight = rng.integers(low, high + 1, (3, 2, 6, 5)).astype(dtype)
    zeros = {"ifm_zero": int(ifm[0, 0, 0, 0]), "weight_zero": int(weight[0, 0, 0, 0])}
    whole = quantised.conv2d_accumulate(ifm, weight, **zeros)
    cut = data.draw(st.integers(1, 5))
    parts = [
        quantised.conv2d_accumulate(ifm[..., part], weight[:, :, part], **zeros)
        for part in (slice(0, cut), slice(cut, None))
    ]
    np.testing.assert_array_equal(parts[0] + parts[1], whole)
    rows = [quantised.conv2d_accumulate(ifm[:, ky : 7 + ky], weight[ky : ky + 1], **zeros) for ky in range(3)]
    np.testing.assert_array_equal(rows[0] + rows[1] + rows[2], whole)
    prepared = quantised.dense_operand(weight, dtype, zeros["weight_zero"])
    np.testing.assert_array_equal(
        quantised.conv2d_accumulate(ifm, prepared, ifm_zero=zeros["ifm_zero"]), whole
    )


# --- elementwise ---------------------------------------------------------------------------------

BINARY = {
    "ADD": ("AddOptions", quantised.add, quantised.add_parameters),
    "SUB": ("SubOptions", quantised.sub, quantised.add_parameters),
    "MUL": ("MulOptions", quantised.mul, quantised.mul_parameters),
}
RELU = 1  # the schema's ActivationFunctionType


@ALL_TYPES
@pytest.mark.parametrize("kind", BINARY)
def test_binary(dtype, kind):
    options, function, parameters = BINARY[kind]
    reference = Reference(dtype, 60)
    for case in range(14):
        scales = [reference.scale() for _ in range(3)] if case % 4 else [2.0**-4, 2.0**-5, 2.0**-4]
        zeros = [reference.zero() for _ in range(3)]
        # Large arrays go through the table, small ones and int16 through the definition.
        a = reference.values(1, 8, 8, 64 if case % 2 else 520)
        b = reference.values(*([1, 8, 8, a.shape[3]], [1, 1, 1, a.shape[3]], [8, 1])[case % 3])
        low = zeros[2] if case % 5 == 0 else None  # a fused RELU clamps at real zero
        flat = (value for pair in zip(scales, zeros, strict=True) for value in pair)
        result = function(a, b, parameters(*flat, dtype, low=low))  # type: ignore[call-arg, misc]
        fields = {"FusedActivationFunction": RELU if low is not None else 0}
        if kind != "MUL":
            fields["PotScaleInt16"] = False
        shapes = (a.shape, b.shape, result.shape)
        tensors = [
            Tensor(name, shape, dtype, scale, zero)
            for name, shape, scale, zero in zip(("a", "b", "out"), shapes, scales, zeros, strict=True)
        ]
        reference.check(result, Operator(kind, ["a", "b"], ["out"], options, fields), tensors, a=a, b=b)
    reference.finish()


def unary(reference, result, operator: Operator, x, scale, zero, out_scale, out_zero, *constants: Tensor):
    tensors = [
        Tensor("x", x.shape, x.dtype, scale, zero),
        *constants,
        Tensor("out", result.shape, result.dtype, out_scale, out_zero),
    ]
    reference.check(result, operator, tensors, x=x)


@ALL_TYPES
def test_leaky_relu(dtype):
    reference = Reference(dtype, 70)
    for _ in range(12):
        alpha = float(np.float32(reference.rng.uniform(-1.5, 1.5)))
        quantisation = reference.scale(), reference.zero(), reference.scale(), reference.zero()
        x = reference.values(64, 64)
        result = quantised.leaky_relu(x, quantised.leaky_relu_parameters(alpha, *quantisation))
        operator = Operator("LEAKY_RELU", ["x"], ["out"], "LeakyReluOptions", {"Alpha": alpha})
        unary(reference, result, operator, x, *quantisation)
    reference.finish()


@INT8_UINT8
def test_prelu(dtype):
    reference = Reference(dtype, 71)
    for _ in range(12):
        x, alpha = reference.values(1, 8, 8, 64), reference.values(1, 1, 64)
        scale, zero, out_scale, out_zero = (
            reference.scale(),
            reference.zero(),
            reference.scale(),
            reference.zero(),
        )
        alpha_scale, alpha_zero = reference.scale(-6, -2), reference.zero()
        parameters = quantised.prelu_parameters(scale, zero, alpha_scale, alpha_zero, out_scale, out_zero)
        constant = Tensor("alpha", alpha.shape, dtype, alpha_scale, alpha_zero, 0, alpha)
        result = quantised.prelu(x, alpha, parameters)
        operator = Operator("PRELU", ["x", "alpha"], ["out"])
        unary(reference, result, operator, x, scale, zero, out_scale, out_zero, constant)
    reference.finish()


@INT8_UINT8
def test_hard_swish(dtype):
    reference = Reference(dtype, 72)
    for _ in range(160):
        x, scale, zero, out_zero = (
            reference.values(256),
            reference.scale(-7, 1),
            reference.zero(),
            reference.zero(),
        )
        out_scale = max(reference.scale(-6, 0), scale / 120)
        result = quantised.hard_swish(x, quantised.hard_swish_parameters(scale, zero, out_scale, out_zero))
        unary(reference, result, Operator("HARD_SWISH", ["x"], ["out"]), x, scale, zero, out_scale, out_zero)
    reference.finish()


def test_hard_swish_refuses_an_output_scale_below_the_reference_range():
    with pytest.raises(ValueError, match="output scale of at least"):
        quantised.hard_swish_parameters(1.0, 0, 1 / 200, 0)


@INT8_UINT8
@pytest.mark.parametrize("kind", ["LOGISTIC", "TANH"])
def test_tables(dtype, kind):
    reference = Reference(dtype, 73)
    function, out_scale, out_zero = {
        "LOGISTIC": (quantised.logistic, 1 / 256, full_range(dtype)[0]),
        "TANH": (quantised.hyperbolic_tangent, 1 / 128, 128 if dtype == np.uint8 else 0),
    }[kind]
    x = np.arange(256, dtype=np.uint8).view(dtype)
    for _ in range(160):
        scale, zero = reference.scale(-7, 2), reference.zero()
        result = quantised.lookup(x, quantised.table(function, scale, zero, out_scale, out_zero, dtype))
        unary(reference, result, Operator(kind, ["x"], ["out"]), x, scale, zero, out_scale, out_zero)
    reference.finish()


@ALL_TYPES
@pytest.mark.parametrize("out_type", [np.int8, np.uint8, np.int16])
def test_requantise_tensor(dtype, out_type):
    if (dtype, out_type) == (np.int16, np.uint8):
        pytest.skip("TFLite has no QUANTIZE from int16 to uint8")
    reference, out_reference = Reference(dtype, 74), Reference(out_type, 75)
    for case in range(12):
        x, scale, zero, out_scale, out_zero = (
            reference.values(64, 64),
            reference.scale(),
            reference.zero(),
            reference.scale(),
            out_reference.zero(),
        )
        if case == 0:
            out_scale = scale
        multiplier, shift = quantise_multiplier(scale / out_scale)
        result = quantised.requantise_tensor(x, int(multiplier), int(shift), zero, out_zero, out_type)
        unary(reference, result, Operator("QUANTIZE", ["x"], ["out"]), x, scale, zero, out_scale, out_zero)
    reference.finish()


@ALL_TYPES
def test_quantise_and_dequantise(dtype):
    reference = Reference(dtype, 76)
    for _ in range(12):
        scale, zero = reference.scale(), reference.zero()
        x = (reference.rng.standard_normal((64, 64)) * scale * 150).astype(np.float32)
        halves = reference.rng.integers(-300, 300, (16, 64)) + 0.5
        x[:16] = halves.astype(np.float32) * np.float32(scale)
        x[16, :4] = np.float32(scale) * np.float32([0.49999997, -0.49999997, 1e6, -1e6])
        result = quantised.quantise(x, scale, zero, dtype)
        tensors = [Tensor("x", x.shape, np.float32), Tensor("out", x.shape, dtype, scale, zero)]
        reference.check(result, Operator("QUANTIZE", ["x"], ["out"]), tensors, x=x)
        tensors = [Tensor("q", x.shape, dtype, scale, zero), Tensor("out", x.shape, np.float32)]
        real = quantised.dequantise(result, scale, zero)
        np.testing.assert_array_equal(
            real, run(Operator("DEQUANTIZE", ["q"], ["out"], None), tensors, q=result)
        )
    reference.finish()


def test_quantise_saturates_where_the_reference_overflows_an_int32():
    assert quantised.quantise(np.float32([1e30, -1e30, np.inf]), 0.1, 3, np.int8).tolist() == [127, -128, 127]


# --- pooling, reductions, resizing ---------------------------------------------------------------


@ALL_TYPES
@pytest.mark.parametrize("kind", ["AVERAGE_POOL_2D", "MAX_POOL_2D"])
def test_pooling(dtype, kind):
    reference = Reference(dtype, 80)
    function = {"AVERAGE_POOL_2D": quantised.average_pool2d, "MAX_POOL_2D": quantised.max_pool2d}[kind]
    rng = reference.rng
    while reference.compared < ENOUGH:
        x, scale, zero = reference.values(2, 13, 12, 48), reference.scale(), reference.zero()
        kernel = tuple(int(v) for v in rng.integers(1, (5, 12)[int(rng.random() < 0.3)], 2))
        strides = tuple(int(v) for v in rng.integers(1, 4, 2))
        pads, padding, _ = window(rng, (13, 12), kernel, strides, (1, 1))
        fields = {
            "Padding": padding,
            "StrideH": strides[0],
            "StrideW": strides[1],
            "FilterHeight": kernel[0],
            "FilterWidth": kernel[1],
        }
        result = function(x, kernel, strides, pads)
        operator = Operator(kind, ["x"], ["out"], "Pool2DOptions", fields)
        unary(reference, result, operator, x, scale, zero, scale, zero)
    reference.finish()


@ALL_TYPES
def test_a_pool_in_pieces_is_the_pool(dtype):
    x = Reference(dtype, 81).values(1, 40, 7, 3)
    top, bottom = x[:, :17], x[:, 17:]
    total = quantised.pool_sum(top, (17, 7), (1, 1)) + quantised.pool_sum(bottom, (23, 7), (1, 1))
    whole = quantised.average_pool2d(x, (40, 7), (1, 1))
    np.testing.assert_array_equal(quantised.average_finish(total, 280, *full_range(dtype), dtype), whole)


def axes_case(reference: Reference):
    axes = ((1, 2), (3,), (1,), (0, 1, 2), (1, 2, 3), (2, 3))[int(reference.rng.integers(6))]
    shape = tuple(int(v) for v in reference.rng.integers(1, 24, 4))
    return axes, reference.values(*shape)


def reduction(reference: Reference, kind: str, function, axes, x) -> None:
    scale, zero, out_scale, out_zero = (
        reference.scale(),
        reference.zero(),
        reference.scale(),
        reference.zero(),
    )
    if kind == "SUM":
        out_scale *= 30
    out_scale = float(np.float32(out_scale))
    multiplier, shift = quantise_multiplier(scale / out_scale)
    result = function(x, axes, int(multiplier), int(shift), zero, out_zero)
    axes_tensor = Tensor("axes", (len(axes),), np.int32, data=np.array(axes, np.int32))
    operator = Operator(kind, ["x", "axes"], ["out"], "ReducerOptions", {"KeepDims": True})
    unary(reference, result, operator, x, scale, zero, out_scale, out_zero, axes_tensor)


@ALL_TYPES
def test_mean(dtype):
    reference = Reference(dtype, 82)
    while reference.compared < ENOUGH:
        reduction(reference, "MEAN", quantised.mean, *axes_case(reference))
    for _ in range(20):
        reduction(reference, "MEAN", quantised.mean, (1, 2), reference.values(1, 200, 60, 3))
    reference.finish()


def test_sum():
    """uint8 only: LiteRT 2.3's SUM reads int8 and int16 tensors as if they were uint8."""
    reference = Reference(np.uint8, 83)
    while reference.compared < ENOUGH:
        reduction(reference, "SUM", quantised.sum, *axes_case(reference))
    reference.finish()


@pytest.mark.parametrize("dtype", [np.int8, np.int16])
def test_sum_of_signed_types_is_the_scaled_mean(dtype):
    """The sum of n elements at scale s is their mean at scale s · n, up to the last rounding."""
    reference = Reference(dtype, 84)
    x, zero, out_zero = reference.values(5, 16, 40), reference.zero(), reference.zero()
    total = quantised.sum(x, (1,), *(int(part) for part in quantise_multiplier(1 / 16)), zero, out_zero)  # type: ignore[call-arg]
    average = quantised.mean(x, (1,), *(int(part) for part in quantise_multiplier(1.0)), zero, out_zero)  # type: ignore[call-arg]
    np.testing.assert_allclose(total.astype(np.int32), average.astype(np.int32), atol=1)


@ALL_TYPES
@pytest.mark.parametrize("kind", ["RESIZE_NEAREST_NEIGHBOR", "RESIZE_BILINEAR"])
def test_resize(dtype, kind):
    reference = Reference(dtype, 85)
    function, options = {
        "RESIZE_NEAREST_NEIGHBOR": (quantised.resize_nearest, "ResizeNearestNeighborOptions"),
        "RESIZE_BILINEAR": (quantised.resize_bilinear, "ResizeBilinearOptions"),
    }[kind]
    for case in range(45):
        x, scale, zero = reference.values(2, *reference.rng.integers(1, 12, 2), 8), 0.1, reference.zero()
        size = tuple(int(v) for v in reference.rng.integers(1, 24, 2))
        align, half = ((False, False), (True, False), (False, True))[case % 3]
        result = function(x, size, align, half)
        size_tensor = Tensor("size", (2,), np.int32, data=np.array(size, np.int32))
        fields = {"AlignCorners": align, "HalfPixelCenters": half}
        operator = Operator(kind, ["x", "size"], ["out"], options, fields)
        unary(reference, result, operator, x, scale, zero, scale, zero, size_tensor)
    reference.finish()


# --- tables of int16 -----------------------------------------------------------------------------
def exponential(x: np.ndarray) -> np.ndarray:
    """e^x as the C library has it in float32."""
    with np.errstate(over="ignore"):
        return np.exp(x.astype(np.float64)).astype(np.float32)


def test_interpolated_tables_of_int16():
    """EXP is made of nothing else: its table, and how it is read, over all 65,536 values a case."""
    reference = Reference(np.int16, 95)
    x = np.arange(-(2**15), 2**15).astype(np.int16).reshape(256, 256)
    for _ in range(12):
        scale, out_scale = reference.scale(-12, -5), reference.scale(-9, 3)
        result = quantised.lookup16(x, quantised.table16(exponential, scale, 0, out_scale, 0))
        unary(reference, result, Operator("EXP", ["x"], ["out"], "ExpOptions"), x, scale, 0, out_scale, 0)
    reference.finish()


# --- softmax -------------------------------------------------------------------------------------


@INT8_UINT8
def test_softmax(dtype):
    reference = Reference(dtype, 90)
    for _ in range(60):
        x = reference.values(8, int(reference.rng.integers(1, 400)))
        x[:, : x.shape[1] // 2] //= 2  # rows whose tail matters, too
        scale, zero, beta = reference.scale(-7, 1), reference.zero(), reference.scale(-1, 1)
        result = quantised.softmax(x, quantised.softmax_parameters(scale, beta))
        operator = Operator("SOFTMAX", ["x"], ["out"], "SoftmaxOptions", {"Beta": beta})
        unary(reference, result, operator, x, scale, zero, 1 / 256, full_range(dtype)[0])
    reference.finish()


def test_softmax_of_int8_in_int16():
    """The same kernel with 16 bits of output, which show its last bits."""
    reference = Reference(np.int8, 92)
    for _ in range(60):
        x, scale, zero = reference.values(8, 200), reference.scale(-7, 1), reference.zero()
        x[:4] = np.minimum(x[:4], -100)
        result = quantised.softmax(x, quantised.softmax_parameters(scale), np.int16)
        operator = Operator("SOFTMAX", ["x"], ["out"], "SoftmaxOptions", {"Beta": 1.0})
        unary(reference, result, operator, x, scale, zero, 1 / 65536, -(2**15))
    reference.finish()


def test_softmax_of_int16():
    reference = Reference(np.int16, 93)
    for case in range(60):
        x = reference.values(8, int(reference.rng.integers(1, 400)))
        x[:, ::2] //= 1 << int(reference.rng.integers(0, 9))
        scale, beta = reference.scale(-12, -3), reference.scale(-1, 1) if case % 2 else 1.0
        result = quantised.softmax16(x, quantised.softmax16_parameters(scale, beta))
        operator = Operator("SOFTMAX", ["x"], ["out"], "SoftmaxOptions", {"Beta": beta})
        unary(reference, result, operator, x, scale, 0, 1 / 32768, 0)
    reference.finish()


def test_softmax_of_int16_in_pieces_is_the_softmax():
    x = Reference(np.int16, 94).values(5, 900)
    parameters = quantised.softmax16_parameters(0.0003)
    row_max, halves = quantised.softmax_row_max(x), (x[:, :333], x[:, 333:])
    exp_sum = sum(quantised.softmax16_exp_sum(half, row_max, parameters) for half in halves)  # type: ignore[misc]
    outputs = [quantised.softmax16_output(half, row_max, exp_sum, parameters) for half in halves]
    np.testing.assert_array_equal(np.concatenate(outputs, axis=-1), quantised.softmax16(x, parameters))


@INT8_UINT8
def test_softmax_in_pieces_is_the_softmax(dtype):
    x = Reference(dtype, 91).values(3, 4, 1000)
    parameters = quantised.softmax_parameters(0.02)
    pieces = np.split(x, [100, 101, 640], axis=-1)
    row_max = np.maximum.reduce([quantised.softmax_row_max(piece) for piece in pieces])
    sums = [quantised.softmax_exp_sum(piece, row_max, parameters) for piece in pieces]
    exp_sum = sums[0] + sums[1] + sums[2] + sums[3]
    assert exp_sum.dtype == np.int32
    outputs = [quantised.softmax_output(piece, row_max, exp_sum, parameters) for piece in pieces]
    np.testing.assert_array_equal(np.concatenate(outputs, axis=-1), quantised.softmax(x, parameters))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("dtype", "zero"), [(np.int8, 3), (np.uint8, 128), (np.int16, 0)])
def test_nan_is_quantised_to_the_zero_point(dtype, zero):
    x = np.array([np.nan, 1.0, np.inf, -np.inf, 3e38], np.float32)
    info = np.iinfo(dtype)
    wanted = [zero, zero + 2, info.max, info.min, info.max]
    np.testing.assert_array_equal(quantised.quantise(x, 0.5, zero, dtype), wanted)
    assert quantised.quantise(np.float32(np.nan), 0.5, zero, dtype) == zero
