"""Cells of recurrent layers: one step of an LSTM or GRU behind the matrix products of its gates.

They belong to the graph dialect. A layer is unrolled over time at import; its products become integers where a cell
stays float, so a state is never rounded to eight bits on its way through the gates. Formulas and the order of gates
are ONNX's (https://onnx.ai/onnx/operators/onnx__LSTM.html, onnx__GRU.html). N is the batch, H the hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.dialects.builtin import TensorType
from xdsl.ir import Attribute
from xdsl.irdl import irdl_op_definition, operand_def, opt_operand_def, result_def

from .declarative import flag, number, numbers, string
from .graph_base import GraphOp, fail
from .types import f32, shape_of

ACTIVATIONS = (
    "sigmoid", "tanh", "relu", "hard_sigmoid", "leaky_relu", "elu", "affine", "scaled_tanh",
)  # fmt: skip
"""Functions of a gate: ONNX's names in lower case. Those behind relu take alpha, affine and scaled_tanh also beta,
hard_sigmoid both (https://onnx.ai/onnx/operators/onnx__RNN.html)."""


class CellOp(GraphOp):
    """One step. `alpha` and `beta` hold a number for each of the activations, f first.

    `clip` bounds the sums that go into the gates' activations to [−clip, clip], but not the cell on its way to h, as
    onnxruntime does; 0 bounds nothing.
    """

    f = string("sigmoid")
    g = string("tanh")
    alpha = numbers(())
    beta = numbers(())
    clip = number(0.0)

    def check(self, functions: Sequence[str]) -> None:
        """Raise VerifyException for activations or lists of their parameters that do not fit."""
        p = self.parameters()
        for name in functions:
            if name not in ACTIVATIONS:
                raise fail(self, f"'{name}' is no activation; {', '.join(ACTIVATIONS)} are")
        for which, values in (("alpha", p.alpha), ("beta", p.beta)):
            if len(values) not in (0, len(functions)):
                raise fail(self, f"'{which}' has {len(values)} entries for {len(functions)} activations")
        if p.clip < 0:
            raise fail(self, f"clip = {p.clip} is below 0")

    def expect(self, **shapes: tuple[int, ...]) -> None:
        """Raise VerifyException where an operand is not of the given shape, of floats."""
        for name, shape in shapes.items():
            type_ = getattr(self, name).type
            if shape_of(type_) != shape or type_.element_type != f32:
                raise fail(self, f"'{name}' should be {list(shape)} of f32, but is {type_}")

    def state_shape(self, state: str) -> tuple[int, int]:
        """The state's shape [N, H]."""
        shape = shape_of(getattr(self, state))
        if len(shape) != 2:
            raise fail(self, f"'{state}' should be [N, H], but is {list(shape)}")
        return shape


@irdl_op_definition
class LstmCellOp(CellOp):
    """x_gates [N, 4H], h_gates [N, 4H], c [N, H], peepholes [3H] -> new h [N, H], new c [N, H].

    The gates' sums before their activations, of input and of state, in the order i, o, f, c; peepholes i, o, f:

        i = f(xi + hi + pi ⊙ c)     f = f(xf + hf + pf ⊙ c), or 1 − i with `input_forget`
        new c = f ⊙ c + i ⊙ g(xc + hc), bounded by `cell_clip` where that is not 0
        o = f(xo + ho + po ⊙ new c)     new h = o ⊙ h(new c)
    """

    name = "graph.lstm_cell"
    x_gates = operand_def(TensorType)
    h_gates = operand_def(TensorType)
    c = operand_def(TensorType)
    peepholes = opt_operand_def(TensorType)
    new_h = result_def(TensorType)
    new_c = result_def(TensorType)
    h = string("tanh")
    cell_clip = number(0.0)
    input_forget = flag(False)

    def infer(self) -> Sequence[Attribute]:
        p = self.parameters()
        n, hidden = self.state_shape("c")
        self.check((p.f, p.g, p.h))
        self.expect(c=(n, hidden), x_gates=(n, 4 * hidden), h_gates=(n, 4 * hidden))
        if self.peepholes is not None:
            self.expect(peepholes=(3 * hidden,))
        if p.cell_clip < 0:
            raise fail(self, f"cell_clip = {p.cell_clip} is below 0")
        return [self.c.type, self.c.type]


@irdl_op_definition
class GruResetOp(CellOp):
    """x_gates [N, 3H], h_gates [N, 2H], h [N, H] -> r ⊙ h [N, H], r = f(xr + hr); gates in the order z, r (, h).

    What the candidate's product reads where the reset gate comes before it.
    """

    name = "graph.gru_reset"
    x_gates = operand_def(TensorType)
    h_gates = operand_def(TensorType)
    h = operand_def(TensorType)
    result = result_def(TensorType)

    def infer(self) -> Sequence[Attribute]:
        p = self.parameters()
        n, hidden = self.state_shape("h")
        self.check((p.f, p.g))
        self.expect(h=(n, hidden), x_gates=(n, 3 * hidden), h_gates=(n, 2 * hidden))
        return [self.h.type]


@irdl_op_definition
class GruCellOp(CellOp):
    """x_gates [N, 3H], h_gates [N, 2H], candidate [N, H], h [N, H] -> new h [N, H]; gates in the order z, r, h.

        z = f(xz + hz)     new h = (1 − z) ⊙ n + z ⊙ h
        n = g(xh + r ⊙ candidate), r = f(xr + hr), with `reset_after`, else g(xh + candidate)
    """

    name = "graph.gru_cell"
    x_gates = operand_def(TensorType)
    h_gates = operand_def(TensorType)
    candidate = operand_def(TensorType)
    h = operand_def(TensorType)
    new_h = result_def(TensorType)
    reset_after = flag(False)

    def infer(self) -> Sequence[Attribute]:
        p = self.parameters()
        n, hidden = self.state_shape("h")
        self.check((p.f, p.g))
        self.expect(h=(n, hidden), x_gates=(n, 3 * hidden), h_gates=(n, 2 * hidden), candidate=(n, hidden))
        return [self.h.type]
