"""Reading the constants behind buffers."""

from __future__ import annotations

import numpy as np
from xdsl.ir import SSAValue

from ...dialects.nacre import array_of
from ...dialects.npu import buffer_type
from ...dialects.npu_instructions import ConstantOp
from ...dialects.types import tensor
from ...errors import CompileError


def constant_array(op: ConstantOp) -> np.ndarray:
    """The data of a constant buffer."""
    type_ = buffer_type(op.result)
    return array_of(op.value, tensor(type_.shape, type_.element), op)


def constant_buffer(value: SSAValue) -> np.ndarray:
    """The data behind a buffer that has to be a constant. Raises CompileError otherwise."""
    if not isinstance(value.owner, ConstantOp):
        raise CompileError("an index table has to be a constant")
    return constant_array(value.owner)
