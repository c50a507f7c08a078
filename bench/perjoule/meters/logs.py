"""Reads power logs: nvidia-smi, DCGM, codecarbon, Zeus, perjoule's own samples, and any CSV with time and power.

2026/11/28 16:00:01.250, 0, 126.97 W        nvidia-smi --query-gpu=timestamp,index,power.draw --format=csv -lms 50
1764345601.25,126.97,88.1                   Zeus before 0.12: no header, a column per board
GPU 0     126.970                           dcgmi dmon -e 155 (157: instant): no times, one row per interval
DCGM_FI_DEV_POWER_USAGE{gpu="0"} 126.97 1764345601250
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from math import isfinite
from pathlib import Path
from statistics import median
from typing import Any, cast, get_args

from perjoule.errors import MeterError, RunError
from perjoule.meters.samples import Sample
from perjoule.opening import MOST_TEXT_BYTES, content_of
from perjoule.parquet import read_frame
from perjoule.text import board_digest
from perjoule.types import PROVENANCES, Boundary, Provenance, weakest

FORMATS = "a CSV or Parquet file with a column of times (t_s, timestamp) and one of power (power_w, power.draw)"
_TIMES = ("t_s", "timestamp", "time", "time_s", "datetime", "date", "t", "seconds", "time_ms", "timestamp_ms")
_BOARDS = ("uuid", "gpu_uuid", "index", "gpu", "gpu_id", "gpu_index", "board", "device", "pci.bus_id")
_POWER = re.compile(r"power|watt|^p$|^w$|_m?w$")
_NOT_POWER = re.compile(r"limit|management|state|cap|energy|factor")
_FIRST_CHOICE = ("power_w", "power.draw.instant", "power_draw_instant_w", "power.draw", "power_draw_w")
_NUMBER = re.compile(r"([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*(mW|kW|W|ms|us|s)?", re.IGNORECASE)
_DECIMAL_COMMA = re.compile(r"^([-+]?\d+),(\d+(?:\s*[a-zA-Z]*))$")
_UNIT = re.compile(r"\s*[\[(]\s*(\w+)\s*[\])]\s*$")
_MISSING = {"", "n/a", "[n/a]", "na", "nan", "none", "null", "err!", "[unknown error]", "[not supported]", "-"}
_FACTOR = {"mw": 1e-3, "kw": 1e3, "w": 1.0}
_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6}
_MOST_BOARDS = 16  # of one machine
_GAP = 10.0  # times the usual time between samples
_EPOCHS = ((1e17, 1e-9), (1e14, 1e-6), (1e11, 1e-3), (1e8, 1.0))  # since 1970, in ns, us, ms, s
_PROMETHEUS = re.compile(r"^DCGM_FI_DEV_POWER_USAGE\{(.*)\}\s+(\S+)(?:\s+(\d+))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerLog:
    """A power log of one board.

    Attributes:
        samples: Readings in order of time; those without a power are missing.
        column: Name of the power column.
        columns: Names of all power columns of the file.
        board: Index of the board, or digest of its UUID; None if the file does not say.
        begins_utc_s: Wall clock at time 0, in s since 1970; None if the times are relative.
        source: Description of the source.
        boundary: The part of the system that the power covers.
        provenance: How the power was obtained.
        notes: What was left out or assumed.
    """

    samples: tuple[Sample, ...]
    column: str
    columns: tuple[str, ...]
    board: str | None
    begins_utc_s: float | None
    source: str
    boundary: Boundary
    provenance: Provenance
    notes: tuple[str, ...] = ()

    @property
    def good(self) -> list[tuple[float, float]]:
        """(time in s, W) of the readings that are there."""
        return [(one.t_s, one.power_w) for one in self.samples if one.power_w is not None]

    def time_s(self, text: str) -> float:
        """Return seconds of the log from seconds or a wall-clock time. Raises ValueError if it is neither."""
        try:
            return float(text)
        except ValueError:
            if self.begins_utc_s is None:
                raise
            return _stamp(text) - self.begins_utc_s


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    """Cells by column name, the places of the rows in the file, and what was noticed."""

    rows: list[dict[str, Any]]
    columns: list[str]
    factors: dict[str, float]
    source: str
    notes: list[str]
    first_line: int = 1


def read_log(
    file: Path,
    *,
    column: str | None = None,
    board: str | None = None,
    interval_s: float | None = None,
    for_what: str = "log",
) -> PowerLog:
    """Read a power log.

    Args:
        file: The log.
        column: Power column; needed if there are several that do not show the same power.
        board: Index or UUID (or the beginning of it, or its digest) of a board; needed if there are several.
        interval_s: Time between two rows of a log without times (`dcgmi dmon`).
        for_what: First word of error messages.

    Raises:
        MeterError: With file, row and column if the log cannot be used.
    """
    try:
        return _log(file, _table(file, interval_s), column, board)
    except _BadLogError as error:
        raise MeterError(f"{for_what}: {file}{error}") from error


class _BadLogError(Exception):
    """The rest of an error message, after the name of the file."""


def _log(file: Path, table: _Table, column: str | None, board: str | None) -> PowerLog:
    if not table.columns:
        raise _BadLogError(f" has no rows; give {FORMATS}")
    time_column = next((name for name in _TIMES if name in table.columns), None)
    powers = [name for name in table.columns if _is_power(name)] or _numbered(table)
    if time_column is None or (not powers and column is None):
        lacks = [word for word, lack in (("times", time_column is None), ("power", not powers)) if lack]
        raise _BadLogError(
            f" has no column of {' and '.join(lacks)}; it has {', '.join(table.columns) or 'none'}; give {FORMATS}"
        )
    rows, name, board_notes = _rows_of_board(table, board)
    is_column = name is not None and name in table.columns  # Zeus: a column per board
    chosen = str(name) if is_column and column is None else _chosen(powers, table, column)
    samples, zero_s, notes = _samples(rows, time_column, chosen, table)
    readings = [one for one in samples if one.power_w is not None]
    if len(readings) < 2:
        raise _BadLogError(f" has {len(readings)} samples with a power, at least 2 are needed; give {FORMATS}")
    if not samples[-1].t_s > samples[0].t_s:
        raise _BadLogError(" has no duration: every trial has a single sample")
    runs = {row.get("run_id") for row in rows} if table.source == "codecarbon" else set()
    if len(runs) > 1:
        raise _BadLogError(
            f" has rows of {len(runs)} runs of codecarbon; a row sums up a run (duration, gpu_energy in kWh) and is "
            "not a reading of power: keep the rows of one run_id, or use gpu_energy"
        )
    boundaries = _words(rows, "boundary", get_args(Boundary)) or {_boundary(table)}
    if len(boundaries) > 1:
        raise _BadLogError(f" mixes boundaries {', '.join(sorted(boundaries))}; split it")
    sources = sorted({str(row["source"]) for row in rows if row.get("source")})
    return PowerLog(
        samples=tuple(samples),
        column=chosen,
        columns=tuple(powers),
        board=board_digest(name) if name and name.upper().startswith(("GPU-", "MIG-")) else name,
        begins_utc_s=zero_s,
        source=", ".join(sources) or table.source,
        boundary=cast(Boundary, boundaries.pop()),
        provenance=weakest(_words(rows, "provenance", PROVENANCES)) or _provenance(table),
        notes=(*table.notes, *board_notes, *notes),
    )


# -- files ---------------------------------------------------------------------------------------------------------


def _table(file: Path, interval_s: float | None) -> _Table:
    if not file.is_file():
        raise _BadLogError(f" is not a file; give {FORMATS}")
    if file.suffix.lower() in {".parquet", ".pq"}:
        return _parquet(file)
    try:
        raw = content_of(file, MOST_TEXT_BYTES, follow=True)
        text = raw.decode("utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except (OSError, RunError, UnicodeError) as error:
        raise _BadLogError(f" cannot be read: {error}; give {FORMATS}") from error
    if "\0" in text:
        raise _BadLogError(f" cannot be read: it is not text; give {FORMATS}")
    if "DCGM_FI_DEV_POWER_USAGE{" in text:
        return _prometheus(text)
    if re.search(r"^#\s*Entity", text, re.MULTILINE):
        return _dmon(text, interval_s)
    return _csv(text)


def _parquet(file: Path) -> _Table:
    try:
        table = read_frame(file, follow=True)
    except (OSError, RunError, ValueError) as error:
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__  # the other lines are about polars
        raise _BadLogError(f" cannot be read: {reason}; give {FORMATS}") from error
    rows, columns = table.to_dicts(), list(table.columns)
    return _Table(rows=rows, columns=columns or ["none"], factors={}, source="unknown source", notes=[])


def _csv(text: str) -> _Table:
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if not lines:
        return _Table(rows=[], columns=[], factors={}, source="", notes=[])
    mark = next((mark for mark in (",", ";", "\t") if mark in lines[0]), ",")
    try:
        cells = [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=mark)]
    except csv.Error as error:
        raise _BadLogError(f" cannot be read: {error}; give {FORMATS}") from error
    if mark == ";":
        cells = [[_DECIMAL_COMMA.sub(r"\1.\2", cell) for cell in row] for row in cells]
    first = cells[0][0]
    starts = _is_time(first) or _NUMBER.fullmatch(first) is not None
    has_header = not starts and not any(_is_reading(cell) for cell in cells[0])
    header = [name.strip() for name in cells[0]] if has_header else _invented(cells[0])
    body = cells[1:] if has_header else cells
    notes = []
    whole = text.endswith("\n")
    if body and (len(body[-1]) < len(header) or (not whole and _is_cut(body[-1], body[:-1]))):
        notes.append(f"the last line, {lines[-1][:40]!r}, is truncated and was left out")
        body = body[:-1]
    for number, row in enumerate(body, start=1):
        if len(row) != len(header):
            raise _BadLogError(
                f" cannot be read: sample {number} has {len(row)} cells, the header has {len(header)}; give {FORMATS}"
            )
    names, factors = _names(header)
    again = sorted({name for name in names if names.count(name) > 1})
    if again:
        raise _BadLogError(f" has two columns {again[0]!r}; give {FORMATS}")
    smi = not has_header or any(re.match("power.draw", name) for name in names)
    codecarbon = {"emissions", "run_id"} <= set(names) or {"cpu_power", "ram_power"} <= set(names)
    source = "nvidia-smi" if smi else "codecarbon" if codecarbon else "unknown source"
    return _Table(
        rows=[dict(zip(names, row, strict=True)) for row in body],
        columns=names,
        factors=factors,
        source=source,
        notes=notes,
    )


def _is_reading(cell: str) -> bool:
    """Whether a cell of the first row is a reading, not the index of a board in a header."""
    found = _NUMBER.fullmatch(cell)
    return found is not None and (found[2] is not None or "." in cell)


def _invented(cells: Sequence[str]) -> list[str]:
    """Names for the columns of a file without a header: those of nvidia-smi's query, as far as cells show it."""
    names: list[str] = []
    numbers = [i for i, cell in enumerate(cells) if _NUMBER.fullmatch(cell)]
    if len(numbers) == len(cells) > 2 and all("." in cell for cell in cells) and float(cells[0]) > _EPOCHS[-1][0]:
        return ["timestamp", *map(str, range(len(cells) - 1))]  # Zeus
    watts = [i for i in numbers if cells[i].lower().endswith("w")]
    floats = [i for i in numbers if "." in cells[i]]
    power = watts or floats or numbers[-1:]
    for i, cell in enumerate(cells):
        if "timestamp" not in names and (_is_time(cell) or (i == 0 and i in numbers and len(numbers) > 1)):
            names.append("timestamp")
            power = [each for each in power if each != i]
        elif cell.upper().startswith("GPU-"):
            names.append("uuid")
        elif i in power:
            names.append("power.draw" if len(power) == 1 else f"power{i + 1}")
        elif i in numbers and "index" not in names and re.fullmatch(r"\d{1,3}", cell):
            names.append("index")
        else:
            names.append(f"column{i + 1}")
    return names


def _is_cut(last: Sequence[str], others: Sequence[Sequence[str]]) -> bool:
    """Whether the last line, which has no end, may lack its last characters."""
    if not others or len(last) != len(others[-1]):
        return True
    unit = re.sub(r"[\d.+-]", "", others[-1][-1])
    return re.sub(r"[\d.+-]", "", last[-1]) != unit or len(last[-1]) < len(others[-1][-1])


def _names(header: Sequence[str]) -> tuple[list[str], dict[str, float]]:
    """Column names without units, in small letters, and the factors to W."""
    names, factors = [], {}
    for title in header:
        unit = _UNIT.search(title)
        name = _UNIT.sub("", title).strip().lower()
        names.append(name)
        if unit and unit[1].lower() in _FACTOR:
            factors[name] = _FACTOR[unit[1].lower()]
        elif name.endswith("_mw"):
            factors[name] = 1e-3
    return names, factors


def _dmon(text: str, interval_s: float | None) -> _Table:
    if interval_s is None:
        raise _BadLogError(
            ": dcgmi dmon writes no times; use `perjoule integrate --interval SECONDS` (its -d in ms, 1000 by default)"
        )
    header: list[str] = []
    rows: list[dict[str, Any]] = []
    seen: dict[str, int] = {}
    for line in text.splitlines():
        words = line.split()
        if re.match(r"#\s*Entity", line):
            header = line.lstrip("# ").upper().split()[1:]
        elif words[:1] == ["GPU"] and len(words) >= 2 + len(header):
            turn = seen[words[1]] = seen.get(words[1], -1) + 1
            rows.append({"t_s": turn * interval_s, "gpu": words[1], **dict(zip(header, words[2:], strict=False))})
    names = {"POWINST": "power.draw.instant", "POWER": "power.draw"}
    power = next((name for name in names if name in header), None)
    if power is None:
        raise _BadLogError(f" has no column of power; it has {', '.join(header)}; ask dcgmi for field 155 or 157")
    rows = [{"t_s": row["t_s"], "gpu": row["gpu"], names[power]: row[power]} for row in rows]
    note = f"dcgmi dmon writes no times: one row per {interval_s:g} s, as stated"
    return _Table(rows=rows, columns=["t_s", "gpu", names[power]], factors={}, source="dcgmi dmon", notes=[note])


def _prometheus(text: str) -> _Table:
    rows = []
    for found in filter(None, map(_PROMETHEUS.match, text.splitlines())):
        labels = dict(re.findall(r'(\w+)="([^"]*)"', found[1]))
        if found[3] is None:
            raise _BadLogError(" has values without times; store the scrapes with timestamps")
        uuid = labels.get("UUID") or labels.get("gpu")
        rows.append({"timestamp": found[3], "uuid": uuid, "index": labels.get("gpu"), "power.draw": found[2]})
    rows.sort(key=lambda row: (str(row["uuid"]), float(str(row["timestamp"]))))
    names = ["timestamp", "uuid", "index", "power.draw"]
    return _Table(rows=rows, columns=names, factors={}, source="dcgm-exporter", notes=[])


# -- columns and boards --------------------------------------------------------------------------------------------


def _is_power(name: str) -> bool:
    return bool(_POWER.search(name)) and not _NOT_POWER.search(name) and name not in _TIMES and name != "power_source"


def _numbered(table: _Table) -> list[str]:
    """Columns that are named after a board's index, as in Zeus' power log."""
    return [name for name in table.columns if re.fullmatch(r"(gpu)?\d+", name)]


def _chosen(powers: Sequence[str], table: _Table, column: str | None) -> str:
    if column is not None:
        plain = _names([column])[0][0]
        if plain in table.columns or column in table.columns:
            return plain if plain in table.columns else column
        raise _BadLogError(f" has no column {column!r}; it has {', '.join(table.columns)}")
    preferred = next((name for name in _FIRST_CHOICE if name in powers), None)
    if preferred is None and len(powers) > 1:
        raise _BadLogError(f" has several columns of power: {', '.join(powers)}; choose one with --column")
    return preferred or powers[0]


def _rows_of_board(table: _Table, board: str | None) -> tuple[list[dict[str, Any]], str | None, list[str]]:
    """Return the rows of one board, and its name: an index, a UUID, or a column that is named after an index."""
    numbered = _numbered(table)
    if numbered and not any(_is_power(name) for name in table.columns):
        return table.rows, _one_board({name: name for name in numbered}, board), []
    names = [name for name in _BOARDS if name in table.columns and not _is_power(name)]
    if not names:
        if board is not None:
            raise _BadLogError(f" does not say which board a row belongs to; it has {', '.join(table.columns)}")
        return table.rows, None, []
    column = names[0]
    boards = {str(row[column]): " ".join(str(row[name]) for name in names) for row in table.rows if row[column]}
    chosen = _one_board(boards, board)
    return [row for row in table.rows if str(row[column]) == chosen], chosen, []


def _one_board(boards: dict[str, str], board: str | None) -> str | None:
    if board is None:
        if len(boards) > 1:
            raise _BadLogError(f" mixes {len(boards)} boards: {', '.join(boards)}; choose one with --board")
        return next(iter(boards), None)
    for name, others in boards.items():
        words = others.split()
        if board in (*words, board_digest(name)) or (len(board) >= 5 and name.startswith(board)):
            return name
    raise _BadLogError(f" has no board {board!r}; it has {', '.join(boards)}")


# -- cells ---------------------------------------------------------------------------------------------------------


def _samples(
    rows: Sequence[dict[str, Any]], time_column: str, column: str, table: _Table
) -> tuple[list[Sample], float | None, list[str]]:
    """Return samples, the wall clock at time 0, and notes. Trials (own samples) are joined in the order of the file."""
    samples: list[Sample] = []
    offset_s, trial, last_s, zero_s, repeated = 0.0, object(), 0.0, None, 0
    factor = table.factors.get(column, 1.0)
    readings: list[tuple[float, float | None]] = []
    for number, row in enumerate(rows, start=1):
        t_s, is_wall = _time(row[time_column], time_column, number)
        power_w = _power(row[column], column, number, factor)
        if number == 1:
            zero_s = t_s if is_wall else None
        t_s -= zero_s or 0.0
        is_first = number == 1 or row.get("trial_id") != trial
        if is_first:
            trial = row.get("trial_id")
            offset_s = 0.0 if trial is None else (samples[-1].t_s if samples else 0.0) - t_s
        elif t_s < last_s:
            raise _BadLogError(
                f", sample {number}: {time_column} goes back from {last_s:.6g} s to {t_s:.6g} s; times must increase "
                "(was the clock set, or are there several boards?)"
            )
        readings.append((t_s + offset_s, power_w))
        if t_s == last_s and not is_first:
            repeated += 1
            continue
        last_s = t_s
        samples.append(Sample(t_s=t_s + offset_s, power_w=power_w))
    _require_one_board([(t_s, power_w) for t_s, power_w in readings if power_w is not None])
    notes = [f"{repeated} samples repeat the time of the one before and were left out"] if repeated else []
    return samples, zero_s, notes + _gaps(samples)


def _require_one_board(readings: Sequence[tuple[float, float]]) -> None:
    """Raise if the readings of several boards alternate and are not named.

    They come in groups: the boards one after the other, then a pause; and power is like that of the group before, not
    like that of the board before.
    """
    if len(readings) < 2 * _MOST_BOARDS:
        return
    waits = [other_s - one_s for (one_s, _), (other_s, _) in pairwise(readings)]
    powers = [power_w for _, power_w in readings]
    near_w = median(abs(other - one) for one, other in pairwise(powers))
    for count in range(2, _MOST_BOARDS + 1):
        same_w = median(abs(other - one) for one, other in zip(powers, powers[count:], strict=False))
        within = [wait for i, wait in enumerate(waits) if (i + 1) % count]
        if near_w > 5 * same_w and median(waits[count - 1 :: count]) > 5 * median(within):
            raise _BadLogError(
                f" mixes the readings of {count} boards and does not name them; log index or uuid too, e.g. nvidia-smi "
                "--query-gpu=timestamp,index,power.draw"
            )


def _gaps(samples: Sequence[Sample]) -> list[str]:
    """Return a note about the time without samples, if there is much of it at once."""
    waits = sorted((other.t_s - one.t_s, one.t_s) for one, other in pairwise(samples))
    if not waits or waits[-1][0] <= max(_GAP * waits[len(waits) // 2][0], 0.5):
        return []
    longest_s, since_s = waits[-1]
    return [f"no samples for {longest_s:.3g} s after {since_s:.3f} s (nothing was logged, or the clock was set)"]


def _power(value: Any, column: str, number: int, factor: float) -> float | None:
    if value is None or str(value).strip().lower() in _MISSING:
        return None
    found = _NUMBER.fullmatch(str(value).strip())
    if found is None or not isfinite(float(found[1])):
        raise _BadLogError(f", sample {number}: {column} is {value!r}, a number of W is needed")
    power_w = float(found[1]) * (_FACTOR.get(found[2].lower(), 1.0) if found[2] else factor)
    if power_w < 0:
        raise _BadLogError(f", sample {number}: {column} is {power_w:g}, below 0")
    return power_w


def _time(value: Any, column: str, number: int) -> tuple[float, bool]:
    """Return seconds, and whether they are those of a wall clock."""
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp(), True
    text = str(value).strip()
    found = _NUMBER.fullmatch(text)
    if found is not None and (found[2] or "").lower() in _SECONDS:
        return float(found[1]) * _SECONDS[found[2].lower()], False
    try:
        number_s = float(text)
    except ValueError:
        try:
            return _stamp(text), True
        except ValueError:
            number_s = float("nan")
    if not isfinite(number_s):
        raise _BadLogError(f", sample {number}: {column} is {value!r}, seconds or a timestamp are needed")
    for least, factor in _EPOCHS:
        if number_s > least:
            return number_s * factor, True
    return number_s * (1e-3 if column.endswith("_ms") else 1.0), False


def _stamp(text: str) -> float:
    moment = datetime.fromisoformat(text.strip().replace("/", "-"))
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _is_time(cell: str) -> bool:
    try:
        _stamp(cell)
    except ValueError:
        return False
    return not cell.isdigit()


def _words(rows: Sequence[dict[str, Any]], column: str, allowed: Sequence[str]) -> set[str]:
    """Return the distinct texts of a column, empty if the column is missing."""
    words = {str(row[column]) for row in rows if row.get(column) not in (None, "")}
    strange = sorted(words.difference(allowed))
    if strange:
        raise _BadLogError(f": {column} is {strange[0]!r}, must be one of {', '.join(allowed)}")
    return words


def _boundary(table: _Table) -> Boundary:
    return "gpu-board" if table.source in ("nvidia-smi", "dcgmi dmon", "dcgm-exporter") else "estimate"


def _provenance(table: _Table) -> Provenance:
    known: dict[str, Provenance] = {"nvidia-smi": "measured", "dcgmi dmon": "measured", "dcgm-exporter": "measured"}
    return known.get(table.source, "estimated" if table.source == "codecarbon" else "simulated")
