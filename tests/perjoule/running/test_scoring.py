from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from perjoule.errors import SuiteError
from perjoule.protocols import SetOutcome
from perjoule.running import pipeline, scoring
from perjoule.running.prepared import prepare
from perjoule.running.scoring import PARTIAL, image_set, open_work, subset
from perjoule.runs.directory import Run, load_run
from perjoule.types import Metrics, Score
from tests.perjoule.running.test_execute import do, fresh, make_suite
from tests.perjoule.statistics.test_points import spec


class Quiet:
    """Remembers what a person would have been told."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.totals: list[int] = []
        self.done: list[tuple[int, str]] = []

    def message(self, text: str) -> None:
        self.messages.append(text)

    @contextmanager
    def stage(self, name: str, total: int, unit: str, resumed: float = 0.0) -> Iterator[Quiet]:
        self.totals.append(total)
        yield self

    def expect(self, total: int, share: float) -> None:
        """Scoring has no rounds."""

    def update(self, done: int, note: str = "", share: float | None = None) -> None:
        self.done.append((done, note))


class Counting:
    """Scores an image with the number of letters of its id, and stops or fails after so many images."""

    def __init__(self, stops_after=None, error=None, digest="none"):
        self.seen = []
        self.spec = replace(spec("counting"), weights_digest=digest)
        self._stops_after, self._error = stops_after, error

    def score(self, images, on_progress):
        found = []
        for image_id in images.image_ids:
            if self._stops_after is not None and len(self.seen) == self._stops_after:
                raise self._error or KeyboardInterrupt
            self.seen.append(image_id)
            found.append(Score(image_id=image_id, metric="counting", value=float(len(image_id))))
            on_progress(1)
        return found


class Spread:
    """A metric of sets: how many images there are."""

    spec = replace(spec("spread", direction="lower"), advisory=True)

    def score_set(self, images, indices, on_progress):
        on_progress(len(indices))
        if len(indices) == 0:
            return SetOutcome(value=None, reason_unscored="no images")
        return SetOutcome(value=float(len(indices)), notes=("few images",))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Twelve images of two cells, looked at five at a time."""
    monkeypatch.setattr(scoring, "_PART", 5)
    monkeypatch.setattr(pipeline, "operating_points", lambda run: run.scores)
    suite = make_suite()
    do(suite, fresh(tmp_path / "run", suite))
    return load_run(tmp_path / "run")


def test_a_stopped_scoring_goes_on_where_it_was(run):
    with pytest.raises(KeyboardInterrupt):
        pipeline.score(run, [Counting(stops_after=7)], Quiet())
    assert (run.path / PARTIAL).read_text().count("\n") == 5  # the part that was finished
    assert not (run.path / "scores.parquet").exists()

    told, metric = Quiet(), Counting()
    done = pipeline.score(load_run(run.path), [metric], told)
    assert len(metric.seen) == 7
    assert told.messages == ["scoring continues: 5 scores exist from an interrupted scoring"]
    assert told.totals == [7]
    assert told.done[-1] == (7, "counting")  # so that the time left is that of what is left
    assert done.scores.height == 12
    assert done.scores["value"].to_list() == [float(len(i)) for i in done.scores["image_id"]]
    assert not (run.path / PARTIAL).exists()


def test_a_torn_last_line_is_scored_again(run):
    with pytest.raises(KeyboardInterrupt):
        pipeline.score(run, [Counting(stops_after=7)], Quiet())
    text = (run.path / PARTIAL).read_text()
    (run.path / PARTIAL).write_text(text[:-9])
    metric = Counting()
    assert pipeline.score(run, [metric], Quiet()).scores.height == 12
    assert len(metric.seen) == 8


def test_other_weights_or_options_do_not_go_on(run):
    with pytest.raises(KeyboardInterrupt):
        pipeline.score(run, [Counting(stops_after=7)], Quiet())
    images = image_set(run)
    (same,) = open_work(run, images, [Counting()])
    (other,) = open_work(run, images, [Counting(digest="0" * 64)])
    suite = replace(run.suite, metrics=Metrics(primary="x", names=("x",), options={"counting": {"k": 1}}))
    run.__dict__["suite"] = suite
    (changed,) = open_work(run, images, [Counting()])
    assert [len(w.stored) for w in (same, other, changed)] == [5, 0, 0]


def test_what_was_finished_is_scored_anew(run):
    for _ in range(2):
        metric = Counting()
        pipeline.score(run, [metric], Quiet())
        assert len(metric.seen) == 12


def test_a_metric_that_fails_costs_neither_the_others_nor_what_it_had_done(run):
    done = pipeline.score(run, [Counting(stops_after=7, error=ValueError("cold")), Other()], Quiet())
    by_metric = done.scores.partition_by("metric", as_dict=True)
    failing, other = by_metric[("counting",)], by_metric[("other",)]
    assert failing["value"].null_count() == 7
    assert set(failing["reason_unscored"].drop_nulls()) == {"ValueError: cold"}
    assert other["value"].null_count() == 0


class Other(Counting):
    def __init__(self):
        super().__init__()
        self.spec = spec("other")

    def score(self, images, on_progress):
        return [replace(s, metric="other") for s in super().score(images, on_progress)]


def test_images_that_share_a_reference_are_looked_at_together(run):
    metric = Counting()
    pipeline.score(run, [metric], Quiet())
    images = image_set(run)
    reference = dict(zip(images.image_ids, images.reference_ids, strict=True))
    order = [reference[i] for i in metric.seen]
    assert order == sorted(order)
    assert order != [reference[i] for i in images.image_ids]


def test_a_subset_loads_its_own_images(run):
    images = image_set(run)
    some = subset(images, [7, 2])
    assert some.image_ids == [images.image_ids[7], images.image_ids[2]]
    assert (some.images(0) == images.images(7)).all()
    assert (some.references(1) == images.references(2)).all()
    assert some.all_prompts == images.all_prompts


def test_metrics_of_sets_go_into_a_file_of_their_own_and_on_no_frontier(run):
    told = Quiet()
    done = pipeline.score(run, [Counting(), Spread()], told)
    assert told.totals == [24]
    assert "ADVISORY spread: few images" in told.messages
    assert [(s.cell_id, s.value, s.image_count, s.notes) for s in done.set_scores] == [
        ("v-001", 6.0, 6, ("few images",)),
        ("v-004", 6.0, 6, ("few images",)),
    ]
    assert set(done.metrics) == {"counting"}
    stored = json.loads((run.path / "set_scores.json").read_text())
    assert stored["metrics"][0]["advisory"] is True
    again = pipeline.score(load_run(run.path), [Spread()], Quiet())
    assert len(again.set_scores) == 2


class Hungry(Spread):
    def score_set(self, images, indices, on_progress):
        raise MemoryError("4 GiB")


def test_a_metric_of_sets_that_fails_costs_nothing_else(run):
    done = pipeline.score(run, [Counting(), Hungry()], Quiet())
    assert {s.reason_unscored for s in done.set_scores} == {"MemoryError: 4 GiB"}
    assert done.scores.height == 12


def test_a_metric_of_sets_cannot_be_the_primary_one(tmp_path):
    (tmp_path / "p.txt").write_text("a cat\n")
    (tmp_path / "s.toml").write_text(
        'name = "s"\ntitle = ""\ndescription = ""\n[prompts]\nsource = "p.txt"\n[protocol]\n'
        '[metrics]\nprimary = "fid"\nnames = ["fid", "lsnr"]\n'
        '[[variants]]\nname = "v"\nmodel = "builtin:sd-tiny"\nsteps = [1]\n'
    )
    with pytest.raises(SuiteError, match=r"metrics\.primary = 'fid': it scores sets"):
        prepare(str(tmp_path / "s.toml"))


def test_full_reference_scores_of_unlike_images_have_a_warning(run: Run) -> None:
    """A run without such metrics may mix starting points; its scores by one must say so."""
    record = json.loads((run.path / "environment.json").read_text())
    record["unlike_references"] = ["s.toml: variants[0] = 'a': a-004 begins at timestep 750, but a-050 at 980"]
    (run.path / "environment.json").write_text(json.dumps(record))
    told = Quiet()
    pipeline.score(load_run(run.path), [Counting()], told)
    assert not [text for text in told.messages if "unlike" in text]
    comparing = Counting()
    comparing.spec = replace(comparing.spec, needs_reference=True, track="fidelity")
    pipeline.score(load_run(run.path), [comparing], told)
    (warning,) = [text for text in told.messages if "unlike" in text]
    assert "a-004 begins at timestep 750" in warning
