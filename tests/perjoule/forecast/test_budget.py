from __future__ import annotations

from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import sem, t

from perjoule.errors import MeterError, UsageError
from perjoule.forecast.budget import Budget, Spending

_NUMBERS = count()


def row(energy_j: float | None, cell_id: str = "c", duration_s: float = 1.0, **more: Any) -> dict[str, Any]:
    return {
        "trial_id": "b0.c.0000",
        "cell_id": cell_id,
        "energy_j": energy_j,
        "uncertainty_j": 0.5,
        "duration_s": duration_s,
        "image_count": 2,
        "iterations": 5,
        "warnings": [],
        "prompt_ids": [f"p{next(_NUMBERS)}"],
    } | more


class Clock:
    def __init__(self) -> None:
        self.t_s = 100.0

    def __call__(self) -> float:
        return self.t_s


@pytest.mark.parametrize("value", [0.0, -1.0, float("inf"), float("nan")])
def test_a_budget_is_a_positive_number(value: float) -> None:
    with pytest.raises(UsageError, match="--max-joules"):
        Budget(max_joules=value)
    with pytest.raises(UsageError, match="--max-minutes"):
        Budget(max_minutes=value)


@given(
    limit=st.floats(1.0, 500.0),
    windows=st.lists(st.tuples(st.sampled_from("abc"), st.floats(0.1, 100.0)), max_size=40),
)
def test_a_run_stops_within_one_window_of_its_budget(limit: float, windows: list[tuple[str, float]]) -> None:
    spending = Spending(Budget(max_joules=limit))
    dearest: dict[str, float] = {}
    for cell, joules in windows:
        if spending.why_stop(cell):
            # what stopped it: the next window would not have fitted, by what is known of its cell
            assert (spending.energy_j or 0.0) + dearest.get(cell, 0.0) > limit or (spending.energy_j or 0.0) >= limit
            break
        before = spending.energy_j or 0.0
        spending.add(row(joules, cell))
        assert before < limit
        if joules <= dearest.get(cell, 0.0):
            assert (spending.energy_j or 0.0) <= limit * (1 + 1e-12)
        dearest[cell] = max(joules, dearest.get(cell, 0.0))


def test_earlier_sessions_count() -> None:
    clock = Clock()
    spending = Spending(Budget(max_joules=100.0, max_minutes=2.0), now=clock)
    spending.resume([row(30.0, duration_s=45.0), row(20.0, duration_s=45.0)])
    assert spending.energy_j == 50.0
    assert spending.images == 4
    assert spending.why_stop("c") is not None  # 90 s and a window of 45 s are more than 2 minutes
    assert spending.why_stop("another") is None
    clock.t_s += 31.0  # loading counts
    assert spending.seconds == 121.0
    why = spending.why_stop("another")
    assert why is not None
    assert why.startswith("--max-minutes 2:")


def test_a_window_without_joules_cannot_be_counted() -> None:
    unread = row(None, warnings=["W220: the source failed"])
    with pytest.raises(MeterError, match=r"b0\.c\.0000 has no joules \(W220.*--max-minutes"):
        Spending(Budget(max_joules=5.0)).add(unread)
    timed = Spending(Budget(max_minutes=5.0))
    timed.add(unread)
    assert timed.energy_j is None  # absent, not 0
    assert timed.running("c") is None


def test_running_joules_an_image() -> None:
    spending = Spending(Budget())
    assert spending.running("c") is None
    spending.add(row(40.0))
    one = spending.running("c")
    assert one is not None
    assert (one.value, one.half) == (4.0, pytest.approx(0.05))  # the meter's bound, an image
    spending.add(row(60.0))
    spending.add(row(50.0))
    three = spending.running("c")
    assert three is not None
    assert three.value == pytest.approx(5.0)
    assert three.half == pytest.approx(t.ppf(0.975, 2) * 1.0 / 3**0.5)


def test_running_joules_count_windows_of_the_same_prompts_once() -> None:
    spending = Spending(Budget())
    for energy_j in (40.0, 44.0):
        spending.add(row(energy_j, prompt_ids=["a", "b"]))
    one = spending.running("c")
    assert one is not None
    assert (one.value, one.half) == (pytest.approx(4.2), None)  # nothing is known of the scatter between prompts
    for energy_j in (60.0, 64.0):
        spending.add(row(energy_j, prompt_ids=["c", "d"]))
    two = spending.running("c")
    assert two is not None
    assert two.value == pytest.approx(5.2)
    assert two.half == pytest.approx(t.ppf(0.975, 1) * 1.0)  # of 4.2 and 6.2


@given(st.lists(st.tuples(st.integers(0, 4), st.floats(1.0, 100.0)), min_size=2, max_size=30))
def test_running_sums_are_those_of_all_windows(windows: list[tuple[int, float]]) -> None:
    spending = Spending(Budget())
    groups: dict[int, list[float]] = {}
    for group, joules in windows:
        spending.add(row(joules, prompt_ids=[str(group)]))
        groups.setdefault(group, []).append(joules / 10)
    means = [sum(part) / len(part) for part in groups.values()]
    running = spending.running("c")
    assert running is not None
    assert running.value == pytest.approx(sum(means) / len(means))
    if len(means) == 1:
        assert running.half is None
        return
    half = t.ppf(0.975, len(means) - 1) * sem(means)
    assert running.half == pytest.approx(half, rel=1e-6, abs=1e-6)


def test_a_window_costs_the_same_however_many_there_were() -> None:
    """Counts the lines of budget.py that run for a window: they do not grow with the number of windows."""
    import sys

    from perjoule.forecast import budget

    def lines(spending: Spending) -> int:
        count = 0

        def trace(frame: Any, event: str, argument: object) -> Any:
            nonlocal count
            if frame.f_code.co_filename != budget.__file__:
                return None
            count += event == "line"
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            spending.why_stop("c")
            spending.add(row(3.0))
            spending.running("c")
        finally:
            sys.settrace(before)
        return count

    spending = Spending(Budget(max_joules=1e9, max_minutes=1e9))
    for joules in (1.0, 2.0, 3.0):
        spending.add(row(joules))
    early = lines(spending)
    for _ in range(300):
        spending.add(row(2.0))
    assert lines(spending) == early > 10
