"""The walking skeleton: one small network at every level of the npu family, held against qnn bit for bit."""

import copy
from pathlib import Path

import numpy as np
import pytest
from nacre.dialects.nacre import sources_of
from nacre.dialects.npu import Queue
from nacre.dialects.npu_instructions import KernelOp
from nacre.dialects.text import load_module, save_module
from nacre.errors import Fault
from nacre.passes.npu.allocate import AllocatePass
from nacre.passes.npu.elide_copies import ElideCopiesPass
from nacre.passes.npu.fuse_activation import FuseActivationPass
from nacre.passes.npu.fuse_pool import FusePoolPass
from nacre.passes.npu.fuse_residual import FuseResidualPass
from nacre.passes.npu.schedule import SchedulePass
from nacre.passes.npu.tile import TilePass
from nacre.runtime.emulator import Emulator, legal_order
from nacre.runtime.interpreter import interpret
from nacre.runtime.npu_interpreter import interpret_npu
from nacre.runtime.sanitizer import check

FILE = Path(__file__).parents[2] / "data" / "skeleton.mlir"
FUSION = (ElideCopiesPass(), FuseActivationPass(), FuseResidualPass(), FusePoolPass())
TARGETS = ("tiny", "v853")


class Levels:
    """The skeleton at every level for one machine; `program` is decoded from encoded bytes."""

    def __init__(self, npu, target: str, fuse: bool):
        self.qnn = load_module(FILE)
        self.feeds = npu.feeds(self.qnn)
        self.layers = npu.lowered(npu.select(self.qnn, target), *(FUSION if fuse else ()))
        self.expected = interpret_npu(self.layers, self.feeds)
        self.tiles = npu.lowered(self.layers, TilePass())
        self.placed = npu.lowered(self.tiles, AllocatePass())
        self.addresses = npu.lowered(self.placed, SchedulePass())
        self.program = npu.executable(self.addresses)


@pytest.fixture(scope="module", params=[(t, f) for t in TARGETS for f in (False, True)], ids=str)
def levels(npu, request) -> Levels:
    return Levels(npu, *request.param)


@pytest.fixture(scope="module")
def tiny(npu) -> Levels:
    return Levels(npu, "tiny", fuse=False)


def test_the_skeleton_shows_something(tiny):
    y = tiny.expected["y"]
    assert len(np.unique(y)) > 100  # of the 256 that eight bits in front of a sigmoid allow
    assert [op.operation.data for op in tiny.layers.ops if isinstance(op, KernelOp)] == ["graph.sigmoid"]


def test_every_level_computes_the_same_bits(npu, levels):
    (above,), (expected,) = interpret(levels.qnn, levels.feeds).values(), levels.expected.values()
    np.testing.assert_allclose(expected, above, rtol=1e-6)  # a sigmoid in floats ends the network
    for module in (levels.tiles, levels.placed):
        npu.equal(interpret_npu(module, levels.feeds), levels.expected)
    npu.equal(Emulator(levels.program).run(levels.feeds), levels.expected)


def test_other_inputs_give_the_same_bits_on_a_loaded_program(npu, tiny):
    emulator = Emulator(tiny.program)
    for seed in (5, 6, 5):
        feeds = npu.feeds(tiny.qnn, seed)
        npu.equal(emulator.run(feeds), interpret_npu(tiny.layers, feeds))


def test_no_fault_is_found(levels):
    check(levels.program)


def test_every_queue_works(tiny):
    assert {c.queue for c in tiny.program.commands} == set(Queue)


def test_legal_orders_give_the_same_bits(npu, levels):
    orders = set()
    for seed in range(20):
        order = legal_order(levels.program.commands, np.random.default_rng(seed))
        orders.add(tuple(order))
        npu.equal(Emulator(levels.program).run(levels.feeds, order=order), levels.expected)
    if (
        levels.program.machine.name == "tiny"
    ):  # on a large machine a layer is one tile, with little to reorder
        assert len(orders) > 10


def test_every_wait_is_needed(levels):
    program, found = levels.program, 0
    for index, command in enumerate(program.commands):
        for queue, count in enumerate(command.waits):
            for lowered in {0, count - 1} if count else ():
                changed = copy.copy(program)
                changed.commands = list(program.commands)
                waits = [*command.waits[:queue], lowered, *command.waits[queue + 1 :]]
                changed.commands[index] = copy.copy(command)
                changed.commands[index].waits = tuple(waits)
                with pytest.raises(Fault, match="with no wait ordering the two"):
                    check(changed)
                found += 1
    assert found >= 10


@pytest.mark.parametrize("generic", [False, True], ids=["custom", "generic"])
@pytest.mark.parametrize("level", ["qnn", "layers", "tiles", "placed", "addresses"])
def test_every_level_reads_what_it_prints(npu, levels, level, generic):
    npu.reparsed(getattr(levels, level), generic, label=str(FILE))


def test_a_level_read_from_text_still_computes_the_same(npu, tiny, tmp_path):
    save_module(tiny.tiles, tmp_path / "tiles.mlir")
    npu.equal(interpret_npu(load_module(tmp_path / "tiles.mlir"), tiny.feeds), tiny.expected)
    save_module(tiny.addresses, tmp_path / "addresses.mlir")
    program = npu.executable(load_module(tmp_path / "addresses.mlir"))
    npu.equal(Emulator(program).run(tiny.feeds), tiny.expected)


@pytest.mark.parametrize("target", TARGETS)
def test_fusion_takes_work_away_and_no_bit(npu, target):
    plain, fused = Levels(npu, target, fuse=False), Levels(npu, target, fuse=True)
    results = [Emulator(x.program).run(plain.feeds) for x in (plain, fused)]
    npu.equal(*results)
    assert "clamp" in npu.names(plain.layers) and "clamp" not in npu.names(fused.layers)
    assert len(fused.program.commands) < len(plain.program.commands)


def test_the_debug_map_finds_the_source_tensors(tiny):
    """Each tensor of the map, read after its command, holds what the qnn interpreter saw."""
    seen = {}

    def watch(value, array):
        for source in sources_of(value):
            seen[source.tensor] = array

    interpret(tiny.qnn, tiny.feeds, watch)
    emulator = Emulator(tiny.program)
    checked = []

    def hook(index):
        for tensor in tiny.program.tensors:
            if tensor.after == index:
                np.testing.assert_array_equal(emulator.view(tensor.region), seen[tensor.name])
                checked.append(tensor.name)

    emulator.run(tiny.feeds, hook=hook)
    assert {"conv1", "relu1", "conv2"} <= set(checked)
