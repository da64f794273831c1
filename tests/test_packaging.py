"""What an installed Nacre holds, and which folder may import which: the tree against pyproject.toml."""

from __future__ import annotations

import ast
import fnmatch
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SETUPTOOLS = PROJECT["tool"]["setuptools"]
LEFT_OUT = {"tests", "build", "dist", "docs"}
READ_AT_RUN_TIME = {".toml", ".onnx", ".npz", ".cl", ".lark", ".typed", ".json", ".yaml", ".safetensors"}

RANK = {"errors": 0, "extensions": 1, "dialects": 1, "runtime": 2, "passes": 3, "frontends": 3, "backends": 4, "cli": 5}
"""Imports go from a higher number to a lower one, or stay in a folder; folders of equal rank know nothing of
each other."""
TOP = 6
"""What is not listed (lazy root, universe, examples, benchmarks) imports what it likes; nobody imports it."""


# --- the package list and the data files -----------------------------------------------------------------
def folders() -> Iterator[Path]:
    """The repository's folders that belong to the package, the root first; examples may be projects of their own."""

    def below(folder: Path) -> Iterator[Path]:
        if folder != ROOT and (folder / "pyproject.toml").exists():
            return
        yield folder
        for entry in sorted(folder.iterdir()):
            name = entry.name
            if entry.is_dir() and not name.startswith(".") and name.isidentifier() and name != "__pycache__":
                yield from below(entry)

    for folder in below(ROOT):
        if folder == ROOT or folder.relative_to(ROOT).parts[0] not in LEFT_OUT:
            yield folder


def package_of(folder: Path) -> str:
    return ".".join(("nacre", *folder.relative_to(ROOT).parts))


def test_packages_are_the_tree() -> None:
    with_python = {package_of(f) for f in folders() if any(f.glob("*.py"))}
    assert sorted(SETUPTOOLS["packages"]) == sorted(with_python), "correct `packages` in pyproject.toml"


def test_data_files_are_package_data() -> None:
    packages = {p: ROOT.joinpath(*p.split(".")[1:]) for p in SETUPTOOLS["packages"]}
    shipped: set[Path] = set()
    for package, patterns in SETUPTOOLS["package-data"].items():
        for pattern in patterns:
            found = set(packages[package].glob(pattern))
            assert found, f"package-data of {package}: nothing matches {pattern}"
            shipped |= found
    candidates = {p for f in folders() for p in f.iterdir() if p.suffix in READ_AT_RUN_TIME and p.is_file()}
    needed = {p for p in candidates | {ROOT / "py.typed"} if p.name != "pyproject.toml"}
    missing = sorted(str(p.relative_to(ROOT)) for p in needed - shipped)
    assert not missing, f"read at run time, but absent from a wheel: {missing}"


def entry_points() -> list[EntryPoint]:
    project = PROJECT["project"]
    groups = {"console_scripts": project.get("scripts", {})} | project.get("entry-points", {})
    return [EntryPoint(name, value, group) for group, made in groups.items() for name, value in made.items()]


@pytest.mark.parametrize("entry", entry_points(), ids=lambda e: f"{e.group}:{e.name}")
def test_entry_points_load(entry: EntryPoint) -> None:
    assert entry.load() is not None


def test_typing_link_stands_where_the_type_checkers_look() -> None:
    assert PROJECT["tool"]["mypy"]["mypy_path"] == ".venv/typing"
    assert "ln -sfn ../.. .venv/typing/nacre" in (ROOT / "Makefile").read_text(encoding="utf-8")


# --- import direction ------------------------------------------------------------------------------------
def sources() -> dict[str, str]:
    """Every module of the package by dotted name; an `__init__` stands for its folder."""
    found = {}
    for folder in folders():
        for file in folder.glob("*.py"):
            name = package_of(folder) + ("" if file.name == "__init__.py" else f".{file.stem}")
            found[name] = file.read_text(encoding="utf-8")
    return found


def is_package(module: str, modules: Mapping[str, str]) -> bool:
    return module == "nacre" or any(m.startswith(f"{module}.") for m in modules)


class Imported(NamedTuple):
    """One import: of which module, where, whether relative, whether it happens when the program runs."""

    target: str
    line: int
    relative: bool
    executed: bool


def imports(module: str, modules: Mapping[str, str]) -> Iterator[Imported]:
    """All imports of a module, those in functions and those for type checkers included."""
    package = module if is_package(module, modules) else module.rpartition(".")[0]
    tree = ast.parse(modules[module])
    for_types = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Imported(alias.name, node.lineno, False, node not in for_types)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                target = inner if inner in modules else base
                yield Imported(target, node.lineno, node.level > 0, node not in for_types)


def folder_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def violations(modules: Mapping[str, str]) -> list[str]:
    """Imports that go the wrong way, absolute imports of our own folders, and circles."""
    own = {"nacre", *map(folder_of, modules)}
    bad: list[str] = []
    edges: dict[str, set[str]] = {}
    for module in modules:
        here = RANK.get(folder_of(module), TOP)
        for target, line, relative, executed in imports(module, modules):
            where = f"{module}:{line} imports {target}"
            if not relative:
                if here != TOP and target.split(".")[0] in own:
                    bad.append(f"{where} absolutely")
                continue
            if executed and target in modules and target != module:
                edges.setdefault(module, set()).add(target)
            there = RANK.get(folder_of(target), TOP)
            if folder_of(module) != folder_of(target) and here <= there and here != TOP:
                bad.append(f"{where} against the direction")
    return bad + [f"a circle: {' → '.join(circle)}" for circle in circles(edges)]


def circles(edges: Mapping[str, set[str]]) -> list[list[str]]:
    """Circular paths in a graph, one for each that a depth-first search closes."""
    found: list[list[str]] = []
    done: set[str] = set()

    def visit(node: str, path: list[str]) -> None:
        if node in path:
            found.append([*path[path.index(node) :], node])
        elif node not in done:
            for target in sorted(edges.get(node, ())):
                visit(target, [*path, node])
            done.add(node)

    for node in sorted(edges):
        visit(node, [])
    return found


def test_imports_run_one_way() -> None:
    assert violations(sources()) == []


BROKEN = {
    "upwards": {"nacre.dialects.a": "from ..runtime.b import B", "nacre.runtime.b": "B = 1"},
    "upwards inside a function": {
        "nacre.runtime.a": "def f():\n    from ..passes import b",
        "nacre.passes.b": "",
    },
    "siblings": {"nacre.passes.a": "from ..frontends.b import B", "nacre.frontends.b": "B = 1"},
    "errors above nothing": {"nacre.errors": "from .dialects import a", "nacre.dialects.a": ""},
    "absolute": {"nacre.passes.a": "from nacre.dialects.b import B", "nacre.dialects.b": "B = 1"},
    "by folder name": {"nacre.passes.a": "import dialects.b", "nacre.dialects.b": "B = 1"},
    "library from an example": {"nacre.runtime.a": "from ..examples import b", "nacre.examples.b": ""},
    "circle": {"nacre.runtime.a": "from .b import B", "nacre.runtime.b": "from . import a\nB = 1"},
    "upwards for type checkers": {
        "nacre.runtime.a": "if TYPE_CHECKING:\n    from ..passes.b import B",
        "nacre.passes.b": "B = 1",
    },
    "circle of three": {
        "nacre.passes.a": "from .b import x",
        "nacre.passes.b": "from .c.d import x",
        "nacre.passes.c.d": "from ..a import x",
    },
}


@pytest.mark.parametrize("modules", BROKEN.values(), ids=BROKEN)
def test_a_violation_is_seen(modules: dict[str, str]) -> None:
    assert len(violations(modules)) == 1


def test_what_is_allowed_is_no_violation() -> None:
    modules = {
        "nacre.backends.npu.family": "from ...passes.npu.tile import T\nfrom ..target import F\nimport numpy",
        "nacre.backends.target": "from ..runtime.machine import M",
        "nacre.passes.npu.tile": "from ...dialects import graph\nfrom ...errors import E",
        "nacre.runtime.machine": "from ..errors import E\nif TYPE_CHECKING:\n    from . import timing",
        "nacre.runtime.timing": "from .machine import M",
        "nacre.dialects.graph": "from ..errors import E",
        "nacre.errors": "",
        "nacre.examples.demo": "import nacre\nfrom nacre.dialects import graph",
    }
    assert violations(modules) == []


# --- the wheel -------------------------------------------------------------------------------------------
USE = """
import numpy as np, nacre
from importlib import resources
folder = resources.files("nacre.examples.digits")
with np.load(folder / "digits.npz") as arrays:
    images = arrays["images"][:, None, None].astype(np.float32) / np.float32(255)
    labels = arrays["labels"]
program = nacre.compile(folder / "digits.onnx", target="v853", calibration=[{"image": x} for x in images[:8]])
program.save("digits.nacre")
session = nacre.Session("digits.nacre")
right = [session.run(None, {"image": x})[0].argmax() == y for x, y in zip(images[8:40], labels[8:40])]
print(nacre.__file__, sum(right))
"""


@pytest.mark.slow
def test_a_wheel_compiles_and_runs_the_shipped_network(tmp_path: Path) -> None:
    """Built from a copy of the tree, installed into an empty environment, used in an empty folder."""
    copy, place, empty = tmp_path / "source", tmp_path / "venv", tmp_path / "empty"
    ignored = shutil.ignore_patterns(".*", "__pycache__", "build", "dist", "*.egg-info")
    shutil.copytree(ROOT, copy, ignore=ignored)
    empty.mkdir()
    call([sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path), str(copy)], tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    call([sys.executable, "-m", "venv", str(place)], empty)
    python = str(place / "bin" / "python")
    call([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", str(wheel)], empty)
    file, right = call([python, "-c", USE], empty).split()[-2:]
    assert Path(file).is_relative_to(place)
    assert int(right) >= 31
    demo = [python, "-m", "nacre.examples.digits.demo", "--images", "20", "--tiny-images", "2"]
    assert "OK int8 gets" in call(demo, empty)
    held = call([python, "-m", "zipfile", "-l", str(wheel)], empty)
    assert not fnmatch.filter(held.split(), "nacre/tests/*")


def call(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout
