from __future__ import annotations

import numpy as np
import pytest

from perjoule_suites.tiny.choices import by_kind, choose, oracle

RNG = np.random.default_rng(0)


def test_easy_and_hard_captions_take_what_they_need() -> None:
    # half of the captions are perfect at 1 J, the others only at 10 J
    quality = np.array([[1.0, 1.0], [0.0, 1.0]] * 50)
    found = choose(quality, quality, [1.0, 10.0])
    assert found.best == 1
    assert found.saving == pytest.approx(1 - 5.5 / 10)
    assert found.shares == (0.5, 0.5)
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.saving < found.high


def test_without_differences_between_captions_nothing_is_saved() -> None:
    quality = np.tile([0.5, 1.0], (40, 1))
    found = choose(quality, quality, [1.0, 10.0])
    assert (found.saving, found.shares) == (0.0, (0.0, 1.0))


def test_the_cheaper_of_two_equal_arms() -> None:
    quality = np.tile([1.0, 1.0], (40, 1))
    assert choose(quality, quality, [3.0, 1.0]).shares == (0.0, 1.0)


def test_an_oracle_does_not_profit_from_luck() -> None:
    # all captions are the same, and single images are right by chance: choosing the luckier seed wins nothing
    quality = (RNG.random((400, 8, 2)) < [0.6, 0.8]).astype(float)
    found = oracle(quality, [1.0, 10.0])
    assert found.saving is None or found.saving < 0.25
    peeking = choose(quality.mean(1), quality.mean(1), [1.0, 10.0])
    assert peeking.saving is not None
    assert peeking.saving > 0.4


def test_a_table_learns_from_other_captions() -> None:
    kinds = [0, 0, 1, 1] * 20
    quality = np.array([[[1.0, 1.0]] if kind == 0 else [[0.2, 1.0]] for kind in kinds])
    found = by_kind(quality, kinds, [1.0, 10.0])
    assert found.saving == pytest.approx(0.45)


def test_a_choice_that_cannot_reach_the_best_arm_says_so() -> None:
    expected = np.tile([1.0, 0.0], (10, 1))  # believes in the wrong arm
    judged = np.tile([0.0, 1.0], (10, 1))
    assert choose(expected, judged, [1.0, 10.0]).saving is None
