"""Pictures are read only if they are the ones that were metered: in scoring and in the report."""

from __future__ import annotations

import base64
import io
import os
import re
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from perjoule.errors import RunError
from perjoule.files import write_parquet
from perjoule.running import pipeline
from perjoule.running.reporting import ReportRequest
from perjoule.running.scoring import image_set
from perjoule.runs import pictures
from perjoule.runs.directory import Run, load_run
from perjoule.runs.pictures import PictureError, copy_picture, pixel_digest, read_picture
from perjoule_reports import write_report
from tests.perjoule.running.test_execute import PROMPTS, do, fresh, make_suite
from tests.perjoule.running.test_scoring import Counting, Quiet, Spread
from tests.perjoule.statistics.test_points import spec


@pytest.fixture
def run(tmp_path: Path) -> Run:
    suite = make_suite()
    do(suite, fresh(tmp_path / "run", suite))
    return load_run(tmp_path / "run")


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A private photograph somewhere else on the disk."""
    Image.effect_noise((64, 64), 80).convert("RGB").save(tmp_path / "secret.png")
    return tmp_path / "secret.png"


def set_file(run: Run, file: str | None, **columns: object) -> Run:
    """The run with another path in the first row of images.parquet."""
    images = run.images.with_row_index("row").with_columns(
        pl.when(pl.col("row") == 0).then(pl.lit(value)).otherwise(pl.col(name)).alias(name)
        for name, value in {"file": file, **columns}.items()
    )
    write_parquet(images.drop("row"), run.path / "images.parquet")
    return load_run(run.path)


def attack(run: Run, secret: Path, way: str) -> Run:
    """The first picture of the run becomes the private one."""
    first = run.path / run.images["file"][0]
    digest = pixel_digest(np.array(Image.open(secret)))
    match way:
        case "swapped":
            shutil.copy(secret, first)
        case "symlink":
            first.unlink()
            first.symlink_to(secret)
        case "hard path":
            return set_file(run, str(secret), sha256=digest)
        case "dots":
            return set_file(run, "images/../../secret.png", sha256=digest)
        case "linked folder":
            (run.path / "more").symlink_to(secret.parent)
            return set_file(run, "more/secret.png", sha256=digest)
        case "symlink with its digest":
            first.unlink()
            first.symlink_to(secret)
            return set_file(run, run.images["file"][0], sha256=digest)
        case "without digest":
            shutil.copy(secret, first)
            return set_file(run, run.images["file"][0], sha256=None)
        case "pipe":
            first.unlink()
            os.mkfifo(first)
        case "torn":
            first.write_bytes(first.read_bytes()[:-30])
        case "empty":
            first.write_bytes(b"")
        case "another of the run":
            shutil.copy(run.path / run.images["file"][-1], first)
    return load_run(run.path)


WAYS = [
    "swapped", "symlink", "hard path", "dots", "linked folder", "symlink with its digest", "without digest", "pipe",
    "torn", "empty", "another of the run",
]  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_a_picture_that_is_not_the_metered_one_gets_no_score_and_costs_no_other(run, secret, way, monkeypatch):
    monkeypatch.setattr(pipeline, "operating_points", lambda run: run.scores)
    image_id = run.images["image_id"][0]
    attacked = attack(run, secret, way)
    metric, told = Counting(), Quiet()
    scores = pipeline.score(attacked, [metric], told).scores
    assert image_id not in metric.seen
    assert scores.filter(pl.col("value").is_null())["image_id"].to_list() == [image_id]
    assert scores.height == 12
    assert scores["reason_unscored"].drop_nulls()[0].startswith("image refused: ")
    (warning,) = [message for message in told.messages if message.startswith("warning")]
    assert "1 images are not scored" in warning


def test_a_swapped_reference_unscores_what_is_compared_with_it(run, secret, monkeypatch):
    monkeypatch.setattr(pipeline, "operating_points", lambda run: run.scores)
    longest = run.images.filter(pl.col("steps") == 4)
    shutil.copy(secret, run.path / longest["file"][0])
    metric = Counting()
    metric.spec = replace(spec("counting", track="fidelity"), needs_reference=True)
    scores = pipeline.score(run, [metric], Quiet()).scores
    same = (pl.col("prompt_id") == longest["prompt_id"][0]) & (pl.col("seed") == longest["seed"][0])
    assert set(scores.filter(pl.col("value").is_null())["image_id"]) == set(run.images.filter(same)["image_id"])
    assert len(metric.seen) == 10


def test_a_set_with_a_swapped_picture_has_no_score(run, secret, monkeypatch):
    monkeypatch.setattr(pipeline, "operating_points", lambda run: run.scores)
    attacked = attack(run, secret, "swapped")
    done = pipeline.score(attacked, [Counting(), Spread()], Quiet())
    spoilt, fine = sorted(done.set_scores, key=lambda score: score.cell_id)
    assert "not the picture that was measured" in spoilt.reason_unscored
    assert fine.value == 6.0


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_a_report_shows_no_picture_but_the_metered_ones(run, secret, way, tmp_path, monkeypatch):
    monkeypatch.setattr("perjoule_reports.drawing.thumbs._PIXEL_ART_PX", 64)  # kept pixel for pixel, so comparable
    before = pictures_of(run, tmp_path / "before.html")
    allowed = {pixel_digest(np.array(Image.open(run.path / file).convert("RGB"))) for file in run.images["file"]}
    assert len(before) > 4
    assert set(before) <= allowed
    shown = pictures_of(attack(run, secret, way), tmp_path / "after.html")
    assert pixel_digest(np.array(Image.open(secret))) not in shown
    assert set(shown) <= set(before)
    assert "image missing, or not the one that was metered" in (tmp_path / "after.html").read_text()


def pictures_of(run: Run, page: Path) -> list[str]:
    """Digests of the pixels of all pictures in the report."""
    write_report(run, page, ReportRequest())
    found = re.findall(r'src="data:image/webp;base64,([^"]+)"', page.read_text())
    return [pixel_digest(np.array(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))) for data in found]


def test_the_words_say_which_digest_was_found(run, secret):
    file, sha256 = run.images.select("file", "sha256").row(0)
    shutil.copy(secret, run.path / file)
    with pytest.raises(PictureError, match=f"SHA-256 of its pixels is [0-9a-f]{{64}}, but the run has {sha256}"):
        read_picture(run.path, file, sha256)


@pytest.mark.parametrize("kind", ["EPS", "BMP"])
def test_only_png_is_decoded(run, monkeypatch, kind):
    """Pillow runs Ghostscript over EPS, before any digest could be compared."""

    def decoded(*_, **__):
        raise AssertionError("a program was given the picture of somebody else")

    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", decoded)
    file, sha256 = run.images.select("file", "sha256").row(0)
    pixels = read_picture(run.path, file, sha256)
    Image.fromarray(pixels).save(run.path / file, kind)
    with pytest.raises(PictureError, match="not a readable picture"):
        read_picture(run.path, file, sha256)


def test_a_row_without_a_file_is_a_picture_that_is_gone(run):
    with pytest.raises(RunError, match=r"images.parquet: image .*: file is empty"):
        image_set(set_file(run, None))


def test_a_picture_that_unpacks_to_gigabytes_is_refused(run):
    file = run.path / run.images["file"][0]
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = 2
    try:
        with pytest.raises(PictureError, match="not a readable picture"):
            read_picture(run.path, run.images["file"][0], run.images["sha256"][0])
    finally:
        Image.MAX_IMAGE_PIXELS = before
    assert file.is_file()


def test_pictures_are_not_written_through_links(tmp_path):
    """A run directory from elsewhere that is resumed may have links where pictures belong."""
    suite = make_suite()
    writer = fresh(tmp_path / "run", suite)
    (tmp_path / "precious").write_text("mine")
    names = [f"v-00{steps}.{p.prompt_id}.s{s}.png" for steps in (1, 4) for p in PROMPTS for s in (1, 2)]
    for name in names:
        (tmp_path / "run" / "images" / name).symlink_to(tmp_path / "precious")
    do(suite, writer)
    assert (tmp_path / "precious").read_text() == "mine"
    run = load_run(tmp_path / "run")
    assert run.images.height == len(names)
    for file, sha256 in run.images.select("file", "sha256").iter_rows():
        assert pixel_digest(read_picture(run.path, file, sha256)) == sha256


def test_a_picture_of_more_pixels_than_a_suite_can_ask_for_is_not_decoded(run, monkeypatch):
    file, sha256 = run.images.select("file", "sha256").row(0)
    Image.new("1", (8200, 10)).save(run.path / file)
    monkeypatch.setattr("PIL.Image.Image.convert", lambda *_: pytest.fail("it was decoded"))
    with pytest.raises(PictureError, match=r"8200 × 10 pixels; at most 8192 a side are read"):
        read_picture(run.path, file, sha256)


def test_a_copy_has_the_bytes_of_the_file(run, tmp_path):
    file, sha256 = run.images.select("file", "sha256").row(0)
    copy_picture(run.path, file, sha256, tmp_path / "copy.png")
    assert (tmp_path / "copy.png").read_bytes() == (run.path / file).read_bytes()


def test_one_large_picture_is_decoded_at_a_time(run, tmp_path, monkeypatch):
    """Eight pictures of 8192 x 8192 pixels, each a file of 200 kB, would take 5 GiB of memory at once."""
    file, sha256 = run.images.select("file", "sha256").row(0)
    monkeypatch.setattr(pictures, "_LARGE_PX", 0)
    digest, inside = pictures.pixel_digest, threading.Semaphore(1)

    def alone(pixels):
        assert inside.acquire(blocking=False), "two at a time"
        try:
            time.sleep(0.01)
            return digest(pixels)
        finally:
            inside.release()

    monkeypatch.setattr(pictures, "pixel_digest", alone)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: copy_picture(run.path, file, sha256, tmp_path / f"{n}.png"), range(8)))
    assert len(list(tmp_path.glob("*.png"))) == 8
