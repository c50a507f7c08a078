"""Entry points, through which perjoule finds plugins of other packages without importing them by name."""

from __future__ import annotations

import sys
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from perjoule.errors import UnknownNameError


def registered(group: str) -> dict[str, EntryPoint]:
    """Return all entry points of `perjoule.<group>`, by name."""
    return {point.name: point for point in _installed(tuple(sys.path)).select(group=f"perjoule.{group}")}


@cache
def _installed(path: tuple[str, ...]) -> Any:  # Python 3.11 and 3.12 have different types for it
    """Return the entry points of all packages on a search path; finding them takes tens of milliseconds."""
    return entry_points()


def load(group: str, name: str, *, kind: str, where: str = "") -> Any:
    """Load the object of one entry point.

    Raises:
        UnknownNameError: If `name` is not registered; the message names the nearest spellings.
    """
    points = registered(group)
    if name not in points:
        raise UnknownNameError(kind, name, points, where)
    return points[name].load()


def merged_files(group: str) -> dict[str, Any]:
    """Return the union of the `name -> file` tables that the entry points of a group return."""
    files: dict[str, Any] = {}
    for point in registered(group).values():
        files |= point.load()()
    return files
