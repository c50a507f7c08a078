"""Reads delimited text: CSV with any separator, comments, and a header."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import polars as pl

from perjoule.errors import UsageError
from perjoule.importing.columns import column_of, columns_of
from perjoule.importing.decoding import decoded_text
from perjoule.importing.foreign_table import ForeignTable, make_table

_SEPARATORS = ",;\t|"
_NAMED_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}


class _Lines:
    """Lines of a delimited text for `csv.reader`, without comments and blank lines between records.

    Set `between` before each record: inside a quoted field, every line belongs to it.
    """

    def __init__(self, text: str) -> None:
        self._lines = io.StringIO(text, newline="")
        self.number = self.begins = self.comments = 0
        self.between = True
        self.in_header = True
        self.separator: str | None = None

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        for line in self._lines:
            self.number += 1
            stripped = line.strip()
            if self.between:
                separator_line = (
                    re.fullmatch(r'"?sep=(.)"?[\s,;]*', line.strip("\r\n"), re.IGNORECASE) if self.in_header else None
                )
                if separator_line:
                    self.separator = separator_line[1]
                    continue
                if not stripped.strip(_SEPARATORS + " "):
                    continue
                if stripped.startswith("#"):
                    if not (self.in_header and _is_header(stripped)):
                        self.comments += 1
                        continue
                    line = line.replace("#", "", 1).lstrip(" ")
                self.between, self.begins = False, self.number
            return line
        raise StopIteration


def _is_header(comment: str) -> bool:
    """Return whether a comment is the header of a table, i.e. one of its fields is exactly `variant`."""
    fields = re.split(f"[{_SEPARATORS}]", comment.lstrip("#"))
    return "variant" in (field.strip(' "').casefold() for field in fields)


def _separator(header: str, declared: str | None, suffix: str, path: Path) -> str:
    """Return the separator with which most of the header is recognised."""
    usual = "\t" if suffix == ".tsv" else ","

    def known(separator: str) -> int:
        try:
            names = next(csv.reader([header], delimiter=separator, skipinitialspace=True))
        except csv.Error:
            return -1
        return sum(column.name is not None for column in (column_of(name, path) for name in names))

    candidates = [declared] if declared else [usual, *(mark for mark in _SEPARATORS if mark != usual)]
    return max(candidates, key=known)


def read_delimited(path: Path, further: Sequence[str] = ()) -> ForeignTable:
    """Read a CSV or TSV file; raises UsageError that names file, line and remedy."""
    text = decoded_text(path)
    lines = _Lines(text)
    header = next(lines, None)
    if header is None:
        raise UsageError(f"{path}: the table has no header and no rows")
    separator = _separator(header.rstrip("\r\n"), lines.separator, path.suffix.lower(), path)
    # spaces after the separators, especially before quotes, are layout
    spaced = re.search(re.escape(separator) + r' +"', text) or all(
        field.startswith(" ") for field in header.split(separator)[1:]
    )
    source = _Lines(text)
    reader = csv.reader(source, delimiter=separator, skipinitialspace=bool(spaced) and separator != " ", strict=True)
    records: list[list[str]] = []
    begins: list[int] = []
    try:
        names = next(reader)
        source.in_header = False
        source.between = True
        for record in reader:
            records.append(record)
            begins.append(source.begins)
            source.between = True
    except csv.Error as error:
        raise UsageError(f"{path}: line {source.number}: cannot be read: {error}: close every quote, and double those "
                         "inside a quoted field") from error  # fmt: skip
    width = len(names)
    for number, (record, line) in enumerate(zip(records, begins, strict=True), 1):
        if len(record) != width:
            if len(record) > width and not any(field.strip() for field in record[width:]):
                del record[width:]
                continue
            more = "" if separator != "," else "; a decimal comma needs semicolons as separators"
            raise UsageError(
                f"{path}: row {number} (line {line}): {len(record)} fields under a header of {width}: separate the "
                f"fields by {_NAMED_SEPARATORS.get(separator, repr(separator))} and quote those that contain one{more}"
            )
    rows = [i for i, record in enumerate(records) if any(field.strip() for field in record)]
    columns = columns_of(names, path, further)
    data = {
        column.name: pl.Series([records[i][place] for i in rows], dtype=pl.String)
        for place, column in enumerate(columns)
        if column.name is not None
    }
    notes = []
    if separator != ("\t" if path.suffix.lower() == ".tsv" else ","):
        notes.append(f"the fields are separated by {_NAMED_SEPARATORS.get(separator, repr(separator))}")
    if source.comments:
        notes.append(f"{source.comments} comment lines (#) were skipped")
    return make_table(path, columns, data, lines=[begins[i] for i in rows], separator=separator, notes=notes)
