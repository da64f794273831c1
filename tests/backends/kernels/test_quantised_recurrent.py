"""quantised_recurrent.cl: every bit is the qnn operation's, which is TFLite's; on the engine and under PoCL."""

from __future__ import annotations

import itertools
from typing import Any

import nacre.backends.npu.kernels.quantised_recurrent  # noqa: F401  registers the kernels
import numpy as np
import pytest
from nacre.dialects.declarative import Parameters
from nacre.dialects.qnn_recurrent import LstmCellOp, NormLstmCellOp
from nacre.runtime.kernel import run_kernel
from nacre.runtime.kernels.quantised_recurrent import exponential, sigmoid, tanh

SHAPES = [(3, 7), (1, 1), (2, 130), (70, 4)]
"""[N, H]: rows shared out among work items, and more rows than can be."""
QUICK = ((False, True, False), (True, False, False), (False, True, True))
CASES = [
    pytest.param(*case, marks=[] if case in QUICK else pytest.mark.slow)
    for case in itertools.product([False, True], repeat=3)
]
"""Whether the input gate is coupled, the gates have peepholes, they are normalised."""


def drawn(rng: np.random.Generator, dtype: str, *shape: int) -> np.ndarray:
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max, shape, endpoint=True).astype(dtype)


def multipliers(rng: np.random.Generator, count: int, low: int, high: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Q31 multipliers and shifts."""
    return tuple(rng.integers(1 << 30, 1 << 31, count).tolist()), tuple(rng.integers(low, high, count).tolist())


def parameters_of(rng: np.random.Generator, coupled: bool, peepholes: bool, norm: bool) -> dict[str, Any]:
    """Integers of a layer."""
    gates, bits = 3 if coupled else 4, int(rng.integers(0, 7))
    (multiplier,), (shift,) = multipliers(rng, 1, -24, -20)
    p: dict[str, Any] = {
        "input_forget": coupled, "cell_bits": bits, "cell_clip": int(rng.choice([0, 9000])),
        "hidden_multiplier": multiplier, "hidden_shift": shift, "hidden_zero": int(rng.integers(-128, 128)),
        "peephole_multiplier": (), "peephole_shift": (),
    }  # fmt: skip
    if norm:
        p["norm_multiplier"], p["norm_shift"] = multipliers(rng, gates, -4, 1)
        p["guard"] = tuple(rng.integers(1, 1000, gates).tolist())
    if peepholes:
        p["peephole_multiplier"], p["peephole_shift"] = multipliers(rng, gates - 1, -18, -12)
    return p


def operands_of(rng: np.random.Generator, p: dict[str, Any], shape: tuple[int, int]) -> list[np.ndarray]:
    """Operands as selection gives them, the gates as [N, k, H]."""
    (n, hidden), gates = shape, 3 if p["input_forget"] else 4
    inputs = [
        drawn(rng, "int16", n, gates, hidden), rng.integers(-60000, 60000, (n, gates, hidden)).astype(np.int32),
        drawn(rng, "int16", n, hidden),
    ]  # fmt: skip
    if "guard" in p:
        inputs += [drawn(rng, "int16", gates, hidden), drawn(rng, "int32", gates, hidden)]
        inputs[0][0], inputs[1][0] = 77, 0  # a row without variance
    if p["peephole_multiplier"]:
        inputs.append(drawn(rng, "int16", int(rng.choice([1, n])), gates - 1, hidden))
    return inputs


def check(run: Any, p: dict[str, Any], inputs: list[np.ndarray]) -> None:
    """What a run gives is what the operation gives, which takes the gates side by side."""
    op = NormLstmCellOp if "guard" in p else LstmCellOp
    flat = [x if i == 2 else x.reshape(*x.shape[:-2], -1) for i, x in enumerate(inputs)]
    wanted = run_kernel(op, Parameters(p), *flat)
    found = run(op.name, inputs, [(y.shape, y.dtype) for y in wanted], p)
    for have, want in zip(found, wanted):
        np.testing.assert_array_equal(have, want)


def check_shapes(run: Any, shapes: list[tuple[int, int]], *case: bool) -> None:
    rng = np.random.default_rng(case)
    p = parameters_of(rng, *case)
    for shape in shapes:
        check(run, p, operands_of(rng, p, shape))


@pytest.mark.parametrize(("coupled", "peepholes", "norm"), CASES)
def test_cell(on_engine, coupled, peepholes, norm):
    check_shapes(on_engine, SHAPES, coupled, peepholes, norm)


@pytest.mark.parametrize(("coupled", "peepholes", "norm"), CASES)
def test_cell_under_pocl(under_pocl, coupled, peepholes, norm):
    check_shapes(under_pocl, SHAPES[::3], coupled, peepholes, norm)


# --- every int16 through the functions -------------------------------------------------------------------
def every(bits: int) -> tuple[dict[str, Any], list[np.ndarray]]:
    """All gates o and all cell states: those of f open and i shut, so that the cell state stays what it is, less 1."""
    x = np.arange(-(2**15), 2**15).astype(np.int16)
    shut, open_ = np.full_like(x, -(2**15)), np.full_like(x, 2**15 - 1)
    gates = np.stack([shut, open_, np.zeros_like(x), x[::-1]])[np.newaxis]
    p = {
        "input_forget": False, "cell_bits": bits, "cell_clip": 0, "hidden_multiplier": 1 << 30, "hidden_shift": -21,
        "hidden_zero": 0, "peephole_multiplier": (), "peephole_shift": (),
    }  # fmt: skip
    return p, [gates, np.zeros(gates.shape, np.int32), x[np.newaxis]]


@pytest.mark.parametrize("bits", [0, *(pytest.param(bits, marks=pytest.mark.slow) for bits in range(1, 7))])
def test_functions_of_every_int16(on_engine, bits):
    check(on_engine, *every(bits))


def test_functions_are_those_they_are_named_after():
    """Within the errors of 16-bit series: some units of 2^-15."""
    x = np.arange(-(2**15), 2**15)
    np.testing.assert_allclose(sigmoid(x) / 2**15, 1 / (1 + np.exp(-x / 2**12)), atol=2e-3)
    for bits in range(7):
        np.testing.assert_allclose(tanh(x, bits) / 2**15, np.tanh(x / 2 ** (15 - bits)), atol=4e-3)
    for bits in range(1, 8):
        below = x[x <= 0]
        np.testing.assert_allclose(exponential(below, bits) / 2**15, np.exp(below / 2 ** (15 - bits)), atol=4e-4)
