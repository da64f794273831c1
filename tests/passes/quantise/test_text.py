"""Quantisation as text: a calibrated function in, types, casts, names and source tensors out."""

import pytest
from nacre.dialects import graph
from nacre.dialects.nacre import sources_of
from nacre.errors import CompileError
from nacre.passes.quantise.quantise import QuantiseToQnnPass
from nacre.passes.quantise.rules import RULES, quantises
from nacre.passes.rewrite import canonicalize

R = "nacre.range = "


def lines(ir, text: str, dtype: str = "int8") -> list[str]:
    module = ir.parse(text)
    QuantiseToQnnPass(dtype=dtype).run(module)
    module.verify()
    assert "nacre.range" not in str(module)
    return [line.split(" = ", 1)[1] for line in ir.lines(module)]


CONV = "{strides = [1, 1], pads = [0, 0, 0, 0], dilations = [1, 1], "


def test_conv_and_activation_share_a_type(ir) -> None:
    """The conv saturates as the relu6 does: the clamp has nothing left to do and fusing changes no bit.

    The weights' scales, 0.002 and 0.01, grow until the factors are 3/3529 and 24/5647 (clear_of_ties.py).
    """
    assert lines(
        ir,
        f"""x: tensor<1x1x2x1xf32> {{{R}[0.0 : f32, 2.55 : f32]}}
        %w = graph.constant dense<[[[[0.254, -1.27]]]]> : tensor<1x1x1x2xf32>
        %b = graph.constant dense<[1.0, 0.0]> : tensor<2xf32>
        %a = graph.conv %x, %w, %b {CONV}{R}[-3.2, 7.1]}} : tensor<1x1x2x2xf32>
        %y = graph.clamp %a {{low = 0.0, high = 6.0, {R}[0.0, 6.0]}} : tensor<1x1x2x2xf32>""",
    ) == [
        "quant.qcast %0 : tensor<1x1x2x1xf32> to tensor<1x1x2x1x!quant.uniform<i8:f32, 0.01:-128>>",
        "graph.constant dense<[[[[127, -127]]]]> : tensor<1x1x1x2xi8> : "
        "tensor<1x1x1x2x!quant.uniform<i8:f32:3, {0.0020002334, 0.010000105}>>",
        "graph.constant dense<[1869387813, 1168243324]> : tensor<2xi32>",
        "graph.constant dense<[-10, -7]> : tensor<2xi32>",
        "graph.constant dense<[49994, 0]> : tensor<2xi32>",
        "qnn.conv %1, %2, %3, %4, %5 {ifm_zero = -128, ofm_zero = -128, rounding = 1, strides = [1, 1], "
        "pads = [0, 0, 0, 0], dilations = [1, 1]} : tensor<1x1x2x2x!quant.uniform<i8:f32, 0.023529412:-128>>",
        "qnn.clamp %6 {low = -128, high = 127} : tensor<1x1x2x2x!quant.uniform<i8:f32, 0.023529412:-128>>",
        "quant.dcast %7 : tensor<1x1x2x2x!quant.uniform<i8:f32, 0.023529412:-128>> to tensor<1x1x2x2xf32>",
    ]


def test_producers_adopt_the_type_of_a_concat(ir) -> None:
    """Also through ops that move values; what others use as well, or has a type already, is requantised."""
    text = f"""x: tensor<1x4xf32> {{{R}[-1.0 : f32, 1.55 : f32]}}
        %a = graph.tanh %x {{{R}[-1.0, 1.0]}} : tensor<1x4xf32>
        %r = graph.reshape %a {{shape = [4, 1], {R}[-1.0, 1.0]}} : tensor<4x1xf32>
        %t = graph.transpose %r {{permutation = [1, 0], {R}[-1.0, 1.0]}} : tensor<1x4xf32>
        %c = graph.constant dense<[[-2.55]]> : tensor<1x1xf32>
        %j = graph.concat %t, %x, %c {{axis = 1, {R}[-2.55, 2.55]}} : tensor<1x9xf32>
        %y = graph.sigmoid %j {{{R}[0.0, 1.0]}} : tensor<1x9xf32>"""
    found = lines(ir, text)
    assert [line.split()[0] for line in found] == [
        "quant.qcast", "graph.constant", "qnn.table", "graph.reshape", "graph.transpose", "qnn.requantise",
        "graph.constant", "graph.concat", "graph.constant", "qnn.table", "quant.dcast",
    ]  # fmt: skip
    assert found[0].endswith("to tensor<1x4x!quant.uniform<i8:f32, 0.01:-28>>")
    assert found[6].startswith("graph.constant dense<-128> : tensor<1x1xi8>")
    assert all(line.endswith("x!quant.uniform<i8:f32, 0.02>>") for line in found[2:8]), found[2:8]


def test_values_of_very_different_ranges_join_as_floats(ir) -> None:
    """Probabilities and pixels in one output: nobody computes with it, so each keeps its own scale."""
    text = """x: tensor<1x4xf32> {nacre.range = [0.0 : f32, 1.0 : f32]}
        %f = graph.constant dense<WIDE> : tensor<f32>
        %a = graph.sigmoid %x {nacre.range = [0.0, 1.0]} : tensor<1x4xf32>
        %b = graph.mul %x, %f {nacre.range = [0.0, WIDE]} : tensor<1x4xf32>
        %y = graph.concat %a, %b {axis = 1, nacre.range = [0.0, WIDE]} : tensor<1x8xf32>"""
    apart = [line.split()[0] for line in lines(ir, text.replace("WIDE", "5.0"))]
    joined = [line.split()[0] for line in lines(ir, text.replace("WIDE", "3.0"))]
    assert apart[-3:] == ["qnn.table", "quant.dcast", "graph.concat"] and apart.count("quant.dcast") == 2
    assert joined[-3:] == ["qnn.table", "graph.concat", "quant.dcast"] and "qnn.requantise" not in joined


def test_padding_value_becomes_an_integer(ir) -> None:
    found = lines(
        ir,
        f"""x: tensor<2xf32> {{{R}[-1.0 : f32, 1.55 : f32]}}
        %p = graph.pad %x {{low = [1], high = [0], {R}[-1.0, 1.55]}} : tensor<3xf32>
        %q = graph.pad %p {{low = [0], high = [1], value = 0.5, {R}[-1.0, 1.55]}} : tensor<4xf32>
        %y = graph.tanh %q {{{R}[-1.0, 1.0]}} : tensor<4xf32>""",
    )
    assert [line.split("value = ")[1].split(",")[0] for line in found[1:3]] == ["-28.0", "22.0"]


def test_names_and_sources_stay(ir) -> None:
    """Values say what their integers stand for; one that a relu cuts off does not claim to be the conv's."""
    source, axes, type_ = "nacre.source = #nacre.source<", "[0, 2, 3, 1]", "tensor<1x1x2x2xf32>"
    module = ir.parse(
        f"""x: tensor<1x1x2x1xf32> {{nacre.name = "image", {R}[0.0 : f32, 2.55 : f32]}}
        %w = graph.constant dense<[[[[0.254, -1.27]]]]> : tensor<1x1x1x2xf32>
        %a = graph.conv %x, %w {CONV}{R}[-3.0, 5.0], {source}"c" {axes}>}} : {type_} loc("c")
        %r = graph.relu %a {{{R}[0.0, 5.1], {source}"relu" {axes}>}} : {type_} loc("r")
        %y = graph.tanh %r {{{R}[0.0, 1.0], {source}"tanh" {axes}>}} : {type_} loc("t")"""
    )
    QuantiseToQnnPass().run(module)
    body = next(iter(module.ops)).body.block.ops
    ops = [op for op in body if not isinstance(op, graph.ConstantOp)][:5]
    assert [str(op.location) for op in ops] == [f'loc("{n}")' for n in ("image", "c", "r", "t", "t")]
    assert [sources_of(op.results[0]) for op in ops[:2]] == [(), ()]
    assert [(s.tensor, s.scale is None, s.zero) for op in ops[2:] for s in sources_of(op.results[0])] == [
        ("relu", False, -128), ("tanh", False, -128), ("tanh", True, 0),
    ]  # fmt: skip
    canonicalize(module)
    conv = next(op for op in module.walk() if op.name == "qnn.conv")
    assert [s.tensor for s in sources_of(conv.results[0])] == ["relu"]


def test_integers_and_float64_are_left_alone(ir) -> None:
    text = """x: tensor<4xi64>; d: tensor<4xf64>
        %a = graph.add %x, %x : tensor<4xi64>
        %b = graph.tanh %d : tensor<4xf64>
        %f = graph.cast %b {to = f32} : tensor<4xf32>
        %y = graph.cast %a {to = f32} : tensor<4xf32>"""
    before = ir.parse(text)
    canonicalize(before)
    assert lines(ir, text) == [line.split(" = ", 1)[1] for line in ir.lines(before)]


def test_indices_move_data(ir) -> None:
    """argmax and gather work on the stored integers; indices stay integers."""
    found = lines(
        ir,
        f"""x: tensor<4x3xf32> {{{R}[-1.0 : f32, 1.55 : f32]}}; i: tensor<2xi64>
        %t = graph.tanh %x {{{R}[-1.0, 1.0]}} : tensor<4x3xf32>
        %g = graph.gather %t, %i {{axis = 0, {R}[-1.0, 1.0]}} : tensor<2x3xf32>
        %y = graph.argmax %g {{axis = 1}} : tensor<2x1xi64>""",
    )
    assert [line.split()[0] for line in found] == [
        "quant.qcast", "graph.constant", "qnn.table", "graph.gather", "graph.argmax",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("dtype", "text", "message"),
    [
        ("int4", "", "no quantisation to 'int4'; there is one to int8, uint8, int16, int16x8"),
        ("int8", "", "the input 'arg0' has no calibrated range"),
        ("int8", "{nacre.range = [0.0 : f32, 1.0 : f32]}", r"layer 't1' \(graph.tanh\) has no calibrated"),
        ("int8", "{nacre.range = [1.0 : f32, 0.0 : f32]}", "is no range: two finite floats"),
    ],
)
def test_messages(ir, dtype: str, text: str, message: str) -> None:
    module = ir.parse(f'x: tensor<2xf32> {text}\n%y = graph.tanh %x : tensor<2xf32> loc("t1")')
    with pytest.raises(CompileError, match=message):
        QuantiseToQnnPass(dtype=dtype).run(module)


def test_a_class_has_one_rule() -> None:
    with pytest.raises(ValueError, match=r"graph\.conv has a quantisation rule already"):
        quantises(graph.ConvOp)(lambda op, q: None)
    assert graph.TanhOp not in RULES and graph.UnaryOp in RULES
