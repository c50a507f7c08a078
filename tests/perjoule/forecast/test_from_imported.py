"""`plan --from` a run made of a table: it says what it could not use, and prices nothing by it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from perjoule.forecast.measured import unused
from tests.perjoule.forecast.worlds import run_of, suite_of
from tests.perjoule.test_cli import call
from tests.support.tables_of_runs import as_own, imported, rewrite_table, table

SUITE = """
name = "mine"
title = ""
description = ""
[prompts]
source = "p.txt"
[protocol]
seeds = [1]
[metrics]
primary = "lsnr"
names = ["lsnr", "clip_text"]
[[variants]]
name = "ladder"
model = "stable-diffusion-v1-5/stable-diffusion-v1-5"
steps = [4, 16]
"""


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    (tmp_path / "p.txt").write_text("".join(f"a cat number {i}\n" for i in range(10)))
    file = tmp_path / "mine.toml"
    file.write_text(SUITE)
    return file


def planned(suite: Path, run: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    code, out, err = call("plan", str(suite), "--from", str(run), "--json", capsys=capsys)
    assert code == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


def test_it_says_what_it_could_not_use(suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame = table(prompts=12, seeds=1, ladder=(4, 16), variants=(("ladder", 1.0),))
    frame = frame.drop("duration_s").rename({"quality:q": "quality:lsnr"})
    run = imported(frame, tmp_path, "theirs")
    alone = json.loads(call("plan", str(suite), "--json", capsys=capsys)[1])
    found = planned(suite, run.path, capsys)
    # the imported joules are those of another model, size, precision: published figures stay the price
    assert [cell["energy_j_per_image"] for cell in found["cells"]] == [
        cell["energy_j_per_image"] for cell in alone["cells"]
    ]
    notes = "\n".join(found["notes"])
    assert f"{run.path} was imported from theirs.parquet: it does not state the settings of its models" in notes
    assert f"{run.path}: 24 of 24 rows have no duration" in notes
    energy, lsnr, clip = found["effects"]
    assert (energy["mde"], energy["reason"]) == (None, f"{run.path} was imported: its rows are images, not windows")
    assert lsnr["mde"] > 0
    assert "imported; its scale is taken to be that of the metric here" in lsnr["source"]
    assert clip["mde"] is None
    assert "has no scores of clip_text: scored are lsnr" in clip["reason"]
    text = call("plan", str(suite), "--from", str(run.path), capsys=capsys)[1]
    assert "note: " in text
    assert "have no duration" in text


def test_a_model_named_in_the_table_is_no_match(
    suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its dtype, size and guidance would be our defaults, not what was measured."""
    run = imported(table(prompts=12, ladder=(4, 16), variants=(("ladder", 1.0),)), tmp_path, "theirs")
    text = (run.path / "suite.toml").read_text()
    (run.path / "suite.toml").write_text(
        text.replace('model = "imported"', 'model = "stable-diffusion-v1-5/stable-diffusion-v1-5"')
    )
    found = planned(suite, run.path, capsys)
    assert all("theirs" not in cell["source"] for cell in found["cells"])


def test_repeated_values_are_no_scatter(suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One number for all prompts of a cell would promise that any difference can be seen."""
    frame = table(prompts=12, ladder=(4, 16), variants=(("ladder", 1.0),)).drop("quality:q")
    run = imported(frame.with_columns((pl.col("steps") * 0.01).alias("quality:lsnr")), tmp_path, "theirs")
    lsnr = planned(suite, run.path, capsys)["effects"][1]
    assert lsnr["mde"] is None
    assert "differ by the same amount for every prompt" in lsnr["reason"]


def test_joules_of_unstated_origin_are_named(tmp_path: Path) -> None:
    run = imported(table(prompts=4, ladder=(4,)), tmp_path)
    vague = rewrite_table(run, "trials", pl.lit(None, pl.String).alias("provenance"))
    assert f"{run.path}: 16 of 16 rows do not state how their joules came about" in unused(vague)
    blank = rewrite_table(vague, "trials", pl.when(pl.int_range(pl.len()) > 2).then(pl.col("energy_j")))
    assert f"{run.path}: 3 of 16 rows have no joules" in unused(blank)


def test_a_run_of_ones_own_has_nothing_to_say(tmp_path: Path) -> None:
    assert unused(run_of(suite_of(), tmp_path / "pilot")) == []
    run = imported(table(prompts=4, ladder=(4,)), tmp_path)
    assert unused(as_own(run)) == []
