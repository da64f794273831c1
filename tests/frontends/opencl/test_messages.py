"""Mistakes in kernels are told as a C compiler tells them: place, reason, the line, a caret."""

from __future__ import annotations

import pytest
from nacre.frontends.opencl import SourceError, compile_opencl


def message(text: str) -> str:
    with pytest.raises(SourceError) as refusal:
        compile_opencl(text, "k.cl")
    return str(refusal.value)


def inside(body: str) -> str:
    return f"__kernel void f(__global float *x, __global const int *c, int n) {{\n  {body}\n}}"


def test_the_whole_text_of_a_message() -> None:
    text = "// scales\n__kernel void f(__global float *x) {\n\tx[0] = 2.0f * scael;\n}\n"
    assert message(text) == (
        "k.cl:3:16: error: use of undeclared name 'scael'\n"
        "    3 | \tx[0] = 2.0f * scael;\n"
        "      | \t              ^"
    )


def test_a_missing_semicolon_is_told_where_it_is_missing() -> None:
    assert message("__kernel void f(__global int *x) {\n  int i = 3\n  x[i] = 1;\n}\n") == (
        "k.cl:2:12: error: expected ';' after '3'\n    2 |   int i = 3\n      |            ^"
    )


def test_a_macro_is_told_where_it_is_used() -> None:
    found = message("#define SIZE wrong + 1\n__kernel void f(__global int *x) {\n  x[0] = SIZE;\n}")
    assert found.startswith("k.cl:3:10: error: use of undeclared name 'wrong'\n    3 |   x[0] = SIZE;\n")


MISTAKES = {
    # syntax
    "x[0] = 1.0f + ;": "2:17: error: unexpected ';'; expected an expression",
    "if (n { }": "2:9: error: unexpected '{'",
    "x[0 = 1;": "2:10: error: unexpected ';'; expected ']'",
    "x[0] = @;": "2:10: error: the character '@' is none of OpenCL C",
    "/* open": "2:3: error: this comment does not end",
    # names and arguments
    "x[0] = foo(n);": "2:10: error: call of undeclared function 'foo'",
    "x[0] = min(n);": "2:10: error: 'min' takes 2 arguments, but 1 is given",
    "x[0] = fabs(1.0f, 2.0f);": "2:10: error: 'fabs' takes 1 argument, but 2 are given",
    "int a; float a;": "2:16: error: 'a' is declared twice in one block",
    "{ int a = 1; } x[a] = 0;": "2:20: error: use of undeclared name 'a'",
    # types
    "c[0] = 1;": "2:3: error: what '__global const int *' leads to is constant and cannot be assigned",
    "const int a = 1; a = 2;": "2:20: error: 'a' is constant and cannot be assigned",
    "n + 1 = 2;": "2:9: error: what stands before '=' cannot be assigned",
    "(n) = x;": "2:9: error: a value of type '__global float *' does not become 'int'",
    "x[1.0f] = 2;": "2:5: error: an index is an integer, not of type 'float'",
    "n[0] = 2;": "2:3: error: a value of type 'int' is no array",
    "x[0] = 1.0f % 2;": "2:15: error: '%' takes integers, not 'float'",
    "x[0] = 1.0f << 2;": "2:15: error: '<<' takes integers, not 'float'",
    "float4 a = 1.0f; float2 b = a;": "2:31: error: a vector of type 'float4' does not become 'float2'",
    "float4 a = 1.0f; x[0] = a.q;": "2:29: error: 'float4' has no elements '.q'",
    "float4 a = 1.0f; x[0] = a.xyz;": "2:29: error: 'float4' has no elements '.xyz'",
    "float4 a = (float4)(1.0f, 2.0f, 3.0f);": "error: 'float4' is made of 4 elements, but 3 are given",
    "if (x) n = 1;": "2:7: error: a condition is a scalar, not of type '__global float *'",
    "x[0] = max(n, x[1]);": "error: 'max' takes arguments of one type, not 'int' and 'float'",
    "return 1;": "2:10: error: 'f' gives void, so 'return' takes no value",
    "break;": "2:3: error: 'break' stands in no loop",
    "__global float *p = c;": "error: 'p' is of type '__global float *' and cannot be a '__global const int *'",
    "__global float *p; ": "error: the pointer 'p' has to be initialised",
    "int a[n];": "2:9: error: the size of an array is a constant",
    "x[0] = get_global_id(n);": "error: the dimension of 'get_global_id' is the constant 0, 1 or 2",
    "x[0] = 99999999999999999999;": "error: the literal '99999999999999999999' is too large for every integer type",
    "n = 0777q;": "2:7: error: '0777q' is no integer literal",
    # what the subset leaves out, by name
    "goto end;": "2:3: error: 'goto' is not in the subset of OpenCL C",
    "switch (n) { }": "2:3: error: 'switch' is not in the subset of OpenCL C",
    "double d = 1;": "2:3: error: 'double' is not in the subset of OpenCL C",
    "float3 d = 1;": "2:3: error: 'float3' is no type of the subset",
    "x[0] = 1.0;": "2:10: error: '1.0' is a double, which is not in the subset of OpenCL C: write '1.0f'",
    "x[0] = sin(x[0]);": "2:10: error: the built-in function 'sin' is not in the subset of OpenCL C",
    "atomic_add(c, 1);": "2:3: error: the built-in function 'atomic_add' is not in the subset of OpenCL C",
    "int *p = &n;": "2:12: error: the address of a variable is not in the subset of OpenCL C",
    "#ifdef A": "2:3: error: the directive '#ifdef A' is not in the subset of OpenCL C",
    "#define SQUARE(a) a * a": "2:11: error: the macro 'SQUARE' with parameters is not in the subset of OpenCL C",
    "#pragma OPENCL FP_CONTRACT ON": "2:3: error: '#pragma OPENCL FP_CONTRACT' is 'OFF' here",
    "x[0] = convert_float_rtz((long)n);": "'convert_float_rtz' of a 64-bit integer is not in the subset",
}


@pytest.mark.parametrize("body", MISTAKES)
def test_mistakes_in_a_body(body: str) -> None:
    assert MISTAKES[body] in message(inside(body)).splitlines()[0]


WHOLE = {
    "int f(int n) { return n ? f(n - 1) : 0; }": "recursion is not in the subset of OpenCL C: f -> f",
    "int g(int n); int f(int n) { return g(n); } int g(int n) { return f(n); }": "OpenCL C: g -> f -> g",
    "__kernel void f(__global int *x) { x[0] = g(1); } int g(int n) { return n; }": "call of undeclared function 'g'",
    "int g(int n); __kernel void f(__global int *x) { x[0] = g(1); }": "the function 'g' is announced but not defined",
    "int g(int n) { return n; } __kernel void f(__global int *x) { x[0] = g(); }": "'g' takes 1 argument, but 0 are",
    "__kernel int f(int n) { return n; }": "the kernel 'f' gives void, not 'int'",
    "__kernel void f(int *x) { }": "'x' cannot be of type 'int *': a kernel takes scalars but bool, and pointers to",
    "__kernel void f(__global int **x) { }": "a pointer leads to numbers or vectors, not to 'int *'",
    "__kernel void f(int x, int x) { }": "'f' has two parameters 'x'",
    "void f() { } void f() { }": "'f' is defined twice",
    "void g(__global int *x) { } __kernel void f(__local int *x) { g(x); }": "int *' and cannot be a '__local",
    "void f() { __local int a[4]; }": "the __local array 'a' has to be declared in a kernel",
    "int f(int n) { return; }": "'f' gives 'int', so 'return' takes a value",
    "__kernel void f(int n) { n = 1;": "the text ends before a '}' or ';'",
    "void unused(void) { wrong = 1; } __kernel void f(int n) { }": "use of undeclared name 'wrong'",
    "__constant float t[2] = {1, 2};": "'t' is a variable outside functions, which is not in the subset",
    "int t = 2; __kernel void f(int n) { }": "'t' is a variable outside functions, which is not in the subset",
    "void f() { int t[2] = {1, 2}; }": "initial values in braces are not in the subset of OpenCL C",
    f"int f(int n) {{ return {'+' .join(['n'] * 5000)}; }}": "expressions or blocks are nested too deeply",
    "__kernel void f(__constant int *x) { x[0] = 1; }": "what '__constant int *' leads to is constant",
}


@pytest.mark.parametrize("text", WHOLE, ids=lambda text: text[:60])
def test_mistakes_in_a_text(text: str) -> None:
    assert WHOLE[text] in message(text).splitlines()[0]


def test_nested_decisions_do_not_take_for_ever() -> None:
    nested = "".join(f"n == {k} ? {k}.5f : (" for k in range(25)) + "n" + ")" * 25
    assert compile_opencl(inside(f"x[0] = {nested};"), "k.cl").body.block.first_op is not None
