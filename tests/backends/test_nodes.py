"""ONNX's own backend tests on the machine: what imports at the graph level compiles for the npu family and runs there.

No operator is out of reach: what the fixed engines cannot do is a kernel of the programmable engine. As at the graph
level (tests/frontends/onnx/test_nodes.py), a case that is refused as it stands is tried again with all inputs but the
first frozen to the test's data. All programs run under the sanitizers.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import nacre
import numpy as np
import onnx
import pytest
from nacre.dialects.quant import QDQ
from nacre.errors import ImportFailed
from nacre.frontends.onnx import import_onnx
from onnx import helper
from onnx.backend.test.loader import load_model_tests

NAN = "InputError: the input '{}' holds NaN"
"""How cases with NaN in their inputs end: the interface takes numbers only."""


class Ready(NamedTuple):
    """A case that imports: the model to compile, its dtype, what to feed, what to expect."""

    case: Any
    model: onnx.ModelProto
    dtype: str | None
    feeds: dict[str, np.ndarray]
    outputs: list[np.ndarray]


@functools.cache
def cases() -> list[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load_model_tests(kind="node")


def array_of(value: Any) -> np.ndarray:
    return onnx.numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.asarray(value)


def ready(case: Any) -> Iterator[Ready]:
    """A case with each of its data sets, if it imports."""
    constants = {t.name for t in case.model.graph.initializer}
    names = [i.name for i in case.model.graph.input if i.name not in constants]
    for inputs, outputs in case.data_sets:
        tensors = all(isinstance(v, (np.ndarray, np.generic, onnx.TensorProto)) for v in inputs)
        for frozen in ([], names[1:]) if tensors else ([],):
            model = onnx.ModelProto()
            model.CopyFrom(case.model)
            for name, value in zip(names, inputs):
                if name in frozen:
                    model.graph.initializer.append(onnx.numpy_helper.from_array(array_of(value), name))
            try:
                quantised = QDQ in import_onnx(model).attributes
            except ImportFailed:
                continue
            feeds = {n: array_of(v) for n, v in zip(names, inputs) if n not in frozen}
            yield Ready(case, model, None if quantised else "float32", feeds, [array_of(v) for v in outputs])
            break


def end(one: Ready, target: str) -> str:
    """How a case ends on a target: empty if its outputs are right, else what differs or the error."""
    try:
        program = nacre.compile(one.model, target=target, dtype=one.dtype)
        found = nacre.Session(program, sanitize=True).run(None, one.feeds)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    assert len(found) == len(one.outputs)
    return next(filter(None, (difference(one.case, h, w) for h, w in zip(found, one.outputs))), "")


def difference(case: Any, have: np.ndarray, want: np.ndarray) -> str:
    """What differs: nothing for integers; floats have the case's own tolerances, float16 rtol 4e-3 at least. float64
    is computed in float32, beyond whose range is infinity; a Fourier transform's zeros are as good as its largest."""
    if have.shape != want.shape or have.dtype != want.dtype:
        return f"{have.dtype}{have.shape} instead of {want.dtype}{want.shape}"
    if want.dtype.kind not in "f":
        same = have == want
    else:
        with np.errstate(over="ignore"):
            narrow = want.astype(np.float32) if want.dtype == np.float64 else want
        wide = narrow.astype(np.float64)
        rtol = max(4e-3, case.rtol) if want.dtype == np.float16 else case.rtol
        atol = 1e-6 * np.abs(wide).max() if case.name.startswith("test_dft") else case.atol
        same = np.isclose(have.astype(np.float64), wide, rtol, atol, equal_nan=True)
    return "" if same.all() else f"{np.sum(~same)} of {same.size} elements differ, first {have[~same][0]}"


def holds_nan(array: np.ndarray) -> bool:
    return array.dtype.kind == "f" and bool(np.isnan(array).any())


def sweep(chosen: Iterable[Ready], target: str) -> int:
    """Run cases; each is right, or refused for a NaN among its inputs. Gives how many are right."""
    right, wrong = 0, []
    for one in chosen:
        nan = next((n for n, a in one.feeds.items() if holds_nan(a)), None)
        expected = NAN.format(nan) if nan else ""
        found = end(one, target)
        if not (found.startswith(expected) if expected else not found):
            wrong.append(f"{one.case.name}: {found or 'runs, though an input holds NaN'}")
        right += not found
    assert not wrong, "\n".join(wrong)
    return right


@pytest.mark.slow
def test_a_case_for_each_operator():
    """The first one that imports and that has numbers for inputs."""
    by_operator: dict[str, Ready] = {}
    for case in cases():
        operators = {n.op_type for n in case.model.graph.node}
        if len(operators) == 1 and not operators <= by_operator.keys():
            found = next((r for r in ready(case) if not any(map(holds_nan, r.feeds.values()))), None)
            if found:
                by_operator[operators.pop()] = found
    assert sweep(by_operator.values(), "tiny") == len(by_operator)
    assert len(by_operator) >= 140, sorted(by_operator)  # fewer: what was imported is refused now


def test_sums_of_nothing_run():
    """An empty tensor in the middle, which nothing reads."""
    empty = [one for case in cases() if case.name.endswith("_empty_set_expanded") for one in ready(case)]
    assert len(empty) >= 4
    assert sweep(empty, "tiny") == len(empty)


def test_numbers_that_are_none_come_from_layers():
    """The interface takes no NaN, so a quotient makes what IsNaN and IsInf look for."""
    nodes = [
        helper.make_node("Div", ["a", "b"], ["q"]), helper.make_node("IsNaN", ["q"], ["nan"]),
        helper.make_node("IsInf", ["q"], ["inf"], detect_negative=0),
    ]  # fmt: skip
    ins = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, (4,)) for n in "ab"]
    graph = helper.make_graph(nodes, "g", ins, [onnx.ValueInfoProto(name=n) for n in ("nan", "inf")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    session = nacre.Session(nacre.compile(model, target="tiny", dtype="float32"), sanitize=True)
    a, b = np.array([[0, 1, -1, 2], [0, 0, 0, 1]], np.float32)
    nan, inf = session.run(None, {"a": a, "b": b})
    assert nan.tolist() == [True, False, False, False]
    assert inf.tolist() == [False, True, False, False]


@pytest.mark.slow
@pytest.mark.parametrize("target", ["tiny", "v853"])
def test_all_cases(target):
    assert sweep((one for case in cases() for one in ready(case)), target) >= 1390
