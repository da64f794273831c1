"""Layers and tensors of a graph by the names a quantisation table uses.

A layer is what the source model calls so: all ops that carry its name. Where the importer made several ops of
it, "name:graph.softmax" is those of one kind and "name:graph.softmax#2" the second of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Operation, SSAValue

from ...dialects.graph import ConstantOp
from ...dialects.locations import location_names
from ...dialects.nacre import sources_of
from ...runtime.interpreter import argument_names


class Layer(NamedTuple):
    """One op, and what it is called."""

    op: Operation
    parts: tuple[str, ...]
    """The source layers it comes from: several where some were folded into one."""
    name: str
    """Their names, joined."""
    kind: str
    """name:op."""
    unique: str
    """name:op, numbered from the second on."""

    @property
    def names(self) -> tuple[tuple[str, ...], ...]:
        """All it may be called by, the most particular first."""
        return (self.unique,), (self.kind,), (self.name,), self.parts


def layers_of(function: FuncOp) -> list[Layer]:
    """The ops of a function that compute or move, in order."""
    seen: Counter[str] = Counter()
    found = []
    for op in function.body.block.ops:
        if isinstance(op, (ConstantOp, ReturnOp)):
            continue
        parts = tuple(location_names(op.location))
        kind = f"{'+'.join(parts)}:{op.name}"
        seen[kind] += 1
        unique = kind if seen[kind] == 1 else f"{kind}#{seen[kind]}"
        found.append(Layer(op, parts, "+".join(parts), kind, unique))
    return found


def tensor_names(function: FuncOp) -> Iterator[tuple[SSAValue, tuple[str, ...]]]:
    """The names of inputs and results, constants excepted: one's own first, then all source tensors it holds."""
    used: set[str] = set()
    for argument, name in zip(function.args, argument_names(function)):
        used.add(name)
        yield argument, (name,)
    for layer in layers_of(function):
        for result in layer.op.results:
            sources = tuple(s.tensor for s in sources_of(result))
            own = next((s for s in sources if s not in used), None)
            if own is None:
                own = layer.unique if len(layer.op.results) == 1 else f"{layer.unique}.{result.index}"
            used.add(own)
            yield result, (own, *(s for s in sources if s != own))


__all__ = ["Layer", "layers_of", "tensor_names"]
