"""`nacre.verify`: every level of a compilation against the source framework and against each other.

Float levels have to agree with the source within a tolerance, the levels from qnn down (and the program) bit
for bit, except that selection may sum the floats of layers that stayed float in another order than qnn (see
`loose_tensors`), and the quantised outputs with the source to a signal-to-noise ratio. So are all levels of a model
with casts of its own (ONNX QDQ), each layer of which has to keep the precision of its inputs as well, and those of a
model whose framework rounds activations at run time (TFLite's dynamic range). A comparison that compared nothing, or
not every output, fails.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation, SSAValue

from ..dialects.nacre import sources_of
from ..dialects.quant import QDQ, QuantType
from ..dialects.types import dtype_of, element_type
from ..errors import InputError
from ..passes.quantise.ranges import range_of
from ..runtime.comparison import (
    Comparison,
    Feeds,
    Golden,
    Level,
    Row,
    SourceTensor,
    Statistic,
    collect_module,
    collect_npu,
)
from ..runtime.interpreter import argument_names, main_function, result_names
from .calibration import calibration_batches
from .compile import Progress, compile, level_of, onnx_of_bytes
from .session import Session

MIN_SQNR = 20.0
"""dB that quantised outputs should have: noise of a tenth of the signal in amplitude."""
FLOAT_TOLERANCE = 1e-3
"""The largest error at a float level, as a share of the tensor's largest magnitude. Another order of float
sums gives about 1e-6 a layer, and deep networks multiply that; a wrong pad, axis or epsilon is well above."""
INTEGER_TOLERANCE = 1e-5
"""The same for a model that computes in integers itself: less than one step of 16 bits."""
STEPS = 4
"""Steps of an integer type that a tensor behind a reordered float sum may differ by: a sum that is off in its
last bit is now and then rounded to the next integer, and layers behind it make a few steps of that."""
INTEGER_AGREEMENT = 0.9
"""The share of an integer or boolean output (class numbers) that has to be equal at a quantised level."""
DROP = 10.0
"""dB: a layer that loses more than this against the worst of its inputs is worth a warning."""
INPUT_SQNR = 40.0
"""dB that a layer's inputs count as at most: about what 8 bits give a well-used range."""
PORTION_BYTES = 2**28
"""Tensors of the source are compared in portions of about this size."""

Collect = Callable[[Feeds, "set[str]"], Level]


@dataclass
class Report:
    """What a comparison found. `failures` says in sentences why it does not hold; `warnings` do not count."""

    model: str
    target: str
    dtype: str
    framework: str
    levels: list[str]
    outputs: list[str]
    samples: int = 0
    program: str | None = None
    random: bool = False
    integers: bool = False
    """Whether the source model computes in integers already, so that all levels should equal it."""
    casts: bool = False
    """Whether it has casts around float layers instead (ONNX). What a float sum, product or division leaves near a
    tie is now and then cast to the next step, so that all levels are held to a signal-to-noise ratio."""
    rounds: bool = False
    """Whether the source framework rounds activations which Nacre has in float (TFLite's dynamic range)."""
    loose: dict[str, float] = field(default_factory=dict)
    """Tensors whose bits at qnn and below may differ, and by what share of the largest magnitude."""
    comparison: Comparison = field(default_factory=lambda: Comparison([], []))
    failures: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    profile: dict[str, Any] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        """Whether everything agrees as it should."""
        return not self.failures

    @property
    def rows(self) -> list[Row]:
        """A row for each source tensor, in the model's order."""
        return list(self.comparison.rows.values())

    @property
    def measured(self) -> str:
        """The lowest level, whose fidelity is what a user gets."""
        return self.levels[-1]

    def to_json(self) -> dict[str, Any]:
        """Everything, in JSON's types; infinite decibels are the strings "inf" and "-inf"."""
        return {
            "holds": self.holds,
            "model": self.model,
            "program": self.program,
            "target": self.target,
            "dtype": self.dtype,
            "framework": self.framework,
            "samples": self.samples,
            "levels": self.levels,
            "outputs": self.outputs,
            "failures": self.failures,
            "warnings": self.warnings,
            "loose": self.loose,
            "tensors": [row_json(row) for row in self.rows],
            "profile": self.profile,
        }


def verify(
    model: Any,
    inputs: Any = None,
    *,
    random: int | None = None,
    program: str | os.PathLike[str] | None = None,
    target: str = "v853",
    dtype: str | None = None,
    calibration: Any = None,
    calibration_method: str = "min-max",
    shapes: Mapping[str, Sequence[int]] | None = None,
    fuse: bool = True,
    quant_table: Any = None,
    min_sqnr: float = MIN_SQNR,
    progress: Progress | None = None,
    say: Callable[[str], None] = lambda text: print(f"nacre: {text}", file=sys.stderr),
) -> Report:
    """Compile an ONNX or TFLite model and compare all levels with the source framework, tensor by tensor.

    inputs: samples, in the forms that calibration data may have; or random: a seed, for one sample that fills
    the calibrated ranges. program: a saved program to compare instead of the one compiled here; it is held
    against the source and against the qnn level of this compilation. say: called with notes for the user.

    Raises NacreError for what cannot be compiled or run; a comparison that fails is a Report with `failures`.
    """
    if (inputs is None) == (random is None):
        raise InputError("verify needs inputs to compare on: either samples, or a seed for random ones")
    session = None if program is None else checked_session(program)
    golden = golden_of(model, shapes, say)
    compiled = compile(
        model, target=target, dtype=dtype, calibration=calibration, calibration_method=calibration_method,
        shapes=shapes, fuse=fuse, quant_table=quant_table, progress=progress,
        stop_after="qnn" if session is not None and dtype != "float32" else None,
    )  # fmt: skip
    session = session or Session(compiled)
    collectors = collectors_of(compiled.levels, session)
    graph = compiled.levels["graph"]
    samples = (
        calibration_batches(inputs, golden.inputs, what="sample")
        if random is None
        else [random_feeds(golden.inputs, graph, random)]
    )
    exact = [name for name in collectors if name != "graph"]
    pairs = list(pairwise(exact if len(exact) > 1 else ["graph", *exact]))
    report = Report(
        model=label_of(model), target=target, dtype=str(compiled.report["dtype"]), framework=golden.framework,
        levels=list(collectors), outputs=list(golden.outputs),
        program=None if program is None else os.fspath(program), random=random is not None,
        integers=level_of(graph) != "graph" and QDQ not in graph.attributes, casts=QDQ in graph.attributes,
        rounds=golden.rounds,
        comparison=Comparison(golden.tensors, pairs),
    )  # fmt: skip
    types = output_types(graph)
    for feeds in samples:
        compare_sample(report.comparison, golden, collectors, feeds, types)
        report.samples += 1
        if progress is not None:
            progress("comparing", report.samples, None)
    report.comparison.finish()
    report.profile = session.profile()
    if "qnn" in compiled.levels:
        below = session.family if program is not None else compiled.family
        report.loose = loose_tensors(compiled.levels["qnn"], below.reorders)
    judge(report, min_sqnr)
    return report


def compare_sample(
    comparison: Comparison,
    golden: Golden,
    collectors: Mapping[str, Collect],
    feeds: Feeds,
    types: Mapping[str, tuple[float, int]],
) -> None:
    """Run one sample in the source framework and at every level. `types`: see output_types."""
    for portion in golden.portions(PORTION_BYTES):
        names = [tensor.name for tensor in portion]
        levels = {name: collect(feeds, set(names)) for name, collect in collectors.items()}
        for level in levels.values():
            level.give_meaning(types)
        comparison.add(golden.run(feeds, names), levels)


def loose_tensors(module: ModuleOp, reorders: Callable[[Operation], bool]) -> dict[str, float]:
    """The source tensors at the qnn level that a reordered float sum reaches, and how much of their largest
    magnitude the levels below may differ by."""
    function = main_function(module)
    reached: dict[SSAValue, float] = {}
    tensors: dict[str, float] = {}
    for op in function.body.block.ops:
        tolerance = max((reached.get(v, 0.0) for v in op.operands), default=0.0)
        tolerance = max(tolerance, FLOAT_TOLERANCE) if reorders(op) else tolerance
        for value in op.results if tolerance else ():
            element = element_type(value)
            steps = STEPS / 2 ** (8 * dtype_of(element).itemsize) if isinstance(element, QuantType) else 0.0
            reached[value] = max(tolerance, steps)
            for source in sources_of(value):
                tensors[source.tensor] = max(tensors.get(source.tensor, 0.0), reached[value])
    returned = function.get_return_op()
    assert returned is not None
    outputs = {n: reached[v] for n, v in zip(result_names(function), returned.operands) if v in reached}
    return tensors | outputs


def output_types(module: ModuleOp) -> dict[str, tuple[float, int]]:
    """Scale and zero point of the outputs that are integers standing for reals."""
    function = main_function(module)
    returned = function.get_return_op()
    assert returned is not None
    elements = {n: element_type(v) for n, v in zip(result_names(function), returned.operands)}
    return {n: (e.scale, e.zero) for n, e in elements.items() if isinstance(e, QuantType)}


# --- what is compared ------------------------------------------------------------------------------------
def golden_of(model: Any, shapes: Mapping[str, Sequence[int]] | None, say: Callable[[str], None]) -> Golden:
    """The model in its source framework. Raises InputError for a model that has none."""
    if isinstance(model, ModuleOp):
        raise InputError("a module has no source framework to run in: give the model it came from")
    suffix = Path(model).suffix if isinstance(model, (str, os.PathLike)) else ""
    if suffix in (".mlir", ".nacre"):
        raise InputError(
            f"'{os.fspath(model)}' cannot be run in a source framework: give the .onnx or .tflite model"
            + (", and the program with --program" if suffix == ".nacre" else "")
        )
    if isinstance(model, bytes) and model[4:8] != b"TFL3":
        model = onnx_of_bytes(model)
    if suffix == ".tflite" or isinstance(model, bytes):
        from ..frontends.tflite.golden import TfliteGolden

        return TfliteGolden(model, shapes, say)
    from ..frontends.onnx.golden import OnnxGolden  # onnx takes a while to import

    return OnnxGolden(model, shapes, say)  # type: ignore[return-value]


def label_of(model: Any) -> str:
    """What to call a model."""
    if isinstance(model, (str, os.PathLike)):
        return os.fspath(model)
    return "model" if isinstance(model, bytes) else model.graph.name or "model"


def checked_session(program: str | os.PathLike[str]) -> Session:
    """A saved program, every byte of it against its checksum. Raises FileFormatError."""
    session = Session(program)
    session.file.check()
    return session


def collectors_of(levels: Mapping[str, ModuleOp], session: Session) -> dict[str, Collect]:
    """How to get the tensors of each level, from the top down."""
    found: dict[str, Collect] = {}
    for name in ("graph", "qnn"):
        if name in levels:
            found[name] = lambda feeds, wanted, n=name: collect_module(n, levels[n], feeds, wanted)  # type: ignore[misc]
    if "npu" in levels:
        found["npu"] = lambda feeds, wanted: collect_npu("npu", levels["npu"], feeds, wanted)
    found["program"] = lambda feeds, wanted: collect_session(session, feeds, wanted)
    return found


def collect_session(session: Session, feeds: Feeds, wanted: set[str]) -> Level:
    """The tensors of a program. Raises InputError where its inputs are not the model's."""
    expected = {a.name: (tuple(a.shape), a.dtype) for a in session.get_inputs()}
    given = {name: (array.shape, array.dtype) for name, array in feeds.items()}
    if expected != given:
        raise InputError(
            f"'{session.file.label}' is no program of this model: its inputs are {sides_text(expected)}, "
            f"the model's are {sides_text(given)}"
        )
    return session.executor.collect(feeds, wanted)


def sides_text(sides: Mapping[str, tuple[tuple[int, ...], np.dtype]]) -> str:
    """Inputs in words."""
    return ", ".join(f"{name} {dtype}{list(shape)}" for name, (shape, dtype) in sides.items()) or "none"


def random_feeds(
    inputs: Mapping[str, tuple[tuple[int, ...], np.dtype]], graph: ModuleOp, seed: int
) -> dict[str, np.ndarray]:
    """Floats uniform over the calibrated range, standard normal without one; booleans; integers 0 and 1."""
    rng = np.random.default_rng(seed)
    function = main_function(graph)
    ranges = {name: range_of(arg) for name, arg in zip(argument_names(function), function.args)}
    feeds = {}
    for name, (shape, dtype) in inputs.items():
        if dtype.kind != "f":
            feeds[name] = rng.integers(0, 2, shape).astype(dtype)
        elif (found := ranges.get(name)) is not None:
            feeds[name] = rng.uniform(found.low, found.high, shape).astype(dtype)
        else:
            feeds[name] = rng.standard_normal(shape).astype(dtype)
    return feeds


# --- the verdict -----------------------------------------------------------------------------------------
def judge(report: Report, min_sqnr: float) -> None:
    """Fill in failures and warnings."""
    for level in report.levels:
        if not any(level in row.statistics for row in report.rows):
            report.failures.append(
                f"nothing could be compared: the {level} level holds no tensor of any layer of the model"
            )
    if report.failures:
        return
    report.failures += missing_outputs(report)
    report.failures += [problem for row in report.rows for problem in row.problems]
    lossy = report.dtype != "float32" and not report.integers
    quantised = [
        level for level in report.levels if report.rounds or (lossy and (level != "graph" or report.casts))
    ]
    for level in report.levels:
        if level not in quantised:
            report.failures += float_failure(report, level)
    for pair in report.comparison.pairs:
        report.failures += bits_failure(report, pair)
    drops = list(bad_layers(report)) if report.measured in quantised else []
    if report.casts:  # the model rounds where Nacre does: a layer far from it is wrong
        report.failures += [text for _, text in drops]
    else:
        report.warnings += [text for _, text in drops]
    hint = f"; the first bad layer is {drops[0][0]}" if drops else ""
    if report.random:
        hint += "; random inputs leave the ranges of a trained network, so real samples say more"
    report.failures += sqnr_failures(report, quantised, min_sqnr, hint)


def missing_outputs(report: Report) -> Iterator[str]:
    """Outputs that were not compared somewhere."""
    computed = [name for name in report.outputs if name in report.comparison.rows]
    if not computed:
        yield "nothing could be compared: none of the model's outputs depends on its inputs"
    for name in computed:
        row = report.comparison.rows[name]
        for level in report.levels:
            if level not in row.statistics:
                yield f"the output '{name}' could not be compared: it does not exist at the {level} level"


def float_failure(report: Report, level: str) -> Iterator[str]:
    """The first tensor that is off at a float level, and how many there are."""
    tolerance = INTEGER_TOLERANCE if report.integers else FLOAT_TOLERANCE
    wrong = [
        row for row in report.rows if level in row.statistics and off(row, row.statistics[level], tolerance)
    ]
    if wrong:
        first = wrong[0]
        statistic = first.statistics[level]
        layers = report.comparison.layers_until(
            first.tensor.name, lambda name: level in report.comparison.rows[name].statistics, level
        )
        yield (
            f"the {level} level differs from {report.framework} first in layer '{'+'.join(layers)}': "
            f"'{first.tensor.name}' is off by up to {statistic.max_abs:.3g}, {statistic.relative:.2g} of its "
            f"largest magnitude ({tolerance:g} is tolerated); {count(wrong)}"
        )


def off(row: Row, statistic: Statistic, tolerance: float) -> bool:
    """Whether a tensor differs from the source by more than float sums explain."""
    return statistic.relative > tolerance if row.is_float else statistic.equal < 1.0


def bits_failure(report: Report, pair: tuple[str, str]) -> Iterator[str]:
    """The first layers in which two levels that should be equal differ."""
    rows = report.comparison.rows
    wrong = {row.tensor.name: row for row in report.rows if pair in row.bits and unequal(report, row, pair)}

    def same(name: str) -> bool:
        return pair in rows[name].bits and name not in wrong

    def known(name: str) -> bool:
        return pair in rows[name].bits

    for name, row in wrong.items():
        if any(before in wrong for before in report.comparison.nearest_before(name, known)):
            continue
        bits = row.bits[pair]
        layers = "+".join(report.comparison.layers_until(name, same, pair[1]))
        kind = " (of another type or scale)" if bits.unlike else ""
        yield (
            f"{pair[0]} and {pair[1]} give different bits first in layer '{layers}': {bits.differing} of "
            f"{bits.elements} elements of '{name}'{kind}; {count(wrong)}"
        )


def unequal(report: Report, row: Row, pair: tuple[str, str]) -> bool:
    """Whether two levels differ in a tensor by more than another order of float sums explains."""
    bits, tolerance = row.bits[pair], report.loose.get(row.tensor.name)
    if tolerance is None or pair[0] != "qnn" or bits.unlike or not bits.differing:
        return bits.differing > 0
    if not row.is_float:  # class numbers, comparisons
        return bits.differing > (1 - INTEGER_AGREEMENT) * bits.elements
    return not bits.difference.relative <= tolerance


def count(wrong: Collection[object]) -> str:
    """How many tensors are wrong."""
    return "1 tensor differs in all" if len(wrong) == 1 else f"{len(wrong)} tensors differ in all"


def sqnr_failures(report: Report, levels: Sequence[str], min_sqnr: float, hint: str) -> Iterator[str]:
    """Outputs that are too far from the source, and at which quantised levels."""
    for name in report.outputs:
        row = report.comparison.rows.get(name)
        where: dict[str, list[str]] = {}
        for level in levels if row is not None else ():
            statistic = row.statistics.get(level)  # type: ignore[union-attr]
            if statistic is None:
                continue
            if row.is_float and not statistic.sqnr >= min_sqnr:  # type: ignore[union-attr]
                found = f"has an SQNR of {decibels(statistic.sqnr)}, {min_sqnr:g} dB are asked for"
                where.setdefault(found, []).append(level)
            elif not row.is_float and statistic.equal < INTEGER_AGREEMENT:  # type: ignore[union-attr]
                found = f"equals the source in {statistic.equal:.1%}, {INTEGER_AGREEMENT:.0%} is asked for"
                where.setdefault(found, []).append(level)
        for found, at in where.items():
            yield f"the output '{name}' {found} (at the level{'s' * (len(at) > 1)} {', '.join(at)}){hint}"


def bad_layers(report: Report) -> Iterator[tuple[str, str]]:
    """Layers that lose much of their inputs' SQNR, in the model's order: names, and a sentence about each."""
    level, rows = report.measured, report.comparison.rows

    def compared(name: str) -> bool:
        return level in rows[name].statistics

    for row in report.rows:
        statistic = row.statistics.get(level)
        if statistic is None or not row.is_float:
            continue
        before = report.comparison.nearest_before(row.tensor.name, compared)
        inputs = min([INPUT_SQNR, *(rows[n].statistics[level].sqnr for n in before)])
        if inputs - statistic.sqnr > DROP:
            names = "+".join(report.comparison.layers_until(row.tensor.name, compared, level))
            yield (
                f"'{names}'",
                f"layer '{names}' loses much of its precision: its inputs have {decibels(inputs)} or more, "
                f"its result '{row.tensor.name}' has {decibels(statistic.sqnr)}",
            )


def decibels(value: float) -> str:
    """An SQNR in words."""
    return f"{value:.1f} dB" if math.isfinite(value) else ("equal" if value > 0 else "-∞ dB")


# --- JSON ------------------------------------------------------------------------------------------------
def row_json(row: Row) -> dict[str, Any]:
    """A row in JSON's types."""
    tensor: SourceTensor = row.tensor
    return {
        "tensor": tensor.name,
        "layer": tensor.layer,
        "operator": tensor.operator,
        "shape": list(row.shape),
        "levels": {level: statistic_json(s) for level, s in row.statistics.items()},
        "bits": {
            f"{a}={b}": {"elements": bits.elements, "differing": bits.differing, "unlike": bits.unlike}
            for (a, b), bits in row.bits.items()
        },
        "fused_into": row.fused,
        "problems": row.problems,
    }


def statistic_json(statistic: Statistic) -> dict[str, Any]:
    """A statistic in JSON's types."""
    return {
        "max_abs": finite(statistic.max_abs),
        "relative": finite(statistic.relative),
        "sqnr_db": finite(statistic.sqnr),
        "cosine": finite(statistic.cosine),
        "equal": statistic.equal,
    }


def finite(value: float) -> float | str:
    """A number JSON has a word for, else a string."""
    return value if math.isfinite(value) else str(value)


__all__ = ["Report", "verify"]
