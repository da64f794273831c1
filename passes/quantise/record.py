"""What a quantisation did, as a table that does the same again."""

from __future__ import annotations

from typing import Any

from ...dialects.types import element_type, f32
from .apply_table import WHY, attribute
from .layers import Layer, layers_of, tensor_names
from .parameters import SCHEMES
from .quantiser import Quantiser
from .ranges import range_of
from .table import BY_TABLE, Choice, QuantTable, Tensor

NAME_OF_SCHEME = {scheme: name for name, scheme in SCHEMES.items()}


class Record:
    """Layers, names and ranges of a function that is about to be quantised; afterwards, what became of them."""

    def __init__(self, quantiser: Quantiser):
        self.quantiser = quantiser
        self.layers = [layer for layer in layers_of(quantiser.function) if computes_floats(layer)]
        self.values = [(value, names[0]) for value, names in tensor_names(quantiser.function)]
        self.ranges = {value: range_of(value) for value, _ in self.values}

    def table(self, dtype: str) -> QuantTable:
        """The table, behind the run."""
        tensors = {name: self.tensor(value) for value, name in self.values}
        return QuantTable(
            default=dtype,  # type: ignore[arg-type]
            layers=self.choices(),
            tensors={name: tensor for name, tensor in tensors.items() if tensor is not None},
        )

    def choices(self) -> dict[str, Choice]:
        """A choice a layer, or one an op where those of a layer differ."""
        groups: dict[str, list[tuple[str, Choice]]] = {}
        for layer in self.layers:
            groups.setdefault(layer.name, []).append((layer.unique, self.choice(layer)))
        found: dict[str, Choice] = {}
        for name, members in groups.items():
            if name and all(choice == members[0][1] for _, choice in members):
                found[name] = members[0][1]
            else:
                found.update(members)
        return found

    def choice(self, layer: Layer) -> Choice:
        """The type an op has got; one that another took in has that one's."""
        scheme = self.quantiser.schemes[layer.op]
        if layer.op.parent is not None:  # still there: it is a float op
            return Choice(type="float32", why=attribute(layer.op, WHY) or BY_TABLE)
        why = self.quantiser.whys.get(layer.op) or BY_TABLE
        return Choice(type=NAME_OF_SCHEME[scheme] if scheme else "float32", why=why)  # type: ignore[arg-type]

    def tensor(self, value: Any) -> Tensor | None:
        """Range and scale of a value; several scales, for users of several types, come of the range again."""
        found = self.ranges[value]
        entries: dict[str, Any] = {} if found is None else {"min": found.low, "max": found.high}
        types = self.quantiser.chosen.get(value, set())
        if len(types) == 1:
            [type_] = types
            entries |= {"scale": type_.scale, "zero": type_.zero}
        return Tensor(**entries) if entries else None


def computes_floats(layer: Layer) -> bool:
    """Whether there is anything to quantise."""
    return any(element_type(v) == f32 for v in (*layer.op.operands, *layer.op.results))
