from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy.interpolate import PchipInterpolator

from perjoule.runs.directory import Run
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


RUNGS = np.array([2, 4, 8, 16, 32])
COSTS, HEIGHTS = 1.0 + RUNGS, 1 - np.exp(-RUNGS / 8)


def blind(folder: Path, arms: dict[str, list[list[int]]]) -> Run:
    """A ladder, and policies whose levels deal its rungs to prompts that gain the same from them: nothing can be known.

    Args:
        folder: For the run.
        arms: Role -> levels, each with the rungs that it deals in turn.
    """
    dealt: list[tuple[str, str, str, list[int]]] = [("ladder", "fixed", "fixed", [rung]) for rung in range(len(RUNGS))]
    dealt += [
        (role, role, f"level-{level}", rungs) for role, levels in arms.items() for level, rungs in enumerate(levels)
    ]
    rows = [
        {
            "variant": variant,
            "role": role,
            "policy": policy,
            "family": "one",
            "prompt_id": f"p{prompt:02d}",
            "seed": 1,
            "steps": int(RUNGS[rung := rungs[prompt % len(rungs)]]),
            "energy_j": COSTS[rung] + (prompt - 5.5) / 100,
            "provenance": "measured",
            "quality:q": HEIGHTS[rung] + (prompt - 5.5) / 1000,
        }
        for variant, role, policy, rungs in dealt
        for prompt in range(12)
    ]
    return imported(pl.DataFrame(rows), folder, bounds={"q": (0.0, 1.0)})


def first_record(run: Run, at_quality: float | None = None) -> Comparison:
    compared = frontier_of(run, draw(run, ["q"], 50), "q", at_quality=at_quality).comparisons
    return next(record for record in compared if record.test == "predicted")


class TestLevelsOfPolicies:
    def test_a_policy_that_knows_nothing_saves_nothing(self, tmp_path: Path) -> None:
        """Three levels: 2 steps, 32 steps, and either at random. At each quality it costs their mixture."""
        run = blind(tmp_path, {"predicted": [[0], [0, 4], [4]]})
        for at in (0.3, 0.5, 0.7, 0.9):
            record = first_record(run, at)
            mixture_j, ladder_j = (np.interp(at, HEIGHTS[of], COSTS[of]) for of in ([0, 4], slice(None)))
            assert mixture_j > ladder_j
            assert record.iso_quality_saving.value == pytest.approx(1 - mixture_j / ladder_j)
            assert record.iso_quality_saving.method.startswith("cheapest mixtures of levels")
        assert record.bd_energy.value is not None
        assert record.bd_energy.value > 0
        assert record.bd is not None
        assert (record.bd.akima, record.bd.saturating) == (None, None)
        # the energy at which both are compared is that of 32 steps, where they are the same
        assert record.iso_energy_gain.value == pytest.approx(0, abs=1e-12)
        assert record.relative_curve is not None
        qualities = np.array(record.relative_curve.quality)
        truth = np.interp(qualities, HEIGHTS[[0, 4]], COSTS[[0, 4]]) / np.interp(qualities, HEIGHTS, COSTS) - 1
        assert record.relative_curve.energy_change == pytest.approx(truth, abs=1e-9)

    def test_levels_that_deal_neighbours_are_the_ladder_itself(self, tmp_path: Path) -> None:
        """Against the ladder, and against a control with other levels of the same mixtures."""
        levels = [[0], [0, 1], [1], [1, 2, 2], [2], [3], [3, 4], [4]]
        record = first_record(blind(tmp_path, {"predicted": levels, "control": [[0], [1], [2], [3, 4]]}))
        assert record.bd_energy.value == pytest.approx(0.0, abs=1e-9)
        assert record.controls is not None
        (control,) = record.controls.against
        assert control.iso_quality_saving is not None
        assert control.iso_quality_saving.value == pytest.approx(0.0, abs=1e-9)

    def test_one_level_is_compared_with_the_curve_of_the_ladder(self, tmp_path: Path) -> None:
        """A ladder has further step counts between its rungs, which cost less than mixtures of rungs do."""
        record = first_record(blind(tmp_path, {"predicted": [[1, 3]]}))
        curve = PchipInterpolator(HEIGHTS, np.log(COSTS))
        own = HEIGHTS[[1, 3]].mean()
        assert record.iso_quality_saving.value == pytest.approx(1 - COSTS[[1, 3]].mean() / np.exp(curve(own)))
        assert "PCHIP" in record.iso_quality_saving.method
