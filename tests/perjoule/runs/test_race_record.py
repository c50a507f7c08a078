from __future__ import annotations

import json
from pathlib import Path

import pytest

from perjoule.errors import RunError
from perjoule.runs.race_record import RACE, DroppedCell, Race, RaceLook, read_race, write_race

CELL = DroppedCell(
    cell_id="b", by="a", prompts=12, energy_difference_j=3.0, quality_difference=-0.2, p_value=1e-5
)  # fmt: skip
RACE_OF_TWO = Race(
    metric="lsnr",
    alpha=0.05,
    level=0.01,
    prompts=24,
    cells=("a", "b", "c"),
    look_prompts=(12, 18),
    looks=(RaceLook(prompts=12, compared=("a", "b", "c"), needed={"a": "anchor"}, dropped=(CELL,)),),
)


def test_a_race_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert read_race(tmp_path) is None
    write_race(tmp_path, RACE_OF_TWO)
    assert read_race(tmp_path) == RACE_OF_TWO


def test_dropped_cells_have_the_prompts_of_their_look() -> None:
    assert RACE_OF_TWO.remaining == ("a", "c")
    assert [RACE_OF_TWO.prompts_of(cell) for cell in "abc"] == [24, 12, 24]
    assert CELL.words == "not measured further: dominated by a after 12 prompts"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"schema": 2}, "reads version 1"),
        ({"alpha": "small"}, "damaged: alpha"),
        ({"look_prompts": None}, "damaged: look_prompts"),
        ({"prompts": 11}, "b was dropped after 12 of 11 prompts"),
        ({"cells": ["a", "c"]}, "b was dropped, but is not a cell of the race"),
    ],
)
def test_a_damaged_file_is_named_with_its_key(tmp_path: Path, changes: dict[str, object], words: str) -> None:
    write_race(tmp_path, RACE_OF_TWO)
    file = tmp_path / RACE
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(RunError, match=words) as error:
        read_race(tmp_path)
    assert str(file) in str(error.value)


def test_a_file_that_is_not_an_object_is_refused(tmp_path: Path) -> None:
    (tmp_path / RACE).write_text("[]")
    with pytest.raises(RunError, match="reads version 1"):
        read_race(tmp_path)
