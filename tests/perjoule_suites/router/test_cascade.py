from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from tests.support.routes import route_table
from tests.support.tables_of_runs import imported

from perjoule.errors import EvidenceError, PerjouleError
from perjoule.runs.directory import Run
from perjoule_suites.router.arms import read_arms
from perjoule_suites.router.cascade import Verifier, cascade, halves, read_verifier
from perjoule_suites.router.evaluation import evaluate
from perjoule_suites.router.printing import evaluation_lines
from perjoule_suites.router.records import OwnCost, PolicyPoint
from perjoule_suites.router.router import Router

FEW = 200
STATED = OwnCost(energy_j_per_image=0.5, share=None, method="as stated", reason=None)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two verifiers: `sees` knows how good an image is, `blind` knows nothing."""
    frame = route_table(120, 100, seeds=2, seed=2)
    chance = np.random.default_rng(0)
    noise = pl.Series("quality:blind", chance.normal(size=len(frame)))
    frame = frame.with_columns(noise, (pl.col("quality:q") * 10 + 0.001 * noise).alias("quality:sees"))
    return imported(frame, tmp_path_factory.mktemp("cascade"))


def outcome(run: Run, router: Router, verifier: str, at: float) -> dict[str, PolicyPoint]:
    found = evaluate(run, router, name="r", at_quality=at, verifier=verifier, verifier_j=0.5, resamples=FEW)
    return {policy.policy: policy for policy in found.points[0].policies}


@pytest.mark.parametrize(
    ("at", "cascade_j", "mixture_j"),
    # a quarter (two fifths) of the student's images are drawn again; the mixture draws half (four fifths) with 8 J
    [(0.775, 1 + 0.5 + 8 / 4, 4.5), (0.85, 1 + 0.5 + 0.4 * 8, 6.6)],
)
def test_a_verifier_that_sees_pays_for_every_image_it_looks_at(
    run: Run, router: Router, at: float, cascade_j: float, mixture_j: float
) -> None:
    point = outcome(run, router, "sees", at)["cascade"]
    assert point.quality == pytest.approx(at, abs=1e-6)
    assert point.energy_j_per_image == pytest.approx(cascade_j, abs=0.15)
    assert point.saving is not None
    assert point.saving.value == pytest.approx(1 - cascade_j / mixture_j, abs=0.04)
    assert point.saving.low is not None
    assert point.saving.low < 1 - cascade_j / mixture_j + 0.04


def test_a_verifier_that_knows_nothing_costs_more_than_a_coin(run: Run, router: Router) -> None:
    """Half of the images are drawn twice: 1 + 0.5 + 4 J, where the mixture needs 4.5 J."""
    point = outcome(run, router, "blind", 0.775)["cascade"]
    assert point.saving is not None
    assert point.saving.high is not None
    assert point.saving.value == pytest.approx(1 - 5.5 / 4.5, abs=0.08)
    assert point.saving.high < 0


def test_the_verifier_is_named_with_its_energy(run: Run, router: Router) -> None:
    found = evaluate(run, router, name="r", at_quality=0.8, verifier="sees", verifier_j=0.5, resamples=FEW)
    assert (found.verifier, found.verifier_cost) == ("sees", STATED)
    lines = evaluation_lines(found)
    assert "the cascade's verifier, sees, is included: 0.5 J/image (as stated)" in lines
    assert any(line.startswith("  cascade: ") for line in lines)
    without = evaluate(run, router, name="r", at_quality=0.8, resamples=FEW)
    assert (without.verifier, without.verifier_cost) == (None, None)
    assert "cascade" not in {policy.policy for policy in without.points[0].policies}


@pytest.mark.parametrize(
    ("verifier", "energy_j", "words"),
    [
        ("q", 0.5, "--verifier q: it would judge itself"),
        ("sees", None, "the run has no images.*state its energy with --verifier-joules"),
        ("seas", 0.5, "did you mean|sees"),
    ],
)
def test_a_verifier_that_cannot_be_one(run: Run, verifier: str, energy_j: float | None, words: str) -> None:
    with pytest.raises(PerjouleError, match=words):
        read_verifier(run, read_arms(run), verifier, energy_j)


def test_a_metric_with_a_reference_is_no_verifier(run: Run, tmp_path: Path) -> None:
    other = Run(path=run.path)
    vars(other)["metrics"] = run.metrics | {"sees": replace(run.metrics["sees"], needs_reference=True)}
    with pytest.raises(EvidenceError, match="does not judge a single image"):
        read_verifier(other, read_arms(run), "sees", 0.5)


def worlds(seed: int) -> tuple[np.ndarray, np.ndarray, Verifier]:
    chance = np.random.default_rng(seed)
    quality = chance.uniform(size=(30, 2, 4)) + np.array([0, 0.1, 0.3, 0.6])
    verdicts = quality + 0.3 * chance.normal(size=quality.shape)
    verdicts[3, 1, 0] = np.nan
    return quality, np.array([1.0, 2.0, 4.0, 9.0]), Verifier(metric="v", verdicts=verdicts, cost=STATED)


@pytest.mark.parametrize("seed", range(5))
def test_each_half_has_at_least_the_quality_of_the_mixture(seed: int) -> None:
    quality, prices, verifier = worlds(seed)
    mixture = 0.4 * quality[..., 0] + 0.6 * quality[..., 3]
    found = cascade(quality, prices, verifier, mixture)
    assert found is not None
    drawn, taken = found
    assert taken.sum(-1) == pytest.approx(np.ones((30, 2)))
    own = (taken * quality).sum(-1)
    for half in halves(30):
        assert own[half].mean() >= mixture[half].mean() - 1e-9
        if drawn[half].sum(-1).max() > 1:  # else the cheap arm is good enough alone
            assert own[half].mean() == pytest.approx(mixture[half].mean())
        cheap = int(np.flatnonzero((drawn[half] == 1.0).all((0, 1)))[0])
        # the cheap arm draws every image, whether its image is taken or not
        assert drawn[half].sum(-1) == pytest.approx(2 - taken[half][..., cheap])
        # the rejected ones are those with the lowest verdicts, with one that a coin decides
        rejected = 1 - taken[half][..., cheap].ravel()
        order = np.argsort(np.nan_to_num(verifier.verdicts[half][..., cheap].ravel(), nan=-np.inf))
        assert (np.diff(rejected[order]) <= 1e-12).all()
        assert ((rejected > 0) & (rejected < 1)).sum() <= 1


def test_the_arms_are_chosen_on_the_other_half() -> None:
    """A pair that would be best on one half only is used on the other one, where it loses."""
    one, other = halves(40)
    quality = np.full((40, 1, 3), 0.5)
    quality[..., 2] = 1.0
    quality[one, :, 1] = 1.0  # a cheap arm that is perfect for these prompts
    verdicts = np.random.default_rng(0).uniform(size=quality.shape)
    verifier = Verifier(metric="v", verdicts=verdicts, cost=STATED)
    mixture = np.full((40, 1), 0.9)
    found: Any = cascade(quality, np.array([1.0, 1.1, 9.0]), verifier, mixture)
    drawn, _ = found
    assert drawn[one, :, 1].sum() == 0  # the others show nothing good about it
    assert (drawn[other, :, 1] == 1).all()


def test_a_quality_that_no_pair_reaches_has_no_cascade() -> None:
    quality, prices, verifier = worlds(1)
    assert cascade(quality, prices, verifier, np.full((30, 2), 9.0)) is None
