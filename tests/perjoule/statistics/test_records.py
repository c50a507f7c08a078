from __future__ import annotations

import json
from dataclasses import fields

from perjoule.runs.directory import Run
from perjoule.statistics.frontier import frontier, read_frontier
from perjoule.statistics.records import Frontier


def test_the_record_is_what_is_printed(run: Run) -> None:
    """Every field is a key of the JSON, which no number spoils."""
    record, printed = read_frontier(run, "q", resamples=50), frontier(run, "q", resamples=50)
    assert json.loads(json.dumps(printed, allow_nan=False)) == json.loads(json.dumps(printed))
    names = {field.name for field in fields(Frontier)}
    assert names <= {*printed, *(name for name in names if getattr(record, name) is None)}
    assert [point["cell_id"] for point in printed["points"]] == [point.cell_id for point in record.points]
    assert printed["points"][0]["quality"]["low"] == record.points[0].quality.low
    # `from` is a word of Python
    assert printed["marginal"][0]["from"] == record.marginal[0].from_
