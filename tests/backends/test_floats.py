"""Models in float16 and float64: their interface keeps its type, the network between is float32."""

from __future__ import annotations

import nacre
import numpy as np
import onnx
import onnxruntime
import pytest
from nacre.errors import InputError
from onnx import TensorProto, helper, numpy_helper

TARGETS = pytest.mark.parametrize("target", ["tiny", "v853"])
SHAPE = [1, 3, 12, 12]


def model_of(nodes, element, arrays, result=None) -> onnx.ModelProto:
    """A network from x [1, 3, 12, 12] to y [1, 8, 12, 12]."""
    x = helper.make_tensor_value_info("x", element, SHAPE)
    y = helper.make_tensor_value_info("y", element if result is None else result, [1, 8, 12, 12])
    held = [numpy_helper.from_array(a, n) for n, a in arrays.items()]
    graph = helper.make_graph(nodes, "g", [x], [y], held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def half() -> onnx.ModelProto:
    """float16 throughout: input, weights, output."""
    rng = np.random.default_rng(0)
    arrays = {
        "w": (rng.standard_normal((8, 3, 3, 3)) / 5).astype(np.float16),
        "b": rng.standard_normal(8).astype(np.float16),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["y"], "relu"),
    ]
    return model_of(nodes, TensorProto.FLOAT16, arrays)


def double(between: int = TensorProto.DOUBLE, result: int = TensorProto.FLOAT) -> onnx.ModelProto:
    """float32 with a multiplication in another type."""
    rng = np.random.default_rng(1)
    dtype = helper.tensor_dtype_to_np_dtype(between)
    arrays = {
        "w": (rng.standard_normal((8, 3, 3, 3)) / 5).astype(np.float32),
        "f": rng.uniform(0.5, 2, (1, 8, 1, 1)).astype(dtype),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("Cast", ["c"], ["d"], "widen", to=between),
        helper.make_node("Mul", ["d", "f"], ["m"], "mul"),
        helper.make_node("Cast", ["m"], ["y"], "narrow", to=result),
    ]
    return model_of(nodes, TensorProto.FLOAT, arrays, result)


MODELS = {
    "half": half(),
    "double": double(),
    "half between": double(TensorProto.FLOAT16),
    "double out": double(TensorProto.DOUBLE, TensorProto.DOUBLE),
}


@TARGETS
@pytest.mark.parametrize("dtype", ["float32", "int8"])
@pytest.mark.parametrize("name", MODELS)
def test_other_floats_as_in_onnxruntime(name, dtype, target):
    model = MODELS[name]
    oracle = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(2)
    kind = np.float16 if name == "half" else np.float32
    samples = [{"x": rng.standard_normal(SHAPE).astype(kind)} for _ in range(3)]
    program = nacre.compile(model, target=target, dtype=dtype, calibration=samples if dtype == "int8" else None)
    (found,) = nacre.Session(program, sanitize=True).run(None, samples[0])
    (wanted,) = oracle.run(None, samples[0])
    assert found.dtype == wanted.dtype
    found, wanted = found.astype(np.float64), wanted.astype(np.float64)
    if dtype == "float32":
        np.testing.assert_allclose(found, wanted, rtol=4e-3, atol=4e-3)
    else:
        assert 10 * np.log10(np.square(wanted).sum() / np.square(found - wanted).sum()) > 30


def test_a_mask_beyond_float32_stays_finite():
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("Cast", ["c"], ["d"], "widen", to=TensorProto.DOUBLE),
        helper.make_node("Max", ["d", "lowest"], ["m"], "max"),
        helper.make_node("Cast", ["m"], ["y"], "narrow", to=TensorProto.FLOAT),
    ]
    arrays = {"w": np.ones((8, 3, 3, 3), np.float32), "lowest": np.array(-1.7e308)}
    program = nacre.compile(model_of(nodes, TensorProto.FLOAT, arrays), target="tiny", dtype="float32")
    (found,) = nacre.Session(program).run(None, {"x": np.ones(SHAPE, np.float32)})
    assert found.max() == 27


def test_nan_in_an_input_is_refused_by_name():
    program = nacre.compile(MODELS["half"], target="tiny", dtype="float32")
    x = np.zeros(SHAPE, np.float16)
    x[0, 1, 2, 3] = np.nan
    with pytest.raises(InputError, match=r"the input 'x' holds NaN \(1 of 432 values\)"):
        nacre.Session(program).run(None, {"x": x})
