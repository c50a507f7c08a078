"""A history of runs in git: one JSON line per run, appended to `.perjoule/history.jsonl`.

A line is small: baselines contain what is needed to compare two runs. Lines are never changed: a run that is logged
again, e.g. with new scores, gets another line, and the last line of a run counts. Lines may be in any order, so that
git can merge two branches by keeping the lines of both (`merge=union` in `.perjoule/.gitattributes`).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import polars as pl
from pydantic import TypeAdapter, ValidationError

from perjoule import __version__
from perjoule.errors import RunError, UsageError
from perjoule.files import append_line, open_journal, strict_json, write_text
from perjoule.gating.suite_settings import settings_of, suite_digest
from perjoule.opening import content_of, require_no_links
from perjoule.runs.directory import Run
from perjoule.runs.trial_counts import require_every_cell
from perjoule.statistics.devices import require_one_device
from perjoule.statistics.point_rows import point_rows
from perjoule.text import one_line
from perjoule.types import weakest

FILE = Path(".perjoule") / "history.jsonl"
SCHEMA: Literal[1] = 1
_ATTRIBUTES = f"{FILE.name} merge=union\n"
_MARKERS = (b"<<<<<<<", b"|||||||", b"=======", b">>>>>>>")
_ID_DIGITS = 16
_MOST = 1e15
_SUITE_DIGITS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedCell:
    """A cell of a logged run.

    Attributes:
        energy_j: J/image.
        energy_low: Lower end of its 95 % interval over prompts.
        energy_high: Upper end.
        bound_j: The meter's bound of J/image.
        provenance: How the joules are known.
        quality: Mean of the primary metric.
        quality_low: Lower end of its 95 % interval over prompts.
        quality_high: Upper end.
        n: Number of prompts.
    """

    energy_j: float | None
    energy_low: float | None
    energy_high: float | None
    bound_j: float | None
    provenance: str | None
    quality: float | None
    quality_low: float | None
    quality_high: float | None
    n: int

    def __post_init__(self) -> None:
        """Refuse numbers that no run has, with which nothing could be computed."""
        if self.energy_j is not None and not 0 <= self.energy_j < _MOST:
            raise ValueError(f"energy_j = {self.energy_j:g}: not an energy per image")
        if self.quality is not None and not abs(self.quality) < _MOST:
            raise ValueError(f"quality = {self.quality:g}: not a quality")


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """What must be equal for two runs to be compared.

    Attributes:
        suite: Name of the suite.
        suite_digest: Digest of the suite's settings that can change joules or images.
        prompt_set: Digest of the prompts.
        device: Model of the measured device.
        meter: Kind of meter, e.g. `nvml`.
        boundary: What the joules include.
        provenance: How the joules are known: the weakest of the cells.
        metric: The primary metric.
    """

    suite: str
    suite_digest: str
    prompt_set: str
    device: str
    meter: str
    boundary: str
    provenance: str
    metric: str

    @property
    def series(self) -> Series:
        """These values alone."""
        return Series(**{field.name: getattr(self, field.name) for field in fields(Series)})


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedRun(Series):
    """A line of the history.

    Attributes:
        id: Identifies the run; equal if it is logged again.
        date: When the run was made (ISO 8601).
        logged: When the line was written.
        commit: The commit that was checked out.
        counted: Whether the joules are counted work, which repeats exactly.
        higher: Whether higher values of it are better.
        margin: The metric's margin in the gate, None if it has none.
        conditions: What may explain a change: versions, driver, power limit, board, digest of the weights.
        cells: By cell id.
        settings: The settings of `suite_digest`, e.g. `shipped.steps`; empty in lines of earlier versions.
    """

    id: str
    date: str
    logged: str
    commit: str | None
    counted: bool
    higher: bool
    margin: float | None
    conditions: dict[str, str]
    cells: dict[str, LoggedCell]
    settings: dict[str, str] = field(default_factory=dict)
    kind: Literal["run"] = "run"
    schema: Literal[1] = SCHEMA

    def __post_init__(self) -> None:
        when(self.date)
        when(self.logged)

    @property
    def time(self) -> datetime:
        """When the run was made."""
        return when(self.date)


@dataclass(frozen=True, slots=True, kw_only=True)
class Acceptance:
    """A line which says that a change was intended: the trend of the suite starts again at `since`."""

    suite: str
    since: str
    reason: str
    logged: str
    kind: Literal["accepted"] = "accepted"
    schema: Literal[1] = SCHEMA

    def __post_init__(self) -> None:
        when(self.since)
        when(self.logged)


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """The lines of a history: each run once, oldest first, and what was accepted."""

    path: Path
    runs: tuple[LoggedRun, ...] = ()
    accepted: tuple[Acceptance, ...] = ()


def read_history(path: Path = FILE) -> History:
    """Read a history; a missing file is an empty history.

    Raises:
        RunError: If a line is damaged (names file, line and remedy).
    """
    runs: dict[str, LoggedRun] = {}
    accepted: dict[Acceptance, None] = {}
    for number, line in enumerate(_content(path).split(b"\n"), 1):
        if not line.strip():
            continue
        parsed = _parsed(line, f"{path}, line {number}")
        if isinstance(parsed, Acceptance):
            accepted[parsed] = None
        elif parsed.id not in runs or parsed.logged >= runs[parsed.id].logged:
            runs[parsed.id] = parsed
    return History(
        path=path,
        runs=tuple(sorted(runs.values(), key=lambda run: (run.time, run.id))),
        accepted=tuple(sorted(accepted, key=lambda line: when(line.since))),
    )


def log_run(run: LoggedRun, path: Path = FILE) -> bool:
    """Append a run; returns False, and writes nothing, if its last line says the same.

    Raises:
        RunError: If a line of the history is damaged. The file is not changed.
    """
    before = next((line for line in read_history(path).runs if line.id == run.id), None)
    if before is not None and replace(before, logged=run.logged) == run:
        return False
    _append(asdict(run), path)
    return True


def accept(suite: str, since: str, reason: str, path: Path = FILE) -> Acceptance:
    """Append a line which says that a change of a suite was intended; raises as `log_run`, and UsageError."""
    if not reason.strip():
        raise UsageError("--accept '': give the reason, e.g. --accept 'new scheduler'")
    read_history(path)
    line = Acceptance(suite=suite, since=since, reason=one_line(reason), logged=_now())
    _append(asdict(line), path)
    return line


def logged_run(run: Run) -> LoggedRun:
    """Return the line of a run.

    Raises:
        RunError: If it has no operating points, no date, a cell without a trial, or windows of several devices.
    """
    rows = point_rows(run.points)
    if not rows:
        raise RunError(f"{run.path} has no operating points: score it with `perjoule score {run.path}`")
    require_every_cell(run)
    require_one_device(run)
    system, metric = run.system, run.suite.metrics.primary
    if not system.created_utc:
        raise RunError(
            f"{run.path / 'environment.json'}: created_utc is missing, as in imported tables, so the run has no "
            'place in a history: add its date, e.g. "created_utc": "2026-01-31T12:00:00+00:00"'
        )
    spec = run.metrics.get(metric)
    metered = [row for row in rows if row.energy_j_per_image is not None]
    comparability = run.environment.get("comparability") or {}
    device = comparability.get("device") or ""
    identity = [
        system.created_utc, system.comparability_key, system.commit, suite_digest(run.suite), _prompt_set(run),
        sorted(run.trials["device_digest"].drop_nulls().unique()),
    ]  # fmt: skip
    return LoggedRun(
        id=hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:_ID_DIGITS],
        date=system.created_utc,
        logged=_now(),
        commit=system.commit,
        suite=run.suite.name,
        suite_digest=suite_digest(run.suite),
        prompt_set=_prompt_set(run),
        device=", ".join(map(str, device)) if isinstance(device, list) else str(device),
        meter=str(comparability.get("meter") or ""),
        boundary=" and ".join(sorted({row.boundary for row in metered if row.boundary})),
        provenance=weakest(row.provenance for row in metered) or "",
        counted=run.is_counted,
        metric=metric,
        higher=spec is None or spec.direction == "higher",
        margin=None if spec is None else spec.margin,
        conditions=_conditions(run, comparability),
        cells={
            row.cell_id: LoggedCell(
                energy_j=row.energy_j_per_image,
                energy_low=row.energy_low,
                energy_high=row.energy_high,
                bound_j=row.energy_bound_j_per_image,
                provenance=row.provenance,
                quality=row.quality if row.metric == metric else None,
                quality_low=row.quality_low if row.metric == metric else None,
                quality_high=row.quality_high if row.metric == metric else None,
                n=row.n_prompts or 0,
            )
            for row in sorted(rows, key=lambda row: row.metric == metric)
        },
        settings=settings_of(run.suite),
    )


def _prompt_set(run: Run) -> str:
    texts = sorted(run.prompts.values() or run.images["prompt_id"].drop_nulls().unique())
    return hashlib.sha256("\0".join(texts).encode("utf-8", "replace")).hexdigest()[:_SUITE_DIGITS]


def _conditions(run: Run, comparability: dict[str, Any]) -> dict[str, str]:
    """Return what may explain a change, without what is unknown."""
    limits, models = comparability.get("power_limit_w"), run.system.models or {}
    weights = hashlib.sha256(json.dumps(models, sort_keys=True).encode()).hexdigest()[:_SUITE_DIGITS]
    boards = run.trials.filter(pl.col("energy_j").is_not_null())["device_digest"].drop_nulls().unique().sort()
    conditions = {
        "perjoule": run.system.perjoule or __version__,
        **dict(sorted((run.system.packages or {}).items())),
        "driver": str(comparability.get("driver") or ""),
        "power limit": ", ".join(f"{limit:g} W" for limit in limits)
        if isinstance(limits, list) and all(limits)
        else "",
        "threads": str(comparability.get("threads") or ""),
        "board": ", ".join(boards),
        "weights": weights if models else "",
    }
    return {name: value for name, value in conditions.items() if value}


def _content(path: Path) -> bytes:
    require_no_links(path.parent)
    try:
        return content_of(path)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror or error}") from error


def _parsed(line: bytes, where: str) -> LoggedRun | Acceptance:
    if line.startswith(_MARKERS):
        raise RunError(
            f"{where}: a conflict marker of git: keep the lines of both sides, and delete the markers; with "
            f"`{_ATTRIBUTES.strip()}` in {FILE.parent}/.gitattributes, git does this itself"
        )
    try:
        row = strict_json(line.decode("utf-8"))
        if not isinstance(row, dict):
            raise ValueError("not a JSON object")
    except (ValueError, RecursionError) as error:
        raise RunError(f"{where}: damaged: {error}; {_REMEDY}") from None
    if row.get("schema") != SCHEMA:
        raise RunError(f"{where}: schema = {row.get('schema')!r}: this version of perjoule reads {SCHEMA}")
    kind: Any = Acceptance if row.get("kind") == "accepted" else LoggedRun
    try:
        line_read: LoggedRun | Acceptance = TypeAdapter(kind).validate_python(row)
    except ValidationError as error:
        detail = error.errors()[0]
        key = ".".join(map(str, detail["loc"])) or "date"
        raise RunError(f"{where}: {key}: {detail['msg'].lower()}; {_REMEDY}") from None
    return line_read


_REMEDY = "restore the file (`git checkout -- .perjoule/history.jsonl`), or delete that line and log its run again"


def _append(row: dict[str, Any], path: Path) -> None:
    before = _content(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not (attributes := path.parent / ".gitattributes").exists():
        write_text(attributes, _ATTRIBUTES)
    with open_journal(path) as file:
        if before and not before.endswith(b"\n"):
            file.write(b"\n")
        append_line(file, row)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def when(text: str) -> datetime:
    """Return the time of an ISO 8601 text, in UTC if it has no zone; raises ValueError."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text[:40]!r} is not a date") from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)
