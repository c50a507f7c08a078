"""Reading and writing the files of a run: whole or not at all, and damage is named."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import polars as pl

from perjoule.errors import RunError


def free_bytes(path: Path) -> int:
    """Free disk space where `path` is or will be."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that a reader sees the old file or the new one, never half of it."""
    text = json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True, allow_nan=False) + "\n"
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def write_parquet(frame: pl.DataFrame, path: Path) -> None:
    """Write Parquet, atomically."""
    temporary = path.with_name(path.name + ".tmp")
    frame.write_parquet(temporary)
    temporary.replace(path)


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """All complete lines of a JSON-lines file; an unfinished last line is ignored.

    Raises:
        RunError: If a line before the last is damaged (names it).
    """
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number == len(lines):
                break  # torn by a crash while it was written
            raise RunError(f"{path}, line {number}: damaged: {error}") from error
    return rows


def mend(path: Path) -> list[dict[str, Any]]:
    """Cut a torn last line off, so that appending starts on a line of its own."""
    rows = read_json_lines(path)
    if path.exists() and not path.read_text(encoding="utf-8").endswith("\n"):
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return rows


def write_json_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write JSON lines, atomically."""
    temporary = path.with_name(path.name + ".tmp")
    lines = (json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
    temporary.write_text("".join(lines), encoding="utf-8")
    temporary.replace(path)


def append_line(file: IO[str], row: dict[str, Any]) -> None:
    """Append a row as one JSON line and wait until it is on disk."""
    append_lines(file, [row])


def append_lines(file: IO[str], rows: Iterable[dict[str, Any]]) -> None:
    """Append rows as JSON lines and wait until they are on disk."""
    file.write("".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows))
    file.flush()
    os.fsync(file.fileno())


def read_json(path: Path) -> Any:
    """Parse a JSON file; RunError names it if it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise RunError(f"{path}: cannot be read: {error}") from error


def read_parquet(path: Path, columns: dict[str, Any]) -> pl.DataFrame:
    """Read a table, or an empty one with these columns if the stage that writes it has not run yet."""
    if not path.exists():
        return pl.DataFrame(schema=columns)
    try:
        return as_declared(pl.read_parquet(path), columns)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise RunError(f"{path}: cannot be read: {error}") from error


def as_declared(frame: pl.DataFrame, columns: dict[str, Any]) -> pl.DataFrame:
    """`frame` with the declared type in each known column: tables of older versions hold seeds of 63 bits."""
    wrong: dict[Any, Any] = {
        name: columns[name] for name, kind in frame.schema.items() if name in columns and columns[name] != kind
    }
    return frame.cast(wrong) if wrong else frame
