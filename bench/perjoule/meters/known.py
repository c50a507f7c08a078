"""What was measured about a board, kept for later runs on the same machine: one JSON file per board and subject.

They are stored under `~/.local/state/perjoule/boards/BOARD/SUBJECT.json` (change it with `PERJOULE_STATE` or
`XDG_STATE_HOME`). BOARD is the digest of the board's UUID, so a folder of one board is of no use to another.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from perjoule.errors import MeterError, first_line
from perjoule.files import replacing
from perjoule.meters.identity import cpu_name

if TYPE_CHECKING:
    from perjoule.meters.base import BaseMeter

Record = TypeVar("Record")


def state_folder() -> Path:
    """Return the folder for what perjoule remembers; it may not exist."""
    chosen = os.environ.get("PERJOULE_STATE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "perjoule"


def file_of(board: str, subject: str) -> Path:
    """Return the file about a board, named by its digest."""
    return state_folder() / "boards" / re.sub(r"[^\w.-]", "_", board) / f"{subject}.json"


def subject(meter: BaseMeter[Any]) -> str:
    """Return what a meter's properties are stored under: the digest of its board, or the meter and the CPU."""
    if len(meter.facts) == 1:
        return meter.facts[0].digest
    return f"{meter.name}-{hashlib.sha256(cpu_name().encode()).hexdigest()[:12]}"


def remember(board: str, subject: str, record: object) -> Path:
    """Store a frozen record about a board and return the file. Raises MeterError if it cannot be written."""
    from pydantic import TypeAdapter  # imported here, because opening a meter should not load it

    file = file_of(board, subject)
    try:
        with replacing(file) as stream:
            stream.write(TypeAdapter(type(record)).dump_json(record, indent=2) + b"\n")
    except OSError as error:
        raise MeterError(f"{error.filename or file} cannot be written: {error.strerror}; set PERJOULE_STATE") from error
    return file


def recall(board: str, subject: str, kind: type[Record]) -> Record | None:
    """Return the stored record about a board; None without one.

    Raises:
        MeterError: The file is damaged or was written by another version; the message says how to remove it.
    """
    file = file_of(board, subject)
    try:
        stored = file.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise MeterError(f"{file} cannot be read: {error.strerror}") from error
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(kind).validate_json(stored)
    except ValidationError as error:
        raise MeterError(f"{file} is damaged ({first_line(error)}); delete it and measure the board again") from error
