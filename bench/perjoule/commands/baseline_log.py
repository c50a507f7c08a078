"""`perjoule baseline log`: appends a run to the history and shows the trend."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from perjoule.commands import completing
from perjoule.commands.options import Json, print_record, print_text
from perjoule.errors import UsageError

if TYPE_CHECKING:
    from perjoule.gating.trends import Course, HistoryLog, Trend

_BARS = "▁▂▃▄▅▆▇█"
_MOST_BARS = 60
_MOST_CHANGES = 6
FAILED = 1


def log(
    run: Annotated[
        Path | None,
        typer.Argument(metavar="[RUN]", help="Run directory to append.", autocompletion=completing.runs),
    ] = None,
    accept: Annotated[
        str | None,
        typer.Option(
            metavar="REASON", help="The last change was intended: start the trend again there, for this reason."
        ),
    ] = None,
    suite: Annotated[str | None, typer.Option("--suite", help="Show, or accept, only this suite.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Exit with 1 if a trend is for the worse.")] = False,
    as_json: Json = False,
) -> None:
    """Add a run to the history; show the trend.

    The history is .perjoule/history.jsonl, one line per run, for git. A slow drift or a step is reported even if no
    gate failed. Without RUN, shows the trend.

    Example: perjoule baseline log runs/demo
    """
    from perjoule.gating import history, trends
    from perjoule.runs.directory import load_run

    logged, added = None, False
    if run is not None:
        line = history.logged_run(load_run(run))
        if suite not in (None, line.suite):
            raise UsageError(f"--suite {suite}: {run} is a run of the suite {line.suite!r}")
        suite, logged, added = line.suite, line.id, history.log_run(line)
    accepted = None if accept is None else _accept(accept, suite)
    stored = history.read_history()
    courses = [course for course in trends.courses(stored) if suite in (None, course.trend.suite)]
    if suite is not None and not courses:
        raise UsageError(f"--suite {suite}: {history.FILE} has no run of it: log one with `perjoule baseline log RUN`")
    record = trends.HistoryLog(
        history=history.FILE, logged=logged, added=added, accepted=accepted, runs=len(stored.runs),
        trends=tuple(course.trend for course in courses),
    )  # fmt: skip
    print_record(record) if as_json else print_text(in_text(record, courses))
    if check and any(trend.verdict == "worse" for trend in record.trends):
        raise typer.Exit(FAILED)


def _accept(reason: str, suite: str | None) -> str:
    """Store that the last change was intended; returns what was accepted, in words."""
    from perjoule.gating import history, trends

    courses = trends.courses(history.read_history())
    names = sorted({course.trend.suite for course in courses})
    if suite is None and len(names) != 1:
        raise UsageError(f"--accept: name the suite with --suite ({', '.join(names) or 'the history is empty'})")
    newest = next((course.trend for course in courses if suite in (None, course.trend.suite)), None)
    if newest is None:
        raise UsageError(f"--suite {suite}: {history.FILE} has no run of it; suites: {', '.join(names) or 'none'}")
    # a drift has reached its present level at the newest run only
    dates = [change.date if change.kind == "step" else newest.last for change in newest.changes]
    line = history.accept(newest.suite, max(dates, default=newest.last), reason)
    return (
        f"the trend of {newest.suite} starts again at the run of {line.since[:10]}, because of {line.reason!r}: "
        f"{_what(newest)}"
    )


def _what(newest: Trend) -> str:
    """Return the changes of a trend that are accepted, or that there are none."""
    from perjoule.gating.trends import in_words, main_changes

    changes = main_changes(newest.changes)
    if changes:
        more = f" And {len(changes) - 1} more." if len(changes) > 1 else ""
        return f"{in_words(changes[0])}{more}"
    if newest.began_with:
        return f"it is a new series already ({', '.join(newest.began_with)}), and has no change"
    return "it has no change; this is its newest run"


def in_text(record: HistoryLog, courses: list[Course]) -> str:
    """Return the trends as text."""
    lines = []
    if record.logged is not None:
        done = "added to" if record.added else "already in"
        lines.append(f"run {record.logged}: {done} {record.history} ({record.runs} runs)")
    if record.accepted is not None:
        lines.append(f"accepted: {record.accepted}")
    if not courses:
        lines.append(f"{record.history} has no runs: log one with `perjoule baseline log RUN`")
    for course in courses:
        trend = course.trend
        lines += ["", f"{trend.verdict.upper()}  {trend.title}", f"  {trend.sentence}"]
        lines += [f"  {words}" for words in _details(trend)]
        if len(course.energy_j) > 1:
            first, last = course.energy_j[0], course.energy_j[-1]
            lines.append(f"  {bars(course.energy_j)}  J/image, {first:.4g} to {last:.4g}")
    return "\n".join(lines).strip("\n")


def _details(trend: Trend) -> list[str]:
    from perjoule.gating.trends import in_words, main_changes

    lines = []
    if trend.began_with:
        lines.append(f"New series since {trend.first[:10]}: {', '.join(trend.began_with)}.")
    rest = main_changes(trend.changes)[1:]
    lines += [f"- {in_words(change)}" for change in rest[:_MOST_CHANGES]]
    if len(rest) > _MOST_CHANGES:
        lines.append(f"- and {len(rest) - _MOST_CHANGES} more, see --json")
    if trend.session_sd:
        lines.append(f"Noise between runs: {100 * trend.session_sd:.2g} % (standard deviation of ln J/image).")
    if trend.accepted is not None:
        lines.append(f"Starts at {trend.first[:10]}, where a change was accepted: {trend.accepted}")
    if trend.skipped:
        lines.append(f"Not tested, because not every run has their joules: {', '.join(trend.skipped)}")
    return lines


def bars(values: tuple[float, ...]) -> str:
    """Return the last values as a line of bars, from the lowest to the highest."""
    shown = values[-_MOST_BARS:]
    low, high = min(shown), max(shown)
    span = high - low
    if span <= 1e-9 * abs(high):
        return _BARS[0] * len(shown)
    return "".join(_BARS[round((value - low) / span * (len(_BARS) - 1))] for value in shown)
