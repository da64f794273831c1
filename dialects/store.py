"""Where constants live: arrays by content hash, in memory or memory-mapped from a safetensors file.

The module names its store (`nacre.store = #nacre.store<"x.safetensors">`); a constant in the text refers to
it by name and hash. Arrays added to a store that lies on disk are written there at once, one file each in
`x.safetensors.d/`, since `xdsl-opt` prints its text and exits.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ..errors import NacreError


def digest_of(array: np.ndarray) -> str:
    """128 bits of SHA-256 over dtype, shape and bytes: the identity of a constant."""
    head = f"{array.dtype.str}{array.shape}".encode()
    return hashlib.sha256(head + np.ascontiguousarray(array).tobytes()).hexdigest()[:32]


class Store:
    """Arrays by content hash. `path` is the safetensors file behind it, None while it lives in memory
    only.
    """

    def __init__(self, path: Path | None = None):
        self.path = path
        self._arrays: dict[str, np.ndarray] = {}
        self._index: dict[str, Path] | None = None

    def put(self, array: np.ndarray) -> str:
        """Keep an array and give its hash; the array becomes read-only."""
        array = np.ascontiguousarray(array).reshape(np.shape(array))
        digest = digest_of(array)
        if digest not in self._arrays:
            array.setflags(write=False)
            self._arrays[digest] = array
            if self.path is not None and digest not in self._files():
                added = self._added_folder()
                added.mkdir(exist_ok=True)
                write_arrays(added / f"{digest}.safetensors", {digest: array})
        return digest

    def adopt(self, digest: str, array: np.ndarray) -> None:
        """Keep an array whose hash is known, without reading it (a mapped file's)."""
        self._arrays[digest] = array

    def get(self, digest: str) -> np.ndarray:
        """The array of a hash. Raises NacreError naming the store when it is not there."""
        if (array := self._arrays.get(digest)) is not None:
            return array
        file = self._files().get(digest)
        if file is None:
            where = f"'{self.path}'" if self.path else "the module's store, which was never saved to a file"
            raise NacreError(
                f"constant {digest[:12]}… is not in {where}; keep the .safetensors file beside its .mlir text"
            )
        with safe_open(file, framework="numpy") as f:  # mapped: pages are read when they are touched
            array = f.get_tensor(digest)
        array.setflags(write=False)
        self._arrays[digest] = array
        return array

    def save(self, path: Path, digests: Iterable[str]) -> None:
        """Write the named arrays to a safetensors file, whole or not at all."""
        write_arrays(path, {digest: self.get(digest) for digest in sorted(set(digests))})

    def _added_folder(self) -> Path:
        assert self.path is not None
        return self.path.with_name(self.path.name + ".d")

    def _files(self) -> dict[str, Path]:
        if self.path is None:
            return {}
        if self._index is None:
            self._index = {}
            added = self._added_folder()
            files = [self.path, *sorted(added.glob("*.safetensors"))] if added.is_dir() else [self.path]
            for file in files:
                if not file.exists():
                    continue
                try:
                    with safe_open(file, framework="numpy") as f:
                        self._index |= dict.fromkeys(f.keys(), file)
                except SafetensorError as error:
                    raise NacreError(f"'{file}' is not a readable safetensors file: {error}") from None
        return self._index


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write a safetensors file, whole or not at all."""
    with whole(path) as temporary:
        save_file(arrays, temporary)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all."""
    with whole(path) as temporary:
        temporary.write_bytes(content)


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A temporary file that takes the place of `path` when nothing went wrong.

    A link stays one, and its target is written. What is there and is no regular file (a terminal, a pipe) has
    no place to take: the content goes into it. Raises NacreError for what cannot be written.
    """
    if path.is_dir():
        raise NacreError(f"'{path}' is a folder: name a file to write")
    stream = is_stream(path)
    target = path if stream else Path(os.path.realpath(path))
    try:
        handle, name = tempfile.mkstemp(dir=None if stream else target.parent, prefix=f".{target.name}.")
    except OSError as error:
        raise NacreError(f"'{path}' cannot be written: {error.strerror}") from None
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        if stream:
            with target.open("wb") as pipe:
                pipe.write(temporary.read_bytes())
            temporary.unlink()
        else:
            temporary.chmod(0o666 & ~_umask())  # mkstemp's files are their owner's alone
            temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def is_stream(path: Path) -> bool:
    """Whether something is there that is neither a file nor a folder: a terminal, a pipe, a device."""
    return path.exists() and not path.is_file() and not path.is_dir()


def _umask() -> int:
    """The permissions that new files of this process do not get; it can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
