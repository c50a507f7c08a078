"""The gate: may the candidate replace the baseline? Two axes, one verdict, and no pass without evidence.

baseline, candidate ──► evidence.check   missing · invalid · incomparable      ──► INVALID
                        pairing.pair     ln E and Q differences, prompt by prompt
                        decide.decide    non-inferiority on both axes          ──► PASS, FAIL, INCONCLUSIVE
                        components       what changed: counted work per image, by network
                        render           terminal, JSON, Markdown, JUnit, annotations: all from one Verdict
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from perjoule.gating.records import GateConfig, Verdict

if TYPE_CHECKING:
    from perjoule.gating.pairing import Pairs
    from perjoule.runs.directory import Run

__all__ = ["GateConfig", "Verdict", "examine", "gate"]


def gate(baseline: Run, candidate: Run, metric: str | None = None, config: GateConfig | None = None) -> Verdict:
    """Compare two runs and decide.

    Args:
        baseline: Run of the model in use.
        candidate: Run of the model that would replace it.
        metric: Quality axis; the baseline suite's primary metric by default.
        config: Margins, level, mode, e.g. `GateConfig(margin_energy="5%")`.

    Returns:
        The verdict. Missing, invalid or incomparable evidence is a verdict (`invalid`), not an exception.

    Raises:
        UsageError: If the metric declares no margin and none is given, or if the verdict is open and a margin is below
            the minimal detectable effect, because such a gate could only guess.
    """
    from perjoule.gating.resolving import require_resolvable

    verdict, _ = verdict_and_pairs(baseline, candidate, metric, config)
    require_resolvable(verdict)
    return verdict


def examine(
    baseline: Run, candidate: Run, metric: str | None = None, config: GateConfig | None = None
) -> tuple[Verdict, Pairs | None]:
    """Return the verdict of `gate` and its differences; a margin below the detectable effect is not an error here.

    Such a verdict is inconclusive.

    Returns:
        The verdict, and the differences on which it is based; None if evidence is missing, invalid or incomparable.

    Raises:
        UsageError: If the metric declares no margin and none is given.
    """
    from dataclasses import replace

    from perjoule.gating.resolving import unresolvable

    verdict, pairs = verdict_and_pairs(baseline, candidate, metric, config)
    problems = unresolvable(verdict)
    if problems:
        verdict = replace(verdict, reasons=(*problems, *verdict.reasons))
    return verdict, pairs


def verdict_and_pairs(
    baseline: Run, candidate: Run, metric: str | None, config: GateConfig | None
) -> tuple[Verdict, Pairs | None]:
    """Return the verdict of `examine`, without regard to the detectable effect.

    A candidate that was measured until a verdict is judged as the look at which it stopped.
    """
    from dataclasses import replace

    from perjoule.gating.looks import last_look, part_of, stop_at

    settings = config or GateConfig()
    stopped = last_look(candidate) if settings.look is None else None
    if stopped is None:
        return _judged(baseline, candidate, metric, settings)
    plan, number = stopped
    settings = replace(settings, look=plan.look(number))
    kept = plan.until(number)
    before, after = part_of(baseline, kept), part_of(candidate, kept)
    verdict, pairs = _judged(before, after, metric, settings)
    note = (
        f"the candidate was measured until a verdict, so it is judged as look {number} of {len(plan.prompts)}; this is "
        f"exact only against the baseline and with the margins of that gate: perjoule gate {candidate.path} "
        "--replay-looks"
    )
    return replace(verdict, notes=(note, *verdict.notes), stop=stop_at(plan, number, before, after)), pairs


def _judged(baseline: Run, candidate: Run, metric: str | None, settings: GateConfig) -> tuple[Verdict, Pairs | None]:
    from dataclasses import replace

    from perjoule.gating.components import explained
    from perjoule.gating.decide import decide
    from perjoule.gating.evidence import check
    from perjoule.gating.margins import margins_for, require_margin
    from perjoule.gating.pairing import pair_runs
    from perjoule.gating.steps import with_baseline_cells
    from perjoule.statistics.price import price_of

    name = metric or baseline.suite.metrics.primary
    candidate, step_notes = with_baseline_cells(baseline, candidate, settings.change)
    margins = margins_for(name, settings, (baseline, candidate))
    findings = check(baseline, candidate, name, settings)
    findings = replace(findings, notes=(*step_notes, *findings.notes))
    if findings.blocking:
        return replace(Verdict.invalid(name, settings, findings, margins), price=price_of(baseline, candidate)), None
    if settings.joules_per_quality is None:
        require_margin(name, margins, baseline)
    pairs = pair_runs(baseline, candidate, name)
    if margins.quality.note and not pairs.identical_images and settings.joules_per_quality is None:
        findings = replace(findings, notes=(margins.quality.note, *findings.notes))
    verdict = replace(decide(pairs, name, settings, findings, margins), price=price_of(baseline, candidate))
    return explained(verdict, baseline, candidate), pairs
