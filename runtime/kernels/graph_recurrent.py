"""Cells of LSTM and GRU in numpy; formulas in dialects/graph_recurrent.py, sums in the order written there."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...dialects.declarative import Parameters
from ...dialects.graph_recurrent import GruCellOp, GruResetOp, LstmCellOp
from ..kernel import kernel
from .graph_elementwise import quiet, relu, sigmoid

Function = Callable[[np.ndarray], np.ndarray]


def activation(p: Parameters, name: str, index: int) -> Function:
    """An activation; `index` is its place in `alpha` and `beta`."""
    alpha = np.float32(p.alpha[index] if p.alpha else 0)
    beta = np.float32(p.beta[index] if p.beta else 0)
    one = np.float32(1)
    functions: dict[str, Function] = {
        "sigmoid": sigmoid,
        "tanh": np.tanh,
        "relu": relu,
        "hard_sigmoid": lambda x: np.maximum(np.float32(0), np.minimum(one, alpha * x + beta)),
        "leaky_relu": lambda x: np.where(x >= 0, x, alpha * x),
        "elu": lambda x: np.where(x >= 0, x, alpha * (np.exp(x) - one)),
        "affine": lambda x: alpha * x + beta,
        "scaled_tanh": lambda x: alpha * np.tanh(beta * x),
    }
    return functions[name]


def gate(p: Parameters, name: str, index: int) -> Function:
    """The activation of a gate, which clips first where the cell does."""
    function = activation(p, name, index)
    return (lambda x: function(clipped(x, p.clip))) if p.clip else function


def clipped(x: np.ndarray, bound: float) -> np.ndarray:
    """x within [−bound, bound]."""
    return np.minimum(np.maximum(x, -np.float32(bound)), np.float32(bound))


def gates(sums: np.ndarray, hidden: int) -> list[np.ndarray]:
    """The gates [N, H] that lie side by side in [N, k · H]."""
    return [sums[:, i : i + hidden] for i in range(0, sums.shape[1], hidden)]


@kernel(LstmCellOp)
def lstm_cell(
    p: Parameters, x: np.ndarray, h: np.ndarray, c: np.ndarray, peepholes: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """New h and new c."""
    hidden = c.shape[1]
    f, g, out = gate(p, p.f, 0), gate(p, p.g, 1), activation(p, p.h, 2)
    (xi, xo, xf, xc), (hi, ho, hf, hc) = gates(x, hidden), gates(h, hidden)
    i, o, forget = xi + hi, xo + ho, xf + hf
    with quiet():
        if peepholes is not None:
            pi, po, pf = gates(peepholes[np.newaxis], hidden)
            i, forget = i + pi * c, forget + pf * c
        i = f(i)
        forget = np.float32(1) - i if p.input_forget else f(forget)
        new_c = forget * c + i * g(xc + hc)
        if p.cell_clip:
            new_c = clipped(new_c, p.cell_clip)
        if peepholes is not None:
            o = o + po * new_c
        return (f(o) * out(new_c)).astype(np.float32), new_c.astype(np.float32)


@kernel(GruResetOp)
def gru_reset(p: Parameters, x: np.ndarray, h_gates: np.ndarray, h: np.ndarray) -> np.ndarray:
    """r ⊙ h."""
    hidden = h.shape[1]
    with quiet():
        r = gate(p, p.f, 0)(x[:, hidden : 2 * hidden] + h_gates[:, hidden:])
        return (r * h).astype(np.float32)


@kernel(GruCellOp)
def gru_cell(
    p: Parameters, x: np.ndarray, h_gates: np.ndarray, candidate: np.ndarray, h: np.ndarray
) -> np.ndarray:
    """New h."""
    hidden = h.shape[1]
    f, g = gate(p, p.f, 0), gate(p, p.g, 1)
    (xz, xr, xn), (hz, hr) = gates(x, hidden), gates(h_gates, hidden)
    with quiet():
        z = f(xz + hz)
        n = g(xn + f(xr + hr) * candidate) if p.reset_after else g(xn + candidate)
        return ((np.float32(1) - z) * n + z * h).astype(np.float32)
