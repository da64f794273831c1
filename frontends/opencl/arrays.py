"""Arrays of OpenCL C: memory of their own, tables, initial values and sizes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from lark import Token, Tree
from xdsl.ir import Block, SSAValue

from ...dialects import ppu
from ...dialects.ppu import PointerType
from ...dialects.types import DTYPE_OF, i64
from .emitter import Value, children
from .expressions import ExpressionEmitter
from .settled import settled
from .types import Arithmetic, element_of, size_of

MAX_ELEMENTS = 1024
"""Elements of an array with initial values; in private memory each is stored by an operation of its own."""


def array_hint(space: ppu.Space) -> str:
    return "assign its elements" if space is ppu.Space.LOCAL else "write the initial values in braces"


class ArrayEmitter(ExpressionEmitter):
    """Emits what arrays are made of."""

    def elements(self, name: Token, start: Tree, type_: Arithmetic, rows: tuple[int, ...]) -> list[Value]:
        """The initial values of an array, whose elements are arrays of the sizes `rows`; rows end with zeros."""
        zero = Value(type_, self.zero(type_))
        return [
            zero if n is None else self.convert(n, self.value(n), type_, "an initial value")
            for n in self.in_order(name, start, rows)
        ]

    def in_order(self, name: Token, start: Tree, rows: tuple[int, ...]) -> list[Tree | None]:
        """The expressions of initial values in their order in memory; None where a row in braces ends early."""
        nodes = [n for n in children(start) if isinstance(n, Tree)]
        if len(nodes) > MAX_ELEMENTS:
            self.fail(nodes[MAX_ELEMENTS], f"an array takes at most {MAX_ELEMENTS} initial values")
        inner = [n for n in nodes if n.data == "elements"]
        if not inner:
            return list(nodes)
        if not rows or len(inner) < len(nodes):
            self.fail(inner[0], "braces within braces hold the initial values of a row: of each one, or of none")
        size, found = math.prod(rows), list[Tree | None]()
        if (whole := size * len(inner)) > MAX_ELEMENTS:
            self.fail(name, f"an array of {whole} elements is too long for initial values: at most {MAX_ELEMENTS}")
        for node in inner:
            row = self.in_order(name, node, rows[1:])
            if len(row) > size:
                self.fail(node, f"a row has {size} elements, but {len(row)} initial values")
            found += row + [None] * (size - len(row))
        return found

    def rows(self, name: Token, arrays: list[Tree]) -> tuple[int, ...]:
        """Sizes of the arrays that an array is made of: of all its dimensions but the first."""
        return tuple(self.array_size(name, array, (), []) for array in arrays[1:])

    def table(
        self, name: Token, type_: Arithmetic, array: Tree, rows: tuple[int, ...], start: Tree
    ) -> SSAValue:
        """Constant memory for an array whose elements are known here; those without an initial value are zeros."""
        outer, self.block = self.block, Block()
        values = self.elements(name, start, type_, rows)
        known: dict[SSAValue, Any] = {}
        numbers = [settled(p, known) for v in values for p in v.parts]
        for op in reversed(list(self.block.ops)):
            op.detach()
            op.erase(safe_erase=False)
        self.block = outer
        if (wrong := next((k for k, n in enumerate(numbers) if n is None), None)) is not None:
            node = self.in_order(name, start, rows)[wrong // size_of(type_)]
            what = f"an initial value of the __constant array '{name}'"
            self.fail(node or start, f"{what} is no constant: it is not known here")
        count = self.array_size(name, array, rows, values) * size_of(type_)
        contents = np.zeros(count, DTYPE_OF[element_of(type_).element])
        contents[: len(numbers)] = numbers
        return self.emit(ppu.TableOp.of(contents, str(name))).results[0]

    def array_size(self, name: Token, array: Tree, rows: tuple[int, ...], values: list[Value]) -> int:
        """The elements that an array is to have; without a number, as many as it has initial values, in whole rows."""
        node, row = children(array)[0], math.prod(rows)
        if node is None and not values:
            self.fail(array, f"the array '{name}' has neither a size nor initial values")
        count = -(-len(values) // row) if node is None else self.constant(node, "the size of an array")
        if count < 1:
            self.fail(array, f"the array '{name}' has {count} elements; it takes at least one")
        count *= row
        if len(values) > count:
            self.fail(array, f"the array '{name}' has {count} elements, but {len(values)} initial values")
        if values and count > MAX_ELEMENTS:
            self.fail(name, f"an array of {count} elements is too long for initial values: at most {MAX_ELEMENTS}")
        return count

    def array(self, name: Token, type_: Arithmetic, space: ppu.Space, count: int, values: list[Value]) -> SSAValue:
        """Memory for an array; with some initial values, the others are zeros."""
        target = PointerType(ppu.Pointer(element_of(type_).element, space))
        made = self.emit(ppu.AllocOp.make(type=target, size=count * size_of(type_), label=str(name))).results[0]
        parts = [p for v in values for p in v.parts]
        if parts:
            zero = self.number(0, element_of(type_).element)
            parts += [zero] * (count * size_of(type_) - len(parts))
        for index, part in enumerate(parts):
            self.emit(ppu.StoreOp.make(part, made, self.number(index, i64)))
        return made

    def constant(self, node: Tree, what: str) -> int:
        """An integer that is known here: literals, and operators on them."""
        if node.data == "integer":
            owner = self.value(node).parts[0].owner
            assert isinstance(owner, ppu.ConstantOp)
            return int(owner.number())
        if node.data == "prefix" and node.children[0] in ("-", "+", "~"):
            value = self.constant(children(node)[1], what)
            return {"-": -value, "+": value, "~": ~value}[str(node.children[0])]
        operators = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__, "/": int.__floordiv__, "%": int.__mod__,
                     "&": int.__and__, "|": int.__or__, "^": int.__xor__, "<<": int.__lshift__,
                     ">>": int.__rshift__}  # fmt: skip
        if node.data == "binary" and node.children[1] in operators:
            left, operator, right = children(node)
            a, b = self.constant(left, what), self.constant(right, what)
            divides, shifts = operator in ("/", "%"), operator in ("<<", ">>")
            if (divides and (b <= 0 or a < 0)) or (shifts and not 0 <= b < 64) or abs(a) >= 2**63 or abs(b) >= 2**63:
                self.fail(node, f"'{operator}' in {what} has operands that it does not take, {a} and {b}")
            return int(operators[str(operator)](a, b))
        return self.fail(node, f"{what} is a constant: integer literals and macros, with operators between them")
