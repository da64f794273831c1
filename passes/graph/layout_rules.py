"""How each op follows a change of layout: which axes are the same axis, and the op on permuted operands.

A rule is registered by op class. `links` says which axes of operands and results are the same; by that the
pass learns which are channels. `arrange` says in which order each operand's axes have to come so that the
results have theirs in the wanted order, and builds the op for it; None when there is no such order.
A permutation lists source axes: axis i of the permuted value is axis permutation[i] of the value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from xdsl.ir import Operation, SSAValue

from ...dialects import graph, quant
from ...dialects.types import shape_of
from ..pattern import with_operands

Permutation = tuple[int, ...]
Axis = tuple[SSAValue, int]
Wanted = Callable[[SSAValue], Permutation | None]


class Operand(NamedTuple):
    """How an operand has to come: reshaped to `shape` (only 1s added), then permuted; as it is without."""

    shape: tuple[int, ...]
    permutation: Permutation | None


@dataclass(frozen=True)
class Arrangement:
    """An op in another layout: its operands, its results' permutations, and how to build it."""

    operands: list[Operand]
    results: list[Permutation]
    build: Callable[[list[SSAValue]], Operation]


@dataclass(frozen=True)
class LayoutRule:
    """What a layout change needs to know of an op class."""

    links: Callable[[Any], Iterable[Sequence[Axis]]]
    arrange: Callable[[Any, Wanted], Arrangement | None]


LAYOUT_RULES: dict[type[Operation], LayoutRule] = {}


def layout_rule(rule: LayoutRule, *ops: type[Operation]) -> None:
    """Register a rule for op classes."""
    for op in ops:
        LAYOUT_RULES[op] = rule


def permuted(values: Sequence[int], permutation: Permutation) -> tuple[int, ...]:
    """A list with one entry an axis, in another order."""
    return tuple(values[axis] for axis in permutation)


# --- elementwise -----------------------------------------------------------------------------------------
def elementwise_links(op: Operation) -> Iterable[Sequence[Axis]]:
    result = op.results[0]
    rank = len(shape_of(result))
    for axis in range(rank):
        link: list[Axis] = [(result, axis)]
        for value in op.operands:
            own = axis - (rank - len(shape_of(value)))
            if own >= 0:
                link.append((value, own))
        yield link


def aligned(value: SSAValue, rank: int, permutation: Permutation) -> Operand:
    """An operand that broadcasts to a result of some rank; one element broadcasts in any layout."""
    shape = shape_of(value)
    if math.prod(shape) == 1:
        return Operand(shape, None)
    return Operand((1,) * (rank - len(shape)) + shape, permutation)


def arrange_elementwise(op: Any, wanted: Wanted) -> Arrangement | None:
    permutation = wanted(op.results[0])
    if permutation is None:
        return None
    operands = [aligned(v, len(permutation), permutation) for v in op.operands]
    return Arrangement(operands, [permutation], lambda values: with_operands(op, values))


ELEMENTWISE = LayoutRule(elementwise_links, arrange_elementwise)
layout_rule(
    ELEMENTWISE,
    *(op for op in graph.OPS if issubclass(op, (graph.UnaryOp, graph.BinaryOp))),
    graph.CompareOp, graph.SelectOp, graph.CastOp,
)  # fmt: skip


def arrange_quantised_cast(op: quant.CastOp, wanted: Wanted) -> Arrangement | None:
    permutation = wanted(op.result)
    element = getattr(op.result.type, "element_type", None)
    types = (element, getattr(op.input.type, "element_type", None))
    if permutation is None or any(isinstance(t, quant.QuantType) and t.data.axis is not None for t in types):
        return None

    def build(values: list[SSAValue]) -> Operation:
        from ...dialects.types import tensor

        made = type(op).create(operands=values, result_types=[tensor(shape_of(values[0]), element)])  # type: ignore[arg-type]
        made.location = op.location
        return made

    return Arrangement([Operand(shape_of(op.input), permutation)], [permutation], build)


layout_rule(
    LayoutRule(elementwise_links, arrange_quantised_cast), quant.QCastOp, quant.DCastOp, quant.SCastOp
)


# --- one operand, axes in their places -------------------------------------------------------------------
def same_axes_links(op: Operation) -> Iterable[Sequence[Axis]]:
    """Every operand and result of full rank has the same axes; vectors beside them have none."""
    values = [v for v in (*op.operands, *op.results) if len(shape_of(v)) == len(shape_of(op.operands[0]))]
    for axis in range(len(shape_of(values[0]))):
        yield [(v, axis) for v in values]


def arrange_with(
    change: Callable[[Any, Permutation], dict[str, Any]],
) -> Callable[[Any, Wanted], Arrangement | None]:
    """A rule for ops whose tensors all share their axes; `change` gives the parameters for a permutation."""

    def arrange(op: Any, wanted: Wanted) -> Arrangement | None:
        permutation = wanted(op.operands[0])
        if permutation is None:
            return None
        rank = len(permutation)
        operands = [
            Operand(shape_of(v), permutation if len(shape_of(v)) == rank else None) for v in op.operands
        ]
        parameters = change(op.parameters(), permutation)
        return Arrangement(
            operands, [permutation] * len(op.results), lambda values: with_operands(op, values, **parameters)
        )

    return arrange


def along_axis(p: Any, permutation: Permutation) -> dict[str, Any]:
    return {"axis": permutation.index(p.axis)}


layout_rule(
    LayoutRule(same_axes_links, arrange_with(along_axis)),
    graph.SoftmaxOp, graph.BatchNormOp, graph.ConcatOp, graph.SplitOp,
)  # fmt: skip
layout_rule(
    LayoutRule(
        same_axes_links,
        arrange_with(lambda p, order: {n: permuted(p[n], order) for n in ("starts", "sizes", "steps")}),
    ),
    graph.SliceOp,
)
layout_rule(
    LayoutRule(
        same_axes_links, arrange_with(lambda p, order: {n: permuted(p[n], order) for n in ("low", "high")})
    ),
    graph.PadOp,
)


def arrange_layer_norm(op: graph.LayerNormOp, wanted: Wanted) -> Arrangement | None:
    """The normalised axes have to stay the last ones, whatever their order."""
    permutation, axis = wanted(op.input), op.parameters().axis
    if permutation is None or min(permutation[axis:]) < axis:
        return None
    rank = len(permutation)
    operands = [Operand(shape_of(op.input), permutation)]
    operands += [aligned(v, rank, permutation) for v in list(op.operands)[1:]]
    return Arrangement(operands, [permutation], lambda values: with_operands(op, values))


layout_rule(LayoutRule(elementwise_links, arrange_layer_norm), graph.LayerNormOp)


def arrange_broadcast(op: graph.BroadcastOp, wanted: Wanted) -> Arrangement | None:
    permutation = wanted(op.result)
    if permutation is None:
        return None
    shape = permuted(op.parameters().shape, permutation)
    operand = aligned(op.input, len(permutation), permutation)
    return Arrangement([operand], [permutation], lambda values: with_operands(op, values, shape=shape))


layout_rule(LayoutRule(elementwise_links, arrange_broadcast), graph.BroadcastOp)


# --- axes that vanish ------------------------------------------------------------------------------------
def kept_axes(rank: int, gone: Iterable[int], keepdims: bool) -> list[int]:
    return [axis for axis in range(rank) if keepdims or axis not in gone]


def following(permutation: Permutation, kept: list[int]) -> Permutation:
    """The order of the kept axes, counted among themselves."""
    return tuple(kept.index(axis) for axis in permutation if axis in kept)


def reduction_links(op: Any) -> Iterable[Sequence[Axis]]:
    p = op.parameters()
    gone = p.axes if "axes" in p else (p.axis,)
    for axis, own in enumerate(kept_axes(len(shape_of(op.input)), gone, p.keepdims)):
        yield [(op.input, own), (op.result, axis)]


def arrange_reduction(op: Any, wanted: Wanted) -> Arrangement | None:
    permutation, p = wanted(op.input), op.parameters()
    if permutation is None:
        return None
    if "axes" in p:
        gone = p.axes
        change: dict[str, Any] = {"axes": tuple(sorted(permutation.index(axis) for axis in gone))}
    else:
        gone = (p.axis,)
        change = {"axis": permutation.index(p.axis)}
    result = following(permutation, kept_axes(len(permutation), gone, p.keepdims))
    operand = Operand(shape_of(op.input), permutation)
    return Arrangement([operand], [result], lambda values: with_operands(op, values, **change))


layout_rule(
    LayoutRule(reduction_links, arrange_reduction),
    graph.ReduceSumOp, graph.ReduceMeanOp, graph.ReduceMaxOp, graph.ReduceMinOp, graph.ArgmaxOp,
)  # fmt: skip


def gather_links(op: graph.GatherOp) -> Iterable[Sequence[Axis]]:
    axis, shift = op.parameters().axis, len(shape_of(op.indices)) - 1
    for own in range(len(shape_of(op.data))):
        if own != axis:
            yield [(op.data, own), (op.result, own if own < axis else own + shift)]
        elif shift == 0:
            yield [(op.data, own), (op.result, own)]


def arrange_gather(op: graph.GatherOp, wanted: Wanted) -> Arrangement | None:
    """Gather with an index or a list of them; a table of indices adds axes and stays where it is."""
    permutation, rank = wanted(op.data), len(shape_of(op.indices))
    if permutation is None or rank > 1:
        return None
    axis = op.parameters().axis
    result = following(permutation, kept_axes(len(permutation), [axis], keepdims=rank == 1))
    operands = [Operand(shape_of(op.data), permutation), Operand(shape_of(op.indices), None)]
    at = permutation.index(axis)
    return Arrangement(operands, [result], lambda values: with_operands(op, values, axis=at))


layout_rule(LayoutRule(gather_links, arrange_gather), graph.GatherOp)


# --- transpose and reshape -------------------------------------------------------------------------------
def transpose_links(op: graph.TransposeOp) -> Iterable[Sequence[Axis]]:
    for axis, own in enumerate(op.parameters().permutation):
        yield [(op.input, own), (op.result, axis)]


def arrange_transpose(op: graph.TransposeOp, wanted: Wanted) -> Arrangement | None:
    """Both sides in the wanted order: what is left of the transpose, often nothing."""
    before, after = wanted(op.input), wanted(op.result)
    if before is None or after is None:
        return None
    own = op.parameters().permutation
    left = tuple(before.index(own[axis]) for axis in after)
    operand = Operand(shape_of(op.input), before)
    return Arrangement([operand], [after], lambda values: with_operands(op, values, permutation=left))


layout_rule(LayoutRule(transpose_links, arrange_transpose), graph.TransposeOp)


class Group(NamedTuple):
    """Neighbouring axes of a reshape's input that become neighbouring axes of its result."""

    before: tuple[int, ...]
    after: tuple[int, ...]


def reshape_groups(before: Sequence[int], after: Sequence[int]) -> list[Group]:
    """The smallest groups of axes with equal products, in order; axes of size 1 belong to none."""
    left = [i for i, d in enumerate(before) if d != 1]
    right = [i for i, d in enumerate(after) if d != 1]
    groups: list[Group] = []
    while left or right:
        a, b = [left.pop(0)], [right.pop(0)]
        size_a, size_b = before[a[0]], after[b[0]]
        while size_a != size_b:
            if size_a < size_b:
                a.append(left.pop(0))
                size_a *= before[a[-1]]
            else:
                b.append(right.pop(0))
                size_b *= after[b[-1]]
        groups.append(Group(tuple(a), tuple(b)))
    return groups


def groups_of(op: graph.ReshapeOp) -> list[Group]:
    """The groups of a reshape; of an empty tensor, none."""
    before, after = shape_of(op.input), shape_of(op.result)
    return reshape_groups(before, after) if math.prod(before) else []


def reshape_links(op: graph.ReshapeOp) -> Iterable[Sequence[Axis]]:
    """Axes that stay one; axes split or merged are the pass's business, as it depends on what they are."""
    for group in groups_of(op):
        if len(group.before) == len(group.after) == 1:
            yield [(op.input, group.before[0]), (op.result, group.after[0])]
    before, after = shape_of(op.input), shape_of(op.result)
    if before and after and before[0] == after[0] == 1:  # a batch of one
        yield [(op.input, 0), (op.result, 0)]


def in_runs(
    permutation: Permutation, groups: Iterable[tuple[int, ...]], shape: Sequence[int]
) -> list[int] | None:
    """The order in which a permutation has these groups of axes, None unless each is a rising run."""
    order = [axis for axis in permutation if shape[axis] != 1]
    found: list[int] = []
    starts = {group[0]: (i, group) for i, group in enumerate(groups)}
    while order:
        index, group = starts.get(order[0], (-1, ()))
        if index < 0 or tuple(order[: len(group)]) != group:
            return None
        found.append(index)
        del order[: len(group)]
    return found


def arrange_reshape(op: graph.ReshapeOp, wanted: Wanted) -> Arrangement | None:
    """reshape in another layout: exact when merged and split axes stay neighbours on both sides."""
    before, after, groups = wanted(op.input), wanted(op.result), groups_of(op)
    if before is None or after is None or not groups:
        return None
    first = in_runs(before, [g.before for g in groups], shape_of(op.input))
    second = in_runs(after, [g.after for g in groups], shape_of(op.result))
    if first is None or first != second:
        return None
    shape = permuted(shape_of(op.result), after)
    operand = Operand(shape_of(op.input), before)
    return Arrangement([operand], [after], lambda values: with_operands(op, values, shape=shape))


layout_rule(LayoutRule(reshape_links, arrange_reshape), graph.ReshapeOp)
