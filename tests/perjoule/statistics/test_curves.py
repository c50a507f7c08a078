from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from perjoule.errors import EvidenceError
from perjoule.statistics.allocation import chosen, shuffled
from perjoule.statistics.curves import Curve, FidelityCurve, envelope, pair
from tests.support.curves import QUICK, SOME, bd_energy, ladder


def test_ties_keep_the_cheaper_rung() -> None:
    kept = envelope(np.array([[1, 2, 2, 3, np.nan]]), np.array([[1.0, 1.0, 2.0, 2.0, 9.0]]))
    assert kept.tolist() == [[True, False, True, False, False]]


def test_negative_joules_are_refused() -> None:
    with pytest.raises(ValueError, match="positive"):
        ladder([-1, 2], [0, 1])


def test_a_full_reference_score_across_models_is_an_error() -> None:
    arrays: dict[str, Any] = {"energy_j": SOME.energy_j, "quality": SOME.quality}
    teacher = FidelityCurve(**arrays, family="teacher", name="t")
    student = FidelityCurve(**arrays, family="student", name="s")
    assert bd_energy(teacher, teacher, **QUICK).estimate.value == pytest.approx(0)
    for one, other in ((teacher, student), (teacher, SOME), (SOME, student)):
        with pytest.raises(EvidenceError, match="one model only"):
            pair(one, other)  # type: ignore[type-var]


def test_an_error_that_all_prompts_have_in_common_is_in_the_draws() -> None:
    chance = np.random.default_rng(0)
    curve = Curve(energy_j=np.broadcast_to([1.0, 2.0], (40, 1, 2)), quality=chance.normal(size=(40, 1, 2)))
    common = chance.normal(0, 2.0, (150, 2))
    plain, wide = (pair(one, curve, resamples=400) for one in (curve, replace(curve, common=common)))
    added = np.resize(common, (400, 2))
    assert wide.means.resamples[:, 2:4] == pytest.approx(plain.means.resamples[:, 2:4] + added)
    assert np.array_equal(wide.means.resamples[:, [0, 1, 4, 5, 6, 7]], plain.means.resamples[:, [0, 1, 4, 5, 6, 7]])
    assert wide.by_prompt.resamples[:, :2] == pytest.approx(plain.by_prompt.resamples[:, :2] + added)
    assert np.array_equal(wide.means.point, plain.means.point)
    dealt = shuffled(replace(curve, common=common), np.array([0, 1, 1, 1]))
    assert dealt.common == pytest.approx(common @ [[0.25], [0.75]])
    fixed = chosen(replace(curve, common=common), np.repeat([0, 1], [10, 30]))
    assert fixed.common == pytest.approx(dealt.common)
