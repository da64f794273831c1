"""The base of all passes: a module pass with a kebab-case name, registered by being defined."""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass
from typing import ClassVar

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass

PASSES: dict[str, type[NacrePass]] = {}


@dataclass(frozen=True)
class NacrePass(ModulePass):
    """A pass over one module. Subclasses are frozen dataclasses whose fields are the pass's options.

    The class docstring's first line is what `nacre opt --list` and the docs show.
    """

    name: ClassVar[str]  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        if "name" in cls.__dict__:
            PASSES[cls.name] = cls

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        self.run(op)

    def run(self, module: ModuleOp) -> None:
        """Change the module in place."""
        raise NotImplementedError


def load_passes() -> dict[str, type[NacrePass]]:
    """Import every module below passes/ and give all registered passes by name."""
    package = importlib.import_module(__package__ or "nacre.passes")
    for info in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(info.name)
    return dict(sorted(PASSES.items()))
