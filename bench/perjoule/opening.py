"""Opens files that others wrote: regular files only, of limited size, and inside a folder never through a link.

Opening a pipe would wait for ever, a device may never end, and a link in a run directory may show a private file of the
reader in a report that the reader shares.
"""

from __future__ import annotations

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path
from typing import IO

from perjoule.errors import PerjouleError, RunError

# limits of files; what needs less has limits of its own
MOST_DOCUMENT_BYTES = 64 * 2**20  # JSON documents, suites and single lines of journals
MOST_TEXT_BYTES = 2 * 2**30  # journals, tables and prompt files
# 3 bytes of JSON can become a list of 64 bytes
_MOST_CONTAINERS = 5_000_000


def open_regular(path: Path, *, follow: bool = False, error: type[PerjouleError] = RunError) -> BufferedReader:
    """Open a regular file for reading.

    Args:
        path: The file.
        follow: Whether the file may be a symbolic link, e.g. because a user named it.
        error: Class of the error about a link, pipe, device or folder.

    Raises:
        PerjouleError: If it is not a regular file, or one of the kernel, e.g. in /proc; the class is `error`.
        OSError: If there is no such file, or it cannot be read.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    try:
        handle = os.open(path, flags)
    except OSError as fault:
        if fault.errno == errno.ELOOP and not follow:
            raise error(f"{path} is a symbolic link: replace it by the file itself") from None
        if fault.errno == errno.ENXIO:  # a socket
            raise error(f"{path} is not a regular file") from None
        raise
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise error(f"{path} is not a regular file")
    file = os.fdopen(handle, "rb")
    try:
        _require_known_size(file, path, error)
    except BaseException:
        file.close()
        raise
    return file


def _require_known_size(file: BufferedReader, path: Path, error: type[PerjouleError]) -> None:
    """Refuse what the kernel makes up, e.g. /proc/self/environ, which a message about bad content could show in a log.

    Such files have the size 0 and content. The size is read again, because a journal may just have been begun.
    """
    if os.fstat(file.fileno()).st_size == 0 and file.peek(1) and os.fstat(file.fileno()).st_size == 0:
        raise error(f"{path} is not a file on a disk: it has no size; give a copy of it")


def content_of(
    path: Path, most_bytes: int = MOST_DOCUMENT_BYTES, *, follow: bool = False, error: type[PerjouleError] = RunError
) -> bytes:
    """Return the content of a regular file.

    Raises:
        PerjouleError: If it is not a regular file, or has more than `most_bytes`; the class is `error`.
        OSError: If there is no such file, or it cannot be read.
    """
    with open_regular(path, follow=follow, error=error) as file:
        require_size(os.fstat(file.fileno()).st_size, most_bytes, path, error)
        content = file.read(most_bytes + 1)  # it may grow
    require_size(len(content), most_bytes, path, error)
    return content


def require_size(size: int, most_bytes: int, where: object, error: type[PerjouleError] = RunError) -> None:
    """Raise `error` if a size exceeds a limit; `where` names the file."""
    if size > most_bytes:
        raise error(
            f"{where} has {size / 2**20:,.0f} MiB, but perjoule reads at most {most_bytes / 2**20:,.0f} MiB of such a "
            "file: it is damaged, or not such a file"
        )


def require_few_containers(content: bytes | str) -> None:
    """Raise ValueError if JSON may contain so many lists and objects that it fills the memory."""
    marks = ("[", "{") if isinstance(content, str) else (b"[", b"{")
    if len(content) > _MOST_CONTAINERS and sum(map(content.count, marks)) > _MOST_CONTAINERS:  # type: ignore[arg-type]
        raise ValueError(f"more than {_MOST_CONTAINERS:,} lists and objects")


def open_inside(folder: Path, relative: str) -> IO[bytes]:
    """Open a file below `folder` for reading, without following links below `folder`.

    Args:
        folder: The folder; links on the way to it are followed.
        relative: Path relative to `folder`, as written in another file, e.g. `images/a.png`.

    Raises:
        RunError: If the path leaves the folder, or a part of it is a link or not a regular file.
        OSError: If there is no such file, or it cannot be read.
    """
    parts = relative.split("/")
    if relative.startswith("/") or "\0" in relative or {"", ".", ".."} & set(parts):
        raise RunError(f"{folder}: {relative!r} is not a file inside the folder")
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    place = folder
    try:
        for part in parts:
            place /= part
            kind = os.O_NONBLOCK if place == folder / relative else os.O_DIRECTORY
            inner = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | kind, dir_fd=handle)
            os.close(handle)
            handle = inner
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise RunError(f"{place} is not a regular file")
        return os.fdopen(handle, "rb")
    except OSError as error:
        os.close(handle)
        if place.is_symlink():
            raise RunError(f"{place} is a symbolic link: replace it by the file itself") from None
        raise OSError(error.errno, error.strerror, str(place)) from error
    except RunError:
        os.close(handle)
        raise


def require_no_links(folder: Path, below: Path | None = None) -> None:
    """Refuse a folder of a fixed name, e.g. `.perjoule/baselines`, if it or a folder above it is a symbolic link.

    A repository can contain links, so that what perjoule writes and deletes there would be elsewhere. Folders whose
    names no user gave are checked; what a user names may be a link.

    Args:
        folder: The folder, which need not exist.
        below: Where the check begins, the working directory by default; links on the way to it are followed, and a
            folder elsewhere is not checked.

    Raises:
        RunError: If a part is a link.
    """
    place = Path() if below is None else below
    try:
        parts = folder.absolute().relative_to(place.absolute()).parts
    except ValueError:
        return
    for part in parts:
        place /= part
        if place.is_symlink():
            raise RunError(f"{place} is a symbolic link: replace it by a folder")


def is_flat(value: object) -> bool:
    """Return whether a value of a table is a single value or a list of them.

    For anything else, polars searches for a type for minutes: eight times as long for lists twice as deep.
    """
    within = value if isinstance(value, list) else (value,)
    return not any(isinstance(one, list | dict) for one in within)
