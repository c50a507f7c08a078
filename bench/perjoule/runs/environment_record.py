"""Schema of `environment.json`: the keys that readers of a run use, checked once when the file is read.

Every key may be absent, e.g. in runs of earlier versions and in imported ones; further keys stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import TypeAdapter


@dataclass(frozen=True, slots=True, kw_only=True)
class ProofRecord:
    """Result of the last `doctor --prove` of the meter before the run; the verdict is None if there was none."""

    verdict: str | None = None
    why: str | None = None
    digest: str | None = None
    created_utc: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterRecord:
    """The meter of the run."""

    name: str | None = None
    why: str | None = None
    notes: list[str] | None = None
    proof: ProofRecord | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CutRecord:
    """A prompt that a text encoder cut off."""

    encoder: str
    limit: int
    prompt_id: str
    tokens: int
    lost: str
    negative: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptFindingsRecord:
    """Parts of prompts without effect, for one variant."""

    variant: str
    prompts: int
    cuts: list[CutRecord]
    negative_prompt_ignored: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparability:
    """Keys that must agree if two runs are compared; further keys are compared unchecked."""

    device: str | list[str] | None = None
    models: dict[str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentRecord:
    """Keys of `environment.json` that perjoule reads."""

    created_utc: str | None = None
    perjoule: str | None = None
    suite: str | None = None
    command: list[str] | None = None
    meter: MeterRecord | None = None
    models: dict[str, str] | None = None
    packages: dict[str, str] | None = None
    commit: str | None = None
    comparability: Comparability | None = None
    comparability_key: str | None = None
    not_loaded: dict[str, str] | None = None
    prompt_findings: list[PromptFindingsRecord] | None = None
    prompts_jsonl_sha256: str | None = None
    suite_folder: str | None = None
    unlike_references: list[str] | None = None
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
    """Return the record, including further keys.

    Raises:
        ValidationError: If a key that perjoule reads has another type (from pydantic; names the key).
    """
    record_of(record)
    return dict(record)
