"""The qnn dialect: every op prints, parses back in both forms, and refuses what does not fit."""

from io import StringIO

import pytest
from nacre.dialects.graph import GRAPH
from nacre.dialects.nacre import NACRE
from nacre.dialects.qnn import OPS, QNN
from nacre.dialects.quant import QUANT
from xdsl.context import Context
from xdsl.dialects.builtin import Builtin, ModuleOp
from xdsl.dialects.func import Func
from xdsl.parser import Parser
from xdsl.printer import Printer
from xdsl.utils.exceptions import VerifyException

Q, W = "!quant.uniform<i8:f32, 0.5:3>", "!quant.uniform<i8:f32:3, {0.1, 0.2}>"
IMAGE = f"tensor<1x4x4x2x{Q}>"
HALF = f"tensor<1x2x2x2x{Q}>"
LONG = "tensor<1x4x4x2x!quant.uniform<i16:f32, 0.5>>"
WINDOW = "strides = [1, 1], pads = [0, 0, 0, 0], dilations = [1, 1]"
G = "!quant.uniform<i16:f32, 0.5>"
STATE = f"tensor<3x2x{G}>"
CELL = "cell_bits = 3, hidden_multiplier = 5, hidden_shift = -20"
NORMS = "norm_multiplier = [1, 2, 3, 4], norm_shift = [1, 2, 3, 4], guard = [1, 2, 3, 4]"
RESCALE = "rescale = [1, 2, 3, 4, 5, 6, 7, 8, 9, 20, -128, 127]"

EXAMPLES = {
    "lstm_cell": f"qnn.lstm_cell %gates, %sums, %state {{{CELL}}} : tensor<3x2x{Q}>, {STATE}",
    "norm_lstm_cell": (
        f"qnn.norm_lstm_cell %gates, %sums, %state, %factors, %biases {{{CELL}, {NORMS}}} : tensor<3x2x{Q}>, {STATE}"
    ),
    "conv": f"qnn.conv %x, %w, %m, %m, %m {{{WINDOW}, ifm_zero = 3}} : tensor<1x3x3x2x{Q}>",
    "depthwise conv": f"qnn.conv %x, %d, %one, %one {{groups = 2, {WINDOW}}} : tensor<1x3x3x2x{Q}>",
    "matmul": f"qnn.matmul %r, %s, %m, %m, %m {{a_zero = 3, rounding = 1}} : tensor<3x2x{Q}>",
    "add": f"qnn.add %x, %row {{{RESCALE}}} : {IMAGE}",
    "sub": f"qnn.add %x, %row {{{RESCALE}, subtract = true}} : {IMAGE}",
    "mul": f"qnn.mul %x, %row {{multiplier = 5, shift = -1}} : {IMAGE}",
    "prelu": f"qnn.prelu %x, %row {{rescale = [1, 2, 3, 4, 5, 6, 7]}} : {IMAGE}",
    "requantise": f"qnn.requantise %x {{multiplier = 5, shift = 2}} : {IMAGE}",
    "clamp": f"qnn.clamp %x {{low = -3, high = 7}} : {IMAGE}",
    "table": f"qnn.table %x, %t : {IMAGE}",
    "avg_pool": f"qnn.avg_pool %x {{kernel = [2, 2], strides = [2, 2], pads = [0, 0, 0, 0]}} : {HALF}",
    "softmax": f"qnn.softmax %x {{multiplier = 5, left_shift = 2, smallest_difference = -9}} : {IMAGE}",
    "requantise to another storage": (
        f'qnn.requantise %h {{multiplier = 5, shift = 2, to = "i8"}} : tensor<1x4x4x2x{Q}>'
    ),
    "mean": f"qnn.mean %x {{axes = [1, 2], multiplier = 5, shift = 2}} : tensor<1x1x1x2x{Q}>",
    "sum": f"qnn.sum %x {{axes = [3], keepdims = false, multiplier = 5, shift = 2}} : tensor<1x4x4x{Q}>",
    "softmax16": f"qnn.softmax16 %h {{multiplier = 5, shift = 2}} : {LONG}",
    "logistic": f"qnn.logistic %h {{multiplier = 5, shift = 2}} : {LONG}",
    "tanh": f"qnn.tanh %h {{multiplier = 5, shift = 2}} : {LONG}",
    "leaky_relu": f"qnn.leaky_relu %h {{rescale = [1, 2, 3, 4, 5, 6, 7]}} : {LONG}",
    "l2_normalize": f"qnn.l2_normalize %x {{input_zero = 3}} : {IMAGE}",
    "squared_difference": f"qnn.squared_difference %x, %row {{{RESCALE}}} : {IMAGE}",
    "resize_float": f"qnn.resize_float %x {{sizes = [5, 6], half_pixel = true}} : tensor<1x5x6x2x{Q}>",
    "resize": f"qnn.resize %x, %rows, %cols : tensor<1x5x6x2x{Q}>",
}

HEAD = f"""func.func @main(%x: {IMAGE}, %row: tensor<2x{Q}>, %w: tensor<2x2x2x2x{W}>, %d: tensor<2x2x1x2x{W}>,
  %m: tensor<2xi32>, %one: tensor<1xi32>, %r: tensor<3x4x{Q}>, %s: tensor<4x2x{Q}>, %t: tensor<256x{Q}>,
  %rows: tensor<5x3xi32>, %cols: tensor<6x3xi32>, %f: tensor<1x4x4x2xf32>, %h: {LONG}, %gates: tensor<3x8x{G}>,
  %sums: tensor<3x8xi32>, %state: {STATE}, %factors: tensor<8x{G}>, %biases: tensor<8xi32>) -> () {{
"""


def parse(body: str, head: str = HEAD) -> ModuleOp:
    context = Context()
    for dialect in (Builtin, Func, GRAPH, QUANT, NACRE, QNN):
        context.load_dialect(dialect)
    return Parser(context, f"{head}{body}\nfunc.return\n}}" if head else body).parse_module()


def printed(module: ModuleOp, generic: bool) -> str:
    out = StringIO()
    Printer(out, print_generic_format=generic).print_op(module)
    return out.getvalue()


@pytest.mark.parametrize("name", EXAMPLES)
def test_round_trip(name: str) -> None:
    results = "%y, %z" if name.endswith("lstm_cell") else "%y"
    module = parse(f"{results} = {EXAMPLES[name]}")
    module.verify()
    line = next(line for line in printed(module, False).splitlines() if "qnn." in line)
    assert line.split(" = ", 1)[1].rsplit(" : ", 1)[1] == EXAMPLES[name].rsplit(" : ", 1)[1]
    for generic in (False, True):
        again = parse(printed(module, generic), head="")
        again.verify()
        assert printed(again, True) == printed(module, True)
        assert printed(again, False) == printed(module, False)


def test_every_op_has_an_example() -> None:
    assert {text.split()[0] for text in EXAMPLES.values()} == {op.name for op in OPS}


WRONG = {
    "conv of too many channels": (
        f"qnn.conv %x, %d, %m, %m {{{WINDOW}}} : tensor<1x3x3x2x{Q}>",
        r"qnn\.conv: weight \[2, 2, 1, 2\] with 1 groups does not fit 2 channels",
    ),
    "conv bias": (
        f"qnn.conv %x, %w, %m, %m, %one {{{WINDOW}}} : tensor<1x3x3x2x{Q}>",
        r"qnn\.conv: bias \[1\] should be \[2\]",
    ),
    "multipliers": (
        f"qnn.conv %x, %w, %s, %m {{{WINDOW}}} : tensor<1x3x3x2x{Q}>",
        r"qnn\.conv: \[4, 2\] should be \[1\] or \[2\]",
    ),
    "result shape": (
        f"qnn.conv %x, %w, %m, %m {{{WINDOW}}} : tensor<1x2x3x2x{Q}>",
        r"qnn\.conv: the result should be tensor<1x3x3x2x.*>, but is tensor<1x2x3x2x",
    ),
    "pads": (
        f"qnn.conv %x, %w, %m, %m {{strides = [1, 1], pads = [0, 0], dilations = [1, 1]}} : {HALF}",
        r"'pads' needs 4 entries for 2 spatial axes, but has 2",
    ),
    "inner sizes": (f"qnn.matmul %s, %r, %m, %m : tensor<4x4x{Q}>", r"\[4, 2\] and \[3, 4\] do not multiply"),
    "short rescale": (f"qnn.add %x, %row {{rescale = [1]}} : {IMAGE}", "'rescale' has twelve entries"),
    "short prelu": (f"qnn.prelu %x, %row {{rescale = [1]}} : {IMAGE}", "'rescale' has seven entries"),
    "broadcast": (f"qnn.mul %x, %r {{multiplier = 1, shift = 0}} : {IMAGE}", "do not broadcast"),
    "table": (f"qnn.table %x, %row : {IMAGE}", r"the table has 256 entries, not \[2\]"),
    "resize table": (f"qnn.resize %x, %rows, %m : tensor<1x5x6x2x{Q}>", r"a table is \[n, 3\], not \[2\]"),
    "storage": (
        f"qnn.requantise %x {{multiplier = 5, shift = 2}} : {IMAGE.replace('i8', 'u8')}",
        r"qnn\.requantise: keeps the storage type, but goes from i8 to ui8",
    ),
    "another storage": (
        f'qnn.requantise %h {{multiplier = 5, shift = 2, to = "u8"}} : tensor<1x4x4x2x{Q}>',
        r"qnn\.requantise: goes to u8, but the result is stored in i8",
    ),
    "axes twice": (
        f"qnn.mean %x {{axes = [1, 1], multiplier = 5, shift = 2}} : tensor<1x1x4x2x{Q}>",
        r"the axes \[1, 1\] of \[1, 4, 4, 2\] are not all different",
    ),
    "int16 only": (f"qnn.tanh %x {{multiplier = 5, shift = 2}} : {IMAGE}", r"qnn\.tanh: works on i16, not on i8"),
    "no pixels": (
        f"qnn.resize_float %x {{sizes = [0, 6]}} : tensor<1x0x6x2x{Q}>", r"4x4 pixels cannot be resized to \[0, 6\]",
    ),
    "floats": ("qnn.clamp %f {low = 0, high = 1} : tensor<1x4x4x2xf32>", "not on f32"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_the_verifier_says(name: str) -> None:
    text, message = WRONG[name]
    with pytest.raises(VerifyException, match=message):
        parse(f"%y = {text}").verify()
