"""Badges that say how far the numbers can be trusted."""

from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest

from perjoule_reports import build_report, render_html

pytestmark = pytest.mark.slow
list_of_text = pl.List(pl.String)


def proof_badge(run, proof):
    environment = {**run.environment, "meter": {"name": "nvml", "why": "", "notes": [], "proof": proof}}
    report = build_report(replace(run, environment=environment))
    return next((badge for badge in report.badges if badge.label == "meter proof"), None)


@pytest.mark.parametrize(
    ("verdict", "tone"), [("pass", "plain"), ("unsure", "loud"), ("fail", "alarm"), ("something new", "alarm")]
)
def test_the_proof_of_the_meter_is_a_badge(small, verdict, tone):
    why = f"{verdict}: phase"
    badge = proof_badge(small, {"verdict": verdict, "why": why, "digest": "abc", "created_utc": "2026-01-02"})
    assert (badge.value, badge.tone) == (why, tone)
    assert "abc" in badge.hint
    assert "2026-01-02" in badge.hint


@pytest.mark.parametrize("proof", [None, {"verdict": None, "why": "perjoule doctor --prove was not run"}])
def test_a_meter_without_a_proof_has_no_badge(small, proof):
    assert proof_badge(small, proof) is None


def test_windows_of_a_smaller_batch_are_an_arm_of_their_own(small):
    planned = small.trials["cell_id"][0]
    name = small.trials["variant"][0]
    smaller = planned.replace(name, f"{name}@b2")

    def renamed(frame):
        columns = [column for column in ("cell_id", "variant") if column in frame.columns]
        new = pl.col(columns).str.replace(name, f"{name}@b2", literal=True)
        return frame.with_columns(pl.when(pl.col("cell_id") == planned).then(new).otherwise(pl.col(columns)))

    words = pl.when(pl.col("cell_id") == smaller).then(pl.lit(["W266: 4 images …"])).otherwise(pl.lit([], list_of_text))
    tables = {table: renamed(getattr(small, table)) for table in ("trials", "images", "scores", "points")}
    tables["trials"] = tables["trials"].with_columns(warnings=words)
    report = build_report(replace(small, **tables))
    count = tables["trials"]["cell_id"].to_list().count(smaller)
    sentence = (
        f"{count} trials did not fit into memory and were drawn with fewer images per call, as cells of their own"
    )
    assert f"{sentence} (W266): {smaller}." in report.headline.beware
    assert smaller in render_html(report)
