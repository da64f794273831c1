"""Expressions of OpenCL C: checked and emitted in one go, each syntax node by the method that has its name."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from lark import Token, Tree
from xdsl.ir import SSAValue

from ...dialects import ppu
from . import integers  # noqa: F401  registers built-in functions
from .arithmetic import ArithmeticEmitter
from .builtins import LEFT_OUT, builtin_named
from .diagnostics import Source, near
from .emitter import Node, Value, Variable, children, place_of
from .types import (
    BOOL,
    FLOAT,
    INT,
    LONG,
    NAMES,
    UINT,
    ULONG,
    VOID,
    Arithmetic,
    CType,
    PointerTo,
    Scalar,
    Vector,
    element_of,
    usual,
)

ESCAPES = {"0": 0, "a": 7, "b": 8, "t": 9, "n": 10, "v": 11, "f": 12, "r": 13, "\\": 92, "'": 39, '"': 34, "?": 63}
"""Characters behind a backslash."""
LETTERS = {"x": 0, "y": 1, "z": 2, "w": 3}


class Place(NamedTuple):
    """Something that can be assigned: how to read it and how to write it."""

    type: CType
    get: Callable[[], Value]
    set: Callable[[Value], None]


class ExpressionEmitter(ArithmeticEmitter):
    """Emits expressions."""

    def __init__(self, source: Source):
        super().__init__(source)
        self.scopes: list[dict[str, Variable]] = [{}]
        self.types: dict[int, CType] = {}

    def value(self, node: Node) -> Value:
        """Emit an expression and give its value."""
        assert isinstance(node, Tree)
        self.at(node)
        method: Callable[[Tree], Value] = getattr(self, f"emit_{node.data}")
        return method(node)

    def number_of(self, node: Node) -> Value:
        """An expression that has to have an arithmetic value."""
        value = self.value(node)
        if not isinstance(value.type, Arithmetic):
            self.fail(node, f"a number is expected, not a value of type '{value.type}'")
        return value

    # -- names and literals
    def lookup(self, name: Token) -> Variable:
        for scope in reversed(self.scopes):
            if name in scope and scope[name].begins <= place_of(name):
                return scope[name]
        known = [str(n) for scope in self.scopes for n, v in scope.items() if v.begins <= place_of(name)]
        return self.fail(name, f"use of undeclared name '{name}'{near(name, known)}")

    def read(self, variable: Variable) -> Value:
        return Value(variable.type, self.state[variable], variable.array)

    def emit_name(self, node: Tree) -> Value:
        return self.read(self.lookup(node.children[0]))  # type: ignore[arg-type]

    def emit_integer(self, node: Tree) -> Value:
        """An integer literal of the first type that holds it (C99 6.4.4.1)."""
        text = str(node.children[0])
        parts = re.fullmatch(r"(0[xX][0-9a-fA-F]+|0[0-7]*|[1-9]\d*)([uUlL]{0,2})", text)
        if parts is None or parts[2].lower() not in ("", "u", "l", "ul", "lu"):
            self.fail(node, f"'{text}' is no integer literal")
        octal = parts[1].startswith("0") and parts[1].isdigit()
        number, suffix = int(parts[1], 8 if octal else 0), parts[2].lower()
        order = [INT, UINT, LONG, ULONG] if suffix or parts[1].startswith("0") else [INT, LONG, ULONG]
        wanted = [t for t in order if ("u" not in suffix or not t.signed) and ("l" not in suffix or t.bits == 64)]
        fitting = [t for t in wanted if number < 1 << (t.bits - t.signed)]
        if not fitting:
            self.fail(node, f"the literal '{text}' is too large for every integer type")
        return Value(fitting[0], (self.number(number, fitting[0].element),))

    def emit_floating(self, node: Tree) -> Value:
        text = str(node.children[0])
        if text.lower().startswith("0x"):
            return Value(FLOAT, (self.number(self.hexadecimal(node, text), FLOAT.element),))
        form = re.fullmatch(r"(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?([fF]?)", text)
        if form is None:
            self.fail(node, f"'{text}' is no float literal")
        if not form[1]:
            self.fail(node, f"'{text}' is a double, which is not in the subset of OpenCL C: write '{text}f'")
        return Value(FLOAT, (self.number(nearest_float(text[:-1]), FLOAT.element),))

    def hexadecimal(self, node: Tree, text: str) -> float:
        """The float32 nearest to `0x1.8p-2f`."""
        form = re.fullmatch(r"0[xX]([0-9a-fA-F]*)\.?([0-9a-fA-F]*)[pP][+-]?\d{1,4}([fF]?)", text)
        if form is None or len(form[1] + form[2]) > 13:  # a float64 holds that many, so that one rounding is left
            self.fail(node, f"'{text}' is no float literal of at most 13 digits")
        if not form[3]:
            self.fail(node, f"'{text}' is a double, which is not in the subset of OpenCL C: write '{text}f'")
        with np.errstate(over="ignore"):
            return float(np.float32(float.fromhex(text[:-1])))

    def emit_character(self, node: Tree) -> Value:
        """A character is an int (C99 6.4.4.4)."""
        text = str(node.children[0])[1:-1]
        code = ESCAPES.get(text[1]) if text.startswith("\\") else ord(text)
        if code is None or code > 127:
            self.fail(node, f"the character '{text}' is not in the subset of OpenCL C: write its number")
        return Value(INT, (self.number(code, INT.element),))

    # -- operators
    def emit_binary(self, node: Tree) -> Value:
        left, operator, right = node.children
        a, b = self.value(left), self.value(right)
        self.at(operator)
        return self.binary(operator, str(operator), a, b)

    def emit_prefix(self, node: Tree) -> Value:
        operator, operand = node.children
        if operator == "*":
            return self.place(node).get()
        if operator == "&":
            return self.address(node, operand)
        value = self.value(operand)
        owner = value.parts[0].owner
        if operator == "-" and isinstance(owner, ppu.ConstantOp) and value.type in (INT, LONG, FLOAT):
            assert isinstance(value.type, Scalar)
            return Value(value.type, (self.number(-owner.number(), value.type.element),))
        self.at(node)
        return self.prefix(node, str(operator), value)

    def address(self, node: Tree, operand: Tree) -> Value:
        """`&x[i]` is a pointer; variables have no address."""
        if operand.data != "index":
            self.fail(node, "the address of a variable is not in the subset of OpenCL C; that of an array's element is")
        pointer, offset = self.value(operand.children[0]), self.value(operand.children[1])
        return self.pointer_sum(node, "+", pointer, offset)

    def emit_logical(self, node: Tree) -> Value:
        """The right side counts, and runs, only where the left one has not decided."""
        left, operator, right = node.children
        first = self.truth(left, self.value(left))
        found = Variable("", BOOL)
        self.state[found] = (first,)

        def decide() -> None:
            self.state[found] = (self.truth(right, self.value(right)),)

        if operator == "&&":
            self.branch(first, decide, lambda: self.set_flag(found, self.false))
        else:
            self.branch(first, lambda: self.set_flag(found, self.true), decide)
        return Value(BOOL, self.state.pop(found))

    def set_flag(self, flag: Variable, value: SSAValue) -> None:
        self.state[flag] = (value,)

    def emit_ternary(self, node: Tree) -> Value:
        """Only the chosen side runs."""
        condition, left, right = node.children
        decision = self.value(condition)
        if isinstance(decision.type, Vector):
            return self.choose(node, decision, left, right)
        test = self.truth(condition, decision)
        type_ = self.ternary_type(node, self.type_of(left), self.type_of(right))
        found = Variable("", type_)
        self.state[found] = self.zero(type_)

        def way(side: Tree) -> Callable[[], None]:
            def emit() -> None:
                self.state[found] = self.convert(side, self.value(side), type_).parts

            return emit

        self.branch(test, way(left), way(right))
        return Value(type_, self.state.pop(found))

    def choose(self, node: Tree, test: Value, left: Tree, right: Tree) -> Value:
        """`?:` of a vector takes each element from one of two vectors, both of which are computed (6.3.i)."""
        a, b = self.number_of(left), self.number_of(right)
        assert isinstance(test.type, Vector)
        shape = self.ternary_type(node, a.type, b.type)
        if isinstance(shape, Scalar):
            shape = Vector(shape, test.type.size)
        if test.type.element.bits != shape.element.bits:
            self.fail(node, f"'?:' between elements of '{shape}' takes a condition of their width, not '{test.type}'")
        a, b = self.convert(left, a, shape), self.convert(right, b, shape)
        _, select = builtin_named("select") or (0, None)
        assert select is not None
        return select(self, node, [b, a, test])

    def type_of(self, node: Tree) -> CType:
        """The type of an expression, which is emitted to nowhere; once, or nested ones would take for ever."""
        if node.data == "floating":
            return FLOAT
        if node.data == "name":
            return self.lookup(node.children[0]).type  # type: ignore[arg-type]
        if id(node) not in self.types:
            found: list[CType] = []
            self.branch(self.false, lambda: found.append(self.value(node).type), lambda: None)
            self.types[id(node)] = found[0]
        return self.types[id(node)]

    def ternary_type(self, node: Node, a: CType, b: CType) -> Arithmetic:
        if isinstance(a, Scalar) and isinstance(b, Scalar):
            return BOOL if a is BOOL and b is BOOL else usual(a, b)
        if isinstance(a, Vector) and (a == b or isinstance(b, Scalar)):
            return a
        if isinstance(b, Vector) and isinstance(a, Scalar):
            return b
        return self.fail(node, f"'?:' between '{a}' and '{b}' is not in the subset of OpenCL C")

    def emit_comma(self, node: Tree) -> Value:
        self.value(node.children[0])
        return self.value(node.children[1])

    def emit_cast(self, node: Tree) -> Value:
        """`(T)x`, and `(T)(x, y, …)` that makes a vector."""
        specs, pointer, operand = node.children
        type_, _ = self.declared_type(specs, pointer)
        if isinstance(type_, Vector):
            return self.vector(node, type_, listed(operand))
        value = self.value(operand)
        if type_ is VOID:
            return Value(VOID, ())
        if not isinstance(type_, Arithmetic):
            self.fail(node, f"a cast to '{type_}' is not in the subset of OpenCL C")
        self.at(node)
        return self.convert(node, value, type_)

    def vector(self, node: Tree, type_: Vector, listed_: list[Tree]) -> Value:
        """A vector from one scalar, or from scalars and vectors that have its elements together."""
        values = [self.number_of(v) for v in listed_]
        if len(values) == 1:
            return self.convert(node, values[0], type_)
        parts: list[SSAValue] = []
        for value in values:
            source = element_of(value.type)  # type: ignore[arg-type]
            parts += [self.element(p, source, type_.element) for p in value.parts]
        if len(parts) != type_.size:
            self.fail(node, f"'{type_}' is made of {type_.size} elements, but {len(parts)} are given")
        return Value(type_, tuple(parts))

    # -- places
    def emit_index(self, node: Tree) -> Value:
        return self.place(node).get()

    def emit_member(self, node: Tree) -> Value:
        vector = self.number_of(node.children[0])
        type_, which = self.swizzle(node, vector.type)
        return Value(type_, tuple(vector.parts[k] for k in which))

    def swizzle(self, node: Tree, type_: CType) -> tuple[Arithmetic, list[int]]:
        """Which elements `.xyzw`, `.s01…`, `.lo`, `.hi`, `.even` and `.odd` name (OpenCL C 1.2, 6.1.7)."""
        name = str(node.children[1])
        if not isinstance(type_, Vector):
            self.fail(node, f"a value of type '{type_}' has no elements to name with '.{name}'")
        n = type_.size
        halves = {"lo": range(n // 2), "hi": range(n // 2, n), "even": range(0, n, 2), "odd": range(1, n, 2)}
        if name in halves:
            which = list(halves[name])
        elif re.fullmatch(r"[sS][0-9a-fA-F]+", name):
            which = [int(c, 16) for c in name[1:]]
        else:
            which = [LETTERS.get(c, n) for c in name]
        if max(which) >= n or len(which) not in (1, 2, 4, 8, 16):
            self.fail(node.children[1], f"'{type_}' has no elements '.{name}'")
        return (type_.element if len(which) == 1 else Vector(type_.element, len(which))), which

    def place(self, node: Tree) -> Place:
        """What an expression on the left of an assignment stands for."""
        if node.data == "name":
            return self.variable_place(node)
        if node.data == "index" or (node.data == "prefix" and node.children[0] == "*"):
            return self.memory_place(node)
        if node.data == "member":
            whole = self.place(node.children[0])
            type_, which = self.swizzle(node, whole.type)
            if len(set(which)) != len(which):
                self.fail(node, "an element that is named twice cannot be assigned")

            def assign(value: Value) -> None:
                parts = list(whole.get().parts)
                for k, part in zip(which, value.parts):
                    parts[k] = part
                whole.set(Value(whole.type, tuple(parts)))

            return Place(type_, lambda: Value(type_, tuple(whole.get().parts[k] for k in which)), assign)
        return self.fail(node, "this expression cannot be assigned")

    def variable_place(self, node: Tree) -> Place:
        variable = self.lookup(node.children[0])  # type: ignore[arg-type]

        def assign(value: Value) -> None:
            if variable.const or variable.is_array:
                kind = "an array" if variable.is_array else "constant"
                self.fail(node, f"'{variable.name}' is {kind} and cannot be assigned")
            if value.array is not variable.array:
                self.fail(node, f"the pointer '{variable.name}' leads into one array: it cannot be led into another")
            self.state[variable] = value.parts

        return Place(variable.type, lambda: self.read(variable), assign)

    def memory_place(self, node: Tree) -> Place:
        if node.data == "index":
            pointer, offset = self.value(node.children[0]), self.value(node.children[1])
            at = self.index(node.children[1], offset)
        else:
            pointer, at = self.value(node.children[1]), None
        if not isinstance(pointer.type, PointerTo):
            self.fail(node, f"a value of type '{pointer.type}' is no array")
        self.at(node)
        if pointer.type.rows:
            inner = self.row(pointer, at)
            return Place(inner.type, lambda: inner, lambda value: self.fail(node, "an array cannot be assigned"))

        def assign(value: Value) -> None:
            self.at(node)
            self.store(node, value, pointer, at)

        return Place(pointer.type.element, lambda: self.load(pointer, at), assign)

    def converted(self, node: Node, value: Value, type_: CType, what: str) -> Value:
        """A value as the type of what it is assigned to. Pointers have to be of that type; const may be added."""
        if isinstance(type_, PointerTo):
            plain = PointerTo(type_.element, type_.space, rows=type_.rows)
            if value.type not in (type_, plain):
                self.fail(node, f"{what} is of type '{type_}' and cannot be a '{value.type}'")
            return Value(type_, value.parts, value.array)
        if not isinstance(type_, Arithmetic):
            self.fail(node, f"{what} is of type '{type_}', which has no values")
        return self.convert(node, value, type_)

    def emit_assign(self, node: Tree) -> Value:
        target, *sign, source = children(node)
        operator = str(sign[0]) if sign else "="
        place = self.place(target)
        value = self.value(source)
        if operator != "=":
            self.at(node)
            value = self.binary(node, operator[:-1], place.get(), value)
        self.at(node)
        value = self.converted(source, value, place.type, "what is assigned")
        place.set(value)
        return value

    def emit_step_before(self, node: Tree) -> Value:
        operator, target = node.children
        return self.step(node, target, str(operator))[1]

    def emit_step_after(self, node: Tree) -> Value:
        target, operator = node.children
        return self.step(node, target, str(operator))[0]

    def step(self, node: Tree, target: Tree, operator: str) -> tuple[Value, Value]:
        """The values before and after ++ or --."""
        place = self.place(target)
        before = place.get()
        one = Value(INT, (self.number(1, INT.element),))
        after = self.converted(node, self.binary(node, operator[0], before, one), place.type, "what is assigned")
        place.set(after)
        return before, after

    # -- calls
    def emit_call(self, node: Tree) -> Value:
        name, arguments = children(node)
        values = [self.value(a) for a in arguments.children]
        self.at(node)
        user = self.call_function(node, name, values)
        if user is not None:
            return user
        found = builtin_named(str(name))
        if found is None:
            library = self.call_library(node, name, values)
            if library is not None:
                return library
            if LEFT_OUT.fullmatch(name) or re.match(r"convert_|v(load|store)_?\w", name):
                self.fail(name, f"the built-in function '{name}' is not in the subset of OpenCL C")
            self.fail(name, f"call of undeclared function '{name}'{near(name, self.callable_names())}")
        count, emit = found
        self.check_count(name, count, values)
        return emit(self, node, values)

    def check_count(self, name: Token, count: int, values: list[Value]) -> None:
        """Refuse a call with too many arguments or too few."""
        if len(values) != count:
            given = f"{len(values)} {'is' if len(values) == 1 else 'are'} given"
            self.fail(name, f"'{name}' takes {plural(count)}, but {given}")

    def call_function(self, node: Tree, name: Token, values: list[Value]) -> Value | None:
        """Emit the body of the source's function of that name; None where there is none."""
        raise NotImplementedError

    def call_library(self, node: Tree, name: Token, values: list[Value]) -> Value | None:
        """Emit the body of the function that the library has by that name; None where it has none."""
        raise NotImplementedError

    def callable_names(self) -> list[str]:
        """The functions that a call can mean, for messages."""
        raise NotImplementedError

    # -- types
    def declared_type(self, specs: Tree, pointer: Tree) -> tuple[CType, set[str]]:
        """The type that words and stars say, and the qualifiers."""
        for attributes in (t for t in children(specs) if isinstance(t, Tree)):
            self.fail(attributes, "an attribute stands before the name of a kernel only")
        words = [str(t) for t in children(specs) if t.type == "TYPE"]
        qualifiers = {str(t).strip("_") for t in children(specs) if t.type == "QUALIFIER"}
        base = base_type(words)
        if base is None:
            self.fail(specs, f"'{' '.join(words)}' is no type of the subset" if words else "a type is expected")
        spaces = [s for s in ppu.Space if s.value in qualifiers]
        if len(spaces) > 1:
            self.fail(specs, "a type names one memory")
        stars = sum(t == "*" for t in pointer.children)
        if not stars:
            return base, qualifiers
        if stars > 1 or not isinstance(base, Arithmetic) or base is BOOL:
            self.fail(pointer, f"a pointer leads to numbers or vectors, not to '{base}{' *' * (stars - 1)}'")
        assert isinstance(base, Arithmetic)
        space = spaces[0] if spaces else ppu.Space.PRIVATE
        after = {str(t).strip("_") for t in pointer.children if t != "*"}
        outer = {"const!"} if "const" in after else set()
        return PointerTo(base, space, "const" in qualifiers), (qualifiers - {"const"}) | outer


def base_type(words: list[str]) -> CType | None:
    """The type of words such as `unsigned int`."""
    sign = [w for w in words if w in ("unsigned", "signed")]
    rest = [w for w in words if w not in ("unsigned", "signed")] or ["int"]
    if not words or len(sign) > 1 or len(rest) > 1:
        return None
    if not sign:
        return NAMES.get(rest[0])
    if rest[0] not in ("char", "short", "int", "long"):
        return None
    return NAMES[f"{'u' if sign[0] == 'unsigned' else ''}{rest[0]}"]


def listed(node: Tree) -> list[Tree]:
    """The expressions of a comma-separated list in parentheses."""
    return [*listed(node.children[0]), node.children[1]] if node.data == "comma" else [node]


@functools.lru_cache(maxsize=4096)
def nearest_float(text: str) -> float:
    """The float32 nearest to a decimal, which by way of float64 would be rounded twice."""
    mantissa, _, exponent = text.lower().partition("e")
    if abs(int(exponent or 0)) > 400:
        return float(np.float32(float(text)))
    with np.errstate(over="ignore"):
        near = np.float32(float(text))
    if not np.isfinite(near):
        return float(near)
    exact = Fraction(mantissa if mantissa[-1] != "." else mantissa + "0") * Fraction(10) ** int(exponent or 0)
    both = [np.nextafter(near, np.float32(s * np.inf)) for s in (-1, 1)]
    candidates = [x for x in (near, *both) if np.isfinite(x)]
    return float(min(candidates, key=lambda x: (abs(Fraction(float(x)) - exact), int(x.view(np.uint32)) & 1)))


def plural(count: int) -> str:
    return "1 argument" if count == 1 else f"{count or 'no'} arguments"
