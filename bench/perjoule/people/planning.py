"""Number of answers for a wanted interval, before the study."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from perjoule.errors import UsageError
from perjoule.people.design import SECONDS_PER_TRIAL, extras
from perjoule.people.thurstone import Array, chance, information

_MOST = 10_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswersNeeded:
    """What `study plan` prints.

    Attributes:
        arms: Number of arms.
        half_width_jod: Wanted half-width of the 95 % interval of the difference of two arms.
        spread_jod: Assumed distance of the best from the worst arm; the arms are evenly spaced.
        answers: Main answers needed from careful observers.
        collected: Main answers to collect if a share of the observers is careless and is excluded.
        careless: That share.
        main_trials: Main trials per observer.
        observers: Observers needed.
        minutes_per_observer: Time of a session at 7 seconds per trial.
        notes: What the number does not allow for.
    """

    arms: int
    half_width_jod: float
    spread_jod: float
    answers: int
    collected: int
    careless: float
    main_trials: int
    observers: int
    minutes_per_observer: float
    notes: tuple[str, ...]


def answers_needed(
    arms: int, half_width: float, *, spread: float = 2.0, careless: float = 0.1, main_trials: int = 60
) -> AnswersNeeded:
    """Return the number of answers for an interval of the difference of two arms, all pairs shown equally often.

    The width follows from the Fisher information of Thurstone's Case V; it is that of the average pair of arms.

    Raises:
        UsageError: If a number is outside its range.
    """
    for name, value, good in (
        ("--arms", arms, 2 <= arms <= 1_000),
        ("--half-width", half_width, 0 < half_width < math.inf),
        ("--spread", spread, 0 <= spread <= 20),
        ("--careless", careless, 0 <= careless < 1),
        ("--pairs", main_trials, main_trials >= 1),
    ):
        if not good:
            raise UsageError(f"{name} {value}: out of range")
    at = np.linspace(-spread / 2, spread / 2, arms)
    pairs = arms * (arms - 1) / 2
    # one answer for each pair, split evenly between the two directions that an information counts
    per_round = information(_expected_wins(at), at, prior_sd=math.inf)
    covariance = np.linalg.pinv(per_round)
    variance = float(2 * (np.trace(covariance) - covariance.sum() / arms) / (arms - 1))
    answers = math.ceil(pairs * variance * (1.96 / half_width) ** 2)
    collected = math.ceil(answers / (1 - careless))
    if collected > _MOST:
        raise UsageError(f"--half-width {half_width}: needs more than {_MOST:,} answers: choose a wider one")
    extra = extras(main_trials)
    trials = main_trials + extra.practice + extra.checks + extra.repeats
    return AnswersNeeded(
        arms=arms,
        half_width_jod=half_width,
        spread_jod=spread,
        answers=answers,
        collected=collected,
        careless=careless,
        main_trials=main_trials,
        observers=max(1, math.ceil(collected / main_trials)),
        minutes_per_observer=trials * SECONDS_PER_TRIAL / 60,
        notes=(
            "differences between prompts and between observers come on top: prefer many prompts and many observers "
            "to many answers of each",
        ),
    )


def _expected_wins(at: Array) -> Array:
    wins = chance(at[:, None] - at[None])
    np.fill_diagonal(wins, 0.0)
    return wins
