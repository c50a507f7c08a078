"""Section 13: the method, in formulas with the parameters of this run."""

from __future__ import annotations

from perjoule.statistics.bd import METHOD as BD_METHOD
from perjoule.statistics.bd import MIN_OVERLAP, MIN_RUNGS
from perjoule.statistics.contrasts import DIFFERENCE_METHOD as CONTRAST_METHOD
from perjoule.statistics.contrasts import RATIO_METHOD
from perjoule.statistics.price import price_of
from perjoule.statistics.savings import SAVING_METHOD
from perjoule.statistics.tails import METHOD as TAIL_METHOD
from perjoule.suite.reading import images_per_window
from perjoule_reports import format as fmt
from perjoule_reports.analysis import Analysis
from perjoule_reports.evidence import Evidence
from perjoule_reports.records import RunData, Section
from perjoule_reports.sections import guide
from perjoule_reports.sections.people import asked_note


def method_section(run: RunData, evidence: Evidence, analysis: Analysis) -> Section:
    """Build the section."""
    return Section(
        anchor="method",
        title="Method",
        deep=True,
        how_to_read="This section says how perjoule used the numbers of the table; how they were obtained is unknown."
        if evidence.imported
        else "This section is generated from the suite and the run, so it describes what was actually done.",
        sample=guide.sample(evidence),
        interval="Each formula names its interval method.",
        change=f"{'A table' if evidence.imported else 'A protocol'} of other batch sizes, seeds or metrics answers "
        "another question.",
        paragraphs=_paragraphs(run, evidence, analysis),
    )


def _paragraphs(run: RunData, evidence: Evidence, analysis: Analysis) -> tuple[str, ...]:
    """Return the formulas and parameters of this run and its summary, one paragraph each."""
    primary = evidence.primary
    sentences = _imported(evidence) if evidence.imported else _measured(evidence)
    if primary is not None and primary.description and not evidence.imported:
        sentences.append(f"{primary.name}: {primary.description}")
    methods = "; ".join(evidence.interval_methods) or "the run does not record the method"
    sentences.append(f"Intervals: {methods}.")
    if race := run.race:
        sentences.append(
            f"Race: after {', '.join(map(str, race.look_prompts))} prompts, cells that another cell surely dominates "
            f"in energy and in {race.metric} got no further prompts (the chance that any cell of the true frontier is "
            f"dropped is at most {race.alpha:g}). A dropped cell is compared with the others on its own prompts."
        )
    if price := price_of(run):
        sentences.append(f"Price of certainty: {price.words} {price.not_included[0].upper()}{price.not_included[1:]}.")
    if note := asked_note(run):
        sentences.append(note)
    if analysis.frontier is not None and primary is not None:
        sentences += _formulas(evidence)
    if analysis.verdict is not None:
        verdict, config = analysis.verdict, analysis.verdict.config
        energy, quality = verdict.energy.margin, verdict.quality.margin
        sentences.append(
            f"Gate, margins: energy {fmt.ABSENT if energy is None else fmt.percent(energy)} "
            f"({fmt.clean(verdict.energy.margin_origin)}), {fmt.clean(verdict.metric)} "
            f"{fmt.ABSENT if quality is None else fmt.number(quality)} "
            f"({fmt.clean(verdict.quality.margin_origin)}); one-sided α = "
            f"{config.alpha:g} an "
            f"axis, {fmt.plural(config.looks, 'look')}, mode {config.mode}; d = ln E − ln E and q = Q − Q by "
            "prompt; PASS "
            "by intersection and union, FAIL after Holm."
        )
    if evidence.has_intervals or not evidence.imported:
        sentences.append(
            "Intervals cover the choice of prompts. They do not cover other machines, other sessions, the "
            "interpolation of curves, or a constant error of the meter."
        )
    sources = sorted(map(fmt.clean, run.trials["method"].drop_nulls().unique()))
    sentences += [f"Source of the joules: {fmt.shorten(source, 300)}." for source in sources[:4]]
    return tuple(sentences)


def _imported(evidence: Evidence) -> list[str]:
    """Return how perjoule used the numbers of an imported table."""
    metrics = evidence.suite.metrics
    sentences = [
        "Energy per image = mean over prompts of the joules that the table states per image. What they cover and "
        "how they were obtained is known only if the table states boundary and provenance. 1 J/image = 0.2778 Wh per "
        "1000 images.",
    ]
    if evidence.primary is not None:
        sentences.append(
            "Quality of a cell = mean over prompts of the mean over seeds of the scores in the table. The frontier's "
            f"axis is {metrics.primary}; a cell is on the frontier if no other cell is at least as good in both energy "
            "and quality and better in one."
        )
    if any(axis.within_family for axis in evidence.axes):
        sentences.append("The values of a full-reference metric are not compared between families.")
    if any(arm.cell_values or arm.energy_is_stated for arm in evidence.arms):
        sentences.append(
            "A number that the table gives once for a cell, or repeats unchanged for all of its prompts, is a cell "
            "value (W281): it has no interval, no probability of being on the frontier, and no gate."
        )
    return sentences


def _measured(evidence: Evidence) -> list[str]:
    protocol, metrics = evidence.suite.protocol, evidence.suite.metrics
    bound = "not limited" if protocol.max_uncertainty is None else fmt.percent(protocol.max_uncertainty)
    order = "cells take turns window by window" if protocol.interleave else "the cells of a variant stay together"
    return [
        "Energy per image = mean over prompts of E(window) ÷ images in the window. A window holds at least "
        f"{fmt.plural(images_per_window(evidence.suite) * protocol.iterations, 'image')}, in pipeline calls of up to "
        f"{protocol.batch_size}; energy is gross, idle power is not subtracted. 1 J/image = 0.2778 Wh per 1000 images.",
        f"Protocol: {fmt.plural(protocol.blocks, 'pass')} over all cells in shuffled order (order seed "
        f"{protocol.order_seed}), {order}; {fmt.plural(protocol.warmup_iterations, 'warm-up call')} before the first "
        f"window of a model; {fmt.number(protocol.cooldown_s)} s of rest before each window; idle power measured over "
        f"{fmt.number(protocol.idle_s)} s; maximum uncertainty of a window: {bound}.",
        "The scored images are the metered images. Scoring is outside every energy window; the predictor of an "
        "adaptive arm is inside.",
        f"Quality of a cell = mean over prompts of the mean over seeds ({', '.join(map(str, protocol.seeds))}). "
        f"The frontier's axis is {metrics.primary}; a cell is on the frontier if no other cell is at least as good in "
        "both energy and quality and better in one.",
        "A full-reference metric compares with the longest run of the same family, prompt and seed, so its values are "
        "never compared between families.",
    ]


def _formulas(evidence: Evidence) -> list[str]:
    """Return how arms and cells are compared."""
    asked = "from the scores of the table" if evidence.imported else "predicted by the metric, no human ratings"
    return [
        f"Saving at equal quality: S(q) = 1 − E_T(q)/E_A(q), q the anchor's longest run. {SAVING_METHOD}. "
        "There is no "
        "extrapolation outside the measured range.",
        f"BD-energy = exp( mean over q of ln E_T(q) − ln E_A(q) ) − 1. {BD_METHOD}. Resolved needs an overlap of "
        f"{MIN_OVERLAP:.0%}, curves that do not cross, {MIN_RUNGS} rungs, and more than its leave-one-out error.",
        "Gain per joule = (Q − Q0)/(E − E0) over the anchor's cheapest run; withheld if the difference of the "
        "energies is not resolved. Q/E is not used: it would rank the cheapest, worst image first.",
        *(
            []
            if evidence.primary is not None and evidence.primary.track == "preference"
            else [f"Preference: ΔQ = Φ⁻¹(mean chance to win)/Φ⁻¹(0.75), chances counted from wins and ties ½; {asked}."]
        ),
        f"Differences from the anchor: {CONTRAST_METHOD}; energies by {RATIO_METHOD}. P(on frontier) and the band "
        "are shares and quantiles over the same draws. Tails: " + TAIL_METHOD + ".",
    ]
