"""Operators of outside packages: what the entry point group `nacre.operators` names is imported, once.

Such a module registers importer, kernel, quantisation rule and tile rule as Nacre's own files do:

    [project.entry-points."nacre.operators"]
    mine = "my_package.operators"
"""

from __future__ import annotations

import functools
from importlib.metadata import entry_points

from .errors import NacreError


@functools.cache
def load_operators() -> tuple[str, ...]:
    """Import every registered package; gives their names. Raises NacreError naming one that does not import."""
    names = []
    for entry in sorted(entry_points(group="nacre.operators"), key=lambda e: e.name):
        try:
            entry.load()
        except Exception as error:  # whatever it is, it is somebody else's bug, and the user has to know whose
            raise NacreError(f"the operators '{entry.name}' ({entry.value}) do not load: {error}") from error
        names.append(entry.name)
    return tuple(names)
