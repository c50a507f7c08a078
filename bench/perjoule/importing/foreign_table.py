"""Reads foreign tables without type guessing: texts stay unchanged, and numbers are parsed by column.

    bytes ──► text (UTF-8, UTF-16, UTF-32) ──► fields (CSV, any separator; JSON; JSON lines) ───► columns by name
    Parquet ─────────────────────────────────────────────────────────────────────────────────────────┘

A spreadsheet program that guesses types turns the prompt id 007 into 7. This module does not guess types: the caller
states the type of each column.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import polars as pl

from perjoule.errors import UsageError, first_line
from perjoule.files import whole_characters

FORMATS = ".csv, .tsv, .json, .jsonl or .parquet"
QUALITY = "quality:"
IDENTIFIERS = (
    "variant", "prompt_id", "prompt", "role", "policy", "provenance", "boundary", "family", "device", "model",
    "category", "challenge",
)  # fmt: skip
WHOLE_NUMBERS = ("seed", "steps", "batch_size", "block", "n")
NUMBERS = ("energy_j", "duration_s", "uncertainty_j", "nfe_per_image")
COLUMNS = (*IDENTIFIERS, *WHOLE_NUMBERS, *NUMBERS)
# other spellings of these columns, in lower case and with _ for spaces
_SPELLINGS = {
    "energy_j_per_image": "energy_j",
    "duration_s_per_image": "duration_s",
    "num_inference_steps": "steps",
    "nfe": "nfe_per_image",
    "repeat": "block",
    "repetition": "block",
    "round": "block",
    "n_images": "n",
    "image_count": "n",
}
# unit -> its value in SI as numerator and denominator; spelled as in SI
_ENERGY_UNITS = {
    "J": (1, 1), "kJ": (1_000, 1), "mJ": (1, 1_000), "MJ": (1_000_000, 1), "uJ": (1, 1_000_000), "µJ": (1, 1_000_000),
    "Ws": (1, 1), "Wh": (3_600, 1), "kWh": (3_600_000, 1), "mWh": (18, 5), "MWh": (3_600_000_000, 1),
    "joule": (1, 1), "joules": (1, 1),
}  # fmt: skip
_TIME_UNITS = {
    "s": (1, 1), "sec": (1, 1), "seconds": (1, 1), "ms": (1, 1_000), "us": (1, 1_000_000), "µs": (1, 1_000_000),
    "min": (60, 1), "minutes": (60, 1), "h": (3_600, 1), "hours": (3_600, 1),
}  # fmt: skip
_QUANTITIES = {
    "energy": ("energy_j", _ENERGY_UNITS),
    "uncertainty": ("uncertainty_j", _ENERGY_UNITS),
    "duration": ("duration_s", _TIME_UNITS),
}
_WITH_UNIT = re.compile(
    r"(energy|uncertainty|duration)(?:[\s_]*[(\[]\s*|[\s_-]+)([^\s()\[\]_]+)\s*[)\]]?", re.IGNORECASE
)
_SEPARATORS = ",;\t|"
_NAMED_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_NO_NUMBER = ("", "nan", "na", "n/a", "#n/a", "null", "none", "-", "\N{EN DASH}", "\N{EM DASH}")
_DECIMAL_COMMA = r"^[+-]?\d*,\d+(?:[eE][+-]?\d+)?$"
_LIKE_THOUSANDS = r"^[+-]?[1-9]\d{0,2},\d{3}$"
_SHOWN = 60
# UTF-32 first: its mark begins with that of UTF-16
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of a foreign table: its name there, its name here, and its unit in SI as a fraction."""

    there: str
    here: str | None
    unit: str = ""
    scale: tuple[int, int] = (1, 1)


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
        return UsageError(f"{self.place(row)}: {name} = {shown[:_SHOWN]}: {remedy}")

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
            found = column.cast(pl.Float64).fill_nan(None)
        else:
            written = self._written(name)
            found = (written.str.replace(",", ".", literal=True) if decimal_comma else written).cast(
                pl.Float64, strict=False
            )
            bad = _first(found.is_null() & written.is_not_null())
            if bad is not None:
                raise self.fault(bad, name, _not_a_number(written[bad], self.separator))
        top, bottom = self.scales.get(name, (1, 1))
        return found if top == bottom == 1 else (found * top / bottom).alias(name)

    def whole_numbers(self, name: str, least: int, most: int) -> pl.Series:
        """Return a column of whole numbers from `least` to `most`, exact up to 64 bits; null if empty.

        Raises:
            UsageError: If a value is invalid (the message names row, column, value and remedy).
        """
        column = self.frame[name]
        remedy = f"must be a whole number from {least} to {most}; leave it empty if it is unknown"
        if column.dtype.is_integer():
            found, asked = column.cast(pl.UInt64, strict=False), column.is_not_null()
        elif column.dtype.is_numeric():
            asked = column.cast(pl.Float64).is_finite().fill_null(False)
            floats = column.cast(pl.Float64)
            # a float represents whole numbers exactly only up to 53 bits
            exact = asked & (floats == floats.round()) & (floats.abs() <= 2**53)
            found = floats.set(~exact, None).cast(pl.UInt64, strict=False)
        else:
            written = self._written(name)
            asked = written.is_not_null()
            # without leading zeros; 64 bits have at most 20 digits
            found = written.str.extract(r"^\+?0*(\d{1,20})(?:\.0*)?$").cast(pl.UInt64, strict=False)
        bad = _first(asked & (found.is_null() | (found < least) | (found > most)).fill_null(True))
        if bad is not None:
            raise self.fault(bad, name, remedy)
        return found.alias(name)

    def decimal_comma(self, names: Iterable[str]) -> bool:
        """Return True if the numbers of these columns are written with a decimal comma.

        Raises:
            UsageError: If that is ambiguous, because a comma may separate thousands.
        """
        comma: tuple[int, str] | None = None
        point: tuple[int, str] | None = None
        proven = False
        for name in names:
            if self.frame[name].dtype != pl.String:
                continue
            written = self._written(name)
            with_comma = written.str.contains(_DECIMAL_COMMA).fill_null(False)
            if comma is None and (row := _first(with_comma)) is not None:
                comma = (row, name)
            if point is None and (row := _first(written.str.contains(r"\.\d"))) is not None:
                point = (row, name)
            proven = proven or bool((with_comma & ~written.str.contains(_LIKE_THOUSANDS)).any())
        if comma is None:
            return False
        if self.separator not in (";", "\t", "|"):
            raise self.fault(*comma, "a comma inside a number: write a decimal point, and no thousands separator")
        if point is not None:
            other = f"row {point[0] + 1} has a point ({point[1]} = {self.frame[point[1]][point[0]]})"
            raise self.fault(*comma, f"a decimal comma, and {other}: write all numbers in the same way")
        if not proven and self.separator != ";":
            raise self.fault(*comma, "decimal comma or thousands? Write a decimal point, and no thousands separator")
        return True

    def _written(self, name: str) -> pl.Series:
        """Return the texts of a column of numbers; null if marked as missing."""
        written = _as_text(self.frame[name]).str.strip_chars()
        return written.set(written.str.to_lowercase().is_in(_NO_NUMBER).fill_null(False), None)


def read_table(path: Path) -> ForeignTable:
    """Read a table.

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
        return reader(path)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror or error}") from error


def columns_of(names: Sequence[str], path: Path) -> list[Column]:
    """Recognise the columns of a table.

    Raises:
        UsageError: If two columns are the same, or the unit of a required column is unknown.
    """
    found = [_column(name, path) for name in names]
    taken: dict[str, str] = {}
    for column in found:
        if column.here is None:
            continue
        if column.here in taken:
            same = "duplicate columns" if taken[column.here] == column.there else "mixed units or spellings"
            raise UsageError(
                f"{path}: {taken[column.here]} and {column.there} both give {column.here}: {same}; keep one column"
            )
        taken[column.here] = column.there
    return found


def _column(name: str, path: Path) -> Column:
    bare = name.strip().strip("\ufeff").strip()
    key = re.sub(r"[\s-]+", "_", bare.casefold())
    key = _SPELLINGS.get(key, key)
    if key in COLUMNS:
        return Column(there=name, here=key)
    prefix, colon, metric = bare.partition(":")
    if colon and prefix.strip().casefold() == "quality" and metric.strip():
        return Column(there=name, here=QUALITY + metric.strip())
    with_unit = _WITH_UNIT.fullmatch(bare)
    if with_unit is None:
        return Column(there=name, here=None)
    here, units = _QUANTITIES[with_unit[1].casefold()]
    unit = with_unit[2].replace("\N{GREEK SMALL LETTER MU}", "µ")
    same_letters = {known for known in units if known.casefold() == unit.casefold()}
    if not same_letters:
        return Column(there=name, here=None)
    # mJ is milli and MJ mega; mj, or a name in capitals, is ambiguous
    if len(same_letters) > 1 and (unit not in same_letters or bare.isupper()):
        quantity = with_unit[1].lower()
        low, high = sorted(same_letters, reverse=True)
        raise UsageError(
            f"{path}: column {bare}: {low} (milli) or {high} (mega)? Name it {quantity}_{low} or {quantity}_{high}, or "
            f"convert it to {here}"
        )
    return Column(there=name, here=here, unit=unit, scale=units[unit if unit in units else same_letters.pop()])


def without_unit(names: Iterable[str]) -> list[str]:
    """Return columns of energy without a unit or with an unknown unit."""
    return [name for name in names if re.match(r"\s*energy\b|\s*energy_", name, re.IGNORECASE)]


def _made(
    path: Path,
    columns: list[Column],
    data: Mapping[str, pl.Series],
    *,
    lines: Sequence[int] = (),
    separator: str = "",
    notes: Sequence[str] = (),
) -> ForeignTable:
    """Return the table of the recognised columns; `data` is keyed by our names."""
    said = [*notes]
    for column in columns:
        if column.here is not None and column.scale != (1, 1):
            top, bottom = column.scale
            said.append(f"{column.there} was converted to {column.here}: {column.unit} times {top / bottom:.10g}")
    ignored = [column.there.strip() or "(no name)" for column in columns if column.here is None]
    for name in ignored:
        near = get_close_matches(re.sub(r"[\s-]+", "_", name.casefold()), COLUMNS, n=1, cutoff=0.8)
        said.append(f"column {name!r} was ignored" + (f": did you mean {near[0]}?" if near else ""))
    return ForeignTable(
        path=path,
        frame=pl.DataFrame([series.alias(name) for name, series in data.items()]),
        scales={column.here: column.scale for column in columns if column.here is not None},
        lines=tuple(lines),
        separator=separator,
        ignored=tuple(ignored),
        notes=tuple(said),
    )


# -- text --------------------------------------------------------------------------------------------------------------


def _decoded(path: Path) -> str:
    raw = path.read_bytes()
    codec = next((codec for mark, codec in _MARKS if raw.startswith(mark)), "utf-8-sig")
    if codec == "utf-8-sig" and b"\0" in raw[:4096]:
        # UTF-16 without a byte order mark: most characters have a zero upper byte
        codec = "utf-16-be" if raw[:4096:2].count(0) > raw[1:4096:2].count(0) else "utf-16-le"
    try:
        return raw.decode(codec).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise UsageError(
            f"{path}: line {line}, byte {error.start}: not {codec.removesuffix('-sig').upper()}: save it as UTF-8"
        ) from error


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
            bare = line.strip()
            if self.between:
                declared = (
                    re.fullmatch(r'"?sep=(.)"?[\s,;]*', line.strip("\r\n"), re.IGNORECASE) if self.in_header else None
                )
                if declared:
                    self.separator = declared[1]
                    continue
                if not bare.strip(_SEPARATORS + " "):
                    continue
                if bare.startswith("#"):
                    if not (self.in_header and _is_header(bare)):
                        self.comments += 1
                        continue
                    line = line.replace("#", "", 1).lstrip(" ")
                self.between, self.begins = False, self.number
            return line
        raise StopIteration


def _is_header(comment: str) -> bool:
    """Return whether a comment is the header of a table, i.e. one of its fields is exactly `variant`."""
    cells = re.split(f"[{_SEPARATORS}]", comment.lstrip("#"))
    return "variant" in (cell.strip(' "').casefold() for cell in cells)


def _separator(header: str, declared: str | None, suffix: str, path: Path) -> str:
    """Return the separator with which most of the header is recognised."""
    usual = "\t" if suffix == ".tsv" else ","

    def known(separator: str) -> int:
        try:
            names = next(csv.reader([header], delimiter=separator, skipinitialspace=True))
        except csv.Error:
            return -1
        return sum(column.here is not None for column in (_column(name, path) for name in names))

    candidates = [declared] if declared else [usual, *(mark for mark in _SEPARATORS if mark != usual)]
    return max(candidates, key=known)


def _read_delimited(path: Path) -> ForeignTable:
    text = _decoded(path)
    lines = _Lines(text)
    header = next(lines, None)
    if header is None:
        raise UsageError(f"{path}: the table has no header and no rows")
    separator = _separator(header.rstrip("\r\n"), lines.separator, path.suffix.lower(), path)
    # spaces after the separators, especially before quotes, are layout
    spaced = re.search(re.escape(separator) + r' +"', text) or all(
        cell.startswith(" ") for cell in header.split(separator)[1:]
    )
    again = _Lines(text)
    reader = csv.reader(again, delimiter=separator, skipinitialspace=bool(spaced) and separator != " ", strict=True)
    records: list[list[str]] = []
    begins: list[int] = []
    try:
        names = next(reader)
        again.in_header = False
        again.between = True
        for record in reader:
            records.append(record)
            begins.append(again.begins)
            again.between = True
    except csv.Error as error:
        raise UsageError(f"{path}: line {again.number}: cannot be read: {error}: close every quote, and double those "
                         "inside a quoted field") from error  # fmt: skip
    width = len(names)
    for number, (record, line) in enumerate(zip(records, begins, strict=True), 1):
        if len(record) != width:
            if len(record) > width and not any(cell.strip() for cell in record[width:]):
                del record[width:]
                continue
            more = "" if separator != "," else "; a decimal comma needs semicolons as separators"
            raise UsageError(
                f"{path}: row {number} (line {line}): {len(record)} fields under a header of {width}: separate the "
                f"fields by {_NAMED_SEPARATORS.get(separator, repr(separator))} and quote those that contain one{more}"
            )
    kept = [i for i, record in enumerate(records) if any(cell.strip() for cell in record)]
    columns = columns_of(names, path)
    data = {
        column.here: pl.Series([records[i][place] for i in kept], dtype=pl.String)
        for place, column in enumerate(columns)
        if column.here is not None
    }
    notes = []
    if separator != ("\t" if path.suffix.lower() == ".tsv" else ","):
        notes.append(f"the fields are separated by {_NAMED_SEPARATORS.get(separator, repr(separator))}")
    if again.comments:
        notes.append(f"{again.comments} comment lines (#) were skipped")
    return _made(path, columns, data, lines=[begins[i] for i in kept], separator=separator, notes=notes)


# -- JSON --------------------------------------------------------------------------------------------------------------


class _JsonError(ValueError):
    """An error in a JSON table."""


_NOT_A_NUMBER = {"Infinity": "Infinity", "-Infinity": "-Infinity"}  # and NaN, which is null


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for name, _ in pairs if sum(name == other for other, _ in pairs) > 1)
        raise _JsonError(f"{twice!r} appears twice: keep one")
    return found


def _loads(text: str) -> Any:
    """Parse JSON with numbers as written, because 1.10 and 1e001 may be names. NaN is a missing value."""
    found = json.loads(text, parse_float=str, parse_int=str, parse_constant=_NOT_A_NUMBER.get, object_pairs_hook=_pairs)
    # only an escape can make half a character in text that was decoded
    return whole_characters(found) if "\\u" in text else found


def _read_json_lines(path: Path) -> ForeignTable:
    return _of_lines(path, _decoded(path))


def _of_lines(path: Path, text: str) -> ForeignTable:
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
    return _of_records(path, records, lines)


def _read_json(path: Path) -> ForeignTable:
    text = _decoded(path)
    try:
        found = _loads(text)
    except (ValueError, RecursionError) as error:
        if "Extra data" in str(error):  # JSON lines under another suffix
            return _of_lines(path, text)
        raise UsageError(f"{path}: cannot be read: {first_line(error)}") from error
    try:
        return _of_records(path, _records(found), ())
    except _JsonError as error:
        raise UsageError(f"{path}: {error}") from error


def _records(found: Any) -> list[dict[str, Any]]:
    """Return the rows of a JSON table: an array of records, columns by name, or one of pandas' layouts."""
    if isinstance(found, list) and all(isinstance(row, dict) for row in found):
        return found
    if isinstance(found, dict):
        if isinstance(found.get("columns"), list) and isinstance(found.get("data"), list):
            names = [str(name) for name in found["columns"]]
            if all(isinstance(row, list) and len(row) == len(names) for row in found["data"]):
                return [dict(zip(names, row, strict=True)) for row in found["data"]]
        values = list(found.values())
        if len(values) == 1 and isinstance(values[0], list) and all(isinstance(row, dict) for row in values[0]):
            return _records(values[0])
        if values and all(isinstance(column, list) for column in values):
            lengths = {name: len(column) for name, column in found.items()}
            if len(set(lengths.values())) > 1:
                raise _JsonError(f"columns of unequal length: {', '.join(f'{k} {n}' for k, n in lengths.items())}")
            return [dict(zip(found, row, strict=True)) for row in zip(*values, strict=True)]
        if values and all(isinstance(column, dict) for column in values):
            keys = list(dict.fromkeys(key for column in values for key in column))
            return [{name: column.get(key) for name, column in found.items()} for key in keys]
    raise _JsonError("not a table: give an array of records, or an object with an array for each column")


def _of_records(path: Path, records: Sequence[dict[str, Any]], lines: Sequence[int]) -> ForeignTable:
    names = list(dict.fromkeys(name for record in records for name in record))
    columns = columns_of(names, path)
    data = {}
    for column in columns:
        if column.here is None:
            continue
        values = [record.get(column.there) for record in records]
        for row, value in enumerate(values):
            if isinstance(value, list | dict):
                line = f" (line {lines[row]})" if lines else ""
                raise UsageError(
                    f"{path}: row {row + 1}{line}: {column.there} = {json.dumps(value)[:_SHOWN]}: must be one text "
                    "or number"
                )
        texts = [str(value).lower() if isinstance(value, bool) else value for value in values]
        data[column.here] = pl.Series(texts, dtype=pl.String)
    return _made(path, columns, data, lines=lines)


# -- Parquet -----------------------------------------------------------------------------------------------------------


def _read_parquet(path: Path) -> ForeignTable:
    try:
        frame = pl.read_parquet(path)
    # polars panics, which is not an Exception, on some damaged bytes
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise UsageError(f"{path}: cannot be read: {first_line(error)}") from error
    columns = columns_of(frame.columns, path)
    data = {}
    for column in columns:
        if column.here is None:
            continue
        series = frame[column.there]
        if series.dtype.is_nested() or series.dtype in (pl.Binary, pl.Object):
            raise UsageError(f"{path}: column {column.there} has type {series.dtype}: must be one text or number")
        data[column.here] = series
    return _made(path, columns, data)


_READERS = {
    ".csv": _read_delimited,
    ".tsv": _read_delimited,
    ".json": _read_json,
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
    ".parquet": _read_parquet,
    ".pq": _read_parquet,
}


def _as_text(column: pl.Series) -> pl.Series:
    return column if column.dtype == pl.String else column.cast(pl.String)


def _first(marked: pl.Series) -> int | None:
    """Return the index of the first row that is marked."""
    return marked.fill_null(False).arg_max() if marked.any() else None


def _not_a_number(text: str, separator: str) -> str:
    if "," in text and separator not in (";", "\t", "|"):
        return "a comma inside a number: write a decimal point, and no thousands separator"
    if re.search(r"\d\s*[A-Za-zµ%]+$", text):
        return "not a number: put the unit into the name of the column, e.g. energy_wh"
    return "not a number; leave it empty if it is unknown"
