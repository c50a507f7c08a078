"""The section with the answers of people, and what the headline says of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.observers import answer_file, answers
from tests.support.reports import rendered, section
from tests.support.stored_runs import stored_run

from perjoule.people.creating import StudyRequest, new_study
from perjoule.people.folder import add_answers
from perjoule.people.metric import RunWithPeople, with_people
from perjoule.runs.directory import Run
from perjoule.statistics.benefit import gain_per_joule
from perjoule.statistics.drawn import drawn_once
from perjoule_reports import build_report

JOD = {"001": -1.2, "004": 0.2, "012": 0.6}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return stored_run(tmp_path_factory.mktemp("runs") / "run", prompts=12)


def judged(run: Run, folder: Path, provenance: str) -> RunWithPeople:
    study = new_study(run, StudyRequest(observers=10, pairs=60), folder / "study")
    given = answers(study, {arm: JOD[arm[-3:]] for arm in study.arms}, careless=1)
    given = [replace(answer, provenance=provenance) for answer in given]  # type: ignore[arg-type]
    (folder / "answers.json").write_text(answer_file(study, given), encoding="utf-8")
    add_answers(folder / "study", [folder / "answers.json"])
    return with_people(run, folder / "study")


def test_people_are_counted_and_their_gain_per_kilojoule_is_in_the_headline(run: Run, tmp_path: Path) -> None:
    asked = judged(run, tmp_path, "people")
    report = build_report(asked)
    people = section(report, "people")
    assert people.title == "People"
    assert "540 choices by 9 people" in people.sample
    scores, excluded, agreement = people.tables
    assert [row[0].text for row in scores.rows] == [arm.arm for arm in asked.scale.arms]
    assert excluded.rows[0][2].text == asked.scale.excluded[0].reason.replace("-", "-")
    assert {row[0].text for row in agreement.rows} == {"scene", "clip_text", "iclip", "blur"}
    # the gain of the best arm over the cheapest, from the draws of the frontier
    drawn = drawn_once(asked)
    best, cheapest = (drawn.grid.cells.index(cell) for cell in (asked.scale.arms[0].arm, "tiny-student-001"))
    gain, _ = gain_per_joule(drawn.draws.paired("people", [cheapest], [best]), (2, 3), (0, 1))
    tile = report.headline.tiles[-1]
    assert "JOD per kJ" in tile.label
    assert float(tile.value.replace("\N{MINUS SIGN}", "-").replace(" ", "")) == pytest.approx(
        1000 * gain.value, rel=0.05
    )
    assert report.headline.support[0].startswith("Quality: 540 choices by 9 people")
    text = rendered(report)
    assert "no human ratings" not in text
    assert "predicted by the metric" not in text
    assert "SIMULATED" not in text


def test_simulated_observers_are_never_called_people(run: Run, tmp_path: Path) -> None:
    report = build_report(judged(run, tmp_path, "simulated"))
    assert section(report, "people").title == "Observers that are not people"
    badge = next(badge for badge in report.badges if badge.label == "judged by")
    assert (badge.tone, "SIMULATED" in badge.value) == ("alarm", True)
    assert "people" not in badge.value.replace("not people", "")
    assert "SIMULATED" in report.headline.support[0]
    assert "SIMULATED" in report.headline.tiles[-1].label


def test_a_model_as_judge_is_never_called_people(run: Run, tmp_path: Path) -> None:
    report = build_report(judged(run, tmp_path, "model"))
    assert "a MODEL as judge" in report.headline.support[0]
    assert report.payload["primary_metric"] == "model-judge"


def test_a_report_without_a_study_stays_as_it_was(run: Run) -> None:
    report = build_report(run)
    assert all(one.anchor != "people" for one in report.sections)
    assert report.payload["people"] is None
    assert "no human ratings" in rendered(report)
