"""The shape of `environment.json`: what readers of a run rely on, checked once where the file is read.

Every key but `schema` may be absent, as in runs of earlier versions and in imported ones; further keys stay as they are.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, TypedDict

if TYPE_CHECKING:
    from pydantic import TypeAdapter


class Meter(TypedDict, total=False):
    """The meter that was taken."""

    name: str
    why: str
    notes: list[str]


class Cut(TypedDict):
    """A prompt that a text encoder cut."""

    encoder: str
    limit: int
    prompt_id: str
    tokens: int
    lost: str
    negative: bool


class Findings(TypedDict):
    """What became of the prompts of a variant."""

    variant: str
    prompts: int
    cuts: list[Cut]
    negative_prompt_ignored: bool


class EnvironmentRecord(TypedDict, total=False):
    """The keys that are read again."""

    created_utc: str | None
    perjoule: str | None
    suite: str
    command: list[str] | None
    meter: Meter | None
    models: dict[str, str] | None
    packages: dict[str, str]
    commit: str | None
    comparability: dict[str, Any]
    comparability_key: str | None
    not_loaded: dict[str, str]
    prompt_findings: list[Findings]
    prompts_jsonl_sha256: str | None
    suite_folder: str | None
    imported_from: str
    import_notes: list[str]


@cache
def _reader() -> TypeAdapter[EnvironmentRecord]:
    from pydantic import TypeAdapter

    return TypeAdapter(EnvironmentRecord)


def checked(record: Any) -> dict[str, Any]:
    """The record itself, with further keys.

    Raises:
        ValidationError: If a key that is read again has another type (pydantic's; names the key).
    """
    _reader().validate_python(record)
    return dict(record)
