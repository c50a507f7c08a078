"""What the viewer may choose, and where it finds images that are not part of the page."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from perjoule_reports.evidence import read_evidence
from perjoule_reports.sections.pictures import Gallery
from perjoule_reports.viewer import folder_from, viewer

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("page", "folder"),
    [
        ("runs/a/report.html", ""),
        ("runs/index/a.html", "../a/"),
        ("runs/a.html", "a/"),
        ("a.html", "runs/a/"),
        ("elsewhere/deep/a.html", None),  # would show names of folders further up
    ],
)
def test_images_are_linked_from_nearby_only(tmp_path: Path, page: str, folder: str | None) -> None:
    assert folder_from(tmp_path / page, tmp_path / "runs" / "a") == folder
    assert folder_from(None, tmp_path) is None


def test_a_folder_is_written_as_a_link(tmp_path: Path) -> None:
    assert folder_from(tmp_path / "a.html", tmp_path / "50 % <b>") == "50%20%25%20%3Cb%3E/"


def test_every_cell_has_every_image_that_is_shown(small) -> None:
    evidence = read_evidence(small)
    made = viewer(Gallery(small, evidence, None), evidence, small.path / "report.html")
    assert {cell["cell"] for cell in made["cells"]} == set(small.images["cell_id"])
    assert {(p, s) for p, s, _ in made["prompts"]} == set(small.images.select("prompt_id", "seed").iter_rows())
    for cell in made["cells"]:
        assert cell["folder"] == ""
        assert len(cell["images"]) == len(made["prompts"])
        for prompt, seed, _ in made["prompts"]:
            assert (small.path / "images" / f"{cell['cell']}.{prompt}.s{seed}.png").is_file()
    json.dumps(made, allow_nan=False)


def test_images_with_other_names_are_not_linked(small) -> None:
    run = replace(small, images=small.images.with_columns(file=pl.col("file").str.replace("images/", "images/x")))
    evidence = read_evidence(run)
    made = viewer(Gallery(run, evidence, None), evidence, run.path / "report.html")
    assert all(cell["folder"] is None for cell in made["cells"])
