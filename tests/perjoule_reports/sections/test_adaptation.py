from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from tests.support.reports import rendered, section

from perjoule_reports import build_report
from perjoule_reports.records import Report

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
        (0.08, -0.02, ("it saves", "It beats its shuffled control, so it uses")),
        (-0.06, -0.06, ("more energy than teacher", "No difference from its shuffled control")),
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
    assert found.figures[0].name == "adaptation"
    assert any(row[1].text == "per-image bound" for row in found.figures[0].data.rows)
    assert found.figures[1].name == "steps"
    rendered(report)


def test_a_suite_without_policies_says_so(report: Report) -> None:
    assert "an arm that predicts its steps" in section(report, "adaptation").empty
