"""ONNX's own backend tests, one node each: imported and interpreted, or refused by name; never wrong.

Inputs that say how (shapes, axes, indices) are graph inputs in these tests, while Nacre wants them constant.
So a case that is refused as it stands is tried again, all inputs but the first frozen to the test's data.
"""

from __future__ import annotations

import functools
import warnings
from collections import Counter
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
    names = [i.name for i in case.model.graph.input]
    refused = Outcome("refused")
    for frozen in ([], names[1:]):
        model = onnx.ModelProto()
        model.CopyFrom(case.model)
        if frozen and not is_tensors(inputs):
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
    has 11 bits, and a composed operator rounds several times: rtol 4e-3.
    """
    assert len(found) == len(outputs)
    for have, want in zip(found, map(array_of, outputs)):
        if have.shape != want.shape or have.dtype != want.dtype:
            return f"{have.dtype}{have.shape} instead of {want.dtype}{want.shape}"
        rtol = 4e-3 if want.dtype == np.float16 else case.rtol
        wide = [a.astype(np.float64) for a in (have, want)]
        same = np.isclose(*wide, rtol, case.atol, equal_nan=True)
        if not same.all():
            return f"{(~same).sum()} of {same.size} elements differ, first {have[~same][0]} from {want[~same][0]}"
    return ""


def test_no_node_test_is_wrong(interpret):
    count, wrong, silent = Counter(), [], []
    for case in cases("node"):
        for inputs, outputs in case.data_sets:
            result = outcome(case, inputs, outputs, interpret)
            count[result.kind] += 1
            if result.kind == "wrong":
                wrong.append(f"{case.name}: {result.why}")
            if result.kind == "refused" and not result.why:
                silent.append(case.name)
    assert not wrong
    assert not silent, "refused without a reason"
    assert count["pass"] >= 850 and count["frozen"] >= 350, count  # fewer: what was imported is refused now


REFUSALS = {
    "test_lstm_defaults": "(LSTM): recurrent layers",
    "test_gru_defaults": "(GRU): recurrent layers",
    "test_quantizelinear": "(QuantizeLinear): quantised ONNX models",
    "test_qlinearconv": "(QLinearConv): quantised ONNX models",
    "test_maxpool_3d_default": "(MaxPool): 3-D MaxPool",
    "test_nonmaxsuppression_suppress_by_IOU": "(NonMaxSuppression): the size of its result depends on the data",
    "test_add_uint32": "input 'x' is of type uint32",
    "test_identity_sequence": "input 'x' is of type sequence",
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_is_refused_says_why(name):
    case = next(c for c in cases("node") if c.name == name)
    with pytest.raises(ImportFailed) as error:
        import_onnx(case.model)
    assert REFUSALS[name] in str(error.value)
