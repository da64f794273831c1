"""Compiles and runs the light models of the onnx package: time, memory and bits of networks with real shapes.

    python -m nacre.benchmarks.light resnet50 squeezenet --target v853

The package ships them without weights. They are made meaningful here: conv and dense weights He normal, batch
norms with scale 1, mean 0, variance 1, biases 0, seed 0. Inputs are standard normal.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

NAMES = ("resnet50", "squeezenet", "shufflenet", "inception_v1", "densenet121")


def light_model(name: str) -> onnx.ModelProto:
    """A light model with weights."""
    path = Path(onnx.__file__).parent / "backend/test/data/light" / f"light_{name}.onnx"
    return meaningful(onnx.load(path))


def meaningful(model: onnx.ModelProto, seed: int = 0) -> onnx.ModelProto:
    """Replace every parameter that a ConstantOfShape stands for by one that lets signals through."""
    rng = np.random.default_rng(seed)
    graph = model.graph
    uses = {name: (n.op_type, i) for n in graph.node for i, name in enumerate(n.input)}
    for n in graph.node:  # densenet's scale layers: a parameter is unsqueezed, then multiplied or added
        if n.op_type == "Unsqueeze":
            uses[n.input[0]] = uses[n.output[0]]
    shapes = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    kept = []
    for node in graph.node:
        if node.op_type != "ConstantOfShape":
            kept.append(node)
            continue
        array = _parameter(*uses[node.output[0]], tuple(int(d) for d in shapes[node.input[0]]), rng)
        graph.initializer.append(numpy_helper.from_array(array, node.output[0]))
    del graph.node[:]
    graph.node.extend(kept)
    return model


def _parameter(op: str, index: int, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    if op == "BatchNormalization":
        return np.full(shape, {1: 1, 2: 0, 3: 0, 4: 1}[index], np.float32)
    if op == "Mul":
        return np.ones(shape, np.float32)
    if index == 1 and len(shape) > 1:
        deviation = np.sqrt(2 / np.prod(shape[1:]))
        return (rng.standard_normal(shape) * deviation).astype(np.float32)
    return np.zeros(shape, np.float32)


def measure(name: str, target: str, samples: int) -> None:
    """Compile, run, compare with the qnn level, and print a line of figures."""
    import nacre
    from nacre.runtime.interpreter import interpret

    model = light_model(name)
    parameters = {t.name for t in model.graph.initializer}
    (entry,) = (i for i in model.graph.input if i.name not in parameters)
    shape = [d.dim_value for d in entry.type.tensor_type.shape.dim]
    rng = np.random.default_rng(1)
    feeds = [{entry.name: rng.standard_normal(shape).astype(np.float32)} for _ in range(samples + 1)]
    start = time.perf_counter()
    program = nacre.compile(model, target=target, calibration=feeds[1:])
    compiled = time.perf_counter()
    session = nacre.Session(program)
    (got,) = session.run(None, feeds[0])
    ran = time.perf_counter()
    (want,) = interpret(program.levels["qnn"], feeds[0]).values()
    (real,) = interpret(program.levels["graph"], feeds[0]).values()
    noise = float(((real.astype(np.float64) - got) ** 2).sum())
    snr = 10 * np.log10(float((real.astype(np.float64) ** 2).sum()) / noise) if noise else np.inf
    figures = session.profile()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{name} on {target}: compile {compiled - start:.1f} s, load and run {ran - compiled:.2f} s, "
        f"peak {peak:.0f} MiB, {figures['instructions']} instructions, {figures['cycles']} cycles, "
        f"bits {'equal' if np.array_equal(got, want) else 'DIFFER'}, output SQNR {snr:.1f} dB"
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", default=NAMES, help=f"which ones (default: {' '.join(NAMES)})")
    parser.add_argument("--target", default="v853", help="machine (default: v853)")
    parser.add_argument("--samples", type=int, default=2, help="calibration samples (default: 2)")
    arguments = parser.parse_args()
    for name in arguments.names:
        measure(name, arguments.target, arguments.samples)


if __name__ == "__main__":
    main()
