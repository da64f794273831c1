"""`com.example::Snake`, y = x + sin²(frequency · x) / frequency, the activation of periodic signals.

Ziyin, Hartwig and Ueda, "Neural Networks Fail to Learn Periodic Functions and How to Fix It" (2020). All that Nacre
has to know of it: its shape rule (that of every function of one tensor), how it comes out of an ONNX file, and its
kernel in OpenCL C. The graph level runs the same kernel, and so does calibration, which makes the table of an 8-bit
layer out of it.
"""

from nacre.backends.npu.kernels import defines_operator
from nacre.dialects import graph
from nacre.dialects.declarative import number
from nacre.dialects.text import add_dialect
from nacre.frontends.onnx import importer
from nacre.passes.npu.soft_kernels import Arguments, Build, Call, Library
from xdsl.ir import Dialect
from xdsl.irdl import irdl_op_definition

LIBRARY = Library(__name__)


@irdl_op_definition
class SnakeOp(graph.UnaryOp):
    """x + sin²(frequency · x) / frequency."""

    name = "snake.snake"
    frequency = number(1.0)


@importer("Snake", domain="com.example")
def import_snake(node):
    return node.emit(SnakeOp, node.operand(0), frequency=node.attribute("frequency", 1.0))


def macros(build: Build) -> dict[str, float]:
    return {"FREQUENCY": build.parameters.frequency}


@LIBRARY.kernel("snake.snake", "snake.cl", defines=macros)
def arguments(call: Call) -> Arguments:
    """One work item an element."""
    count = 1
    for size in call.outputs[0]:
        count *= size
    return Arguments(scalars=(), grid=(count,))


add_dialect(Dialect("snake", [SnakeOp]))
defines_operator(SnakeOp)
