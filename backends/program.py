"""A compiled program: the bytes of its file, the module of every level on the way, and a report."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from xdsl.dialects.builtin import ModuleOp

from ..runtime.flatfile import FlatFile, pack, write_whole
from .target import Sections, TargetFamily


@dataclass
class Program:
    """What `nacre.compile` gives. `levels` maps graph, qnn, npu and schedule to their modules."""

    family: TargetFamily
    sections: Sections
    levels: Mapping[str, ModuleOp] = field(default_factory=dict)
    report: Mapping[str, Any] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """The `.nacre` file."""
        return pack(self.family.name, self.sections)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the `.nacre` file, whole or not at all."""
        write_whole(path, self.to_bytes())

    def to_file(self) -> FlatFile:
        """The file in memory."""
        return FlatFile(self.to_bytes(), "<program>")


@dataclass(frozen=True)
class NodeArg:
    """An input or output: name, shape, and type as ONNX Runtime spells it."""

    name: str
    shape: list[int]
    type: str

    @property
    def dtype(self) -> np.dtype:
        """The numpy dtype."""
        return _DTYPES[self.type]


_TYPES = {
    "float32": "tensor(float)", "float64": "tensor(double)", "float16": "tensor(float16)",
    "bool": "tensor(bool)",
}  # fmt: skip
_DTYPES = {
    _TYPES.get(name, f"tensor({name})"): np.dtype(name)
    for name in (
        "float32",
        "float64",
        "float16",
        "bool",
        "int8",
        "uint8",
        "int16",
        "uint16",
        "int32",
        "int64",
    )
}


def node_arg(name: str, shape: tuple[int, ...], dtype: np.dtype) -> NodeArg:
    """A NodeArg from numpy's words."""
    return NodeArg(name, list(shape), _TYPES.get(dtype.name, f"tensor({dtype.name})"))


def signature_section(inputs: list[NodeArg], outputs: list[NodeArg]) -> bytes:
    """The `signature` section: what every family's file says about its inputs and outputs."""
    sides = {"inputs": inputs, "outputs": outputs}
    return json.dumps({k: [[a.name, a.shape, a.type] for a in v] for k, v in sides.items()}).encode()


def read_signature(file: FlatFile) -> tuple[list[NodeArg], list[NodeArg]]:
    """Inputs and outputs of a file."""
    sides = json.loads(bytes(file["signature"]))
    return [NodeArg(*a) for a in sides["inputs"]], [NodeArg(*a) for a in sides["outputs"]]
