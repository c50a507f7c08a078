"""The worked example of docs/study.md, rebuilt from open data: Likert points per kilojoule of Stable Diffusion."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from perjoule.importing.conversion import import_table
from perjoule.runs.directory import Run, load_run
from perjoule.statistics.contrasts import contrasts
from perjoule.statistics.drawn import drawn_for, evidence_of
from perjoule.statistics.frontier import read_frontier
from perjoule.statistics.resampling import RESAMPLES
from tests.support.ratings import RATINGS

pytestmark = pytest.mark.skipif(RATINGS is None, reason="no ratings of people in ../shared/data/ratings")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    assert RATINGS is not None
    out = tmp_path_factory.mktemp("sd") / "run"
    import_table(RATINGS / "sd-ratings-joules.csv", out)
    return load_run(out)


def against_the_first(run: Run, metric: str) -> dict[str, tuple[float, float, float]]:
    """Paired differences from Stable Diffusion 1.1, with their intervals."""
    evidence = evidence_of(run, drawn_for(run, metric, RESAMPLES), metric)
    made = contrasts(evidence, "stable-diffusion-v1-1-050")
    return {cell[18:21]: (one.quality.value, one.quality.low, one.quality.high) for cell, one in made.items()}


def test_people_see_what_metrics_do_not(run: Run) -> None:
    human = against_the_first(run, "human")
    assert human["1-5"] == pytest.approx((0.26, 0.14, 0.38), abs=0.01)
    for metric in ("clipscore", "tifa"):
        _, low, high = against_the_first(run, metric)["1-5"]
        assert low < 0 < high, metric


def test_likert_points_per_kilojoule(run: Run) -> None:
    joules = dict(run.windows.group_by("cell_id").agg(pl.col("energy_j").mean()).iter_rows())
    extra_kj = (joules["stable-diffusion-v2-1-050"] - joules["stable-diffusion-v1-1-050"]) / 1000
    gains = [end / extra_kj for end in against_the_first(run, "human")["2-1"]]
    assert gains == pytest.approx([1.12, 0.80, 1.46], abs=0.03)
    comparison = next(c for c in read_frontier(run, "human").comparisons if c.test.endswith("2-1"))
    assert 1000 * comparison.gain_per_joule.value == pytest.approx(gains[0])
    assert comparison.gain_per_joule.low is None  # one stated energy per cell


def test_the_document_has_these_figures() -> None:
    text = (Path(__file__).parents[3] / "docs" / "study.md").read_text(encoding="utf-8")
    assert "+1.12 [0.80, 1.46]" in text
    assert "+0.26 [0.14, 0.38]" in text
