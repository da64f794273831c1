"""Statements of OpenCL C: control flow, declarations.

`break`, `continue` and `return` become flags that guard what follows, so that the control flow stays structured.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from lark import Token, Tree
from xdsl.ir import SSAValue

from ...dialects import ppu
from ...dialects.types import i64
from .arrays import ArrayEmitter, array_hint
from .diagnostics import Source
from .emitter import Value, Variable, children, place_of
from .functions import Function
from .types import BOOL, VOID, Arithmetic, CType, PointerTo, Scalar, promoted


@dataclass
class Loop:
    """Flags of a loop: whether this round goes on, and whether there is another. A switch has one round."""

    run: Variable
    go: Variable
    is_switch: bool = False


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


class StatementEmitter(ArrayEmitter):
    """Emits statements."""

    def __init__(self, source: Source):
        super().__init__(source)
        self.frames: list[Frame] = []

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
        self.scope_of(children(node))

    def scope_of(self, nodes: list[Tree]) -> None:
        """Statements in a scope of their own."""
        self.scopes.append({})
        self.sequence(nodes)
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
            pointer, name, *arrays, start = children(declarator)
            type_, words = self.declared_type(specs, pointer)
            self.at(declarator)
            if words & {"kernel", "inline", "static", "constant"} and not isinstance(type_, PointerTo):
                reason = "'__constant' variables stand outside functions, and 'static' ones are not in the subset"
                self.fail(specs, reason + " of OpenCL C")
            self.declare_variable(name, type_, words, arrays, start)

    def declare_constants(self, nodes: list[Tree], wanted: set[str] | None) -> None:
        """The `__constant` variables of a source; `wanted`: the arrays that are used, all if it is None."""
        for node in nodes:
            specs, *declarators = children(node)
            for declarator in declarators:
                pointer, name, *arrays, start = children(declarator)
                type_, words = self.declared_type(specs, pointer)
                if "constant" not in words or isinstance(type_, PointerTo) or "kernel" in words:
                    self.fail(name, f"'{name}' stands outside functions, where only '__constant' numbers may")
                if start is None:
                    self.fail(name, f"the __constant variable '{name}' has no initial value")
                if wanted is None or name in wanted or not arrays:
                    self.at(declarator)
                    self.declare_variable(name, type_, words, arrays, start)
                    self.scopes[0][str(name)].begins = place_of(name)

    def declare_variable(
        self, name: Token, type_: CType, words: set[str], arrays: list[Tree], start: Tree | None
    ) -> None:
        if type_ is VOID:
            self.fail(name, f"'{name}' cannot be of type 'void'")
        if arrays or ("local" in words and not isinstance(type_, PointerTo)):
            self.declare_array(name, type_, words, arrays, start)
        elif start is not None and start.data == "elements":
            self.fail(start, f"'{name}' is no array: initial values in braces are for arrays")
        elif isinstance(type_, PointerTo):
            self.declare_pointer(name, type_, words, start)
        else:
            parts = self.zero(type_)
            if start is not None:
                parts = self.convert(start, self.value(start), type_).parts  # type: ignore[arg-type]
            self.declare(name, type_, parts, bool(words & {"const", "constant"}), None)

    def declare_pointer(self, name: Token, type_: PointerTo, words: set[str], start: Tree | None) -> None:
        if start is None:
            self.fail(name, f"the pointer '{name}' has to be initialised: it leads into one array")
        value = self.value(start)
        elsewhere = isinstance(value.type, PointerTo) and value.type.space is not type_.space
        if type_.space is ppu.Space.PRIVATE and elsewhere:
            self.fail(start, f"'{name}' is of type '{type_}' and cannot be a '{value.type}': name the memory")
        value = self.converted(start, value, type_, f"'{name}'")
        self.declare(name, type_, value.parts, "const!" in words, value.array)

    def declare_array(
        self, name: Token, type_: CType, words: set[str], arrays: list[Tree], start: Tree | None
    ) -> None:
        """An array of a work item, `__local` of a work group, or `__constant` of all: a table."""
        space = ppu.Space.CONSTANT if "constant" in words else ppu.Space.PRIVATE
        space = ppu.Space.LOCAL if "local" in words else space
        if not arrays:
            self.fail(name, f"the __local variable '{name}' has to be an array: write '{name}[1]'")
        if not isinstance(type_, Arithmetic) or type_ is BOOL:
            self.fail(name, f"an array of '{type_}' is not in the subset of OpenCL C")
        if space is ppu.Space.LOCAL and (len(self.frames) > 1 or not self.frames[0].function.is_kernel):
            self.fail(name, f"the __local array '{name}' has to be declared in a kernel")
        assert isinstance(type_, Arithmetic)
        if start is not None and (space is ppu.Space.LOCAL or start.data != "elements"):
            self.fail(start, f"the array '{name}' cannot be initialised so: {array_hint(space)}")
        rows = self.rows(name, arrays)
        if space is ppu.Space.CONSTANT:
            assert start is not None
            made = self.table(name, type_, arrays[0], rows, start)
        else:
            values = [] if start is None else self.elements(name, start, type_, rows)
            made = self.array(name, type_, space, self.array_size(name, arrays[0], rows, values), values)
        pointer = PointerTo(type_, space, "const" in words, rows)
        self.declare(name, pointer, (self.number(0, i64),), False, made, True)

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
        loops = self.frames[-1].loops
        if not loops:
            self.fail(node, "'break' stands in no loop and in no 'switch'")
        self.set_flag(loops[-1].run, self.false)
        self.set_flag(loops[-1].go, self.false)

    def run_continue(self, node: Tree) -> None:
        """The rest of the round does not run, nor what is left of a switch in it."""
        loops = self.frames[-1].loops
        if all(loop.is_switch for loop in loops):
            self.fail(node, "'continue' stands in no loop")
        for loop in reversed(loops):
            self.set_flag(loop.run, self.false)
            if not loop.is_switch:
                return

    def run_switch(self, node: Tree) -> None:
        """Groups of statements in turn: one is entered at its label, or by falling through from the one before."""
        subject, *groups = children(node)
        value = self.number_of(subject)
        if not isinstance(value.type, Scalar) or value.type.is_float:
            self.fail(subject, f"'switch' takes an integer, not a value of type '{value.type}'")
        assert isinstance(value.type, Scalar)
        type_ = promoted(value.type)
        value = self.convert(subject, value, type_)
        labels = [self.labels(group, type_) for group in groups]
        self.check_labels([(n, place) for group in labels for n, place in group])
        met = [[self.is_label(value, n) for n, _ in group if n is not None] for group in labels]
        loop = Loop(Variable("", BOOL), Variable("", BOOL), is_switch=True)
        self.state[loop.run] = self.state[loop.go] = (self.false,)
        self.frames[-1].loops.append(loop)
        for group, numbers, tests in zip(groups, labels, met):
            if any(n is None for n, _ in numbers):
                others = [t for k, more in enumerate(met) if labels[k] is not numbers for t in more]
                tests = [self.make(ppu.XorOp, self.any_of(others), self.true)]
            entered = self.any_of([*self.state[loop.run], *tests])
            self.set_flag(loop.run, entered)
            statements = [n for n in group.children if n.data != "label"]
            self.branch(entered, lambda: self.scope_of(statements), lambda: None)  # noqa: B023  runs at once
        self.frames[-1].loops.pop()
        del self.state[loop.run], self.state[loop.go]

    def labels(self, group: Tree, type_: Scalar) -> list[tuple[int | None, Tree]]:
        """The constants that lead to a group, as the switch's type has them; None for `default`."""
        found: list[tuple[int | None, Tree]] = []
        for label in (n for n in children(group) if n.data == "label"):
            if not label.children:
                found.append((None, label))
                continue
            number = self.constant(children(label)[0], "a label") & ((1 << type_.bits) - 1)
            found.append((number - (1 << type_.bits) if number >> (type_.bits - 1) else number, label))
        return found

    def check_labels(self, labels: list[tuple[int | None, Tree]]) -> None:
        for index, (number, place) in enumerate(labels):
            if number in [n for n, _ in labels[:index]]:
                what = "'default'" if number is None else f"'case {number}'"
                self.fail(place, f"{what} stands twice in one 'switch'")

    def is_label(self, value: Value, number: int) -> SSAValue:
        assert isinstance(value.type, Scalar)
        return self.make(ppu.CompareOp, value.parts[0], self.number(number, value.type.element), predicate="eq")

    def any_of(self, tests: list[SSAValue]) -> SSAValue:
        """Whether one of these holds."""
        found: SSAValue = self.false
        for test in tests:
            if found is self.false or test is self.true:
                found = test
            elif found is not self.true and test is not self.false:
                found = self.make(ppu.OrOp, found, test)
        return found

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
