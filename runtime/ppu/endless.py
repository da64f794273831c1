"""Loops that cannot end, known by what their condition depends on: a state that comes again comes for ever."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...dialects import ppu
from .kernel import Body, Registers

LOOKS_FROM = 256
"""The round of a loop whose state is remembered first; after it, that of each power of two."""
LOOKS_FOR = 16
"""Rounds that are compared with one that is remembered: the longest period that is found."""


@dataclass(frozen=True)
class Deciding:
    """What decides how often a loop goes round, apart from what it does not change."""

    carried: tuple[int, ...]
    """Positions among the values it carries."""
    loads: frozenset[int]
    """Registers of the pointers that its condition is loaded from."""
    stores: frozenset[int]
    """Registers of the pointers that it stores to."""

    def known(self, r: Registers) -> bool:
        """Whether the loop leaves alone all memory that its condition is loaded from."""
        return not any(np.may_share_memory(r[a].array, r[b].array) for a in self.loads for b in self.stores)


@dataclass
class Dependencies:
    """Of registers that a region computes: the registers that each depends on, decisions among them."""

    of: dict[int, Sequence[int]] = field(default_factory=dict)
    loads: dict[int, int] = field(default_factory=dict)
    """Pointers by the register that is loaded."""
    stores: set[int] = field(default_factory=set)

    def add(self, body: Body) -> None:
        """Take in a region and those within it."""
        for i in body.instructions:
            if i.op is ppu.StoreOp:
                self.stores.add(i.operands[1])
            elif i.op is ppu.LoopOp:
                (inner,) = i.bodies
                condition, *latest = inner.yields
                for result, argument, start, following in zip(i.results, inner.arguments, i.operands, latest):
                    self.of[result] = self.of[argument] = (condition, start, following)
            elif i.op is ppu.IfOp:
                for result, a, b in zip(i.results, i.bodies[0].yields, i.bodies[1].yields):
                    self.of[result] = (i.operands[0], a, b)
            else:
                self.of |= dict.fromkeys(i.results, i.operands)
                if i.op is ppu.LoadOp:
                    self.loads[i.results[0]] = i.operands[0]
            for inner in i.bodies:
                self.add(inner)


def deciding(body: Body) -> Deciding:
    """What decides how often a loop with this region goes round."""
    found = Dependencies()
    found.add(body)
    condition, *latest = body.yields
    found.of |= {argument: (following,) for argument, following in zip(body.arguments, latest)}
    reached, waiting = {condition}, [condition]
    while waiting:
        new = set(found.of.get(waiting.pop(), ())) - reached
        reached |= new
        waiting += new
    return Deciding(
        tuple(k for k, argument in enumerate(body.arguments) if argument in reached),
        frozenset(pointer for result, pointer in found.loads.items() if result in reached),
        frozenset(found.stores),
    )


@dataclass
class Watch:
    """Follows one run of a loop."""

    deciding: Deciding
    round: int = 0
    remembered: int = 0
    state: tuple[bytes, ...] = ()
    due: int = LOOKS_FROM
    """The next round to look at."""

    def period(self, r: Registers, active: np.ndarray | None, carried: Sequence[Any]) -> int:
        """How many rounds before the state was that of this round, which is `due`; 0 if that is not known."""
        state = tuple(
            np.asarray(v).tobytes() for v in (active is None or active, *(carried[k] for k in self.deciding.carried))
        )
        power = self.round & (self.round - 1) == 0
        if not power and state == self.state and self.deciding.known(r):
            return self.round - self.remembered
        if power:
            self.remembered, self.state = self.round, state
        last = self.round == self.remembered + LOOKS_FOR
        self.due = 2 * self.remembered if last else self.round + 1
        return 0
