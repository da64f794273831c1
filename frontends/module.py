"""What every front end ends with: the module around a finished block, and one text for all that went
wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from xdsl.dialects.builtin import ArrayAttr, DictionaryAttr, ModuleOp, StringAttr
from xdsl.dialects.func import FuncOp
from xdsl.ir import Attribute, Block, Region, SSAValue

from ..dialects.nacre import StateOp, StoreAttr
from ..dialects.store import Store


class Problem(NamedTuple):
    """A layer that cannot be imported: its name, its operator, and why."""

    name: str
    kind: str
    reason: str


def module_around(
    block: Block,
    inputs: Sequence[str],
    outputs: Sequence[str],
    results: Sequence[SSAValue],
    store: Store,
    states: Sequence[StateOp] = (),
) -> ModuleOp:
    """The verified module of a block that returns `results`; its arguments are the named inputs."""
    main = FuncOp(
        "main",
        ([a.type for a in block.args], [r.type for r in results]),
        Region(block),
        arg_attrs=names_attribute(inputs),
        res_attrs=names_attribute(outputs),
    )
    module = ModuleOp([*states, main], attributes={"nacre.store": StoreAttr(store)})
    module.verify()
    return module


def names_attribute(names: Sequence[str]) -> ArrayAttr[DictionaryAttr]:
    """`{nacre.name = "…"}` for each argument or result."""
    entries: list[dict[str, Attribute]] = [{"nacre.name": StringAttr(n)} for n in names]
    return ArrayAttr([DictionaryAttr(e) for e in entries])


def problems_text(problems: Sequence[Problem], noun: str = "layer") -> str:
    """All that is wrong: a line for each operator and reason, with the names of its layers (or what `noun` says)."""
    layers: dict[tuple[str, str], list[str]] = {}
    for problem in problems:
        layers.setdefault((problem.kind, problem.reason), []).append(f"'{problem.name}'")
    lines = [
        f"  {noun}{'s' if len(names) > 1 else ''} {', '.join(names)} ({kind}): {reason}"
        for (kind, reason), names in layers.items()
    ]
    count = f"{len(problems)} {noun}{'s' if len(problems) > 1 else ''} of the model cannot be imported"
    return "\n".join([f"{count}:", *lines])
