from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from tests.support.reports import rendered, section

from perjoule.statistics.records import Control
from perjoule.types import Estimate
from perjoule_reports import build_report
from perjoule_reports.records import Report
from perjoule_reports.sections.adaptation import Opponent

pytestmark = pytest.mark.slow


def synthetic_policies(synthetic, folder: Path, gain: float, shuffled_gain: float):
    """A ladder, a policy with three levels, and its control; `gain` is their quality above the ladder."""
    run = synthetic.make_run(folder, prompts=24, ladder=(2, 4, 8, 16, 32), variants=("teacher",), metrics=("scene",))
    chance = np.random.default_rng(2)
    trials, scores = [run.trials], [run.scores]
    for name, role, more in (("clever", "predicted", gain), ("clever-shuffled", "control", shuffled_gain)):
        for level in (4, 8, 16):
            cell = f"{name}-{level}"
            rename = pl.lit(cell)
            own = run.trials.filter(pl.col("cell_id") == f"teacher-{level:03d}")
            steps = [[int(s) + int(chance.integers(-1, 2)) for s in row] for row in own["steps"]]
            trials.append(
                own.with_columns(
                    cell_id=rename, variant=pl.lit(name), role=pl.lit(role), policy=pl.lit("clever"),
                    trial_id=pl.format("b0.{}.{}", rename, pl.int_range(pl.len())), steps=pl.Series(steps),
                )
            )  # fmt: skip
            mine = run.scores.filter(pl.col("cell_id") == f"teacher-{level:03d}")
            noise = pl.Series(0.005 * chance.normal(size=len(mine)))
            scores.append(
                mine.with_columns(
                    cell_id=rename,
                    image_id=pl.format("{}.{}", rename, "image_id"),
                    value=pl.col("value") + more + noise,
                )
            )
    teacher = run.suite.variants[0]
    policy = replace(teacher, name="clever", role="predicted", policy="clever", steps=(), levels=(4.0, 8.0, 16.0))
    control = replace(policy, name="clever-shuffled", role="control", policy_args={"control": "shuffled"})
    suite = replace(run.suite, variants=(teacher, policy, control))
    return synthetic.summarised(replace(run, suite=suite, trials=pl.concat(trials), scores=pl.concat(scores)))


@pytest.mark.parametrize(
    ("gain", "shuffled_gain", "words"),
    [
        (0.08, -0.02, ("it saves", "It beats its shuffled control (energy saved at equal quality: ")),
        (-0.06, -0.06, ("more energy than teacher", "it is not shown to be better than its shuffled control")),
    ],
)
def test_adaptation_is_real_only_against_its_controls(
    gain: float, shuffled_gain: float, words: tuple[str, ...], synthetic, tmp_path: Path
) -> None:
    run = synthetic_policies(synthetic, tmp_path, gain, shuffled_gain)
    report = build_report(run)
    found = section(report, "adaptation")
    said = " ".join(found.paragraphs)
    for part in words:
        assert part in said, said
    assert found.figures[0].name == "adaptation-saving"
    assert any(row[1].text == "per-image bound" for row in found.figures[0].data.rows)
    assert found.figures[1].name == "steps"
    rendered(report)


@pytest.mark.parametrize("gain", [0.08, -0.06])
def test_text_table_and_figure_agree(gain: float, synthetic, tmp_path: Path) -> None:
    """The conclusion of the text rests on what is bold in the table."""
    run = synthetic_policies(synthetic, tmp_path, gain, -0.02)
    found = section(build_report(run), "adaptation")
    against = {row[1].detail: row for row in found.figures[0].data.rows}
    saving, gained = against["its own steps, shuffled"][2:4]
    better = [cell.strong and (cell.sort or 0) > 0 for cell in (saving, gained)]
    assert any(better) == (gain > 0)
    assert ("so it uses information" in found.paragraphs[0]) == any(better)
    assert saving.detail.replace("+", "") in found.paragraphs[0] or not better[0]


def test_the_shuffled_control_of_another_policy_is_named(synthetic, tmp_path: Path) -> None:
    run = synthetic_policies(synthetic, tmp_path, 0.08, -0.02)
    teacher, policy, control = run.suite.variants
    policy = replace(policy, policy_args={"rule": "another"})
    owner = replace(policy, name="owner", policy_args={}, label="the owner")
    suite = replace(run.suite, variants=(teacher, policy, control, owner))
    found = section(build_report(replace(run, suite=suite)), "adaptation")
    assert "No control shuffles its own step counts (“control clever-shuffled” shuffles those of" in found.paragraphs[0]
    assert "use of the prompt is not shown" in found.paragraphs[0]
    details = [row[1].detail for row in found.figures[0].data.rows]
    assert any(detail.startswith("steps of “") and detail.endswith("”, shuffled") for detail in details)


def test_one_resolved_difference_decides() -> None:
    """An interval with an open end is resolved if its other end lies beyond zero."""
    half = estimate(0.25, 0.08, None)
    unclear, clear = estimate(0.2, -0.2, None), estimate(0.045, 0.009, 0.076)

    def beaten(saving: Estimate | None, gain: Estimate | None, **shares: Any) -> bool | None:
        result = Control(control="c", iso_quality_saving=saving, iso_energy_gain=gain, **shares)
        return Opponent(result=result, name="c", remark="").beaten

    assert beaten(half, None) is True
    assert beaten(unclear, clear) is True
    assert beaten(unclear, estimate(-0.02, -0.03, -0.01)) is False
    assert beaten(unclear, unclear) is None
    assert beaten(None, None, cheaper_and_better=0.98, dearer_and_worse=0.0) is True
    assert beaten(None, None, cheaper_and_better=0.5, dearer_and_worse=0.1) is None


def estimate(value: float, low: float | None, high: float | None) -> Estimate:
    return Estimate(value=value, low=low, high=high, level=0.95, n=8, method="")


def test_a_suite_without_policies_says_so(report: Report) -> None:
    assert "an arm that predicts its steps" in section(report, "adaptation").empty
