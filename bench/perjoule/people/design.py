"""Design of a study: which pairs each observer sees, in which order, and on which side.

Main trials come in rounds of a round-robin tournament: a round shows every arm once (all but one if their number is
odd) for one prompt. A cycle has one round for every prompt, and the rounds of a prompt advance from cycle to cycle, so
after as many cycles as there are rounds every pair was shown once for every prompt. Observers take the rounds one after
the other. The result is a balanced incomplete block design with the observers as blocks: numbers of showings differ by
at most 1 between arms for an observer who finishes, and between pairs and prompts after each full sequence.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np

from perjoule.people.records import NOISE, OTHER_PROMPT, Picture, Study, StudyIndex, Trial, TrialKind

PRACTICE = 3
SECONDS_PER_TRIAL = 7.0
# one check, and one repeat, for so many main trials; and at least so many
_MAIN_PER_EXTRA, _LEAST_EXTRA = 12, 4
# a repeat comes at least so many trials after the pair
_REPEAT_DISTANCE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Extras:
    """Number of trials per observer in addition to the main ones."""

    practice: int
    checks: int
    repeats: int


def extras(main: int) -> Extras:
    """Return the numbers of practice trials, checks and repeats for a number of main trials."""
    each = max(_LEAST_EXTRA, main // _MAIN_PER_EXTRA)
    return Extras(practice=PRACTICE, checks=each, repeats=min(each, main // 2))


def most_pairs(arms: int, prompts: int) -> int:
    """Number of different pairs of arms and prompts: an observer sees each at most once."""
    return prompts * arms * (arms - 1) // 2


def tournament(arms: int) -> list[list[tuple[int, int]]]:
    """Rounds of disjoint pairs that contain every pair of arms once (the circle method)."""
    seats = list(range(arms)) + ([-1] if arms % 2 else [])
    rounds = []
    for _ in range(len(seats) - 1):
        half = len(seats) // 2
        pairs = zip(seats[:half], reversed(seats[half:]), strict=True)
        rounds.append([(a, b) for a, b in pairs if a >= 0 and b >= 0])
        seats = [seats[0], seats[-1], *seats[1:-1]]
    return rounds


def main_pairs(arms: int, prompts: int, chance: np.random.Generator) -> Iterator[tuple[int, int, int]]:
    """Endless sequence of (prompt, left arm, right arm) with balanced pairs, prompts and sides."""
    rounds = tournament(arms)
    names, order = chance.permutation(arms), chance.permutation(prompts)
    turned = chance.integers(0, 2, (arms, arms))
    for cycle in count():
        for place, prompt in enumerate(order):
            for a, b in rounds[(place + cycle) % len(rounds)]:
                left, right = sorted((int(names[a]), int(names[b])))
                side = turned[left, right]
                turned[left, right] = 1 - side
                yield (int(prompt), right, left) if side else (int(prompt), left, right)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stock:
    """The pictures to choose from.

    Attributes:
        shown: Prompt, then arm -> picture; one seed per prompt.
        noise: Pictures of noise.
        best: Place of the arm whose pictures the checks show: they should be recognisable.
    """

    shown: Sequence[Sequence[Picture]]
    noise: Sequence[Picture]
    best: int


def sessions(
    study: Study, stock: Stock, *, observers: int, main: int, seed: int
) -> tuple[tuple[Trial, ...], tuple[tuple[str, ...], ...]]:
    """Return the trials of a study, and their ids session by session; `study` has pictures but no trials yet."""
    chance = np.random.default_rng(seed)
    arms, prompts = len(study.arms), len(stock.shown)
    index, extra = StudyIndex(study), extras(main)
    sequence = main_pairs(arms, prompts, chance)
    trials: dict[str, Trial] = {}
    planned = []
    practice = _catches(index, stock, "practice", extra.practice, chance)
    for _ in range(observers):
        mains = _different(index, stock, sequence, main)
        chance.shuffle(mains)
        ordered: list[Trial] = [*mains]
        for place, trial in _repeated(index, mains, extra.repeats, chance):
            ordered.insert(place, trial)
        for trial in _catches(index, stock, "check", extra.checks, chance):
            ordered.insert(int(chance.integers(1, len(ordered) + 1)), trial)
        ordered = [*practice, *ordered]
        trials |= {trial.trial_id: trial for trial in ordered}
        planned.append(tuple(trial.trial_id for trial in ordered))
    return tuple(trials.values()), tuple(planned)


def _different(index: StudyIndex, stock: Stock, sequence: Iterator[tuple[int, int, int]], main: int) -> list[Trial]:
    """Take the next main trials; each pair of pictures once."""
    taken: dict[frozenset[str], Trial] = {}
    for prompt, left, right in sequence:
        trial = index.pair(stock.shown[prompt][left].picture_id, stock.shown[prompt][right].picture_id)
        taken.setdefault(frozenset((trial.left, trial.right)), trial)
        if len(taken) == main:
            break
    return list(taken.values())


def _repeated(
    index: StudyIndex, mains: Sequence[Trial], number: int, chance: np.random.Generator
) -> list[tuple[int, Trial]]:
    """Return repeats with swapped sides and the places to insert them, last first."""
    early = len(mains) - _REPEAT_DISTANCE
    first = chance.choice(early, size=number, replace=False) if early >= number else np.arange(number)
    repeats = []
    for place in first:
        trial = mains[int(place)]
        least = min(int(place) + _REPEAT_DISTANCE, len(mains))
        repeats.append((int(chance.integers(least, len(mains) + 1)), index.pair(trial.right, trial.left, "repeat")))
    return sorted(repeats, key=lambda item: -item[0])


def _catches(index: StudyIndex, stock: Stock, kind: TrialKind, number: int, chance: np.random.Generator) -> list[Trial]:
    """Return trials with a right answer: a picture against noise, or against one of another prompt, in turn."""
    prompts = len(stock.shown)
    order = [int(prompt) for prompt in chance.permutation(prompts)]
    catches: dict[str, Trial] = {}
    sides = chance.permutation(np.arange(number) % 2)
    for turn in range(number):
        prompt = order[turn % prompts]
        good = stock.shown[prompt][stock.best]
        if turn % 2 == 0 or prompts == 1:
            foil, name = stock.noise[turn // 2 % len(stock.noise)], NOISE
        else:
            foil, name = stock.shown[order[(turn + 1) % prompts]][stock.best], OTHER_PROMPT
        left, right = (good, foil) if sides[turn] else (foil, good)
        trial = Trial(
            trial_id=f"{kind}-{left.picture_id}-{right.picture_id}",
            kind=kind,
            prompt_id=good.prompt_id,
            seed=good.seed,
            left=left.picture_id,
            right=right.picture_id,
            left_arm=good.arm or "" if left is good else name,
            right_arm=good.arm or "" if right is good else name,
            reference=index.reference_of(good.prompt_id, good.seed),
            expected="left" if left is good else "right",
        )
        catches[trial.trial_id] = trial
    return list(catches.values())
