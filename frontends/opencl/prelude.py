"""The mathematical functions that are written in OpenCL C themselves, in math.cl, common.cl and geometric.cl.

Each is read when a kernel calls it for the first time, and kept.
"""

from __future__ import annotations

import functools
import re
from importlib import resources

from .diagnostics import Source
from .expressions import ExpressionEmitter
from .functions import Function, collect
from .parser import parse

FILES = ("math.cl", "common.cl", "geometric.cl")
SAME = ("exp", "exp2", "exp10", "log", "log2", "log10", "sin", "cos", "tan", "powr", "rsqrt")
"""Functions of which OpenCL has `half_…` and `native_…`: faster where that is worth it, here the same."""
MEANING = {f"{kind}_{name}": name for kind in ("half", "native") for name in SAME}
MEANING |= {f"{kind}_recip": "_reciprocal" for kind in ("half", "native")}
MEANING |= {f"{kind}_divide": "_quotient" for kind in ("half", "native")}
GEOMETRIC = {"dot": 2, "length": 1, "distance": 2, "normalize": 1, "cross": 2}
"""Number of arguments of functions of whole vectors, whose names in the library end with the number of elements."""
DEFINITION = re.compile(r"^\w+ (\w+)\([^)]*\) \{(?:[^\n]*\}$|.*?^\})", re.M | re.S)
"""A function: it begins at a line's beginning and ends in that line, or where a line begins with `}`."""


@functools.cache
def text(file: str) -> str:
    """A file of the library."""
    return resources.files(__package__ or "").joinpath(file).read_text(encoding="utf-8")


@functools.cache
def definitions() -> dict[str, tuple[str, str]]:
    """File and text by function: the directives of the file, and the function in its place."""
    found = {}
    for file in FILES:
        whole = text(file)
        head = "".join(line if line.startswith("#") else "\n" for line in whole.splitlines(keepends=True))
        for match in DEFINITION.finditer(whole):
            line = whole.count("\n", 0, match.start())
            lines = [*head.split("\n")[:line], match[0]]
            found[match[1]] = file, "\n".join(lines)
    return found


@functools.cache
def inner_function(name: str) -> Function | None:
    """A function of the library; names that begin with an underscore are for its own use."""
    if name not in definitions():
        return None
    file, lines = definitions()[name]
    source = Source(lines, file)
    return collect(ExpressionEmitter(source), parse(source, {}))[name]


def library_function(name: str) -> Function | None:
    """The function of the library that a kernel means by a name."""
    if name in MEANING:
        return inner_function(MEANING[name])
    return None if name.startswith("_") else inner_function(name)


def geometric_function(name: str, size: int) -> Function | None:
    """The function of the library for vectors of a size, 1 for scalars."""
    return inner_function(f"_{name}{size}")


def library_names() -> list[str]:
    """What a kernel can call the library's functions."""
    return [*(name for name in definitions() if not name.startswith("_")), *MEANING, *GEOMETRIC]
