"""Section 8: the difference prompt by prompt, the worst prompts, and kinds of prompts."""

from __future__ import annotations

import numpy as np

from perjoule.statistics.per_prompt import PerPrompt
from perjoule_reports import format as fmt
from perjoule_reports.analysis import Analysis
from perjoule_reports.drawing.dots import cumulative_figure
from perjoule_reports.drawing.plots import of_joules
from perjoule_reports.evidence import Evidence
from perjoule_reports.records import Cell, Column, Figure, Headline, RunData, Section, Table
from perjoule_reports.sections.tables import PERCENT, difference_cell

WORST = 10
_QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


def prompts_section(run: RunData, evidence: Evidence, analysis: Analysis, headline: Headline) -> Section:
    """Build the section for the two cells of the headline."""
    shown = {
        "anchor": "prompts",
        "title": "Per prompt",
        "how_to_read": "The two cells of the headline, prompt by prompt, because a mean hides which prompts lose. The "
        "lines rise from the "
        "largest loss to the largest gain; the height at which a line crosses zero is the share of prompts that do "
        "not improve. The worst prompts are selected after scoring, so their losses are partly chance: "
        "another seed "
        "would show smaller losses.",
        "interval": "Slices: 95 % intervals over the prompts of the slice, for energy over their window groups (2 000 "
        "draws). q is the false "
        "discovery rate "
        "(Benjamini and Hochberg 1995) over all slices shown. Exploratory: no slice was declared before the run.",
        "change": "More prompts of a kind. A slice with q above 0.05 may be a chance result of testing many slices.",
    }
    compared = analysis.prompts_of(headline.test, headline.anchor) if headline.test else None
    if compared is None:
        return Section(**shown, empty="two cells that can be compared prompt by prompt")  # type: ignore[arg-type]
    pair = f"{evidence.words_of(compared.test)} against {evidence.words_of(compared.anchor)}"
    worse = int((compared.quality < 0).sum() if compared.higher else (compared.quality > 0).sum())
    tables = [*([_worst(run, evidence, compared, worse)] if worse else []), *_slices(run, analysis, compared)]
    return Section(
        **shown,  # type: ignore[arg-type]
        sample=f"{fmt.plural(len(compared.prompts), 'prompt')}, each the mean over its seeds: {pair}.",
        paragraphs=(
            f"{pair[:1].upper()}{pair[1:]}: {worse} of {fmt.plural(len(compared.prompts), 'prompt')} score worse.",
        ),
        figures=_figures(evidence, compared, pair),
        small_title="How the prompts differ",
        tables=tuple(tables),
    )  # fmt: skip


def _figures(evidence: Evidence, compared: PerPrompt, pair: str) -> tuple[Figure, ...]:
    axis = evidence.primary
    if len(compared.prompts) < 2 or axis is None:
        return ()
    figures = [
        cumulative_figure(
            "prompts-quality",
            f"Change of {axis.label}",
            compared.quality,
            label=f"Δ {axis.label}" + (f" ({axis.unit})" if axis.unit else ""),
            better="better →" if compared.higher else "← better",
            description=f"Share of prompts at or below each change of {axis.label}, {pair}.",
            data=_quantiles(compared.quality, f"Δ {axis.label}"),
        )
    ]
    change = 100 * compared.energy_change[np.isfinite(compared.energy_change)]
    if len(change) > 1 and np.ptp(change) > 0:
        figures.append(
            cumulative_figure(
                "prompts-energy",
                "Change of energy",
                change,
                label=of_joules("Δ energy per image (%", evidence.provenance) + ")",
                better="← cheaper",
                description=f"Share of prompts at or below each change of energy, {pair}.",
                data=_quantiles(change, "Δ energy (%)"),
                caption="" if evidence.imported else "prompts of one window share its joules",
            )
        )
    return tuple(figures)


def _quantiles(values: np.ndarray, name: str) -> Table:
    rows = tuple(
        (Cell(text=f"{100 * q:.0f} %"), Cell(text=fmt.number(float(v))))
        for q, v in zip(_QUANTILES, np.quantile(values, _QUANTILES, method="inverted_cdf"), strict=True)
    )
    columns = (Column(title="share of prompts"), Column(title=name, numeric=True))
    return Table(caption="Quantiles over prompts", columns=columns, rows=rows)


def _worst(run: RunData, evidence: Evidence, compared: PerPrompt, worse: int) -> Table:
    axis = evidence.primary
    brand = next((a.brand for a in evidence.arms if a.cell_id == compared.test), "")
    category = {p.prompt_id: p.category for p in run.prompt_set}
    rows = []
    for i in compared.worst(min(WORST, worse)):
        prompt = compared.prompts[i]
        energy = float(compared.energy_change[i])
        quality = float(compared.quality[i])
        rows.append((
            Cell(text=fmt.shorten(fmt.clean(run.prompts.get(prompt, prompt)), 160) or "(empty)"),
            Cell(text=fmt.clean(category.get(prompt) or fmt.ABSENT)),
            Cell(text=_signed(quality), sort=quality),
            Cell(text=_signed(100 * energy) if np.isfinite(energy) else fmt.ABSENT, brand=brand,
                 sort=energy if np.isfinite(energy) else None),
        ))  # fmt: skip
    columns = (
        Column(title="prompt"),
        Column(title="kind"),
        Column(title=f"Δ {axis.label if axis else 'quality'}", numeric=True),
        Column(title="Δ energy", unit="%", numeric=True),
    )
    count = min(WORST, worse)
    return Table(caption=f"The {fmt.plural(count, 'prompt')} with the largest loss", columns=columns, rows=tuple(rows))


def _slices(run: RunData, analysis: Analysis, compared: PerPrompt) -> list[Table]:
    made = analysis.slices_of(compared, run)
    if len(made) < 2:
        return []
    rows = [
        (
            Cell(text=fmt.clean(s.name)),
            Cell(text=str(s.n), sort=s.n),
            difference_cell(s.quality),
            difference_cell(s.energy_change, PERCENT),
            Cell(text="too few prompts" if s.q_value is None else f"{s.q_value:.3f}", sort=s.q_value,
                 strong=s.q_value is not None and s.q_value <= 0.05),
        )
        for s in made
    ]  # fmt: skip
    columns = (
        Column(title="kind of prompt"),
        Column(title="n", numeric=True),
        Column(title="Δ quality", numeric=True),
        Column(title="Δ energy", unit="%", numeric=True),
        Column(title="q", numeric=True, hint="false discovery rate of a quality difference, Benjamini and Hochberg"),
    )
    return [Table(caption="By kind of prompt (exploratory)", columns=columns, rows=tuple(rows))]


def _signed(value: float) -> str:
    text = fmt.number(value)
    return f"+{text}" if value > 0 else text
