"""Fusion on the npu dialect's layer form: what is fused, what is left alone, and that no bit changes."""

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from nacre.dialects import graph
from nacre.dialects.locations import location_names
from nacre.dialects.nacre import sources_of
from nacre.dialects.npu_instructions import PoolKind
from nacre.dialects.quant import quantised
from nacre.dialects.text import parse_module
from nacre.dialects.types import i8, i16, u8
from nacre.errors import CompileError
from nacre.passes.npu import fuse_activation, fuse_pool, fuse_residual
from nacre.passes.npu.elide_copies import ElideCopiesPass
from nacre.passes.npu.fuse_activation import FuseActivationPass
from nacre.passes.npu.fuse_pad import FusePadPass
from nacre.passes.npu.fuse_pool import FusePoolPass
from nacre.passes.npu.fuse_residual import FuseResidualPass
from nacre.passes.npu.tile import TilePass
from nacre.runtime.npu_interpreter import interpret_npu

ALL = (ElideCopiesPass(), FuseActivationPass(), FuseResidualPass(), FusePoolPass())
ELEMENTS = {
    "int8": quantised(i8, 0.05, 3),
    "uint8": quantised(u8, 0.05, 120),
    "int16": quantised(i16, 0.05, 0),
}  # fmt: skip
SHAPE = (1, 9, 7, 5)


def without(machine_passes, feature, monkeypatch):
    """Let a pass see its machine without one entry of `fused`."""
    found = machine_passes.machine_of

    def reduced(module, option=None):
        machine = found(module, option)
        return machine.model_copy(update={"fused": tuple(f for f in machine.fused if f != feature)})

    monkeypatch.setattr(machine_passes, "machine_of", reduced)


@pytest.fixture
def pool_always(monkeypatch):
    """Let poolings be fused wherever they fit, profitable or not."""
    monkeypatch.setattr(fuse_pool, "cycles", lambda op, machine: 0.0 if op.fields().get("pool") else 1.0)


# --- padding ---------------------------------------------------------------------------------------------
def padded(net, low, high, value=3):
    """The first argument with margins of the stored value (3 is its zero point)."""
    return net.add(graph.PadOp.make(net.args[0], low=low, high=high, value=float(value)))


@pytest.mark.parametrize("depthwise", [False, True])
@pytest.mark.parametrize("low, high", [((0, 0, 1, 0), (0, 1, 2, 0)), ((0, 2, 0, 0), (0, 0, 2, 0))])
def test_padding_with_the_zero_point_is_fused(npu, depthwise, low, high):
    net = npu.Net(SHAPE)
    y = net.conv(padded(net, low, high), 5, strides=(2, 1), pads=(0, 0, 0, 0), depthwise=depthwise)
    made = npu.fused(net.done(y), FusePadPass())
    (op,) = npu.instructions(made)
    f = op.fields()
    assert (f["pad_top"], f["pad_left"], f["pad_bottom"], f["pad_right"]) == (*low[1:3], *high[1:3])
    assert location_names(op.location) == ["pad0", "conv1"] and not npu.dead(made)


@pytest.mark.parametrize(
    "low, high, value",
    [((0, 1, 1, 0), (0, 1, 1, 0), 4), ((0, 1, 1, 1), (0, 1, 1, 0), 3), ((0, 3, 0, 0), (0, 0, 0, 0), 3)],
    ids=["another value", "channels", "a window of padding alone"],
)
def test_other_padding_stays(npu, low, high, value):
    net = npu.Net(SHAPE)
    made = npu.fused(net.done(net.conv(padded(net, low, high, value), pads=(0, 0, 0, 0))), FusePadPass())
    assert npu.names(made) == ["pad", "conv"]


def test_padding_that_somebody_else_reads_stays(npu):
    net = npu.Net(SHAPE)
    x = padded(net, (0, 1, 1, 0), (0, 1, 1, 0))
    made = npu.fused(net.done(net.conv(x, pads=(0, 0, 0, 0)), net.clamp(x, -5, 5)), FusePadPass())
    assert "pad" in npu.names(made)


# --- activations -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("element", ELEMENTS)
@pytest.mark.parametrize("kind", ["conv", "depthwise"])
def test_clamp_behind_a_convolution_is_fused(npu, element, kind):
    net = npu.Net(SHAPE, element=ELEMENTS[element])
    filters = 5 if kind == "depthwise" else 8
    low, high = (10, 60) if element != "int16" else (-90, 5000)
    y = net.clamp(net.conv(net.args[0], filters, depthwise=kind == "depthwise"), low, high)
    made = npu.fused(net.done(y), FuseActivationPass())
    (op,) = npu.instructions(made)
    assert op.name == f"npu.{kind}"
    assert (op.fields()["low"], op.fields()["high"]) == (low, high)
    assert not npu.dead(made)


def test_clamp_behind_a_matmul_in_another_shape_is_fused(npu):
    net = npu.Net((2, 3, 10))
    made = npu.fused(net.done(net.clamp(net.matmul(net.args[0]), -20, 30)), FuseActivationPass())
    assert npu.names(made) == ["matmul"]


def test_chain_of_clamps_and_table_is_fused(npu):
    net = npu.Net(SHAPE)
    x = net.clamp(net.clamp(net.conv(net.args[0]), -50, 50), -20, 90)
    made = npu.fused(net.done(net.table(x)), FuseActivationPass())
    (op,) = npu.instructions(made)
    assert (op.fields()["low"], op.fields()["high"]) == (-20, 50)
    assert op.buffers("table")
    assert location_names(op.location) == ["conv0", "clamp1", "clamp2", "table3"]


@given(st.lists(st.tuples(st.integers(-128, 127), st.integers(-128, 127)), min_size=1, max_size=3))
@settings(max_examples=15, deadline=None)
def test_any_clamps_behind_each_other_clamp_the_same_when_joined(npu, ranges):
    x = np.arange(-128, 128)
    low, high = -128, 127
    expected = x
    for a, b in ranges:
        expected = np.clip(expected, a, b)
        low, high = fuse_activation._clip(low, a, b), fuse_activation._clip(high, a, b)
    np.testing.assert_array_equal(np.clip(x, low, high), expected)


@pytest.mark.parametrize("make", ["sum", "product", "average_pool", "max_pool", "clamp"])
def test_clamp_behind_an_instruction_of_the_fabric_is_fused(npu, make, monkeypatch):
    # A fabric's clamp is a field of its instructions, whatever the NN engine can do.
    without(fuse_activation, "activation", monkeypatch)
    net = npu.Net(SHAPE, SHAPE)
    a, b = net.args
    x = {
        "sum": lambda: net.sum(a, b),
        "product": lambda: net.product(a, b),
        "average_pool": lambda: net.average_pool(a, (2, 2), (1, 1)),
        "max_pool": lambda: net.max_pool(a, (2, 2), (1, 1)),
        "clamp": lambda: net.clamp(a, -30, 30),
    }[make]()
    made = npu.fused(net.done(net.clamp(x, -13, 40)), FuseActivationPass())
    assert len(npu.instructions(made)) == 1


def test_clamp_behind_a_table_stays(npu):
    net = npu.Net(SHAPE)
    y = net.clamp(net.table(net.conv(net.args[0])), -20, 20)
    assert npu.names(npu.fused(net.done(y), FuseActivationPass())) == ["conv", "clamp"]


def test_a_table_of_another_type_stays(npu):
    net = npu.Net(SHAPE)
    x = net.conv(net.args[0])
    net.element = ELEMENTS["uint8"]
    assert npu.names(npu.fused(net.done(net.table(x)), FuseActivationPass())) == ["conv", "table"]


@pytest.mark.parametrize("second", ["output", "op", "view"])
def test_what_is_read_twice_stays(npu, second):
    net = npu.Net(SHAPE)
    x = net.conv(net.args[0])
    y = net.clamp(x, -20, 20)
    other = {
        "output": lambda: x,
        "op": lambda: net.table(x),
        "view": lambda: net.table(net.slice(x, (0, 1, 1, 0), (1, 4, 4, 8))),
    }[second]()
    made = npu.fused(net.done(y, other), *ALL)
    assert "clamp" in npu.names(made)


def test_a_part_of_a_concat_is_not_fused_away(npu):
    net = npu.Net(SHAPE)
    parts = [net.conv(net.args[0]), net.conv(net.args[0], 4)]
    y = net.clamp(net.concat(*parts), -20, 20)
    assert npu.names(npu.fused(net.done(y), *ALL)) == ["conv", "conv", "clamp"]


def test_clamp_inside_a_concat_is_fused(npu):
    net = npu.Net(SHAPE)
    parts = [net.clamp(net.conv(net.args[0], n), -20, 20) for n in (8, 4)]
    assert npu.names(npu.fused(net.done(net.concat(*parts)), *ALL)) == ["conv", "conv"]


def test_the_fused_result_stands_for_the_last_tensor(npu):
    net = npu.Net(SHAPE)
    y = net.table(net.clamp(net.conv(net.args[0]), -20, 20))
    made = npu.fused(net.done(net.max_pool(y, (9, 7), (1, 1))), FuseActivationPass())
    conv = npu.instructions(made)[0]
    assert [s.tensor for s in sources_of(conv.buffers("ofm")[0])] == ["table2"]


def test_a_part_of_a_concat_made_from_another_part_is_fused(npu):
    net = npu.Net(SHAPE)
    first = net.conv(net.args[0])
    second = net.clamp(net.conv(first, 4), -20, 20)
    made = npu.fused(net.done(net.concat(first, second)), *ALL)
    assert npu.names(made) == ["conv", "conv"]


HAND_WRITTEN = """
builtin.module attributes {npu.form = "layer", nacre.target = "tiny"} {
  func.func @main(%x: !npu.buffer<1x4x4x4xi8, dram> {nacre.name = "x", npu.kind = "input"},
                  %y: !npu.buffer<1x4x4x4xi8, dram> {nacre.name = "y", npu.kind = "output"}) {
    %t = npu.alloc : !npu.buffer<1x4x4x4xi8, dram>
    %a = npu.alloc : !npu.buffer<1x4x4x4xi8, dram>
    npu.clamp src(%x) dst(%t) {low = -90}
    npu.mul a(%t) b(%x) ofm(%a) {multiplier = 1073741824, shift = -3}
    npu.fill dst(BETWEEN) {value = 7}
    npu.clamp src(%a) dst(LAST) {high = 20}
    npu.add a(%t) b(%t) ofm(%y) {
      parameters = [0, 1073741824, 0, 0, 1073741824, 0, 0, 1073741824, -18, 20, -128, 127]}
    func.return
  }
}
"""  # fmt: skip


@pytest.mark.parametrize(
    ("between", "last", "instructions"),
    [("%y", "%y", 4), ("%t", "%y", 5), ("%y", "%t", 5)],
    ids=["free", "its operand is written in between", "it would write over its operand"],
)
def test_an_instruction_only_moves_where_it_reads_the_same(npu, between, last, instructions):
    module = parse_module(HAND_WRITTEN.replace("BETWEEN", between).replace("LAST", last))
    feeds = {"x": np.random.default_rng(0).integers(-128, 128, (1, 4, 4, 4)).astype(np.int8)}
    made = npu.lowered(module, FuseActivationPass())
    assert len(npu.instructions(made)) == instructions
    npu.everywhere(made, feeds, interpret_npu(module, feeds))


# --- residuals -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("element", ELEMENTS)
@pytest.mark.parametrize("side", ["a", "b"])
def test_addition_to_a_convolution_is_fused(npu, element, side):
    net = npu.Net((1, 9, 7, 8), element=ELEMENTS[element])
    x = net.conv(net.args[0])
    pair = (x, net.args[0]) if side == "a" else (net.args[0], x)
    made = npu.fused(net.done(net.sum(*pair)), FuseResidualPass())
    assert npu.names(made) == ["conv"]
    assert not npu.dead(made)


def test_the_clamp_behind_a_residual_is_fused_in_either_order(npu):
    net = npu.Net((1, 9, 7, 8))
    module = net.done(net.clamp(net.sum(net.conv(net.args[0]), net.args[0]), -9, 30))
    for passes in ((FuseActivationPass(), FuseResidualPass()), (FuseResidualPass(), FuseActivationPass())):
        (op,) = npu.instructions(npu.fused(module, *passes))
        assert op.fields()["residual_parameters"][10:] == (-9, 30)


def test_of_two_convolutions_the_later_one_adds(npu):
    net = npu.Net(SHAPE)
    early, late = net.conv(net.args[0]), net.conv(net.args[0], kernel=(1, 1), pads=(0, 0, 0, 0))
    first, second = npu.instructions(npu.fused(net.done(net.sum(early, late)), FuseResidualPass()))
    assert first.ports().keys() & {"residual"} == set()
    assert location_names(second.location) == ["conv1", "add2"]


def test_the_convolution_moves_behind_what_writes_the_residual(npu):
    net = npu.Net((1, 9, 7, 8))
    x = net.conv(net.args[0])
    other = net.clamp(net.args[0], -50, 50)
    made = npu.fused(net.done(net.sum(x, other)), FuseResidualPass())
    assert npu.names(made) == ["clamp", "conv"]


@pytest.mark.parametrize("case", ["subtract", "broadcast", "twice", "itself"])
def test_additions_that_stay(npu, case):
    net = npu.Net((1, 9, 7, 8), (1, 1, 1, 8))
    x = net.conv(net.args[0])
    y = {
        "subtract": lambda: net.sum(x, net.args[0], subtract=True),
        "broadcast": lambda: net.sum(x, net.args[1]),
        "twice": lambda: net.sum(net.clamp(x, 0, 9), x),
        "itself": lambda: net.sum(x, x),
    }[case]()
    assert "add" in npu.names(npu.fused(net.done(y), FuseResidualPass()))


# --- pooling ---------------------------------------------------------------------------------------------
@given(
    size=st.tuples(st.integers(5, 17), st.integers(5, 15)),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    conv_stride=st.integers(1, 2),
    pool=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    pads=st.tuples(*[st.integers(0, 1)] * 4),
    channels=st.sampled_from([(3, 8), (16, 40), (5, 5)]),
    depthwise=st.booleans(),
    residual=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_pooled_convolutions_are_right_in_tiles(
    npu, pool_always, size, kernel, conv_stride, pool, strides, pads, channels, depthwise, residual, seed
):
    ifm, filters = channels
    filters = ifm if depthwise else filters
    padding = (1, 0, 1, 1)
    convolved = [
        (d + padding[i] + padding[i + 2] - k) // conv_stride + 1 for i, (d, k) in enumerate(zip(size, kernel))
    ]
    pads = tuple(min(p, k - 1) for p, k in zip(pads, pool * 2))
    assume(all(k <= d + pads[i] + pads[i + 2] for i, (d, k) in enumerate(zip(convolved, pool))))
    net = npu.Net((1, *size, ifm), (1, *convolved, filters), seed=seed)
    x = net.conv(net.args[0], filters, kernel, (conv_stride, conv_stride), padding, depthwise=depthwise)
    if residual:
        x = net.sum(x, net.args[1])
    y = net.max_pool(x, pool, strides, pads)
    made = npu.fused(net.done(y), FuseResidualPass(), FusePoolPass(), seed=seed)
    assert npu.names(made) == ["depthwise" if depthwise else "conv"]


@pytest.mark.parametrize("depthwise", [False, True])
def test_pooled_convolutions_are_cut_into_tiles(npu, pool_always, depthwise):
    net = npu.Net((1, 41, 37, 12))
    x = net.conv(net.args[0], 12 if depthwise else 20, depthwise=depthwise)
    made = npu.fused(net.done(net.max_pool(x, (3, 3), (2, 2), (0, 1, 1, 0))), FusePoolPass())
    (op,) = npu.instructions(made)
    assert op.fields()["pool"] == PoolKind.MAX
    tiles = npu.instructions(npu.lowered(made, TilePass()))
    assert sum(t.name == op.name for t in tiles) > 4


def test_a_pooling_with_a_clamp_is_fused(npu):
    net = npu.Net(SHAPE)
    y = net.clamp(net.max_pool(net.conv(net.args[0]), (2, 2), (2, 2)), -10, 20)
    (op,) = npu.instructions(npu.fused(net.done(y), *ALL))
    assert (op.fields()["pool"], op.fields()["low"], op.fields()["high"]) == (PoolKind.MAX, -10, 20)


@pytest.mark.parametrize("target", ["tiny", "v853"])
def test_a_pooling_without_overlap_is_worth_fusing(npu, target):
    net = npu.Net((1, 24, 24, 16))
    made = npu.fused(
        net.done(net.max_pool(net.conv(net.args[0]), (2, 2), (2, 2))), FusePoolPass(), target=target
    )
    assert npu.names(made) == ["conv"]


def test_a_pooling_that_would_compute_everything_many_times_stays(npu):
    net = npu.Net((1, 40, 40, 16))
    x = net.conv(net.args[0], 16)
    made = npu.fused(net.done(net.max_pool(x, (9, 9), (1, 1), (4, 4, 4, 4))), FusePoolPass())
    assert npu.names(made) == ["conv", "pool"]


def test_a_window_that_no_tile_could_hold_stays(npu):
    net = npu.Net((1, 16, 16, 32))
    x = net.conv(net.args[0], 8)
    made = npu.fused(net.done(net.max_pool(x, (16, 16), (1, 1))), FusePoolPass())
    assert npu.names(made) == ["conv", "pool"]


def test_average_pooling_stays(npu):
    net = npu.Net(SHAPE)
    made = npu.fused(net.done(net.average_pool(net.conv(net.args[0]), (2, 2), (2, 2))), FusePoolPass())
    assert npu.names(made) == ["conv", "pool"]


def test_everything_at_once(npu):
    net = npu.Net((1, 9, 7, 8))
    x = net.table(net.conv(net.args[0]))
    y = net.max_pool(net.clamp(net.sum(x, net.args[0]), -40, 70), (2, 2), (2, 2))
    (op,) = npu.instructions(npu.fused(net.done(y), *ALL))
    assert {"table", "residual"} <= op.ports().keys() and op.fields()["pool"] == PoolKind.MAX
    assert location_names(op.location) == ["conv0", "table1", "add2", "clamp3", "max_pool4"]


# --- machines --------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("feature", "module"),
    [
        ("activation", fuse_activation), ("table", fuse_activation),
        ("residual", fuse_residual), ("pool", fuse_pool),
    ],
)  # fmt: skip
def test_a_machine_that_cannot_is_not_asked(npu, feature, module, monkeypatch):
    without(module, feature, monkeypatch)
    net = npu.Net((1, 9, 7, 8))
    x = net.conv(net.args[0])
    kept, y = {
        "activation": lambda: ("clamp", net.clamp(x, -10, 10)),
        "table": lambda: ("table", net.table(x)),
        "residual": lambda: ("add", net.sum(x, net.args[0])),
        "pool": lambda: ("pool", net.max_pool(x, (2, 2), (2, 2))),
    }[feature]()
    assert npu.names(npu.fused(net.done(y), *ALL)) == ["conv", kept]


@pytest.mark.parametrize("made", ALL, ids=lambda p: p.name)
def test_passes_ask_for_layer_form(npu, made):
    net = npu.Net(SHAPE)
    tiles = npu.lowered(npu.select(net.done(net.conv(net.args[0]))), TilePass())
    with pytest.raises(CompileError, match=f"{made.name} works on the npu dialect's layer form"):
        npu.lowered(tiles, made)


# --- copies ----------------------------------------------------------------------------------------------
def test_a_copy_to_an_output_behind_a_reshape_is_elided(npu):
    net = npu.Net(SHAPE)
    y = net.reshape(net.conv(net.args[0]), (1, 9 * 7 * 8))
    module = net.done(y)
    assert npu.names(npu.select(module)) == ["conv", "copy"]
    made = npu.fused(module, ElideCopiesPass())
    assert npu.names(made) == ["conv"]
    assert not npu.dead(made)


def test_a_copied_result_that_others_read_too_is_elided(npu):
    net = npu.Net(SHAPE)
    x = net.conv(net.args[0])
    made = npu.fused(net.done(net.reshape(x, (504,)), net.table(x)), ElideCopiesPass())
    assert npu.names(made) == ["conv", "table"]


def test_copies_of_inputs_views_and_constants_stay(npu):
    net = npu.Net(SHAPE)
    x = net.conv(net.args[0])
    part = net.slice(x, (0, 0, 0, 2), (1, 9, 7, 3))
    made = npu.fused(net.done(net.args[0], part), ElideCopiesPass())
    assert npu.names(made).count("copy") == 2


def test_a_result_given_twice_is_copied_once(npu):
    net = npu.Net(SHAPE)
    x = net.conv(net.args[0])
    made = npu.fused(net.done(x, x), ElideCopiesPass())
    assert npu.names(made) == ["conv", "copy"]


def test_a_reshaped_part_of_a_concat_along_channels_is_copied(npu):
    # The part is read in another shape, which a place with gaps inside the concat cannot serve.
    net = npu.Net(SHAPE)
    x = net.conv(net.args[0])
    made = npu.fused(net.done(net.concat(x, net.args[0]), net.reshape(x, (504,))), ElideCopiesPass())
    assert "copy" in npu.names(made)


def test_a_copy_into_a_concat_is_elided_where_the_place_is_dense(npu):
    net = npu.Net(SHAPE)
    x = net.conv(net.args[0], 5)
    flat = net.reshape(x, (1, 63, 1, 5))
    module = net.done(net.concat(net.reshape(net.args[0], (1, 63, 1, 5)), flat, axis=1))
    before, made = npu.select(module), npu.fused(module, ElideCopiesPass())
    assert npu.names(before).count("copy") == 2
    assert npu.names(made).count("copy") == 1


def test_a_place_that_others_write_too_is_copied_to(npu):
    module = parse_module("""
    builtin.module attributes {npu.form = "layer", nacre.target = "tiny"} {
      func.func @main(%x: !npu.buffer<4xi8, dram> {nacre.name = "x", npu.kind = "input"},
                      %y: !npu.buffer<4xi8, dram> {nacre.name = "y", npu.kind = "output"}) {
        %t = npu.alloc : !npu.buffer<4xi8, dram>
        npu.clamp src(%x) dst(%t) {low = -90}
        npu.fill dst(%y) {value = 7}
        npu.copy src(%t) dst(%y)
        func.return
      }
    }""")
    feeds = {"x": np.array([-128, 5, 6, 100], np.int8)}
    made = npu.lowered(module, ElideCopiesPass())
    npu.everywhere(made, feeds, interpret_npu(module, feeds))
    assert npu.names(made) == ["clamp", "fill", "copy"]


def test_the_place_stands_for_the_tensors_of_what_was_copied(npu):
    net = npu.Net(SHAPE)
    x = net.conv(net.args[0])
    made = npu.fused(net.done(net.reshape(x, (504,))), ElideCopiesPass())
    assert [s.tensor for s in sources_of(npu.instructions(made)[0].buffers("ofm")[0])] == ["conv0"]
