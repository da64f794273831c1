"""The race sanitizer: what has no order is a Fault that names both work items, the argument and the element."""

from __future__ import annotations

import numpy as np
import pytest
from nacre.errors import Fault
from nacre.frontends.opencl import compile_opencl
from nacre.runtime.ppu import kernel_named, launch

N = 8


def run(body: str, *more, local=4, items=N, parameters="") -> np.ndarray:
    y = np.zeros(N, np.int32)
    source = f"""__kernel void f(__global int *y{parameters}) {{
      int i = get_global_id(0), l = get_local_id(0), g = get_group_id(0);
      {body}
    }}"""
    launch(kernel_named(compile_opencl(source, "k.cl"), "f"), [y, *more], items, local, sanitize=True)
    return y


def fault(body: str, *more, **options) -> str:
    with pytest.raises(Fault) as stop:
        run(body, *more, **options)
    return str(stop.value).partition("kernel 'f': ")[2]


def test_two_that_write_one_element():
    found = fault("y[i / 2] = 1;")
    assert found == "writes 'y'[0], which work item (0) wrote: there is no barrier in between, in work item (1)"


def test_writes_in_two_instructions():
    assert fault("y[i] = 1; if (i == 3) y[5] = 2;").startswith(
        "writes 'y'[5], which work item (5) wrote: groups are not ordered, in work item (3)"
    )


def test_reading_what_another_writes():
    assert "reads 'y'[1], which work item (1) wrote: there is no barrier" in fault("y[i] = i; y[i] = y[i ^ 1];")


def test_writing_what_another_has_read():
    found = fault("int v = y[(i + 1) % 8]; y[i] = v;")
    assert found == "writes 'y'[1], which work item (0) read: there is no barrier in between, in work item (1)"


@pytest.mark.parametrize("reads", ["if (l >= 2) v = y[g * 4];", "if (l == 3) v = y[g * 4]; if (l == 2) v = y[g * 4];"])
def test_writing_what_one_has_read_oneself_and_others_too(reads):
    found = fault(f"int v = 0; {reads} if (l == 3) y[g * 4] = v;")
    assert "writes 'y'[0], which work item (2) read" in found


def test_a_barrier_orders_a_group():
    y = run("y[i] = i; barrier(1); int v = y[i ^ 1]; barrier(1); y[i] = v;")
    assert y.tolist() == [1, 0, 3, 2, 5, 4, 7, 6]
    assert "which work item (4) wrote: groups are not ordered" in fault("y[i] = i; barrier(1); int v = y[i ^ 4];")
    assert "which work item (4) read: groups are not ordered" in fault("int v = y[i ^ 4]; barrier(1); y[i] = v;")


def test_a_barrier_orders_the_groups_that_meet_at_it():
    body = "y[i] = i; if (g == {}) barrier(1); if (g == 1) y[i] = y[i ^ 1] + 1;"
    assert "there is no barrier in between" in fault(body.format(0))
    found = fault(body.format(1))  # the read is ordered now; what follows it is not
    assert found.startswith("writes 'y'[4], which work item (5) read")


def test_many_may_read_one_element_and_each_its_own():
    assert run("y[i] = i; y[i] += y[i] + x[0];", np.ones(1, np.int32), parameters=", __global const int *x").sum() == 64


def test_arguments_that_share_memory():
    shared = np.zeros(N, np.int32)
    source = """__kernel void f(__global const int *x, __global short *y, __constant int *z) {
      int i = get_global_id(0);
      y[i] = x[i / 2] + z[0];
    }"""
    function = kernel_named(compile_opencl(source, "k.cl"), "f")
    z = np.ones(1, np.int32)
    with pytest.raises(Fault, match=r"writes 'y'\[0\], which work item \(1\) read"):
        launch(function, [shared, shared.view(np.int16), z], N, 4, sanitize=True)
    launch(function, [shared[:4], shared.view(np.int16)[8:], z], N, 4, sanitize=True)
    with pytest.raises(Fault, match=r"writes 'y'\[0\], which work item \(7\) read: groups"):
        launch(function, [z.repeat(4), shared.view(np.int16), shared[:1]], N, 4, sanitize=True)


# --- local and private memory --------------------------------------------------------------------------------
def test_local_memory_needs_a_barrier():
    body = "__local int a[4]; a[l] = i; {} y[i] = a[3 - l];"
    assert "reads 'a'[3], which work item (3) wrote: there is no barrier in between, in work item (0)" in fault(
        body.format("")
    )
    assert run(body.format("barrier(1);")).tolist() == [3, 2, 1, 0, 7, 6, 5, 4]


def test_a_reduction_that_forgets_a_barrier():
    rounds = "for (int s = 2; s > 0; s /= 2) {{ if (l < s) a[l] += a[l + s]; {} }}"
    body = f"a[l] = i; barrier(1); {rounds} if (l == 0) y[g] = a[0];"
    assert run(body.format("barrier(1);"), 4, parameters=", __local int *a")[:2].tolist() == [6, 22]
    assert "there is no barrier" in fault(body.format(""), 4, parameters=", __local int *a")


@pytest.mark.parametrize(("array", "bad"), [("__local int a[5]", "4"), ("int a[4]", "3 - l")])
def test_memory_that_nothing_was_written_to(array, bad):
    body = f"{array}; a[l] = 1; barrier(1); if (i == 6) y[0] = a[{{}}];"
    assert run(body.format("l"))[0] == 1
    assert fault(body.format(bad)).endswith("which nothing was written to, in work item (6)")
