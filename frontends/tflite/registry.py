"""The registry of TFLite importers, keyed by the schema's operator name.

    @tflite_importer("RELU")
    def relu(node): ...

An importer gets a `Node` and returns what its outputs are: one value or a tuple. It raises `Unsupported` with
a reason for what it cannot express.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from xdsl.ir import SSAValue

if TYPE_CHECKING:
    from .node import Node

Importer = Callable[["Node"], "SSAValue | tuple[SSAValue, ...]"]


class Entry(NamedTuple):
    """An importer; `floats` says that quantised tensors are none of its business, `moves` that it takes integers
    of 8 and 16 bits which have no scale, since it does not compute with them. `weights` are the inputs that LiteRT
    reads as int8 beside floats (see hybrid.py); the importer gets them as floats."""

    function: Importer
    floats: bool
    moves: bool
    weights: tuple[int, ...]


IMPORTERS: dict[str, Entry] = {}


class Unsupported(Exception):
    """Why an operator cannot be imported; the importer collects these and adds the operator's name and
    kind.
    """


def tflite_importer(
    *kinds: str, floats: bool = False, moves: bool = False, weights: Sequence[int] = ()
) -> Callable[[Importer], Importer]:
    """Register a function for operators.

    floats: on quantised tensors they are refused by name. moves: 8- and 16-bit integers need no scale. weights:
    inputs by place; int8 constants there become floats where the operator's result is of floats.
    """

    def register(function: Importer) -> Importer:
        for kind in kinds:
            if kind in IMPORTERS:
                raise ValueError(f"{kind} has an importer already")
            IMPORTERS[kind] = Entry(function, floats, moves, tuple(weights))
        return function

    return register
