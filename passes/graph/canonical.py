"""Importing this module registers all canonicalisation patterns of the graph dialect; they stand in canonical_*.py."""

from . import canonical_elementwise, canonical_folding, canonical_moves

__all__ = ["canonical_elementwise", "canonical_folding", "canonical_moves"]
