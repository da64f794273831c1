"""Random kernels, for tests that compare one way to run or count them with another."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

import pytest


@pytest.fixture(scope="session")
def random_kernel() -> Callable[..., str]:
    """(seed, data=True) -> source of a kernel f(x, z, n, y, w) for x of float and z of int, 64 elements each.

    It writes one element of y (int) and w (float) a work item; with data, its decisions depend on x and z.
    """

    def source(seed: int, data: bool = True) -> str:
        return Writer(seed, data).kernel()

    return source


class Writer:
    """Writes random statements over int variables a, b, c, float variables u, v and a private array p."""

    def __init__(self, seed: int, data: bool):
        self.choose = random.Random(seed)
        self.loops = itertools.count()
        self.data = data
        """Whether decisions may depend on what is loaded."""

    def integer(self, depth: int = 2) -> str:
        leaf = ["i", "j", "k", "n", "a", "b", "c", str(self.choose.randrange(-9, 200))]
        leaf += ["p[a & 3]", "p[1]", "z[b & 63]"] if self.data else []
        if depth == 0 or self.choose.random() < 0.2:
            return self.choose.choice(leaf)
        x, y = self.integer(depth - 1), self.integer(depth - 1)
        form = self.choose.choice([
            "({x} + {y})", "({x} - {y})", "({x} * {y})", "({x} & {y})", "({x} << {y})", "({x} >> {y})",
            "({x} / (({y}) | 1))", "({x} % (({y}) | 1))", "(({x}) < ({y}) ? {y} : {x})", "min({x}, {y})",
            "(int)(uchar)({x})", "(int)((uint)({x}) >> 3)", "(int)((uint)({x}) % 7u)", "(int)convert_char_sat({x})",
            "(int)((long)({x}) * {y})", "(int)(short)({x})", "(int)(((uint)({x})) < ((uint)({y})))",
        ])  # fmt: skip
        return form.format(x=x, y=y)

    def real(self, depth: int = 2) -> str:
        if depth == 0:
            return self.choose.choice(["u", "v", "x[a & 63]", "x[(i + 3 * j) & 63]", "(float)c", "0.5f"])
        x, y = self.real(depth - 1), self.real(depth - 1)
        form = self.choose.choice(["({x} + {y})", "({x} * {y})", "fmax({x}, {y})", "fma({x}, {y}, u)", "({x} / {y})"])
        return form.format(x=x, y=y)

    def condition(self) -> str:
        forms = ["({a}) < ({b})", "(({a}) & 3) == 1", "i < 2 && ({a}) > 0", "j == 1 || ({b}) > 9", "n > 3"]
        forms += ["u < v"] if self.data else []
        return self.choose.choice(forms).format(a=self.integer(1), b=self.integer(1))

    def statement(self, depth: int, loop: bool) -> str:
        kind = self.choose.choice(["int", "int", "real", "array", "if", "else", "for", "while", "leave"])
        if kind == "leave" and loop:
            return f"if ({self.condition()}) {self.choose.choice(['break', 'continue'])};"
        if kind == "array":
            return f"p[{self.choose.choice(['0', '2', 'a & 3', 'i & 3'])}] = {self.integer()};"
        if kind == "real":
            return f"{self.choose.choice('uv')} = {self.real()};"
        if depth and kind in ("if", "else"):
            other = f" else {{ {self.some(depth - 1, loop)} }}" if kind == "else" else ""
            return f"if ({self.condition()}) {{ {self.some(depth - 1, loop)} }}{other}"
        if depth and kind in ("for", "while"):
            q = f"q{next(self.loops)}"
            count = self.choose.choice(["3", "n & 3", "(i & 3)", "(j + k) & 3", "(a & 3)"])
            until = f"{q} < ({count})" + (f" && ({self.condition()})" if kind == "while" else "")
            return f"for (int {q} = 0; {until}; {q}++) {{ {self.some(depth - 1, True)} }}"
        return f"{self.choose.choice('abc')} = {self.integer()};"

    def some(self, depth: int, loop: bool) -> str:
        return " ".join(self.statement(depth, loop) for _ in range(self.choose.randrange(1, 4)))

    def kernel(self) -> str:
        at = "(get_global_id(2) * get_global_size(1) + get_global_id(1)) * get_global_size(0) + get_global_id(0)"
        parameters = "__global const float *x, __global const int *z, int n, __global int *y, __global float *w"
        return f"""__kernel void f({parameters}) {{
          int i = get_global_id(0), j = get_global_id(1), k = get_global_id(2), a = i, b = j, c = 1, p[4];
          float u = 1.5f, v = x[j & 63];
          p[0] = 1; p[1] = i; p[2] = j; p[3] = 7;
          {self.some(2, False)} {self.some(3, False)} {self.some(2, False)}
          y[{at}] = a ^ b ^ (c << 1) ^ p[0] ^ p[3]; w[{at}] = u + v;
        }}"""
