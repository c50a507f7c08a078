from __future__ import annotations

from dataclasses import replace
from typing import Any

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


def test_an_image_has_its_own_steps_where_its_label_has_the_mean_of_the_cell(small: Run) -> None:
    """Whatever the cell's role: a shuffled control has other steps for each image, as the policy that it shuffles."""
    evidence = read_evidence(small)
    arm = evidence.arms[1]
    shot = next(iter(shots(Side(run=small, arm=arm), None).values()))

    def under(own: int, **more: Any) -> tuple[str, ...]:
        side = replace(shot.side, arm=replace(arm, **more))
        row = Row(prompt_id=shot.prompt_id, remark="", shots=(replace(shot, steps=own, side=side),))
        (strip,) = strips([row], encoded([row]), evidence, str)
        return strip.thumbs[0].lines

    for role in ("control", "predicted"):
        assert under(7, role=role, steps=6.4, steps_spread=(3.0, 12.0))[0] == "7 steps"
        assert under(6, role=role, steps=6.0, steps_spread=(3.0, 12.0))[0] == "6 steps"
        assert under(7, role=role, steps=6.1, steps_spread=(6.0, 6.0))[0] == "7 steps"  # less than 5 % of the images
    assert "steps" not in under(12, steps=12.0, steps_spread=(12.0, 12.0))[0]
