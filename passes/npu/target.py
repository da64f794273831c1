"""The machine a module is compiled for: named by the module, or by a pass's option."""

from __future__ import annotations

import functools

from xdsl.dialects.builtin import ModuleOp, StringAttr

from ...errors import CompileError
from ...runtime.machine import Machine, load_machine, machine_names

ATTRIBUTE = "nacre.target"


def machine_of(module: ModuleOp, option: str | None = None) -> Machine:
    """The machine by the option, or else by the module's `nacre.target`. Raises CompileError for neither."""
    if option is None:
        attribute = module.attributes.get(ATTRIBUTE)
        if not isinstance(attribute, StringAttr):
            raise CompileError("the module names no target: give one with {target=v853}, or set nacre.target")
        option = attribute.data
    return _shipped(option) if option in machine_names() else load_machine(option)  # a file may be edited meanwhile


@functools.lru_cache(maxsize=64)
def _shipped(name: str) -> Machine:
    return load_machine(name)


def set_target(module: ModuleOp, name: str) -> None:
    """Let the module name its target."""
    module.attributes[ATTRIBUTE] = StringAttr(name)
