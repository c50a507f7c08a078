"""Excludes careless observers by the rule that the study declared before its first answer.

An observer is compared with the scale fitted to the others. Two conditions must hold together: the answers are more
likely to be random than to follow that scale, and they are improbable for somebody who follows it. Where the arms
hardly differ, random answers and careful ones look the same and do the same harm, none; nobody is excluded then.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perjoule.people.choices import Choices
from perjoule.people.records import Screening
from perjoule.people.thurstone import Array, information, log_chance, predicted, scores

_ROUNDS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Excluded:
    """An observer whose answers are not used, with the reason."""

    observer: str
    reason: str
    n_answers: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Likelihood:
    """Fit of each observer's answers to the scale of the others.

    Attributes:
        answers: (observers,) number of choices.
        ratio: (observers,) log-likelihood of the choices less that of random ones.
        z: (observers,) log-likelihood against its expectation for somebody who follows the scale, in its standard
            deviations.
    """

    answers: NDArray[np.intp]
    ratio: Array
    z: Array


def screen(choices: Choices, rule: Screening) -> tuple[Choices, tuple[Excluded, ...]]:
    """Return the choices of the observers who are kept, and those who are excluded."""
    counts = np.bincount(choices.observer, minlength=len(choices.observers))
    reasons = {i: reason for i, name in enumerate(choices.observers) if (reason := _by_conduct(choices, name, rule))}
    by_likelihood: dict[int, str] = {}
    for _ in range(_ROUNDS):
        kept = np.array([i not in reasons and i not in by_likelihood for i in range(len(choices.observers))])
        found = _by_likelihood(likelihood(choices, kept), rule)
        if found.keys() == by_likelihood.keys():
            break
        by_likelihood = found
    reasons = by_likelihood | reasons
    excluded = tuple(
        Excluded(observer=choices.observers[i], reason=reasons[i], n_answers=int(counts[i])) for i in sorted(reasons)
    )
    return choices.of(~np.isin(choices.observer, list(reasons))), excluded


def likelihood(choices: Choices, kept: NDArray[np.bool_]) -> Likelihood:
    """Compare every observer with the scale of the other observers in `kept`, (observers,)."""
    by_observer = choices.by_observer()
    others = by_observer[kept].sum(0) - np.where(kept[:, None, None], by_observer, 0.0)
    at, spread = _shrunk(scores(others), others)
    who, one, other = choices.observer, choices.first, choices.second
    difference = at[who, one] - at[who, other]
    variance_of_it = spread[who, one, one] + spread[who, other, other] - 2 * spread[who, one, other]
    win, loss = (log_chance(predicted(sign * difference, variance_of_it)) for sign in (1, -1))
    p = np.exp(win)
    count = len(choices.observers)

    def total(values: Array) -> Array:
        return np.bincount(choices.observer, values, minlength=count).astype(np.float64)

    answers = np.bincount(choices.observer, minlength=count)
    achieved = total(choices.won * win + (1 - choices.won) * loss)
    expected, variance = total(p * win + (1 - p) * loss), total(p * (1 - p) * (win - loss) ** 2)
    with np.errstate(invalid="ignore", divide="ignore"):
        z = (achieved - expected) / np.sqrt(variance)
    return Likelihood(answers=answers, ratio=achieved + answers * np.log(2), z=z)


def _shrunk(at: Array, wins: Array) -> tuple[Array, Array]:
    """Scores (sets, arms) and their covariance, less by what their scatter owes to the uncertainty of each.

    Without it, scores of arms that do not differ would be taken for a scale, from which honest observers deviate.
    """
    spread = np.linalg.inv(information(wins, at))
    arms = at.shape[1]
    # variance of a score around the mean of all
    own = (np.trace(spread, axis1=1, axis2=2) - spread.sum((1, 2)) / arms) / (arms - 1)
    between = at.var(1, ddof=1)
    share = np.clip(1 - own / np.maximum(between, 1e-12), 0.0, 1.0)
    return at * share[:, None], spread * share[:, None, None]


def _by_likelihood(fit: Likelihood, rule: Screening) -> dict[int, str]:
    from scipy.special import ndtri

    careless = (fit.answers >= rule.least_answers) & (fit.ratio < rule.log_likelihood_ratio)
    careless &= fit.z < ndtri(rule.honest_probability)
    return {
        int(i): f"answers fit random choices better than the scale of the others "
        f"(log-likelihood ratio {fit.ratio[i]:.1f} over {fit.answers[i]} answers)"
        for i in np.flatnonzero(careless)
    }


def _by_conduct(choices: Choices, observer: str, rule: Screening) -> str:
    """Return why an observer is excluded by checks or speed; empty if not."""
    conduct = choices.conduct.get(observer)
    if conduct is None:
        return ""
    if conduct.checks >= rule.least_checks and conduct.failed_checks > rule.most_failed_checks * conduct.checks:
        return f"{conduct.failed_checks} of {conduct.checks} attention checks failed"
    if conduct.median_ms is not None and conduct.median_ms < rule.fastest_median_ms:
        return f"median response time {conduct.median_ms:.0f} ms"
    return ""
