"""Whole networks: every tensor of the import against LiteRT's reference kernels, and the compiled program's outputs."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from nacre.backends.compile import compile
from nacre.backends.session import Session
from nacre.dialects.nacre import sources_of
from nacre.errors import CompileError
from nacre.frontends.tflite import import_tflite
from nacre.frontends.tflite.golden import TfliteGolden
from nacre.runtime.comparison import collect_program
from nacre.runtime.interpreter import interpret

SHARED = Path(__file__).resolve().parents[4] / "shared"
SMALL = ("mlperf_ic_resnet8_int8", "mlperf_kws_dscnn_int8", "mlperf_vww_mbv1_int8", "coral_mbv1_025_128_u8")
LARGE = ("tflm_mbv2_pt_int8", "pinto_blazeface_int8")
QUANTISED = [*SMALL, *(pytest.param(name, marks=pytest.mark.slow) for name in LARGE)]


def path_of(name: str) -> str:
    path = SHARED / "models" / f"{name}.tflite"
    if not path.is_file():
        pytest.skip(f"needs {path.name}")
    pytest.importorskip("ai_edge_litert")
    return str(path)


def inputs_of(path: str, golden: TfliteGolden, number: int) -> dict[str, np.ndarray]:
    """The acceptance script's own inputs."""
    pytest.importorskip("skimage")
    spec = importlib.util.spec_from_file_location("accept", SHARED / "accept.py")
    assert spec is not None and spec.loader is not None
    accept = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(accept)
    return accept.feeds(Path(path).name, accept.reference(path)[0], number)


@pytest.mark.parametrize("name", QUANTISED)
def test_every_tensor_equals_the_reference(name):
    path = path_of(name)
    golden, module = TfliteGolden(path), import_tflite(path)
    feeds, seen = inputs_of(path, golden, 4), set()

    def watch(value, array):
        for source in sources_of(value):
            want = golden.stored(feeds, [source.tensor])[source.tensor]
            assert array.dtype == want.dtype
            np.testing.assert_array_equal(array, want, err_msg=source.tensor)
            seen.add(source.tensor)

    interpret(module, feeds, watch)
    assert seen >= {t.name for t in golden.tensors}


def test_a_float_model_matches_at_graph_level():
    path = path_of("mlperf_ic_resnet8_f32")
    golden, module = TfliteGolden(path), import_tflite(path)
    feeds, compared = inputs_of(path, golden, 4), 0

    def watch(value, array):
        nonlocal compared
        for source in sources_of(value):
            want = golden.run(feeds, [source.tensor])[source.tensor].ravel().astype(np.float64)
            found = array.ravel().astype(np.float64)
            assert found @ want >= 0.99999 * np.linalg.norm(found) * np.linalg.norm(want), source.tensor
            compared += 1

    interpret(module, feeds, watch)
    assert compared == len(golden.tensors)


@pytest.mark.parametrize("name", QUANTISED)
def test_the_program_gives_the_bytes_of_the_reference(name):
    path = path_of(name)
    golden = TfliteGolden(path)
    session = Session(compile(path), sanitize=True)
    for number in (4, 5):
        feeds = inputs_of(path, golden, number)
        for output, array in zip(golden.outputs, session.run(None, feeds)):
            np.testing.assert_array_equal(array, golden.stored(feeds, [output])[output])


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, target", [*((n, t) for n in SMALL for t in ("v853", "tiny")), *((n, "v853") for n in LARGE)]
)
def test_every_tensor_on_the_emulator_equals_the_reference(name, target):
    path = path_of(name)
    golden = TfliteGolden(path)
    session = Session(compile(path, target=target, fuse=False), sanitize=True)
    names = [t.name for t in golden.tensors]
    feeds = inputs_of(path, golden, 4)
    level = collect_program("program", session.executor.emulator, feeds, names)
    assert sorted(level.held) == sorted(names), "unfused, every tensor of the model lies in memory once"
    for tensor, stored in golden.stored(feeds, names).items():
        assert any(held.stored.dtype == stored.dtype for held in level.held[tensor])
        for held in level.held[tensor]:
            if held.stored.dtype == stored.dtype:
                np.testing.assert_array_equal(held.stored, stored, err_msg=tensor)


def test_the_levels_of_a_quantised_model_are_its_own():
    program = compile(path_of("mlperf_kws_dscnn_int8"), stop_after="qnn")
    assert program.report["dtype"] == "int8"
    with pytest.raises(CompileError, match=r"dtype uint8 is asked for, but the model is quantised already, to int8"):
        compile(path_of("mlperf_kws_dscnn_int8"), dtype="uint8")
    with pytest.raises(CompileError, match=r"dtype int8 is asked for.*to uint8"):
        compile(path_of("coral_mbv1_025_128_u8"), dtype="int8")


def test_a_float_model_is_quantised_after_calibration():
    path = path_of("mlperf_ic_resnet8_f32")
    golden = TfliteGolden(path)
    samples = [inputs_of(path, golden, i) for i in range(40)]
    session = Session(compile(path, calibration=samples[:4]))
    found = np.concatenate([session.run(None, feeds)[0].ravel() for feeds in samples[4:]])
    want = np.concatenate([golden.run(f, golden.outputs)[golden.outputs[0]].ravel() for f in samples[4:]])
    assert found @ want >= 0.99 * np.linalg.norm(found) * np.linalg.norm(want)
    with pytest.raises(CompileError, match="calibration"):
        compile(path)
