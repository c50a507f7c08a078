"""Reads tables in JSON and JSON lines, with numbers as written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from perjoule.errors import UsageError, first_line
from perjoule.files import unique_keys, whole_characters
from perjoule.importing.columns import columns_of
from perjoule.importing.decoding import decoded_text
from perjoule.importing.foreign_table import SHOWN, ForeignTable, make_table
from perjoule.opening import require_few_containers

_NOT_A_NUMBER = {"Infinity": "Infinity", "-Infinity": "-Infinity"}  # and NaN, which is null


class _JsonError(ValueError):
    """An error in a JSON table."""


def _loads(text: str) -> Any:
    """Parse JSON with numbers as written, because 1.10 and 1e001 may be names. NaN is a missing value."""
    require_few_containers(text)
    value = json.loads(
        text, parse_float=str, parse_int=str, parse_constant=_NOT_A_NUMBER.get, object_pairs_hook=unique_keys
    )
    # only an escape can make half a character in text that was decoded
    return whole_characters(value) if "\\u" in text else value


def read_json_lines(path: Path, further: Sequence[str] = ()) -> ForeignTable:
    """Read a file with one JSON object per line; raises UsageError that names file, line and remedy."""
    return _of_lines(path, decoded_text(path), further)


def _of_lines(path: Path, text: str, further: Sequence[str]) -> ForeignTable:
    records: list[dict[str, Any]] = []
    lines: list[int] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            record = _loads(line)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{path}: line {number}: cannot be read: {first_line(error)}") from error
        if not isinstance(record, dict):
            raise UsageError(
                f"{path}: line {number}: not an object: one {{...}} per line, with a value for each column"
            )
        records.append(record)
        lines.append(number)
    return _of_records(path, records, lines, further)


def read_json(path: Path, further: Sequence[str] = ()) -> ForeignTable:
    """Read a JSON file in one of the layouts of `_records`; raises UsageError that names file and remedy."""
    text = decoded_text(path)
    try:
        content = _loads(text)
    except (ValueError, RecursionError) as error:
        if "Extra data" in str(error):  # JSON lines under another suffix
            return _of_lines(path, text, further)
        raise UsageError(f"{path}: cannot be read: {first_line(error)}") from error
    try:
        return _of_records(path, _records(content), (), further)
    except _JsonError as error:
        raise UsageError(f"{path}: {error}") from error


def _records(content: Any) -> list[dict[str, Any]]:
    """Return the rows of a JSON table: an array of records, columns by name, or one of pandas' layouts."""
    if isinstance(content, list) and all(isinstance(row, dict) for row in content):
        return content
    if isinstance(content, dict):
        if isinstance(content.get("columns"), list) and isinstance(content.get("data"), list):
            names = [str(name) for name in content["columns"]]
            if all(isinstance(row, list) and len(row) == len(names) for row in content["data"]):
                return [dict(zip(names, row, strict=True)) for row in content["data"]]
        values = list(content.values())
        if len(values) == 1 and isinstance(values[0], list) and all(isinstance(row, dict) for row in values[0]):
            return _records(values[0])
        if values and all(isinstance(column, list) for column in values):
            lengths = {name: len(column) for name, column in content.items()}
            if len(set(lengths.values())) > 1:
                raise _JsonError(f"columns of unequal length: {', '.join(f'{k} {n}' for k, n in lengths.items())}")
            return [dict(zip(content, row, strict=True)) for row in zip(*values, strict=True)]
        if values and all(isinstance(column, dict) for column in values):
            keys = list(dict.fromkeys(key for column in values for key in column))
            return [{name: column.get(key) for name, column in content.items()} for key in keys]
    raise _JsonError("not a table: give an array of records, or an object with an array for each column")


def _of_records(
    path: Path, records: Sequence[dict[str, Any]], lines: Sequence[int], further: Sequence[str]
) -> ForeignTable:
    names = list(dict.fromkeys(name for record in records for name in record))
    columns = columns_of(names, path, further)
    data = {}
    for column in columns:
        if column.name is None:
            continue
        values = [record.get(column.written) for record in records]
        for row, value in enumerate(values):
            if isinstance(value, list | dict):
                line = f" (line {lines[row]})" if lines else ""
                raise UsageError(
                    f"{path}: row {row + 1}{line}: {column.written} = {json.dumps(value)[:SHOWN]}: must be one text "
                    "or number"
                )
        texts = [str(value).lower() if isinstance(value, bool) else value for value in values]
        data[column.name] = pl.Series(texts, dtype=pl.String)
    return make_table(path, columns, data, lines=lines)
