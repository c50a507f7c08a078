"""Baselines: runs that are kept under a name, as raw records in one small file.

    .perjoule/baselines/<suite>/<comparability key>/<name>.json.gz

A baseline holds trials, scores and what they were measured on, no summaries and no pictures, so that it can be
compared by rules that are made later. It fits into git.
"""

from __future__ import annotations

import gzip
import json
import re
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl

from perjoule.errors import RunError, UnknownNameError, UsageError
from perjoule.files import write_json, write_parquet
from perjoule.run_directory import Run, load_run
from perjoule.statistics.devices import require_one_device

FOLDER = Path(".perjoule") / "baselines"
SCHEMA = 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_TEXTS = ("suite.toml", "prompts.jsonl", "trials.jsonl")
_TABLES = ("scores", "images", "points")
# kept whatever the age: a release is what slow drift is measured against
_PINNED = ("main", "release-")


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """A stored baseline."""

    name: str
    suite: str
    key: str
    saved_utc: str
    commit: str | None
    bytes: int
    path: Path


def save(run: Run, name: str, root: Path = FOLDER) -> Baseline:
    """Keep a run under a name; an older baseline of that name, suite and system is replaced."""
    _require_name(name)
    if run.trials.is_empty():
        raise RunError(f"{run.path} holds no trial: there is nothing to keep")
    require_one_device(run)
    files = {text: (run.path / text).read_text(encoding="utf-8") for text in _TEXTS if (run.path / text).is_file()}
    if (run.path / "trials.parquet").is_file():
        files["trials.jsonl"] = run.trials.write_ndjson()
    record = {
        "schema": SCHEMA,
        "name": name,
        "saved_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "files": files,
        "environment": run.environment,
        "metrics": json.loads((run.path / "metrics.json").read_text())
        if (run.path / "metrics.json").is_file()
        else None,
        "tables": {table: getattr(run, table).to_dict(as_series=False) for table in _TABLES},
    }
    path = root / run.suite.name / _key(run) / f"{name}.json.gz"
    _write(path, record)
    return describe(path)


def load(name: str, folder: Path, root: Path = FOLDER, *, suite: str | None = None, key: str | None = None) -> Run:
    """Unpack a baseline into `folder`, where it is a run like any other.

    Raises:
        UnknownNameError: If there is none of that name.
        UsageError: If the name is kept for several suites or systems and neither `suite` nor `key` decides.
    """
    record = _read(find(name, root, suite=suite, key=key).path)
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in record["files"].items():
        (folder / file).write_text(text, encoding="utf-8")
    if record["metrics"] is not None:
        write_json(folder / "metrics.json", record["metrics"])
    write_json(folder / "environment.json", record["environment"])
    run = load_run(folder)
    from perjoule import columns

    for table in _TABLES:
        schema = getattr(columns, f"{table[:-1].upper()}_COLUMNS")
        write_parquet(pl.DataFrame(record["tables"][table], schema=schema), folder / f"{table}.parquet")
    return run


def opened(name: str, candidate: Run, stack: ExitStack) -> tuple[Run, bool]:
    """What `--baseline` names: a run directory, else a stored baseline of the candidate's suite and system.

    Returns:
        The run, and whether it came out of the store; a stored one lies in a folder that goes when `stack` closes.

    Raises:
        UnknownNameError: If it is neither.
    """
    if Path(name).is_dir():
        return load_run(name), False
    folder = Path(stack.enter_context(TemporaryDirectory()))
    key = str(candidate.environment.get("comparability_key"))
    return load(name, folder, suite=candidate.suite.name, key=key), True


def find(name: str, root: Path = FOLDER, *, suite: str | None = None, key: str | None = None) -> Baseline:
    """The stored baseline of a name."""
    every = listed(root)
    found = [b for b in every if b.name == name]
    # of several, suite and system decide; a single one is taken, and the gate says what does not fit
    for wanted, of in ((suite, lambda b: b.suite), (key, lambda b: b.key)):
        if len(found) > 1 and wanted is not None:
            found = [b for b in found if of(b) == wanted] or found
    if not found:
        raise UnknownNameError("baseline", name, {b.name for b in every}, str(root))
    if len(found) > 1:
        places = ", ".join(f"{b.suite}/{b.key}" for b in found)
        raise UsageError(f"baseline {name!r} is kept {len(found)} times ({places}): name the file instead")
    return found[0]


def listed(root: Path = FOLDER) -> list[Baseline]:
    """All stored baselines, oldest first."""
    return sorted((describe(path) for path in root.glob("*/*/*.json.gz")), key=lambda b: (b.saved_utc, str(b.path)))


def describe(path: Path) -> Baseline:
    """What a file holds."""
    record = _read(path)
    return Baseline(
        name=path.name.removesuffix(".json.gz"),
        suite=path.parent.parent.name,
        key=path.parent.name,
        saved_utc=record["saved_utc"],
        commit=record["environment"].get("commit"),
        bytes=path.stat().st_size,
        path=path,
    )


def promote(name: str, to: str, root: Path = FOLDER, *, suite: str | None = None) -> Baseline:
    """Keep a baseline under a second name, such as `release-1.2`."""
    _require_name(to)
    source = find(name, root, suite=suite)
    record = _read(source.path) | {"name": to, "promoted_from": name}
    target = source.path.with_name(f"{to}.json.gz")
    _write(target, record)
    return describe(target)


def prune(keep: int, root: Path = FOLDER) -> list[Baseline]:
    """Delete all but the newest `keep` of each suite and system; `main` and `release-…` always stay."""
    if keep < 0:
        raise UsageError(f"--keep {keep}: 0 or more")
    gone: list[Baseline] = []
    groups: dict[Path, list[Baseline]] = {}
    for baseline in listed(root):
        if not (baseline.name == _PINNED[0] or baseline.name.startswith(_PINNED[1])):
            groups.setdefault(baseline.path.parent, []).append(baseline)
    for group in groups.values():
        for baseline in group[: len(group) - keep]:
            baseline.path.unlink()
            gone.append(baseline)
    return gone


def _key(run: Run) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "_", str(run.environment.get("comparability_key") or "unknown"))[:64]


def _require_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise UsageError(f"baseline name {name!r}: letters, digits, '.', '_' and '-', at most 64")


def _write(path: Path, record: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(record, ensure_ascii=False, sort_keys=True, allow_nan=False)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(gzip.compress(text.encode(), mtime=0))
    temporary.replace(path)


def _read(path: Path) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads(gzip.decompress(path.read_bytes()))
    except (OSError, EOFError, ValueError) as error:
        raise RunError(f"{path}: cannot be read: {error}") from error
    if record.get("schema") != SCHEMA:
        raise RunError(f"{path}: schema = {record.get('schema')!r}: this version of perjoule reads {SCHEMA}")
    return record
