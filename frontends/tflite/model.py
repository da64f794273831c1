"""Reads a TFLite file into plain records; nothing of the flatbuffer is left behind, and a damaged one is
refused.

The schema is that of the `tflite` package. Every length in the file is held against the file's size before it
is believed, so reading takes time and memory proportional to the file.
"""

from __future__ import annotations

import functools
import math
import os
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tflite

from ...dialects.types import ELEMENT_OF
from ...errors import ImportFailed

LARGEST_TENSOR = 2**31
"""Elements; TFLite counts them in 32 bits."""

MOST_AXES = 8
"""As many as TFLite's own kernels take."""

DAMAGE = (struct.error, IndexError, ValueError, TypeError, OverflowError, AssertionError)
"""What the flatbuffers package raises when an offset leads out of the file or to something else."""


class Quantisation(NamedTuple):
    """real = scales · (q − zeros); one of each, or one a slice along `axis`."""

    scales: np.ndarray  # float32 [n]
    zeros: np.ndarray  # int64 [n]
    axis: int


class SourceTensor(NamedTuple):
    """A tensor of the file. data: of a constant. open: whether the file says that some sizes may change.

    problem: why nothing can be done with it, if so. variable: whether it keeps its value between runs.
    """

    index: int  # type: ignore[assignment]
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    quantisation: Quantisation | None = None
    data: np.ndarray | None = None
    open: bool = False
    problem: str = ""
    variable: bool = False


class SourceOperator(NamedTuple):
    """An operator of the file; inputs and outputs are tensors by index, None for an absent one.

    fields: its options by the schema's names, the schema's defaults where the file leaves one out. intermediates:
    tensors by index that stand for values inside the operator; of them only scales and zero points matter.
    """

    kind: str
    name: str
    inputs: tuple[int | None, ...]
    outputs: tuple[int, ...]
    options: str
    fields: Mapping[str, Any]
    intermediates: tuple[int, ...] = ()


class SourceModel(NamedTuple):
    """A file's one subgraph."""

    tensors: tuple[SourceTensor, ...]
    operators: tuple[SourceOperator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def read_model(model: str | os.PathLike[str] | bytes) -> SourceModel:
    """A file or its bytes as records. Raises ImportFailed in a sentence."""
    label, content = read_bytes(model)
    if content[4:8] != b"TFL3":
        raise ImportFailed(f"{label} is no TFLite file: it does not carry the identifier TFL3")
    try:
        return Reader(content, label).model()
    except DAMAGE as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ImportFailed(f"{label} is damaged or cut off: {reason}") from None


def read_bytes(model: str | os.PathLike[str] | bytes) -> tuple[str, bytes]:
    """What to call the model in messages, and its content."""
    if isinstance(model, bytes):
        return "the model", model
    if not isinstance(model, (str, os.PathLike)):
        raise ImportFailed(f"a TFLite model is a path or bytes, not {type(model).__name__}")
    try:
        return f"'{os.fspath(model)}'", Path(model).read_bytes()
    except OSError as error:
        raise ImportFailed(f"'{os.fspath(model)}' cannot be read: {error.strerror or error}") from None


# --- the schema's enumerations ---------------------------------------------------------------------------
@functools.cache
def words_of(enumeration: str) -> Mapping[int, str]:
    """Names by value of an enumeration of the schema."""
    members = vars(getattr(import_module(f"tflite.{enumeration}"), enumeration))
    return {value: name for name, value in members.items() if isinstance(value, int)}


def word(enumeration: str, value: int) -> str:
    """The name of a value, or the number itself where the schema has none."""
    return words_of(enumeration).get(value, str(value))


# --- reading ---------------------------------------------------------------------------------------------
class Reader:
    """One pass over a file's bytes."""

    def __init__(self, content: bytes, label: str):
        self.content, self.label = content, label
        self.root = tflite.Model.GetRootAs(content, 0)

    def model(self) -> SourceModel:
        """All records."""
        count = self.checked(self.root.SubgraphsLength(), "subgraphs")
        if count != 1:
            raise ImportFailed(
                f"{self.label} has {count} subgraphs (control flow or several signatures); models of "
                "one can be imported"
            )
        graph = self.root.Subgraphs(0)
        tensors = tuple(self.tensors(graph))
        inputs = self.references(ints(graph.InputsAsNumpy()), tensors, "the model's inputs")
        outputs = self.references(ints(graph.OutputsAsNumpy()), tensors, "the model's outputs")
        tensors = uniquely_named(tensors, [*inputs, *outputs])
        return SourceModel(tensors, tuple(self.operators(graph, tensors)), inputs, outputs)

    def checked(self, count: int, what: str) -> int:
        """A number of entries of four bytes each, which the file must have room for."""
        if not 0 <= count <= len(self.content) // 4:
            raise ValueError(f"it claims to hold {count} {what}")
        return count

    def references(self, indices: Sequence[int], tensors: Sequence[SourceTensor], what: str) -> tuple[int, ...]:
        """Indices of tensors that are there."""
        for index in indices:
            if not 0 <= index < len(tensors):
                raise ValueError(f"{what} name tensor {index} of {len(tensors)}")
        return tuple(indices)

    # -- tensors
    def tensors(self, graph: Any) -> Iterator[SourceTensor]:
        buffers = self.checked(self.root.BuffersLength(), "buffers")
        for index in range(self.checked(graph.TensorsLength(), "tensors")):
            yield self.tensor(graph.Tensors(index), index, buffers)

    def tensor(self, table: Any, index: int, buffers: int) -> SourceTensor:
        raw = table.Name()
        name = raw.decode("utf-8", "replace") if raw else f"tensor_{index}"
        shape, signature = ints(table.ShapeAsNumpy()), ints(table.ShapeSignatureAsNumpy())
        dtype, problem = dtype_of_type(word("TensorType", table.Type()))
        size = math.prod(shape)
        if any(d < 0 for d in shape):
            problem = f"its shape {list(shape)} has a size below 0"
        elif len(shape) > MOST_AXES:
            problem = f"it has {len(shape)} axes, and {MOST_AXES} are the most that can be imported"
        elif size > LARGEST_TENSOR:
            problem = f"its shape {list(shape)} is that of more than 2^31 elements"
        elif table.Sparsity() is not None:
            problem = "its values are stored sparsely, and only dense tensors can be imported"
        content = self.buffer(table.Buffer(), buffers)
        data = None
        if content is not None and not problem:
            if content.size != size * dtype.itemsize:
                takes = size * dtype.itemsize
                problem = f"its buffer has {content.size} bytes, but {dtype}{list(shape)} takes {takes}"
            else:
                data = np.frombuffer(content.tobytes(), dtype).reshape(shape)
                if data.dtype == np.bool_:
                    data = content.reshape(shape) != 0  # bytes other than 0 and 1 are no booleans to numpy
        quantisation, variable = self.quantisation(table.Quantization()), bool(table.IsVariable())
        return SourceTensor(index, name, shape, dtype, quantisation, data, -1 in signature, problem, variable)

    def buffer(self, number: int, count: int) -> np.ndarray | None:
        """A buffer's bytes; None for an empty one, which is what computed tensors name."""
        if not 0 <= number < count:
            raise ValueError(f"a tensor names buffer {number} of {count}")
        table = self.root.Buffers(number)
        if table.Offset() > 1:  # files above 2 GB keep their constants behind the flatbuffer
            start, size = table.Offset(), table.Size()
            if start + size > len(self.content):
                raise ValueError(f"buffer {number} reaches beyond the end of the file")
            return np.frombuffer(self.content, np.uint8, size, start)
        if table.DataIsNone() or table.DataLength() == 0:
            return None
        return np.asarray(table.DataAsNumpy(), np.uint8)

    def quantisation(self, table: Any) -> Quantisation | None:
        """Scales and zero points; None where there are none (a range alone quantises nothing)."""
        if table is None or table.ScaleIsNone() or table.ScaleLength() == 0:
            return None
        scales = np.array(table.ScaleAsNumpy(), np.float32)
        given = table.ZeroPointAsNumpy()
        zeros = np.zeros(1, np.int64) if isinstance(given, int) or len(given) == 0 else np.array(given, np.int64)
        return Quantisation(scales, zeros, int(table.QuantizedDimension()))

    # -- operators
    def operators(self, graph: Any, tensors: Sequence[SourceTensor]) -> Iterator[SourceOperator]:
        kinds = [self.kind(i) for i in range(self.checked(self.root.OperatorCodesLength(), "operator codes"))]
        names: set[str] = set()
        for index in range(self.checked(graph.OperatorsLength(), "operators")):
            table = graph.Operators(index)
            kind = kinds[table.OpcodeIndex()]
            given = ints(table.InputsAsNumpy())
            self.references([i for i in given if i != -1], tensors, f"the inputs of operator {index} ({kind})")
            outputs = self.references(
                ints(table.OutputsAsNumpy()), tensors, f"the outputs of operator {index} ({kind})"
            )
            inside = ints(table.IntermediatesAsNumpy())
            intermediates = self.references(inside, tensors, f"the intermediates of operator {index} ({kind})")
            options, fields = self.options(table)
            base = tensors[outputs[0]].name if outputs else f"{kind}_{index}"
            name = base if base not in names else f"{base}_{index}"
            names.add(name)
            inputs = tuple(None if i == -1 else i for i in given)
            yield SourceOperator(kind, name, inputs, outputs, options, fields, intermediates)

    def kind(self, index: int) -> str:
        """An operator code's name; a custom operator's own in quotes."""
        code = self.root.OperatorCodes(index)
        number = max(code.DeprecatedBuiltinCode(), code.BuiltinCode())
        if word("BuiltinOperator", number) == "CUSTOM":
            custom = code.CustomCode()
            return f"CUSTOM '{custom.decode('utf-8', 'replace') if custom else ''}'"
        return word("BuiltinOperator", number)

    def options(self, table: Any) -> tuple[str, Mapping[str, Any]]:
        """The name of an operator's options table, and its fields."""
        name = word("BuiltinOptions", table.BuiltinOptionsType())
        union = table.BuiltinOptions()
        if name == "NONE" or not name[0].isalpha() or union is None:
            return "", {}
        options = getattr(import_module(f"tflite.{name}"), name)()
        options.Init(union.Bytes, union.Pos)
        return name, {field: read(options) for field, read in readers_of(name).items()}


@functools.cache
def readers_of(name: str) -> Mapping[str, Callable[[Any], Any]]:
    """How to read each field of an options table: numbers as they are, vectors as tuples of integers."""
    methods = vars(getattr(import_module(f"tflite.{name}"), name))
    found: dict[str, Callable[[Any], Any]] = {}
    for field in methods:
        skipped = field == "Init" or field.startswith("GetRootAs") or field.endswith("BufferHasIdentifier")
        if not field[0].isupper() or skipped or field.endswith(("AsNumpy", "IsNone", "Length")):
            continue
        if f"{field}AsNumpy" in methods:
            found[field] = _vector_reader(f"{field}AsNumpy")
        elif f"{field}Length" not in methods:
            found[field] = _number_reader(field)
    return found


def _vector_reader(method: str) -> Callable[[Any], tuple[int, ...]]:
    return lambda table: ints(getattr(table, method)())


def _number_reader(method: str) -> Callable[[Any], Any]:
    return lambda table: getattr(table, method)()


def ints(vector: Any) -> tuple[int, ...]:
    """A vector as a tuple; the flatbuffers package gives 0 for an absent one."""
    return () if isinstance(vector, int) else tuple(int(v) for v in vector)


def dtype_of_type(name: str) -> tuple[np.dtype, str]:
    """The numpy dtype of a tensor type of the schema, and a problem where there is none."""
    try:
        dtype = np.dtype(name.lower())
    except TypeError:
        dtype = np.dtype(np.void)
    if dtype in ELEMENT_OF:
        return dtype, ""
    return dtype, f"its elements are of the type {name.lower()}, which cannot be imported"


def uniquely_named(tensors: Sequence[SourceTensor], first: Sequence[int]) -> tuple[SourceTensor, ...]:
    """The tensors, of which no two have one name; those in `first` keep theirs before all others."""
    taken: set[str] = set()
    named = list(tensors)
    for index in dict.fromkeys([*first, *range(len(tensors))]):
        name = tensors[index].name
        if name in taken:
            name = f"{name}_{index}"
        while name in taken:
            name += "_"
        taken.add(name)
        named[index] = tensors[index]._replace(name=name)
    return tuple(named)
