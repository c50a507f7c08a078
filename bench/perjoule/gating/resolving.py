"""Whether the evidence can resolve a margin: a gate below its minimal detectable effect could only guess."""

from __future__ import annotations

import math

from perjoule.errors import UsageError
from perjoule.gating.decide import is_open, prompts_needed, session_variance, text_of
from perjoule.gating.margins import is_left_to_prompts
from perjoule.gating.pairing import Pairs
from perjoule.gating.records import Axis, GateConfig, Verdict
from perjoule.gating.resolution import rounded_up
from perjoule.statistics.detectable import minimal_detectable_effect

_LEAST_UNITS = 3


def unresolvable(verdict: Verdict) -> list[str]:
    """Return a message for each margin below its minimal detectable effect on which the verdict is still open.

    Such a gate could only guess. A decided axis is not open, however few the prompts: the whole interval of its change
    lies on one side of the margin, or the run fails on the other axis.
    """
    if verdict.verdict == "fail" or verdict.net_benefit_j is not None:
        return []
    problems = []
    for name, axis, good in (("energy", verdict.energy, -1), (verdict.metric, verdict.quality, 1)):
        if axis.mde is None or axis.margin is None or axis.mde <= axis.margin or not is_open(axis, good):
            continue
        # nobody chose it too small: the differences vary more than was expected
        if is_left_to_prompts(axis.margin_origin):
            continue
        needed = _prompts_for(axis, verdict.config, of_energy=axis is verdict.energy)
        remedy = f"Use about {needed} prompts, or a wider margin{_wider(verdict, axis)}"
        if needed is None:
            remedy = (
                "More prompts do not reduce the variation between sessions: measure both runs in one job, or use a "
                "wider margin"
            )
        problems.append(
            f"gate: the margin on {name} ({axis.margin:.4g}) is below the minimal detectable effect "
            f"({axis.mde:.4g}) of {axis.sample}; the measured change is {text_of(axis.change.value)} "
            f"[{text_of(axis.change.low)}, {text_of(axis.change.high)}]. {remedy}"
        )
    return problems


def _wider(verdict: Verdict, axis: Axis) -> str:
    """Return how to state the smallest margin that these prompts could judge."""
    if axis is verdict.energy:
        return f", e.g. --margin-energy {100 * rounded_up(axis.mde or 0.0):g}%"
    wider = rounded_up(axis.mde or 0.0)
    return f": margins.{verdict.metric} = {wider:g} under [metrics] in the suite, or --margin-quality {wider:g}"


def _prompts_for(axis: Axis, config: GateConfig, *, of_energy: bool) -> int | None:
    """Number of prompts with which the minimal detectable effect equals the margin; None if no number is enough."""
    mde, margin, extra = axis.mde or 0.0, axis.margin or 0.0, 0.0
    if of_energy:
        mde, margin, extra = math.log1p(mde), math.log1p(margin), session_variance(config)
    alpha = config.nominal()
    variance = (mde / minimal_detectable_effect(1.0, alpha)) ** 2 - extra
    return prompts_needed(math.sqrt(max(0.0, variance) * axis.n_prompts), margin, 0.0, alpha, extra)


def require_resolvable(verdict: Verdict) -> None:
    """Refuse margins below the detectable effect.

    Raises:
        UsageError: If the verdict is open and a margin is below the minimal detectable effect.
    """
    problems = unresolvable(verdict)
    if problems:
        energy, quality = verdict.energy.mde or 0.0, verdict.quality.mde or 0.0
        shown = f"minimal detectable effects: energy {energy:.2%}, {verdict.metric} {quality:.4g}"
        raise UsageError("\n".join([*problems, shown]))


def unreachable(verdict: Verdict, pairs: Pairs, final: GateConfig, prompts: int) -> str | None:
    """Return the message for a margin that all planned prompts could not resolve, given the variation seen so far.

    The variation of few units may be underestimated or overestimated, so its lower 95 % limit counts. A change beyond
    the margin is not unresolvable: it may still fail.

    Args:
        verdict: An open verdict of a look.
        pairs: Its differences.
        final: Configuration of the last look.
        prompts: Planned prompts.
    """
    if verdict.net_benefit_j is not None:
        return None
    energy, quality = verdict.energy, verdict.quality
    axes = (
        ("energy", energy, -pairs.log_energy.mean(1), math.log1p(energy.margin or 0.0), session_variance(final)),
        (verdict.metric, quality, pairs.quality.mean(1), quality.margin or 0.0, pairs.common_variance()),
    )
    for name, axis, x, margin, extra in axes:
        exact = pairs.exact_energy and axis is energy
        if axis.outcome != "inconclusive" or exact or len(x) < _LEAST_UNITS or float(x.mean()) < -margin:
            continue
        per_unit = axis.n_prompts / len(x)
        sd = float(x.std(ddof=1))
        least, best = (
            prompts_needed(value, margin, 0.0, final.nominal(), extra) for value in (lowest_sd(sd, len(x)), sd)
        )
        if least is not None and least * per_unit <= prompts:
            continue
        if least is None or best is None:
            remedy = "no number of prompts is enough: measure both sides in one job, or use a wider margin"
        else:
            remedy = (
                f"about {math.ceil(best * per_unit)} prompts would be enough (at least {math.ceil(least * per_unit)}): "
                "use more prompts, or a wider margin"
            )
        return (
            f"gate: after {axis.n_prompts} prompts: the margin on {name} ({axis.margin:.4g}) is below what the "
            f"{prompts} planned prompts can detect; {remedy}"
        )
    return None


def lowest_sd(sd: float, n: int) -> float:
    """Return the lower 95 % limit of the standard deviation of normal values, from that of n of them."""
    from scipy.special import chdtri

    return sd * math.sqrt((n - 1) / float(chdtri(n - 1, 0.05)))
