"""Calibration: runs the graph on samples and stores the range of every float value beside its op.

The module has to be the one that will be quantised: batch norms folded, transposes sunk, canonicalised. The
ranges are attributes, so quantisation itself is a pure pass from IR to IR.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

import numpy as np
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Block, BlockArgument, Operation, SSAValue

from ...dialects.graph import ConstantOp
from ...dialects.locations import layer_of
from ...dialects.nacre import ReadStateOp, WriteStateOp, initial_states
from ...dialects.types import FLOATS, element_type
from ...errors import CompileError
from ...runtime.interpreter import argument_names, interpret
from .masks import MARGIN, counting, mask_of, origin
from .ranges import Range, range_of, set_range

METHODS = ("min-max", "percentile")
Feeds = Mapping[str, np.ndarray]


def calibrate(
    module: ModuleOp,
    batches: Iterable[Feeds],
    method: str = "min-max",
    percentile: float = 99.99,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Store a range for each float value of @main, as seen over `batches` of named inputs; gives their count.

    "min-max" keeps the extremes; "percentile" drops what lies beyond the percentile at either end. `progress`
    is called with the number of samples done. States are carried from sample to sample, as in use: the samples are one
    sequence. Entries that an attention mask hides (masks.py) do not count.
    Raises CompileError without any sample, or for NaN and Inf.
    """
    if method not in METHODS:
        raise CompileError(f"there is no calibration method '{method}'; {' and '.join(METHODS)} are known")
    if not 50.0 < percentile <= 100.0:
        raise CompileError(f"the percentile {percentile} has to lie above 50 and not above 100")
    seen: dict[SSAValue, Statistic] = {}
    moved: dict[SSAValue, SSAValue] = {}  # value that holds masked scores -> where they were masked

    def watch(value: SSAValue, array: np.ndarray) -> None:
        if element_type(value) not in FLOATS or isinstance(value.owner, ConstantOp) or array.size == 0:
            return
        masked = origin(value)
        if masked is not None and masked is not value:
            moved[value] = masked  # what is moved keeps its range, masked entries or not
            return
        if masked is not None:
            array = unmasked(value, array)
        low, high = float(array.min()), float(array.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise CompileError(
                f"calibration sample {done} gives NaN or infinite values in {described(value)}; "
                "leave that sample out, or find out why the float model overflows on it"
            )
        if value not in seen:
            seen[value] = MinMax() if method == "min-max" else Histogram(percentile)
        seen[value].add(array, low, high)

    def unmasked(value: SSAValue, array: np.ndarray) -> np.ndarray:
        scores = counting(value, array)
        if scores.size == 0 and np.isneginf(array).all():
            raise CompileError(
                f"calibration sample {done} gives -inf everywhere in {described(value)}: its mask hides "
                "every score; leave that sample out, or mask with a finite number such as -1e9"
            )
        return scores if scores.size else np.zeros(1, array.dtype)

    done, states = 0, initial_states(module)
    for feeds in batches:
        interpret(module, feeds, watch, states)
        done += 1
        if progress is not None:
            progress(done)
    if done == 0:
        raise CompileError("the calibration set is empty; at least one sample is needed, some 100 are usual")
    for value, statistic in seen.items():
        low, high = statistic.range()
        # Masked entries, which were not counted, get room of their own below the scores.
        set_range(value, low - MARGIN if mask_of(value) is not None else low, high)
    for value, masked in moved.items():
        found = range_of(masked)
        assert found is not None
        set_range(value, *found)
    widen_reads(module)
    return done


def widen_reads(module: ModuleOp) -> None:
    """Let what is read of a state have room for all that was ever written to it, the last sample's value included."""
    ends: dict[str, list[Range]] = {}
    reads = [op for op in module.walk() if isinstance(op, ReadStateOp)]
    accesses: list[tuple[str, SSAValue]] = [(op.symbol(), op.result) for op in reads]
    accesses += [(op.symbol(), op.value) for op in module.walk() if isinstance(op, WriteStateOp)]
    for symbol, value in accesses:
        if (found := range_of(value)) is not None:
            ends.setdefault(symbol, []).append(found)
    for op in reads:
        if op.symbol() in ends:
            low, high = zip(*ends[op.symbol()])
            set_range(op.result, min(low), max(high))


def described(value: SSAValue) -> str:
    """A value in words: its layer's name and op, or the input's name."""
    if isinstance(value, BlockArgument):
        assert isinstance(value.owner, Block)
        function = value.owner.parent_op()
        return f"the input '{argument_names(function)[value.index]}'"  # type: ignore[arg-type]
    assert isinstance(value.owner, Operation)
    return layer(value.owner)


def layer(op: Operation) -> str:
    """An op in words: `layer 'conv1' (graph.conv)`."""
    name = layer_of(op.location)
    return f"layer '{name}' ({op.name})" if name else f"an unnamed {op.name}"


# --- what is remembered of a value -----------------------------------------------------------------------
class Statistic(Protocol):
    """What is remembered of one value over all samples."""

    def add(self, array: np.ndarray, low: float, high: float) -> None:
        """Take in an array whose extremes are low and high."""

    def range(self) -> Range:
        """The range to quantise to."""


class MinMax:
    """The extremes."""

    def __init__(self) -> None:
        self.low, self.high = math.inf, -math.inf

    def add(self, array: np.ndarray, low: float, high: float) -> None:
        self.low, self.high = min(self.low, low), max(self.high, high)

    def range(self) -> Range:
        return Range(self.low, self.high)


class Histogram:
    """Counts over [−bound, bound]; the bound, a power of two, doubles as larger values come, and bins merge.

    So the result does not depend on the order of the samples beyond the width of a bin.
    """

    BINS = 4096

    def __init__(self, percentile: float) -> None:
        self.percentile = percentile
        self.extremes = MinMax()
        self.bound = 0.0
        self.counts = np.zeros(self.BINS, np.int64)

    def add(self, array: np.ndarray, low: float, high: float) -> None:
        self.extremes.add(array, low, high)
        self._grow(max(-low, high))
        if self.bound == 0.0:
            self.counts[self.BINS // 2] += array.size
            return
        width = 2 * self.bound / self.BINS
        index = np.floor((array.ravel().astype(np.float64) + self.bound) / width).astype(np.int64)
        self.counts += np.bincount(np.clip(index, 0, self.BINS - 1), minlength=self.BINS)

    def _grow(self, magnitude: float) -> None:
        if magnitude <= self.bound:
            return
        wanted = 2.0 ** math.ceil(math.log2(magnitude))
        if self.bound == 0.0:
            self.bound = wanted  # all that was seen are zeros, in the bin that starts at 0
        quarter = self.BINS // 4
        while self.bound < wanted:
            merged = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.concatenate([np.zeros(quarter, np.int64), merged, np.zeros(quarter, np.int64)])
            self.bound *= 2

    def range(self) -> Range:
        share = 1 - self.percentile / 100
        cumulative = np.cumsum(self.counts)
        total, width = int(cumulative[-1]), 2 * self.bound / self.BINS
        first = int(np.searchsorted(cumulative, share * total, side="right"))
        last = int(np.searchsorted(cumulative, (1 - share) * total, side="left"))
        used = np.flatnonzero(self.counts)
        low = self.extremes.low if first <= used[0] else -self.bound + first * width
        high = self.extremes.high if last >= used[-1] else -self.bound + (last + 1) * width
        return Range(low, high)
