"""Quantisation tables: which layer computes in which type, and tensors with ranges or scales of their own.

    default: int8
    layers:
      /head/conv1: float32                # a layer's name, or a shell pattern such as '/encoder/*'
      /head/erf: {type: float32, why: too coarse in 8 bits}
    types:
      graph.layer_norm: float32           # all layers of a kind
    tensors:
      conv1_out: {min: -3.0, max: 3.0}    # and, or instead, {scale: 0.02, zero: 3}
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from ...errors import InputError, did_you_mean

Type = Literal["int8", "uint8", "int16", "int16x8", "float32"]
TYPES: tuple[str, ...] = get_args(Type)
BY_TABLE = "quant table"
"""Why a layer has the type it has, where the table gives no other reason."""

LONGEST_KEY = 1000
"""YAML takes keys of up to 1024 characters without a question mark in front."""

Finite = Annotated[float, Field(allow_inf_nan=False)]


class Strict(BaseModel):
    """No keys but those named."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Choice(Strict):
    """The type of some layers, and why they have it."""

    type: Type
    why: str = BY_TABLE


def _spelt_out(value: Any) -> Any:
    return {"type": value} if isinstance(value, str) else value


Entry = Annotated[Choice, BeforeValidator(_spelt_out)]


class Tensor(Strict):
    """A tensor's range, its scale and zero point, or both."""

    min: Finite | None = None
    max: Finite | None = None
    scale: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    zero: Annotated[int, Field(strict=True)] = 0

    @model_validator(mode="after")
    def complete(self) -> Tensor:
        """A range has two ends, a zero point a scale, and something is said."""
        if (self.min is None) != (self.max is None):
            raise ValueError(f"{'max' if self.max is None else 'min'} is missing: a range has both ends")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}")
        if self.scale is None and "zero" in self.model_fields_set:
            raise ValueError("zero is given without scale")
        if self.scale is None and self.min is None:
            raise ValueError("neither min and max nor scale are given")
        return self


class QuantTable(Strict):
    """A quantisation table; what it does not name is as without it."""

    default: Type | None = None
    layers: dict[str, Entry] = {}
    types: dict[str, Entry] = {}
    tensors: dict[str, Tensor] = {}

    @property
    def named_types(self) -> dict[str, str]:
        """The types that occur, each with the entry that names it first."""
        found: dict[str, str] = {} if self.default is None else {self.default: "default"}
        for section, choices in (("layers", self.layers), ("types", self.types)):
            for name, choice in choices.items():
                found.setdefault(choice.type, f"{section}.{name}")
        return found


def load_table(source: str | os.PathLike[str] | Mapping[str, Any] | QuantTable) -> QuantTable:
    """A table from a YAML file or its content as a dictionary. Raises InputError in a sentence."""
    if isinstance(source, QuantTable):
        return source
    label = "quant_table"
    content: Any = source
    if isinstance(source, (str, os.PathLike)):
        label = f"'{os.fspath(source)}'"
        content = _read(Path(source), label)
    if not isinstance(content, Mapping):
        what = "is empty" if content is None else f"holds {type(content).__name__}"
        raise InputError(f"{label} {what}: a quantisation table has the keys {', '.join(QuantTable.model_fields)}")
    try:
        return QuantTable.model_validate(dict(content))
    except ValidationError as error:
        raise InputError(f"{label}: {_complaint(error)}") from None


class _Loader(yaml.SafeLoader):
    """YAML whose keys are texts as they stand, each once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Refuse a key that comes twice, of which YAML would keep the last."""
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"'{key.value}' is given twice", key.start_mark)
            seen.add(key.value)
            if isinstance(key, yaml.ScalarNode):
                key.tag = "tag:yaml.org,2002:str"
        return super().construct_mapping(node, deep)


def _read(path: Path, label: str) -> Any:
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise InputError(f"the quantisation table {label} cannot be read: {(error.strerror or '').lower()}") from None
    except UnicodeDecodeError:
        raise InputError(f"the quantisation table {label} is no UTF-8 text") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or "it cannot be parsed"
        raise InputError(f"the quantisation table {label}{where} is no sound YAML: {problem}") from None


def _complaint(error: ValidationError) -> str:
    """The first thing wrong: the entry, what was found, what works."""
    first = error.errors(include_url=False)[0]
    entry = ".".join(str(part) for part in first["loc"])
    found = first["input"]
    if first["type"] == "literal_error":
        return f"{entry} is {found!r}{near(str(found), TYPES)}; the types are {', '.join(TYPES)}"
    if first["type"] == "extra_forbidden":
        inside = {1: QuantTable, 3: Tensor if first["loc"][0] == "tensors" else Choice}[len(first["loc"])]
        keys = list(inside.model_fields)
        name = str(first["loc"][-1])
        return f"{entry} is no key of a quantisation table{near(name, keys)}; there are {', '.join(keys)}"
    if first["type"] == "value_error":
        return f"{entry}: {first['ctx']['error']}"
    message = first["msg"]
    return f"{entry} is {found!r}: {message[:1].lower()}{message[1:]}"


def near(name: str, known: Iterable[str]) -> str:
    """`, did you mean 'x'?` in words, nothing where no name is near."""
    hint = did_you_mean(name, known, 0.5, 2)
    return f" ({hint})" if hint else ""


def table_text(table: QuantTable) -> str:
    """A table as YAML, an entry a line, from which the same table is read."""
    lines = [f"default: {table.default}"] if table.default else []
    for section in ("layers", "types"):
        choices: dict[str, Choice] = getattr(table, section)
        lines += [f"{section}:"] if choices else []
        lines += (_line(n, c.type if c.why == BY_TABLE else _flow(c.model_dump())) for n, c in choices.items())
    lines += ["tensors:"] if table.tensors else []
    lines += (_line(n, _flow(t.model_dump(exclude_unset=True))) for n, t in table.tensors.items())
    return "".join(f"{line}\n" for line in lines)


def _line(key: str, value: str) -> str:
    quoted = key if re.fullmatch(r"[A-Za-z_/][\w/.+-]*", key, re.ASCII) else json.dumps(key, ensure_ascii=False)
    return f"  {quoted}: {value}" if len(quoted) < LONGEST_KEY else f"  ? {quoted}\n  : {value}"


def _flow(value: Any) -> str:
    return yaml.dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10**9).strip()


__all__ = ["BY_TABLE", "TYPES", "Choice", "QuantTable", "Tensor", "load_table", "near", "table_text"]
