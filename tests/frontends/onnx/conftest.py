"""What the ONNX front end's tests share: a loop that runs an imported module, and the model folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import nacre.runtime.kernels.graph  # registers the kernels
import numpy as np
import pytest
from nacre.dialects.graph import ConstantOp
from nacre.dialects.types import dtype_of, element_type, shape_of
from nacre.runtime.interpreter import execute
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp, ReturnOp


def run_module(module: ModuleOp, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The outputs of `@main`; each op's result has to have the shape and dtype its type says."""
    main = next(op for op in module.body.block.ops if isinstance(op, FuncOp))
    values = dict(zip(main.body.block.args, arrays, strict=True))
    for op in main.body.block.ops:
        if isinstance(op, ReturnOp):
            return [values[v] for v in op.operands]
        if isinstance(op, ConstantOp):
            values[op.result] = op.array()
            continue
        for result, array in zip(op.results, execute(op, [values[v] for v in op.operands]), strict=True):
            assert array.shape == shape_of(result), f"{op.name}: {array.shape} is not {result.type}"
            assert array.dtype == dtype_of(element_type(result)), (
                f"{op.name}: {array.dtype} is not {result.type}"
            )
            values[result] = array
    raise AssertionError("@main does not return")


@pytest.fixture(scope="session")
def interpret() -> Callable[[ModuleOp, Sequence[np.ndarray]], list[np.ndarray]]:
    return run_module


@pytest.fixture(scope="session")
def model_folder() -> Path:
    folder = Path(nacre.__file__).parent.parent / "shared" / "models"
    if not folder.is_dir():
        pytest.skip("the folder shared/models is not beside the repository")
    return folder
