"""Softmax whose probabilities are all small: 8 bits at the fixed scale 1/256 would lose them."""

from __future__ import annotations

import nacre
import numpy as np
import onnx
import pytest
from nacre.dialects import graph, qnn
from onnx import TensorProto, helper


def softmax_over(classes: int) -> onnx.ModelProto:
    """A softmax of its input."""
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, classes]) for n in "xy")
    made = helper.make_graph([helper.make_node("Softmax", ["x"], ["y"], "softmax")], "g", [x], [y])
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_small_probabilities_survive(dtype):
    rng = np.random.default_rng(0)
    samples = [{"x": rng.standard_normal((1, 20_000)).astype(np.float32)} for _ in range(3)]
    program = nacre.compile(softmax_over(20_000), target="v853", dtype=dtype, calibration=samples)
    (found,) = nacre.Session(program).run(None, samples[0])
    e = np.exp(samples[0]["x"].astype(np.float64))
    wanted = e / e.sum()
    assert 10 * np.log10(np.square(wanted).sum() / np.square(found - wanted).sum()) > 15


@pytest.mark.parametrize(("spread", "integers"), [(0.1, False), (30.0, True)])
def test_only_small_ones_stay_float(spread, integers):
    rng = np.random.default_rng(0)
    samples = [{"x": (rng.standard_normal((1, 100)) * spread).astype(np.float32)}]
    program = nacre.compile(softmax_over(100), target="tiny", dtype="int8", calibration=samples, stop_after="qnn")
    kinds = {type(op) for op in program.levels["qnn"].walk()}
    assert (qnn.SoftmaxOp in kinds, graph.SoftmaxOp in kinds) == (integers, not integers)
