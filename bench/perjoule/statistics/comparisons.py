"""Every arm against the ladder that it should beat: what `perjoule frontier` says beyond single points.

An arm is a variant with its cells, cheapest first. The anchor of an arm is the fixed ladder of its family with the most
rungs, one of the arm's own batch size if there is one; a model without such a ladder, a distilled one say, is compared
with the largest fixed ladder of the run, unless the metric compares images of one model only. Every arm of a run is on
one draw of prompts.

Where one of two arms has several levels of a step policy, both are read off their cheapest mixtures: a curve of ln E
through few levels shows savings that none of them has.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from perjoule.errors import EvidenceError
from perjoule.statistics import benefit
from perjoule.statistics.allocation import Headroom, headroom, strictest_bound
from perjoule.statistics.bd import BdEnergy, bd_energy, bd_energy_rows, relative_curve
from perjoule.statistics.curves import Curve, FidelityCurve, Ladders, PairedCurves, pair
from perjoule.statistics.facts import CellFacts
from perjoule.statistics.grid import CELL_VALUE, Draws, Grid
from perjoule.statistics.multiplicity import holm, p_differs_from_zero
from perjoule.statistics.pareto import hypervolume_rows
from perjoule.statistics.preference import Preference, predicted_preferences
from perjoule.statistics.records import (
    BdDetails,
    Comparison,
    Control,
    Controls,
    Dominance,
    Dropped,
    QualityRange,
    RelativeCurve,
)
from perjoule.statistics.resampling import LEVEL, METHOD, Array
from perjoule.statistics.savings import AtEqual, gain_of, saving_of
from perjoule.suite.smaller import smaller_batch
from perjoule.types import Estimate, MetricSpec, Role

ADAPTIVE: tuple[Role, ...] = ("predicted", "control")
_CURVE_PLACES = 33
_PRICES = 7
_NONE = Estimate(value=None, low=None, high=None, level=LEVEL, n=0, method=METHOD)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """A variant with its cells.

    Attributes:
        variant: Its name.
        role: Part it plays.
        policy: Step policy.
        family: Variants of the same model.
        columns: Places of the cells in the grid, cheapest first.
        batch_size: Its own, if it sets one or its windows did not fit into memory with the planned one.
    """

    variant: str
    role: Role
    policy: str | None
    family: str
    columns: tuple[int, ...]
    batch_size: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Evidence:
    """What comparisons are made from.

    Attributes:
        grid: The run's arrays.
        draws: Bootstrap draws of the run.
        spec: The metric.
        quality: (prompts, seeds, cells), turned so that higher is better.
        arms: Arms of the run.
    """

    grid: Grid
    draws: Draws
    spec: MetricSpec
    quality: Array
    arms: tuple[Arm, ...]

    def states_once(self, *arms: Arm) -> bool:
        """True if a table gives one quality for a whole cell of one of the arms: no draw knows its scatter."""
        return bool(self.grid.is_cell_value(self.spec.name)[[c for arm in arms for c in arm.columns]].any())

    def paired(self, *arms: Arm) -> PairedCurves:
        """`drawn`, without any draw, and so without intervals, if an arm has a cell value."""
        if self.states_once(*arms):
            return pair(*(self.curve(arm) for arm in arms), mixes=_mix(arms), resamples=0)
        return self.drawn(*arms)

    def drawn(self, *arms: Arm) -> PairedCurves:
        """Arms on common prompts: the draws that are there if nothing is missing, else draws of what they share."""
        metric, sign = self.spec.name, self.spec.sign
        chosen = [c for arm in arms for c in arm.columns]
        complete = np.isfinite(self.grid.energy_j[..., chosen]).all() and np.isfinite(self.quality[..., chosen]).all()
        # the run's common groups may be coarser than those of these arms
        if not complete or (self.grid.common_groups(chosen) != self.grid.common_groups()).any():
            return pair(*(self.curve(arm) for arm in arms), mixes=_mix(arms), resamples=self.rows)
        signs = [one for arm in arms for one in (1.0, sign) for _ in arm.columns]
        return PairedCurves(
            means=self.draws.paired(metric, *(arm.columns for arm in arms)).times(signs),
            prompts=len(self.grid.prompts),
            rungs=tuple(len(arm.columns) for arm in arms),
            draw_by_prompt=lambda: self.draws.quality_alone(metric).of(chosen).times([sign] * len(chosen)),
            mixes=_mix(arms),
        )

    @property
    def point(self) -> tuple[Array, Array]:
        """(cells,) energies and qualities as found."""
        return self.draws.energy.point[0], self.draws.quality(self.spec.name).point[0]

    @property
    def rows(self) -> int:
        """How many draws there are."""
        return max(len(self.draws.joint.resamples), len(self.draws.by_prompt.resamples))

    def curve(self, arm: Arm) -> Any:
        """Return the arm as a curve of the metric's track."""
        columns = list(arm.columns)
        energy_j, quality = self.grid.energy_j[..., columns], self.quality[..., columns]
        groups, name = self.grid.groups[:, columns], arm.variant
        if self.spec.track == "fidelity":
            return FidelityCurve(energy_j=energy_j, quality=quality, groups=groups, name=name, family=arm.family)
        errors = self.grid.common_errors.get(self.spec.name)
        common = None if errors is None else self.spec.sign * errors[:, columns]
        return Curve(energy_j=energy_j, quality=quality, groups=groups, name=name, common=common)


def arms_of(
    grid: Grid,
    facts: dict[str, CellFacts],
    families: dict[str, str],
    point: Array,
    batch_sizes: Mapping[str, int | None] | None = None,
) -> tuple[Arm, ...]:
    """The arms of a run, in the order of their first cell; cells without joules are left out."""
    columns: dict[str, list[int]] = {}
    for column, cell in enumerate(grid.cells):
        if np.isfinite(point[0, column]):
            columns.setdefault(facts[cell].variant, []).append(column)
    return tuple(
        Arm(
            variant=variant,
            role=facts[grid.cells[cells[0]]].role,
            policy=facts[grid.cells[cells[0]]].policy,
            family=families[variant],
            columns=tuple(sorted(cells, key=lambda c: float(point[0, c]))),
            batch_size=smaller_batch(variant) or (batch_sizes or {}).get(variant),
        )
        for variant, cells in columns.items()
    )


def _mix(arms: Sequence[Arm]) -> bool:
    """Return whether arms are compared by their mixtures. A policy of one level has nothing to mix."""
    return any(arm.role in ADAPTIVE and len(arm.columns) > 1 for arm in arms)


def main_anchor(arms: Sequence[Arm]) -> Arm | None:
    """The largest fixed ladder; the first of equals."""
    ladders = [arm for arm in arms if arm.role == "fixed"]
    return max(ladders, key=lambda arm: len(arm.columns)) if ladders else None


def anchor_of(arm: Arm, arms: Sequence[Arm], spec: MetricSpec) -> Arm | None:
    """What an arm is compared with; None for the anchor itself and where there is nothing to compare with."""
    family = [other for other in arms if other.family == arm.family]
    own = main_anchor([other for other in family if other.batch_size == arm.batch_size])
    if own is None or own == arm:
        own = main_anchor(family)
    if own is not None and own != arm:
        return own
    if spec.track == "fidelity":
        return None
    whole = main_anchor(arms)
    return None if whole == arm else whole


def compare_all(
    evidence: Evidence, at_quality: float | None, temperature: float | None = None
) -> tuple[Comparison, ...]:
    """One record per arm that has an anchor."""
    anchors = [(arm, anchor_of(arm, evidence.arms, evidence.spec)) for arm in evidence.arms]
    pairs = [(arm, anchor) for arm, anchor in anchors if anchor is not None]
    preferences = _preferences(evidence, [pair for pair in pairs if not evidence.states_once(*pair)], temperature)
    comparisons = []
    for arm, anchor in pairs:
        record = _compare(evidence, arm, anchor, at_quality)
        if evidence.states_once(arm, anchor):
            comparisons.append(_unsure(record))
        else:
            comparisons.append(replace(record, preference=preferences.get(arm.variant)))
    sure = holm({i: 1.0 if r.bd_energy_p is None else r.bd_energy_p for i, r in enumerate(comparisons)})
    return tuple(replace(r, resolved_holm=r.resolved and i in sure) for i, r in enumerate(comparisons))


def _compare(evidence: Evidence, arm: Arm, anchor: Arm, at_quality: float | None) -> Comparison:
    try:
        paired = evidence.paired(arm, anchor)
    except EvidenceError as error:
        return _nothing(arm, anchor, str(error))
    sign = evidence.spec.sign
    bound = evidence.spec.bounds[1 if sign > 0 else 0]
    test_ladder, anchor_ladder = paired.point
    bd = bd_energy(paired, None if bound is None else sign * bound)
    saving, rung = _saving(paired, at_quality, evidence.spec, sign)
    gain = gain_of(paired, default_rung=rung)
    test_top, top, floor = paired.column(0, -1), paired.column(1, -1), paired.column(1, 0)
    per_joule, why_not = benefit.gain_per_joule(paired.means, test_top, floor)
    shares = benefit.quadrants(paired.means, test_top, top)
    at, change = relative_curve(test_ladder, anchor_ladder, _CURVE_PLACES)
    reasons = [r for r in (bd.reason, saving.reason) if r]
    return Comparison(
        test=arm.variant,
        anchor=anchor.variant,
        role=arm.role,
        bd_energy=bd.estimate,
        iso_quality_saving=saving.estimate,
        at_quality=None if saving.at is None else sign * saving.at,
        saving_bound=saving.bound,
        saving_reason=saving.reason,
        iso_energy_gain=gain.estimate,
        at_energy_j_per_image=gain.at,
        gain_reason=gain.reason,
        gain_per_joule=per_joule,
        gain_per_joule_reason=why_not,
        bd_energy_p=_p_value(paired, bd),
        overlap=bd.overlap,
        resolved=bd.resolved,
        reason="; ".join(dict.fromkeys(reasons)) or None,
        bd=_bd_details(bd, arm, anchor, evidence.grid.cells, sign),
        relative_curve=RelativeCurve(quality=tuple((sign * at).tolist()), energy_change=tuple(change.tolist())),
        dominance=None
        if shares is None
        else Dominance(
            cell_id=evidence.grid.cells[arm.columns[-1]],
            anchor_cell_id=evidence.grid.cells[anchor.columns[-1]],
            **asdict(shares),
        ),
        net_benefit=tuple(benefit.net_benefits(paired.means, test_top, floor, _prices(anchor_ladder))),
        hypervolume_gain=_hypervolume_gain(paired),
        n_prompts=paired.prompts,
        n_window_groups=paired.means.n,
        controls=_controls(evidence, arm, anchor) if arm.role == "predicted" else None,
    )


def _unsure(record: Comparison) -> Comparison:
    """The record without what cannot be said of arms with cell values, whose scatter nobody knows."""
    return replace(
        record,
        dominance=None,
        net_benefit=None,
        bd_energy_p=None,
        controls=None,
        resolved=False,
        reason="; ".join(filter(None, (CELL_VALUE, record.reason))),
    )


def _preferences(
    evidence: Evidence, pairs: Sequence[tuple[Arm, Arm]], temperature: float | None
) -> dict[str, Preference]:
    """The most expensive cells of the pairs against each other, by variant; empty for metrics of fidelity."""
    if evidence.spec.track not in ("alignment", "absolute"):
        return {}
    top = {arm: evidence.quality[..., arm.columns[-1]] for pair in pairs for arm in pair}
    scores = [(top[arm], top[anchor]) for arm, anchor in pairs]
    made = predicted_preferences(scores, temperature=temperature, resamples=evidence.rows or 1)
    return {arm.variant: preference for (arm, _), preference in zip(pairs, made, strict=True)}


def _saving(paired: PairedCurves, at_quality: float | None, spec: MetricSpec, sign: float) -> tuple[AtEqual, int]:
    """The saving at the anchor's longest rung; if the test does not reach it for sure, at the next that it does.

    The reference of a fidelity metric is that metric's best by construction, so it is not asked for.
    """
    rungs = paired.rungs[1]
    first = -2 if spec.track == "fidelity" and spec.needs_reference and rungs > 2 else -1
    if at_quality is not None:
        return saving_of(paired, sign * at_quality, sign=sign), first
    top = saving_of(paired, default_rung=first, sign=sign)
    if paired.rungs[0] == 1 or (top.estimate.value is not None and top.estimate.low is not None):
        return top, first
    for rung in range(first - 1, -rungs - 1, -1):
        lower = saving_of(paired, default_rung=rung)
        if lower.estimate.value is not None and lower.estimate.low is not None:
            wanted = paired.point[1].quality[0, first]
            why = f"the test does not reach quality {sign * wanted:.4g} in every resample; compared at a lower rung"
            return replace(lower, reason=why), first
    return top, first


def _controls(evidence: Evidence, arm: Arm, anchor: Arm) -> Controls:
    """Is adaptation real? The policy against the family's controls, and against a bound of the fixed ladder."""
    others = [other for other in evidence.arms if other.role == "control" and other.family == arm.family]
    ladder = evidence.curve(anchor)
    kind, seeds = strictest_bound(ladder), ladder.quality.shape[1]
    try:
        if evidence.spec.track == "preference":
            raise EvidenceError("choices about a single prompt are too few to know its best rung")
        share = headroom(evidence.curve(arm), ladder, kind, resamples=evidence.rows or 1)
    except EvidenceError as error:
        share = Headroom(
            bound=kind, seeds=seeds, captured=_NONE, bound_saving=_NONE, at_quality=None, reason=str(error)
        )
    return Controls(against=tuple(_control(evidence, arm, other) for other in others), headroom=share)


def _control(evidence: Evidence, arm: Arm, other: Arm) -> Control:
    try:
        paired = evidence.paired(arm, other)
    except EvidenceError as error:
        return Control(control=other.variant, reason=str(error))
    saving = saving_of(paired)
    mine, theirs = paired.column(0, -1), paired.column(1, -1)
    shares = benefit.quadrants(paired.means, mine, theirs)
    here, both = len(arm.columns), len(arm.columns) + len(other.columns)
    return Control(
        control=other.variant,
        energy_ratio=paired.means.estimate(_ratio(mine[0], theirs[0])),
        quality_difference=paired.by_prompt.estimate(_difference(here - 1, both - 1)),
        iso_quality_saving=saving.estimate,
        iso_energy_gain=gain_of(paired).estimate,
        reason=saving.reason,
        **(asdict(shares) if shares else {}),
    )


def _ratio(one: int, other: int) -> Any:
    return lambda rows: rows[:, one] / rows[:, other]


def _difference(one: int, other: int) -> Any:
    return lambda rows: rows[:, one] - rows[:, other]


def _p_value(paired: PairedCurves, bd: BdEnergy) -> float | None:
    """Return the p-value for no difference in BD-energy; None without an interval."""
    if bd.estimate.value is None or bd.estimate.low is None or bd.estimate.high is None:
        return None
    test, anchor = paired.split(paired.means.resamples)
    return p_differs_from_zero(bd_energy_rows(test, anchor))


def _hypervolume_gain(paired: PairedCurves) -> Estimate:
    """What the test adds to the area that the anchor dominates, up to the anchor's own corner."""
    _, point = paired.point
    corner = (2 * float(np.nanmax(point.energy_j)), float(point.quality[0, np.nanargmin(point.energy_j[0])]))

    def rows(test: Any, anchor: Any) -> Array:
        both = (np.hstack([test.energy_j, anchor.energy_j]), np.hstack([test.quality, anchor.quality]))
        gained = hypervolume_rows(*both, corner) - hypervolume_rows(anchor.energy_j, anchor.quality, corner)
        return np.where(np.isfinite(both[0]).all(1) & np.isfinite(both[1]).all(1), gained, np.nan)

    return paired.estimate(rows, "area gained, quality × octave")


def _prices(anchor: Ladders) -> list[float]:
    """Round numbers of joules per quality unit, around what the anchor's own rungs cost."""
    with np.errstate(divide="ignore", invalid="ignore"):
        cost = np.diff(anchor.energy_j[0]) / np.diff(anchor.quality[0])
    cost = cost[np.isfinite(cost) & (cost > 0)]
    if not len(cost):
        return []
    return [float(f"{p:.2g}") for p in np.geomspace(cost.min(), cost.max(), _PRICES if np.ptp(cost) else 1)]


def _bd_details(bd: BdEnergy, arm: Arm, anchor: Arm, cells: Sequence[str], sign: float) -> BdDetails:
    def names(columns: Sequence[int], rungs: Iterable[int]) -> tuple[str, ...]:
        return tuple(cells[columns[r]] for r in rungs)

    return BdDetails(
        leave_one_out=bd.leave_one_out,
        akima=bd.akima,
        saturating=bd.saturating,
        dropped=Dropped(test=names(arm.columns, bd.dropped[0]), anchor=names(anchor.columns, bd.dropped[1])),
        regimes=tuple(
            QualityRange(from_=sign * regime.low, to=sign * regime.high, energy_change=regime.change)
            for regime in bd.regimes
        ),
        rungs=(len(arm.columns), len(anchor.columns)),
        reason=bd.reason,
    )


def _nothing(arm: Arm, anchor: Arm, reason: str) -> Comparison:
    return Comparison(
        test=arm.variant,
        anchor=anchor.variant,
        role=arm.role,
        bd_energy=_NONE,
        iso_quality_saving=_NONE,
        iso_energy_gain=_NONE,
        gain_per_joule=_NONE,
        reason=reason,
    )
