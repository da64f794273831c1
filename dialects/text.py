"""Modules as text: parse with messages a user can read, print with names, and save beside their constants."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

from xdsl.context import Context
from xdsl.dialects.builtin import Builtin, FusedLoc, ModuleOp, NameLoc
from xdsl.dialects.func import Func
from xdsl.ir import Attribute, Dialect
from xdsl.parser import Parser
from xdsl.printer import Printer
from xdsl.utils.exceptions import ParseError, VerifyException

from ..errors import NacreError, did_you_mean
from .graph import GRAPH
from .nacre import NACRE, BlobAttr, StoreAttr, store_of
from .npu_instructions import NPU
from .ppu import PPU
from .qnn import QNN
from .quant import QUANT, QuantType
from .store import Store

DIALECTS: list[Dialect] = [NACRE, GRAPH, QUANT, QNN, NPU, PPU]


def add_dialect(dialect: Dialect) -> None:
    """Let text of a dialect of an outside package be read. ValueError if there is one of its name."""
    if any(d.name == dialect.name for d in DIALECTS):
        raise ValueError(f"there is a dialect '{dialect.name}' already")
    DIALECTS.append(dialect)


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
    context = context or make_context()
    try:
        module = Parser(context, text, label).parse_module()
    except ParseError as error:
        raise NacreError(place_and_reason(error, context)) from None
    except VerifyException as error:
        raise NacreError(f"{label}: {first_line(error)}") from None
    if (wrong := verification_error(module)) is not None:
        raise NacreError(f"{label}: {wrong}")
    return module


def place_and_reason(error: ParseError, context: Context) -> str:
    """`file:line:column: reason`, with a near name for an operation that does not exist."""
    span = error.span
    before = span.input.content[: span.start]
    line, column = before.count("\n") + 1, len(before) - before.rfind("\n")  # type: ignore[arg-type]
    reason = first_line_of(error.msg)
    unknown = re.search(r"[Oo]peration '?([\w.]+)'? is not registered", reason)
    if unknown:
        dialect = unknown[1].partition(".")[0]
        known = [op.name for op in context.loaded_ops]
        if "." in unknown[1] and (hint := did_you_mean(unknown[1], known)):
            reason += f"; {hint}"
        else:
            names = sorted(d.name for d in context.loaded_dialects)
            reason += "" if dialect in names else f" (the dialects are {', '.join(names)})"
    return f"{span.input.name}:{line}:{column}: {reason}"


def verification_error(module: ModuleOp) -> str | None:
    """What is wrong with a module, starting with the layer's name; None for a valid one."""
    try:
        module.verify()
    except VerifyException as error:
        for op in module.walk():
            try:
                op.verify(verify_nested_ops=False)
            except VerifyException as inner:
                names = list(location_names(op.location))
                layer = f"layer '{'+'.join(names)}': " if names else ""
                return f"{layer}{first_line(inner)}"
        return first_line(error)
    return None


def location_names(location: Attribute) -> Iterator[str]:
    """The names in a location, in order: the source layers an op comes from."""
    if isinstance(location, NameLoc):
        yield location.desc.data
    elif isinstance(location, FusedLoc):
        for part in location.locations:  # type: ignore[attr-defined]
            yield from location_names(part)


def load_module(path: str | os.PathLike[str], context: Context | None = None) -> ModuleOp:
    """A module from a `.mlir` file."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise NacreError(f"'{os.fspath(path)}' cannot be read as text: {reason}") from None
    except UnicodeDecodeError as error:
        raise NacreError(f"'{os.fspath(path)}' cannot be read as text: {error}") from None
    if not text.strip():
        raise NacreError(f"'{os.fspath(path)}' is empty: it should hold a module")
    return parse_module(text, context, os.fspath(path))


def first_line(error: Exception) -> str:
    """What an exception of xDSL says, without the module it prints below."""
    return first_line_of(str(error)) or type(error).__name__


def first_line_of(text: str) -> str:
    """The first line that is not empty."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def print_module(module: ModuleOp, generic: bool = False, locations: bool = True) -> str:
    """A module's text. Quantised types are written once, as aliases; locations unless told not to."""
    out = StringIO()
    printer = AliasPrinter(out, print_generic_format=generic, print_debuginfo=locations)
    printer.print_aliases(module)
    printer.print_op(module)
    return out.getvalue() + "\n"


class AliasPrinter(Printer):
    """Prints a quantised type by a short name that a line at the top defines."""

    def __init__(self, stream: StringIO, **options: Any):
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

    def print_string_literal(self, string: str) -> None:
        """A literal whose letters beyond ASCII stay as they are: xDSL reads its own escapes of them as
        bytes.
        """
        escaped = string.replace("\\", "\\\\").replace('"', '\\"')
        self.print_string('"' + "".join(c if c >= " " else f"\\{ord(c):02X}" for c in escaped) + '"')

    def print_attribute(self, attribute: Attribute) -> None:
        name = self._names.get(attribute) if isinstance(attribute, QuantType) else None
        if name is None:
            super().print_attribute(attribute)
        else:
            self.print_string(name)


def save_module(module: ModuleOp, path: str | os.PathLike[str], **options: bool) -> None:
    """Write `x.mlir` and its constants beside it as `x.safetensors`, each whole or not at all."""
    from .store import is_stream, write_text

    target = Path(path)
    store = store_of(module)
    attributes = (a for op in module.walk() for a in op.properties.values())
    digests = {a.data.digest for a in attributes if isinstance(a, BlobAttr)}
    if digests and is_stream(target):
        raise NacreError(
            f"'{target}' is no regular file, and this text has constants that go into one beside it: name a "
            "file to write"
        )
    beside = Store(target.with_suffix(".safetensors")) if digests else Store()
    if beside.path is not None:
        store.save(beside.path, digests)
    before = module.attributes["nacre.store"]
    module.attributes["nacre.store"] = StoreAttr(beside)
    try:
        write_text(target, print_module(module, **options))
    finally:
        module.attributes["nacre.store"] = before
