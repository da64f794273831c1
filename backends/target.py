"""Target families and machines: what a name given to `--target` stands for.

A family is a record; outside packages add theirs under the entry point group `nacre.targets`.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation
from xdsl.passes import ModulePass

from ..errors import CompileError, MachineError, did_you_mean
from ..passes.quantise.report import LayerRow
from ..runtime.comparison import Feeds, Level
from ..runtime.flatfile import FlatFile

Sections = Mapping[str, "bytes | np.ndarray"]


class Executor(Protocol):
    """A loaded program of some family."""

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """One inference on checked inputs."""
        ...

    def reset(self) -> None:
        """Put the initial values back into all states."""
        ...

    def profile(self) -> dict[str, Any]:
        """Figures of one inference, by name."""
        ...

    def layers(self) -> list[LayerRow] | None:
        """In which type each source layer computes and why; None where the program was not told."""
        ...

    def collect(self, feeds: Feeds, wanted: Collection[str]) -> Level:
        """One inference, and those of the wanted source tensors that the program holds on the way."""
        ...


@dataclass(frozen=True)
class TargetFamily:
    """A kind of target.

    machines: names it ships; load: a machine from a name or file; legal: None or why an op cannot run;
    pipeline: the passes from graph or qnn down, by level; encode: a lowered module as file sections;
    executor: what runs them; disassemble: the lowered module again, of which `encode` gives the same
    sections; reorders: whether the pipeline may change the last bits of an op's floats.
    """

    name: str
    description: str
    machines: Callable[[], Sequence[str]]
    load: Callable[[str], Any]
    legal: Callable[[Operation], str | None]
    pipeline: Callable[[Any, CompileOptions], Mapping[str, Sequence[ModulePass]]]
    encode: Callable[[ModuleOp, Any], Sections]
    executor: Callable[[FlatFile, bool], Executor]
    disassemble: Callable[[FlatFile], ModuleOp]
    reorders: Callable[[Operation], bool] = lambda op: False


@dataclass(frozen=True)
class CompileOptions:
    """What a user chooses beside model, target and calibration."""

    dtype: str = "int8"
    fuse: bool = True


@functools.cache
def families() -> dict[str, TargetFamily]:
    """All installed families by name."""
    return {e.name: e.load() for e in sorted(entry_points(group="nacre.targets"), key=lambda e: e.name)}


def family_named(name: str) -> TargetFamily:
    """A family by its name, as a file's header gives it."""
    if name not in families():
        raise CompileError(
            f"no installed target family is called '{name}'; there are {', '.join(families())}"
        )
    return families()[name]


def resolve_target(target: str) -> tuple[TargetFamily, Any]:
    """The family and machine that a name or a TOML file stands for. Raises MachineError with near names."""
    if not isinstance(target, (str, os.PathLike)):
        raise MachineError(f"target is {target!r}: give a machine's name such as 'v853', or its .toml file")
    target = os.fspath(target)
    for family in families().values():
        if target in family.machines():
            return family, family.load(target)
    if Path(target).suffix == ".toml" and not Path(target).exists():
        raise MachineError(f"the machine description '{target}' does not exist: give a machine's name or .toml file")
    if Path(target).suffix == ".toml" or Path(target).is_file():
        return families()["npu"], families()["npu"].load(target)
    known = [m for family in families().values() for m in family.machines()]
    hint = did_you_mean(target, known) or f"there are {', '.join(known)}"
    raise MachineError(f"there is no target '{target}': {hint} (or give a machine's .toml file)")
