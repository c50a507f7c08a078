"""The planned number of answers gives the wanted interval."""

from __future__ import annotations

import numpy as np
import pytest

from perjoule.errors import UsageError
from perjoule.people.planning import answers_needed
from perjoule.people.thurstone import scores
from tests.support.observers import random_pairs, world


@pytest.mark.parametrize(("arms", "spread"), [(2, 0.5), (5, 2.0)])
def test_simulated_differences_scatter_as_planned(arms: int, spread: float) -> None:
    needed = answers_needed(arms, 0.3, spread=spread, careless=0.0)
    chance = np.random.default_rng(0)
    draw, found = random_pairs(arms, 1), []
    truth = world(chance, arms=arms, spread=spread / 2, careless=0.0, observers=1, prompts=1)
    for _ in range(300):
        prompt, first, second = draw(needed.answers, chance)
        won = truth.wins(np.zeros_like(first), prompt, first, second, chance.random(len(first)))
        wins = np.zeros((arms, arms))
        np.add.at(wins, (first, second), won)
        np.add.at(wins, (second, first), 1 - won)
        found.append(scores(wins[None])[0] - truth.jod)
    away = np.array(found)
    pairs = np.array([away[:, i] - away[:, j] for i in range(arms) for j in range(i)])
    assert 1.96 * np.sqrt((pairs**2).mean()) == pytest.approx(0.3, rel=0.15)


def test_half_the_width_needs_four_times_the_answers() -> None:
    wide, narrow = (answers_needed(8, width, careless=0.2, main_trials=50) for width in (0.4, 0.2))
    assert narrow.answers == pytest.approx(4 * wide.answers, rel=0.01)
    assert narrow.collected == pytest.approx(narrow.answers / 0.8, abs=1)
    assert narrow.observers == -(-narrow.collected // 50)


@pytest.mark.parametrize(
    ("arms", "width", "more"),
    [
        (1, 0.2, {}),
        (8, 0.0, {}),
        (8, -1.0, {}),
        (8, 0.2, {"careless": 1.0}),
        (8, 0.2, {"main_trials": 0}),
        (8, 1e-6, {}),
    ],
)
def test_numbers_out_of_range_are_named(arms: int, width: float, more: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="--"):
        answers_needed(arms, width, **more)  # type: ignore[arg-type]
