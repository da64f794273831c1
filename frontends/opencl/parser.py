"""From OpenCL C text to a lark tree: the preprocessor makes tokens of it, and grammar.lark a tree of these."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from importlib import resources
from typing import Any, NoReturn

from lark import Lark, Token, Tree
from lark.exceptions import UnexpectedToken
from lark.lexer import Lexer

from . import preprocessor
from .diagnostics import Source, near
from .types import NAMES

UNSUPPORTED = re.compile(
    r"goto|struct|union|enum|typedef|sizeof|extern|register|auto|asm|(double|half)\d*"
    r"|event_t|sampler_t|image[123]d_t"
)
"""Words of OpenCL C that are no names and that the subset leaves out."""


def parse(source: Source, defines: Mapping[str, str]) -> Tree:
    """The tree of a source text. Raises SourceError at the first syntax error or feature that is not in the subset."""
    tokens = preprocessor.tokens(source, defines, lexer())
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
    if (unknown := unknown_type(tokens, index, expected)) is not None:
        source.fail(unknown.line or 1, unknown.column or 1, f"unknown type name '{unknown}'{near(unknown, NAMES)}")
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


def unknown_type(tokens: list[Token], index: int, expected: set[str]) -> Token | None:
    """The name that stands where only a type can: the unexpected one, or the one before it, as in `real x;`."""
    if index >= len(tokens) or tokens[index].type not in ("IDENT", "STAR"):
        return None
    if tokens[index].type == "IDENT" and "TYPE" in expected and not {"IDENT", "INTEGER"} & expected:
        return tokens[index]
    begins = index < 2 or tokens[index - 2].type in ("QUALIFIER", "_SEMICOLON", "LBRACE", "RBRACE")
    return tokens[index - 1] if begins and index and tokens[index - 1].type == "IDENT" else None


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
    """Of the grammar's terminals alone: the tables of a parser take three times as long."""
    return Lark(grammar(), parser=None, lexer="basic")
