"""The advice under the headline: which cell to deploy, and what to consider before doing so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from perjoule.runs.trial_counts import trial_counts
from perjoule.statistics.clocks import clock_difference
from perjoule.statistics.devices import devices_of, mixtures
from perjoule.statistics.safe import LEAST_PROMPTS
from perjoule.warnings import warning
from perjoule_reports import format as fmt
from perjoule_reports.analysis import Analysis
from perjoule_reports.choosing import Choosing, code_of, decision, recommend_command
from perjoule_reports.evidence import Arm, Axis, Evidence
from perjoule_reports.naming import capitalised
from perjoule_reports.pairing import Versus
from perjoule_reports.records import RunData
from perjoule_reports.trust import disturbances

RUN = "RUN"  # in commands, if it is not known how the reader names the run
FEW_PROMPTS = 64
WIDE_BOUND = 0.1
_MOST = 6
_MOST_ODD = 3


def deployment(
    run: RunData, evidence: Evidence, analysis: Analysis, pair: Versus | None, plan: Choosing | None, address: str = RUN
) -> tuple[tuple[str, ...], str]:
    """Return which cell to deploy, or why none, and the code that makes its images (empty if there is none).

    Args:
        run: The run.
        evidence: Its arms.
        analysis: Its comparisons.
        pair: The comparison of the headline, if it has one.
        plan: The options to choose from, if there are any; the safe choice is that of the section Choose.
        address: The run as arguments of a command.
    """
    axis = evidence.primary
    if axis is None or (pair is None and plan is None):
        return (_nothing(evidence),), ""
    hints = _bend(evidence, analysis)
    if axis.within_family:
        hints = (
            f"{capitalised(axis.label, axis.name)} is closeness to "
            f"{'a reference' if run.is_imported else 'the longest run'}; you decide how close is close enough.",
            *hints,
        )
    if plan is None:
        none = () if axis.within_family or pair is None else (
            f"No cell is both cheaper and not shown to be worse than {evidence.anchor_words(pair.anchor)}.",
        )  # fmt: skip
        return (*none, *hints), ""
    reason = decision(plan, evidence, analysis)
    other = f"For another floor: under Choose, or {recommend_command(plan, evidence, address)}."
    if plan.safe is None:
        return (reason, *hints, other), ""
    arm = plan.safe.arm
    return (_cost(arm, evidence), reason, *(hints if axis.within_family else ()), other), code_of(run, arm)


def _nothing(evidence: Evidence) -> str:
    if evidence.left_out:
        return "Nothing can be recommended: the joules of the cells that could be compared are odd, see Beware."
    if evidence.is_cell_value(evidence.primary):
        return "Nothing can be recommended: with one quality per cell, chance cannot be excluded."
    return "Nothing can be recommended from this run: see what is missing below."


def _bend(evidence: Evidence, analysis: Analysis) -> tuple[str, ...]:
    """The cell at the bend of the ladder: a hint, because it depends on the range that was measured."""
    knee = analysis.frontier.knee if analysis.frontier else None
    arm = next((a for a in evidence.arms if knee and a.cell_id == knee.cell_id), None)
    if arm is None or knee is None or arm.cell_id in evidence.left_out:
        return ()
    share = knee.shares.get(arm.cell_id, 0.0)
    axis = evidence.primary
    quality = f" There {axis.label} is {fmt.interval(arm.quality_of(axis))[0]}." if axis else ""
    return (f"The ladder bends (a hint, in {100 * share:.0f} % of the draws) at {_cost(arm, evidence)}{quality}",)


def _cost(arm: Arm, evidence: Evidence) -> str:
    unit = evidence.energy_unit
    energy = fmt.interval(arm.energy, unit)
    hours = fmt.number((arm.energy.value or 0) * fmt.WH_PER_1000_PER_JOULE)
    axis = evidence.primary
    chance = arm.p_on_frontier.get(axis.name) if axis else None
    sure = "" if chance is None else f"; on the frontier in {100 * chance:.0f} % of the draws"
    mark = f" {arm.brand}" if arm.brand else ""

    name = capitalised(arm.words, arm.variant)
    return f"{name}: {energy[0]} {unit.unit}{mark} per image {energy[1]}, {hours} Wh{mark} per 1000 images{sure}."


def caveats(
    run: RunData, evidence: Evidence, analysis: Analysis, versus: Mapping[str, Versus], pair: Versus | None
) -> tuple[str, ...]:
    """Return what to consider before using the results, the most important first.

    Args:
        run: The run.
        evidence: Its arms.
        analysis: Its comparisons.
        versus: The comparisons of cells with the anchor.
        pair: The comparison of the headline, if it has one.
    """
    found = [
        *_same_images(analysis),
        *_odd(evidence),
        *_unfinished(run),
        *_devices(run),
        *_joules(run, evidence),
        *_stated(evidence),
        *_sample(evidence, pair),
        *_ceiling(run, evidence, analysis),
        *_choice(evidence, pair, len(versus) + 1),
        *_curves(evidence, analysis),
        *analysis.troubles,
    ]
    return tuple(found[:_MOST])


def _same_images(analysis: Analysis) -> list[str]:
    if analysis.verdict is None or not analysis.verdict.identical_images:
        return []
    return [
        "Baseline and candidate drew the same images, bit for bit: in quality this is an A/A comparison. Only the "
        "energy can differ, by the machine, the session, or code that does not change images."
    ]


def _odd(evidence: Evidence) -> list[str]:
    """What is odd in the joules, and the cells that are not recommended because of it."""
    words = [fmt.clean(oddity.words) for oddity in evidence.odd]
    more = [f"{len(words) - _MOST_ODD} more oddities in the joules are listed under Warnings and gaps."]
    return words if len(words) <= _MOST_ODD else [*words[:_MOST_ODD], *more]


def _unfinished(run: RunData) -> list[str]:
    done, planned = len(run.trials), run.planned_trials or 0
    caveats = []
    if planned and done < planned:
        caveats.append(
            f"INCOMPLETE: {done} of {fmt.plural(planned, 'planned trial')} are in this run; the results may change."
        )
    if failed := done - len(run.windows):
        caveats.append(f"{fmt.plural(failed, 'trial')} failed and count nowhere.")
    counts = trial_counts(run)
    if counts.smaller_batch:
        caveats.append(
            f"{fmt.plural(counts.smaller_batch, 'trial')} did not fit into memory and were drawn with fewer images per "
            f"call, as cells of their own (W266): {fmt.shorten(fmt.clean(', '.join(counts.smaller_cells)), 200)}."
        )
    if flat := counts.one_colour:
        caveats.append(
            warning(
                "W270",
                f"{flat} of {fmt.plural(len(run.trials), 'trial')} have images of a single colour: they show "
                "nothing, so look at the images before you trust a score.",
            )
        )
    if not run.scores.is_empty():
        absent = run.scores.select((pl.col("value").is_null() | ~pl.col("value").is_finite()).sum()).item()
        if absent:
            caveats.append(f"{absent} of {fmt.plural(len(run.scores), 'score')} are missing and are left out.")
    return caveats


def _devices(run: RunData) -> list[str]:
    """Warnings about what was metered: GPUs left out, suspended windows, busy machines, mixed boards."""
    by_code = disturbances(run)
    count = run.trials.height
    caveats = []
    if (left_out := by_code.get("W232")) is not None:
        caveats.append(f"The GPU's energy is missing: {fmt.clean(left_out.sentence)} (W232).")
    mixed = mixtures(run.trials)
    devices = devices_of(run.trials)
    if mixed:
        caveats.append(warning("W265", f"{fmt.clean(mixed[0])}: their joules are not pooled."))
    elif len(devices) > 1:
        caveats.append(f"The cells were measured on different devices (W265): {fmt.clean(', '.join(devices))}.")
    if (clocks := clock_difference(run)) is not None:
        caveats.append(f"{fmt.clean(clocks)}.")
    if (stopped := by_code.get("W251")) is not None:
        caveats.append(f"{stopped.trials} of {fmt.plural(count, 'window')} were suspended and have no joules (W251).")
    if (busy := by_code.get("W264")) is not None:
        caveats.append(
            f"The machine was busy with other work in {busy.trials} of {fmt.plural(count, 'window')} (W264: "
            f"{fmt.clean(busy.sentence)}): times and joules may not be repeatable; measure again on an idle machine."
        )
    return caveats


def _stated(evidence: Evidence) -> list[str]:
    """Warnings about numbers that a table gives once for a whole cell."""
    axis = evidence.primary
    cells = [a.cell_id for a in evidence.arms if axis and axis.name in a.cell_values]
    energies = [a.cell_id for a in evidence.arms if a.energy_is_stated]
    caveats = []
    for name, named in ((axis.label if axis else "quality", cells), ("energy", energies)):
        if named:
            count = f"{len(named)} of {fmt.plural(len(evidence.arms), 'cell')}"
            sentence = f"the table gives a single {name} for {count}: there is no interval and no gate."
            caveats.append(warning("W281", sentence))
    return caveats


def _mixed(run: RunData) -> list[str]:
    """Warning about cells that pool joules of several provenances."""
    kinds = run.trials.drop_nulls("provenance").group_by("cell_id").agg(pl.col("provenance").unique().sort())
    mixed = kinds.filter(pl.col("provenance").list.len() > 1).sort("cell_id")
    if mixed.is_empty():
        return []
    cell, named = mixed.row(0)
    return [
        f"{fmt.plural(len(mixed), 'cell')} pool joules of several provenances, such as {fmt.clean(cell)} "
        f"({', '.join(named)}): each is marked with the weakest of them."
    ]


def _joules(run: RunData, evidence: Evidence) -> list[str]:
    caveats = _mixed(run)
    if evidence.provenance == "estimated":
        caveats.append(
            "The joules come from a model, not a meter: compare ratios within this run, not absolute joules."
        )
    elif evidence.provenance == "simulated":
        caveats.append("The joules are simulated: they do not describe any real device.")
    elif evidence.provenance == "not stated":
        sentence = "the imported table does not state how its joules were obtained: do not quote them as measured."
        caveats.append(warning("W280", sentence))
    shares = [a.energy_bound_j / a.energy.value for a in evidence.arms if a.energy.value and a.energy_bound_j]
    if shares and max(shares) > WIDE_BOUND:
        whose = "The uncertainty that the table states" if evidence.imported else "The meter's own bound"
        caveats.append(
            f"{whose} is up to ± {fmt.percent(max(shares))} of a cell's joules; an error common to all cells cancels "
            "in ratios, and no interval in this report includes it."
        )
    if len(evidence.boundaries) > 1:
        caveats.append(f"The cells were metered at different boundaries ({', '.join(evidence.boundaries)}).")
    return caveats


def _sample(evidence: Evidence, pair: Versus | None) -> list[str]:
    axis, n = evidence.primary, evidence.prompt_count
    if axis is None or not n or n >= FEW_PROMPTS:
        return []
    sentence = f"Only {fmt.plural(n, 'prompt')}"
    if pair is not None and pair.quality.bounded and n >= LEAST_PROMPTS:
        half = ((pair.quality.high or 0) - (pair.quality.low or 0)) / 2
        # (z 0.95 + z 0.8) standard errors, a standard error being half the interval over z 0.975
        effect = half * 2.486 / 1.96
        if effect > 0:
            sentence += f": a change of {axis.label} below about {fmt.number(effect, 2)} would mostly not be detected"
    return [sentence + "."]


def _ceiling(run: RunData, evidence: Evidence, analysis: Analysis) -> list[str]:
    """Warning about a metric that is at its bound and so cannot distinguish cells."""
    axis = evidence.primary
    spec = run.metrics.get(axis.name) if axis else None
    if axis is None or spec is None or axis.within_family:
        return []
    bound = spec.bounds[1 if axis.higher else 0]
    scored = [a for a in evidence.arms if a.quality_of(axis).value is not None]
    values = [a.quality_of(axis).value or 0.0 for a in scored]
    if bound is None or len(values) < 2:
        return []
    span = max(abs(bound - v) for v in values) or 1.0
    near = [a for a in scored if abs(bound - (a.quality_of(axis).value or 0.0)) <= 0.05 * max(span, 0.1 * abs(bound))]
    if len(near) < 2 or _differ(near, axis, analysis):
        return []
    return [
        f"{capitalised(axis.label, axis.name)} is at its bound ({fmt.number(bound)}) in {len(near)} of "
        f"{fmt.plural(len(values), 'cell')}: it cannot distinguish them, so look at the other metrics and the images."
    ]


def _differ(arms: Sequence[Arm], axis: Axis, analysis: Analysis) -> bool:
    """Return True if the best and the worst of some cells differ in 95 % of the draws of prompts."""
    compared = analysis.compared
    if compared is None:
        return False
    worst, best = (choose(arms, key=lambda a: a.quality_of(axis).value or 0.0) for choose in (min, max))
    places = [compared.grid.cells.index(arm.cell_id) for arm in (worst, best)]
    draws = compared.draws.quality_alone(axis.name).resamples[:, places]
    differences = draws[:, 1] - draws[:, 0]
    return bool(len(differences)) and float(np.quantile(differences, 0.025)) > 0


def _choice(evidence: Evidence, pair: Versus | None, count: int) -> list[str]:
    if pair is None or count < 4 or evidence.primary is None or evidence.primary.within_family:
        return []
    if not pair.cheaper or pair.worse(evidence.primary):
        return []
    return [
        f"The cell was chosen from {count} on the same prompts that score it, which favours it: "
        "test it on "
        "prompts that are not in this run."
    ]


def _curves(evidence: Evidence, analysis: Analysis) -> list[str]:
    crossing = [evidence.label_of(r.test) for r in analysis.comparisons if "cross" in (r.reason or "")]
    if not crossing:
        return []
    return [
        f"The curves of {', '.join(crossing[:3])} and the ladder cross: they use less energy at some qualities and "
        "more at others."
    ]
