"""Reads a foreign table in the format of its suffix."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from perjoule.errors import UsageError, first_line
from perjoule.importing.columns import columns_of
from perjoule.importing.delimited import read_delimited
from perjoule.importing.foreign_table import ForeignTable, make_table
from perjoule.importing.json_tables import read_json, read_json_lines
from perjoule.parquet import read_frame

FORMATS = ".csv, .tsv, .json, .jsonl or .parquet"


def read_table(path: Path, further: Sequence[str] = ()) -> ForeignTable:
    """Read a table; `further` are names of columns that it may have in addition to those of a run.

    Raises:
        UsageError: The table cannot be read; the message names file, row, column, value and remedy.
    """
    suffix = path.suffix.lower()
    reader = _READERS.get(suffix)
    if reader is None:
        raise UsageError(f"{path}: {path.suffix or 'no suffix'}: give {FORMATS}")
    if not path.is_file():
        raise UsageError(f"{path}: {'a folder, not a file' if path.is_dir() else 'no such file'}")
    try:
        return reader(path, further)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror or error}") from error


def _read_parquet(path: Path, further: Sequence[str]) -> ForeignTable:
    try:
        frame = read_frame(path, follow=True, error=UsageError)
    except ValueError as error:
        raise UsageError(f"{path}: cannot be read: {first_line(error)}") from error
    columns = columns_of(frame.columns, path, further)
    data = {}
    for column in columns:
        if column.name is None:
            continue
        series = frame[column.written]
        if series.dtype.is_nested() or series.dtype in (pl.Binary, pl.Object, pl.Duration):
            raise UsageError(f"{path}: column {column.written} has type {series.dtype}: must be one text or number")
        data[column.name] = series
    return make_table(path, columns, data)


_READERS = {
    ".csv": read_delimited,
    ".tsv": read_delimited,
    ".json": read_json,
    ".jsonl": read_json_lines,
    ".ndjson": read_json_lines,
    ".parquet": _read_parquet,
    ".pq": _read_parquet,
}
