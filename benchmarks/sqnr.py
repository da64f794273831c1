"""Accuracy of quantisation beside ONNX Runtime's own static int8 quantiser, on the same calibration inputs.

    python -m nacre.benchmarks.sqnr MODEL.onnx … [--dtype int8] [--inputs accept.py] [--samples 32] …

For each model: the signal-to-noise ratio of all outputs against ONNX Runtime's float results, over inputs
not used for calibration, for Nacre (qnn interpreted) and for ONNX Runtime; how often the largest output is
the float model's (top-1 of a classifier); and Nacre's ratio with inputs and outputs paired wrongly, to show
what a meaningless figure looks like. For int16x8 also the ratio of the float model with nothing but its
weights rounded to 8 bits, which 16-bit activations can come close to and not surpass.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation

from ..dialects import graph
from ..errors import InputError, NacreError
from ..frontends.onnx import import_onnx
from ..frontends.onnx.golden import exact_products
from ..passes.graph.simplify import SimplifyPass
from ..passes.quantise.calibrate import calibrate
from ..passes.quantise.parameters import SCHEMES, half_away, weight_scales
from ..passes.quantise.quantise import quantise
from ..passes.rewrite import canonicalize
from ..runtime.interpreter import interpret

Feeds = Mapping[str, np.ndarray]
Run = Callable[[Feeds], list[np.ndarray]]

class Accuracy(NamedTuple):
    """Signal-to-noise ratio in dB over all outputs, and the share of samples with the same largest output."""

    sqnr: float
    agreement: float


def prepared(model: str | os.PathLike) -> ModuleOp:
    """The float module that is calibrated and quantised."""
    module = import_onnx(model)
    SimplifyPass().run(module)
    return module


WEIGHTS: dict[type[Operation], str] = {
    graph.ConvOp: "weight",
    graph.ConvTransposeOp: "weight",
    graph.MatmulOp: "b",
}
"""The operand that is a weight, by op."""


def weights_alone(model: Path, dtype: str) -> Run:
    """The float model, its weights rounded as `dtype` rounds them: symmetric, a scale an output channel."""
    module = prepared(model)
    storage = SCHEMES[dtype].weights
    for op in list(module.walk()):
        weight = WEIGHTS.get(type(op))
        array = None if weight is None else graph.constant_of(getattr(op, weight))
        if weight is None or array is None or op.parent is None:
            continue
        scales = weight_scales(array.reshape(-1, array.shape[-1]).astype(np.float64), storage, 0)
        rounded = graph.constant((half_away(array / scales) * scales).astype(np.float32), op)
        op.parent.insert_op_before(rounded, op)
        op.operands = [rounded.result if v is getattr(op, weight) else v for v in op.operands]
    return lambda feeds: list(interpret(module, feeds).values())


def nacre_quantised(model: Path, calibration: Iterable[Feeds], dtype: str = "int8") -> Run:
    """The model quantised by Nacre and interpreted at the qnn level."""
    module = prepared(model)
    calibrate(module, calibration)
    quantise(module, dtype)
    canonicalize(module)
    module.verify()
    return lambda feeds: list(interpret(module, feeds).values())


def onnx_runtime(model: Path) -> Run:
    """The model as ONNX Runtime runs it."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    exact_products(options)
    session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    return lambda feeds: [np.asarray(array) for array in session.run(None, dict(feeds))]


def onnx_runtime_int8(model: Path, calibration: Sequence[Feeds], folder: Path) -> Run:
    """The model quantised by ONNX Runtime: QDQ, int8 activations and weights, per channel, min-max."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(calibration)

        def get_next(self):  # type: ignore[override]
            return next(self.left, None)

    recent_file, prepared_file, quantised_file = (folder / f"{i}.onnx" for i in range(3))
    recent(model, recent_file)
    # symbolic shape inference is for open shapes
    quant_pre_process(str(recent_file), str(prepared_file), skip_symbolic_shape=True)
    flatten_gemm_bias(prepared_file)
    quantize_static(
        str(prepared_file),
        str(quantised_file),
        Reader(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod.MinMax,
    )
    return onnx_runtime(quantised_file)


def flatten_gemm_bias(path: Path) -> None:
    """Biases [1, N] that ONNX Runtime's own fusion makes stop its quantiser; [N] is the same."""
    import onnx

    proto = onnx.load(path)
    biases = {node.input[2] for node in proto.graph.node if node.op_type == "Gemm" and len(node.input) == 3}
    for item in proto.graph.initializer:
        if item.name in biases and len(item.dims) == 2 and item.dims[0] == 1:
            del item.dims[0]
    onnx.save(proto, path)


def recent(model: Path, result: Path) -> None:
    """The model in opset 13 or above, where DequantizeLinear works per channel; constants are no inputs."""
    import onnx
    from onnx import version_converter

    proto = onnx.load(model)
    constants = {item.name for item in proto.graph.initializer}
    inputs = [item for item in proto.graph.input if item.name not in constants]
    del proto.graph.input[:]
    proto.graph.input.extend(inputs)
    proto.ir_version = max(proto.ir_version, 8)
    if max(o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")) < 13:
        proto = version_converter.convert_version(proto, 13)
    onnx.save(proto, result)


def accuracy(wanted: Sequence[Sequence[np.ndarray]], found: Sequence[Sequence[np.ndarray]]) -> Accuracy:
    """How close the outputs `found` are to the outputs `wanted`, sample by sample."""
    signal = noise = 0.0
    same = 0
    for want, have in zip(wanted, found, strict=True):
        for w, h in zip(want, have, strict=True):
            signal += float(np.square(w.astype(np.float64)).sum())
            noise += float(np.square(w.astype(np.float64) - h.astype(np.float64)).sum())
        same += int(np.argmax(want[0]) == np.argmax(have[0]))
    return Accuracy(10 * np.log10(signal / max(noise, 1e-30)), same / len(wanted))


def accept_script(path: Path) -> ModuleType:
    """The script whose `reference` and `feeds` give a model's inputs."""
    spec = importlib.util.spec_from_file_location("accept", path)
    if spec is None or spec.loader is None or not path.exists():
        raise InputError(f"'{path}' is no Python script; --inputs names the one with `reference` and `feeds`")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def inputs_of(model: Path, count: int, script: Path | None) -> list[Feeds]:
    """Inputs of a model: images that lie beside it, as in examples/digits, else those of the script."""
    if model.with_suffix(".npz").exists():
        with np.load(model.with_suffix(".npz")) as arrays:
            images = arrays["images"][:count, None, None].astype(np.float32) / np.float32(255)
        return [{"image": image} for image in images]
    if script is None:
        raise InputError(f"no inputs for '{model}': --inputs names a script that makes them (accept.py)")
    accept = accept_script(script)
    inputs, _ = accept.reference(str(model))
    return [accept.feeds(model.name, inputs, i) for i in range(count)]


def measure(model: Path, samples: int, calibration: int, dtype: str, script: Path | None) -> str:
    """One line of figures for a model."""
    feeds = inputs_of(model, calibration + samples, script)
    known, fresh = feeds[:calibration], feeds[calibration:]
    start = time.perf_counter()
    ours = nacre_quantised(model, known, dtype)
    seconds = time.perf_counter() - start
    with tempfile.TemporaryDirectory() as folder:
        theirs = onnx_runtime_int8(model, known, Path(folder))
    float_run = onnx_runtime(model)
    wanted = [float_run(f) for f in fresh]
    found = [ours(f) for f in fresh]
    nacre, peer = accuracy(wanted, found), accuracy(wanted, [theirs(f) for f in fresh])
    shuffled = accuracy(wanted, found[1:] + found[:1])
    alone = ""
    if dtype == "int16x8":
        run = weights_alone(model, dtype)
        alone = f"weights alone {accuracy(wanted, [run(f) for f in fresh]).sqnr:6.2f} dB  "
    return (
        f"{model.name:24} nacre {nacre.sqnr:6.2f} dB  {alone}onnxruntime int8 {peer.sqnr:6.2f} dB  "
        f"top-1 {nacre.agreement:6.1%} / {peer.agreement:6.1%}  wrongly paired {shuffled.sqnr:6.2f} dB  "
        f"quantised in {seconds:.1f} s"
    )


def main() -> int:
    """Print a line a model."""
    parser = argparse.ArgumentParser(
        prog="python -m nacre.benchmarks.sqnr",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("models", nargs="+", type=Path, metavar="MODEL")
    parser.add_argument("--inputs", type=Path, metavar="SCRIPT", help="makes the inputs of the known models")
    parser.add_argument("--samples", type=int, default=32, help="inputs to compare on (32)")
    parser.add_argument("--calibration", type=int, default=16, help="inputs to calibrate on (16)")
    parser.add_argument("--dtype", default="int8", help="int8 (the default), uint8, int16 or int16x8")
    options = parser.parse_args()
    for model in options.models:
        try:
            line = measure(model, options.samples, options.calibration, options.dtype, options.inputs)
        except NacreError as error:
            print(f"error: {model}: {error}", file=sys.stderr)
            return 1
        print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
