"""Section 3: the verdict on a candidate compared with a baseline, and the stamp at the top of the page."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np

from perjoule.display import before_after
from perjoule.gating import Verdict
from perjoule.gating.pairing import Pairs
from perjoule.gating.records import EXACT_MARGIN
from perjoule.gating.records import Axis as GateAxis
from perjoule.gating.render import stopped
from perjoule.types import weakest
from perjoule_reports import format as fmt
from perjoule_reports.analysis import Analysis
from perjoule_reports.drawing.plane import plane_figure
from perjoule_reports.evidence import Evidence
from perjoule_reports.format import Scale
from perjoule_reports.records import Cell, Column, Headline, RunData, Section, Stamp, Table, Tone, Word
from perjoule_reports.sections.tables import PERCENT, difference_cell

VERDICTS: dict[str, tuple[Word, str, Tone]] = {
    "pass": ("PASS", "✔", "calm"),
    "fail": ("FAIL", "✘", "alarm"),
    "inconclusive": ("INCONCLUSIVE", "?", "loud"),
    "invalid": ("INVALID", "⊘", "alarm"),
}
# advice in place of a recommendation; cells of this run are only recommended if the change passed
_INSTEAD = {
    "fail": "Keep the baseline: this change failed the gate.",
    "inconclusive": "Keep the baseline until the gate is decided; the section Gate says what is missing.",
    "invalid": "Keep the baseline: this change could not be judged. The section Gate lists what is missing.",
}
_COUNTED = ("", "share", "cosine")  # units that say nothing after a number
_MOST_CELLS = 60
_MOST_GAPS = 12
_WORST = 5


def stamp(verdict: Verdict | None) -> Stamp:
    """Return the verdict as a word and a sentence."""
    if verdict is None:
        return Stamp(
            word="NO GATE", sign="○", tone="plain", sentence="No baseline was given, so nothing is passed or failed."
        )
    word, sign, tone = VERDICTS[verdict.verdict]
    if verdict.incomparable:
        keys = ", ".join(fmt.clean(d.key) for d in verdict.incomparable[:4])
        sentence = f"The two runs are not comparable ({keys}): differences are withheld."
    elif verdict.energy.change.value is None:
        sentence = (
            "There is no evidence for a verdict: " + (fmt.clean(verdict.reasons[0]) if verdict.reasons else "") + "."
        )
    else:
        energy, quality = (
            fmt.change(verdict.energy.change, percent=True),
            fmt.change(verdict.quality.change, percent=False),
        )
        sentence = (
            f"Energy: {energy} with {_more(verdict.energy.margin or 0)} allowed; "
            f"{fmt.clean(verdict.metric)}: {quality} with a loss of {_margin(verdict.quality)} allowed."
        )
        if verdict.identical_images:
            sentence += " The images are the same, bit for bit."
    return Stamp(word=word, sign=sign, tone=tone, sentence=sentence)


def verdict_headline(
    top: Headline, run: RunData, baseline: RunData | None, evidence: Evidence, analysis: Analysis
) -> Headline:
    """Return the headline of a run with a baseline: the verdict in absolute numbers; `top` becomes its support.

    Only a change that passed is recommended.
    """
    verdict = analysis.verdict
    if verdict is None or baseline is None:
        return top
    tested = stamp(verdict)
    alone = f"This run alone: {top.sentence}"
    if (instead := _INSTEAD.get(verdict.verdict)) is not None:
        top = replace(top, deploy=(instead,), call="")
    if verdict.energy.change.value is None or verdict.quality.change.value is None:
        return replace(top, sentence=tested.sentence, support=(alone, *top.support), tiles=())
    axis = evidence.primary
    label = axis.label if axis and axis.name == verdict.metric else fmt.clean(verdict.metric)
    unit = f" {axis.unit}" if axis and axis.unit not in _COUNTED else ""
    energy = _moved(verdict.energy, "costs {} more energy", "saves {} of the energy", "needs the same energy", PERCENT)
    quality = _moved(
        verdict.quality, f"gains {{}}{unit} in {label}", f"loses {{}}{unit} in {label}", f"does not change {label}"
    )
    margins = verdict.energy.margin, verdict.quality.margin
    allowed = "" if None in margins else f"; {_more(margins[0] or 0)} energy and a loss of {margins[1]:g} were allowed"
    if verdict.identical_images:
        quality = f"gives the same images, bit for bit (in {label} an A/A comparison)"
    sentence = f"This change {energy}{_joules(analysis)}, and {quality}{allowed}."
    return replace(top, sentence=sentence, support=(tested.sentence, alone, *top.support), tiles=())


def _more(margin: float) -> str:
    """Return the allowed share of additional energy in words; counted work allows only for the last digits of sums."""
    return "no more" if margin <= EXACT_MARGIN else f"{100 * margin:g} % more"


def _moved(axis: GateAxis, more: str, less: str, same: str, unit: Scale | None = None) -> str:
    """Return a change in words, e.g. `costs 12 % more energy`; one whose interval includes zero may be chance."""
    change = axis.change
    if not change.value:
        return same
    size = fmt.percent(abs(change.value)) if unit is PERCENT else fmt.number(abs(change.value), 2)
    clear = change.low is not None and change.high is not None and (change.low > 0 or change.high < 0)
    return (more if change.value > 0 else less).format(size) + ("" if clear else " (may be chance)")


def _joules(analysis: Analysis) -> str:
    """Return e.g. `, 291 → 326 J per image`, as `perjoule compare` prints it.

    Over several cells it is the geometric mean, whose ratio is the change.
    """
    pairs = analysis.pairs
    if pairs is None or not all(math.isfinite(mean) and mean > 0 for mean in pairs.mean_j):
        return ""
    mark = fmt.brand(weakest(pairs.provenance))
    several = f" (geometric mean of {len(pairs.cells)} cells)" if len(pairs.cells) > 1 else ""
    return f", {before_after(pairs.mean_j, mark)}{several}"


def gate_section(run: RunData, baseline: RunData | None, evidence: Evidence, analysis: Analysis) -> Section:
    """Build the section."""
    verdict = analysis.verdict
    how = (
        "The candidate is this run. An axis passes if the whole interval lies on the good side of its margin, fails if "
        "a one-sided test shows that it exceeds the margin, and is inconclusive otherwise. PASS needs both axes; "
        "FAIL needs one axis or one cell, after Holm's correction. The detectable effect is the smallest change that "
        "would be detected with this many prompts in four of five cases."
    )
    if verdict is None or baseline is None:
        return Section(
            anchor="gate",
            title="Gate",
            how_to_read="",
            empty="a gate (compare with a baseline: perjoule report RUN --baseline RUN)",
        )
    figure = None if analysis.pairs is None else plane_figure(
        verdict, analysis.pairs, evidence.provenance, evidence.primary.unit if evidence.primary else ""
    )  # fmt: skip
    incomparable = bool(verdict.incomparable)
    tables = [_axes_table(verdict), *_findings(verdict), *_worst_prompts(run, verdict, analysis.pairs)]
    return Section(
        anchor="gate",
        title="Gate",
        how_to_read=how,
        sample=f"Energy: {verdict.energy.sample}. {fmt.clean(verdict.metric)}: {verdict.quality.sample}. "
        f"{fmt.plural(len(verdict.cells), 'cell')} in both runs.",
        interval=f"{verdict.config.level:.0%} two-sided, so that each end is a one-sided "
        f"{1 - verdict.config.nominal():.1%} limit: "
        f"{fmt.clean(verdict.energy.change.method) or 'none'}.",
        change=_change(verdict),
        alert="These two runs must not be compared: the fields below differ. Differences are withheld."
        if incomparable else "",
        paragraphs=(_identity(baseline),
                    *([f"Sequential gate, {stopped(verdict.stop)}."] if verdict.stop is not None else []),
                    *map(fmt.clean, verdict.reasons if not incomparable else ()),
                    *(f"Note: {fmt.clean(note)}" for note in verdict.notes)),
        figures=(figure,) if figure else (),
        tables=tuple(tables),
        folded=_cells_table(verdict),
    )  # fmt: skip


def _identity(baseline: RunData) -> str:
    system = baseline.system
    if baseline.is_imported:
        origin = f"imported from {fmt.clean(system.imported_from or 'a table')}"
    else:
        when = fmt.clean(system.created_utc or "at an unrecorded time")
        commit = fmt.clean(system.commit or "not recorded")
        origin = f"suite {fmt.clean(baseline.suite.name)}, run {when}, commit {commit}"
    return f"Baseline: {origin}, comparability key {fmt.clean(system.comparability_key or 'not recorded')}."


def _change(verdict: Verdict) -> str:
    needed = [a.n_needed for a in (verdict.energy, verdict.quality) if a.outcome == "inconclusive" and a.n_needed]
    if verdict.verdict == "inconclusive" and needed:
        return f"About {max(needed):,} prompts would decide.".replace(",", "\u202f")
    if verdict.verdict == "invalid":
        return "Evidence: everything listed below must be present and equal in both runs."
    return "Other margins than the declared ones, or variation between sessions, which is not included here."


def _axes_table(verdict: Verdict) -> Table:
    rows = []
    for name, axis, unit in (
        ("energy per image (%)", verdict.energy, PERCENT),
        (verdict.metric, verdict.quality, None),
    ):
        factor = unit.factor if unit else 1.0
        change = difference_cell(axis.change, unit)
        word, sign, _ = VERDICTS[axis.outcome]
        rows.append((
            Cell(text=fmt.clean(name)),
            change if axis.change.value is not None else Cell(text="withheld"),
            Cell(text=_margin(axis, factor), detail=fmt.clean(axis.margin_origin), sort=axis.margin),
            Cell(text=f"{sign} {word}", detail=fmt.clean(axis.label)),
            Cell(text=fmt.ABSENT if axis.mde is None else fmt.number(axis.mde / factor, 2), sort=axis.mde),
            Cell(text=fmt.ABSENT if axis.n_needed is None else f"{axis.n_needed}", sort=axis.n_needed),
            Cell(text=str(axis.n_prompts)),
            Cell(text=f"{axis.n_windows_baseline} + {axis.n_windows_candidate}"),
        ))  # fmt: skip
    columns = (
        Column(title="axis"),
        Column(title="change", numeric=True, hint="positive energy is more, positive quality is better"),
        Column(title="margin", numeric=True),
        Column(title="verdict"),
        Column(title="detectable effect", numeric=True, hint="detected in four of five cases"),
        Column(title="prompts needed", numeric=True, hint="to separate a change of this size from the margin"),
        Column(title="prompts", numeric=True),
        Column(title=verdict.energy.counted, numeric=True, hint="baseline + candidate"),
    )
    return Table(caption="The axes of the verdict", columns=columns, rows=tuple(rows))


def _margin(axis: GateAxis, factor: float = 1.0) -> str:
    return fmt.ABSENT if axis.margin is None else fmt.number(axis.margin / factor)


def _findings(verdict: Verdict) -> list[Table]:
    tables = []
    if verdict.incomparable:
        rows = [(Cell(text=fmt.clean(d.key)), Cell(text=_value(d.baseline)), Cell(text=_value(d.candidate)))
                for d in verdict.incomparable]  # fmt: skip
        columns = (Column(title="field"), Column(title="baseline"), Column(title="candidate"))
        tables.append(Table(caption="Fields that differ", columns=columns, rows=tuple(rows)))
    if verdict.missing:
        gaps = [(Cell(text=fmt.clean(m.what)), Cell(text=fmt.clean(m.name)), Cell(text=fmt.clean(m.where)),
                 Cell(text=fmt.shorten(fmt.clean(m.detail), 240)))
                for m in verdict.missing[:_MOST_GAPS]]  # fmt: skip
        more = f" (the first {_MOST_GAPS} of {len(verdict.missing)})" if len(verdict.missing) > _MOST_GAPS else ""
        heads = (Column(title="what"), Column(title="name"), Column(title="missing in"), Column(title="detail"))
        tables.append(Table(caption=f"What is missing{more}", columns=heads, rows=tuple(gaps)))
    return tables


def _worst_prompts(run: RunData, verdict: Verdict, pairs: Pairs | None) -> list[Table]:
    """Return the prompts with the largest loss against the baseline, over the cells of both runs."""
    if pairs is None or not pairs.quality_units:
        return []
    lost = pairs.quality.mean(1)
    worst = [int(i) for i in np.argsort(lost, kind="stable")[:_WORST] if lost[i] < 0]
    energy = dict(zip(pairs.energy_units, np.expm1(pairs.log_energy.mean(1)), strict=True))
    rows = [
        (
            Cell(text=fmt.shorten(fmt.clean(run.prompts.get(prompt, prompt)), 160) or "(empty)"),
            Cell(text=fmt.number(float(lost[i])), sort=float(lost[i])),
            Cell(text=fmt.number(100 * float(energy[prompt])) if prompt in energy else "in a shared window"),
        )
        for i in worst
        for prompt in [pairs.quality_units[i]]
    ]
    if not rows:
        return []
    columns = (
        Column(title="prompt"),
        Column(title=f"Δ {fmt.clean(verdict.metric)}", numeric=True, hint="mean over cells and seeds"),
        Column(title="Δ energy", unit="%", numeric=True),
    )
    return [Table(caption="Prompts with the largest loss against the baseline", columns=columns, rows=tuple(rows))]


def _cells_table(verdict: Verdict) -> tuple[Table, ...]:
    if len(verdict.cells) < 2:
        return ()
    shown = sorted(verdict.cells, key=lambda c: (not c.failed, c.cell_id))[:_MOST_CELLS]
    rows = [
        (
            Cell(text=fmt.clean(c.cell_id)),
            difference_cell(c.energy, PERCENT),
            difference_cell(c.quality),
            Cell(text=", ".join(c.failed) or "nothing", strong=bool(c.failed)),
        )
        for c in shown
    ]
    more = f", {len(shown)} of {len(verdict.cells)}" if len(shown) < len(verdict.cells) else ""
    columns = (
        Column(title="cell"),
        Column(title="energy", unit="%", numeric=True),
        Column(title=fmt.clean(verdict.metric), numeric=True),
        Column(title="worse than the margin in"),
    )
    return (Table(caption=f"The gate, cell by cell{more}", columns=columns, rows=tuple(rows)),)


def _value(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
    return fmt.shorten(fmt.clean(text), 160)
