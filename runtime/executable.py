"""What the emulated machine needs to run: commands, kernels, constants, the memory plan, and names for
people.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from ..dialects.npu import Region
from ..dialects.ppu import FuncOp
from .isa import Command
from .machine import Machine
from .ppu import Kernel, prepare


class Binding(NamedTuple):
    """An input or output of a program: where the host puts or finds it in DRAM."""

    name: str
    region: Region


class Tensor(NamedTuple):
    """A source tensor that the program still holds: where, after which command, and what its integers mean.

    Axis i of the region is axis axes[i] of the source tensor; real = scale · (q − zero), floats as they are.
    """

    name: str
    layer: str
    region: Region
    after: int
    axes: tuple[int, ...]
    scale: float | None
    zero: int


@dataclass
class Executable:
    """A program for one machine. DRAM begins with the constants; inputs, outputs, states and arena follow."""

    machine: Machine
    commands: Sequence[Command]
    kernels: Mapping[str, FuncOp]
    """What launches run, by the symbol they name."""
    constants: np.ndarray
    dram_bytes: int
    inputs: Sequence[Binding]
    outputs: Sequence[Binding]
    states: Sequence[Binding] = ()
    """What is kept between runs; `initial` holds what it begins with, by name."""
    initial: Mapping[str, np.ndarray] = field(default_factory=dict)
    tensors: Sequence[Tensor] = ()
    layers: Sequence[str] = field(default_factory=tuple)
    """The layer that each command belongs to; empty without a debug map."""

    @functools.cached_property
    def prepared(self) -> Mapping[str, Kernel]:
        """The kernels ready to run, prepared once."""
        return {name: prepare(function) for name, function in self.kernels.items()}

    @property
    def arena_bytes(self) -> int:
        """DRAM that inference needs beside the constants."""
        return self.dram_bytes - len(self.constants)

    def layer_of(self, index: int) -> str:
        """The layer of a command, for messages."""
        return self.layers[index] if index < len(self.layers) else ""
