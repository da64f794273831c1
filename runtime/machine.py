"""The description of a machine: one TOML file, checked when it is read, frozen afterwards.

`load_machine("tiny")` reads a description that Nacre ships (runtime/machines/*.toml), a path reads a
user's own. What the figures mean for time is in cost.py and timing.py; nothing here computes.
"""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ..errors import MachineError, did_you_mean

# What the emulator allocates, and what keeps times finite: far beyond any real machine.
Sram = Annotated[int, Field(ge=1, le=1 << 30, strict=True)]
Dram = Annotated[int, Field(ge=1, le=1 << 40, strict=True)]
Clock = Annotated[int, Field(ge=1, le=10**12, strict=True)]
Banks = Annotated[int, Field(ge=1, le=1 << 10, strict=True)]
Rate = Annotated[int, Field(ge=1, le=1 << 20, strict=True)]
Cycles = Annotated[int, Field(ge=0, le=10**6, strict=True)]
Burst = Annotated[int, Field(ge=1, le=1 << 16, strict=True)]
Element = Literal["int8", "uint8", "int16"]
Fusion = Literal["activation", "table", "residual", "pool"]
ASSUMED = "assumed"


class Machine(BaseModel):
    """A machine's figures. Rates are per clock cycle; whatever is no whole number is a float."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(min_length=1)]
    description: str = ""
    clock_hz: Clock
    sram_bytes: Sram
    sram_banks: Banks
    """Accesses the SRAM serves at the same time: all engines together get banks · sram_bytes_per_cycle."""
    sram_bytes_per_cycle: Rate
    """What one engine's port to the SRAM moves in a cycle."""
    dram_bytes: Dram
    """Capacity."""
    dram_bytes_per_cycle: Annotated[float, Field(ge=1e-3, le=1e6, allow_inf_nan=False)]
    """Bandwidth, for loads and stores together."""
    dram_latency: Cycles
    """Cycles from a request to its first byte."""
    dram_burst: Burst
    """Bytes that each contiguous run is rounded up to, a power of two."""
    mac_rows: Rate
    """Input channels the MAC array takes in a cycle."""
    mac_columns: Rate
    """Output channels the MAC array works on in a cycle."""
    depthwise_macs: Rate
    """Multiplications a cycle of a depthwise convolution."""
    types: Annotated[tuple[Element, ...], Field(min_length=1)]
    dma_channels: Literal[1, 2] = 2
    """2: loads and stores flow side by side; 1: one transfer at a time."""
    fabric_lanes: Rate
    """Bytes a cycle of the fabric."""
    ppu_lanes: Rate
    """Elements a cycle of the programmable engine."""
    queue_depth: Rate
    """Instructions a queue holds; the front end issues in program order and stalls at a full queue."""
    fused: tuple[Fusion, ...] = ()
    """What the NN engine's epilogue can do beside requantisation."""
    sources: dict[str, str] = {}
    """Where a figure is from, by field; one without an entry counts as assumed."""

    def __hash__(self) -> int:
        return hash((self.name, self.sram_bytes, self.clock_hz))  # `sources` is a dict and has no hash

    @property
    def macs_per_cycle(self) -> int:
        """Peak of the MAC array."""
        return self.mac_rows * self.mac_columns

    def source(self, figure: str) -> str:
        """Where a figure is from."""
        return self.sources.get(figure, ASSUMED)

    @field_validator("dram_burst")
    @classmethod
    def _burst_is_a_power_of_two(cls, burst: int) -> int:
        if burst & (burst - 1):
            raise ValueError(f"dram_burst = {burst}: input should be a power of two")
        return burst

    @model_validator(mode="after")
    def _sources_name_fields(self) -> Machine:
        for figure in self.sources:
            if figure not in type(self).model_fields:
                raise ValueError(f"sources names '{figure}', which is no figure of a machine")
        return self


def figures() -> list[str]:
    """The fields of a machine that are numbers."""
    words = {"name", "description", "types", "fused", "sources"}
    return [name for name in Machine.model_fields if name not in words]


def machine_names() -> list[str]:
    """The machines that Nacre ships, by name."""
    files = (resources.files(__package__) / "machines").iterdir()
    return sorted(file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml"))


def load_machine(name_or_path: str | Path) -> Machine:
    """The machine of a shipped name or of a TOML file. Raises MachineError with a sentence."""
    label = str(name_or_path)
    if label in machine_names():
        text = (resources.files(__package__) / "machines" / f"{label}.toml").read_text(encoding="utf-8")
        return parse_machine(text, f"{label}.toml")
    path = Path(name_or_path)
    if not path.is_file():
        raise MachineError(_unknown(label))
    try:
        return parse_machine(path.read_text(encoding="utf-8"), label)
    except (OSError, UnicodeDecodeError) as error:
        raise MachineError(f"{label}: a machine description is a UTF-8 text file: {error}") from None


def parse_machine(text: str, label: str) -> Machine:
    """A machine from TOML text; `label` names it in messages. Raises MachineError with a sentence."""
    try:
        return Machine.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise MachineError(f"{label} is no TOML file: {error}") from None
    except ValidationError as error:
        raise MachineError(f"{label}: {_complaint(error)}") from None


def parse_machine_json(text: str, label: str) -> Machine:
    """A machine from the JSON text of its figures. Raises MachineError with a sentence."""
    try:
        return Machine.model_validate_json(text)
    except ValidationError as error:
        raise MachineError(f"{label}: {_complaint(error)}") from None


def _unknown(label: str) -> str:
    names = machine_names()
    hint = did_you_mean(label, names, 0.5)
    known = f"{hint} Known are" if hint else "known are"
    return f"there is no machine '{label}': {known} {', '.join(names)}, or the path of a TOML file"


def _complaint(error: ValidationError) -> str:
    """The first thing wrong, as field, what was found and what is allowed."""
    found: list[Any] = error.errors(include_url=False)
    # A misspelt figure is also a missing one, and its name says more.
    first = next((e for e in found if e["type"] == "extra_forbidden"), found[0])
    field = ".".join(str(part) for part in first["loc"])
    if first["type"] == "missing":
        return f"the figure '{field}' is missing"
    if first["type"] == "extra_forbidden":
        hint = did_you_mean(field, Machine.model_fields) or f"known are {', '.join(Machine.model_fields)}"
        return f"'{field}' is no figure of a machine; {hint}"
    if first["type"] == "value_error":
        return str(first["ctx"]["error"])
    message = first["msg"]
    message = f"{message[:1].lower()}{message[1:]}"
    if first["type"] in RANGE_ERRORS and (bounds := allowed(field)):
        message = f"input should be {bounds}"
    return f"{field} = {first['input']!r}: {message}"


RANGE_ERRORS = ("greater_than_equal", "less_than_equal", "finite_number")


def allowed(figure: str) -> str:
    """The range of a figure in words; empty where it has none."""
    limits = Machine.model_fields[figure].metadata if figure in Machine.model_fields else []
    least = next((m.ge for m in limits if hasattr(m, "ge")), None)
    most = next((m.le for m in limits if hasattr(m, "le")), None)
    return "" if least is None else f"between {least} and {most}"
