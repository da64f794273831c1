"""How operations become launches of kernels that do a part of a layer: what the selections share."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from xdsl.ir import SSAValue

from ...dialects import npu_instructions as npu
from ...dialects.declarative import DeclarativeOp
from ...dialects.npu import buffer_type, itemsize
from ...dialects.types import dtype_of, element_type, shape_of, size_of, storage_of
from ...runtime.kernel import evaluate
from .select import Selector


def launch(
    s: Selector, operation: str, inputs: Sequence[SSAValue], output: SSAValue, parameters: Mapping[str, Any],
    open_: Mapping[str, Any] | None = None,
) -> None:  # fmt: skip
    """A launch of a partial kernel; `open_`: what tiles set for themselves, with the whole layer's values."""
    s.start(operation, inputs, [output], parameters, open_)


def write_as(s: Selector, value: SSAValue, shape: Sequence[int], emit: Callable[[SSAValue], None]) -> None:
    """Let `emit` write a value's buffer in another shape of the same size."""
    whole = s.result(value)
    if buffer_type(whole).shape == tuple(shape):
        emit(whole)
    elif npu.dense_layout(whole) is not None:
        emit(s.reshape(whole, shape))
    else:
        here = s.alloc(shape, buffer_type(whole).element)
        emit(here)
        s.emit(npu.CopyOp, {"src": s.reshape(here, buffer_type(whole).shape), "dst": whole})


def read_as(s: Selector, value: SSAValue, shape: Sequence[int]) -> SSAValue:
    """A value's buffer in another shape."""
    here = s.buffer(value)
    return here if buffer_type(here).shape == tuple(shape) else s.reshape(s.dense(value), shape)


def of_nothing(s: Selector, op: DeclarativeOp) -> bool:
    """Copy the result of an operation that combines no values at all (a sum over an axis of size 0), if it is one."""
    if all(size_of(v) for v in op.operands) or not size_of(op.results[0]):
        return False
    arrays = (np.zeros(shape_of(v), dtype_of(storage_of(element_type(v)))) for v in op.operands)
    s.emit(npu.CopyOp, {"src": s.constant(evaluate(op, *arrays)[0]), "dst": s.result(op.results[0])})
    return True


def four(shape: Sequence[int]) -> tuple[int, ...]:
    """[N, W, C] as [N, 1, W, C]."""
    return tuple(shape) if len(shape) == 4 else (shape[0], 1, *shape[1:])


def rows_fit(s: Selector, *row_bytes: int) -> bool:
    """Whether whole rows lie in SRAM side by side."""
    return sum(-(-n // 16) * 16 for n in row_bytes) <= s.machine.sram_bytes


def bytes_of(value: SSAValue, axes: Sequence[int]) -> int:
    """Bytes of a value along some axes."""
    shape = shape_of(value)
    return math.prod(shape[a] for a in axes) * itemsize(storage_of(element_type(value)))


def reduced(shape: Sequence[int], axes: Sequence[int]) -> tuple[int, ...]:
    """A shape with axes of size 1 where it is reduced."""
    return tuple(1 if i in axes else d for i, d in enumerate(shape))
