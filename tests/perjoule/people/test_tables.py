"""Choices and ratings collected elsewhere."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from perjoule.errors import EvidenceError, PerjouleError
from perjoule.people.choices import Choices
from perjoule.people.records import Screening
from perjoule.people.scaling import scale
from perjoule.people.tables import table_of_choices
from tests.support import observers

ROW: dict[str, object] = {"observer": "ann", "prompt_id": "007", "arm_a": "base", "arm_b": "turbo", "choice": "a"}


def written(folder: Path, rows: Sequence[Mapping[str, object]], suffix: str = ".csv") -> Path:
    file = folder / f"choices{suffix}"
    frame = pl.DataFrame(rows)
    if suffix == ".csv":
        frame.write_csv(file)
    elif suffix == ".parquet":
        frame.write_parquet(file)
    else:
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def rows_of(choices: Choices) -> list[dict[str, object]]:
    names = {1.0: "a", 0.0: "b", 0.5: "tie"}
    return [
        {
            "observer": choices.observers[o], "prompt_id": choices.prompts[p], "arm_a": choices.arms[a],
            "arm_b": choices.arms[b], "choice": names[w], "provenance": choices.provenance,
        }
        for o, p, a, b, w in zip(
            choices.observer, choices.prompt, choices.first, choices.second, choices.won, strict=True
        )
    ]  # fmt: skip


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
def test_a_table_gives_the_scale_of_its_choices(suffix: str, tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    choices = observers.choices(observers.world(chance, arms=4, observers=5), chance, 30)
    choices.won[:5] = 0.5
    read = table_of_choices(written(tmp_path, rows_of(choices), suffix))
    assert read.provenance == "simulated"
    ours, theirs = (scale(c, Screening(), resamples=50) for c in (choices, read))
    assert {arm.arm: arm.jod for arm in theirs.arms} == pytest.approx({arm.arm: arm.jod for arm in ours.arms})
    assert ours.excluded == theirs.excluded


def test_ratings_of_one_observer_and_prompt_are_choices(tmp_path: Path) -> None:
    ratings = [
        ("ann", "p", "x", 5),
        ("ann", "p", "y", 3),
        ("ann", "p", "z", 3),
        ("bob", "p", "x", 1),
        ("bob", "q", "y", 9),
    ]
    rows = [dict(zip(("observer", "prompt_id", "variant", "rating"), row, strict=True)) for row in ratings]
    read = table_of_choices(written(tmp_path, rows))  # bob compared nothing
    assert read.observers == ("ann",)
    assert read.provenance == "not stated"  # nobody says that they were people
    wins = read.wins()
    assert read.arms == ("x", "y", "z")
    assert wins.tolist() == [[0, 1, 1], [0, 0, 0.5], [0, 0.5, 0]]


def test_names_stay_as_written(tmp_path: Path) -> None:
    read = table_of_choices(written(tmp_path, [ROW, ROW | {"arm_a": "<script>", "choice": "TIE", "observer": "b|c"}]))
    assert read.prompts == ("007",)
    assert set(read.arms) == {"base", "turbo", "<script>"}


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([ROW | {"choice": "left"}], "row 1 (line 2): choice = 'left': must be a, b or tie"),
        ([ROW, ROW | {"arm_b": "base"}], "row 2 (line 3): arm_b = 'base': is also arm_a"),
        ([ROW | {"observer": ""}], "observer = '': must not be empty"),
        ([ROW | {"arm_b": "trubo"}], "arm_b = 'trubo': unknown arm: known are base, turbo"),
        ([ROW | {"provenance": "measured"}], "provenance = 'measured': must be people, simulated, model, not stated"),
        ([ROW | {"provenance": "people"}, ROW | {"provenance": "not stated"}], "never pooled"),
        ([ROW | {"provenance": "people"}, ROW | {"provenance": "model"}], "never pooled"),
        ([{"observer": "a", "rating": 3}], "a table of choices needs observer, prompt_id, arm_a, arm_b, choice"),
        ([{"observer": "a", "variant": "base", "prompt_id": "p", "rating": "good"}], "rating = 'good'"),
        ([{"observer": "a", "variant": "base", "prompt_id": "p", "rating": "nan"}], "rating"),
        ([{"observer": "a", "variant": "base", "prompt_id": "p", "rating": "3"}], "nothing to scale"),
    ],
)
def test_a_bad_table_is_one_error(rows: list[dict[str, object]], words: str, tmp_path: Path) -> None:
    with pytest.raises(PerjouleError) as error:
        table_of_choices(written(tmp_path, rows), ["base", "turbo"])
    assert words in str(error.value)


def test_an_empty_table_and_a_missing_one(tmp_path: Path) -> None:
    file = tmp_path / "empty.csv"
    file.write_text("observer,prompt_id,arm_a,arm_b,choice\n", encoding="utf-8")
    with pytest.raises(EvidenceError, match="nothing to scale"):
        table_of_choices(file)
    with pytest.raises(PerjouleError, match="no such file"):
        table_of_choices(tmp_path / "other.csv")
