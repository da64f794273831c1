"""Files that subcommands write: checked before the work begins, and written whole or not at all."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..dialects.store import is_stream
from ..errors import NacreError


def mistake(message: str) -> NacreError:
    """A user's mistake on the command line."""
    return NacreError(message)


def check_writable(path: Path, *inputs: str | Path | None) -> None:
    """Raise NacreError, before minutes of work, when a file could not be written or is one of the inputs."""
    for file in inputs:
        if file is not None and same_file(path, Path(file)):
            raise NacreError(f"'{path}' is what is read here and would be overwritten: name another output")
    if path.is_dir():
        raise NacreError(f"'{path}' is a folder: name a file to write")
    if is_stream(path):
        if not os.access(path, os.W_OK):
            raise NacreError(f"'{path}' cannot be written: permission denied")
        return
    folder = Path(os.path.realpath(path)).parent if path.is_symlink() else path.parent
    if not folder.is_dir():
        raise NacreError(f"'{path}' cannot be written: there is no folder '{folder}'")
    if not os.access(folder, os.W_OK):
        raise NacreError(f"'{path}' cannot be written: the folder '{folder}' is read-only")


def same_file(one: Path, other: Path) -> bool:
    """Whether two names stand for one regular file, whichever links lead there."""
    return one.is_file() and other.is_file() and one.samefile(other)


def check_text_writable(path: Path, *inputs: str | Path | None) -> None:
    """The same for text and the constants that are written beside it."""
    check_writable(path, *inputs)
    if not is_stream(path):
        check_writable(path.with_suffix(".safetensors"), *inputs)


def with_constants(text: str) -> list[Path]:
    """The files that a text is read from: itself and the constants beside it."""
    path = Path(text)
    return [path, path.with_suffix(".safetensors")] if path.suffix in (".mlir", ".s") else [path]


def write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays by name: the format of numpy.savez, which cannot write the names 'file' and 'args'."""
    from ..runtime.flatfile import write_whole

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in arrays.items():
            entry = io.BytesIO()
            np.lib.format.write_array(entry, np.asarray(array), allow_pickle=False)
            # ZipInfo's date is fixed, so the same arrays give the same bytes.
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), entry.getvalue())
    write_whole(path, buffer.getvalue())
