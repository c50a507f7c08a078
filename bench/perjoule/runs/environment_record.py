"""The shape of `environment.json`: what readers of a run rely on, checked once where the file is read.

Every key may be absent, as in runs of earlier versions and in imported ones; further keys stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import TypeAdapter


@dataclass(frozen=True, slots=True, kw_only=True)
class Meter:
    """The meter that was taken."""

    name: str | None = None
    why: str | None = None
    notes: list[str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """A prompt that a text encoder cut."""

    encoder: str
    limit: int
    prompt_id: str
    tokens: int
    lost: str
    negative: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What became of the prompts of a variant."""

    variant: str
    prompts: int
    cuts: list[Cut]
    negative_prompt_ignored: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparability:
    """What must agree before two runs may be compared; further keys are compared as they are."""

    device: str | list[str] | None = None
    models: dict[str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentRecord:
    """The keys that are read again."""

    created_utc: str | None = None
    perjoule: str | None = None
    suite: str | None = None
    command: list[str] | None = None
    meter: Meter | None = None
    models: dict[str, str] | None = None
    packages: dict[str, str] | None = None
    commit: str | None = None
    comparability: Comparability | None = None
    comparability_key: str | None = None
    not_loaded: dict[str, str] | None = None
    prompt_findings: list[Findings] | None = None
    prompts_jsonl_sha256: str | None = None
    suite_folder: str | None = None
    imported_from: str | None = None
    sha256: str | None = None
    import_notes: list[str] | None = None


@cache
def _reader() -> TypeAdapter[EnvironmentRecord]:
    from pydantic import TypeAdapter

    return TypeAdapter(EnvironmentRecord)


def record_of(environment: dict[str, Any]) -> EnvironmentRecord:
    """Return the keys that are read again."""
    return _reader().validate_python(environment)


def checked(record: Any) -> dict[str, Any]:
    """The record itself, with further keys.

    Raises:
        ValidationError: If a key that is read again has another type (pydantic's; names the key).
    """
    record_of(record)
    return dict(record)
