"""Answers of people as a metric of a run, which frontier, recommend, gate and report use like any other.

The score of an image is its prompt's contribution to the JOD of its cell: the mean over prompts is the JOD, and the
scatter between prompts gives the interval. What an observer does in all answers alike comes on top as a common error.
A single contribution has no meaning of its own.

The name of the metric states who answered: `people`, `simulated-observers`, `model-judge`, or `unstated-observers` for
a table that does not say it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from perjoule.errors import EvidenceError, UsageError
from perjoule.people.agreement import Agreement, agreements
from perjoule.people.choices import Choices
from perjoule.people.creating import BASELINE
from perjoule.people.folder import is_study, read_choices
from perjoule.people.gains import Gain, gains
from perjoule.people.records import Screening, Study
from perjoule.people.scaling import UNIT, Fit, Scale, describe, fit, scale
from perjoule.people.tables import table_of_choices
from perjoule.people.thurstone import Array
from perjoule.people.wording import judges
from perjoule.runs.columns import SCORE_COLUMNS
from perjoule.runs.directory import Run
from perjoule.statistics.points import operating_points
from perjoule.types import JudgeProvenance, Judges, MetricSpec, Prompt, Suite

NAMES: dict[JudgeProvenance, str] = {
    "people": "people", "simulated": "simulated-observers", "model": "model-judge", "not stated": "unstated-observers",
}  # fmt: skip
# as the default margin of the gate: 54 of 100 people prefer the better image
MARGIN_JOD = 0.15
_WHO: dict[JudgeProvenance, str] = {
    "people": "people", "simulated": "SIMULATED observers, not people", "model": "a MODEL as judge, not people",
    "not stated": "observers of provenance NOT STATED",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False)
class RunWithPeople(Run):
    """A run with a study as an additional metric.

    Attributes:
        base: The run without it, whose tables are read once for both.
        source: Folder of the study, or table.
        study: The study; None for a table.
        scale: JOD of the arms, and who was excluded.
        fit: The scale as arrays.
        prefix: What the arms of this run begin with in the study: `baseline:` for a baseline, else nothing.
    """

    base: Run = field(repr=False)
    source: Path
    study: Study | None
    scale: Scale
    fit: Fit = field(repr=False)
    prefix: str = ""

    def with_baseline(self, baseline: Run) -> RunWithPeople:
        """Return the baseline of a gate, judged by the same answers, which are fitted once.

        Raises:
            UsageError: If they are about pictures of another baseline.
            EvidenceError: If they are not about a baseline.
        """
        if self.study is None:  # the arms of a table are named after the run
            return with_people(baseline, self.source, prefix=BASELINE)
        _require_pictures(self.study, self.source, baseline, BASELINE)
        return replace(self, path=baseline.path, base=baseline, prefix=BASELINE)

    @property
    def judges(self) -> Judges:
        """Who answered."""
        return judges(self.scale)

    @cached_property
    def environment(self) -> dict[str, Any]:
        """System under test, meter and model digests."""
        return self.base.environment

    @cached_property
    def prompt_set(self) -> tuple[Prompt, ...]:
        """Prompts of the run."""
        return self.base.prompt_set

    @cached_property
    def trials(self) -> pl.DataFrame:
        """One row per trial."""
        return self.base.trials

    @cached_property
    def images(self) -> pl.DataFrame:
        """One row per image."""
        return self.base.images

    @property
    def metric(self) -> str:
        """Name of the metric, which states who answered."""
        return NAMES[self.scale.provenance]

    @cached_property
    def suite(self) -> Suite:
        """The suite with this metric as the primary one."""
        suite = self.base.suite
        names = (self.metric, *(name for name in suite.metrics.names if name != self.metric))
        return replace(suite, metrics=replace(suite.metrics, primary=self.metric, names=names))

    @cached_property
    def metrics(self) -> dict[str, MetricSpec]:
        """Specs of the scored metrics, with this one."""
        return {**self.base.metrics, self.metric: metric_spec(self.scale)}

    @cached_property
    def scores(self) -> pl.DataFrame:
        """One row per image and metric, with this one."""
        other = self.base.scores.filter(pl.col("metric") != self.metric)
        return pl.concat([other, self._own_scores()])

    @property
    def common_errors(self) -> Mapping[str, Mapping[str, Array]]:
        """The error that all prompts have in common: that of the observers."""
        columns = {arm: self.fit.common[:, i] for i, arm in enumerate(self.fit.choices.arms)}
        return {self.metric: {cell: columns[arm] for cell, arm in self.arms.items()}}

    @cached_property
    def arms(self) -> dict[str, str]:
        """Cell -> arm of the study, for the cells of this run that are in it."""
        known = set(self.fit.choices.arms)
        return {cell: arm for cell, arm in arms_by_cell(self, self.prefix).items() if arm in known}

    @cached_property
    def agreement(self) -> tuple[Agreement, ...]:
        """How well each automatic metric of the run predicts the choices."""
        return agreements(self.fit, self.base, self.arms)

    @cached_property
    def gains(self) -> tuple[Gain, ...]:
        """JOD per kilojoule of each cell of the study over the cheapest one."""
        return gains(self, self.metric, self.arms)

    @property
    def scale_of_run(self) -> ScaleOfRun:
        """The scale, the gains, and the agreement of the run's metrics with it."""
        return _of_run(self.scale, self.gains, self.agreement)

    @cached_property
    def points(self) -> pl.DataFrame:
        """Operating points: one row per cell and metric."""
        return operating_points(self)

    def _own_scores(self) -> pl.DataFrame:
        images = self.images.select("image_id", "cell_id", "prompt_id", "seed")
        choices = self.fit.choices
        place = {arm: i for i, arm in enumerate(choices.arms)}
        rows = [
            (cell, prompt, float(self.fit.by_prompt[row, place[arm]]))
            for cell, arm in self.arms.items()
            for row, prompt in enumerate(choices.prompts)
        ]
        values = pl.DataFrame(rows, {"cell_id": pl.String, "prompt_id": pl.String, "value": pl.Float64}, orient="row")
        frame = images.join(values, on=["cell_id", "prompt_id"], maintain_order="left")
        if self.study is not None:  # images with other seeds were not shown
            shown = pl.DataFrame(
                [(p.arm, p.prompt_id, int(p.seed)) for p in self.study.pictures if p.arm in place],
                {"arm": pl.String, "prompt_id": pl.String, "seed": pl.UInt64},
                orient="row",
            )
            cells = pl.DataFrame(list(self.arms.items()), {"cell_id": pl.String, "arm": pl.String}, orient="row")
            frame = frame.join(shown.join(cells, on="arm"), on=["cell_id", "prompt_id", "seed"], how="semi")
        return (
            frame.with_columns(metric=pl.lit(self.metric), reason_unscored=pl.lit(None, pl.String))
            .select(list(SCORE_COLUMNS))
            .cast(pl.Schema(SCORE_COLUMNS))
        )


def metric_spec(scale: Scale) -> MetricSpec:
    """Return the spec of the metric of a scale."""
    who = _WHO[scale.provenance]
    return MetricSpec(
        name=NAMES[scale.provenance],
        direction="higher",
        track="preference",
        needs_reference=False,
        unit=scale.unit,
        weights_digest="none",
        licence="none",
        description=(
            f"JOD by {scale.answers} choices of {scale.observers} observers ({who}), {len(scale.excluded)} excluded; "
            "0 is the mean of the arms."
        ),
        advisory=False,
        bounds=(None, None),
        margin=MARGIN_JOD,
        scale=f"1 {UNIT}: 75 of 100 choices are for the better image ({who})",
    )


def with_people(run: Run, source: Path, *, prefix: str = "") -> RunWithPeople:
    """Add a study, or a table of choices or ratings, to a run as its primary metric.

    Args:
        run: The run whose pictures were compared.
        source: Folder of a study, or table.
        prefix: `baseline:` for the baseline of a gate.

    Raises:
        UsageError: If the study is about pictures of another run, or the table has arms that the run has not.
        EvidenceError: If there are no answers, or pictures were changed.
    """
    study, choices = read_source(source, run, prefix)
    result = fit(choices, study.screening if study else Screening())
    return RunWithPeople(
        path=run.path, base=run, source=source, study=study, scale=describe(choices, result), fit=result, prefix=prefix
    )


def read_source(source: Path, run: Run | None = None, prefix: str = "") -> tuple[Study | None, Choices]:
    """Return the choices of a study or of a table, whose arms must be those of the run if there is one."""
    if is_study(source) or source.is_dir():
        study, choices = read_choices(source)
        if run is not None:
            _require_pictures(study, source, run, prefix)
        return study, choices
    if run is None:
        return None, table_of_choices(source)
    cells = arms_by_cell(run, prefix)
    names = {arm: arm for arm in cells.values()} | _variants(run)
    choices = table_of_choices(source, list(names))
    arms = tuple(names[arm] for arm in choices.arms)
    if len(set(arms)) < len(arms):
        raise UsageError(f"{source}: arms: a cell occurs under its own name and under that of its variant: use one")
    return None, replace(choices, arms=arms)


def arms_by_cell(run: Run, prefix: str = "") -> dict[str, str]:
    """Cell -> arm, for all cells of a run."""
    return {cell: prefix + cell for cell in run.images["cell_id"].unique(maintain_order=True)}


def _variants(run: Run) -> dict[str, str]:
    """Variant -> cell, for variants with one cell: tables may name either."""
    cells = run.images.group_by("variant").agg(pl.col("cell_id").unique()).filter(pl.col("cell_id").list.len() == 1)
    return {variant: cells[0] for variant, cells in cells.iter_rows()}


def _require_pictures(study: Study, source: Path, run: Run, prefix: str) -> None:
    """Raise UsageError unless the pictures of the study are those of the run."""
    frame = run.images.filter(pl.col("sha256").is_not_null())
    stored = {
        (prefix + cell, prompt, str(seed)): digest
        for cell, prompt, seed, digest in frame.select("cell_id", "prompt_id", "seed", "sha256").iter_rows()
    }
    own = [p for p in study.pictures if p.arm in study.arms and (p.arm or "").startswith(BASELINE) == bool(prefix)]
    for picture in own:
        digest = stored.get((picture.arm or "", picture.prompt_id, picture.seed))
        if digest != picture.pixels_sha256:
            what = "has no such picture" if digest is None else "has another picture there"
            raise UsageError(
                f"{source}: {picture.arm}, prompt {picture.prompt_id}, seed {picture.seed}: {run.path} {what}: give "
                "the run that the study was made from"
            )
    if not own:
        raise EvidenceError(
            f"{source}: the study shows no picture of {run.path}: make one with `perjoule study new CANDIDATE "
            "--baseline BASELINE`"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleOfRun(Scale):
    """What `perjoule study scale` prints: the scale and, of a run, the gains and the agreement of its metrics."""

    gains: tuple[Gain, ...]
    agreement: tuple[Agreement, ...]


def scaled(source: Path) -> ScaleOfRun:
    """Scale a study or a table; raises as `with_people`."""
    study, choices = read_source(source)
    result = scale(choices, study.screening if study else Screening())
    return _of_run(result, (), ())


def scaled_with_run(source: Path, run: Run) -> ScaleOfRun:
    """Scale a study or a table, and compare the metrics of a run with it; raises as `with_people`."""
    return with_people(run, source).scale_of_run


def _of_run(scale: Scale, gains: tuple[Gain, ...], agreement: tuple[Agreement, ...]) -> ScaleOfRun:
    parts = {field.name: getattr(scale, field.name) for field in fields(scale)}
    return ScaleOfRun(**parts, gains=gains, agreement=agreement)
