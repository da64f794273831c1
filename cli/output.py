"""Files that subcommands write: checked before the work begins, and written whole or not at all."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..errors import NacreError


def mistake(message: str) -> NacreError:
    """A user's mistake on the command line."""
    return NacreError(message)


def check_writable(path: Path) -> None:
    """Raise NacreError, before minutes of work, when a file could not be written."""
    if path.is_dir():
        raise NacreError(f"'{path}' is a folder: name a file to write")
    if not path.parent.is_dir():
        raise NacreError(f"'{path}' cannot be written: there is no folder '{path.parent}'")
    if not os.access(path.parent, os.W_OK):
        raise NacreError(f"'{path}' cannot be written: the folder '{path.parent}' is read-only")


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
