"""Active choice of pairs: the pair whose answer is expected to say most about the scores.

The posterior of the scores is approximated by a normal distribution (Laplace). The information gained by an answer is
the entropy of its prediction, less the mean entropy if the scores were known (as in ASAP, Mikhailiuk et al., 2020, who
use approximate message passing). Pairs that were shown but are not answered yet count as half answered for each side.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np

from perjoule.people.records import Answer, Study, StudyIndex, Trial
from perjoule.people.thurstone import Array, chance, information, scores

_QUADRATURE = 15
# pairs within this share of the largest gain are chosen among at random
_NEARLY = 0.02


def expected_gain(wins: Array) -> Array:
    """(arms, arms) expected information, in nats, of one more answer for each pair; 0 on the diagonal.

    Args:
        wins: (arms, arms) how often row was preferred to column.
    """
    at = scores(wins[None])[0]
    covariance = np.linalg.inv(information(wins, at))
    variance = np.diag(covariance)
    sd = np.sqrt(np.maximum(variance[:, None] + variance[None] - 2 * covariance, 0.0))
    nodes, weights = np.polynomial.hermite_e.hermegauss(_QUADRATURE)
    p = chance(at[:, None, None] - at[None, :, None] + sd[..., None] * nodes)
    share = weights / weights.sum()
    return np.asarray(_entropy(p @ share) - _entropy(p) @ share, np.float64)


class Chooser:
    """Chooses the next trial of each observer of a study, from all answers so far."""

    def __init__(self, study: Study, answers: Iterable[Answer] = (), *, seed: int | None = None) -> None:
        """Start with the answers that are known.

        Args:
            study: The study.
            answers: Answers so far.
            seed: Seed of the random choices; that of the study by default.
        """
        self._index = StudyIndex(study)
        self._chance = np.random.default_rng(study.seed if seed is None else seed)
        self._place = {arm: i for i, arm in enumerate(study.arms)}
        self._wins = np.zeros((len(study.arms), len(study.arms)))
        self._pending: Counter[tuple[int, int]] = Counter()
        self._shown: Counter[tuple[str, int, int]] = Counter()
        self._seen: dict[str, dict[str, Trial]] = {}
        self._turned: Counter[tuple[int, int]] = Counter()
        self._gain: Array | None = None
        self._pictures: dict[tuple[str, str], str] = {}
        for picture in study.pictures:
            if picture.arm in self._place:
                self._pictures.setdefault((picture.prompt_id, picture.arm or ""), picture.picture_id)
        for answer in answers:
            self.record(answer)

    def record(self, answer: Answer) -> None:
        """Take an answer into account."""
        trial = self._index.trial_of(answer.trial_id)
        if trial.kind != "main":
            return
        left, right = self._place[answer.left], self._place[answer.right]
        won = {"left": 1.0, "right": 0.0, "equal": 0.5}[answer.choice]
        self._wins[left, right] += won
        self._wins[right, left] += 1 - won
        known = trial.trial_id in self._seen.get(answer.observer, {})
        pair = (min(left, right), max(left, right))
        if known and self._pending[pair]:
            self._pending[pair] -= 1
        if not known:
            self._see(answer.observer, trial)
        self._gain = None

    def next(self, observer: str, slot: Trial) -> Trial:
        """Return the trial to show in a place of a session.

        Args:
            observer: Who is asked.
            slot: The trial that the session has in this place. A main trial is replaced by the most informative pair,
                a repeat by an early pair of this observer with its sides swapped; others stay.
        """
        seen = self._seen.setdefault(observer, {})
        if slot.kind == "repeat":
            for early in list(seen.values()):
                again = self._index.pair(early.right, early.left, "repeat")
                if f"repeat-{early.left}-{early.right}" not in seen and again.trial_id not in seen:
                    seen[again.trial_id] = again
                    return again
        if slot.kind != "main":
            return slot
        trial = self._most_informative(observer)
        if trial is None:
            return slot
        self._see(observer, trial)
        left, right = self._place[trial.left_arm], self._place[trial.right_arm]
        self._pending[min(left, right), max(left, right)] += 1
        self._gain = None
        return trial

    def _see(self, observer: str, trial: Trial) -> None:
        self._seen.setdefault(observer, {})[trial.trial_id] = trial
        left, right = self._place[trial.left_arm], self._place[trial.right_arm]
        self._shown[trial.prompt_id, min(left, right), max(left, right)] += 1
        self._turned[left, right] += 1

    def _most_informative(self, observer: str) -> Trial | None:
        """Return the main trial that says most, among those that the observer has not seen."""
        if self._gain is None:
            wins = self._wins.copy()
            for (a, b), count in self._pending.items():
                wins[a, b] += count / 2
                wins[b, a] += count / 2
            self._gain = expected_gain(wins)
        mine = {frozenset((t.left, t.right)) for t in self._seen.get(observer, {}).values()}
        upper = np.triu_indices(len(self._gain), 1)
        order = np.argsort(-self._gain[upper] * (1 + _NEARLY * self._chance.random(len(upper[0]))))
        for place in order:
            a, b = int(upper[0][place]), int(upper[1][place])
            arms = self._index.study.arms
            free = [
                prompt.prompt_id
                for prompt in self._index.study.prompts
                if {(prompt.prompt_id, arms[a]), (prompt.prompt_id, arms[b])} <= self._pictures.keys()
                and frozenset(self._pictures[prompt.prompt_id, arms[i]] for i in (a, b)) not in mine
            ]
            if not free:
                continue
            counts = np.array([self._shown[prompt, a, b] for prompt in free])
            prompt = free[int(self._chance.choice(np.flatnonzero(counts == counts.min())))]
            turned = self._turned[a, b] - self._turned[b, a]
            if turned > 0 or (turned == 0 and self._chance.random() < 0.5):
                a, b = b, a
            return self._index.pair(self._pictures[prompt, arms[a]], self._pictures[prompt, arms[b]])
        return None


def _entropy(p: Array) -> Array:
    from scipy.special import entr

    return np.asarray(entr(p) + entr(1 - p), np.float64)
