"""A small GPT-style network, built here, from ONNX to the emulator in float32 and in mixed precision.

Token embedding, RMS norm, rotary positions, grouped-query attention with a causal mask, SwiGLU, tied output layer.
Weights are random, of the size a trained one's have.
"""

from __future__ import annotations

from typing import Any

import nacre
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

VOCABULARY, WIDTH, HEADS, GROUPS, HEAD, HIDDEN = 64, 32, 4, 2, 8, 64


class Builder:
    """Nodes and constants of one graph, named as they are made."""

    def __init__(self, seed: int):
        self.nodes: list[onnx.NodeProto] = []
        self.held: list[onnx.TensorProto] = []
        self.rng = np.random.default_rng(seed)

    def constant(self, array: np.ndarray) -> str:
        name = f"c{len(self.held)}"
        self.held.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def weight(self, rows: int, columns: int) -> str:
        return self.constant((self.rng.standard_normal((rows, columns)) / np.sqrt(rows)).astype(np.float32))

    def add(self, kind: str, *inputs: str, name: str = "", outputs: int = 1, **attributes) -> Any:
        made = [f"{name or kind.lower()}_{len(self.nodes)}" + (f"_{i}" if i else "") for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), made, name=made[0], **attributes))
        return made[0] if outputs == 1 else made

    def shape(self, *sizes: int) -> str:
        return self.constant(np.array(sizes, np.int64))

    def norm(self, x: str) -> str:
        """x / √(mean(x²) + ε) · g."""
        square = self.add("Mul", x, x)
        mean = self.add("ReduceMean", square, axes=[-1])
        root = self.add("Sqrt", self.add("Add", mean, self.constant(np.array(1e-5, np.float32))))
        gain = self.constant(self.rng.uniform(0.8, 1.2, WIDTH).astype(np.float32))
        return self.add("Mul", self.add("Div", x, root), gain)

    def heads(self, x: str, count: int, length: int) -> str:
        """[1, T, count · D] -> [1, count, T, D]."""
        return self.add("Transpose", self.add("Reshape", x, self.shape(1, length, count, HEAD)), perm=[0, 2, 1, 3])

    def rotary(self, x: str, cos: str, sin: str) -> str:
        """x · cos + rotate_half(x) · sin."""
        left, right = self.add("Split", x, self.shape(HEAD // 2, HEAD // 2), outputs=2, axis=3)
        turned = self.add("Concat", self.add("Neg", right), left, axis=3)
        return self.add("Add", self.add("Mul", x, cos), self.add("Mul", turned, sin))

    def attention(self, x: str, length: int, mask: str, cos: str, sin: str) -> str:
        query = self.heads(self.add("MatMul", x, self.weight(WIDTH, HEADS * HEAD), name="q"), HEADS, length)
        key = self.heads(self.add("MatMul", x, self.weight(WIDTH, GROUPS * HEAD), name="k"), GROUPS, length)
        value = self.heads(self.add("MatMul", x, self.weight(WIDTH, GROUPS * HEAD), name="v"), GROUPS, length)
        query, key = self.rotary(query, cos, sin), self.rotary(key, cos, sin)
        key, value = self.repeated(key, length), self.repeated(value, length)
        scores = self.add("MatMul", query, self.add("Transpose", key, perm=[0, 1, 3, 2]), name="scores")
        scaled = self.add("Mul", scores, self.constant(np.array(HEAD**-0.5, np.float32)))
        share = self.add("Softmax", self.add("Add", scaled, mask), axis=-1)
        mixed = self.add("Transpose", self.add("MatMul", share, value, name="mix"), perm=[0, 2, 1, 3])
        flat = self.add("Reshape", mixed, self.shape(1, length, HEADS * HEAD))
        return self.add("MatMul", flat, self.weight(HEADS * HEAD, WIDTH), name="o")

    def repeated(self, x: str, length: int) -> str:
        """[1, G, T, D] -> [1, heads, T, D], each group for its heads."""
        each = HEADS // GROUPS
        wide = self.add("Unsqueeze", x, self.shape(2))
        wide = self.add("Expand", wide, self.shape(1, GROUPS, each, length, HEAD))
        return self.add("Reshape", wide, self.shape(1, HEADS, length, HEAD))

    def feed_forward(self, x: str) -> str:
        """(silu(x · A) ⊙ (x · B)) · C."""
        gate = self.add("MatMul", x, self.weight(WIDTH, HIDDEN), name="gate")
        silu = self.add("Mul", gate, self.add("Sigmoid", gate))
        up = self.add("MatMul", x, self.weight(WIDTH, HIDDEN), name="up")
        return self.add("MatMul", self.add("Mul", silu, up), self.weight(HIDDEN, WIDTH), name="down")


def gpt(length: int = 12, layers: int = 2, seed: int = 0) -> onnx.ModelProto:
    """tokens int64 [1, length] -> logits float [1, length, VOCABULARY]."""
    b = Builder(seed)
    table = b.rng.standard_normal((VOCABULARY, WIDTH)).astype(np.float32)
    angle = np.arange(length)[:, None] * 10000.0 ** (-np.arange(HEAD // 2) / (HEAD // 2))
    cos, sin = (b.constant(np.tile(f(angle), (1, 2))[None, None].astype(np.float32)) for f in (np.cos, np.sin))
    later = np.triu(np.full((length, length), -1e9, np.float32), 1)[None, None]
    mask, x = b.constant(later), b.add("Gather", b.constant(table), "tokens", name="embedding")
    for _ in range(layers):
        x = b.add("Add", x, b.attention(b.norm(x), length, mask, cos, sin))
        x = b.add("Add", x, b.feed_forward(b.norm(x)))
    last = b.add("MatMul", b.norm(x), b.constant(table.T / np.sqrt(WIDTH).astype(np.float32)), name="logits")
    b.nodes[-1].output[0] = "logits"
    assert last
    tokens = helper.make_tensor_value_info("tokens", TensorProto.INT64, [1, length])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, length, VOCABULARY])
    graph = helper.make_graph(b.nodes, "gpt", [tokens], [logits], b.held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


# --- the tests -------------------------------------------------------------------------------------------
def sentences(count: int, seed: int, length: int = 12) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    return [{"tokens": rng.integers(0, VOCABULARY, (1, length))} for _ in range(count)]


def expected(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, feeds)[0]


@pytest.mark.parametrize("target", ["tiny", "v853"])
def test_in_float32(target: str) -> None:
    model, (feeds,) = gpt(), sentences(1, 1)
    program = nacre.compile(model, target=target, dtype="float32")
    (found,) = nacre.Session(program, sanitize=True).run(None, feeds)
    np.testing.assert_allclose(found, expected(model, feeds), rtol=0, atol=2e-5)


@pytest.mark.parametrize("target", ["tiny", "v853"])
def test_in_mixed_precision(target: str) -> None:
    """Products of matrices on the NN engine in int8, norms, rotations and softmax as the rules have them."""
    model, (feeds,) = gpt(), sentences(1, 1)
    program = nacre.compile(model, target=target, dtype="int8", calibration=sentences(16, 2))
    session = nacre.Session(program, sanitize=True)
    (found,), wanted = session.run(None, feeds), expected(model, feeds)
    noise = np.square(wanted - found).sum()
    assert 10 * np.log10(np.square(wanted).sum() / noise) > 20
    assert session.profile()["busy_cycles"]["nn"] > 0
