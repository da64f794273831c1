"""The pass manager: runs a pipeline of named passes over a module, with instruments around each pass."""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass

from ..dialects.text import verification_error
from ..errors import NacreError
from . import rewrite


@dataclass(frozen=True)
class Canonicalize(ModulePass):
    """xDSL's canonicalize, names kept."""

    name = "canonicalize"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        rewrite.canonicalize(op, ctx)


@dataclass(frozen=True)
class Cse(ModulePass):
    """xDSL's cse, names kept."""

    name = "cse"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        rewrite.cse(op)


@dataclass
class PassManager:
    """A pipeline. `verify` checks the module after each pass.

    before: called with each pass before it runs; after: with (pass, module, seconds).
    """

    passes: Sequence[ModulePass]
    verify: bool = False
    after: Callable[[ModulePass, ModuleOp, float], None] | None = None
    context: Context = field(default_factory=Context)
    before: Callable[[ModulePass], None] | None = None

    def run(self, module: ModuleOp) -> None:
        """Apply all passes in order. Raises NacreError naming the pass whose result does not verify."""
        with _no_garbage_collection():
            for one in self.passes:
                if self.before:
                    self.before(one)
                start = time.perf_counter()
                one.apply(self.context, module)
                seconds = time.perf_counter() - start
                if self.verify:
                    wrong = verification_error(module)
                    if wrong is not None:
                        raise NacreError(f"after the pass {one.name} the module is not valid: {wrong}")
                if self.after:
                    self.after(one, module, seconds)


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    # IR is a web of live objects: collecting while it is built costs up to 2.6 times and frees nothing.
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
