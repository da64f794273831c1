"""Nacre: an MLIR-style multi-level compiler for NPUs, with an emulator of the machine.

    program = nacre.compile("model.onnx", target="v853", dtype="int8", calibration="samples.npz")
    program.save("model.nacre")
    outputs = nacre.Session("model.nacre").run(None, {"input": x})
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .backends.compile import compile
    from .backends.program import Program
    from .backends.session import Session
    from .backends.verify import Report, verify
    from .errors import NacreError

_HOME = {
    "compile": "backends.compile", "Program": "backends.program", "Session": "backends.session",
    "NacreError": "errors", "Report": "backends.verify", "verify": "backends.verify",
}  # fmt: skip

__all__ = ["NacreError", "Program", "Report", "Session", "compile", "verify"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'nacre' has no attribute '{name}'")
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
