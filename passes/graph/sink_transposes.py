"""Layout: transposes go through ops that can work in either layout until they cancel.

Importers wrap each channels-last op in transposes. Here every axis is recognised as batch, space or channel,
and each op between spatial ops may stay as it is or work channels-last. Which do is a minimum cut, so that
transposes move as few bytes as possible; then each chosen op is wrapped in transposes, and neighbours cancel.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation, SSAValue
from xdsl.pattern_rewriter import InsertPoint, PatternRewriter, RewritePattern
from xdsl.transforms.dead_code_elimination import region_dce

from ...dialects import graph
from ...dialects.types import dtype_of, element_type, shape_of, size_of
from ..base import NacrePass
from ..pattern import name_of, only_moves_ones, pattern, transposed, with_operands
from ..rewrite import rewrite
from .canonical_folding import fold_constants
from .canonical_moves import (
    reshape_of_reshape,
    same_type,
    transpose_of_ones,
    transpose_of_squeeze,
    transpose_of_transpose,
)
from .layout_rules import (
    LAYOUT_RULES,
    Arrangement,
    Axis,
    Operand,
    Permutation,
    groups_of,
)
from .min_cut import INFINITE, MinCut


@dataclass(frozen=True)
class SinkTransposesPass(NacrePass):
    """Make what lies between channels-last ops channels-last; transposes stay at true borders only."""

    name = "graph-sink-transposes"

    def run(self, module: ModuleOp) -> None:
        arrangements = choose_layouts(module)
        rewrite(
            module,
            Rearrange(arrangements),
            transpose_of_transpose,
            transpose_of_ones,
            transpose_of_squeeze,
            reshape_of_reshape,
            same_type,
            share_transposes,
            fold_constants,
            after=region_dce,
        )


# --- what an axis is -------------------------------------------------------------------------------------
class Tag(IntEnum):
    """What an axis means; channels-last is the order of the tags, each in the order the source has them."""

    BATCH = 0
    SPACE = 1
    CHANNEL = 2


SPATIAL = (
    graph.ConvOp, graph.ConvTransposeOp, graph.PoolOp, graph.LrnOp, graph.ResizeOp, graph.DepthToSpaceOp,
    graph.SpaceToDepthOp,
)  # fmt: skip


class AxisTags:
    """The tags of all values' axes, spread from the spatial ops through everything with a layout rule."""

    def __init__(self, module: ModuleOp):
        self.tags: dict[SSAValue, list[Tag | None]] = {}
        self.mixed: set[Operation] = set()
        self._queue: deque[Operation] = deque()
        for op in module.walk():
            if isinstance(op, SPATIAL):
                for value in (op.operands[0], op.results[0]):
                    rank = len(shape_of(value))
                    self._set(value, [Tag.BATCH, *[Tag.SPACE] * (rank - 2), Tag.CHANNEL])
        self._spread_all(small_ones=False)
        for op in module.walk():  # what is still unknown may have its meaning from axes of size 1
            if type(op) in LAYOUT_RULES:
                self._queue.append(op)
                self._spread_all(small_ones=True)

    def channels_last(self, value: SSAValue) -> Permutation | None:
        """The permutation that makes a value channels-last; None where not all its axes are known."""
        tags, shape = self.tags.get(value), shape_of(value)
        if tags is None or any(tag is None and d != 1 for tag, d in zip(tags, shape)):
            return None
        order = [Tag.SPACE if tag is None else tag for tag in tags]
        return tuple(sorted(range(len(shape)), key=order.__getitem__))

    def _set(self, value: SSAValue, tags: Sequence[Tag | None]) -> None:
        known = self.tags.setdefault(value, [None] * len(tags))
        merged = [old if old is not None else new for old, new in zip(known, tags)]
        if merged != known:
            self.tags[value] = merged
            owners = [use.operation for use in value.uses]
            if isinstance(value.owner, Operation):
                owners.append(value.owner)
            self._queue.extend(op for op in owners if type(op) in LAYOUT_RULES)

    def _of(self, value: SSAValue, axis: int) -> Tag | None:
        return self.tags[value][axis] if value in self.tags else None

    def _spread_all(self, small_ones: bool) -> None:
        while self._queue:
            self._spread(self._queue.popleft(), small_ones)

    def _spread(self, op: Operation, small_ones: bool) -> None:
        for link in LAYOUT_RULES[type(op)].links(op):
            if not self._agree(link, link, small_ones):
                self.mixed.add(op)
        if isinstance(op, graph.ReshapeOp):
            for group in groups_of(op):
                before = [(op.input, axis) for axis in group.before]
                after = [(op.result, axis) for axis in group.after]
                for source, target in ((before, after), (after, before)):
                    if all(self._of(*axis) is not None for axis in source):
                        self._agree(source, target, small_ones)  # a merge of unlike axes tells nothing

    def _agree(self, source: Iterable[Axis], target: Iterable[Axis], small_ones: bool) -> bool:
        """Give target axes the tag that the source axes have; False when these have different ones.

        What an axis of size 1 means says nothing about larger ones, unless `small_ones` count.
        """
        known = [(tag, shape_of(v)[i]) for v, i in source if (tag := self._of(v, i)) is not None]
        large = {tag for tag, size in known if size != 1}
        found = large or {tag for tag, _ in known}
        if len(found) == 1:
            (tag,) = found
            for value, axis in target:
                shape = shape_of(value)
                if large or small_ones or shape[axis] == 1:
                    self._set(value, [tag if i == axis else None for i in range(len(shape))])
        return len(large) <= 1


# --- which ops change layout -----------------------------------------------------------------------------
def choose_layouts(module: ModuleOp) -> dict[Operation, Arrangement | Flatten]:
    """The ops to make channels-last, with how, so that transposes move as few bytes as possible."""
    tags = AxisTags(module)
    possible: dict[Operation, Arrangement | Flatten] = {}
    for op in module.walk():
        rule = LAYOUT_RULES.get(type(op))
        if rule and op not in tags.mixed and op.operands:
            found = rule.arrange(op, tags.channels_last) or flatten_of(op, tags)
            if found is not None:
                possible[op] = found
    cut = MinCut()
    for op in module.walk():
        for value in op.results:
            pay_for_value(cut, value, possible, tags)
        for region in op.regions:
            for block in region.blocks:
                for value in block.args:
                    pay_for_value(cut, value, possible, tags)
        if isinstance(arranged := possible.get(op), Arrangement):
            pay_for_misfits(cut, op, arranged, tags)
            if isinstance(op, graph.TransposeOp):
                pay_for_transpose(cut, op, arranged)
    stay = cut.labelled_zero()
    return {op: how for op, how in possible.items() if op not in stay}


def bytes_of(value: SSAValue) -> int:
    return size_of(value) * dtype_of(element_type(value)).itemsize


def pay_for_value(cut: MinCut, value: SSAValue, possible: dict, tags: AxisTags) -> None:
    """A value costs one transpose in all when its users want the layout its producer does not give."""
    permutation = tags.channels_last(value)
    if permutation is None or only_moves_ones(shape_of(value), permutation):
        return
    owner = value.owner
    if isinstance(owner, graph.ConstantOp):  # constants are permuted at compile time
        return
    producer = owner if owner in possible else MinCut.ZERO
    cost = bytes_of(value)
    to_last, to_source = ("to channels-last", value), ("to source", value)
    cut.pay(producer, to_last, cost)
    cut.pay(to_source, producer, cost)
    for use in value.uses:
        user = use.operation if use.operation in possible else MinCut.ZERO
        cut.pay(to_last, user, INFINITE)
        cut.pay(user, to_source, INFINITE)


def pay_for_misfits(cut: MinCut, op: Operation, arranged: Arrangement, tags: AxisTags) -> None:
    """Where an op's channels-last is not that of an operand or result, this op alone pays for a transpose."""
    sides = [(v, o.permutation) for v, o in zip(op.operands, arranged.operands) if o.permutation is not None]
    for value, permutation in [*sides, *zip(op.results, arranged.results)]:
        shape = shape_of(value)
        missing = len(permutation) - len(shape)  # axes of size 1 that broadcasting adds in front
        order = [axis - missing for axis in permutation if axis >= missing and shape[axis - missing] != 1]
        usual = tags.channels_last(value)
        fits = usual is not None and [axis for axis in usual if shape[axis] != 1] == order
        if not fits and order != sorted(order) and not isinstance(value.owner, graph.ConstantOp):
            cut.pay(MinCut.ZERO, op, bytes_of(value))


def pay_for_transpose(cut: MinCut, op: graph.TransposeOp, arranged: Arrangement) -> None:
    """A transpose costs what it moves; in channels-last it may move nothing, or something else."""
    if isinstance(op.input.owner, graph.ConstantOp):
        return
    if not only_moves_ones(shape_of(op.input), op.parameters().permutation):
        cut.pay(op, MinCut.ONE, bytes_of(op.input))
    before = arranged.operands[0].permutation
    assert before is not None
    after = tuple(op.parameters().permutation[axis] for axis in arranged.results[0])
    shape = shape_of(op.input)
    if [axis for axis in before if shape[axis] != 1] != [axis for axis in after if shape[axis] != 1]:
        cut.pay(MinCut.ZERO, op, bytes_of(op.input))


# --- flattening into dense weights -----------------------------------------------------------------------
@dataclass(frozen=True)
class Flatten:
    """A reshape that merges axes for matrix products with constant weights, whose rows can be reordered.

    `rows` are the weights' rows in the order of the permuted operand.
    """

    permutation: Permutation
    rows: np.ndarray


def flatten_of(op: Operation, tags: AxisTags) -> Flatten | None:
    """How a flattening reshape changes layout, None for other ops."""
    if not isinstance(op, graph.ReshapeOp) or not shape_of(op.result):
        return None
    permutation, shape = tags.channels_last(op.input), shape_of(op.input)
    groups = groups_of(op)
    last = len(shape_of(op.result)) - 1
    if permutation is None or not groups or groups[-1].after != (last,):
        return None
    merged = groups[-1].before
    lead = [axis for axis in permutation if shape[axis] != 1 and axis not in merged]
    tail = [axis for axis in permutation if axis in merged]
    in_order = [axis for axis in permutation if shape[axis] != 1] == lead + tail and lead == sorted(lead)
    users = list(op.result.uses)
    dense = all(
        isinstance(use.operation, graph.MatmulOp)
        and use.index == 0
        and isinstance(use.operation.b.owner, graph.ConstantOp)
        for use in users
    )
    if not (in_order and dense and users) or tail == sorted(tail):
        return None
    sizes = [shape[axis] for axis in merged]
    rows = np.arange(math.prod(sizes)).reshape(sizes).transpose([merged.index(axis) for axis in tail])
    return Flatten(permutation, rows.ravel())


# --- rewriting -------------------------------------------------------------------------------------------
class Rearrange(RewritePattern):
    """Wrap each chosen op in transposes to and from its new layout."""

    def __init__(self, chosen: dict[Operation, Arrangement | Flatten]):
        self.chosen = chosen

    def match_and_rewrite(self, op: Operation, rewriter: PatternRewriter) -> None:
        how = self.chosen.pop(op, None)
        if isinstance(how, Flatten):
            assert isinstance(op, graph.ReshapeOp)
            permute_rows(op, how, rewriter)
        elif how is not None and not is_trivial(op, how):
            rearrange(op, how, rewriter)


def is_trivial(op: Operation, how: Arrangement) -> bool:
    """Whether a layout change would leave an op as it is."""
    permutations = [o.permutation for o in how.operands if o.permutation] + how.results
    return all(list(p) == list(range(len(p))) for p in permutations)


def rearrange(op: Operation, how: Arrangement, rewriter: PatternRewriter) -> None:
    new: list[Operation] = []
    values = []
    for value, wanted in zip(op.operands, how.operands):
        steps = brought(value, wanted)
        new.extend(steps)
        values.append(steps[-1].results[0] if steps else value)
    made = how.build(values)
    new.append(made)
    results: list[SSAValue] = []
    for result, permutation in zip(made.results, how.results):
        back = transposed(result, np.argsort(permutation).tolist())
        new.extend(back)
        results.append(back[0].results[0] if back else result)
    for op_ in new:
        op_.location = op.location
    rewriter.replace(op, new, results)


def brought(value: SSAValue, wanted: Operand) -> list[Operation]:
    """The ops that bring an operand into the shape and order an op wants."""
    steps: list[Operation] = []
    if wanted.permutation is None:
        return steps
    if shape_of(value) != wanted.shape:
        steps.append(graph.ReshapeOp.make(value, shape=wanted.shape))
        value = steps[-1].results[0]
    return steps + transposed(value, wanted.permutation)


def permute_rows(op: graph.ReshapeOp, how: Flatten, rewriter: PatternRewriter) -> None:
    """matmul(reshape(x), w) -> matmul(reshape(transpose(x)), w with its rows in that order)."""
    new = transposed(op.input, how.permutation)
    flat = with_operands(op, [new[-1].results[0] if new else op.input])
    for step in new:
        step.location = op.location
    rewriter.insert([*new, flat], InsertPoint.before(op))
    for use in list(op.result.uses):
        user = use.operation
        assert isinstance(user, graph.MatmulOp)
        weights = graph.constant_of(user.b)
        assert weights is not None
        rows = graph.constant(
            np.ascontiguousarray(weights[..., how.rows, :]), user, name_of(user.b), element_type(user.b)
        )
        rewriter.replace(user, [rows, with_operands(user, [flat.result, rows.result, user.bias])])
    rewriter.erase(op)


@pattern(graph.TransposeOp)
def share_transposes(op: graph.TransposeOp, rewriter: PatternRewriter) -> None:
    """Equal transposes of one value -> the first of them."""
    for use in list(op.input.uses):
        other = use.operation
        if (
            isinstance(other, graph.TransposeOp)
            and other is not op
            and other.permutation == op.permutation
            and other.parent is op.parent
            and op.is_before_in_block(other)
        ):
            rewriter.replace(other, [], [op.result])
