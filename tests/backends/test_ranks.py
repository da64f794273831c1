"""Tensors of seven axes and more whose operands alternate in more runs than kernels walk, and tensors without elements.

On `tiny`, whose SRAM does not hold the tensors, so that all is cut into tiles.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import nacre
import numpy as np
import onnx
import pytest
from nacre.backends.npu import runs
from onnx import helper
from onnx.reference import ReferenceEvaluator

Array = np.ndarray
RNG = np.random.default_rng(71)
node = helper.make_node


def floats(*shape: int) -> Array:
    return RNG.normal(size=shape).astype(np.float32)


def axes(*values: int) -> dict[str, Array]:
    return {"a": np.array(values, np.int64)}


SEVEN = (3, 4, 3, 4, 3, 4, 3)
ODD, EVEN = (3, 1, 3, 1, 3, 1, 3), (1, 4, 1, 4, 1, 4, 1)
TURN = {"s": np.full(4, -1), "e": np.full(4, -99), "a": np.array([0, 2, 4, 6]), "t": np.array([-1, -2, -1, -1])}
Case = tuple[list[onnx.NodeProto], Mapping[str, Array], Mapping[str, Array]]
ALTERNATING: dict[str, Case] = {
    "sum": ([node("ReduceSum", ["x", "a"], ["y"], keepdims=0)], {"x": floats(*SEVEN)}, axes(0, 2, 4, 6)),
    "mean": ([node("ReduceMean", ["x", "a"], ["y"])], {"x": floats(*SEVEN)}, axes(0, 2, 4, 6)),
    "mean that keeps": ([node("ReduceMean", ["x", "a"], ["y"], keepdims=0)], {"x": floats(*SEVEN)}, axes(1, 3, 5)),
    "largest integer": (
        [node("ReduceMax", ["x", "a"], ["y"])], {"x": RNG.integers(-999, 999, SEVEN, np.int64)}, axes(0, 2, 4, 6),
    ),
    "product": ([node("ReduceProd", ["x", "a"], ["y"])], {"x": 1 + floats(*SEVEN) / 9}, axes(0, 2, 4, 6)),
    "addition": ([node("Add", ["x", "z"], ["y"])], {"x": floats(*ODD), "z": floats(*EVEN)}, {}),
    "addition of nine axes": (
        [node("Add", ["x", "z"], ["y"])], {"x": floats(*ODD, 1, 2), "z": floats(*EVEN[1:], 2, 1)}, {},
    ),
    "largest": ([node("Max", ["x", "z"], ["y"])], {"x": floats(*ODD), "z": floats(*EVEN)}, {}),
    "choice": (
        [node("Less", ["x", "z"], ["c"]), node("Where", ["c", "x", "z"], ["y"])],
        {"x": floats(*ODD), "z": floats(*EVEN)}, {},
    ),
    "expansion": ([node("Expand", ["x", "a"], ["y"])], {"x": floats(*ODD)}, axes(*SEVEN)),
    "product of matrices": (
        [node("MatMul", ["x", "z"], ["y"])],
        {"x": floats(2, 1, 2, 1, 2, 1, 3, 4), "z": floats(3, 1, 2, 1, 2, 4, 5)}, {},
    ),
    "layer norm": (
        [node("LayerNormalization", ["x", "s", "b"], ["y"], axis=0)], {"x": floats(2, 3, 2, 3, 2, 3, 2)},
        {"s": floats(2, 1, 2, 1, 2, 1, 2), "b": floats(1, 3, 1, 3, 1, 3, 1)},
    ),
    "layer norm of long rows": (
        [node("LayerNormalization", ["x", "s", "b"], ["y"], axis=0)], {"x": floats(*SEVEN)},
        {"s": floats(*ODD), "b": floats(*EVEN)},
    ),
    "reflection": ([node("Pad", ["x", "a"], ["y"], mode="reflect")], {"x": floats(*[2] * 7)}, axes(*[1] * 14)),
    "padding": (
        [node("Pad", ["x", "a", "v"], ["y"])], {"x": floats(*[2] * 7)},
        {**axes(*[1] * 14), "v": np.array(0.3, np.float32)},
    ),
    "turning round": ([node("Slice", ["x", "s", "e", "a", "t"], ["y"])], {"x": floats(*SEVEN)}, TURN),
}  # fmt: skip
NOTHING: dict[str, Case] = {
    "sum": ([node("ReduceSum", ["x", "a"], ["y"])], {"x": floats(2, 0)}, axes(1)),
    "product": ([node("ReduceProd", ["x", "a"], ["y"])], {"x": floats(2, 0)}, axes(1)),
    "product of matrices": ([node("MatMul", ["x", "z"], ["y"])], {"x": floats(2, 0), "z": floats(0, 3)}, {}),
    "product and bias": (
        [node("Gemm", ["x", "z", "c"], ["y"])], {"x": floats(2, 0), "z": floats(0, 3)}, {"c": floats(3)},
    ),
    "concatenation": ([node("Concat", ["x", "z"], ["y"], axis=0)], {"x": floats(0, 3), "z": floats(2, 3)}, {}),
    "softmax": ([node("Softmax", ["x"], ["y"])], {"x": floats(2, 0)}, {}),
}  # fmt: skip


def compared(case: Case) -> None:
    nodes, feeds, weights = case
    types = {n: helper.np_dtype_to_tensor_dtype(a.dtype) for n, a in feeds.items()}
    inputs = [helper.make_tensor_value_info(n, types[n], a.shape) for n, a in feeds.items()]
    arrays = [onnx.numpy_helper.from_array(np.asarray(a), n) for n, a in weights.items()]
    graph = helper.make_graph(nodes, "g", inputs, [onnx.ValueInfoProto(name="y")], arrays)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    session: Any = nacre.Session(nacre.compile(model, target="tiny", dtype="float32"), sanitize=True)
    (found,), (wanted,) = session.run(None, feeds), ReferenceEvaluator(model).run(None, feeds)
    assert found.shape == wanted.shape and found.dtype == wanted.dtype
    np.testing.assert_allclose(found, wanted, 1e-4, 1e-5)


@pytest.mark.parametrize("name", ALTERNATING)
def test_no_rank_is_out_of_reach(name):
    compared(ALTERNATING[name])


@pytest.mark.parametrize("name", NOTHING)
def test_what_combines_nothing(name):
    compared(NOTHING[name])


def test_a_tensor_is_repeated_in_few_steps():
    assert runs.stages((), (2, 3)) == [(2, 3)]
    assert runs.stages((), ()) == [()]
    assert runs.stages(ODD, SEVEN) == [(3, 4, 3, 4, 3, 1, 3), SEVEN]


def test_axes_are_taken_in_turns_only_where_they_have_to_be():
    assert runs.in_turns((0, 2, 4), 6) == [(0, 2, 4)]
    assert runs.in_turns((0, 2, 4, 6), 7) == [(0, 2), (4, 6)]


QUANTISED = helper.make_graph(
    [node("QuantizeLinear", ["x", "s", "o"], ["q"]), node("Concat", ["q", "q"], ["c"], axis=0)], "g",
    [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, (2, 5))],
    [onnx.ValueInfoProto(name=n) for n in ("q", "c")],
    [onnx.numpy_helper.from_array(a, n) for n, a in (("s", np.float32(0.1)), ("o", np.uint8(7)))],
)  # fmt: skip


def test_quantised_values_may_be_outputs():
    model = helper.make_model(QUANTISED, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    feeds = {"x": floats(2, 5)}
    found = nacre.Session(nacre.compile(model, target="tiny"), sanitize=True).run(None, feeds)
    for have, want in zip(found, ReferenceEvaluator(model).run(None, feeds), strict=True):
        assert have.dtype == np.uint8 and (have == want).all()
