"""What a metric predicts people would prefer, in units of just-objectionable differences (JOD).

    p_i       = σ((m_i(a) − m_i(0))/T)             a's chance to be preferred to the anchor 0, prompt and seed i
                1, ½, 0 for win, tie, loss         where the metric has no declared temperature T
    ΔQ_P(a|0) = Φ⁻¹(mean_i p_i)/Φ⁻¹(0.75)          mean p clipped to [1/(2n), 1 − 1/(2n)], n prompts

One unit is 75 % preferring a. No person was asked, hence "metric-predicted" wherever the number appears, and the native
score next to it. Thurstone's case V scale; the logistic choice is that of Bradley and Terry.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from perjoule.statistics.resampling import RESAMPLES, SEED, Array, Means, resample_means
from perjoule.types import Estimate

UNIT = "JOD-equivalents, metric-predicted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Preference:
    """One arm's images against another's.

    Attributes:
        gain: ΔQ_P in `unit`.
        win_rate: Mean chance to be preferred.
        native: Mean difference of the scores, in the metric's unit, turned so that higher is better.
        temperature: T; None if wins were counted.
        unit: Unit of `gain`.
    """

    gain: Estimate
    win_rate: Estimate
    native: Estimate
    temperature: float | None
    unit: str = UNIT


def predicted_preference(
    test: Array,
    anchor: Array,
    *,
    temperature: float | None = None,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Preference:
    """ΔQ_P of `test` against `anchor`, paired by prompt and seed.

    Args:
        test: (prompts, seeds) scores, turned so that higher is better; NaN where there is none.
        anchor: The same of what it is compared with.
        temperature: The score difference at which the odds are e to 1; None counts wins.
        resamples: Bootstrap draws.
        seed: Seed of the draws.

    Raises:
        ValueError: If the temperature is not positive and finite, or the shapes differ.
    """
    return predicted_preferences([(test, anchor)], temperature=temperature, resamples=resamples, seed=seed)[0]


def predicted_preferences(
    pairs: Sequence[tuple[Array, Array]],
    *,
    temperature: float | None = None,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> list[Preference]:
    """ΔQ_P of several pairs (test, anchor) of the same prompts; see `predicted_preference`.

    Pairs without gaps share one draw, which is most of the work; the numbers are those of a draw of their own.
    """
    if temperature is not None and not 0 < temperature < math.inf:
        raise ValueError(f"temperature = {temperature}: positive and finite, or None to count wins")
    scores = [_scores(test, anchor, temperature) for test, anchor in pairs]
    whole = [place for place, values in enumerate(scores) if np.isfinite(values).all()]
    means = {}
    if whole:
        joint = resample_means(np.concatenate([scores[p] for p in whole], axis=2), resamples=resamples, seed=seed)
        means = {place: joint.of([2 * number, 2 * number + 1]) for number, place in enumerate(whole)}
    for place, values in enumerate(scores):
        if place not in means:
            means[place] = resample_means(values, resamples=resamples, seed=seed)
    return [_preference(means[place], temperature) for place in range(len(scores))]


def _scores(test: Array, anchor: Array, temperature: float | None) -> Array:
    """(prompts, seeds, 2) chance to be preferred, and difference of the scores."""
    if test.shape != anchor.shape:
        raise ValueError(f"scores of different prompts and seeds cannot be paired: {test.shape}, {anchor.shape}")
    from scipy.special import expit

    change = np.asarray(test - anchor, np.float64)
    chance = (1 + np.sign(change)) / 2 if temperature is None else expit(change / temperature)
    return np.stack([chance, change], axis=2)


def _preference(means: Means, temperature: float | None) -> Preference:
    from scipy.special import ndtri

    edge = 1 / (2 * max(1, means.n))

    def gain(rows: Array) -> Array:
        return np.asarray(ndtri(np.clip(rows[:, 0], edge, 1 - edge)) / ndtri(0.75))

    how = "wins, ties ½" if temperature is None else f"σ(Δ/{temperature:g})"
    return Preference(
        gain=means.estimate(gain, what=f"metric-predicted: Φ⁻¹(mean of {how})/Φ⁻¹(0.75)"),
        win_rate=means.estimate(lambda rows: rows[:, 0], what=f"metric-predicted: mean of {how}"),
        native=means.estimate(lambda rows: rows[:, 1]),
        temperature=temperature,
    )
