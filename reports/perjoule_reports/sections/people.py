"""Section with the answers of people: who was asked, JOD of each arm, JOD per kilojoule, and which metric agrees.

It exists only in a report with a study. Answers of simulated observers and of models are never called people's.
"""

from __future__ import annotations

from dataclasses import replace

from perjoule.people.gains import Gain
from perjoule.people.metric import RunWithPeople
from perjoule.people.wording import summary_line, who
from perjoule.types import Estimate, Interval
from perjoule_reports import format as fmt
from perjoule_reports.analysis import Analysis
from perjoule_reports.evidence import Evidence
from perjoule_reports.records import Badge, Cell, Column, Headline, RunData, Section, Table, Tile, Tone

_MOST_OBSERVERS = 40
_TITLES = {"people": "People", "not stated": "Observers of unstated provenance"}
_HOW_TO_READ = (
    "1 JOD: 75 of 100 choices are for the better picture; 2 JOD: 91 of 100. 0 is the mean of the arms, so only "
    "differences have a meaning. Gain per kilojoule compares a cell with the cheapest one of the study."
)


def people_section(run: RunData, evidence: Evidence, analysis: Analysis) -> Section | None:
    """Build the section; None without a study."""
    if not isinstance(run, RunWithPeople):
        return None
    scale = run.scale
    tables = [_scores(run, evidence, analysis)]
    if scale.excluded:
        tables.append(_excluded(run))
    if run.agreement:
        tables.append(_agreement(run))
    return Section(
        anchor="people",
        title=_TITLES.get(scale.provenance, "Observers that are not people"),
        how_to_read=_HOW_TO_READ,
        sample=f"{fmt.clean(summary_line(scale))}.",
        interval=f"{scale.level:.0%}: {scale.method}. Gains per kilojoule: the draws of the frontier.",
        change="More observers and more prompts narrow the intervals; other people may prefer other pictures.",
        paragraphs=tuple(f"{note[:1].upper()}{note[1:]}." for note in scale.notes),
        tables=tuple(tables),
    )


def asked_note(run: RunData) -> str:
    """Return who judged the quality, for the section on method; empty without a study."""
    if not isinstance(run, RunWithPeople):
        return ""
    rule = run.study.screening if run.study else None
    screened = (
        "" if rule is None else f" Excluded by the rule of the study: more than {rule.most_failed_checks:.0%} of the "
        f"checks failed, a median response below {rule.fastest_median_ms:.0f} ms, or answers that fit random choices "
        f"better than the scale of the others and that a careful observer gives with less than "
        f"{rule.honest_probability:.0%} probability."
    )  # fmt: skip
    return f"Quality is JOD by {fmt.clean(summary_line(run.scale))}. {run.scale.method}.{screened}"


def badge(run: RunData) -> tuple[Badge, ...]:
    """Return the badge that says who judged."""
    if not isinstance(run, RunWithPeople):
        return ()
    scale = run.scale
    value = f"{scale.answers} choices by {who(scale.provenance, scale.observers)}".rstrip(",")
    tone: Tone = "calm" if scale.provenance == "people" else "alarm"
    return (Badge(label="judged by", value=value, tone=tone, hint=f"{len(scale.excluded)} observers excluded"),)


def with_gain(top: Headline, run: RunData, analysis: Analysis) -> Headline:
    """Return the headline with the JOD per kilojoule of the best cell over the cheapest one."""
    if not isinstance(run, RunWithPeople):
        return top
    sentence = f"Quality: {fmt.clean(summary_line(run.scale))}."
    best = max(run.scale.arms, key=lambda arm: arm.jod).arm
    cell = next((cell for cell, arm in run.arms.items() if arm == best), "")
    gain = next((one for one in _gains(run, analysis) if one.cell_id == cell), None)
    if gain is None or gain.jod_per_kj.value is None:
        return replace(top, support=(sentence, *top.support))
    value, detail = fmt.interval(gain.jod_per_kj)
    claim = f"{cell} gains {value} {detail} {run.scale.unit} per kJ over {gain.over}."
    tile = Tile(value=value, detail=detail, label=f"{run.scale.unit} per kJ, {cell} over {gain.over}")
    return replace(top, support=(sentence, claim, *top.support), tiles=(*top.tiles, tile))


def _gains(run: RunWithPeople, analysis: Analysis) -> tuple[Gain, ...]:
    return run.gains if analysis.compared is not None else ()


def _scores(run: RunWithPeople, evidence: Evidence, analysis: Analysis) -> Table:
    cells = {arm: cell for cell, arm in run.arms.items()}
    gains = {gain.cell_id: gain for gain in _gains(run, analysis)}
    cheapest = next((gain.over for gain in gains.values()), "the cheapest cell")
    energies = {arm.cell_id: arm for arm in evidence.arms}
    rows = []
    for arm in run.scale.arms:
        cell = cells.get(arm.arm, "")
        cost = energies.get(cell)
        score = Estimate(value=arm.jod, low=arm.low, high=arm.high, level=run.scale.level, n=arm.n_answers, method="")
        gain = gains[cell].jod_per_kj if cell in gains else None
        rows.append((
            Cell(text=fmt.clean(arm.arm)),
            _number(score, signed=True),
            Cell(text=fmt.ABSENT) if cost is None else replace(_number(cost.energy), brand=cost.brand),
            Cell(text=fmt.ABSENT) if gain is None or gain.value is None else _number(gain, signed=True),
            Cell(text=str(arm.n_answers), sort=arm.n_answers),
        ))  # fmt: skip
    columns = (
        Column(title="arm"),
        Column(title="score", unit=run.scale.unit, numeric=True),
        Column(title="energy", unit="J/image", numeric=True),
        Column(title="gain per kilojoule", unit=f"{run.scale.unit} per kJ", numeric=True,
               hint=f"over {cheapest}, the cheapest"),
        Column(title="choices", numeric=True),
    )  # fmt: skip
    return Table(caption="Scores of the arms, best first", columns=columns, rows=tuple(rows))


def _excluded(run: RunWithPeople) -> Table:
    rows = [
        (
            Cell(text=fmt.shorten(fmt.clean(one.observer), 12)),
            Cell(text=str(one.n_answers), sort=one.n_answers),
            Cell(text=fmt.clean(one.reason)),
        )
        for one in run.scale.excluded[:_MOST_OBSERVERS]
    ]
    columns = (Column(title="observer"), Column(title="choices", numeric=True), Column(title="reason"))
    more = len(run.scale.excluded) - len(rows)
    caption = "Observers whose answers are not used" + (f" (and {more} more)" if more > 0 else "")
    return Table(caption=caption, columns=columns, rows=tuple(rows))


def _agreement(run: RunWithPeople) -> Table:
    rows = [
        (
            Cell(text=fmt.clean(row.metric)),
            _number(row.pairwise_accuracy),
            _number(row.rank_correlation, signed=True),
            Cell(text=str(row.n_choices), sort=row.n_choices),
        )
        for row in sorted(run.agreement, key=lambda row: -(row.pairwise_accuracy.value or 0.0))
    ]
    columns = (
        Column(title="metric"),
        Column(title="choices predicted", numeric=True, hint="share of choices; 0.5 is chance"),
        Column(title="rank correlation", numeric=True, hint="Spearman, of the means of the cells"),
        Column(title="choices", numeric=True),
    )
    return Table(caption="Agreement of the metrics of this run with these choices", columns=columns, rows=tuple(rows))


def _number(value: Interval, signed: bool = False) -> Cell:
    if value.value is None:
        return Cell(text=fmt.ABSENT)
    text, detail = fmt.interval(value, signed=signed)
    return Cell(text=text, detail=detail, sort=value.value)
