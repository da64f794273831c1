"""`#include "…"`: files beside the including one, as C has them, and messages that name the file a mistake is in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from nacre.dialects import ppu
from nacre.frontends.opencl import SourceError, compile_opencl
from nacre.runtime.ppu import kernel_named, launch

HEAD = "__kernel void f(__global int *x) {"


def compiled(files: Mapping[str, str], name: str = "k.cl", **options: Any) -> Any:
    """The module of files by name; the first one includes the others."""

    def read(wanted: str) -> str:
        if wanted not in files:
            raise FileNotFoundError
        return files[wanted]

    return compile_opencl(files[name], name, read=read, **options)


def result(files: Mapping[str, str], name: str = "k.cl", **options: Any) -> list[int]:
    """What kernel f writes."""
    x = np.zeros(2, np.int32)
    launch(kernel_named(compiled(files, name, **options), "f"), [x], (1,))
    return x.tolist()


def message(files: Mapping[str, str], name: str = "k.cl") -> str:
    with pytest.raises(SourceError) as refusal:
        compiled(files, name)
    return str(refusal.value)


def test_functions_tables_and_macros_come_from_the_file() -> None:
    held = "#define TWO 2\n__constant int table[] = {5, 6};\nint twice(int x) { return x * TWO; }\n"
    text = f'#include "held.cl" // functions\n{HEAD} x[0] = twice(table[1]); x[1] = TWO; }}'
    assert result({"k.cl": text, "held.cl": held}) == [12, 2]


def test_names_are_known_from_the_directive_on() -> None:
    text = f'{HEAD} x[0] = one(); }}\n#include "held.cl"\n'
    found = message({"k.cl": text, "held.cl": "int one(void) { return 1; }"})
    assert found.startswith(f"k.cl:1:{text.index('one') + 1}: error: call of undeclared function 'one'")


def test_a_file_stands_where_it_is_included_and_as_often() -> None:
    files = {"k.cl": f'{HEAD}\n#include "step.cl"\n#include "step.cl"\n}}', "step.cl": "x[0] += 3;\nx[1] = x[0] * 2;"}
    assert result(files) == [6, 12]
    for guarded in ("#ifndef ONCE\n#define ONCE\nx[0] += 3;\n#endif", "#pragma once\nx[0] += 3;"):
        assert result({**files, "step.cl": guarded}) == [3, 0]


@pytest.mark.parametrize(("defines", "expected"), [({}, [1, 0]), ({"WIDE": "1"}, [2, 0])])
def test_only_the_branch_that_counts_includes(defines: Mapping[str, str], expected: list[int]) -> None:
    choice = '#ifdef WIDE\n#include "two.cl"\n#elif 0\n#include "absent.cl"\n#else\n#include "one.cl"\n#endif\n'
    files = {"k.cl": f"{HEAD}\n{choice}}}", "one.cl": "x[0] = 1;", "two.cl": "#if WIDE\nx[0] = 2;\n#endif"}
    assert result(files, defines=defines) == expected


def test_names_are_those_beside_the_including_file() -> None:
    files = {
        "kernels/k.cl": f'#include "parts/a.cl"\n#include "../b.cl"\n{HEAD} x[0] = a() + b(); }}',
        "kernels/parts/a.cl": '#include "b.cl"\nint a(void) { return inner(); }',
        "kernels/parts/b.cl": "int inner(void) { return 4; }",
        "b.cl": "int b(void) { return 8; }",
    }
    assert result(files, "kernels/k.cl") == [12, 0]


def test_a_mistake_is_told_in_the_file_it_is_in() -> None:
    held = "// one\n\n  int one(void) { return 1 }"
    behind = f'/* two\n lines */ int a(void);\n#include \\\n  "held.cl"\n\n{HEAD} x[0] = scael; }}'
    assert message({"k.cl": behind, "held.cl": held}) == (
        "held.cl:3:27: error: expected ';' after '1'\n"
        "    3 |   int one(void) { return 1 }\n"
        "      |                           ^"
    )
    assert message({"k.cl": behind, "held.cl": held.replace("1 }", "1; }")}) == (
        "k.cl:6:43: error: use of undeclared name 'scael'\n"
        f"    6 | {HEAD} x[0] = scael; }}\n"
        f"      | {' ' * 42}^"
    )


MISTAKES = {
    "\n int a = @;": "held.cl:2:10: error: the character '@' is none of OpenCL C",
    "int a;\n /* open": "held.cl:2:2: error: this comment does not end",
    "\n#if 1\n": "held.cl:2:1: error: this condition has no #endif",
    "\n#endif\n": "held.cl:2:1: error: #endif without #if",
    "#if 1\n#else\n#else\n#endif": "held.cl:3:1: error: #else behind the #else of the condition in line 1",
    "#error wrong": "held.cl:1:1: error: #error wrong",
    "#define F(a) a\n\nint b = F(;": "held.cl:3:9: error: the call of the macro 'F' has no ')'",
    '\n#include "more.cl"': "held.cl:2:1: error: 'more.cl' cannot be included: there is no such file",
    "void g(int a) { a = 1": "held.cl:1:22: error: expected ';' after '1'",
}


@pytest.mark.parametrize("text", MISTAKES)
def test_mistakes_in_a_file_that_is_included(text: str) -> None:
    found = message({"k.cl": f'#if 1\n#include "held.cl"\n#endif\n{HEAD} x[0] = 1; }}', "held.cl": text})
    assert found.startswith(MISTAKES[text])


DIRECTIVES = {
    "#include <math.h>": "'#include <math.h>' names no file in quotes: what can be included lies beside the source",
    "#include": "'#include' names no file in quotes",
    "#include NAME": "'#include NAME' names no file in quotes",
    '#include "a.cl" b': "'#include \"a.cl\" b' names no file in quotes",
    '#include "absent.cl"': "'absent.cl' cannot be included: there is no such file",
    '#include "k.cl"': "'k.cl' is included 16 files deep: is it one that includes itself?",
    '#include "many.cl"': "this source includes more than 1000 files",
}


@pytest.mark.parametrize("directive", DIRECTIVES)
def test_mistakes_in_the_directive(directive: str) -> None:
    many = {"many.cl": '#include "empty.cl"\n' * 1000, "empty.cl": ""}
    found = message({"k.cl": f"\n  {directive}\n", **many})
    at = "many.cl:1000:1" if "many" in directive else "k.cl:2:3"
    assert found.startswith(f"{at}: error: {DIRECTIVES[directive]}")


def test_a_circle_of_files_is_refused_where_it_gets_too_deep() -> None:
    files = {"k.cl": '#include "a.cl"', "a.cl": '\n#include "b.cl"', "b.cl": '\n\n#include "a.cl"'}
    assert message(files).startswith("a.cl:2:1: error: 'b.cl' is included 16 files deep")


def test_nothing_is_included_without_a_reader() -> None:
    with pytest.raises(SourceError, match=r"k.cl:1:1: error: 'a.cl' cannot be included: compile_opencl was given no"):
        compile_opencl('#include "a.cl"', "k.cl")


def test_what_cannot_be_read_is_told() -> None:
    def read(name: str) -> str:
        raise PermissionError(13, "Permission denied")

    with pytest.raises(SourceError, match=r"k.cl:1:1: error: 'a.cl' cannot be included: Permission denied"):
        compile_opencl('#include "a.cl"', "k.cl", read=read)
    with pytest.raises(SourceError, match=r"k.cl:1:1: error: 'a.cl' cannot be included: it is no text"):
        compile_opencl('#include "a.cl"', "k.cl", read=lambda name: b"\xff".decode())


def test_operations_are_located_in_their_file() -> None:
    text = f'#include "held.cl"\n{HEAD} x[0] = seven(x[1]); }}'
    files = {"k.cl": text, "held.cl": "\nint seven(int a) { return a * 7; }"}
    (product,) = (op for op in compiled(files).walk() if isinstance(op, ppu.MulOp))
    assert str(product.location) == 'loc("held.cl":2:29)'
