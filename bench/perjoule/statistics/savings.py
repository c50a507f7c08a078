"""What an arm saves at equal quality, and gains at equal energy.

    S(q*) = 1 − E_T(q*) / E_A(q*)        q*: quality of the anchor's last rung, by default
    G(e*) = Q_T(e*) − Q_A(e*)            e*: energy of the anchor's last rung, or of the test's if that is less

For an arm of a single point q* is its own quality and e* its own energy, since nothing can be read off between its
rungs. Of arms that mix their rungs (`Ladders.mixes`), E(q) is that of the cheapest mixture. Outside the measured range
there is no number: `reason` then holds the bound that the range does give.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from perjoule.statistics.curves import AnyCurve, Envelopes, Ladders, PairedCurves, pair
from perjoule.statistics.resampling import RESAMPLES, SEED, Array
from perjoule.types import Estimate

SAVING_METHOD = "PCHIP of ln E over quality on the upper envelope"
GAIN_METHOD = "PCHIP of quality over ln E on the upper envelope"
MIXTURES_METHOD = "cheapest mixtures of levels"


@dataclass(frozen=True, slots=True, kw_only=True)
class AtEqual:
    """A saving at equal quality or a gain at equal energy.

    Attributes:
        estimate: A share of energy (0.31 is 31 % less), or quality units.
        at: The quality, or the J/image, at which the arms were compared.
        reason: Why there is no number or an open end, in words; None if all is well.
        bound: For a missing saving: the share that it is more or less than, as `reason` says; else None.
    """

    estimate: Estimate
    at: float | None
    reason: str | None = None
    bound: float | None = None


def iso_quality_saving(
    test: AnyCurve,
    anchor: AnyCurve,
    *,
    at_quality: float | None = None,
    mixes: bool = False,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> AtEqual:
    """The share of energy that `test` saves against `anchor` at one quality.

    Args:
        test: The arm in question.
        anchor: The ladder that it is compared with, prompt by prompt and seed by seed.
        at_quality: The quality; by default that of the anchor's last rung (or of the test, if it has one rung),
            looked up again in every resample.
        mixes: Whether both mix their rungs, as the levels of step policies do.
        resamples: Bootstrap draws.
        seed: Seed of the draws.

    Raises:
        EvidenceError: If both are full-reference scores of different models, or share no prompt.
    """
    return saving_of(pair(test, anchor, mixes=mixes, resamples=resamples, seed=seed), at_quality)


def iso_energy_gain(
    test: AnyCurve,
    anchor: AnyCurve,
    *,
    at_energy_j: float | None = None,
    mixes: bool = False,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> AtEqual:
    """How much better `test` is than `anchor` at one energy; see `iso_quality_saving`.

    For an arm of one point this is the first control of adaptive policies: against the fixed ladder at the same mean
    energy, does adapting beat simply using fewer steps?
    """
    return gain_of(pair(test, anchor, mixes=mixes, resamples=resamples, seed=seed), at_energy_j)


def saving_of(
    paired: PairedCurves, at_quality: float | None = None, *, default_rung: int = -1, sign: float = 1.0
) -> AtEqual:
    """`iso_quality_saving` on draws that are there already: (test, anchor). `default_rung`: the anchor's.

    `sign` is that of the metric, -1 if lower is better, for the qualities in the reason.
    """
    test, anchor = paired.point
    method = MIXTURES_METHOD if paired.mixes else SAVING_METHOD
    estimate = paired.estimate(lambda t, a: saving_rows(t, a, at_quality, default_rung), method)
    at = float(_quality_at(test, anchor, at_quality, default_rung)[0])
    reason, bound = (None, None) if estimate.value is not None else _why_no_saving(test, anchor, at, sign)
    if estimate.value is not None and paired.is_drawn and (estimate.low is None or estimate.high is None):
        reason = "the interval has an open end: in some resamples one arm does not reach the quality of the other"
    return AtEqual(estimate=estimate, at=at if np.isfinite(at) else None, reason=reason, bound=bound)


def gain_of(paired: PairedCurves, at_energy_j: float | None = None, *, default_rung: int = -1) -> AtEqual:
    """`iso_energy_gain` on draws that are there already: (test, anchor)."""
    test, anchor = paired.point
    method = MIXTURES_METHOD if paired.mixes else GAIN_METHOD
    estimate = paired.estimate(lambda t, a: gain_rows(t, a, at_energy_j, default_rung), method)
    at = float(_energy_at(test, anchor, at_energy_j, default_rung)[0])
    reason = None
    if estimate.value is None:
        reason = _why_no_gain(test, anchor, at)
    elif paired.is_drawn and estimate.low is None:
        reason = "no interval: in some resamples one arm does not cover the energy of the other"
    return AtEqual(estimate=estimate, at=at if np.isfinite(at) else None, reason=reason)


def saving_rows(test: Ladders, anchor: Ladders, at_quality: float | None = None, default_rung: int = -1) -> Array:
    """S of each row -> (rows,).

    Where the range of an arm ends before the quality, the saving is only known to be more (+∞) or less (−∞) than
    something; NaN where not even that is known.
    """
    at = _quality_at(test, anchor, at_quality, default_rung)
    t, a = Envelopes.of(test), Envelopes.of(anchor)
    saving = 1 - np.exp(t.log_energy_at(at) - a.log_energy_at(at))
    more = (at < t.lowest).astype(int) + (at > a.highest)
    less = (at > t.highest).astype(int) + (at < a.lowest)
    return np.asarray(np.where(more > less, np.inf, np.where(less > more, -np.inf, saving)))


def gain_rows(test: Ladders, anchor: Ladders, at_energy_j: float | None = None, default_rung: int = -1) -> Array:
    """G of each row -> (rows,); NaN outside either range."""
    at = np.log(_energy_at(test, anchor, at_energy_j, default_rung))
    return Envelopes.of(test).quality_at(at) - Envelopes.of(anchor).quality_at(at)


def _quality_at(test: Ladders, anchor: Ladders, fixed: float | None, rung: int) -> Array:
    if fixed is not None:
        return np.full(len(test.quality), float(fixed))
    return test.quality[:, 0] if test.quality.shape[1] == 1 else anchor.quality[:, rung]


def _energy_at(test: Ladders, anchor: Ladders, fixed: float | None, rung: int) -> Array:
    if fixed is not None:
        return np.full(len(test.quality), float(fixed))
    if test.quality.shape[1] == 1:
        return test.energy_j[:, 0]
    return np.minimum(anchor.energy_j[:, rung], np.fmax.reduce(test.energy_j, axis=1))


def _why_no_saving(test: Ladders, anchor: Ladders, at: float, sign: float) -> tuple[str, float | None]:
    """Why S has no value, and the bound that the measured ranges give. All for a single row; `sign` is for words."""
    t, a = Envelopes.of(test), Envelopes.of(anchor)
    if anchor.quality.shape[1] == 1:
        return "the anchor has one rung: there is no curve to read an equal quality off", None
    if not (t.count[0] and a.count[0]) or not np.isfinite(at):
        return "no cell of one arm has both joules and quality", None
    where = f"quality {sign * at:.4g}"
    if at > t.highest[0]:
        return f"the test does not reach {where}: its best is {sign * t.highest[0]:.4g}", None
    if at < t.lowest[0] and at < a.lowest[0]:
        return f"{where} is worse than the cheapest rung of both", None
    # below its cheapest rung an arm gives more than asked for; above its best rung the most expensive does not suffice
    energy_t = _energy_within(t, at)
    energy_a = _energy_within(a, at)
    bound = 1 - energy_t / energy_a
    if at > a.highest[0]:
        return (
            f"more than {bound:.0%}: {where} is better than the best of the anchor ({sign * a.highest[0]:.4g})",
            bound,
        )
    if at < a.lowest[0]:
        return f"less than {bound:.0%}: {where} is worse than the floor of the anchor ({sign * a.lowest[0]:.4g})", bound
    if at < t.lowest[0]:
        return f"more than {bound:.0%}: {where} is worse than the floor of the test ({sign * t.lowest[0]:.4g})", bound
    return "the envelope of one arm is a single point: there is no curve to read off", None


def _energy_within(envelopes: Envelopes, at: float) -> float:
    """The energy of the nearest quality that was measured, for one row."""
    held = np.clip(np.array([at]), envelopes.lowest, envelopes.highest)
    return float(np.exp(envelopes.log_energy_at(held)[0]))


def _why_no_gain(test: Ladders, anchor: Ladders, at: float) -> str:
    if anchor.quality.shape[1] == 1:
        return "the anchor has one rung: there is no curve to read an equal energy off"
    for name, ladder in (("test", test), ("anchor", anchor)):
        envelopes = Envelopes.of(ladder)
        if not envelopes.count[0] or not np.isfinite(at):
            return "no cell of one arm has both joules and quality"
        low, high = np.exp(envelopes.log_energy[0, 0]), np.exp(np.nanmax(envelopes.log_energy[0]))
        if at < low:
            return f"{at:.4g} J/image is below the cheapest rung of the {name} ({low:.4g} J/image)"
        if at > high:
            limit = f"the most expensive rung of the {name} that is not beaten ({high:.4g} J/image)"
            return f"{at:.4g} J/image is above {limit}"
    return "the envelope of one arm is a single point: there is no curve to read off"
