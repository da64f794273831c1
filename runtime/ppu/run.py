"""What one launch keeps beside its registers: its grid, its rounds so far, and who watches its accesses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ...errors import Fault
from .grid import Grid, Lanes
from .memory import Memory, first


class Watcher(Protocol):
    """What hears of every access and barrier of a launch (races.py)."""

    def read(self, memory: Memory, index: Lanes, mask: np.ndarray | None, place: str) -> None:
        """Work items of a mask read."""

    def write(self, memory: Memory, index: Lanes, mask: np.ndarray | None, place: str) -> None:
        """Work items of a mask write."""

    def barrier(self, mask: np.ndarray | None) -> None:
        """Groups of a mask have met."""


@dataclass
class Run:
    """One launch."""

    kernel: str
    grid: Grid
    max_steps: int
    races: Watcher | None = None
    steps: int = 0

    def fault(self, place: str, reason: str, item: int) -> Fault:
        """A Fault with kernel, place in the source and work item."""
        return Fault(f"{place}kernel '{self.kernel}': {reason}, in {self.grid.name(item)}")

    def out_of_bounds(self, place: str, verb: str, memory: Memory, index: Any, mask: np.ndarray | None) -> Fault:
        """A Fault for an access outside an argument or array."""
        item, at = memory.outside(index, mask)
        return self.fault(place, f"{verb} '{memory.name}'[{at}], which has {memory.size} elements", item)

    def repeated(self, place: str, mask: np.ndarray | None, period: int) -> Fault:
        """A Fault for a loop whose condition depends on what is as it was some rounds before."""
        before = "the round before" if period == 1 else f"{period} rounds before"
        reason = f"a loop does not end: what its condition depends on is as it was {before}"
        return self.fault(place, reason, first(mask, self.grid))

    def endless(self, place: str, mask: np.ndarray | None) -> Fault:
        """A Fault for a loop beyond the bound of the launch."""
        return self.fault(place, f"a loop did not end within {self.max_steps} rounds", first(mask, self.grid))
