"""JOD of each arm with intervals, from choices.

Intervals allow for the prompts and the observers, which are crossed: both are resampled, and the scale is fitted again.

    draw = scale + (scale of resampled prompts − scale) + k (scale of resampled observers − scale)
    k²   = 1 − V_both / V_observers, at least 0

V are the variances (sums over arms) of the scale by a sandwich estimator: over observers, and over the choices of one
observer for one prompt. The scatter of those is in the resampled prompts already; k leaves in the second part only what
an observer does for all prompts. The sum is the two-way clustered variance of Cameron, Gelbach and Miller (2011).
Resampling both in full would count the scatter of single choices three times (Owen, The pigeonhole bootstrap, 2007).
Where the sum is below the variance of independent answers, the difference is added. Limits are Student's t below 25
prompts or observers, else quantiles.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from perjoule.errors import EvidenceError
from perjoule.people.choices import Choices
from perjoule.people.records import Screening
from perjoule.people.screening import Excluded, screen
from perjoule.people.thurstone import PRIOR_SD_JOD, Array, gradient, information, log_slope, scores
from perjoule.statistics.resampling import LEVEL, SEED, STUDENT_BELOW, expanded
from perjoule.types import Estimate, JudgeProvenance

RESAMPLES = 2_000
UNIT = "JOD"
# a prompt's own scale is a compromise with the common one: a prior of this standard deviation
PROMPT_PRIOR_SD_JOD = 1.0
_LEAST_PER_ARM = 8
MOST_ARMS = 200
_MOST_NUMBERS = 10**8  # of the counts by prompt
_CHUNK = 2**22  # numbers in an array of resampled counts
_METHOD = "Thurstone case V, maximum a posteriori; prompts and observers resampled"


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmScore:
    """Score of an arm. `jod`: 0 is the mean of the arms; `bradley_terry`: the same by the other model, in JOD."""

    arm: str
    jod: float
    low: float | None
    high: float | None
    n_answers: int
    bradley_terry: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptScores:
    """Scores of the arms for one prompt, in the order of the arms, where each arm has enough answers."""

    prompt_id: str
    n_answers: int
    jod: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """What `perjoule study scale` prints.

    Attributes:
        provenance: Who answered.
        unit: Unit of the scores.
        arms: Scores, best first.
        observers: Number of observers whose answers are used.
        answers: Number of answers used.
        prompts: Number of prompts with answers.
        excluded: Observers whose answers are not used, with reasons.
        repeats: Number of repeated pairs.
        repeats_agreeing: Those answered in the same way.
        per_prompt: Scores per prompt, for prompts with enough answers.
        level: Coverage of the intervals.
        method: How scores and intervals are made.
        notes: Limits of the result.
    """

    provenance: JudgeProvenance
    unit: str
    arms: tuple[ArmScore, ...]
    observers: int
    answers: int
    prompts: int
    excluded: tuple[Excluded, ...]
    repeats: int
    repeats_agreeing: int
    per_prompt: tuple[PromptScores, ...]
    level: float
    method: str
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fit:
    """The scale as arrays.

    Attributes:
        choices: Choices of the observers who are kept.
        excluded: The others.
        jod: (arms,) scores with mean 0.
        by_prompt: (prompts, arms) contribution of each prompt: the mean over prompts is `jod`, and the scatter is that
            of the scale if prompts are resampled.
        draws: (resamples, arms) of the scale.
        common: (resamples, arms) the part of the deviations that all prompts share: that of the observers.
        n: Number of units behind the intervals: prompts, or observers if they are fewer and matter.
    """

    choices: Choices
    excluded: tuple[Excluded, ...]
    jod: Array
    by_prompt: Array
    draws: Array
    common: Array
    n: int

    def estimate(self, weights: Array, *, level: float = LEVEL) -> Estimate:
        """A linear combination of the scores, e.g. the difference of two arms, with its interval."""
        value = float(self.jod @ weights)
        if self.n < 2:
            return Estimate(value=value, low=None, high=None, level=level, n=self.n, method=f"{_METHOD}: too few")
        rows = self.draws @ weights
        if self.n < STUDENT_BELOW:  # so few units have too few different resamples for quantiles
            from scipy.special import stdtrit

            half = float(stdtrit(self.n - 1, (1 + level) / 2) * rows.std() * np.sqrt(self.n / (self.n - 1)))
            low, high = value - half, value + half
        else:
            nominal = expanded(level, self.n)
            low, high = np.quantile(rows, [(1 - nominal) / 2, (1 + nominal) / 2])
        return Estimate(value=value, low=float(low), high=float(high), level=level, n=self.n, method=_METHOD)


def fit(choices: Choices, rule: Screening, *, resamples: int = RESAMPLES, seed: int = SEED) -> Fit:
    """Screen the observers and scale the arms.

    Raises:
        EvidenceError: If no choice is left, an arm was never shown, or there are too many arms.
    """
    if len(choices.arms) > MOST_ARMS or len(choices.prompts) * len(choices.arms) ** 2 > _MOST_NUMBERS:
        raise EvidenceError(
            f"{len(choices.arms)} arms and {len(choices.prompts)} prompts are too many to scale together: use at most "
            f"{MOST_ARMS} arms, or fewer prompts"
        )
    kept, excluded = screen(choices, rule)
    if not len(kept):
        why = f": all {len(excluded)} observers are excluded ({excluded[0].reason}, …)" if excluded else ""
        raise EvidenceError(f"no answers are left to scale{why}: collect more answers")
    for place, arm in enumerate(choices.arms):
        if not kept.answers_of(place):
            raise EvidenceError(f"arm {arm!r} has no answers: collect more answers, or leave it out of the study")
    prompts, observers = kept.by_prompt(), kept.by_observer()
    observers = observers[observers.any((1, 2))]
    at = scores(kept.wins()[None])[0]
    inverse = np.asarray(np.linalg.inv(information(kept.wins(), at)), np.float64)
    share = _share_of_observers(kept, observers, at, inverse) if len(prompts) > 1 else 1.0
    chance = np.random.default_rng(seed)
    by_prompts = _resampled(prompts, at, resamples, chance) - at
    common = share * (_resampled(observers, at, resamples, chance) - at)
    if len(prompts) < 2:
        by_prompts = np.zeros_like(common)
    # the prior's part of the gradient is spread over the prompts, so that their mean is the scale
    upward = gradient(prompts, at) - at / (len(prompts) * PRIOR_SD_JOD**2)
    by_prompt = at + len(prompts) * upward @ inverse
    common = common + _missing_scatter(by_prompt, common, inverse, chance)
    n = min([len(prompts)] * (len(prompts) > 1) + [len(observers)] * (share > 0), default=1)
    return Fit(
        choices=kept,
        excluded=excluded,
        jod=at,
        by_prompt=by_prompt,
        draws=at + by_prompts - by_prompts.mean(0) + common - common.mean(0),
        common=common,
        n=n,
    )


def scale(
    choices: Choices, rule: Screening, *, resamples: int = RESAMPLES, seed: int = SEED, level: float = LEVEL
) -> Scale:
    """Screen the observers, scale the arms, and describe the result; raises EvidenceError as `fit`."""
    return describe(choices, fit(choices, rule, resamples=resamples, seed=seed), level=level)


def describe(choices: Choices, result: Fit, *, level: float = LEVEL) -> Scale:
    """Return the record of a scale that was fitted to `choices`."""
    kept = result.choices
    logistic = scores(kept.wins()[None], model="bradley-terry")[0]
    estimates = [result.estimate(row, level=level) for row in np.eye(len(kept.arms))]
    arms = [
        ArmScore(
            arm=arm,
            jod=float(result.jod[i]),
            low=estimates[i].low,
            high=estimates[i].high,
            n_answers=kept.answers_of(i),
            bradley_terry=float(logistic[i]),
        )
        for i, arm in enumerate(kept.arms)
    ]
    excluded = {one.observer for one in result.excluded}
    conduct = [one for name, one in choices.conduct.items() if name not in excluded]
    return Scale(
        provenance=choices.provenance,
        unit=unit(choices.provenance),
        arms=tuple(sorted(arms, key=lambda one: (-one.jod, one.arm))),
        observers=len(np.unique(kept.observer)),
        answers=len(kept),
        prompts=len(np.unique(kept.prompt)),
        excluded=result.excluded,
        repeats=sum(one.repeats for one in conduct),
        repeats_agreeing=sum(one.repeats_agreeing for one in conduct),
        per_prompt=_per_prompt(result),
        level=level,
        method=estimates[0].method,
        notes=tuple(_notes(result)),
    )


def unit(provenance: JudgeProvenance) -> str:
    """Return the unit of scores; it names whoever answered instead of people."""
    return {
        "people": UNIT, "simulated": f"{UNIT} of SIMULATED observers", "model": f"{UNIT} of a MODEL as judge",
        "not stated": f"{UNIT} of observers NOT STATED",
    }[provenance]  # fmt: skip


def _resampled(parts: Array, at: Array, resamples: int, chance: np.random.Generator) -> Array:
    """Scores of resampled parts (units, arms, arms), e.g. prompts: (resamples, arms)."""
    units, arms = parts.shape[:2]
    weights = chance.multinomial(units, np.full(units, 1 / units), size=resamples).astype(np.float64)
    flat, portion = parts.reshape(units, -1), max(1, _CHUNK // arms**2)
    rows = (weights[i : i + portion] @ flat for i in range(0, resamples, portion))
    return np.concatenate([scores(wins.reshape(-1, arms, arms), start=at) for wins in rows])


def _missing_scatter(by_prompt: Array, common: Array, inverse: Array, chance: np.random.Generator) -> Array:
    """(resamples, arms) normal deviations that raise the variance to that of independent answers, where it is less.

    A few prompts or observers may agree by chance, and resampling them then shows less scatter than the answers have.
    """
    arms = len(inverse)
    away = np.eye(arms) - 1 / arms
    least = away @ inverse @ away
    shown = float(common.var(0).sum())
    if len(by_prompt) > 1:
        shown += float(by_prompt.var(0, ddof=1).sum()) / len(by_prompt)
    lacking = max(0.0, 1 - shown / float(np.trace(least)))
    drawn = chance.multivariate_normal(np.zeros(arms), least, len(common), method="eigh")
    return np.asarray(np.sqrt(lacking) * drawn, np.float64)


def _share_of_observers(kept: Choices, observers: Array, at: Array, inverse: Array) -> float:
    """Return k, the factor of the deviations of resampled observers."""
    if len(observers) < 2:
        return 0.0
    each = np.zeros((len(kept), len(kept.arms)))
    difference = at[kept.first] - at[kept.second]
    rows = np.arange(len(kept))
    pull = kept.won * log_slope(difference) - (1 - kept.won) * log_slope(-difference)
    each[rows, kept.first], each[rows, kept.second] = pull, -pull
    # several choices of an observer for one prompt are not independent
    _, both = np.unique(kept.observer * len(kept.prompts) + kept.prompt, return_inverse=True)
    together = np.zeros((both.max() + 1, len(kept.arms)))
    np.add.at(together, both, each)

    def variance(upward: Array) -> float:
        reached = upward @ inverse
        return float((reached**2).sum()) * len(upward) / max(1, len(upward) - 1)

    by_observer = variance(gradient(observers, at))
    return float(np.sqrt(max(0.0, 1 - variance(together) / by_observer))) if by_observer > 0 else 0.0


def _per_prompt(result: Fit) -> tuple[PromptScores, ...]:
    kept = result.choices
    wins = kept.by_prompt()
    shown = (wins + np.swapaxes(wins, 1, 2)).sum(2)
    enough = np.flatnonzero((shown >= _LEAST_PER_ARM).all(1))
    if not len(enough):
        return ()
    own = scores(wins[enough], prior_sd=PROMPT_PRIOR_SD_JOD, centre=result.jod)
    return tuple(
        PromptScores(
            prompt_id=kept.prompts[i], n_answers=int(shown[i].sum() / 2), jod=tuple(float(value) for value in own[row])
        )
        for row, i in enumerate(enough)
    )


def _notes(result: Fit) -> list[str]:
    kept, notes = result.choices, []
    observers = len(np.unique(kept.observer))
    if observers < 2:
        notes.append("one observer: the interval does not allow for differences between people")
    if len(kept.prompts) < 2:
        notes.append("one prompt: the interval does not allow for differences between prompts")
    wins = kept.wins()
    reached = np.linalg.matrix_power(((wins + wins.T) > 0) + np.eye(len(wins)), len(wins)) > 0
    if not reached.all():
        notes.append("some arms were never compared with the others, directly or through other arms: only the prior "
                     "places them on one scale")  # fmt: skip
    return notes
