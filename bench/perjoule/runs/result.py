"""The keys of `result.json`, which report writers store next to the page, that are read again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from perjoule.errors import RunError
from perjoule.opening import content_of


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredChoices:
    """`chosen` is the cell that the report recommends; None if it recommends none."""

    chosen: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredResult:
    """`verdict` is `no-gate` for a report without a baseline."""

    headline: str = ""
    verdict: str = ""
    choices: StoredChoices | None = None


_RESULT = TypeAdapter(StoredResult)


def stored_result(folder: Path) -> StoredResult:
    """Return the result of a run's last report; empty if there is none that can be read."""
    try:
        return _RESULT.validate_json(content_of(folder / "result.json"))
    except (OSError, ValueError, RunError):
        return StoredResult()
