"""The cpu family as a record: a program is the module's text and its constants, the interpreter runs it.

What is quantised computes with the very integers of the npu family, so that a model can be tried without a
machine description, and bits compared.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation
from xdsl.passes import ModulePass

from ...dialects.nacre import BlobAttr, StoreAttr, initial_states, store_of
from ...dialects.store import Store
from ...dialects.text import make_context, parse_module, print_module
from ...errors import FileFormatError, MachineError
from ...passes.quantise.report import LayerRow, kept_rows
from ...runtime.comparison import Feeds, Level, collect_module
from ...runtime.flatfile import ALIGNMENT, STATE, FlatFile, pack_states, read_states
from ...runtime.interpreter import interpret
from ...runtime.kernel import KERNELS
from ..target import CompileOptions, Sections, TargetFamily


class Host(NamedTuple):
    """The machine of this family: wherever Nacre runs."""

    name: str = "cpu"
    types: Sequence[str] = ("int8", "uint8", "int16", "float32")


def load(name: str) -> Host:
    """The host. Raises MachineError for another name."""
    if name != "cpu":
        raise MachineError(f"the cpu family has one machine, 'cpu', and none called '{name}'")
    return Host()


def legal(op: Operation) -> str | None:
    """Everything that has a kernel runs."""
    if isinstance(op, tuple(KERNELS)) or op.dialect_name() in ("builtin", "func", "nacre", "quant", "graph", "qnn"):
        return None
    return f"{op.name} has no kernel"


def pipeline(machine: Host, options: CompileOptions) -> Mapping[str, Sequence[ModulePass]]:
    """Nothing below qnn."""
    return {}


def encode(module: ModuleOp, machine: Host) -> Sections:
    """The text, and the constants one after the other."""
    store = store_of(module)
    blobs = {a.data.digest for op in module.walk() for a in op.properties.values() if isinstance(a, BlobAttr)}
    index, parts, at = {}, [], 0
    for digest in sorted(blobs):
        array = store.get(digest)
        raw = np.ascontiguousarray(array).tobytes()
        padded = -(-len(raw) // ALIGNMENT) * ALIGNMENT
        index[digest] = [at, array.dtype.str, list(array.shape)]
        parts.append(raw + bytes(padded - len(raw)))
        at += padded
    module.attributes["nacre.store"] = StoreAttr(Store())  # the text names no file: the constants are with it
    try:
        text = print_module(module)
    finally:
        module.attributes["nacre.store"] = StoreAttr(store)
    states = initial_states(module)
    return {
        "code": text.encode(),
        "index": json.dumps(index).encode(),
        **({STATE: pack_states(states)} if states else {}),
        "constants": b"".join(parts),
    }


def disassemble(file: FlatFile) -> ModuleOp:
    """The module in a file; its constants stay where the file is mapped. Raises FileFormatError."""
    store = Store()
    raw = file["constants"]
    try:
        for digest, (at, dtype, shape) in json.loads(bytes(file["index"])).items():
            count = int(np.prod(shape, dtype=np.int64))
            store.adopt(digest, np.frombuffer(raw, np.dtype(dtype), count, at).reshape(shape))
    except (ValueError, TypeError) as error:
        raise FileFormatError(f"'{file.label}' holds no sound index of constants: {error}") from None
    module = parse_module(bytes(file["code"]).decode(), make_context(), file.label)
    module.attributes["nacre.store"] = StoreAttr(store)
    return module


class CpuExecutor:
    """A program of the cpu family."""

    def __init__(self, file: FlatFile, sanitize: bool = False):
        self.module = disassemble(file)
        self.file = file
        self.reset()
        self.constant_bytes = len(file["constants"])
        self.seconds: float | None = None

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """One inference."""
        start = time.perf_counter()
        outputs = interpret(self.module, feeds, states=self.states)
        self.seconds = time.perf_counter() - start
        return outputs

    def reset(self) -> None:
        """The states as the file has them."""
        self.states = read_states(self.file)

    def layers(self) -> list[LayerRow] | None:
        """The layers' types, from the module."""
        return kept_rows(self.module)

    def collect(self, feeds: Feeds, wanted: Collection[str]) -> Level:
        """One inference, watched."""
        return collect_module("program", self.module, feeds, wanted)

    def profile(self) -> dict[str, Any]:
        """What the last run took on this host; the host has no cycles to count."""
        return {"machine": "cpu", "seconds": self.seconds, "constant_bytes": self.constant_bytes}


FAMILY = TargetFamily(
    name="cpu",
    description="the host: kernels of the graph and qnn levels in numpy",
    machines=lambda: ["cpu"],
    load=load,
    legal=legal,
    pipeline=pipeline,
    encode=encode,
    executor=CpuExecutor,
    disassemble=disassemble,
)
