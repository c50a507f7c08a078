from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from perjoule.runs.directory import Run, load_run
from perjoule.runs.race_record import DroppedCell, Race, RaceLook, write_race
from perjoule.statistics.price import price_of
from perjoule.types import COUNTED
from tests.perjoule.running.test_execute import do, fresh, make_suite
from tests.support.tables_of_runs import imported, table


@pytest.fixture
def run(tmp_path: Path) -> Run:
    suite = make_suite()
    do(suite, fresh(tmp_path / "run", suite))
    return load_run(tmp_path / "run")


def test_a_price_is_the_sum_of_all_windows_and_half_the_intervals_take_three_times_as_much(run: Run) -> None:
    price = price_of(run)
    assert price is not None
    joules, seconds = (run.trials[name].sum() for name in ("energy_j", "duration_s"))
    assert (price.energy_j, price.duration_s) == (pytest.approx(joules), pytest.approx(seconds))
    assert (price.windows, price.unmetered, price.provenance) == (len(run.trials), 0, "simulated")
    assert price.halving.energy_j == pytest.approx(3 * joules)
    assert price.halving.duration_s == pytest.approx(3 * seconds)
    assert price.halving.shrinks == "energy and quality"
    assert price.words.startswith("Measuring took ")
    assert "Half the intervals take 4 times the prompts: " in price.words


def test_repeated_trials_were_paid_for_but_are_not_drawn_again(run: Run) -> None:
    row = {"trial_id": "b0.v-001.0000", "energy_j": 1000.0, "duration_s": 5.0, "provenance": "estimated"}
    (run.path / "superseded.jsonl").write_text(json.dumps(row) + "\n")
    price, before = price_of(load_run(run.path)), run.trials["energy_j"].sum()
    assert price is not None
    assert price.energy_j == pytest.approx(before + 1000)
    assert price.halving.energy_j == pytest.approx(3 * before)
    assert price.provenance == "simulated"  # weaker than estimated


def test_windows_without_joules_are_counted(run: Run) -> None:
    first = run.trials["trial_id"][0]
    vars(run)["trials"] = run.trials.with_columns(energy_j=pl.when(pl.col("trial_id") != first).then("energy_j"))
    price = price_of(run)
    assert price is not None
    assert price.unmetered == 1
    assert "of which 1 have no joules" in price.words
    vars(run)["trials"] = run.trials.with_columns(energy_j=pl.lit(None, pl.Float64))
    price = price_of(run)
    assert price is not None
    assert (price.energy_j, price.halving.energy_j, price.provenance) == (None, None, None)


def test_two_runs_have_the_price_of_both(run: Run) -> None:
    one, both = price_of(run), price_of(run, run)
    assert one is not None
    assert both is not None
    assert both.energy_j == pytest.approx(2 * (one.energy_j or 0))
    assert both.windows == 2 * one.windows


def test_cells_that_a_race_dropped_are_not_measured_again(run: Run) -> None:
    dropped = DroppedCell(
        cell_id="v-004", by="v-001", prompts=2, energy_difference_j=1, quality_difference=-1, p_value=0
    )
    look = RaceLook(prompts=2, compared=("v-001", "v-004"), dropped=(dropped,))
    race = Race(metric="lsnr", alpha=0.05, level=0.01, prompts=3, cells=look.compared, look_prompts=(2,), looks=(look,))
    write_race(run.path, race)
    price = price_of(replace(run))
    assert price is not None
    assert price.energy_j == pytest.approx(run.trials["energy_j"].sum())
    kept = run.trials.filter(pl.col("cell_id") == "v-001")["energy_j"].sum()
    assert price.halving.energy_j == pytest.approx(3 * kept)


def test_counted_joules_do_not_scatter(run: Run) -> None:
    vars(run)["trials"] = run.trials.with_columns(method=pl.lit(f"{COUNTED}, by a profile"))
    price = price_of(run)
    assert price is not None
    assert price.halving.shrinks == "quality"
    assert "Half the interval of quality takes" in price.words


def test_the_price_of_a_table_is_not_known(tmp_path: Path) -> None:
    assert price_of(imported(table(prompts=3), tmp_path)) is None
