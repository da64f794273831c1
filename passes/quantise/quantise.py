"""Quantise a calibrated graph: float ops become qnn ops by the rule of their class; others stay float."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.dialects.builtin import IntegerType, ModuleOp

from ...dialects.types import i8, u8
from ...errors import CompileError
from ...runtime.interpreter import main_function
from ..base import NacrePass
from . import canonical_qnn, rules_elementwise, rules_linear, rules_moves, rules_pooling, rules_spatial  # noqa: F401  fill RULES
from .quantiser import Quantiser

STORAGE: dict[str, IntegerType] = {"int8": i8, "uint8": u8}


@dataclass(frozen=True)
class QuantiseToQnnPass(NacrePass):
    """Turn a calibrated float graph into integer arithmetic; inputs and outputs stay float."""

    name = "quantise-to-qnn"

    dtype: str = "int8"

    def run(self, module: ModuleOp) -> None:
        quantise(module, self.dtype)


def quantise(module: ModuleOp, dtype: str = "int8") -> None:
    """Quantise @main of a calibrated module in place. Raises CompileError for a dtype that is not known."""
    storage = STORAGE.get(dtype)
    if storage is None:
        raise CompileError(f"quantisation to '{dtype}' does not exist yet; {' and '.join(STORAGE)} do")
    Quantiser(main_function(module), storage).run()
