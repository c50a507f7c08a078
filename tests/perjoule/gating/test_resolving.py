from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from perjoule.gating.resolving import lowest_sd


@pytest.mark.parametrize("n", [3, 8, 40])
def test_the_lowest_standard_deviation_is_below_the_true_one_in_19_of_20_cases(n: int) -> None:
    sd = np.random.default_rng(n).normal(size=(20_000, n)).std(axis=1, ddof=1)
    factor = lowest_sd(1.0, n)
    assert factor == pytest.approx(np.sqrt((n - 1) / stats.chi2.ppf(0.95, n - 1)))
    assert (sd * factor < 1).mean() == pytest.approx(0.95, abs=0.006)
