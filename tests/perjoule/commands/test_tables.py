from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from tests.support import driving
from tests.support.tables_of_runs import imported, table

from perjoule.commands.tables import work_unit


@pytest.mark.parametrize(
    ("flops", "unit"),
    [
        ([], None),
        ([None], None),
        ([2e9, None, 9e11], "GFLOP"),
        ([2e9, 1e12], "TFLOP"),
        ([5.0], "FLOP"),
        ([0.0], "FLOP"),
    ],
)
def test_one_unit_for_a_column(flops: list[float | None], unit: str | None) -> None:
    chosen = work_unit(flops)
    assert (chosen and chosen[0]) == unit


@pytest.mark.parametrize("counted", [True, False])
def test_frontier_prints_work_and_evaluations(tmp_path: Path, counted: bool) -> None:
    flops = 1.5e12 * pl.col("steps") if counted else pl.lit(None, pl.Float64)
    frame = table(prompts=6, seeds=1, ladder=(2, 4), variants=(("ladder", 1.0),)).with_columns(
        flops_per_image=flops, nfe_per_image=2.0 * pl.col("steps")
    )
    run = imported(frame, tmp_path)

    def printed(form: str) -> str:
        ended = driving.drive("frontier", run.path, "--format", form)
        assert ended.code == 0, ended
        return ended.out

    points = json.loads(printed("json"))["points"]
    assert [one["flops_per_image"] for one in points] == ([3e12, 6e12] if counted else [None, None])
    assert [one["nfe_mean"] for one in points] == [4.0, 8.0]
    head, first = printed("csv").splitlines()[:2]
    row = dict(zip(head.split(","), first.split(","), strict=True))
    assert (row["NFE"], row["FLOP/image"]) == ("4.0", "3000000000000.0" if counted else "")
    for form in ("table", "md"):
        assert ("TFLOP/image" in printed(form)) == counted
