"""Launches of recurrent.cl: the cells of LSTM and GRU."""

from __future__ import annotations

from ....dialects.declarative import Parameters
from ....passes.npu.soft_kernels import Arguments, Build, Call, Defines, Library, c_float

LIBRARY = Library(__package__)


def activation(p: Parameters, name: str, index: int) -> str:
    """An activation as an expression of x; `index` is its place in `alpha` and `beta`."""
    alpha, beta = (c_float(values[index] if values else 0.0) for values in (p.alpha, p.beta))
    expressions = {
        "sigmoid": "1.0f / (1.0f + exp(-x))",
        "tanh": "tanh(x)",
        "relu": "x < 0.0f ? 0.0f : x",
        "hard_sigmoid": f"clamp({alpha} * x + {beta}, 0.0f, 1.0f)",
        "leaky_relu": f"x >= 0.0f ? x : {alpha} * x",
        "elu": f"x >= 0.0f ? x : {alpha} * (exp(x) - 1.0f)",
        "affine": f"{alpha} * x + {beta}",
        "scaled_tanh": f"{alpha} * tanh({beta} * x)",
    }
    return f"({expressions[name]})"


def defines(build: Build) -> Defines:
    """Activations, and what the cell does besides."""
    p = build.parameters
    found: dict[str, str | int | float] = {"F_OF_X": activation(p, p.f, 0), "G_OF_X": activation(p, p.g, 1)}
    if "h" in p:
        found["H_OF_X"] = activation(p, p.h, 2)
        if len(build.inputs) > 3:
            found["PEEPHOLES"] = 1
    for macro, bound in (("CLIP", p.clip), ("CELL_CLIP", p.get("cell_clip"))):
        if bound:
            found[macro] = float(bound)
    for macro, chosen in (("INPUT_FORGET", p.get("input_forget")), ("RESET_AFTER", p.get("reset_after"))):
        if chosen:
            found[macro] = 1
    return found


@LIBRARY.kernel("graph.lstm_cell", "recurrent.cl", defines=defines)
@LIBRARY.kernel("graph.gru_reset", "recurrent.cl", defines=defines)
@LIBRARY.kernel("graph.gru_cell", "recurrent.cl", defines=defines)
def cell(call: Call) -> Arguments:
    """One work item an element of the state [N, H]."""
    n, hidden = call.outputs[0]
    return Arguments((), (hidden, n))
