"""The comparison with the source: measures, bits, joins on source tensors, what must not be overlooked."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from nacre.dialects import npu_instructions as npu
from nacre.dialects.npu import Queue, Region, Space, dense_region
from nacre.dialects.text import parse_module
from nacre.dialects.types import i8
from nacre.errors import FileFormatError, NacreError
from nacre.runtime.comparison import (
    Comparison,
    Held,
    Level,
    Row,
    SourceTensor,
    Statistic,
    collect_module,
    collect_program,
    compare_bits,
    differing_elements,
)
from nacre.runtime.emulator import Emulator
from nacre.runtime.executable import Binding, Executable, Tensor
from nacre.runtime.isa import Command
from nacre.runtime.machine import load_machine


def chain(*layers: str) -> list[SourceTensor]:
    """Layers one after the other; layer `a` computes the tensor `a_out`."""
    inputs = ["x", *(f"{layer}_out" for layer in layers)]
    return [SourceTensor(f"{layer}_out", layer, "Op", (before,)) for layer, before in zip(layers, inputs)]


def level(name: str, **held: np.ndarray) -> Level:
    """A level that holds tensors in the source's own axis order."""
    made = Level(name)
    for tensor, array in held.items():
        made.keep(tensor, array, range(array.ndim), None, 0)
    return made


# --- measures --------------------------------------------------------------------------------------------
finite = st.floats(-1e6, 1e6, width=32)


@given(arrays(np.float32, (3, 4), elements=finite), arrays(np.float32, (3, 4), elements=finite))
def test_measures_are_those_of_their_definitions(x: np.ndarray, y: np.ndarray) -> None:
    statistic = Statistic()
    statistic.add(x[:1], y[:1])
    statistic.add(x[1:], y[1:])
    a, b = x.astype(np.float64).ravel(), y.astype(np.float64).ravel()
    assert statistic.max_abs == np.abs(a - b).max()
    assert statistic.equal == np.mean(a == b)
    noise, signal = ((a - b) ** 2).sum(), (a**2).sum()
    if noise > 0 and signal > 0:
        assert statistic.sqnr == pytest.approx(10 * np.log10(signal / noise))
    if signal > 0 and np.any(b):
        assert statistic.cosine == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), abs=1e-9)


def test_equal_arrays_have_infinite_sqnr_and_zeros_do_not_divide() -> None:
    statistic = Statistic()
    statistic.add(np.zeros(4), np.zeros(4))
    assert (statistic.sqnr, statistic.cosine, statistic.relative, statistic.equal) == (math.inf, 1, 0, 1)
    statistic.add(np.zeros(1), np.ones(1))
    assert (statistic.sqnr, statistic.cosine, statistic.relative) == (-math.inf, 0, math.inf)


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_nan_or_infinity_beside_a_number_is_an_infinite_error(wrong: float) -> None:
    masked = np.array([1.0, -math.inf, math.nan])
    same, off = Statistic(), Statistic()
    same.add(masked, masked)
    assert same.equal == 1 and same.sqnr == math.inf
    off.add(masked, np.array([wrong, -math.inf, math.nan]))
    assert off.sqnr == -math.inf and off.max_abs == math.inf and off.relative == math.inf


def test_shapes_are_never_broadcast_or_cropped() -> None:
    with pytest.raises(NacreError, match=r"shapes \[2, 3\] and \[1, 3\]"):
        Statistic().add(np.zeros((2, 3)), np.zeros((1, 3)))


def test_bits_are_bits() -> None:
    one = np.array([0.0, math.nan, 1.0, 2.0], np.float32)
    other = np.array([-0.0, math.nan, 1.0, 3.0], np.float32)
    assert differing_elements(one, other) == 2
    assert differing_elements(one.reshape(2, 2).T, one.reshape(2, 2)) == 2


def test_bits_of_unlike_forms_differ_in_all_elements() -> None:
    row = Row(chain("a")[0])
    q = np.zeros(6, np.int8)
    compare_bits(row, ("qnn", "npu"), [Held(q, 0.5)], [Held(q, 0.25)])
    bits = row.bits["qnn", "npu"]
    assert (bits.elements, bits.differing, bits.unlike) == (6, 6, True)
    compare_bits(row, ("npu", "program"), [Held(q, 0.5), Held(q * 0.5)], [Held(q * 0.5)])
    assert row.bits["npu", "program"].differing == 0
    compare_bits(row, ("a", "b"), [Held(q)], [])
    assert ("a", "b") not in row.bits


# --- levels ----------------------------------------------------------------------------------------------
def test_arrays_come_back_in_the_source_layout_and_as_real_values() -> None:
    source = np.arange(24).reshape(1, 2, 3, 4)
    held = Level("qnn")
    held.keep("t", source.transpose(0, 2, 3, 1).astype(np.int8), (0, 2, 3, 1), 0.5, 4)
    assert np.array_equal(held.held["t"][0].stored, source)
    assert np.array_equal(held.held["t"][0].real, (source - 4) * np.float32(0.5))


def test_integers_are_judged_before_floats_and_outputs_before_both() -> None:
    held = level("qnn", t=np.ones(2, np.float32))
    held.keep("t", np.ones(2, np.int8), (0,), 0.5, 0)
    assert [h.stored.dtype for h in held.held["t"]] == [np.int8, np.float32]
    held.keep_outputs({"t": np.zeros(2, np.float32), "other": np.zeros(1)}, {"t"})
    assert np.array_equal(held.held["t"][0].real, [0, 0]) and "other" not in held.held


def test_axes_that_do_not_fit_are_an_error() -> None:
    with pytest.raises(NacreError, match=r"the npu level says that 't' has the axes \[0, 0\]"):
        Level("npu").keep("t", np.zeros((2, 3)), (0, 0), None, 0)


TEXT = """
func.func @main(%x: tensor<2x3xf32> {nacre.name = "x"}) -> (tensor<3x2xf32> {nacre.name = "y"}) {
  %t = graph.transpose %x {permutation = [1, 0], nacre.source = #nacre.source<"moved" [1, 0]>} : tensor<3x2xf32> loc("a")
  %r = graph.relu %t : tensor<3x2xf32> loc("b")
  func.return %r : tensor<3x2xf32>
}"""  # noqa: E501


def test_module_gives_values_in_the_source_layout_with_the_layers_that_make_them() -> None:
    module = parse_module(TEXT)
    x = np.array([[-1, 2, -3], [4, -5, 6]], np.float32)
    found = collect_module("graph", module, {"x": x}, {"moved", "y"})
    assert np.array_equal(found.held["moved"][0].real, x)
    assert np.array_equal(found.held["y"][0].real, np.maximum(x.T, 0))
    assert found.layers["moved"] == ["a"] and found.working == {"a", "b"}
    assert collect_module("graph", module, {"x": x}, {"y"}).held.keys() == {"y"}


def program(after: int) -> Emulator:
    """Copies 4 bytes of input to the arena, then others over them; `t` is complete after a command."""

    def copy(cls: type, src: Region, dst: Region) -> Command:
        return Command(cls, SimpleNamespace(), {"src": (src,), "dst": (dst,)}, (0,) * len(Queue))

    x, y = (dense_region(Space.DRAM, at, (8,), i8) for at in (0, 64))
    t = dense_region(Space.DRAM, 128, (2, 2), i8)
    flat = t._replace(shape=(4,), strides=(1,))
    here = dense_region(Space.SRAM, 0, (8,), i8)
    first, last = (here._replace(address=at, shape=(4,)) for at in (0, 4))
    return Emulator(
        Executable(
            machine=load_machine("tiny"),
            commands=[
                copy(npu.LoadOp, x, here), copy(npu.StoreOp, first, flat), copy(npu.StoreOp, last, flat),
                copy(npu.StoreOp, here, y),
            ],
            kernels={}, constants=np.zeros(0, np.uint8), dram_bytes=256,
            inputs=[Binding("x", x)], outputs=[Binding("y", y)],
            tensors=[Tensor("t", "a", t, after, (1, 0), 0.5, 1)], layers=["a", "a+b", "c", "d"],
        )
    )  # fmt: skip


@pytest.mark.parametrize(
    ("after", "values", "layers"), [(1, [1, 2, 3, 4], ["a", "b"]), (2, [5, 6, 7, 8], ["c"])]
)
def test_program_gives_tensors_as_they_are_after_their_command(
    after: int, values: list[int], layers: list[str]
) -> None:
    found = collect_program("program", program(after), {"x": np.arange(1, 9, dtype=np.int8)}, {"t", "y"})
    expected = (np.array(values).reshape(2, 2).T - 1) * 0.5
    assert np.array_equal(found.held["t"][0].real, expected)
    assert found.layers["t"] == layers and found.working == {"a", "b", "c", "d"}
    assert np.array_equal(found.held["y"][0].stored, np.arange(1, 9))


def test_debug_map_beyond_the_program_is_refused() -> None:
    with pytest.raises(FileFormatError, match="'t' is complete after command 9, but the program has 4"):
        collect_program("program", program(9), {"x": np.zeros(8, np.int8)}, set())


# --- the comparison --------------------------------------------------------------------------------------
def test_fused_tensors_name_the_layer_that_took_them_in() -> None:
    comparison = Comparison(chain("conv", "bn", "relu", "fc", "dead"), [])
    x = np.ones(3, np.float32)
    held = level("program", relu_out=x, fc_out=x)
    held.made_by("relu_out", "conv+bn+relu")
    held.made_by("fc_out", "fc")
    comparison.add({row.tensor.name: x for row in comparison.rows.values()}, {"program": held})
    comparison.finish()
    fused = {name: row.fused.get("program") for name, row in comparison.rows.items()}
    assert fused == {
        "conv_out": "conv+bn+relu",
        "bn_out": "conv+bn+relu",
        "relu_out": None,
        "fc_out": None,
        "dead_out": "",
    }


def test_layers_until_stops_where_told_and_leaves_out_what_computes_nothing() -> None:
    comparison = Comparison(chain("conv", "relu", "flat", "fc"), [])
    comparison.working["program"] = {"conv", "relu", "fc"}
    assert comparison.layers_until("fc_out", lambda n: n == "relu_out", "program") == ["fc"]
    assert comparison.layers_until("fc_out", lambda n: False, "program") == ["conv", "relu", "fc"]
    assert comparison.layers_until("flat_out", lambda n: n == "relu_out", "program") == ["flat"]


def test_other_shapes_are_a_problem_and_not_compared() -> None:
    comparison = Comparison(chain("a"), [("qnn", "npu")])
    levels = {"qnn": level("qnn", a_out=np.zeros((1, 3))), "npu": level("npu", a_out=np.zeros((3, 1)))}
    comparison.add({"a_out": np.zeros((1, 3))}, levels)
    row = comparison.rows["a_out"]
    assert row.problems == ["'a_out' (layer 'a') is [1, 3] in the source, but [3, 1] at the npu level"]
    assert list(row.statistics) == ["qnn"] and not row.bits
