from __future__ import annotations

import json
from pathlib import Path

from perjoule.runs.directory import load_run
from perjoule.statistics.facts import cell_facts
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
    from perjoule.runs.writer import RunWriter

    run = counted_run(tmp_path / "run", counted_windows())
    order = list(run.works)[::-1]
    writer = RunWriter(run.path)
    writer.close()
    writer.sort(order)
    assert list(load_run(run.path).works) == order
