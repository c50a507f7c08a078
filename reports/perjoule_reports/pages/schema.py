"""The records of `result.json`, and its JSON Schema for `perjoule schema`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from perjoule.gating.records import Verdict
from perjoule.meters.carbon import Carbon
from perjoule.people.metric import ScaleOfRun
from perjoule.runs.race_record import Race
from perjoule.statistics.contrasts import Contrast
from perjoule.statistics.noise import Source
from perjoule.statistics.records import Comparison, Hypervolume, Knee, Marginal, Sensitivity
from perjoule.types import Direction, Estimate, Interval, MetricSpec, Provenance, Track
from perjoule.types.documents import SCHEMA, schema_of
from perjoule.types.price import Price


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """The cells that the headline compares; None if it compares none."""

    test: str | None
    anchor: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trials:
    """How many trials are in the run, and how many its plan has; None for an imported run."""

    finished: int
    planned: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality(Interval):
    """The quality of a cell under one metric."""

    on_frontier: bool
    p_on_frontier: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultCell:
    """A cell: what it costs and, by metric, how good its images are. `dropped`: why a race measured it no further."""

    cell_id: str
    variant: str
    role: str
    policy: str
    family: str
    steps_mean: float | None
    steps_p5_p95: tuple[float, float] | None
    nfe_mean: float | None
    flops_per_image: float | None
    energy_j_per_image: Interval
    energy_bound_j_per_image: float | None
    mean_power_w: float | None
    duration_s_per_image: float | None
    provenance: Provenance | None
    boundary: str | None
    n_prompts: int
    n_seeds: int
    dropped: str | None
    quality: Mapping[str, Quality]


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultFrontier:
    """The record of `perjoule frontier --json` without its points, of which only `quality_p10` remains, by cell."""

    metric: str | None
    direction: Direction | None
    track: Track | None
    frontier: tuple[str, ...]
    hypervolume: Hypervolume | None
    marginal: tuple[Marginal, ...]
    knee: Knee | None
    comparisons: tuple[Comparison, ...]
    quality_p10: Mapping[str, Estimate]


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """Change of energy over the run, or why there is none."""

    estimate: Estimate | None
    reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate(Verdict):
    """The verdict as `perjoule gate --json` prints it."""

    schema: Literal[1] = SCHEMA


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultOption:
    """A cell with what it keeps in 90 % of the resamples, and code to make its images; None if that is unknown."""

    cell_id: str
    sentence: str
    quality_kept: float
    energy_j_kept: float | None
    code: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultChoices:
    """The cells to choose from, cheapest first; `chosen` is the cheapest that keeps `floor`.

    `floor` is the mean quality of the longest run less the metric's `margin`; without a margin, what that run keeps.
    """

    metric: str
    label: str
    floor: float
    margin: float | None
    chosen: str | None
    options: tuple[ResultOption, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What `perjoule report` writes next to the page and embeds in it.

    `suite` is the suite as run, `environment` the record of the system under test, `notes` the tables of warnings.
    Of large sets `prompts` is None.
    """

    kind: Literal["perjoule-result"] = "perjoule-result"
    suite: Mapping[str, Any]
    verdict: Literal["pass", "fail", "inconclusive", "invalid", "no-gate"]
    gate: Gate | None
    headline: str
    deploy: tuple[str, ...]
    beware: tuple[str, ...]
    compared: Compared
    choices: ResultChoices | None
    provenance: Provenance | None
    trials: Trials
    boundaries: tuple[str, ...]
    primary_metric: str | None
    metrics: Mapping[str, MetricSpec]
    interval_methods: tuple[str, ...]
    cells: tuple[ResultCell, ...]
    frontier: ResultFrontier | None
    contrasts: Mapping[str, Contrast]
    sensitivity: tuple[Sensitivity, ...]
    variability: tuple[Source, ...]
    drift: Drift
    price: Price | None
    race: Race | None
    people: ScaleOfRun | None
    carbon: Carbon | None
    notes: Mapping[str, list[list[str]]]
    environment: Mapping[str, Any]
    prompts: Mapping[str, str] | None = None
    prompt_count: int
    prompt_set_sha256: str | None


def result_schema() -> dict[str, Any]:
    """Return the JSON Schema of the result that `perjoule report` writes next to the page and embeds in it."""
    return schema_of(Result)
