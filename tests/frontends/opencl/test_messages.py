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
    "real a = 1;": "2:3: error: unknown type name 'real'",
    "n = 1; float5 a;": "2:10: error: unknown type name 'float5'",
    "const real *a = x;": "2:9: error: unknown type name 'real'",
    "x[0] = n n;": "2:11: error: expected ';' after 'n'",
    "n = 'é';": "2:7: error: the character 'é' is not in the subset of OpenCL C: write its number",
    "n = '\\x41';": "2:7: error: strings and characters in quotes",
    "n = '\\q';": "2:7: error: the character '\\q' is not in the subset",
    "x[0] = 0x1.8p-2;": "2:10: error: '0x1.8p-2' is a double, which is not in the subset",
    "x[0] = 0x1.23456789abcdefp0f;": "2:10: error: '0x1.23456789abcdefp0f' is no float literal of at most 13 digits",
    "float4 a = 1.0f; a = a > 0.0f ? 1 : 2;": "2:24: error: a vector of type 'int4' does not become 'float4'",
    "short4 a = 1; float4 b = a ? 1.0f : 2.0f;": "2:28: error: '?:' between elements of 'float4' takes a",
    "int4 b = as_int4(1.0f);": "2:12: error: 'as_int4' does not take an argument of type 'float': it reads 128 bits",
    "n = 'ab';": "2:7: error: strings and characters in quotes are not in the subset of OpenCL C",
    'printf("%d", n);': "2:10: error: strings and characters in quotes are not in the subset of OpenCL C",
    "/* open": "2:3: error: this comment does not end",
    # names and arguments
    "x[0] = foo(n);": "2:10: error: call of undeclared function 'foo'",
    "int scale = n; n = scael;": "2:22: error: use of undeclared name 'scael'; did you mean 'scale'?",
    "n = later; int late = n;": "2:7: error: use of undeclared name 'later'",
    "x[0] = sqr(x[0]);": "2:10: error: call of undeclared function 'sqr'; did you mean 'sqrt'?",
    "x[0] = lenght(x[0]);": "2:10: error: call of undeclared function 'lenght'; did you mean 'length'?",
    "flaot a = 1;": "2:3: error: unknown type name 'flaot'; did you mean 'float'?",
    "x[0] = dot(x[0]);": "2:10: error: 'dot' takes 2 arguments, but 1 is given",
    "float2 a = 1; float4 b = 1; x[0] = dot(a, b);": "a vector of type 'float2' does not become 'float4'",
    "float8 a = 1; x[0] = length(a);": "2:24: error: 'length' takes float, float2 and float4, not 'float8'",
    "float2 a = 1; a = cross(a, a);": "2:21: error: 'cross' takes float4, not 'float2'",
    "int4 a = 1; x[0] = length(a);": "2:22: error: 'length' takes floats, not 'int4'",
    "x[0] = fast_length(x[0]);": "2:10: error: the built-in function 'fast_length' is not in the subset of OpenCL C",
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
    "break;": "2:3: error: 'break' stands in no loop and in no 'switch'",
    "switch (n) { case 1: continue; }": "2:24: error: 'continue' stands in no loop",
    "switch (n) { case 1: break; case 2 - 1: break; }": "2:31: error: 'case 1' stands twice in one 'switch'",
    "switch (n) { default: default: ; }": "2:25: error: 'default' stands twice in one 'switch'",
    "switch (x[0]) { }": "2:11: error: 'switch' takes an integer, not a value of type 'float'",
    "switch (n) { case n: ; }": "2:21: error: a label is a constant: integer literals and macros",
    "switch (n) { case 1 / 0: ; }": "2:21: error: '/' in a label has operands that it does not take, 1 and 0",
    "switch (n) { n = 1; }": "2:16: error: unexpected 'n'",
    "switch (n) { case 1: int a = 1; case 2: n = a; }": "error: use of undeclared name 'a'",
    "case 1: ;": "2:3: error: unexpected 'case'",
    "int a[2] = {1, 2, 3};": "2:8: error: the array 'a' has 2 elements, but 3 initial values",
    "int a[] = 3;": "2:13: error: the array 'a' cannot be initialised so: write the initial values in braces",
    "int a[];": "2:8: error: the array 'a' has neither a size nor initial values",
    "int a[2] = {x};": "2:15: error: an initial value of type '__global float *' does not become 'int'",
    "int a[2][2] = {{1, 2, 3}};": "2:18: error: a row has 2 elements, but 3 initial values",
    "int a[2][2] = {{1}, 2};": "2:18: error: braces within braces hold the initial values of a row",
    "int a[2] = {{1}};": "2:15: error: braces within braces hold the initial values of a row",
    "int a[2][] = {1};": "2:11: error: the array 'a' has neither a size nor initial values",
    "int a[2][2] = {1, 2, 3, 4, 5};": "2:8: error: the array 'a' has 4 elements, but 5 initial values",
    "int a[1][9000] = {{1}};": "an array of 9000 elements is too long for initial values: at most 1024",
    "int a[2][2]; a[0] = 1;": "2:23: error: what is assigned is of type 'int *' and cannot be a 'int'",
    "int a[2][2]; a[0] = a[1];": "2:16: error: an array cannot be assigned",
    "int a[2][2]; int *p = a;": "2:25: error: 'p' is of type 'int *' and cannot be a 'int (*)[2]'",
    "int a[2][4]; int4 b = vload4(0, a);": "2:25: error: 'vload4' takes a pointer to scalars, not 'int (*)[4]'",
    "int a = {1};": "2:11: error: 'a' is no array: initial values in braces are for arrays",
    "int a[3] = {};": "2:15: error: unexpected '}'",
    "__local int a[2] = {1, 2};": "the array 'a' cannot be initialised so: assign its elements",
    "int a[5000] = {1};": "an array of 5000 elements is too long for initial values: at most 1024",
    "__constant int a = 1;": "2:3: error: '__constant' variables stand outside functions, and 'static' ones are not",
    "__global float *p = c;": "error: 'p' is of type '__global float *' and cannot be a '__global const int *'",
    "__global float *p; ": "error: the pointer 'p' has to be initialised",
    "int a[n];": "2:9: error: the size of an array is a constant",
    "x[0] = get_global_id(n);": "error: the dimension of 'get_global_id' is the constant 0, 1 or 2",
    "x[0] = 99999999999999999999;": "error: the literal '99999999999999999999' is too large for every integer type",
    "n = 0777q;": "2:7: error: '0777q' is no integer literal",
    # what the subset leaves out, by name
    "goto end;": "2:3: error: 'goto' is not in the subset of OpenCL C",
    "double d = 1;": "2:3: error: 'double' is not in the subset of OpenCL C",
    "float3 d = 1;": "2:3: error: 'float3' is no type of the subset",
    "x[0] = 1.0;": "2:10: error: '1.0' is a double, which is not in the subset of OpenCL C: write '1.0f'",
    "x[0] = tgamma(x[0]);": "2:10: error: the built-in function 'tgamma' is not in the subset of OpenCL C",
    "x[0] = exp();": "2:10: error: 'exp' takes 1 argument, but 0 are given",
    "x[0] = pow(x[0]);": "2:10: error: 'pow' takes 2 arguments, but 1 is given",
    "x[0] = exp(x);": "2:10: error: a value of type '__global float *' does not become 'float'",
    "int4 a = 1; x[0] = exp(a).x;": "2:22: error: 'exp' takes floats, not 'int4'",
    "float2 a = 1; float4 b = 2; x[0] = pow(a, b).x;": "error: a vector of type 'float2' does not become 'float4'",
    "x[0] = _near(x[0]);": "2:10: error: call of undeclared function '_near'",
    "x[0] = mul_hi(x[0], 2);": "2:10: error: 'mul_hi' takes integers, not 'float'",
    "x[0] = mul24((long)n, 2);": "2:10: error: 'mul24' takes int and uint, not 'long'",
    "x[0] = any(x[0]);": "2:10: error: 'any' takes integers, not 'float'",
    "atomic_add(c, 1);": "2:3: error: the built-in function 'atomic_add' is not in the subset of OpenCL C",
    "int *p = &n;": "2:12: error: the address of a variable is not in the subset of OpenCL C",
    "__attribute__((aligned(4))) int a;": "2:3: error: an attribute stands before the name of a kernel only",
    "#define SQUARE(a) #a": "2:3: error: the macro 'SQUARE' uses # or ##, which is not in the subset of OpenCL C",
    "#define F(...) 1": "2:3: error: the macro 'F' takes any number of arguments, which is not in the subset",
    "#define F(a, a) 1": "2:3: error: the parameters of the macro 'F' are different names",
    "#define F(a": "2:3: error: #define takes a name, with parameters in parentheses or without",
    "#define 3 a": "2:3: error: #define takes a name",
    "#undef": "2:3: error: #undef takes the name of a macro",
    "#ifdef A": "2:1: error: this condition has no #endif",
    "#ifdef 1": "2:3: error: #ifdef takes the name of a macro",
    "#if 1\n#else\n#else\n#endif": "4:1: error: #else behind the #else of the condition in line 2",
    "#if 1\n#else\n#elif 1\n#endif": "4:1: error: #elif behind the #else of the condition in line 2",
    "#endif": "2:3: error: #endif without #if",
    "#else": "2:3: error: #else without #if",
    "#if": "2:3: error: the condition ends where a number is expected",
    "#if 1 +": "2:3: error: the condition ends where a number is expected",
    "#if (1": "2:3: error: ')' is expected in the condition, but the line ends",
    "#if 1 2": "2:3: error: unexpected '2' in the condition",
    "#if 1.5f": "2:3: error: '1.5f' is no integer, which a condition is made of",
    "#if 1 / 0": "2:3: error: the condition divides by zero",
    "#if float == 1": "2:3: error: 'float' is a type: conditions compare integers, so give each type a number",
    "#if " + "(" * 300: "2:3: error: the condition is nested too deeply",
    "#error no  such type": "2:3: error: #error no  such type",
    "#include <math.h>": "2:3: error: '#include <math.h>' names no file in quotes: what can be included lies beside",
    "#define F(a) a\nn = F(1, 2);": "3:5: error: the macro 'F' takes 1 argument, but 2 are given",
    "#define F() 1\nn = F(2);": "3:5: error: the macro 'F' takes no arguments, but 1 is given",
    "#define F(a) a\nn = F(1;": "3:5: error: the call of the macro 'F' has no ')'",
    "#define F(a) wrong + a\nn =\n F(\n1);": "4:2: error: use of undeclared name 'wrong'",
    "#define F(a) 1 + a\nn = F(\n wrong);": "4:2: error: use of undeclared name 'wrong'",
    "#pragma OPENCL FP_CONTRACT ON": "2:3: error: '#pragma OPENCL FP_CONTRACT' is 'OFF' here",
    "#pragma OPENCL EXTENSION cl_khr_fp64 : enable": "2:3: error: the extension 'cl_khr_fp64' is not in the subset",
    "#pragma OPENCL EXTENSION cl_khr_fp16:enable": "2:3: error: the extension 'cl_khr_fp16' is not in the subset",
    "#pragma OPENCL EXTENSION cl_khr_global_int32_base_atomics : enable": "global_int32_base_atomics' is not in",
    "#pragma OPENCL EXTENSION all : enable": "2:3: error: the extension 'all' is not in the subset of OpenCL C",
    "#pragma OPENCL EXTENSION cl_khr_fp64": "2:3: error: '#pragma OPENCL EXTENSION' takes the name of an extension",
    "#pragma OPENCL EXTENSION cl_khr_fp64 : on": "2:3: error: '#pragma OPENCL EXTENSION' takes the name of an exten",
    "#warning a kernel that nobody has looked at for a long time": "2:3: error: the directive '#warning a kernel that "
    "nobody has looked at for a long time' is not in the subset of OpenCL C",
    "#include <a/directory/within/another/directory/file.h>": "2:3: error: '#include <a/directory/within/another/"
    "directory/file.h>' names no file in quotes",
    "x[0] = convert_float_rtz((long)n);": "'convert_float_rtz' of a 64-bit integer is not in the subset",
}


@pytest.mark.parametrize("body", MISTAKES)
def test_mistakes_in_a_body(body: str) -> None:
    assert MISTAKES[body] in message(inside(body)).splitlines()[0]


WHOLE = {
    "__kernel void f(__global real *x) { }": "1:26: error: unknown type name 'real'",
    "void f(real x) { }": "1:8: error: unknown type name 'real'",
    "real f(int x) { }": "1:1: error: unknown type name 'real'",
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
    "__attribute__((reqd_work_group_size(4, 1, 1))) void f() { }": "1:16: error: 'reqd_work_group_size' stands once",
    "__kernel __attribute__((reqd_work_group_size(4))) void f() { }": "'reqd_work_group_size' takes three sizes",
    "__kernel __attribute__((reqd_work_group_size(4, 0, 1))) void f() { }": "1:46: error: a work group of [4, 0, 1]",
    "__kernel __attribute__((work_group_size_hint(4, 1, 1))) void f() { }": "1:25: error: the attribute",
    "void f() { __local int a[4]; }": "the __local array 'a' has to be declared in a kernel",
    "int f(int n) { return; }": "'f' gives 'int', so 'return' takes a value",
    "__kernel void f(int n) { n = 1;": "the text ends before a '}' or ';'",
    "void unused(void) { wrong = 1; } __kernel void f(int n) { }": "use of undeclared name 'wrong'",
    "int t = 2; __kernel void f(int n) { }": "1:5: error: 't' stands outside functions, where only '__constant'",
    "__constant int t; __kernel void f(int n) { }": "1:16: error: the __constant variable 't' has no initial value",
    "__constant int t = 2; __kernel void f(int n) { t = 1; }": "1:48: error: 't' is constant and cannot be assigned",
    "__constant int t[] = {1}; void f() { t[0] = 1; }": "leads to is constant and cannot be assigned",
    "__constant int t[] = {1}; void f() { __global int *p = t; }": "cannot be a '__constant int *'",
    "void f() { int n = t; } __constant int t = 2;": "1:20: error: use of undeclared name 't'",
    "__constant int t[1025] = {" + "1," * 1025 + "};": "an array takes at most 1024 initial values",
    "__constant int t[1025] = {1};": "1:16: error: an array of 1025 elements is too long for initial values: at most",
    "__constant int t[] = {1, get_global_id(0)};": "1:26: error: an initial value of the __constant array",
    "__constant int a[] = {1}, t[] = {a[0]};": "1:34: error: an initial value of the __constant array 't' is no const",
    "__constant int2 t[] = {1, 2 / 0};": "1:27: error: an initial value of the __constant array 't' is no constant",
    f"int f(int n) {{ return {'+' .join(['n'] * 5000)}; }}": "expressions or blocks are nested too deeply",
    "__kernel void f(__constant int *x) { x[0] = 1; }": "what '__constant int *' leads to is constant",
}


@pytest.mark.parametrize("text", WHOLE, ids=lambda text: text[:60])
def test_mistakes_in_a_text(text: str) -> None:
    assert WHOLE[text] in message(text).splitlines()[0]


def test_macros_do_not_grow_without_end() -> None:
    doubled = "".join(f"#define A{k} A{k - 1} + A{k - 1}\n" for k in range(1, 60))
    assert "macros make more than 100000 tokens of this source" in message(f"#define A0 1\n{doubled}int x = A59;")
    nested = "".join(f"#define F{k}(x) F{k - 1}(x + x)\n" for k in range(1, 60))
    found = message(f"#define F0(x) x\n{nested}void f(int n) {{\n n = F59(n); }}")
    assert found.startswith("k.cl:62:6: error: macros make more than 100000 tokens of this source")


def test_a_text_that_is_too_long_is_told_as_such() -> None:
    """Macros that make little are not to blame; as many tokens as allowed are fine, however many macros make them."""
    body = "n = ONE;\n" * 24_999
    most = f"#define ONE 1\nvoid f(int n) {{ {body}"
    found = message(most)
    assert found.startswith("k.cl:25000:3: error: this source has more than 100000 tokens\n")
    assert "the text ends before" in message(most.removesuffix("n = ONE;\n" * 2))


def test_calls_do_not_grow_without_end() -> None:
    doubled = "".join(f"int f{k}(int n) {{ return f{k - 1}(n) + f{k - 1}(n); }}\n" for k in range(1, 40))
    text = f"int f0(int n) {{ return n; }}\n{doubled}__kernel void f(__global int *x) {{ x[0] = f39(1); }}"
    assert "the functions called here make more than" in message(text)


def test_mistakes_in_what_macros_from_outside_say() -> None:
    with pytest.raises(SourceError, match=r"k.cl:1:21: error: use of undeclared name 'wrong'"):
        compile_opencl("void f(int n) { n = A; }", "k.cl", {"A": "wrong"})


@pytest.mark.parametrize("body", ["(" * 4000, "{" * 4000, "-" * 4000 + "1", "F(" * 4000, "if (n) " * 4000, "[" * 99])
def test_deep_nesting_is_refused(body: str) -> None:
    message(f"#define F(x) x\n__kernel void f(int n) {{ n = {body}")
    message(f"#define F(x) x\n__kernel void f(int n) {{ {body}")


def test_nested_decisions_do_not_take_for_ever() -> None:
    nested = "".join(f"n == {k} ? {k}.5f : (" for k in range(25)) + "n" + ")" * 25
    assert compile_opencl(inside(f"x[0] = {nested};"), "k.cl").body.block.first_op is not None
