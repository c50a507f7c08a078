"""SHA-256 of weights, so that two scores or two joules can be known to come from the same network.

A digest can be checked without perjoule: `cd FOLDER && sha256sum *.safetensors | sha256sum`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path

from perjoule.errors import UsageError


def digest_files(paths: Iterable[Path]) -> str:
    """One digest over several files; their order does not matter, their names do.

    It is the SHA-256 of what `sha256sum` prints for the files, sorted by name.

    Args:
        paths: Files with distinct names.

    Returns:
        64 hex digits.
    """
    return _digest((path.name, path) for path in paths)


def digest_folder(folder: Path, patterns: Sequence[str]) -> str:
    """One digest over the files of a folder that match any of the glob patterns, by their relative names.

    Returns:
        64 hex digits.

    Raises:
        UsageError: If nothing matches: a folder without weights has no digest.
    """
    files = {path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}
    if not files:
        raise UsageError(f"{folder}: no weights: nothing here matches {' or '.join(patterns)}")
    return _digest((path.relative_to(folder).as_posix(), path) for path in files)


def digest_named(files: Mapping[str, Path]) -> str:
    """One digest over files under names of your choice. -> 64 hex digits."""
    return _digest(files.items())


def digest_file(path: Path) -> str:
    """SHA-256 of one file's content; a file that did not change is read once. -> 64 hex digits."""
    # a hub cache holds links whose target changes with the revision, so the target is what is remembered
    target = path.resolve()
    state = target.stat()
    return _read_digest(target, state.st_size, state.st_mtime_ns)


def _digest(named: Iterable[tuple[str, Path]]) -> str:
    listing = "".join(f"{digest_file(path)}  {name}\n" for name, path in sorted(named))
    return hashlib.sha256(listing.encode()).hexdigest()


@cache
def _read_digest(path: Path, size: int, mtime_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
