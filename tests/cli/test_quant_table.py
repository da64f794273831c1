"""Mixed precision on the command line: --quant-table, --write-quant-table, and what `info` says of types."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest


@pytest.fixture(name="options")
def options_fixture(files) -> list[object]:
    return ["--target", "tiny", "--calibration", files / "samples.npy"]


def table(text: str, name: str = "t.yaml") -> str:
    Path(name).write_text(text)
    return name


def test_compile_with_a_table_and_again_with_the_one_it_wrote(nacre, files, options):
    given = table("layers: {fc: float32, 'conv*': int16}\n")
    done = nacre("compile", files / "model.onnx", *options, "--quant-table", given,
                 "--write-quant-table", "used.yaml", "-o", "a.nacre")  # fmt: skip
    assert (done.code, done.err) == (0, "") and "used.yaml" in done.out
    again = ["compile", files / "model.onnx", "--target", "tiny", "--quant-table", "used.yaml", "-o", "b.nacre"]
    assert nacre(*again).code == 0
    assert Path("a.nacre").read_bytes() == Path("b.nacre").read_bytes() != (files / "model.nacre").read_bytes()
    assert "fc: float32" in Path("used.yaml").read_text()


def test_info_says_where_why_and_how_much(nacre, files, options):
    given = table("layers:\n  fc: {type: float32, why: the last one}\n")
    nacre("compile", files / "model.onnx", *options, "--quant-table", given, "-o", "m.nacre")
    found = json.loads(nacre("info", "m.nacre", "--json").out)
    rows = {row["layer"]: row for row in found["layers"]}
    assert rows["fc"] == {
        "layer": "fc", "operation": "graph.matmul", "type": "float32", "why": "the last one", "engines": ["ppu"],
        "macs": 5120,
    }  # fmt: skip
    assert rows["conv1+relu1"]["type"] == "int8" and rows["conv1+relu1"]["engines"] == ["nn"]
    assert found["macs_by_type"] == {"int8": pytest.approx(13824 / 18944), "float32": pytest.approx(5120 / 18944)}
    shown = nacre("info", "m.nacre").out
    assert "int8 73.0%, float32 27.0%" in shown and "float32: the last one" in shown
    nacre("disasm", "m.nacre", "-o", "m.s")
    nacre("asm", "m.s", "-o", "n.nacre")
    assert Path("n.nacre").read_bytes() == Path("m.nacre").read_bytes()


@pytest.mark.parametrize("target", ["tiny", "cpu"])
def test_info_of_all_levels(nacre, files, options, target):
    given = table("layers: {fc: float32}\n")
    levels = ("qnn", "npu", "schedule") if target == "tiny" else ("qnn",)
    base = ["compile", files / "model.onnx", *options[2:], "--target", target, "--quant-table", given]
    for level in levels:
        assert nacre(*base, "--stop-after", level, "-o", f"{level}.mlir").code == 0
        found = json.loads(nacre("info", f"{level}.mlir", "--json").out)
        assert found["macs_by_type"]["float32"] == pytest.approx(5120 / 18944)
        assert [row["why"] for row in found["layers"] if row["layer"] == "fc"] == ["quant table"]
    assert nacre(*base, "-o", "p.nacre").code == 0
    found = json.loads(nacre("info", "p.nacre", "--json").out)
    assert {row["type"] for row in found["layers"]} == {"int8", "float32"}


def test_info_of_a_model_names_what_has_no_integer_form(nacre, files, make_model):
    make_model(Path("m.onnx"), extra="Erf")
    found = json.loads(nacre("info", "m.onnx", "--json").out)
    assert {row["why"] for row in found["layers"]} == {""} and found["macs_by_type"] == {"float32": 1.0}
    model = onnx.load(files / "model.onnx")
    model.graph.node[1].op_type = "LRN"
    model.graph.node[1].attribute.append(onnx.helper.make_attribute("size", 3))
    onnx.save(model, "lrn.onnx")
    rows = json.loads(nacre("info", "lrn.onnx", "--json").out)["layers"]
    assert {r["layer"]: r["why"] for r in rows if r["why"]} == {"relu1": "graph.lrn has no integer form here"}


def test_verify_and_export_take_tables(nacre, files, options):
    base = ["verify", files / "model.onnx", *options, "--samples", files / "samples.npy", "--json"]
    found = [nacre(*base, "--quant-table", table(f"default: {dtype}\n")) for dtype in ("int8", "int16")]
    assert [done.code for done in found] == [0, 0], found
    assert [json.loads(done.out)["dtype"] for done in found] == ["int8", "int16"]
    given = table("layers: {fc: float32}\n")
    assert nacre("export", files / "model.onnx", *options, "--quant-table", given, "-o", "q.onnx").code == 0
    gemm = next(n for n in onnx.load("q.onnx").graph.node if n.op_type == "Gemm")
    assert all("real" not in name for name in gemm.input[1:]), "its weights are floats"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("layers: {fd: float32}", "quant table: layers.fd is no layer of the model (did you mean 'fc'"),
        ("layers: {fc: float16}", "layers.fc.type is 'float16' (did you mean 'float32'"),
        ("layers: [fc]", "layers is ['fc']: "),
        ("default: uint8", "its default is uint8, but dtype int8 is asked for as well"),
    ],
)
def test_mistakes_are_one_sentence(nacre, files, options, text, message):
    given = table(text)
    done = nacre("compile", files / "model.onnx", *options, "--dtype", "int8", "--quant-table", given, "-o", "m.nacre")
    assert done.code == 1 and message in done.err and done.err.count("\n") == 1
    assert not Path("m.nacre").exists()


def test_files_that_would_overwrite_each_other(nacre, files, options):
    given = table("default: int8\n")
    base = ["compile", files / "model.onnx", *options, "--quant-table", given]
    for more, message in [
        (["-o", given], "is what is read here and would be overwritten"),
        (["--write-quant-table", given], "is what is read here and would be overwritten"),
        (["--write-quant-table", "m.nacre", "-o", "m.nacre"], "--write-quant-table and -o both name 'm.nacre'"),
        (["--write-quant-table", "u.yaml", "--stop-after", "graph"], "nothing is quantised with --stop-after graph"),
        (["--write-quant-table", "no/u.yaml"], "there is no folder 'no'"),
    ]:
        done = nacre(*base, *more)
        assert done.code == 1 and message in done.err, more
    done = nacre("compile", files / "model.onnx", "--dtype", "float32", "--write-quant-table", "u.yaml")
    assert done.code == 1 and "no layer was quantised here" in done.err and not Path("u.yaml").exists()
