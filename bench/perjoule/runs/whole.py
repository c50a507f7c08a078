"""Creates a run directory whole or not at all, although writing it takes many files and minutes.

The files are written in a folder of a fixed name, so that the next process finds what a killed one left:

    out does not exist         .perjoule-new-OUT/run, next to it, which becomes `out`
    out is an empty folder     out/.perjoule-new/run, whose entries are moved to `out`: it may be a mount point, the
                               working directory of a process, or in a folder without permission to write
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from perjoule.errors import RunError, UsageError
from perjoule.files import read_json, sync_folder, write_json
from perjoule.runs.directory import STARTING
from perjoule.runs.lock import locked
from perjoule.runs.writer import require_vacant

REMEDY = "choose another directory with --out"
_INSIDE = ".perjoule-new"
# the run is inside, so that no list of runs shows it
_RUN = "run"
# names of the entries that are being moved to `out`
_MOVING = "moving.json"
_MARK = "environment.json"


def require_creatable(out: Path) -> None:
    """Raise UsageError if `out` contains anything but what a killed process left that was creating it."""
    if os.path.lexists(out / _INSIDE):
        _require_own(out / _INSIDE)
    _require_free(out)


def _require_free(out: Path) -> None:
    place = out / _INSIDE
    if not os.path.lexists(place):
        require_vacant(out, REMEDY)
        return
    left = _moved(place, out)
    if _MARK in left or any(entry.name not in left for entry in out.iterdir() if entry != place):
        raise UsageError(f"{out} exists already: {REMEDY}")


@contextmanager
def whole_or_nothing(out: Path) -> Iterator[Path]:
    """Create a folder whose content becomes that of `out` when it is complete, and is removed if anything fails.

    If the process is killed, `out` does not exist or has no environment.json, and the next process with the same `out`
    removes what was left.

    Raises:
        UsageError: If `out` is not empty, another process creates it, or the folder of the fixed name contains anything
            else, belongs to another user or is open to others.
        OSError: The run cannot be written; the error names files below `out`.
        RunError: The run is damaged; the message names files below `out`.
    """
    require_creatable(out)
    target = out.resolve()
    is_inside = target.is_dir()
    nearest = next(folder for folder in (target, *target.parents) if folder.is_dir())
    place = nearest / (_INSIDE if is_inside else f"{_INSIDE}-{target.name}")
    folder = place / _RUN
    try:
        with _claimed(place, out):
            folder.mkdir()
            yield folder
            _require_free(out)
            if is_inside:
                _move_entries(folder, target)
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                folder.replace(target)
                sync_folder(target.parent)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            _require_free(out)
        raise _of(out, place, folder, error) from error
    except RunError as error:
        if str(folder) in str(error):
            raise type(error)(str(error).replace(str(folder), str(out))) from error
        raise


@contextmanager
def _claimed(place: Path, out: Path) -> Iterator[None]:
    """Make a folder that no other process or user writes, empty it, and remove it at the end."""
    try:
        place.mkdir(mode=0o700)
    except FileExistsError:  # one that was just made is not checked: some file systems have no modes
        _require_own(place)
    with locked(place, partial(_refusal, out)):
        try:
            _require_free(out)  # another process may just have finished
            _require_known(place)
            _clear(place, out)
            try:
                yield
            except BaseException:
                with suppress(OSError):
                    _clear(place, out)
                raise
            shutil.rmtree(place, ignore_errors=True)
        finally:
            with suppress(OSError):
                place.rmdir()


def _require_own(place: Path) -> None:
    """Raise UsageError if others could exchange the content of a folder: the name is easily guessed, e.g. in /tmp."""
    status = place.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise UsageError(f"{place} is not a folder: remove it")
    if status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise UsageError(f"{place} belongs to another user or is open to others: remove it, or {REMEDY}")


def _require_known(place: Path) -> None:
    """Raise UsageError if a folder contains anything that is not made here, which is not to be deleted."""
    for entry in place.iterdir():
        mode = entry.lstat().st_mode
        is_file = stat.S_ISREG(mode) and (entry.name == _MOVING or entry.match(".perjoule-*.tmp"))
        if not is_file and not (stat.S_ISDIR(mode) and entry.name == _RUN):
            raise UsageError(f"{place} is for temporary files, but contains {entry.name}: move it to another folder")


def _move_entries(folder: Path, target: Path) -> None:
    """Move the entries of a folder: first the file that keeps the others from being a run, last what makes them one."""
    (folder / STARTING).touch()
    names = sorted((entry.name for entry in folder.iterdir()), key=lambda name: (name == _MARK, name != STARTING))
    write_json(folder.parent / _MOVING, names)
    for name in names:
        if name == _MARK:
            sync_folder(target)
        (folder / name).rename(target / name)
    sync_folder(target)
    (target / STARTING).unlink()


def _moved(place: Path, out: Path) -> list[str]:
    """Return the names of the entries that were moved to `out`, the last first."""
    names: list[str] = []
    with suppress(OSError, RunError):
        names = read_json(place / _MOVING)
    there = {entry.name for entry in out.iterdir()} if out.is_dir() else set()
    return [name for name in reversed(names) if name in there and not os.path.lexists(place / _RUN / name)]


def _clear(place: Path, out: Path) -> None:
    """Delete what was moved to `out`, and the content of the temporary folder, without following links."""
    for entry in [*(out / name for name in _moved(place, out)), *place.iterdir()]:
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


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
