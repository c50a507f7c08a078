"""Reads a run into plain records: the arms with their numbers, and the axes on which they were scored.

Columns that an older or imported run lacks are treated as absent; so are numbers that are NaN or infinite.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import polars as pl

from perjoule.errors import PerjouleError
from perjoule.gating.oddities import Oddity, left_out, oddities
from perjoule.statistics.devices import mixtures
from perjoule.statistics.facts import cell_facts
from perjoule.statistics.grid import CELL_VALUE, read_grid
from perjoule.statistics.point_rows import PointRow, point_rows
from perjoule.statistics.points import energy_estimates
from perjoule.statistics.sensor_errors import mean_power_w
from perjoule.types import Estimate, Interval, Provenance, Suite, weakest
from perjoule.warnings import has_code, read_warning
from perjoule_reports.format import Scale, brand, clean, finite, scale, step_count
from perjoule_reports.naming import metric_label, variant_label
from perjoule_reports.records import RunData

MOST_METRICS = 32  # in tables and figures: a table of others can have thousands
_CELL_VALUE = read_warning(CELL_VALUE).code


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """A quality metric as a report needs it.

    `higher` is True if more is better, `bound` is the best possible value, `label` its name in sentences.
    """

    name: str
    higher: bool
    track: str
    label: str = ""
    unit: str = ""
    description: str = ""
    advisory: bool = False
    bound: float | None = None

    @property
    def within_family(self) -> bool:
        """True for full-reference metrics, whose values are comparable only within one family."""
        return self.track == "fidelity"


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One cell with its energy and, by metric name, its quality.

    `label` is the variant's name in sentences. `dropped` says why a race measured the cell no further. `steps_spread`
    holds the 5th and the 95th percentile of the steps over images. `cell_values` are the metrics under which an
    imported table gives one value for the whole cell; `energy_is_stated` says the same of its energy.
    """

    cell_id: str
    variant: str
    role: str
    policy: str
    family: str
    steps: float | None
    nfe: float | None = None
    flops: float | None = None
    energy: Interval = field(default_factory=Interval)
    energy_is_stated: bool = False
    energy_bound_j: float | None = None
    duration_s: float | None = None
    provenance: str | None = None
    boundary: str | None = None
    prompt_count: int = 0
    seed_count: int = 0
    label: str = ""
    steps_spread: tuple[float, float] | None = None
    quality: Mapping[str, Interval] = field(default_factory=dict)
    cell_values: frozenset[str] = frozenset()
    on_frontier: Mapping[str, bool] = field(default_factory=dict)
    p_on_frontier: Mapping[str, float] = field(default_factory=dict)
    dropped: str | None = None

    @property
    def name(self) -> str:
        """Display name, e.g. `the full model, 25 steps`; the cell id if the steps are unknown."""
        return self.cell_id if self.steps is None else f"{self.label or self.variant}, {step_count(self.steps)}"

    @property
    def words(self) -> str:
        """Name in a sentence, e.g. `the few-step student at 2 steps`; the cell id if the steps are unknown."""
        return self.cell_id if self.steps is None else f"{self.label or self.variant} at {step_count(self.steps)}"

    @property
    def mean_power_w(self) -> float | None:
        """Energy divided by time, both per image; None for estimated joules, which have no sensor of power."""
        return mean_power_w([(self.energy.value, self.duration_s, self.provenance)])

    def quality_of(self, axis: Axis) -> Interval:
        """Return the quality under a metric, empty if it was not scored."""
        return self.quality.get(axis.name, Interval())

    @property
    def brand(self) -> str:
        """The provenance mark of this arm's joules."""
        return brand(self.provenance) if self.energy.value is not None else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """The contents of a run. Arms are in the suite's order of variants, then by steps; `odd` are its oddities.

    `axes` are at most `MOST_METRICS` metrics, and `more_metrics` the number of the others.
    """

    suite: Suite
    arms: tuple[Arm, ...]
    axes: tuple[Axis, ...]
    primary: Axis | None
    provenance: Provenance | None
    boundaries: tuple[str, ...]
    interval_methods: tuple[str, ...]
    prompt_count: int
    seed_count: int
    imported: bool = False
    odd: tuple[Oddity, ...] = ()
    more_metrics: int = 0

    @property
    def left_out(self) -> frozenset[str]:
        """The cells that are not recommended, because their joules are odd."""
        return left_out(self.odd)

    def anchor_words(self, anchor: Arm) -> str:
        """Return a name for the anchor: `the longest run`; its own name if another could be meant."""
        equal = [arm for arm in self.arms if (arm.role, arm.steps) == (anchor.role, anchor.steps)]
        if self.left_out or anchor.steps is None or len(equal) > 1:
            return anchor.words
        return "the longest run"

    @property
    def energy_unit(self) -> Scale:
        """The unit of all joules per image on the page."""
        return scale((arm.energy.value for arm in self.arms), "J")

    @property
    def has_intervals(self) -> bool:
        """True if any number of any cell has an interval."""
        return any(a.energy.bounded or any(q.bounded for q in a.quality.values()) for a in self.arms)

    def is_cell_value(self, axis: Axis | None) -> bool:
        """True if every quality in the table is a single value for a whole cell."""
        scored = [a for a in self.arms if axis is not None and a.quality_of(axis).value is not None]
        return bool(scored) and axis is not None and all(axis.name in a.cell_values for a in scored)

    def variants(self) -> list[str]:
        """Return the variants that have arms, in order."""
        return list(dict.fromkeys(arm.variant for arm in self.arms))

    def label_of(self, variant: str) -> str:
        """Return the name of a variant in sentences, e.g. `the few-step student`."""
        name = clean(variant)
        return next((arm.label for arm in self.arms if arm.variant == name and arm.label), name)

    def words_of(self, cell_id: str) -> str:
        """Return the name of a cell in sentences, e.g. `the few-step student at 2 steps`."""
        return next((arm.words for arm in self.arms if arm.cell_id == cell_id), clean(cell_id))

    def metric_label(self, name: str) -> str:
        """Return the name of a metric in sentences, e.g. `attributes drawn`."""
        return next((axis.label for axis in self.axes if axis.name == name), clean(name))

    def id_of(self, variant: str) -> str:
        """Return the name of a variant in the suite; empty if its label contains it."""
        name = clean(variant)
        return "" if name in self.label_of(variant) else name

    def series(self, variant: str) -> int:
        """Return the index of a variant in the suite, which determines its colour, marker and dash."""
        names = [v.name for v in self.suite.variants]
        names += [name for name in self.variants() if name not in names]
        return names.index(variant) if variant in names else 0


def read_evidence(run: RunData) -> Evidence:
    """Read the points of a run; cells without points appear with their plan but without numbers."""
    rows = _unpooled(run)
    axes = _axes(run, rows)
    primary = next((a for a in axes if a.name == run.suite.metrics.primary), axes[0] if axes else None)
    grouped: dict[str, list[PointRow]] = {}
    for row in rows:
        grouped.setdefault(row.cell_id, []).append(row)
    spread = _steps_spread(run)
    arms = [_arm(run, cell, spread.get(cell_id)) for cell_id, cell in grouped.items()]
    arms += _unpointed(run, set(grouped), spread)
    order = {v.name: i for i, v in enumerate(run.suite.variants)}
    names: dict[str, set[str]] = {}
    for arm in arms:
        names.setdefault(arm.label, set()).add(arm.variant)
    arms = [replace(a, label=f"{a.label} ({a.variant})") if len(names[a.label]) > 1 else a for a in arms]
    arms.sort(key=lambda a: (order.get(a.variant, len(order)), a.variant, a.steps or 0, a.cell_id))
    methods = [clean(method) for row in rows for method in (row.energy_method, row.quality_method) if method]
    return Evidence(
        suite=run.suite,
        arms=tuple(arms),
        axes=axes[:MOST_METRICS],
        more_metrics=max(0, len(axes) - MOST_METRICS),
        primary=primary,
        provenance=weakest(a.provenance for a in arms if a.energy.value is not None),
        boundaries=tuple(sorted({a.boundary for a in arms if a.boundary and a.energy.value is not None})),
        interval_methods=tuple(dict.fromkeys(methods)),
        prompt_count=max((a.prompt_count for a in arms), default=0) or len(run.prompts),
        seed_count=max((a.seed_count for a in arms), default=0) or len(run.suite.protocol.seeds),
        imported=run.is_imported,
        odd=oddities(run),
    )


def _unpooled(run: RunData) -> list[PointRow]:
    """Return the rows of the points; a cell whose windows belong to different devices has no energy."""
    mixed = {mixture.cell_id for mixture in mixtures(run.trials)}
    energy = pl.col("^energy_.*$")
    return point_rows(run.points.with_columns(pl.when(~pl.col("cell_id").is_in(mixed)).then(energy)))


def _axes(run: RunData, rows: list[PointRow]) -> tuple[Axis, ...]:
    axes: dict[str, Axis] = {}
    for name, spec in run.metrics.items():
        axes[name] = Axis(
            name=name,
            higher=spec.direction == "higher",
            label=metric_label(run.suite, name),
            track=spec.track,
            unit=spec.unit,
            description=spec.description,
            advisory=spec.advisory,
            bound=spec.bounds[1 if spec.direction == "higher" else 0],
        )
    for row in rows:
        if row.metric is not None:
            track = row.track or "absolute"
            label = metric_label(run.suite, row.metric)
            axes.setdefault(
                row.metric, Axis(name=row.metric, higher=row.direction != "lower", track=track, label=label)
            )
    order = {name: i for i, name in enumerate((run.suite.metrics.primary, *run.suite.metrics.names))}
    shared = Counter(axis.label for axis in axes.values())
    axes = {
        name: replace(axis, label=f"{axis.label} ({name})") if shared[axis.label] > 1 else axis
        for name, axis in axes.items()
    }
    return tuple(sorted(axes.values(), key=lambda a: (order.get(a.name, len(order)), a.name)))


def _arm(run: RunData, rows: list[PointRow], spread: tuple[float, float] | None) -> Arm:
    first = rows[0]
    scored = {row.metric: row for row in rows if row.metric is not None}
    return Arm(
        cell_id=first.cell_id,
        variant=clean(first.variant),
        role=first.role or "fixed",
        label=variant_label(run.suite, first.variant, first.role or "fixed"),
        policy=first.policy or "fixed",
        family=clean(first.family or run.families.get(first.variant, first.variant)),
        steps=first.steps_mean,
        nfe=first.nfe_mean,
        flops=first.flops_per_image,
        energy=plain_interval(first.energy_estimate),
        energy_is_stated=_is_stated(first.energy_method),
        energy_bound_j=first.energy_bound_j_per_image,
        duration_s=first.duration_s_per_image,
        provenance=first.provenance,
        boundary=first.boundary,
        prompt_count=first.n_prompts or 0,
        seed_count=first.n_seeds or 0,
        dropped=first.dropped,
        steps_spread=spread,
        quality={metric: plain_interval(row.quality_estimate) for metric, row in scored.items()},
        cell_values=frozenset(metric for metric, row in scored.items() if _is_stated(row.quality_method)),
        on_frontier={metric: bool(row.on_frontier) for metric, row in scored.items()},
        p_on_frontier={metric: row.p_on_frontier for metric, row in scored.items() if row.p_on_frontier is not None},
    )


def _is_stated(method: str | None) -> bool:
    """True if a table states the number for the whole cell."""
    return has_code(method or "", _CELL_VALUE)


def _unpointed(run: RunData, known: set[str], spread: Mapping[str, tuple[float, float]]) -> list[Arm]:
    """Return cells that have trials but no operating point, e.g. in an unfinished or unscored run."""
    rows = run.trials.filter(~pl.col("cell_id").is_in(list(known)))
    if rows.is_empty():
        return []
    energies = _energies(run)
    arms = []
    for cell, facts in cell_facts(rows).items():
        energy = energies.get(cell, Interval())
        arms.append(
            Arm(
                cell_id=cell,
                variant=clean(facts.variant),
                role=str(facts.role or "fixed"),
                label=variant_label(run.suite, facts.variant, str(facts.role or "fixed")),
                policy=str(facts.policy or "fixed"),
                family=clean(run.families[facts.variant]),
                steps=finite(facts.steps_mean),
                nfe=finite(facts.nfe_mean),
                flops=finite(facts.flops_per_image),
                energy=energy,
                energy_bound_j=finite(facts.energy_bound_j_per_image) if energy.value is not None else None,
                duration_s=finite(facts.duration_s_per_image),
                provenance=facts.provenance,
                boundary=facts.boundary,
                steps_spread=spread.get(cell),
            )
        )
    return arms


def _energies(run: RunData) -> dict[str, Estimate]:
    """Return J/image of each cell directly from the trials, without scores."""
    try:
        grid = read_grid(run, [])
    except PerjouleError:  # reported as a warning, since the comparisons fail for the same reason
        return {}
    if not grid.prompts:
        return {}
    return dict(zip(grid.cells, energy_estimates(grid, grid.drawn().energy), strict=True))


def _steps_spread(run: RunData) -> dict[str, tuple[float, float]]:
    steps = run.trials.select("cell_id", "steps").explode("steps").drop_nulls("steps")
    ends = steps.group_by("cell_id").agg(
        low=pl.col("steps").quantile(0.05, "nearest"), high=pl.col("steps").quantile(0.95, "nearest")
    )
    return {cell: (float(low), float(high)) for cell, low, high in ends.select("cell_id", "low", "high").iter_rows()}


def plain_interval(estimate: Estimate) -> Interval:
    """Return the interval of an estimate, without its method; empty if it has no value."""
    if estimate.value is None:
        return Interval()
    return Interval(value=estimate.value, low=estimate.low, high=estimate.high)
