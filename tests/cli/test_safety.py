"""Outputs never replace inputs, nothing is ignored in silence, and tables keep to 80 columns."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pytest
from nacre.backends.compile import compile
from nacre.backends.session import Session
from nacre.errors import NacreError
from nacre.runtime import machine
from nacre.runtime.flatfile import write_whole


@pytest.fixture
def refused(nacre, tmp_path):
    """Run a command line that has to be refused in one line and change no file."""

    def run(*argv: object) -> str:
        before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
        found = nacre(*argv)
        assert found.code == 1 and found.err.count("\n") == 1, found
        assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
        return found.err

    return run


@pytest.fixture
def here(files, tmp_path, nacre) -> Path:
    """The files in the current folder, as copies that a mistake may destroy."""
    for file in files.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


OPTIONS = ("--target", "tiny", "--calibration", "samples.npy")


def test_an_output_that_is_an_input(here, refused, nacre):
    Path("link.nacre").symlink_to("model.onnx")
    os.link("model.onnx", "hard.nacre")
    for out in ("model.onnx", "link.nacre", "hard.nacre", "samples.npy"):
        assert "overwritten" in refused("compile", "model.onnx", *OPTIONS, "-o", out)
        assert "overwritten" in refused("export", "model.onnx", *OPTIONS, "-o", out)
    for option in ("--output", "--trace"):
        for out in ("model.nacre", "x.npy"):
            assert "overwritten" in refused("run", "model.nacre", "--input", "x=x.npy", option, out)
    assert "overwritten" in refused("disasm", "model.nacre", "-o", "model.nacre")
    assert nacre("disasm", "model.nacre", "-o", "m.s").out == "written: m.s\n"
    for out in ("m.s", "m.safetensors"):
        assert "overwritten" in refused("asm", "m.s", "-o", out)
    assert "overwritten" in refused("opt", "m.s", "-o", "m.s")


def test_links_pipes_and_permissions(here, nacre):
    (here / "far").mkdir()
    Path("link.nacre").symlink_to("far/real.nacre")
    before = os.umask(0o027)
    try:
        assert nacre("compile", "model.onnx", *OPTIONS, "-o", "link.nacre").code == 0
    finally:
        os.umask(before)
    assert Path("link.nacre").is_symlink()
    assert Path("far/real.nacre").read_bytes() == Path("model.nacre").read_bytes()
    assert Path("far/real.nacre").stat().st_mode & 0o777 == 0o640
    os.mkfifo("pipe")
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(Path("pipe").read_bytes()), daemon=True)
    reader.start()
    write_whole("pipe", b"content")
    reader.join(5)
    assert got == [b"content"] and Path("pipe").is_fifo()
    with pytest.raises(NacreError, match="is a folder"):
        write_whole("far", b"content")
    assert sorted(p.name for p in here.iterdir() if p.name.startswith(".")) == []


@pytest.mark.parametrize("seed", ["-1", "1.5", "x"])
def test_seeds(nacre, files, seed):
    with pytest.raises(SystemExit) as left:
        nacre("run", files / "model.nacre", f"--random={seed}")
    assert left.value.code == 2


def test_calibration_files(here, refused, nacre):
    def told(file: str) -> str:
        text = refused("compile", "model.onnx", "--target", "tiny", "--calibration", file)
        assert file in text and "allow_pickle" not in text
        return text

    for name in ("object.npy", "object.npz"):
        array = np.array([{}], object)
        np.save(name, array) if name.endswith("npy") else np.savez(name, x=array)
        assert "Python objects" in told(name)
    np.savez("cut.npz", x=np.zeros((1, 3, 8, 8), np.float32))
    whole = bytearray(Path("cut.npz").read_bytes())
    whole[300] ^= 255
    Path("cut.npz").write_bytes(whole)
    assert "damaged in 'x'" in told("cut.npz")
    Path("cut.npz").write_bytes(whole[:200])
    assert "no .npy or .npz" in told("cut.npz")
    np.savez("other.npz", image=np.ones((1, 3, 8, 8), np.float32))
    found = nacre("compile", "model.onnx", "--target", "tiny", "--calibration", "other.npz", "-o", "o.nacre")
    assert found.code == 0 and "'image'" in found.err


def test_the_python_interface(files):
    model, samples = files / "model.onnx", files / "samples.npy"
    for shapes in ({"x": "1,3,8,8"}, "x=1", {"x": 3}, {"x": [1.5]}):
        with pytest.raises(NacreError, match="shape"):
            compile(model, target="tiny", shapes=shapes)
    for wrong in (None, 3, b"neither", b""):
        with pytest.raises(NacreError, match="model"):
            compile(wrong, target="tiny")
    with pytest.raises(NacreError, match="target is None"):
        compile(model, target=None)
    program = compile(model.read_bytes(), target="tiny", calibration=samples)
    assert program.to_bytes() == (files / "model.nacre").read_bytes()
    for wrong in (None, b"bytes", 3):
        with pytest.raises(NacreError, match="session"):
            Session(wrong)
    session = Session(program)
    x = np.load(files / "x.npy")
    for names, feeds in ((None, None), (None, [x]), ("y", {"x": x}), (3, {"x": x})):
        with pytest.raises(NacreError, match="give a"):
            session.run(names, feeds)


def test_what_used_to_be_ignored(here, refused):
    assert "'imag'" in refused("run", "model.nacre", "--input", "imag=x.npy")
    for command in ("run", "info"):
        assert "fixed" in refused(command, "model.nacre", "--shape", "x=1,3,8,8")
        assert "fixed" in refused(command, "any.mlir", "--shape", "x=1,3,8,8")


def test_sentences(here, refused, make_model):
    assert "integer dtype" in refused("export", "model.onnx", *OPTIONS, "--dtype", "float32")
    Path("empty.mlir").write_text("")
    Path("empty.s").write_text("\n")
    assert "is empty" in refused("compile", "empty.mlir", *OPTIONS)
    assert "is empty" in refused("asm", "empty.s")
    Path("dir.mlir").mkdir()
    for file in ("dir.mlir", "nope.mlir"):
        assert "Errno" not in refused("opt", file)
    assert "does not exist" in refused("compile", "model.onnx", "--target", "nope.toml")
    text = (Path(machine.__file__).parent / "machines" / "tiny.toml").read_text()
    Path("own.toml").write_text(text.replace("mac_rows =", "mac_row =", 1))
    assert "did you mean 'mac_rows'?" in refused("compile", "model.onnx", "--target", "own.toml")
    for command, file in (("compile", "x.npy"), ("run", "samples.npz")):
        assert ".tflite" in refused(command, file)


def test_a_size_for_images():
    from nacre.frontends.onnx.model import example

    assert example(("N", 3, "H", "W")) == "1,3,224,224"
    assert example(("N", "H", "W", 3)) == "1,224,224,3"
    assert example(("N", 10)) == "1,10"


def test_eighty_columns(here, nacre, capsys):
    for argv in (["targets"], ["targets", "v853"], ["opt", "--list"], ["ops"], ["info", "model.nacre"],
                 ["run", "model.nacre", "--random", "0", "--profile"]):  # fmt: skip
        found = nacre(*argv)
        assert found.code == 0
        assert [line for line in found.out.splitlines() if len(line) > 80] == []
    with pytest.raises(SystemExit):
        nacre("verify", "--help")
    assert [line for line in capsys.readouterr().out.splitlines() if len(line) > 80] == []
    listed = nacre("targets").out + nacre("opt", "--list").out
    assert "float32" in listed.split("tiny", 1)[1] and "\ndce\n    xDSL" in listed
