"""Badges that say how far the numbers can be trusted."""

from __future__ import annotations

from dataclasses import replace

import pytest

from perjoule_reports import build_report

pytestmark = pytest.mark.slow


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
