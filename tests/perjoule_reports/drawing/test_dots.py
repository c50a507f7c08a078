from __future__ import annotations

import re

from perjoule_reports.drawing.dots import Row, interval_figure
from perjoule_reports.records import Table

_TABLE = Table(caption="", columns=(), rows=())


def drawn(*rows: Row) -> str:
    return interval_figure("f", "Title", rows, label="x", description="", caption="", data=_TABLE).svg


def test_an_open_end_is_an_arrow() -> None:
    svg = drawn(
        Row(label="one\ntwo", value=1.0, low=0.5, high=None, series=0),
        Row(label="three", value=1.0, low=0.5, high=2.0, series=1),
    )
    assert re.findall(r'id="f-row-(\d)-open-(\w+)"', svg) == [("0", "high")]
    assert {"one", "two", "three"} <= set(re.findall(r">(\w+)</text>", svg))
