"""Reading and writing files: writes are atomic, links are not followed, errors name the damaged line."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from perjoule.errors import PerjouleError, RunError, UsageError
from perjoule.opening import (
    MOST_DOCUMENT_BYTES,
    content_of,
    open_regular,
    require_few_containers,
    require_size,
)
from perjoule.parquet import read_frame

if TYPE_CHECKING:
    import polars as pl

# users may name these as an output, e.g. --junit /dev/stdout; renaming a file over them would replace the device
_STREAM_FOLDERS = (Path("/dev"), Path("/dev/fd"), Path("/proc/self/fd"))
# columns that identify a row; a table without them cannot be used
_NAMING = {"trial_id", "image_id", "cell_id", "variant", "prompt_id", "prompt_ids", "seed", "seeds", "metric"}
# optional in imported tables: the seeds of images, and a metric if the table contains only joules
_MAY_BE_EMPTY = {"seed", "metric"}
_SHOWN = 60  # characters of a foreign text in a message
_FRESH = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def at_home(name: str) -> Path:
    """Return a path from user input with `~` expanded; `~name` of an unknown user stays as it is."""
    path = Path(name)
    try:
        return path.expanduser()
    except RuntimeError:
        return path


def figure_format(file: Path) -> str:
    """Return png, svg or pdf, by the name of a file for a plot. Raises UsageError for other names."""
    kind = file.suffix.lower().removeprefix(".")
    if kind not in ("png", "svg", "pdf"):
        raise UsageError(f"--plot {file}: the name must end in .png, .svg or .pdf")
    return kind


def exists(path: Path) -> bool:
    """Return whether a path exists; False also for invalid paths such as a very long text."""
    return os.path.exists(path)  # noqa: PTH110 - Path.exists raises for long names


def free_bytes(path: Path) -> int:
    """Return the free disk space at `path`, which need not exist yet."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that replaces `path` if the block succeeds; otherwise `path` stays as it was.

    A reader sees the old file or the new one, never a part of it, even after a power failure. The content is written to
    a temporary file with an unpredictable name in the same folder, so a link at `path`, or at a name that could be
    guessed, is replaced and not followed. Missing folders are created. Devices and pipes, such as
    /dev/stdout, are written to directly.

    Raises:
        OSError: The file cannot be written; the error names `path`, not the temporary file.
    """
    temporary = path.parent / f".perjoule-{secrets.token_hex(8)}.tmp"
    try:
        if _is_stream(path):
            # a pipe that nobody reads would be waited for
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
            os.set_blocking(handle, True)
            with os.fdopen(handle, "wb") as stream:
                yield stream
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with os.fdopen(os.open(temporary, _FRESH, 0o666), "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
        sync_folder(path.parent)
    except OSError as error:
        if error.errno is not None and error.filename in (None, str(temporary)):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def _is_stream(path: Path) -> bool:
    if path.absolute().parent in _STREAM_FOLDERS:
        return True
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return False
    return stat.S_ISCHR(mode) or stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def sync_folder(folder: Path) -> None:
    """Wait until a rename is on disk; errors of file systems without support are ignored, since the file is written."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically; see `replacing`."""
    with replacing(path) as file:
        file.write(content)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically; see `replacing`."""
    write_bytes(path, _encoded(text))


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically."""
    text = json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True, allow_nan=False) + "\n"
    write_bytes(path, _encoded(text))


def write_parquet(frame: pl.DataFrame, path: Path) -> None:
    """Write Parquet atomically."""
    content = io.BytesIO()
    frame.write_parquet(content)
    # polars would turn the error of a full disk into one of its own
    with replacing(path) as file:
        file.write(content.getbuffer())


def write_json_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write JSON lines atomically."""
    with replacing(path) as file:
        for row in rows:
            file.write(_line(row))


def open_journal(path: Path) -> IO[bytes]:
    """Open a file of JSON lines for `append_lines`.

    Raises:
        OSError: If it is a symbolic link.
        RunError: If it has a second name (a hard link), or is not a regular file.
    """
    # Path.open has no parameter `opener`
    return open(path, "ab", buffering=0, opener=lambda _, flags: _own_file(path, flags))


def append_line(file: IO[bytes], row: dict[str, Any]) -> None:
    """Append a row as one JSON line and wait until it is on disk."""
    append_lines(file, [row])


def append_lines(file: IO[bytes], rows: Iterable[dict[str, Any]]) -> None:
    """Append rows as JSON lines and wait until they are on disk. Raises an OSError that names the file.

    Args:
        file: Result of `open_journal`, which keeps nothing in memory that closing it would have to write.
        rows: The rows. If the disk is full, none of them is in the file.
    """
    rest = memoryview(b"".join(map(_line, rows)))
    size = os.fstat(file.fileno()).st_size
    try:
        while rest:
            rest = rest[file.write(rest) :]
        os.fsync(file.fileno())
    except OSError as error:
        with contextlib.suppress(OSError):
            os.ftruncate(file.fileno(), size)
        raise OSError(error.errno, error.strerror, str(file.name)) from error


def _line(row: dict[str, Any]) -> bytes:
    return _encoded(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")


def _encoded(text: str) -> bytes:
    """Encode text as UTF-8; lone surrogates (from file names that are not UTF-8) become escapes, as in JSON."""
    return text.encode("utf-8", "backslashreplace")


def read_json_lines(path: Path, *, skip_damaged: bool = False) -> list[dict[str, Any]]:
    """Return all complete lines of a JSON-lines file; an unfinished last line is ignored.

    Args:
        path: The file; if it does not exist, there are no rows.
        skip_damaged: Leave damaged lines out; for rows that can be computed again.

    Raises:
        RunError: If a line before the last is damaged (names file and line).
    """
    if not _is_there(path):
        return []
    with open_regular(path) as file:
        return _json_lines(file, path, skip_damaged=skip_damaged)[0]


def _json_lines(file: IO[bytes], path: Path, *, skip_damaged: bool) -> tuple[list[dict[str, Any]], bytes]:
    """Return the complete lines of a JSON-lines file, and what follows the last newline; `path` is for messages."""
    rows: list[dict[str, Any]] = []
    tail = b""
    for number, line in enumerate(iter(lambda: file.readline(MOST_DOCUMENT_BYTES + 1), b""), 1):
        require_size(len(line), MOST_DOCUMENT_BYTES, f"{path}, line {number}:")
        if not line.endswith(b"\n"):
            tail = line
            break
        if not line.strip():
            continue
        try:
            rows.append(_parsed(line))
        except (ValueError, RecursionError) as error:
            if not skip_damaged:
                raise RunError(
                    f"{path}, line {number}: damaged: {error}; restore the file from a copy, or delete that line"
                ) from error
    return rows + ([_parsed(tail)] if _is_whole(tail) else []), tail


def mend(path: Path, *, skip_damaged: bool = False) -> list[dict[str, Any]]:
    """Read JSON lines and make the file end with a complete line, so that rows can be appended.

    An incomplete last line, e.g. after a crash, is cut off in place; if only its newline is missing, it is added. The
    rest of the file is not changed: a crash at any moment leaves every complete line as it was.
    """
    if not _is_there(path):
        return []
    with os.fdopen(_own_file(path, os.O_RDWR), "r+b") as file:
        rows, tail = _json_lines(file, path, skip_damaged=skip_damaged)
        if tail:
            end = file.seek(0, os.SEEK_END)
            file.write(b"\n") if _is_whole(tail) else file.truncate(end - len(tail))
            file.flush()
            os.fsync(file.fileno())
    return rows


def _is_there(path: Path) -> bool:
    """Return whether something has this name, also a link that leads nowhere."""
    return os.path.lexists(path)


def _own_file(path: Path, flags: int) -> int:
    """Open a file to change it in place, unless another file would change too; raises as `open_journal`."""
    handle = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    state = os.fstat(handle)
    if not stat.S_ISREG(state.st_mode) or state.st_nlink > 1:
        os.close(handle)
        why = "has another name elsewhere (a hard link)" if stat.S_ISREG(state.st_mode) else "is not a regular file"
        raise RunError(f"{path} {why}: put a copy in its place")
    return handle


def _parsed(line: bytes) -> dict[str, Any]:
    require_few_containers(line)
    row = json.loads(line.decode("utf-8"), parse_constant=_finite)  # checks only NaN and Infinity
    if not isinstance(row, dict):
        raise ValueError("not a JSON object")
    return row


def strict_json(content: str | bytes) -> Any:
    """Parse JSON as perjoule writes it.

    Raises:
        ValueError: If it has a key twice, NaN or an infinite number, or so many lists and objects that they would fill
            the memory.
    """
    require_few_containers(content)
    return json.loads(content, parse_constant=_finite, parse_float=_finite, object_pairs_hook=unique_keys)


def whole_characters(value: Any) -> Any:
    """Return the value; raises ValueError if a text in it has half a character, which UTF-8 cannot represent.

    Such texts come from JSON escapes, e.g. of U+D800, which is half of a surrogate pair.
    """
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"half a character ({error.object[error.start]!a})") from error
    return value


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object, for `object_pairs_hook`; raises ValueError if a key appears twice."""
    record = dict(pairs)
    if len(record) < len(pairs):
        duplicate = next(name for name, _ in pairs if sum(name == other for other, _ in pairs) > 1)
        raise ValueError(f"{duplicate[:_SHOWN]!r} appears twice: keep one")
    return record


def _finite(number: str) -> float:
    value = float(number)
    if not math.isfinite(value):
        raise ValueError(f"{number} is not a finite number")
    return value


def _is_whole(tail: bytes) -> bool:
    """Return whether the text after the last newline is a complete row; a part of a JSON object is not valid JSON."""
    try:
        _parsed(tail)
    except (ValueError, RecursionError):
        return False
    return True


def decode_text(content: bytes, where: str, error: type[PerjouleError] = RunError) -> str:
    """Decode UTF-8 text, with or without a byte order mark.

    Raises:
        PerjouleError: If it has another encoding; the class is `error`, and the message names the line.
    """
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise error(f"{where} cannot be read as UTF-8 text: it is UTF-16; save it as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        line = content[: fault.start].count(b"\n") + 1
        raise error(f"{where} cannot be read as UTF-8 text: line {line}: {fault}; save it as UTF-8") from fault


def read_json(path: Path, *, follow: bool = False) -> Any:
    """Parse a JSON file.

    Args:
        path: The file.
        follow: Whether it may be a symbolic link, which it may not in a run directory.

    Raises:
        RunError: If it cannot be read (names the file).
    """
    try:
        return strict_json(decode_text(content_of(path, follow=follow), str(path)))
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{path}: cannot be read: {error}") from error


def read_parquet(
    path: Path,
    columns: dict[str, Any],
    migrate: Callable[[pl.DataFrame], pl.DataFrame] = lambda frame: frame,
    *,
    only: Mapping[str, str] | None = None,
) -> pl.DataFrame:
    """Read a table; return an empty table with these columns if the file does not exist yet.

    Columns that a later version of perjoule added are filled with nulls; further columns stay. `migrate` is applied to
    the table as it was written. With `only`, just these columns are read, and the rows that have these values.

    Raises:
        RunError: If it cannot be read, a column has another type, or an identifying column is missing or has gaps.
    """
    import polars as pl  # takes a tenth of a second, so it is imported only if a table is read

    if not _is_there(path):
        return pl.DataFrame(schema=columns)
    try:
        choose = list if only is None else lambda names: [name for name in names if name in columns]
        frame = migrate(read_frame(path, choose=choose, only=only or {}))
        if missing := [name for name in columns if name in _NAMING and name not in frame.columns]:
            raise RunError(f"{path}: column {', '.join(missing)} is missing: restore the file from a copy")
        frame = frame.with_columns(
            (pl.col(name) if name in frame.columns else pl.lit(None)).cast(kind).alias(name)
            for name, kind in columns.items()
            if name not in frame.columns or frame.schema[name] != kind
        )
        require_names(frame, path)
        return frame
    # polars panics, which is not an Exception, over some values
    except (OSError, ValueError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise RunError(f"{path}: cannot be read: {error}") from error


def require_names(frame: pl.DataFrame, path: Path) -> None:
    """Raise RunError if a row has no value in an identifying column."""
    if gaps := [name for name in frame.columns if name in _NAMING - _MAY_BE_EMPTY and frame[name].null_count()]:
        row = min(frame[name].is_null().arg_max() or 0 for name in gaps) + 1
        raise RunError(f"{path}: column {', '.join(gaps)} has gaps, e.g. in row {row}: restore the file from a copy")
