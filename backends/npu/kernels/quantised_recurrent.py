"""Launches of quantised_recurrent.cl: the cells of LSTM in integers."""

from __future__ import annotations

from ....passes.npu.soft_kernels import Arguments, Build, Call, Defines, Library
from .quantised_softmax import shared_out

LIBRARY = Library(__package__)


def values(numbers: tuple[int, ...]) -> str:
    """The initial values of a `__constant` array."""
    return f"{{{', '.join(map(str, numbers))}}}"


def of_cell(build: Build) -> Defines:
    """How many gates, the cell state's bits and bound, and how products become what is stored."""
    p = build.parameters
    found: dict[str, str | int | float] = {
        "GATES": 3 if p.input_forget else 4, "CELL_BITS": p.cell_bits, "HIDDEN_MULTIPLIER": p.hidden_multiplier,
        "HIDDEN_SHIFT": p.hidden_shift, "HIDDEN_ZERO": p.hidden_zero,
    }  # fmt: skip
    if p.input_forget:
        found["INPUT_FORGET"] = 1
    if p.cell_clip:
        found["CELL_CLIP"] = p.cell_clip
    if p.peephole_multiplier:
        found |= {
            "PEEPHOLE_MULTIPLIERS": values(p.peephole_multiplier), "PEEPHOLE_SHIFTS": values(p.peephole_shift)
        }  # fmt: skip
    if "guard" in p:
        found |= {
            "NORM_MULTIPLIERS": values(p.norm_multiplier), "NORM_SHIFTS": values(p.norm_shift),
            "GUARDS": values(p.guard),
        }  # fmt: skip
    return found


def row_step(call: Call, others: int) -> tuple[int, ...]:
    """How far apart the rows of peepholes lie, which come behind the other inputs; nothing without peepholes."""
    if len(call.inputs) == others:
        return ()
    rows, gates, hidden = call.inputs[others]
    return (0 if rows == 1 else gates * hidden,)


@LIBRARY.kernel("qnn.lstm_cell", "quantised_recurrent.cl", defines=of_cell)
def lstm_cell(call: Call) -> Arguments:
    """One work item an element of the state [N, H]."""
    n, hidden = call.outputs[0]
    return Arguments(row_step(call, 3), (hidden, n))


@LIBRARY.kernel("qnn.norm_lstm_cell", "quantised_recurrent.cl", defines=of_cell)
def norm_lstm_cell(call: Call) -> Arguments:
    """Rows of the state, shared out where they are few."""
    n, hidden = call.outputs[0]
    return Arguments((hidden, *row_step(call, 5)), shared_out(n, hidden))
