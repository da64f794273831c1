"""What the emulated machine needs to run: commands, kernels, constants, the memory plan, and names for
people.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from ..dialects.npu import Region
from .execute import LaunchKernel
from .isa import Command
from .machine import Machine


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
    """A program for one machine. DRAM begins with the constants; inputs, outputs and arena follow."""

    machine: Machine
    commands: Sequence[Command]
    kernels: Mapping[str, LaunchKernel]
    constants: np.ndarray
    dram_bytes: int
    inputs: Sequence[Binding]
    outputs: Sequence[Binding]
    tensors: Sequence[Tensor] = ()
    layers: Sequence[str] = field(default_factory=tuple)
    """The layer that each command belongs to; empty without a debug map."""

    @property
    def arena_bytes(self) -> int:
        """DRAM that inference needs beside the constants."""
        return self.dram_bytes - len(self.constants)

    def layer_of(self, index: int) -> str:
        """The layer of a command, for messages."""
        return self.layers[index] if index < len(self.layers) else ""
