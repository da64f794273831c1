"""Factors of requantisation that no sum brings near a tie, so that float32 and Q31 arithmetic round alike.

A sum of products is brought to its result's scale by a factor M = scale_in · scale_w / scale_out, here as a
32-bit integer multiplier, in ONNX Runtime and others as floats. Where acc · M lies within the last bits of float32
of a tie, n + 1/2, the two may round apart: of a million results one, of which a network of 30 layers makes a
hundred thousand. With M = k / q and q odd that cannot happen: |acc · k / q − (n + 1/2)| is an odd number of
1 / (2q), so at least 1 / (2q), and of q < 2¹³ that is more than four roundings of float32 can do to a number
below 256 (scale of the weight, product and quotient of the scales, product with acc: 4 · 255 · 2⁻²⁴).

Fractions are dense: of these denominators the next one is rarely more than 1/8000 of M away.
"""

from __future__ import annotations

import numpy as np

LARGEST = 2**13 - 1
"""The largest denominator; odd, as all are."""
GROWTH = 2.0**-10
"""A factor never grows by more than this share, which only factors below 1/8000 would have to."""

_DENOMINATORS = np.arange(1, LARGEST + 1, 2, dtype=np.float64)
_CHANNELS = 64
"""Channels done at once: 4096 candidates of each are 2 MB."""


def clear_of_ties(factors: np.ndarray) -> np.ndarray:
    """The smallest k / q that is not below each of the factors [M]; those too small for one stay."""
    found = np.empty_like(factors, np.float64)
    for start in range(0, len(factors), _CHANNELS):
        part = factors[start : start + _CHANNELS].astype(np.float64)
        candidates = np.ceil(part[:, None] * _DENOMINATORS) / _DENOMINATORS
        found[start : start + _CHANNELS] = candidates.min(axis=1)
    return np.where(found <= factors * (1 + GROWTH), found, factors)
