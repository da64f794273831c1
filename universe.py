"""Nacre's dialects and passes for xDSL's entry point `xdsl.universe`, so that `xdsl-opt` has them.

Loading a dialect also loads what is registered for it elsewhere (kernels, canonicalisation patterns), so that
plain `xdsl-opt -p canonicalize` folds. Until a dialect or pass is asked for, nothing is imported.
"""

from __future__ import annotations

import functools
import importlib
import re
from collections.abc import Callable
from pathlib import Path

from xdsl.ir import Dialect
from xdsl.passes import ModulePass
from xdsl.universe import Universe

PACKAGE = __package__ or "nacre"
DIALECTS = {
    "nacre": "dialects.nacre:NACRE",
    "graph": "dialects.graph:GRAPH",
    "quant": "dialects.quant:QUANT",
    "qnn": "dialects.qnn:QNN",
    "npu": "dialects.npu_instructions:NPU",
    "ppu": "dialects.ppu:PPU",
}
REGISTRATIONS = "canonical*.py"
"""Files in the folders of passes that register canonicalisation patterns."""
PASS_FOLDERS = ("passes/graph", "passes/quantise", "passes/npu", "passes/ppu", "backends/npu")
_DEFINITION = re.compile(r"^class \w+\(NacrePass\):.*?^    name = \"([a-z0-9-]+)\"$", re.M | re.S)


def dialect_factory(name: str) -> Callable[[], Dialect]:
    """What gives a dialect, imported when it is called."""

    def load() -> Dialect:
        home, variable = DIALECTS[name].split(":")
        importlib.import_module(".extensions", PACKAGE).load_operators()
        for module in ("runtime.interpreter", *modules_in(REGISTRATIONS)):
            importlib.import_module(f".{module}", PACKAGE)
        return getattr(importlib.import_module(f".{home}", PACKAGE), variable)

    return load


def pass_factory(module: str, name: str) -> Callable[[], type[ModulePass]]:
    """What gives a pass class, imported when it is called."""

    def load() -> type[ModulePass]:
        importlib.import_module(f".{module}", PACKAGE)
        from .passes.base import PASSES

        return PASSES[name]

    return load


@functools.cache
def pass_modules() -> dict[str, str]:
    """The module that defines each pass, by the pass's name.

    Read off the source text: xdsl-opt asks for all names each time it starts, and importing takes longer than
    all the rest of its start. A test compares this with what importing gives.
    """
    found = {}
    for module, file in modules_in("*.py").items():
        for name in _DEFINITION.findall(file.read_text(encoding="utf-8")):
            found[name] = module
    return dict(sorted(found.items()))


def modules_in(pattern: str) -> dict[str, Path]:
    """Files of the folders of passes, by module name."""
    root = Path(__file__).parent
    files = [(folder, file) for folder in PASS_FOLDERS for file in sorted((root / folder).glob(pattern))]
    return {f"{folder.replace('/', '.')}.{file.stem}": file for folder, file in files}


NACRE = Universe(
    all_dialects={name: dialect_factory(name) for name in DIALECTS},
    all_passes={name: pass_factory(module, name) for name, module in pass_modules().items()},
)
