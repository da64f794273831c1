"""Random well-typed kernels without undefined behaviour: the engine agrees with PoCL, optimised and not.

What C leaves undefined is not written: sums and products of signed integers are made of masked operands, divisors are
positive, floats become integers by saturating conversions, indices are masked to the arrays' size.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from nacre.frontends.opencl import compile_opencl
from nacre.passes.ppu.optimise import optimise
from nacre.runtime.ppu import kernel_named, launch

ITEMS = 24
SIGNED, UNSIGNED = ("char", "short", "int", "long"), ("uchar", "ushort", "uint", "ulong")
INTEGERS = SIGNED + UNSIGNED
DTYPES = {"char": "i1", "short": "i2", "int": "i4", "long": "i8"}
DTYPES |= {f"u{name}": code.replace("i", "u") for name, code in DTYPES.items()}
RNG = np.random.default_rng(3)
ARRAYS: dict[str, np.ndarray] = {
    name: RNG.integers(np.iinfo(code).min, np.iinfo(code).max, 32, dtype=code, endpoint=True)
    for name, code in DTYPES.items()
} | {"float": np.round(RNG.normal(size=32) * 50, 3).astype(np.float32)}
PARAMETERS = ", ".join(f"__global const {name} *in_{name}" for name in ARRAYS)
HEAD = f"""#pragma OPENCL FP_CONTRACT OFF
int shifted(int a, uint b) {{ return (a & 0xffff) - (int)(b & 255u); }}
float mixed(float a, float b) {{ float t = a * 0.5f; return t > b ? t - b : t + b; }}
__kernel void f({PARAMETERS}, __global long *out, __global float *real) {{
  size_t i = get_global_id(0);
"""


class Program:
    """Draws the body of one kernel, statement by statement."""

    def __init__(self, data: st.DataObject):
        self.data = data
        self.lines: list[str] = []
        self.scalars: dict[str, str] = {}
        self.read_only: set[str] = set()
        self.vectors: dict[str, tuple[str, int]] = {}
        self.count = 0

    def pick(self, *choices: Any) -> Any:
        return self.data.draw(st.sampled_from(choices))

    def name(self) -> str:
        self.count += 1
        return f"v{self.count}"

    # -- expressions
    def of_type(self, *types: str) -> str | None:
        names = [n for n, t in self.scalars.items() if t in types]
        return self.pick(*names) if names else None

    def number(self, type_: str, depth: int) -> str:
        """An expression of a scalar type."""
        if type_ == "float":
            return self.real(depth)
        return self.integer(type_, depth)

    def integer(self, type_: str, depth: int) -> str:
        kinds = ("leaf", "binary", "binary", "choice", "convert", "call", "compare", "saturate")
        kind = self.pick(*kinds) if depth > 0 else "leaf"
        if kind == "leaf":
            known = self.of_type(type_)
            if known and self.pick(True, True, False):
                return known
            if self.pick(True, False):
                return f"in_{type_}[{self.index()}]"
            return f"({type_})({self.pick(0, 1, 2, 3, 7, 100, 127)})"
        if kind == "convert":
            return f"({type_})({self.integer(self.pick(*INTEGERS), depth - 1)})"
        if kind == "saturate":
            if self.pick(True, False):
                return f"convert_{type_}_sat({self.integer(self.pick(*INTEGERS), depth - 1)})"
            rounding = self.pick("", "_rte", "_rtz", "_rtp", "_rtn")
            # Saturation to 64 bits at 2^63 is where implementations differ by what a float can say.
            narrow = type_ if type_ not in ("long", "ulong") else "int"
            return f"({type_})convert_{narrow}_sat{rounding}({self.real(depth - 1)})"
        if kind == "choice":
            a, b = self.integer(type_, depth - 1), self.integer(type_, depth - 1)
            return f"({type_})({self.condition(depth - 1)} ? {a} : {b})"
        if kind == "compare":
            return f"({type_})({self.condition(depth - 1)})"
        if kind == "call":
            name = self.pick("min", "max", "abs", "clamp", "shifted")
            a, b = self.integer(type_, depth - 1), self.integer(type_, depth - 1)
            if name == "abs":
                return f"({type_})abs({a})"
            if name == "clamp":
                return f"clamp(({type_})({a}), ({type_})(3), ({type_})(90))"
            if name == "shifted":
                return f"({type_})shifted((int)({a}), (uint)({b}))"
            return f"{name}(({type_})({a}), ({type_})({b}))"
        return self.arithmetic(type_, depth)

    def arithmetic(self, type_: str, depth: int) -> str:
        a, b = self.integer(type_, depth - 1), self.integer(type_, depth - 1)
        operator = self.pick("+", "-", "*", "&", "|", "^", "<<", ">>", "/", "%", "~", "-x")
        if operator == "~":
            return f"({type_})(~{a})"
        if operator == "-x":
            return f"({type_})(-({a} & ({type_})127))"
        if operator in ("/", "%"):
            return f"({type_})({a} {operator} (({b} & ({type_})15) + ({type_})1))"
        if operator in ("<<", ">>"):
            left = f"({a} & ({type_})127)" if operator == "<<" and type_ in SIGNED else a
            return f"({type_})({left} {operator} ({b} & ({type_})7))"
        if operator in ("+", "-", "*") and type_ in ("int", "long"):
            return f"(({a} & ({type_})0x7fff) {operator} ({b} & ({type_})0x7fff))"
        if operator == "*" and type_ == "ushort":  # the promoted product leaves an int
            return f"(ushort)((uint){a} * (uint){b})"
        return f"({type_})({a} {operator} {b})"

    def real(self, depth: int) -> str:
        kind = "leaf" if depth <= 0 else self.pick("leaf", "binary", "binary", "choice", "convert", "call")
        if kind == "leaf":
            known = self.of_type("float")
            if known and self.pick(True, False):
                return known
            return self.pick(f"in_float[{self.index()}]", "0.75f", "-3.0f", "1e3f", "0.1f")
        if kind == "convert":
            return f"(float)({self.integer(self.pick(*INTEGERS), depth - 1)})"
        if kind == "choice":
            return f"({self.condition(depth - 1)} ? {self.real(depth - 1)} : {self.real(depth - 1)})"
        if kind == "call":
            name = self.pick("fabs", "floor", "ceil", "trunc", "rint", "sqrt", "mixed", "fma")
            a = self.real(depth - 1)
            if name == "sqrt":
                return f"sqrt(fabs({a}))"
            if name == "mixed":
                return f"mixed({a}, {self.real(depth - 1)})"
            return f"fma({a}, 0.25f, 1.5f)" if name == "fma" else f"{name}({a})"
        return f"({self.real(depth - 1)} {self.pick('+', '-', '*', '/')} {self.real(depth - 1)})"

    def condition(self, depth: int) -> str:
        kind = self.pick("integers", "reals", "both", "not") if depth > 0 else "integers"
        if kind == "not":
            return f"!({self.condition(depth - 1)})"
        if kind == "both":
            return f"({self.condition(depth - 1)} {self.pick('&&', '||')} {self.condition(depth - 1)})"
        operator = self.pick("<", "<=", ">", ">=", "==", "!=")
        if kind == "reals":
            return f"({self.real(depth - 1)} {operator} {self.real(depth - 1)})"
        type_ = self.pick(*INTEGERS)
        return f"({self.integer(type_, depth - 1)} {operator} {self.integer(type_, depth - 1)})"

    def index(self) -> str:
        known = self.of_type("int", "uint", "short", "uchar")
        return f"{known} & 31" if known and self.pick(True, False) else self.pick("i", "i + 5", "31 - i", "3")

    # -- statements
    def block(self, depth: int, indent: str) -> None:
        before = dict(self.scalars), dict(self.vectors)
        for _ in range(self.data.draw(st.integers(1, 3))):
            self.statement(depth, indent)
        self.scalars, self.vectors = before

    def statement(self, depth: int, indent: str) -> None:
        kinds = ["declare", "assign", "vector", "private"] + (["if", "for", "while"] if depth > 0 else [])
        getattr(self, f"make_{self.pick(*kinds)}")(depth, indent)

    def make_declare(self, depth: int, indent: str) -> None:
        type_, name = self.pick(*INTEGERS, "float"), self.name()
        self.lines.append(f"{indent}{type_} {name} = {self.number(type_, 2)};")
        self.scalars[name] = type_

    def make_assign(self, depth: int, indent: str) -> None:
        names = [n for n in self.scalars if n not in self.read_only]
        if not names:
            self.make_declare(depth, indent)
            return
        name = self.pick(*names)
        type_ = self.scalars[name]
        operator = self.pick("=", "^=", "|=") if type_ != "float" else self.pick("=", "+=", "*=")
        self.lines.append(f"{indent}{name} {operator} {self.number(type_, 2)};")

    def make_vector(self, depth: int, indent: str) -> None:
        size, type_, name = self.pick(2, 4, 8), self.pick("int", "uchar", "float", "ushort"), self.name()
        parts = ", ".join(self.number(type_, 1) for _ in range(size))
        self.lines.append(f"{indent}{type_}{size} {name} = ({type_}{size})({parts});")
        same = [n for n, t in self.vectors.items() if t == (type_, size)]
        if same:
            operator = self.pick("+", "-", "*") if type_ == "float" else self.pick("&", "|", "^")
            self.lines.append(f"{indent}{name} = {name} {operator} {self.pick(*same)};")
        part = self.name()
        component = self.pick("x", "y", "s0", "s1", "hi.s0" if size > 2 else "lo")
        self.lines.append(f"{indent}{type_} {part} = {name}.{component};")
        self.vectors[name] = type_, size
        self.scalars[part] = type_

    def make_private(self, depth: int, indent: str) -> None:
        type_, name, counter, value = self.pick("int", "float", "uchar"), self.name(), self.name(), self.name()
        self.lines.append(f"{indent}{type_} {name}[4];")
        fill = f"{name}[{counter}] = {self.number(type_, 1)};"
        self.lines.append(f"{indent}for (int {counter} = 0; {counter} < 4; {counter}++) {fill}")
        self.lines.append(f"{indent}{type_} {value} = {name}[{self.integer('int', 1)} & 3];")
        self.scalars[value] = type_

    def make_if(self, depth: int, indent: str) -> None:
        self.lines.append(f"{indent}if ({self.condition(2)}) {{")
        self.block(depth - 1, indent + "  ")
        if self.pick(True, False):
            self.lines.append(f"{indent}}} else {{")
            self.block(depth - 1, indent + "  ")
        self.lines.append(f"{indent}}}")

    def make_for(self, depth: int, indent: str) -> None:
        counter, bound = self.name(), self.pick("4", "(int)(i & 3) + 1", "7")
        self.lines.append(f"{indent}for (int {counter} = 0; {counter} < {bound}; {counter}++) {{")
        self.scalars[counter] = "int"
        self.read_only.add(counter)
        if self.pick(True, False):
            self.lines.append(f"{indent}  if ({self.condition(1)}) {self.pick('break', 'continue')};")
        self.block(depth - 1, indent + "  ")
        self.lines.append(f"{indent}}}")
        del self.scalars[counter]

    def make_while(self, depth: int, indent: str) -> None:
        counter = self.name()
        self.lines.append(f"{indent}int {counter} = (int)(i & 7);")
        self.lines.append(f"{indent}while ({counter} > 0 && {self.condition(1)}) {{")
        self.scalars[counter] = "int"
        self.read_only.add(counter)
        self.block(depth - 1, indent + "  ")
        self.lines.append(f"{indent}  {counter} -= 2;")
        self.lines.append(f"{indent}}}")

    def text(self) -> str:
        for _ in range(self.data.draw(st.integers(2, 6))):
            self.statement(2, "  ")
        whole = " ^ ".join([f"(long){n}" for n, t in self.scalars.items() if t != "float"] or ["0L"])
        real = " + ".join([n for n, t in self.scalars.items() if t == "float"] or ["0.0f"])
        return HEAD + "\n".join([*self.lines, f"  out[i] = {whole};", f"  real[i] = {real};", "}", ""])


def under_pocl(pocl: Any, text: str) -> tuple[np.ndarray, np.ndarray]:
    program = pocl.program(text, cache_dir=False)
    out, real = np.zeros(ITEMS, np.int64), np.zeros(ITEMS, np.float32)
    buffers = [pocl.buffer(a) for a in (*ARRAYS.values(), out, real)]
    program.f(pocl.queue, (ITEMS,), None, *buffers)
    for array, buffer in ((out, buffers[-2]), (real, buffers[-1])):
        pocl.cl.enqueue_copy(pocl.queue, array, buffer)
    pocl.queue.finish()
    return out, real


def on_engine(text: str, better: bool) -> tuple[np.ndarray, np.ndarray]:
    module = compile_opencl(text, "random.cl")
    if better:
        optimise(module)
        module.verify()
    out, real = np.zeros(ITEMS, np.int64), np.zeros(ITEMS, np.float32)
    launch(kernel_named(module, "f"), [*ARRAYS.values(), out, real], ITEMS)
    return out, real


def check(pocl: Any, data: st.DataObject) -> None:
    text = Program(data).text()
    wanted_out, wanted_real = under_pocl(pocl, text)
    for better in (False, True):
        out, real = on_engine(text, better)
        np.testing.assert_array_equal(out, wanted_out, err_msg=text)
        np.testing.assert_array_equal(real, wanted_real, err_msg=text)


SETTINGS = settings(
    deadline=None, derandomize=True, database=None, phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)  # fmt: skip


@settings(SETTINGS, max_examples=10)
@given(st.data())
def test_some_programs_agree(pocl: Any, data: st.DataObject) -> None:
    check(pocl, data)


@pytest.mark.slow
@settings(SETTINGS, max_examples=1000)
@given(st.data())
def test_a_thousand_programs_agree(pocl: Any, data: st.DataObject) -> None:
    check(pocl, data)
