"""Choices as arrays: who preferred which of two arms, for which prompt."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from perjoule.errors import EvidenceError
from perjoule.people.records import Answer, StudyIndex
from perjoule.people.thurstone import Array
from perjoule.types import JudgeProvenance

Places = NDArray[np.intp]


@dataclass(frozen=True, slots=True, kw_only=True)
class Conduct:
    """Facts about an observer's way to answer, besides the choices.

    Attributes:
        checks: Attention checks answered.
        failed_checks: Those with a wrong answer.
        repeats: Pairs that were shown a second time.
        repeats_agreeing: Those with the same choice.
        median_ms: Median response time; None if it is unknown.
    """

    checks: int = 0
    failed_checks: int = 0
    repeats: int = 0
    repeats_agreeing: int = 0
    median_ms: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Choices:
    """Choices between two arms for one prompt; the arrays have one element per choice.

    Attributes:
        arms: Names.
        prompts: Prompt ids.
        observers: Ids.
        observer: Place in `observers`.
        prompt: Place in `prompts`.
        first: Place in `arms`.
        second: Place in `arms`.
        won: 1 if the first was chosen, 0 if the second, ½ for no difference.
        provenance: Who answered; one for all.
        conduct: Facts about observers; observers of imported tables have none.
    """

    arms: tuple[str, ...]
    prompts: tuple[str, ...]
    observers: tuple[str, ...]
    observer: Places
    prompt: Places
    first: Places
    second: Places
    won: Array
    provenance: JudgeProvenance
    conduct: Mapping[str, Conduct] = field(default_factory=dict)

    def __len__(self) -> int:
        """Return the number of choices."""
        return len(self.won)

    def of(self, kept: NDArray[np.bool_]) -> Choices:
        """Return some of the choices; names stay, so that places keep their meaning."""
        parts = ("observer", "prompt", "first", "second", "won")
        return replace(self, **{name: getattr(self, name)[kept] for name in parts})

    def wins(self) -> Array:
        """(arms, arms) how often row was preferred to column."""
        wins: Array = self.wins_by(np.zeros(len(self), np.intp), 1)[0]
        return wins

    def wins_by(self, group: Places, count: int) -> Array:
        """(count, arms, arms) how often row was preferred to column in each group of choices."""
        table = np.zeros((count, len(self.arms), len(self.arms)))
        np.add.at(table, (group, self.first, self.second), self.won)
        np.add.at(table, (group, self.second, self.first), 1 - self.won)
        return table

    def by_prompt(self) -> Array:
        """(prompts, arms, arms) as `wins_by`."""
        return self.wins_by(self.prompt, len(self.prompts))

    def by_observer(self) -> Array:
        """(observers, arms, arms) as `wins_by`."""
        return self.wins_by(self.observer, len(self.observers))

    def answers_of(self, arm: int) -> int:
        """Return the number of choices in which an arm took part."""
        return int(((self.first == arm) | (self.second == arm)).sum())


def one_provenance(provenances: Iterable[JudgeProvenance], where: str) -> JudgeProvenance:
    """Return the one provenance of answers; answers of unlike provenances are never pooled.

    Raises:
        EvidenceError: If there are several, or none.
    """
    kinds = sorted(set(provenances))
    if not kinds:
        raise EvidenceError(f"{where}: no answers yet: merge exported answers with `perjoule study add`")
    if len(kinds) > 1:
        raise EvidenceError(
            f"{where}: answers with the provenances {' and '.join(kinds)}: they are never pooled; keep them in studies "
            "of their own"
        )
    return kinds[0]


def choices_of(index: StudyIndex, answers: Iterable[Answer], where: str) -> Choices:
    """Return the choices of a study's main trials, and the conduct of its observers.

    Practice, checks and repeats are not scaled: a repeated answer of the same person is not independent.

    Raises:
        EvidenceError: If there is no answer, or answers have unlike provenances.
    """
    answers = sorted(answers, key=lambda answer: (answer.observer, answer.shown_at_ms, answer.trial_id))
    study = index.study
    provenance = one_provenance((answer.provenance for answer in answers), where)
    by_observer: dict[str, list[Answer]] = {}
    for answer in answers:
        by_observer.setdefault(answer.observer, []).append(answer)
    observers = tuple(by_observer)
    places = {
        name: {key: i for i, key in enumerate(keys)}
        for name, keys in (
            ("arm", study.arms), ("prompt", [p.prompt_id for p in study.prompts]), ("observer", observers)
        )
    }  # fmt: skip
    rows = []
    for answer in answers:
        trial = index.trial_of(answer.trial_id)
        if trial.kind == "main":
            rows.append(
                (places["observer"][answer.observer], places["prompt"][trial.prompt_id],
                 places["arm"][answer.left], places["arm"][answer.right], answer.won)
            )  # fmt: skip
    columns = list(zip(*rows, strict=True)) or [()] * 5
    used = sorted(set(columns[1]))
    prompts = [study.prompts[i].prompt_id for i in used]
    return Choices(
        arms=study.arms,
        prompts=tuple(prompts),
        observers=observers,
        observer=np.array(columns[0], np.intp),
        prompt=np.searchsorted(used, columns[1]).astype(np.intp) if used else np.empty(0, np.intp),
        first=np.array(columns[2], np.intp),
        second=np.array(columns[3], np.intp),
        won=np.array(columns[4], np.float64),
        provenance=provenance,
        conduct={observer: _conduct(index, mine) for observer, mine in by_observer.items()},
    )


def _conduct(index: StudyIndex, answers: list[Answer]) -> Conduct:
    main = {}
    checks = failed = repeats = agreeing = 0
    times = []
    for answer in answers:
        trial = index.trial_of(answer.trial_id)
        if trial.kind == "main":
            main[frozenset((trial.left, trial.right))] = _chosen(answer)
            times.append(answer.response_ms)
        elif trial.kind == "check":
            checks += 1
            failed += answer.choice != trial.expected
    for answer in answers:
        trial = index.trial_of(answer.trial_id)
        if trial.kind == "repeat" and (before := main.get(frozenset((trial.left, trial.right)))) is not None:
            repeats += 1
            agreeing += before == _chosen(answer)
    return Conduct(
        checks=checks,
        failed_checks=failed,
        repeats=repeats,
        repeats_agreeing=agreeing,
        median_ms=float(np.median(times)) if times else None,
    )


def _chosen(answer: Answer) -> str:
    """Return the arm that was chosen, or `equal`, which is not the name of an arm's picture."""
    return {"left": answer.left, "right": answer.right, "equal": "equal"}[answer.choice]
