"""Contact sheets for judging by eye, and how far eyes and the checker agree.

A sheet shows numbered pictures with their captions. The person fills in a CSV file; what the checker says is in another
file, so that it does not influence the person.
"""

from __future__ import annotations

import csv
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from perjoule.errors import UsageError
from perjoule.files import decode_text, write_text
from perjoule_suites.tiny.world.captions import Caption
from perjoule_suites.tiny.world.score import judge

QUESTIONS = ("satisfied", "valid")
_PER_SHEET = 30
_ANSWERS = {"yes": True, "y": True, "1": True, "no": False, "n": False, "0": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A picture to judge. source: where it comes from, e.g. `8 steps`."""

    image: NDArray[np.uint8]
    caption: Caption
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How far a person and the checker agree on one question.

    Attributes:
        question: `satisfied`, `valid` or `perfect`.
        pictures: Number of pictures that the person judged.
        both: Both say yes.
        only_person: The person says yes, the checker no.
        only_checker: The checker says yes, the person no.
        neither: Both say no.
    """

    question: str
    pictures: int
    both: int
    only_person: int
    only_checker: int
    neither: int

    @property
    def share(self) -> float:
        """Share of pictures with the same answer."""
        return (self.both + self.neither) / self.pictures

    @property
    def kappa(self) -> float | None:
        """Cohen's kappa: agreement beyond chance; None if both gave a single answer to all pictures."""
        person, checker = self.both + self.only_person, self.both + self.only_checker
        n = self.pictures
        chance = (person * checker + (n - person) * (n - checker)) / n**2
        return None if chance == 1 else (self.share - chance) / (1 - chance)


def write_sheets(pictures: Sequence[Picture], folder: Path) -> None:
    """Write `sheet-N.png`, an empty `judgements.csv` and the checker's `checker.csv`, pictures in random order."""
    folder.mkdir(parents=True, exist_ok=True)
    order = np.random.default_rng(0).permutation(len(pictures))
    mixed = [pictures[int(i)] for i in order]
    for start in range(0, len(mixed), _PER_SHEET):
        some = mixed[start : start + _PER_SHEET]
        labels = [f"{start + i}. {picture.caption.text()}" for i, picture in enumerate(some, 1)]
        images = np.stack([picture.image for picture in some])
        contact_sheet(images, labels, folder / f"sheet-{start // _PER_SHEET + 1}.png")
    rows = [(n, picture.caption.text(), *[""] * len(QUESTIONS)) for n, picture in enumerate(mixed, 1)]
    _write(folder / "judgements.csv", ("number", "caption", *QUESTIONS), rows)
    said = []
    for number, picture in enumerate(mixed, 1):
        verdict = judge(picture.image, picture.caption)
        answers = ["yes" if value else "no" for value in (verdict.is_satisfied, verdict.is_valid)]
        said.append((number, picture.caption.text(), *answers, f"{verdict.score:.3f}", picture.source))
    _write(folder / "checker.csv", ("number", "caption", *QUESTIONS, "score", "source"), said)


def agreement(folder: Path, judgements: Path) -> tuple[list[Agreement], list[dict[str, str]]]:
    """Compare a person's judgements with the checker's.

    Args:
        folder: Folder that `write_sheets` wrote.
        judgements: The filled-in CSV file; rows without answers are left out.

    Returns:
        Agreement on `satisfied`, `valid` and both together (`perfect`), and the rows on which they differ.
    """
    checker = {row["number"]: row for row in _read(folder / "checker.csv")}
    pairs = []
    for row in _read(judgements):
        if not any(row[question].strip() for question in QUESTIONS):
            continue
        if row["number"] not in checker:
            raise UsageError(f"{judgements}: number {row['number']} is not on these sheets; use this folder's file")
        person = [_answer(row, question, judgements) for question in QUESTIONS]
        other = checker[row["number"]]
        pairs.append((other, person, [_answer(other, question, folder / "checker.csv") for question in QUESTIONS]))
    if not pairs:
        raise UsageError(f"{judgements}: no judgements; write yes or no in the columns {' and '.join(QUESTIONS)}")
    both = [(p, c) for _, p, c in pairs]
    tables = [_table(question, [(p[i], c[i]) for p, c in both]) for i, question in enumerate(QUESTIONS)]
    tables.append(_table("perfect", [(all(p), all(c)) for p, c in both]))
    differing = [
        {**row, "person": " ".join(f"{q}={'yes' if a else 'no'}" for q, a in zip(QUESTIONS, person, strict=True))}
        for row, person, checked in pairs
        if person != checked
    ]
    return tables, differing


def contact_sheet(images: NDArray[np.uint8], captions: Sequence[str], file: Path, columns: int = 6) -> None:
    """Pictures with their captions underneath, as one PNG."""
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(1.75 * columns, 2.3 * rows))
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, image, text in zip(axes.flat, images, captions, strict=False):
        axis.imshow(image, interpolation="nearest")
        axis.set_title("\n".join(textwrap.wrap(text, 30)), fontsize=6.5, y=-0.12, va="top")
    figure.subplots_adjust(left=0.01, right=0.99, top=0.99, bottom=0.3 / rows, wspace=0.06, hspace=0.5)
    figure.savefig(file, dpi=130, metadata={"Software": None})


def _table(question: str, pairs: Sequence[tuple[bool, bool]]) -> Agreement:
    return Agreement(
        question=question,
        pictures=len(pairs),
        both=pairs.count((True, True)),
        only_person=pairs.count((True, False)),
        only_checker=pairs.count((False, True)),
        neither=pairs.count((False, False)),
    )


def _answer(row: dict[str, str], question: str, file: Path) -> bool:
    value = row[question].strip().lower()
    if value not in _ANSWERS:
        raise UsageError(f"{file}: number {row['number']}, {question} = {value!r}: write yes or no")
    return _ANSWERS[value]


def _write(file: Path, head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([head, *rows])
    write_text(file, text.getvalue())


def _read(file: Path) -> Iterator[dict[str, str]]:
    if not file.is_file():
        raise UsageError(f"{file}: no such file")
    reader = csv.DictReader(StringIO(decode_text(file.read_bytes(), str(file), UsageError)))
    missing = {"number", *QUESTIONS} - set(reader.fieldnames or ())
    if missing:
        raise UsageError(f"{file}: column {min(missing)!r} is missing")
    for row in reader:
        yield {key: value or "" for key, value in row.items() if key}
