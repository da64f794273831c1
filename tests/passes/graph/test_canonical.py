"""Canonicalisation: each pattern as text before and after, the result unchanged to the bit."""

import numpy as np
import pytest
from nacre.dialects import graph
from nacre.dialects.declarative import attribute_of
from nacre.passes.graph import canonical
from nacre.passes.rewrite import canonicalize
from xdsl.context import Context
from xdsl.transforms.canonicalize import CanonicalizePass

assert canonical.__all__  # importing it registered the patterns

T = "tensor<1x4x4x2xf32>"
SMALL = "tensor<2x3xf32>"

CASES = {
    "reshape to the same shape": (f"x: {SMALL}\n%y = graph.reshape %x {{shape = [2, 3]}} : {SMALL}", []),
    "reshape of reshape": (
        f"x: {SMALL}\n%a = graph.reshape %x {{shape = [6]}} : tensor<6xf32>\n"
        "%y = graph.reshape %a {shape = [3, 2]} : tensor<3x2xf32>",
        ["%1 = graph.reshape %0 {shape = [3, 2]} : tensor<3x2xf32>"],
    ),
    "transposes that cancel": (
        f"x: {T}\n%a = graph.transpose %x {{permutation = [0, 3, 1, 2]}} : tensor<1x2x4x4xf32>\n"
        f"%y = graph.transpose %a {{permutation = [0, 2, 3, 1]}} : {T}",
        [],
    ),
    "transposes that merge": (
        f"x: {T}\n%a = graph.transpose %x {{permutation = [0, 3, 1, 2]}} : tensor<1x2x4x4xf32>\n"
        "%y = graph.transpose %a {permutation = [0, 1, 3, 2]} : tensor<1x2x4x4xf32>",
        ["%1 = graph.transpose %0 {permutation = [0, 3, 2, 1]} : tensor<1x2x4x4xf32>"],
    ),
    "transpose of ones": (
        "x: tensor<1x5x1x3xf32>\n%y = graph.transpose %x {permutation = [0, 2, 1, 3]} : tensor<1x1x5x3xf32>",
        ["%1 = graph.reshape %0 {shape = [1, 1, 5, 3]} : tensor<1x1x5x3xf32>"],
    ),
    "layout change around a squeeze": (
        "x: tensor<2x1x5x3xf32>\n%a = graph.transpose %x {permutation = [0, 3, 1, 2]} : tensor<2x3x1x5xf32>\n"
        "%b = graph.reshape %a {shape = [2, 3, 5]} : tensor<2x3x5xf32>\n"
        "%y = graph.transpose %b {permutation = [0, 2, 1]} : tensor<2x5x3xf32>",
        ["%1 = graph.reshape %0 {shape = [2, 5, 3]} : tensor<2x5x3xf32>"],
    ),
    "transposes around a squeeze that move values stay": (
        "x: tensor<2x1x5x3xf32>\n%a = graph.transpose %x {permutation = [0, 3, 1, 2]} : tensor<2x3x1x5xf32>\n"
        "%b = graph.reshape %a {shape = [2, 3, 5]} : tensor<2x3x5xf32>\n"
        "%y = graph.transpose %b {permutation = [1, 0, 2]} : tensor<3x2x5xf32>",
        ["%1 = graph.transpose %0 {permutation = [0, 3, 1, 2]} : tensor<2x3x1x5xf32>",
         "%2 = graph.reshape %1 {shape = [2, 3, 5]} : tensor<2x3x5xf32>",
         "%3 = graph.transpose %2 {permutation = [1, 0, 2]} : tensor<3x2x5xf32>"],
    ),
    "whole slice": (
        f"x: {SMALL}\n%y = graph.slice %x {{starts = [0, 0], sizes = [2, 3], steps = [1, 1]}} : {SMALL}", []
    ),
    "slice of slice": (
        "x: tensor<20xf32>\n"
        "%a = graph.slice %x {starts = [18], sizes = [9], steps = [-2]} : tensor<9xf32>\n"
        "%y = graph.slice %a {starts = [1], sizes = [3], steps = [3]} : tensor<3xf32>",
        ["%1 = graph.slice %0 {starts = [16], sizes = [3], steps = [-6]} : tensor<3xf32>"],
    ),
    "reversing slice stays": (
        "x: tensor<4xf32>\n%y = graph.slice %x {starts = [3], sizes = [4], steps = [-1]} : tensor<4xf32>",
        ["%1 = graph.slice %0 {starts = [3], sizes = [4], steps = [-1]} : tensor<4xf32>"],
    ),
    "pad of nothing": (f"x: {SMALL}\n%y = graph.pad %x {{low = [0, 0], high = [0, 0]}} : {SMALL}", []),
    "pad of pad": (
        "x: tensor<2xf32>\n%a = graph.pad %x {low = [1], high = [0]} : tensor<3xf32>\n"
        "%y = graph.pad %a {low = [1], high = [2]} : tensor<6xf32>",
        ["%1 = graph.pad %0 {low = [2], high = [2]} : tensor<6xf32>"],
    ),
    "pads of other values stay": (
        "x: tensor<2xf32>\n%a = graph.pad %x {low = [1], high = [0], value = 1.0} : tensor<3xf32>\n"
        "%y = graph.pad %a {low = [1], high = [2]} : tensor<6xf32>",
        ["%1 = graph.pad %0 {value = 1.0, low = [1], high = [0]} : tensor<3xf32>",
         "%2 = graph.pad %1 {low = [1], high = [2]} : tensor<6xf32>"],
    ),
    "concat of one": (f"x: {SMALL}\n%y = graph.concat %x {{axis = 0}} : {SMALL}", []),
    "concat of concat": (
        f"x: {SMALL}\n%a = graph.concat %x, %x {{axis = 1}} : tensor<2x6xf32>\n"
        "%y = graph.concat %x, %a {axis = 1} : tensor<2x9xf32>",
        ["%1 = graph.concat %0, %0, %0 {axis = 1} : tensor<2x9xf32>"],
    ),
    "concat of split": (
        f"x: {SMALL}\n%a, %b = graph.split %x {{axis = 1, sizes = [1, 2]}} : tensor<2x1xf32>, "
        f"tensor<2x2xf32>\n"
        f"%y = graph.concat %a, %b {{axis = 1}} : {SMALL}",
        [],
    ),
    "split of one": (f"x: {SMALL}\n%y = graph.split %x {{axis = 1, sizes = [3]}} : {SMALL}", []),
    "cast to itself": (f"x: {SMALL}\n%y = graph.cast %x {{to = f32}} : {SMALL}", []),
    "broadcast to itself": (f"x: {SMALL}\n%y = graph.broadcast %x {{shape = [2, 3]}} : {SMALL}", []),
    "broadcast into binary": (
        f"x: {SMALL}; z: tensor<1x3xf32>\n%a = graph.broadcast %z {{shape = [2, 3]}} : {SMALL}\n"
        f"%y = graph.mul %x, %a : {SMALL}",
        ["%2 = graph.mul %0, %1 : tensor<2x3xf32>"],
    ),
    "broadcast that makes the shape stays": (
        f"x: tensor<3xf32>\n%a = graph.broadcast %x {{shape = [2, 3]}} : {SMALL}\n"
        f"%y = graph.mul %x, %a : {SMALL}",
        ["%1 = graph.broadcast %0 {shape = [2, 3]} : tensor<2x3xf32>",
         "%2 = graph.mul %0, %1 : tensor<2x3xf32>"],
    ),
    "gather of one": (
        f"x: {SMALL}\n%i = graph.constant dense<-1> : tensor<i64>\n"
        "%y = graph.gather %x, %i {axis = 1} : tensor<2xf32>",
        ["%1 = graph.slice %0 {starts = [0, 2], sizes = [2, 1], steps = [1, 1]} : tensor<2x1xf32>",
         "%2 = graph.reshape %1 {shape = [2]} : tensor<2xf32>"],
    ),
    "add zero": (
        f"x: {SMALL}\n%c = graph.constant dense<0.0> : tensor<1x3xf32>\n%y = graph.add %c, %x : {SMALL}", []
    ),
    "zero that broadcasts stays": (
        f"x: tensor<1x3xf32>\n%c = graph.constant dense<0.0> : {SMALL}\n%y = graph.add %x, %c : {SMALL}",
        ["%1 = graph.constant dense<0.000000e+00> : tensor<2x3xf32>",
         "%2 = graph.add %0, %1 : tensor<2x3xf32>"],
    ),
    "mul by one": (f"x: {SMALL}\n%c = graph.constant dense<1.0> : tensor<f32>\n"
    f"%y = graph.mul %x, %c : {SMALL}", []),
    "power of one": (f"x: {SMALL}\n%c = graph.constant dense<1.0> : tensor<f32>\n"
    f"%y = graph.pow %x, %c : {SMALL}", []),
    "square": (
        f"x: {SMALL}\n%c = graph.constant dense<2.0> : tensor<f32>\n%y = graph.pow %x, %c : {SMALL}",
        ["%1 = graph.mul %0, %0 : tensor<2x3xf32>"],
    ),
    "subtract a constant": (
        f"x: {SMALL}\n%c = graph.constant dense<2.5> : tensor<f32>\n%y = graph.sub %x, %c : {SMALL}",
        ["%1 = graph.constant dense<-2.500000e+00> : tensor<f32>",
         "%2 = graph.add %0, %1 : tensor<2x3xf32>"],
    ),
    "divide by a power of two": (
        f"x: {SMALL}\n%c = graph.constant dense<[4.0, -0.5, 1.0]> : tensor<3xf32>\n"
        f"%y = graph.div %x, %c : {SMALL}",
        ["%1 = graph.constant dense<[2.500000e-01, -2.000000e+00, 1.000000e+00]> : tensor<3xf32>",
         "%2 = graph.mul %0, %1 : tensor<2x3xf32>"],
    ),
    "divide by three": (
        f"x: {SMALL}\n%c = graph.constant dense<3.0> : tensor<f32>\n%y = graph.div %x, %c : {SMALL}",
        ["%1 = graph.constant dense<3.000000e+00> : tensor<f32>", "%2 = graph.div %0, %1 : tensor<2x3xf32>"],
    ),
    "relu6 from max and min": (
        f"x: {SMALL}\n%c = graph.constant dense<0.0> : tensor<f32>\n"
        f"%d = graph.constant dense<6.0> : tensor<f32>\n"
        f"%a = graph.max %c, %x : {SMALL}\n%y = graph.min %a, %d : {SMALL}",
        ["%1 = graph.clamp %0 {low = 0.0, high = 6.0} : tensor<2x3xf32>"],
    ),
    "relu of relu": (
        f"x: {SMALL}\n%a = graph.relu %x : {SMALL}\n%y = graph.relu %a : {SMALL}",
        ["%1 = graph.relu %0 : tensor<2x3xf32>"],
    ),
    "clamps that do not meet": (
        f"x: {SMALL}\n%a = graph.clamp %x {{low = 0.0, high = 1.0}} : {SMALL}\n"
        f"%y = graph.clamp %a {{low = 2.0, high = 3.0}} : {SMALL}",
        ["%1 = graph.clamp %0 {low = 2.0, high = 2.0} : tensor<2x3xf32>"],
    ),
    "relu of clamp": (
        f"x: {SMALL}\n%a = graph.clamp %x {{low = -1.0, high = 1.0}} : {SMALL}\n%y = graph.relu %a : {SMALL}",
        ["%1 = graph.clamp %0 {low = 0.0, high = 1.0} : tensor<2x3xf32>"],
    ),
    "clamp without upper bound": (
        f"x: {SMALL}\n%y = graph.clamp %x {{low = 0.0}} : {SMALL}", ["%1 = graph.relu %0 : tensor<2x3xf32>"]
    ),
    "clamp without bounds": (f"x: {SMALL}\n%y = graph.clamp %x : {SMALL}", []),
    "relu of sigmoid": (
        f"x: {SMALL}\n%a = graph.sigmoid %x : {SMALL}\n%y = graph.relu %a : {SMALL}",
        ["%1 = graph.sigmoid %0 : tensor<2x3xf32>"],
    ),
    "prelu with one slope": (
        f"x: {SMALL}\n%c = graph.constant dense<0.25> : tensor<3xf32>\n%y = graph.prelu %x, %c : {SMALL}",
        ["%1 = graph.leaky_relu %0 {alpha = 0.25} : tensor<2x3xf32>"],
    ),
    "double negative": (f"x: {SMALL}\n%a = graph.neg %x : {SMALL}\n%y = graph.neg %a : {SMALL}", []),
    "select": (
        f"x: {SMALL}; z: {SMALL}\n%c = graph.constant dense<false> : tensor<i1>\n"
        f"%y = graph.select %c, %x, %z : {SMALL}",
        [],
    ),
    "constants are computed": (
        f"x: {SMALL}\n%c = graph.constant dense<4.0> : tensor<2x1xf32>\n"
        f"%d = graph.sqrt %c : tensor<2x1xf32>\n"
        "%e = graph.constant dense<[1.0, 2.0, 3.0]> : tensor<3xf32>\n"
        f"%f = graph.add %d, %e : {SMALL}\n%y = graph.mul %x, %f : {SMALL}",
        ["%1 = graph.constant dense<[[3.000000e+00, 4.000000e+00, 5.000000e+00], "
         "[3.000000e+00, 4.000000e+00, 5.000000e+00]]> : tensor<2x3xf32>",
         "%2 = graph.mul %0, %1 : tensor<2x3xf32>"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_pattern(ir, name):
    text, expected = CASES[name]
    assert ir.same(ir.parse(text), canonicalize) == expected


POOL = "kernel = [2, 2], strides = [1, 1], dilations = [1, 1]"
PAD = "graph.pad %x {low = [0, 1, 0, 0], high = [0, 0, 1, 0]} : tensor<1x5x5x2xf32>"


def pooled(op: str, below: str = PAD, size: int = 4) -> str:
    return f"x: {T}\n%a = {below}\n%y = {op} : tensor<1x{size}x{size}x2xf32>"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (pooled(f"graph.avg_pool %a {{{POOL}, pads = [0, 0, 0, 0]}}"), "pads = [1, 0, 0, 1]"),
        (pooled(f"graph.avg_pool %a {{{POOL}, pads = [1, 1, 0, 0], count_include_pad = true}}", size=5),
         "pads = [2, 1, 0, 1]"),
        (pooled(f"graph.avg_pool %a {{{POOL}, pads = [0, 0, 1, 1], overhang = [1, 1], "
            f"count_include_pad = true}}",
                size=5), "pads = [1, 0, 1, 2]"),
    ],
)  # fmt: skip
def test_zero_pad_becomes_pool_pads_that_count(ir, text, expected):
    (line,) = ir.same(ir.parse(text), canonicalize, rtol=1e-6)
    assert expected in line and "count_include_pad = true" in line and "pad %" not in line


def test_pad_stays_before_a_pool_whose_own_pads_do_not_count(ir):
    text = pooled(f"graph.avg_pool %a {{{POOL}, pads = [1, 1, 0, 0]}}", size=5)
    assert len(ir.same(ir.parse(text), canonicalize)) == 2


def test_zero_pad_of_max_pool_needs_values_above_zero(ir):
    pool = f"graph.max_pool %a {{{POOL}, pads = [0, 0, 0, 0]}}"
    assert len(ir.same(ir.parse(pooled(pool)), canonicalize)) == 2
    lines = ir.same(ir.parse(pooled(pool).replace("%a =", f"%r = graph.relu %x : {T}\n"
        f"%a =").replace("pad %x", "pad %r")),
                    canonicalize)  # fmt: skip
    assert [line.split()[2] for line in lines] == ["graph.relu", "graph.max_pool"]
    module = ir.parse(pooled(pool))
    pad = next(o for o in module.walk() if isinstance(o, graph.PadOp))
    pad.value = attribute_of(-np.inf)
    assert len(ir.same(module, canonicalize)) == 1


def test_zero_pad_becomes_conv_pads(ir):
    module = ir.parse(
        f"x: {T}\n%a = {PAD}\n%w = graph.constant dense<0.5> : tensor<2x2x2x3xf32>\n"
        "%y = graph.conv %a, %w {strides = [1, 1], pads = [0, 1, 0, 0], dilations = [1, 1]} "
        ": tensor<1x4x5x3xf32>"
    )
    lines = ir.same(module, canonicalize, rtol=1e-6)
    assert len(lines) == 2 and "pads = [1, 1, 0, 1]" in lines[1]


@pytest.mark.parametrize("change", ["value = 1.0, ", 'mode = "edge", '])
def test_other_pads_stay_before_conv(ir, change):
    module = ir.parse(
        f"x: {T}\n%a = {PAD.replace('{', '{' + change)}\n"
        "%w = graph.constant dense<0.5> : tensor<2x2x2x3xf32>\n"
        "%y = graph.conv %a, %w {strides = [1, 1], pads = [0, 0, 0, 0], dilations = [1, 1]} "
        ": tensor<1x4x4x3xf32>"
    )
    assert ir.names(module) == ["pad", "conv"]
    ir.same(module, canonicalize)
    assert ir.names(module) == ["pad", "conv"]


def test_plain_xdsl_canonicalize_finds_the_patterns(ir):
    module = ir.parse(f"x: {SMALL}\n%a = graph.relu %x : {SMALL}\n%y = graph.relu %a : {SMALL}")
    CanonicalizePass().apply(Context(), module)
    assert ir.names(module) == ["relu"]


def test_stored_integers_are_moved_but_not_computed_with(ir):
    quantised = "tensor<2x3x!quant.uniform<i8:f32, 0.5:3>>"
    module = ir.parse(
        f"x: {quantised}\n%c = graph.constant dense<[[-4, 3, 5]]> : tensor<1x3xi8> "
        ": tensor<1x3x!quant.uniform<i8:f32, 0.5:3>>\n"
        f"%b = graph.broadcast %c {{shape = [2, 3]}} : {quantised}\n"
        f"%r = graph.relu %b : {quantised}\n%y = graph.concat %x, %r {{axis = 0}} "
        ": tensor<4x3x!quant.uniform<i8:f32, 0.5:3>>"
    )
    canonicalize(module)
    assert ir.names(module) == ["relu", "concat"]
    (constant,) = [o for o in module.walk() if isinstance(o, graph.ConstantOp)]
    assert constant.array().tolist() == [[-4, 3, 5]] * 2 and constant.array().dtype == np.int8


def test_large_results_are_not_folded(ir):
    module = ir.parse(
        "x: tensor<4096x1024xf32>\n%c = graph.constant dense<1.5> : tensor<1024xf32>\n"
        "%a = graph.broadcast %c {shape = [4096, 1024]} : tensor<4096x1024xf32>\n"
        "%y = graph.concat %x, %a {axis = 0} : tensor<8192x1024xf32>"
    )
    canonicalize(module)
    assert ir.names(module) == ["broadcast", "concat"]


def test_folded_constants_keep_their_name_and_lie_in_the_store(ir):
    module = ir.parse("x: tensor<100xf32>\n%y = graph.neg %x : tensor<100xf32>")
    op = next(o for o in module.walk() if isinstance(o, graph.NegOp))
    weights = np.arange(100, dtype=np.float32)
    made = graph.constant(weights, op, "conv1.weight")
    op.parent.insert_op_before(made, op)
    op.operands[0] = made.result
    canonicalize(module)
    (folded,) = [o for o in module.walk() if isinstance(o, graph.ConstantOp)]
    assert folded.value.data.name == "conv1.weight"
    np.testing.assert_array_equal(folded.array(), -weights)
