"""Scales, zero points and stored weights: what the quantisation specification asks, for whatever comes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from nacre.dialects.quant import quantised, storage_range
from nacre.dialects.types import i8, u8
from nacre.errors import CompileError
from nacre.passes.quantise.parameters import SUM_MAX, activation_type, ones, quantise_weight, stored
from nacre.passes.quantise.ranges import Range
from nacre.runtime.kernels.quantised_elementwise import dequantise

finite = st.floats(-(2.0**60), 2.0**60, width=32)
storages = st.sampled_from([i8, u8])


@given(finite, finite, storages)
def test_activations(a: float, b: float, storage) -> None:
    """Real 0 is exact, the ends come back within half a step, and the range is used up."""
    low, high = sorted((a, b))
    type_ = activation_type(Range(low, high), storage)
    smallest, largest = storage_range(storage)
    assert smallest <= type_.zero <= largest and stored(np.zeros(1), type_)[0] == type_.zero
    ends = np.array([min(low, 0), max(high, 0)], np.float32)
    if ends[1] - ends[0] < 1e-30:
        return
    back = dequantise(stored(ends, type_), type_.scale, type_.zero)
    assert np.abs(back - ends).max() <= type_.scale * 0.5001
    first, last = stored(ends, type_).tolist()
    assert first <= smallest + 1 and last >= largest - 1 and last - first >= 254


def test_degenerate_ranges() -> None:
    assert activation_type(Range(0, 0), i8) == quantised(i8, 1.0, 0)
    assert activation_type(Range(0, 0), u8) == quantised(u8, 1.0, 128)
    assert activation_type(Range(5, 5), i8) == quantised(i8, 5 / 255, -128)
    assert activation_type(Range(-1e-42, 1e-42), i8).scale == 1.0
    with pytest.raises(CompileError, match="too wide"):
        activation_type(Range(-3e305, 3e305), i8)


weights = arrays(
    np.float32,
    st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4)),
    elements=st.one_of(
        st.floats(-10, 10, width=32), st.floats(-(2.0**-10), 2.0**-10, width=32), st.just(0.0)
    ),
)


@given(weights, st.data(), storages)
def test_weights(weight: np.ndarray, data, storage) -> None:
    """Each weight within half a step of its scale, biases at scale_in · scale, no sum beyond int32."""
    channels = weight.shape[-1]
    bias = data.draw(arrays(np.float32, channels, elements=st.floats(-100, 100, width=32)))
    ifm = quantised(storage, data.draw(st.sampled_from([1e-6, 0.01, 3.0])), data.draw(st.integers(0, 100)))
    made = quantise_weight(weight, bias, ifm)
    assert made.type.data.axis == 2 and made.type.data.scales == tuple(made.scales)
    assert set(made.type.data.zeros) == {made.zero} and (storage == u8 or made.zero == 0)
    centred = made.values.astype(np.int64) - made.zero
    assert storage == u8 or np.abs(centred).max() <= 127
    error = np.abs(centred * made.scales - weight.astype(np.float64))
    assert (error <= made.scales * 0.50001).all()
    scale = ifm.scale * made.scales
    assert (np.abs(made.bias * scale - bias) <= scale * 0.50001).all()
    reach = max(abs(v - ifm.zero) for v in storage_range(storage))
    assert (np.abs(centred).sum(axis=(0, 1)) * reach + np.abs(made.bias.astype(np.int64)) <= SUM_MAX[1]).all()


def test_int8_weights_use_their_range() -> None:
    weight = np.array([[0.5, -2.0, 0.0, 1e-30], [1.0, 0.25, 0.0, -3e-31]], np.float32)
    made = quantise_weight(weight, None, quantised(i8, 0.1, 0))
    assert made.values[:, :2].tolist() == [[64, -127], [127, 16]]
    assert made.values[:, 2:].tolist() == [[0, 0], [0, 0]]
    np.testing.assert_allclose(made.scales, [1 / 127, 2 / 127, 2 / 127 / 2**20, 2 / 127 / 2**20], rtol=1e-6)
    assert made.bias is None


def test_uint8_weights_share_the_best_zero_point() -> None:
    """One-sided weights take all 255 steps, with as many scales as channels."""
    made = quantise_weight(np.array([[0.0, 0.1], [2.54, 25.4]], np.float32), None, quantised(u8, 0.1, 0))
    assert made.zero == 1 and made.values.max() == 255
    np.testing.assert_allclose(made.scales, [0.01, 0.1], rtol=1e-5)


def test_a_large_bias_enlarges_its_channel_alone() -> None:
    weight, bias = np.full((4, 2), 1e-6, np.float32), np.array([1e4, 1e-3], np.float32)
    made = quantise_weight(weight, bias, quantised(i8, 1e-3, 0))
    assert made.scales[0] == pytest.approx(1e4 / (1e-3 * 2**30), rel=1e-6)
    assert made.scales[1] == pytest.approx(1e-6 / 127, rel=1e-6)
    np.testing.assert_allclose(made.bias * 1e-3 * made.scales, bias, rtol=1e-5)


def test_sums_that_would_leave_int32_enlarge_the_scale() -> None:
    weight = np.ones((70_000, 1), np.float32)
    made = quantise_weight(weight, None, quantised(i8, 0.1, -128))
    assert made.values.astype(np.int64).sum() * 255 <= SUM_MAX[1] and made.values[0, 0] >= 115


def test_ones() -> None:
    made = ones((2, 2, 1, 3), 0.25, quantised(i8, 0.1, 5))
    assert made.values.dtype == np.int8 and (made.values == 1).all()
    assert made.type == quantised(i8, 0.25) and made.scales.tolist() == [0.25]
