"""Everything that is computed from a run, once: the sections only put it into words.

run ── draw ──► frontier record, sensitivity, contrasts, attainment      primary metric first
baseline ── examine ──► verdict, pairs
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from perjoule.errors import PerjouleError
from perjoule.gating import Verdict, examine
from perjoule.gating.pairing import Pairs
from perjoule.meters.carbon import Carbon, carbon
from perjoule.running.reporting import ReportRequest
from perjoule.statistics.attainment import Attainment, attainment
from perjoule.statistics.comparisons import Evidence as Compared
from perjoule.statistics.contrasts import Contrast, contrasts
from perjoule.statistics.drawn import drawn_once, evidence_of
from perjoule.statistics.frontier import frontier_of
from perjoule.statistics.noise import Source, drift, sources
from perjoule.statistics.per_prompt import PerPrompt, Slice, per_prompt, slices
from perjoule.statistics.records import Comparison, Frontier, Sensitivity
from perjoule.statistics.safe import anchor_worth
from perjoule.statistics.sensitivity import bd_by_metric
from perjoule.types import Estimate
from perjoule_reports.evidence import Arm, Axis, Evidence
from perjoule_reports.format import plural
from perjoule_reports.records import RunData


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """Results; None or empty if the run does not have them, with a sentence in `troubles` if that is unexpected.

    Attributes:
        compared: Arrays and draws of the primary metric.
        frontier: The record of `perjoule frontier`.
        sensitivity: BD-energy by metric, see `bd_by_metric`.
        anchor: The cell that all others are compared with: the longest fixed run.
        contrasts: The other cells compared with the anchor, by cell id.
        attainment: Band of the frontier.
        variability: Sources of scatter.
        drift: Change of energy over the run, or why there is none.
        verdict: The gate's verdict, if a baseline was given.
        pairs: The paired differences that the verdict is computed from.
        carbon: Emissions of 1000 images of the anchor, if a country was given.
        troubles: What could not be computed, and why.
    """

    compared: Compared | None = None
    frontier: Frontier | None = None
    sensitivity: tuple[Sensitivity, ...] = ()
    anchor: str = ""
    contrasts: Mapping[str, Contrast] = field(default_factory=dict)
    attainment: Attainment | None = None
    variability: tuple[Source, ...] = ()
    drift: tuple[Estimate | None, str] = (None, "no trial was finished")
    verdict: Verdict | None = None
    pairs: Pairs | None = None
    carbon: Carbon | None = None
    troubles: tuple[str, ...] = ()

    @property
    def recommends(self) -> bool:
        """Whether a cell of this run may be recommended: only if the change passed its gate, or there is no gate."""
        return self.verdict is None or self.verdict.verdict == "pass"

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        """The arms compared with their anchors, as in `perjoule frontier`."""
        return self.frontier.comparisons if self.frontier else ()

    def prompts_of(self, test: str, anchor: str) -> PerPrompt | None:
        """Two cells compared prompt by prompt; None if they share no scored prompt."""
        if self.compared is None or not {test, anchor} <= set(self.compared.grid.cells):
            return None
        if self.compared.spec.track == "preference":  # single contributions to the scale have no meaning
            return None
        places = [self.compared.grid.cells.index(cell) for cell in (test, anchor)]
        if self.compared.grid.is_cell_value(self.compared.spec.name)[places].any():
            return None
        return per_prompt(self.compared, test, anchor)

    def slices_of(self, pair: PerPrompt, run: RunData) -> tuple[Slice, ...]:
        """The same comparison by kind of prompt."""
        return slices(pair, {p.prompt_id: p.category for p in run.prompt_set})


def analyse(run: RunData, evidence: Evidence, request: ReportRequest) -> Analysis:
    """Compute everything. A result that fails for lack of evidence is reported in `troubles`, not raised."""
    troubles: list[str] = []
    analysis = Analysis()
    if not run.trials.is_empty():
        try:
            analysis = _compared(run, evidence)
            variability = sources(run, analysis.compared)
            if analysis.compared is not None and analysis.compared.spec.track == "preference":
                variability = tuple(replace(source, quality=None) for source in variability)
            analysis = replace(analysis, variability=variability)
            analysis = replace(analysis, drift=drift(run))
        except PerjouleError as error:
            troubles.append(f"Nothing could be compared: {error}.")
    if request.baseline is not None:
        verdict, pairs = examine(request.baseline, run, None, request.gate)
        analysis = replace(analysis, verdict=verdict, pairs=pairs)
    if request.co2_country is not None:
        anchor = next((a for a in evidence.arms if a.cell_id == analysis.anchor), None)
        energy = anchor.energy.value if anchor else None
        if energy is None:
            troubles.append("Grams of CO2 were requested, but there is no anchor with joules to compute them from.")
        else:
            analysis = replace(analysis, carbon=carbon(1000 * energy, request.co2_country))
    return replace(analysis, troubles=tuple(troubles))


def anchor_arm(evidence: Evidence, axis: Axis) -> Arm | None:
    """The cell that all others are compared with, as in `perjoule recommend`: see `anchor_worth`.

    A cell with odd joules is the anchor only if all cells have.
    """
    arms = advisable(evidence, axis) or rivals(evidence, axis)

    def worth(arm: Arm) -> tuple[float, ...]:
        quality = (arm.quality_of(axis).value or 0.0) * (1 if axis.higher else -1)
        return anchor_worth(arm.role, arm.steps, quality, arm.energy.value)

    return max(arms, key=worth, default=None)


def rivals(evidence: Evidence, axis: Axis) -> list[Arm]:
    """The arms that may be compared: one boundary, one provenance, one family if the metric needs it, not dropped."""
    arms = [a for a in evidence.arms if a.energy.value and a.quality_of(axis).value is not None]
    if not arms:
        return []
    first = next((a for a in arms if a.role == "fixed"), arms[0])
    return [
        a
        for a in arms
        if (a.boundary, a.provenance) == (first.boundary, first.provenance)
        and not a.dropped
        and (not axis.within_family or a.family == first.family)
    ]


def advisable(evidence: Evidence, axis: Axis) -> list[Arm]:
    """The arms that may be compared and whose joules are not odd."""
    return [arm for arm in rivals(evidence, axis) if arm.cell_id not in evidence.left_out]


def apart_from_odd(evidence: Evidence, axis: Axis, sentence: str) -> str:
    """Return a sentence about all cells, preceded by the cells that it leaves out because their joules are odd."""
    count = len(rivals(evidence, axis)) - len(advisable(evidence, axis))
    if not count:
        return sentence
    return f"Apart from {plural(count, 'odd cell')}, {sentence[:1].lower()}{sentence[1:]}"


def _compared(run: RunData, evidence: Evidence) -> Analysis:
    primary = evidence.primary
    if primary is None or primary.name not in run.metrics or run.windows.is_empty():
        return Analysis()
    drawn = drawn_once(run)
    compared = evidence_of(run, drawn, primary.name)
    anchor = anchor_arm(evidence, primary)
    allowed = [a.cell_id for a in rivals(evidence, primary)]
    record = frontier_of(run, drawn, primary.name)
    return Analysis(
        compared=compared,
        frontier=record,
        sensitivity=bd_by_metric(run, drawn, record),
        anchor=anchor.cell_id if anchor else "",
        contrasts=contrasts(compared, anchor.cell_id) if anchor else {},
        attainment=attainment(compared, allowed)
        if allowed and not drawn.grid.is_cell_value(primary.name).any()
        else None,
    )
