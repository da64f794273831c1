"""From OpenCL C text to a lark tree: comments and directives go, object-like macros are replaced, grammar.lark parses.

Tokens made by a macro stand at the place where the macro is used.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Mapping
from importlib import resources
from typing import Any, NoReturn

from lark import Lark, Token, Tree
from lark.exceptions import UnexpectedCharacters, UnexpectedToken
from lark.lexer import Lexer

from .diagnostics import Source

LIMITS = {"CHAR": 8, "SHRT": 16, "INT": 32, "LONG": 64}
PREDEFINED = {
    "CLK_LOCAL_MEM_FENCE": "1", "CLK_GLOBAL_MEM_FENCE": "2", "FLT_MAX": "3.4028234663852886e38f",
    "FLT_MIN": "1.1754943508222875e-38f", "FLT_EPSILON": "1.1920928955078125e-7f", "INFINITY": "1e999f",
    "NAN": "(0.0f / 0.0f)",
}  # fmt: skip
"""Constants of OpenCL C 1.2 (6.12.2, 6.12.3), with those of LIMITS."""
for word, bits in LIMITS.items():
    end = "L" if bits == 64 else ""
    PREDEFINED[f"{word}_MAX"] = f"{2 ** (bits - 1) - 1}{end}"
    PREDEFINED[f"{word}_MIN"] = f"(-{2 ** (bits - 1) - 1}{end} - 1)"
    PREDEFINED[f"U{word}_MAX"] = f"{2**bits - 1}{'U' if bits >= 32 else ''}{end}"


UNSUPPORTED = re.compile(
    r"goto|switch|case|default|struct|union|enum|typedef|sizeof|extern|register|auto|asm|(double|half)\d*"
    r"|event_t|sampler_t|image[123]d_t"
)
"""Words of OpenCL C that are no names and that the subset leaves out."""


def parse(source: Source) -> Tree:
    """The tree of a source text. Raises SourceError at the first syntax error or feature that is not in the subset."""
    text, macros = directives(source, without_comments(source))
    known = {name: list(tokens_of(source, body)) for name, body in PREDEFINED.items()} | macros
    tokens = list(expand(source, tokens_of(source, text), known))
    for token in tokens:
        if token.type == "IDENT" and UNSUPPORTED.fullmatch(token):
            source.fail(token.line or 1, token.column or 1, f"'{token}' is not in the subset of OpenCL C")
    try:
        return parser().parse(tokens)  # type: ignore[arg-type]
    except UnexpectedToken as error:
        unexpected(source, tokens, error)


def unexpected(source: Source, tokens: list[Token], error: UnexpectedToken) -> NoReturn:
    """Raise the SourceError for a token that fits nowhere. A missing `;` is reported behind what stands before it."""
    found, index = error.token, next((i for i, t in enumerate(tokens) if t is error.token), len(tokens))
    before = tokens[index - 1] if index else None
    expected = error.accepts or error.expected
    if found.type == "$END":
        source.fail(len(source.lines) or 1, len((source.lines or [""])[-1]) + 1, "the text ends before a '}' or ';'")
    if found.type == "LBRACE" and before == "=":
        source.fail(found.line or 1, found.column or 1, "initial values in braces are not in the subset of OpenCL C")
    if set(expected) == {"LPAR"} and before is not None and before.type == "IDENT":
        reason = f"'{before}' is a variable outside functions, which is not in the subset of OpenCL C"
        source.fail(before.line or 1, before.column or 1, reason)
    if found.type in ("EQUAL", "ASSIGN") and "INTEGER" not in expected and "_SEMICOLON" in expected:
        source.fail(found.line or 1, found.column or 1, f"what stands before '{found}' cannot be assigned")
    if before is not None and "_SEMICOLON" in expected and "INTEGER" not in expected:
        source.fail(before.end_line or 1, before.end_column or 1, f"expected ';' after '{before}'")
    readable = {"RPAR": "')'", "LPAR": "'('", "RBRACE": "'}'", "IDENT": "a name", "RSQB": "']'", "COLON": "':'"}
    words = [readable[e] for e in readable if e in expected]
    hint = f"; expected {' or '.join(words)}" if words and len(expected) < 6 else ""
    if "INTEGER" in expected:
        hint = "; expected an expression"
    source.fail(found.line or 1, found.column or 1, f"unexpected '{found}'{hint}")


# --- lexing ----------------------------------------------------------------------------------------------
class TokenList(Lexer):
    """Hands lark's parser the tokens that `parse` is given instead of a text."""

    def __init__(self, configuration: object):
        pass

    def lex(self, tokens: Any) -> Iterator[Token]:  # type: ignore[override]  # lark: a lexer of one's own
        return iter(tokens)


@functools.cache
def grammar() -> str:
    return resources.files(__package__ or "").joinpath("grammar.lark").read_text(encoding="utf-8")


@functools.cache
def parser() -> Lark:
    return Lark(grammar(), parser="lalr", lexer=TokenList, propagate_positions=True, maybe_placeholders=True)


@functools.cache
def lexer() -> Lark:
    return Lark(grammar(), parser="lalr", lexer="basic")


def tokens_of(source: Source, text: str, first_line: int = 1) -> Iterator[Token]:
    """The tokens of a text. Raises SourceError at a character no token begins with."""
    try:
        yield from lexer().lex(text)
    except UnexpectedCharacters as error:
        source.fail(error.line + first_line - 1, error.column, f"the character {error.char!r} is none of OpenCL C")


# --- comments, directives and macros ---------------------------------------------------------------------
def without_comments(source: Source) -> str:
    """The text with blanks for comments, so that places stay."""

    def blank(match: re.Match[str]) -> str:
        if match[0].startswith("/*") and not match[0].endswith("*/"):
            line = source.text.count("\n", 0, match.start()) + 1
            source.fail(line, match.start() - source.text.rfind("\n", 0, match.start()), "this comment does not end")
        return re.sub(r"[^\n]", " ", match[0])

    return re.sub(r"//[^\n]*|/\*.*?(?:\*/|\Z)", blank, source.text, flags=re.S)


def directives(source: Source, text: str) -> tuple[str, dict[str, list[Token]]]:
    """The text with blanks for directives, and the macros they define."""
    macros: dict[str, list[Token]] = {}
    lines = text.split("\n")
    for number, line in enumerate(lines, 1):
        if line.lstrip().startswith("#"):
            directive(source, number, line, macros)
            lines[number - 1] = ""
    return "\n".join(lines), macros


def directive(source: Source, number: int, line: str, macros: dict[str, list[Token]]) -> None:
    """One directive: an object-like `#define`, or the pragmas about contraction and the OpenCL version."""
    column = len(line) - len(line.lstrip()) + 1
    words = line.split("#", 1)[1].split()
    define = re.match(r"\s*#\s*define\s+([A-Za-z_]\w*)(\(?)(.*)$", line)
    if line.rstrip().endswith("\\"):
        source.fail(number, column, "a directive that goes on in the next line is not in the subset of OpenCL C")
    elif define and define[2]:
        reason = f"the macro '{define[1]}' with parameters is not in the subset of OpenCL C"
        source.fail(number, define.start(1) + 1, reason)
    elif define:
        macros[define[1]] = list(tokens_of(source, define[3], number))
    elif words[:3] == ["pragma", "OPENCL", "FP_CONTRACT"] and words[3:] != ["OFF"]:
        source.fail(number, column, "'#pragma OPENCL FP_CONTRACT' is 'OFF' here: nothing contracts a product and a sum")
    elif words[:3] != ["pragma", "OPENCL", "FP_CONTRACT"]:
        source.fail(number, column, f"the directive '#{' '.join(words)[:40]}' is not in the subset of OpenCL C")


def expand(
    source: Source, tokens: Iterable[Token], macros: Mapping[str, list[Token]], inside: tuple[str, ...] = ()
) -> Iterator[Token]:
    """Tokens with macros replaced; a macro is not replaced in its own text (C99, 6.10.3.4)."""
    for token in tokens:
        if token.type != "IDENT" or token not in macros or token in inside:
            yield token
            continue
        for made in expand(source, macros[token], macros, (*inside, str(token))):
            yield Token.new_borrow_pos(made.type, str(made), token)
