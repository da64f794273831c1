"""What a user can do wrong, as exceptions: each is one sentence that names the layer, what was found and what
would work.

The command line prints these without a traceback and exits with 1; any other exception is a bug in Nacre.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class NacreError(Exception):
    """A user's mistake, or a limit of Nacre, told in a sentence."""


class ImportFailed(NacreError):
    """A model file could not be read or holds what Nacre cannot import."""


class OpenShapes(ImportFailed):
    """Inputs of a model have open sizes, and nobody says what they are."""

    def __init__(self, message: str, names: list[str]):
        super().__init__(message)
        self.names = names


class CompileError(NacreError):
    """A model cannot be compiled for the target as asked."""


class MachineError(NacreError):
    """A machine description is wrong, or the machine is too small for a layer."""


class FileFormatError(NacreError):
    """A `.nacre` file is damaged, truncated or of another version."""


class InputError(NacreError):
    """The arrays given to a program do not fit its inputs."""


class Fault(NacreError):
    """The emulated machine stopped: a sanitizer or a bounds check found something wrong in the program."""


def did_you_mean(name: str, known: Iterable[str], cutoff: float = 0.6, most: int = 1) -> str:
    """`did you mean 'x'?` of the names that look alike (difflib's ratio), or nothing."""
    close = difflib.get_close_matches(name, list(known), most, cutoff)
    return f"did you mean {' or '.join(map(repr, close))}?" if close else ""
