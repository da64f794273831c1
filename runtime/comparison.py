"""Compares levels of one compilation, and a compiled program, with the source framework, tensor by tensor.

Values are joined on the source tensor they stand for (`nacre.source`, the program's debug map), never on op
names or positions. Nothing is cropped, broadcast or skipped: what cannot be compared is named.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation, SSAValue

from ..dialects.graph import ConstantOp as GraphConstantOp
from ..dialects.locations import layer_of
from ..dialects.nacre import sources_of
from ..dialects.npu import WRITE, Instruction
from ..dialects.npu_instructions import ReshapeOp, ViewOp
from ..errors import FileFormatError, NacreError
from .emulator import Emulator
from .interpreter import interpret
from .kernels.quantised_elementwise import dequantise
from .npu_interpreter import interpret_npu

Feeds = Mapping[str, np.ndarray]


class SourceTensor(NamedTuple):
    """A tensor that a layer of the source model computes, and the tensors the layer reads (no constants)."""

    name: str
    layer: str
    operator: str
    inputs: tuple[str, ...]


class Golden(Protocol):
    """A model in its source framework."""

    @property
    def framework(self) -> str:
        """Its name and version."""
        ...

    @property
    def inputs(self) -> Mapping[str, tuple[tuple[int, ...], np.dtype]]:
        """Shape and dtype by name."""
        ...

    @property
    def outputs(self) -> Sequence[str]:
        """The names of the outputs, in order."""
        ...

    @property
    def tensors(self) -> Sequence[SourceTensor]:
        """What the layers compute from the inputs, in the model's order."""
        ...

    @property
    def rounds(self) -> bool:
        """Whether it rounds activations at run time which the import computes in float."""
        ...

    def run(self, feeds: Feeds, names: Sequence[str]) -> dict[str, np.ndarray]:
        """The named tensors (inputs are none) for some inputs."""
        ...

    def portions(self, limit: int) -> Iterator[list[SourceTensor]]:
        """All tensors, in portions of about `limit` bytes."""
        ...


def in_portions(
    tensors: Iterable[SourceTensor], nbytes: Callable[[SourceTensor], int], limit: int
) -> Iterator[list[SourceTensor]]:
    """Tensors in their order, in portions of about `limit` bytes each."""
    portion: list[SourceTensor] = []
    size = 0
    for tensor in tensors:
        need = nbytes(tensor)
        if portion and size + need > limit:
            yield portion
            portion, size = [], 0
        portion.append(tensor)
        size += need
    if portion:
        yield portion


# --- what a level holds ----------------------------------------------------------------------------------
class Held(NamedTuple):
    """An array that stands for a source tensor, in the source's axis order; integers with what they mean."""

    stored: np.ndarray
    scale: float | None = None
    zero: int = 0

    @property
    def real(self) -> np.ndarray:
        """The values: real = scale · (q − zero)."""
        return self.stored if self.scale is None else dequantise(self.stored, self.scale, self.zero)

    @property
    def form(self) -> tuple[str, float | None, int]:
        """Arrays of one form can be compared bit for bit."""
        return self.stored.dtype.name, self.scale, self.zero


@dataclass
class Level:
    """The source tensors that a level holds, each in one or more forms, and the layers that make them.

    The first form is the one to judge: what the program gives back for an output, else the integers.
    """

    name: str
    held: dict[str, list[Held]] = field(default_factory=dict)
    layers: dict[str, list[str]] = field(default_factory=dict)
    working: set[str] = field(default_factory=set)
    """The names of all layers that compute something at this level; mere views of others do not."""

    def keep(
        self, tensor: str, array: np.ndarray, axes: Sequence[int], scale: float | None, zero: int
    ) -> None:
        """Add an array whose axis i is axis axes[i] of the source tensor."""
        if sorted(axes) != list(range(array.ndim)):
            raise NacreError(
                f"the {self.name} level says that '{tensor}' has the axes {list(axes)}, "
                f"but holds an array of shape {list(array.shape)}"
            )
        forms = self.held.setdefault(tensor, [])
        held = Held(array.transpose(np.argsort(axes)), scale, zero)
        forms.insert(0 if scale is not None else len(forms), held)

    def keep_outputs(self, outputs: Mapping[str, np.ndarray], wanted: Collection[str]) -> None:
        """Add what the level gives back; the model's names for its outputs are those of source tensors."""
        for name, array in outputs.items():
            if name in wanted:
                forms = self.held.setdefault(name, [])
                alike = [held for held in forms if held.stored.dtype == array.dtype]
                forms.insert(0, alike[0]._replace(stored=array) if alike else Held(array))

    def give_meaning(self, types: Mapping[str, tuple[float, int]]) -> None:
        """Say what the integers mean that the level gives back for outputs (scale and zero by name)."""
        for name, (scale, zero) in types.items():
            forms = self.held.get(name, [])
            for index, held in enumerate(forms):
                if held.scale is None and held.stored.dtype.kind in "iu":
                    forms[index] = held._replace(scale=scale, zero=zero)

    def made_by(self, tensor: str, label: str) -> None:
        """Note layers (joined by +) whose instructions make a tensor."""
        names = self.layers.setdefault(tensor, [])
        names += [name for name in label.split("+") if name and name not in names]


def collect_module(name: str, module: ModuleOp, feeds: Feeds, wanted: Collection[str]) -> Level:
    """Interpret a module of the graph or qnn level and keep the wanted source tensors."""
    level = Level(name)

    def watch(value: SSAValue, array: np.ndarray) -> None:
        for source in sources_of(value):
            if source.tensor in wanted:
                level.keep(source.tensor, array, source.axes, source.scale, source.zero)
                assert isinstance(value.owner, Operation)
                level.made_by(source.tensor, layer_of(value.owner.location))

    level.keep_outputs(interpret(module, feeds, watch), wanted)
    level.working = layer_names(op for op in module.walk() if not isinstance(op, GraphConstantOp))
    return level


def collect_npu(name: str, module: ModuleOp, feeds: Feeds, wanted: Collection[str]) -> Level:
    """Interpret a module in buffer form and keep the wanted source tensors."""
    seen: list[tuple[SSAValue, np.ndarray]] = []

    def watch(value: SSAValue, array: np.ndarray) -> None:
        if any(source.tensor in wanted for source in sources_of(value)):
            seen.append((value, array))

    outputs = interpret_npu(module, feeds, watch)
    level = Level(name)
    for value, array in seen:  # only now: parts of a view may be written after the view's own last use
        for source in sources_of(value):
            if source.tensor in wanted:
                level.keep(source.tensor, array, source.axes, source.scale, source.zero)
                for writer in writers_of(value):
                    level.made_by(source.tensor, layer_of(writer.location))
    level.keep_outputs(outputs, wanted)
    level.working = layer_names(op for op in module.walk() if isinstance(op, Instruction))
    return level


def layer_names(ops: Iterable[Operation]) -> set[str]:
    """The layers in the locations of ops."""
    labels = {layer_of(location) for location in {op.location for op in ops}}
    return {name for label in labels for name in label.split("+") if name}


def writers_of(value: SSAValue) -> Iterator[Instruction]:
    """The instructions that write a buffer, itself or through reshapes and views of it."""
    while isinstance(value.owner, ReshapeOp):
        value = value.owner.source
    queue = [value]
    for buffer in queue:  # which grows meanwhile
        for op in dict.fromkeys(use.operation for use in buffer.uses):
            if isinstance(op, (ViewOp, ReshapeOp)):
                queue.append(op.results[0])
            elif isinstance(op, Instruction):
                ports = (port for port in op.PORTS if port.effect is WRITE)
                if any(written is buffer for port in ports for written in op.buffers(port.name)):
                    yield op


def collect_program(name: str, emulator: Emulator, feeds: Feeds, wanted: Collection[str]) -> Level:
    """Run a program and read the wanted tensors of its debug map from memory, each as soon as it is complete.

    Raises FileFormatError for a debug map that speaks of commands which the program does not have.
    """
    level, program = Level(name), emulator.program
    complete: dict[int, list] = {}
    for tensor in program.tensors:
        if not -1 <= tensor.after < len(program.commands):
            raise FileFormatError(
                f"the debug map says that '{tensor.name}' is complete after command {tensor.after}, "
                f"but the program has {len(program.commands)} commands"
            )
        if tensor.name in wanted:
            complete.setdefault(tensor.after, []).append(tensor)

    def read(index: int) -> None:
        for tensor in complete.get(index, ()):
            array = emulator.view(tensor.region).copy()
            level.keep(tensor.name, array, tensor.axes, tensor.scale, tensor.zero)
            level.made_by(tensor.name, program.layer_of(index) if index >= 0 else tensor.layer)

    outputs = emulator.run(feeds, hook=read)
    read(-1)  # parts of an input, which nothing writes
    level.keep_outputs(outputs, wanted)
    level.working = {name for label in set(program.layers) for name in label.split("+") if name}
    return level


# --- measures --------------------------------------------------------------------------------------------
@dataclass
class Statistic:
    """How far an array is from what was expected, over any number of samples."""

    elements: int = 0
    equal_elements: int = 0
    max_abs: float = 0.0
    peak: float = 0.0
    signal: float = 0.0
    noise: float = 0.0
    found_power: float = 0.0
    dot: float = 0.0

    def add(self, expected: np.ndarray, found: np.ndarray) -> None:
        """Take in a sample. The shapes have to be equal.

        Equal infinities and NaN in both places are no error; any other pair with one of them is infinite.
        """
        if expected.shape != found.shape:
            raise NacreError(f"shapes {list(expected.shape)} and {list(found.shape)} cannot be compared")
        x, y = expected.astype(np.float64).ravel(), found.astype(np.float64).ravel()
        same = (x == y) | (np.isnan(x) & np.isnan(y))
        finite = np.isfinite(x) & np.isfinite(y)
        self.elements += x.size
        self.equal_elements += int(same.sum())
        if not (same | finite).all():
            self.noise = self.max_abs = math.inf
        x, y = x[finite], y[finite]
        if x.size:
            error = x - y
            self.max_abs = max(self.max_abs, float(np.abs(error).max()))
            self.peak = max(self.peak, float(np.abs(x).max()))
            self.signal += float(x @ x)
            self.noise += float(error @ error)
            self.found_power += float(y @ y)
            self.dot += float(x @ y)

    @property
    def sqnr(self) -> float:
        """Signal to quantisation noise in dB, infinite where all is equal."""
        if self.noise == 0:
            return math.inf
        if self.signal == 0 or math.isinf(self.noise):
            return -math.inf
        return 10 * math.log10(self.signal / self.noise)

    @property
    def cosine(self) -> float:
        """The cosine of the angle between both, 1 where both are zero."""
        if self.signal == 0 or self.found_power == 0:
            return 1.0 if self.signal == self.found_power else 0.0
        return self.dot / math.sqrt(self.signal * self.found_power)

    @property
    def equal(self) -> float:
        """The fraction of equal elements."""
        return self.equal_elements / self.elements if self.elements else 1.0

    @property
    def relative(self) -> float:
        """The largest error as a share of the largest expected magnitude."""
        if self.max_abs == 0:
            return 0.0
        return self.max_abs / self.peak if self.peak else math.inf


@dataclass
class Bits:
    """How many elements of two levels differ in a tensor that both hold; all of them where the forms do."""

    elements: int = 0
    differing: int = 0
    unlike: bool = False
    """Whether the levels hold it in different types or scales."""
    difference: Statistic = field(default_factory=Statistic)
    """How far apart they are, over the samples in which they differ."""


# --- the comparison --------------------------------------------------------------------------------------
@dataclass
class Row:
    """What was found about one source tensor, level by level."""

    tensor: SourceTensor
    shape: tuple[int, ...] = ()
    is_float: bool = True
    statistics: dict[str, Statistic] = field(default_factory=dict)
    bits: dict[tuple[str, str], Bits] = field(default_factory=dict)
    fused: dict[str, str] = field(default_factory=dict)
    """The layer that took a tensor in, for levels that do not hold it."""
    problems: list[str] = field(default_factory=list)


class Comparison:
    """Collects rows over samples: `add` a portion of source tensors and what each level holds of them."""

    def __init__(self, tensors: Sequence[SourceTensor], pairs: Sequence[tuple[str, str]]):
        self.rows = {t.name: Row(t) for t in tensors}
        self.pairs = list(pairs)
        self.holders: dict[str, dict[str, list[str]]] = {}
        self.working: dict[str, set[str]] = {}
        self.users: dict[str, list[str]] = {}
        for tensor in tensors:
            for name in tensor.inputs:
                self.users.setdefault(name, []).append(tensor.name)

    def add(self, expected: Mapping[str, np.ndarray], levels: Mapping[str, Level]) -> None:
        """Take in one sample's tensors."""
        for name, array in expected.items():
            row = self.rows[name]
            row.shape, row.is_float = array.shape, array.dtype.kind == "f"
            fitting = {label: self._fitting(row, level, array) for label, level in levels.items()}
            for label, forms in fitting.items():
                if forms:
                    row.statistics.setdefault(label, Statistic()).add(array, forms[0].real)
            for pair in self.pairs:
                compare_bits(row, pair, *(fitting.get(label, []) for label in pair))
        for label, level in levels.items():
            self.holders.setdefault(label, {}).update({n: level.layers.get(n, []) for n in level.held})
            self.working.setdefault(label, set()).update(level.working)

    @staticmethod
    def _fitting(row: Row, level: Level, expected: np.ndarray) -> list[Held]:
        forms = level.held.get(row.tensor.name, [])
        for held in forms:
            if held.stored.shape != expected.shape:
                problem = (
                    f"'{row.tensor.name}' (layer '{row.tensor.layer}') is {list(expected.shape)} in the "
                    f"source, but {list(held.stored.shape)} at the {level.name} level"
                )
                if problem not in row.problems:
                    row.problems.append(problem)
        return [held for held in forms if held.stored.shape == expected.shape]

    def finish(self) -> None:
        """Find out for each tensor that a level does not hold which layer took it in."""
        for label in self.holders:
            for name, row in self.rows.items():
                if name not in self.holders[label]:
                    row.fused[label] = self._taken_in(row.tensor, label)

    def _taken_in(self, tensor: SourceTensor, label: str) -> str:
        """The layer whose name says so, else the next one whose result the level holds, else ""."""
        holders = self.holders[label]
        found = list(self.next_held(tensor.name, label))
        for name in found:
            if tensor.layer in holders[name]:
                return "+".join(holders[name])
        return self.rows[found[0]].tensor.layer if found else ""

    def next_held(self, name: str, label: str) -> Iterable[str]:
        """The tensors of a level next behind one that it does not hold, in the source's order."""
        return self._walk(name, lambda n: self.users.get(n, ()), lambda n: n in self.holders[label])

    def nearest_before(self, name: str, found: Callable[[str], bool]) -> Iterable[str]:
        """The nearest tensors with `found` that a tensor is computed from."""
        return self._walk(name, self._inputs, lambda n: n in self.rows and found(n))

    def layers_until(self, name: str, stop: Callable[[str], bool], label: str) -> list[str]:
        """The layers that make a tensor, back to tensors where `stop` holds and to the model's inputs.

        Only those that compute something at the level `label`, when any does.
        """
        order = {n: i for i, n in enumerate(self.rows)}
        inner = {name}
        queue = [name]
        while queue:
            for before in self._inputs(queue.pop()):
                if before in self.rows and before not in inner and not stop(before):
                    inner.add(before)
                    queue.append(before)
        layers = list(dict.fromkeys(self.rows[n].tensor.layer for n in sorted(inner, key=order.__getitem__)))
        return [layer for layer in layers if layer in self.working[label]] or layers

    def _inputs(self, name: str) -> Sequence[str]:
        return self.rows[name].tensor.inputs if name in self.rows else ()

    @staticmethod
    def _walk(
        start: str, step: Callable[[str], Iterable[str]], found: Callable[[str], bool]
    ) -> Iterable[str]:
        seen, queue = {start}, [start]
        for name in queue:  # breadth first; the queue grows meanwhile
            for other in step(name):
                if other not in seen:
                    seen.add(other)
                    if found(other):
                        yield other
                    else:
                        queue.append(other)


def compare_bits(row: Row, pair: tuple[str, str], one: Sequence[Held], other: Sequence[Held]) -> None:
    """Compare all forms that two levels hold of a tensor alike; without any, nothing is equal."""
    if not one or not other:
        return
    alike = [(a, b) for a in one for b in other if a.form == b.form]
    counts = [differing_elements(a.stored, b.stored) for a, b in alike]
    bits = row.bits.setdefault(pair, Bits())
    for (a, b), differing in zip(alike, counts):
        if differing:
            bits.difference.add(a.real, b.real)
    bits.elements += one[0].stored.size
    bits.differing += max(counts, default=one[0].stored.size)
    bits.unlike |= not counts


def differing_elements(one: np.ndarray, other: np.ndarray) -> int:
    """How many elements differ in their bits: NaN equals the same NaN, 0.0 and −0.0 differ."""
    raw = np.dtype(f"V{one.dtype.itemsize}")
    a, b = (np.ascontiguousarray(x).reshape(-1).view(raw) for x in (one, other))
    return int((a != b).sum())
