"""Whether the evidence can resolve a margin: a gate below its minimal detectable effect could only guess."""

from __future__ import annotations

import math

from perjoule.errors import UsageError
from perjoule.gating.decide import is_open, prompts_needed, session_variance, text_of
from perjoule.gating.records import Axis, GateConfig, Verdict
from perjoule.statistics.detectable import minimal_detectable_effect


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
        needed = _prompts_for(axis, verdict.config, of_energy=axis is verdict.energy)
        remedy = f"Use about {needed} prompts, or a wider margin"
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
