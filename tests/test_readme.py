"""README.md tells the truth: its Python runs, its commands print what it shows, what it links to exists.

`make docs` runs this file: that puts what the commands print now into README.md.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
CONSOLE = re.findall(r"^```console\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def prepared(folder: Path) -> Path:
    """A folder in which the repository's own paths work and files can be written."""
    for name in ("examples", "runtime"):
        (folder / name).symlink_to(ROOT / name)
    return folder


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return prepared(tmp_path)


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


def outputs(session: str, folder: Path) -> Iterator[tuple[str, str, str]]:
    """(command as shown, output as shown, output now) for each command of a console block, run in order."""
    for part in re.split(r"^\$ ", session, flags=re.MULTILINE)[1:]:
        first = re.match(r"(?:.*\\\n)*.*\n", part)
        assert first is not None
        command, shown = first[0], part[first.end() :]
        done = run(["bash", "-c", command], folder)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        yield command, shown, done.stdout


def without_figures(text: str) -> str:
    """Text without its numbers, which `make docs` brings up to date, and the widths that depend on them."""
    return re.sub(r"[\s─]+", " ", re.sub(r"[\d.,]*\d|(?<=\d )[mµ]?s\b", "#", text)).strip()


@pytest.mark.slow
@pytest.mark.parametrize("session", CONSOLE, ids=range(len(CONSOLE)))
def test_commands_print_what_is_shown(session: str, place: Path) -> None:
    for command, shown, printed in outputs(session, place):
        assert without_figures(shown) == without_figures(printed), f"{command}; run `make docs`"


def test_other_words_are_seen() -> None:
    assert without_figures("cycles   1,024\n") == without_figures("cycles 7\n")
    assert without_figures("cycles 7") != without_figures("macs 7")
    assert without_figures("") != without_figures("7")


def updated(text: str, folder: Path) -> str:
    """The README with what its commands print now."""

    def again(block: re.Match[str]) -> str:
        parts = [f"$ {command}{printed}" for command, _, printed in outputs(block[1], folder)]
        lines = "".join(parts).splitlines()
        return "\n".join(["```console", *(line.rstrip() for line in lines), "```\n"])

    return re.sub(r"^```console\n(.*?)^```\n", again, text, flags=re.MULTILINE | re.DOTALL)


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


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        (ROOT / "README.md").write_text(updated(README, prepared(Path(temporary))), encoding="utf-8")
