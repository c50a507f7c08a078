"""`perjoule frontier`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from perjoule.commands.options import Json, Metric, StoredRun, StudyOption, Wide, judged, terminal_width


class TableFormat(StrEnum):
    """How a table is printed."""

    table = "table"
    json = "json"
    csv = "csv"
    md = "md"


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(frontier)


def frontier(
    run: StoredRun,
    metric: Metric = None,
    study: StudyOption = None,
    fmt: Annotated[TableFormat, typer.Option("--format", help="Output format.")] = TableFormat.table,
    wide: Wide = False,
    as_json: Json = False,
) -> None:
    """Print operating points and their frontier.

    Example: perjoule frontier runs/demo --metric clip_text --format md
    """
    from perjoule.commands import tables
    from perjoule.runs.directory import load_run
    from perjoule.runs.remote import fetched_run

    with fetched_run(run) as folder:
        judged_run = judged(load_run(folder), study, metric)
        if study is None:
            judged_run = judged_run.of_metric(metric or judged_run.suite.metrics.primary)
        tables.print_frontier(judged_run, metric, "json" if as_json else fmt.value, terminal_width(wide))
