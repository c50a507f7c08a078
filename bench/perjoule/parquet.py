"""Reads Parquet files that others wrote, unless they would fill the memory.

A few hundred kilobytes of Parquet can unpack to gigabytes, because equal values and zeros take no space. Polars does
not report how much a file unpacks to, so the sizes are added up here, from the headers of all pages: what the footer
states about them may be wrong. See `parquet.thrift` of the Apache Parquet format for the numbers of the fields.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import IO, TYPE_CHECKING, Any

from perjoule.errors import PerjouleError, RunError
from perjoule.opening import open_regular

if TYPE_CHECKING:
    import polars as pl

_MAGIC = b"PAR1"
_VALUE_BYTES = 16  # of the widest value in memory, without the characters of a text
_DELTA_BYTE_ARRAY = 7  # each text continues the one before, so that the sizes multiply
_MOST_DEPTH = 16
_MOST_HEADER_BYTES = 2**20
_MOST_FOOTER_BYTES = 64 * 2**20
# a file may unpack to this many bytes, and to this many times its own size
_MOST_BYTES, _MOST_TIMES = 2**30, 64
# allows more, in GiB, for tables that one trusts: ten million imported trials of few different values take 8 GiB
VARIABLE = "PERJOULE_TABLE_GIB"


def read_frame(
    path: Path,
    *,
    choose: Callable[[list[str]], list[str]] = list,
    only: Mapping[str, str] = MappingProxyType({}),
    follow: bool = False,
    error: type[PerjouleError] = RunError,
) -> pl.DataFrame:
    """Read a Parquet file.

    Args:
        path: The file.
        choose: Returns the names of the columns to read, given all names.
        only: Values by column: only rows that have them are read. Columns that the file lacks are ignored.
        follow: Whether the file may be a symbolic link.
        error: Class of the errors about its size, and about a link, pipe or device.

    Raises:
        PerjouleError: If it unpacks to too much, or is not a regular file; the class is `error`.
        OSError, ValueError: If it cannot be read; polars' errors are turned into ValueError.
    """
    import polars as pl  # takes a tenth of a second, so it is imported only if a table is read

    with open_regular(path, follow=follow, error=error) as file:  # polars does not accept a path that is not UTF-8
        try:
            columns = choose(list(pl.read_parquet_schema(file)))
            _require_little(unpacked_bytes(file, set(columns)), file, path, error)
            file.seek(0)
            wanted = [pl.col(name) == value for name, value in only.items() if name in columns]
            frame = pl.scan_parquet(file).filter(*wanted).select(columns).collect()
            _require_little(sum(map(_text_bytes, frame)), file, path, error)
        # polars panics, which is not an Exception, over some damaged bytes
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as fault:
            raise ValueError(str(fault)) from fault
    return frame


def unpacked_bytes(file: IO[bytes], columns: set[str]) -> int:
    """Return how much memory these columns of a Parquet file need at most, except for repeated texts.

    Raises:
        ValueError: If it is not a Parquet file.
    """
    try:
        return sum(_chunk_bytes(file, *chunk) for chunk in _chunks(_footer(file), columns))
    except (ArithmeticError, AttributeError, LookupError, TypeError) as error:
        raise ValueError(f"damaged: {error}") from error


def _chunks(footer: dict[int, Any], columns: set[str]) -> Iterator[tuple[dict[int, Any], int]]:
    """Yield facts and number of rows of each part of these columns."""
    for group in footer.get(4, ()):
        for chunk in group.get(1, ()):
            facts = chunk.get(3, {})
            if facts.get(3, [b""])[0].decode("utf-8", "replace") in columns:
                yield facts, max(group.get(3, 0), 0)


def _chunk_bytes(file: IO[bytes], facts: dict[int, Any], rows: int) -> int:
    size, seen, stated = 0, 0, int(facts.get(5, 0))
    for header in _pages(file, facts):
        data: dict[int, Any] = header.get(5) or header.get(8) or {}
        count = max(data.get(1, 0), 0)
        encoding = data.get(2 if 5 in header else 4)
        seen += count
        size += max(header.get(2, 0), 0) * (max(count, 1) if encoding == _DELTA_BYTE_ARRAY else 1)
    return size + _VALUE_BYTES * max(rows, seen, stated)


def _require_little(size: int, file: IO[bytes], path: Path, error: type[PerjouleError]) -> None:
    packed = os.fstat(file.fileno()).st_size
    if size > _MOST_BYTES + _MOST_TIMES * packed and size > _allowed_bytes(error):
        most = f"{_MOST_BYTES / 2**30:,.0f} GiB and {_MOST_TIMES} times its size"
        raise error(
            f"{path} unpacks from {packed / 2**20:,.1f} MiB to {size / 2**30:,.1f} GiB of memory, and perjoule "
            f"reads at most {most}: it is damaged, or another kind of file",
            remedy=f"if you trust it, set {VARIABLE}={math.ceil(size / 2**30)}",
        )


def _allowed_bytes(error: type[PerjouleError]) -> float:
    """Return what the environment allows; 0 if it says nothing."""
    text = os.environ.get(VARIABLE, "0")
    try:
        allowed = float(text)
    except ValueError:
        allowed = math.nan
    if not 0 <= allowed < math.inf:
        raise error(f"{VARIABLE} = {text!r}: state a number of GiB, e.g. 8")
    return allowed * 2**30


def _text_bytes(column: pl.Series) -> int:
    """Return the characters of all texts, each counted as often as it occurs."""
    import polars as pl

    while column.dtype == pl.List:
        column = column.explode()
    return int(column.str.len_bytes().sum()) if column.dtype == pl.String else 0


def _footer(file: IO[bytes]) -> dict[int, Any]:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - 8, 0))
    end = file.read(8)
    length = int.from_bytes(end[:4], "little")
    if end[4:] != _MAGIC or length > min(size - 8, _MOST_FOOTER_BYTES):
        raise ValueError("not a Parquet file, or cut short")
    file.seek(size - 8 - length)
    return _Compact(file.read(length)).struct()


def _pages(file: IO[bytes], facts: dict[int, Any]) -> Iterator[dict[int, Any]]:
    """Yield the headers of the pages of a column chunk."""
    place = facts.get(11) or facts.get(9, 0)
    end = place + facts.get(7, 0)
    while 0 <= place < end:
        file.seek(place)
        reader = _Compact(file.read(min(_MOST_HEADER_BYTES, end - place)))
        try:
            header = reader.struct()
        except ValueError:  # polars does not read it either
            return
        yield header
        place += reader.place + max(header.get(3, 0), 0)


class _Compact:
    """Reads records in Thrift's compact protocol as dictionaries by number of the field."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.place = 0

    def struct(self, depth: int = 0) -> dict[int, Any]:
        """Read a record; raises ValueError if it is damaged."""
        if depth > _MOST_DEPTH:
            raise ValueError("records are nested too deeply")
        fields: dict[int, Any] = {}
        number = 0
        while kind := self._byte():
            number = number + (kind >> 4) if kind >> 4 else self._signed()
            fields[number] = self._value(kind & 15, depth)
        return fields

    def _value(self, kind: int, depth: int, *, listed: bool = False) -> Any:
        match kind:
            case 1 | 2:  # in a list, a truth value takes a byte
                return bool(self._byte() == 1) if listed else kind == 1
            case 3:
                return self._byte()
            case 4 | 5 | 6:
                return self._signed()
            case 7:
                return self._bytes(8)
            case 8:
                return self._bytes(self._varint())
            case 9 | 10:
                head = self._byte()
                count = head >> 4 if head >> 4 < 15 else self._varint()
                return list(self._values(head & 15, count, depth))
            case 12:
                return self.struct(depth + 1)
        raise ValueError(f"unknown type {kind}")

    def _values(self, kind: int, count: int, depth: int) -> Iterable[Any]:
        if depth > _MOST_DEPTH or count > len(self._content) - self.place:
            raise ValueError("a list is longer than the file")
        return (self._value(kind, depth + 1, listed=True) for _ in range(count))

    def _byte(self) -> int:
        return self._bytes(1)[0]

    def _bytes(self, count: int) -> bytes:
        if count > len(self._content) - self.place:
            raise ValueError("cut short")
        self.place += count
        return self._content[self.place - count : self.place]

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value
            if shift > 63:
                raise ValueError("a number is too long")

    def _signed(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)
