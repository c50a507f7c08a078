"""From differences to a verdict: non-inferiority on energy and on quality.

    energy   pass: upper limit ≤ ln(1 + m_E)     fail: worse than ln(1 + m_E) for sure
    quality  pass: lower limit ≥ −m_Q            fail: worse than −m_Q for sure

PASS needs both, so neither needs a correction (intersection-union). FAIL needs one, of both axes and of every cell, so
it is corrected by Holm. The units of energy are window groups, those of quality prompts. From 64 units up and below 25
limits are Student's t; between, paired BCa bootstrap.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from perjoule.errors import UsageError
from perjoule.gating.pairing import Pairs
from perjoule.gating.records import Axis, CellResult, Findings, GateConfig, Outcome, Verdict
from perjoule.statistics.multiplicity import holm
from perjoule.statistics.resampling import STUDENT_BELOW, Array, resample_means
from perjoule.types import Estimate

T_FROM = 64
GROUPS = "window groups"
POWER = 0.8
_LISTED = 5


def decide(pairs: Pairs, metric: str, config: GateConfig, found: Findings) -> Verdict:
    """Judge both axes and every cell."""
    energy, quality = pairs.log_energy.mean(1), pairs.quality.mean(1)
    if len(energy) < 2 or len(quality) < 2:
        reason = f"{len(quality)} prompts are shared by both runs in every cell: 2 are the least"
        if len(quality) >= 2:
            reason = (
                "all prompts share one window group, so that nothing is known of the scatter of energy: at least 2 "
                "groups are needed; give protocol.images_per_window (or batch_size) fewer images than there are prompts"
            )
        return Verdict.invalid(metric, config, Findings(invalid=(reason,), notes=found.notes))
    extra = 2 * (config.session_sd or 0.0) ** 2 if config.mode == "stored" else 0.0
    limit_e, limit_q = math.log1p(config.margin_energy), config.margin_quality
    failing = holm(
        {
            ("", "energy"): _p_worse(energy, limit_e, extra),
            ("", "quality"): _p_worse(-quality, limit_q, 0.0),
            **(_cell_tests(pairs, limit_e, limit_q, extra) if len(pairs.cells) > 1 else {}),
        },
        config.alpha / config.looks,
    )
    unsure_session = config.mode == "stored" and config.session_sd is None
    axis_e = _energy_axis(energy, config, extra, ("", "energy") in failing and not unsure_session)
    axis_q = _quality_axis(quality, config, ("", "quality") in failing)
    cells = tuple(_cell(pairs, i, config, failing, unsure_session) for i in range(len(pairs.cells)))
    worth = _net_benefit(pairs, config)
    reasons = [*_reasons(axis_e, axis_q, metric, unsure_session, energy, limit_e, extra, config)]
    for axis in ("energy", "quality") if len(cells) > 1 else ():
        worse = [cell.cell_id for cell in cells if axis in cell.failed]
        if worse:
            more = f" and {len(worse) - _LISTED} more" if len(worse) > _LISTED else ""
            reasons.append(f"cells worse than the margin in {axis}: {', '.join(worse[:_LISTED])}{more}")
    verdict = _verdict(axis_e, axis_q, cells, worth)
    if worth is not None and worth.value is not None:
        reasons.append(
            f"net benefit at {config.joules_per_quality:g} J per unit: {worth.value:+.4g} J/image, "
            f"lower limit {_text(worth.low)}"
        )
    notes = found.notes + (("every image is the same, bit for bit",) if pairs.identical_images else ())
    return Verdict(
        verdict=verdict,
        metric=metric,
        energy=axis_e,
        quality=axis_q,
        config=config,
        reasons=tuple(reasons),
        notes=notes,
        cells=cells,
        total_energy_change=pairs.total_energy_change,
        net_benefit_j=worth,
        provenance=pairs.provenance,
    )


def minimal_detectable_effect(standard_error: float, alpha: float) -> float:
    """(z_{1−α} + z_{0.8}) · SE: what is seen in four of five cases."""
    from scipy.special import ndtri

    return float((ndtri(1 - alpha) + ndtri(POWER)) * standard_error)


def prompts_needed(sd: float, margin: float, change: float, alpha: float) -> int | None:
    """Prompts to resolve a change from the margin; None if the change lies at or beyond it."""
    from scipy.special import ndtri

    room = margin - abs(change)
    if room <= 0:
        return None
    return max(2, math.ceil((float(ndtri(1 - alpha) + ndtri(POWER)) * sd / room) ** 2))


def _energy_axis(d: Array, config: GateConfig, extra: float, failed: bool) -> Axis:
    value, low, high, method = _limits(d, config.level, extra, GROUPS)
    margin = math.log1p(config.margin_energy)
    alpha = config.alpha / config.looks
    outcome: Outcome = "pass" if high <= margin else "fail" if failed else "inconclusive"
    label = "improved" if high < 0 else "worse" if low > 0 else "no clear change"
    se = math.sqrt(d.var(ddof=1) / len(d) + extra)
    change = Estimate(
        value=math.expm1(value),
        low=math.expm1(low),
        high=math.expm1(high),
        level=config.level,
        n=len(d),
        method=f"geometric mean of paired energy ratios; {method}",
    )
    return Axis(
        change=change,
        margin=config.margin_energy,
        mde=math.expm1(minimal_detectable_effect(se, alpha)),
        outcome=outcome,
        label=label,
        n_needed=prompts_needed(float(d.std(ddof=1)), margin, value, alpha),
    )


def _quality_axis(q: Array, config: GateConfig, failed: bool) -> Axis:
    value, low, high, method = _limits(q, config.level, 0.0)
    alpha = config.alpha / config.looks
    outcome: Outcome = "pass" if low >= -config.margin_quality else "fail" if failed else "inconclusive"
    return Axis(
        change=Estimate(
            value=value, low=low, high=high, level=config.level, n=len(q), method=f"mean paired difference; {method}"
        ),
        margin=config.margin_quality,
        mde=minimal_detectable_effect(float(q.std(ddof=1)) / math.sqrt(len(q)), alpha),
        outcome=outcome,
        label="improved" if low > 0 else "worse" if high < 0 else "no clear change",
        n_needed=prompts_needed(float(q.std(ddof=1)), config.margin_quality, value, alpha),
    )


def _limits(x: Array, level: float, extra: float, units: str = "prompts") -> tuple[float, float, float, str]:
    """Mean with two-sided limits; `extra` variance is that of the sessions."""
    n, mean = len(x), float(x.mean())
    se = math.sqrt(float(x.var(ddof=1)) / n + extra)
    if n >= T_FROM or n < STUDENT_BELOW or extra:
        from scipy.special import stdtrit

        half = float(stdtrit(n - 1, (1 + level) / 2)) * se
        return mean, mean - half, mean + half, f"Student's t over {n} {units}"
    found = resample_means(x[:, None, None]).estimate(lambda rows: rows[:, 0], level=level)
    low, high = (mean if end is None else end for end in (found.low, found.high))
    return mean, low, high, f"paired bootstrap over {n} {units}; BCa"


def _p_worse(x: Array, limit: float, extra: float) -> float:
    """P-value of `mean(x) ≤ limit`, larger being worse."""
    from scipy.special import stdtr

    se = math.sqrt(float(x.var(ddof=1)) / len(x) + extra)
    away = float(x.mean()) - limit
    if se == 0:
        return 0.0 if away > 0 else 1.0
    return float(stdtr(len(x) - 1, -away / se))


def _cell_tests(pairs: Pairs, limit_e: float, limit_q: float, extra: float) -> dict[tuple[str, str], float]:
    tests = {}
    for i, cell in enumerate(pairs.cells):
        tests[cell, "energy"] = _p_worse(pairs.log_energy[:, i], limit_e, extra)
        tests[cell, "quality"] = _p_worse(-pairs.quality[:, i], limit_q, 0.0)
    return tests


def _cell(pairs: Pairs, i: int, config: GateConfig, failing: set[tuple[str, str]], unsure: bool) -> CellResult:
    d, q = pairs.log_energy[:, i], pairs.quality[:, i]
    value, low, high, method = _limits(d, config.level, 0.0, GROUPS)
    energy = Estimate(
        value=math.expm1(value),
        low=math.expm1(low),
        high=math.expm1(high),
        level=config.level,
        n=len(d),
        method=method,
    )
    value, low, high, method = _limits(q, config.level, 0.0)
    names = [
        axis
        for axis in ("energy", "quality")
        if (pairs.cells[i], axis) in failing and not (axis == "energy" and unsure)
    ]
    return CellResult(
        cell_id=pairs.cells[i],
        energy=energy,
        quality=Estimate(value=value, low=low, high=high, level=config.level, n=len(q), method=method),
        failed=tuple(names),
    )


def unresolvable(verdict: Verdict) -> list[str]:
    """A sentence for each margin below its minimal detectable effect: a gate with such a margin could only guess."""
    problems = []
    for name, axis in (("energy", verdict.energy), (verdict.metric, verdict.quality)):
        if axis.mde is not None and axis.mde > axis.margin:
            n = axis.change.n
            needed = math.ceil(n * (axis.mde / axis.margin) ** 2)
            problems.append(
                f"gate: the margin on {name} ({axis.margin:.4g}) is below the minimal detectable effect "
                f"({axis.mde:.4g}) of {n} prompts; the change found is {_text(axis.change.value)} "
                f"[{_text(axis.change.low)}, {_text(axis.change.high)}]. Take about {needed} prompts, or a wider margin"
            )
    return problems


def require_resolvable(verdict: Verdict) -> None:
    """Refuse margins that the evidence cannot tell from nothing.

    Raises:
        UsageError: If a margin is below the minimal detectable effect.
    """
    problems = unresolvable(verdict)
    if problems:
        energy, quality = verdict.energy.mde or 0.0, verdict.quality.mde or 0.0
        shown = f"minimal detectable effects: energy {energy:.2%}, {verdict.metric} {quality:.4g}"
        raise UsageError("\n".join([*problems, shown]))


def _net_benefit(pairs: Pairs, config: GateConfig) -> Estimate | None:
    """λ ΔQ − ΔE in J/image over window groups, if a price was declared."""
    price = config.joules_per_quality
    if price is None:
        return None
    x = price * pairs.quality_by_group().mean(1) - pairs.energy_j.mean(1)
    value, low, high, method = _limits(x, config.level, 0.0, GROUPS)
    return Estimate(value=value, low=low, high=high, level=config.level, n=len(x), method=f"λ ΔQ − ΔE; {method}")


def _verdict(energy: Axis, quality: Axis, cells: tuple[CellResult, ...], worth: Estimate | None) -> Outcome:
    if worth is not None and worth.low is not None and worth.high is not None:
        return "pass" if worth.low >= 0 else "fail" if worth.high < 0 else "inconclusive"
    if "fail" in (energy.outcome, quality.outcome) or (len(cells) > 1 and any(cell.failed for cell in cells)):
        return "fail"
    return "pass" if energy.outcome == quality.outcome == "pass" else "inconclusive"


def _reasons(
    energy: Axis,
    quality: Axis,
    metric: str,
    unsure_session: bool,
    d: Array,
    limit: float,
    extra: float,
    config: GateConfig,
) -> Iterable[str]:
    if unsure_session and energy.outcome != "pass" and _p_worse(d, limit, extra) <= config.alpha:
        yield (
            "energy is worse than the margin, but the baseline is from another session and the scatter between "
            "sessions is not known: measure both in one job, or give --session-sd from at least five A/A sessions"
        )
    for name, axis in (("energy", energy), (metric, quality)):
        if axis.outcome == "fail":
            yield f"{name} is worse than the margin for sure"
        elif axis.outcome == "inconclusive":
            more = "" if axis.n_needed is None else f"; about {axis.n_needed} prompts would tell"
            yield f"{name}: the interval holds the margin{more}"
    if {energy.label, quality.label} == {"improved", "worse"} and "fail" in (energy.outcome, quality.outcome):
        yield "a trade: one axis improved while the other failed"


def _text(value: float | None) -> str:
    return "open" if value is None or not np.isfinite(value) else f"{value:+.4g}"
