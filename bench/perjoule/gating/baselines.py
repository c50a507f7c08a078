"""Baselines: runs that are stored under a name, as raw records in one small file.

    .perjoule/baselines/<suite>/<comparability key>/<name>.json.gz

A baseline contains trials, their counted work, scores and the system under test, but no summaries and no images, so
that later versions can compare it by their own rules. It is small enough for git.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
from pydantic import TypeAdapter, ValidationError

from perjoule.errors import PerjouleError, RunError, UnknownNameError, UsageError, first_line
from perjoule.files import decode_text, read_json, strict_json, write_bytes, write_json, write_parquet, write_text
from perjoule.opening import MOST_TEXT_BYTES, content_of, is_flat, open_inside, require_no_links
from perjoule.runs.columns import IMAGE_COLUMNS, POINT_COLUMNS, SCORE_COLUMNS
from perjoule.runs.directory import Run, load_run
from perjoule.runs.migrations import require_current
from perjoule.runs.remote import fetched_run, is_remote
from perjoule.runs.trial_counts import require_every_cell
from perjoule.statistics.devices import require_one_device
from perjoule.text import is_name

FOLDER = Path(".perjoule") / "baselines"
SCHEMA = 1
_TEXTS = ("suite.toml", "prompts.jsonl", "trials.jsonl")
_OPTIONAL = ("work.jsonl",)  # runs and baselines of earlier versions have none
_TABLES = ("scores", "images", "points")
# a pull request can contain a baseline: without a limit, 3 MB in git could unpack to gigabytes of memory
MOST_BYTES = 256 * 2**20
# never pruned: slow drift is measured against releases
_PINNED = ("main", "release-")


_RESTORE = "restore the file from git or from the CI system, or delete it and save the baseline again"
_COLUMNS = {"scores": SCORE_COLUMNS, "images": IMAGE_COLUMNS, "points": POINT_COLUMNS}


@dataclass(frozen=True, slots=True, kw_only=True)
class _BaselineRecord:
    """The content of a baseline file."""

    schema: int
    name: str
    saved_utc: str
    files: dict[str, str]
    environment: dict[str, Any]
    metrics: dict[str, Any] | None
    tables: dict[str, dict[str, list[Any]]]
    promoted_from: str | None = None

    def __post_init__(self) -> None:
        """Refuse a record without one of the files or tables that every baseline has."""
        for kind, names, present in (("files", _TEXTS, self.files), ("tables", _TABLES, self.tables)):
            if missing := [name for name in names if name not in present]:
                raise ValueError(f"{kind} lack {', '.join(missing)}")


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


@dataclass(frozen=True, slots=True, kw_only=True)
class UnreadableBaseline:
    """A file in the store that is not a baseline, or is damaged."""

    path: Path
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Baselines:
    """What the verbs of `perjoule baseline` print with --json."""

    baselines: tuple[Baseline, ...]
    unreadable: tuple[UnreadableBaseline, ...] = ()


def save(run: Run, name: str, root: Path = FOLDER) -> Baseline:
    """Store a run under a name; replaces an older baseline of that name, suite and system."""
    _require_name(name)
    if run.trials.is_empty():
        raise RunError(f"{run.path} has no trials, so there is nothing to store")
    require_current(run.schema, run.path)
    if run.race is not None and run.race.dropped:
        raise RunError(
            f"{run.path} is a race that dropped {len(run.race.dropped)} cells: a baseline needs the same prompts in "
            "every cell; measure it without --race"
        )
    require_every_cell(run)
    require_one_device(run)
    files = {
        text: decode_text(content_of(run.path / text, MOST_TEXT_BYTES), f"{run.path / text}")
        for text in (*_TEXTS, *_OPTIONAL)
        if (run.path / text).is_file()
    }
    if (run.path / "trials.parquet").is_file():
        files["trials.jsonl"] = run.trials.write_ndjson()
    record = {
        "schema": SCHEMA,
        "name": name,
        "saved_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "files": files,
        # a baseline may be shared, and the path is meaningless on other machines
        "environment": {k: v for k, v in run.environment.items() if k != "suite_folder"},
        "metrics": read_json(run.path / "metrics.json") if (run.path / "metrics.json").is_file() else None,
        "tables": {table: getattr(run, table).to_dict(as_series=False) for table in _TABLES},
    }
    path = root / run.suite.name / _key(run) / f"{name}.json.gz"
    _write(path, record)
    return describe(path)


def load(name: str, folder: Path, root: Path = FOLDER, *, suite: str | None = None, key: str | None = None) -> Run:
    """Unpack a baseline into `folder`, as a run directory.

    Raises:
        UnknownNameError: If there is no baseline of that name.
        UsageError: If there are several, for different suites or systems, and neither `suite` nor `key` selects one.
        RunError: If the file is not a baseline that perjoule wrote.
    """
    path = find(name, root, suite=suite, key=key).path
    with _named_as(path, folder):
        return _unpack(path, folder)


def unpacked(name: str, stack: ExitStack, *, suite: str | None = None, key: str | None = None) -> Run:
    """Unpack a baseline into a folder that `stack` deletes; raises as `load`.

    Errors that are raised later, inside the stack, name the baseline instead of the folder.
    """
    path = find(name, suite=suite, key=key).path
    folder = Path(stack.enter_context(TemporaryDirectory()))
    stack.enter_context(_named_as(path, folder))
    return _unpack(path, folder)


@contextmanager
def _named_as(path: Path, folder: Path) -> Iterator[None]:
    """Name a baseline in messages of errors about the folder that it is unpacked into."""
    try:
        yield
    except PerjouleError as error:
        error.args = (str(error).replace(f"{folder}/", f"{path}: ").replace(str(folder), str(path)),)
        raise


def _unpack(path: Path, folder: Path) -> Run:
    record = _read(path)
    for file in (*_TEXTS, *_OPTIONAL):
        if file in record.files:
            write_text(folder / file, record.files[file])
    if record.metrics is not None:
        write_json(folder / "metrics.json", record.metrics)
    write_json(folder / "environment.json", record.environment)
    for table in _TABLES:
        try:
            columns = record.tables[table]
            if table == "points":  # earlier versions have no races
                columns = {"dropped": [None] * len(columns["cell_id"]), **columns}
            for name, values in columns.items():
                if not all(map(is_flat, values)):
                    raise ValueError(f"{name} contains a list or an object where a value must be")
            frame = pl.DataFrame(columns, schema=_COLUMNS[table])
        except KeyError as error:
            raise RunError(f"{path}: table {table} lacks the column {error}: save the baseline again") from error
        except (pl.exceptions.PolarsError, TypeError, ValueError, OverflowError) as error:
            raise RunError(f"{path}: table {table}: cannot be read: {first_line(error)}") from error
        write_parquet(frame, folder / f"{table}.parquet")
    return load_run(folder)


def opened(name: str, candidate: Run, stack: ExitStack, *, pictures: bool = False) -> tuple[Run, bool]:
    """Open the run that `--baseline` names: a run directory, or a stored baseline of the candidate's suite and system.

    Returns:
        The run, and whether it is a stored baseline. A baseline is unpacked, and a run on object storage is fetched
        (its pictures only if `pictures`), into a folder that `stack` deletes.

    Raises:
        UnknownNameError: If there is neither.
        RunError: If a run cannot be fetched.
    """
    if is_remote(name) or Path(name).is_dir():
        return load_run(stack.enter_context(fetched_run(name, pictures=pictures))), False
    key = str(candidate.environment.get("comparability_key"))
    return unpacked(name, stack, suite=candidate.suite.name, key=key), True


def none_yet(name: str, root: Path = FOLDER) -> bool:
    """Return whether `--baseline` names a run that does not exist, or a baseline where none is stored at all.

    If others are stored, the name is more likely misspelt, and `opened` says so.
    """
    if is_remote(name) or Path(name).exists():
        return False
    return "/" in name or not any(root.glob("*/*/*.json.gz"))


def find(name: str, root: Path = FOLDER, *, suite: str | None = None, key: str | None = None) -> Baseline:
    """Return the stored baseline of a name; raises as `load`."""
    # other files are not opened: a damaged one must not prevent the use of the rest
    matches = [describe(path) for path in sorted(root.glob("*/*/*.json.gz")) if _name_of(path) == name]
    # suite and system select one of several; a single one is used, and the gate reports what does not fit
    for value, attribute in ((suite, lambda b: b.suite), (key, lambda b: b.key)):
        if len(matches) > 1 and value is not None:
            matches = [b for b in matches if attribute(b) == value] or matches
    if not matches:
        raise UnknownNameError("baseline", name, set(map(_name_of, root.glob("*/*/*.json.gz"))), str(root))
    if len(matches) > 1:
        places = ", ".join(f"{b.suite}/{b.key}" for b in matches)
        raise UsageError(
            f"baseline {name!r} is ambiguous: it is stored {len(matches)} times ({places}); delete or rename the others"
        )
    return matches[0]


def listed(root: Path = FOLDER) -> Baselines:
    """Return all stored baselines, oldest first, and the files that cannot be read."""
    readable, unreadable = [], []
    for path in sorted(root.glob("*/*/*.json.gz")):
        try:
            readable.append(describe(path))
        except RunError as error:
            unreadable.append(UnreadableBaseline(path=path, reason=str(error)))
    return Baselines(
        baselines=tuple(sorted(readable, key=lambda b: (b.saved_utc, str(b.path)))), unreadable=tuple(unreadable)
    )


def require_readable(stored: Baselines) -> None:
    """Raise RunError if a file of the store cannot be read."""
    if stored.unreadable:
        raise RunError("\n".join(file.reason for file in stored.unreadable))


def describe(path: Path) -> Baseline:
    """Read the name, suite, key and date of a baseline file."""
    record = _read(path)
    return Baseline(
        name=_name_of(path),
        suite=path.parent.parent.name,
        key=path.parent.name,
        saved_utc=record.saved_utc,
        commit=record.environment.get("commit"),
        bytes=path.stat().st_size,
        path=path,
    )


def promote(name: str, to: str, root: Path = FOLDER, *, suite: str | None = None) -> Baseline:
    """Store a baseline under a second name, e.g. `release-1.2`."""
    _require_name(to)
    source = find(name, root, suite=suite)
    record = asdict(_read(source.path)) | {"name": to, "promoted_from": name}
    target = source.path.with_name(f"{to}.json.gz")
    _write(target, record)
    return describe(target)


def prune(keep: int, root: Path = FOLDER) -> list[Baseline]:
    """Delete all but the newest `keep` of each suite and system, except `main` and `release-…`; return the deleted."""
    if keep < 0:
        raise UsageError(f"--keep {keep}: must be 0 or more")
    deleted: list[Baseline] = []
    groups: dict[Path, list[Baseline]] = {}
    stored = listed(root)
    require_readable(stored)  # before the first is deleted: which are the newest is not known
    for baseline in stored.baselines:
        if not (baseline.name == _PINNED[0] or baseline.name.startswith(_PINNED[1])):
            groups.setdefault(baseline.path.parent, []).append(baseline)
    for group in groups.values():
        for baseline in group[: len(group) - keep]:
            baseline.path.unlink()
            deleted.append(baseline)
    return deleted


def _name_of(path: Path) -> str:
    return path.name.removesuffix(".json.gz")


def _key(run: Run) -> str:
    """Return the comparability key as a valid folder name, e.g. not `..`."""
    key = re.sub(r"[^A-Za-z0-9._-]", "_", str(run.environment.get("comparability_key") or "unknown"))[:64]
    return key if is_name(key) else f"x{key}"[:64]


def _require_name(name: str) -> None:
    if not is_name(name):
        raise UsageError(f"baseline name {name!r} is invalid: use at most 64 letters, digits, '.', '_' and '-'")


def _write(path: Path, record: dict[str, Any]) -> None:
    require_no_links(path.parent)
    require_no_links(path.parent, path.parents[2])  # a root elsewhere
    text = json.dumps(record, ensure_ascii=False, sort_keys=True, allow_nan=False).encode("utf-8", "backslashreplace")
    if len(text) > MOST_BYTES:
        raise RunError(
            f"{path}: {len(text) / 2**20:.0f} MiB, but a baseline may have at most {MOST_BYTES // 2**20} MiB: keep the "
            "run directory itself, and give it to --baseline"
        )
    write_bytes(path, gzip.compress(text, mtime=0))


def _read(path: Path) -> _BaselineRecord:
    try:
        # a repository can contain links, as the file and as the folders above it
        require_no_links(path.parents[2])
        root, name = path.parents[2], path.relative_to(path.parents[2]).as_posix()
        with open_inside(root, name) as packed, gzip.open(packed) as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise RunError(
                f"{path}: unpacks to more than {MOST_BYTES // 2**20} MiB: not a baseline that perjoule wrote"
            )
        parsed = strict_json(content)
    except (OSError, EOFError, zlib.error, ValueError, RecursionError) as error:
        raise RunError(f"{path}: cannot be read: {error}", remedy=_RESTORE) from error
    schema = parsed.get("schema") if isinstance(parsed, dict) else None
    if schema != SCHEMA:
        later = isinstance(schema, int) and schema > SCHEMA
        raise RunError(
            f"{path}: schema = {schema!r}: {'a later version of perjoule wrote it, and ' if later else ''}this version "
            f"of perjoule reads {SCHEMA}",
            remedy="update perjoule, or save the baseline again with this version" if later else _RESTORE,
        )
    try:
        record = TypeAdapter(_BaselineRecord).validate_python(parsed)
    except ValidationError as error:
        detail = error.errors()[0]
        key = ".".join(map(str, detail["loc"]))
        raise RunError(f"{path}: {key}: {detail['msg'].lower()}: not a baseline that perjoule wrote") from None
    unknown = record.files.keys() - {*_TEXTS, *_OPTIONAL}
    if unknown:
        names = ", ".join(sorted(map(repr, unknown)))
        raise RunError(f"{path}: contains unknown files ({names}): not a baseline that perjoule wrote; delete it")
    return record
