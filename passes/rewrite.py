"""Pattern rewriting that keeps names: locations and source tensors survive every match.

The one place that builds a `PatternRewriteWalker`. What a match inserts gets the fused location of the ops it
replaced; a value that replaces another takes over the source tensors the old one stood for; when a transpose
vanishes, or a reshape that moves axes of size 1, its operand takes them over with the axes permuted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from xdsl.context import Context
from xdsl.dialects.builtin import LocationAttr, ModuleOp, UnknownLoc
from xdsl.ir import Operation, Region, SSAValue
from xdsl.pattern_rewriter import (
    GreedyRewritePatternApplier,
    PatternRewriter,
    PatternRewriterListener,
    PatternRewriteWalker,
    RewritePattern,
)
from xdsl.transforms.canonicalize import CanonicalizationRewritePattern
from xdsl.transforms.common_subexpression_elimination import CSEDriver
from xdsl.transforms.dead_code_elimination import region_dce

from ..dialects import graph
from ..dialects.locations import fuse_locations
from ..dialects.nacre import Source, set_sources, sources_of
from ..dialects.types import shape_of


def rewrite(
    module: ModuleOp,
    *patterns: RewritePattern,
    context: Context | None = None,
    fold: bool = False,
    recursive: bool = True,
    after: Callable[[Region, PatternRewriterListener], bool] | None = None,
) -> bool:
    """Apply patterns greedily until nothing matches (`recursive`), and say whether anything changed."""
    keeper = _KeepNames(GreedyRewritePatternApplier(list(patterns), context, folding_enabled=fold))
    walker = PatternRewriteWalker(
        keeper, listener=keeper.listener(), post_walk_func=after, apply_recursively=recursive
    )
    return walker.rewrite_module(module)


def canonicalize(module: ModuleOp, context: Context | None = None) -> None:
    """xDSL's `canonicalize` with names kept: registered patterns, folding, dead code."""
    context = context or Context()
    rewrite(module, CanonicalizationRewritePattern(), context=context, fold=True, after=region_dce)


def cse(module: ModuleOp) -> None:
    """xDSL's `cse` with names kept: the survivor takes the erased op's location and source tensors."""
    # equal ops that hold different source tensors are equal: the names step aside meanwhile
    values: list[SSAValue] = [value for op in module.walk() for value in op.results]
    sources = {value: found for value in values if (found := sources_of(value))}
    for value in sources:
        set_sources(value, ())
    _KeepingCse(sources).simplify(module)
    for value, found in sources.items():
        if isinstance(value.owner, Operation) and value.owner.parent is not None:
            set_sources(value, found)


class _KeepingCse(CSEDriver):
    def __init__(self, sources: dict[SSAValue, tuple[Source, ...]]):
        super().__init__()
        self._sources = sources

    def _replace_and_delete(self, op: Operation, existing: Operation) -> None:
        existing.location = fuse_locations(existing.location, op.location)
        for old, new in zip(op.results, existing.results):
            joined = united(self._sources.get(new, ()), self._sources.get(old, ()))
            if joined:
                self._sources[new] = joined
        super()._replace_and_delete(op, existing)


# --- source tensors --------------------------------------------------------------------------------------
def add_sources(value: SSAValue, sources: tuple[Source, ...]) -> None:
    """Let a value stand for further source tensors."""
    set_sources(value, united(sources_of(value), sources))


def united(known: tuple[Source, ...], more: tuple[Source, ...]) -> tuple[Source, ...]:
    """The sources of both, each tensor once."""
    names = {s.tensor for s in known}
    return known + tuple(s for s in more if s.tensor not in names)


def through_permutation(sources: tuple[Source, ...], permutation: tuple[int, ...]) -> tuple[Source, ...]:
    """What the operand of a transpose stands for, given what its result stands for."""
    found = []
    for source in sources:
        axes = [0] * len(permutation)
        for i, axis in enumerate(permutation):
            axes[axis] = source.axes[i]
        found.append(source._replace(axes=tuple(axes)))
    return tuple(found)


def permutation_of(op: graph.TransposeOp | graph.ReshapeOp) -> tuple[int, ...] | None:
    """The permutation of axes an op makes; a reshape makes one when it only moves axes of size 1."""
    if isinstance(op, graph.TransposeOp):
        return op.parameters().permutation
    before, after = shape_of(op.input), shape_of(op.result)
    if [d for d in before if d != 1] != [d for d in after if d != 1] or len(before) != len(after):
        return None
    ones = iter(i for i, d in enumerate(before) if d == 1)
    others = iter(i for i, d in enumerate(before) if d != 1)
    return tuple(next(ones) if d == 1 else next(others) for d in after)


def _absorbs_names(op: Operation) -> bool:
    """Layout ops and constants carry their users' names, so they give none away."""
    return not isinstance(op, (graph.TransposeOp, graph.ConstantOp, graph.ReshapeOp))


class _KeepNames(RewritePattern):
    """Wraps a pattern and listens to what it does (a listener alone does not know the matched op)."""

    def __init__(self, inner: RewritePattern):
        self.inner = inner
        self.inserted: list[Operation] = []
        self.removed: list[LocationAttr] = []

    def listener(self) -> PatternRewriterListener:
        return PatternRewriterListener(
            operation_insertion_handler=[self.inserted.append],
            operation_removal_handler=[self._on_removal],
            operation_replacement_handler=[self._on_replacement],
        )

    def match_and_rewrite(self, op: Operation, rewriter: PatternRewriter) -> None:
        self.inserted.clear()
        self.removed.clear()
        root, absorbs = op.location, _absorbs_names(op)
        self.inner.match_and_rewrite(op, rewriter)
        if self.inserted:
            location = fuse_locations(*self.removed)
            if absorbs or isinstance(location, UnknownLoc):
                location = fuse_locations(location, root)
            for top in self.inserted:
                for new in top.walk():
                    if isinstance(new.location, UnknownLoc):
                        new.location = location

    def _on_removal(self, op: Operation) -> None:
        if _absorbs_names(op):
            self.removed.append(op.location)
        if isinstance(op, (graph.TransposeOp, graph.ReshapeOp)):
            left, permutation = sources_of(op.result), permutation_of(op)
            if left and permutation is not None:
                add_sources(op.input, through_permutation(left, permutation))

    def _on_replacement(self, op: Operation, values: Sequence[SSAValue | None]) -> None:
        for old, new in zip(op.results, values):
            if new is not None:
                add_sources(new, sources_of(old))
                set_sources(old, ())
        for new in values:
            owner = None if new is None else new.owner
            if isinstance(owner, Operation) and owner not in self.inserted and _absorbs_names(op):
                owner.location = fuse_locations(owner.location, op.location)
