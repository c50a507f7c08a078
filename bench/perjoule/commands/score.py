"""`perjoule score`."""

from __future__ import annotations

from typing import Annotated

import typer

from perjoule.commands import completing
from perjoule.commands.options import (
    Json,
    Offline,
    Quiet,
    RunArgument,
    Wide,
    print_record,
    print_text,
    reporter,
    terminal_width,
)


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(score)


def score(
    run: RunArgument,
    metric: Annotated[
        list[str] | None,
        typer.Option("--metric", help="Metric to score; repeatable.", autocompletion=completing.metrics),
    ] = None,
    wide: Wide = False,
    offline: Offline = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Score the stored images of a run again.

    Needs no meter and generates no images.

    Example: perjoule score runs/demo --metric lsnr
    """
    from perjoule.commands import tables
    from perjoule.running import pipeline
    from perjoule.runs.directory import load_run
    from perjoule.runs.lock import being_written

    loaded = load_run(run)
    with being_written(run):
        scored = pipeline.score(loaded, pipeline.metrics_for(loaded, metric or []), reporter(quiet))
    summary = tables.score_summary(scored)
    print_record(summary) if as_json else print_text(tables.score_text(summary, terminal_width(wide)))
