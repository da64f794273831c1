"""Runs a compiled program, after the manner of ONNX Runtime's InferenceSession."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import FileFormatError, InputError
from ..extensions import load_operators
from ..runtime.flatfile import FlatFile, open_file
from ..runtime.interpreter import check_feeds
from .program import NodeArg, Program, read_signature
from .target import family_named


class Session:
    """A program loaded and ready; its states keep their values from run to run, until `reset`.

    `sanitize` checks it for races, bounds and unwritten bytes while it runs. Raises FileFormatError for a file that is
    none, Fault where a sanitizer finds something.
    """

    def __init__(self, program: str | os.PathLike[str] | Program | FlatFile, sanitize: bool = False):
        load_operators()
        if isinstance(program, Program):
            self.file = program.to_file()
        elif isinstance(program, FlatFile):
            self.file = program
        elif isinstance(program, (str, os.PathLike)):
            self.file = open_file(program)
        else:
            raise InputError(
                f"a session cannot be made of {type(program).__name__}: give the path of a .nacre file, or what "
                "nacre.compile returned"
            )
        try:
            self._inputs, self._outputs = read_signature(self.file)
        except (ValueError, KeyError, TypeError) as error:
            raise FileFormatError(f"'{self.file.label}' holds no sound signature: {error}") from None
        self.family = family_named(self.file.family)
        self.executor = self.family.executor(self.file, sanitize)

    def get_inputs(self) -> list[NodeArg]:
        """The inputs, in the source model's order."""
        return list(self._inputs)

    def get_outputs(self) -> list[NodeArg]:
        """The outputs, in the source model's order."""
        return list(self._outputs)

    def run(self, output_names: Sequence[str] | None, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """One inference: the named outputs, or all of them for None. Raises InputError for what does not
        fit.
        """
        if not isinstance(feeds, Mapping):
            raise InputError(
                f"the inputs are of type {type(feeds).__name__}: give a dictionary of arrays by name, with "
                + ", ".join(repr(a.name) for a in self._inputs)
            )
        if isinstance(output_names, str) or not isinstance(output_names, (Iterable, type(None))):
            raise InputError(f"output_names is {output_names!r}: give a list of names, or None for all outputs")
        check_feeds({a.name: (tuple(a.shape), a.dtype) for a in self._inputs}, feeds)
        known = [a.name for a in self._outputs]
        wanted = known if output_names is None else list(output_names)
        for name in wanted:
            if name not in known:
                raise InputError(f"there is no output '{name}'; the outputs are {', '.join(known)}")
        arrays = {n: np.asarray(a) for n, a in feeds.items()}
        for name, array in arrays.items():
            if array.dtype.kind == "f" and (count := int(np.isnan(array).sum())):
                raise InputError(
                    f"the input '{name}' holds NaN ({count} of {array.size} values); it takes numbers only"
                )
        results = self.executor.run(arrays)
        return [results[name] for name in wanted]

    def reset(self) -> None:
        """Put the initial values back into all states, as if nothing had run."""
        self.executor.reset()

    def profile(self) -> dict[str, Any]:
        """Figures of one inference: cycles, seconds, DRAM traffic, memory, busy cycles by engine."""
        return self.executor.profile()
