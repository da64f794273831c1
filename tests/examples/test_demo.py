"""The demo's verdict fails when it should, and the demo passes."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from nacre.examples.digits.demo import Results, short, verdict

LABELS = np.arange(400) % 10


def certain(labels: np.ndarray) -> np.ndarray:
    return np.eye(10, dtype=np.float32)[labels]


@pytest.fixture
def good() -> Results:
    right = certain(LABELS)
    return Results(labels=LABELS, graph=right, npu=right, tiny=right[:8], qnn=right[:8])


def test_equal_results_pass(good: Results) -> None:
    assert verdict(good) == []


@pytest.mark.parametrize(("wrong", "fails"), [(2, False), (3, True)])
def test_half_a_point_may_be_lost(good: Results, wrong: int, fails: bool) -> None:
    labels = LABELS.copy()
    labels[-wrong:] = (labels[-wrong:] + 1) % 10
    assert bool(verdict(replace(good, npu=certain(labels)))) is fails


@pytest.mark.parametrize("other", ["tiny", "qnn"])
def test_one_other_bit_fails(good: Results, other: str) -> None:
    changed = getattr(good, other).copy()
    changed[3, 0] = np.nextafter(changed[3, 0], np.float32(1))
    (complaint,) = verdict(replace(good, **{other: changed}))
    assert "1 of 8 images" in complaint


def test_comparing_nothing_fails(good: Results) -> None:
    assert verdict(replace(good, tiny=good.tiny[:0]))


def test_layer_names_are_shortened() -> None:
    assert short("a.b.conv+a.b.bn+a.c.relu") == "a.b.conv+bn+a.c.relu"
    assert short("pool1") == "pool1"


@pytest.mark.slow
def test_the_demo_passes_without_a_terminal() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "nacre.examples.digits.demo"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "OK int8 gets" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "\x1b" not in done.stdout
