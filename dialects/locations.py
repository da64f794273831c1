"""Locations: the layers of the source model that an operation comes from."""

from __future__ import annotations

from xdsl.dialects.builtin import (
    UNKNOWN_LOC,
    ArrayAttr,
    FileLineColLoc,
    FusedLoc,
    LocationAttr,
    NameLoc,
    NoneAttr,
    UnknownLoc,
)
from xdsl.ir import Operation


def location_parts(location: LocationAttr) -> list[LocationAttr]:
    """The locations a fused location joins; nothing for an unknown one."""
    if isinstance(location, FusedLoc):
        assert isinstance(location.locations, ArrayAttr)
        return [part for inner in location.locations for part in location_parts(inner)]
    return [] if isinstance(location, UnknownLoc) else [location]


def fuse_locations(*locations: LocationAttr) -> LocationAttr:
    """One location for all, each part once, in order."""
    parts = list(dict.fromkeys(part for location in locations for part in location_parts(location)))
    if not parts:
        return UNKNOWN_LOC
    return parts[0] if len(parts) == 1 else FusedLoc(ArrayAttr(parts), NoneAttr())


def location_names(location: LocationAttr) -> list[str]:
    """The names in a location, in order: source layers, or lines of a file as `file:line`."""
    names = []
    for part in location_parts(location):
        if isinstance(part, NameLoc):
            names.append(part.desc.data)
        elif isinstance(part, FileLineColLoc):
            names.append(f"{part.filename.data}:{part.line.data}")
    return names


def layer_of(location: LocationAttr) -> str:
    """A layer's name: the names in a location, joined by +."""
    return "+".join(location_names(location))


def layer_name(op: Operation) -> str:
    """A layer for messages: `layer 'conv1+relu1'`, by the operation's name where its location holds none."""
    return f"layer '{layer_of(op.location) or op.name}'"
