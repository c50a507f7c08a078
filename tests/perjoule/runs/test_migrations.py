"""Runs of earlier schema versions are read as if they were written today.

`tests/data/run-schema-1.zip` is a run of two cells, three prompts, two seeds and two blocks, of 40 W and 0.5 s per step
on virtual time. perjoule 0.1.0 wrote it; its scores are `steps + seed / 10`.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from perjoule.errors import RunError
from perjoule.files import write_json
from perjoule.gating import baselines
from perjoule.runs import migrations
from perjoule.runs.directory import load_run
from perjoule.runs.merging import merge_runs
from perjoule.runs.writer import RunWriter
from perjoule.statistics.points import operating_points

STORED = Path(__file__).parents[2] / "data" / "run-schema-1.zip"
TABLES = ("trials", "images", "scores", "points", "power")


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    with zipfile.ZipFile(STORED) as archive:
        archive.extractall(folder)
    return folder


def edit(file: Path, change: Callable[[str], str]) -> None:
    file.write_text(change(file.read_text()))


def test_a_run_of_version_1_is_read(stored: Path) -> None:
    run = load_run(stored)
    assert (run.schema, run.environment["schema"]) == (1, 1)
    assert [len(run.trials), len(run.images), len(run.scores), len(run.prompt_set)] == [12, 12, 12, 3]
    assert run.planned_trials == 12
    energy = run.trials.select(pl.col("energy_j") / pl.col("image_count") / pl.col("steps").list.first())
    assert energy["energy_j"].to_list() == pytest.approx([40.0 * 0.5] * 12)
    points = operating_points(run)
    assert points["energy_j_per_image"].to_list() == pytest.approx([20.0, 80.0])
    assert points["quality"].to_list() == pytest.approx([1.15, 4.15])
    assert points.select("cell_id", "quality", "on_frontier").equals(
        run.points.select("cell_id", "quality", "on_frontier")
    )
    # later additions are absent, not wrong
    assert run.trials["batch_size"].null_count() == 12
    assert run.suite.protocol.on_out_of_memory == "fail"
    assert len(RunWriter.resume(stored, run.suite, [], run.environment).done) == 12


# how a version before today's could have written the same run, and the way back in two steps
OLDER: dict[str, Callable[[str], str]] = {
    "suite.toml": lambda text: text.replace("batch_size =", "batch ="),
    "environment.json": lambda text: text.replace('"comparability_key"', '"system_key"'),
    "prompts.jsonl": lambda text: text.replace('"text"', '"words"'),
    "trials.jsonl": lambda text: text.replace('"energy_j"', '"joules"'),
    "metrics.json": lambda text: text.replace('"metrics"', '"specs"'),
}


def renamed(old: str, new: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda record: {new if key == old else key: value for key, value in record.items()}


MIGRATIONS: dict[int, dict[str, migrations.Migration]] = {
    1: {
        "suite.toml": lambda table: table | {"protocol": renamed("batch", "batch_size")(table["protocol"])},
        "environment.json": lambda record: renamed("system_key", "comparability_key")(record) | {"schema": 2},
        "prompts.jsonl": renamed("words", "text"),
        "trials.jsonl": renamed("joules", "gross_j"),
        "scores.parquet": lambda frame: frame.rename({"score": "value"}),
    },
    2: {
        "environment.json": lambda record: record | {"schema": 3},
        "trials.jsonl": renamed("gross_j", "energy_j"),
        "metrics.json": renamed("specs", "metrics"),
    },
}


@pytest.fixture
def version_3(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrations, "SCHEMA", 3)
    monkeypatch.setattr(migrations, "MIGRATIONS", MIGRATIONS)


@pytest.mark.usefixtures("version_3")
def test_a_run_of_an_earlier_version_is_migrated_step_by_step(stored: Path, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as today:
        today.setattr(migrations, "SCHEMA", 1)
        now = load_run(stored)
        expected = {name: getattr(now, name) for name in (*TABLES, "suite", "prompt_set", "metrics", "environment")}
    for name, change in OLDER.items():
        before = (stored / name).read_text()
        edit(stored / name, change)
        assert (stored / name).read_text() != before
    scores = pl.read_parquet(stored / "scores.parquet")
    scores.rename({"value": "score"}).write_parquet(stored / "scores.parquet")
    run = load_run(stored)
    assert (run.schema, run.environment["schema"]) == (1, 3)
    for name in TABLES:
        assert getattr(run, name).equals(expected[name]), name
    for name in ("suite", "prompt_set", "metrics"):
        assert getattr(run, name) == expected[name]
    assert run.environment == expected["environment"] | {"schema": 3}


@pytest.mark.usefixtures("version_3")
def test_a_file_that_was_written_later_states_its_own_version(stored: Path) -> None:
    edit(stored / "environment.json", OLDER["environment.json"])
    document = json.loads((stored / "metrics.json").read_text())
    write_json(stored / "metrics.json", document | {"schema": 3})
    assert set(load_run(stored).metrics) == {"lsnr"}


@pytest.mark.usefixtures("version_3")
def test_a_run_of_an_earlier_version_is_not_extended(stored: Path, tmp_path: Path) -> None:
    from perjoule.running.pipeline import score

    edit(stored / "suite.toml", OLDER["suite.toml"])
    run = load_run(stored)
    for extend in (
        lambda: RunWriter.resume(stored, run.suite, [], run.environment),
        lambda: merge_runs([stored, stored], tmp_path / "merged"),
        lambda: baselines.save(run, "main", tmp_path / "baselines"),
        lambda: score(run, [], None),
    ):
        with pytest.raises(RunError, match=r"run: schema = 1: this version of perjoule reads it, but only extends"):
            extend()


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ("2", "schema = 2: a later version of perjoule wrote it, and this version reads up to 1: update perjoule"),
        ("99999", "schema = 99999: a later version of perjoule wrote it"),
        ('"1"', "schema = '1': must be a version from 1 to 1"),
        ("0", "schema = 0: must be a version"),
        ("true", "schema = True: must be a version"),
        ("1.0", "schema = 1.0: must be a version"),
        ("null", "schema = None: must be a version"),
    ],
)
def test_unknown_versions_are_refused_in_words(stored: Path, schema: str, words: str) -> None:
    edit(stored / "environment.json", lambda text: text.replace('"schema": 1', f'"schema": {schema}'))
    with pytest.raises(RunError, match=rf"environment\.json: {words}"):
        load_run(stored)
