"""The rounding modes of requantisation, a field of instructions and of qnn operations."""

from __future__ import annotations

from enum import IntEnum


class Rounding(IntEnum):
    """How a product of accumulator and multiplier is brought back to an integer."""

    DOUBLE = 0
    """The doubled high half is rounded (ties up), then divided by a power of two (ties away from zero)."""
    SINGLE = 1
    """The full product is rounded once, ties up; accumulators may have 64 bits."""
    ACC64 = 2
    """int64 accumulators; the multiplier is cut to 16 bits, the product rounded once, ties up."""
    AWAY = 3
    """The full product is rounded once, ties away from zero, as FULLY_CONNECTED does."""
    EVEN = 4
    """The full product is rounded once, ties to even, as ONNX's QuantizeLinear behind a float operator does."""
