"""Pipelines as text, `'pass-a,pass-b{x=1 y=true}'`: passes that xDSL's universe knows, ours, and those of operators.

`canonicalize` and `cse` stand for the versions that keep names.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from xdsl.passes import ModulePass, get_pass_option_infos
from xdsl.universe import XDSL_UNIVERSE, Universe
from xdsl.utils.arg_spec import ArgSpec, parse_pipeline
from xdsl.utils.exceptions import ArgSpecParseError

from ..errors import NacreError, did_you_mean
from .base import PASSES
from .manager import Canonicalize, Cse

KEEPING_NAMES: Mapping[str, type[ModulePass]] = {"canonicalize": Canonicalize, "cse": Cse}


UNDESCRIBED = {"dce": "xDSL's dce: remove ops without effects whose results nobody uses."}
"""Passes of the list that have no docstring of their own."""


class PassInfo(NamedTuple):
    """A pass for a list: name, first line of its docstring, options as `name: type = default`."""

    name: str
    summary: str
    options: tuple[str, ...]


def available_passes() -> dict[str, Callable[[], type[ModulePass]]]:
    """What gives each pass class, by name."""
    passes = dict(Universe.get_multiverse().all_passes)
    for name in PASSES:  # those of outside packages of operators, which need no universe of their own
        passes.setdefault(name, functools.partial(PASSES.__getitem__, name))
    return passes | {name: (lambda made=made: made) for name, made in KEEPING_NAMES.items()}


def parse_passes(text: str) -> list[ModulePass]:
    """The passes of a pipeline. Raises NacreError for an unknown pass or option, with what is near."""
    available = available_passes()
    try:
        specs = list(parse_pipeline(text))
    except ArgSpecParseError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise NacreError(f"the pipeline '{text}' cannot be read: {lines[-1].lstrip('^ ')}") from None
    return [make_pass(spec, available) for spec in specs]


def make_pass(spec: ArgSpec, available: Mapping[str, Callable[[], type[ModulePass]]]) -> ModulePass:
    """One pass with its options."""
    if spec.name not in available:
        raise NacreError(f"there is no pass '{spec.name}'{near(spec.name, available)} (nacre opt --list)")
    cls = available[spec.name]()
    known = [field.name.replace("_", "-") for field in dataclasses.fields(cls) if field.init]
    for option in spec.parameters:
        if option.replace("_", "-") not in known:
            has = f"its options are {', '.join(known)}" if known else "it has none"
            raise NacreError(f"{spec.name} has no option '{option}'{near(option, known, has)}")
    try:
        return cls.from_spec(spec)
    except ValueError as error:
        raise NacreError(f"{spec.name}: {error}") from None


def near(name: str, known: Iterable[str], otherwise: str = "") -> str:
    """`: did you mean 'x'?`, or else `: otherwise`."""
    hint = did_you_mean(name, known) or otherwise
    return f": {hint}" if hint else ""


def list_passes() -> tuple[list[PassInfo], list[str]]:
    """Passes that are not xDSL's, `canonicalize`, `cse` and `dce`, described; the names of xDSL's others."""
    available = available_passes()
    described = [
        name for name in available if name not in XDSL_UNIVERSE.all_passes or name in (*KEEPING_NAMES, "dce")
    ]
    others = sorted(set(available) - set(described))
    return [describe(name, available[name]()) for name in sorted(described)], others


def describe(name: str, cls: type[ModulePass]) -> PassInfo:
    """A pass for the list."""
    summary = (cls.__doc__ or UNDESCRIBED.get(name, "")).strip().splitlines()
    options = tuple(
        f"{o.name.replace('_', '-')}: {str(o.expected_type).strip(chr(39))}"
        + (f" = {o.default_value}" if o.default_value not in (None, "none") else "")
        for o in get_pass_option_infos(cls)
    )
    return PassInfo(name, summary[0] if summary else "", options)
