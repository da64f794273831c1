"""The same model and input give the same bits at qnn, npu, from the binary, in any legal order, fused or
not.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import nacre
import numpy as np
import onnx
import pytest
from nacre.runtime.emulator import legal_order
from nacre.runtime.interpreter import interpret
from nacre.runtime.npu_interpreter import interpret_npu
from onnx import TensorProto, helper, numpy_helper

ROOT = Path(nacre.__file__).parent
MODELS = ROOT.parent / "shared" / "models"
TARGETS = ("tiny", "v853")


def branches() -> onnx.ModelProto:
    """A small network with what fusion and views meet: residual, concat, pools, grouped conv, two outputs."""
    rng = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        scale = np.sqrt(2 / np.prod(shape[1:]))
        return numpy_helper.from_array((rng.standard_normal(shape) * scale).astype(np.float32), name)

    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], "conv1", pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["c1"], ["r1"], "relu1"),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], "conv2", pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["c2", "r1"], ["a"], "add"),
        helper.make_node("Relu", ["a"], ["r2"], "relu2"),
        helper.make_node("Conv", ["r2", "w3"], ["c3"], "depthwise", pads=[1, 1, 1, 1], group=16),
        helper.make_node("Sigmoid", ["c3"], ["s"], "sigmoid"),
        helper.make_node("Conv", ["r2", "w4"], ["c4"], "grouped", group=2),
        helper.make_node("Concat", ["s", "c4"], ["j"], "join", axis=1),
        helper.make_node(
            "MaxPool", ["j"], ["p"], "pool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]
        ),
        helper.make_node("GlobalAveragePool", ["p"], ["g"], "mean"),
        helper.make_node("Flatten", ["g"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "w5", "b5"], ["d"], "dense"),
        helper.make_node("Softmax", ["d"], ["y"], "softmax"),
    ]
    graph = helper.make_graph(
        nodes, "branches",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 34, 30])],
        [
            helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 10]),
            helper.make_tensor_value_info("p", TensorProto.FLOAT, None),
        ],
        [
            weight("w1", 16, 3, 3, 3), weight("b1", 16), weight("w2", 16, 16, 3, 3),
            weight("w3", 16, 1, 3, 3), weight("w4", 8, 8, 1, 1), weight("w5", 24, 10), weight("b5", 10),
        ],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def samples(count: int, seed: int = 0) -> list[dict[str, np.ndarray]]:
    """Inputs of `branches`."""
    rng = np.random.default_rng(seed)
    return [{"x": rng.standard_normal((1, 3, 34, 30)).astype(np.float32)} for _ in range(count)]


def check_levels(
    program: nacre.Program, feeds: Mapping[str, np.ndarray], orders: int = 2
) -> list[np.ndarray]:
    """Assert bit equality of all levels below graph, sanitizers on; gives the outputs."""
    qnn = program.levels.get("qnn")
    want = interpret_npu(program.levels["npu"], feeds)
    if qnn is not None:
        for name, array in interpret(qnn, feeds).items():
            np.testing.assert_array_equal(want[name], array, err_msg=f"npu differs from qnn in {name}")
    session = nacre.Session(program, sanitize=True)
    got = dict(zip([o.name for o in session.get_outputs()], session.run(None, feeds)))
    for name, array in want.items():
        np.testing.assert_array_equal(got[name], array, err_msg=f"the emulator differs in {name}")
    emulator = session.executor.emulator
    for seed in range(orders):
        order = legal_order(emulator.program.commands, np.random.default_rng(seed))
        for name, array in emulator.run(feeds, order=order).items():
            np.testing.assert_array_equal(want[name], array, err_msg=f"legal order {seed} changes {name}")
    return [got[o.name] for o in session.get_outputs()]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int16x8"])
def test_levels_agree_fused_and_not(target: str, dtype: str) -> None:
    (feeds,) = samples(1, seed=9)
    results = [
        check_levels(
            nacre.compile(branches(), target=target, dtype=dtype, calibration=samples(4), fuse=f), feeds
        )
        for f in (True, False)
    ]
    for fused, unfused in zip(*results):
        np.testing.assert_array_equal(fused, unfused)


def test_targets_agree() -> None:
    (feeds,) = samples(1, seed=9)
    runs = [
        nacre.Session(nacre.compile(branches(), target=t, calibration=samples(4))).run(None, feeds)
        for t in (*TARGETS, "u65-512", "cpu")
    ]
    for other in runs[1:]:
        for a, b in zip(runs[0], other):
            np.testing.assert_array_equal(a, b)


def test_float_program_is_close_to_the_graph() -> None:
    (feeds,) = samples(1, seed=9)
    program = nacre.compile(branches(), target="v853", dtype="float32")
    for got, want in zip(check_levels(program, feeds), interpret(program.levels["graph"], feeds).values()):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


SHARED = ("mnist_cnn", "mlperf_ic_resnet8", "mlperf_vww_mbv1", "fastestdet")


@pytest.mark.slow
@pytest.mark.parametrize("fuse", [True, False], ids=["fused", "unfused"])
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", SHARED)
def test_real_networks(name: str, target: str, fuse: bool) -> None:
    path = MODELS / f"{name}.onnx"
    if not path.exists():
        pytest.skip(f"{path} is not there: the shared models are kept beside the repository")
    entry = onnx.load(path).graph.input[0]
    shape = [d.dim_value or 1 for d in entry.type.tensor_type.shape.dim]
    rng = np.random.default_rng(1)
    feeds = [{entry.name: rng.random(shape, np.float32)} for _ in range(3)]
    check_levels(nacre.compile(path, target=target, calibration=feeds[1:], fuse=fuse), feeds[0], orders=1)
