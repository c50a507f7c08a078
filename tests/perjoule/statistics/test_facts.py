from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from perjoule.runs.directory import Run
from perjoule.statistics.facts import cell_facts


def trials(run: Run, *rows: dict[str, Any]) -> pl.DataFrame:
    """Windows of one cell like those of the run, with these values."""
    like = run.trials.head(1).to_dicts()[0]
    usual = {
        "cell_id": "c",
        "steps": [10, 10],
        "image_count": 2,
        "iterations": 1,
        "nfe_per_image": 20.0,
        "flops_per_image": 1e12,
        "energy_j": 10.0,
        "duration_s": 4.0,
        "uncertainty_j": 1.0,
        "warnings": [],
        "provenance": "measured",
        "boundary": "gpu-board",
        "failure": None,
    }
    known = [{k: v for k, v in (like | usual | row).items() if k in run.trials.columns} for row in rows]
    return pl.DataFrame(known, schema=run.trials.schema)


def test_means_are_those_of_images(run: Run) -> None:
    two: dict[str, Any] = {}
    four = {"steps": [30] * 4, "image_count": 4, "nfe_per_image": 60.0, "flops_per_image": 4e12} | {
        "duration_s": 20.0,
        "uncertainty_j": 5.0,
    }
    facts = cell_facts(trials(run, two, four))["c"]
    assert facts.steps_mean == pytest.approx((2 * 10 + 4 * 30) / 6)
    assert facts.nfe_mean == pytest.approx((2 * 20 + 4 * 60) / 6)
    assert facts.flops_per_image == pytest.approx((2 * 1e12 + 4 * 4e12) / 6)
    assert facts.duration_s_per_image == pytest.approx(24 / 6)
    # bounds of windows add up
    assert facts.energy_bound_j_per_image == pytest.approx(6 / 6)
    assert (facts.provenance, facts.boundary, facts.stated_n) == ("measured", "gpu-board", 0)


def test_repeated_windows_are_divided_by_all_that_they_drew(run: Run) -> None:
    facts = cell_facts(trials(run, {"iterations": 4}))["c"]
    assert facts.duration_s_per_image == pytest.approx(4.0 / 8)
    assert facts.energy_bound_j_per_image == pytest.approx(1.0 / 8)


@pytest.mark.parametrize(
    ("row", "changed"),
    [
        ({"failure": "out of memory", "steps": [99], "nfe_per_image": 99.0, "duration_s": 99.0}, set()),
        # the host stood still: its seconds are not those of the work
        ({"warnings": ["W251: suspended"], "duration_s": 99.0}, set()),
        ({"warnings": ["W201: a warning"], "duration_s": 99.0}, {"duration_s_per_image"}),
        ({"duration_s": None}, set()),
        ({"nfe_per_image": None}, set()),
        ({"flops_per_image": None}, set()),
        ({"flops_per_image": 9e12}, {"flops_per_image"}),
        ({"failure": "out of memory", "flops_per_image": 9e12}, set()),
        ({"uncertainty_j": None}, set()),
        ({"energy_j": None, "uncertainty_j": 99.0, "provenance": "estimated"}, set()),
        ({"uncertainty_j": 99.0}, {"energy_bound_j_per_image"}),
        ({"provenance": "estimated"}, {"provenance"}),
        ({"provenance": None}, {"provenance"}),
    ],
)
def test_only_what_is_known_of_finished_windows_counts(run: Run, row: dict[str, Any], changed: set[str]) -> None:
    one, both = cell_facts(trials(run, {}))["c"], cell_facts(trials(run, {}, row))["c"]
    names = ("steps_mean", "nfe_mean", "flops_per_image", "duration_s_per_image", "energy_bound_j_per_image",
             "provenance", "boundary")  # fmt: skip
    assert {name for name in names if getattr(one, name) != getattr(both, name)} == changed


def test_nothing_known_is_absent(run: Run) -> None:
    blank = {"energy_j": None, "duration_s": None, "uncertainty_j": None, "nfe_per_image": None, "boundary": None}
    facts = cell_facts(trials(run, blank))["c"]
    assert facts.duration_s_per_image is facts.energy_bound_j_per_image is facts.nfe_mean is None
    assert facts.boundary is None
