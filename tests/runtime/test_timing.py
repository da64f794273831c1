"""The event simulation: small programs by hand, and what holds for every program."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacre.dialects import npu_instructions as npu
from nacre.dialects.npu import ENGINE_OF, Queue, Space, dense_region
from nacre.dialects.types import i8
from nacre.errors import Fault
from nacre.runtime.cost import cost_of
from nacre.runtime.executable import Executable
from nacre.runtime.isa import Command
from nacre.runtime.machine import load_machine
from nacre.runtime.timing import simulate
from nacre.runtime.trace import trace_events, write_trace

TINY = load_machine("tiny")
FREE = (0,) * 5


def on_chip(size):
    return (dense_region(Space.SRAM, 0, (size,), i8),)


def off_chip(size):
    return (dense_region(Space.DRAM, 0, (size,), i8),)


def command(cls, ports, waits=FREE, **fields):
    values = {f.name: f.default for f in cls.FIELDS} | fields
    return Command(cls, SimpleNamespace(**values), ports, tuple(waits))


def load(size, waits=FREE):
    return command(npu.LoadOp, {"src": off_chip(size), "dst": on_chip(size)}, waits)


def store(size, waits=FREE):
    return command(npu.StoreOp, {"src": on_chip(size), "dst": off_chip(size)}, waits)


def clamp(size, waits=FREE):
    return command(npu.ClampOp, {"src": on_chip(size), "dst": on_chip(size)}, waits)


def matmul(size, waits=FREE):
    """A [size, size] product of one port byte a multiplication at most."""
    square = (dense_region(Space.SRAM, 0, (size, size), i8),)
    return command(npu.MatmulOp, {"ifm": square, "weight": square, "ofm": square}, waits)


def program(commands, machine=TINY, layers=(), **figures):
    machine = machine.model_copy(update=figures)
    nothing = np.zeros(0, np.uint8)
    return Executable(machine, commands, {}, nothing, 1 << 16, (), (), layers=layers)


def spans(timing):
    return list(zip(timing.start.tolist(), timing.end.tolist()))


def test_an_empty_program_takes_no_time():
    timing = simulate(program([]))
    assert (timing.cycles, timing.seconds, timing.utilisation) == (0, 0.0, 0.0)


def test_a_load_takes_latency_and_bytes():
    timing = simulate(program([load(64)]))
    assert timing.cycles == 20 + 64
    assert timing.seconds == 84 / TINY.clock_hz
    assert (timing.dram_bytes_read, timing.dram_bytes_written) == (64, 0)
    assert timing.busy_cycles == {"dma": 84, "nn": 0, "fabric": 0, "ppu": 0}


def test_the_next_loads_latency_hides_behind_the_last_ones_bytes():
    assert spans(simulate(program([load(64), load(64)]))) == [(0, 84), (84, 148)]
    assert spans(simulate(program([load(8), load(64)]))) == [(0, 28), (28, 92)]
    long = simulate(program([load(8), load(64)], dram_latency=50))
    assert spans(long) == [(0, 58), (58, 122)]  # asked at 0, so only the bytes are left


def test_a_load_that_has_to_wait_shows_its_latency():
    timing = simulate(program([load(64), load(64, (1, 0, 0, 0, 0))]))
    assert spans(timing) == [(0, 84), (84, 168)]


def test_load_and_store_share_the_bandwidth():
    timing = simulate(program([load(64), store(32)], dram_latency=0))
    # Both at half speed until the store's 32 bytes are through at 64, then the load alone.
    assert spans(timing) == [(0, 96), (0, 64)]
    assert timing.busy_cycles["dma"] == 96  # the union


def test_sharing_slows_the_dram_only():
    timing = simulate(program([load(64), store(64), clamp(400)], dram_latency=0))
    assert spans(timing) == [(0, 128), (0, 128), (0, 100)]


def test_one_channel_does_one_transfer_at_a_time():
    timing = simulate(program([load(64), store(32)], dram_latency=0, dma_channels=1))
    assert spans(timing) == [(0, 64), (64, 96)]


def test_engines_share_the_banks():
    both = [clamp(400), matmul(16)]
    apart = simulate(program(both, sram_banks=2))
    one_bank = simulate(program(both, sram_banks=1))
    moved = 2 * 400 + 3 * 256
    assert apart.cycles < one_bank.cycles
    assert one_bank.cycles >= moved / TINY.sram_bytes_per_cycle


def test_a_command_waits_for_completions():
    timing = simulate(program([load(64), clamp(40, (1, 0, 0, 0, 0)), store(8, (0, 0, 0, 1, 0))]))
    assert spans(timing) == [(0, 84), (84, 94), (94, 122)]


def test_a_full_queue_holds_up_the_front_end():
    work = [clamp(400), clamp(400), load(64)]
    deep, shallow = simulate(program(work, queue_depth=2)), simulate(program(work, queue_depth=1))
    assert deep.start[2] == 0
    assert shallow.start[2] == shallow.end[0] == 100


def test_deadlock_names_command_and_layer():
    stuck = program([load(8), clamp(8, (2, 0, 0, 0, 0)), load(8, (0, 0, 0, 1, 0))], layers=["a", "b", "c"])
    with pytest.raises(Fault, match=r"after 1 of 3 commands: command 1 \(npu\.clamp, layer 'b'\) waits"):
        simulate(stuck)


def test_a_wait_beyond_a_full_queue_deadlocks():
    commands = [clamp(8, (1, 0, 0, 0, 0)), clamp(8), load(8)]
    assert simulate(program(commands, queue_depth=2)).cycles > 0
    with pytest.raises(Fault, match="deadlocks"):
        simulate(program(commands, queue_depth=1))


def test_layers_share_out_the_time():
    commands = [load(64), clamp(40, (1, 0, 0, 0, 0)), load(80)]
    timing = simulate(program(commands, layers=["a", "b", "c"]))
    assert {name: layer.cycles for name, layer in timing.layers.items()} == {"a": 84, "b": 10, "c": 70}
    assert timing.layers["c"].dram_bytes_read == 80
    assert sum(layer.cycles for layer in timing.layers.values()) == timing.cycles


def test_the_same_layer_adds_up():
    timing = simulate(program([matmul(8), matmul(8)], layers=["a", "a"]))
    assert timing.layers["a"].macs == timing.macs == 2 * 8**3
    assert timing.utilisation == pytest.approx(1024 / (timing.cycles * 16))


# --- what holds for every program ------------------------------------------------------------------------
SIZES = st.integers(1, 300)
MAKERS = (load, store, clamp, lambda size, waits: matmul(size % 16 + 1, waits))


@st.composite
def programs(draw):
    commands, issued = [], [0] * 5
    for _ in range(draw(st.integers(1, 25))):
        waits = [draw(st.integers(0, n)) if draw(st.booleans()) else 0 for n in issued]
        made = draw(st.sampled_from(MAKERS))(draw(SIZES), tuple(waits))
        commands.append(made)
        issued[made.queue] += 1
    return program(
        commands, layers=[f"layer {i // 4}" for i in range(len(commands))],
        dma_channels=draw(st.sampled_from([1, 2])), queue_depth=draw(st.integers(1, 4)),
        sram_banks=draw(st.integers(1, 3)), dram_latency=draw(st.integers(0, 40)),
        dram_bytes_per_cycle=draw(st.sampled_from([0.75, 1.0, 3.75, 16.0])),
    )  # fmt: skip


@settings(max_examples=120, deadline=None)
@given(programs())
def test_time_is_honest(executable):
    machine, timing = executable.machine, simulate(executable)
    work = [cost_of(c, machine, {}) for c in executable.commands]
    slack = timing.cycles + 1e-6
    assert slack >= sum(w.macs for w in work) / machine.macs_per_cycle
    assert slack >= sum(w.dram_bytes_occupied for w in work) / machine.dram_bytes_per_cycle
    assert slack >= sum(w.sram_bytes for w in work) / (machine.sram_banks * machine.sram_bytes_per_cycle)
    assert timing.dram_bytes_read == sum(w.dram_bytes_read for w in work)
    assert timing.cycles == math.ceil(timing.end.max() - 1e-6)
    assert timing.cycles <= sum(w.cycles for w in work) * 2 + 1  # hardly slower than in turn
    assert all(busy <= timing.cycles for busy in timing.busy_cycles.values())
    for engine in ("nn", "fabric"):
        alone = sum(w.cycles for w, c in zip(work, executable.commands) if ENGINE_OF[c.queue] == engine)
        assert timing.busy_cycles[engine] >= alone - 1
    assert sum(x.cycles for x in timing.layers.values()) == pytest.approx(timing.end.max())


@settings(max_examples=120, deadline=None)
@given(programs())
def test_time_keeps_queue_order_and_waits(executable):
    timing = simulate(executable)
    queues: list[list[int]] = [[] for _ in Queue]
    for index, c in enumerate(executable.commands):
        if queues[c.queue]:
            assert timing.start[index] >= timing.end[queues[c.queue][-1]]
        for q, count in enumerate(c.waits):
            if count:
                assert timing.start[index] >= timing.end[queues[q][count - 1]]
        queues[c.queue].append(index)
    assert simulate(executable).end.tolist() == timing.end.tolist()


# --- trace -----------------------------------------------------------------------------------------------
def test_trace(tmp_path):
    commands = [load(64), clamp(40, (1, 0, 0, 0, 0))]
    timing = simulate(program(commands, layers=["first", "second"]))
    write_trace(timing, tmp_path / "t.json")
    document = json.loads((tmp_path / "t.json").read_text(encoding="utf-8"))
    assert document["traceEvents"] == list(trace_events(timing))
    rows = {e["tid"]: e["args"]["name"] for e in document["traceEvents"] if e["name"] == "thread_name"}
    assert rows == {int(q): q.name for q in Queue}
    slices = [e for e in document["traceEvents"] if e["ph"] == "X"]
    names = [(e["name"], rows[e["tid"]]) for e in slices]
    assert names == [("first load", "LOAD"), ("second clamp", "FABRIC")]
    assert [x for e in slices for x in (e["ts"], e["dur"])] == pytest.approx([0, 0.84, 0.84, 0.1])
    assert slices[1]["args"]["waits"] == {"LOAD": 1}
