"""The order in which a kernel goes through the passes."""

from __future__ import annotations

from xdsl.dialects.builtin import ModuleOp

from ..rewrite import canonicalize, cse
from . import canonical_ppu  # noqa: F401  registers the patterns
from .hoist import HoistPass
from .rotate_loops import RotateLoopsPass


def optimise(module: ModuleOp) -> None:
    """Fold, turn loops round, share equal subexpressions, hoist, and drop what is not used; a fault stays one."""
    canonicalize(module)
    RotateLoopsPass().run(module)
    cse(module)
    HoistPass().run(module)
    cse(module)
    canonicalize(module)
