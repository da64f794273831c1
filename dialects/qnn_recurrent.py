"""Integer cells of recurrent layers: one step of TFLite's quantised LSTM behind the matrix products of its gates.

They belong to the qnn dialect. Gates are int16 in units of 2^-12, or of their own where they are normalised; their
activations are int16 in units of 2^-15. The cell state is int16 and a power of two, the hidden state int8. Sources:
tflite/kernels/lstm_eval.cc, internal/reference/portable_tensor_utils.cc and gemmlowp's fixedpoint.h. N is the batch,
H the hidden size; the gates lie side by side in the order i, f, g, o, without i where it is 1 − f.
"""

from __future__ import annotations

from xdsl.dialects.builtin import TensorType
from xdsl.ir import Attribute, SSAValue
from xdsl.irdl import irdl_op_definition, operand_def, opt_operand_def, result_def
from xdsl.utils.exceptions import VerifyException

from .declarative import flag, integer, ints
from .graph_base import fail
from .qnn_base import QnnOp
from .types import element_type, i8, i16, i32, shape_of, storage_of

CELL_BITS = 6
"""Integer bits that a cell state may have: as many as TFLite's tanh takes."""


class CellOp(QnnOp):
    """One step, whose hidden state has the element type that the builder chooses.

    cell_bits: m of the cell state's Qm.(15 − m). cell_clip: the largest magnitude of what it stores, 0 for no bound.
    hidden_…: how o · tanh(new c) in units of 2^-30 becomes the hidden state. peephole_…: how a product of a gate's
    peephole and the cell state becomes that gate's units, for each of the gates i, f, o.
    """

    hidden = result_def(TensorType)
    new_c = result_def(TensorType)
    input_forget = flag(False)
    cell_bits = integer()
    cell_clip = integer(0)
    hidden_multiplier = integer()
    hidden_shift = integer()
    hidden_zero = integer(0)
    peephole_multiplier = ints(())
    peephole_shift = ints(())

    def types(self, element: Attribute) -> list[Attribute]:
        return [*super().types(element), self.state.type]

    @property
    def state(self) -> SSAValue:
        """The cell state before the step."""
        return self.operands[2]

    def gates(self) -> int:
        """How many gates lie side by side."""
        return 3 if self.parameters().input_forget else 4

    def shape(self) -> tuple[int, ...]:
        p, shape = self.parameters(), shape_of(self.state)
        if len(shape) != 2:
            raise fail(self, f"'c' should be [N, H], but is {list(shape)}")
        width = self.gates() * shape[1]
        self.expect("x_gates", i16, (shape[0], width))
        self.expect("h_gates", i32, (shape[0], width))
        self.expect("c", i16, shape)
        if not 0 <= p.cell_bits <= CELL_BITS:
            raise fail(self, f"cell_bits = {p.cell_bits} is outside 0..{CELL_BITS}")
        if p.cell_clip < 0:
            raise fail(self, f"cell_clip = {p.cell_clip} is below 0")
        self.check_peepholes(shape)
        return shape

    def check_peepholes(self, state: tuple[int, ...]) -> None:
        """Peepholes of all gates but g, one row for all of the batch or one each."""
        p, given = self.parameters(), getattr(self, "peepholes", None)
        count = 0 if given is None else self.gates() - 1
        if not len(p.peephole_multiplier) == len(p.peephole_shift) == count:
            raise fail(self, f"peephole_multiplier and peephole_shift need {count} entries each")
        if given is not None:
            rows = shape_of(given)[0] if shape_of(given) else 0
            self.expect("peepholes", i16, (rows if rows == state[0] else 1, count * state[1]))

    def expect(self, name: str, storage: Attribute, shape: tuple[int, ...]) -> None:
        """Raise VerifyException where an operand is not stored as expected or has another shape."""
        value = getattr(self, name)
        if storage_of(element_type(value)) != storage or shape_of(value) != shape:
            raise fail(self, f"'{name}' should be {list(shape)} of {storage}, but is {value.type}")

    def verify_(self) -> None:
        super().verify_()
        if storage_of(element_type(self.hidden)) != i8:
            raise VerifyException(f"{self.name}: the hidden state is stored in i8, not as {self.hidden.type}")


@irdl_op_definition
class LstmCellOp(CellOp):
    """x_gates [N, 4H], h_gates [N, 4H], c [N, H], peepholes [1 or N, 3H] -> hidden [N, H], new c [N, H].

        gate = sat(sat(x + h) + round(m · p ⊙ c)), c the new one in o; i, f, o = σ(gate), g = tanh(gate)
        new c = sat(round(f ⊙ c / 2^15) + round(i ⊙ g / 2^(15 + cell_bits))), clipped; 1 − f is 32767 − f
        hidden = clamp(round(m · o ⊙ tanh(new c)) + zero)

    h_gates are not saturated, x_gates are. σ and tanh are gemmlowp's of int16, sat saturates to int16.
    """

    name = "qnn.lstm_cell"
    x_gates = operand_def(TensorType)
    h_gates = operand_def(TensorType)
    c = operand_def(TensorType)
    peepholes = opt_operand_def(TensorType)


@irdl_op_definition
class NormLstmCellOp(CellOp):
    """LSTM with normalised gates; coefficients [4H], biases [4H] follow c, and peepholes come last.

    Each gate goes through LiteRT's int16 layer norm of its row before the activation:

        n = round((1024 · gate − mean) / σ), ten fractional bits; σ² below 1 counts as the gate's `guard`
        gate = sat(round(m · ((n · coefficient + bias) / 1024, half away from zero)))

    norm_multiplier, norm_shift: m of each gate, which brings its coefficients' units to 2^-12. guard: a gate each.
    """

    name = "qnn.norm_lstm_cell"
    x_gates = operand_def(TensorType)
    h_gates = operand_def(TensorType)
    c = operand_def(TensorType)
    coefficients = operand_def(TensorType)
    biases = operand_def(TensorType)
    peepholes = opt_operand_def(TensorType)
    norm_multiplier = ints()
    norm_shift = ints()
    guard = ints()

    def shape(self) -> tuple[int, ...]:
        shape, p = super().shape(), self.parameters()
        self.expect("coefficients", i16, (self.gates() * shape[1],))
        self.expect("biases", i32, (self.gates() * shape[1],))
        for name in ("norm_multiplier", "norm_shift", "guard"):
            if len(p[name]) != self.gates():
                raise fail(self, f"'{name}' needs {self.gates()} entries")
        return shape
