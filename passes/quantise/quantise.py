"""Quantise a calibrated graph: float ops become qnn ops by the rule of their class; others stay float."""

from __future__ import annotations

from dataclasses import dataclass, field

from xdsl.dialects.builtin import ModuleOp

from ...errors import CompileError
from ...runtime.interpreter import main_function
from ..base import NacrePass
from . import (  # noqa: F401  they fill RULES
    canonical_qnn,
    rules_elementwise,
    rules_index,
    rules_linear,
    rules_moves,
    rules_pooling,
    rules_spatial,
)
from .parameters import SCHEMES
from .quantiser import Quantiser
from .record import Record
from .table import QuantTable


@dataclass(frozen=True)
class QuantiseToQnnPass(NacrePass):
    """Turn a calibrated float graph into integer arithmetic; inputs and outputs stay float."""

    name = "quantise-to-qnn"

    dtype: str = "int8"
    tables: list[QuantTable] = field(init=False, default_factory=list, compare=False, repr=False)
    """Behind each run, what it did."""

    def run(self, module: ModuleOp) -> None:
        self.tables.append(quantise(module, self.dtype))


def quantise(module: ModuleOp, dtype: str = "int8") -> QuantTable:
    """Quantise @main of a calibrated module in place; ops that a table gave a type (apply_table.py) have that.

    dtype: what all others are quantised to, or float32. Gives the table of what was done, from which, without
    calibration, the same comes again. Raises CompileError for a dtype that is not known.
    """
    if dtype not in (*SCHEMES, "float32"):
        raise CompileError(f"there is no quantisation to '{dtype}'; there is one to {', '.join(SCHEMES)}")
    quantiser = Quantiser(main_function(module), SCHEMES.get(dtype))
    record = Record(quantiser)
    quantiser.run()
    return record.table(dtype)
