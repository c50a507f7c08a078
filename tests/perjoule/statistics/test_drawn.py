from __future__ import annotations

from perjoule.runs.directory import Run
from perjoule.statistics.drawn import draw, drawn_for, drawn_once, evidence_of
from perjoule.statistics.frontier import frontier_of, read_frontier
from perjoule.statistics.resampling import RESAMPLES

DRAWS = 400


def test_the_frontier_of_shared_draws_is_the_frontier(run: Run) -> None:
    drawn = draw(run, ["q", "loss"], DRAWS)
    assert frontier_of(run, drawn, "q") == read_frontier(run, "q", resamples=DRAWS)


def test_draws_are_made_once_and_used_where_they_fit(run: Run) -> None:
    fresh = Run(path=run.path)
    assert drawn_for(fresh, "q", 20).draws.metrics == ("q",)
    kept = drawn_once(fresh)
    # the suite names the primary metric first
    assert kept.draws.metrics == (fresh.suite.metrics.primary, *sorted({"q", "loss"} - {fresh.suite.metrics.primary}))
    assert drawn_once(fresh) is kept
    primary, other = kept.draws.metrics
    assert drawn_for(fresh, primary, RESAMPLES) is kept
    assert drawn_for(fresh, other, RESAMPLES) is not kept
    assert len(drawn_for(fresh, primary, 20).draws.energy.resamples) == 20


def test_evidence_is_that_of_one_metric(run: Run) -> None:
    drawn = draw(run, ["q", "loss"], 20)
    assert list(evidence_of(run, drawn, "loss").grid.quality) == ["loss"]
    assert (evidence_of(run, drawn, "loss").quality == -drawn.grid.quality["loss"]).all()
