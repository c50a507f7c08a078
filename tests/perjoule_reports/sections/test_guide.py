from __future__ import annotations

import pytest

from perjoule_reports.records import Report

pytestmark = pytest.mark.slow


def test_every_section_says_how_many_which_interval_and_what_would_change_it(report: Report) -> None:
    for found in report.shown:
        assert found.how_to_read, found.anchor
        assert found.sample, found.anchor
        assert found.interval, found.anchor
        assert found.change, found.anchor
