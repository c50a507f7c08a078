"""`perjoule study …`, and `--study` of the verbs that judge."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.support.observers import answer_file, answers
from tests.support.stored_runs import stored_run
from typer.testing import CliRunner

from perjoule.cli import app
from perjoule.errors import PerjouleError
from perjoule.people.folder import read_study

JOD = {"001": -1.2, "004": 0.2, "012": 0.6}


def said(*arguments: str | Path) -> str:
    """Stdout of a verb that succeeds."""
    ended = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert ended.exit_code == 0, ended.output
    return ended.stdout


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, a study of it that simulated observers answered, and one that people answered."""
    folder = tmp_path_factory.mktemp("study")
    stored_run(folder / "run")
    for name, provenance in (("study", "simulated"), ("asked", "people")):
        said("study", "new", folder / "run", "--out", folder / name, "--observers", "8", "--pairs", "40")
        study = read_study(folder / name)
        given = answers(study, {arm: JOD[arm[-3:]] for arm in study.arms}, careless=2)
        given = [replace(answer, provenance=provenance) for answer in given]  # type: ignore[arg-type]
        (folder / f"{name}.json").write_text(answer_file(study, given), encoding="utf-8")
        assert "known already" in said("study", "add", folder / name, folder / f"{name}.json")
    return folder


def test_new_says_what_was_made(place: Path) -> None:
    made = json.loads(said("study", "new", place / "run", "--out", place / "json", "--arms",
                           "tiny-student,tiny-teacher-001", "--json"))  # fmt: skip
    assert made["study_id"] == read_study(place / "json").study_id
    assert len(made["arms"]) == 4
    assert made["trials_per_observer"] > made["answers"] / made["observers"]


def test_plan_takes_the_numbers_of_a_study(place: Path) -> None:
    planned = json.loads(said("study", "plan", place / "study", "--json"))
    assert (planned["arms"], planned["main_trials"]) == (6, 40)
    assert "answers for ±0.2 JOD" in said("study", "plan", "--arms", "8", "--half-width", "0.2")
    with pytest.raises(PerjouleError, match="--arms N"):
        said("study", "plan")


def test_scale_names_those_who_answered(place: Path) -> None:
    text = said("study", "scale", place / "study", "--run", place / "run")
    assert "6 SIMULATED observers, not people" in text
    assert "excluded 000000" in text
    assert "people" not in text.replace("not people", "")
    asked = said("study", "scale", place / "asked")
    assert "by 6 people" in asked
    assert "SIMULATED" not in asked
    record = json.loads(said("study", "scale", place / "study", "--run", place / "run", "--json"))
    gains = {row["cell_id"]: row["jod_per_kj"] for row in record["gains"]}
    assert gains["tiny-teacher-012"]["low"] < gains["tiny-teacher-012"]["value"] < gains["tiny-teacher-012"]["high"]
    assert "JOD per kJ" in text
    assert {row["metric"] for row in record["agreement"]} == {"scene", "clip_text", "iclip", "blur"}
    assert (record["provenance"], len(record["excluded"])) == ("simulated", 2)


def test_frontier_and_recommend_judge_by_people(place: Path) -> None:
    text = said("frontier", place / "run", "--study", place / "asked")
    assert "240 choices by 6 people" in text
    assert json.loads(said("frontier", place / "run", "--study", place / "asked", "--json"))["metric"] == "people"
    simulated = said("frontier", place / "run", "--study", place / "study")
    assert "simulated-observers" in simulated
    assert "SIMULATED observers, not people" in simulated
    # another metric of the run can still be asked for
    assert json.loads(said("frontier", place / "run", "--study", place / "asked", "--metric", "scene", "--json"))[
        "metric"
    ] == "scene"  # fmt: skip
    advice = json.loads(said("recommend", place / "run", "--study", place / "asked", "--max-joules", "1e6", "--json"))
    assert advice["metric"] == "people"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["frontier", "run", "--metric", "people"], "give --study"),
        (["frontier", "run", "--metric", "people", "--study", "study"], "metric is simulated-observers"),
        (["frontier", "run", "--study", "nothing"], "nothing"),
        (["study", "add", "study", "asked.json"], "another study|differs|never pooled"),
        (["study", "scale", "json-of-nothing.csv"], "no such file"),
        (["gate", "--baseline", "run", "--candidate", "run", "--study", "asked"], "--baseline BASELINE"),
        (["study", "new", "run", "--out", "study"], "not an empty folder"),
    ],
)
def test_errors(place: Path, arguments: list[str], words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    before = sorted(path.name for path in place.iterdir())
    with pytest.raises(PerjouleError, match=words):
        said(*arguments)
    assert sorted(path.name for path in place.iterdir()) == before


@pytest.mark.slow
def test_a_report_shows_the_study_on_every_surface(place: Path) -> None:
    pages: dict[str, Any] = {}
    for name in ("study", "asked"):
        out = place / f"{name}.html"
        said("report", place / "run", "--study", place / name, "--out", out)
        pages[name] = out.read_text(encoding="utf-8"), json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))
    html, result = pages["asked"]
    assert "JOD per kJ" in html
    assert "240 choices by 6 people" in html
    assert "SIMULATED" not in html
    assert (result["primary_metric"], result["people"]["provenance"]) == ("people", "people")
    html, result = pages["study"]
    assert "SIMULATED observers, not people" in html
    assert result["primary_metric"] == "simulated-observers"
    assert len(result["people"]["excluded"]) == 2
