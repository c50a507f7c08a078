"""Active choice of pairs: the pair whose answer is expected to reduce the error of the scores most.

The posterior of the scores is approximated by a normal distribution (Laplace). One more answer for a pair adds its
Fisher information, averaged over the posterior, and the gain is the reduction of the sum of the scores' variances. The
gain of entropy, as in ASAP (Mikhailiuk et al., 2020), prefers similar arms, and small errors add up between distant
ones. Pairs that were chosen but are not answered yet count as ties.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache

import numpy as np

from perjoule.people.records import Answer, Study, StudyIndex, Trial
from perjoule.people.thurstone import Array, information, log_slope, scores

_QUADRATURE = 15
# pairs within this share of the largest gain are chosen among at random
_NEARLY = 0.02
# main trials that are chosen at once; later ones are chosen when there are more answers
_AHEAD = 5


def expected_gain(wins: Array) -> Array:
    """(arms, arms) expected reduction of the sum of variances, in JOD², by one more answer; 0 on the diagonal.

    Args:
        wins: (arms, arms) how often row was preferred to column.
    """
    return gain_at(wins, scores(wins[None])[0])


def gain_at(wins: Array, at: Array) -> Array:
    """`expected_gain` where the scores are known."""
    covariance = np.linalg.inv(information(wins, at))
    nodes, share = _quadrature()
    one, other = np.triu_indices(len(at), 1)
    apart = covariance[:, one] - covariance[:, other]
    variance = apart[one, np.arange(len(one))] - apart[other, np.arange(len(one))]
    difference = (at[one] - at[other])[:, None] + np.sqrt(variance)[:, None] * nodes
    added = (log_slope(difference) * log_slope(-difference)) @ share  # Fisher information of one answer
    gain = np.zeros_like(covariance)
    gain[one, other] = gain[other, one] = added * (apart**2).sum(0) / (1 + added * variance)
    return gain


class Chooser:
    """Chooses main trials from all answers so far."""

    def __init__(self, study: Study, answers: Iterable[Answer] = (), *, seed: int | None = None) -> None:
        """Start with the answers that are known.

        Args:
            study: The study.
            answers: Answers so far.
            seed: Seed of the random choices; that of the study by default.
        """
        self._study, self._index = study, StudyIndex(study)
        self._chance = np.random.default_rng(study.seed if seed is None else seed)
        self._place = {arm: i for i, arm in enumerate(study.arms)}
        # prompt, then arm -> picture
        self._pictures: dict[str, dict[int, str]] = {}
        for picture in study.pictures:
            if picture.arm in self._place:
                self._pictures.setdefault(picture.prompt_id, {})[self._place[picture.arm]] = picture.picture_id
        self._wins = np.zeros((len(study.arms), len(study.arms)))
        # how often a pair (smaller place first) was shown for a prompt, and in which order
        self._shown: Counter[tuple[str, int, int]] = Counter()
        self._order: Counter[tuple[int, int]] = Counter()
        self._answered: dict[str, list[Trial]] = {}
        self._asked: dict[str, set[frozenset[str]]] = {}
        for answer in answers:
            self.record(answer)

    def record(self, answer: Answer) -> None:
        """Take an answer into account."""
        trial = self._index.trial_of(answer.trial_id)
        self._answered.setdefault(answer.observer, []).append(trial)
        if trial.kind == "main":
            self._count(answer.observer, trial, answer.won)

    def next_main(self, observer: str) -> Trial | None:
        """Return the most informative main trial that the observer has not been asked; None if there is none.

        Until the next answers are recorded in a new chooser, the trial counts as a tie.
        """
        gain = expected_gain(self._wins)
        asked = self._asked.get(observer, set())
        first, second = np.triu_indices(len(gain), 1)
        order = np.argsort(-gain[first, second] * (1 + _NEARLY * self._chance.random(len(first))))
        for a, b in zip(first[order].tolist(), second[order].tolist(), strict=True):
            free = [
                prompt
                for prompt, pictures in self._pictures.items()
                if a in pictures and b in pictures and frozenset((pictures[a], pictures[b])) not in asked
            ]
            if not free:
                continue
            counts = np.array([self._shown[prompt, a, b] for prompt in free])
            pictures = self._pictures[free[int(self._chance.choice(np.flatnonzero(counts == counts.min())))]]
            turned = self._order[a, b] - self._order[b, a]
            left, right = (b, a) if turned > 0 or (turned == 0 and self._chance.random() < 0.5) else (a, b)
            trial = self._index.pair(pictures[left], pictures[right])
            self._count(observer, trial, 0.5)
            return trial
        return None

    def remaining(self, observer: str, session: Sequence[str]) -> list[Trial]:
        """Return the trials that an observer is still to be asked.

        Args:
            observer: Who is asked.
            session: The trial ids of the observer's session. Its practice trials and checks stay; of the main trials
                still to come the next ones are replaced by informative ones, and repeats show answered pairs again.
        """
        answered = self._answered.get(observer, [])
        known = {trial.trial_id for trial in answered}
        done = Counter(trial.kind for trial in answered)
        repeated = {frozenset((trial.left, trial.right)) for trial in answered if trial.kind == "repeat"}
        early = [t for t in answered if t.kind == "main" and frozenset((t.left, t.right)) not in repeated]
        trials, chosen = [], 0
        for slot in map(self._index.trial_of, session):
            if slot.kind in ("main", "repeat") and done[slot.kind]:
                done[slot.kind] -= 1
            elif slot.kind == "repeat":
                if early:
                    again = early.pop(0)
                    trials.append(self._index.pair(again.right, again.left, "repeat"))
            elif slot.kind == "main":
                pair = frozenset((slot.left, slot.right))
                best = None
                if chosen < _AHEAD or pair in self._asked.get(observer, set()):
                    best = self.next_main(observer)
                    chosen += 1
                self._asked.setdefault(observer, set()).add(pair)
                trials.append(best or slot)
                early.append(trials[-1])
            elif slot.trial_id not in known:
                trials.append(slot)
        return trials

    def _count(self, observer: str, trial: Trial, won: float) -> None:
        left, right = self._place[trial.left_arm], self._place[trial.right_arm]
        self._wins[left, right] += won
        self._wins[right, left] += 1 - won
        self._shown[trial.prompt_id, min(left, right), max(left, right)] += 1
        self._order[left, right] += 1
        self._asked.setdefault(observer, set()).add(frozenset((trial.left, trial.right)))


@cache
def _quadrature() -> tuple[Array, Array]:
    """Nodes and weights of a standard normal distribution."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(_QUADRATURE)
    return nodes, weights / weights.sum()
