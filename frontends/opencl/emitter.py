"""Writes ppu operations: current block, current values of variables, and how decisions and loops join them.

A variable is a name for SSA values that changes; where work items may take two ways, the values that differ become
results of a ppu.if or are carried by a ppu.loop. Nothing here knows the syntax.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

from lark import Token, Tree
from xdsl.dialects.builtin import FileLineColLoc, IntAttr, StringAttr, UnknownLoc
from xdsl.ir import Attribute, Block, Operation, SSAValue

from ...dialects import ppu
from ...dialects.declarative import DeclarativeOp
from ...dialects.types import f32, i1
from .diagnostics import Source
from .types import BOOL, Arithmetic, CType, element_of

Node = Tree | Token
MAY_FAULT = (ppu.LoadOp, ppu.StoreOp, ppu.IfOp, ppu.LoopOp, ppu.BarrierOp, ppu.AllocOp)
DIVISIONS = (ppu.DivOp, ppu.DivUOp, ppu.RemOp, ppu.RemUOp)


class Value(NamedTuple):
    """A typed value: an SSA value an element. A pointer has its index as the one part, and the array it leads into."""

    type: CType
    parts: tuple[SSAValue, ...]
    array: SSAValue | None = None


@dataclass(eq=False)
class Variable:
    """A name that stands for a value."""

    name: str
    type: CType
    const: bool = False
    array: SSAValue | None = None
    is_array: bool = False
    begins: tuple[int, int] = (0, 0)
    """The place from which on the name is known, which matters for the variables outside functions."""


class Emitter:
    """Builds the body of one kernel."""

    def __init__(self, source: Source):
        self.source = source
        self.block = Block()
        self.emitted = 0
        """Operations so far, and something for each call: what bounds the inlining."""
        self.state: dict[Variable, tuple[SSAValue, ...]] = {}
        self.location = UnknownLoc()
        self.pinned: Node | None = None
        """The call of a library function that is being emitted: messages and locations are about that."""
        self.true = self.emit(ppu.ConstantOp.of(True, i1)).results[0]
        self.false = self.emit(ppu.ConstantOp.of(False, i1)).results[0]

    # -- places
    def fail(self, node: Node, reason: str) -> NoReturn:
        """Raise SourceError at a node."""
        line, column = place_of(self.pinned or node)
        self.source.fail(line, column, reason)

    def at(self, node: Node) -> None:
        """What is emitted from here on stems from this node."""
        if self.pinned is not None:
            return
        line, column = place_of(node)
        file, line = self.source.place(line)
        self.location = FileLineColLoc(StringAttr(file), IntAttr(line), IntAttr(column))  # type: ignore

    # -- operations
    def emit(self, op: Operation) -> Operation:
        op.location = self.location
        self.emitted += 1
        self.block.add_op(op)
        return op

    def make(self, cls: type[DeclarativeOp], *operands: SSAValue, **parameters: Any) -> SSAValue:
        """Emit an operation and give its result."""
        return self.emit(cls.make(*operands, **parameters)).results[0]

    def number(self, value: bool | int | float, element: Attribute) -> SSAValue:
        return self.emit(ppu.ConstantOp.of(value, element)).results[0]

    def zero(self, type_: CType) -> tuple[SSAValue, ...]:
        assert isinstance(type_, Arithmetic)
        element = element_of(type_)
        zero = self.false if element is BOOL else self.number(0, element.element)
        return (zero,) * (type_.size if hasattr(type_, "size") else 1)

    # -- decisions
    def branch(self, condition: SSAValue, then: Callable[[], None], otherwise: Callable[[], None]) -> None:
        """Emit both ways; variables get the values of the way that is taken."""
        if condition is self.true or condition is self.false:
            # Both ways are checked, but only one is emitted.
            outer, before, location = self.block, dict(self.state), self.location
            dead, live = (otherwise, then) if condition is self.true else (then, otherwise)
            self.block = Block()
            dead()
            for op in reversed(list(self.block.ops)):
                op.detach()
                op.erase(safe_erase=False)
            self.block, self.state, self.location = outer, dict(before), location
            live()
            self.state = {v: self.state[v] for v in before}
            return
        outer, before, location = self.block, self.state, self.location
        blocks: list[Block] = []
        states: list[dict[Variable, tuple[SSAValue, ...]]] = []
        for way in (then, otherwise):
            self.block, self.state = Block(), dict(before)
            way()
            blocks.append(self.block)
            states.append(self.state)
        self.block, self.state, self.location = outer, dict(before), location
        changed = [
            (variable, index, a, b)
            for variable in before
            for index, (a, b) in enumerate(zip(states[0][variable], states[1][variable]))
            if a is not b or a is not before[variable][index]
        ]
        joined = self.join(condition, blocks, [(a, b) for _, _, a, b in changed])
        for (variable, index, _, _), value in zip(changed, joined):
            parts = self.state[variable]
            self.state[variable] = (*parts[:index], value, *parts[index + 1 :])

    def join(self, condition: SSAValue, blocks: list[Block], pairs: list[tuple[SSAValue, SSAValue]]) -> list[SSAValue]:
        """Place two ways and give the values that differ, by ppu.select where nothing can go wrong, else by ppu.if."""
        if not any(map(has_effect, blocks)):
            for block in blocks:
                for op in list(block.ops):
                    op.detach()
                    self.block.add_op(op)
            return [self.chosen(condition, a, b) for a, b in pairs]
        kept = list(dict.fromkeys((a, b) for a, b in pairs if not self.constant_choice(a, b)))
        for block, values in zip(blocks, ([a for a, _ in kept], [b for _, b in kept])):
            block.add_op(ppu.YieldOp.of(*values))
        results = self.emit(ppu.IfOp.of(condition, *blocks)).results
        known = dict(zip(kept, results))
        return [known[a, b] if (a, b) in known else self.chosen(condition, a, b) for a, b in pairs]

    def constant_choice(self, a: SSAValue, b: SSAValue) -> bool:
        return {a, b} <= {self.true, self.false}

    def chosen(self, condition: SSAValue, a: SSAValue, b: SSAValue) -> SSAValue:
        if a is b:
            return a
        if self.constant_choice(a, b):
            return condition if a is self.true else self.make(ppu.XorOp, condition, self.true)
        return self.make(ppu.SelectOp, condition, a, b)

    # -- loops
    def loop(self, body: Callable[[], SSAValue]) -> None:
        """Emit a loop: `body` emits one round and gives the value that says whether to go on."""
        outer, before, location = self.block, self.state, self.location
        slots = [(v, k) for v, parts in before.items() for k in range(len(parts))]
        self.block = Block(arg_types=[before[v][k].type for v, k in slots])
        arguments = dict(zip(slots, self.block.args))
        self.state = {v: tuple(arguments[v, k] for k in range(len(parts))) for v, parts in before.items()}
        block = self.block
        again = body()
        latest = {(v, k): self.state[v][k] for v, k in slots}
        self.state = dict(before)
        carried = []
        for slot in slots:
            argument = arguments[slot]
            if latest[slot] is argument:  # not changed in here, so it need not go round
                argument.replace_all_uses_with(before[slot[0]][slot[1]])
                latest = {s: before[slot[0]][slot[1]] if x is argument else x for s, x in latest.items()}
                again = before[slot[0]][slot[1]] if again is argument else again
                block.erase_arg(argument)
            else:
                carried.append(slot)
        block.add_op(ppu.YieldOp.of(again, *(latest[s] for s in carried)))
        self.block, self.location = outer, location
        results = self.emit(ppu.LoopOp.of([before[v][k] for v, k in carried], block)).results
        for (variable, index), value in zip(carried, results):
            parts = self.state[variable]
            self.state[variable] = (*parts[:index], value, *parts[index + 1 :])


def children(node: Tree) -> list[Any]:
    """A node's tokens and trees, which of them stands where the grammar says."""
    return node.children


def has_effect(block: Block) -> bool:
    """Whether running a block for work items that do not go there could be noticed."""
    return any(
        isinstance(op, MAY_FAULT) or (isinstance(op, DIVISIONS) and op.result.type != f32) for op in block.walk()
    )


def place_of(node: Node) -> tuple[int, int]:
    """Line and column of a token or of a tree's first token."""
    if isinstance(node, Token):
        return node.line or 1, node.column or 1
    if node.meta.empty:
        return 1, 1
    return node.meta.line, node.meta.column


def is_arithmetic(type_: CType) -> bool:
    return isinstance(type_, Arithmetic)
