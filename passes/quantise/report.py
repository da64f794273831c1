"""In which type each layer of a module computes, and why: what `nacre info` shows, from the module itself."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.ir import Operation

from ...dialects.quant import CastOp, QuantType
from ...dialects.types import dtype_of, element_type, f32, i8, i16
from ...runtime.interpreter import main_function
from ...runtime.macs import macs_of
from .apply_table import WHY, attribute
from .layers import layers_of
from .rules import Kind, rule_of

ATTRIBUTE = "nacre.layers"
"""The module attribute that keeps the rows, as JSON, on the way down to the program's debug map."""


class LayerRow(NamedTuple):
    """A layer: its name, its main op, the type of that, why it has it, and the layer's multiplications."""

    layer: str
    op: str
    type: str
    why: str
    macs: int


def layer_rows(module: ModuleOp) -> list[LayerRow]:
    """The layers of @main at the graph or qnn level in order; ops of a layer that differ in type apart."""
    function = main_function(module)
    computes = any(isinstance(element_type(v), QuantType) for op in function.body.block.ops for v in op.results)
    rows: dict[tuple[str, str], LayerRow] = {}
    for layer in layers_of(function):
        if isinstance(layer.op, CastOp):
            continue
        type_ = type_of(layer.op)
        row = LayerRow(layer.name, layer.op.name, type_, why_of(layer.op, type_, computes), macs_of(layer.op))
        first = rows.setdefault((layer.name, type_), row)
        if first is not row:
            main = row if row.macs > first.macs else first
            rows[layer.name, type_] = main._replace(macs=first.macs + row.macs, why=first.why or row.why)
    return list(rows.values())


def type_of(op: Operation) -> str:
    """The dtype an op computes in: that of its result; int16x8 for 8-bit weights on 16-bit activations."""
    elements = [element_type(v) for v in (*op.results, *op.operands)]
    name = dtype_of(elements[0]).name
    storages = {e.storage for e in elements[1:] if isinstance(e, QuantType)}
    return "int16x8" if name == "int16" and macs_of(op) and {i8, i16} <= storages else name


def why_of(op: Operation, type_: str, quantised: bool) -> str:
    """Why an op has its type: what quantisation left on it, or what can be seen from it."""
    if (why := attribute(op, WHY)) is not None:
        return why
    if type_ != "float32" or all(element_type(v) != f32 for v in op.operands):
        return ""
    rule = rule_of(op)
    if rule is None:
        return f"{op.name} has no integer form here"
    if not quantised:
        return ""
    return "between float layers" if rule.kind in (Kind.MOVES, Kind.JOINS) else "no integer types around it"


def share_by_type(rows: Sequence[LayerRow]) -> dict[str, float]:
    """The share of all multiplications in each type, the largest first; nothing for a network without any."""
    total = sum(row.macs for row in rows)
    counts: dict[str, int] = {}
    for row in rows:
        if row.macs:
            counts[row.type] = counts.get(row.type, 0) + row.macs
    return {type_: count / total for type_, count in sorted(counts.items(), key=lambda item: -item[1])}


# --- on the way down -------------------------------------------------------------------------------------
def keep_rows(module: ModuleOp, rows: Sequence[Sequence[object]] | None) -> None:
    """Write rows on a module, where they outlive lowering."""
    if rows is not None:
        module.attributes[ATTRIBUTE] = StringAttr(json.dumps(rows, separators=(",", ":"), ensure_ascii=False))


def kept_rows(module: ModuleOp) -> list[LayerRow] | None:
    """The rows written on a module; None where there are none."""
    written = module.attributes.get(ATTRIBUTE)
    return rows_of(json.loads(written.data)) if isinstance(written, StringAttr) else None


def rows_of(value: Sequence[Sequence[object]]) -> list[LayerRow]:
    """Rows from JSON. Raises TypeError for what are none."""
    return [LayerRow(*row) for row in value]  # type: ignore[arg-type]


__all__ = ["LayerRow", "keep_rows", "kept_rows", "layer_rows", "rows_of", "share_by_type"]
