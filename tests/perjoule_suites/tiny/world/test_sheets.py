from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from perjoule.errors import UsageError
from perjoule_suites.tiny.world.captions import draw_caption
from perjoule_suites.tiny.world.scenes import draw_scene, ground_image, render
from perjoule_suites.tiny.world.sheets import Agreement, Picture, agreement, write_sheets


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Eight renders, of which every second is an empty ground."""
    rng = np.random.default_rng(0)
    pictures = []
    for number in range(8):
        caption = draw_caption(rng)
        image = render(draw_scene(caption, rng)) if number % 2 else ground_image("grey", "plain")
        pictures.append(Picture(image=image, caption=caption, source="render" if number % 2 else "ground"))
    write_sheets(pictures, tmp_path)
    return tmp_path


def fill(folder: Path, answers: dict[str, tuple[str, str]]) -> Path:
    rows = list(csv.DictReader((folder / "judgements.csv").open()))
    for row in rows:
        row["satisfied"], row["valid"] = answers.get(row["number"], ("", ""))
    file = folder / "mine.csv"
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return file


def checker(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "checker.csv").open()))


def test_sheets_show_pictures_in_another_order_than_their_sources(folder: Path) -> None:
    assert Image.open(folder / "sheet-1.png").size[0] > 600
    rows = checker(folder)
    assert [row["number"] for row in rows] == [str(n) for n in range(1, 9)]
    assert [row["source"] for row in rows] != ["ground", "render"] * 4
    assert all((row["valid"] == "yes") == (row["source"] == "render") for row in rows)


def test_the_file_to_fill_in_does_not_show_the_checker(folder: Path) -> None:
    rows = list(csv.DictReader((folder / "judgements.csv").open()))
    assert {row["satisfied"] + row["valid"] for row in rows} == {""}
    assert rows[0].keys() == {"number", "caption", "satisfied", "valid"}


def test_agreement_counts_equal_answers(folder: Path) -> None:
    answers = {row["number"]: (row["satisfied"], row["valid"]) for row in checker(folder)}
    tables, differing = agreement(folder, fill(folder, answers))
    assert [table.share for table in tables] == [1, 1, 1]
    assert not differing
    changed = next(number for number, (_, valid) in answers.items() if valid == "yes")
    tables, differing = agreement(folder, fill(folder, {**answers, changed: ("yes", "NO")}))
    assert [(t.question, t.share) for t in tables] == [("satisfied", 1), ("valid", 0.875), ("perfect", 0.875)]
    assert [row["number"] for row in differing] == [changed]
    assert tables[1].only_checker == 1
    del answers[changed]
    assert agreement(folder, fill(folder, answers))[0][0].pictures == 7


def test_kappa_of_a_textbook_table() -> None:
    """Cohen's example form: 20 and 15 equal of 50; observed .7, by chance .5."""
    table = Agreement(question="valid", pictures=50, both=20, only_person=5, only_checker=10, neither=15)
    assert table.kappa == pytest.approx(0.4)
    assert Agreement(question="valid", pictures=3, both=3, only_person=0, only_checker=0, neither=0).kappa is None


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ({}, "no judgements"),
        ({"1": ("maybe", "yes")}, "number 1, satisfied = 'maybe'"),
        ({"1": ("yes", "")}, "valid = ''"),
    ],
)
def test_unreadable_judgements_are_refused(folder: Path, answers: dict[str, tuple[str, str]], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        agreement(folder, fill(folder, answers))


def test_judgements_of_other_sheets_are_refused(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "other.csv"
    file.write_text("number,caption,satisfied,valid\n99,a star,yes,yes\n")
    with pytest.raises(UsageError, match="number 99 is not on these sheets"):
        agreement(folder, file)
    file.write_text("number,caption,valid\n1,a star,yes\n")
    with pytest.raises(UsageError, match="column 'satisfied' is missing"):
        agreement(folder, file)
    with pytest.raises(UsageError, match="no such file"):
        agreement(folder, tmp_path / "none.csv")
