"""Quantise a calibrated graph: float ops become qnn ops by the rule of their class; others stay float."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.dialects.builtin import ModuleOp

from ...errors import CompileError
from ...runtime.interpreter import main_function
from ..base import NacrePass
from . import canonical_qnn, rules_elementwise, rules_linear, rules_moves, rules_pooling, rules_spatial  # noqa: F401  fill RULES
from .parameters import SCHEMES
from .quantiser import Quantiser


@dataclass(frozen=True)
class QuantiseToQnnPass(NacrePass):
    """Turn a calibrated float graph into integer arithmetic; inputs and outputs stay float."""

    name = "quantise-to-qnn"

    dtype: str = "int8"

    def run(self, module: ModuleOp) -> None:
        quantise(module, self.dtype)


def quantise(module: ModuleOp, dtype: str = "int8") -> None:
    """Quantise @main of a calibrated module in place. Raises CompileError for a dtype that is not known."""
    scheme = SCHEMES.get(dtype)
    if scheme is None:
        raise CompileError(f"there is no quantisation to '{dtype}'; there is one to {', '.join(SCHEMES)}")
    Quantiser(main_function(module), scheme).run()
