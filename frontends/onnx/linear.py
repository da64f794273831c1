"""Importers of matrix products: MatMul, Gemm and Einsum."""

from __future__ import annotations

import math
import string
from collections.abc import Sequence

import numpy as np
from xdsl.ir import SSAValue

from ...dialects import graph
from ...dialects.types import shape_of
from .node import Node
from .registry import Unsupported, Value, importer


@importer("MatMul")
def matmul(node: Node) -> Value:
    """As numpy.matmul: a rank-1 operand is a row on the left, a column on the right; its axis goes again."""
    a, b = node.operand(0), node.operand(1)
    shape_a, shape_b = shape_of(a), shape_of(b)
    if not shape_a or not shape_b:
        raise Unsupported("a scalar has no matrix product")
    if len(shape_a) == 1:
        a = node.emit(graph.ReshapeOp, a, shape=(1, *shape_a))
    if len(shape_b) == 1:
        b = node.emit(graph.ReshapeOp, b, shape=(*shape_b, 1))
    result = node.emit(graph.MatmulOp, a, b)
    shape = list(shape_of(result))
    if len(shape_b) == 1:
        del shape[-1]
    if len(shape_a) == 1:
        del shape[-1 if len(shape_b) == 1 else -2]
    return result if tuple(shape) == shape_of(result) else node.emit(graph.ReshapeOp, result, shape=shape)


@importer("Gemm")
def gemm(node: Node) -> Value:
    """alpha · A' B' + beta · C; alpha goes into a constant B, beta into a constant C."""
    if len(node.shape(0)) != 2 or len(node.shape(1)) != 2:
        raise Unsupported(f"it needs matrices, but has {list(node.shape(0))} and {list(node.shape(1))}")
    alpha, beta = node.attribute("alpha"), node.attribute("beta")
    a = matrix(node, 0, node.attribute("transA"), 1.0)
    scale_b = alpha if node.array(1) is not None else 1.0
    b = matrix(node, 1, node.attribute("transB"), scale_b)
    if scale_b != alpha:
        a = node.emit(graph.MulOp, a, node.scalar(alpha, a))
    outputs = shape_of(b)[1]
    if not node.has(2):
        return node.emit(graph.MatmulOp, a, b)
    addend = scaled(node, 2, beta)
    shape = addend.shape if isinstance(addend, np.ndarray) else shape_of(addend)
    if shape in ((outputs,), (1, outputs)) or (isinstance(addend, np.ndarray) and addend.size == 1):
        return node.emit(graph.MatmulOp, a, b, bias_vector(node, addend, outputs))
    return node.emit(graph.AddOp, node.emit(graph.MatmulOp, a, b), addend)


def matrix(node: Node, index: int, transposed: int, scale: float) -> SSAValue:
    """An input, transposed and scaled; a constant at once."""
    array = node.array(index)
    if array is None:
        value = node.operand(index)
        return node.emit(graph.TransposeOp, value, permutation=(1, 0)) if transposed else value
    if not transposed and scale == 1.0:
        return node.operand(index)
    array = array.T if transposed else array
    return node.literal(
        array if scale == 1.0 else np.asarray(array * scale, array.dtype), node.input_name(index)
    )


def scaled(node: Node, index: int, factor: float) -> Value:
    """An input times a number; a constant stays an array."""
    array = node.array(index)
    if array is not None:
        return array if factor == 1.0 else np.asarray(array * factor, array.dtype)
    value = node.operand(index)
    return value if factor == 1.0 else node.emit(graph.MulOp, value, node.scalar(factor, value))


def bias_vector(node: Node, addend: Value, outputs: int) -> SSAValue:
    """The addend as one value an output column."""
    if isinstance(addend, np.ndarray):
        return node.literal(np.broadcast_to(addend.ravel(), (outputs,)), node.input_name(2))
    return addend if shape_of(addend) == (outputs,) else node.emit(graph.ReshapeOp, addend, shape=(outputs,))


# --- sums of products ------------------------------------------------------------------------------------
def moved(node: Node, value: SSAValue, permutation: Sequence[int]) -> SSAValue:
    """A transpose, none where nothing moves."""
    if list(permutation) == list(range(len(permutation))):
        return value
    return node.emit(graph.TransposeOp, value, permutation=permutation)


@importer("Einsum", since=12)
def einsum(node: Node) -> Value:
    """Operands are combined from left to right; each pair is one batched matrix product."""
    equation = spelled_out(node.attribute("equation"), [node.shape(i) for i in range(len(node.inputs))])
    terms, wanted = parse_equation(equation, len(node.inputs))
    value, letters = node.operand(0), terms[0]
    for i in range(1, len(terms)):
        needed = set(wanted).union(*terms[i + 1 :])
        value, letters = contract(node, (value, letters), (node.operand(i), terms[i]), needed)
    value, letters = sum_out(node, value, letters, set(wanted))
    return moved(node, value, [letters.index(c) for c in wanted])


def spelled_out(equation: str, shapes: Sequence[tuple[int, ...]]) -> str:
    """The equation with letters for the axes that its ellipses stand for, which are aligned at their ends.

    Raises Unsupported where such an axis has several sizes: it would repeat.
    """
    if "..." not in equation:
        return equation
    left, arrow, wanted = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    counts = [len(s) - len(t) + 3 if "..." in t else 0 for t, s in zip(terms, shapes)]
    most, free = max(counts), [c for c in string.ascii_letters if c not in equation]
    if len(terms) != len(shapes) or min(counts) < 0 or most > len(free):
        raise Unsupported(f"the equation '{equation}' does not fit operands of {[list(s) for s in shapes]}")
    sizes: dict[str, set[int]] = {}
    for i, (term, shape, count) in enumerate(zip(terms, shapes, counts)):
        terms[i] = term.replace("...", "".join(free[most - count : most]))
        for letter, size in zip(terms[i], shape):
            sizes.setdefault(letter, set()).add(size)
    if wrong := [c for c in free[:most] if len(sizes[c]) > 1]:
        raise Unsupported(f"an axis of the ellipsis in '{equation}' has the sizes {sorted(sizes[wrong[0]])}")
    letters = "".join(free[:most])
    if not arrow:  # implicit: the ellipsis first, then the letters that occur once
        named = "".join(terms)
        wanted = "..." + "".join(sorted(c for c in set(named) if named.count(c) == 1 and c not in letters))
    return ",".join(terms) + "->" + wanted.replace("...", letters)


def parse_equation(equation: str, count: int) -> tuple[list[str], str]:
    """The letters of each operand and of the result. Raises Unsupported for diagonals."""
    left, arrow, wanted = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if any(len(set(t)) != len(t) for t in terms):
        raise Unsupported(f"the equation '{equation}' repeats a letter in an operand, which is not supported")
    if not arrow:  # implicit: the letters that occur once, in alphabetical order
        wanted = "".join(sorted(c for c in set(left) - {","} if left.count(c) == 1))
    if len(terms) != count or not set(wanted) <= set(left):
        raise Unsupported(f"the equation '{equation}' does not fit {count} operands")
    return terms, wanted


def sum_out(node: Node, value: SSAValue, letters: str, needed: set[str]) -> tuple[SSAValue, str]:
    """The value summed over the letters nobody needs."""
    if len(letters) != len(shape_of(value)):
        raise Unsupported(f"'{letters}' does not fit an operand of shape {list(shape_of(value))}")
    axes = tuple(i for i, c in enumerate(letters) if c not in needed)
    if not axes:
        return value, letters
    summed = node.emit(graph.ReduceSumOp, value, axes=axes, keepdims=False)
    return summed, "".join(c for c in letters if c in needed)


def contract(
    node: Node, left: tuple[SSAValue, str], right: tuple[SSAValue, str], needed: set[str]
) -> tuple[SSAValue, str]:
    """Two operands as a matrix product [batch, left, inner] x [batch, inner, right]."""
    a, a_letters = sum_out(node, *left, needed | set(right[1]))
    b, b_letters = sum_out(node, *right, needed | set(a_letters))
    size = dict(zip(a_letters + b_letters, shape_of(a) + shape_of(b)))
    shared = [c for c in a_letters if c in b_letters]
    batch, inner = [c for c in shared if c in needed], [c for c in shared if c not in needed]
    rows, columns = [c for c in a_letters if c not in shared], [c for c in b_letters if c not in shared]

    def product(letters: Sequence[str]) -> int:
        return math.prod(size[c] for c in letters)

    a = moved(node, a, [a_letters.index(c) for c in batch + rows + inner])
    b = moved(node, b, [b_letters.index(c) for c in batch + inner + columns])
    a = node.emit(graph.ReshapeOp, a, shape=(product(batch), product(rows), product(inner)))
    b = node.emit(graph.ReshapeOp, b, shape=(product(batch), product(inner), product(columns)))
    result = batch + rows + columns
    return node.emit(
        graph.ReshapeOp, node.emit(graph.MatmulOp, a, b), shape=[size[c] for c in result]
    ), "".join(result)
