"""Factors of requantisation with which float32 and fixed-point arithmetic round alike."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacre.dialects.quant import quantised
from nacre.dialects.rounding import Rounding
from nacre.dialects.types import i8, i16, u8
from nacre.passes.quantise.clear_of_ties import GROWTH, clear_of_ties
from nacre.passes.quantise.parameters import quantise_weight
from nacre.runtime.fixed_point import quantise_multiplier, requantise


@given(st.lists(st.floats(1e-9, 3.0), min_size=1, max_size=5))
@settings(derandomize=True, deadline=None)
def test_factors_grow_little(factors):
    """By 1/8000 at most, but near the smallest denominators; those too small for a fraction stay."""
    given_ = np.array(factors)
    found = clear_of_ties(given_)
    assert (found >= given_ * (1 - 1e-15)).all() and (found <= given_ * (1 + GROWTH)).all()
    assert (found[given_ > 1 / 4096] <= given_[given_ > 1 / 4096] * (1 + 1 / 2048)).all()
    assert (found[given_ < 1 / 8300] == given_[given_ < 1 / 8300]).all()


def test_fractions_are_the_nearest_above():
    np.testing.assert_array_equal(clear_of_ties(np.array([0.5, 1 / 3, 2.0])), [4096 / 8191, 1 / 3, 2.0])


def in_float32(acc, scales, ifm, ofm):
    """As ONNX Runtime's QLinearConv requantises."""
    factor = np.float32(ifm) * scales.astype(np.float32) / np.float32(ofm)
    return np.rint(acc.astype(np.float32) * factor)


@pytest.mark.parametrize("storage", [i8, u8])
def test_all_sums_round_alike_in_float32(storage):
    """Every sum that can lead to a result in range, of 40 channels at three pairs of scales; factors above 1/8191."""
    weight = np.random.default_rng(3).normal(0, 0.2, (9, 40)).astype(np.float32)
    compared = apart = 0
    for scale_in, scale_out in ((0.0078431372, 0.0235294), (0.031, 0.11), (0.0040001, 0.019)):
        ifm, ofm = quantised(storage, scale_in), quantised(storage, scale_out)
        for ofm_given in (ofm, None):
            scales = quantise_weight(weight, None, ifm, ofm=ofm_given).scales
            for scale in scales:
                reach = int(255 * ofm.scale / (ifm.scale * scale))
                acc = np.arange(-reach, reach + 1, dtype=np.int32)
                fixed = requantise(acc, *quantise_multiplier(ifm.scale * scale / ofm.scale), Rounding.SINGLE)
                differing = (fixed != in_float32(acc, np.array([scale]), ifm.scale, ofm.scale)).sum()
                if ofm_given is None:
                    apart += differing
                else:
                    assert differing == 0
                    compared += len(acc)
    assert compared > 1_000_000 and apart > 0, "without the precaution some sums round apart"


def test_16_bits_are_left_alone():
    """Of numbers up to 32767 float32 has too few bits behind the point for any such distance."""
    weight = np.random.default_rng(3).normal(0, 0.2, (9, 4)).astype(np.float32)
    ifm = quantised(i16, 0.01)
    with_ofm = quantise_weight(weight, None, ifm, i8, quantised(i16, 0.02)).scales
    np.testing.assert_array_equal(with_ofm, quantise_weight(weight, None, ifm, i8).scales)
