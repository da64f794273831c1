"""Modules as text: parse with messages a user can read, print with names, and save beside their constants."""

from __future__ import annotations

import os
from io import StringIO
from pathlib import Path

from xdsl.context import Context
from xdsl.dialects.builtin import Builtin, ModuleOp
from xdsl.dialects.func import Func
from xdsl.ir import Attribute, Dialect
from xdsl.parser import Parser
from xdsl.printer import Printer
from xdsl.utils.exceptions import ParseError, VerifyException

from ..errors import NacreError
from .graph import GRAPH
from .nacre import NACRE, BlobAttr, StoreAttr, store_of
from .npu_instructions import NPU
from .qnn import QNN
from .quant import QUANT, QuantType
from .store import Store

DIALECTS: tuple[Dialect, ...] = (NACRE, GRAPH, QUANT, QNN, NPU)


def make_context() -> Context:
    """A context with the dialects of Nacre, builtin and func."""
    context = Context()
    for dialect in (Builtin, Func, *DIALECTS):
        context.load_dialect(dialect)
    return context


def parse_module(text: str, context: Context | None = None, label: str = "<text>") -> ModuleOp:
    """A verified module from text; `label` is its file, beside which constants are looked for.

    Raises NacreError with the place and the reason.
    """
    try:
        module = Parser(context or make_context(), text, label).parse_module()
        module.verify()
    except ParseError as error:
        raise NacreError(f"{error}") from None
    except VerifyException as error:
        raise NacreError(f"{label}: {_first_line(error)}") from None
    return module


def load_module(path: str | os.PathLike[str], context: Context | None = None) -> ModuleOp:
    """A module from a `.mlir` file."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise NacreError(f"'{path}' cannot be read as text: {error}") from None
    return parse_module(text, context, os.fspath(path))


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def print_module(module: ModuleOp, generic: bool = False, locations: bool = True) -> str:
    """A module's text. Quantised types are written once, as aliases; locations are shown unless told not to."""
    out = StringIO()
    printer = AliasPrinter(out, print_generic_format=generic, print_debuginfo=locations)
    printer.print_aliases(module)
    printer.print_op(module)
    return out.getvalue() + "\n"


class AliasPrinter(Printer):
    """Prints a quantised type by a short name that a line at the top defines."""

    def __init__(self, stream: StringIO, **options: bool):
        super().__init__(stream, **options)
        self._names: dict[Attribute, str] = {}

    def print_aliases(self, module: ModuleOp) -> None:
        """Define a name for every quantised type of the module."""
        for op in module.walk():
            for value in (*op.results, *(a for r in op.regions for b in r.blocks for a in b.args)):
                element = getattr(value.type, "element_type", None)
                if isinstance(element, QuantType) and element not in self._names:
                    name = f"!q{len(self._names)}"
                    self.print_string(f"{name} = ")
                    super().print_attribute(element)
                    self.print_string("\n")
                    self._names[element] = name

    def print_attribute(self, attribute: Attribute) -> None:
        name = self._names.get(attribute) if isinstance(attribute, QuantType) else None
        if name is None:
            super().print_attribute(attribute)
        else:
            self.print_string(name)


def save_module(module: ModuleOp, path: str | os.PathLike[str], **options: bool) -> None:
    """Write `x.mlir` and its constants beside it as `x.safetensors`, each whole or not at all."""
    from .store import write_text

    target = Path(path)
    store = store_of(module)
    digests = {a.data.digest for op in module.walk() for a in op.properties.values() if isinstance(a, BlobAttr)}
    beside = Store(target.with_suffix(".safetensors")) if digests else Store()
    if beside.path is not None:
        store.save(beside.path, digests)
    before = module.attributes["nacre.store"]
    module.attributes["nacre.store"] = StoreAttr(beside)
    try:
        write_text(target, print_module(module, **options))
    finally:
        module.attributes["nacre.store"] = before
