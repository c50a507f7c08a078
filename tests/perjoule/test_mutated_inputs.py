"""Damaged tables, suites, prompt files, models, runs and baselines end in one message, whatever the damage.

`nice python -m tests.benchmarks.fuzz N SEED` tries as many as you have time for; what it finds becomes a case below.
"""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from perjoule.errors import RunError
from perjoule.runs.directory import load_run, write_set_scores
from tests.support.driving import drive, fakes
from tests.support.mutated_inputs import KINDS, TEXTS, TINY, Stock, case

pytestmark = pytest.mark.slow

COUNTS = {"table": 20, "suite": 40, "prompts": 20, "model": 10, "run": 6, "baseline": 20, "energy baseline": 60}


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Stock:
    return Stock.make(tmp_path_factory.mktemp("stock"))


@pytest.mark.parametrize("kind", KINDS)
def test_no_mutation_ends_badly(kind: str, stock: Stock, tmp_path: Path) -> None:
    commands = 0
    for seed in range(COUNTS[kind]):
        ran, faults = case(kind, seed, tmp_path / "case", stock)
        assert not faults, "\n\n".join(faults)
        commands += ran
        shutil.rmtree(tmp_path / "case")
    assert commands > COUNTS[kind] / 2  # the others could not be written


def refused(ended: Any, code: int, *words: str) -> None:
    assert ended.code == code, ended
    assert ended.faults() == [], ended
    for word in words:
        assert word in ended.err + ended.out, ended


@pytest.fixture
def own(stock: Stock, tmp_path: Path) -> Path:
    """A run that may be damaged."""
    return stock.run("own", tmp_path)


def edit(file: Path, change: Callable[[Any], object]) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("comparability", [1]),
        ("meter", "nvml"),
        ("meter", {"name": 3}),
        ("meter", {"notes": "W203"}),
        ("models", ["m"]),
        ("created_utc", 7),
        ("command", [1, None]),
        ("prompt_findings", [{"variant": "v"}]),
        ("prompt_findings", {"cuts": 1}),
        ("import_notes", [[]]),
        ("not_loaded", ["tiny-001"]),
        ("suite_folder", ["a"]),
    ],
)
def test_a_key_of_environment_json_of_another_type_is_named(own: Path, key: str, value: Any) -> None:
    edit(own / "environment.json", lambda e: e.update({key: value}))
    commands: list[list[Any]] = [
        ["report", own],
        ["frontier", own],
        ["baseline", "save", "x", own],
        ["recommend", own, "--max-joules", "9"],
    ]
    for command in commands:
        refused(drive(*command), 4, "environment.json", key)


def test_null_in_environment_json_means_not_recorded(own: Path, stock: Stock) -> None:
    edit(
        own / "environment.json",
        lambda e: e.update(dict.fromkeys(("comparability", "meter", "models", "packages"))),
    )
    refused(drive("plan", stock.folder / "suite.toml", "--from", own), 0)
    refused(drive("report", own), 0)
    refused(drive("gate", "--baseline", stock.folder / "own", "--candidate", own, "--margin-quality", "1"), 4)


DEEP = "[" * 3000


@pytest.mark.parametrize("file", ["model_index.json", "scheduler/scheduler_config.json", "unet/config.json"])
@pytest.mark.parametrize("content", [DEEP, '{"a": ' + "1" * 5000 + "}", "\x00", "[]"])
def test_odd_json_in_a_model_folder_is_located(stock: Stock, tmp_path: Path, file: str, content: str) -> None:
    folder = model_of(stock, tmp_path)
    (folder / file).write_text(content)
    refused(drive("plan", tmp_path / "suite.toml"), 2, str(folder / file))
    refused(drive("doctor", "--suite", tmp_path / "suite.toml"), 4, str(folder / file))


def model_of(stock: Stock, place: Path) -> Path:
    (place / "prompts.txt").write_text(TEXTS)
    (place / "suite.toml").write_text(TINY.format(model="model"))
    return Path(shutil.copytree(stock.folder / "model", place / "model"))


def test_a_scheduler_that_its_configuration_breaks_is_located(stock: Stock, tmp_path: Path) -> None:
    file = model_of(stock, tmp_path) / "scheduler" / "scheduler_config.json"
    edit(file, lambda c: c.update(beta_schedule=[[1, "*"], [3]]))
    refused(drive("plan", tmp_path / "suite.toml"), 2, str(file), "NotImplementedError")
    refused(drive("doctor", "--suite", tmp_path / "suite.toml"), 4, str(file))


@pytest.mark.parametrize("name", ["prompts.json", "prompts.jsonl"])
def test_a_number_of_too_many_digits_in_a_prompt_file_is_located(stock: Stock, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text('{"prompt": ' + "1" * 5000 + "}\n")
    suite = stock.suite(tmp_path)
    suite.write_text(suite.read_text().replace("prompts.txt", name))
    refused(drive("plan", suite), 2, name)


@pytest.mark.parametrize("value", ["1e308", "-1e308", "1e200", "1e-320"])
@pytest.mark.parametrize("column", ["energy_j", "duration_s", "quality:q"])
def test_numbers_beyond_arithmetic_are_not_imported(tmp_path: Path, column: str, value: str) -> None:
    table = tmp_path / "table.csv"
    row = {"variant": "a", "prompt_id": "p", "seed": "1", "energy_j": "3", "duration_s": "2", "quality:q": "0.5"}
    rows = [row, row | {"prompt_id": "o", column: value}]
    lines = [list(row), *(list(r.values()) for r in rows)]
    table.write_text("\n".join(",".join(line) for line in lines) + "\n")
    refused(drive("import", table, "--out", tmp_path / "run"), 2, "table.csv", "row 2", column)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("value", [1e308, float("inf"), float("nan"), -1e308])
@pytest.mark.parametrize(
    ("table", "column"), [("scores", "value"), ("points", "quality"), ("points", "energy_j_per_image")]
)
def test_a_report_of_numbers_without_a_size_is_written(own: Path, table: str, column: str, value: float) -> None:
    file = own / f"{table}.parquet"
    frame = pl.read_parquet(file)
    frame.with_columns(pl.Series(column, [value] * len(frame), dtype=pl.Float64)).write_parquet(file)
    refused(drive("report", own), 0)
    refused(drive("frontier", own, "--json"), 0)


def test_what_a_message_quotes_moves_no_cursor(stock: Stock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(stock.folder / "store", tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    (path,) = Path.cwd().rglob("own.json.gz")
    record = json.loads(gzip.decompress(path.read_bytes()))
    record["tables"]["points"]["quality"][0] = "\x1b[31mred\u202e"
    path.write_bytes(gzip.compress(json.dumps(record).encode()))
    ended = drive("gate", "--baseline", "own", "--candidate", stock.folder / "own")
    refused(ended, 4, "own.json.gz", "red")
    assert "\u202e" not in ended.err


def resumed(run: Path, stock: Stock, *more: str) -> Any:
    with fakes():
        return drive("run", stock.folder / "suite.toml", "--resume", "--out", run, "--quiet", *more)


@pytest.mark.parametrize(
    ("file", "change", "words"),
    [
        ("trials.jsonl", lambda row: row["image_sha256"].pop(), "image_sha256"),
        ("trials.jsonl", lambda row: row["steps"].append(3), "steps"),
        ("trials.jsonl", lambda row: row.pop("trial_id"), "trial_id"),
        ("trials.jsonl", lambda row: row.update(cell_id=None), "cell_id"),
        ("traces.jsonl", lambda row: row.pop("trial_id"), "trial_id"),
        ("traces.jsonl", lambda row: row.update(t_s=[0.0]), ""),
        ("traces.jsonl", lambda row: row.update(power_w="high"), ""),
    ],
)
def test_damage_in_a_journal_is_located_before_the_run_goes_on(
    stock: Stock, tmp_path: Path, file: str, change: Callable[[Any], object], words: str
) -> None:
    run = stock.run("cut", tmp_path)
    rows = [json.loads(line) for line in (run / file).read_text().splitlines()]
    if not rows:  # the meter of the fakes has no samples
        trial = json.loads((run / "trials.jsonl").read_text().splitlines()[0])["trial_id"]
        rows = [{"trial_id": trial, "t_s": [0.0, 1.0], "power_w": [1.0, 1.0], "source": "s"}]
    change(rows[0])
    (run / file).write_text("".join(json.dumps(row) + "\n" for row in rows))
    refused(resumed(run, stock), 4, str(run), file, words)


def test_a_trial_that_occurs_twice_is_not_counted_twice(own: Path, stock: Stock) -> None:
    lines = (own / "trials.jsonl").read_text().splitlines()
    (own / "trials.jsonl").write_text("\n".join([*lines, lines[0]]) + "\n")
    name = json.loads(lines[0])["trial_id"]
    refused(drive("gate", "--baseline", stock.folder / "own", "--candidate", own), 4, name, "twice")
    refused(drive("report", own), 4, name, "twice")
    refused(resumed(own, stock), 4, name, "twice")


@pytest.mark.parametrize("phases", ["'", "[1]", '{"denoise": "soon"}', '{"denoise": NaN}'])
def test_seconds_of_phases_that_are_none_are_located(own: Path, phases: str) -> None:
    rows = [json.loads(line) for line in (own / "trials.jsonl").read_text().splitlines()]
    rows[1]["phases_s"] = phases
    (own / "trials.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (own / "trials.parquet").unlink(missing_ok=True)
    refused(drive("report", own), 4, rows[1]["trial_id"], "phases_s")


@pytest.mark.parametrize("temperature", ["0.0", "-1.0"])
def test_a_temperature_that_is_none_is_located(own: Path, temperature: str) -> None:
    text = (own / "metrics.json").read_text()
    assert '"temperature": null' in text
    (own / "metrics.json").write_text(text.replace('"temperature": null', f'"temperature": {temperature}'))
    refused(drive("report", own), 4, "metrics.json", "temperature")


@pytest.mark.parametrize("number", ["1e400", "Infinity", "NaN"])
def test_a_number_that_is_not_finite_is_located(
    own: Path, stock: Stock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: str
) -> None:
    shutil.copytree(stock.folder / "store", tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    (path,) = Path.cwd().rglob("own.json.gz")
    text = gzip.decompress(path.read_bytes()).decode()
    path.write_bytes(gzip.compress(text.replace('"cpu_count":', f'"more": {number}, "cpu_count":', 1).encode()))
    refused(drive("gate", "--baseline", "own", "--candidate", stock.folder / "own"), 4, "own.json.gz", number)
    (own / "environment.json").write_text('{"more": ' + number + ', "schema": 1}')
    refused(drive("frontier", own), 4, "environment.json", number)


def test_an_image_without_a_file_is_located(own: Path) -> None:
    images = pl.read_parquet(own / "images.parquet")
    images.with_columns(file=pl.lit(None, pl.String)).write_parquet(own / "images.parquet")
    refused(drive("score", own, "--quiet"), 4, "images.parquet", images["image_id"][0])


def test_a_damaged_record_of_set_scores_is_located(own: Path) -> None:
    for content in ('{"metrics": [], "scores": [{}]}', "[]", '{"metrics": [{}], "scores": []}'):
        (own / "set_scores.json").write_text(content)
        with pytest.raises(RunError, match=r"set_scores.json: damaged"):
            write_set_scores(load_run(own), [], [])


@pytest.mark.parametrize("name", ["own", "cut"])
def test_what_was_not_damaged_goes_on(stock: Stock, tmp_path: Path, name: str) -> None:
    """The commands that the fuzz runs work on sound inputs: their refusals are due to the damage."""
    run = stock.run(name, tmp_path)
    with fakes():
        refused(drive("run", stock.folder / "suite.toml", "--resume", "--out", run, "--quiet"), 0)
        refused(drive("score", run, "--quiet"), 0)
    refused(drive("report", run), 0)
