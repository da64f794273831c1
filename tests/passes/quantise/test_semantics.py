"""Every rule: the quantised op computes what the float op does, within a step or two of its scale."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacre.runtime.interpreter import interpret

X = "tensor<1x6x5x4xf32>"
X8 = "tensor<1x6x5x8xf32>"
STEP = 1 / 255


def unary(op: str, type_: str = X) -> str:
    return f"x: {type_}\n%y = graph.{op} : {type_}"


def text(head: str, *lines: str) -> str:
    return "\n".join((f"x: {head}", *lines))


TAPS = "[[[[0.5, -0.25]], [[1.0, 0.125]]], [[[-1.0, 0.75]], [[0.3, -0.4]]]]"
W22 = f"%w = graph.constant dense<{TAPS}> : tensor<2x2x1x2xf32>"
ROWS = "[[0.5, -0.2, 1.0], [2.0, 0.1, -0.4], [-1.0, 0.02, 0.3], [0.7, 0.3, -0.9]]"
ROW = f"%w = graph.constant dense<{ROWS}> : tensor<4x3xf32>"
FOUR = "%w = graph.constant dense<[0.02, 2.0, -1.0, 0.4]> : tensor<4xf32>"

# name: (float function, the ops it becomes, largest error in 1/255 of the result's range; 0: stays float)
CASES = {
    "relu, whose type the quantised input adopts": (unary("relu %x"), ["quant.qcast", "quant.dcast"], 1.1),
    "clamp of a value that others use": (
        text(f"{X}; z: {X}", f"%c = graph.clamp %x {{low = -1.0, high = 2.0}} : {X}",
             f"%m = graph.mul %x, %z : {X}", f"%y = graph.add %c, %m : {X}"),
        ["quant.qcast", "quant.qcast", "qnn.clamp", "qnn.mul", "qnn.add", "quant.dcast"], 2.6,
    ),
    "relu of a value that others use": (
        text(f"{X}; z: {X}", f"%c = graph.relu %x : {X}", f"%m = graph.mul %x, %z : {X}",
             f"%y = graph.add %c, %m : {X}"),
        ["quant.qcast", "quant.qcast", "qnn.clamp", "qnn.mul", "qnn.add", "quant.dcast"], 2.6,
    ),
    "concat of a value that others use": (
        text(X, f"%t = graph.tanh %x : {X}", f"%a = graph.concat %t, %x {{axis = 3}} : {X8}",
             f"%b = graph.concat %t, %t {{axis = 3}} : {X8}", f"%y = graph.mul %a, %b : {X8}"),
        ["quant.qcast", "qnn.table", "qnn.requantise", "concat", "concat", "qnn.mul", "quant.dcast"], 2.6,
    ),
    "sigmoid": (unary("sigmoid %x"), ["quant.qcast", "qnn.table", "quant.dcast"], 1.5),
    "tanh": (unary("tanh %x"), ["quant.qcast", "qnn.table", "quant.dcast"], 2.1),
    "gelu": (unary("gelu %x"), ["quant.qcast", "qnn.table", "quant.dcast"], 2.1),
    "exp": (unary("exp %x"), ["quant.qcast", "qnn.table", "quant.dcast"], 4),
    "leaky relu": (unary("leaky_relu %x {alpha = 0.1}"), ["quant.qcast", "qnn.table", "quant.dcast"], 1.6),
    "close to a pole": (
        text(X, "%c = graph.constant dense<1.0> : tensor<f32>", f"%y = graph.div %c, %x : {X}"), ["div"], 0,
    ),
    "add": (text(f"{X}; z: {X}", f"%y = graph.add %x, %z : {X}"),
            ["quant.qcast", "quant.qcast", "qnn.add", "quant.dcast"], 1.6),
    "sub": (text(f"{X}; z: {X}", f"%y = graph.sub %x, %z : {X}"),
            ["quant.qcast", "quant.qcast", "qnn.add", "quant.dcast"], 1.6),
    "mul": (text(f"{X}; z: {X}", f"%y = graph.mul %x, %z : {X}"),
            ["quant.qcast", "quant.qcast", "qnn.mul", "quant.dcast"], 1.6),
    "add a constant": (
        text(X, FOUR, f"%y = graph.add %x, %w : {X}"), ["quant.qcast", "qnn.add", "quant.dcast"], 1.6
    ),
    "mul by a constant a channel": (
        text(X, FOUR, f"%y = graph.mul %x, %w : {X}"), ["quant.qcast", "qnn.conv", "quant.dcast"], 1.1
    ),
    "add a scalar": (
        text(X, "%c = graph.constant dense<0.7> : tensor<f32>", f"%y = graph.add %x, %c : {X}"),
        ["quant.qcast", "qnn.table", "quant.dcast"], 1.6,
    ),
    "a scalar over": (
        text(X, "%c = graph.constant dense<-2.0> : tensor<f32>", f"%a = graph.sub %c, %x : {X}",
             f"%y = graph.mul %a, %c : {X}"),
        ["quant.qcast", "qnn.table", "quant.dcast"], 1.6,
    ),
    "x · sigmoid(x)": (
        text(X, f"%s = graph.sigmoid %x : {X}", f"%y = graph.mul %x, %s : {X}"),
        ["quant.qcast", "qnn.table", "quant.dcast"], 2.1,
    ),
    "square": (text(X, f"%y = graph.mul %x, %x : {X}"), ["quant.qcast", "qnn.table", "quant.dcast"], 2.6),
    "div by a constant": (
        text(X, "%w = graph.constant dense<[[2.0], [-4.0], [1.0], [3.0], [8.0]]> : tensor<5x1xf32>",
             f"%y = graph.div %x, %w : {X}"),
        ["quant.qcast", "qnn.mul", "quant.dcast"], 1.6,
    ),
    "div of activations": (text(f"{X}; z: {X}", f"%y = graph.div %x, %z : {X}"), ["div"], 0),
    "a float layer between tables": (
        text(X, FOUR, f"%a = graph.sigmoid %x : {X}", f"%b = graph.layer_norm %a, %w {{axis = 3}} : {X}",
             f"%y = graph.tanh %b : {X}"),
        ["quant.qcast", "qnn.table", "quant.dcast", "layer_norm", "quant.qcast", "qnn.table", "quant.dcast"],
        8,
    ),
    "prelu": (
        text(X, FOUR, f"%y = graph.prelu %x, %w : {X}"), ["quant.qcast", "qnn.prelu", "quant.dcast"], 1.6
    ),
    "max of floats": (text(f"{X}; z: {X}", f"%y = graph.max %x, %z : {X}"), ["max"], 0),
    "max": (text(f"{X}; z: {X}", f"%t = graph.tanh %x : {X}", f"%y = graph.max %t, %z : {X}"),
            ["quant.qcast", "quant.qcast", "qnn.table", "max", "quant.dcast"], 2.1),
    "select": (
        text(f"{X}; c: {X.replace('f32', 'i1')}", f"%t = graph.tanh %x : {X}", f"%s = graph.sigmoid %x : {X}",
             f"%y = graph.select %c, %t, %s : {X}"),
        ["quant.qcast", "qnn.table", "qnn.table", "select", "quant.dcast"], 2.1,
    ),
    "softmax": (unary("softmax %x {axis = 3}"), ["quant.qcast", "qnn.softmax", "quant.dcast"], 2.5),
    "softmax over another axis": (
        unary("softmax %x {axis = 1}"),
        ["quant.qcast", "transpose", "qnn.softmax", "transpose", "quant.dcast"], 3,
    ),
    "depthwise conv": (
        text("tensor<1x6x5x2xf32>", W22,
             "%y = graph.conv %x, %w {strides = [2, 1], pads = [1, 0, 0, 1], dilations = [1, 1], groups = 2}"
             " : tensor<1x3x5x2xf32>"),
        ["quant.qcast", "qnn.conv", "quant.dcast"], 2.1,
    ),
    "conv of rank 3": (
        text("tensor<1x6x1xf32>",
             "%w = graph.constant dense<[[[0.5, -0.25]], [[1.0, 0.125]]]> : tensor<2x1x2xf32>",
             "%b = graph.constant dense<[3.0, -40.0]> : tensor<2xf32>",
             "%y = graph.conv %x, %w, %b {strides = [2], pads = [1, 1], dilations = [1]}"
             " : tensor<1x4x2xf32>"),
        ["quant.qcast", "reshape", "qnn.conv", "reshape", "quant.dcast"], 1.6,
    ),
    "conv with computed weights": (
        text("tensor<1x6x5x1xf32>; w: tensor<2x2x1x2xf32>",
             "%y = graph.conv %x, %w {strides = [1, 1], pads = [0, 0, 0, 0], dilations = [1, 1]}"
             " : tensor<1x5x4x2xf32>"),
        ["conv"], 0,
    ),
    "batch norm": (
        text(X, FOUR, "%v = graph.constant dense<[0.5, 2.0, 1.0, 0.1]> : tensor<4xf32>",
             f"%y = graph.batch_norm %x, %v, %w, %w, %v {{axis = 3}} : {X}"),
        ["quant.qcast", "qnn.conv", "quant.dcast"], 1.6,
    ),
    "matmul": (
        text("tensor<2x4xf32>", ROW, "%b = graph.constant dense<[1.0, -2.0, 0.5]> : tensor<3xf32>",
             "%y = graph.matmul %x, %w, %b : tensor<2x3xf32>"),
        ["quant.qcast", "qnn.matmul", "quant.dcast"], 2.1,
    ),
    "matmul of activations": (
        text("tensor<3x2x4xf32>; z: tensor<3x4x5xf32>", "%y = graph.matmul %x, %z : tensor<3x2x5xf32>"),
        ["quant.qcast", "quant.qcast", "qnn.matmul", "quant.dcast"], 2.6,
    ),
    "average pool": (
        text(X, "%y = graph.avg_pool %x {kernel = [2, 2], strides = [2, 2], pads = [0, 0, 0, 0], "
             "dilations = [1, 1]} : tensor<1x3x2x4xf32>"),
        ["quant.qcast", "qnn.conv", "quant.dcast"], 1.6,
    ),
    "average pool that counts inside": (
        text(X, "%y = graph.avg_pool %x {kernel = [2, 2], strides = [2, 2], pads = [0, 0, 0, 1], "
             "dilations = [1, 1]} : tensor<1x3x3x4xf32>"),
        ["quant.qcast", "qnn.avg_pool", "quant.dcast"], 2.5,
    ),
    "average pool that counts padding, with overhang": (
        text(X, "%y = graph.avg_pool %x {kernel = [2, 2], strides = [2, 2], pads = [1, 1, 1, 1], "
             "overhang = [1, 1], count_include_pad = true, dilations = [1, 1]} : tensor<1x4x3x4xf32>"),
        ["quant.qcast", "pad", "qnn.avg_pool", "quant.dcast"], 2.5,
    ),
    "max pool with padding": (
        text(X, "%y = graph.max_pool %x {kernel = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1], "
             "dilations = [1, 1]} : tensor<1x3x3x4xf32>"),
        ["max_pool"], 0,
    ),
    "mean over space": (
        text(X, "%y = graph.reduce_mean %x {axes = [1, 2], keepdims = false} : tensor<1x4xf32>"),
        ["quant.qcast", "qnn.conv", "reshape", "quant.dcast"], 2.6,
    ),
    "sum over the last axis": (
        text("tensor<3x5xf32>", "%y = graph.reduce_sum %x {axes = [1]} : tensor<3x1xf32>"),
        ["quant.qcast", "qnn.matmul", "quant.dcast"], 2.6,
    ),
    "mean over mixed axes": (
        text("tensor<2x3x5x2xf32>",
             "%y = graph.reduce_mean %x {axes = [0, 2, 3], keepdims = false} : tensor<3xf32>"),
        ["quant.qcast", "transpose", "reshape", "qnn.matmul", "reshape", "quant.dcast"], 3,
    ),
    "transposed conv": (
        text("tensor<1x3x4x1xf32>", W22,
             "%y = graph.conv_transpose %x, %w {strides = [2, 3], pads = [0, 1, 1, 0], dilations = [1, 1], "
             "output_pads = [1, 0]} : tensor<1x6x10x2xf32>"),
        ["quant.qcast", "reshape", "pad", "reshape", "slice", "qnn.conv", "quant.dcast"], 1.6,
    ),
}  # fmt: skip


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("name", CASES)
def test_rule(ir, qu, name: str, dtype: str) -> None:
    body, ops, steps = CASES[name]
    module = ir.parse(body)
    positive = name in ("close to a pole", "div of activations")
    error = qu.error(module, dtype, low=1e-6 if positive else -3)
    assert qu.names(module) == ops
    assert error <= steps * STEP


IN_16_BITS = {"relu, whose type the quantised input adopts": ["quant.qcast", "qnn.clamp", "quant.dcast"]}
"""A symmetric type holds negative numbers even where none were seen."""


@pytest.mark.parametrize(("dtype", "share"), [("int16", 0.025), ("int16x8", 0.4)])
@pytest.mark.parametrize("name", CASES)
def test_rule_in_16_bits(ir, qu, name: str, dtype: str, share: float) -> None:
    """The same ops, with a fraction of the error."""
    body, ops, steps = CASES[name]
    module = ir.parse(body)
    positive = name in ("close to a pole", "div of activations")
    error = qu.error(module, dtype, low=1e-6 if positive else -3)
    found = [op.replace("softmax16", "softmax") for op in qu.names(module)]
    assert found == IN_16_BITS.get(name, ops)
    assert error <= share * steps * STEP


UNARY = (
    "abs", "neg", "exp", "sin", "cos", "erf", "sigmoid", "hard_sigmoid", "tanh", "gelu", "hard_swish", "elu",
    "leaky_relu", "sqrt", "rsqrt", "ceil", "round",
)  # fmt: skip


@pytest.mark.parametrize("op", UNARY)
def test_unary_functions_have_tables(ir, qu, op: str) -> None:
    """No op has a line of its own for this."""
    module = ir.parse(unary(f"{op} %x", "tensor<64xf32>"))
    error = qu.error(module, low=1.0, high=3.0)
    assert qu.names(module) == ["quant.qcast", "qnn.table", "quant.dcast"]
    jumps = op in ("ceil", "round")
    assert error <= (1.01 / 3 if jumps else 2.5 * STEP)


@settings(max_examples=40, deadline=None)
@given(
    size=st.tuples(st.integers(3, 7), st.integers(3, 7)),
    channels=st.integers(1, 3),
    groups=st.integers(1, 3),
    filters=st.integers(1, 2),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dilations=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    pads=st.tuples(*[st.integers(0, 3)] * 4),
    extra=st.tuples(st.integers(0, 1), st.integers(0, 1)),
    transposed=st.booleans(),
    dtype=st.sampled_from(["int8", "uint8", "int16", "int16x8"]),
    seed=st.integers(0, 99),
)
def test_convolutions(
    ir, qu, size, channels, groups, filters, kernel, strides, dilations, pads, extra, transposed, dtype, seed
) -> None:
    """Any geometry, transposed ones among them, in all types."""
    reach = [d * (k - 1) + 1 for d, k in zip(dilations, kernel)]
    both = [pads[i] + pads[i + 2] for i in range(2)]
    if transposed:
        out = [s * (n - 1) + e + r - p for s, n, e, r, p in zip(strides, size, extra, reach, both)]
    else:
        out = [(n + p - r) // s + 1 for n, p, r, s in zip(size, both, reach, strides)]
    if min(out) < 1:
        return
    rng = np.random.default_rng(seed)
    m = groups * filters
    weight = rng.normal(0, 1, (*kernel, channels, m)) * 10.0 ** rng.integers(-2, 2, m)
    weight, bias = weight.astype(np.float32), rng.normal(0, 3, m).astype(np.float32)
    output_pads = f", output_pads = {list(extra)}" if transposed else ""
    module = ir.parse(
        f"x: tensor<1x{size[0]}x{size[1]}x{channels * groups}xf32>\n"
        f"%w = graph.constant dense<{weight.tolist()}> : tensor<{kernel[0]}x{kernel[1]}x{channels}x{m}xf32>\n"
        f"%b = graph.constant dense<{bias.tolist()}> : tensor<{m}xf32>\n"
        f"%y = graph.conv{'_transpose' if transposed else ''} %x, %w, %b {{strides = {list(strides)}, "
        f"pads = {list(pads)}, dilations = {list(dilations)}, groups = {groups}{output_pads}}} "
        f": tensor<1x{out[0]}x{out[1]}x{m}xf32>"
    )
    # rounded weights and inputs add up over the taps as independent errors would, a few steps
    assert qu.error(module, dtype) <= (6 * STEP if dtype != "int16" else 6 * STEP / 100)


MODES = ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "half_pixel_symmetric")


@settings(max_examples=30, deadline=None)
@given(
    size=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    out=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    coordinates=st.sampled_from(MODES),
    mode=st.sampled_from(["nearest", "linear"]),
    dtype=st.sampled_from(["int8", "uint8"]),
)
def test_resize(ir, qu, size, out, coordinates, mode, dtype) -> None:
    """Nearest moves integers, linear goes by tables; the scale stays in both."""
    module = ir.parse(
        f"x: tensor<1x{size[0]}x{size[1]}x2xf32>\n"
        f"%i = graph.relu %x : tensor<1x{size[0]}x{size[1]}x2xf32>\n"
        f'%y = graph.resize %i {{sizes = {list(out)}, mode = "{mode}", coordinates = "{coordinates}"}} '
        f": tensor<1x{out[0]}x{out[1]}x2xf32>"
    )
    feeds = qu.feeds(module, 4)
    [wanted] = interpret(module, feeds[0]).values()
    qu.error(module, dtype)
    resized = qu.op(module, "qnn.resize" if mode == "linear" else "graph.resize")
    step = resized.results[0].type.element_type.scale
    assert resized.operands[0].type.element_type == resized.results[0].type.element_type
    [found] = interpret(module, feeds[0]).values()
    assert np.abs(found - wanted).max() <= 1.2 * step
