"""Oddities in joules, and the cells that `recommend` leaves out because of them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.gating.oddities import TOLERANCE, _longest_rise, left_out, oddities
from perjoule.gating.recommend import recommend
from perjoule.runs.directory import Run
from tests.perjoule.test_cli import call
from tests.support.tables_of_runs import as_own, imported, rewrite_table, table

BUSY = "W264: the load average was 9.0 on 2 CPUs, and other processes used 1.2 of them"
FOREIGN = "W260: another process was on the board"


def ladder(folder: Path, energies: dict[int, float], name: str = "run") -> Run:
    """A variant whose quality rises with its steps, 12 prompts, at these joules per image."""
    frame = table(ladder=tuple(energies), prompts=12, seeds=1, variants=(("one", 1.0),))
    joules = pl.col("steps").replace_strict(energies, return_dtype=pl.Float64)
    return imported(frame.with_columns(energy_j=joules * (1 + 0.001 * pl.int_range(pl.len()))), folder, name)


def marked(run: Run, where: pl.Expr, text: str) -> Run:
    """The run with a warning in some of its windows."""
    more = pl.when(where).then(pl.lit([text])).otherwise(pl.lit([], pl.List(pl.String)))
    return rewrite_table(run, "trials", pl.col("warnings").fill_null([]).list.concat(more))


@pytest.mark.parametrize(
    ("energies", "suspected"),
    [
        ({2: 2.0, 4: 4.0, 8: 8.0, 16: 16.0}, ()),
        ({2: 2.0, 4: 1.9, 8: 8.0, 16: 16.0}, ()),  # within the tolerance
        ({2: 500.0, 4: 4.0, 8: 8.0, 16: 16.0}, ("one-002",)),  # all others rise
        ({2: 2.0, 4: 4.0, 8: 0.5, 16: 16.0}, ("one-008",)),
        ({2: 2.0, 4: 4.0, 8: 80.0, 16: 16.0}, ("one-008", "one-016")),  # either of them
        ({2: 16.0, 4: 8.0, 8: 4.0, 16: 2.0}, ("one-002", "one-004", "one-008", "one-016")),
    ],
)
def test_more_steps_cannot_cost_less(tmp_path: Path, energies: dict[int, float], suspected: tuple[str, ...]) -> None:
    found = oddities(ladder(tmp_path, energies))
    assert left_out(found) == set(suspected)
    assert [oddity.cells for oddity in found] == ([suspected] if suspected else [])
    for oddity in found:
        assert "More steps cannot cost less: check the table." in oddity.words
        assert oddity.words.endswith(
            f"{', '.join(suspected)} {'is' if len(suspected) == 1 else 'are'} not recommended."
        )


@given(st.lists(st.floats(0.1, 1e3), min_size=1, max_size=7))
def test_the_longest_rise_is_that_of_all_parts(energies: list[float]) -> None:
    """By trying every part of the ladder."""

    def rises(part: list[float]) -> bool:
        return all(b >= (1 - TOLERANCE) * a for a, b in pairwise(part))

    parts = ([e for i, e in enumerate(energies) if mask >> i & 1] for mask in range(1, 2 ** len(energies)))
    assert _longest_rise(energies) == max(len(part) for part in parts if rises(part))


def test_policies_and_unlike_joules_are_no_ladder(tmp_path: Path) -> None:
    falling = {2: 16.0, 8: 4.0}
    routed = rewrite_table(ladder(tmp_path, falling, "routed"), "trials", pl.lit("router").alias("policy"))
    assert not oddities(routed)
    kind = pl.when(pl.col("cell_id") == "one-002").then(pl.lit("measured")).otherwise(pl.lit("estimated"))
    assert not oddities(rewrite_table(ladder(tmp_path, falling, "unlike"), "trials", kind.alias("provenance")))


def test_windows_that_the_gate_refuses(tmp_path: Path) -> None:
    run = ladder(tmp_path, {2: 2.0, 8: 8.0})
    one = (pl.col("cell_id") == "one-008") & (pl.int_range(pl.len()).over("cell_id") == 0)
    found = oddities(marked(run, one, FOREIGN))
    assert left_out(found) == {"one-008"}
    assert f"Disturbed windows, e.g. 1 of 12 windows of one-008: {FOREIGN}." in found[0].words


@pytest.mark.parametrize(
    ("where", "suspected"),
    [
        (pl.col("cell_id") == "one-008", {"one-008"}),
        ((pl.col("cell_id") == "one-008") & (pl.int_range(pl.len()).over("cell_id") < 6), set()),  # half of its windows
        (pl.lit(True), set()),  # all cells equally: comparisons within the run are fair
    ],
)
def test_load_of_few_cells(tmp_path: Path, where: pl.Expr, suspected: set[str]) -> None:
    run = marked(ladder(tmp_path, {2: 2.0, 4: 4.0, 8: 8.0}), where, BUSY)
    found = oddities(run)
    assert left_out(found) == suspected
    assert not suspected or "in 12 of 12 windows of these cells, and in 0 of 24 of the others (W264)" in found[0].words


def drifting(folder: Path, order: Callable[[np.ndarray], np.ndarray], factor: float) -> Run:
    """A run of its own whose energy rises by `factor` from its first window to its last."""
    run = as_own(ladder(folder, {2: 2.0, 4: 4.0, 8: 8.0}))
    file = run.path / "trials.parquet"
    trials = pl.read_parquet(file)
    trials = trials[order(np.arange(len(trials))).tolist()]
    place = pl.int_range(pl.len()) / (pl.len() - 1)
    noise = 1 + 0.001 * (pl.int_range(pl.len()) % 3)
    trials.with_columns(energy_j=pl.col("steps").list.first() * factor**place * noise).write_parquet(file)
    return Run(path=run.path)


def test_drift(tmp_path: Path) -> None:
    def turns(rows: np.ndarray) -> np.ndarray:
        return np.concatenate([rows[i::12] for i in range(12)])

    def late(rows: np.ndarray) -> np.ndarray:
        """The last cell is measured at the end of the run, except for two windows."""
        cells = np.split(rows, 3)
        return np.concatenate([cells[2][:2], np.stack(cells[:2], 1).ravel(), cells[2][2:]])

    for folder in ("calm", "turns", "late", "blocks"):
        (tmp_path / folder).mkdir()
    assert not oddities(drifting(tmp_path / "calm", turns, 1.05))
    (found,) = oddities(drifting(tmp_path / "turns", turns, 1.5))
    assert (found.cells, found.words) == (
        (),
        "Energy drifted by +50 % from the first window to the last; the cells took turns, so it affects all of them "
        "about equally.",
    )
    (found,) = oddities(drifting(tmp_path / "late", late, 2.0))
    assert found.cells == ("one-008",)
    assert "Energy drifted by +100 % from the first window to the last; these cells were measured" in found.words
    # without turns, a trend within each cell says nothing of the run
    assert not oddities(drifting(tmp_path / "blocks", lambda rows: rows, 1.5))


def test_recommend_leaves_them_out_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = ladder(tmp_path, {2: 2.0, 4: 4.0, 8: 1.0, 16: 16.0})
    found = recommend(run, min_quality=0.3)
    assert found["chosen"]["cell_id"] == "one-004"
    (odd,) = found["left_out"]
    assert list(odd["cells"]) == ["one-008"]
    code, out, _ = call("recommend", str(run.path), "--min-quality", "0.3", capsys=capsys)
    assert code == 0
    assert "note: one: 4 steps cost 4." in out
    assert "one-008 is not recommended." in out
    code, out, err = call("recommend", str(run.path), "--max-joules", "1.5", capsys=capsys)
    assert (code, out) == (4, "")
    assert "one-008 is not recommended." in err


def test_a_run_in_which_everything_is_odd_gets_no_advice(tmp_path: Path) -> None:
    found = recommend(ladder(tmp_path, {2: 9.0, 8: 1.0}), max_joules=100.0)
    assert found["chosen"] is None
    assert found["reason"] == (
        "no other cell has both joules and scores; the oddities in one-002, one-008 must be resolved first"
    )
