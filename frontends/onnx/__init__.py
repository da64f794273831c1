"""The ONNX front end: `import_onnx` makes a module of the graph dialect, `importer` registers an operator.

`export.export_onnx` is the way back, imported where it is used.
"""

from .importer import import_onnx
from .node import Node
from .registry import Unsupported, importer, refuse

__all__ = ["Node", "Unsupported", "import_onnx", "importer", "refuse"]
