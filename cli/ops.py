"""`nacre ops`: what is imported, computed, quantised and run where, read off the registries."""

from __future__ import annotations

import argparse
from typing import Any

from . import screen

HELP = "list operators: what imports, quantises and runs where"
DESCRIPTION = """\
List the ONNX operators that are imported, and the operations of the graph and qnn levels.

  nacre ops
  nacre ops --json | jq '.onnx[] | select(.status == "refused")'
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("--json", action="store_true", help="print as JSON")


def run(args: argparse.Namespace) -> None:
    """Read the registries and show them."""
    found = {"onnx": onnx_operators(), "operations": operations()}
    if args.json:
        screen.show_json(found)
        return
    rows = [(o["operator"], o["since"], o["status"], o["reason"]) for o in found["onnx"]]
    screen.show_table("ONNX operators", ("operator", "opset", "status", "reason"), rows, text=4)
    print()
    columns = ("operation", "kernel", "quantised", "npu", "what it is")
    rows = [(o["name"], o["kernel"], o["quantised"], o["npu"], o["about"]) for o in found["operations"]]  # type: ignore[misc]
    screen.show_table("Operations", columns, rows, text=5)
    print(
        "\nquantised: what the operation's rule does about types.\n"
        "npu: selected = by a rule of its own; kernel = as a kernel of the\n"
        "     programmable engine; - = not yet."
    )


def onnx_operators() -> list[dict[str, Any]]:
    """Every registered operator, and those that ONNX defines by others."""
    from onnx import defs

    from ..frontends.onnx import import_onnx  # noqa: F401  registers all importers
    from ..frontends.onnx.registry import IMPORTERS, REFUSED

    rows = []
    for (domain, name), versions in sorted(IMPORTERS.items()):
        reason = REFUSED.get((domain, name))
        status = "refused" if reason else "imported"
        rows.append(_row(domain, name, ", ".join(map(str, sorted(versions))), status, reason or ""))
    latest = {(s.domain, s.name): s for s in defs.get_all_schemas() if s.domain in ("", "ai.onnx")}
    for (_, name), schema in sorted(latest.items()):
        composite = schema.has_function or schema.has_context_dependent_function  # type: ignore[attr-defined]
        if composite and ("", name) not in IMPORTERS:
            since = str(schema.since_version)
            rows.append(_row("", name, since, "by definition", "ONNX defines it by other operators"))
    return rows


def _row(domain: str, name: str, since: str, status: str, reason: str) -> dict[str, Any]:
    full = f"{domain}::{name}" if domain else name
    return {"operator": full, "since": since, "status": status, "reason": reason}


def operations() -> list[dict[str, Any]]:
    """The operations of graph and qnn with what is registered for each."""
    from ..backends.npu import FAMILY
    from ..backends.npu.select import SELECTIONS
    from ..dialects import graph, qnn
    from ..passes.npu.launch_tile_rules import launch_rule
    from ..passes.quantise import quantise  # noqa: F401  fills the rules
    from ..passes.quantise.rules import RULES
    from ..runtime import interpreter  # noqa: F401  registers the kernels
    from ..runtime.kernel import KERNELS

    assert FAMILY is not None
    rows = []
    for op in (*graph.OPS, *qnn.OPS):
        rule = next((RULES[base].kind.name.lower() for base in op.__mro__ if base in RULES), "stays float")
        runs = "selected" if op in SELECTIONS else "kernel" if launch_rule(op.name) else None
        about = (op.__doc__ or "").strip().splitlines()
        rows.append(
            {
                "name": op.name, "kernel": op in KERNELS or op is graph.ConstantOp,
                "quantised": "is integer" if op in qnn.OPS else rule, "npu": runs,
                "about": about[0] if about else "",
            }
        )  # fmt: skip
    return rows
