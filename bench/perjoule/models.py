"""From the name of a model to where it lies: `builtin:NAME`, a folder, or a hub id."""

from __future__ import annotations

from pathlib import Path

from perjoule import registry
from perjoule.errors import UsageError

_BUILTIN = "builtin:"


def resolve_model(name: str, where: str) -> str:
    """The folder or hub id that a model's name stands for.

    Args:
        name: `builtin:NAME` (entry point group `perjoule.models`, each a callable without arguments that returns
            a folder), a folder, or a hub id such as `openai/clip-vit-base-patch32`.
        where: File and key that named it, for the message.

    Returns:
        A folder's path, or the hub id unchanged; nothing is downloaded.

    Raises:
        UnknownNameError: If no package offers a builtin of that name.
        UsageError: If the name is written like a path and there is no such folder.
    """
    if name.startswith(_BUILTIN):
        folder = registry.load("models", name.removeprefix(_BUILTIN), kind="builtin model", where=where)()
        return str(folder)
    path = Path(name).expanduser()
    if name and path.is_dir():  # the empty path would be the working directory
        return str(path)
    # a mistyped path would be sent to the hub, and the answer would be about a missing repository
    if name.startswith((".", "/", "~")) or not name:
        raise UsageError(f"{where}: model {name!r}: no such folder; give a folder, a hub id or {_BUILTIN}NAME")
    return name
