"""Resolves names of models: `builtin:NAME`, a folder, or a hub id."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from perjoule import registry
from perjoule.errors import UnknownNameError, UsageError
from perjoule.files import at_home, exists

_BUILTIN = "builtin:"
# folder to search for relative names before the working directory; the last entry is used
_FOLDERS: list[Path] = []


@contextmanager
def relative_to(folder: Path) -> Iterator[None]:
    """Search for relative model names in `folder` first, e.g. a suite's own folder, then in the working directory."""
    _FOLDERS.append(folder)
    try:
        yield
    finally:
        _FOLDERS.pop()


def find_path(name: str) -> Path | None:
    """Return the folder or file of a name; None if there is none, e.g. for a builtin or a hub id."""
    if not name or name.startswith(_BUILTIN):
        return None  # the empty path would be the working directory
    path = at_home(name)
    places = [folder / path for folder in _FOLDERS[-1:]] + [path]
    return next((place for place in places if exists(place)), None)


def resolve_model(name: str, where: str) -> str:
    """Return the folder or hub id of a model's name.

    Args:
        name: `builtin:NAME`, a folder, or a hub id such as `openai/clip-vit-base-patch32`.
        where: File and key that named it, for the message.

    Returns:
        A folder's path, or the hub id unchanged, without a download.

    Raises:
        UnknownNameError: If no package provides a builtin of that name.
        UsageError: If the name looks like a path and there is no such folder.

    A relative path is searched for in the suite file's folder first (`relative_to`), then in the working directory.
    """
    if name.startswith(_BUILTIN):
        return str(_builtin_folder(name.removeprefix(_BUILTIN), where))
    path = find_path(name)
    if path is not None and path.is_dir():
        return str(path)
    # a mistyped path would be sent to the hub, whose error would be about a missing repository
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or not name:
        path = at_home(name)
        folders = dict.fromkeys(str(f.absolute()) for f in (*_FOLDERS[-1:], Path()))
        places = f" in {' or in '.join(folders)}" if name and not path.is_absolute() else ""
        raise UsageError(f"{where}: model {name!r}: no such folder{places}; give a folder, a hub id or {_BUILTIN}NAME")
    return name


def _builtin_folder(name: str, where: str) -> Path:
    """Return the folder of a builtin from a table (`perjoule.model_folders`) or its own entry (`perjoule.models`)."""
    folders = registry.merged_files("model_folders")
    if name in folders:
        return Path(folders[name])
    single = registry.registered("models")
    if name not in single:
        raise UnknownNameError("builtin model", name, [*folders, *single], where)
    return Path(single[name].load()())
