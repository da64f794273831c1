"""Silero VAD, a recurrent voice detector whose states are plain inputs and outputs, carried from frame to frame."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnxruntime
import pytest
from nacre.backends.compile import compile
from nacre.backends.session import Session
from nacre.frontends.onnx import import_onnx
from nacre.runtime.interpreter import interpret
from nacre.runtime.npu_interpreter import interpret_npu

RATE, FRAME, CONTEXT = 16_000, 512, 64
SECONDS = 5
SHAPES = {"input": [1, FRAME + CONTEXT]}
POWERS = {"layers": {"/encoder/feature_extractor/*": "float32"}}
"""The spectrum is squared, which doubles the bits it takes: it stays float, the rest is int8."""
WORST, MEAN = 0.12, 0.025
"""Error of the int8 probabilities; measured 0.059 and 0.012."""
STEP = 0.04
"""What the program's probabilities may differ from those of the qnn level, whose floats are numpy's: an ulp may turn a
step of 1/256, and the states carry it on. Measured 0.016."""


def speech(seed: int) -> np.ndarray:
    """Syllables of a voice with three formants and a gliding pitch, pauses and noise."""
    rng, n = np.random.default_rng(seed), SECONDS * RATE
    t = np.arange(n) / RATE
    pitch = rng.uniform(100, 150) * (1 + 0.25 * np.sin(2 * np.pi * 0.7 * t))
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    loudness = (np.sin(2 * np.pi * 1.3 * t) > 0) * np.abs(np.sin(2 * np.pi * 2.5 * t))
    voice = np.zeros(n)
    for k in range(1, 40):
        resonances = ((700, 120, 1.0), (1200, 150, 0.6), (2600, 250, 0.3))
        gain = sum(g / (1 + ((k * 120 - f) / width) ** 2) for f, width, g in resonances)
        voice += gain * np.sin(k * phase)
    return (0.2 * voice * loudness / np.abs(voice).max() + 0.002 * rng.normal(size=n)).astype(np.float32)


def frames(signal: np.ndarray) -> list[np.ndarray]:
    """Each frame with the end of the one before."""
    padded = np.concatenate([np.zeros(CONTEXT, np.float32), signal])
    return [padded[None, i : i + FRAME + CONTEXT] for i in range(0, len(signal) - FRAME + 1, FRAME)]


def probabilities(run, signal: np.ndarray) -> tuple[np.ndarray, list[dict[str, np.ndarray]]]:
    """What `run` says of each frame, and the feeds it got, the states of the frame before among them."""
    states = {name: np.zeros((1, 1, 128), np.float32) for name in "hc"}
    found, feeds = [], []
    for frame in frames(signal):
        feeds.append({"input": frame, **states})
        probability, states["h"], states["c"] = run(feeds[-1])
        found.append(float(np.ravel(probability)[0]))
    return np.array(found), feeds


def in_order(outputs):
    """The outputs as onnxruntime gives them."""
    return [outputs[name] for name in ("speech_probs", "hn", "cn")]


def of_module(module):
    """One frame through a module."""
    return lambda feeds: in_order(interpret(module, feeds))


@pytest.fixture(scope="module")
def path(model_folder):
    return str(model_folder / "silero_vad_v6_fw.onnx")


@pytest.fixture(scope="module")
def golden(path):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda seed: probabilities(lambda feeds: session.run(["speech_probs", "hn", "cn"], feeds), speech(seed))


def test_graph_level_equals_onnxruntime(golden, path):
    wanted, _ = golden(0)
    assert len(wanted) == 156 and wanted.min() < 0.05 and wanted.max() > 0.6  # neither silence nor speech alone
    found, _ = probabilities(of_module(import_onnx(path, SHAPES)), speech(0))
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.slow
def test_int8_with_a_float_spectrum_and_float_cell(golden, path):
    """Ranges come from whole sequences of two other voices, so that states are as wide as they get."""
    wanted, _ = golden(0)
    voices = [feeds for seed in (1, 2) for feeds in golden(seed)[1]]
    program = compile(path, calibration=voices, shapes=SHAPES, quant_table=POWERS, target="v853")
    module = program.levels["qnn"]
    counts = Counter(op.name for op in module.walk())
    assert counts["graph.lstm_cell"] == 1 and counts["qnn.matmul"] == 2 and counts["qnn.conv"] == 5
    found, _ = probabilities(of_module(module), speech(0))
    session = Session(program)
    run, _ = probabilities(lambda feeds: session.run(["speech_probs", "hn", "cn"], feeds), speech(0))
    for probability in (found, run):
        error = np.abs(probability - wanted)
        assert error.max() < WORST and error.mean() < MEAN
    np.testing.assert_allclose(run, found, atol=STEP)
    few = speech(0)[: 4 * FRAME]
    npu, _ = probabilities(lambda feeds: in_order(interpret_npu(program.levels["npu"], feeds)), few)
    np.testing.assert_array_equal(npu, run[:4])


@pytest.mark.slow
def test_in_float32_on_the_emulator(golden, path):
    """Five seconds, frame by frame; every layer is a kernel of the programmable engine."""
    wanted, _ = golden(0)
    session = Session(compile(path, shapes=SHAPES, dtype="float32", target="v853"))
    found, _ = probabilities(lambda feeds: session.run(["speech_probs", "hn", "cn"], feeds), speech(0))
    print(f"largest error of the speech probability over {len(found)} frames: {np.abs(found - wanted).max():.1e}")
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-3)
