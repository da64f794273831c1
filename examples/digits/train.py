"""Trains the small CNN that the examples compile, and writes it as `digits.onnx` with its data, `digits.npz`.

The data are scikit-learn's 1,797 handwritten digits of 8x8 pixels, enlarged to 48x48 so that feature maps
outgrow a small SRAM. An image becomes the input by `pixel / 255` as float32, shaped [1, 1, 48, 48], and by
nothing else. `digits.npz` holds, all uint8: `images` [450, 48, 48] and `labels` [450], held out of training,
and `calibration` [64, 48, 48], taken from the training part. No setting is chosen by looking at the held-out
images: the weights written are those after the last epoch.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from ...errors import NacreError

try:
    import torch
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split
    from torch import Tensor, fx, nn
    from torch.nn import functional
except ModuleNotFoundError as missing:
    sys.exit(
        f"error: training needs {missing.name}, which is not installed; pip install 'nacre[train]' brings it"
    )

SIDE = 48
HELD_OUT = 450
CALIBRATION = 64
BATCH = 64


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(options.seed)
    try:
        refuse_unwritable(options.out)
        digits = load(options.seed)
        net = DigitNet()
        train(net, digits, options.epochs)
        model = to_onnx(net)
        check_export(net, model, digits.calibration[:4])
        files = {"digits.onnx": model.SerializeToString(deterministic=True), "digits.npz": archive(digits)}
        write_whole(options.out, files)
    except NacreError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for name, content in files.items():
        print(f"{options.out / name}: {len(content):,} bytes")
    print(f"held-out top-1: {accuracy(net, digits.images, digits.labels):.2%} of {HELD_OUT} images")
    return 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m nacre.examples.digits.train",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=(
            "Train a small CNN on scikit-learn's handwritten digits, enlarged to 48x48, and write\n"
            "  DIR/digits.onnx  the network: float32, `image` [1, 1, 48, 48] -> `probabilities` [1, 10],\n"
            "                   its batch normalisations left as nodes for a compiler to fold;\n"
            f"  DIR/digits.npz   uint8 `images` and `labels` ({HELD_OUT}, held out) and\n"
            f"                   `calibration` ({CALIBRATION}, from the training part).\n"
            "The network's input is pixel / 255."
        ),
        epilog=(
            "Needs the `train` extra (torch, scikit-learn) and one core for some minutes. The same versions\n"
            "on the same machine give the same bytes. Progress goes to stderr; what was written and the\n"
            "held-out accuracy go to stdout.\n\n"
            "Example: python -m nacre.examples.digits.train --out /tmp/digits --epochs 5"
        ),
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="where both files go; made if missing, files replaced",
    )
    parser.add_argument(
        "--epochs",
        type=positive,
        default=60,
        metavar="N",
        help="passes over the training part (default: %(default)s)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="of the split, the first weights and the augmentation; another seed holds out other images "
        "(default: %(default)s)",
    )
    return parser.parse_args(arguments)


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not a positive number")
    return number


# --- data


@dataclass(frozen=True)
class Digits:
    """uint8 images [N, 48, 48] and labels [N]; `calibration` is part of `train_images`."""

    train_images: np.ndarray
    train_labels: np.ndarray
    images: np.ndarray
    labels: np.ndarray
    calibration: np.ndarray


def load(seed: int) -> Digits:
    """Split by class in equal shares; the calibration images are again such a share of the training part."""
    source = load_digits()
    labels = source.target.astype(np.uint8)
    pixels = torch.from_numpy(source.images.astype(np.float32))[:, None] * (255 / 16)  # stored as 0..16
    enlarged = functional.interpolate(pixels, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
    images = enlarged.round().clamp(0, 255)[:, 0].numpy().astype(np.uint8)
    train_images, held_out, train_labels, held_out_labels = train_test_split(
        images, labels, test_size=HELD_OUT, stratify=labels, random_state=seed
    )
    _, calibration = train_test_split(
        train_images, test_size=CALIBRATION, stratify=train_labels, random_state=seed
    )
    return Digits(train_images, train_labels, held_out, held_out_labels, calibration)


def as_input(images: np.ndarray) -> Tensor:
    """uint8 [N, 48, 48] -> float32 [N, 1, 48, 48], the network's input: pixel / 255."""
    return torch.from_numpy(images[:, None].astype(np.float32) / np.float32(255))


def augment(batch: Tensor) -> Tensor:
    """Rotate by up to 10 degrees, scale by up to 10 %, shift by up to 3 pixels, each image its own way."""
    count = len(batch)
    angle = (torch.rand(count) * 2 - 1) * (torch.pi / 18)
    scale = 1 + (torch.rand(count) * 2 - 1) * 0.1
    shift = (torch.rand(count, 2) * 2 - 1) * (3 / (SIDE / 2))  # affine_grid's unit is half a side
    cosine, sine = torch.cos(angle) * scale, torch.sin(angle) * scale
    rows = [torch.stack([cosine, -sine, shift[:, 0]], 1), torch.stack([sine, cosine, shift[:, 1]], 1)]
    grid = functional.affine_grid(torch.stack(rows, 1), list(batch.shape), align_corners=False)
    return functional.grid_sample(batch, grid, align_corners=False)


# --- network


class Add(nn.Module):
    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return left + right


class Concat(nn.Module):
    """Along the channels."""

    def forward(self, *parts: Tensor) -> Tensor:
        return torch.cat(parts, 1)


def conv_bn(
    inputs: int,
    outputs: int,
    kernel: int,
    activation: type[nn.Module] | None = nn.ReLU,
    stride: int = 1,
    groups: int = 1,
) -> nn.Sequential:
    """Convolution with `same` padding and no bias, batch normalisation, and an activation if named."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    layers = OrderedDict[str, nn.Module](conv=conv, bn=nn.BatchNorm2d(outputs))
    if activation is not None:
        layers[activation.__name__.lower()] = activation()
    return nn.Sequential(layers)


class Residual(nn.Module):
    """Two 3x3 convolutions beside the identity, ReLU after the sum."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = conv_bn(channels, channels, 3)
        self.second = conv_bn(channels, channels, 3, activation=None)
        self.add = Add()
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.add(self.second(self.first(x)), x))


class Inception(nn.Module):
    """32 channels -> 64: a 1x1 branch, a 1x1-3x3 branch and a pooled 1x1 branch, concatenated."""

    def __init__(self) -> None:
        super().__init__()
        self.point = conv_bn(32, 16, 1)
        self.reduce = conv_bn(32, 16, 1)
        self.spatial = conv_bn(16, 32, 3)
        self.pool = nn.MaxPool2d(3, stride=1, padding=1)
        self.pooled = conv_bn(32, 16, 1)
        self.concat = Concat()

    def forward(self, x: Tensor) -> Tensor:
        return self.concat(self.point(x), self.spatial(self.reduce(x)), self.pooled(self.pool(x)))


class DigitNet(nn.Module):
    """[N, 1, 48, 48] -> probabilities [N, 10]. The submodules' names become the names of the ONNX nodes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(1, 16, 3)
        self.pool1 = nn.MaxPool2d(2)
        self.depthwise = conv_bn(16, 16, 3, nn.ReLU6, groups=16)
        self.pointwise = conv_bn(16, 32, 1)
        self.residual = Residual(32)
        self.pool2 = nn.AvgPool2d(2)
        self.inception = Inception()
        self.expand = conv_bn(64, 128, 1, nn.ReLU6)
        self.downsample = conv_bn(128, 128, 3, nn.ReLU6, stride=2, groups=128)
        self.project = conv_bn(128, 96, 1)
        self.pool3 = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.dense = nn.Linear(96, 10)
        self.softmax = nn.Softmax(1)

    def logits(self, x: Tensor) -> Tensor:
        x = self.pool1(self.stem(x))
        x = self.pool2(self.residual(self.pointwise(self.depthwise(x))))
        x = self.project(self.downsample(self.expand(self.inception(x))))
        return self.dense(self.flatten(self.pool3(x)))

    def forward(self, x: Tensor) -> Tensor:
        return self.softmax(self.logits(x))


# --- training


def train(net: DigitNet, digits: Digits, epochs: int) -> None:
    """AdamW with a one-cycle learning rate on the cross entropy of augmented images."""
    inputs = as_input(digits.train_images)
    targets = torch.from_numpy(digits.train_labels.astype(np.int64))
    batches = len(inputs) // BATCH  # the rest of an epoch's shuffle is left out: too few for batch statistics
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=epochs * batches)
    net.train()
    start = time.monotonic()
    for epoch in range(1, epochs + 1):
        total_loss, correct = 0.0, 0
        for chosen in torch.randperm(len(inputs))[: batches * BATCH].split(BATCH):
            logits = net.logits(augment(inputs[chosen]))
            loss = functional.cross_entropy(logits, targets[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total_loss += loss.item()
            correct += int((logits.argmax(1) == targets[chosen]).sum())
        seconds = time.monotonic() - start
        print(
            f"epoch {epoch:3}/{epochs}  loss {total_loss / batches:.4f}  "
            f"top-1 on augmented training images {correct / (batches * BATCH):.2%}  {seconds:.0f} s",
            file=sys.stderr,
            flush=True,
        )
    net.eval()


@torch.no_grad()
def accuracy(net: DigitNet, images: np.ndarray, labels: np.ndarray) -> float:
    return float((net(as_input(images)).argmax(1).numpy() == labels).mean())


# --- export


@dataclass(frozen=True)
class OnnxNode:
    """What one module becomes: operator, attributes, and constant operands after the computed ones."""

    op_type: str
    attributes: dict[str, Any]
    constants: dict[str, Tensor]


def onnx_conv(conv: nn.Conv2d) -> OnnxNode:
    pads = [*conv.padding, *conv.padding]
    attributes = {
        "kernel_shape": conv.kernel_size,
        "strides": conv.stride,
        "pads": pads,
        "group": conv.groups,
    }
    return OnnxNode("Conv", attributes, {"weight": conv.weight})


def onnx_batch_norm(bn: nn.BatchNorm2d) -> OnnxNode:
    constants = {"scale": bn.weight, "bias": bn.bias, "mean": bn.running_mean, "var": bn.running_var}
    return OnnxNode("BatchNormalization", {"epsilon": bn.eps}, constants)


def onnx_pool(op_type: str, pool: nn.MaxPool2d | nn.AvgPool2d) -> OnnxNode:
    """Both paddings of a dimension are equal in PyTorch and two numbers in ONNX."""
    attributes = {
        "kernel_shape": [pool.kernel_size] * 2,
        "strides": [pool.stride] * 2,
        "pads": [pool.padding] * 4,
    }
    return OnnxNode(op_type, attributes, {})


def onnx_gemm(dense: nn.Linear) -> OnnxNode:
    return OnnxNode("Gemm", {"transB": 1}, {"weight": dense.weight, "bias": dense.bias})


# Rather than PyTorch's exporter, so that batch normalisation stays a node and nodes keep the modules' names
# whatever PyTorch's version. A module without a line here stops the export.
TRANSLATIONS: dict[type[nn.Module], Callable[..., OnnxNode]] = {
    nn.Conv2d: onnx_conv,
    nn.BatchNorm2d: onnx_batch_norm,
    nn.ReLU: lambda _: OnnxNode("Relu", {}, {}),
    nn.ReLU6: lambda _: OnnxNode("Clip", {}, {"min": torch.tensor(0.0), "max": torch.tensor(6.0)}),
    nn.MaxPool2d: lambda pool: onnx_pool("MaxPool", pool),
    nn.AvgPool2d: lambda pool: onnx_pool("AveragePool", pool),
    nn.AdaptiveAvgPool2d: lambda _: OnnxNode("GlobalAveragePool", {}, {}),  # of output size 1
    nn.Flatten: lambda _: OnnxNode("Flatten", {"axis": 1}, {}),
    nn.Linear: onnx_gemm,
    nn.Softmax: lambda softmax: OnnxNode("Softmax", {"axis": softmax.dim}, {}),
    Add: lambda _: OnnxNode("Add", {}, {}),
    Concat: lambda _: OnnxNode("Concat", {"axis": 1}, {}),
}


class LeafTracer(fx.Tracer):
    """Stops at the modules that have a translation."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return type(m) in TRANSLATIONS


def to_onnx(net: DigitNet) -> onnx.ModelProto:
    """One ONNX node a module, named as the module is; its output has the node's name."""
    nodes, initializers = [], []
    tensor_names: dict[fx.Node, str] = {}
    for step in LeafTracer().trace(net).nodes:
        if step.op == "placeholder":
            tensor_names[step] = "image"
            continue
        if step.op == "output":
            continue
        name = str(step.target)
        module = net.get_submodule(name)
        translated = TRANSLATIONS[type(module)](module)
        operands = [tensor_names[operand] for operand in step.all_input_nodes]
        for role, constant in translated.constants.items():
            operands.append(f"{name}.{role}")
            initializers.append(numpy_helper.from_array(constant.detach().numpy(), operands[-1]))
        tensor_names[step] = "probabilities" if module is net.softmax else name
        nodes.append(
            helper.make_node(
                translated.op_type, operands, [tensor_names[step]], name=name, **translated.attributes
            )
        )
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 1, SIDE, SIDE])
    probabilities = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [1, 10])
    graph = helper.make_graph(nodes, "digits", [image], [probabilities], initializers)
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
        producer_name="nacre.examples.digits",
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def check_export(net: DigitNet, model: onnx.ModelProto, images: np.ndarray) -> None:
    """The ONNX reference evaluator must find what PyTorch finds."""
    reference = ReferenceEvaluator(model)
    for image in images:
        batch = as_input(image[None])
        with torch.no_grad():
            expected = net(batch).numpy()
        (found,) = reference.run(None, {"image": batch.numpy()})
        difference = float(np.abs(found - expected).max())
        if not difference < 1e-4:
            raise NacreError(
                f"digits.onnx: the exported network differs from the trained one by {difference:.2g} in a "
                "probability, where 1e-4 is allowed; nothing was written, see TRANSLATIONS in train.py"
            )


# --- files


def archive(digits: Digits) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, images=digits.images, labels=digits.labels, calibration=digits.calibration)
    return buffer.getvalue()


def refuse_unwritable(folder: Path) -> None:
    """Before minutes of training rather than after."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise NacreError(
            f"--out {folder}: cannot write there ({error.strerror}); name a folder that can be written"
        ) from error


def write_whole(folder: Path, files: dict[str, bytes]) -> None:
    """Every file is complete on the disk before the first takes its name."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=".digits-") as staging:
        for name, content in files.items():
            (Path(staging) / name).write_bytes(content)
        for name in files:
            os.replace(Path(staging) / name, folder / name)


if __name__ == "__main__":
    sys.exit(main())
