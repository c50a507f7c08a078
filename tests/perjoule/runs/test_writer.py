from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from perjoule.errors import UsageError
from perjoule.runs.directory import STARTING, is_starting, load_run
from perjoule.runs.writer import RunWriter, require_startable
from perjoule.statistics.facts import cell_facts
from tests.perjoule.running.test_execute import ENVIRONMENT, PROMPTS, do, make_suite
from tests.support.work import STEPS, Window, counted_run, counted_windows, work_of


def test_counted_work_is_stored_and_read_again(tmp_path: Path) -> None:
    windows = [*counted_windows(), Window(steps=1, energy_j=1.0, work=work_of(1, iterations=3), iterations=3)]
    run = counted_run(tmp_path / "run", windows)
    assert list(run.works.values()) == [window.work for window in windows]
    # two images a window, however often it was repeated
    assert run.trials["flops_per_image"].to_list() == [work_of(s).flops / 2 for s in (*STEPS, 1)]


def test_windows_without_a_count_have_no_flops(tmp_path: Path) -> None:
    windows = [
        Window(steps=1, energy_j=1.0, work=None),
        Window(steps=2, energy_j=1.0, work=work_of(2), images=0, failure="out of memory"),
    ]
    run = counted_run(tmp_path / "run", windows)
    assert run.trials["flops_per_image"].to_list() == [None, None]
    assert {cell: facts.flops_per_image for cell, facts in cell_facts(run.trials).items()} == {
        "v-001": None,
        "v-002": None,
    }


def test_runs_of_earlier_versions_have_no_flops(tmp_path: Path) -> None:
    run = counted_run(tmp_path / "run", counted_windows())
    (run.path / "work.jsonl").unlink()
    rows = [json.loads(line) for line in (run.path / "trials.jsonl").read_text().splitlines()]
    for row in rows:
        del row["flops_per_image"]
    (run.path / "trials.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    old = load_run(run.path)
    assert old.works == {}
    assert old.trials["flops_per_image"].to_list() == [None] * len(STEPS)


def test_sorting_sorts_the_work_too(tmp_path: Path) -> None:
    run = counted_run(tmp_path / "run", counted_windows())
    order = list(run.works)[::-1]
    writer = RunWriter(run.path)
    writer.close()
    writer.sort(order)
    assert list(load_run(run.path).works) == order


def link_to_victim(name: str) -> Callable[[Path, Path], None]:
    return lambda start, victim: (start / name).symlink_to(victim)


@pytest.mark.parametrize(
    ("name", "plant"),
    [
        ("images", link_to_victim("images")),
        ("images", lambda start, victim: ((start / "images").mkdir(), (start / "images" / "x.png").touch())),
        ("images", lambda start, victim: (start / "images").touch()),
        ("suite.toml", link_to_victim("suite.toml")),
        ("suite.toml", lambda start, victim: (start / "suite.toml").mkdir()),
        ("environment.json", lambda start, victim: (start / "environment.json").symlink_to("nowhere")),
        (".perjoule-0.tmp", link_to_victim(".perjoule-0.tmp")),
        *(
            (name, lambda start, victim, name=name: (start / name).write_text("{}\n"))
            for name in ("trials.jsonl", "superseded.jsonl", "scores.parquet", "race.json", "looks.jsonl", "notes.txt")
        ),
        ("baseline", lambda start, victim: (start / "baseline").mkdir()),
    ],
)
def test_a_start_with_planted_content_is_refused_and_stays_as_it_is(
    tmp_path: Path, name: str, plant: Callable[[Path, Path], None]
) -> None:
    start, victim = tmp_path / "start", tmp_path / "victim"
    start.mkdir()
    victim.mkdir()
    (start / STARTING).touch()
    plant(start, victim)
    before = sorted(start.rglob("*"))
    for begin in (require_startable, lambda path: RunWriter.create(path, make_suite(), PROMPTS, ENVIRONMENT)):
        with pytest.raises(UsageError, match=rf"but {name} in it is not from that start: remove it"):
            begin(start)
    assert sorted(start.rglob("*")) == before
    assert list(victim.iterdir()) == []


def test_a_link_in_place_of_the_mark_is_not_the_mark(tmp_path: Path) -> None:
    start, victim = tmp_path / "start", tmp_path / "victim"
    start.mkdir()
    victim.touch()
    (start / STARTING).symlink_to(victim)
    before = victim.stat()
    with pytest.raises(UsageError, match=r"but \.starting in it is not from that start"):
        RunWriter.create(start, make_suite(), PROMPTS, ENVIRONMENT)
    assert victim.stat() == before


def test_what_a_start_leaves_is_replaced(tmp_path: Path) -> None:
    start = tmp_path / "start"
    (start / "images").mkdir(parents=True)
    for name in (STARTING, "suite.toml", "prompts.jsonl", ".perjoule-0123.tmp"):
        (start / name).write_text("half a")
    assert is_starting(start)
    do(make_suite(), RunWriter.create(start, make_suite(), PROMPTS, ENVIRONMENT))
    do(make_suite(), RunWriter.create(tmp_path / "new", make_suite(), PROMPTS, ENVIRONMENT))
    assert {file.name for file in start.iterdir()} == {file.name for file in (tmp_path / "new").iterdir()}
    assert load_run(start).suite == make_suite()
    assert load_run(start).trials["trial_id"].to_list() == load_run(tmp_path / "new").trials["trial_id"].to_list()
