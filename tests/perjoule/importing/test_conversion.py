from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from perjoule.errors import EvidenceError, UsageError
from perjoule.gating.recommend import recommend
from perjoule.importing.conversion import import_table
from perjoule.statistics.frontier import frontier
from tests.perjoule.test_cli import call
from tests.support.tables_of_runs import imported, table


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_a_table_becomes_a_run_like_any_other(tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]) -> None:
    frame = table(prompts=12, ladder=(2, 8, 32))
    file = tmp_path / f"theirs.{suffix}"
    write: dict[str, Callable[[Path], object]]
    write = {"csv": frame.write_csv, "parquet": frame.write_parquet, "jsonl": frame.write_ndjson}
    write[suffix](file)
    out = str(tmp_path / "run")
    assert call("import", str(file), "--out", out, capsys=capsys)[0] == 0
    code, text, _ = call("frontier", out, "--format", "json", capsys=capsys)
    assert code == 0
    found = json.loads(text)
    expected = frame.group_by("variant", "steps").agg(pl.col("energy_j", "quality:q").mean())
    for row in expected.iter_rows(named=True):
        point = next(p for p in found["points"] if p["cell_id"] == f"{row['variant']}-{row['steps']:03d}")
        assert point["energy_j_per_image"]["value"] == pytest.approx(row["energy_j"])
        assert point["quality"]["value"] == pytest.approx(row["quality:q"])
    comparison = found["comparisons"][0]
    assert (comparison["test"], comparison["anchor"]) == ("quick", "ladder")
    assert comparison["iso_quality_saving"]["value"] == pytest.approx(0.2, abs=0.1)
    assert call("recommend", out, "--min-quality", "0.5", capsys=capsys)[0] == 0
    gated = ("gate", "--baseline", out, "--candidate", out)
    assert call(*gated, "--margin-quality", "0.1", capsys=capsys)[0] == 0
    assert call("report", out, capsys=capsys)[0] == 0


GOOD: dict[str, list[Any]] = {"variant": ["a"], "prompt_id": ["p"], "seed": [1], "energy_j": [3.0], "quality:q": [0.5]}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"energy_j": None, "quality:q": None}, "column energy_j is missing"),
        ({"energy_j": None, "quality:q": None, "energy": [1.0]}, "energy: name the energy of one image energy_j"),
        ({"energy_j": None, "energy": [1.0]}, "column energy: the unit is missing"),
        ({"energy_wh": [1.0]}, "mixed units"),
        ({"energy_j": None, "energy_mj": [1.0]}, "Name it energy_mJ or energy_MJ"),
        ({"energy_j": None, "ENERGY_MWH": [1.0]}, "Name it energy_mWh or energy_MWh"),
        ({"energy_j": ["3 J"]}, "energy_j = '3 J': not a number"),
        ({"energy_j": [-3.0]}, "row 1: energy_j = -3.0: must be positive"),
        ({"energy_j": [0.0]}, "row 1: energy_j = 0.0: must be positive"),
        ({"energy_j": [float("inf")]}, "row 1: energy_j = inf: must be positive and finite"),
        ({"role": ["boss"]}, "unknown role 'boss'"),
        ({"boundary": ["wall"]}, "unknown boundary 'wall'"),
        ({"steps": [0]}, "steps = 0"),
        ({"variant": [None]}, "variant is empty in 1 rows"),
    ],
)
def test_bad_tables_are_refused_in_words(tmp_path: Path, change: dict[str, list[object] | None], words: str) -> None:
    columns = {name: values for name, values in {**GOOD, **change}.items() if values is not None}
    file = tmp_path / "bad.parquet"
    pl.DataFrame(columns).write_parquet(file)
    with pytest.raises(UsageError, match=r".") as caught:
        import_table(file, tmp_path / "run")
    assert words in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_more_bad_tables(tmp_path: Path) -> None:
    twice = pl.DataFrame({name: values * 2 for name, values in GOOD.items()})
    two = twice.with_columns(seed=pl.Series([1, 2]), boundary=pl.Series(["gpu-board", "estimate"]))
    for frame, words in ((twice, "appears 2 times"), (two, "different boundaries"), (twice.clear(), "has no rows")):
        file = tmp_path / "bad.parquet"
        frame.write_parquet(file)
        with pytest.raises(UsageError, match=words):
            import_table(file, tmp_path / "run")
    (tmp_path / "bad.csv").write_text("")
    for name, words in (
        ("bad.csv", "the table has no header and no rows"),
        ("none.csv", "no such file"),
        ("bad.xls", "give .csv"),
    ):
        with pytest.raises(UsageError, match=words):
            import_table(tmp_path / name, tmp_path / "run")


def test_an_adaptive_arm_is_compared_with_the_ladder_and_its_control(tmp_path: Path) -> None:
    ladder = table(prompts=40, ladder=(2, 4, 8, 16), variants=(("ladder", 1.0),)).with_columns(
        role=pl.lit("fixed"), family=pl.lit("m")
    )
    even = pl.col("prompt_id").str.slice(1).cast(pl.Int64) % 2 == 0

    def arm(name: str, role: str, odd: bool) -> pl.DataFrame:
        picked = ladder.filter(pl.when(even != odd).then(pl.col("steps") == 4).otherwise(pl.col("steps") == 16))
        return picked.with_columns(variant=pl.lit(name), role=pl.lit(role))

    both = pl.concat([ladder, arm("policy", "predicted", False), arm("shuffled", "control", True)])
    found = frontier(imported(both, tmp_path))
    record = next(c for c in found["comparisons"] if c["test"] == "policy")
    assert record["anchor"] == "ladder"
    assert record["controls"]["against"][0]["control"] == "shuffled"
    assert record["controls"]["against"][0]["energy_ratio"]["value"] == pytest.approx(1, abs=0.05)
    assert record["controls"]["headroom"]["bound_saving"]["value"] is not None
    assert next(p for p in found["points"] if p["cell_id"] == "policy")["steps_mean"] == 10


def test_prompts_that_the_ladder_lacks_give_no_warning(tmp_path: Path) -> None:
    rows = [
        ("a", "predicted", 4, "x", 1.0, 0.1),
        ("a", "predicted", 8, "y", 2.0, 0.3),
        ("b", "fixed", 4, "x", 1.5, 0.2),
    ]
    frame = pl.DataFrame(rows, orient="row", schema=["variant", "role", "steps", "prompt_id", "energy_j", "quality:q"])
    frame.write_parquet(tmp_path / "table.parquet")
    run = import_table(tmp_path / "table.parquet", tmp_path / "run")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frontier(run, resamples=100)


def test_full_reference_scores_never_cross_families(tmp_path: Path) -> None:
    run = imported(table(prompts=8, ladder=(2, 8, 32)), tmp_path, fidelity=["q"])
    found = frontier(run)
    assert found["comparisons"] == []
    assert found["hypervolume"]["family"] == "ladder"
    with pytest.raises(EvidenceError, match="one model only"):
        recommend(run, min_quality=0.5)
    assert recommend(run, min_quality=0.5, family="quick")["chosen"]["variant"] == "quick"


def test_init_writes_what_the_other_commands_take(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("init", str(tmp_path), capsys=capsys)[0] == 0
    code, out, _ = call("plan", str(tmp_path / "perjoule.toml"), "--json", capsys=capsys)
    assert code == 0
    assert json.loads(out)["prompts"] == 20
    compile((tmp_path / "tests" / "test_energy.py").read_text(), "example", "exec")
    workflow = (tmp_path / ".github" / "workflows" / "perjoule.yml").read_text()
    assert "perjoule gate --baseline" in workflow
    (tmp_path / "perjoule.toml").write_text("mine")
    _, out, _ = call("init", str(tmp_path), capsys=capsys)
    assert out.count("kept") == 6
    assert (tmp_path / "perjoule.toml").read_text() == "mine"


def test_a_table_of_thousands_of_metrics_is_imported_and_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every metric would have a figure and a column, and each takes a tenth of a second to draw."""
    frame = table(prompts=2, seeds=1, ladder=(2, 4), variants=(("ladder", 1.0),)).drop("quality:q")
    every = [pl.lit(float(i)).alias(f"quality:m{i:04}") for i in range(200)]
    frame.with_columns(every).with_columns(
        pl.when(pl.col("prompt_id") == frame["prompt_id"][0]).then(pl.col(f"quality:m{i:04}")) for i in range(50, 100)
    ).write_parquet(tmp_path / "wide.parquet")
    out = str(tmp_path / "run")
    code, text, err = call("import", str(tmp_path / "wide.parquet"), "--out", out, capsys=capsys)
    assert code == 0
    assert "m0000, m0001" in text
    assert text.endswith("m0019 and 180 more\n")
    assert "more notes, see import_notes in" in err
    assert len(err.splitlines()) < 50
    assert call("report", out, capsys=capsys)[0] == 0
    page = (tmp_path / "run" / "report.html").read_text()
    assert "The report shows 32 of 200 metrics" in page
    assert page.count('id="fig-frontier') + page.count("<figure") < 60
    assert call("frontier", out, "--metric", "m0199", capsys=capsys)[0] == 0
    code, _, err = call("frontier", out, "--metric", "m1000", capsys=capsys)
    assert (code, "m0000" in err, len(err) < 2_000) == (2, True, True)
