"""graph-fold-batch-norm and graph-fold-scale: text, names, and results within float32 rounding."""

import numpy as np
import pytest
from nacre.dialects import graph
from nacre.passes.graph.fold_batch_norm import FoldBatchNormPass
from nacre.passes.graph.fold_scale import FoldScalePass
from xdsl.dialects.builtin import NameLoc

X = "tensor<1x5x5x4xf32>"
Y = "tensor<1x5x5x6xf32>"
C = "tensor<6xf32>"
SAME = "strides = [1, 1], pads = [1, 1, 1, 1], dilations = [1, 1]"
VALID = "strides = [1, 1], pads = [0, 0, 0, 0], dilations = [1, 1]"


def fill(shape: str, seed: int, low: float = -1.0) -> str:
    """A constant of random numbers as text."""
    sizes = [int(d) for d in shape.removesuffix(">").removeprefix("tensor<").split("x")[:-1]]
    values = np.random.default_rng(seed).uniform(low, 1.5, sizes).astype(np.float32)
    return f"graph.constant dense<{values.tolist()}> : {shape}"


def batch_norm(of: str, type_: str, axis: int, channels: int = 6, result: str = "%y") -> str:
    vector = f"tensor<{channels}xf32>"
    constants = "\n".join(
        f"%n{i} = {fill(vector, 10 + i, 0.1 if i == 3 else -1.0)}" for i in range(4)
    )  # fmt: skip
    return f"{constants}\n{result} = graph.batch_norm {of}, %n0, %n1, %n2, %n3 {{axis = {axis}}} : {type_}"


def fold_norm(module):
    FoldBatchNormPass().run(module)


def fold_scale(module):
    FoldScalePass().run(module)


CONV = f"%w = {fill('tensor<3x3x4x6xf32>', 1)}\n%b = {fill(C, 2)}\n"
LINEAR = {
    "conv": (X, CONV + f"%c = graph.conv %x, %w, %b {{{SAME}}} : {Y}", Y, ["conv"]),
    "conv without bias": (X, CONV + f"%c = graph.conv %x, %w {{{SAME}}} : {Y}", Y, ["conv"]),
    "grouped conv": (
        X,
        f"%w = {fill('tensor<3x3x2x6xf32>', 1)}\n%c = graph.conv %x, %w {{{SAME}, groups = 2}} : {Y}",
        Y,
        ["conv"],
    ),
    "conv_transpose": (
        X,
        CONV + f"%c = graph.conv_transpose %x, %w, %b {{{SAME}, output_pads = [0, 0]}} : {Y}",
        Y,
        ["conv_transpose"],
    ),
    "matmul": (
        "tensor<3x4xf32>",
        f"%w = {fill('tensor<4x6xf32>', 1)}\n%c = graph.matmul %x, %w : tensor<3x6xf32>",
        "tensor<3x6xf32>",
        ["matmul"],
    ),
    "behind a transpose": (
        X,
        CONV
        + f"%d = graph.conv %x, %w, %b {{{SAME}}} : {Y}\n"
        + "%c = graph.transpose %d {permutation = [0, 3, 1, 2]} : tensor<1x6x5x5xf32>",
        "tensor<1x6x5x5xf32>",
        ["conv", "transpose"],
    ),
}


@pytest.mark.parametrize("name", LINEAR)
def test_batch_norm_after_linear(ir, name):
    of, body, result, left = LINEAR[name]
    axis = 1 if name in ("behind a transpose", "matmul") else 3
    module = ir.parse(f"x: {of}\n{body}\n{batch_norm('%c', result, axis)}")
    ir.same(module, fold_norm, rtol=2e-5)
    assert ir.names(module) == left


@pytest.mark.parametrize("name", LINEAR)
@pytest.mark.parametrize("operator", ["mul", "add", "sub", "div", "swapped add", "swapped sub"])
def test_constant_a_channel_after_linear(ir, name, operator):
    of, body, result, left = LINEAR[name]
    shape = "tensor<6x1x1xf32>" if name == "behind a transpose" else C
    swapped, operator = operator.startswith("swapped"), operator.split()[-1]
    operands = "%k, %c" if swapped else "%c, %k"
    module = ir.parse(
        f"x: {of}\n{body}\n%k = {fill(shape, 5, 0.3)}\n%y = graph.{operator} {operands} : {result}"
    )
    ir.same(module, fold_scale, rtol=2e-5)
    assert ir.names(module) == left


def test_both_locations_and_the_last_source_stay(ir):
    of, body, result, _ = LINEAR["conv"]
    conv = body.replace(f"}} : {Y}", f', nacre.source = #nacre.source<"c" [0, 2, 3, 1]>}} : {Y} loc("conv1")')
    norm = batch_norm("%c", result, 3)
    norm = norm.replace(f"}} : {Y}", f', nacre.source = #nacre.source<"n" [0, 2, 3, 1]>}} : {Y} loc("bn1")')
    module = ir.parse(f"x: {of}\n{conv}\n{norm}")
    before = ir.sources(module)
    fold_norm(module)
    after = ir.sources(module)
    assert set(before) == {"c", "n"} and set(after) == {"n"}
    np.testing.assert_allclose(after["n"], before["n"], rtol=1e-4, atol=1e-5)
    (op,) = [o for o in module.walk() if isinstance(o, graph.ConvOp)]
    assert [str(part) for part in op.location.locations] == ['loc("conv1")', 'loc("bn1")']
    assert isinstance(op.location.locations.data[0], NameLoc)


def test_a_conv_used_twice_keeps_its_weights(ir):
    of, body, result, _ = LINEAR["conv"]
    module = ir.parse(
        f"x: {of}\n{body}\n{batch_norm('%c', result, 3, result='%n')}\n%y = graph.add %n, %c : {result}"
    )
    ir.same(module, fold_norm, rtol=2e-5)
    assert ir.names(module) == ["conv", "mul", "add", "add"]


def test_a_batch_norm_alone_becomes_mul_and_add_along_its_axis(ir):
    module = ir.parse(f"x: tensor<2x4x3x3xf32>\n{batch_norm('%x', 'tensor<2x4x3x3xf32>', 1, 4)}")
    lines = ir.same(module, fold_norm, rtol=2e-5)
    assert ir.names(module) == ["mul", "add"]
    assert lines[0].endswith("tensor<1x4x1x1xf32>")


@pytest.mark.parametrize("groups", [1, 2])
def test_batch_norm_before_a_conv_without_padding(ir, groups):
    weight = f"%w = {fill(f'tensor<3x3x{4 // groups}x6xf32>', 1)}"
    conv = f"%y = graph.conv %n, %w {{{VALID}, groups = {groups}}} : tensor<1x3x3x6xf32>"
    module = ir.parse(f"x: {X}\n{batch_norm('%x', X, 3, 4, '%n')}\n{weight}\n{conv}")
    ir.same(module, fold_norm, rtol=2e-5)
    assert ir.names(module) == ["conv"]


def test_batch_norm_before_a_padded_conv_stays_outside(ir):
    conv = f"%w = {fill('tensor<3x3x4x6xf32>', 1)}\n%y = graph.conv %n, %w {{{SAME}}} : {Y}"
    module = ir.parse(f"x: {X}\n{batch_norm('%x', X, 3, 4, '%n')}\n{conv}")
    ir.same(module, fold_norm, rtol=2e-5)
    assert ir.names(module) == ["mul", "add", "conv"]


def test_a_factor_alone_goes_into_a_padded_conv(ir):
    conv = f"%w = {fill('tensor<3x3x4x6xf32>', 1)}\n%y = graph.conv %n, %w {{{SAME}}} : {Y}"
    module = ir.parse(f"x: {X}\n%k = {fill('tensor<4xf32>', 3)}\n%n = graph.mul %x, %k : {X}\n{conv}")
    ir.same(module, fold_scale, rtol=2e-5)
    assert ir.names(module) == ["conv"]


@pytest.mark.parametrize("constant", ["tensor<5x1xf32>", "tensor<1x5x5x6xf32>"])
def test_constants_that_vary_in_space_stay(ir, constant):
    of, body, result, _ = LINEAR["conv"]
    module = ir.parse(f"x: {of}\n{body}\n%k = {fill(constant, 5)}\n%y = graph.mul %c, %k : {result}")
    ir.same(module, fold_scale)
    assert ir.names(module) == ["conv", "mul"]


def test_a_bias_is_added_to_a_matmul_of_two_activations_but_no_factor(ir):
    text = (
        "x: tensor<2x3x4xf32>; z: tensor<2x4x5xf32>\n%c = graph.matmul %x, %z : tensor<2x3x5xf32>\n"
        f"%k = {fill('tensor<5xf32>', 5)}\n%y = graph.add %c, %k : tensor<2x3x5xf32>"
    )
    module = ir.parse(text)
    ir.same(module, fold_scale, rtol=1e-6)
    assert ir.names(module) == ["matmul"]
    module = ir.parse(text.replace("graph.add", "graph.mul"))
    ir.same(module, fold_scale)
    assert ir.names(module) == ["matmul", "mul"]


def test_constants_in_a_row_become_one_mul_and_one_add(ir):
    module = ir.parse(
        f"x: {X}\n{batch_norm('%x', X, 3, 4, '%n')}\n"
        f"%k = {fill('tensor<4xf32>', 5)}\n%m = graph.mul %n, %k : {X}\n"
        f"%l = {fill('tensor<4xf32>', 6)}\n%a = graph.add %m, %l : {X}\n%y = graph.relu %a : {X}"
    )
    fold_norm(module)
    assert ir.names(module) == ["mul", "add", "mul", "add", "relu"]
    ir.same(module, fold_scale, rtol=1e-5)
    assert ir.names(module) == ["mul", "add", "relu"]
