from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from perjoule.statistics.pareto import non_dominated
from perjoule.statistics.racing import dominations, level_of, look_prompts, p_not_above


@given(prompts=st.integers(1, 2000), per_window=st.integers(1, 40))
def test_looks_are_whole_windows_and_leave_a_fifth_of_the_prompts(prompts: int, per_window: int) -> None:
    looks = look_prompts(prompts, per_window)
    assert list(looks) == sorted(set(looks))
    assert all(look % per_window == 0 and 12 <= look <= 0.8 * prompts for look in looks)


def test_looks_grow_by_half() -> None:
    assert look_prompts(64) == (12, 18, 27, 41)
    assert look_prompts(64, 8) == (16, 24, 32, 48)
    assert look_prompts(14) == ()
    assert look_prompts(15) == (12,)


def test_p_values_are_those_of_students_t_with_one_imagined_unit() -> None:
    chance = np.random.default_rng(3)
    values = chance.normal(size=(20, 3)) + np.array([0.0, 0.4, 2.0])
    p_values = p_not_above(values)
    for one in range(3):
        for other in {0, 1, 2} - {one}:
            difference = values[:, one] - values[:, other]
            seen = np.append(difference, -np.abs(difference).max())
            # scipy counts the imagined unit as a degree of freedom, perjoule does not
            t = stats.ttest_1samp(seen, 0.0).statistic
            assert p_values[one, other] == pytest.approx(stats.t.sf(t, len(difference) - 1), rel=1e-9)
    assert (np.diag(p_values) == 1).all()


@pytest.mark.parametrize("n", [3, 12, 40])
def test_equal_differences_are_not_sure_at_once(n: int) -> None:
    p_values = p_not_above(np.tile([3.0, 1.0], (n, 1)))
    assert p_values[0, 1] == pytest.approx(stats.t.sf((n - 1) / 2, n - 1))
    assert p_values[1, 0] > 0.5


def test_missing_values_are_left_out_by_pair() -> None:
    chance = np.random.default_rng(4)
    values = chance.normal(size=(30, 2)) + np.array([1.0, 0.0])
    holes = values.copy()
    holes[:10, 0] = np.nan
    assert p_not_above(holes)[0, 1] == pytest.approx(p_not_above(values[10:])[0, 1])
    holes[1:, 0] = np.nan
    assert (p_not_above(holes) == 1).all()


def test_counted_energies_are_known_where_their_difference_does_not_vary() -> None:
    equal = np.tile([2.0, 1.0, 1.0], (5, 1))
    p_values = p_not_above(equal, exact=True)
    # known to be above, or not below; never below
    assert p_values[0].tolist() == [1.0, 0.0, 0.0]
    assert p_values[1].tolist() == [1.0, 1.0, 0.0]
    varied = equal + np.arange(5)[:, None] * np.array([1.0, 0.0, 0.0])
    assert p_not_above(varied, exact=True)[0, 1] == p_not_above(varied)[0, 1]


def test_a_cell_is_dropped_only_if_one_other_cell_is_surely_cheaper_and_better() -> None:
    chance = np.random.default_rng(5)
    n = 40
    energy_j = np.array([10.0, 20.0, 20.0, 30.0]) * np.exp(0.01 * chance.normal(size=(n, 4)))
    quality = np.array([0.5, 0.4, 0.9, 0.9]) + 0.05 * chance.normal(size=(n, 4))
    level = level_of(0.05, 1, 4)
    (found,) = dominations(energy_j, quality, level)
    # cell 3 is as good as cell 2 for more joules: nothing is sure about its quality
    assert (found.column, found.by) == (1, 0)
    assert found.energy_difference_j == pytest.approx(10, abs=0.5)
    assert found.quality_difference == pytest.approx(-0.1, abs=0.05)
    assert found.p_value < level
    assert dominations(energy_j, quality, level, families=np.array(["a", "b", "c", "d"])) == ()
    assert dominations(energy_j, quality, level, families=np.array(["a", "a", "c", "d"])) == (found,)


def test_the_true_frontier_is_kept_and_clearly_dominated_cells_are_dropped() -> None:
    chance = np.random.default_rng(6)
    truth_j = np.concatenate([10 * 2.0 ** np.arange(4), 14 * 2.0 ** np.arange(4)])
    truth_q = np.concatenate([0.5 + 0.1 * np.arange(4), 0.3 + 0.1 * np.arange(4)])
    true = non_dominated(truth_j, truth_q)
    level, dropped = level_of(0.05, 1, 8), set[int]()
    for _ in range(60):
        energy_j = truth_j * np.exp(0.02 * chance.standard_t(3, (30, 8)))
        quality = truth_q + 0.1 * chance.normal(size=(30, 1)) + 0.05 * chance.standard_t(3, (30, 8))
        dropped |= {one.column for one in dominations(energy_j, quality, level)}
    assert not dropped & set(np.flatnonzero(true))
    assert dropped == set(np.flatnonzero(~true))
