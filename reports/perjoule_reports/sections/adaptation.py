"""Section 6: does a policy that adapts its steps to the prompt beat policies with less information?

fixed ladder, equal quality    does adapting beat simply using fewer steps?
shuffled                       its own step counts assigned to the wrong prompts: does it use the prompt?
mean curve, length only        one curve for all prompts; the number of words alone
bound                          every image or prompt uses its best step count: how large can the saving be?
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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
from perjoule_reports.naming import capitalised
from perjoule_reports.records import Cell, Column, Figure, RunData, Section, Table
from perjoule_reports.sections import guide
from perjoule_reports.sections.tables import PERCENT, difference_cells

_MOST_ROWS = 36


@dataclass(frozen=True, slots=True, kw_only=True)
class Opponent:
    """What a policy is compared with. The text, the table and the figure are all made from these.

    `own_shuffle`: it has the policy's own step counts, shuffled. `owner` is the label of the policy whose step counts
    it shuffles, empty for other opponents.
    """

    result: Control
    name: str
    remark: str
    own_shuffle: bool = False
    owner: str = ""

    @property
    def saving(self) -> Interval:
        """Share of energy that the policy saves at equal quality."""
        return self.result.iso_quality_saving or Interval()

    @property
    def gain(self) -> Interval:
        """Quality that the policy gains at equal energy."""
        return self.result.iso_energy_gain or Interval()

    @property
    def beaten(self) -> bool | None:
        """True if the policy is better (95 % confidence), False if it is worse, None if that is open.

        They are compared at equal quality, then at equal energy, then by the most expensive cells: better in both
        energy and quality in 97.5 % of the draws.
        """
        for difference in (self.saving, self.gain):
            if fmt.excludes_zero(difference):
                return (difference.value or 0.0) > 0
        better, worse = self.result.cheaper_and_better, self.result.dearer_and_worse
        if better is None or worse is None:
            return None
        return True if better >= 0.975 else False if worse >= 0.975 else None

    def words(self, evidence: Evidence) -> str:
        """Return the difference that `beaten` rests on."""
        if fmt.excludes_zero(self.saving):
            return f"energy saved at equal quality: {' % '.join(fmt.interval(self.saving, PERCENT))}"
        if fmt.excludes_zero(self.gain):
            label = evidence.primary.label if evidence.primary else "quality"
            return f"{label} at equal energy: {' '.join(fmt.difference(self.gain))}"
        return "the most expensive cells are cheaper and better"


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
    faced = [(record, _opponents(run, evidence, record)) for record in policies]
    rows, table = _rows(evidence, faced), _table(evidence, faced)
    is_open = any(None in (row.low, row.high) and row.low != row.high for row in rows[:_MOST_ROWS])
    figures: list[Figure] = []
    if rows:
        figures.append(
            interval_figure(
                "adaptation-saving",
                "Energy that the policy saves at equal quality",
                rows[:_MOST_ROWS],
                label=of_joules("energy saved at equal quality (%", evidence.provenance) + ")",
                description=f"{fmt.plural(len(rows), 'comparison')} of adaptive arms with their opponents. The table "
                "next to the figure contains the numbers.",
                caption=f"the opponent is named below the policy; {evidence.primary.label if evidence.primary else ''}"
                + ("; an arrow is an open end of an interval" if is_open else "")
                + (f"; the first {_MOST_ROWS} of {len(rows)}" if len(rows) > _MOST_ROWS else ""),
                data=table,
            )
        )
    histogram = _histogram(run, evidence)
    return Section(
        **shown,  # type: ignore[arg-type]
        sample=guide.sample(evidence),
        paragraphs=(*(_sentence(evidence, *one) for one in faced), *_predictor(run, evidence)),
        figures=(*figures, *((histogram,) if histogram else ())),
        tables=() if rows else (table,),
    )


def _opponents(run: RunData, evidence: Evidence, record: Comparison) -> list[Opponent]:
    """Return the fixed ladder and the controls that a policy is compared with."""
    own, owners = _own_shuffles(run, record.test), _owners(run, evidence)
    ladder = Control(
        control=record.anchor,
        iso_quality_saving=record.iso_quality_saving,
        iso_energy_gain=record.iso_energy_gain,
        reason=record.saving_reason,
    )
    controls = record.controls.against if record.controls else ()
    return [
        Opponent(result=ladder, name=evidence.label_of(record.anchor), remark="fixed"),
        *(
            Opponent(
                result=control,
                name=evidence.label_of(control.control),
                remark="its own steps, shuffled"
                if control.control in own
                else f"steps of “{owners[control.control]}”, shuffled"
                if control.control in owners
                else "control",
                own_shuffle=control.control in own,
                owner=owners.get(control.control, ""),
            )
            for control in controls
        ),
    ]


def _rows(evidence: Evidence, faced: Sequence[tuple[Comparison, Sequence[Opponent]]]) -> list[Row]:
    rows = []
    for record, opponents in faced:
        for other in opponents:
            saving = other.saving
            if saving.value is not None:
                low, high = (None if end is None else 100 * end for end in fmt.ends_of(saving))
                label = f"{evidence.label_of(record.test)}\n{other.name}"
                rows.append(
                    Row(label=label, value=100 * saving.value, low=low, high=high, series=evidence.series(record.test))
                )
    return rows


def _table(evidence: Evidence, faced: Sequence[tuple[Comparison, Sequence[Opponent]]]) -> Table:
    every = [(record, other) for record, opponents in faced for other in opponents]
    brand = next((a.brand for record, _ in faced for a in evidence.arms if a.variant == record.test), "")
    results = [other.result for _, other in every]
    numbers = zip(
        difference_cells([other.saving for _, other in every], PERCENT, brand),
        difference_cells([other.gain for _, other in every]),
        difference_cells([_less_one(result.energy_ratio or Interval()) for result in results], PERCENT, brand),
        difference_cells([result.quality_difference or Interval() for result in results]),
        strict=True,
    )
    rows: list[tuple[Cell, ...]] = []
    for record, opponents in faced:
        head = Cell(
            text=evidence.label_of(record.test),
            detail=evidence.id_of(record.test),
            series=evidence.series(record.test),
        )
        for other in opponents:
            detail = "; ".join(filter(None, (evidence.id_of(other.result.control), other.remark)))
            rows.append((
                head,
                Cell(text=other.name, detail=detail),
                *next(numbers),
                Cell(text=fmt.clean(other.result.reason or "")),
            ))  # fmt: skip
        if record.controls:
            headroom = record.controls.headroom
            absent = [Cell(text=fmt.ABSENT)] * 4
            rows.append((
                head, Cell(text=headroom.bound, detail="of the fixed ladder"), *absent, Cell(text=_headroom(headroom))
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
    return Table(caption="Adaptive arms against their opponents", columns=columns, rows=tuple(rows))


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


def _less_one(ratio: Interval) -> Interval:
    value, low, high = (None if v is None else v - 1 for v in (ratio.value, ratio.low, ratio.high))
    return Interval(value=value, low=low, high=high)


def _sentence(evidence: Evidence, record: Comparison, opponents: Sequence[Opponent]) -> str:
    """Return the conclusion that the controls allow about one policy."""
    name = capitalised(evidence.label_of(record.test), fmt.clean(record.test))
    sentence = f"{name}: {_fixed(opponents[0].saving, opponents[0].name, record.saving_reason)}"
    shuffles = [other for other in opponents if other.own_shuffle]
    if not shuffles:
        others = [f"“{other.name}” shuffles those of “{other.owner}”" for other in opponents if other.owner]
        why = f" ({'; '.join(others)})" if others else ""
        return f"{sentence}. No control shuffles its own step counts{why}, so use of the prompt is not shown."
    beaten = [other.beaten for other in shuffles]
    which = "its shuffled control" if len(shuffles) == 1 else f"all {len(shuffles)} of its shuffled controls"
    if all(beaten):
        by = f" ({shuffles[0].words(evidence)})" if len(shuffles) == 1 else ""
        return f"{sentence}. It beats {which}{by}, so it uses information about the prompt."
    if any(beaten):
        count = f"{sum(b is True for b in beaten)} of its {fmt.plural(len(beaten), 'shuffled control')}"
        return f"{sentence}. It beats {count}, so use of the prompt is not shown."
    if all(b is False for b in beaten):
        return f"{sentence}. It is worse than {which}, so use of the prompt is not shown."
    one = "its shuffled control" if len(shuffles) == 1 else "any of its shuffled controls"
    return (
        f"{sentence}. At equal quality and at equal energy it is not shown to be better than {one}, so use of the "
        "prompt is not shown."
    )


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


def _owners(run: RunData, evidence: Evidence) -> dict[str, str]:
    """Return, by shuffled control, the label of the policy whose step counts it shuffles."""
    policies = [variant.name for variant in run.suite.variants if variant.role == "predicted"]
    return {control: evidence.label_of(name) for name in policies for control in _own_shuffles(run, name)}


def _policy_of(arguments: Mapping[str, object]) -> dict[str, object]:
    others = {key: value for key, value in arguments.items() if not key.startswith("control")}
    return {"rule": "equal-marginal"} | others  # the default rule of a policy


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
