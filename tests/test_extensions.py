"""An operator of an outside package goes from ONNX file to emulator without a change in this repository."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

OPERATORS = """
from nacre.dialects import graph
from nacre.dialects.text import add_dialect
from nacre.frontends.onnx import importer
from nacre.runtime.kernel import kernel
from xdsl.ir import Dialect
from xdsl.irdl import irdl_op_definition

@irdl_op_definition
class CubeOp(graph.UnaryOp):
    name = "outside.cube"

add_dialect(Dialect("outside", [CubeOp]))

@kernel(CubeOp)
def cube(p, x):
    return x * x * x

@importer("Cube", domain="com.outside")
def import_cube(node):
    return node.emit(CubeOp, node.operand(0))
"""

USE = """
import nacre, numpy as np, onnx
model = onnx.parser.parse_model('''
  <ir_version: 8, opset_import: ["" : 17, "com.outside" : 1]>
  example (float[1, 8, 4, 4] x) => (float[1, 8, 4, 4] y) { y = com.outside.Cube(x) }''')
x = np.linspace(-2, 2, 128, dtype=np.float32).reshape(1, 8, 4, 4)
for target, dtype, bound in (("tiny", "int8", 0.15), ("cpu", "float32", 1e-6)):
    program = nacre.compile(model, target=target, dtype=dtype, calibration=[{"x": x}])
    (y,) = nacre.Session(program).run(None, {"x": x})
    assert np.abs(y - x**3).max() <= bound, (dtype, np.abs(y - x**3).max())
try:
    nacre.compile(model, target="tiny", dtype="float32")
except nacre.errors.CompileError as error:
    assert "no kernel of the npu family runs outside.cube" in str(error) and ".cl" in str(error)
    print("fine")
"""


PASS = """
from dataclasses import dataclass
from nacre.dialects import ppu
from nacre.passes.base import NacrePass
from nacre.passes.pattern import defined_by, pattern
from nacre.passes.rewrite import rewrite

@pattern(ppu.MulOp)
def shifted(op, rewriter):
    factor = defined_by(op.operands[1], ppu.ConstantOp)
    if factor is not None and factor.number() == 8:
        amount = ppu.ConstantOp.of(3, op.results[0].type)
        made = ppu.ShlOp.make(op.operands[0], amount.results[0])
        rewriter.replace(op, [amount, made], [made.results[0]])

@dataclass(frozen=True)
class ShiftPass(NacrePass):
    \"\"\"Multiply by 8 with a shift.\"\"\"
    name = "outside-shift"

    def run(self, module):
        rewrite(module, shifted)
"""


def installed(folder: Path, operators: str) -> None:
    """What `pip install` of an outside package leaves behind."""
    (folder / "outside_operators.py").write_text(operators)
    info = folder / "outside-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outside\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[nacre.operators]\noutside = outside_operators\n")


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1", "PATH": ""}
    return subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True)


def test_an_outside_operator_compiles_and_runs(tmp_path: Path) -> None:
    installed(tmp_path, OPERATORS)
    done = run(tmp_path, "-c", USE)
    assert done.stdout == "fine\n", done.stderr


def test_an_outside_pass_runs_on_kernels(tmp_path: Path) -> None:
    installed(tmp_path, PASS)
    (tmp_path / "k.cl").write_text("__kernel void f(__global int *x) { x[0] = x[1] * 8; }")
    opt = ("-m", "nacre.cli.main", "opt")
    assert "outside-shift\n    Multiply by 8 with a shift.\n" in run(tmp_path, *opt, "--list").stdout
    done = run(tmp_path, *opt, str(tmp_path / "k.cl"), "-p", "canonicalize,outside-shift")
    assert done.returncode == 0 and "ppu.shl" in done.stdout and "ppu.mul" not in done.stdout, done.stderr


def test_a_broken_outside_package_is_named(tmp_path: Path) -> None:
    installed(tmp_path, "import nothing_of_this_name")
    done = run(tmp_path, "-m", "nacre.cli.main", "targets")
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and "'outside' (outside_operators)" in done.stderr
