"""graph-fuse-patterns: activations and norms written out become one op, near misses stay."""

import pytest
from nacre.dialects import graph
from nacre.passes.graph import canonical
from nacre.passes.graph.fuse_patterns import FusePatternsPass
from nacre.passes.rewrite import canonicalize

assert canonical.__all__  # importing it registered the patterns
X = "tensor<2x5x8xf32>"
ONE = "tensor<2x5x1xf32>"


def fuse(module):
    FusePatternsPass().run(module)


def scalars(**values: float) -> str:
    return "".join(f"%{n} = graph.constant dense<{v:.9f}> : tensor<f32>\n" for n, v in values.items())


def program(body: str, **constants: float) -> str:
    """A body on one input with scalars beside it; `name = op operands` a line."""
    lines = []
    for line in filter(None, map(str.strip, body.splitlines())):
        target, call = line.split(" = ", 1)
        name, _, rest = call.partition(" ")
        lines.append(f"%{target} = graph.{name} {rest} : {X}")
    return f"x: {X}\n" + scalars(**constants) + "\n".join(lines)


ERF = "a = div %x, %r\nb = erf %a\nc = add %b, %one\n"
TANH = (
    "q = mul %x, %x\np = mul %q, %x\na = mul %p, %k\nb = add %x, %a\nc = mul %b, %s\nd = tanh %c\n"
    "e = add %d, %one\n"
)
R, S, K = 2**0.5, (2 / 3.141592653589793) ** 0.5, 0.044715
GELU = {
    "pytorch": (ERF + "d = mul %x, %c\ny = mul %d, %h", {"r": R, "one": 1.0, "h": 0.5}),
    "half first": (ERF + "d = mul %x, %h\ny = mul %d, %c", {"r": R, "one": 1.0, "h": 0.5}),
    "half last, swapped": (ERF + "d = mul %c, %x\ny = mul %h, %d", {"r": R, "one": 1.0, "h": 0.5}),
    "divided by two": (ERF + "d = mul %x, %c\ny = div %d, %h", {"r": R, "one": 1.0, "h": 2.0}),
    "factor below": (
        ERF.replace("div", "mul") + "d = mul %x, %c\ny = mul %d, %h",
        {"r": R / 2, "one": 1.0, "h": 0.5},
    ),
    "tanh": (TANH + "f = mul %x, %e\ny = mul %f, %h", {"k": K, "s": S, "one": 1.0, "h": 0.5}),
    "tanh with pow": (
        TANH.replace("q = mul %x, %x\np = mul %q, %x", "p = pow %x, %three")
        + "f = mul %x, %h\ny = mul %f, %e",
        {"k": K, "s": S, "one": 1.0, "h": 0.5, "three": 3.0},
    ),
    "tanh with x taken out": (
        "q = mul %x, %x\na = mul %q, %k\nb = add %a, %one\nt = mul %x, %b\nc = mul %t, %s\nd = tanh %c\n"
        "e = add %d, %one\nf = mul %x, %e\ny = mul %f, %h",
        {"k": K, "s": S, "one": 1.0, "h": 0.5},
    ),
}


@pytest.mark.parametrize("name", GELU)
def test_gelu(ir, name):
    body, constants = GELU[name]
    module = ir.parse(program(body, **constants))
    lines = ir.same(module, fuse, rtol=1e-6)
    assert ir.names(module) == ["gelu"] and len(lines) == 1
    assert ("approximate = true" in lines[0]) == name.startswith("tanh")


@pytest.mark.parametrize("wrong", [{"r": 1.5}, {"one": 2.0}, {"h": 0.25}])
def test_other_numbers_are_no_gelu(ir, wrong):
    module = ir.parse(program(GELU["pytorch"][0], **{"r": R, "one": 1.0, "h": 0.5, **wrong}))
    ir.same(module, fuse)
    assert "gelu" not in ir.names(module)


def test_gelu_takes_all_locations(ir):
    text = program(*GELU["pytorch"][:1], **GELU["pytorch"][1])
    named = "\n".join(
        f'{line} loc("n{i}")' if line.startswith("%") and "constant" not in line else line
        for i, line in enumerate(text.splitlines())
    )
    module = ir.parse(named)
    fuse(module)
    (gelu,) = [op for op in module.walk() if isinstance(op, graph.GeluOp)]
    assert {str(part) for part in gelu.location.locations} == {f'loc("n{i}")' for i in range(4, 9)}


RELU6 = "a = add %x, %three\nb = clamp %a {low = 0.0, high = 6.0}\n"
HARD_SWISH = {
    "divided last": (RELU6 + "c = mul %x, %b\ny = div %c, %six", {"three": 3.0, "six": 6.0}),
    "divided first": (RELU6 + "c = div %b, %six\ny = mul %x, %c", {"three": 3.0, "six": 6.0}),
    "multiplied": (RELU6 + "c = mul %b, %six\ny = mul %c, %x", {"three": 3.0, "six": 1 / 6}),
    "of hard_sigmoid": ("a = hard_sigmoid %x {alpha = 0.16666667, beta = 0.5}\ny = mul %x, %a", {}),
}


@pytest.mark.parametrize("name", HARD_SWISH)
def test_hard_swish(ir, name):
    body, constants = HARD_SWISH[name]
    module = ir.parse(program(body, **constants))
    ir.same(module, fuse, rtol=1e-6)
    assert ir.names(module) == ["hard_swish"]


def test_hard_sigmoid_alone(ir):
    module = ir.parse(program(RELU6 + "y = div %b, %six", three=3.0, six=6.0))
    ir.same(module, fuse, rtol=1e-6)
    assert ir.names(module) == ["hard_sigmoid"]


def test_other_limits_are_no_hard_swish(ir):
    body = RELU6.replace("high = 6.0", "high = 5.0") + "c = mul %x, %b\ny = div %c, %six"
    module = ir.parse(program(body, three=3.0, six=6.0))
    ir.same(module, fuse)
    assert ir.names(module) == ["add", "clamp", "mul", "div"]


def test_silu_stays_two_ops(ir):
    module = ir.parse(program("a = sigmoid %x\ny = mul %x, %a"))
    ir.same(module, fuse)
    assert ir.names(module) == ["sigmoid", "mul"]


# --- layer norm ------------------------------------------------------------------------------------------
VECTOR = "graph.constant dense<[1.0, 2.0, -1.0, 0.5, 0.0, 3.0, 1.5, -2.0]> : tensor<8xf32>"


def layer_norm(square: str, divide: str, axes: str = "[2]") -> str:
    spread = ONE if axes == "[2]" else "tensor<2x1x8xf32>"
    return (
        f"x: {X}\n" + scalars(two=2.0, eps=1e-5, one=1.0) + f"%w = {VECTOR}\n%v = {VECTOR}\n"
        f"%m = graph.reduce_mean %x {{axes = {axes}}} : {spread}\n%d = graph.sub %x, %m : {X}\n"
        f"%q = {square} : {X}\n%n = graph.reduce_mean %q {{axes = {axes}}} : {spread}\n"
        f"%e = graph.add %n, %eps : {spread}\n" + divide.replace("ONE", spread)
        + f"%z = graph.mul %w, %o : {X}\n%y = graph.add %z, %v : {X}"
    )  # fmt: skip


ROOT = "%s = graph.sqrt %e : ONE\n"
SQUARES = ["graph.mul %d, %d", "graph.pow %d, %two"]
DIVISIONS = [
    ROOT + f"%o = graph.div %d, %s : {X}\n",
    ROOT + f"%i = graph.div %one, %s : ONE\n%o = graph.mul %i, %d : {X}\n",
    f"%i = graph.rsqrt %e : ONE\n%o = graph.mul %d, %i : {X}\n",
]


@pytest.mark.parametrize("square", SQUARES)
@pytest.mark.parametrize("divide", DIVISIONS)
def test_layer_norm(ir, square, divide):
    module = ir.parse(layer_norm(square, divide))
    ir.same(module, fuse, rtol=1e-5)
    assert ir.names(module) == ["layer_norm"]
    (op,) = [op for op in module.walk() if isinstance(op, graph.LayerNormOp)]
    assert op.parameters().axis == 2 and op.bias is not None
    assert op.parameters().epsilon == pytest.approx(1e-5)


def test_layer_norm_after_canonicalisation_too(ir):
    module = ir.parse(layer_norm(SQUARES[1], DIVISIONS[1]))
    ir.same(module, canonicalize, rtol=1e-5)
    ir.same(module, fuse, rtol=1e-5)
    assert ir.names(module) == ["layer_norm"]


def test_layer_norm_with_the_difference_written_twice(ir):
    text = layer_norm("graph.mul %d2, %d2", DIVISIONS[0])
    text = text.replace(
        "%q =", f"%m2 = graph.reduce_mean %x {{axes = [2]}} : {ONE}\n%d2 = graph.sub %x, %m2 : {X}\n%q ="
    )
    module = ir.parse(text)
    ir.same(module, fuse, rtol=1e-5)
    assert ir.names(module) == ["layer_norm"]


def test_a_norm_over_other_axes_stays(ir):
    module = ir.parse(layer_norm(SQUARES[0], DIVISIONS[0], "[1]"))
    ir.same(module, fuse)
    assert "layer_norm" not in ir.names(module)
