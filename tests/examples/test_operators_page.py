"""docs/operators.md tells the truth: its package, installed, takes its network from ONNX to the emulator."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "operators.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A folder with the package as pip leaves it."""
    (kernel,), (module, _) = blocks("c"), blocks("python")
    folder, info = tmp_path / "nacre_rms", tmp_path / "nacre_rms-1.0.dist-info"
    folder.mkdir()
    info.mkdir()
    (folder / "rms.cl").write_text(kernel)
    (folder / "__init__.py").write_text(module)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: nacre-rms\nVersion: 1.0\n")
    entry = re.search(r'entry-points\."nacre\.operators"\]\n\s+(rms = "nacre_rms")', PAGE)
    assert entry is not None
    (info / "entry_points.txt").write_text(f"[nacre.operators]\n{entry[1]}\n".replace('"', ""))
    return tmp_path


def run(package: Path, code: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(package), "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, "-c", code], env=environment, cwd=package, capture_output=True, text=True)


def test_what_the_page_shows_runs(package: Path) -> None:
    done = run(package, blocks("python")[1])
    assert done.returncode == 0 and "assert" in blocks("python")[1], done.stderr


def test_a_barrier_less_than_the_page_has_is_a_race(package: Path) -> None:
    kernel = package / "nacre_rms" / "rms.cl"
    kernel.write_text(kernel.read_text().replace("barrier(CLK_LOCAL_MEM_FENCE);", "", 1))
    done = run(package, blocks("python")[1])
    assert "there is no barrier in between" in done.stderr, done.stderr


def test_a_grid_that_is_no_multiple_of_the_group_is_refused(package: Path) -> None:
    module = package / "nacre_rms" / "__init__.py"
    module.write_text(module.read_text().replace("grid=(GROUP,", "grid=(GROUP + 1,"))
    done = run(package, blocks("python")[1])
    assert "rms.cl: kernel 'rms_norm' runs in groups of [16, 1, 1], but its launch rule in nacre_rms" in done.stderr


@pytest.mark.parametrize(
    ("there", "instead", "reason"),
    [
        ("* scale[i];", "* scale[i]", "layer 'y': rms.cl:18:81: error: expected ';' after ']'"),
        ("* scale[i];", "* scale[i + 1];", "layer 'y': rms.cl:18:73: kernel 'example.rms_norm': reads 'scale'[24]"),
    ],
)
def test_a_mistake_in_a_kernel_is_told_with_the_layer_when_calibration_runs_it(
    package: Path, there: str, instead: str, reason: str
) -> None:
    kernel = package / "nacre_rms" / "rms.cl"
    kernel.write_text(kernel.read_text().replace(there, instead))
    done = run(package, blocks("python")[1].replace('("float32", 1e-5)', '("uint8", 0.05)'))
    assert reason in done.stderr, done.stderr


def test_an_operator_without_a_tile_rule_is_refused_by_name(package: Path) -> None:
    module = package / "nacre_rms" / "__init__.py"
    module.write_text(module.read_text().replace("@launch_tiles(RmsNormOp)\n", ""))
    done = run(package, blocks("python")[1])
    assert "no tile rule is registered for the kernel of example.rms_norm" in done.stderr, done.stderr
