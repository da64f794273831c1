"""Cells of LSTM and GRU: engine, PoCL and numpy agree. Exactly where no transcendental function is in."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from nacre.dialects.declarative import Parameters
from nacre.dialects.graph_recurrent import GruCellOp, GruResetOp, LstmCellOp
from nacre.runtime.kernel import run_kernel

EXACT = ("relu", "hard_sigmoid", "leaky_relu", "affine")
CURVED = ("sigmoid", "tanh", "elu", "scaled_tanh")
ULPS = 16
"""Of a cell's values: each is a sum of two products of functions that may be off by a few ulps."""


def case_of(seed: int, functions: tuple[str, ...]):
    """Operation, parameters and operands."""
    rng = np.random.default_rng(seed)
    op = (LstmCellOp, GruResetOp, GruCellOp, LstmCellOp)[seed % 4]
    roles = "fgh" if op is LstmCellOp else "fg"
    parameters: dict[str, Any] = {role: str(rng.choice(functions)) for role in roles}
    parameters |= {name: tuple(rng.choice([0.2, 0.5, 0.7], len(roles)).tolist()) for name in ("alpha", "beta")}
    parameters["clip"] = float(rng.choice([0.0, 0.4, 3.0]))
    if op is LstmCellOp:
        parameters |= {"cell_clip": float(rng.choice([0.0, 0.4, 3.0])), "input_forget": bool(rng.integers(2))}
    if op is GruCellOp:
        parameters["reset_after"] = bool(rng.integers(2))
    n, hidden = rng.integers(1, 4), rng.integers(1, 10)
    return op, parameters, inputs_of(op, n, hidden, seed % 8 == 3, seed)


def inputs_of(op, n: int, hidden: int, peepholes: bool, seed: int) -> list[np.ndarray]:
    """Random operands."""
    rng = np.random.default_rng(seed)
    shapes = {
        LstmCellOp: [(n, 4 * hidden), (n, 4 * hidden), (n, hidden), *([(3 * hidden,)] if peepholes else [])],
        GruResetOp: [(n, 3 * hidden), (n, 2 * hidden), (n, hidden)],
        GruCellOp: [(n, 3 * hidden), (n, 2 * hidden), (n, hidden), (n, hidden)],
    }[op]
    return [rng.normal(0, 2, s).astype(np.float32) for s in shapes]


def expected(op, parameters, inputs):
    return run_kernel(op, Parameters(parameters), *inputs)


def outputs_of(wanted):
    return [(y.shape, y.dtype) for y in wanted]


@pytest.mark.parametrize("seed", range(16))
def test_exact_functions_on_the_engine(on_engine, seed):
    op, parameters, inputs = case_of(seed, EXACT)
    wanted = expected(op, parameters, inputs)
    for found, want in zip(on_engine(op.name, inputs, outputs_of(wanted), parameters), wanted):
        np.testing.assert_array_equal(found, want)


@pytest.mark.parametrize("seed", range(4))
def test_exact_functions_under_pocl(under_pocl, seed):
    op, parameters, inputs = case_of(seed, EXACT)
    wanted = expected(op, parameters, inputs)
    for found, want in zip(under_pocl(op.name, inputs, outputs_of(wanted), parameters), wanted):
        np.testing.assert_array_equal(found, want)


def close(run, seed: int) -> None:
    """Sums may cancel: an ulp is that of the largest value that takes part, at most some 4 here."""
    op, parameters, inputs = case_of(seed, CURVED)
    wanted = expected(op, parameters, inputs)
    for found, want in zip(run(op.name, inputs, outputs_of(wanted), parameters), wanted):
        np.testing.assert_allclose(found, want, rtol=ULPS * 2.0**-24, atol=ULPS * 2.0**-22)


@pytest.mark.parametrize("seed", range(16))
def test_curved_functions_on_the_engine(on_engine, seed):
    close(on_engine, seed)


@pytest.mark.parametrize("seed", range(4))
def test_curved_functions_under_pocl(under_pocl, seed):
    close(under_pocl, seed)
