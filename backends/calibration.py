"""Calibration data in the forms people have it: files, folders, iterables, ONNX Runtime's reader."""

from __future__ import annotations

import os
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..runtime.interpreter import check_feeds

Expected = Mapping[str, tuple[tuple[int, ...], np.dtype]]
Say = Callable[[str], None]
IMAGES = {".png", ".jpg", ".jpeg", ".bmp", ".webp"}


def calibration_batches(
    source: Any,
    expected: Expected,
    what: str = "calibration sample",
    say: Say = lambda text: print(f"nacre: {text}", file=sys.stderr),
) -> Iterator[dict[str, np.ndarray]]:
    """Named inputs, one set a sample, checked against what the model expects.

    source: a folder of .npy/.npz files, an .npz or .npy file, an iterable of {name: array}, or an object with
    ONNX Runtime's `get_next()`. An array with one axis more than the input holds that many samples. `what`
    names a sample in messages; `say` is called with notes. Raises InputError with the
    sample's number, or for an empty source.
    """
    count = 0
    for sample in _samples(source, expected, say):
        yield _checked(sample, expected, f"{what} {count}")
        count += 1
    if not count:
        raise InputError(f"there is no {what}: give a few representative inputs")


def _samples(source: Any, expected: Expected, say: Say) -> Iterator[Mapping[str, np.ndarray]]:
    if isinstance(source, (str, os.PathLike)):
        yield from _from_path(Path(source), expected, say)
    elif callable(getattr(source, "get_next", None)):
        while (sample := source.get_next()) is not None:
            yield sample
    elif isinstance(source, Mapping):
        yield from _unstacked(source, expected)
    elif isinstance(source, Iterable):
        for sample in source:
            if not isinstance(sample, Mapping):
                raise InputError(
                    f"a calibration sample is a dictionary of inputs, not a {type(sample).__name__}"
                )
            yield sample
    else:
        raise InputError(f"calibration data cannot be read from a {type(source).__name__}")


def _from_path(path: Path, expected: Expected, say: Say) -> Iterator[Mapping[str, np.ndarray]]:
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.suffix in (".npy", ".npz"))
        if not files:
            images = any(p.suffix.lower() in IMAGES for p in path.iterdir())
            what = "images, which need to be turned into arrays first" if images else "nothing"
            raise InputError(f"the calibration folder '{path}' holds no .npy or .npz file ({what})")
        for file in files:
            yield from _from_path(file, expected, say)
        return
    loaded = read_arrays(path, "the calibration file ")
    if isinstance(loaded, np.ndarray):
        if len(expected) != 1:
            raise InputError(
                f"'{path}' holds one array, but the model has the inputs {', '.join(expected)}: use .npz"
            )
        yield from _unstacked({next(iter(expected)): loaded}, expected)
    else:
        if len(expected) == 1 and len(loaded) == 1 and set(loaded) != set(expected):
            (name,), (found,) = expected, loaded
            say(f"'{path}' holds no '{name}': its one array '{found}' is taken for it")
            loaded = {name: loaded[found]}
        yield from _unstacked(loaded, expected)


def read_arrays(path: str | os.PathLike[str], label: str = "") -> np.ndarray | dict[str, np.ndarray]:
    """The array of an .npy file, or those of an .npz file by name. Raises InputError in a sentence."""
    member = ""
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        arrays = {}
        with loaded:
            for name in loaded.files:
                member = f" in '{name}'"
                arrays[name] = loaded[name]
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(f"{label}'{path}' cannot be read: {reason}") from None
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        if "Object arrays" in str(error):
            reason = f"holds Python objects{member}: save arrays of numbers"
        elif member:
            reason = f"is damaged{member}: save it again"
        else:
            reason = "is no .npy or .npz file: write it with numpy.save or numpy.savez"
        raise InputError(f"{label}'{path}' {reason}") from None
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise InputError(f"{label}'{path}' holds '{name}', which is no array: use numpy.savez")
    return arrays


def _unstacked(arrays: Mapping[str, np.ndarray], expected: Expected) -> Iterator[dict[str, np.ndarray]]:
    """One sample, or as many as the arrays have in front of the input's own axes."""
    counts: set[int | None] = set()
    for name, array in arrays.items():
        if name in expected:
            shape = expected[name][0]
            if array.shape == shape:
                counts.add(None)
            elif array.shape[1:] == shape or (shape[:1] == (1,) and array.shape[1:] == shape[1:]):
                counts.add(len(array))
            else:
                counts.add(None)  # the check that follows says what does not fit
    if counts == {None} or not counts:
        yield dict(arrays)
        return
    if len(counts) != 1:
        raise InputError("the calibration arrays hold different numbers of samples")
    for index in range(counts.pop()):  # type: ignore[arg-type]
        yield {n: a[index].reshape(expected[n][0]) if n in expected else a for n, a in arrays.items()}


def _checked(sample: Mapping[str, Any], expected: Expected, label: str) -> dict[str, np.ndarray]:
    try:
        check_feeds(expected, sample)
    except InputError as error:
        raise InputError(f"{label}: {error}") from None
    return {name: np.asarray(sample[name]) for name in expected}
