"""`nacre export`: a model quantised by Nacre as an ONNX file that any ONNX runtime can run."""

from __future__ import annotations

import argparse
from pathlib import Path

from . import compile as compile_command
from . import output, screen

HELP = "write a quantised model as ONNX (QDQ)"
DESCRIPTION = """\
Quantise a model as `nacre compile` does and write the result as ONNX with QuantizeLinear and
DequantizeLinear, so that ONNX Runtime runs what the NPU computes.

  nacre export model.onnx --calibration samples/ -o model.qdq.onnx
  nacre export model.tflite -o model.qdq.onnx          # quantised already
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    compile_command.compile_options(parser)
    parser.add_argument(
        "-o", "--output", metavar="OUT.onnx", help="default: the model's name with .qdq.onnx, in this folder"
    )


def run(args: argparse.Namespace) -> None:
    """Quantise, write."""
    out = Path(args.output) if args.output else Path(f"{Path(args.model).stem}.qdq.onnx")
    output.check_writable(out, *compile_command.files_read(args))
    if args.dtype == "float32":
        raise output.mistake(
            "export writes a quantised model and needs an integer dtype: int8, uint8, int16 or int16x8"
        )
    settings = compile_command.compile_settings(args)
    from ..backends.compile import compile
    from ..frontends.onnx.export import export_onnx
    from ..runtime.flatfile import write_whole

    with screen.progress() as progress:
        program = compile(args.model, **settings, stop_after="qnn", progress=progress)
    proto = export_onnx(program.levels["qnn"], Path(args.model).stem)
    write_whole(out, proto.SerializeToString(deterministic=True))
    print(f"written: {out}")
