"""The page of a folder of runs: each run, its energy and quality over time, and a link to its report."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from perjoule.errors import RunError
from perjoule.files import write_text
from perjoule.gating.history import FILE, read_history
from perjoule.runs.directory import holds_runs
from perjoule.types import Interval
from perjoule_reports import format as fmt
from perjoule_reports.drawing.canvas import render
from perjoule_reports.drawing.figures import GLYPHS, MARKERS
from perjoule_reports.drawing.svg import CARD, GRID, SERIES, Svg, embed
from perjoule_reports.pages.html import render_page
from perjoule_reports.pages.index import BrokenRun, RunLine, SuiteRuns, read_folder
from perjoule_reports.pages.trend import TrendPart, trend_parts
from perjoule_reports.records import Badge
from perjoule_reports.sections.gate import VERDICTS

SPARK = (4.2, 1.5)  # inches


@dataclass(frozen=True, slots=True, kw_only=True)
class Spark:
    """A small curve with its title, which the page prints so that it is never cut."""

    title: str
    svg: Svg


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A run as shown on the page; `cell` is the cell of its numbers if the runs of the part have none in common."""

    run: RunLine
    verdict: Badge | None
    cell: str
    when: str
    href: str
    command: str
    tone: str
    series: int
    energy: tuple[str, str]
    quality: tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A suite as shown on the page: newest run first."""

    suite: SuiteRuns
    anchor: str
    rows: tuple[Row, ...]
    sparks: tuple[Spark, ...]
    unit: str
    note: str


def write_index(folder: Path, out: Path, on_problem: Callable[[str], object] | None = None) -> list[Path]:
    """Write the index of a folder of runs, with the trends of the history in `.perjoule/`, if there is one.

    Args:
        folder: Its sub-folders are the runs.
        out: The HTML file, or a folder that gets `index.html`. Links to reports are relative to `folder`, so the file
            belongs there.
        on_problem: Gets a sentence for each run, and for a history, that cannot be read.

    Returns:
        The file written.

    Raises:
        RunError: If the folder contains no runs.
    """
    if not holds_runs(folder):
        raise RunError(f"{folder} contains no runs: give a run directory, or a folder of run directories")
    page = out if out.suffix.lower() in {".html", ".htm"} else out / "index.html"
    write_text(page, render_index(folder, on_problem=on_problem))
    return [page]


def render_index(folder: Path, history: Path = FILE, on_problem: Callable[[str], object] | None = None) -> str:
    """Render the page. Equal runs and histories give equal bytes on one machine."""
    suites, broken = read_folder(folder)
    parts = [_part(suite, f"suite-{i}") for i, suite in enumerate(suites)]
    trends: list[TrendPart] = []
    try:
        trends = trend_parts(read_history(history))
    except RunError as error:
        reason = fmt.clean(str(error))
        broken = (*broken, BrokenRun(folder=str(history), reason=reason, problem=reason))
    for one in broken:
        if on_problem is not None:
            on_problem(one.problem)
    rules = {rule for part in parts for spark in part.sparks for rule in spark.svg.rules}
    rules |= {rule for trend in trends for curve in trend.curves for rule in curve.svg.rules}
    return render_page(
        "index.html.j2",
        css_rules=sorted(rules),
        name=fmt.clean(folder.resolve().name),
        parts=parts,
        trends=trends,
        broken=broken,
        sentence=_sentence(suites, broken, trends),
        glyphs=GLYPHS,
        colour_count=len(SERIES),
    )


def _sentence(suites: Sequence[SuiteRuns], broken: Sequence[BrokenRun], trends: Sequence[TrendPart]) -> str:
    count = sum(len(suite.runs) for suite in suites)
    tables = sum(len(suite.runs) for suite in suites if not suite.suite)
    kinds = [fmt.plural(len(suites) - bool(tables), "suite")] if len(suites) > bool(tables) else []
    kinds += [fmt.plural(tables, "imported table")] if tables else []
    counted = f"{fmt.plural(count, 'run')} of {' and '.join(kinds)}" if kinds else fmt.plural(count, "run")
    failed = sum(run.verdict in ("fail", "invalid") for suite in suites for run in suite.runs)
    counted += f", {fmt.plural(failed, 'gate')} not passed" if failed else ""
    worse = sum(trend.badge.value == "WORSE" for trend in trends)
    counted += f", {fmt.plural(worse, 'trend')} for the worse" if worse else ""
    doubtful = sum(bool(run.doubts) for suite in suites for run in suite.runs)
    counted += f", {doubtful} unfinished or with gaps" if doubtful else ""
    return counted + (f", {len(broken)} unreadable" if broken else "")


def _part(suite: SuiteRuns, anchor: str) -> Part:
    places = {series: i for i, series in enumerate(suite.series())}
    unit = fmt.scale((_energy(run, suite).value for run in suite.runs), "J")
    rows = [
        Row(
            run=run,
            verdict=_verdict(run),
            cell="" if suite.cell_id else suite.shown(run)[0],
            when=fmt.moment(run.created) or "date not recorded",
            href=f"./{quote(os.fsencode(run.folder))}/{run.report}" if run.report else "",
            command=f"perjoule report {shlex.quote(fmt.clean(run.folder))}",
            tone=fmt.TONES.get(run.provenance, "plain"),
            series=places[run.series],
            energy=fmt.interval(_energy(run, suite), unit),
            quality=fmt.interval(_quality(run, suite)),
        )
        for run in reversed(suite.runs)
    ]
    sparks, note = _sparks(suite, places, unit, anchor)
    return Part(suite=suite, anchor=anchor, rows=tuple(rows), sparks=sparks, unit=f"{unit.unit}/image", note=note)


def _verdict(run: RunLine) -> Badge | None:
    if run.verdict not in VERDICTS:
        return None
    word, sign, tone = VERDICTS[run.verdict]
    return Badge(label=sign, value=word, tone=tone)


def _energy(run: RunLine, suite: SuiteRuns) -> Interval:
    _, cell = suite.shown(run)
    return Interval() if cell is None else cell.energy


def _quality(run: RunLine, suite: SuiteRuns) -> Interval:
    _, cell = suite.shown(run)
    return Interval() if cell is None or (suite.metric and run.metric != suite.metric) else cell.quality


def _sparks(
    suite: SuiteRuns, places: dict[tuple[str, ...], int], unit: fmt.Scale, anchor: str
) -> tuple[tuple[Spark, ...], str]:
    """Draw joules and quality over the runs; a line joins comparable runs only."""
    shown = [run for run in suite.runs if _energy(run, suite).value is not None]
    if len(shown) < 2 or not suite.cell_id:
        return (), ""
    kinds = {run.provenance for run in shown} - {"measured"}
    brand = f", {' and '.join(sorted(fmt.provenance_title(kind or 'unknown') for kind in kinds))}" if kinds else ""
    energies = [(places[run.series], _scaled(_energy(run, suite), unit.factor)) for run in shown]
    qualities = [(places[run.series], _quality(run, suite)) for run in shown]
    both = [
        _spark(energies, f"{anchor}-energy", f"{suite.cell_id}: {unit.unit}/image{brand}", suite),
        _spark(qualities, f"{anchor}-quality", f"{suite.cell_id}: {suite.metric}", suite)
        if any(value.value is not None for _, value in qualities)
        else None,
    ]
    note = (
        "Oldest run on the left. A line joins complete runs whose comparability key, provenance, boundary and prompts "
        "agree."
    )
    return tuple(spark for spark in both if spark is not None), note


def _spark(values: Sequence[tuple[int, Interval]], name: str, title: str, suite: SuiteRuns) -> Spark:
    def draw(axes: Axes) -> None:
        for series in dict.fromkeys(place for place, _ in values):
            known = [(x, v) for x, (place, v) in enumerate(values) if place == series and v.value is not None]
            heights = [v.value or 0.0 for _, v in known]
            colour, marker = SERIES[series % len(SERIES)], MARKERS[series % len(MARKERS)]
            axes.plot([x for x, _ in known], heights, color=colour, linewidth=1.4,
                      marker=marker, markersize=6, markeredgecolor=CARD, markeredgewidth=0.7,
                      gid=f"course-{series}")  # fmt: skip
            for x, v in known:
                if v.low is not None and v.high is not None:
                    axes.plot([x, x], [v.low, v.high], color=colour, linewidth=1.0, alpha=0.6)
        axes.set_xlim(-0.5, len(values) - 0.5)
        axes.set_xticks([])
        axes.margins(y=0.18)
        low, high = axes.get_ylim()
        if high - low < 1e-3 * max(abs(low), abs(high)):  # nearly equal: do not magnify rounding errors
            axes.set_ylim(0.98 * low, 1.02 * high) if low > 0 else axes.set_ylim(low - 0.5, high + 0.5)
        axes.yaxis.set_major_locator(MaxNLocator(3))
        axes.ticklabel_format(axis="y", useOffset=False, style="plain")
        axes.grid(True, axis="y", color=GRID, linewidth=0.7)
        axes.spines["bottom"].set_visible(False)

    svg = embed(
        render(draw, SPARK),
        name=name,
        title=f"{title} over {fmt.plural(len(values), 'run')}",
        description=f"Suite {suite.suite}, oldest run on the left; the table below contains the numbers.",
        tooltips={},
    )
    return Spark(title=title, svg=svg)


def _scaled(value: Interval, factor: float) -> Interval:
    def one(x: float | None) -> float | None:
        return None if x is None else x / factor

    return Interval(value=one(value.value), low=one(value.low), high=one(value.high))
