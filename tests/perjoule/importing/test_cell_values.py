"""Numbers that a table states once for a whole cell: no interval, no share of draws, no gate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from perjoule.gating import GateConfig, gate
from perjoule.gating.recommend import recommend
from perjoule.importing.conversion import import_table
from perjoule.runs.directory import Run, load_run
from perjoule.statistics.attainment import attainment
from perjoule.statistics.contrasts import contrasts
from perjoule.statistics.drawn import draw, evidence_of
from perjoule.statistics.frontier import frontier
from perjoule.statistics.noise import sources
from perjoule.statistics.per_prompt import per_prompt, slices
from tests.perjoule.statistics.test_window_groups import windowed
from tests.perjoule.test_cli import call
from tests.support.tables_of_runs import as_own, imported, table

pytestmark = pytest.mark.slow

SMALL: dict[str, Any] = {"prompts": 12, "ladder": (2, 4, 8, 16, 32)}
OVER = ("variant", "steps")


def repeated(*columns: str) -> pl.DataFrame:
    """A table that repeats the cell's mean in the rows of all its prompts."""
    return table(**SMALL).with_columns(pl.col(*columns).mean().over(OVER))


def of_cells() -> pl.DataFrame:
    """One row per cell, with the number of images that it is the mean of."""
    means = table(**SMALL).group_by(OVER, maintain_order=True).agg(pl.col("energy_j", "duration_s", "quality:q").mean())
    return means.with_columns(n=pl.lit(500))


def rows_of(run: Run) -> list[dict[str, Any]]:
    return run.points.to_dicts()


@pytest.mark.parametrize("frame", [repeated("quality:q"), of_cells()], ids=["repeated", "one row a cell"])
def test_a_quality_of_a_whole_cell_has_no_interval_and_no_share(tmp_path: Path, frame: pl.DataFrame) -> None:
    run = imported(frame, tmp_path)
    for row in rows_of(run):
        assert row["quality"] is not None
        assert (row["quality_low"], row["quality_high"], row["p_on_frontier"]) == (None, None, None)
        assert row["quality_method"].startswith("W281: ")
    found = frontier(run, resamples=200)
    assert found["frontier"]  # which cells no other beats is seen from the numbers alone
    assert found["knee"] is None
    assert all(point["quality_p10"]["value"] is None for point in found["points"])
    assert all(record["gain_per_joule"]["low"] is None for record in found["marginal"])
    for record in found["comparisons"]:
        for name in ("bd_energy", "iso_quality_saving", "iso_energy_gain", "gain_per_joule"):
            assert (record[name]["low"], record[name]["high"]) == (None, None)
        assert not record["resolved"]
        assert not record["resolved_holm"]
        assert record["bd_energy_p"] is record["preference"] is record["dominance"] is None
        assert record["reason"].startswith("W281: ")
    chosen = recommend(run, min_quality=0.5, by_point=True, resamples=200)
    assert chosen["chosen"]["p_meets"] is chosen["chosen"]["p_chosen"] is chosen["safe"] is None
    assert recommend(run, min_quality=0.5, resamples=200)["chosen"] is None


def test_the_energies_of_single_images_keep_their_interval(tmp_path: Path) -> None:
    run = imported(repeated("quality:q"), tmp_path)
    assert all(row["energy_low"] < row["energy_j_per_image"] < row["energy_high"] for row in rows_of(run))
    evidence = evidence_of(run, draw(run, ["q"], 200), "q")
    for found in contrasts(evidence, "ladder-032").values():
        assert found.quality.value is not None
        assert (found.quality.low, found.quality.high, found.quadrants) == (None, None, None)
        assert found.energy_ratio.low is not None


def test_an_energy_of_a_whole_cell_has_no_interval(tmp_path: Path) -> None:
    run = imported(repeated("energy_j"), tmp_path)
    for row in rows_of(run):
        assert (row["energy_low"], row["energy_high"], row["energy_n"]) == (None, None, 1)
        assert row["energy_method"].startswith("W281: ")
        assert row["quality_low"] < row["quality"] < row["quality_high"]
    assert recommend(run, max_joules=10.0, by_point=True, resamples=200)["chosen"]["p_meets"] is None
    assert recommend(run, max_joules=10.0, resamples=200)["chosen"] is None
    # the limit of what was asked decides, and the quality has one
    assert recommend(run, min_quality=0.5, resamples=200)["chosen"] is not None


def test_one_prompt_of_several_seeds_is_not_a_cell_value(tmp_path: Path) -> None:
    run = imported(table(**{**SMALL, "prompts": 1}), tmp_path)
    for row in rows_of(run):
        assert not row["energy_method"].startswith("W281")
        assert not row["quality_method"].startswith("W281")
        assert row["energy_low"] is row["quality_low"] is None


def test_a_row_of_a_cell_says_of_how_many_images_it_is(tmp_path: Path) -> None:
    frame = of_cells()
    run = imported(frame, tmp_path)
    for row, stated in zip(rows_of(run), frame.iter_rows(named=True), strict=True):
        assert row["energy_j_per_image"] == pytest.approx(stated["energy_j"], rel=1e-12)
        assert row["duration_s_per_image"] == pytest.approx(stated["duration_s"], rel=1e-12)
        assert (row["energy_n"], row["quality_n"], row["n_prompts"], row["n_seeds"]) == (500, 500, 0, 0)
    assert run.trials["image_count"].to_list() == [500] * len(frame)
    assert imported(frame.drop("n"), tmp_path, "other").points["quality_n"].to_list() == [1] * len(frame)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_quality_at_its_bound_is_measured_like_any_other(tmp_path: Path, value: float) -> None:
    frame = table(**SMALL).with_columns(pl.when(pl.col("steps") == 32).then(value).otherwise(0.5).alias("quality:q"))
    points = imported(frame, tmp_path, bounds={"q": (0.0, 1.0)}).points
    at_bound = points.filter(pl.col("steps_mean") == 32)
    assert at_bound["quality_low"].to_list() == at_bound["quality_high"].to_list() == [value] * 2
    assert points.filter(pl.col("steps_mean") < 32)["quality_low"].null_count() == 8
    # nobody said where its bounds are
    assert imported(frame, tmp_path, "other").points["quality_low"].null_count() == 10


def test_the_bounds_of_a_known_metric_are_known(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame = table(**SMALL).with_columns(pl.lit(1.0).alias("quality:q")).rename({"quality:q": "quality:r_precision"})
    assert imported(frame, tmp_path).points["quality_low"].to_list() == [1.0] * 10
    file = tmp_path / "t.parquet"
    frame.rename({"quality:r_precision": "quality:share"}).write_parquet(file)
    arguments = ("import", str(file), "--out", str(tmp_path / "x"), "--bounds")
    assert call(*arguments, "share=0", capsys=capsys)[0] == 2
    assert call(*arguments, "shape=0:1", capsys=capsys)[0] == 2
    code, _, err = call(*arguments, "share=0:1", capsys=capsys)
    assert code == 0
    assert "W281" not in err


def test_known_metrics_point_the_way_that_ours_do(tmp_path: Path) -> None:
    frame = table(**SMALL).rename({"quality:q": "quality:lpips"})
    run = imported(frame, tmp_path)
    assert (run.metrics["lpips"].direction, run.metrics["lpips"].track) == ("lower", "fidelity")
    assert any(note.startswith("lpips is treated as perjoule's metric") for note in run.environment["import_notes"])


@pytest.mark.parametrize(
    ("frame", "what"),
    [
        (repeated("quality:q"), "the table states one value of q per cell"),
        (repeated("energy_j"), "the table states one value of energy per cell"),
        (of_cells(), "the table states one value of q per cell"),
    ],
    ids=["quality", "energy", "cells"],
)
def test_there_is_no_gate_on_a_cell_value(
    tmp_path: Path, frame: pl.DataFrame, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = imported(frame, tmp_path)
    usual = imported(table(**SMALL), tmp_path, "usual")
    for baseline, candidate in ((run, run), (usual, run), (run, usual)):
        verdict = gate(baseline, candidate, "q", GateConfig(margin_quality=0.15))
        assert (verdict.verdict, verdict.exit_code) == ("invalid", 4)
        assert verdict.quality.mde is None
    sides = ("--baseline", str(run.path), "--candidate", str(run.path))
    code, out, _ = call("gate", *sides, "--margin-quality", "0.15", capsys=capsys)
    assert code == 4
    assert f"W281: {what}" in out
    assert "there is no verdict on it" in out


def test_the_usual_table_is_gated_as_ever(tmp_path: Path) -> None:
    run = imported(table(prompts=64, ladder=(4, 16)), tmp_path)
    assert gate(run, run, "q", GateConfig(margin_quality=0.15)).verdict == "pass"


def test_the_same_number_in_all_rows_is_not_no_scatter(tmp_path: Path) -> None:
    run = imported(repeated("energy_j", "quality:q"), tmp_path)
    found = {s.name: s for s in sources(run, evidence_of(run, draw(run, ["q"], 50), "q"))}
    for name in ("between seeds of one prompt", "between prompts of one cell"):
        assert found[name].energy is found[name].quality is None
    joules = imported(repeated("energy_j").drop("quality:q"), tmp_path, "joules")
    assert {s.energy for s in sources(joules, None)} == {None}


SHAPES = {
    "quality repeated": repeated("quality:q"),
    "energy repeated": repeated("energy_j"),
    "both repeated": repeated("energy_j", "quality:q"),
    "cells": of_cells(),
    "cells without steps": of_cells().unique("variant", maintain_order=True).drop("steps"),
    "cells of joules": of_cells().drop("quality:q"),
    "cells of quality": of_cells().drop("energy_j"),
    "one cell": of_cells().head(1),
    "joules": table(**SMALL).drop("quality:q"),
    "quality": table(**SMALL).drop("energy_j", "duration_s"),
    "no steps": table(**SMALL).filter(pl.col("steps") == 8).drop("steps"),
    "no seeds": table(**SMALL).filter(pl.col("seed") == 1).drop("seed"),
    "rounds": pl.concat([table(**SMALL, seed=i).with_columns(block=pl.lit(i)) for i in (0, 1)]),
    "gaps": table(**SMALL).with_columns(pl.when(pl.int_range(pl.len()) % 3 > 0).then(pl.col("energy_j", "quality:q"))),
}  # fmt: skip


@pytest.mark.parametrize("name", SHAPES)
def test_every_shape_of_table_goes_through_every_verb(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No traceback, and the exit codes that say what there is: 0 done, 4 evidence that cannot carry the claim."""
    monkeypatch.chdir(tmp_path)
    SHAPES[name].write_parquet("table.parquet")
    assert call("import", "table.parquet", "--out", "run", capsys=capsys)[0] == 0
    for form in ("table", "csv", "md"):
        code, out, _ = call("frontier", "run", "--format", form, capsys=capsys)
        assert code == 0
        assert "None" not in out
    found = json.loads(call("frontier", "run", "--json", capsys=capsys)[1])
    assert len(found["points"]) == len(set(load_cells(tmp_path / "run")))
    has_both = {"energy_j", "quality:q"} <= set(SHAPES[name].columns)
    for arguments in (("--min-quality", "-9"), ("--max-joules", "1e9")):
        assert call("recommend", "run", *arguments, "--by-point", capsys=capsys)[0] == (0 if has_both else 4)
        assert call("recommend", "run", *arguments, capsys=capsys)[0] in (0, 4)
    assert call("baseline", "save", "kept", "run", capsys=capsys)[0] == 0
    assert call("baseline", "show", "kept", capsys=capsys)[0] == 0
    expected = 0 if name in ("no steps", "no seeds", "rounds") else 4
    for baseline in ("run", "kept"):
        sides = ("--baseline", baseline, "--candidate", "run")
        assert call("gate", *sides, "--margin-quality", "0.5", "--margin-energy", "50%", capsys=capsys)[0] == expected
    code, _, err = call("report", "run", "--baseline", "kept", "--margin-quality", "0.5", capsys=capsys)
    assert (code, err) == (0, "")
    assert call("score", "run", "--metric", "lsnr", capsys=capsys)[0] == 4


def load_cells(path: Path) -> list[str]:
    return pl.read_parquet(path / "trials.parquet")["cell_id"].to_list()


def test_a_plan_says_that_an_imported_run_has_no_prices(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = imported(table(**SMALL), tmp_path)
    code, out, _ = call("plan", "demo", "--limit", "2", "--from", str(run.path), capsys=capsys)
    assert code == 0
    assert f"note: {run.path} was imported" in out
    assert "its joules price no cell of this plan" in out


def test_the_columns_that_have_a_place(tmp_path: Path) -> None:
    text = (
        "variant,prompt_id,energy_j,boundary,provenance,model,batch_size,nfe,category,uncertainty_j\n"
        "a,p,100,System,Measured,org/sd15,4,50,animals,2\na,q,110,system,measured,org/sd15,4,50,food,2\n"
    )
    (tmp_path / "t.csv").write_text(text)
    run = import_table(tmp_path / "t.csv", tmp_path / "run")
    variant = run.suite.variants[0]
    assert (variant.model, variant.batch_size) == ("org/sd15", 4)
    assert [prompt.category for prompt in run.prompt_set] == ["animals", "food"]
    point = run.points.row(0, named=True)
    assert (point["boundary"], point["provenance"], point["nfe_mean"]) == ("system", "measured", 50.0)
    assert point["energy_bound_j_per_image"] == 2.0
    assert run.environment["import_notes"] == []


def test_a_pool_of_several_provenances_says_so(tmp_path: Path) -> None:
    frame = table(**SMALL).with_columns(
        provenance=pl.when(pl.col("seed") == 1).then(pl.lit("measured")).otherwise(pl.lit("estimated"))
    )
    run = imported(frame, tmp_path)
    assert run.points["provenance"].unique().to_list() == ["estimated"]
    assert (
        "cell ladder-002 mixes energies that are estimated, measured: together they count as estimated"
        in (run.environment["import_notes"])
    )


def repeated_energies() -> pl.DataFrame:
    """One energy for all prompts of each cell of the arm `quick`."""
    mean = pl.col("energy_j").mean().over("variant", "steps")
    quick = pl.when(pl.col("variant") == "quick").then(mean).otherwise("energy_j").alias("energy_j")
    return table(prompts=40).with_columns(quick, category=pl.lit("all"))


class TestEnergyWithoutScatter:
    """Of an energy of one window group no draw is known, nor any share of draws that hangs on it."""

    def check(self, run: Run) -> None:
        found = frontier(run, resamples=200)
        (record,) = found["comparisons"]
        assert record["dominance"] is record["bd_energy_p"] is record["gain_reason"] is None
        assert record["bd_energy"]["value"] == pytest.approx(-0.2, abs=0.03)
        assert not record["resolved"]
        for name in ("bd_energy", "iso_energy_gain", "gain_per_joule", "hypervolume_gain"):
            assert (record[name]["low"], record[name]["high"]) == (None, None), name
            assert "no interval" in record[name]["method"]
        assert {benefit["p_positive"] for benefit in record["net_benefit"]} == {None}
        drawn = draw(run, ["q"], 200)
        evidence = evidence_of(run, drawn, "q")
        contrast = contrasts(evidence, "ladder-064")["quick-064"]
        assert (contrast.energy_ratio.low, contrast.quadrants) == (None, None)
        assert attainment(evidence, evidence.grid.cells) is None
        pair = per_prompt(evidence, "quick-064", "ladder-064")
        assert pair is not None
        (kind,) = slices(pair, dict.fromkeys(pair.prompts, "all"))
        assert kind.energy_change.value is not None
        assert (kind.energy_change.low, kind.energy_change.high) == (None, None)
        assert kind.quality.low is not None

    def test_of_a_table(self, tmp_path: Path) -> None:
        self.check(imported(repeated_energies(), tmp_path))

    def test_of_windows_that_hold_all_prompts(self, tmp_path: Path) -> None:
        run = as_own(windowed(imported(table(prompts=40), tmp_path), 40))
        self.check(run)
        assert frontier(run, resamples=200)["knee"] is None

    def test_of_one_arm_of_two(self, tmp_path: Path) -> None:
        run = imported(table(prompts=40), tmp_path)
        whole = windowed(imported(table(prompts=40), tmp_path, "whole"), 40)
        parts = (of.trials.filter(pl.col("variant") == name) for of, name in ((run, "ladder"), (whole, "quick")))
        pl.concat(parts).write_parquet(run.path / "trials.parquet")
        run = as_own(load_run(run.path))
        self.check(run)
        found = recommend(run, min_quality=0.5, resamples=200)["chosen"]
        assert found["variant"] == "quick"
        assert found["p_meets"] > 0.9
        assert found["p_chosen"] is None
