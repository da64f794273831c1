"""A simulated run as Chrome trace JSON, for Perfetto (ui.perfetto.dev) or chrome://tracing: one row a queue.

Format: "Trace Event Format", complete events (`ph: X`) with times in microseconds of the machine's clock.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..dialects.npu import Queue
from .timing import Timing


def write_trace(timing: Timing, path: str | Path) -> None:
    """Write the trace of a simulation."""
    document = {"displayTimeUnit": "ns", "traceEvents": list(trace_events(timing))}
    Path(path).write_text(json.dumps(document), encoding="utf-8")


def trace_events(timing: Timing) -> Iterator[dict[str, Any]]:
    """The rows' names, then an event a command, named by layer and instruction."""
    program = timing.program
    yield {"ph": "M", "pid": 0, "name": "process_name", "args": {"name": program.machine.name}}
    for queue in Queue:
        row = {"ph": "M", "pid": 0, "tid": int(queue)}
        yield row | {"name": "thread_name", "args": {"name": queue.name}}
        yield row | {"name": "thread_sort_index", "args": {"sort_index": int(queue)}}
    microseconds = 1e6 / program.machine.clock_hz
    for index, command in enumerate(program.commands):
        layer, instruction = program.layer_of(index), command.cls.name.removeprefix("npu.")
        start, end = float(timing.start[index]), float(timing.end[index])
        yield {
            "ph": "X", "pid": 0, "tid": int(command.queue), "cat": instruction,
            "name": f"{layer} {instruction}".strip(), "ts": start * microseconds,
            "dur": (end - start) * microseconds,
            "args": {
                "command": index, "layer": layer, "start": start, "cycles": end - start,
                "waits": {Queue(q).name: n for q, n in enumerate(command.waits) if n},
                "regions": {port: [str(r) for r in regions] for port, regions in command.regions.items()},
            },
        }  # fmt: skip
