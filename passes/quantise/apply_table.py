"""A quantisation table written into a graph: `nacre.dtype` and `nacre.why` on ops, ranges and scales on values."""

from __future__ import annotations

import fnmatch
from typing import NamedTuple

from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.ir import Operation

from ...errors import CompileError
from ...runtime.interpreter import main_function
from .layers import Layer, layers_of, tensor_names
from .ranges import set_fixed, set_range
from .table import Choice, QuantTable, near

DTYPE, WHY, NAMED = "nacre.dtype", "nacre.why", "nacre.named"
"""The type of an op that is not left to the default; why it has that; and the table's entry, where that names
the layer itself, so that what cannot be done is told and not passed over."""
WILD = frozenset("*?[")


class Match(NamedTuple):
    """An entry that applies to a layer."""

    entry: str
    choice: Choice
    exact: bool


def apply_layers(module: ModuleOp, table: QuantTable) -> None:
    """Write the types of layers. Raises CompileError for an entry that names nothing, or contradicts another."""
    layers = layers_of(main_function(module))
    idle = {f"layers.{key}" for key in table.layers} | {f"types.{key}" for key in table.types}
    for layer in layers:
        groups = matches(layer, table)
        idle -= {m.entry for group in groups for m in group}
        found = next(iter(groups), None)
        if found is None:
            continue
        check_agreement(layer, found)
        set_choice(layer.op, found[0])
    refuse_idle(idle, layers)
    known = {name for _, names in tensor_names(main_function(module)) for name in names}
    for name in table.tensors:
        if name not in known:
            raise CompileError(f"quant table: tensors.{name} is no tensor of the model{near(name, known)}")


def apply_tensors(module: ModuleOp, table: QuantTable) -> None:
    """Write ranges and scales, over those of calibration."""
    for value, names in tensor_names(main_function(module)):
        entry = next((table.tensors[name] for name in names if name in table.tensors), None)
        if entry is None:
            continue
        if entry.min is not None and entry.max is not None:
            set_range(value, entry.min, entry.max)
        if entry.scale is not None:
            set_fixed(value, entry.scale, entry.zero)


def matches(layer: Layer, table: QuantTable) -> list[list[Match]]:
    """The entries that name a layer, the most particular ones first: names, patterns, kinds of ops."""
    groups = [
        [Match(f"layers.{name}", table.layers[name], True) for name in names if name in table.layers]
        for names in layer.names
    ]
    every = {name for names in layer.names for name in names}
    groups.append(
        [
            Match(f"layers.{key}", choice, False)
            for key, choice in table.layers.items()
            if WILD & set(key) and key not in every and any(fnmatch.fnmatchcase(name, key) for name in every)
        ]
    )
    kind = layer.op.name
    groups.append([Match(f"types.{kind}", table.types[kind], False)] if kind in table.types else [])
    return [group for group in groups if group]


def check_agreement(layer: Layer, found: list[Match]) -> None:
    """Raise CompileError where equally particular entries give a layer different types."""
    for other in found[1:]:
        if other.choice.type != found[0].choice.type:
            raise CompileError(
                f"quant table: {found[0].entry} makes layer '{layer.name}' {found[0].choice.type} and "
                f"{other.entry} makes it {other.choice.type}: give it an entry of its own, "
                f"'{layer.name or layer.unique}'"
            )


def set_choice(op: Operation, match: Match) -> None:
    """Write a choice on an op."""
    op.attributes[DTYPE] = StringAttr(match.choice.type)
    op.attributes[WHY] = StringAttr(match.choice.why)
    if match.exact:
        op.attributes[NAMED] = StringAttr(match.entry)


def refuse_idle(idle: set[str], layers: list[Layer]) -> None:
    """Raise CompileError for the first entry that applied to nothing."""
    for entry in sorted(idle):
        section, _, name = entry.partition(".")
        if section == "types":
            kinds = {layer.op.name for layer in layers}
            known = ", ".join(sorted(kinds))
            raise CompileError(f"quant table: {entry}: the model has no such op{near(name, kinds)}; it has {known}")
        names = {name for layer in layers for group in layer.names for name in group}
        what = "matches no layer" if WILD & set(name) else "is no layer"
        raise CompileError(f"quant table: {entry} {what} of the model{near(name, names)}; nacre info lists them all")


def attribute(op: Operation, key: str) -> str | None:
    """One of the attributes above, as text."""
    found = op.attributes.get(key)
    return found.data if isinstance(found, StringAttr) else None


def clear_choice(op: Operation) -> None:
    """Forget which type a table gave an op; the reason stays."""
    for key in (DTYPE, NAMED):
        op.attributes.pop(key, None)


__all__ = ["DTYPE", "NAMED", "WHY", "apply_layers", "apply_tensors", "attribute", "clear_choice"]
