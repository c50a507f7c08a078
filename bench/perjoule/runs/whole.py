"""Creates a run directory whole or not at all, although writing it takes many files and minutes."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from perjoule.errors import RunError, UsageError
from perjoule.files import sync_folder
from perjoule.runs.lock import locked
from perjoule.runs.writer import require_vacant

REMEDY = "choose another directory with --out"


@contextmanager
def whole_or_nothing(out: Path) -> Iterator[Path]:
    """Create a folder next to `out` that is moved to `out` when it is complete, and removed if anything fails.

    If the process is killed, `out` does not exist, and the next process with the same `out` removes what was left.

    Raises:
        UsageError: If `out` is not empty or cannot be replaced, or another process creates it.
        OSError: The run cannot be written; the error names files below `out`.
        RunError: The run is damaged; the message names files below `out`.
    """
    require_vacant(out, REMEDY)
    target = out.resolve()
    if target.is_mount():
        raise UsageError(f"{out} is a mount point, which cannot be replaced: name a folder in it")
    nearest = next(folder for folder in target.parents if folder.is_dir())
    # a fixed name, so that what a killed process left is found; the run is inside, so that no list of runs shows it
    place = nearest / f".perjoule-new-{target.name}"
    folder = place / "run"
    try:
        if place.is_symlink() or (place.exists() and not place.is_dir()):
            raise UsageError(f"{place} is not a folder: remove it")
        place.mkdir(exist_ok=True)
        with locked(place, partial(_refusal, out)):
            require_vacant(out, REMEDY)  # another process may just have finished
            try:
                _empty(place)
                folder.mkdir()
                yield folder
                target.parent.mkdir(parents=True, exist_ok=True)
                folder.replace(target)
                sync_folder(target.parent)
            finally:
                shutil.rmtree(place, ignore_errors=True)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            require_vacant(out, REMEDY)
        raise _of(out, place, folder, error) from error
    except RunError as error:
        if str(folder) in str(error):
            raise type(error)(str(error).replace(str(folder), str(out))) from error
        raise


def _refusal(out: Path, holder: str, _: bool) -> UsageError:
    return UsageError(f"{out} is being created by {holder}: wait for it, or {REMEDY}")


def _of(out: Path, place: Path, folder: Path, error: OSError) -> OSError:
    """Return the error with the name that a file of the temporary folder will have; others keep their name."""
    name = error.filename
    if name is None or Path(name) == place:
        return OSError(error.errno, error.strerror, str(out))
    if Path(name).is_relative_to(folder):
        return OSError(error.errno, error.strerror, str(out / Path(name).relative_to(folder)))
    return error


def _empty(place: Path) -> None:
    """Delete the content of a folder, without following links."""
    for entry in place.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
