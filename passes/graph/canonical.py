"""Importing this module registers the graph dialect's canonicalisation patterns (canonical_*.py)."""

from . import canonical_casts, canonical_elementwise, canonical_folding, canonical_moves

__all__ = ["canonical_casts", "canonical_elementwise", "canonical_folding", "canonical_moves"]
