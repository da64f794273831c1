"""What the source framework computes: every tensor of a TFLite model for given inputs.

LiteRT runs the model with its reference kernels and keeps all tensors. Names are those that the import gives.
"""

from __future__ import annotations

import importlib.util
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ...errors import InputError
from ...runtime.comparison import Feeds, SourceTensor, in_portions
from ...runtime.kernels.quantised_elementwise import dequantise
from .hybrid import NOTE, rounded_layers
from .importer import input_shapes
from .model import read_bytes, read_model


class TfliteGolden:
    """A TFLite model in its source framework; the same reading of the file that `import_tflite` makes.

    say: called with a note where LiteRT rounds what the import does not; `rounds` is whether it does.
    Raises ImportFailed for a file that cannot be read, InputError where LiteRT is missing or refuses the
    model.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | bytes,
        shapes: Mapping[str, Sequence[int]] | None = None,
        say: Callable[[str], None] = lambda text: None,
    ):
        source = read_model(model)
        sizes = input_shapes(source, shapes or {})
        self._by_name = {t.name: t for t in source.tensors}
        self._index = {t.name: t.index for t in source.tensors}
        self.inputs = {source.tensors[i].name: (sizes[i], source.tensors[i].dtype) for i in source.inputs}
        self.outputs = [source.tensors[i].name for i in source.outputs]
        self.tensors = list(computed_tensors(source))
        self.framework, self._interpreter = interpreter_of(read_bytes(model)[1])
        self._prepare()
        self._last: Feeds | None = None
        rounded = rounded_layers(source)
        self.rounds = bool(rounded)
        if rounded:
            say(NOTE.format(count=f"{len(rounded)} layer{'s' if len(rounded) > 1 else ''}"))

    def _prepare(self) -> None:
        try:
            for name, (shape, _) in self.inputs.items():
                if shape != self._by_name[name].shape:
                    self._interpreter.resize_tensor_input(self._index[name], shape)
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise InputError(f"LiteRT cannot prepare the model: {str(error).splitlines()[0]}") from None

    def run(self, feeds: Feeds, names: Sequence[str]) -> dict[str, np.ndarray]:
        """The named tensors, quantised ones as the reals they stand for. Raises InputError for wrong
        inputs.
        """
        return {name: self._real(name, array) for name, array in self.stored(feeds, names).items()}

    def stored(self, feeds: Feeds, names: Sequence[str]) -> dict[str, np.ndarray]:
        """The named tensors as they lie in memory: of quantised ones, the integers."""
        if feeds is not self._last:
            self._invoke(feeds)
            self._last = feeds
        return {name: self._interpreter.get_tensor(self._index[name]) for name in names}

    def _invoke(self, feeds: Feeds) -> None:
        self._last = None
        try:
            for name in self.inputs:
                self._interpreter.set_tensor(self._index[name], np.asarray(feeds[name]))
            self._interpreter.reset_all_variables()  # each sample is a run of its own
            self._interpreter.invoke()
        except KeyError as error:
            raise InputError(f"the input {error} is missing") from None
        except (ValueError, RuntimeError) as error:
            raise InputError(f"LiteRT cannot run the model on this input: {str(error).splitlines()[0]}") from None

    def _real(self, name: str, array: np.ndarray) -> np.ndarray:
        q = self._by_name[name].quantisation
        if q is None or array.dtype.itemsize > 2 or len(q.scales) != 1:
            return array
        return dequantise(array, float(q.scales[0]), int(q.zeros[0]))

    def portions(self, limit: int) -> Iterator[list[SourceTensor]]:
        """All tensors in the model's order, in portions of about `limit` bytes each."""
        return in_portions(self.tensors, lambda t: math.prod(self._by_name[t.name].shape) * 4, limit)


def computed_tensors(source: Any) -> Iterator[SourceTensor]:
    """The outputs of the operators that depend on the model's inputs."""
    variable = set(source.inputs)
    for operator in source.operators:
        read = [i for i in operator.inputs if i in variable]
        if not read:
            continue  # a constant, which the import folds
        for index in operator.outputs:
            variable.add(index)
            names = tuple(dict.fromkeys(source.tensors[i].name for i in read))
            yield SourceTensor(source.tensors[index].name, operator.name, operator.kind, names)


def interpreter_of(content: bytes) -> tuple[str, Any]:
    """LiteRT's name and version, and its interpreter with reference kernels."""
    if importlib.util.find_spec("ai_edge_litert") is None:
        raise InputError("TFLite models run in ai-edge-litert, which is not installed: it comes with nacre[verify]")
    from importlib.metadata import version

    from ai_edge_litert import interpreter as litert

    try:
        made = litert.Interpreter(
            model_content=content,
            experimental_op_resolver_type=litert.OpResolverType.BUILTIN_REF,
            experimental_preserve_all_tensors=True,
            num_threads=1,
        )
    except (ValueError, RuntimeError) as error:
        raise InputError(f"LiteRT cannot load the model: {str(error).splitlines()[0]}") from None
    return f"LiteRT {version('ai-edge-litert')} reference kernels", made
