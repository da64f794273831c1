"""dtype int16 and int16x8: the same bits at qnn, npu, from the binary and in other orders, on all targets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nacre
import numpy as np
import onnx
import pytest
from nacre.dialects import npu_instructions as npu
from nacre.dialects.npu import buffer_type
from nacre.dialects.types import i64
from nacre.runtime.emulator import legal_order
from nacre.runtime.interpreter import interpret
from nacre.runtime.npu_interpreter import interpret_npu
from onnx import TensorProto, helper, numpy_helper

DTYPES = pytest.mark.parametrize("dtype", ["int16", "int16x8"])
DIGITS = Path(nacre.__file__).parent / "examples" / "digits"


def kinds() -> onnx.ModelProto:
    """Layers of every kind that int16 has: an output each, small but for the machine `tiny`."""
    rng = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array((rng.standard_normal(shape) / 4).astype(np.float32), name)

    window: dict[str, Any] = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}
    linear: dict[str, Any] = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
    nodes = [
        helper.make_node("Conv", ["x", "dense", "bias"], ["conv"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["x", "each"], ["depthwise"], "depthwise", pads=[1, 0, 1, 0], group=40),
        helper.make_node("ConvTranspose", ["conv", "up"], ["transposed"], "transposed", strides=[2, 2]),
        helper.make_node("Tanh", ["conv"], ["tanh"], "tanh"),
        helper.make_node("Softplus", ["conv"], ["softplus"], "softplus"),
        helper.make_node("PRelu", ["conv", "slope"], ["prelu"], "prelu"),
        helper.make_node("Sub", ["tanh", "prelu"], ["sub"], "sub"),
        helper.make_node("Mul", ["tanh", "prelu"], ["mul"], "mul"),
        helper.make_node("Max", ["tanh", "prelu"], ["max"], "max"),
        helper.make_node("Add", ["max", "sub"], ["sum"], "sum"),
        helper.make_node("Concat", ["tanh", "conv"], ["concat"], "concat", axis=1),
        helper.make_node("Add", ["concat", "concat"], ["twice"], "twice"),
        helper.make_node("AveragePool", ["conv"], ["average"], "average", **window),
        helper.make_node("MaxPool", ["prelu"], ["largest"], "largest", **window),
        helper.make_node("Resize", ["conv", "", "scales"], ["resized"], "resized", **linear),
        helper.make_node("GlobalAveragePool", ["conv"], ["mean"], "mean"),
        helper.make_node("MatMul", ["tanh", "right"], ["constant"], "constant"),
        helper.make_node("Transpose", ["prelu"], ["turned"], "turned", perm=[0, 1, 3, 2]),
        helper.make_node("MatMul", ["tanh", "turned"], ["product"], "product"),
        helper.make_node("MatMul", ["r", "row"], ["long"], "long"),
        helper.make_node("Softmax", ["long"], ["softmax"], "softmax"),
        helper.make_node("Softmax", ["product"], ["rows"], "rows"),
    ]
    outputs = [
        "depthwise", "transposed", "softplus", "mul", "sum", "twice", "average", "largest", "resized", "mean",
        "constant", "product", "softmax", "rows",
    ]  # fmt: skip
    inputs = {"x": [1, 40, 12, 10], "r": [2, 16]}
    graph = helper.make_graph(
        nodes, "kinds",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [
            weight("dense", 24, 40, 3, 3), weight("bias", 24), weight("each", 40, 1, 3, 1),
            weight("up", 24, 5, 2, 2), weight("slope", 24, 1, 1), weight("right", 10, 7),
            weight("row", 16, 2200),
            numpy_helper.from_array(np.array([1, 1, 1.5, 2.5], np.float32), "scales"),
        ],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def samples(count: int, seed: int) -> list[dict[str, np.ndarray]]:
    """Inputs of `kinds`."""
    rng = np.random.default_rng(seed)
    shapes = {"x": (1, 40, 12, 10), "r": (2, 16)}
    return [{n: rng.standard_normal(s).astype(np.float32) for n, s in shapes.items()} for _ in range(count)]


def run_all_levels(program: nacre.Program, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Outputs of a program, after asserting that all levels below graph give these very bits."""
    want = interpret(program.levels["qnn"], feeds)
    session = nacre.Session(program, sanitize=True)
    emulator = session.executor.emulator  # type: ignore[attr-defined]
    order = legal_order(emulator.program.commands, np.random.default_rng(1))
    for level, found in {
        "npu": interpret_npu(program.levels["npu"], feeds),
        "program": emulator.run(feeds),
        "program in another order": emulator.run(feeds, order=order),
    }.items():
        for name, array in want.items():
            np.testing.assert_array_equal(found[name], array, err_msg=f"{name} at level {level}")
    return want


@pytest.mark.parametrize("dtype", ["int16", pytest.param("int16x8", marks=pytest.mark.slow)])
def test_levels_and_targets_agree_on_every_kind_of_layer(dtype: str) -> None:
    (feeds,) = samples(1, seed=9)
    known = samples(3, seed=1)
    runs = []
    unfused = [("tiny", False)] if dtype == "int16" else []
    for target, fuse in (("tiny", True), ("v853", True), *unfused):
        program = nacre.compile(kinds(), target=target, dtype=dtype, calibration=known, fuse=fuse)
        runs.append(run_all_levels(program, feeds))
        if target == "tiny":
            partial = [v for op in program.levels["schedule"].walk() for v in op.properties.values()]
            assert any("xi64" in str(v) for v in partial), "no layer has 64-bit sums in parts"
    cpu = nacre.compile(kinds(), target="cpu", dtype=dtype, calibration=known)
    session = nacre.Session(cpu)
    runs.append(dict(zip([o.name for o in session.get_outputs()], session.run(None, feeds))))
    for other in runs[1:]:
        for name, array in runs[0].items():
            np.testing.assert_array_equal(other[name], array, err_msg=name)
    wanted = interpret(program.levels["graph"], feeds)
    for name, array in wanted.items():
        noise = np.square(array.astype(np.float64) - runs[0][name]).sum()
        ratio = 10 * np.log10(np.square(array.astype(np.float64)).sum() / noise)
        # the softmax of a long row has small values, and a fixed scale of 1/32768
        least = 30 if dtype == "int16x8" or name == "softmax" else 55
        assert ratio > least, f"{name}: {ratio:.1f} dB"


@DTYPES
def test_nothing_of_these_layers_stays_float(dtype: str) -> None:
    program = nacre.compile(
        kinds(), target="tiny", dtype=dtype, calibration=samples(2, seed=1), stop_after="npu"
    )
    counts = Counter(op.name for op in program.levels["qnn"].walk())
    computing = {n for n in counts if n.startswith("qnn.")}
    assert computing == {
        "qnn.conv", "qnn.matmul", "qnn.add", "qnn.mul", "qnn.prelu", "qnn.requantise", "qnn.table",
        "qnn.avg_pool", "qnn.softmax16", "qnn.resize",
    }  # fmt: skip
    assert counts["quant.qcast"] == 2 and counts["quant.dcast"] == 14
    kernels = {op.operation.data for op in program.levels["npu"].walk() if isinstance(op, npu.KernelOp)}
    assert kernels == {
        "qnn.prelu", "qnn.softmax16", "ppu.reduce_max", "ppu.softmax16_sum", "ppu.softmax16_output",
    }  # fmt: skip
    convs = [op for op in program.levels["npu"].walk() if isinstance(op, npu.ConvOp)]
    assert {buffer_type(b).element for op in convs for b in op.buffers("bias")} == {i64}


def test_16_bit_products_take_more_passes_of_the_array() -> None:
    with np.load(DIGITS / "digits.npz") as arrays:
        images = arrays["calibration"][:4, None, None].astype(np.float32) / np.float32(255)
    feeds = [{"image": image} for image in images]
    busy = [
        nacre.Session(
            nacre.compile(DIGITS / "digits.onnx", target="v853", dtype=dtype, calibration=feeds)
        ).profile()["busy_cycles"]["nn"]
        for dtype in ("int8", "int16x8", "int16")
    ]
    assert [round(b / busy[0], 1) for b in busy] == pytest.approx([1, 2, 4], rel=0.05)
