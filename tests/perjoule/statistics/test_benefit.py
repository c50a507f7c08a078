from __future__ import annotations

import moocore
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.statistics.benefit import gain_per_joule, knee, net_benefits, quadrants
from perjoule.statistics.curves import Ladders
from perjoule.statistics.pareto import hypervolume, hypervolume_rows
from perjoule.statistics.resampling import Means, resample_means


def means_of(energy: list[float], quality: list[float], noise: float = 0.0, prompts: int = 40) -> Means:
    """Columns: energies, then qualities."""
    chance = np.random.default_rng(0)
    rows = np.array([*energy, *quality]) + noise * chance.normal(size=(prompts, 1, len(energy) + len(quality)))
    return resample_means(rows, resamples=2_000)


def test_gain_per_joule_is_the_increment_over_the_floor() -> None:
    means = means_of([10.0, 30.0], [0.5, 0.9], noise=0.01)
    found, reason = gain_per_joule(means, (1, 3), (0, 2))
    assert reason is None
    assert found.value == pytest.approx(0.4 / 20, rel=0.02)
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.value < found.high


@pytest.mark.parametrize(
    ("energy", "noise", "words"),
    [([10.0, 9.0], 0.0, "does not cost more"), ([10.0, 10.1], 1.0, "do not differ for sure; dearer")],
)
def test_gain_per_joule_is_withheld_where_the_ratio_means_nothing(
    energy: list[float], noise: float, words: str
) -> None:
    found, reason = gain_per_joule(means_of(energy, [0.5, 3.0], noise), (1, 3), (0, 2))
    assert found.value is None
    assert words in (reason or "")


def test_net_benefit_crosses_zero_at_the_price_of_the_increment() -> None:
    means = means_of([10.0, 30.0], [0.5, 0.9], noise=0.05)
    low, even, high = net_benefits(means, (1, 3), (0, 2), (10.0, 50.0, 200.0))
    assert low.net_benefit_j.value == pytest.approx(10 * 0.4 - 20, abs=0.5)
    assert (low.p_positive, high.p_positive) == (0.0, 1.0)
    assert 0 < even.p_positive < 1


def test_quadrants_add_up() -> None:
    found = quadrants(means_of([10.0, 10.0], [0.5, 0.5], noise=1.0), (1, 3), (0, 2))
    shares = (found.cheaper_and_better, found.dearer_and_better, found.cheaper_and_worse, found.dearer_and_worse)
    assert sum(shares) == pytest.approx(1.0)


def test_no_number_is_quality_over_energy() -> None:
    """The cheapest, worst picture wins by Q/E, so that no record has such a field."""
    from perjoule.runs.columns import POINT_COLUMNS

    assert not [name for name in POINT_COLUMNS if "per_joule" in name or "quality_per" in name]


def test_the_knee_of_a_bent_curve() -> None:
    ladder = Ladders(energy_j=np.array([[1.0, 2, 4, 8, 16]]), quality=np.array([[0.0, 0.2, 0.9, 0.95, 1.0]]))
    assert knee(ladder).tolist() == [2.0]


@given(st.integers(0, 10_000), st.integers(1, 30))
def test_hypervolume_is_moocores(seed: int, n: int) -> None:
    chance = np.random.default_rng(seed)
    energy, quality = chance.lognormal(2, 1, (3, n)), chance.normal(size=(3, n))
    corner = (float(np.quantile(energy, 0.9)) * 1.1, float(np.quantile(quality, 0.1)) - 0.1)
    rows = hypervolume_rows(energy, quality, corner)
    for row in range(3):
        points = np.stack([np.log2(energy[row]), -quality[row]], 1)
        theirs = moocore.hypervolume(points, ref=[np.log2(corner[0]), -corner[1]])
        assert rows[row] == pytest.approx(theirs, abs=1e-9)
        assert hypervolume(energy[row], quality[row], corner) == pytest.approx(theirs, abs=1e-9)
