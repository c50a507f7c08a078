from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from perjoule.statistics.detectable import minimal_detectable_effect


@given(st.floats(1e-6, 1e3), st.floats(0.001, 0.4))
def test_the_effect_is_seen_in_four_of_five_cases(error: float, alpha: float) -> None:
    """A normal estimate of it exceeds the one-sided critical value with a chance of 0.8."""
    effect = minimal_detectable_effect(error, alpha)
    critical = stats.norm.isf(alpha, scale=error)
    assert stats.norm.sf(critical, loc=effect, scale=error) == pytest.approx(0.8)
