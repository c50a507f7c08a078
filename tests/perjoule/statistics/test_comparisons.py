from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy.interpolate import PchipInterpolator

from perjoule.statistics.comparisons import Arm, anchor_of
from perjoule.statistics.drawn import draw
from perjoule.statistics.frontier import frontier_of
from perjoule.statistics.pareto import hypervolume
from perjoule.statistics.records import Comparison
from perjoule.types import MetricSpec
from tests.support.tables_of_runs import imported

ALIGNMENT = MetricSpec(
    name="m",
    direction="higher",
    track="alignment",
    needs_reference=False,
    unit="",
    weights_digest="none",
    licence="MIT",
    description="",
    advisory=False,
    bounds=(None, None),
)
FIDELITY = replace(ALIGNMENT, track="fidelity")


def arm(variant: str, role: Any, rungs: int, family: str = "a", batch_size: int | None = None) -> Arm:
    return Arm(
        variant=variant, role=role, policy="fixed", family=family, columns=tuple(range(rungs)), batch_size=batch_size
    )


LADDERS = (
    arm("one", "fixed", 3, batch_size=1),
    arm("four", "fixed", 5, batch_size=4),
    arm("other", "fixed", 9, family="b"),
)


@pytest.mark.parametrize(
    ("test", "spec", "anchor"),
    [
        (arm("x", "predicted", 2, batch_size=1), ALIGNMENT, "one"),
        (arm("x", "predicted", 2, batch_size=4), FIDELITY, "four"),
        (arm("x", "predicted", 2, batch_size=16), ALIGNMENT, "four"),
        (arm("x", "predicted", 2), ALIGNMENT, "four"),
        (arm("x", "distilled", 2, family="c"), ALIGNMENT, "other"),
        (arm("x", "distilled", 2, family="c"), FIDELITY, None),
        (LADDERS[0], FIDELITY, "four"),
        (LADDERS[1], FIDELITY, None),
        (LADDERS[1], ALIGNMENT, "other"),
        (LADDERS[2], ALIGNMENT, None),
    ],
)
def test_an_arm_meets_its_own_family_and_batch_size_first(test: Arm, spec: MetricSpec, anchor: str | None) -> None:
    found = anchor_of(test, (*LADDERS, test), spec)
    assert (found.variant if found else None) == anchor


# energy and quality of each rung, the same for all prompts up to an offset of the prompt
LADDER = {2: (1.0, 0.1), 4: (2.0, 0.6), 8: (4.0, 0.8), 16: (8.0, 0.85)}
QUICK = {2: (0.9, 0.15), 4: (1.7, 0.5), 8: (3.0, 0.75), 16: (6.0, 0.83)}
MEAN, OFFSET = 1 + 5.5 / 100, 5.5 / 1000


def compared(folder: Path, sign: float = 1.0, arms: Any = (LADDER, QUICK), **changes: Any) -> Comparison:
    """QUICK against the ladder, under a metric between 0 and 1, or the same below 0."""
    rows = [
        {
            "variant": variant,
            "prompt_id": f"p{prompt}",
            "seed": 1,
            "steps": steps,
            "energy_j": energy * (1 + prompt / 100),
            "provenance": "measured",
            "quality:q": sign * (quality + prompt / 1000),
        }
        for variant, rungs in zip(("ladder", "quick"), arms, strict=True)
        for steps, (energy, quality) in rungs.items()
        for prompt in range(12)
    ]
    bounds = (0.0, 1.0) if sign > 0 else (-1.0, 0.0)
    run = imported(pl.DataFrame(rows), folder, bounds={"q": bounds}, lower=["q"] if sign < 0 else [])
    vars(run).update(metrics={"q": replace(run.metrics["q"], **changes)})
    (found,) = frontier_of(run, draw(run, ["q"], 200), "q").comparisons
    assert (found.test, found.anchor) == ("quick", "ladder")
    return found


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_bd_with_stretched_qualities_is_scipys(tmp_path: Path, sign: float) -> None:
    """PCHIP of ln E over −ln(bound + ε − Q), with ε a hundredth of all qualities, averaged evenly over quality."""
    arms = [np.array(sorted(rungs.values())) for rungs in (QUICK, LADDER)]
    low, high = 0.15 + OFFSET, 0.83 + OFFSET
    at = np.linspace(low, high, 100_001)
    logs = []
    for rungs in arms:
        stretch = lambda quality: -np.log(1 - quality + 0.01 * (0.85 - 0.1))  # noqa: E731
        logs.append(PchipInterpolator(stretch(rungs[:, 1] + OFFSET), np.log(rungs[:, 0]))(stretch(at)))
    wanted = np.expm1(np.trapezoid(logs[0] - logs[1], at) / (high - low))
    found = compared(tmp_path, sign).bd
    assert found is not None
    assert found.saturating == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_an_arm_that_does_not_reach_the_top_is_compared_at_the_next_rung(tmp_path: Path, sign: float) -> None:
    found = compared(tmp_path, sign)
    assert found.at_quality == pytest.approx(sign * (0.8 + OFFSET))
    assert f"does not reach quality {sign * (0.85 + OFFSET):.4g} in every resample" in (found.saving_reason or "")
    # PCHIP of ln E over quality, at the quality of the anchor's rung of 4 J
    quick = np.array(sorted(QUICK.values()))
    wanted = 1 - np.exp(PchipInterpolator(quick[:, 1], np.log(quick[:, 0]))(0.8)) / 4.0
    assert found.iso_quality_saving.value == pytest.approx(float(wanted))


def test_the_area_gained_is_that_of_both_less_that_of_the_anchor(tmp_path: Path) -> None:
    found = compared(tmp_path)
    quick, ladder = (np.array(sorted(rungs.values())) for rungs in (QUICK, LADDER))
    corner = (2 * 8.0, 0.1)
    both = np.vstack([quick, ladder])
    wanted = hypervolume(both[:, 0], both[:, 1], corner) - hypervolume(ladder[:, 0], ladder[:, 1], corner)
    assert found.hypervolume_gain is not None
    assert found.hypervolume_gain.value == pytest.approx(wanted)


def test_prices_are_round_numbers_around_what_the_rungs_of_the_anchor_cost(tmp_path: Path) -> None:
    (tmp_path / "even").mkdir()
    found = compared(tmp_path).net_benefit
    assert found is not None
    prices = [benefit.joules_per_quality for benefit in found]
    # from 1 J for 0.5 to 4 J for 0.05
    assert (prices[0], prices[-1]) == pytest.approx((2.0 * MEAN, 80.0 * MEAN), rel=0.05)
    assert prices == sorted({float(f"{price:.2g}") for price in prices})
    even = compared(
        tmp_path / "even", arms=({2: (2.0, 0.1), 16: (16.0, 0.8)}, {2: (1.0, 0.1), 16: (8.0, 0.8)})
    ).net_benefit
    assert even is not None
    assert [benefit.joules_per_quality for benefit in even] == pytest.approx([20.0 * MEAN], rel=0.05)


@pytest.mark.parametrize(("track", "is_predicted"), [("alignment", True), ("absolute", True), ("sharpness", False)])
def test_preference_is_predicted_from_metrics_of_single_images(tmp_path: Path, track: str, is_predicted: bool) -> None:
    assert (compared(tmp_path, track=track).preference is not None) == is_predicted
