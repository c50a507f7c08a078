"""The records that verbs print. A verb imports this module when it runs, so it imports little itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from perjoule.types import Direction, Role, SetScore, Track
from perjoule.warnings import Explanation


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureDetails:
    """How a command failed: its exit code, the kind of the error, its message, and what to do about it if known."""

    code: int
    kind: str
    message: str
    remedy: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What a command prints with --json if it fails before it has a result; see `perjoule.commands.outcome`."""

    error: FailureDetails


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricScores:
    """How many images a metric could score, their mean, and why it could not score the others."""

    metric: str
    scored: int
    unscored: int
    mean: float | None
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """What `score` prints."""

    run: str
    metrics: tuple[MetricScores, ...]
    sets: tuple[SetScore, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What `import` prints; `trials` counts the rows of the table."""

    run: str
    trials: int
    metrics: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MergedRun:
    """What `merge` prints; `planned` is the number of trials in the plan of all prompts."""

    run: str
    parts: int
    prompts: int
    trials: int
    planned: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """What `report` prints: the files that it wrote; for a folder of runs also what could not be read."""

    files: tuple[Path, ...]
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaffold:
    """What `init` prints: files that it wrote or extended, files that existed, and what to do next."""

    written: tuple[Path, ...]
    kept: tuple[Path, ...]
    next: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WarningCode(Explanation):
    """What `explain` prints."""

    code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteRow:
    """A line of `list suites`."""

    suite: str
    variants: int
    cells: int
    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """A line of `list runs`; `verdict` is that of its last report with a gate, `problem` why it cannot be read.

    `failed` trials count as done; `planned` is None for an imported run.
    """

    run: str
    suite: str | None
    created: str | None
    done: int | None
    failed: int | None
    planned: int | None
    metric: str | None
    provenance: str | None
    verdict: str | None
    headline: str | None
    problem: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantRow:
    """A line of `list variants`; `commercial` says whether the licences of its weights allow commercial use."""

    suite: str
    variant: str
    role: Role
    model: str
    scheduler: str
    guidance: float
    steps: str
    licence: str
    commercial: str
    gated: bool
    revision: str | None
    weights: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricRow:
    """A line of `list metrics`; what a metric does not state without its weights is None."""

    metric: str
    cached: bool | None
    direction: Direction | None
    track: Track | None
    advisory: bool | None
    margin: float | None
    scale: str | None
    licence: str | None
    commercial: bool | None
    weights: str | None
    description: str | None
