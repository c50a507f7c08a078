"""A study from a run: complete or not at all."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from perjoule.errors import PerjouleError, RunError, UnknownNameError, UsageError
from perjoule.people.creating import StudyRequest, new_study
from perjoule.people.folder import read_study
from perjoule.people.records import NOISE, Display, Study
from perjoule.runs.directory import Run, load_run
from perjoule.runs.pictures import PictureError
from perjoule.suite.schedule import image_id
from tests.support.stored_runs import stored_run
from tests.support.synthetic import HOSTILE
from tests.support.tables_of_runs import imported, table


def test_the_folder_holds_page_pictures_and_study(made: tuple[Study, Path], run: Run) -> None:
    study, folder = made
    assert read_study(folder) == study
    assert (folder / "index.html").is_file()
    assert study.arms == tuple(f"tiny-{who}-{n:03d}" for who in ("teacher", "student") for n in (1, 4, 12))
    assert {p.name for p in (folder / "pictures").iterdir()} == {Path(p.file).name for p in study.pictures}
    stored = dict(zip(run.images["image_id"], run.images["sha256"], strict=True))
    for picture in study.pictures:
        assert hashlib.sha256((folder / picture.file).read_bytes()).hexdigest() == picture.sha256
        if picture.arm != NOISE:
            assert stored[image_id(picture.arm, picture.prompt_id, picture.seed)] == picture.pixels_sha256
        assert "tiny" not in picture.file  # blind
    numbers = [study.arms.index(p.arm) for p in study.pictures if p.arm in study.arms]
    assert numbers != sorted(numbers)  # the number of a picture does not disclose its arm either
    assert study.planned.answers == 8 * 40


def test_the_same_request_makes_the_same_study(run: Run, made: tuple[Study, Path], tmp_path: Path) -> None:
    assert new_study(run, StudyRequest(pairs=40, observers=8), tmp_path / "again") == made[0]
    other = new_study(run, StudyRequest(pairs=40, observers=8, seed=1), tmp_path / "other")
    assert other.study_id != made[0].study_id


def test_small_pictures_are_enlarged_by_whole_numbers(
    made: tuple[Study, Path], run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    width = made[0].pictures[0].width_px
    assert width <= 256
    assert made[0].display == Display(scaling="pixelated")
    monkeypatch.setattr("perjoule.people.creating._SMALL_PX", width - 1)
    assert new_study(run, StudyRequest(observers=2), tmp_path / "out").display == Display(scaling="auto")


def test_arms_are_cells_or_variants(run: Run, tmp_path: Path) -> None:
    study = new_study(run, StudyRequest(arms=["tiny-student", "tiny-teacher-012"], observers=2), tmp_path / "out")
    assert study.arms == ("tiny-teacher-012", "tiny-student-001", "tiny-student-004", "tiny-student-012")
    assert study.planned.main_trials == 36  # 6 pairs for each of 6 prompts


def test_a_reference_is_the_longest_run_and_not_an_arm(run: Run, tmp_path: Path) -> None:
    study = new_study(run, StudyRequest(question="reference", observers=2), tmp_path / "out")
    references = {(p.prompt_id, p.seed): p for p in study.pictures if p.arm is None}
    assert len(references) == len(study.prompts)
    by_id = {p.picture_id: p for p in study.pictures}
    assert len(study.arms) == 5  # of 6 cells
    for trial in study.trials:
        assert trial.reference is not None
        assert by_id[trial.reference].prompt_id == trial.prompt_id
    (own,) = {"tiny-student-012", "tiny-teacher-012"} - set(study.arms)
    with pytest.raises(UsageError, match="the reference itself"):
        new_study(run, StudyRequest(question="reference", arms=[own, "tiny-teacher-001"]), tmp_path / "other")


def test_a_baseline_gives_arms_of_its_own(run: Run, tmp_path: Path) -> None:
    study = new_study(run, StudyRequest(observers=2), tmp_path / "out", baseline=run)
    assert study.arms[6:] == tuple(f"baseline:{arm}" for arm in study.arms[:6])


@pytest.mark.parametrize(
    ("request_", "error", "words"),
    [
        (StudyRequest(arms=["tiny-teacher-012"]), UsageError, "at least two arms"),
        (StudyRequest(arms=["tiny-teacher-01"]), UnknownNameError, "did you mean 'tiny-teacher-012'"),
        (StudyRequest(pairs=91), UsageError, "6 arms and 6 prompts make 90 different pairs"),
        (StudyRequest(pairs=0), UsageError, "give 1 to 90"),
        (StudyRequest(observers=0), UsageError, "--observers 0"),
        (StudyRequest(prompts=7), UsageError, "--limit 7: give 1 to 6"),
    ],
)
def test_what_cannot_be_met_is_one_error_and_nothing_is_written(
    run: Run, tmp_path: Path, request_: StudyRequest, error: type[PerjouleError], words: str
) -> None:
    with pytest.raises(error, match=words):
        new_study(run, request_, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_run_without_images_is_refused(tmp_path: Path) -> None:
    run = imported(table(ladder=(4, 16), variants=(("ladder", 1.0),), prompts=3, seeds=1), tmp_path, "base")
    with pytest.raises(RunError, match="has no images"):
        new_study(run, StudyRequest(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_changed_picture_is_refused(run: Run, tmp_path: Path) -> None:
    copy = load_run(shutil.copytree(run.path, tmp_path / "run"))
    first, second = (copy.path / name for name in copy.images["file"][:2])
    shutil.copy(second, first)
    with pytest.raises(PictureError, match="not the picture that was measured"):
        new_study(copy, StudyRequest(), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_folder_with_content_stays(run: Run, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("x")
    with pytest.raises(UsageError, match="not an empty folder"):
        new_study(run, StudyRequest(), tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]


def test_models_without_a_common_reference_are_refused(tmp_path: Path) -> None:
    run = stored_run(tmp_path / "run", prompts=2, ladder=(1, 4))
    suite = run.suite
    two = tuple(replace(variant, family=variant.name) for variant in suite.variants)
    vars(run)["suite"] = replace(suite, variants=two)
    with pytest.raises(UsageError, match="belong to several models"):
        new_study(run, StudyRequest(question="reference"), tmp_path / "out")


def test_whole_numbers_and_long_texts(run: Run, tmp_path: Path) -> None:
    new_study(run, StudyRequest(observers=2, display=Display(width_mm=80)), tmp_path / "out")
    assert read_study(tmp_path / "out").display.width_mm == 80
    with pytest.raises(UsageError, match="title"):
        new_study(run, StudyRequest(observers=2, title="x" * 30_000), tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_hostile_prompts_are_only_text(tmp_path: Path) -> None:
    run = stored_run(tmp_path / "run", prompts=HOSTILE, ladder=(1, 4))
    study = new_study(run, StudyRequest(observers=2, title=HOSTILE[0], contact=HOSTILE[1]), tmp_path / "out")
    assert {prompt.text for prompt in study.prompts} == set(run.prompts.values())
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    assert json.loads((tmp_path / "out" / "study.json").read_text(encoding="utf-8"))["title"] == HOSTILE[0]
