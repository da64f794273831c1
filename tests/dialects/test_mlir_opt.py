"""LLVM's own mlir-opt accepts the generic form of every level (Debian package mlir-22-tools)."""

import shutil
import subprocess
from pathlib import Path

import pytest
from nacre.backends.npu.select import SelectPass
from nacre.dialects import graph
from nacre.dialects.text import load_module, parse_module, print_module
from nacre.passes.manager import PassManager
from nacre.passes.npu.allocate import AllocatePass
from nacre.passes.npu.schedule import SchedulePass
from nacre.passes.npu.target import set_target
from nacre.passes.npu.tile import TilePass

TOOL = shutil.which("mlir-opt-22") or shutil.which("mlir-opt")
FILE = Path(__file__).parents[1] / "data" / "skeleton.mlir"
PASSES = {
    "qnn": None, "layers": SelectPass(), "tiles": TilePass(), "placed": AllocatePass(),
    "addresses": SchedulePass(),
}  # fmt: skip

pytestmark = pytest.mark.skipif(TOOL is None, reason="mlir-opt is not installed (Debian: mlir-22-tools)")

GRAPH = """
func.func @main(%x: tensor<1x6x5x4xf32> {nacre.name = "x"}) -> (tensor<1x6x5x4xf32> {nacre.name = "y"}) {
  %c = graph.constant dense<[1.0, -2.5, 3.25, 4.0]> : tensor<4xf32> loc("c")
  %w = graph.constant #nacre.blob<"w", "eb50b2ba79852cf57d24116a3bcd517b"> : tensor<3x3x4x4xf32>
  %0 = graph.conv %x, %w, %c {strides = [1, 1], pads = [1, 1, 1, 1], dilations = [1, 1]}
    : tensor<1x6x5x4xf32> loc("a")
  %1 = graph.clamp %0 {low = 0.0, nacre.source = #nacre.source<"a:0" [0, 3, 1, 2], "b" [0, 1, 2, 3]>}
    : tensor<1x6x5x4xf32> loc(fused["a", "b"])
  %2 = graph.resize %1 {sizes = [6, 5], scales = [1.0, 1.5], mode = "linear"} : tensor<1x6x5x4xf32>
  %3 = graph.cast %2 {to = i64} : tensor<1x6x5x4xi64>
  %4 = graph.cast %3 {to = f32} : tensor<1x6x5x4xf32>
  func.return %4 : tensor<1x6x5x4xf32>
}
"""


def mlir_opt(text: str) -> str:
    """What mlir-opt prints for a text."""
    command = [TOOL, "--allow-unregistered-dialect", "--mlir-print-op-generic", "--mlir-print-debuginfo"]
    found = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60)
    assert found.returncode == 0, found.stderr
    return found.stdout


@pytest.fixture(scope="module")
def skeleton() -> dict[str, str]:
    """The generic form of the walking skeleton by level."""
    module, texts = load_module(FILE), {}
    set_target(module, "tiny")
    for level, one in PASSES.items():
        if one is not None:
            PassManager([one]).run(module)
        texts[level] = print_module(module, generic=True)
    return texts


@pytest.mark.parametrize("level", PASSES)
def test_the_generic_form_of_every_level_is_mlir(skeleton, level):
    printed = mlir_opt(skeleton[level])
    for dialect in {"qnn": ("qnn.", "quant.uniform"), "layers": ("npu.",)}.get(level, ("npu.",)):
        assert printed.count(dialect) >= 2


def test_the_generic_form_of_graph_is_mlir():
    text = print_module(parse_module(GRAPH), generic=True)
    printed = mlir_opt(text)
    assert printed.count('"graph.') == sum(text.count(f'"{op.name}"') for op in graph.OPS) == 7


def test_mlir_opt_does_refuse(skeleton):
    text = skeleton["layers"].replace("!npu.buffer<", "!npu.buffer<<", 1)
    with pytest.raises(AssertionError, match="error"):
        mlir_opt(text)
