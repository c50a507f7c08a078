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
from tests.support.tables_of_runs import imported, table, with_margin

from perjoule.commands.options import page_link, terminal_width
from perjoule.commands.records import MetricScores, Scores
from perjoule.commands.tables import LEAST, print_outcome, score_text, work_unit
from perjoule.text_table import text_table


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


def test_a_narrow_terminal_leaves_out_columns_and_says_which() -> None:
    rows = [{"cell": "a-001", "W": 12.0, "steps": 4, "low": 0.25}]
    whole = text_table(rows)
    assert text_table(rows, len(whole.splitlines()[0]), LEAST) == whole
    assert text_table(rows, 18, LEAST).splitlines() == [
        "cell   steps   low",
        "a-001      4  0.25",
        "not shown: W",
        "(--wide)",
    ]


def test_a_terminal_decides_the_width(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "70")
    assert terminal_width(False) is None  # a pipe or a file gets all columns
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert (terminal_width(False), terminal_width(True)) == (70, None)


def test_the_outcome_is_the_headline_three_cells_and_a_link(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = with_margin(imported(table(prompts=30, seeds=1), tmp_path), 0.05)
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    assert driving.drive("report", run.path, "--open").code == 0
    page = run.path / "report.html"
    assert opened == [page.resolve().as_uri()]
    result = json.loads((run.path / "result.json").read_text())
    print_outcome(run, page_link(page))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == result["headline"]
    assert lines[2].split() == ["cell", "J/image", "energy", "is", "q", "on", "the", "frontier"]
    assert len(lines[3:6]) == 3
    chosen = [line.split()[0] for line in lines[3:6] if line.endswith("recommended")]
    assert chosen == [result["choices"]["chosen"]]
    assert lines[6] == f"9 more cells: perjoule frontier {run.path}"
    assert lines[-1] == f"report: {page.resolve().as_uri()}"
    assert opened == [page.resolve().as_uri()]


def test_runs_are_listed_with_those_that_cannot_be_read(tmp_path: Path) -> None:
    imported(table(prompts=3, seeds=1, ladder=(2, 4)), tmp_path, "good")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "environment.json").write_text("{")
    (tmp_path / "other").mkdir()
    ended = driving.drive("list", "runs", tmp_path, "--json")
    good, bad = json.loads(ended.out)["runs"]
    assert (good["run"], good["done"], good["failed"], good["planned"]) == (str(tmp_path / "good"), 12, 0, None)
    assert (good["metric"], good["provenance"], good["problem"]) == ("q", "measured", None)
    assert bad["run"] == str(tmp_path / "bad")
    assert bad["problem"]
    text = driving.drive("list", "runs", tmp_path).out
    assert "good" in text
    assert "bad" in text
    nowhere = driving.drive("list", "runs", tmp_path / "nowhere")
    assert (nowhere.code, "no such folder" in nowhere.err) == (4, True)
    assert driving.drive("list", "meters", tmp_path).code == 2


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


def test_scores_and_baselines_fit_a_narrow_terminal() -> None:
    row = MetricScores(metric="q", scored=9, unscored=1, mean=0.5, reasons=("its weights are missing (1)",))
    scores = Scores(run="runs/a", metrics=(row,), sets=())
    assert "not shown" not in score_text(scores)
    narrow = score_text(scores, 40).splitlines()
    assert narrow[-1] == "not shown: unscored, reasons (--wide)"
    assert max(map(len, narrow)) <= 40
    stored = {"name": "main", "suite": "demo", "key": "0123456789ab", "saved_utc": "2026-01-01T00:00:00+00:00",
              "commit": None, "bytes": 1000, "path": "x" * 60}  # fmt: skip
    assert text_table([stored], 60, LEAST).splitlines()[-1] == "not shown: path (--wide)"  # commit is empty
