"""Costs: every instruction has one, the formulas by hand, and none is below what the machine can do."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacre.dialects import npu_instructions as npu
from nacre.dialects.npu import INSTRUCTIONS, Region, Space, dense_region
from nacre.dialects.types import f32, i8, i16, i32
from nacre.frontends.opencl import compile_opencl
from nacre.runtime.cost import COST, LAUNCH_CYCLES, burst_bytes, contiguous_runs, cost, cost_of
from nacre.runtime.execute import EXECUTE
from nacre.runtime.isa import Command
from nacre.runtime.kernels.quantised_conv import conv2d_accumulate
from nacre.runtime.machine import load_machine, machine_names
from nacre.runtime.ppu import kernel_named, prepare

TINY = load_machine("tiny")


def at(shape, element=i8, address=0, space=Space.SRAM):
    return dense_region(space, address, tuple(shape), element)


def command(cls, ports, **fields):
    """A command with the class's default fields."""
    values = {f.name: f.default for f in cls.FIELDS} | fields
    regions = {name: (r,) if isinstance(r, Region) else tuple(r) for name, r in ports.items()}
    return Command(cls, SimpleNamespace(**values), regions, (0,) * 5)


def work(cls, ports, machine=TINY, kernels=None, **fields):
    return cost_of(command(cls, ports, **fields), machine, kernels or {})


def conv(ifm, weight, ofm, element=i8, weight_element=i8, machine=TINY, **fields):
    ports = {"ifm": at(ifm, element), "weight": at(weight, weight_element), "ofm": at(ofm)}
    return work(npu.ConvOp, ports, machine, **fields)


def test_every_instruction_has_a_definition_and_a_cost():
    assert INSTRUCTIONS
    assert set(INSTRUCTIONS.values()) == set(EXECUTE) == set(COST)


def test_a_second_cost_for_a_class_is_refused():
    with pytest.raises(ValueError, match=r"npu\.conv has a cost already"):
        cost(npu.ConvOp)(lambda f, r, machine, kernel: None)  # type: ignore[return-value]


FILL = TINY.mac_rows + TINY.mac_columns


def test_conv_by_hand():
    # 36 pixels, 9 taps, ceil(5/4) · ceil(6/4) blocks
    found = conv((1, 8, 8, 5), (3, 3, 5, 6), (1, 6, 6, 6))
    assert found.macs == 36 * 9 * 5 * 6
    assert found.cycles == 36 * 9 * 2 * 2 + FILL
    assert found.latency == found.dram_bytes_read == found.dram_bytes_written == 0
    assert found.sram_bytes == 320 + 270 + 216


def test_conv_with_stride_pads_and_dilation_counts_the_kernels_output():
    ifm, weight = np.zeros((1, 11, 9, 4), np.int8), np.zeros((3, 2, 4, 4), np.int8)
    acc = conv2d_accumulate(ifm, weight, strides=(2, 1), pads=(1, 0, 2, 1), dilations=(2, 3))
    found = conv(
        ifm.shape, weight.shape, acc.shape, stride_h=2, stride_w=1, pad_top=1, pad_bottom=2, pad_right=1,
        dilation_h=2, dilation_w=3,
    )  # fmt: skip
    assert found.macs == math.prod(acc.shape) * 3 * 2 * 4


def test_sixteen_bits_take_more_passes():
    shapes = (1, 8, 8, 4), (3, 3, 4, 4), (1, 6, 6, 4)
    one, two, four = conv(*shapes), conv(*shapes, i16), conv(*shapes, i16, i16)
    assert [x.cycles - FILL for x in (two, four)] == [2 * (one.cycles - FILL), 4 * (one.cycles - FILL)]
    assert one.macs == two.macs == four.macs


def test_fused_pooling_saves_no_multiplication():
    plain = conv((1, 8, 8, 4), (1, 1, 4, 4), (1, 8, 8, 4))
    pooled = conv(
        (1, 8, 8, 4), (1, 1, 4, 4), (1, 4, 4, 4), pool=npu.PoolKind.MAX, pool_window=(2, 2, 2, 2, 0, 0, 0, 0)
    )
    assert pooled.macs == plain.macs
    assert pooled.cycles >= plain.cycles > 64


def test_depthwise_by_hand():
    ports = {"ifm": at((1, 6, 6, 6)), "weight": at((3, 3, 6, 1)), "ofm": at((1, 4, 4, 6))}
    found = work(npu.DepthwiseOp, ports)
    assert (found.macs, found.cycles) == (16 * 9 * 6, 16 * 9 * 2 + FILL)


def test_a_vector_times_a_matrix_waits_for_the_weights():
    ports = {"ifm": at((1, 256)), "weight": at((256, 256)), "ofm": at((1, 256))}
    found = work(npu.MatmulOp, ports, load_machine("v853"))
    assert found.macs == 256 * 256
    assert found.cycles == math.ceil((256 * 256 + 512) / 64)  # the SRAM port, not the 8 · 8 array cycles
    ports = {"ifm": at((2, 3, 16, 8)), "weight": at((2, 3, 8, 4)), "ofm": at((2, 3, 16, 4))}
    assert work(npu.MatmulOp, ports).macs == 2 * 3 * 16 * 8 * 4


def test_contiguous_runs():
    assert contiguous_runs(at((2, 3, 4), i32)) == (1, 96)
    assert contiguous_runs(Region(Space.DRAM, 0, (2, 3, 4), (100, 16, 4), i32)) == (2, 48)
    assert contiguous_runs(Region(Space.DRAM, 0, (5, 3, 4), (100, 20, 1), i8)) == (15, 4)
    assert contiguous_runs(Region(Space.DRAM, 0, (4, 5), (1, 4), i8)) == (20, 1)
    assert contiguous_runs(Region(Space.DRAM, 0, (7, 1, 4), (4, 999, 1), i8)) == (1, 28)
    assert contiguous_runs(at((), f32)) == (1, 4)
    assert contiguous_runs(at((3, 0))) == (0, 0)


def test_a_load_pays_latency_and_bursts():
    dram = Region(Space.DRAM, 0, (3, 10), (100, 1), i8)
    found = work(npu.LoadOp, {"src": dram, "dst": at((3, 10))})
    assert burst_bytes(dram, TINY.dram_burst) == found.dram_bytes_occupied == 3 * 16
    assert (found.latency, found.cycles) == (20, 20 + 48)
    assert (found.dram_bytes_read, found.dram_bytes_written, found.sram_bytes) == (30, 0, 30)


def test_a_store_writes():
    dram = at((4, 16), space=Space.DRAM)
    found = work(npu.StoreOp, {"src": at((4, 16)), "dst": dram}, load_machine("u65-512"))
    assert (found.dram_bytes_read, found.dram_bytes_written) == (0, 64)
    assert found.cycles == 500 + math.ceil(128 / 3.75)


SUM = """__kernel void rows(__global const float *x, __global float *y, int n) {
  int i = get_global_id(0);
  float sum = 0.0f;
  for (int k = 0; k < n; k++) sum += x[i * n + k];
  y[i] = sum;
}"""


def launch(n, items, machine=TINY, source=SUM):
    kernel = prepare(kernel_named(compile_opencl(source, "rows.cl"), "rows"))
    ports = {"inputs": [at((items, n), f32)], "outputs": [at((items,), f32)]}
    return work(npu.LaunchOp, ports, machine, {"rows": kernel}, kernel="rows", scalars=(n,), grid=(items,))


def test_a_launch_costs_its_instructions_wave_by_wave():
    lanes = TINY.ppu_lanes
    one, two, three = (launch(n, lanes).cycles for n in (10, 20, 30))
    assert two - one == three - two > 10 * 3, "a load, a sum, a counter and a test in each round, at least"
    assert launch(10, 2 * lanes).cycles - LAUNCH_CYCLES == 2 * (one - LAUNCH_CYCLES)
    assert launch(10, lanes + 1).cycles == launch(10, 2 * lanes).cycles, "a wave of one takes as long as a full one"
    assert launch(10, lanes - 1).cycles == one


def test_a_launch_never_looks_at_values():
    source = SUM.replace("sum += x[i * n + k]", "if (x[i * n + k] > 0.0f) sum += sqrt(x[i * n + k])")
    assert launch(10, 4, source=source).cycles > launch(10, 4).cycles, "both sides of what is unknown"


SIZES = st.integers(1, 12)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(machine_names()), st.tuples(*[SIZES] * 6), st.integers(1, 3), st.integers(1, 3))
def test_a_conv_is_never_below_peak_or_port(name, sizes, stride, kernel):
    machine = load_machine(name)
    n, h, w, ci, co, extra = sizes
    h, w = h + kernel, w + kernel
    ofm = (n, (h - kernel) // stride + 1, (w - kernel) // stride + 1, co * extra)
    weight = (kernel, kernel, ci, co * extra)
    found = conv((n, h, w, ci), weight, ofm, machine=machine, stride_h=stride, stride_w=stride)
    assert found.macs == math.prod(ofm) * kernel * kernel * ci
    assert found.cycles >= found.macs / machine.macs_per_cycle
    assert found.cycles >= found.sram_bytes / machine.sram_bytes_per_cycle


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(machine_names()), st.lists(SIZES, max_size=4), st.lists(SIZES, max_size=4))
def test_a_load_is_never_below_bandwidth(name, shape, gaps):
    machine = load_machine(name)
    shape, strides, step = tuple(shape), [], 1
    for d, gap in zip(reversed(shape), [*gaps, 0, 0, 0, 0]):
        strides.append(step + gap)
        step = (step + gap) * d
    dram = Region(Space.DRAM, 0, shape, tuple(reversed(strides)), i8)
    found = work(npu.LoadOp, {"src": dram, "dst": at(shape)}, machine)
    assert found.dram_bytes_read == math.prod(shape) <= found.dram_bytes_occupied
    assert found.dram_bytes_occupied % machine.dram_burst == 0
    assert found.cycles - found.latency >= found.dram_bytes_occupied / machine.dram_bytes_per_cycle
    count, size = contiguous_runs(dram)
    assert count * size == dram.nbytes


def minimal(cls):
    """Ports of an elementwise fabric instruction, all alike."""
    return {port.name: at((4, 6)) for port in cls.PORTS}


@pytest.mark.parametrize(
    "cls", [npu.CopyOp, npu.TransposeOp, npu.FillOp, npu.PadOp, npu.AddOp, npu.MulOp, npu.ClampOp]
)
def test_the_fabric_moves_its_lanes(cls):
    slow = TINY.model_copy(update={"fabric_lanes": 1})
    assert work(cls, minimal(cls), slow).cycles == 24
    assert work(cls, minimal(cls)).cycles >= 6


def test_pooling_and_resizing_count_their_windows():
    ports = {"ifm": at((1, 8, 8, 4)), "ofm": at((1, 4, 4, 4))}
    assert work(npu.PoolOp, ports, kernel_h=2, kernel_w=2).cycles == 64 * 4 / 4
    assert work(npu.PoolOp, ports, kernel_h=3, kernel_w=3, pad_top=1).cycles == 64 * 9 / 4
    tables = {"rows": at((8, 3), i32), "cols": at((8, 3), i32)}
    sizes = {"ifm": at((1, 2, 2, 4)), "ofm": at((1, 8, 8, 4))} | tables
    assert set(sizes) == {p.name for p in npu.ResizeOp.PORTS}
    nearest = work(npu.ResizeOp, sizes, kind=npu.ResizeKind.NEAREST).cycles
    bilinear = work(npu.ResizeOp, sizes, kind=npu.ResizeKind.BILINEAR).cycles
    assert (nearest, bilinear) == (64, 256)
