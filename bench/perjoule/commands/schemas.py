"""The JSON Schemas of suites and of all that is printed with --json, made from the types of the records."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perjoule import registry
from perjoule.forecast import Forecast
from perjoule.gating.baselines import Baseline
from perjoule.gating.recommend import Recommendation
from perjoule.gating.records import Verdict
from perjoule.meters import MeterInfo
from perjoule.meters.calibration import Calibration
from perjoule.meters.doctor import Diagnosis
from perjoule.meters.log_reading import LogEnergy
from perjoule.meters.measure import Measurement
from perjoule.prompts.catalogue import PromptSetRow
from perjoule.running.suite_doctor import Need
from perjoule.runs.trial_counts import TrialCounts
from perjoule.statistics.records import Frontier
from perjoule.suite.reading import json_schema
from perjoule.types import Direction, Role, SetScore, Track
from perjoule.types.documents import SCHEMA, schema_of
from perjoule.warnings import Explanation


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontierOfRun(Frontier):
    """What `run`, `frontier` and `baseline show` print: the frontier, and the trials that it rests on."""

    trials: TrialCounts


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
class Files:
    """What `report` prints: the files that it wrote."""

    files: tuple[Path, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaffold:
    """What `init` prints: files that it wrote, and files that existed."""

    written: tuple[Path, ...]
    kept: tuple[Path, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Baselines:
    """What the verbs of `baseline` print."""

    baselines: tuple[Baseline, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteNeeds:
    """What `doctor --suite` prints."""

    suite: str
    ready: bool
    needs: tuple[Need, ...]


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What `list` prints: one of these keys."""

    suites: tuple[SuiteRow, ...] = ()
    variants: tuple[VariantRow, ...] = ()
    prompts: tuple[PromptSetRow, ...] = ()
    metrics: tuple[MetricRow, ...] = ()
    meters: tuple[MeterInfo, ...] = ()


_RECORDS = {
    "frontier": FrontierOfRun, "gate": Verdict, "recommend": Recommendation, "doctor": Diagnosis,
    "doctor-suite": SuiteNeeds, "measure": Measurement, "integrate": LogEnergy, "calibrate": Calibration,
    "plan": Forecast, "score": Scores, "import": Imported,
    "report": Files, "init": Scaffold, "baseline": Baselines, "explain": WarningCode, "list": Listing,
}  # fmt: skip


def schemas() -> dict[str, Any]:
    """JSON Schemas by document."""
    found = {name: schema_of(record) for name, record in _RECORDS.items()}
    found["list"]["required"] = ["schema"]
    others = {name: point.load()() for name, point in registry.registered("schemas").items()}
    return {"schema": SCHEMA, "suite": json_schema(), **found, **others}
