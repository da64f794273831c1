"""The example of an operator from outside, installed as somebody else's package, from ONNX file to emulator."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "custom_operator"

USE = """
import nacre, numpy as np, onnx
from nacre.dialects.text import parse_module, print_module
model = onnx.parser.parse_model('''
  <ir_version: 8, opset_import: ["" : 17, "com.example" : 1]>
  periodic (float[1, 4, 8, 8] x) => (float[1, 4, 8, 8] y)
  <float[4, 4, 1, 1] w = {%s}> {
    c = Conv(x, w)
    s = com.example.Snake<frequency = 1.5>(c)
    y = Add(s, x)
  }''' % ", ".join("%%.3f" %% v for v in np.linspace(-0.5, 0.5, 16)))
x = np.random.default_rng(0).normal(size=(1, 4, 8, 8)).astype(np.float32)
w = np.float32([float("%%.3f" %% v) for v in np.linspace(-0.5, 0.5, 16)]).reshape(4, 4)
c = np.einsum("oc,nchw->nohw", w, x)
expected = c + np.sin(1.5 * c) ** 2 / 1.5 + x
for dtype, bound in (("float32", 1e-5), ("int8", 0.1)):
    program = nacre.compile(model, target="tiny", dtype=dtype, calibration=[{"x": x}])
    (y,) = nacre.Session(program, sanitize=True).run(None, {"x": x})
    assert np.abs(y - expected).max() <= bound, (dtype, np.abs(y - expected).max())
    for level, module in program.levels.items():
        parse_module(print_module(module))
    levels = {n: print_module(m) for n, m in program.levels.items()}
    assert "snake.snake" in levels["graph"]
    assert ("@snake" in levels["npu"]) == (dtype == "float32"), "8-bit layers look it up in a table"
print("fine")
""".replace("%%", "%")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package in it, as pip leaves it."""
    folder = tmp_path_factory.mktemp("site")
    # Built from a copy: setuptools leaves its build folders beside the sources.
    source = folder / "source"
    subprocess.run(["cp", "-r", str(EXAMPLE), str(source)], check=True)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--target", str(folder / "packages"), str(source)], check=True, capture_output=True)
    return folder / "packages"


def test_from_onnx_file_to_emulator(installed: Path, tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", USE], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "fine\n", done.stderr


def test_one_python_file_and_one_kernel() -> None:
    files = sorted(f.name for f in (EXAMPLE / "nacre_snake").iterdir() if f.is_file())
    assert files == ["__init__.py", "snake.cl"]
