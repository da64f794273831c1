"""Each subcommand does its work on a small model."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from nacre.cli.main import COMMANDS, main

LEVELS = ("graph", "qnn", "npu", "schedule")


def compile_options(files: Path) -> list[object]:
    return [files / "model.onnx", "--target", "tiny", "--calibration", files / "samples.npy"]


def outputs(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as loaded:
        return dict(loaded)


@pytest.mark.parametrize("command", [(), *((c,) for c in COMMANDS)])
def test_help_teaches_with_an_example(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "84")
    with pytest.raises(SystemExit) as left:
        main([*command, "--help"])
    shown = capsys.readouterr()
    assert left.value.code == 0 and not shown.err
    assert f"\n  nacre {' '.join(command)}" in shown.out
    assert max(map(len, shown.out.splitlines())) <= 84


def test_usage_errors_leave_with_2(capsys):
    for argv in ([], ["compil"], ["run"], ["compile", "m.onnx", "--stop-after", "binary"]):
        with pytest.raises(SystemExit) as left:
            main(argv)
        assert left.value.code == 2
        assert "usage: nacre" in capsys.readouterr().err


# --- compile and run -------------------------------------------------------------------------------------
def test_compile_writes_a_program_and_reports_it(nacre, files):
    found = nacre("compile", *compile_options(files))
    assert (found.code, found.err) == (0, "")
    assert "model.nacre" in found.out and "cycles" in found.out
    assert Path("model.nacre").read_bytes() == (files / "model.nacre").read_bytes()
    assert sorted(p.name for p in Path().iterdir()) == ["model.nacre"]


def test_compile_reports_as_json(nacre, files):
    found = nacre("compile", *compile_options(files), "--json", "-o", "m.nacre")
    report = json.loads(found.out)
    assert report["bytes"] == Path("m.nacre").stat().st_size
    assert report["profile"]["macs"] == 8 * 8 * 9 * 3 * 8 + 512 * 10
    assert {"quantise-to-qnn", "npu-tile"} <= set(report["seconds"])


def test_all_levels_run_and_the_integer_ones_agree(nacre, files):
    feed = f"x={files / 'x.npy'}"
    for level in LEVELS:
        assert nacre("compile", *compile_options(files), "--stop-after", level).code == 0
        assert Path(f"model.{level}.safetensors").exists()
        assert nacre("run", f"model.{level}.mlir", "--input", feed, "--output", f"{level}.npz").code == 0
    assert nacre("run", files / "model.nacre", "--input", feed, "--output", "program.npz").code == 0
    assert nacre("run", files / "model.onnx", "--input", feed, "--output", "source.npz").code == 0
    source = onnxruntime.InferenceSession(files / "model.onnx")
    reference = source.run(None, {"x": np.load(files / "x.npy")})[0]
    np.testing.assert_allclose(outputs(Path("source.npz"))["y"], reference, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(outputs(Path("graph.npz"))["y"], reference, rtol=1e-4, atol=1e-4)
    integer = outputs(Path("qnn.npz"))["y"]
    assert np.corrcoef(integer.ravel(), reference.ravel())[0, 1] > 0.99
    assert not np.array_equal(integer, reference)
    for level in ("npu", "schedule", "program"):
        np.testing.assert_array_equal(outputs(Path(f"{level}.npz"))["y"], integer)


def test_run_shows_outputs_profile_and_trace(nacre, files):
    found = nacre("run", files / "model.nacre", "--random", 3, "--sanitize", "--profile", "--trace", "t.json")
    assert (found.code, found.err) == (0, "")
    assert "y = [[" in found.out and "MAC utilisation" in found.out
    assert next(line for line in found.out.splitlines() if line.startswith("conv1+relu1")).split()[1] == "nn"
    events = json.loads(Path("t.json").read_text())["traceEvents"]
    assert {"LOAD", "NN"} <= {e["args"]["name"] for e in events if e["name"] == "thread_name"}


def test_run_as_json(nacre, files):
    found = nacre("run", files / "model.nacre", "--random", 3, "--profile", "--json")
    result = json.loads(found.out)
    assert result["outputs"]["y"]["shape"] == [1, 10] and len(result["outputs"]["y"]["values"][0]) == 10
    assert result["profile"]["layers"]["fc"]["macs"] == 5120


def test_random_feeds_depend_on_the_seed_only(nacre, files):
    shown = [nacre("run", files / "model.onnx", "--random", seed).out for seed in (1, 1, 2)]
    assert shown[0] == shown[1] != shown[2]


def test_no_fuse_gives_the_same_numbers(nacre, files, make_model):
    make_model("m.onnx", extra="Sigmoid")
    counts, results = [], []
    for options in ((), ("--no-fuse",)):
        found = nacre("compile", "m.onnx", *compile_options(files)[1:], *options, "-o", "m.nacre", "--json")
        counts.append(json.loads(found.out)["profile"]["instructions"])
        nacre("run", "m.nacre", "--input", f"x={files / 'x.npy'}", "--output", "out.npz")
        results.append(outputs(Path("out.npz"))["y"])
    np.testing.assert_array_equal(*results)
    assert counts[0] < counts[1]


def test_dtypes_and_methods_make_a_difference(nacre, files):
    samples = np.random.default_rng(2).normal(size=(128, 3, 8, 8)).astype(np.float32)
    samples[0, 0, 0, 0] = 50.0  # what a percentile drops
    np.save("samples.npy", samples)
    calibrated = ["--calibration", "samples.npy"]
    made = set()
    for options in (
        calibrated, [*calibrated, "--dtype", "uint8"], ["--dtype", "float32"],
        [*calibrated, "--calibration-method", "percentile"],
    ):  # fmt: skip
        assert nacre("compile", files / "model.onnx", "--target", "tiny", *options, "-o", "m.nacre").code == 0
        made.add(Path("m.nacre").read_bytes())
    assert len(made) == 4


def test_shape_fixes_an_open_input(nacre, tmp_path, make_model):
    make_model(tmp_path / "open.onnx", batch="N")
    found = nacre("info", "open.onnx", "--shape", "x=2,3,8,8", "--json")
    assert json.loads(found.out)["outputs"] == [{"name": "y", "shape": [2, 10], "type": "float32"}]


# --- opt -------------------------------------------------------------------------------------------------
def test_opt_lists_passes_with_options(nacre):
    from nacre.passes.manager import Canonicalize, Cse
    from nacre.passes.pipeline import list_passes, parse_passes

    found = nacre("opt", "--list").out
    for name in ("graph-fold-batch-norm", "npu-select", "canonicalize", "quantise-to-qnn"):
        assert f"\n{name}\n    " in "\n" + found
    assert "{dtype: str = int8}" in found
    assert [type(one) for one in parse_passes("canonicalize,cse")] == [Canonicalize, Cse]
    described, others = list_passes()
    assert "convert-arith-to-riscv" in others
    assert all(one.summary for one in described if one.name != "dce")


def test_opt_runs_passes_keeps_names_and_prints_what_it_parses(nacre, files):
    nacre("compile", *compile_options(files), "--stop-after", "graph")
    passes = "quantise-to-qnn{dtype=int8},canonicalize,cse,npu-select,npu-tile,npu-allocate,npu-schedule"
    first = nacre("opt", "model.graph.mlir", "-p", passes)
    assert first.code == 0 and 'loc("fc")' in first.out and "npu.conv after" in first.out
    Path("model.graph.again.mlir").write_text(first.out)  # beside the same store
    second = nacre("opt", "model.graph.again.mlir")
    assert second.out == first.out
    assert nacre("run", "model.graph.again.mlir", "--random", 0).code == 0


def test_opt_reads_stdin_and_writes_text_with_constants(nacre, files, monkeypatch):
    nacre("compile", *compile_options(files), "--stop-after", "graph")
    assert nacre("opt", "model.graph.mlir", "-p", "quantise-to-qnn", "-o", "q.mlir").out == ""
    assert Path("q.safetensors").exists()
    feed = ("--random", 5)
    assert nacre("run", "q.mlir", *feed).code == 0
    monkeypatch.setattr(sys, "stdin", io.StringIO("func.func @main() {\n  func.return\n}\n"))
    assert "func.func @main()" in nacre("opt", "-").out


KERNEL = """__kernel void twice(__global const T *x, __global T *y) {
  int i = get_global_id(0);
  y[i] = x[i] * (1 + 1);
}
"""


def test_opt_reads_kernels(nacre, tmp_path):
    source = tmp_path / "twice.cl"
    source.write_text(KERNEL)
    plain = nacre("opt", source, "-D", "T=int").out
    better = nacre("opt", source, "-D", "T=int", "-p", "canonicalize,cse").out
    assert "ppu.func @twice" in plain and plain.count("ppu.add") > better.count("ppu.add")
    assert "!ppu.ptr<f32, global>" in nacre("opt", source, "-D", "T=float").out


def test_opt_reads_what_kernels_include(nacre, tmp_path):
    folder = tmp_path / "kernels"
    folder.mkdir()
    (folder / "three.cl").write_text("int three(void) { return 3; }\n")
    source = folder / "k.cl"
    source.write_text('#include "three.cl"\n__kernel void f(__global int *x) { x[0] = three(); }\n')
    assert "ppu.constant 3" in nacre("opt", source).out
    (folder / "three.cl").write_text("int three(void) { return 3 }\n")
    assert f"{folder / 'three.cl'}:1:27: error: expected ';'" in nacre("opt", source).err
    (folder / "three.cl").unlink()
    missing = f"{source}:1:1: error: '{folder / 'three.cl'}' cannot be included: No such file or directory"
    assert missing in nacre("opt", source).err


def test_opt_instruments_go_to_stderr(nacre, files):
    nacre("compile", *compile_options(files), "--stop-after", "graph")
    plain = nacre("opt", "model.graph.mlir", "-p", "canonicalize,cse")
    instruments = ("--time-passes", "--print-after=cse", "--verify-each")
    watched = nacre("opt", "model.graph.mlir", "-p", "canonicalize,cse", *instruments)
    assert watched.out == plain.out and not plain.err
    assert watched.err.count("// ----- after") == 1 and "// ----- after cse" in watched.err
    assert "all passes" in watched.err and watched.err.count("graph.conv") == 1
    both = nacre("opt", "model.graph.mlir", "-p", "canonicalize,cse", "--print-after-all")
    assert both.err.count("// ----- after") == 2


def test_opt_prints_generic_and_without_locations(nacre, files):
    nacre("compile", *compile_options(files), "--stop-after", "graph")
    assert '"graph.conv"(' in nacre("opt", "model.graph.mlir", "--generic").out
    assert "loc(" not in nacre("opt", "model.graph.mlir", "--no-locations").out


# --- assembly --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("target", ["tiny", "own.toml", "cpu"])
def test_disassembly_assembles_to_the_same_bytes(nacre, files, tmp_path, target):
    if target == "own.toml":
        from nacre.runtime import machine

        shipped = Path(machine.__file__).parent / "machines" / "tiny.toml"
        text = shipped.read_text().replace("sram_bytes = 8_192", "sram_bytes = 12_288")
        (tmp_path / target).write_text(text)
    options = ["--target", target, "--calibration", files / "samples.npy", "-o", "m.nacre"]
    assert nacre("compile", files / "model.onnx", *options).code == 0
    assert nacre("disasm", "m.nacre", "-o", "m.s").code == 0
    Path("own.toml").unlink(missing_ok=True)  # the text stands alone
    assert nacre("asm", "m.s", "-o", "again.nacre").code == 0
    assert Path("again.nacre").read_bytes() == Path("m.nacre").read_bytes()


def test_disassembly_reads_well(nacre, files):
    found = nacre("disasm", files / "model.nacre")
    assert 'npu.data "x" input at dram[' in found.out
    assert any("npu.conv after %" in line and 'loc("conv1+relu1")' in line for line in found.out.splitlines())


def test_edited_assembly_changes_the_program(nacre, files):
    nacre("disasm", files / "model.nacre", "-o", "m.s")
    text = Path("m.s").read_text()
    edited, count = re.subn(r"(npu\.dequantise .*zero = )-?\d+", r"\g<1>77", text)
    assert count == 1
    Path("m.s").write_text(edited)
    assert nacre("asm", "m.s", "-o", "other.nacre").code == 0
    feed = f"x={files / 'x.npy'}"
    nacre("run", files / "model.nacre", "--input", feed, "--output", "a.npz")
    nacre("run", "other.nacre", "--input", feed, "--output", "b.npz")
    shift = outputs(Path("a.npz"))["y"] - outputs(Path("b.npz"))["y"]
    assert abs(shift).min() > 0 and np.ptp(shift) < 1e-4


# --- info, targets, ops ----------------------------------------------------------------------------------
def test_info_of_a_program(nacre, files):
    found = json.loads(nacre("info", files / "model.nacre", "--check", "--json").out)
    assert found["family"] == "npu" and found["operations"]["npu.conv"] == 1
    assert sum(found["operations"].values()) == found["profile"]["instructions"]
    assert found["profile"]["layers"]["conv1+relu1"]["engines"] == ["nn"]
    assert abs(sum(x["cycles"] for x in found["profile"]["layers"].values()) - found["profile"]["cycles"]) < 9
    assert found["inputs"] == [{"name": "x", "shape": [1, 3, 8, 8], "type": "float32"}]
    shown = nacre("info", files / "model.nacre", "--check").out
    assert "all checksums fit" in shown and "conv1+relu1" in shown


def test_info_of_a_model_and_of_levels(nacre, files):
    found = json.loads(nacre("info", files / "model.onnx", "--json").out)
    assert found["parameters"] == 8 * 27 + 8 + 5120 + 10
    assert found["macs"] == 64 * 27 * 8 + 5120 and found["operations"]["graph.relu"] == 1
    for level in LEVELS:
        nacre("compile", *compile_options(files), "--stop-after", level)
        found = json.loads(nacre("info", f"model.{level}.mlir", "--json").out)
        assert found["level"] == level and found["operations"]
    assert found["profile"]["cycles"] > 0


def test_targets(nacre):
    shown = nacre("targets").out
    assert "tiny" in shown and "v853" in shown and "cpu" in shown
    assert "assumed" in nacre("targets", "v853").out
    assert json.loads(nacre("targets", "tiny", "--json").out)["sram_bytes"] == 8192
    assert nacre("targets", "cpu").code == 0
    assert {f["family"] for f in json.loads(nacre("targets", "--json").out)} >= {"cpu", "npu"}


def test_ops_come_from_the_registries(nacre, monkeypatch):
    from nacre.dialects import graph
    from nacre.frontends.onnx.registry import IMPORTERS

    found = json.loads(nacre("ops", "--json").out)
    status = {o["operator"]: o["status"] for o in found["onnx"]}
    assert status["Conv"] == "imported" and status["BitCast"] == "refused"
    columns = {o["name"]: o for o in found["operations"]}
    assert columns["graph.conv"]["kernel"] and columns["graph.conv"]["quantised"] == "computes"
    assert set(columns) >= {op.name for op in graph.OPS}
    monkeypatch.setitem(IMPORTERS, ("test", "Odd"), {1: lambda node: node})
    assert "test::Odd" in nacre("ops").out


# --- as processes ----------------------------------------------------------------------------------------
def script(name: str) -> str:
    return str(Path(sys.executable).parent / name)


def test_the_entry_point_and_a_closed_pipe(files):
    done = subprocess.run([script("nacre"), "--version"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("nacre ")
    command = subprocess.Popen(
        [script("nacre"), "info", files / "model.nacre"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert command.stdout is not None and command.stderr is not None
    command.stdout.close()
    assert command.stderr.read() == b""
    assert command.wait() == 141


def test_xdsl_opt_has_dialects_and_passes(files, nacre):
    nacre("compile", *compile_options(files), "--stop-after", "graph")
    command = [script("xdsl-opt"), "model.graph.mlir"]
    done = subprocess.run([*command, "--print-op-generic"], capture_output=True, text=True)
    assert '"graph.conv"(' in done.stdout, done.stderr
    passes = (
        "graph-fold-batch-norm,canonicalize,quantise-to-qnn,npu-select,npu-tile,npu-allocate,npu-schedule"
    )
    done = subprocess.run([*command, "-p", passes], capture_output=True, text=True)
    assert "npu.conv after" in done.stdout, done.stderr
    Path("model.graph.low.mlir").write_text(done.stdout)  # its constants were written beside
    assert nacre("run", "model.graph.low.mlir", "--random", 0).code == 0


def test_an_interrupt_leaves_quietly(nacre, files, monkeypatch):
    from nacre.cli import info

    def interrupted(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(info, "program_info", interrupted)
    found = nacre("info", files / "model.nacre")
    assert (found.code, found.out, found.err) == (130, "", "")


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_narrow_terminal_gets_lines_that_fit(files):
    import pty

    ours, theirs = pty.openpty()
    environment = os.environ | {"COLUMNS": "60", "TERM": "xterm"}
    command = [script("nacre"), "info", files / "model.nacre"]
    done = subprocess.Popen(command, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    shown = b""
    try:
        while chunk := os.read(ours, 65536):
            shown += chunk
    except OSError:
        pass  # Linux says "no more" in this way
    assert done.wait() == 0
    lines = re.sub(r"\x1b\[[0-9;]*m", "", shown.decode()).splitlines()
    assert max(map(len, lines)) <= 60 and any("conv1" in line for line in lines)


def test_without_a_terminal_long_work_gives_lines(monkeypatch, capsys):
    from nacre.cli import screen

    for patience, expected in ((1e9, []), (0.0, ["nacre: cse (1 of 2)", "nacre: calibrating (7 done)"])):
        monkeypatch.setattr(screen, "QUIET_SECONDS", patience)
        with screen.progress() as report:
            report("cse", 1, 2)
            report("calibrating", 7, None)
        assert capsys.readouterr().err.splitlines() == expected


def test_text_of_a_level_compiles_to_the_same_program(nacre, files):
    for level in ("graph", "qnn"):
        assert nacre("compile", *compile_options(files), "--stop-after", level).code == 0
        assert nacre("compile", f"model.{level}.mlir", "--target", "tiny", "-o", "m.nacre").code == 0
        assert Path("m.nacre").read_bytes() == (files / "model.nacre").read_bytes()


def test_the_graph_level_needs_no_calibration(nacre, files):
    options = ("--target", "tiny", "--stop-after", "graph")
    assert nacre("compile", files / "model.onnx", *options).code == 0
    assert nacre("run", "model.graph.mlir", "--random", 0).code == 0


def test_progress_names_passes_in_order(files):
    import nacre as package

    seen: list[tuple[str, int, int | None]] = []
    package.compile(
        files / "model.onnx", target="tiny", calibration=files / "samples.npy",
        progress=lambda *what: seen.append(what),
    )  # fmt: skip
    passes = [(n, total) for name, n, total in seen if total is not None]
    assert [n for n, _ in passes] == list(range(1, len(passes) + 1)) and passes[-1][1] == len(passes)
    assert ("calibrating", 4, None) in seen
