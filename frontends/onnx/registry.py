"""The registry of ONNX importers, keyed by domain, operator and the opset version a meaning starts at.

    @importer("Relu")
    def relu(node): return node.emit(graph.ReluOp, node.operand(0))

An importer gets a `Node` and returns what its outputs are: one value or a tuple, each an SSA value or, where
it is known at import, an array. It raises `Unsupported` with a reason for what it cannot express.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from xdsl.ir import SSAValue

if TYPE_CHECKING:
    from .node import Node

Value = SSAValue | np.ndarray
Importer = Callable[["Node"], "Value | tuple[Value, ...]"]

IMPORTERS: dict[tuple[str, str], dict[int, Importer]] = {}
REFUSED: dict[tuple[str, str], str] = {}
"""Why operators that are known are not imported, by domain and name."""
RANDOM: set[tuple[str, str]] = set()
"""Operators whose results differ from run to run: they are not folded, whatever their inputs are."""
KEPT: set[tuple[str, str]] = set()
"""Operators that are imported on constants too, since they say more of these than their values."""


class Unsupported(Exception):
    """Why a node cannot be imported; the importer collects these and adds the node's name and operator."""


def importer(*op_types: str, since: int = 1, domain: str = "") -> Callable[[Importer], Importer]:
    """Register a function for operators from opset `since` up to the next registered version."""

    def register(function: Importer) -> Importer:
        for op_type in op_types:
            versions = IMPORTERS.setdefault((domain, op_type), {})
            if since in versions:
                raise ValueError(
                    f"{domain or 'ai.onnx'}::{op_type} has an importer since opset {since} already"
                )
            versions[since] = function
        return function

    return register


def refuse(*op_types: str, reason: str, domain: str = "", random: bool = False) -> None:
    """Register operators that are known, but not imported, with the reason a user reads.

    On constants they are folded all the same, unless they are `random`.
    """

    def refused(node: Node) -> Value:
        raise Unsupported(reason)

    importer(*op_types, domain=domain)(refused)
    REFUSED.update(((domain, op_type), reason) for op_type in op_types)
    RANDOM.update((domain, op_type) for op_type in op_types if random)


def importer_of(domain: str, op_type: str, opset: int) -> Importer | None:
    """The importer of an operator at an opset version, None where nobody registered one."""
    versions = IMPORTERS.get((domain, op_type), {})
    fitting = [since for since in versions if since <= opset]
    return versions[max(fitting)] if fitting else None
