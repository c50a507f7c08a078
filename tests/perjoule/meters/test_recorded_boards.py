"""Windows on the recorded power of real boards; the full number of them is in `tests/benchmarks/meters/recorded.py`."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from tests.benchmarks.meters.recorded import (
    PERIODS_S,
    Recording,
    boards,
    coverage,
    figures,
    lengths,
    played,
    recorded_bench,
)

from perjoule.testing import nvml_simulator as module

RECORDINGS = boards()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not RECORDINGS, reason="no recordings of boards in ../shared/data/boards"),
    pytest.mark.skipif(module.compiler() is None, reason="no C compiler"),
]
each_board = pytest.mark.parametrize("recording", RECORDINGS, ids=lambda recording: recording.name)


@each_board
def test_what_is_played_has_the_energy_of_what_was_recorded(recording: Recording) -> None:
    for length_s in (0.05, 0.7, 5.0):
        cut, work_s = recording.cut(length_s)
        times, powers = played(recording, cut, work_s)
        played_j = sum(power * (b - a) for power, a, b in zip(powers, times, times[1:], strict=False) if b <= work_s)
        left_s, recorded_j = work_s, 0.0
        for begin_s, end_s in cut:
            until_s = min(end_s, begin_s + left_s)
            recorded_j += recording.energy_j(begin_s, until_s)
            left_s -= until_s - begin_s
        assert played_j == pytest.approx(recorded_j, rel=2e-4)


@each_board
@pytest.mark.parametrize("period_s", PERIODS_S)
def test_the_bound_holds_on_a_board_that_the_meter_has_not_seen(
    recording: Recording, period_s: float, tmp_path: Path
) -> None:
    chance = random.Random(5)
    with recorded_bench(recording, tmp_path, 5, counter_period_s=period_s) as bench:
        found = [bench.window(length_s) for length_s in lengths(25, chance)]
    assert [one.reading.uncertainty_j for one in found if not one.covered] == []
    assert sum(any(said.startswith("W208") for said in one.reading.warnings) for one in found) <= 2


@pytest.mark.slow
def test_the_bound_is_not_bought_by_being_huge(tmp_path: Path) -> None:
    found = [one for cell in coverage(tmp_path, RECORDINGS, 60, meters=1, seed=9).values() for one in cell]
    result = figures(found)
    assert result["covered"] >= 0.995
    assert result["median_bound_j"] <= 3 * result["p95_j"]
    assert result["w208"] <= 0.05
    assert abs(result["mean_relative"]) <= 0.01
