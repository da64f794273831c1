"""Comments, directives and macros (C99, 6.10): from a text to the tokens that the parser reads.

Tokens that a macro made stand at the place where it is used; what is passed to it keeps its own place.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, NoReturn

from lark import Lark, Token
from lark.exceptions import UnexpectedCharacters

from .conditions import condition_holds
from .diagnostics import Source, lines_of
from .predefined import PREDEFINED

MAX_TOKENS = 100_000
"""Tokens a source may have before its macros are replaced, and tokens that these may make of it."""
MAX_DEPTH = 15
"""Files that may be open in one another by `#include` (C99, 5.2.4.1);"""
MAX_INCLUDED = 1000
"""and files that a source may include, each as often as it does."""
NAME = r"[A-Za-z_]\w*"
EXTENSIONS = ("cl_khr_byte_addressable_store", "cles_khr_int64", "cl_nv_pragma_unroll")
"""Extensions that may be enabled: what they allow is in the subset anyway, or changes no result."""


class Macro(NamedTuple):
    """What a name stands for; without parameters (None) it is object-like."""

    parameters: tuple[str, ...] | None
    body: tuple[Token, ...]


class Marked(NamedTuple):
    """A token and the macros that it came out of, which do not replace it again (C99, 6.10.3.4)."""

    token: Token
    hidden: frozenset[str]


@dataclass
class Condition:
    """An `#if` that is open: whether the lines of its present branch count, and whether a later one may."""

    line: int
    taken: bool
    open: bool
    otherwise: bool = False


def tokens(source: Source, defines: Mapping[str, str], lexer: Lark) -> list[Token]:
    """The tokens of a source. Raises SourceError for a directive or macro that cannot be followed."""
    return Preprocessor(source, lexer).run(defines)


@functools.cache
def predefined(lexer: Lark) -> dict[str, Macro]:
    """The constants of OpenCL C."""
    return {name: Macro(None, tuple(lexer.lex(body))) for name, body in PREDEFINED.items()}


class Preprocessor:
    """One run over a source text."""

    def __init__(self, source: Source, lexer: Lark):
        self.source, self.lexer = source, lexer
        self.macros = dict(predefined(lexer))
        self.conditions: list[Condition] = []
        """Those of the file that is being read: one that is included is as live as its directive."""
        self.found: list[Token] = []
        self.once: set[str] = set()
        """Files that say `#pragma once`."""
        self.read = self.made = self.depth = self.included = 0

    def run(self, defines: Mapping[str, str]) -> list[Token]:
        """All tokens; `defines` are macros that stand before the first line."""
        for name, body in defines.items():
            self.macros[name] = Macro(None, tuple(self.lex(body)))
        self.file(self.source.text, 1)
        return self.found

    def file(self, text: str, first: int) -> None:
        """Find the tokens of a file and of those that it includes; its first line has the number `first`."""
        outer, self.conditions = self.conditions, []
        lines = lines_of(self.without_comments(text, first))
        waiting: list[str] = []
        at = 0
        while at < len(lines):
            line = lines[at]
            at += 1
            if not line.lstrip().startswith("#"):
                waiting.append(line if self.live() else "")
                continue
            number = first + at - 1
            while line.endswith("\\") and at < len(lines):
                line = line[:-1] + " " + lines[at]
                at += 1
            self.found += self.text(waiting, number)
            waiting = []
            before = len(self.source.lines)
            self.directive(number, line)
            first += len(self.source.lines) - before
        self.found += self.text(waiting, first + at)
        if self.conditions:
            self.source.fail(self.conditions[-1].line, 1, "this condition has no #endif")
        self.conditions = outer

    def without_comments(self, text: str, first: int) -> str:
        """A file's text with blanks for comments, so that places stay."""

        def blank(match: re.Match[str]) -> str:
            if match[0].startswith("/*") and not (match[0].endswith("*/") and len(match[0]) > 3):
                line = first + text.count("\n", 0, match.start())
                self.source.fail(line, match.start() - text.rfind("\n", 0, match.start()), "this comment does not end")
            return re.sub(r"[^\n]", " ", match[0])

        return re.sub(r"//[^\n]*|/\*.*?(?:\*/|\Z)", blank, text, flags=re.S)

    def live(self) -> bool:
        return all(c.taken for c in self.conditions)

    def text(self, lines: Sequence[str], following: int) -> Iterable[Token]:
        """The tokens of the lines before a line, with macros replaced."""
        if not any(line and not line.isspace() for line in lines):
            return []
        first = following - len(lines)
        found = self.lex("\n".join(lines), first)
        if (more := self.read + len(found) - MAX_TOKENS) > 0:
            self.beyond(found[-more], f"this source has more than {MAX_TOKENS} tokens")
        self.read += len(found)
        return self.expand(found)

    def lex(self, text: str, first_line: int = 1) -> list[Token]:
        """The tokens of a text. Raises SourceError at a character no token begins with."""
        try:
            return list(self.lexer.lex("\n" * (first_line - 1) + text))
        except UnexpectedCharacters as error:
            reason = f"the character {error.char!r} is none of OpenCL C"
            if error.char in "\"'":
                reason = "strings and characters in quotes are not in the subset of OpenCL C"
            self.source.fail(error.line, error.column, reason)

    # -- directives
    def directive(self, number: int, line: str) -> None:
        """Follow one directive."""
        column = len(line) - len(line.lstrip()) + 1
        found = re.match(rf"\s*#\s*({NAME})?(.*)$", line, re.S)
        assert found is not None
        word, rest = found[1] or "", found[2].strip()
        if word in ("if", "ifdef", "ifndef", "elif", "else", "endif"):
            self.conditional(number, column, word, rest)
        elif not self.live():
            return
        elif word == "include":
            self.include(number, column, rest)
        elif word == "define":
            self.define(number, column, line)
        elif word == "undef":
            self.macros.pop(self.macro_name(number, column, word, rest), None)
        elif word == "error":
            self.source.fail(number, column, f"#error {rest}")
        elif word == "pragma":
            self.pragma(number, column, rest)
        elif word or rest:  # `#` alone says nothing (C99, 6.10.7)
            shown = " ".join(f"{word} {rest}".split())
            self.source.fail(number, column, f"the directive '#{shown}' is not in the subset of OpenCL C")

    def pragma(self, number: int, column: int, rest: str) -> None:
        """Follow a pragma that is known; others say nothing (C99, 6.10.6)."""
        words = rest.split()
        if words[:2] == ["OPENCL", "FP_CONTRACT"]:
            if words[2:] != ["OFF"]:
                reason = "'#pragma OPENCL FP_CONTRACT' is 'OFF' here: nothing contracts a product and a sum"
                self.source.fail(number, column, reason)
        elif words[:2] == ["OPENCL", "EXTENSION"]:
            self.extension(number, column, " ".join(words[2:]))
        elif words == ["once"]:
            self.once.add(os.path.normpath(self.source.place(number).file))

    def extension(self, number: int, column: int, rest: str) -> None:
        """Refuse an extension that is enabled and not there; what is disabled was not used (OpenCL C 1.2, 9.1)."""
        found = re.fullmatch(rf"({NAME}) ?: ?(enable|disable)", rest)
        if found is None:
            reason = "'#pragma OPENCL EXTENSION' takes the name of an extension, ':' and 'enable' or 'disable'"
            self.source.fail(number, column, reason)
        name, behaviour = found.groups()
        if behaviour == "enable" and name not in EXTENSIONS:
            self.source.fail(number, column, f"the extension '{name}' is not in the subset of OpenCL C")

    def include(self, number: int, column: int, rest: str) -> None:
        """Go through a file that lies beside this one, as often as it is included."""

        def fail(reason: str) -> NoReturn:
            self.source.fail(number, column, reason)

        quoted = re.fullmatch(r'"([^"]+)"', rest)
        if quoted is None:
            shown = f"#include {rest}".strip()
            fail(f"'{shown}' names no file in quotes: what can be included lies beside the source")
        if self.source.read is None:
            fail(f"'{quoted[1]}' cannot be included: compile_opencl was given no function `read` that reads files")
        path = os.path.normpath(os.path.join(os.path.dirname(self.source.place(number).file), quoted[1]))
        if path in self.once:
            return
        self.included += 1
        if self.depth == MAX_DEPTH:
            fail(f"'{path}' is included {MAX_DEPTH + 1} files deep: is it one that includes itself?")
        if self.included > MAX_INCLUDED:
            fail(f"this source includes more than {MAX_INCLUDED} files")
        try:
            text = self.source.read(path)
        except OSError as error:
            fail(f"'{path}' cannot be included: {error.strerror or 'there is no such file'}")
        except ValueError:  # no UTF-8, or a name with a zero
            fail(f"'{path}' cannot be included: it is no text")
        self.source.insert(number + 1, text, path)
        self.depth += 1
        self.file(text, number + 1)
        self.depth -= 1

    def macro_name(self, number: int, column: int, word: str, rest: str) -> str:
        if not re.fullmatch(NAME, rest):
            self.source.fail(number, column, f"#{word} takes the name of a macro")
        return rest

    def conditional(self, number: int, column: int, word: str, rest: str) -> None:
        """`#if` and its kin. Conditions that cannot matter are not looked at."""
        if word in ("if", "ifdef", "ifndef"):
            if not self.live():
                self.conditions.append(Condition(number, False, False))
                return
            if word == "if":
                holds = self.holds(number, column, rest)
            else:
                holds = (self.macro_name(number, column, word, rest) in self.macros) == (word == "ifdef")
            self.conditions.append(Condition(number, holds, not holds))
            return
        if not self.conditions:
            self.source.fail(number, column, f"#{word} without #if")
        last = self.conditions[-1]
        if word == "endif":
            self.conditions.pop()
            return
        if last.otherwise:
            line = self.source.place(last.line).line
            self.source.fail(number, column, f"#{word} behind the #else of the condition in line {line}")
        last.taken = last.open and (word == "else" or self.holds(number, column, rest))
        last.open = last.open and not last.taken
        last.otherwise = word == "else"

    def holds(self, number: int, column: int, text: str) -> bool:
        """The value of the expression behind `#if`: `defined` first, then macros, then names, which are 0."""

        def known(match: re.Match[str]) -> str:
            return "1" if (match[1] or match[2]) in self.macros else "0"

        settled = re.sub(rf"\bdefined\s*(?:\(\s*({NAME})\s*\)|\b({NAME}))", known, text)
        found = [str(t) for t in self.expand(self.lex(settled, number))]
        return condition_holds(found, lambda reason: self.source.fail(number, column, reason))

    def define(self, number: int, column: int, line: str) -> None:
        found = re.match(rf"\s*#\s*define\s+({NAME})(\(([^)]*)\))?(.*)$", line, re.S)
        if found is None or (found[2] is None and found[4].startswith("(")):
            self.source.fail(number, column, "#define takes a name, with parameters in parentheses or without")
        name, body = found[1], found[4]
        if "#" in body:
            self.source.fail(number, column, f"the macro '{name}' uses # or ##, which is not in the subset of OpenCL C")
        parameters = None
        if found[2] is not None:
            parameters = tuple(p.strip() for p in found[3].split(",")) if found[3].strip() else ()
            if "..." in found[3]:
                reason = f"the macro '{name}' takes any number of arguments, which is not in the subset of OpenCL C"
                self.source.fail(number, column, reason)
            if len(set(parameters)) != len(parameters) or not all(re.fullmatch(NAME, p) for p in parameters):
                self.source.fail(number, column, f"the parameters of the macro '{name}' are different names")
        self.macros[name] = Macro(parameters, tuple(self.lex(body, number)))

    # -- macros
    def expand(self, given: Iterable[Token]) -> list[Token]:
        """Tokens with macros replaced."""
        return [m.token for m in self.replaced([Marked(t, frozenset()) for t in given])]

    def replaced(self, given: Sequence[Marked]) -> list[Marked]:
        """Prosser's algorithm: a macro's text is looked through again together with what follows."""
        found: list[Marked] = []
        waiting = list(reversed(given))
        while waiting:
            token, hidden = marked = waiting.pop()
            macro = self.macros.get(token) if token.type == "IDENT" and token not in hidden else None
            if macro is None or (macro.parameters is not None and (not waiting or waiting[-1].token != "(")):
                found.append(marked)
                continue
            if macro.parameters is None:
                made = [Marked(t, hidden | {str(token)}) for t in placed(macro.body, token)]
            else:
                arguments, end = self.arguments(token, macro.parameters, waiting)
                made = self.substituted(token, macro, arguments, (hidden & end.hidden) | {str(token)})
            self.made += len(made)
            if self.made > MAX_TOKENS:
                self.beyond(token, f"macros make more than {MAX_TOKENS} tokens of this source")
            waiting.extend(reversed(made))
        return found

    def beyond(self, token: Token, reason: str) -> NoReturn:
        """Refuse the source at a token."""
        self.source.fail(token.line or 1, token.column or 1, reason)

    def arguments(
        self, name: Token, parameters: tuple[str, ...], waiting: list[Marked]
    ) -> tuple[list[list[Marked]], Marked]:
        """What stands between a macro's parentheses, split at commas, and the closing one."""
        waiting.pop()
        found: list[list[Marked]] = [[]]
        depth = 0
        while waiting:
            marked = waiting.pop()
            token = marked.token
            if token == ")" and depth == 0:
                if not parameters and found == [[]]:
                    found = []
                if len(found) != len(parameters):
                    takes = f"{len(parameters) or 'no'} argument{'s' * (len(parameters) != 1)}"
                    given = f"{len(found)} {'is' if len(found) == 1 else 'are'} given"
                    self.source.fail(name.line or 1, name.column or 1, f"the macro '{name}' takes {takes}, but {given}")
                return found, marked
            depth += (token == "(") - (token == ")")
            if token == "," and depth == 0:
                found.append([])
            else:
                found[-1].append(marked)
        return self.source.fail(name.line or 1, name.column or 1, f"the call of the macro '{name}' has no ')'")

    def substituted(
        self, name: Token, macro: Macro, arguments: list[list[Marked]], hidden: frozenset[str]
    ) -> list[Marked]:
        """A macro's text with its arguments, whose own macros are replaced before."""
        assert macro.parameters is not None
        used = {str(t) for t in macro.body}
        values = {p: self.replaced(a) for p, a in zip(macro.parameters, arguments) if p in used}
        found: list[Marked] = []
        for token in placed(macro.body, name):
            if token.type == "IDENT" and token in values:
                found += [Marked(t, h | hidden) for t, h in values[token]]
            else:
                found.append(Marked(token, hidden))
        return found


def placed(body: Iterable[Token], at: Token) -> Iterator[Token]:
    """A macro's tokens at the place of its use."""
    return (Token.new_borrow_pos(t.type, str(t), at) for t in body)
