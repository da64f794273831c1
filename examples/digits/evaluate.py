"""Measures the float accuracy of `digits.onnx` on the held-out images of `digits.npz`, with ONNX Runtime.

It is the yardstick for what quantisation costs. An image counts when its label is the most probable class.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

try:
    import onnxruntime
except ModuleNotFoundError:
    sys.exit(
        "error: measuring needs onnxruntime, which is not installed; pip install 'nacre[verify]' brings it"
    )

FOLDER = Path(__file__).parent


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    for path in (options.model, options.data):
        if not path.is_file():
            print(f"error: {path}: no such file; see --help for what is expected there", file=sys.stderr)
            return 1
    correct, count = top1(options.model, options.data)
    print(f"{options.model.name}: held-out top-1 {correct / count:.2%} ({correct} of {count} images)")
    return 0


def top1(model: Path, data: Path) -> tuple[int, int]:
    """How many held-out images the model gets right, and of how many."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    with np.load(data) as arrays:
        images, labels = arrays["images"], arrays["labels"]
    inputs = images[:, None, None].astype(np.float32) / np.float32(255)  # [N, 1, 1, 48, 48]
    guesses = [int(session.run(None, {"image": image})[0].argmax()) for image in inputs]
    return int((np.array(guesses) == labels).sum()), len(labels)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m nacre.examples.digits.evaluate",
        description="Count how many held-out digits the float network recognises under ONNX Runtime.",
        epilog="After training into a folder of yours: --model DIR/digits.onnx --data DIR/digits.npz",
    )
    parser.add_argument(
        "--model",
        type=Path,
        default=FOLDER / "digits.onnx",
        metavar="ONNX",
        help="a network with input `image` [1, 1, 48, 48] (default: the one shipped)",
    )
    parser.add_argument(
        "--data",
        type=Path,
        default=FOLDER / "digits.npz",
        metavar="NPZ",
        help="uint8 `images` [N, 48, 48] and `labels` [N] (default: those shipped)",
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
