from __future__ import annotations

import pytest
from tests.support.reports import rendered, section

from perjoule.running.reporting import ReportRequest
from perjoule.runs.directory import Run
from perjoule_reports import build_report
from perjoule_reports.records import Report

pytestmark = pytest.mark.slow


def test_carbon_only_on_request(run: Run, report: Report) -> None:
    assert all(s.anchor != "carbon" for s in report.sections)
    asked = build_report(run, ReportRequest(co2_country="FRA"))
    assert "not an SCI score" in section(asked, "carbon").paragraphs[0]
    assert "1000 images of quick-064" in section(asked, "carbon").paragraphs[0]
    rendered(asked)
