"""The functions of a source: what their heads say, before anything is emitted."""

from __future__ import annotations

from dataclasses import dataclass

from lark import Token, Tree

from ...dialects import ppu
from .emitter import children
from .expressions import ExpressionEmitter
from .types import BOOL, VOID, CType, PointerTo, Scalar


@dataclass(eq=False)
class Parameter:
    """A parameter of a function."""

    name: Token
    type: CType
    const: bool
    node: Tree


@dataclass(eq=False)
class Function:
    """A function of the source; without a body it is only announced."""

    name: Token
    result: CType
    parameters: list[Parameter]
    body: Tree | None
    is_kernel: bool
    declared: tuple[int, int]
    group: Tree | None = None
    """The three sizes of reqd_work_group_size."""


def reachable(functions: dict[str, Function], start: Function) -> set[str]:
    """All names in a function and in those that it calls."""
    found: set[str] = set()
    waiting = [start]
    seen = {start}
    while waiting:
        body = waiting.pop().body
        if body is None:
            continue
        names = {str(t) for t in body.scan_values(lambda t: isinstance(t, Token) and t.type == "IDENT")}
        called = {functions[n] for n in names & functions.keys()} - seen
        found |= names
        seen |= called
        waiting += called
    return found


def collect(reader: ExpressionEmitter, tree: Tree) -> dict[str, Function]:
    """All functions by name. Raises SourceError for one that is defined twice, or differs from its announcement."""
    functions: dict[str, Function] = {}
    for node in children(tree):
        if node.data != "function":
            continue
        function = read_function(reader, node)
        known = functions.get(function.name)
        if known is not None:
            if known.body is not None and function.body is not None:
                reader.fail(function.name, f"'{function.name}' is defined twice")
            if [p.type for p in known.parameters] != [p.type for p in function.parameters]:
                reader.fail(function.name, f"'{function.name}' was announced with other parameters")
            function.declared = known.declared
            function.body = function.body or known.body
        functions[str(function.name)] = function
    return functions


def read_function(reader: ExpressionEmitter, node: Tree) -> Function:
    """What a function's head says."""
    specs, pointer, name, parameters, *body = children(node)
    bare: list = [t for t in children(specs) if isinstance(t, Token)]
    result, qualifiers = reader.declared_type(Tree(specs.data, bare, specs.meta), pointer)
    if isinstance(result, PointerTo):
        reader.fail(specs, "a function that gives a pointer is not in the subset of OpenCL C")
    kernel = "kernel" in qualifiers
    if kernel and result is not VOID:
        reader.fail(specs, f"the kernel '{name}' gives void, not '{result}'")
    group = required_group(reader, specs, kernel)
    read = []
    for parameter in parameters.children:
        head, stars, label = children(parameter)
        type_, words = reader.declared_type(head, stars)
        if type_ is VOID and label is None and len(parameters.children) == 1:
            continue
        if label is None:
            reader.fail(parameter, f"a parameter of '{name}' has no name")
        if type_ is VOID or (kernel and not fits_kernel(type_)):
            reader.fail(parameter, f"'{label}' cannot be of type '{type_}'" + kernel_hint(kernel))
        read.append(Parameter(label, type_, bool(words & {"const", "const!"}), parameter))
    names = [str(p.name) for p in read]
    for index, parameter in enumerate(read):
        if parameter.name in names[:index]:
            reader.fail(parameter.name, f"'{name}' has two parameters '{parameter.name}'")
    return Function(name, result, read, body[0] if body else None, kernel, (name.line or 1, name.column or 1), group)


def required_group(reader: ExpressionEmitter, specs: Tree, kernel: bool) -> Tree | None:
    """The arguments of reqd_work_group_size in a function's head. Raises SourceError for another attribute."""
    found = None
    for attribute in (a for t in children(specs) if isinstance(t, Tree) for a in children(t)):
        name, arguments = attribute.children
        if str(name).strip("_") != "reqd_work_group_size":
            reader.fail(name, f"the attribute '{name}' is not in the subset of OpenCL C; reqd_work_group_size is")
        if not kernel or found is not None:
            reader.fail(name, "'reqd_work_group_size' stands once, before the name of a kernel")
        if arguments is None or len(arguments.children) != 3:
            reader.fail(name, "'reqd_work_group_size' takes three sizes")
        found = arguments
    return found


def fits_kernel(type_: CType) -> bool:
    if isinstance(type_, PointerTo):
        return type_.space is not ppu.Space.PRIVATE
    return isinstance(type_, Scalar) and type_ is not BOOL


def kernel_hint(kernel: bool) -> str:
    return ": a kernel takes scalars but bool, and pointers to __global, __constant or __local" if kernel else ""
