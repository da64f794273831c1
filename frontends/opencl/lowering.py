"""OpenCL C kernels become ppu functions: `compile_opencl`.

Helper functions are inlined where they are called. `break`, `continue` and `return` become flags that guard what
follows, so that the control flow stays structured.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from lark import Token, Tree
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Region, SSAValue
from xdsl.transforms.dead_code_elimination import dce

from ...dialects import ppu
from ...dialects.ppu import PointerType
from ...dialects.types import i1, i64
from .diagnostics import Source
from .emitter import Value, Variable, children
from .expressions import ExpressionEmitter, plural
from .parser import parse
from .types import BOOL, VOID, Arithmetic, CType, PointerTo, Scalar, element_of, size_of


def compile_opencl(text: str, name: str = "<kernel>") -> ModuleOp:
    """A module with one `ppu.func` a kernel of an OpenCL C source; `name` stands in messages and locations.

    Raises SourceError at the first mistake, with the place, the line and a caret.
    """
    source = Source(text, name)
    try:
        return compiled(source)
    except RecursionError:
        source.fail(1, 1, "expressions or blocks are nested too deeply")


def compiled(source: Source) -> ModuleOp:
    """The module of a source."""
    functions = collect(source, parse(source))
    made = []
    for function in functions.values():
        emitter = FunctionEmitter(source, functions)
        if function.is_kernel:
            made.append(emitter.kernel(function))
        elif function.body is not None:
            emitter.check(function)
    module = ModuleOp(made)
    module.verify()
    dce(module)
    return module


@dataclass
class Parameter:
    """A parameter of a function."""

    name: Token
    type: CType
    const: bool
    node: Tree


@dataclass
class Function:
    """A function of the source; without a body it is only announced."""

    name: Token
    result: CType
    parameters: list[Parameter]
    body: Tree | None
    is_kernel: bool
    declared: tuple[int, int]


def collect(source: Source, tree: Tree) -> dict[str, Function]:
    """All functions by name. Raises SourceError for one that is defined twice, or differs from its announcement."""
    functions: dict[str, Function] = {}
    reader = ExpressionEmitter(source)
    for node in tree.children:
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
    result, qualifiers = reader.declared_type(specs, pointer)
    if isinstance(result, PointerTo):
        reader.fail(specs, "a function that gives a pointer is not in the subset of OpenCL C")
    kernel = "kernel" in qualifiers
    if kernel and result is not VOID:
        reader.fail(specs, f"the kernel '{name}' gives void, not '{result}'")
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
    return Function(name, result, read, body[0] if body else None, kernel, (name.line or 1, name.column or 1))


def fits_kernel(type_: CType) -> bool:
    if isinstance(type_, PointerTo):
        return type_.space is not ppu.Space.PRIVATE
    return isinstance(type_, Scalar) and type_ is not BOOL


def kernel_hint(kernel: bool) -> str:
    return ": a kernel takes scalars but bool, and pointers to __global, __constant or __local" if kernel else ""


# --- functions and statements ----------------------------------------------------------------------------
@dataclass
class Loop:
    """Flags of a loop: whether this round goes on, and whether there is another."""

    run: Variable
    go: Variable


@dataclass
class Frame:
    """A function whose body is being emitted."""

    function: Function
    active: Variable
    result: Variable | None
    loops: list[Loop] = field(default_factory=list)

    def guard(self) -> Variable:
        """The flag that says whether the next statement runs."""
        return self.loops[-1].run if self.loops else self.active


class FunctionEmitter(ExpressionEmitter):
    """Emits statements and functions."""

    def __init__(self, source: Source, functions: dict[str, Function]):
        super().__init__(source)
        self.functions = functions
        self.frames: list[Frame] = []

    # -- functions
    def kernel(self, function: Function) -> ppu.FuncOp:
        """The ppu function of a kernel."""
        self.call_body(function, self.parameter_values(function))
        self.emit(ppu.ReturnOp.make())
        op = ppu.FuncOp.of(str(function.name), [str(p.name) for p in function.parameters], Region(self.block))
        op.location = self.location
        return op

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
        function = self.functions.get(str(name))
        if function is None or (name.line or 0, name.column or 0) < function.declared:
            return None
        chain = [str(f.function.name) for f in self.frames]
        if str(name) in chain:
            path = " -> ".join([*chain[chain.index(str(name)) :], str(name)])
            self.fail(name, f"recursion is not in the subset of OpenCL C: {path}")
        if function.body is None:
            self.fail(name, f"the function '{name}' is announced but not defined")
        if len(values) != len(function.parameters):
            given = f"{len(values)} {'is' if len(values) == 1 else 'are'} given"
            self.fail(name, f"'{name}' takes {plural(len(function.parameters))}, but {given}")
        arguments = [
            self.converted(node.children[1].children[k], value, p.type, f"the parameter '{p.name}' of '{name}'")
            for k, (value, p) in enumerate(zip(values, function.parameters))
        ]
        location = self.location
        result = self.call_body(function, arguments)
        self.location = location
        return result

    def call_body(self, function: Function, values: list[Value]) -> Value:
        """Emit a function's body on values of its parameters."""
        outer = self.scopes
        self.scopes = [{}]
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

    # -- scopes
    def declare(
        self,
        name: Token,
        type_: CType,
        parts: tuple[SSAValue, ...],
        const: bool,
        array: SSAValue | None,
        is_array: bool = False,
    ) -> None:
        if name in self.scopes[-1]:
            self.fail(name, f"'{name}' is declared twice in one block")
        variable = Variable(str(name), type_, const, array, is_array)
        self.scopes[-1][str(name)] = variable
        self.state[variable] = parts

    def leave_scope(self) -> None:
        for variable in self.scopes.pop().values():
            self.state.pop(variable, None)

    # -- statements
    def statement(self, node: Tree) -> None:
        method: Callable[[Tree], None] = getattr(self, f"run_{node.data}")
        self.at(node)
        method(node)

    def run_block(self, node: Tree) -> None:
        self.scopes.append({})
        self.sequence(node.children)  # type: ignore[arg-type]
        self.leave_scope()

    def sequence(self, nodes: list[Tree]) -> None:
        """Statements in turn; behind one that may leave, the rest is for the work items that have stayed."""
        guard = self.frames[-1].guard()
        for index, node in enumerate(nodes):
            before = self.state[guard]
            self.statement(node)
            if self.state[guard] != before and nodes[index + 1 :]:
                rest = nodes[index + 1 :]
                self.branch(self.state[guard][0], lambda: self.sequence(rest), lambda: None)  # noqa: B023  runs at once
                return

    def run_evaluation(self, node: Tree) -> None:
        if node.children[0] is not None:
            self.value(node.children[0])

    def run_declaration(self, node: Tree) -> None:
        specs, *declarators = node.children
        for declarator in declarators:
            pointer, name, array, start = children(declarator)
            type_, words = self.declared_type(specs, pointer)
            self.at(declarator)
            if words & {"kernel", "inline", "static", "constant"} and not isinstance(type_, PointerTo):
                self.fail(specs, "'__constant', 'static' and 'inline' variables are not in the subset of OpenCL C")
            if type_ is VOID:
                self.fail(name, f"'{name}' cannot be of type 'void'")
            if array is not None or ("local" in words and not isinstance(type_, PointerTo)):
                self.declare_array(name, type_, words, array, start)
            elif isinstance(type_, PointerTo):
                self.declare_pointer(name, type_, words, start)
            else:
                parts = self.zero(type_)
                if start is not None:
                    parts = self.convert(start, self.value(start), type_).parts  # type: ignore[arg-type]
                self.declare(name, type_, parts, "const" in words, None)

    def declare_pointer(self, name: Token, type_: PointerTo, words: set[str], start: Tree | None) -> None:
        if start is None:
            self.fail(name, f"the pointer '{name}' has to be initialised: it leads into one array")
        value = self.value(start)
        elsewhere = isinstance(value.type, PointerTo) and value.type.space is not type_.space
        if type_.space is ppu.Space.PRIVATE and elsewhere:
            self.fail(start, f"'{name}' is of type '{type_}' and cannot be a '{value.type}': name the memory")
        value = self.converted(start, value, type_, f"'{name}'")
        self.declare(name, type_, value.parts, "const!" in words, value.array)

    def declare_array(self, name: Token, type_: CType, words: set[str], array: Tree | None, start: Tree | None) -> None:
        """An array of a work item, or `__local` of a work group."""
        space = ppu.Space.LOCAL if "local" in words else ppu.Space.PRIVATE
        if start is not None:
            self.fail(start, f"the array '{name}' cannot be initialised in its declaration: assign its elements")
        if array is None:
            self.fail(name, f"the __local variable '{name}' has to be an array: write '{name}[1]'")
        if not isinstance(type_, Arithmetic) or type_ is BOOL:
            self.fail(name, f"an array of '{type_}' is not in the subset of OpenCL C")
        if space is ppu.Space.LOCAL and (len(self.frames) > 1 or not self.frames[0].function.is_kernel):
            self.fail(name, f"the __local array '{name}' has to be declared in a kernel")
        assert isinstance(type_, Arithmetic)
        count = self.constant(array.children[0])
        if count < 1:
            self.fail(array, f"the array '{name}' has {count} elements; it takes at least one")
        element = element_of(type_).element
        target = PointerType(ppu.Pointer(element, space))
        made = self.emit(ppu.AllocOp.make(type=target, size=count * size_of(type_), label=str(name))).results[0]
        pointer = PointerTo(type_, space, "const" in words)
        self.declare(name, pointer, (self.number(0, i64),), False, made, True)

    def constant(self, node: Tree) -> int:
        """An integer that is known here: literals and + - * / << of them."""
        if node.data == "integer":
            owner = self.value(node).parts[0].owner
            assert isinstance(owner, ppu.ConstantOp)
            return int(owner.number())
        if node.data == "binary" and node.children[1] in ("+", "-", "*", "/", "<<"):
            a, b = self.constant(node.children[0]), self.constant(node.children[2])
            operator = str(node.children[1])
            if (operator == "/" and b <= 0) or (operator == "<<" and not 0 <= b < 32):
                self.fail(node, "the size of an array is a positive constant")
            return {"+": int.__add__, "-": int.__sub__, "*": int.__mul__, "/": int.__floordiv__}.get(
                operator, int.__lshift__
            )(a, b)
        return self.fail(node, "the size of an array is a constant: literals and macros, with + - * / <<")

    def run_if(self, node: Tree) -> None:
        condition, then, otherwise = node.children
        test = self.truth(condition, self.value(condition))
        self.branch(test, lambda: self.scoped(then), lambda: self.scoped(otherwise))

    def scoped(self, node: Tree | None) -> None:
        """A statement that is a scope of its own."""
        if node is None:
            return
        self.scopes.append({})
        self.statement(node)
        self.leave_scope()

    def run_while(self, node: Tree) -> None:
        condition, body = node.children
        self.repeat(node, condition, body, None, test_first=True)

    def run_for(self, node: Tree) -> None:
        start, condition, step, body = node.children
        self.scopes.append({})
        self.statement(start)
        self.repeat(node, condition, body, step, test_first=True)
        self.leave_scope()

    def run_do(self, node: Tree) -> None:
        body, condition = node.children
        self.repeat(node, condition, body, None, test_first=False)

    def repeat(self, node: Tree, condition: Tree | None, body: Tree, step: Tree | None, test_first: bool) -> None:
        """A loop. A round is the body, behind the condition that is tested first, or before the one at the end."""
        frame = self.frames[-1]

        def test() -> SSAValue:
            return self.true if condition is None else self.truth(condition, self.value(condition))

        def go_round() -> SSAValue:
            loop = Loop(Variable("", BOOL), Variable("", BOOL))
            self.state[loop.run] = self.state[loop.go] = (self.true,)

            def once() -> None:
                frame.loops.append(loop)
                self.scoped(body)
                frame.loops.pop()
                if step is not None:
                    self.branch(self.state[loop.go][0], lambda: self.discard(step), lambda: None)

            if test_first:
                self.branch(test(), once, lambda: self.set_flag(loop.go, self.false))
            else:
                once()
                stop = lambda: self.set_flag(loop.go, self.false)  # noqa: E731
                self.branch(self.state[loop.go][0], lambda: self.set_flag(loop.go, test()), stop)
            del self.state[loop.run]
            return self.state.pop(loop.go)[0]

        self.at(node)
        self.loop(go_round)

    def discard(self, node: Tree) -> None:
        self.value(node)

    def run_break(self, node: Tree) -> None:
        loop = self.innermost(node, "break")
        self.set_flag(loop.run, self.false)
        self.set_flag(loop.go, self.false)

    def run_continue(self, node: Tree) -> None:
        self.set_flag(self.innermost(node, "continue").run, self.false)

    def innermost(self, node: Tree, word: str) -> Loop:
        if not self.frames[-1].loops:
            self.fail(node, f"'{word}' stands in no loop")
        return self.frames[-1].loops[-1]

    def run_return(self, node: Tree) -> None:
        frame, given = self.frames[-1], node.children[0]
        name = frame.function.name
        if frame.result is None and given is not None:
            self.fail(given, f"'{name}' gives void, so 'return' takes no value")
        if frame.result is not None:
            if given is None:
                self.fail(node, f"'{name}' gives '{frame.result.type}', so 'return' takes a value")
            value = self.convert(given, self.value(given), frame.result.type)  # type: ignore[arg-type]
            self.state[frame.result] = value.parts
        self.set_flag(frame.active, self.false)
        for loop in frame.loops:
            self.set_flag(loop.run, self.false)
            self.set_flag(loop.go, self.false)
