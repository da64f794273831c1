"""Kernels that do not fit what they are launched on: a sentence at compile time, with the layer and the file."""

from __future__ import annotations

from collections.abc import Callable

import nacre
import numpy as np
import onnx
import pytest
from nacre.errors import CompileError
from nacre.passes.npu.soft_kernels import SOFT_KERNELS, Arguments, Call, SoftKernel

MODEL = """
  <ir_version: 8, opset_import: ["" : 17]>
  g (float[1, 8] x) => (float[1, 8] y) { y = Atan(x) }"""


class Given(SoftKernel):
    """A kernel whose text is at hand."""

    def text(self) -> str:
        return TEXT[0]


TEXT = [""]


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """What compiling says with another kernel for graph.atan."""

    def compile_with(text: str, scalars: tuple[int, ...] = ()) -> str:
        def arguments(call: Call) -> Arguments:
            return Arguments(scalars, (8,))

        TEXT[0] = text
        kernel = Given("graph.atan", "tests", "own.cl", "own", arguments, lambda build: {})
        monkeypatch.setitem(SOFT_KERNELS, "graph.atan", kernel)
        model = onnx.parser.parse_model(MODEL)
        model.graph.node[0].name = "odd"
        with pytest.raises(CompileError) as error:
            nacre.compile(model, target="tiny", dtype="float32")
        return str(error.value)

    return compile_with


@pytest.mark.parametrize(
    ("text", "scalars", "expected"),
    [
        ("__kernel void own(__global const float *x) { }", (), "takes 1 pointers, but graph.atan has 1 inputs"),
        (
            "__kernel void own(__global const char *x, __global float *y) { y[get_global_id(0)] = x[0]; }", (),
            "'x' leads to i8, but the buffer holds f32: a macro names its type (float)",
        ),
        (
            "__kernel void own(__global const float *x, __global float *y, int n) { y[n] = x[0]; }", (),
            "takes 1 numbers (i32), but its launch rule in tests gives 0 ints",
        ),
        (
            "__kernel void own(__global const float *x, __global float *y, float n) { y[0] = x[0] + n; }", (3,),
            "takes 1 numbers (f32), but its launch rule in tests gives 1 ints",
        ),
        ("__kernel void own(__global const float *x, __global float *y) { y[0] = z; }", (), "own.cl:1:72: error"),
        ("__kernel void other(__global float *y) { y[0] = 1.0f; }", (), "there is no kernel 'own' in this source"),
    ],
)  # fmt: skip
def test_a_kernel_that_does_not_fit(
    compiled: Callable[..., str], text: str, scalars: tuple[int, ...], expected: str
) -> None:
    message = compiled(text, scalars)
    assert message.startswith("layer 'odd': ") and expected in message


def test_faults_of_a_run_name_layer_file_and_work_item(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {
        "reads 'x'[8], which has 8 elements": "y[get_global_id(0)] = x[get_global_id(0) + 5];",
        "a loop did not end within": "float v = x[0]; while (v == v) v = v + 1.0f; y[get_global_id(0)] = v;",
    }
    for expected, body in texts.items():
        TEXT[0] = f"__kernel void own(__global const float *x, __global float *y) {{\n  {body}\n}}"
        kernel = Given("graph.atan", "tests", "own.cl", "own", lambda c: Arguments((), (8,)), lambda b: {})
        monkeypatch.setitem(SOFT_KERNELS, "graph.atan", kernel)
        model = onnx.parser.parse_model(MODEL)
        model.graph.node[0].name = "odd"
        session = nacre.Session(nacre.compile(model, target="tiny", dtype="float32"))
        with pytest.raises(nacre.errors.Fault) as error:
            session.run(None, {"x": np.ones((1, 8), np.float32)})
        message = str(error.value)
        assert expected in message and "layer 'odd'" in message and "own.cl:2:" in message and "work item" in message
