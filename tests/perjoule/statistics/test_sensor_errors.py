from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from perjoule.statistics.sensor_errors import GAIN, OFFSET_W, mean_power_w, saving_range, sentence


@given(
    gain=st.floats(1 - GAIN, 1 + GAIN),
    offset_w=st.floats(-OFFSET_W, OFFSET_W),
    test_w=st.floats(60, 700),
    anchor_w=st.floats(60, 700),
    saving=st.floats(-1, 0.9),
)
def test_the_saving_of_any_sensor_in_between_is_inside(
    gain: float, offset_w: float, test_w: float, anchor_w: float, saving: float
) -> None:
    """One second of the anchor; the test's joules follow from the saving, its seconds from its power."""
    anchor_j, test_j = anchor_w, (1 - saving) * anchor_w
    true_anchor_j, true_test_j = gain * anchor_j + offset_w, gain * test_j + offset_w * test_j / test_w
    low, high = saving_range(saving, test_w, anchor_w)
    assert low - 1e-9 <= 1 - true_test_j / true_anchor_j <= high + 1e-9


def test_words() -> None:
    powers = {
        "fast": mean_power_w([(100.0, 1.0, "measured"), (300.0, 1.0, None), (None, 1.0, None)]),
        "base": 100.0,
        "same": 202.0,
    }
    assert powers["fast"] == 200.0
    said = sentence("fast", "base", 0.2, powers)
    assert said is not None
    assert "200 W" in said
    assert sentence("fast", "same", 0.2, powers) is None
    assert sentence("fast", "base", None, powers) is None
    assert sentence("fast", "absent", 0.2, powers) is None
    assert mean_power_w([]) is None


def test_estimated_joules_have_no_sensor() -> None:
    assert mean_power_w([(100.0, 1.0, "estimated")]) is None
    assert mean_power_w([(100.0, 1.0, "estimated"), (50.0, 1.0, "measured")]) == 50.0
