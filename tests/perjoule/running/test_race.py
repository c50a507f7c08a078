"""Races of fake pipelines, see `tests.support.racing`: `waste` is dominated at every step count."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from perjoule.errors import EvidenceError
from perjoule.quality.lsnr import lsnr
from perjoule.running import pipeline, reporting
from perjoule.runs.directory import Run, load_run
from perjoule.statistics.raced import replay
from tests.support import racing
from tests.support.driving import drive

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def fakes() -> Iterator[list[str]]:
    with racing.fakes() as calls:
        yield calls


@pytest.fixture(autouse=True)
def _no_page(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if "page" not in request.keywords:
        monkeypatch.setattr(reporting, "report", lambda *arguments: [])


@pytest.fixture(scope="module")
def raced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A race with a page, which tests copy before they change it."""
    folder = tmp_path_factory.mktemp("race")
    with racing.fakes():
        ended = drive("run", racing.suite_file(folder), "--out", folder / "run", "--race", "--quiet")
    assert ended.code == 0, ended.err + ended.trace
    return folder / "run"


def counts(run: Run) -> dict[str, int]:
    return dict(run.trials.group_by("cell_id").len().iter_rows())


def test_dominated_cells_get_no_further_prompts_and_the_run_is_complete(raced: Path) -> None:
    run = load_run(raced)
    assert run.race is not None
    assert set(run.race.dropped) == racing.DROPPED
    expected = {cell: run.race.prompts_of(cell) for cell in run.race.cells}
    assert counts(run) == expected
    assert max(expected.values()) == racing.PROMPTS
    assert run.planned_trials == len(run.trials)
    # the ladder is needed, because savings of `waste` are stated against it
    assert set(run.race.looks[0].needed) == {"ladder-002", "ladder-004"}


def test_every_look_follows_from_the_files(raced: Path) -> None:
    looks = list(replay(load_run(raced)))
    assert len(looks) == 2
    for stored, again in looks:
        assert again == stored


def test_points_and_frontier_state_prompts_and_mark_dropped_cells(raced: Path) -> None:
    ended = drive("frontier", raced, "--format", "json")
    record = json.loads(ended.out)
    points = {point["cell_id"]: point for point in record["points"]}
    for cell, point in points.items():
        assert (point["dropped"] is not None) == (cell in racing.DROPPED)
        assert point["n_prompts"] == (racing.PROMPTS if cell not in racing.DROPPED else record_prompts(record, cell))
        assert point["on_frontier"] == (cell not in racing.DROPPED)
    assert record["frontier"] == ["ladder-002", "ladder-004"]
    assert record["trials"]["empty_cells"] == []
    table = drive("frontier", raced).out
    assert "waste-004: not measured further: dominated by ladder-00" in table
    assert "prompts" in table.splitlines()[0]
    (comparison,) = record["comparisons"]
    # the whole arm was dropped, so it is compared on the prompts that it has
    assert comparison["n_prompts"] == min(record_prompts(record, cell) for cell in racing.DROPPED)


def record_prompts(record: dict[str, dict[str, list[dict[str, list[dict[str, int]]]]]], cell: str) -> int:
    return next(
        one["prompts"] for look in record["race"]["looks"] for one in look["dropped"] if str(one["cell_id"]) == cell
    )


def test_the_report_marks_dropped_cells_and_states_the_price(raced: Path) -> None:
    text = (raced / "report.md").read_text()
    assert "not measured further: dominated by ladder-00" in text
    assert "Price of certainty: Measuring took" in text
    assert "INCOMPLETE" not in text
    result = json.loads((raced / "result.json").read_text())
    assert result["race"]["metric"] == "lsnr"
    joules = load_run(raced).trials["energy_j"].sum()
    assert result["price"]["energy_j"] == pytest.approx(joules, rel=1e-5)
    # only the ladder would get further prompts
    ladder = load_run(raced).trials.filter(pl.col("variant") == "ladder")["energy_j"].sum()
    assert result["price"]["halving"]["energy_j"] == pytest.approx(3 * ladder, rel=1e-5)


@pytest.mark.parametrize("stop_after", [10, 48, 50])
def test_an_interrupted_race_resumes_at_the_same_look(
    raced: Path, tmp_path: Path, fakes: list[str], stop_after: int
) -> None:
    """After 10 trials of round 1, before its look is stored, and after it."""
    whole, cut = load_run(raced), tmp_path / "run"
    shutil.copytree(raced, cut)
    for name in ("trials", "traces", "devices", "work"):
        file = cut / f"{name}.jsonl"
        if file.exists():
            kept = set(whole.trials["trial_id"][:stop_after])
            lines = [line for line in file.read_text().splitlines() if json.loads(line)["trial_id"] in kept]
            file.write_text("".join(f"{line}\n" for line in lines))
    race = json.loads((cut / "race.json").read_text())
    race["looks"] = race["looks"][: 1 if stop_after > 48 else 0]
    (cut / "race.json").write_text(json.dumps(race))
    for name in ("scores.parquet", "points.parquet", "images.parquet", "metrics.json"):
        (cut / name).unlink()
    ended = drive("run", cut / "suite.toml", "--out", cut, "--resume", "--quiet")
    assert ended.code == 0, ended.err
    again = load_run(cut)
    assert again.race == whole.race
    assert counts(again) == counts(whole)
    assert len(fakes) == len(whole.trials) - stop_after
    assert again.scores.equals(whole.scores)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--limit", "14"], "14 prompts in windows of 1 images are too few"),
        (["--shard", "1/2"], "--shard 1/2"),
        (["--executor", "ray"], "rounds are measured one after the other"),
    ],
)
def test_what_cannot_be_a_race_is_refused_before_anything_is_measured(
    tmp_path: Path, options: list[str], words: str
) -> None:
    out = tmp_path / "run"
    ended = drive("run", racing.suite_file(tmp_path), "--out", out, "--race", *options)
    assert ended.code == 2
    assert words in ended.err
    assert not out.exists()


def test_a_suite_of_one_cell_is_not_a_race(tmp_path: Path) -> None:
    file = racing.suite_file(tmp_path)
    text = file.read_text()
    file.write_text(text[: text.rindex("[[variants]]")].replace("steps = [2, 4]", "steps = [2]"))
    ended = drive("run", file, "--out", tmp_path / "run", "--race")
    assert ended.code == 2
    assert "has one cell (ladder-002)" in ended.err


def test_cells_that_change_with_memory_cannot_race(tmp_path: Path) -> None:
    file = racing.suite_file(tmp_path, on_out_of_memory="halve-batch")
    ended = drive("run", file, "--out", tmp_path / "run", "--race")
    assert (ended.code, "protocol.on_out_of_memory" in ended.err) == (2, True)


def test_a_race_without_scores_ends_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise ValueError("the weights are gone")

    monkeypatch.setattr(type(lsnr({"definition": "b"})), "score", fail)
    monkeypatch.setattr(pipeline, "rehearse", lambda *arguments: None)
    ended = drive("run", racing.suite_file(tmp_path), "--out", tmp_path / "run", "--race")
    assert ended.code == EvidenceError.exit_code
    assert "fewer than two cells have scores of lsnr (ValueError: the weights are gone)" in ended.err
    assert len(load_run(tmp_path / "run").trials) == 48


def test_other_verbs_refuse_a_race_that_dropped_cells(
    raced: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(raced, tmp_path / "run")
    gate = drive("gate", "--baseline", raced, "--candidate", tmp_path / "run", "--margin-quality", "1", "--json")
    assert gate.code == 4
    record = json.loads(gate.out)
    assert "the baseline is a race that dropped 2 cells" in record["reasons"][0]
    assert record["price"]["windows"] == 2 * len(load_run(raced).trials)
    saved = drive("baseline", "save", "main", raced)
    assert saved.code != 0
    assert not (tmp_path / ".perjoule").exists()
    assert "is a race that dropped 2 cells" in saved.err
    merged = drive("merge", raced, tmp_path / "run", "--out", tmp_path / "merged")
    assert "is a race, whose cells have different prompts" in merged.err
    assert not (tmp_path / "merged").exists()


def test_a_run_that_was_begun_without_a_race_does_not_become_one(raced: Path, tmp_path: Path) -> None:
    shutil.copytree(raced, tmp_path / "run")
    (tmp_path / "run" / "race.json").unlink()
    run = tmp_path / "run"
    ended = drive("run", run / "suite.toml", "--out", run, "--resume", "--race")
    assert (ended.code, "was begun without it" in ended.err) == (2, True)


def test_a_dropped_cell_is_not_recommended(raced: Path) -> None:
    ended = drive("recommend", raced, "--min-quality", "0", "--json")
    assert json.loads(ended.out)["chosen"]["cell_id"] == "ladder-002"
    run = load_run(raced)
    points = run.points.filter(pl.col("dropped").is_not_null())
    assert set(points["cell_id"]) == racing.DROPPED
