"""`nacre info` of kernels: of the text of ppu functions, and of OpenCL C sources."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

SOURCE = """__constant float table[3] = {1, 2, 3};
__kernel __attribute__((reqd_work_group_size(4, 2, 1)))
void scale(__global const float *x, float a, __global T *y, __local int *s) {
  __local short t[8];
  int p[3];
  int i = get_global_id(0), k = i;
  t[i & 7] = i;
  barrier(CLK_LOCAL_MEM_FENCE);
  if (i > 2) do { p[i % 3] = t[i & 7]; k += p[0]; } while (k < 9);
  y[i] = x[i] * sqrt(a) / table[i % 3];
}
__kernel void nothing(int n) { }
"""


@pytest.fixture
def source(tmp_path: Path) -> str:
    (tmp_path / "k.cl").write_text(SOURCE)
    return "k.cl"


def test_kernels_of_a_source_and_of_its_text(nacre, source):
    assert nacre("opt", source, "-D", "T=float", "-o", "k.mlir").code == 0
    of_text = json.loads(nacre("info", "k.mlir", "--json").out)
    of_source = json.loads(nacre("info", source, "-D", "T=float", "--json").out)
    assert (of_text.pop("file"), of_source.pop("file")) == ("k.mlir", "k.cl")
    assert of_text == of_source and of_text["level"] == "ppu"
    scale, nothing = of_text["kernels"]
    assert [p["type"] for p in scale["parameters"]] == [
        "!ppu.ptr<f32, global>", "f32", "!ppu.ptr<f32, global>", "!ppu.ptr<i32, local>"
    ]  # fmt: skip
    assert [p["name"] for p in scale["parameters"]] == ["x", "a", "y", "s"]
    assert (scale["name"], scale["group"]) == ("scale", [4, 2, 1])
    assert [scale[f"{kind}_bytes"] for kind in ("local", "private", "table")] == [16, 12, 12]
    counts = scale["instructions"]
    expected = {"float": 1, "divide": 3, "root": 1, "memory": 7, "control": 2, "barrier": 1}
    assert {name: n for name, n in counts.items() if name != "integer"} == expected
    assert scale["cycles"] == counts["integer"] + 1 + 3 * 8 + 8 + 7 + 2 + 1
    assert nothing == {
        "name": "nothing", "parameters": [{"name": "n", "type": "i32"}], "group": None, "local_bytes": 0,
        "private_bytes": 0, "table_bytes": 0, "instructions": {}, "cycles": 0,
    }  # fmt: skip


def test_instructions_are_those_that_a_launch_is_counted_for(nacre, tmp_path):
    """In a kernel whose instructions all run once."""
    from nacre.frontends.opencl import compile_opencl
    from nacre.runtime.ppu import cost, kernel_named, prepare

    text = "__kernel void f(__global float *y, int n) { int i = get_global_id(0); y[i] = sqrt(y[n / 3] + n); }"
    (tmp_path / "f.cl").write_text(text)
    (found,) = json.loads(nacre("info", "f.cl", "--json").out)["kernels"]
    launched = cost(prepare(kernel_named(compile_opencl(text, "f.cl"), "f")), [None, 6], 8, lanes=8)
    assert (found["instructions"], found["cycles"]) == (launched.issued, launched.cycles)


def test_kernels_for_people(nacre, source):
    shown = nacre("info", source, "-D", "T=float").out
    assert "x  !ppu.ptr<f32, global>\n" in shown and "[4, 2, 1]" in shown and "any" in shown
    head, scale, nothing = shown.splitlines()[-3:]
    assert head == "kernel    integer  float  divide  root  memory  control  barrier  cycles once"
    assert scale.split()[0] == "@scale" and scale.split()[2:8] == ["1", "3", "1", "7", "2", "1"]
    assert nothing.split() == ["@nothing", *"00000000"]


def test_what_is_no_kernel_is_said(nacre, files, source):
    Path("empty.cl").write_text("#ifdef T\n__kernel void f(T x) { }\n#endif\n")
    Path("empty.mlir").write_text("builtin.module {}")
    for argv, reason in (
        (("k.cl",), "k.cl:3:55: error: "),
        (("no.cl",), "'no.cl' cannot be read: No such file or directory"),
        (("empty.cl",), "'empty.cl' holds no kernel with these macros"),
        (("empty.mlir",), "the module has no function @main"),
        (("k.cl", "--shape", "x=1"), "--shape: kernels have no shapes"),
        (("k.cl", "--check"), "--check compares the checksums of a .nacre file"),
        ((files / "model.nacre", "-D", "T=int"), "-D is for .cl sources"),
    ):
        found = nacre("info", *argv)
        assert (found.code, found.out) == (1, "") and found.err.startswith(f"nacre: error: {reason}"), found.err
