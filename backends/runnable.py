"""Anything Nacre can execute behind one face: a source model, text of any level, a compiled program."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from xdsl.dialects.builtin import ModuleOp

from ..dialects.nacre import initial_states
from ..dialects.npu import buffer_type
from ..dialects.types import dtype_of, element_type, shape_of
from ..errors import CompileError
from ..runtime.interpreter import argument_names, check_feeds, interpret, main_function, result_names
from ..runtime.npu_interpreter import interpret_npu
from .assemble import assemble
from .compile import level_of, load_model
from .program import NodeArg, node_arg
from .session import Session

Run = Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]


@dataclass
class Runnable:
    """What can be run. `session` is there for programs: those have sanitizers, a clock and a profile."""

    level: str
    inputs: Sequence[NodeArg]
    outputs: Sequence[NodeArg]
    function: Run
    session: Session | None = None

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """One inference: all outputs by name. Raises InputError for feeds that do not fit."""
        check_feeds({a.name: (tuple(a.shape), a.dtype) for a in self.inputs}, feeds)
        return self.function(feeds)


def open_runnable(
    path: str | os.PathLike[str], sanitize: bool = False, shapes: Mapping[str, Sequence[int]] | None = None
) -> Runnable:
    """A runnable from a .nacre file, .mlir text of any level, or a source model (run in float)."""
    if Path(path).suffix == ".nacre":
        return of_session(Session(path, sanitize), "program")
    return of_module(load_model(path, shapes), sanitize)


def of_module(module: ModuleOp, sanitize: bool = False) -> Runnable:
    """A runnable from a module: interpreted, or in address form assembled and emulated."""
    level = level_of(module)
    if level == "schedule":
        return of_session(Session(assemble(module), sanitize), level)
    if sanitize:
        raise CompileError(f"the sanitizers watch compiled programs, not modules at the {level} level")
    states = initial_states(module)
    if level == "npu":
        inputs, outputs = _buffers(module)
        return Runnable(level, inputs, outputs, lambda feeds: interpret_npu(module, feeds, states=states))
    function = main_function(module)
    returned = function.get_return_op()
    assert returned is not None
    inputs = [_tensor(n, a) for n, a in zip(argument_names(function), function.args)]
    outputs = [_tensor(n, v) for n, v in zip(result_names(function), returned.operands)]
    return Runnable(level, inputs, outputs, lambda feeds: interpret(module, feeds, states=states))


def of_session(session: Session, level: str) -> Runnable:
    """A runnable from a loaded program."""
    names = [a.name for a in session.get_outputs()]

    def run(feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return dict(zip(names, session.run(None, feeds)))

    return Runnable(level, session.get_inputs(), session.get_outputs(), run, session)


def _tensor(name: str, value) -> NodeArg:
    return node_arg(name, shape_of(value), dtype_of(element_type(value)))


def _buffers(module: ModuleOp) -> tuple[list[NodeArg], list[NodeArg]]:
    sides: dict[str, list[NodeArg]] = {"input": [], "output": [], "state": []}
    function = main_function(module)
    assert function.arg_attrs is not None
    for name, argument, attributes in zip(argument_names(function), function.args, function.arg_attrs):
        type_ = buffer_type(argument)
        sides[attributes.data["npu.kind"].data].append(node_arg(name, type_.shape, dtype_of(type_.element)))  # type: ignore[attr-defined]
    return sides["input"], sides["output"]
