"""Sanitizers: each rule has a program that breaks it and a twin that does not; brute force agrees."""

import itertools
import re
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from nacre.dialects import npu_instructions as npu
from nacre.dialects.npu import READ, Queue, Region, Space, dense_region, itemsize
from nacre.dialects.rounding import Rounding
from nacre.dialects.types import i8, i16, i32, i64
from nacre.errors import Fault
from nacre.runtime.emulator import Emulator, legal_order
from nacre.runtime.executable import Binding, Executable
from nacre.runtime.isa import Command
from nacre.runtime.machine import load_machine
from nacre.runtime.sanitizer import check

TINY = load_machine("tiny")
CONSTANTS = np.arange(64, dtype=np.uint8)


def sram(address, *shape, element=i8):
    return dense_region(Space.SRAM, address, shape, element)


def dram(address, *shape, element=i8):
    return dense_region(Space.DRAM, address, shape, element)


def command(cls, ports, waits, **fields):
    values = {f.name: f.default for f in cls.FIELDS} | fields
    counts = [waits.get(q, 0) for q in Queue]
    return Command(cls, SimpleNamespace(**values), {n: (r,) for n, r in ports.items()}, tuple(counts))


def load(src, dst, **waits):
    return command(npu.LoadOp, {"src": src, "dst": dst}, named(waits))


def store(src, dst, **waits):
    return command(npu.StoreOp, {"src": src, "dst": dst}, named(waits))


def clamp(src, dst, **waits):
    return command(npu.ClampOp, {"src": src, "dst": dst}, named(waits), low=-5, high=5)


def copy(src, dst, **waits):
    return command(npu.CopyOp, {"src": src, "dst": dst}, named(waits))


def named(waits):
    return {Queue[name.upper()]: count for name, count in waits.items()}


def program(commands, inputs=(), outputs=(), constants=CONSTANTS, dram_bytes=4096):
    inputs = [Binding(f"x{i}", region) for i, region in enumerate(inputs)]
    outputs = [Binding(f"y{i}", region) for i, region in enumerate(outputs)]
    layers = [f"layer {i}" for i in range(len(commands))]
    return Executable(TINY, commands, {}, constants, dram_bytes, inputs, outputs, layers=layers)


# --- a pipeline whose every wait is needed ---------------------------------------------------------------
IN, OUT = dram(64, 4, 16), dram(256, 4, 16)


def pipeline(tiles=4):
    """Two buffers in, two out: load, clamp and store of neighbouring tiles overlap."""
    commands = []
    for t in range(tiles):
        here, there = sram(16 * (t % 2), 16), sram(100 + 16 * (t % 2), 16)
        before = t + 1 - 2  # the user of this buffer
        commands.append(load(dram(64 + 16 * t, 16), here, fabric=max(before, 0)))
        commands.append(clamp(here, there, load=t + 1, store=max(before, 0)))
        commands.append(store(there, dram(256 + 16 * t, 16), fabric=t + 1))
    return program(commands, [IN], [OUT])


def test_a_pipeline_is_clean_and_runs_in_any_order():
    clean = pipeline()
    check(clean)
    emulator, rng = Emulator(clean, sanitize=True), np.random.default_rng(1)
    x = rng.integers(-128, 128, (4, 16), dtype=np.int8)
    for _ in range(20):
        got = emulator.run({"x0": x}, legal_order(clean.commands, rng))
        np.testing.assert_array_equal(got["y0"], x.clip(-5, 5))


WAITS = [(i, q) for i, c in enumerate(pipeline().commands) for q, n in enumerate(c.waits) if n]


@pytest.mark.parametrize(("index", "queue"), WAITS)
@pytest.mark.parametrize("fewer", ["none", "one less"])
def test_without_any_one_wait_the_pipeline_races(index, queue, fewer):
    broken = pipeline()
    c = broken.commands[index]
    left = 0 if fewer == "none" else c.waits[queue] - 1
    broken.commands[index].waits = (*c.waits[:queue], left, *c.waits[queue + 1 :])
    with pytest.raises(Fault, match="with no wait ordering the two") as fault:
        check(broken)
    assert len(set(re.findall(r"command (\d+) \(npu\.\w+, layer 'layer \1'\)", str(fault.value)))) == 2


def test_the_pipeline_has_waits_to_break():
    assert len(WAITS) == 4 + 4 + 2 + 2


# --- a rule, its program and its twin --------------------------------------------------------------------
def one_load(address, size=16, start=64):
    return program([load(dram(start, size), sram(address, size))], [dram(64, 64)])


def strided(address, rows, stride, width):
    return Region(Space.SRAM, address, (rows, width), (stride, 1), i8)


def two_loads_and_a_copy(second, source, **waits):
    """Column halves of a [4, 8] array: loaded by `first` and `second`, then copied from `source`."""
    first = strided(0, 4, 8, 4)
    return program(
        [load(dram(64, 4, 4), first), load(dram(80, 4, 4), second), copy(source, sram(200, 4, 4), **waits)],
        [dram(64, 64)],
    )


def write_after_read(**waits):
    """The store still reads its bytes when the clamp writes them."""
    a, b = sram(0, 16), sram(16, 16)
    return program(
        [load(dram(64, 16), a), clamp(a, b, load=1), store(b, dram(512, 16), fabric=1), clamp(a, b, **waits)],
        [dram(64, 64)],
    )


def write_after_write(**waits):
    """Load and fabric write the same bytes."""
    return program(
        [load(dram(64, 16), sram(0, 16)), command(npu.FillOp, {"dst": sram(8, 16)}, named(waits))],
        [dram(64, 64)],
    )


def through_dram(**waits):
    """A spilled tile comes back."""
    return program(
        [
            load(dram(64, 16), sram(0, 16)), store(sram(0, 16), dram(512, 16), load=1),
            load(dram(512, 16), sram(64, 16), **waits),
        ],
        [dram(64, 64)],
    )  # fmt: skip


def by_detour(load_before_store):
    """The last command waits for the store only, which waited for the load (or did not)."""
    return program(
        [
            load(dram(64, 32), sram(0, 32)), load(dram(64, 16), sram(64, 16)),
            store(sram(0, 32), dram(512, 32), load=load_before_store),
            clamp(sram(64, 16), sram(80, 16), store=1),
        ],
        [dram(64, 64)],
    )  # fmt: skip


def reads_of(region, filled):
    return program([command(npu.FillOp, {"dst": filled}, {}), copy(region, sram(400, *region.shape))])


def stores_to(address, size=16):
    fill = command(npu.FillOp, {"dst": sram(0, size)}, {})
    return program([fill, store(sram(0, size), dram(address, size), fabric=1)], [dram(128, 32)])


def stores_columns(column):
    """Into a [4, 8] array whose left half is an input."""
    half = Region(Space.DRAM, 128, (4, 4), (8, 1), i8)
    goal = Region(Space.DRAM, 128 + column, (4, 4), (8, 1), i8)
    fill = command(npu.FillOp, {"dst": sram(0, 4, 4)}, {})
    return program([fill, store(sram(0, 4, 4), goal, fabric=1)], [half])


def waits_for(count):
    return program([load(dram(64, 8), sram(0, 8)), clamp(sram(0, 8), sram(8, 8), load=count)], [dram(64, 64)])


def gives(size, binding=16):
    fill = command(npu.FillOp, {"dst": sram(0, size)}, {})
    return program([fill, store(sram(0, size), dram(512, size), fabric=1)], (), [dram(512, binding)])


def backwards(address):
    """An array that lies before its first element."""
    region = Region(Space.SRAM, address, (4,), (-4,), i8)
    return program([command(npu.FillOp, {"dst": region}, {})])


def needs(dram_bytes):
    return program([], dram_bytes=dram_bytes)


RULES = {
    "past the SRAM": (one_load(8192 - 15), one_load(8192 - 16), "outside the SRAM of 8192 bytes"),
    "past the arena": (one_load(0, 16, 4090), one_load(0, 16, 64), "outside the DRAM arena of 4032 bytes"),
    "from constants into arena": (one_load(0, 16, 50), one_load(0, 16, 48), "the constants of 64 bytes"),
    "before the SRAM": (backwards(11), backwards(12), "outside the SRAM"),
    "more DRAM than there is": (needs(TINY.dram_bytes + 1), needs(TINY.dram_bytes), "bytes of DRAM"),
    "read after write": (
        two_loads_and_a_copy(strided(4, 4, 8, 4), strided(4, 4, 8, 4), load=1),
        two_loads_and_a_copy(strided(4, 4, 8, 4), strided(0, 4, 8, 4), load=1),
        r"command 2 \(npu.copy, layer 'layer 2'\) reads .* command 1 \(npu.load, layer 'layer 1'\) writes",
    ),
    "write after read": (
        write_after_read(), write_after_read(store=1),
        r"command 3 \(npu.clamp.* writes .* which command 2 \(npu.store, layer 'layer 2'\) reads",
    ),
    "write after write": (
        write_after_write(), write_after_write(load=1),
        r"command 1 \(npu.fill.* writes .* which command 0 \(npu.load.* writes",
    ),
    "through DRAM": (through_dram(), through_dram(store=1), r"command 2 \(npu.load.* reads dram.* command 1"),
    "order by detour": (by_detour(1), by_detour(2), r"command 3 \(npu.clamp.* reads .* command 1 \(npu.load"),
    "unwritten": (
        reads_of(sram(0, 20), sram(0, 19)), reads_of(sram(0, 19), sram(0, 19)),
        r"command 1 \(npu.copy.* at port 'src': 1 of 20 bytes were never written",
    ),
    "unwritten between": (
        reads_of(sram(0, 600), strided(0, 60, 10, 9)), reads_of(strided(0, 60, 10, 8), strided(0, 60, 10, 9)),
        "60 of 600 bytes were never written",
    ),
    "unwritten, unaligned block": (
        reads_of(sram(0, 600), sram(1, 700)), reads_of(sram(1, 600), sram(1, 700)), "1 of 600 bytes",
    ),
    "constants": (stores_to(40), stores_to(64), r"command 1 \(npu.store.* which lies among the constants"),
    "inputs": (stores_to(159), stores_to(160), r"command 1 \(npu.store.* over the input 'x0'"),
    "input columns": (stores_columns(3), stores_columns(4), "over the input 'x0'"),
    "deadlock": (waits_for(2), waits_for(1), "waits for 2 completions of queue load, but 1 are issued"),
    "outputs": (gives(15), gives(16), "output 'y0' at .*: 1 of 16 bytes are never written"),
}  # fmt: skip


@pytest.mark.parametrize("rule", RULES)
def test_each_rule(rule):
    broken, twin, message = RULES[rule]
    with pytest.raises(Fault, match=message):
        check(broken)
    check(twin)


def test_an_input_among_the_constants_is_refused():
    with pytest.raises(Fault, match=r"input 'x0' at .* lies among the constants"):
        check(program([], [dram(0, 8)]))


def test_an_output_may_be_a_constant_or_an_input():
    check(program([], [dram(64, 8)], [dram(64, 8), dram(0, 8)]))


def test_empty_regions_are_nothing():
    check(program([load(dram(64, 0, 4), sram(0, 0, 4))]))


def test_the_emulator_checks_only_when_asked():
    broken, _, message = RULES["write after read"]
    Emulator(broken)
    with pytest.raises(Fault, match=message):
        Emulator(broken, sanitize=True)


def test_the_emulator_follows_negative_strides_and_bounds():
    """A region whose axes cancel (−3 + 2 + 1 bytes) is not an empty one."""
    turned = Region(Space.SRAM, 3, (2, 3), (-3, 1), i8)
    commands = [load(dram(64, 6), sram(0, 6)), store(turned, dram(128, 2, 3), load=1)]
    emulator = Emulator(program(commands, [dram(64, 6)]), sanitize=True)
    emulator.run({"x0": np.arange(6, dtype=np.int8)})
    assert emulator.view(dram(128, 2, 3)).tolist() == [[3, 4, 5], [0, 1, 2]]
    for outside in (backwards(11), one_load(8192 - 15)):
        with pytest.raises(Fault, match="outside the SRAM"):
            Emulator(outside)


# --- against brute force ---------------------------------------------------------------------------------
def footprint(region):
    """A region's bytes, one by one, as memory and address."""
    return {
        (region.space, region.address + sum(i * s for i, s in zip(index, region.strides)) + byte)
        for index in itertools.product(*map(range, region.shape))
        for byte in range(itemsize(region.element))
    }


def races(commands):
    """Whether two commands touch a byte, one of them writing, and no order follows from queues and waits."""
    number, reaches = [], []
    for i, c in enumerate(commands):
        number.append(sum(d.queue is c.queue for d in commands[:i]) + 1)
        queues = [d.queue for d in commands[:i]]
        direct = [j for j, q in enumerate(queues) if number[j] <= c.waits[q] or q is c.queue]
        reaches.append(set(direct).union(*(reaches[j] for j in direct)))
    touched = [[(p.effect is READ, footprint(r)) for p, r in c.accesses()] for c in commands]
    return any(
        i not in reaches[j] and any(not (a and b) and x & y for a, x in touched[i] for b, y in touched[j])
        for i, j in itertools.combinations(range(len(commands)), 2)
    )


@st.composite
def small_regions(draw, shape):
    """Somewhere in 320 bytes, so that blocks of the summary are crossed."""
    item, strides = 1, []
    for d in reversed(shape):
        strides.append(item + draw(st.sampled_from([0, 0, 1, 3, 60])))
        item = strides[-1] * d
    if draw(st.booleans()):
        strides = strides[:1] + [-s for s in strides[1:]]
    low = -sum((d - 1) * s for d, s in zip(reversed(shape), strides) if s < 0)
    extent = 1 + sum((d - 1) * abs(s) for d, s in zip(reversed(shape), strides))
    assume(extent <= 320)
    address = low + draw(st.integers(0, 320 - extent))
    return Region(Space.SRAM, address, shape, tuple(reversed(strides)), i8)


@st.composite
def tangles(draw):
    """Commands on three queues over a small, fully written SRAM, with random waits."""
    commands, issued = [command(npu.FillOp, {"dst": sram(0, 320)}, {})], [0, 0, 0, 1, 0]
    for _ in range(draw(st.integers(2, 7))):
        shape = tuple(draw(st.lists(st.integers(1, 5), max_size=3)))
        region, kind = draw(small_regions(shape)), draw(st.sampled_from(["load", "store", "copy"]))
        waits = [draw(st.integers(0, n)) for n in issued]
        waits[Queue.FABRIC] = max(waits[Queue.FABRIC], 1)
        other = dram(64, *shape) if kind == "load" else dram(512 + 256 * len(commands), *shape)
        ports, cls = {
            "load": ({"src": other, "dst": region}, npu.LoadOp),
            "store": ({"src": region, "dst": other}, npu.StoreOp),
            "copy": ({"src": region, "dst": draw(small_regions(shape))}, npu.CopyOp),
        }[kind]
        made = command(cls, ports, dict(zip(Queue, waits)))
        commands.append(made)
        issued[made.queue] += 1
    return program(commands, [dram(64, 128)])


def verdict(executable):
    try:
        check(executable)
    except Fault as fault:
        assert "no wait ordering the two" in str(fault)
        return True
    return False


@settings(max_examples=150, deadline=None)
@given(tangles())
def test_races_are_those_of_brute_force(executable):
    assert verdict(executable) == races(executable.commands)


@settings(max_examples=100, deadline=None)
@given(tangles(), st.integers(0, 2**31))
def test_what_is_clean_gives_the_same_bytes_in_every_order(executable, seed):
    assume(not verdict(executable))
    rng = np.random.default_rng(seed)
    memories = []
    for order in (None, *(legal_order(executable.commands, rng) for _ in range(4))):
        emulator = Emulator(executable)
        emulator.run({"x0": np.arange(128, dtype=np.int8)}, order)
        memories.append(emulator.sram.tobytes() + emulator.arena.tobytes())
    assert len(set(memories)) == 1


# --- accumulators ----------------------------------------------------------------------------------------
def accumulating(cls, start, ifm_shape, weight_shape, ofm_shape, with_bias=False):
    """One instruction whose accumulators start at `start`; ifm and weights are all 127, zero points −128."""
    count = int(np.prod(ofm_shape))
    begin = np.full(count if not with_bias else ofm_shape[-1], start, np.int32)
    many = np.full(256, 127, np.uint8)
    constants = np.concatenate([begin.view(np.uint8), many])
    bulk = dram(begin.nbytes, 256)
    loads = [load(bulk, sram(0, 256)), load(dram(0, begin.nbytes), sram(512, begin.nbytes))]
    shape = (ofm_shape[-1],) if with_bias else ofm_shape
    port = {"bias" if with_bias else "acc": sram(512, *shape, element=i32)}
    ofm = sram(1024, *ofm_shape, element=i8 if with_bias else i32)
    if with_bias:
        loads.append(load(dram(0, 4), sram(2000, 4)))
        port |= {"multiplier": sram(2000, 1, element=i32), "shift": sram(2000, 1, element=i32)}
    compute = command(
        cls, {"ifm": sram(0, *ifm_shape), "weight": sram(0, *weight_shape), "ofm": ofm, **port},
        {Queue.LOAD: len(loads)}, ifm_zero=-128, weight_zero=-128,
    )  # fmt: skip
    return program([*loads, compute], constants=constants, dram_bytes=len(constants) + 64)


CASES = {
    "conv": (npu.ConvOp, (1, 2, 2, 4), (2, 2, 4, 3), (1, 1, 1, 3), 16),
    "depthwise": (npu.DepthwiseOp, (1, 2, 2, 4), (2, 2, 4, 1), (1, 1, 1, 4), 4),
    "matmul": (npu.MatmulOp, (3, 8), (8, 5), (3, 5), 8),
}


@pytest.mark.parametrize("case", CASES)
def test_accumulators_up_to_the_last_bit(case):
    cls, ifm, weight, ofm, products = CASES[case]
    room = 2**31 - 1 - products * 255 * 255
    Emulator(accumulating(cls, room, ifm, weight, ofm), sanitize=True).run({})
    too_much = accumulating(cls, room + 1, ifm, weight, ofm)
    Emulator(too_much).run({})
    with pytest.raises(Fault, match=r"command 2 \(npu.*'layer 2'\): an accumulator reaches 2147483648,"):
        Emulator(too_much, sanitize=True).run({})


def test_a_bias_can_overflow():
    cls, ifm, weight, ofm, products = CASES["conv"]
    room = 2**31 - 1 - products * 255 * 255
    Emulator(accumulating(cls, room, ifm, weight, ofm, True), sanitize=True).run({})
    with pytest.raises(Fault, match="accumulator reaches 2147483648"):
        Emulator(accumulating(cls, room + 1, ifm, weight, ofm, True), sanitize=True).run({})


def sixteen_bits(start, rounding):
    """A matrix product of int16 whose only sum is `start` and one product, requantised."""
    values = [np.array([start], np.int64), np.array([1, 0], np.int32), np.array([100, 50], np.int16)]
    constants = np.concatenate([v.view(np.uint8) for v in values])
    vector = {"element": i32}
    compute = command(
        npu.MatmulOp,
        {
            "ifm": sram(16, 1, 1, element=i16), "weight": sram(18, 1, 1, element=i16),
            "ofm": sram(64, 1, 1, element=i16), "bias": sram(0, 1, element=i64),
            "multiplier": sram(8, 1, **vector), "shift": sram(12, 1, **vector),
        },
        {Queue.LOAD: 1}, rounding=rounding,
    )  # fmt: skip
    return program([load(dram(0, 20), sram(0, 20)), compute], constants=constants)


def test_acc64_takes_48_bits_and_single_more():
    room = 2**47 - 1 - 100 * 50
    Emulator(sixteen_bits(room, Rounding.ACC64), sanitize=True).run({})
    Emulator(sixteen_bits(room + 1, Rounding.SINGLE), sanitize=True).run({})
    with pytest.raises(Fault, match=f"an accumulator reaches {2**47}, which 48 bits do not hold"):
        Emulator(sixteen_bits(room + 1, Rounding.ACC64), sanitize=True).run({})
