from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from perjoule.gating.decide import prompts_needed
from perjoule.statistics.detectable import minimal_detectable_effect


@given(st.floats(1e-6, 1e3), st.floats(0.001, 0.4))
def test_the_effect_is_seen_in_four_of_five_cases(error: float, alpha: float) -> None:
    """A normal estimate of it exceeds the one-sided critical value with a chance of 0.8."""
    effect = minimal_detectable_effect(error, alpha)
    critical = stats.norm.isf(alpha, scale=error)
    assert stats.norm.sf(critical, loc=effect, scale=error) == pytest.approx(0.8)


def test_detectable_effects_of_the_design() -> None:
    effects = [minimal_detectable_effect(0.25 / np.sqrt(n), 0.05) for n in (16, 32, 64, 128, 256)]
    assert effects == pytest.approx([0.155, 0.110, 0.078, 0.055, 0.039], abs=6e-4)
    assert prompts_needed(0.25, 0.15, 0.0, 0.05) == 18
    assert prompts_needed(0.25, 0.15, 0.2, 0.05) is None
    assert prompts_needed(0.25, 0.15, 0.0, 0.05, extra=0.0036) is not None
    assert prompts_needed(0.25, 0.15, 0.0, 0.05, extra=0.0037) is None  # (0.15 / 2.486)^2 = 0.00364
