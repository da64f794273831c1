"""README.md tells the truth: its Python runs, its commands print what it shows, what it links to exists."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
CONSOLE = re.findall(r"^```console\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder in which the repository's own paths work and files can be written."""
    for name in ("examples", "runtime"):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """A process of its own: what an example registers is gone with it."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "OMP_NUM_THREADS": "1", "COLUMNS": "80"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("code", PYTHON, ids=range(len(PYTHON)))
def test_python_runs(code: str, place: Path) -> None:
    done = run([sys.executable, "-c", code], place)
    assert done.returncode == 0, done.stderr


def test_there_is_python_to_run() -> None:
    assert len(PYTHON) == 4
    assert all("assert " in code for code in PYTHON)


def same(shown: str, printed: str) -> bool:
    """Whether the lines shown are those printed; … stands for anything, a line of it for any lines."""
    pattern = re.escape(shown.rstrip("\n")).replace("…", ".*")
    return re.fullmatch(pattern, printed.rstrip("\n"), re.DOTALL) is not None


@pytest.mark.parametrize("session", CONSOLE, ids=range(len(CONSOLE)))
def test_commands_print_what_is_shown(session: str, place: Path) -> None:
    for part in re.split(r"^\$ ", session, flags=re.MULTILINE)[1:]:
        command, _, shown = part.replace("\\\n", "").partition("\n")
        done = run(["bash", "-c", command], place)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        assert same(shown, done.stdout), f"{command}\n--- shown\n{shown}\n--- printed\n{done.stdout}"


def test_a_wrong_output_is_seen() -> None:
    assert same("a …\nb", "a 1\nb\n")
    assert not same("a …\nb", "a 1\nc\n")
    assert not same("", "something")


def pages() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_links_and_paths_lead_somewhere(page: Path) -> None:
    """Relative links, and every `folder/file` in backquotes that begins with a folder of the repository."""
    text = page.read_text(encoding="utf-8")
    links = [page.parent / target for target in re.findall(r"\]\(([^)#:\s]+)(?:#\w+)?\)", text)]
    folders = "|".join(p.name for p in ROOT.iterdir() if p.is_dir() and not p.name.startswith("."))
    links += [ROOT / path for path in re.findall(rf"`((?:{folders})/[\w./-]*)`", text)]
    missing = [str(path) for path in links if not path.exists()]
    assert not missing
    assert links or page.name == "isa.md"


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_tests_that_are_named_exist(page: Path) -> None:
    """`tests/…/test_x.py` followed by `test_name` in one table row or sentence: the function is there."""
    text = page.read_text(encoding="utf-8")
    defined = {
        name
        for file in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", file.read_text(encoding="utf-8"), re.MULTILINE)
    }
    named = set(re.findall(r"`(test_\w+)`", text))
    assert named <= defined, sorted(named - defined)
    if page.name == "numerics.md":
        assert len(named) > 10
