"""OpenCL C kernels become ppu functions: `compile_opencl`.

Helper functions are inlined where they are called, those of the library too.
"""

from __future__ import annotations

from collections.abc import Mapping

from lark import Token, Tree
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Region
from xdsl.transforms.dead_code_elimination import dce

from ...dialects import ppu
from ...dialects.ppu import PointerType
from ...dialects.types import i1, i64
from .builtins import BUILTINS, floats
from .diagnostics import Read, Source
from .emitter import Value, Variable, children
from .expressions import ExpressionEmitter
from .functions import Function, Parameter, collect, reachable
from .parser import parse
from .prelude import GEOMETRIC, geometric_function, inner_function, library_function, library_names
from .statements import Frame, StatementEmitter
from .types import BOOL, VOID, Arithmetic, PointerTo, Scalar, Vector, element_of, size_of

MAX_OPERATIONS = 65_535
"""Operations that inlining may make of a kernel; the engine's machine code holds no more values."""


def compile_opencl(
    text: str,
    name: str = "<kernel>",
    defines: Mapping[str, str] | None = None,
    entry: str | None = None,
    read: Read | None = None,
) -> ModuleOp:
    """A module with one `ppu.func` a kernel of an OpenCL C source; `name` stands in messages and locations.

    defines: macros that stand before the first line, as a compiler's `-D` gives them; entry: the one kernel that is
    wanted, others are not looked at; read: gives the text of a file that the source includes, by its name beside `name`
    (`dir/b.cl` for "b.cl" in dir/a.cl), and raises OSError where there is none; without it nothing can be included.
    Raises SourceError at the first mistake, with the place, the line and a caret.
    """
    source = Source(text, name, read)
    try:
        return compiled(source, defines or {}, entry)
    except RecursionError:
        source.fail(1, 1, "expressions or blocks are nested too deeply")


def compiled(source: Source, defines: Mapping[str, str], entry: str | None) -> ModuleOp:
    """The module of a source."""
    tree = parse(source, defines)
    functions = collect(ExpressionEmitter(source), tree)
    constants = [node for node in children(tree) if node.data == "declaration"]
    if entry is not None and (entry not in functions or not functions[entry].is_kernel):
        kernels = ", ".join(f"'{f}'" for f in functions if functions[f].is_kernel) or "none"
        source.fail(1, 1, f"there is no kernel '{entry}' in this source; it has {kernels}")
    FunctionEmitter(source, functions).declare_constants(constants, None)
    made = []
    for function in functions.values() if entry is None else [functions[entry]]:
        emitter = FunctionEmitter(source, functions)
        emitter.declare_constants(constants, reachable(functions, function))
        if function.is_kernel:
            made.append(emitter.kernel(function))
        elif function.body is not None:
            emitter.check(function)
    module = ModuleOp(made)
    module.verify()
    dce(module)
    return module


class FunctionEmitter(StatementEmitter):
    """Emits functions."""

    def __init__(self, source: Source, functions: dict[str, Function]):
        super().__init__(source)
        self.functions = functions

    # -- functions
    def kernel(self, function: Function) -> ppu.FuncOp:
        """The ppu function of a kernel."""
        group, names = self.group(function), [str(p.name) for p in function.parameters]
        self.call_body(function, self.parameter_values(function))
        self.emit(ppu.ReturnOp.make())
        op = ppu.FuncOp.of(str(function.name), names, Region(self.block), group)
        op.location = self.location
        return op

    def group(self, function: Function) -> tuple[int, ...] | None:
        """The work group that a kernel asks for."""
        if function.group is None:
            return None
        sizes = tuple(self.constant(n, "the size of a work group") for n in children(function.group))
        if min(sizes) < 1 or max(sizes) >= 1 << 31:
            self.fail(function.group, f"a work group of {list(sizes)} work items")
        return sizes

    def check(self, function: Function) -> None:
        """Emit a helper function to nowhere, so that mistakes in one that nobody calls are found."""
        self.call_body(function, self.parameter_values(function))

    def parameter_values(self, function: Function) -> list[Value]:
        """The block's arguments, one a parameter."""
        values = []
        for parameter in function.parameters:
            type_, index = parameter.type, len(self.block.args)
            if isinstance(type_, PointerTo):
                element = element_of(type_.element).element
                array = self.block.insert_arg(PointerType(ppu.Pointer(element, type_.space)), index)
                array.name_hint = str(parameter.name)
                values.append(Value(type_, (self.number(0, i64),), array))
                continue
            assert isinstance(type_, Arithmetic)
            element = i1 if type_ is BOOL else element_of(type_).element
            parts = [self.block.insert_arg(element, index + k) for k in range(size_of(type_))]
            if isinstance(type_, Scalar):
                parts[0].name_hint = str(parameter.name)
            values.append(Value(type_, tuple(parts)))
        return values

    def call_function(self, node: Tree, name: Token, values: list[Value]) -> Value | None:
        if self.pinned is not None:
            function = inner_function(str(name))
            return None if function is None else self.call_body(function, self.passed(node, function, values))
        function = self.functions.get(str(name))
        if function is None or (name.line or 0, name.column or 0) < function.declared:
            return None
        chain = [f.function for f in self.frames]
        if function in chain:
            path = " -> ".join(str(f.name) for f in [*chain[chain.index(function) :], function])
            self.fail(name, f"recursion is not in the subset of OpenCL C: {path}")
        if function.body is None:
            self.fail(name, f"the function '{name}' is announced but not defined")
        self.check_count(name, len(function.parameters), values)
        if self.emitted > MAX_OPERATIONS:
            self.fail(name, f"the functions called here make more than {MAX_OPERATIONS} operations of the kernel")
        location = self.location
        result = self.call_body(function, self.passed(node, function, values))
        self.location = location
        return result

    def passed(self, node: Tree, function: Function, values: list[Value]) -> list[Value]:
        """The arguments of a call as the types of the parameters."""
        nodes = children(node)[1].children
        return [
            self.converted(nodes[k], value, p.type, f"the parameter '{p.name}' of '{function.name}'")
            for k, (value, p) in enumerate(zip(values, function.parameters))
        ]

    def call_library(self, node: Tree, name: Token, values: list[Value]) -> Value | None:
        if name in GEOMETRIC:
            return self.call_geometric(node, name, values)
        function = library_function(str(name))
        if function is None:
            return None
        self.check_count(name, len(function.parameters), values)
        count = max((size_of(v.type) for v in values if isinstance(v.type, Vector)), default=1)
        shaped = [self.shaped(node, name, count, v, p) for v, p in zip(values, function.parameters)]
        self.pinned = node
        made = [
            self.call_body(function, [Value(p.type, v.parts[k : k + 1]) for v, p in zip(shaped, function.parameters)])
            for k in range(count)
        ]
        self.pinned = None
        result = function.result
        assert isinstance(result, Scalar)
        return Value(result if count == 1 else Vector(result, count), tuple(p for m in made for p in m.parts))

    def call_geometric(self, node: Tree, name: Token, values: list[Value]) -> Value:
        """A function of whole vectors, whose arguments are of one type."""
        self.check_count(name, GEOMETRIC[name], values)
        values, shape = floats(self, node, name, values)
        function = geometric_function(name, size_of(shape))
        if function is None:
            sizes = "float4" if name == "cross" else "float, float2 and float4"
            self.fail(node, f"'{name}' takes {sizes}, not '{shape}'")
        self.pinned = node
        made = self.call_body(function, values)
        self.pinned = None
        return made

    def callable_names(self) -> list[str]:
        return [*(self.functions if self.pinned is None else ()), *BUILTINS, *library_names()]

    def shaped(self, node: Tree, name: Token, count: int, value: Value, parameter: Parameter) -> Value:
        """An argument of a library function: as many elements as the vector among the arguments has."""
        wanted = parameter.type
        assert isinstance(wanted, Scalar)
        if isinstance(value.type, Vector) and element_of(value.type) != wanted:
            self.fail(node, f"'{name}' takes {'floats' if wanted.is_float else 'integers'}, not '{value.type}'")
        return self.convert(node, value, wanted if count == 1 else Vector(wanted, count))

    def call_body(self, function: Function, values: list[Value]) -> Value:
        """Emit a function's body on values of its parameters."""
        self.emitted += 30
        outer = self.scopes
        self.scopes = [{}] if self.pinned is not None else [outer[0], {}]
        result = None if function.result is VOID else Variable("", function.result)
        frame = Frame(function, Variable("", BOOL), result)
        self.frames.append(frame)
        self.state[frame.active] = (self.true,)
        if result is not None:
            self.state[result] = self.zero(result.type)
        for parameter, value in zip(function.parameters, values):
            self.declare(parameter.name, parameter.type, value.parts, parameter.const, value.array)
        assert function.body is not None
        self.statement(function.body)
        self.frames.pop()
        self.leave_scope()
        self.scopes = outer
        del self.state[frame.active]
        return Value(VOID, ()) if result is None else Value(result.type, self.state.pop(result))
