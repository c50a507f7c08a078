"""SHA-256 of weights, to check whether two results come from the same network.

A digest can be checked without perjoule: `cd FOLDER && sha256sum *.safetensors | sha256sum`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path

from perjoule.errors import UsageError
from perjoule.opening import open_regular


def digest_files(paths: Iterable[Path]) -> str:
    """Return a digest of several files, which depends on their names but not on their order.

    It is the SHA-256 of the output of `sha256sum` for the files, sorted by name.

    Args:
        paths: Files with distinct names.

    Returns:
        64 hex digits.
    """
    return _digest((path.name, path) for path in paths)


def digest_folder(folder: Path, patterns: Sequence[str]) -> str:
    """Return a digest of the files of a folder that match any of the glob patterns, by their relative names.

    Returns:
        64 hex digits.

    Raises:
        UsageError: If no file matches.
    """
    files = {path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}
    if not files:
        raise UsageError(f"{folder}: no weights: no file matches {' or '.join(patterns)}")
    return _digest((path.relative_to(folder).as_posix(), path) for path in files)


def digest_named(files: Mapping[str, Path]) -> str:
    """Return a digest of files under the given names: 64 hex digits."""
    return _digest(files.items())


def digest_file(path: Path) -> str:
    """Return the SHA-256 of a file's content as 64 hex digits; an unchanged file is read only once."""
    # a hub cache contains links whose targets change with the revision, so the target is the key
    target = path.resolve()
    state = target.stat()
    return _read_digest(target, state.st_size, state.st_mtime_ns)


def _digest(named: Iterable[tuple[str, Path]]) -> str:
    listing = "".join(f"{digest_file(path)}  {name}\n" for name, path in sorted(named))
    return hashlib.sha256(listing.encode()).hexdigest()


@cache
def _read_digest(path: Path, size: int, mtime_ns: int) -> str:
    with open_regular(path, follow=True, error=UsageError) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
