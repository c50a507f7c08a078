"""Turns paired differences into a verdict: non-inferiority on energy and on quality.

    energy   pass: upper limit ≤ ln(1 + m_E)     fail: p(no worse than ln(1 + m_E)) rejected
    quality  pass: lower limit ≥ −m_Q            fail: p(no worse than −m_Q) rejected

PASS needs both axes, so neither needs a correction (intersection-union test). FAIL needs only one axis or cell, so it
is corrected by Holm's method. The paired units are window groups for energy and prompts for quality. Limits are
Student's t below 25 and from 64 units, and a paired BCa bootstrap in between. A look of a sequential gate uses its own
nominal level and always Student's t, corrected for skewness, because resamples do not reach such levels. Joules of
counted work have no error, so one prompt is enough for energy, and every change counts. With a declared price of
quality, the net benefit decides instead of the margins.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from perjoule.gating.pairing import Pairs
from perjoule.gating.records import (
    Axis,
    CellResult,
    Findings,
    GateConfig,
    Margin,
    Margins,
    Outcome,
    Verdict,
)
from perjoule.statistics.detectable import minimal_detectable_effect
from perjoule.statistics.multiplicity import holm
from perjoule.statistics.resampling import STUDENT_BELOW, Array, resample_means
from perjoule.statistics.sequential import corrected_quantile, corrected_statistic, skewness_of_mean
from perjoule.types import Estimate

T_FROM = 64
GROUPS = "window groups"
_LISTED = 5
# what sums of floating-point numbers leave of a difference or a standard error that is exactly zero
_ROUNDING = 1e-12
EXACT = (
    "the joules are counted work: their change is exact for these prompts, and does not show faster or slower kernels"
)
IDENTICAL = "the images are the same, bit for bit: an A/A comparison in quality, which cannot differ"


def decide(pairs: Pairs, metric: str, config: GateConfig, findings: Findings, margins: Margins) -> Verdict:
    """Judge both axes and every cell."""
    if pairs.exact_energy:
        pairs, config = without_error(pairs), replace(config, session_sd=0.0)
    energy, quality = pairs.log_energy.mean(1), pairs.quality.mean(1)
    one_is_enough = pairs.exact_energy and (pairs.identical_images or config.joules_per_quality is None)
    if min(len(energy), len(quality)) < (1 if one_is_enough else 2):
        reason = (
            f"each axis needs at least 2 pairs: energy has {len(energy)} (prompts, or groups of prompts that share "
            f"windows), quality has {len(quality)} (prompts)"
        )
        if len(quality) >= 2:
            reason += "; set protocol.images_per_window (or batch_size) below the number of prompts"
        return Verdict.invalid(metric, config, Findings(invalid=(reason,), notes=findings.notes), margins)
    extra = session_variance(config)
    tests = _tests(pairs, margins, extra, config)
    failing = holm(tests, config.nominal)
    session_unknown = config.mode == "stored" and config.session_sd is None
    if session_unknown:
        failing = {(cell, axis) for cell, axis in failing if axis != "energy"}
    axis_e = _energy_axis(energy, config, margins.energy, extra, failed=("", "energy") in failing)
    axis_q = _quality_axis(quality, config, margins.quality, pairs, failed=("", "quality") in failing)
    axis_e = _counted(axis_e, len(pairs.energy_prompts) or len(energy), pairs)
    axis_q = _counted(axis_q, len(quality), pairs)
    if pairs.identical_images:
        axis_q = replace(axis_q, label="identical images")
    cells = tuple(_cell(pairs, i, config, failing, extra) for i in range(len(pairs.cells)))
    benefit = _net_benefit(pairs, config, extra)
    if benefit is None:
        reasons = [*_reasons(axis_e, axis_q, metric, config, len(tests))]
        reasons += _cell_reasons(cells)
    else:
        reasons = [*_benefit_reasons(benefit, config, session_unknown)]
    verdict = _verdict(axis_e, axis_q, cells, benefit, session_unknown)
    notes = ((IDENTICAL,) if pairs.identical_images else ()) + ((EXACT,) if pairs.exact_energy else ()) + findings.notes
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
        net_benefit_j=benefit,
        provenance=pairs.provenance,
        identical_images=pairs.identical_images,
        energy_j_per_image=pairs.mean_j if all(map(math.isfinite, pairs.mean_j)) else None,
    )


def without_error(pairs: Pairs) -> Pairs:
    """Return pairs whose energies are means over all units, which have no variance."""

    def means(rows: Array) -> Array:
        return np.tile(rows.mean(0), (len(rows), 1)) if len(rows) else rows

    return replace(pairs, log_energy=means(pairs.log_energy), energy_j=means(pairs.energy_j))


def _variance(x: Array) -> float:
    """Return the variance of units; that of a single one, which is only used if it has no error, is 0.

    So is that of units which differ by rounding errors alone, e.g. joules that were all multiplied by the same number.
    """
    variance = float(x.var(ddof=1)) if len(x) > 1 else 0.0
    return 0.0 if variance < _ROUNDING**2 else variance


def _mean(x: Array) -> float:
    mean = float(x.mean())
    return 0.0 if abs(mean) < _ROUNDING else mean


def prompts_needed(sd: float, margin: float, change: float, alpha: float, extra: float = 0.0) -> int | None:
    """Number of prompts needed to distinguish a change from the margin; None if no number is enough.

    No number is enough if the change lies at or beyond the margin, or if the variance between sessions (`extra`), which
    more prompts do not reduce, is too large by itself.
    """
    room = margin - abs(change)
    variance = (room / minimal_detectable_effect(1.0, alpha)) ** 2 - extra
    if room <= 0 or variance <= 0:
        return None
    return max(2, math.ceil(sd**2 / variance))


def session_variance(config: GateConfig) -> float:
    """Variance of ln E between the sessions of baseline and candidate; 0 if they share one, or if it is unknown."""
    return 2 * (config.session_sd or 0.0) ** 2 if config.mode == "stored" else 0.0


def _log(margin: Margin) -> float:
    return math.log1p(margin.value or 0.0)


def _tests(pairs: Pairs, margins: Margins, extra: float, config: GateConfig) -> dict[tuple[str, str], float]:
    """P-values of "no worse than the margin" by cell and axis; the cell `""` is the mean over cells."""
    columns = [("", pairs.log_energy.mean(1), pairs.quality.mean(1))]
    if len(pairs.cells) > 1:
        columns += [(cell, pairs.log_energy[:, i], pairs.quality[:, i]) for i, cell in enumerate(pairs.cells)]
    tests = {}
    for cell, energy, quality in columns:
        tests[cell, "energy"] = _p_worse(energy, _log(margins.energy), extra, config)
        if margins.quality.value is not None and (len(quality) > 1 or pairs.identical_images):
            common = pairs.common_variance(pairs.cells.index(cell) if cell else None)
            tests[cell, "quality"] = _p_worse(-quality, margins.quality.value, common, config)
    return tests


def _counted(axis: Axis, prompts: int, pairs: Pairs) -> Axis:
    """Return the axis with its counts; `n_needed` is converted from paired units, e.g. window groups, to prompts."""
    needed = None if axis.n_needed is None else math.ceil(axis.n_needed * prompts / axis.change.n)
    return replace(
        axis,
        n_needed=needed,
        n_prompts=prompts,
        n_windows_baseline=pairs.windows[0],
        n_windows_candidate=pairs.windows[1],
        counted=pairs.counted,
    )


def _energy_axis(d: Array, config: GateConfig, declared: Margin, extra: float, *, failed: bool) -> Axis:
    limits = _limits(d, config, extra, GROUPS)
    value, low, high, _ = limits
    margin = _log(declared)
    alpha = config.nominal()
    outcome: Outcome = "pass" if high <= margin else "fail" if failed else "inconclusive"
    label = "improved" if high < 0 else "worse" if low > 0 else "no clear change"
    se = math.sqrt(_variance(d) / len(d) + extra)
    return Axis(
        change=_share(limits, len(d), config.level),
        margin=declared.value,
        margin_origin=declared.origin,
        mde=math.expm1(minimal_detectable_effect(se, alpha)),
        outcome=outcome,
        label=label,
        n_needed=prompts_needed(math.sqrt(_variance(d)), margin, value, alpha, extra),
    )


def _quality_axis(q: Array, config: GateConfig, declared: Margin, pairs: Pairs, *, failed: bool) -> Axis:
    change, common = quality_change(q, config, pairs), pairs.common_variance()
    alpha, margin, sd = config.nominal(), declared.value, math.sqrt(_variance(q))
    low, high = change.low, change.high
    if low is None or high is None:
        return Axis(
            change=change,
            margin=margin,
            margin_origin=declared.origin,
            mde=None,
            outcome="inconclusive",
            label="no evidence",
        )
    passed = margin is not None and low >= -margin
    outcome: Outcome = "pass" if passed else "fail" if failed else "inconclusive"
    return Axis(
        change=change,
        margin=margin,
        margin_origin=declared.origin,
        mde=minimal_detectable_effect(math.sqrt(sd**2 / len(q) + common), alpha),
        outcome=outcome,
        label="improved" if low > 0 else "worse" if high < 0 else "no clear change",
        n_needed=None if margin is None else prompts_needed(sd, margin, float(q.mean()), alpha, common),
    )


def energy_change(d: Array, config: GateConfig, extra: float = 0.0) -> Estimate:
    """Return the change of energy as a share, from paired differences of ln E with a common variance of `extra`."""
    return _share(_limits(d, config, extra, GROUPS), len(d), config.level)


def _share(limits: tuple[float, float, float, str], n: int, level: float) -> Estimate:
    """Return limits of ln E as those of a relative change."""
    value, low, high, method = limits
    return Estimate(
        value=math.expm1(value),
        low=math.expm1(low),
        high=math.expm1(high),
        level=level,
        n=n,
        method=f"geometric mean of paired energy ratios; {method}",
    )


def quality_change(q: Array, config: GateConfig, pairs: Pairs, cell: int | None = None) -> Estimate:
    """Return the change of quality, from the paired differences of one cell or of the mean over cells."""
    level = config.level
    if len(q) < 2 and not pairs.identical_images:
        value = float(q.mean())
        return Estimate(value=value, low=None, high=None, level=level, n=len(q), method="one prompt, no interval")
    value, low, high, method = _limits(q, config, pairs.common_variance(cell))
    return Estimate(value=value, low=low, high=high, level=level, n=len(q), method=f"mean paired difference; {method}")


def _limits(x: Array, config: GateConfig, extra: float, units: str = "prompts") -> tuple[float, float, float, str]:
    """Return mean, two-sided limits and method; `extra` is a variance that all have in common."""
    n, mean, level = len(x), _mean(x), config.level
    se = math.sqrt(_variance(x) / n + extra)
    if se == 0:
        return mean, mean, mean, f"no variation over {n} {units}"
    if config.look is not None:
        low, high = _sequential_limits(x, level, se)
        return mean, low, high, f"Student's t over {n} {units}, corrected for skewness, at the level of this look"
    if n >= T_FROM or n < STUDENT_BELOW or extra:
        from scipy.special import stdtrit

        half = float(stdtrit(n - 1, (1 + level) / 2)) * se
        return mean, mean - half, mean + half, f"Student's t over {n} {units}"
    interval = resample_means(x[:, None, None]).estimate(lambda rows: rows[:, 0], level=level)
    low, high = (mean if end is None else end for end in (interval.low, interval.high))
    return mean, low, high, f"paired bootstrap over {n} {units}; BCa"


def _p_worse(x: Array, limit: float, extra: float, config: GateConfig) -> float:
    """P-value of `mean(x) ≤ limit`, where larger is worse."""
    from scipy.special import stdtr

    se = math.sqrt(_variance(x) / len(x) + extra)
    away = float(x.mean()) - limit
    if se == 0:
        return 0.0 if away > 0 else 1.0
    t = away / se
    if config.look is not None:
        t = float(corrected_statistic(np.array(t), np.array(_skewness(x, se))))
    return float(stdtr(len(x) - 1, -t))


def _sequential_limits(x: Array, level: float, se: float) -> tuple[float, float]:
    """Return two-sided limits of the mean at a look; each end is the one that `_p_worse` tests with."""
    from scipy.special import stdtrit

    mean, q, skewness = float(x.mean()), float(stdtrit(len(x) - 1, (1 + level) / 2)), _skewness(x, se)
    return mean - corrected_quantile(q, skewness) * se, mean + corrected_quantile(q, -skewness) * se


def _skewness(x: Array, se: float) -> float:
    """Return the skewness of the mean, whose standard error `se` may include an error that all units have in common."""
    own = math.sqrt(_variance(x) / len(x))
    return skewness_of_mean(x) * (own / se) ** 3


def _cell(pairs: Pairs, i: int, config: GateConfig, failing: set[tuple[str, str]], extra: float) -> CellResult:
    return CellResult(
        cell_id=pairs.cells[i],
        energy=energy_change(pairs.log_energy[:, i], config, extra),
        quality=quality_change(pairs.quality[:, i], config, pairs, i),
        failed=tuple(axis for axis in ("energy", "quality") if (pairs.cells[i], axis) in failing),
    )


def is_open(axis: Axis, good: int) -> bool:
    """Return whether the interval of the change contains the margin; `good` is the sign of an improvement."""
    low, high, margin = axis.change.low, axis.change.high, axis.margin
    if low is None or high is None or margin is None:
        return False
    return low < -good * margin < high


def _net_benefit(pairs: Pairs, config: GateConfig, extra: float) -> Estimate | None:
    """Return λ ΔQ − ΔE in J/image over window groups, if a price was declared.

    `extra` is the variance of ln E between sessions.
    """
    price = config.joules_per_quality
    if price is None:
        return None
    x = price * pairs.quality_by_group().mean(1) - pairs.energy_j.mean(1)
    extra_j = (extra * pairs.baseline_j**2 if extra else 0.0) + price**2 * pairs.common_variance()
    value, low, high, method = _limits(x, config, extra_j, GROUPS)
    return Estimate(value=value, low=low, high=high, level=config.level, n=len(x), method=f"λ ΔQ − ΔE; {method}")


def _verdict(
    energy: Axis, quality: Axis, cells: tuple[CellResult, ...], benefit: Estimate | None, session_unknown: bool
) -> Outcome:
    if benefit is not None:
        if benefit.low is not None and benefit.low >= 0:
            return "pass"
        return "fail" if benefit.high is not None and benefit.high < 0 and not session_unknown else "inconclusive"
    if "fail" in (energy.outcome, quality.outcome) or (len(cells) > 1 and any(cell.failed for cell in cells)):
        return "fail"
    return "pass" if energy.outcome == quality.outcome == "pass" else "inconclusive"


def _reasons(energy: Axis, quality: Axis, metric: str, config: GateConfig, tests: int) -> Iterable[str]:
    for name, axis, good in (("energy", energy, -1), (metric, quality, 1)):
        if axis.outcome == "fail":
            yield f"{name} is worse than the margin ({1 - config.alpha:.0%} confidence)"
        elif axis.outcome == "inconclusive" and not is_open(axis, good):
            if axis.change.low is None:
                yield f"{name}: one prompt has no interval; at least 2 are needed"
            elif axis is energy and config.mode == "stored" and config.session_sd is None:
                yield f"energy is worse than the margin, but {_SESSION}"
            else:
                yield (
                    f"{name}: the whole interval is worse than the margin, but each of {tests} tests needs a larger "
                    "difference (Holm's correction): more prompts would decide"
                )
        elif axis.outcome == "inconclusive":
            more = "" if axis.n_needed is None else f"; about {axis.n_needed} prompts would decide"
            yield f"{name}: the interval contains the margin{more}"
    if {energy.label, quality.label} == {"improved", "worse"} and "fail" in (energy.outcome, quality.outcome):
        yield "a trade: one axis improved while the other failed"


_SESSION = (
    "the baseline is from another session and the variation between sessions is unknown: measure both in one job, or "
    "give --session-sd from at least five A/A sessions"
)


def _cell_reasons(cells: tuple[CellResult, ...]) -> Iterable[str]:
    for axis in ("energy", "quality") if len(cells) > 1 else ():
        worse = [cell.cell_id for cell in cells if axis in cell.failed]
        if worse:
            more = f" and {len(worse) - _LISTED} more" if len(worse) > _LISTED else ""
            yield f"cells worse than the margin in {axis}: {', '.join(worse[:_LISTED])}{more}"


def _benefit_reasons(benefit: Estimate, config: GateConfig, session_unknown: bool) -> Iterable[str]:
    yield (
        f"net benefit at {config.joules_per_quality:g} J per unit of quality: {text_of(benefit.value)} J/image "
        f"[{text_of(benefit.low)}, {text_of(benefit.high)}]; this price decides, the margins do not"
    )
    if session_unknown and benefit.high is not None and benefit.high < 0:
        yield f"the net benefit is negative, but {_SESSION}"


def text_of(value: float | None) -> str:
    """Return a change as text."""
    return "open" if value is None or not np.isfinite(value) else f"{value:+.4g}"
