from __future__ import annotations

import base64
import io
import re
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from PIL import Image

from perjoule.runs.pictures import pixel_digest
from perjoule_reports import build_report, render_html
from perjoule_reports.drawing.thumbs import MOST_PICTURES, SHEET_BUDGET, Encoded, Stored, encode_all
from perjoule_reports.evidence import read_evidence
from perjoule_reports.records import Headline
from perjoule_reports.sections.pictures import albums, pictured_arms, pictures_section

pytestmark = pytest.mark.slow


def found(run, baseline=None):
    return {album.title: album for album in albums(run, read_evidence(run), None, baseline)}


def encode(picture, side):
    (one,) = encode_all([picture], sides=(side,))
    return one


def opened(uri):
    return Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/webp;base64,"))))


def test_best_median_and_worst_pair_follow_from_the_scores(usual):
    evidence = read_evidence(usual)
    test, anchor = pictured_arms(evidence)[:2]
    wide = usual.scores.filter(pl.col("metric") == "scene").pivot(
        on="cell_id", index=["prompt_id", "seed"], values="value"
    )
    differences = (wide[test.cell_id] - wide[anchor.cell_id]).sort()
    strips = found(usual)["Side by side"].strips
    assert [s.remark.split()[0] for s in strips] == ["best", "median", "worst"]
    for strip, place in zip(strips, (-1, (len(differences) - 1) // 2, 0), strict=True):
        assert [t.cell_id for t in strip.thumbs[:2]] == [test.cell_id, anchor.cell_id]
        seed = int(strip.remark.rsplit(" ", 1)[1])
        pid = next(p for p, text in usual.prompts.items() if text == strip.prompt)
        row = wide.filter((pl.col("prompt_id") == pid) & (pl.col("seed") == seed))
        assert row[test.cell_id][0] - row[anchor.cell_id][0] == pytest.approx(differences[place])
        scores = [float(t.lines[-1].split()[-1]) for t in strip.thumbs[:2]]
        assert scores == pytest.approx([row[test.cell_id][0], row[anchor.cell_id][0]], abs=0.006)


def test_lower_is_better_turns_best_and_worst_round(synthetic, tmp_path):
    run = synthetic.make_run(tmp_path, prompts=6, ladder=(1, 12), seeds=(1,), metrics=("blur",))
    run = replace(run, suite=replace(run.suite, metrics=replace(run.suite.metrics, primary="blur")))
    best, _, worst = found(run)["Side by side"].strips

    def change(strip):
        test, anchor = (float(t.lines[-1].split()[-1]) for t in strip.thumbs[:2])
        return test - anchor

    assert change(best) < change(worst)


def test_the_ladder_runs_up_and_the_predicted_steps_stand_in_their_place(synthetic, tmp_path):
    run = synthetic.make_run(tmp_path, prompts=6, ladder=(1, 2, 4, 8, 25, 50), seeds=(1,), metrics=("scene",))
    # the student plays the predictor: it took 8 steps, which the teacher's ladder has too
    picked = pl.col("variant") == "tiny-student"
    role = pl.when(picked).then(pl.lit("predicted")).otherwise(pl.col("role")).alias("role")
    policy = pl.when(picked).then(pl.lit("budgetfusion")).otherwise(pl.col("policy")).alias("policy")
    run = replace(run, points=run.points.filter(~picked | (pl.col("steps_mean") == 8)).with_columns(role, policy))
    run = replace(run, trials=run.trials.clear())
    for strip in found(run)["Along the step ladder"].strips:
        steps = [int(t.label.split()[0]) for t in strip.thumbs]
        assert steps == sorted(steps)
        assert {1, 50} <= set(steps)
        (flagged,) = [t for t in strip.thumbs if t.flag]
        assert (flagged.flag, flagged.cell_id) == ("predicted", "tiny-student-008")
        assert flagged.label == "8 steps"


def test_the_recommended_cell_is_on_the_ladder(synthetic, tmp_path):
    steps = (1, 2, 3, 4, 6, 8, 12, 16, 25, 50)
    run = synthetic.make_run(tmp_path, prompts=6, ladder=steps, seeds=(1,), metrics=("scene",))
    evidence, top = read_evidence(run), Headline(sentence="")
    for wanted in steps:
        section = pictures_section(run, evidence, top, recommended=f"tiny-teacher-{wanted:03}")
        strips = next(album for album in section.albums if album.title == "Along the step ladder").strips
        shown = {int(thumb.label.split()[0]) for thumb in strips[0].thumbs}
        assert {wanted, 1, 50} <= shown
        assert len(shown) < len(steps)


@pytest.mark.parametrize("variants", [("one",), ("one", "two", "three", "four", "five", "six")])
def test_never_more_than_the_allowed_number(synthetic, tmp_path, variants):
    run = synthetic.make_run(tmp_path, prompts=7, seeds=(1, 2), variants=variants, metrics=("scene",))
    albums_ = found(run)
    assert set(albums_) - {"All prompts"} == {"Side by side", "Along the step ladder"}
    assert sum(len(s.thumbs) for a in albums_.values() if not a.sheet for s in a.strips) <= MOST_PICTURES
    assert len(albums_["Along the step ladder"].strips) >= 2


def test_full_reference_scores_are_not_compared_between_families(synthetic, tmp_path):
    run = synthetic.make_run(tmp_path, prompts=4, ladder=(1, 4, 9), seeds=(1,), metrics=("iclip",))
    run = replace(run, suite=replace(run.suite, metrics=replace(run.suite.metrics, primary="iclip")))
    run = replace(run, points=run.points.with_columns(family=pl.col("variant")))
    assert {a.variant for a in pictured_arms(read_evidence(run))} == {"tiny-teacher"}


def test_unscored_runs_show_the_ladder_by_id(small):
    trials = small.trials.with_columns(energy_j=pl.lit(None, pl.Float64))
    bare = replace(small, trials=trials, scores=small.scores.clear(), points=small.points.clear(), metrics={})
    albums_ = found(bare)
    assert list(albums_) == ["All prompts", "Along the step ladder"]
    assert all(strip.remark == "not scored" for strip in albums_["All prompts"].strips)
    strip = albums_["Along the step ladder"].strips[0]
    assert "by id" in strip.remark
    assert all(t.lines[-1] == "not scored" for t in strip.thumbs)
    assert all(t.lines[-2] == "J not measured" for t in strip.thumbs)


def test_a_run_without_images_has_no_album(small):
    assert albums(replace(small, images=small.images.clear()), read_evidence(small)) == ()


def stored(folder, name, image=None):
    """The picture of a run; `image` is saved first."""
    if image is not None:
        image.save(folder / name)
        return Stored(folder=folder, file=name, sha256=pixel_digest(np.asarray(image.convert("RGB"))))
    return Stored(folder=folder, file=name, sha256="0" * 64)


def test_small_pictures_are_kept_pixel_for_pixel_and_large_ones_shrunk(tmp_path):
    noise = Image.effect_noise((64, 48), 90).convert("RGB")
    one = encode(stored(tmp_path, "small.png", noise), 256)
    assert (one.pixelated, one.reduced) == (True, False)
    assert opened(one.uri).convert("RGB").tobytes() == noise.tobytes()
    one = encode(stored(tmp_path, "large.png", Image.effect_noise((900, 600), 90)), 256)
    assert (one.pixelated, one.reduced) == (False, True)
    assert opened(one.uri).size == (256, 171)


def test_what_is_no_picture_is_missing(tmp_path):
    (tmp_path / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n torn")
    assert encode(stored(tmp_path, "torn.png"), 64) == Encoded()
    assert encode(stored(tmp_path, "absent.png"), 64) == Encoded()


def test_the_budget_decides_the_side(tmp_path):
    picture = stored(tmp_path, "a.png", Image.effect_noise((512, 512), 90).convert("RGB"))
    full = encode(picture, 256).uri
    every = encode_all([picture] * 3, budget=2 * len(full))
    assert sum(len(one.uri) for one in every) <= 2 * len(full)
    assert opened(every[0].uri).width < 256
    assert all(one.reduced for one in every)


def test_encoding_at_a_side_stops_once_the_first_images_show_that_not_all_fit(tmp_path, monkeypatch):
    picture = stored(tmp_path, "a.png", Image.effect_noise((64, 64), 90).convert("RGB"))
    full = len(encode(picture, 64).uri)
    save, sizes = Image.Image.save, []

    def counted(image, *arguments, **keywords):
        sizes.append(image.width)
        save(image, *arguments, **keywords)

    monkeypatch.setattr(Image.Image, "save", counted)
    # none too early: the budget is exceeded by less than the first images can show
    encode_all([picture] * 40, budget=38 * full, sides=(64, 32))
    assert sizes == [64] * 39 + [32] * 40
    sizes.clear()
    every = encode_all([picture] * 100, budget=60 * full, sides=(64, 32))
    assert [opened(one.uri).width for one in every] == [32] * 100
    assert sizes == [64] * 24 + [32] * 100


def test_every_prompt_has_a_tile_from_the_worst_to_the_best(usual):
    sheet = found(usual)["All prompts"]
    assert sheet.sheet
    assert {strip.prompt for strip in sheet.strips} == set(usual.prompts.values())
    cells = [[thumb.cell_id for thumb in strip.thumbs] for strip in sheet.strips]
    assert cells == [[arm.cell_id for arm in pictured_arms(read_evidence(usual))[:2]]] * len(cells)
    changes = [float(strip.remark.split(",")[0].split()[-1].replace("\N{MINUS SIGN}", "-")) for strip in sheet.strips]
    assert changes == sorted(changes)
    assert changes[0] < changes[-1]
    assert sum(len(thumb.uri) for strip in sheet.strips for thumb in strip.thumbs) <= SHEET_BUDGET


def with_scores(run, **values):
    """The run with these scores by metric, for all images or from a function of prompt and cell."""
    scores = run.scores
    for metric, value in values.items():
        scores = scores.with_columns(value=pl.when(pl.col("metric") == metric).then(value).otherwise(pl.col("value")))
    return replace(run, scores=scores)


@pytest.fixture(scope="module")
def two_metrics(synthetic, tmp_path_factory):
    return synthetic.make_run(
        tmp_path_factory.mktemp("two"), prompts=5, ladder=(1, 25), seeds=(1,), metrics=("scene", "clip_text")
    )


def test_a_second_metric_breaks_ties(two_metrics):
    run = with_scores(two_metrics, scene=pl.lit(1.0))
    test, anchor = (arm.cell_id for arm in pictured_arms(read_evidence(run))[:2])
    wide = run.scores.filter(pl.col("metric") == "clip_text").pivot(on="cell_id", index="prompt_id", values="value")
    ranked = wide.with_columns(d=pl.col(test) - pl.col(anchor)).sort("d")["prompt_id"]
    sheet = found(run)["All prompts"].strips
    assert [strip.prompt for strip in sheet] == [run.prompts[prompt] for prompt in ranked]
    assert all(strip.remark.startswith("0, then ") for strip in sheet)
    best, _, worst = found(run)["Side by side"].strips
    assert (worst.prompt, best.prompt) == (sheet[0].prompt, sheet[-1].prompt)


def test_one_row_and_a_sentence_if_no_pair_differs(two_metrics):
    run = with_scores(two_metrics, scene=pl.lit(1.0), clip_text=pl.lit(0.3))
    (strip,) = found(run)["Side by side"].strips
    assert strip.remark.startswith("median difference: attributes drawn 0, agreement with the prompt 0")
    section = pictures_section(run, read_evidence(run), Headline(sentence=""))
    assert section.paragraphs[0] == "No pair differs in attributes drawn and agreement with the prompt."


def test_images_without_scores_have_no_order(two_metrics):
    run = replace(two_metrics, scores=two_metrics.scores.clear(), points=two_metrics.points.clear())
    shown = found(run)
    (strip,) = shown["Side by side"].strips
    assert strip.remark == "not scored, seed 1"
    assert "worst" not in shown["All prompts"].note
    assert len(shown["Along the step ladder"].strips) == 2
    report = build_report(run)
    section = next(s for s in report.sections if s.anchor == "pictures")
    assert section.paragraphs[0] == "The images are not scored, so they are in the order of their prompts."
    assert "joules and a score" in next(s for s in report.sections if s.anchor == "frontier").empty
    assert '"#frontier"' not in render_html(report)


def test_a_gate_shows_the_same_cell_of_both_runs(two_metrics, synthetic, tmp_path):
    before = synthetic.make_run(
        tmp_path / "before", prompts=5, ladder=(1, 25), seeds=(1,), metrics=("scene", "clip_text"), watts=64
    )
    worse = replace(two_metrics, scores=two_metrics.scores.with_columns(pl.col("value") * 0.9))
    shown = found(worse, before)
    assert next(iter(shown)) == "Baseline and candidate"
    for strip in (*shown["Baseline and candidate"].strips, *shown["All prompts"].strips):
        assert [thumb.label for thumb in strip.thumbs] == ["baseline", "candidate"]
        assert len({thumb.cell_id for thumb in strip.thumbs}) == 1
        joules = [float(thumb.lines[1].split()[0]) for thumb in strip.thumbs]
        assert joules[0] == pytest.approx(2 * joules[1], rel=0.02)
        assert re.match("(attributes drawn )?\N{MINUS SIGN}", strip.remark.split(": ")[-1])
    section = pictures_section(worse, read_evidence(worse), Headline(sentence=""), before)
    assert "Both sides are the same images, bit for bit." in section.paragraphs
    runs = [cell["run"] for cell in section.viewer["cells"]]
    assert runs[:2] == ["baseline", "candidate"]
    assert sorted(runs) == ["baseline"] * 4 + ["candidate"] * 4


def test_a_baseline_without_images_is_named(two_metrics, tmp_path):
    stored_ = replace(two_metrics, path=tmp_path)  # as `perjoule baseline save` stores it
    section = pictures_section(two_metrics, read_evidence(two_metrics), Headline(sentence=""), stored_)
    assert section.albums[0].title == "Side by side"
    assert section.paragraphs[0] == "The baseline contains no images, so only those of this run are shown."


def test_pairs_whose_images_are_not_stored_give_way_to_the_nearest(two_metrics, tmp_path):
    """As in a published run that has some of its images."""
    kept = [strip.prompt for strip in found(two_metrics)["All prompts"].strips][1:3]
    (tmp_path / "images").mkdir()
    for prompt, file in two_metrics.images.select("prompt_id", "file").iter_rows():
        if two_metrics.prompts[prompt] in kept:
            (tmp_path / file).write_bytes((two_metrics.path / file).read_bytes())
    shown = found(replace(two_metrics, path=tmp_path))
    assert [strip.prompt for strip in shown["Side by side"].strips] == kept[::-1]
    assert shown["Side by side"].strips[-1].remark.startswith("near the worst difference: ")
    assert [strip.prompt for strip in shown["2 of 5 prompts"].strips] == kept
    assert all(thumb.uri for album in shown.values() if album.sheet for s in album.strips for thumb in s.thumbs)


def test_without_scores_no_sentence_speaks_of_them(small):
    """Neither of what they determine nor of the best and the worst image."""

    def said(run):
        section = pictures_section(run, read_evidence(run), Headline(sentence=""))
        return " ".join((section.how_to_read, section.interval, *section.paragraphs))

    bare = replace(small, scores=small.scores.clear(), points=small.points.clear())
    assert "depends on their ids" in said(bare)
    assert not re.search("scores determine|best|worst|frontier|its own", said(bare))
    assert re.search("The scores determine .*Outlined images .*best and worst are extremes", said(small))
