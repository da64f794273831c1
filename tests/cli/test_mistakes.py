"""A user's mistake is one line on stderr that names what is wrong, exit code 1, and no file left behind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nacre.cli.main import main
from nacre.runtime import machine

TARGET = ("--target", "tiny")


@pytest.fixture
def refused(nacre, tmp_path):
    """Run a command line that has to be refused; gives its one line."""

    def run(*argv: object) -> str:
        before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
        found = nacre(*argv)
        assert found.code == 1, found
        assert found.out == ""
        assert found.err.startswith("nacre: error: ") and found.err.count("\n") == 1, found.err
        assert len(found.err) < 600, found.err
        assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
        return found.err

    return run


@pytest.fixture
def calibrated(files):
    return (*TARGET, "--calibration", files / "samples.npy")


@pytest.fixture
def graph_text(nacre, files, calibrated) -> str:
    """model.graph.mlir lies in the current folder."""
    assert nacre("compile", files / "model.onnx", *calibrated, "--stop-after", "graph").code == 0
    return Path("model.graph.mlir").read_text()


# --- models ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("command", ["compile", "run", "info"])
def test_truncated_garbage_empty_missing_models(refused, files, command):
    whole = (files / "model.onnx").read_bytes()
    contents = {"cut": whole[: len(whole) // 2], "garbage": bytes(range(256)) * 9, "empty": b""}
    for name, content in contents.items():
        Path(f"{name}.onnx").write_bytes(content)
        assert f"{name}.onnx" in refused(command, f"{name}.onnx")
    assert "missing.onnx" in refused(command, "missing.onnx")
    Path("folder").mkdir()
    assert "folder" in refused(command, "folder")


def test_unknown_operator(refused, make_model, calibrated):
    make_model("odd.onnx", extra="NoSuchThing")
    found = refused("compile", "odd.onnx", *calibrated)
    assert "'odd'" in found and "NoSuchThing" in found


def test_known_operator_that_is_refused(refused, make_model, calibrated):
    make_model("odd.onnx", extra="Det")
    assert "'odd' (Det)" in refused("compile", "odd.onnx", *calibrated)


def test_dynamic_shape(refused, make_model, calibrated):
    make_model("open.onnx", batch="N")
    for command in (("compile", "open.onnx", *calibrated), ("info", "open.onnx"), ("run", "open.onnx")):
        assert "--shape x=1,3,8,8" in refused(*command)
    assert "[1, 3, 9, 8]" in refused("compile", "open.onnx", *calibrated, "--shape", "x=1,3,9,8")
    assert "'z'" in refused("compile", "open.onnx", *calibrated, "--shape", "z=1,3,8,8")
    for text in ("1,3,8,8", "x=1,a", "x="):
        assert f"'{text}'" in refused("compile", "open.onnx", *calibrated, "--shape", text)


def test_nan_in_weights(refused, make_model, calibrated):
    weight = np.zeros((8, 3, 3, 3))
    weight[1, 2, 0, 0] = np.nan
    make_model("nan.onnx", weight=weight)
    found = refused("compile", "nan.onnx", *calibrated)
    assert "'conv1'" in found and "NaN" in found


# --- calibration -----------------------------------------------------------------------------------------
def test_calibration_data(refused, files, tmp_path):
    model = (files / "model.onnx", *TARGET)
    assert "--calibration" in refused("compile", *model)
    assert "nowhere" in refused("compile", *model, "--calibration", "nowhere")
    Path("none").mkdir()
    assert "none" in refused("compile", *model, "--calibration", "none")
    Path("bad.npy").write_bytes(b"not an array")
    assert "bad.npy" in refused("compile", *model, "--calibration", "bad.npy")
    np.save("shape.npy", np.zeros((1, 3, 8, 9), np.float32))
    found = refused("compile", *model, "--calibration", "shape.npy")
    assert "'x'" in found and "[1, 3, 8, 9]" in found
    np.savez("name.npz", x=np.zeros((1, 3, 8, 8), np.float32), z=np.zeros(3))
    assert "'z'" in refused("compile", *model, "--calibration", "name.npz")
    samples = ("--calibration", files / "samples.npy")
    found = refused("compile", *model, *samples, "--calibration-method", "maximal")
    assert "maximal" in found and "min-max" in found


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_in_calibration_data(refused, files, value):
    sample = np.zeros((1, 3, 8, 8), np.float32)
    sample[0, 1, 2, 3] = value
    np.save("nan.npy", sample)
    found = refused("compile", files / "model.onnx", *TARGET, "--calibration", "nan.npy")
    assert "'x'" in found and "sample 0" in found


# --- targets ---------------------------------------------------------------------------------------------
def test_unknown_target_and_dtype(refused, files, calibrated):
    samples = calibrated[2:]
    for command in (("compile", files / "model.onnx", "--target", "tinny", *samples), ("targets", "tinny")):
        assert "did you mean 'tiny'?" in refused(*command)
    assert "int7" in refused("compile", files / "model.onnx", *calibrated, "--dtype", "int7")


def test_machine_too_small_or_wrong(refused, files, calibrated):
    text = (Path(machine.__file__).parent / "machines" / "tiny.toml").read_text()
    samples = calibrated[2:]

    def compile_for(changed: str) -> str:
        Path("own.toml").write_text(changed)
        return refused("compile", files / "model.onnx", "--target", "own.toml", *samples)

    small = compile_for(text.replace("sram_bytes = 8_192", "sram_bytes = 64"))
    assert "layer '" in small and "64" in small
    assert "sram_bites" in compile_for(text.replace("sram_bytes =", "sram_bites = 1\nsram_bytes =", 1))
    assert "own.toml" in compile_for(text + "\n[")
    assert "sram_bytes" in compile_for(text.replace("sram_bytes = 8_192", "sram_bytes = -5"))


# --- running ---------------------------------------------------------------------------------------------
def test_inputs_of_a_run(refused, files):
    program = files / "model.nacre"
    good = files / "x.npy"
    assert "x (float32[1, 3, 8, 8])" in refused("run", program)
    assert "'z'" in refused("run", program, "--input", f"x={good}", "--input", f"z={good}")
    assert "twice" in refused("run", program, "--input", f"x={good}", "--input", f"x={good}")
    assert f"'{good}'" in refused("run", program, "--input", good)
    assert "missing.npy" in refused("run", program, "--input", "x=missing.npy")
    Path("bad.npy").write_bytes(b"no array")
    assert "bad.npy" in refused("run", program, "--input", "x=bad.npy")
    for array in (np.zeros((1, 3, 8, 9), np.float32), np.zeros((1, 3, 8, 8))):
        np.save("wrong.npy", array)
        found = refused("run", program, "--input", "x=wrong.npy", "--output", "out.npz")
        assert "'x'" in found and f"{array.dtype}{list(array.shape)}" in found


def test_what_only_programs_have(refused, files, nacre, calibrated):
    model = files / "model.onnx"
    assert "--profile" in refused("run", model, "--random", 0, "--profile")
    assert "--trace" in refused("run", model, "--random", 0, "--trace", "t.json")
    assert "sanitizers" in refused("run", model, "--random", 0, "--sanitize")
    assert "--check" in refused("info", model, "--check")
    nacre("compile", model, "--target", "cpu", *calibrated[2:], "-o", "host.nacre")
    assert "--trace" in refused("run", "host.nacre", "--random", 0, "--trace", "t.json")


def test_where_nothing_can_be_written(refused, files, calibrated):
    model = files / "model.onnx"
    assert "no/where" in refused("compile", model, *calibrated, "-o", "no/where/m.nacre")
    Path("folder").mkdir()
    assert "folder" in refused("compile", model, *calibrated, "-o", "folder")
    assert "no/where" in refused("run", files / "model.nacre", "--random", 0, "--output", "no/where.npz")
    assert "no/where" in refused("run", files / "model.nacre", "--random", 0, "--trace", "no/where.json")
    assert "no/where" in refused("disasm", files / "model.nacre", "-o", "no/where.s")
    assert ".mlir" in refused("compile", model, *calibrated, "--stop-after", "qnn", "-o", "m.nacre")


def test_levels_that_are_never_reached(refused, files, calibrated, graph_text, nacre):
    model, samples = files / "model.onnx", calibrated[2:]
    assert "qnn" in refused("compile", model, *TARGET, "--dtype", "float32", "--stop-after", "qnn")
    assert "cpu" in refused("compile", model, "--target", "cpu", *samples, "--stop-after", "npu")
    nacre("compile", model, *calibrated, "--stop-after", "npu")
    assert "npu level" in refused("compile", "model.npu.mlir", *TARGET)
    assert "address form" in refused("asm", "model.npu.mlir")
    assert "address form" in refused("asm", "model.graph.mlir")
    assert "compiled already" in refused("compile", files / "model.nacre", *TARGET)


# --- text ------------------------------------------------------------------------------------------------
def test_unknown_passes_and_options(refused, graph_text):
    def opt(passes: str, *more: object) -> str:
        return refused("opt", "model.graph.mlir", "-p", passes, *more)

    assert "did you mean 'npu-select'?" in opt("npu-selct")
    assert "did you mean 'dtype'?" in opt("quantise-to-qnn{dtyp=int8}")
    assert "no option 'fast': it has none" in opt("graph-simplify{fast=true}")
    assert "quantise-to-qnn" in opt("quantise-to-qnn{dtype=8}")
    for broken in ("a{", "cse,,cse", "cse}", "{", "cse{a b"):
        assert "pipeline" in opt(broken)
    assert "npu-tile" in opt("npu-tile")
    assert "did you mean 'cse'?" in opt("cse", "--print-after=csee")
    assert "-" in refused("opt", "-p", "cse")


def test_misspelt_text(refused, graph_text):
    def read(old: str, new: str) -> str:
        assert old in graph_text
        Path("bad.mlir").write_text(graph_text.replace(old, new, 1))
        return "".join({refused(command, "bad.mlir") for command in ("opt", "run", "info")})

    assert "did you mean 'graph.conv'?" in read("graph.conv ", "graph.cnv ")
    assert "grph" in read("graph.conv ", "grph.conv ")
    line = 1 + graph_text[: graph_text.index("graph.conv ")].count("\n")
    assert f"bad.mlir:{line}:" in read("pads = [1", "padz = [1")
    assert "layer 'conv1'" in read("strides = [1, 1]", "strides = [2, 2]")
    assert "bad.mlir:" in read("%2", "%222")
    assert "bad.mlir:" in read("func.return", "func.")
    Path("bad.mlir").write_text(graph_text.replace("@main", "@other"))
    for command in ("run", "info", "compile"):
        assert "@main" in refused(command, "bad.mlir")
    Path("bad.mlir").write_bytes(b"\xff\xfe\x00text")
    assert "bad.mlir" in refused("opt", "bad.mlir")


def test_text_cut_anywhere(graph_text, refused):
    for size in range(0, len(graph_text) - 40, 97):
        Path("cut.mlir").write_text(graph_text[:size])
        refused("info", "cut.mlir")


def test_what_xdsl_refuses_is_one_line(refused, files, monkeypatch):
    from nacre.backends import compile as compiling
    from xdsl.utils.exceptions import PassFailedException, VerifyException

    for kind in (PassFailedException, VerifyException):

        def refuse(*args: object, kind: type[Exception] = kind, **options: object) -> None:
            raise kind("the reason\n\nbuiltin.module {\n}")

        monkeypatch.setattr(compiling, "load_model", refuse)
        assert refused("info", files / "model.onnx") == "nacre: error: the reason\n"


def test_a_bug_is_a_traceback(nacre, files, monkeypatch):
    from nacre.cli import info

    def wrong(*args: object) -> None:
        raise KeyError("bug")

    monkeypatch.setattr(info, "program_info", wrong)
    with pytest.raises(KeyError):
        nacre("info", files / "model.nacre")


def test_inputs_that_are_no_fixed_tensors(refused):
    for kind in ("i32", "tensor<?x3xf32>", "memref<3xf32>"):
        Path("m.mlir").write_text(f"func.func @main(%0: {kind}) {{\n  func.return\n}}\n")
        for command in ("run", "info", "compile"):
            refused(command, "m.mlir")


def test_missing_constants(refused, graph_text, files, nacre):
    Path("model.graph.safetensors").unlink()
    assert "model.graph.safetensors" in refused("run", "model.graph.mlir", "--random", 0)
    assert "model.graph.safetensors" in refused("opt", "model.graph.mlir", "-p", "quantise-to-qnn")
    nacre("disasm", files / "model.nacre", "-o", "m.s")
    Path("m.safetensors").write_bytes(b"damaged")
    assert "m.safetensors" in refused("asm", "m.s")
    Path("m.safetensors").unlink()
    assert "m.safetensors" in refused("asm", "m.s", "-o", "m.nacre")


def test_assembly_out_of_bounds(refused, files, nacre):
    nacre("disasm", files / "model.nacre", "-o", "m.s")
    text = Path("m.s").read_text()
    Path("m.s").write_text(text.replace("ifm(sram[", "ifm(sram[9", 1))
    assert "SRAM" in refused("asm", "m.s", "-o", "out.nacre")


# --- damaged programs ------------------------------------------------------------------------------------
def test_programs_that_are_none(refused, files):
    Path("garbage.nacre").write_bytes(b"garbage" * 100)
    Path("empty.nacre").write_bytes(b"")
    for name in ("garbage.nacre", "empty.nacre", "missing.nacre"):
        for command in (("run", name, "--random", 0), ("info", name), ("disasm", name, "-o", "x.s")):
            assert name in refused(*command)


def sections(data: bytes) -> dict[str, tuple[int, int]]:
    from nacre.runtime.flatfile import FlatFile

    file = FlatFile(data, "whole")
    start = file.data.ctypes.data
    return {name: (body.ctypes.data - start, len(body)) for name, body in file.sections.items()}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_is_always_found(files, capsys, tmp_path, data):
    """A flipped bit or a cut anywhere is one line; one in the constants needs --check."""
    whole = bytearray((files / "model.nacre").read_bytes())
    start, length = sections(bytes(whole))["constants"]
    if data.draw(st.booleans(), label="cut"):
        at = data.draw(st.integers(0, len(whole) - 1), label="at")
        damaged = bytes(whole[:at])
        in_constants = False
    else:
        ranges = st.one_of(st.integers(0, len(whole) - 1), st.integers(0, start - 1), st.integers(0, 63))
        at = data.draw(ranges, label="at")
        whole[at] ^= 1 << data.draw(st.integers(0, 7), label="bit")
        damaged = bytes(whole)
        in_constants = start <= at < start + length
    path = tmp_path / "damaged.nacre"
    path.write_bytes(damaged)
    for argv in (["info", "--check"], ["disasm"], *([] if in_constants else [["run", "--random", "0"]])):
        capsys.readouterr()
        code = main([argv[0], str(path), *argv[1:]])
        shown = capsys.readouterr()
        assert (code, shown.out) == (1, ""), argv
        assert shown.err.startswith("nacre: error: ") and shown.err.count("\n") == 1, shown.err


def test_every_byte_in_front_of_the_constants_is_watched(files, tmp_path):
    from nacre.errors import FileFormatError
    from nacre.runtime.flatfile import FlatFile

    whole = bytearray((files / "model.nacre").read_bytes())
    start, length = sections(bytes(whole))["constants"]
    for at in (*range(start), *range(start + length, len(whole))):
        whole[at] ^= 0x20
        with pytest.raises(FileFormatError):
            FlatFile(bytes(whole), "damaged")
        whole[at] ^= 0x20
