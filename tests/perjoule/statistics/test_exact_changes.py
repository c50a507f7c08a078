from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.statistics.exact_changes import exact_changes

SMALLEST = 0.01
SIZES = st.lists(st.sampled_from([0.0, 0.0, 0.004, 0.02, 0.3, -0.004, -0.02, -0.3]), min_size=1, max_size=25)


@pytest.mark.parametrize(
    ("deltas", "expected"),
    [
        ([0, 0.02, 0], [("step", 2, 0.02, None)]),
        ([0.01] * 10, [("drift", 0, 0.1, 0.01)]),
        ([0.004] * 8, [("drift", 0, 0.032, 0.004)]),
        ([0, 0.02, 0, 0.02, 0.02, 0], [("drift", 1, 0.06, 0.015)]),  # a week without a change belongs to it
        ([0.05, *[0] * 9, 0.05], [("step", 1, 0.05, None), ("step", 11, 0.05, None)]),
        ([0.001, 0.2, 0.001], [("step", 2, 0.2, None)]),  # most of it is one change
        ([0.006, *[0] * 10, 0.006], [("drift", 0, 0.012, 0.001)]),
        ([0.009, -0.001, 0.009], [("drift", 0, 0.017, 0.017 / 3)]),
        ([0.02, -0.02], [("step", 1, 0.02, None), ("step", 2, -0.02, None)]),
        ([0.004, -0.004, 0.004], []),
        # small reversals end a stretch, but do not hide that the level changes after a step, before it and between two
        ([-0.05, *[0.009, -0.0002] * 12], [("step", 1, -0.05, None), ("drift", 1, 0.1056, 0.1056 / 24)]),
        ([0, *[-0.006, 0.001] * 3, 0, 0.05], [("drift", 1, -0.015, -0.0025), ("step", 9, 0.05, None)]),
        (
            [-0.05, 0, *[0.009, -0.001] * 2, 0, -0.05, 0.004],
            [("step", 1, -0.05, None), ("drift", 2, 0.016, 0.004), ("step", 8, -0.05, None)],
        ),
        ([0] * 5, []),
    ],
)
def test_each_shape_has_its_exact_size(deltas: list[float], expected: list[tuple[object, ...]]) -> None:
    values = 3 + np.concatenate([[0], np.cumsum(deltas)])
    found = exact_changes(values, np.arange(len(values), dtype=float), SMALLEST)
    assert [(c.kind, c.start) for c in found] == [(kind, start) for kind, start, _, _ in expected]
    for change, (_, _, size, per_week) in zip(found, expected, strict=True):
        assert change.size == change.low == change.high == pytest.approx(size)
        assert change.per_week == (per_week if per_week is None else pytest.approx(per_week))


@given(SIZES)
def test_no_large_change_is_lost_or_counted_twice(deltas: list[float]) -> None:
    values = np.concatenate([[0], np.cumsum(deltas)])
    found = exact_changes(values, np.arange(len(values), dtype=float), SMALLEST)
    spans = [(c.start if c.kind == "drift" else c.start - 1, c.end - 1) for c in found]
    assert all(before[1] <= after[0] for before, after in pairwise(spans))
    for change, (first, last) in zip(found, spans, strict=True):
        assert change.size == pytest.approx(values[last] - values[first])
        assert abs(change.size) >= SMALLEST - 1e-12
    for row, delta in enumerate(deltas):
        if abs(delta) >= SMALLEST:
            assert any(first <= row < last for first, last in spans)
    levels = [0, *(row for span in spans for row in span), len(values) - 1]
    for before, after in zip(levels[::2], levels[1::2], strict=True):
        assert abs(values[after] - values[before]) < SMALLEST
    if abs(values[-1]) >= SMALLEST:
        assert any(change.size * values[-1] > 0 for change in found)


def test_runs_at_the_same_time_have_no_slope() -> None:
    (change,) = exact_changes(np.array([0.0, 0.01, 0.02]), np.zeros(3), SMALLEST)
    assert (change.kind, change.per_week) == ("drift", None)
