"""The rounding modes of requantisation, a field of instructions and of qnn operations."""

from __future__ import annotations

from enum import IntEnum


class Rounding(IntEnum):
    """How a product with a Q31 multiplier is rounded; belongs to operator and type."""

    DOUBLE = 0
    """Twice, as gemmlowp does: the doubling high product, then the shift."""
    SINGLE = 1
    """Once, half up."""
    ACC64 = 2
    """int64 accumulators with the multiplier cut to 16 bits."""
