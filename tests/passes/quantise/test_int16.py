"""int16 and int16x8: the types they choose, sums that fit, tables, and how accurate networks are."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacre.dialects.quant import QuantType, quantised
from nacre.dialects.rounding import Rounding
from nacre.dialects.types import element_type, i8, i16, i32, i64
from nacre.passes.quantise.parameters import activation_type, ones, quantise_weight
from nacre.passes.quantise.quantise import quantise
from nacre.passes.quantise.ranges import Range
from nacre.runtime.kernels.quantised import lookup16, table16

pytest.importorskip("onnxruntime")
from nacre.benchmarks import sqnr

SHARED = Path(sqnr.__file__).parents[2] / "shared"
BOTH = pytest.mark.parametrize(("dtype", "weights"), [("int16", i16), ("int16x8", i8)])
CONV = """x: tensor<1x4x4x2xf32>
%w = graph.constant dense<[[[[0.5, -0.25], [1.0, 0.0]]]]> : tensor<1x1x2x2xf32>
%b = graph.constant dense<[40000.0, 1.0]> : tensor<2xf32>
%y = graph.conv %x, %w, %b {strides = [1, 1], pads = [0, 0, 0, 0], dilations = [1, 1]} : tensor<1x4x4x2xf32>
"""


# --- types -----------------------------------------------------------------------------------------------
@BOTH
def test_types_of_a_convolution(ir, qu, dtype: str, weights) -> None:
    module = ir.parse(CONV)
    qu.error(module, dtype, low=-3, high=1)
    conv, cast = qu.op(module, "qnn.conv"), qu.op(module, "quant.qcast")
    x = element_type(cast.result)
    assert isinstance(x, QuantType) and (x.storage, x.zero) == (i16, 0)
    assert x.scale * 32767 / 2 == pytest.approx(3, rel=0.05), "the range has room for as much again"
    weight = element_type(conv.weight)
    assert isinstance(weight, QuantType) and (weight.storage, weight.data.axis) == (weights, 3)
    assert element_type(conv.bias) == i64 and element_type(conv.multiplier) == i32
    p = conv.parameters()
    assert (p.low, p.high, p.ifm_zero, p.weight_zero, p.ofm_zero) == (-32768, 32767, 0, 0, 0)
    assert p.rounding == (Rounding.SINGLE if dtype == "int16" else Rounding.ACC64)


@BOTH
def test_constants_have_no_room_beyond_their_range(ir, qu, dtype: str, weights) -> None:
    lines = "%w = graph.constant dense<[1.0, -2.0]> : tensor<2xf32>\n%y = graph.add %x, %w : tensor<3x2xf32>"
    module = ir.parse(f"x: tensor<3x2xf32>\n{lines}")
    qu.error(module, dtype)
    constant = element_type(qu.op(module, "qnn.add").b)
    assert isinstance(constant, QuantType) and constant.scale == pytest.approx(2 / 32767)


@pytest.mark.parametrize(("low", "high"), [(-1.0, 3.0), (-3.0, 1.0), (2.0, 3.0), (0.0, 0.0), (-1e-44, 1e-44)])
def test_ranges_are_symmetric(low: float, high: float) -> None:
    type_ = activation_type(Range(low, high), i16)
    assert type_.zero == 0
    assert type_.scale == pytest.approx(3 / 32767 if high > 0.5 or low < -0.5 else 1.0)


@settings(max_examples=60, deadline=None)
@given(
    weights=st.sampled_from([i8, i16]),
    taps=st.integers(1, 3000),
    scale=st.floats(1e-6, 10),
    bias=st.floats(0, 1e9),
    seed=st.integers(0, 99),
)
def test_no_sum_leaves_48_bits(weights, taps: int, scale: float, bias: float, seed: int) -> None:
    """ACC64 has 48 bits for a sum; a scale is enlarged until bias and worst input fit."""
    rng = np.random.default_rng(seed)
    weight, biases = rng.normal(0, 1, (1, 1, taps, 2)), np.array([bias, -bias])
    ifm = quantised(i16, scale)
    made = quantise_weight(weight.astype(np.float32), biases.astype(np.float32), ifm, weights)
    assert made.bias is not None and made.bias.dtype == np.int64
    sums = np.abs(made.values.astype(np.int64)).sum(axis=(0, 1, 2)) * 32768 + np.abs(made.bias)
    assert (sums < 2**47).all()
    step = made.scales * ifm.scale
    assert (np.abs(made.bias * step - biases) <= step / 2 + 1e-6 * bias).all()


def test_means_have_8_bit_ones() -> None:
    made = ones((2, 2, 1, 3), 0.25, quantised(i16, 0.1))
    assert made.values.dtype == np.int8 and made.type == quantised(i8, 0.25)


# --- tables ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("function", [np.tanh, np.sin, lambda x: x / (1 + np.exp(-x)), np.abs])
def test_a_table_is_the_function(function) -> None:
    """Interpolation errs by an eighth of step² times the curvature; the rounding by a step or two."""
    x = np.arange(-32768, 32768).astype(np.int16)
    scale_in, scale_out = 4 / 32768, 4 / 32768
    real = function(x * scale_in)
    found = lookup16(x, table16(function, scale_in, 0, scale_out, 0)) * scale_out
    assert np.abs(found - real).max() <= (8 / 512) ** 2 / 8 * 1.1 + 2 * scale_out


def test_a_table_with_a_zero_point_is_refused() -> None:
    with pytest.raises(ValueError, match="not the zero point 3"):
        table16(np.tanh, 0.1, 0, 0.1, 3)


def test_what_a_table_cannot_follow_stays_float(ir, qu) -> None:
    """A staircase jumps between two samples."""
    module = ir.parse("x: tensor<64xf32>\n%y = graph.floor %x : tensor<64xf32>")
    qu.error(module, "int16")
    assert qu.names(module) == ["floor"]


def test_a_function_of_what_stays_float_begins_at_the_integers_below(ir, qu) -> None:
    """x - 2 · floor(x / 2), PyTorch's remainder: its product is a function of x / 2, which is integers by then."""
    module = ir.parse("""x: tensor<64xf32>
        %half = graph.constant dense<0.5> : tensor<f32>
        %two = graph.constant dense<2.0> : tensor<f32>
        %h = graph.mul %x, %half : tensor<64xf32>
        %f = graph.floor %h : tensor<64xf32>
        %m = graph.mul %f, %two : tensor<64xf32>
        %y = graph.sub %x, %m : tensor<64xf32>""")
    qu.error(module, "int16")
    assert "floor" in qu.names(module)


def test_an_average_whose_sum_leaves_32_bits_stays_float(ir, qu) -> None:
    for size, ops in ((256, ["quant.qcast", "qnn.avg_pool", "quant.dcast"]), (257, ["avg_pool"])):
        window = f"kernel = [256, {size}], strides = [1, 1], pads = [0, 0, 0, 1], dilations = [1, 1]"
        known = "nacre.range = [0.0 : f32, 1.0 : f32]"
        module = ir.parse(
            f"x: tensor<1x256x256x1xf32> {{{known}}}\n"
            f"%y = graph.avg_pool %x {{{window}, {known}}} : tensor<1x1x{258 - size}x1xf32>"
        )
        quantise(module, "int16")
        module.verify()
        assert qu.names(module) == ops


# --- networks --------------------------------------------------------------------------------------------
def accuracies(model: Path, dtype: str, feeds: list, known: int) -> tuple[float, float]:
    """Signal to noise in dB of a network, and of its float version with rounded weights."""
    reference = sqnr.onnx_runtime(model)
    runs = sqnr.nacre_quantised(model, feeds[:known], dtype), sqnr.weights_alone(model, dtype)
    wanted = [reference(f) for f in feeds[known:]]
    mine, alone = (sqnr.accuracy(wanted, [run(f) for f in feeds[known:]]).sqnr for run in runs)
    return mine, alone


def test_a_small_network(tmp_path: Path) -> None:
    """16-bit activations lose next to nothing, on inputs that go beyond those calibrated with, too."""
    rng = np.random.default_rng(0)
    shapes = {"w1": (8, 3, 3, 3), "w2": (8, 8, 3, 3), "w3": (8, 5)}
    constants = [
        onnx.numpy_helper.from_array((rng.standard_normal(s) / 3).astype(np.float32), n)
        for n, s in shapes.items()
    ]
    make = onnx.helper.make_node
    nodes = [
        make("Conv", ["x", "w1"], ["c"]), make("Relu", ["c"], ["r"]), make("Conv", ["r", "w2"], ["d"]),
        make("Tanh", ["d"], ["t"]), make("GlobalAveragePool", ["t"], ["g"]), make("Flatten", ["g"], ["f"]),
        make("Gemm", ["f", "w3"], ["y"]),
    ]  # fmt: skip
    ends = [onnx.helper.make_tensor_value_info(n, 1, s) for n, s in (("x", [1, 3, 12, 12]), ("y", [1, 5]))]
    graph = onnx.helper.make_graph(nodes, "small", ends[:1], ends[1:], constants)
    model = tmp_path / "small.onnx"
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=10), model
    )
    feeds = [{"x": rng.standard_normal((1, 3, 12, 12)).astype(np.float32)} for _ in range(16)]
    mine, _ = accuracies(model, "int16", feeds, 4)
    assert mine > 60
    mine, alone = accuracies(model, "int16x8", feeds, 4)
    assert alone - 1 < mine < alone + 1 < 50


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mnist_cnn", "mlperf_ic_resnet8", "mlperf_vww_mbv1"])
def test_networks(name: str) -> None:
    model = SHARED / "models" / f"{name}.onnx"
    if not model.exists():
        pytest.skip(f"{model} is not there: the shared models are kept beside the repository")
    feeds = sqnr.inputs_of(model, 48, SHARED / "accept.py")
    mine, _ = accuracies(model, "int16", feeds, 16)
    assert mine > 50
    mine, alone = accuracies(model, "int16x8", feeds, 16)
    assert mine > alone - 3
