"""Rewriting keeps names: locations of what was replaced, source tensors with their axes."""

import pytest
from nacre.dialects import graph
from nacre.dialects.locations import fuse_locations, location_parts
from nacre.dialects.nacre import Source, sources_of
from nacre.errors import NacreError
from nacre.passes.graph import canonical
from nacre.passes.pattern import pattern, replace_tree, with_operands
from nacre.passes.rewrite import canonicalize, cse, permutation_of, rewrite, through_permutation
from xdsl.dialects.builtin import UNKNOWN_LOC, NameLoc, NoneAttr, StringAttr

assert canonical.__all__  # importing it registered the patterns
T = "tensor<1x4x4x2xf32>"
N = "tensor<1x2x4x4xf32>"


def name(text):
    return NameLoc(StringAttr(text), NoneAttr())


def only(module, kind):
    (op,) = [o for o in module.walk() if isinstance(o, kind)]
    return op


def test_fused_locations_are_flat_and_without_repetition():
    a, b, c = name("a"), name("b"), name("c")
    assert fuse_locations(a) == a
    assert fuse_locations(a, a) == a
    assert fuse_locations() == fuse_locations(UNKNOWN_LOC) == UNKNOWN_LOC
    fused = fuse_locations(fuse_locations(a, b), UNKNOWN_LOC, fuse_locations(b, c))
    assert location_parts(fused) == [a, b, c]


@pattern(graph.ReluOp)
def relu_to_clamp(op, rewriter):
    rewriter.replace(op, graph.ClampOp.make(op.input, low=0.0))


@pattern(graph.MulOp)
def mul_of_exp_to_sigmoid(op, rewriter):
    if isinstance(op.a.owner, graph.ExpOp):
        replace_tree(rewriter, op, [graph.SigmoidOp.make(op.a.owner.input)])


def test_a_replacement_has_the_location_and_the_sources_of_what_it_replaced(ir):
    module = ir.parse(
        f'x: {T}\n%y = graph.relu %x {{nacre.source = #nacre.source<"r" [0, 2, 3, 1]>}} : {T} loc("relu1")'
    )
    assert rewrite(module, relu_to_clamp)
    clamp = only(module, graph.ClampOp)
    assert clamp.location == name("relu1")
    assert sources_of(clamp.result) == (Source("r", (0, 2, 3, 1)),)
    assert not rewrite(module, relu_to_clamp)


def test_everything_a_match_erases_gives_its_location(ir):
    module = ir.parse(f'x: {T}\n%a = graph.exp %x : {T} loc("e")\n%y = graph.mul %a, %a : {T} loc("m")')
    rewrite(module, mul_of_exp_to_sigmoid)
    assert set(location_parts(only(module, graph.SigmoidOp).location)) == {name("e"), name("m")}


def test_a_value_that_takes_over_stands_for_both_tensors(ir):
    module = ir.parse(
        f'x: {T}\n%a = graph.relu %x {{nacre.source = #nacre.source<"a" [0, 1, 2, 3]>}} : {T} loc("one")\n'
        f'%y = graph.relu %a {{nacre.source = #nacre.source<"b" [0, 1, 2, 3]>}} : {T} loc("two")'
    )
    canonicalize(module)
    relu = only(module, graph.ReluOp)
    assert [s.tensor for s in sources_of(relu.result)] == ["a", "b"]
    assert location_parts(relu.location) == [name("one"), name("two")]


def test_cse_keeps_both_names(ir):
    module = ir.parse(
        f'x: {T}\n%a = graph.relu %x {{nacre.source = #nacre.source<"a" [0, 1, 2, 3]>}} : {T} loc("one")\n'
        f'%b = graph.relu %x {{nacre.source = #nacre.source<"b" [0, 1, 2, 3]>}} : {T} loc("two")\n'
        f"%y = graph.add %a, %b : {T}"
    )
    before = ir.sources(module)
    cse(module)
    relu = only(module, graph.ReluOp)
    assert location_parts(relu.location) == [name("one"), name("two")]
    assert [s.tensor for s in sources_of(relu.result)] == ["a", "b"]
    assert {k: v.tolist() for k, v in ir.sources(module).items()} == {
        k: v.tolist() for k, v in before.items()
    }


def test_a_vanishing_transpose_hands_its_sources_down(ir):
    module = ir.parse(
        f"x: {T}\n%r = graph.relu %x : {T}\n"
        "%a = graph.transpose %r {permutation = [0, 3, 1, 2], "
        f'nacre.source = #nacre.source<"conv" [0, 1, 2, 3]>}} : {N} loc("conv")\n'
        f"%y = graph.transpose %a {{permutation = [0, 2, 3, 1]}} : {T}"
    )
    before = ir.sources(module)
    canonicalize(module)
    assert ir.names(module) == ["relu"]
    assert sources_of(only(module, graph.ReluOp).result) == (Source("conv", (0, 2, 3, 1)),)
    after = ir.sources(module)
    assert (before["conv"] == after["conv"]).all()


def test_a_vanishing_reshape_of_ones_hands_its_sources_down(ir):
    module = ir.parse(
        "x: tensor<1x1x5x3xf32>\n%r = graph.relu %x : tensor<1x1x5x3xf32>\n"
        '%a = graph.reshape %r {shape = [5, 1, 3, 1], nacre.source = #nacre.source<"t" [2, 0, 1, 3]>}'
        " : tensor<5x1x3x1xf32>\n%y = graph.reshape %a {shape = [15]} : tensor<15xf32>"
    )
    before = ir.sources(module)["t"]
    canonicalize(module)
    after = ir.sources(module)["t"]
    assert before.shape == after.shape and (before == after).all()


@pytest.mark.parametrize("permutation", [(0, 2, 3, 1), (3, 1, 0, 2)])
def test_sources_through_a_permutation(permutation):
    (below,) = through_permutation((Source("t", (2, 0, 3, 1)),), permutation)
    # axis i of the transposed value is axis permutation[i] of the operand
    assert tuple(below.axes[axis] for axis in permutation) == (2, 0, 3, 1)


def test_reshapes_that_mix_values_are_no_permutation(ir):
    module = ir.parse("x: tensor<2x3xf32>\n%y = graph.reshape %x {shape = [3, 2]} : tensor<3x2xf32>")
    assert permutation_of(only(module, graph.ReshapeOp)) is None


def test_layout_ops_give_no_name_away(ir):
    module = ir.parse(
        f'x: {N}\n%a = graph.transpose %x {{permutation = [0, 2, 3, 1]}} : {T} loc("layout")\n'
        f'%y = graph.relu %a : {T} loc("relu1")'
    )

    @pattern(graph.TransposeOp)
    def relu_first(op, rewriter):
        if relu := next((u.operation for u in op.result.uses if isinstance(u.operation, graph.ReluOp)), None):
            first = graph.ReluOp.make(op.input)
            rewriter.replace(relu, [first, with_operands(op, [first.result])])

    rewrite(module, relu_first)
    assert only(module, graph.ReluOp).location == name("relu1")


def test_a_user_error_in_a_pattern_stays_one_sentence(ir):
    module = ir.parse(
        'x: tensor<100xf32>\n%c = graph.constant #nacre.blob<"weight", "00ff"> : tensor<100xf32>\n'
        "%n = graph.neg %c : tensor<100xf32>\n%y = graph.mul %x, %n : tensor<100xf32>"
    )
    with pytest.raises(NacreError, match="constant 00ff… is not in the module's store") as caught:
        canonicalize(module)
    assert "graph.neg" not in str(caught.value)
