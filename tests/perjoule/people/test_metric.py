"""People as a metric of a run: in frontier, recommend and gate like any other, and always by name."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy.stats import spearmanr

from perjoule.commands.options import judged_pair
from perjoule.errors import EvidenceError, UsageError
from perjoule.gating import GateConfig, gate
from perjoule.gating.recommend import recommend
from perjoule.people.creating import BASELINE, StudyRequest, new_study
from perjoule.people.folder import add_answers
from perjoule.people.metric import RunWithPeople, scaled, with_people
from perjoule.people.records import Study
from perjoule.people.scaling import fit
from perjoule.runs.directory import Run, load_run
from perjoule.statistics.frontier import read_frontier
from tests.support.observers import answer_file, answers, choice_table
from tests.support.stored_runs import stored_run
from tests.support.tables_of_runs import imported, table

# more steps are better, up to a point
JOD = {"001": -1.2, "004": 0.2, "012": 0.6}


def jod_of(arm: str) -> float:
    return JOD[arm[-3:]] + (0.2 if "student" in arm else -0.2)


def answered(study: Study, folder: Path, provenance: Any = "simulated", **more: int) -> Path:
    given = answers(study, {arm: jod_of(arm) for arm in study.arms}, **more)
    given = [replace(answer, provenance=provenance) for answer in given]
    file = folder.parent / f"answers-{folder.name}.json"
    file.write_text(answer_file(study, given), encoding="utf-8")
    add_answers(folder, [file])
    return folder


@pytest.fixture(scope="module")
def judged(made: tuple[Study, Path], run: Run, tmp_path_factory: pytest.TempPathFactory) -> RunWithPeople:
    folder = shutil.copytree(made[1], tmp_path_factory.mktemp("judged") / "study")
    return with_people(run, answered(made[0], folder))


def test_points_are_those_of_the_study(judged: RunWithPeople) -> None:
    frontier = read_frontier(judged)
    assert (frontier.metric, frontier.track) == ("simulated-observers", "preference")
    points = {point.cell_id: point for point in frontier.points}
    for arm in judged.scale.arms:
        quality = points[arm.arm].quality
        assert quality.value == pytest.approx(arm.jod, abs=1e-9)
        assert quality.low < arm.jod < quality.high
        assert points[arm.arm].quality_p10.value is None  # a single contribution has no meaning
    assert frontier.frontier
    gains = [m.gain_per_joule for m in frontier.marginal]
    assert any(gain.low is not None for gain in gains)
    student = next(c for c in frontier.comparisons if c.test == "tiny-student")
    assert student.preference is None or student.preference.gain.value is None  # nothing is predicted by a metric


def test_the_interval_holds_the_error_that_observers_have_in_common(judged: RunWithPeople) -> None:
    wide = replace(judged, fit=replace(judged.fit, common=judged.fit.common + np.random.default_rng(0).normal(
        0, 0.5, judged.fit.common.shape)))  # fmt: skip
    widths = []
    for run in (judged, wide):
        point = next(p for p in read_frontier(run).points if p.cell_id == "tiny-teacher-012")
        widths.append(point.quality.high - point.quality.low)
    assert widths[1] > widths[0] + 1.0


def test_gains_per_kilojoule_are_over_the_cheapest(judged: RunWithPeople) -> None:
    points = {point.cell_id: point for point in read_frontier(judged).points}
    cheapest = min(points.values(), key=lambda point: point.energy_j_per_image.value)
    assert {gain.cell_id for gain in judged.gains} == set(points) - {cheapest.cell_id}
    for gain in judged.gains:
        assert gain.over == cheapest.cell_id
        if gain.jod_per_kj.value is not None:
            point = points[gain.cell_id]
            quality = point.quality.value - cheapest.quality.value
            energy = point.energy_j_per_image.value - cheapest.energy_j_per_image.value
            assert gain.jod_per_kj.value == pytest.approx(1000 * quality / energy)
            assert gain.jod_per_kj.low < gain.jod_per_kj.value < gain.jod_per_kj.high
        else:
            assert gain.reason


def test_cells_that_nobody_was_asked_about_are_in_no_arm(run: Run, tmp_path: Path) -> None:
    """A study asks about some rungs of a ladder, and those are compared."""
    asked = ("tiny-teacher-001", "tiny-teacher-012", "tiny-student-001", "tiny-student-004")
    made = new_study(run, StudyRequest(arms=asked, observers=12), tmp_path / "study")
    file = tmp_path / "answers.json"
    file.write_text(answer_file(made, answers(made, dict(zip(asked, (-1.5, 1.5, -0.5, 1.0), strict=True)))))
    add_answers(tmp_path / "study", [file])
    frontier = read_frontier(with_people(run, tmp_path / "study"))
    (found,) = frontier.comparisons
    assert (found.test, found.anchor) == ("tiny-student", "tiny-teacher")
    assert found.n_prompts == 6
    assert found.bd_energy.value is not None


def test_recommend_uses_it(judged: RunWithPeople) -> None:
    advice = recommend(judged, max_joules=1e6)
    assert advice["metric"] == "simulated-observers"
    assert advice["chosen"]["cell_id"].endswith("012")


@pytest.mark.parametrize(("provenance", "name"), [("people", "people"), ("model", "model-judge")])
def test_the_name_states_who_answered(study: tuple[Study, Path], run: Run, provenance: str, name: str) -> None:
    judged = with_people(run, answered(*study, provenance))
    spec = judged.metrics[name]
    assert judged.suite.metrics.primary == judged.metric == name
    others = {"people", "model-judge", "simulated-observers"} - {name}
    assert not others & set(judged.metrics)
    assert ("not people" in spec.description) == ("MODEL" in spec.unit) == (provenance == "model")
    assert (spec.unit == "JOD") == (provenance == "people")


def test_other_metrics_and_tables_of_the_run_stay(judged: RunWithPeople, run: Run) -> None:
    assert set(judged.metrics) == {*run.metrics, "simulated-observers"}
    assert judged.scores.filter(pl.col("metric") != judged.metric).equals(run.scores)
    assert judged.suite.metrics.primary == "simulated-observers"
    assert run.suite.metrics.primary == "scene"
    own = judged.scores.filter(pl.col("metric") == judged.metric)
    assert len(own) == 36  # 6 cells, 6 prompts


def test_agreement_of_metrics(judged: RunWithPeople, run: Run) -> None:
    agreement = {row.metric: row for row in judged.agreement}
    scene = agreement["scene"]
    values = {(r["cell_id"], r["prompt_id"]): r["value"] for r in run.scores.filter(metric="scene").to_dicts()}
    choices = judged.fit.choices
    hits = []
    for prompt, a, b, won in zip(choices.prompt, choices.first, choices.second, choices.won, strict=True):
        one, other = (values[choices.arms[i], choices.prompts[prompt]] for i in (a, b))
        hits.append(0.5 if one == other else float((one > other) == (won == 1)))
    assert scene.pairwise_accuracy.value == pytest.approx(np.mean(hits))
    assert scene.n_choices == len(hits)
    assert 0.55 < scene.pairwise_accuracy.low < scene.pairwise_accuracy.high < 1
    means = [np.mean([values[arm, p] for p in choices.prompts]) for arm in choices.arms]
    assert scene.rank_correlation.value == pytest.approx(spearmanr(means, judged.fit.jod)[0])
    # lower is better, and it falls with the steps
    assert agreement["blur"].pairwise_accuracy.value > 0.55


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run, Path]:
    """A baseline, the same as candidate but for its pictures, and a study of both."""
    folder = tmp_path_factory.mktemp("two")
    baseline = stored_run(folder / "baseline", ladder=(4, 12), variants=("tiny-teacher",), prompts=24)
    shutil.copytree(baseline.path, folder / "candidate")
    (folder / "candidate" / "images").rename(folder / "old")
    candidate = stored_run(folder / "candidate", ladder=(4, 12), variants=("tiny-teacher",), prompts=24)
    images = candidate.images.with_columns(sha256=pl.col("sha256").sort_by("image_id"))
    assert len(images)
    study = new_study(candidate, StudyRequest(observers=20, pairs=80), folder / "study", baseline=baseline)
    return baseline, candidate, answered(study, folder / "study")


def test_a_gate_judges_by_people(two: tuple[Run, Run, Path]) -> None:
    baseline, candidate, folder = two
    before, after = with_people(baseline, folder, prefix=BASELINE), with_people(candidate, folder)
    config = GateConfig(margin_energy=0.3, margin_quality=0.6)
    # the pictures are the same, which decides before anybody's answers do
    assert gate(before, after, config=config).identical_images
    vars(after)["images"] = after.images.with_columns(sha256=pl.lit("0" * 64))
    verdict = gate(before, after, config=config)
    assert verdict.metric == "simulated-observers"
    assert verdict.verdict == "pass"
    change = verdict.quality.change
    assert change.value == pytest.approx(0, abs=0.3)
    jod = {arm.arm: arm.jod for arm in after.scale.arms}
    expected = np.mean([jod[cell] - jod[BASELINE + cell] for cell in ("tiny-teacher-004", "tiny-teacher-012")])
    assert change.value == pytest.approx(expected, abs=1e-9)


def test_the_error_of_observers_widens_the_gate(two: tuple[Run, Run, Path]) -> None:
    baseline, candidate, folder = two
    config, widths = GateConfig(margin_energy=0.5, margin_quality=5.0), []
    for scatter in (0.0, 0.4):
        runs = [with_people(baseline, folder, prefix=BASELINE), with_people(candidate, folder)]
        noise = np.random.default_rng(0).normal(0, scatter, runs[0].fit.common.shape)
        runs = [replace(run, fit=replace(run.fit, common=run.fit.common + noise)) for run in runs]
        vars(runs[1])["images"] = runs[1].images.with_columns(sha256=pl.lit("0" * 64))
        change = gate(runs[0], runs[1], config=config).quality.change
        widths.append(change.high - change.low)
    assert widths[1] > widths[0] + 0.5


def test_a_study_of_one_run_cannot_gate_another(judged: RunWithPeople, run: Run) -> None:
    with pytest.raises(EvidenceError, match="--baseline BASELINE"):
        with_people(run, judged.source, prefix=BASELINE)


def test_a_study_of_other_pictures_is_refused(judged: RunWithPeople, run: Run, tmp_path: Path) -> None:
    other = load_run(shutil.copytree(run.path, tmp_path / "run"))
    vars(other)["images"] = other.images.with_columns(sha256=pl.lit("0" * 64))
    with pytest.raises(UsageError, match="has another picture there"):
        with_people(other, judged.source)
    vars(other)["images"] = run.images.filter(pl.col("cell_id") != "tiny-student-012")
    with pytest.raises(UsageError, match="has no such picture"):
        with_people(other, judged.source)


def test_a_table_judges_an_imported_run(tmp_path: Path) -> None:
    run = imported(table(ladder=(4, 16), variants=(("ladder", 1.0),), prompts=12, seeds=1), tmp_path, "base")
    prompts = run.images["prompt_id"].unique().sort()
    rows = [
        {"observer": f"o{n}", "prompt_id": p, "arm_a": "ladder-016", "arm_b": "ladder-004", "choice": "ab"[n == 0]}
        for n in range(4)
        for p in prompts
    ]
    file = tmp_path / "choices.csv"
    pl.DataFrame(rows).write_csv(file)
    judged = with_people(run, file)
    assert judged.metric == "unstated-observers"
    assert "NOT STATED" in judged.metrics[judged.metric].unit
    frontier = read_frontier(judged)
    jod = {point.cell_id: point.quality.value for point in frontier.points}
    assert jod["ladder-016"] > jod["ladder-004"]
    pl.DataFrame(rows).with_columns(arm_b=pl.lit("ladder-005")).write_csv(file)
    with pytest.raises(UsageError, match="unknown arm"):
        with_people(run, file)


def test_a_study_can_be_scaled_alone(judged: RunWithPeople) -> None:
    result = scaled(judged.source)
    assert result.arms == judged.scale.arms
    assert result.agreement == ()


def test_a_gate_fits_the_answers_once(two: tuple[Run, Run, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    baseline, candidate, folder = two
    fitted: list[Any] = []

    def counting(*arguments: Any) -> Any:
        fitted.append(arguments)
        return fit(*arguments)

    monkeypatch.setattr("perjoule.people.metric.fit", counting)
    ours, theirs = judged_pair(candidate, baseline, folder, None)
    assert len(fitted) == 1
    assert isinstance(theirs, RunWithPeople)
    apart = with_people(baseline, folder, prefix=BASELINE)
    assert theirs.scores.equals(apart.scores)
    assert theirs.arms == apart.arms
    assert theirs.path == baseline.path
    assert judged_pair(candidate, baseline, None, None) == (candidate, baseline)
    other = load_run(baseline.path)
    vars(other)["images"] = baseline.images.with_columns(sha256=pl.lit("0" * 64))
    assert isinstance(ours, RunWithPeople)
    with pytest.raises(UsageError, match="has another picture"):
        ours.with_baseline(other)


def test_tables_are_read_once_for_the_run_and_its_study(judged: RunWithPeople, run: Run) -> None:
    for name in ("images", "trials", "environment", "prompt_set"):
        assert getattr(judged, name) is getattr(judged.base, name)
    assert judged.base is run


def test_who_judged_is_a_record(judged: RunWithPeople, run: Run) -> None:
    found, scale = judged.judges, judged.scale
    assert (found.provenance, found.observers, found.answers) == ("simulated", scale.observers, scale.answers)
    assert found.sentence.startswith(f"Quality: {scale.answers} choices by {scale.observers} SIMULATED observers")
    assert run.judges is None


def test_a_table_that_does_not_say_who_answered_is_never_called_people(tmp_path: Path) -> None:
    run = imported(table(ladder=(4, 16), variants=(("ladder", 1.0),), prompts=12, seeds=1), tmp_path, "base")
    prompts = sorted(run.images["prompt_id"].unique())
    cells = ("ladder-004", "ladder-016")
    for provenance, words in ((None, "NOT STATED"), ("people", "people")):
        file = choice_table(
            tmp_path / "c.csv", lambda arm, _: float(arm[-3:]) / 8, cells, prompts, provenance=provenance
        )
        judged = with_people(run, file)
        said = [judged.metric, judged.judges.sentence, judged.scale.unit, *map(str, (judged.metrics[judged.metric],))]
        assert words in "".join(said)
        assert ("people" in "".join(said).replace("75 of 100 people", "")) == (provenance == "people")
