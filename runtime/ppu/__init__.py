"""The programmable engine of the emulator: kernels run for all work items together, their machine code and cost."""

from .arithmetic import float_to_integer, fused_multiply_add, integer_to_float
from .code import encode
from .costs import Cost, cost, cycles
from .decoder import decode
from .grid import Grid
from .kernel import MAX_STEPS, Kernel, kernel_named
from .prepare import launch, prepare

__all__ = [
    "MAX_STEPS", "Cost", "Grid", "Kernel", "cost", "cycles", "decode", "encode", "float_to_integer",
    "fused_multiply_add", "integer_to_float", "kernel_named", "launch", "prepare",
]  # fmt: skip
