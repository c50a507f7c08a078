"""Reads prompts from files: text, TSV, CSV, JSON, JSON lines, Parquet, and captions of COCO."""

from __future__ import annotations

import csv
import io
import json
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perjoule.errors import SuiteError
from perjoule.files import decode_text
from perjoule.opening import MOST_TEXT_BYTES, content_of, open_regular, require_few_containers, require_size
from perjoule.parquet import read_frame
from perjoule.prompts.sampling import PromptRow

SUFFIXES = (".txt", ".tsv", ".csv", ".json", ".jsonl", ".ndjson", ".parquet")
_CATEGORY, _CHALLENGE = "category", "challenge"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Location of the prompts in a file.

    Attributes:
        column: Column of the prompt, in tables.
        category: Column of the first stratum; a table without this column has no such stratum.
        challenge: Column of the second stratum, likewise.
        fixed_category: Category of all prompts of the file, for sets with one file per category.
        member: File inside a zip archive.
    """

    column: str = "prompt"
    category: str = _CATEGORY
    challenge: str = _CHALLENGE
    fixed_category: str = ""
    member: str = ""


def read_rows(path: Path, layout: Layout, where: str) -> list[PromptRow]:
    """Return all rows of a file, in the format of its suffix; an unknown suffix means text with one prompt per line.

    Raises:
        SuiteError: The file cannot be read; the message names file and row.
    """
    name = Path(layout.member).name or path.name
    head = f"{where}: {path}"
    if Path(name).suffix == ".parquet":
        return _from_records(_parquet(path, layout, head), layout, name, head)
    text = _text(path, layout.member, head)
    match Path(name).suffix:
        case ".jsonl" | ".ndjson":
            records: Iterable[Any] = _json_lines(text, head)
        case ".json":
            records = _json_records(text, layout, head)
        case ".tsv" | ".csv" as suffix:
            records = _table(text, suffix, head)
        case _:
            lines = text.split("\n")
            return [
                PromptRow(text=line, category=layout.fixed_category, place=f"line {number} of {name}")
                for number, line in enumerate(lines, 1)
            ]
    return _from_records(records, layout, name, head)


def _text(path: Path, member: str, head: str) -> str:
    try:
        if member:
            with (
                open_regular(path, follow=True, error=SuiteError) as file,
                zipfile.ZipFile(file) as archive,
                archive.open(member) as opened,
            ):
                data = opened.read(MOST_TEXT_BYTES + 1)
            require_size(len(data), MOST_TEXT_BYTES, head, SuiteError)
        else:
            data = content_of(path, MOST_TEXT_BYTES, follow=True, error=SuiteError)
    # an encrypted member raises RuntimeError, an unknown compression its subclass NotImplementedError
    except (OSError, EOFError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise SuiteError(f"{head} cannot be read: {error}") from error
    return decode_text(data, head, SuiteError)


def _json_lines(text: str, head: str) -> list[Any]:
    records = []
    # not splitlines, which also splits at U+2028 and others that JSON strings may contain
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            require_few_containers(line)
            records.append(json.loads(line))
        except (ValueError, RecursionError) as error:
            raise SuiteError(f"{head} is not JSON lines: line {number}: {error}") from error
    return records


def _json_records(text: str, layout: Layout, head: str) -> list[Any]:
    try:
        require_few_containers(text)
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SuiteError(f"{head} is not JSON: {error}") from error
    if isinstance(content, dict) and isinstance(content.get("annotations"), list):
        return _one_caption_each(content["annotations"], head)
    if isinstance(content, list):
        return [{layout.column: entry} if isinstance(entry, str) else entry for entry in content]
    raise SuiteError(f"{head}: must be a list of texts or objects, or COCO's captions")


def _one_caption_each(annotations: Iterable[Any], head: str) -> list[Any]:
    """Return one caption per COCO image, which has about five: the one with the lowest id."""
    first: dict[Any, Mapping[str, Any]] = {}
    try:
        for annotation in sorted(annotations, key=lambda a: a["id"]):
            first.setdefault(annotation["image_id"], annotation)
    except (KeyError, TypeError) as error:
        raise SuiteError(f"{head}: not COCO's captions: an annotation has no usable {error}") from error
    return list(first.values())


def _table(text: str, suffix: str, head: str) -> list[Any]:
    lines = io.StringIO(text, newline="")
    # TSV sets do not use quoting: a prompt may contain a single quotation mark
    tsv = suffix == ".tsv"
    reader = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE) if tsv else csv.DictReader(lines)
    try:
        return list(reader)
    except csv.Error as error:
        raise SuiteError(f"{head}, after line {reader.line_num}: {error}") from error


def _parquet(path: Path, layout: Layout, head: str) -> Iterable[Any]:
    """Read only the needed columns: data sets often contain images too."""
    wanted = {column.lower() for column in (layout.column, layout.category, layout.challenge)}

    def needed(names: list[str]) -> list[str]:
        columns = [name for name in names if name.lower() in wanted]
        if layout.column.lower() not in map(str.lower, columns):
            raise SuiteError(f"{head}: no column {layout.column!r}: it has {', '.join(names)}")
        return columns

    try:
        return read_frame(path, choose=needed, follow=True, error=SuiteError).iter_rows(named=True)
    except (OSError, ValueError) as error:
        raise SuiteError(f"{head} cannot be read as Parquet: {error}") from error


def _from_records(records: Iterable[Any], layout: Layout, name: str, head: str) -> list[PromptRow]:
    rows = []
    for number, record in enumerate(records, 1):
        place = f"row {number} of {name}"
        if not isinstance(record, dict):
            raise SuiteError(f"{head}: {place} must be a JSON object with the key {layout.column!r}")
        lowered = {str(key).lower(): value for key, value in record.items()}
        text = _value(lowered, layout.column, record, f"{head}, {place}")
        if not isinstance(text, str):
            raise SuiteError(f"{head}, {place}: {layout.column} = {text!r} is not text")
        category, challenge = (
            lowered.get(column.lower()) if column == usual else _value(lowered, column, record, f"{head}, {place}")
            for column, usual in ((layout.category, _CATEGORY), (layout.challenge, _CHALLENGE))
        )
        rows.append(
            PromptRow(
                text=text,
                category=layout.fixed_category or str(category or ""),
                challenge=str(challenge or ""),
                place=place,
            )
        )
    return rows


def _value(lowered: Mapping[str, Any], column: str, record: Mapping[str, Any], head: str) -> Any:
    if column.lower() not in lowered:
        raise SuiteError(f"{head}: no column {column!r}: it has {', '.join(map(str, record))}")
    return lowered[column.lower()]
