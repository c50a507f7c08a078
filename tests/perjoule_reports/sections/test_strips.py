from __future__ import annotations

from dataclasses import replace

import pytest

from perjoule.runs.directory import Run
from perjoule_reports.evidence import read_evidence
from perjoule_reports.sections.strips import Row, encoded, steps_of, strips
from perjoule_reports.shots import Side, shots

pytestmark = pytest.mark.slow


def test_a_row_has_a_thumbnail_per_image_in_one_unit(small: Run) -> None:
    evidence = read_evidence(small)
    first = [next(iter(shots(Side(run=small, arm=arm), evidence.primary).values())) for arm in evidence.arms]
    row = Row(prompt_id=first[0].prompt_id, remark="the first", shots=tuple(first), flagged=frozenset([first[1].key]))
    (strip,) = strips([row], encoded([row]), evidence, lambda prompt_id: f"text of {prompt_id}")
    assert (strip.prompt, strip.remark) == (f"text of {row.prompt_id}", "the first")
    assert [thumb.cell_id for thumb in strip.thumbs] == [arm.cell_id for arm in evidence.arms]
    assert [thumb.flag for thumb in strip.thumbs] == ["", "predicted"] + [""] * (len(first) - 2)
    assert all(evidence.energy_unit.unit in " ".join(thumb.lines) for thumb in strip.thumbs)


def test_steps_chosen_for_an_image_come_before_those_of_its_cell(small: Run) -> None:
    arm = read_evidence(small).arms[0]
    shot = next(iter(shots(Side(run=small, arm=arm), None).values()))
    assert steps_of(replace(shot, steps=7)) == 7
    assert steps_of(replace(shot, steps=None)) == arm.steps
