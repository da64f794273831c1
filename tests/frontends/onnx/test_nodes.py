"""ONNX's own backend tests, one node each: imported and interpreted, or refused by name; never wrong.

Inputs that say how (shapes, axes, indices) are graph inputs in these tests, while Nacre wants them constant.
So a case that is refused as it stands is tried again, all inputs but the first frozen to the test's data.
"""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import pytest
from nacre.errors import ImportFailed
from nacre.frontends.onnx import import_onnx
from onnx.backend.test.loader import load_model_tests


class Outcome(NamedTuple):
    """How a case ended: pass, frozen (passes with constant inputs), refused or wrong; and why."""

    kind: str
    why: str = ""


@functools.cache
def cases(kind: str):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load_model_tests(kind=kind)


def array_of(value) -> np.ndarray:
    return onnx.numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.asarray(value)


def is_tensors(values) -> bool:
    return all(isinstance(v, (np.ndarray, np.generic, onnx.TensorProto)) for v in values)


def outcome(case, inputs, outputs, interpret) -> Outcome:
    constants = {t.name for t in case.model.graph.initializer}
    names = [i.name for i in case.model.graph.input if i.name not in constants]
    refused = Outcome("refused")
    for frozen in ([], names[1:]):
        model = onnx.ModelProto()
        model.CopyFrom(case.model)
        if frozen and not is_tensors(inputs):  # a sequence or an optional: refused as it stood
            return refused
        for name, value in zip(names, inputs):
            if name in frozen:
                model.graph.initializer.append(onnx.numpy_helper.from_array(array_of(value), name))
        try:
            module = import_onnx(model)
        except ImportFailed as error:
            refused = Outcome("refused", str(error))
            continue
        feeds = [array_of(v) for n, v in zip(names, inputs) if n not in frozen]
        with np.errstate(all="ignore"):
            found = interpret(module, feeds)
        wrong = difference(case, found, outputs)
        return Outcome("wrong", wrong) if wrong else Outcome("frozen" if frozen else "pass")
    return refused


def difference(case, found, outputs) -> str:
    """What differs. Tolerances are the case's own (rtol 1e-3, atol 1e-7 unless it says otherwise); float16
    has 11 bits, and a composed operator rounds several times: rtol 4e-3. float64 is computed in float32, so what
    lies beyond that range (some stored inputs do) is infinite.
    """
    assert len(found) == len(outputs)
    for have, want in zip(found, map(array_of, outputs)):
        if have.shape != want.shape or have.dtype != want.dtype:
            return f"{have.dtype}{have.shape} instead of {want.dtype}{want.shape}"
        rtol = 4e-3 if want.dtype == np.float16 else case.rtol
        with np.errstate(over="ignore"):
            narrow = want.astype(np.float32) if want.dtype == np.float64 else want
        wide = [a.astype(np.float64) for a in (have, narrow)]
        # A Fourier transform's stored zeros are what the rounding of its largest results leaves.
        atol = 1e-6 * np.abs(wide[1]).max() if case.name.startswith("test_dft") else case.atol
        same = np.isclose(*wide, rtol, atol, equal_nan=True)  # type: ignore[call-overload]
        if not same.all():
            return f"{(~same).sum()} of {same.size} elements differ, first {have[~same][0]}"
    return ""


def stored_data(folder: Path) -> list[tuple[list, list]]:
    """Inputs and outputs of the data sets beside a stored model."""

    def tensors(data: Path, kind: str) -> list:
        files = sorted(data.glob(f"{kind}_*.pb"), key=lambda p: int(p.stem.split("_")[1]))
        return [onnx.TensorProto.FromString(p.read_bytes()) for p in files]

    return [
        (tensors(data, "input"), tensors(data, "output")) for data in sorted(folder.glob("test_data_set_*"))
    ]


@pytest.mark.parametrize("kind, least", [("pytorch-operator", 35), ("pytorch-converted", 60)])
def test_models_exported_before_opset_7(kind, least, interpret):
    count, wrong = Counter(), []
    for case in cases(kind):
        model = onnx.load(Path(case.model_dir) / "model.onnx")
        count["old"] += model.opset_import[0].version < 7  # these go through ONNX's version converter
        for inputs, outputs in stored_data(Path(case.model_dir)):
            result = outcome(dataclasses.replace(case, model=model), inputs, outputs, interpret)
            count[result.kind] += 1
            wrong += [f"{case.name}: {result.why}"] if result.kind == "wrong" else []
    assert not wrong
    assert count["pass"] >= least and count["old"] >= 30, count


def sweep(chosen, interpret) -> Counter:
    """Run cases; none may be wrong, and none refused without a reason."""
    count, wrong = Counter(), []
    for case in chosen:
        for inputs, outputs in case.data_sets:
            result = outcome(case, inputs, outputs, interpret)
            count[result.kind] += 1
            if result.kind == "wrong" or not (result.why or result.kind in ("pass", "frozen")):
                wrong.append(f"{case.name}: {result}")
    assert not wrong
    return count


def test_a_sample_of_the_node_tests(interpret):
    count = sweep(cases("node")[::6], interpret)
    assert count["pass"] + count["frozen"] >= 180, count  # fewer: what was imported is refused now


@pytest.mark.slow
def test_all_node_tests(interpret):
    count = sweep(cases("node"), interpret)
    assert count["pass"] >= 1090 and count["pass"] + count["frozen"] >= 1410, count


REFUSALS = {
    "test_lstm_with_peepholes": "(LSTM): the lengths of its sequences ('sequence_lens') is computed",
    "test_quantizelinear": "(QuantizeLinear): its scale ('y_scale') is computed",
    "test_dynamicquantizelinear": "(DynamicQuantizeLinear): its scale depends on the data",
    "test_convtranspose_3d": "(ConvTranspose): 3-D ConvTranspose is not supported, only 1-D and 2-D",
    "test_nonmaxsuppression_suppress_by_IOU": "(NonMaxSuppression): the size of its result depends",
    "test_add_uint32": "input 'x' is of type uint32",
    "test_identity_sequence": "input 'x' is of type sequence",
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_is_refused_says_why(name):
    case = next(c for c in cases("node") if c.name == name)
    with pytest.raises(ImportFailed) as error:
        import_onnx(case.model)
    assert REFUSALS[name] in str(error.value)
