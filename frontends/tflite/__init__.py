"""The TFLite front end: `import_tflite` makes a module of a `.tflite` file, `tflite_importer` registers an
operator.
"""

from .importer import import_tflite
from .node import Node
from .registry import Unsupported, tflite_importer

__all__ = ["Node", "Unsupported", "import_tflite", "tflite_importer"]
