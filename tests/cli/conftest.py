"""A small model, its calibration data and its compiled program, made once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import pytest
from nacre.cli.main import main
from onnx import TensorProto, helper, numpy_helper


class Result(NamedTuple):
    """What a command line left: exit code, stdout, stderr."""

    code: int
    out: str
    err: str


Nacre = Callable[..., Result]


@pytest.fixture
def nacre(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Nacre:
    """Run a command line in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*argv: object) -> Result:
        capsys.readouterr()
        code = main([str(a) for a in argv])
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return run


@pytest.fixture(name="make_model")
def make_model_fixture() -> Callable[..., Path]:
    """The function below, for tests."""
    return make_model


def make_model(
    path: Path, batch: int | str = 1, extra: str | None = None, weight: np.ndarray | None = None
) -> Path:
    """conv1 + relu1 + flat + fc, with an operator `extra` behind, called `odd`."""
    rng = np.random.default_rng(0)
    values = {
        "w": rng.normal(size=(8, 3, 3, 3)) if weight is None else weight,
        "b": rng.normal(size=8), "w2": rng.normal(size=(512, 10)), "b2": rng.normal(size=10),
    }  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], name="conv1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], name="relu1"),
        helper.make_node("Flatten", ["r"], ["f"], name="flat"),
        helper.make_node("Gemm", ["f", "w2", "b2"], ["z" if extra else "y"], name="fc"),
    ]
    if extra:
        nodes.append(helper.make_node(extra, ["z"], ["y"], name="odd"))
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 10])],
        [numpy_helper.from_array(a.astype(np.float32), n) for n, a in values.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, path)
    return path


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with model.onnx, samples.npy, x.npy, and the program model.nacre for `tiny`."""
    folder = tmp_path_factory.mktemp("files")
    make_model(folder / "model.onnx")
    rng = np.random.default_rng(1)
    np.save(folder / "samples.npy", rng.normal(size=(4, 3, 8, 8)).astype(np.float32))
    np.save(folder / "x.npy", rng.normal(size=(1, 3, 8, 8)).astype(np.float32))
    samples, out = str(folder / "samples.npy"), str(folder / "model.nacre")
    options = ["--target", "tiny", "--calibration", samples, "-o", out]
    assert main(["compile", str(folder / "model.onnx"), *options]) == 0
    return folder
