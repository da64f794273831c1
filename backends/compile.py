"""`nacre.compile`: from a model to a program, level by level."""

from __future__ import annotations

import operator
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from xdsl.dialects.builtin import ModuleOp, TensorType
from xdsl.passes import ModulePass

from ..dialects.graph import ConstantOp
from ..dialects.npu import BufferType
from ..dialects.quant import QDQ, QuantType
from ..dialects.text import load_module
from ..dialects.types import dtype_of, element_type, shape_of
from ..errors import CompileError, ImportFailed, InputError, OpenShapes
from ..extensions import load_operators
from ..passes.graph.simplify import SimplifyPass
from ..passes.manager import Canonicalize, Cse, PassManager
from ..passes.npu.target import set_target
from ..passes.quantise.apply_table import apply_layers, apply_tensors
from ..passes.quantise.calibrate import calibrate
from ..passes.quantise.fold_qdq import FoldQdqPass
from ..passes.quantise.parameters import SCHEMES
from ..passes.quantise.quantise import QuantiseToQnnPass
from ..passes.quantise.report import keep_rows, layer_rows
from ..passes.quantise.table import QuantTable, load_table, table_text
from ..runtime.interpreter import argument_names, expected_inputs, main_function, result_names
from .calibration import calibration_batches
from .program import Program, node_arg, signature_section
from .target import CompileOptions, resolve_target

LEVELS = ("graph", "qnn", "npu", "schedule")
Progress = Callable[[str, int, int | None], None]
"""Called with (what is done, how much so far, of how much or None): with a pass, its number and the number of
all passes before each pass, with ("calibrating", samples, None) after each sample."""


@dataclass
class Stages:
    """What a compilation leaves behind: modules by level, seconds by pass."""

    levels: dict[str, ModuleOp] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    progress: Progress | None = None
    total: int = 0
    begun: int = 0

    def run(self, passes: Sequence[ModulePass], module: ModuleOp, verify_each: bool) -> None:
        """Run passes, timed and reported."""
        PassManager(passes, verify_each, self.note, before=self.begin).run(module)

    def begin(self, one: ModulePass) -> None:
        """Say which pass comes now."""
        self.begun += 1
        if self.progress:
            self.progress(one.name, self.begun, self.total)

    def note(self, one: ModulePass, module: ModuleOp, seconds: float) -> None:
        """Count a pass's time."""
        self.seconds[one.name] = self.seconds.get(one.name, 0.0) + seconds


def compile(
    model: str | os.PathLike[str] | ModuleOp | Any,
    *,
    target: str = "v853",
    dtype: str | None = None,
    calibration: Any = None,
    calibration_method: str = "min-max",
    shapes: Mapping[str, Sequence[int]] | None = None,
    fuse: bool = True,
    quant_table: Any = None,
    stop_after: str | None = None,
    verify_each: bool = False,
    progress: Progress | None = None,
) -> Program:
    """Compile a model (.onnx file or ModelProto, .tflite file or bytes, .mlir file, graph module) for a
    target.

    dtype: int8 (the default), uint8, int16 or int16x8 (16-bit activations, 8-bit weights), which need
    calibration data, or float32; a model that is quantised already has its own. calibration: a folder, .npz,
    iterable of {name: array}, or an ONNX Runtime CalibrationDataReader. shapes: what dynamic inputs are fixed
    to; without them, the sizes of the first calibration sample of a list. fuse: let the NN engine do what follows a
    convolution. quant_table: a YAML file, or its content as a dictionary, that gives layers types and tensors
    ranges of their own (docs/quantisation.md); the table of all that was done is in the program's
    report["quant_table"]. stop_after: graph, qnn, npu or schedule.

    Raises NacreError (CompileError, ImportFailed, MachineError, InputError) in one sentence for what cannot
    work.
    """
    load_operators()
    if stop_after is not None and stop_after not in LEVELS:
        raise CompileError(f"there is no level '{stop_after}'; the levels are {', '.join(LEVELS)}")
    if dtype not in (None, "float32", *SCHEMES):
        raise CompileError(f"there is no dtype '{dtype}'; there are {', '.join(SCHEMES)} and float32")
    shapes = checked_shapes(shapes)
    family, machine = resolve_target(target)
    table = QuantTable() if quant_table is None else load_table(quant_table)
    started = time.perf_counter()
    module = load_shaped(model, shapes, calibration)
    if quant_table is not None:
        check_table(table, module, dtype, target, machine.types)
    dtype = chosen_dtype(module, table.default or dtype, target, machine.types)
    options = CompileOptions(dtype, fuse)
    integers = dtype != "float32" or any(name != "float32" for name in table.named_types)
    floats = refuse_level(module, integers, stop_after) == "graph"
    simplification = [SimplifyPass()]
    quantisation: list[ModulePass] = []
    quantise = QuantiseToQnnPass(dtype)
    if QDQ in module.attributes:
        quantisation = [FoldQdqPass(), Canonicalize(), Cse()]
    elif floats and integers:
        quantisation = [quantise, Canonicalize(), Cse()]
    lowering = {level: list(passes) for level, passes in family.pipeline(machine, options).items()}
    if stop_after not in (None, "graph", "qnn", *lowering):
        raise CompileError(f"the {family.name} family has no {stop_after} level to stop after")
    total = len(simplification) + len(quantisation) + sum(map(len, lowering.values()))
    stages = Stages(progress=progress, total=total)
    stages.run(simplification, module, verify_each)
    signature = signature_of(module)
    set_target(module, target)
    if floats and quant_table is not None:
        apply_layers(module, table)
    if quantisation and floats and not (stop_after == "graph" and calibration is None):
        _calibrate(module, calibration, calibration_method, dtype, progress, stages, bool(table.tensors))
    if floats and quant_table is not None:
        apply_tensors(module, table)
    stages.levels["graph"] = module.clone()
    if stop_after != "graph":
        if quantisation or not floats:
            stages.run(quantisation, module, verify_each)
            stages.levels["qnn"] = module.clone()
        if stop_after != "qnn":
            keep_rows(module, layer_rows(module))
            for level, passes in lowering.items():
                stages.run(passes, module, verify_each)
                stages.levels[level] = module if level == "schedule" else module.clone()
                if stop_after == level:
                    break
    report: dict[str, Any] = {"seconds": stages.seconds, "target": target, "dtype": dtype}
    if quantise.tables:
        report["quant_table"] = table_text(quantise.tables[-1])
    sections = {}
    if stop_after is None:
        start = time.perf_counter()
        sections = {"signature": signature, **family.encode(module, machine)}
        stages.seconds["encode"] = time.perf_counter() - start
    report["total_seconds"] = time.perf_counter() - started
    return Program(family, sections, stages.levels, report)


def load_shaped(model: Any, shapes: Mapping[str, Sequence[int]] | None, calibration: Any) -> ModuleOp:
    """The module of a model; sizes that nobody gives are those of a calibration sample at hand."""
    try:
        return load_model(model, shapes)
    except OpenShapes as error:
        sample = calibration[0] if isinstance(calibration, (list, tuple)) and calibration else None
        if not isinstance(sample, Mapping) or not all(name in sample for name in error.names):
            raise
        return load_model(model, {**(shapes or {}), **{name: np.shape(sample[name]) for name in error.names}})


def check_table(
    table: QuantTable, module: ModuleOp, dtype: str | None, target: str, types: Sequence[str]
) -> None:
    """Raise an error where a quantisation table does not fit the model's level, the dtype or the target."""
    if level_of(module) != "graph" or quantised_dtypes(module):
        raise InputError(
            "quant_table: a quantisation table is for float models, and this one is quantised already; leave it out"
        )
    if table.default is not None and dtype not in (None, table.default):
        raise InputError(
            f"quant_table: its default is {table.default}, but dtype {dtype} is asked for as well: give only one"
        )
    for name, entry in table.named_types.items():
        if name != "float32" and activations_of(name) not in types:
            raise CompileError(
                f"quant table: {entry} is {name}, but '{target}' does not compute in it; "
                f"it does in {', '.join(types)} and float32"
            )


def chosen_dtype(module: ModuleOp, dtype: str | None, target: str, types: Sequence[str]) -> str:
    """What a module is compiled to: what it is quantised to already, else the user's choice, else int8.

    Raises CompileError where the two contradict each other, or where the target does not compute in it.
    """
    own = quantised_dtypes(module)
    asked = activations_of(dtype) if dtype else None
    if own and asked not in (None, *own):
        raise CompileError(
            f"dtype {dtype} is asked for, but the model is quantised already, to {' and '.join(own)}: "
            "compile it without a dtype, or start from its float version"
        )
    chosen = own or [dtype or "int8"]
    for name in chosen:
        if name != "float32" and activations_of(name) not in types:
            raise CompileError(f"'{target}' does not compute in {name}; it does in {', '.join(types)}")
    return chosen[0]


def activations_of(dtype: str) -> str:
    """The type of the activations of a dtype, as machines name it."""
    return dtype_of(SCHEMES[dtype].activations).name if dtype in SCHEMES else dtype


def quantised_dtypes(module: ModuleOp) -> list[str]:
    """The integer types of a module's quantised activations, the most frequent one first."""
    block = main_function(module).body.block
    computed = [r for op in block.ops if not isinstance(op, ConstantOp) for r in op.results]
    elements = [getattr(v.type, "element_type", None) for v in (*block.args, *computed)]
    return [
        n for n, _ in Counter(dtype_of(e).name for e in elements if isinstance(e, QuantType)).most_common()
    ]


def refuse_level(module: ModuleOp, integers: bool, stop_after: str | None) -> str:
    """The level a module is at. Raises CompileError where it is too low, or `stop_after` is never reached."""
    level = level_of(module)
    if level not in ("graph", "qnn"):
        raise CompileError(
            f"the module is at the {level} level already, and compile begins at graph or qnn: run it with "
            "nacre run, lower it with nacre opt, or make a .nacre file of address form with nacre asm"
        )
    if stop_after == "qnn" and level == "graph" and not integers:
        raise CompileError("with dtype float32 there is no qnn level to stop after")
    return level


def load_model(model: Any, shapes: Mapping[str, Sequence[int]] | None = None) -> ModuleOp:
    """A module at the graph level from whatever a user has. Raises ImportFailed in a sentence."""
    shapes = checked_shapes(shapes)
    if isinstance(model, ModuleOp):
        return model.clone()
    if isinstance(model, (str, os.PathLike)):
        path = Path(model)
        if path.suffix in (".npy", ".npz", ".safetensors", ".toml", ".json", ".py"):
            raise ImportFailed(f"'{path}' is no model: give an .onnx, .tflite or .mlir file")
        if path.suffix == ".mlir":
            if shapes:
                raise InputError(f"shapes are fixed in '{path}': give them when the text is made of a model")
            return with_static_main(load_module(path), path)
        if path.suffix == ".tflite":
            from ..frontends.tflite import import_tflite

            return import_tflite(path, shapes)
        if path.suffix == ".nacre":
            raise ImportFailed(f"'{path}' is compiled already: run it with nacre run")
    if isinstance(model, (bytes, bytearray, memoryview)):
        model = bytes(model)
    if isinstance(model, bytes) and model[4:8] == b"TFL3":
        from ..frontends.tflite import import_tflite

        return import_tflite(model, shapes)
    import onnx  # takes a while, and not every use needs it

    from ..frontends.onnx import import_onnx

    if isinstance(model, bytes):
        model = onnx_of_bytes(model)
    elif not isinstance(model, (str, os.PathLike, onnx.ModelProto)):
        raise ImportFailed(
            f"the model is of type {type(model).__name__}: give the path of an .onnx, .tflite or .mlir file, "
            "its bytes, an onnx.ModelProto or a graph module"
        )
    return import_onnx(model, shapes)


def onnx_of_bytes(content: bytes) -> Any:
    """The ONNX model that bytes hold. Raises ImportFailed for others."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        proto = onnx.ModelProto.FromString(content)
    except (DecodeError, UnicodeDecodeError, ValueError):
        proto = onnx.ModelProto()
    if not proto.HasField("graph"):
        raise ImportFailed(
            f"the {len(content)} bytes given as a model are neither a TFLite file (no identifier TFL3) nor a "
            "complete ONNX model: give the bytes of one, or its path"
        )
    return proto


def checked_shapes(shapes: Any) -> dict[str, list[int]] | None:
    """Shapes by input name as lists of integers. Raises InputError for anything else."""
    if shapes is None:
        return None
    if not isinstance(shapes, Mapping):
        raise InputError(f"shapes is {shapes!r}: give a dictionary such as {{'x': [1, 3, 224, 224]}}")
    found = {}
    for name, shape in shapes.items():
        try:
            if isinstance(shape, (str, bytes)):
                raise TypeError
            found[name] = [operator.index(size) for size in shape]
        except TypeError:
            raise InputError(
                f"the shape given for input '{name}' is {shape!r}: give whole numbers such as [1, 3, 224, 224]"
            ) from None
    return found


def with_static_main(module: ModuleOp, path: Path) -> ModuleOp:
    """The module, if @main takes tensors of fixed shape, or buffers. Raises ImportFailed for another."""
    function = main_function(module)
    for name, argument in zip(argument_names(function), function.args):
        static = isinstance(argument.type, TensorType) and all(d >= 0 for d in shape_of(argument))
        if not static and not isinstance(argument.type, BufferType):
            raise ImportFailed(
                f"'{path}': the input '{name}' is {argument.type}, but inputs are tensors of fixed shape"
            )
    return module


def level_of(module: ModuleOp) -> str:
    """The lowest level whose ops a module holds: graph, qnn, npu or schedule."""
    dialects = {op.dialect_name() for op in main_function(module).body.block.ops}
    if "npu" in dialects:
        from ..passes.npu.form import ADDRESS, form_of

        return "schedule" if form_of(module) == ADDRESS else "npu"
    return "qnn" if {"qnn", "quant"} & dialects or quantised_dtypes(module) else "graph"


def _calibrate(
    module: ModuleOp,
    source: Any,
    method: str,
    dtype: str,
    progress: Progress | None,
    stages: Stages,
    has_table: bool,
) -> None:
    if source is None:
        if has_table or _has_ranges(module):
            return
        raise CompileError(
            f"quantising to {dtype} needs calibration data: pass a folder or .npz of representative inputs "
            "(calibration=…, --calibration), or compile with dtype float32"
        )
    start = time.perf_counter()
    done = (lambda n: progress("calibrating", n, None)) if progress else None
    batches = calibration_batches(source, expected_inputs(main_function(module)))
    calibrate(module, batches, method, progress=done)
    stages.seconds["calibrate"] = time.perf_counter() - start


def _has_ranges(module: ModuleOp) -> bool:
    return any("nacre.range" in op.attributes for op in main_function(module).body.block.ops)


def signature_of(module: ModuleOp) -> bytes:
    """The signature section of a module at the graph or qnn level."""
    function = main_function(module)
    returned = function.get_return_op()
    assert returned is not None
    inputs = [
        node_arg(n, shape_of(a), dtype_of(element_type(a)))
        for n, a in zip(argument_names(function), function.args)
    ]
    outputs = [
        node_arg(n, shape_of(v), dtype_of(element_type(v)))
        for n, v in zip(result_names(function), returned.operands)
    ]
    return signature_section(inputs, outputs)


__all__ = ["LEVELS", "compile", "level_of", "load_model"]
