"""JSON lines that survive an interruption, and the time that a stage has left. Standard library only."""

from __future__ import annotations

import hashlib
import json
import re
import time
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

Record = dict[str, Any]

_UUID = re.compile(r"\b(GPU|MIG)-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", re.IGNORECASE)


def now() -> float:
    """Seconds on the clock of perjoule's meters."""
    return time.perf_counter()


def without_uuids(text: str) -> str:
    """Replace UUIDs of boards by the digests that perjoule's records use (`perjoule.text.board_digest`)."""
    return _UUID.sub(lambda found: "board-" + hashlib.sha256(found[0].encode()).hexdigest()[:12], text)


def plain(value: Any) -> Any:
    """Return records inside a value as dictionaries."""
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


class RecordFile:
    """Appends records to a file, each complete on disk before the next one."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a", encoding="utf-8")

    def write(self, kind: str, **values: Any) -> None:
        line = json.dumps({"kind": kind} | {key: plain(value) for key, value in values.items()}, default=str)
        self._file.write(without_uuids(line) + "\n")
        self._file.flush()


def read_records(path: Path) -> list[Record]:
    """Read the records of a file; none if it does not exist. A last line that was cut off is left out."""
    records = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return records


def of_kind(records: list[Record], kind: str) -> list[Record]:
    return [record for record in records if record["kind"] == kind]


class Deadline:
    """The time that a stage has left."""

    def __init__(self, seconds: float) -> None:
        self._end_s = now() + seconds

    @property
    def left_s(self) -> float:
        return self._end_s - now()
