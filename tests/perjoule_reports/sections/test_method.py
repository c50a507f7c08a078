from __future__ import annotations

import pytest
from tests.support.reports import section

from perjoule_reports.records import Report

pytestmark = pytest.mark.slow


def test_a_measured_run_is_described_from_its_suite(usual_report: Report) -> None:
    found = section(usual_report, "method")
    assert found.how_to_read.startswith("This section is generated from the suite and the run")
    text = "\n".join(found.paragraphs)
    assert "Intervals: " in text
    assert "BD" in text


def test_a_table_is_not_said_to_have_been_measured_here(report: Report) -> None:
    found = section(report, "method")
    assert "how they were obtained is unknown" in found.how_to_read
    assert found.change.startswith("A table of other batch sizes")
