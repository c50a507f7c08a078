"""Section 6: does a policy that adapts its steps to the prompt beat policies with less information?

fixed ladder, equal quality    does adapting beat simply using fewer steps?
shuffled                       its own step counts assigned to the wrong prompts: does it use the prompt?
mean curve, length only        one curve for all prompts; the number of words alone
bound                          every image or prompt uses its best step count: how large can the saving be?
"""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from perjoule.statistics.allocation import Headroom
from perjoule.statistics.records import Comparison, Control
from perjoule.types import Interval
from perjoule_reports import format as fmt
from perjoule_reports.analysis import Analysis
from perjoule_reports.drawing import phases
from perjoule_reports.drawing.dots import Row, interval_figure, shares_figure
from perjoule_reports.drawing.plots import of_joules
from perjoule_reports.evidence import Evidence
from perjoule_reports.records import Cell, Column, Figure, RunData, Section, Table
from perjoule_reports.sections import guide
from perjoule_reports.sections.tables import PERCENT, difference_cell

_MOST_ROWS = 36


def adaptation_section(run: RunData, evidence: Evidence, analysis: Analysis) -> Section:
    """Build the section."""
    policies = [r for r in analysis.comparisons if r.role == "predicted"]
    adaptive = [a for a in evidence.arms if a.role == "predicted"]
    shown = {
        "anchor": "adaptation",
        "title": "Does adaptation help?",
        "how_to_read": "A policy that picks steps per prompt has to beat, at equal quality, the fixed ladder (it could "
        "simply use fewer steps), its own step counts shuffled over the prompts (this shows that it uses the prompt), "
        "one curve for all prompts, and a rule that counts words. A dot right of zero means that the policy uses less "
        "energy. A filled dot means that the interval excludes zero. The bound is the saving of a choice that knows "
        "the scores, per image or, with 8 seeds or more, per prompt; headroom captured is the share of it that the "
        "policy reaches, and below zero the policy is worse than fixed steps. "
        + (
            "The table does not state whether it includes the energy of the predictor."
            if evidence.imported
            else "The joules of the predictor are included."
        ),
        "interval": guide.intervals(evidence),
        "change": "Controls that the suite lacks; another quality metric (a policy tuned for one may lose by another); "
        "tuning on the reported prompts, which would favour the policy.",
    }
    if not policies:
        why = (
            "an arm that predicts its steps per prompt"
            if not adaptive
            else "a scored fixed ladder of the same family, with which the adaptive arms could be compared"
        )
        return Section(**shown, empty=why)  # type: ignore[arg-type]
    rows, table = _against(evidence, policies)
    figures: list[Figure] = []
    if rows:
        figures.append(
            interval_figure(
                "adaptation",
                "Energy that the policy saves at equal quality",
                rows[:_MOST_ROWS],
                label=of_joules("energy saved at equal quality (%", evidence.provenance) + ")",
                description=f"{fmt.plural(len(rows), 'comparison')} of adaptive arms with their opponents. The table "
                "next to the figure contains the numbers.",
                caption=f"the opponent is named after the arm; {evidence.primary.name if evidence.primary else ''}"
                + (f"; the first {_MOST_ROWS} of {len(rows)}" if len(rows) > _MOST_ROWS else ""),
                data=table,
            )
        )
    histogram = _histogram(run, evidence)
    return Section(
        **shown,  # type: ignore[arg-type]
        sample=guide.sample(evidence),
        paragraphs=(*(_sentence(run, r) for r in policies), *_predictor(run, evidence)),
        figures=(*figures, *((histogram,) if histogram else ())),
        tables=() if rows else (table,),
    )


def _against(evidence: Evidence, policies: list[Comparison]) -> tuple[list[Row], Table]:
    rows: list[Row] = []
    cells: list[tuple[Cell, ...]] = []
    for record in policies:
        series = evidence.series(record.test)
        brand = next((a.brand for a in evidence.arms if a.variant == record.test), "")
        ladder = Control(
            control=f"{record.anchor} (fixed)",
            iso_quality_saving=record.iso_quality_saving,
            iso_energy_gain=record.iso_energy_gain,
            reason=record.saving_reason,
        )
        controls = record.controls
        for other in (ladder, *(controls.against if controls else ())):
            saving = other.iso_quality_saving or Interval()
            row = _row(f"{record.test} · {other.control}", saving, series)
            if row:
                rows.append(row)
            cells.append((
                Cell(text=fmt.clean(record.test), series=series),
                Cell(text=fmt.clean(other.control)),
                difference_cell(saving, PERCENT, brand=brand),
                difference_cell(other.iso_energy_gain or Interval()),
                difference_cell(_less_one(other.energy_ratio or Interval()), PERCENT, brand=brand),
                difference_cell(other.quality_difference or Interval()),
                Cell(text=fmt.clean(other.reason or "")),
            ))  # fmt: skip
        if controls:
            cells.append((
                Cell(text=fmt.clean(record.test), series=series),
                Cell(text=controls.headroom.bound, detail="of the fixed ladder"),
                Cell(text=fmt.ABSENT),
                Cell(text=fmt.ABSENT),
                Cell(text=fmt.ABSENT),
                Cell(text=fmt.ABSENT),
                Cell(text=_headroom(controls.headroom)),
            ))  # fmt: skip
    columns = (
        Column(title="policy"),
        Column(title="against"),
        Column(title="saving", unit="% at equal quality", numeric=True),
        Column(title="gain", unit="quality at equal energy", numeric=True),
        Column(title="energy", unit="%, most expensive cells", numeric=True),
        Column(title="quality", unit="most expensive cells", numeric=True),
        Column(title="remark"),
    )
    return rows, Table(caption="Adaptive arms against their opponents", columns=columns, rows=tuple(cells))


def _headroom(headroom: Headroom) -> str:
    if headroom.bound_saving.value is None:
        return fmt.clean(headroom.reason or f"no {headroom.bound}")
    seeds = fmt.plural(headroom.seeds, "seed")
    sentence = f"the {headroom.bound} ({seeds}) saves {fmt.percent(headroom.bound_saving.value)}"
    if headroom.captured.value is not None:
        text, detail = fmt.interval(headroom.captured, PERCENT)
        sentence += f"; headroom captured {text} % {detail}"
    elif headroom.reason:
        sentence += f"; {headroom.reason}"
    return fmt.clean(sentence)


def _row(label: str, saving: Interval, series: int) -> Row | None:
    if saving.value is None:
        return None
    low, high = (None if v is None else 100 * v for v in (saving.low, saving.high))
    return Row(label=fmt.clean(label), value=100 * saving.value, low=low, high=high, series=series)


def _less_one(ratio: Interval) -> Interval:
    value, low, high = (None if v is None else v - 1 for v in (ratio.value, ratio.low, ratio.high))
    return Interval(value=value, low=low, high=high)


def _sentence(run: RunData, record: Comparison) -> str:
    """Return the conclusion that the controls allow about one policy."""
    name, ladder = fmt.clean(record.test), fmt.clean(record.anchor)
    sentence = f"{name}: {_fixed(record.iso_quality_saving, ladder, record.saving_reason)}"
    against = record.controls.against if record.controls else ()
    shuffles = [c for c in against if c.control in _own_shuffles(run, record.test)]
    if not shuffles:
        return f"{sentence}. The suite has no control with shuffled step counts, so use of the prompt is not shown."
    beaten = [_beats(c) for c in shuffles]
    count = f"{sum(b is True for b in beaten)} of its {fmt.plural(len(beaten), 'shuffled control')}"
    if all(beaten):
        every = f"all {len(beaten)} of its shuffled controls" if len(beaten) > 1 else "its shuffled control"
        return f"{sentence}. It beats {every}, so it uses information about the prompt."
    if all(b is None for b in beaten):
        return f"{sentence}. No difference from its shuffled controls is resolved, so use of the prompt is not shown."
    return f"{sentence}. It beats {count}, so use of the prompt is not shown."


def _own_shuffles(run: RunData, test: str) -> set[str]:
    """Return the controls that shuffle this policy's own step counts: equal settings except for the control."""
    settings = {v.name: (v.model, v.policy, v.policy_args) for v in run.suite.variants}
    if test not in settings:
        return set()
    model, policy, arguments = settings[test]
    return {
        name
        for name, (other_model, other_policy, other) in settings.items()
        if (other_model, other_policy) == (model, policy)
        and "shuffle" in str(other.get("control", ""))
        and _policy_of(other) == _policy_of(arguments)
    }


def _policy_of(arguments: Mapping[str, object]) -> dict[str, object]:
    others = {key: value for key, value in arguments.items() if not key.startswith("control")}
    return {"rule": "equal-marginal"} | others  # the default rule of a policy


def _beats(control: Control) -> bool | None:
    """Return True if the policy is better (95 % confidence), False if it is worse, None if that is open.

    They are compared at equal quality if the curves allow it, else by the most expensive cells: better in both energy
    and quality in 97.5 % of the draws.
    """
    saving = control.iso_quality_saving
    if saving is not None and saving.bounded:
        return True if (saving.low or 0) > 0 else False if (saving.high or 0) < 0 else None
    better, worse = control.cheaper_and_better, control.dearer_and_worse
    if better is None or worse is None:
        return None
    return True if better >= 0.975 else False if worse >= 0.975 else None


def _fixed(saving: Interval, ladder: str, reason: str | None) -> str:
    if saving.value is None:
        return f"no saving can be stated against {ladder} ({fmt.clean(reason or 'no common quality')})"
    text, detail = fmt.interval(saving, PERCENT)
    if saving.low is not None and saving.low > 0:
        return f"at equal quality it saves {text} % {detail} against {ladder}"
    if saving.high is not None and saving.high < 0:
        worse = Interval(value=-saving.value, low=-saving.high, high=None if saving.low is None else -saving.low)
        more = fmt.interval(worse, PERCENT)
        return f"at equal quality it needs {more[0]} % {more[1]} more energy than {ladder}"
    return f"no saving against {ladder} is resolved ({text} % {detail or 'without interval'})"


def _histogram(run: RunData, evidence: Evidence) -> Figure | None:
    """Return the distribution of steps over images, for arms whose steps vary."""
    varied = [a for a in evidence.arms if a.steps_spread and a.role in ("predicted", "control")
              and a.steps_spread[0] != a.steps_spread[1]]  # fmt: skip
    if not varied:
        return None
    counts = (
        run.windows.filter(pl.col("cell_id").is_in([a.cell_id for a in varied]))
        .select("cell_id", "steps")
        .explode("steps")
        .drop_nulls("steps")
        .group_by("cell_id", "steps")
        .len()
        .sort("cell_id", "steps")
    )
    shares: dict[str, dict[int, float]] = {}
    for cell, steps, n in counts.iter_rows():
        shares.setdefault(cell, {})[int(steps)] = float(n)
    rows = []
    for arm in varied[:_MOST_ROWS]:
        by_steps = shares.get(arm.cell_id, {})
        total = sum(by_steps.values())
        if total and min(by_steps) > 0:
            rows.append(
                (fmt.clean(arm.cell_id), evidence.series(arm.variant), {s: n / total for s, n in by_steps.items()})
            )
    if not rows:
        return None
    every = sorted({s for _, _, by_steps in rows for s in by_steps})
    data = Table(
        caption="Share of images by steps (%)",
        columns=(Column(title="cell"), *(Column(title=str(s), numeric=True) for s in every)),
        rows=tuple(
            (Cell(text=name, series=series), *(Cell(text=f"{100 * by_steps[s]:.0f}" if s in by_steps else fmt.ABSENT)
                                               for s in every))
            for name, series, by_steps in rows
        ),
    )  # fmt: skip
    return shares_figure("steps", "Steps that the policies chose", rows, label="steps, log₂ scale", data=data)


def _predictor(run: RunData, evidence: Evidence) -> tuple[str, ...]:
    """Return the cost of the predictor itself, as a share of time."""
    cells = phases.phase_seconds(run, evidence)
    shares = [s["predictor"] / sum(s.values()) for arm, s in cells if s.get("predictor") and arm.role == "predicted"]
    if not shares:
        return ()
    return (
        f"The predictor takes {fmt.percent(min(shares))} to {fmt.percent(max(shares))} of the wall time of the "
        "adaptive "
        "cells, and its energy is included in theirs.",
    )
