"""BD-energy: how much more energy one curve needs than another, averaged over the qualities that both reach.

    BD-E = exp( 1/(q1−q0) ∫_{q0}^{q1} [ln E_T(q) − ln E_A(q)] dq ) − 1

    q0: larger of the minima, q1: smaller of the maxima

Negative BD-E saves. Interpolation is monotone cubic (PCHIP) over the upper envelope; arms that mix their rungs are read
off their cheapest mixtures. The number is a headline only
if it is resolved: enough overlap, no crossing, more than its own interpolation error (Bjøntegaard 2001; Herglotz
et al., arXiv:2304.12852, where energy curves err by up to five points).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from perjoule.statistics.curves import Envelopes, Ladders, PairedCurves, dropped
from perjoule.statistics.hermite import Slopes, akima_slopes, pchip_slopes
from perjoule.statistics.resampling import Array
from perjoule.types import Estimate

METHOD = "BD, PCHIP of ln E over quality on the upper envelope"
MIXTURES_METHOD = "BD, cheapest mixtures of levels"
MIN_RUNGS = 4
MIN_OVERLAP = 0.6
# of the area between the curves, what must lie on the smaller side before they count as crossing
CROSSING_SHARE = 0.05
_GRID = 257


@dataclass(frozen=True, slots=True, kw_only=True)
class Regime:
    """A range of qualities in which one curve stays on one side of the other; `change` is BD-E inside it."""

    low: float
    high: float
    change: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BdEnergy:
    """BD-energy with all that decides whether it may be quoted.

    Attributes:
        estimate: BD-E as a share (−0.2 is 20 % less energy). The error of interpolation is not inside the interval.
        overlap: Qualities that both reach, over qualities that either reaches.
        leave_one_out: Largest change of BD-E when one inner rung of either curve is left out; None below four rungs.
        akima: BD-E by Akima interpolation; None if rungs are mixed, not interpolated.
        saturating: BD-E interpolated over −ln(bound + ε − Q), for metrics that have an upper bound; else None, as
            where rungs are mixed.
        dropped: Rungs that the envelope dropped: of the test, of the anchor.
        regimes: Two or more if the curves cross.
        resolved: True if the number may be a headline.
        reason: Why it is not resolved or absent, in words.
    """

    estimate: Estimate
    overlap: float
    leave_one_out: float | None
    akima: float | None
    saturating: float | None
    dropped: tuple[tuple[int, ...], tuple[int, ...]]
    regimes: tuple[Regime, ...]
    resolved: bool
    reason: str | None


def bd_energy(paired: PairedCurves, upper_bound: float | None = None) -> BdEnergy:
    """BD-energy of the first of two curves against the second.

    Args:
        paired: Test and anchor.
        upper_bound: Largest possible quality, for the sensitivity figure of saturating metrics.
    """
    test, anchor = paired.point
    if paired.mixes:
        upper_bound = None
    estimate = paired.estimate(bd_energy_rows, MIXTURES_METHOD if paired.mixes else METHOD)
    overlap = overlap_of(test, anchor)
    left_out = _leave_one_out(test, anchor)
    found_regimes = regimes(test, anchor) if estimate.value is not None else ()
    reason = _why_unresolved(estimate, overlap, left_out, found_regimes, test, anchor)
    if reason is None and not paired.is_drawn:
        reason = "not resolved: it has no interval"
    return BdEnergy(
        estimate=estimate,
        overlap=overlap,
        leave_one_out=left_out,
        akima=None if paired.mixes else _known(bd_energy_rows(test, anchor, akima_slopes)[0]),
        saturating=None if upper_bound is None else _known(_bd_saturating(test, anchor, upper_bound)),
        dropped=(tuple(dropped(test)), tuple(dropped(anchor))),
        regimes=found_regimes,
        resolved=reason is None,
        reason=reason,
    )


def bd_energy_rows(test: Ladders, anchor: Ladders, slopes: Slopes = pchip_slopes) -> Array:
    """BD-E of each row -> (rows,); NaN without overlap."""
    t, a = Envelopes.of(test, slopes), Envelopes.of(anchor, slopes)
    low, high = np.maximum(t.lowest, a.lowest), np.minimum(t.highest, a.highest)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = (t.log_energy_integral(low, high) - a.log_energy_integral(low, high)) / (high - low)
        return np.asarray(np.where(high > low, np.expm1(mean), np.nan))


def overlap_of(test: Ladders, anchor: Ladders) -> float:
    """Qualities that both reach over qualities that either reaches, 0 to 1, of the first row."""
    t, a = Envelopes.of(test), Envelopes.of(anchor)
    shared = min(t.highest[0], a.highest[0]) - max(t.lowest[0], a.lowest[0])
    either = max(t.highest[0], a.highest[0]) - min(t.lowest[0], a.lowest[0])
    return float(max(0.0, shared) / either) if either > 0 else 0.0


def relative_curve(test: Ladders, anchor: Ladders, places: int = _GRID) -> tuple[Array, Array]:
    """The relative curve difference of the first row: qualities and E_T/E_A − 1 there, both (places,).

    Empty where the curves do not overlap.
    """
    t, a = Envelopes.of(test), Envelopes.of(anchor)
    low, high = max(t.lowest[0], a.lowest[0]), min(t.highest[0], a.highest[0])
    if not (high > low and t.count[0] > 1 and a.count[0] > 1):
        return np.empty(0), np.empty(0)
    at = np.linspace(low, high, places)[None]
    at[0, -1] = high
    return at[0], np.asarray(np.expm1(t.log_energy_at(at[:, :]) - a.log_energy_at(at))[0])


def regimes(test: Ladders, anchor: Ladders) -> tuple[Regime, ...]:
    """Where the curves lie to each other: one range if they do not cross, else the ranges between the crossings."""
    at, change = relative_curve(test, anchor)
    if not len(at):
        return ()
    logs = np.log1p(change)
    total = float(np.abs(logs).sum())
    smaller = float(min(logs[logs > 0].sum(), -logs[logs < 0].sum()))
    whole = Regime(low=float(at[0]), high=float(at[-1]), change=float(np.expm1(np.trapezoid(logs, at) / np.ptp(at))))
    if smaller <= CROSSING_SHARE * total:
        return (whole,)
    cuts = np.flatnonzero(np.sign(logs[1:]) * np.sign(logs[:-1]) < 0) + 1
    ranges = []
    for piece in np.split(np.arange(len(at)), cuts):
        area = float(np.abs(logs[piece]).sum())
        if len(piece) > 1 and area > CROSSING_SHARE * total / 2:
            mean = np.trapezoid(logs[piece], at[piece]) / np.ptp(at[piece])
            ranges.append(Regime(low=float(at[piece[0]]), high=float(at[piece[-1]]), change=float(np.expm1(mean))))
    return tuple(ranges)


def _leave_one_out(test: Ladders, anchor: Ladders) -> float | None:
    """The end rungs stay, because without them other qualities would be averaged over."""
    whole = bd_energy_rows(test, anchor)[0]
    if not np.isfinite(whole):
        return None
    changes = []
    for swap, ladder, other in ((False, test, anchor), (True, anchor, test)):
        gone = set(dropped(ladder))
        left = [i for i in np.argsort(ladder.energy_j[0]) if i not in gone]
        if len(left) < MIN_RUNGS:
            return None
        for rung in left[1:-1]:
            thinner = ladder.without(int(rung))
            pairing = (other, thinner) if swap else (thinner, other)
            changes.append(abs(float(bd_energy_rows(*pairing)[0] - whole)))
    return max(changes)


def _bd_saturating(test: Ladders, anchor: Ladders, bound: float) -> float:
    """BD-E with qualities stretched towards their bound before interpolation; still averaged evenly over quality."""
    t, a = Envelopes.of(test), Envelopes.of(anchor)
    low, high = max(t.lowest[0], a.lowest[0]), min(t.highest[0], a.highest[0])
    if not (high > low and t.count[0] > 1 and a.count[0] > 1):
        return float("nan")
    epsilon = 0.01 * (max(t.highest[0], a.highest[0]) - min(t.lowest[0], a.lowest[0]))

    def stretch(quality: Array) -> Array:
        return np.asarray(-np.log(np.maximum(bound - quality, 0.0) + epsilon))

    at = np.linspace(low, high, 2_049)[None]
    logs = [
        Envelopes(
            quality=stretch(e.quality), log_energy=e.log_energy, count=e.count, highest_log_energy=e.highest_log_energy
        ).log_energy_at(np.clip(stretch(at), stretch(e.lowest)[:, None], stretch(e.highest)[:, None]))
        for e in (t, a)
    ]  # fmt: skip
    return float(np.expm1(np.trapezoid((logs[0] - logs[1])[0], at[0]) / (high - low)))


def _why_unresolved(
    estimate: Estimate,
    overlap: float,
    left_out: float | None,
    ranges: tuple[Regime, ...],
    test: Ladders,
    anchor: Ladders,
) -> str | None:
    rungs = {"test": test.quality.shape[1], "anchor": anchor.quality.shape[1]}
    short = [name for name, count in rungs.items() if count == 1]
    if short:
        verb = "has" if len(short) == 1 else "have"
        return f"the {' and the '.join(short)} {verb} one rung: a point is not a curve"
    if overlap == 0:
        return "no quality is reached by both: the curves do not overlap"
    if estimate.value is None:
        return "the envelope of one arm is a single point"
    if overlap < MIN_OVERLAP:
        return f"insufficient overlap: {overlap:.0%} of the qualities are reached by both, {MIN_OVERLAP:.0%} needed"
    if len(ranges) > 1:
        parts = "; ".join(f"{r.low:.4g} to {r.high:.4g}: {r.change:+.1%}" for r in ranges)
        return f"the curves cross, energy by quality: {parts}"
    if left_out is None:
        return f"not resolved: fewer than {MIN_RUNGS} rungs are left on the envelope of one arm"
    if abs(estimate.value) <= left_out:
        return f"not resolved: leaving one rung out moves it by up to {left_out:.1%}"
    return None


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
