"""Prompt sets: text, TSV, CSV or JSONL, in an order in which every prefix is a stratified sample."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections import defaultdict
from pathlib import Path

from perjoule.errors import SuiteError
from perjoule.registry import merged_files
from perjoule.types import Prompt, PromptSource

_MAX_CHARACTERS = 20_000


def prompt_id(text: str) -> str:
    """The first ten hex digits of the SHA-256 of the prompt: the same prompt has the same id in every set."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:10]


def load_prompts(source: PromptSource, *, where: str) -> tuple[Prompt, ...]:
    """Read a prompt set and take its first `limit` prompts in stratified hash order.

    Categories take turns, and inside a category the SHA-256 of the prompt decides. Limits therefore nest: the first 16
    are among the first 64, and each prefix has every category in its share.

    Args:
        source: `builtin:NAME` or a path to .txt (a prompt a line), .tsv, .csv (header row) or .jsonl.
        where: Names suite and key in messages.

    Raises:
        SuiteError: If the source is unknown, unreadable, empty, or lacks the column.
    """
    path = _resolve(source.source, where)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SuiteError(f"{where}: {path} cannot be read as UTF-8 text: {error}") from error
    rows = _rows(text, path, source.column, where)
    unique = {row: category for row, category in reversed(rows) if row.strip()}
    if not unique:
        raise SuiteError(f"{where}: {path} holds no prompt: put one on each line")
    for row in unique:
        if len(row) > _MAX_CHARACTERS:
            raise SuiteError(f"{where}: {path}: a prompt of {len(row):,} characters: at most {_MAX_CHARACTERS:,}")
    ordered = _stratified([Prompt(prompt_id=prompt_id(t), text=t, category=c) for t, c in unique.items()])
    if source.limit is not None and source.limit > len(ordered):
        raise SuiteError(f"{where}: limit = {source.limit}: {path} holds {len(ordered)} distinct prompts")
    return tuple(ordered[: source.limit])


def _resolve(source: str, where: str) -> Path:
    if source.startswith("builtin:"):
        files = merged_files("prompts")
        name = source.removeprefix("builtin:")
        if name not in files:
            known = ", ".join(f"builtin:{n}" for n in sorted(files))
            raise SuiteError(f"{where} = {source!r}: unknown prompt set; known: {known}")
        return Path(files[name])
    path = Path(source).expanduser()
    if not path.is_file():
        raise SuiteError(f"{where} = {source!r}: no such file, and no builtin:NAME")
    return path


def _rows(text: str, path: Path, column: str, where: str) -> list[tuple[str, str]]:
    """(prompt, category) of every row."""
    if path.suffix == ".jsonl":
        try:
            records = [json.loads(line) for line in text.splitlines() if line.strip()]
        except json.JSONDecodeError as error:
            raise SuiteError(f"{where}: {path} is not JSON lines: {error}") from error
        if any(not isinstance(record, dict) for record in records):
            raise SuiteError(f"{where}: {path}: every line must be a JSON object with the key {column!r}")
    elif path.suffix in (".tsv", ".csv"):
        # TSV sets quote nothing: a prompt may hold a lone quotation mark
        lines = io.StringIO(text, newline="")
        tsv = path.suffix == ".tsv"
        records = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE) if tsv else csv.DictReader(lines))
    else:
        return [(line.strip(), "") for line in text.splitlines()]
    found = []
    for number, record in enumerate(records, 1):
        lowered = {str(key).lower(): value for key, value in record.items()}
        if column.lower() not in lowered:
            raise SuiteError(
                f"{where}: {path}, row {number}: no column {column!r}: it has {', '.join(map(str, record))}"
            )
        value, category = lowered[column.lower()], lowered.get("category")
        if not isinstance(value, str):
            raise SuiteError(f"{where}: {path}, row {number}: {column} = {value!r} is not text")
        found.append((value.strip(), str(category or "")))
    return found


def _stratified(prompts: list[Prompt]) -> list[Prompt]:
    queues: dict[str, list[Prompt]] = defaultdict(list)
    for prompt in sorted(prompts, key=lambda p: p.prompt_id, reverse=True):
        queues[prompt.category].append(prompt)
    ordered = []
    while queues:
        for category in sorted(queues):
            ordered.append(queues[category].pop())
            if not queues[category]:
                del queues[category]
    return ordered
