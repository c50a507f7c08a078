from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from perjoule.errors import EvidenceError
from perjoule.statistics.curves import FidelityCurve, envelope, pair
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
