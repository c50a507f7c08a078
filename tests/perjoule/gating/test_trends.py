from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perjoule.gating.history import Acceptance, History, LoggedRun
from perjoule.gating.trends import ALL_CELLS, courses, in_words, main_changes, trends
from tests.support.histories import logged


def history(runs: list[LoggedRun], *accepted: Acceptance) -> History:
    return History(path=Path("history.jsonl"), runs=tuple(runs), accepted=accepted)


def runs_of(factors: np.ndarray, *, seed: int = 0, sd: float = 0.01, **changes: object) -> list[LoggedRun]:
    """Weekly runs of two cells, whose joules are multiplied by the factors."""
    chance = np.random.default_rng(seed)
    noise = np.exp(chance.normal(0, sd, len(factors)))
    own = np.exp(chance.normal(0, 0.2 * sd, (len(factors), 2)))
    return [
        logged(week, [100.0 * f * n * o[0], 300.0 * f * n * o[1]], [0.30, 0.31], **changes)
        for week, (f, n, o) in enumerate(zip(factors, noise, own, strict=True))
    ]


def test_a_drift_that_no_gate_sees_is_worse() -> None:
    (trend,) = trends(history(runs_of(1.01 ** np.arange(11))))
    assert trend.verdict == "worse"
    change = main_changes(trend.changes)[0]
    assert (change.axis, change.cell, change.kind, change.worse) == ("energy", ALL_CELLS, "drift", True)
    assert change.per_week == pytest.approx(0.01, abs=0.004)
    assert change.low < 1.01**10 - 1 < change.high
    assert "Energy per image drifts by +" in trend.sentence
    assert trend.weeks == 10
    assert trend.session_sd == pytest.approx(0.01, rel=0.6)


def test_a_step_names_what_changed_at_it() -> None:
    runs = runs_of(np.where(np.arange(20) < 10, 1.0, 1.05))
    runs = [replace(run, conditions={"torch": "2.9.0"}) if n >= 10 else run for n, run in enumerate(runs)]
    (trend,) = trends(history(runs))
    change = main_changes(trend.changes)[0]
    assert (change.kind, change.date, change.run) == ("step", runs[10].date, runs[10].id)
    assert change.conditions == ("torch 2.8.0 → 2.9.0",)
    assert trend.sentence == in_words(change)
    assert f"at the run of 2026-03-16, commit {runs[10].commit[:7]} (torch 2.8.0 → 2.9.0)." in trend.sentence


def test_noise_is_stable_and_few_runs_say_so() -> None:
    (trend,) = trends(history(runs_of(np.ones(20), seed=7)))
    assert (trend.verdict, trend.changes) == ("stable", ())
    assert trend.sentence == "No change in 20 runs over 19 weeks."
    (short,) = trends(history(runs_of(1.05 ** np.arange(9))))
    assert (short.verdict, short.sentence) == ("too few runs", "9 runs: a trend needs 10.")
    assert trends(history([])) == []


def test_a_change_for_the_better_is_not_worse() -> None:
    (better,) = trends(history(runs_of(np.where(np.arange(20) < 10, 1.0, 0.9))))
    assert better.verdict == "changed"
    there_and_back = np.select([np.arange(48) < 16, np.arange(48) < 38], [1.0, 1.1], 1.0)
    (back,) = trends(history(runs_of(there_and_back, seed=1)))
    assert [change.kind for change in main_changes(back.changes)] == ["step", "step"]
    assert back.verdict == "changed"


def test_changes_below_a_fifth_of_the_margin_are_not_reported() -> None:
    small = np.where(np.arange(20) < 10, 1.0, 1.006)
    assert trends(history(runs_of(small, sd=0.0003)))[0].verdict == "stable"
    quality = [logged(week, [100.0], [0.3 - 0.001 * (week >= 10)]) for week in range(20)]
    assert trends(history(quality))[0].verdict == "stable"  # the margin is 0.02
    quality = [logged(week, [100.0], [0.3 - 0.01 * (week >= 10)]) for week in range(20)]
    (trend,) = trends(history(quality))
    assert trend.sentence.startswith("Quality of ladder-001 fell by 0.01 ")
    assert trend.verdict == "worse"
    lower_is_better = [replace(run, higher=False) for run in quality]
    assert trends(history(lower_is_better))[0].verdict == "changed"


@pytest.mark.parametrize(
    "name", ["suite", "suite_digest", "prompt_set", "device", "meter", "boundary", "provenance", "metric"]
)
def test_only_comparable_runs_are_compared(name: str) -> None:
    runs = runs_of(np.where(np.arange(20) < 10, 1.0, 2.0))
    changes: dict[str, Any] = {name: "other"}
    mixed = [replace(run, **changes) if n >= 10 else run for n, run in enumerate(runs)]
    assert [(trend.runs, trend.verdict) for trend in trends(history(mixed))] == [(10, "stable")] * 2


def test_versions_do_not_divide_a_series() -> None:
    runs = [replace(run, conditions={"torch": str(n)}) for n, run in enumerate(runs_of(np.ones(12)))]
    assert [trend.runs for trend in trends(history(runs))] == [12]


def test_counted_joules_need_no_test() -> None:
    counted: dict[str, Any] = {"counted": True, "provenance": "estimated"}
    runs = [logged(week, [100.0 * (1.02 if week >= 2 else 1.0)], **counted) for week in range(3)]
    (trend,) = trends(history(runs))
    (change,) = trend.changes
    assert (trend.verdict, change.date, change.p) == ("worse", runs[2].date, 0.0)
    assert change.size == pytest.approx(0.02)
    assert (change.low, change.high, trend.session_sd) == (None, None, None)
    assert trend.sentence == "Energy per image of ladder-001 rose by 2.0 % at the run of 2026-01-19, commit 0000002."
    assert trends(history([logged(week, [100.0], **counted) for week in range(2)]))[0].verdict == "stable"


def test_counted_joules_that_rise_every_week_are_one_drift() -> None:
    counted: dict[str, Any] = {"counted": True, "provenance": "estimated"}
    runs = [logged(week, [100.0 * 1.01**week, 300.0 * 1.01**week], [0.3, 0.3], **counted) for week in range(11)]
    (course,) = courses(history(runs))
    (change,) = main_changes(course.trend.changes)
    assert (change.cell, change.kind, change.size) == (ALL_CELLS, "drift", pytest.approx(1.01**10 - 1))
    assert change.per_week == pytest.approx(0.01)
    assert course.trend.sentence == (
        "Energy per image drifts by +1.0 % per week since 2026-01-05, commit 0000000: it rose by 10.5 %."
    )
    assert (course.trend.verdict, course.trend.session_sd) == ("worse", None)
    assert course.energy_fit_j == course.energy_j


def counted_verdict(deltas: list[float]) -> tuple[str, list[tuple[str, bool]]]:
    joules = 100 * np.exp(np.concatenate([[0], np.cumsum(deltas)]))
    runs = [logged(week, [float(j)], counted=True, provenance="estimated") for week, j in enumerate(joules)]
    (trend,) = trends(history(runs))
    return trend.verdict, [(change.kind, change.worse) for change in trend.changes]


def test_counted_joules_that_rise_by_little_after_a_saving_are_worse() -> None:
    saving = -0.05
    assert counted_verdict([saving, *[0.009, -0.0002] * 12]) == ("worse", [("step", False), ("drift", True)])
    assert counted_verdict([saving, *[0.009, -0.0002] * 4]) == ("changed", [("step", False), ("drift", True)])


def test_changes_of_counted_joules_that_are_too_small_to_report_add_up() -> None:
    assert counted_verdict([0.009, -0.05, 0.009, 0.05]) == ("worse", [("step", False), ("step", True)])
    assert counted_verdict([-0.009, 0.05, -0.009, -0.05]) == ("changed", [("step", True), ("step", False)])


def test_an_accepted_change_starts_the_trend_again() -> None:
    runs = runs_of(np.where(np.arange(24) < 12, 1.0, 1.1))
    line = Acceptance(suite="mine", since=runs[12].date, reason="new scheduler", logged=runs[13].date)
    (trend,) = trends(history(runs, line))
    assert (trend.verdict, trend.runs, trend.accepted) == ("stable", 12, "new scheduler")
    (other,) = trends(history(runs, replace(line, suite="another")))
    assert other.verdict == "worse"


def test_a_cell_with_gaps_is_skipped_by_name() -> None:
    runs = runs_of(np.ones(12))
    gap = replace(runs[5].cells["ladder-002"], energy_j=None)
    runs[5] = replace(runs[5], cells=runs[5].cells | {"ladder-002": gap})
    (course,) = courses(history(runs))
    assert course.trend.skipped == ("ladder-002",)
    assert course.energy_j == pytest.approx([run.cells["ladder-001"].energy_j for run in runs])


def test_runs_without_joules_or_quality_have_a_trend() -> None:
    runs = [replace(run, cells={}) for run in runs_of(np.ones(12))]
    (course,) = courses(history(runs))
    assert (course.energy_j, course.quality, course.trend.verdict) == ((), (), "stable")
