"""The integer expressions of `#if` and `#elif` (C99, 6.10.1): 64 bits, names that are no macros are 0."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple, NoReturn

Refuse = Callable[[str], NoReturn]
LEVELS = (("||",), ("&&",), ("|",), ("^",), ("&",), ("==", "!="), ("<", ">", "<=", ">="), ("<<", ">>"), ("+", "-"),
          ("*", "/", "%"))  # fmt: skip
"""Binary operators by precedence, the weakest first."""
MAX_DEPTH = 30
"""Parentheses and signs within each other."""


class Number(NamedTuple):
    """A value of intmax_t or uintmax_t."""

    value: int
    unsigned: bool = False

    @staticmethod
    def of(value: int, unsigned: bool) -> Number:
        low = value & (2**64 - 1)
        return Number(low if unsigned or low < 2**63 else low - 2**64, unsigned)


def condition_holds(tokens: Sequence[str], refuse: Refuse) -> bool:
    """Whether an expression is not zero. `refuse` raises about one that is no integer expression."""
    reader = Reader(tokens, refuse)
    value = reader.conditional(True, 0)
    if reader.at < len(tokens):
        refuse(f"unexpected '{tokens[reader.at]}' in the condition")
    return value.value != 0


class Reader:
    """Evaluates from left to right. What does not count (`live` is False) is read, but cannot fail."""

    def __init__(self, tokens: Sequence[str], refuse: Refuse):
        self.tokens, self.refuse, self.at = tokens, refuse, 0

    def take(self, *wanted: str) -> str | None:
        """The next token, if it is one of these."""
        if self.at < len(self.tokens) and self.tokens[self.at] in wanted:
            self.at += 1
            return self.tokens[self.at - 1]
        return None

    def expect(self, wanted: str) -> None:
        if self.take(wanted) is None:
            found = f"not '{self.tokens[self.at]}'" if self.at < len(self.tokens) else "but the line ends"
            self.refuse(f"'{wanted}' is expected in the condition, {found}")

    def conditional(self, live: bool, depth: int) -> Number:
        if depth > MAX_DEPTH:
            self.refuse("the condition is nested too deeply")
        test = self.binary(0, live, depth)
        if self.take("?") is None:
            return test
        a = self.conditional(live and test.value != 0, depth + 1)
        self.expect(":")
        b = self.conditional(live and test.value == 0, depth + 1)
        return Number.of((a if test.value else b).value, a.unsigned or b.unsigned)

    def binary(self, level: int, live: bool, depth: int) -> Number:
        """Operators of a level and stronger ones."""
        if level == len(LEVELS):
            return self.unary(live, depth)
        a = self.binary(level + 1, live, depth)
        while (operator := self.take(*LEVELS[level])) is not None:
            decided = (operator == "&&" and not a.value) or (operator == "||" and bool(a.value))
            b = self.binary(level + 1, live and not decided, depth)
            a = self.combined(operator, a, b, live)
        return a

    def combined(self, operator: str, a: Number, b: Number, live: bool) -> Number:
        if operator in ("&&", "||"):
            return Number(int((a.value and b.value) != 0 if operator == "&&" else (a.value or b.value) != 0))
        if operator in ("<<", ">>"):
            shifted = a.value << (b.value & 63) if operator == "<<" else a.value >> (b.value & 63)
            return Number.of(shifted, a.unsigned)
        unsigned = a.unsigned or b.unsigned
        x, y = Number.of(a.value, unsigned).value, Number.of(b.value, unsigned).value
        compared = {"==": x == y, "!=": x != y, "<": x < y, ">": x > y, "<=": x <= y, ">=": x >= y}
        if operator in compared:
            return Number(int(compared[operator]))
        if operator in ("/", "%"):
            if y == 0 and live:
                self.refuse("the condition divides by zero")
            quotient = abs(x) // abs(y or 1) * (-1 if (x < 0) != (y < 0) else 1)
            return Number.of(quotient if operator == "/" else x - quotient * y, unsigned)
        results = {"|": x | y, "^": x ^ y, "&": x & y, "+": x + y, "-": x - y, "*": x * y}
        return Number.of(results[operator], unsigned)

    def unary(self, live: bool, depth: int) -> Number:
        if depth > MAX_DEPTH:
            self.refuse("the condition is nested too deeply")
        if (sign := self.take("+", "-", "!", "~")) is not None:
            a = self.unary(live, depth + 1)
            value = {"+": a.value, "-": -a.value, "!": int(not a.value), "~": ~a.value}[sign]
            return Number(value) if sign == "!" else Number.of(value, a.unsigned)
        if self.take("(") is not None:
            found = self.conditional(live, depth + 1)
            self.expect(")")
            return found
        return self.primary()

    def primary(self) -> Number:
        if self.at == len(self.tokens):
            self.refuse("the condition ends where a number is expected")
        text = self.tokens[self.at]
        self.at += 1
        literal = re.fullmatch(r"(0[xX][0-9a-fA-F]+|0[0-7]*|[1-9]\d*)([uU]?[lL]{0,2}|[lL]{1,2}[uU])", text)
        if literal:
            octal = literal[1].startswith("0") and literal[1].isdigit()
            value = int(literal[1], 8 if octal else 0)
            return Number.of(value, "u" in literal[2].lower() or value >= 2**63)
        if re.fullmatch(r"(?:u?(?:char|short|int|long)|float|double|half)\d*|bool|void|size_t", text):
            self.refuse(f"'{text}' is a type: conditions compare integers, so give each type a number")
        if re.fullmatch(r"[A-Za-z_]\w*", text):
            return Number(0)
        return self.refuse(f"'{text}' is no integer, which a condition is made of")
