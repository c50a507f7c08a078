"""Arguments, options and output that several verbs share."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from perjoule.commands import completing, outcome
from perjoule.text import as_json, printable
from perjoule.weights.downloads import go_offline

if TYPE_CHECKING:
    from perjoule.commands.console import TerminalReporter
    from perjoule.runs.directory import Run

Json = Annotated[bool, typer.Option("--json", help="Print machine-readable JSON on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print no progress and no messages on stderr.")]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="Run directory.", autocompletion=completing.runs)]
StoredRun = Annotated[
    str,
    typer.Argument(
        metavar="RUN", help="Run directory, or its address s3://BUCKET/PATH.", autocompletion=completing.runs
    ),
]
Metric = Annotated[
    str | None,
    typer.Option("--metric", help="Metric; the suite's primary one by default.", autocompletion=completing.metrics),
]
StudyOption = Annotated[
    Path | None,
    typer.Option("--study", metavar="STUDY", help="Judge quality by the answers of people: a study, or a table."),
]
SuiteArgument = Annotated[
    str, typer.Argument(metavar="SUITE", help="Built-in name or TOML file.", autocompletion=completing.suites)
]
MeterName = Annotated[
    str,
    typer.Option(
        "--meter",
        help="auto, nvml, nvml:UUID, rapl, work, work:PROFILE, estimate or replay:FILE.",
        autocompletion=completing.meters,
    ),
]
SensorChoice = Annotated[
    str | None,
    typer.Option(
        "--sensor",
        metavar="stored|GAIN,OFFSET[,W]",
        help="Correct the power of the board's sensor: as calibrated (`perjoule calibrate`), or as stated, W being "
        "the uncertainty.",
    ),
]
Board = Annotated[
    str | None, typer.Option("--board", metavar="BOARD", help="Index or UUID of the board, if the log has several.")
]
Averaging = Annotated[
    float | None,
    typer.Option(min=0, max=10, metavar="S", help="Averaging time of the sensor, 0 for an instant one; else learnt."),
]
Limit = Annotated[
    int | None, typer.Option("--limit", help="Use only the first N prompts (a nested, stratified subset).")
]
Models = Annotated[
    list[str] | None,
    typer.Option("--model", help="OLD=NEW or OLD=NEW@REVISION: use another repository or folder; repeatable."),
]
MaxJoules = Annotated[float | None, typer.Option("--max-joules", help="Limit of the energy of all windows together.")]
MaxMinutes = Annotated[
    float | None, typer.Option("--max-minutes", help="Limit of the time until the last window ends.")
]

MarginEnergy = Annotated[
    str | None, typer.Option("--margin-energy", help="Tolerable extra energy: 5% or 0.05; 5% by default.")
]
MarginQuality = Annotated[
    float | None,
    typer.Option("--margin-quality", help="Tolerable loss, in units of the metric; the metric's own by default."),
]


def _switch_off_network(offline: bool) -> bool:
    if offline:
        go_offline()
    return offline


# takes effect when it is parsed, before a command imports anything that reads the environment
Offline = Annotated[
    bool,
    typer.Option(
        "--offline", callback=_switch_off_network, help="Use no network: take prompts, models and weights from caches."
    ),
]
Wide = Annotated[
    bool, typer.Option("--wide", help="Print all columns of a table, on a terminal that is too narrow for them.")
]
Open = Annotated[bool, typer.Option("--open", help="Open the report in a browser.")]


def terminal_width(wide: bool = False) -> int | None:
    """Return the width that a table on stdout may have; None for any width."""
    return None if wide or not sys.stdout.isatty() else shutil.get_terminal_size().columns


def page_link(page: Path, *, open_it: bool = False) -> str:
    """Return the `file://` link of a page; `open_it` opens it in a browser."""
    link = page.resolve().as_uri()
    if open_it:
        import webbrowser

        webbrowser.open(link)
    return link


def judged(run: Run, study: Path | None, metric: str | None) -> Run:
    """Return the run with the answers of a study as its primary metric; the run itself without a study.

    Raises:
        UsageError: If answers are asked for without a study, or those of people and the study has others.
    """
    if study is None and (metric is None or metric in run.metrics):
        return run
    from perjoule.errors import UsageError
    from perjoule.people.metric import NAMES, with_people

    if study is None:
        if metric in NAMES.values():
            raise UsageError(f"--metric {metric}: give --study STUDY, the answers to judge by")
        return run
    people = with_people(run, study)
    if metric in NAMES.values() and metric != people.metric:
        raise UsageError(
            f"--metric {metric}: the answers in {study} have the provenance {people.scale.provenance!r}, so their "
            f"metric is {people.metric}"
        )
    return people


def judged_pair(run: Run, baseline: Run, study: Path | None, metric: str | None) -> tuple[Run, Run]:
    """Return a candidate and its baseline, judged by the same answers; raises as `judged`."""
    ours = judged(run, study, metric)
    if study is None:
        return ours, baseline
    from perjoule.people.metric import RunWithPeople

    assert isinstance(ours, RunWithPeople)
    return ours, ours.with_baseline(baseline)


def print_text(text: str, *, err: bool = False) -> None:
    """Print a result, a table or a note, which may contain foreign text, as lines of text."""
    typer.echo(printable(text), err=err)


def print_json(value: Any) -> None:
    """Print a result as JSON."""
    typer.echo(as_json(value))
    outcome.ANSWERED.set(True)


def print_record(record: Any) -> None:
    """Print a record as JSON: the document that its JSON Schema, of the same type, describes."""
    from perjoule.types.documents import document

    print_json(document(record))


def reporter(quiet: bool) -> TerminalReporter:
    """Return the progress display."""
    from perjoule.commands.console import TerminalReporter

    return TerminalReporter(quiet=quiet)
