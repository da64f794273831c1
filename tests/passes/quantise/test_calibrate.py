"""Calibration: which values get a range, what it is, and what stops it; ranges as attributes in the text."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacre.errors import CompileError, InputError
from nacre.passes.quantise.calibrate import Histogram, MinMax, calibrate
from nacre.passes.quantise.ranges import Range, clear_range, range_of, rounded_down, set_range
from nacre.runtime.interpreter import main_function

TEXT = """func.func @main(%x: tensor<4xf32> {nacre.name = "image"}, %i: tensor<2xi64>) -> tensor<2xf32> {
  %a = graph.exp %x : tensor<4xf32> loc("e")
  %b, %c = graph.split %a {axis = 0, sizes = [1, 3]} : tensor<1xf32>, tensor<3xf32>
  %s = graph.log %c : tensor<3xf32> loc("l")
  %g = graph.gather %s, %i {axis = 0} : tensor<2xf32>
  func.return %g : tensor<2xf32>
}"""


def feeds(*rows: list[float]) -> list[dict]:
    return [{"image": np.array(row, np.float32), "arg1": np.array([0, 2])} for row in rows]


def test_every_float_value_gets_the_range_over_all_samples(ir) -> None:
    module = ir.parse(TEXT)
    done: list[int] = []
    assert calibrate(module, iter(feeds([0, 1, 0.5, 0.25], [-2, 0, 0.5, -0.5])), progress=done.append) == 2
    assert done == [1, 2]
    function = main_function(module)
    assert range_of(function.args[0]) == (-2, 1) and range_of(function.args[1]) is None
    found = {op.name: [range_of(r) for r in op.results] for op in function.body.block.ops}
    [exp] = found["graph.exp"]
    assert exp.low <= math.exp(-2) and math.e <= exp.high < math.e * (1 + 2**-15)
    assert found["graph.split"][0].high == 1 and found["graph.split"][1].high == exp.high
    assert found["graph.gather"][0].low == pytest.approx(-0.5, rel=1e-4)
    again = ir.parse(str(module))
    assert str(again) == str(module) and "nacre.range1 = [" in str(module)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([math.nan, 0, 0, 0], "sample 1 gives NaN or infinite values in the input 'image'"),
        ([1000, 0, 0, 0], r"sample 1 gives NaN or infinite values in layer 'e' \(graph\.exp\)"),
        ([0, 0, -1000, 0], r"in layer 'l' \(graph\.log\); leave that sample out"),
    ],
)
def test_nan_and_infinity_name_the_layer(ir, row: list[float], message: str) -> None:
    with np.errstate(all="ignore"), pytest.raises(CompileError, match=message):
        calibrate(ir.parse(TEXT), feeds([0, 0, 0, 0], row))


def test_what_else_stops_it(ir) -> None:
    module = ir.parse(TEXT)
    with pytest.raises(CompileError, match="the calibration set is empty"):
        calibrate(module, [])
    with pytest.raises(CompileError, match="no calibration method 'entropy'; min-max and percentile"):
        calibrate(module, feeds([0] * 4), method="entropy")
    with pytest.raises(CompileError, match=r"percentile 3 has to lie above 50"):
        calibrate(module, feeds([0] * 4), method="percentile", percentile=3)
    with pytest.raises(InputError, match="there is no input 'picture'"):
        calibrate(module, [{"picture": np.zeros(4, np.float32)}])


def test_percentile_drops_outliers(ir) -> None:
    """The range of the bulk, though single values lie far outside."""
    module = ir.parse("x: tensor<100000xf32>\n%y = graph.neg %x : tensor<100000xf32>")
    rng = np.random.default_rng(0)
    samples = [{"arg0": rng.normal(0, 1, 100000).astype(np.float32)} for _ in range(3)]
    samples[1]["arg0"][7] = 500
    calibrate(module, samples, method="percentile", percentile=99.9)
    argument = main_function(module).args[0]
    everything = np.concatenate([s["arg0"] for s in samples])
    width = 2 * 512 / Histogram.BINS
    low, high = range_of(argument)  # type: ignore[misc]
    assert low == pytest.approx(np.percentile(everything, 0.1), abs=width)
    assert high == pytest.approx(np.percentile(everything, 99.9), abs=width)


@given(st.lists(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=9), min_size=1, max_size=5))
def test_statistics(samples: list[list[float]]) -> None:
    """min-max is exact; a 100 % percentile too; any other lies within it, in whatever order samples come."""
    extremes, all_, forward, backward = MinMax(), Histogram(100.0), Histogram(90.0), Histogram(90.0)
    for sample, reverse in zip(samples, reversed(samples), strict=True):
        for statistic, values in ((extremes, sample), (all_, sample), (forward, sample), (backward, reverse)):
            array = np.array(values, np.float32)
            statistic.add(array, float(array.min()), float(array.max()))
    flat = np.concatenate(samples).astype(np.float32)
    assert extremes.range() == (flat.min(), flat.max()) == all_.range()
    assert flat.min() <= forward.range().low <= forward.range().high <= flat.max()
    width = 2 * max(forward.bound, backward.bound) / Histogram.BINS
    assert forward.counts.sum() == flat.size == backward.counts.sum()
    np.testing.assert_allclose(forward.range(), backward.range(), atol=width)


@given(st.floats(-1e30, 1e30))
def test_ends_have_sixteen_bits(x: float) -> None:
    down = rounded_down(x)
    assert down <= x and (x == 0 or x - down <= abs(x) * 2.0**-15)
    assert math.frexp(down)[0] * 2**16 == int(math.frexp(down)[0] * 2**16)
    assert rounded_down(down) == down


def test_ranges_come_and_go(ir) -> None:
    module = ir.parse(TEXT)
    before = str(module)
    function = main_function(module)
    values = [function.args[0], *(r for op in function.body.block.ops for r in op.results)]
    for value in values:
        set_range(value, -0.1, 1 / 3)
        low, high = range_of(value)  # type: ignore[misc]
        assert isinstance(range_of(value), Range) and -0.1 - 2e-6 < low < -0.1 < 1 / 3 < high < 1 / 3 + 6e-6
    for value in values:
        clear_range(value)
        assert range_of(value) is None
    assert str(module) == before
