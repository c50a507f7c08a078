"""A foreign table as written: texts stay unchanged, and numbers are parsed by column.

    bytes ──► text (UTF-8, UTF-16, UTF-32) ──► fields (CSV, any separator; JSON; JSON lines) ───► columns by name
    Parquet ─────────────────────────────────────────────────────────────────────────────────────────┘

A spreadsheet program that guesses types turns the prompt id 007 into 7. This package does not guess types: the caller
states the type of each column.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

import polars as pl

from perjoule.errors import UsageError
from perjoule.importing.columns import COLUMNS, Column

_NO_NUMBER = ("", "nan", "na", "n/a", "#n/a", "null", "none", "-", "\N{EN DASH}", "\N{EM DASH}")
_DECIMAL_COMMA = r"^[+-]?\d*,\d+(?:[eE][+-]?\d+)?$"
_LIKE_THOUSANDS = r"^[+-]?[1-9]\d{0,2},\d{3}$"
SHOWN = 60


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ForeignTable:
    """A table as written.

    Attributes:
        path: The file.
        frame: Recognised columns under our names. Columns of text formats contain texts, Parquet's have their types.
        scales: Factor of a column's numbers to SI, as numerator and denominator.
        lines: For text formats, the line on which each row begins.
        separator: Separator between the fields of a line; empty if the format has none.
        ignored: Names of unknown columns.
        notes: Sentences about conversions.
    """

    path: Path
    frame: pl.DataFrame
    scales: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    lines: tuple[int, ...] = ()
    separator: str = ""
    ignored: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def has(self, name: str) -> bool:
        """Return True if the column exists."""
        return name in self.frame.columns

    def place(self, row: int) -> str:
        """Return a place for messages, e.g. `theirs.csv: row 2 (line 3)`; `row` counts from 0."""
        line = f" (line {self.lines[row]})" if self.lines else ""
        return f"{self.path}: row {row + 1}{line}"

    def fault(self, row: int, name: str, remedy: str) -> UsageError:
        """Return the error about one value: file, row, column, value, remedy."""
        value = self.frame[name][row]
        shown = repr(value) if isinstance(value, str) else str(value)
        return UsageError(f"{self.place(row)}: {name} = {shown[:SHOWN]}: {remedy}")

    def texts(self, name: str) -> pl.Series:
        """Return a column of identifiers as written, without surrounding spaces; null if empty."""
        column = self.frame[name]
        if column.dtype.is_float():
            column = column.fill_nan(None)
        column = _as_text(column)
        if name != "prompt":
            column = column.str.strip_chars()
        return column.set(column == "", None)

    def numbers(self, name: str, decimal_comma: bool = False) -> pl.Series:
        """Return a column of numbers in SI; null if empty or marked as missing.

        Raises:
            UsageError: If a value is invalid (the message names row, column, value and remedy).
        """
        column = self.frame[name]
        if column.dtype.is_numeric():
            numbers = column.cast(pl.Float64).fill_nan(None)
        else:
            written = self._written(name)
            numbers = (written.str.replace(",", ".", literal=True) if decimal_comma else written).cast(
                pl.Float64, strict=False
            )
            invalid = first_marked(numbers.is_null() & written.is_not_null())
            if invalid is not None:
                raise self.fault(invalid, name, _not_a_number(written[invalid], self.separator))
        top, bottom = self.scales.get(name, (1, 1))
        return numbers if top == bottom == 1 else (numbers * top / bottom).alias(name)

    def whole_numbers(self, name: str, least: int, most: int) -> pl.Series:
        """Return a column of whole numbers from `least` to `most`, exact up to 64 bits; null if empty.

        Raises:
            UsageError: If a value is invalid (the message names row, column, value and remedy).
        """
        column = self.frame[name]
        remedy = f"must be a whole number from {least} to {most}; leave it empty if it is unknown"
        if column.dtype.is_integer():
            numbers, stated = column.cast(pl.UInt64, strict=False), column.is_not_null()
        elif column.dtype.is_numeric():
            stated = column.cast(pl.Float64).is_finite().fill_null(False)
            floats = column.cast(pl.Float64)
            # a float represents whole numbers exactly only up to 53 bits
            exact = stated & (floats == floats.round()) & (floats.abs() <= 2**53)
            numbers = floats.set(~exact, None).cast(pl.UInt64, strict=False)
        else:
            written = self._written(name)
            stated = written.is_not_null()
            # without leading zeros; 64 bits have at most 20 digits
            numbers = written.str.extract(r"^\+?0*(\d{1,20})(?:\.0*)?$").cast(pl.UInt64, strict=False)
        invalid = first_marked(stated & (numbers.is_null() | (numbers < least) | (numbers > most)).fill_null(True))
        if invalid is not None:
            raise self.fault(invalid, name, remedy)
        return numbers.alias(name)

    def decimal_comma(self, names: Iterable[str]) -> bool:
        """Return True if the numbers of these columns are written with a decimal comma.

        Raises:
            UsageError: If that is ambiguous, because a comma may separate thousands.
        """
        comma: tuple[int, str] | None = None
        point: tuple[int, str] | None = None
        certain = False
        for name in names:
            if self.frame[name].dtype != pl.String:
                continue
            written = self._written(name)
            with_comma = written.str.contains(_DECIMAL_COMMA).fill_null(False)
            if comma is None and (row := first_marked(with_comma)) is not None:
                comma = (row, name)
            if point is None and (row := first_marked(written.str.contains(r"\.\d"))) is not None:
                point = (row, name)
            certain = certain or bool((with_comma & ~written.str.contains(_LIKE_THOUSANDS)).any())
        if comma is None:
            return False
        if self.separator not in (";", "\t", "|"):
            raise self.fault(*comma, "a comma inside a number: write a decimal point, and no thousands separator")
        if point is not None:
            other = f"row {point[0] + 1} has a point ({point[1]} = {self.frame[point[1]][point[0]]})"
            raise self.fault(*comma, f"a decimal comma, and {other}: write all numbers in the same way")
        if not certain and self.separator != ";":
            raise self.fault(*comma, "decimal comma or thousands? Write a decimal point, and no thousands separator")
        return True

    def _written(self, name: str) -> pl.Series:
        """Return the texts of a column of numbers; null if marked as missing."""
        written = _as_text(self.frame[name]).str.strip_chars()
        return written.set(written.str.to_lowercase().is_in(_NO_NUMBER).fill_null(False), None)


def make_table(
    path: Path,
    columns: list[Column],
    data: Mapping[str, pl.Series],
    *,
    lines: Sequence[int] = (),
    separator: str = "",
    notes: Sequence[str] = (),
) -> ForeignTable:
    """Return the table of the recognised columns; `data` is keyed by our names."""
    sentences = [*notes]
    for column in columns:
        if column.name is not None and column.scale != (1, 1):
            top, bottom = column.scale
            sentences.append(
                f"{column.written} was converted to {column.name}: {column.unit} times {top / bottom:.10g}"
            )
    ignored = [column.written.strip() or "(no name)" for column in columns if column.name is None]
    for name in ignored:
        near = get_close_matches(re.sub(r"[\s-]+", "_", name.casefold()), COLUMNS, n=1, cutoff=0.8)
        sentences.append(f"column {name!r} was ignored" + (f": did you mean {near[0]}?" if near else ""))
    return ForeignTable(
        path=path,
        frame=pl.DataFrame([series.alias(name) for name, series in data.items()]),
        scales={column.name: column.scale for column in columns if column.name is not None},
        lines=tuple(lines),
        separator=separator,
        ignored=tuple(ignored),
        notes=tuple(sentences),
    )


def _as_text(column: pl.Series) -> pl.Series:
    return column if column.dtype == pl.String else column.cast(pl.String)


def first_marked(marked: pl.Series) -> int | None:
    """Return the index of the first row that is marked."""
    return marked.fill_null(False).arg_max() if marked.any() else None


def _not_a_number(text: str, separator: str) -> str:
    if "," in text and separator not in (";", "\t", "|"):
        return "a comma inside a number: write a decimal point, and no thousands separator"
    if re.search(r"\d\s*[A-Za-zµ%]+$", text):
        return "not a number: put the unit into the name of the column, e.g. energy_wh"
    return "not a number; leave it empty if it is unknown"
