from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from markdown_it import MarkdownIt
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


def test_without_a_study_the_room_of_people_stays_closed(tmp_path: Path) -> None:
    """Its scales and their solver are loaded only for the answers of a study."""
    run = imported(table(prompts=3, seeds=1, ladder=(2, 4)), tmp_path)
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from perjoule.commands.options import judged\n"
        "from perjoule.commands.tables import print_frontier\n"
        "from perjoule.runs.directory import load_run\n"
        f"print_frontier(judged(load_run(Path({str(run.path)!r})), None, 'q'), 'q', 'csv')\n"
        "print([name for name in sys.modules if name.startswith('perjoule.people')])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


NAME = '=HYPERLINK("http://a")\x1b[31m|<img src=x> @x'


def test_foreign_names_are_text_in_every_format(tmp_path: Path) -> None:
    """Suites and imports refuse such a name; a run directory that was changed can have it."""
    run = imported(table(prompts=6, seeds=1, ladder=(2, 4)), tmp_path)
    metrics = json.loads((run.path / "metrics.json").read_text())
    old = metrics["metrics"][0]["name"]
    metrics["metrics"][0]["name"] = NAME
    (run.path / "metrics.json").write_text(json.dumps(metrics))
    suite = (run.path / "suite.toml").read_text().replace(json.dumps(old), json.dumps(NAME))
    (run.path / "suite.toml").write_text(suite)
    for name in ("points", "scores"):
        file = run.path / f"{name}.parquet"
        pl.read_parquet(file).with_columns(metric=pl.lit(NAME)).write_parquet(file)
    printed = {form: driving.drive("frontier", run.path, "--format", form) for form in ("table", "csv", "md", "json")}
    for ended in printed.values():
        assert (ended.code, ended.faults()) == (0, []), ended
    assert not [
        cell for row in csv.reader(printed["csv"].out.splitlines()) for cell in row if cell[:1] in "=@" and cell
    ]
    tokens = MarkdownIt("gfm-like", {"linkify": False}).parse(printed["md"].out)
    kinds = {token.type for one in tokens for token in [one, *(one.children or ())]}
    assert not kinds & {"html_inline", "html_block", "link_open", "image"}
    assert json.loads(printed["json"].out)["metric"] == NAME
