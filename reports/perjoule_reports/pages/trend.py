"""The trends of a history on the index: a sentence, and the course of energy and quality with marks at the changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from perjoule.gating.history import History
from perjoule.gating.trends import ALL_CELLS, Course, Trend, TrendChange, TrendVerdict, courses, in_words, main_changes
from perjoule_reports import format as fmt
from perjoule_reports.drawing.canvas import Room, render
from perjoule_reports.drawing.svg import CARD, GRID, INK, MUTED, SERIES, Svg, embed
from perjoule_reports.records import Badge, Tone

SIZE = (4.6, 2.1)  # inches
_WORDS: dict[TrendVerdict, tuple[str, str, Tone]] = {
    "worse": ("WORSE", "✘", "alarm"),
    "changed": ("CHANGED", "↕", "loud"),
    "stable": ("STABLE", "✔", "calm"),
    "too few runs": ("TOO FEW RUNS", "…", "plain"),
}
_MOST_CHANGES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """A figure with its title."""

    title: str
    svg: Svg


@dataclass(frozen=True, slots=True, kw_only=True)
class TrendPart:
    """A trend as shown on the page."""

    title: str
    badge: Badge
    sentence: str
    changes: tuple[str, ...]
    remarks: tuple[str, ...]
    curves: tuple[Curve, ...]


def trend_parts(history: History) -> list[TrendPart]:
    """Return the trends of a history, that of the newest run first."""
    return [_part(course, f"trend-{n}") for n, course in enumerate(courses(history))]


def _part(course: Course, name: str) -> TrendPart:
    trend = course.trend
    word, sign, tone = _WORDS[trend.verdict]
    rest = [fmt.clean(in_words(change)) for change in main_changes(trend.changes)[1:]]
    more = len(rest) - _MOST_CHANGES
    return TrendPart(
        title=fmt.clean(trend.title),
        badge=Badge(label=sign, value=word, tone=tone),
        sentence=fmt.clean(trend.sentence),
        changes=(*rest[:_MOST_CHANGES], *([f"and {more} more"] if more > 0 else [])),
        remarks=tuple(_remarks(trend)),
        curves=_curves(course, name),
    )  # fmt: skip


def _remarks(trend: Trend) -> list[str]:
    days = " to ".join(dict.fromkeys((trend.first[:10], trend.last[:10])))
    remarks = [f"{fmt.plural(trend.runs, 'run')}, {days}."]
    if trend.began_with:
        remarks.append(f"A new series: {fmt.clean(', '.join(trend.began_with))}.")
    if trend.session_sd:
        remarks.append(f"Noise between runs: {100 * trend.session_sd:.2g} % (standard deviation of ln J/image).")
    if trend.accepted is not None:
        remarks.append(f"It starts where a change was accepted: {fmt.clean(trend.accepted)}.")
    if trend.skipped:
        cells = ", ".join(map(fmt.clean, trend.skipped))
        remarks.append(f"Not tested, because not every run has their joules: {cells}.")
    return remarks


def _curves(course: Course, name: str) -> tuple[Curve, ...]:
    if len(course.dates) < 2:
        return ()
    unit = fmt.scale(course.energy_j, "J")
    kind = course.trend.provenance
    brand = "" if kind == "measured" or not kind else f", {fmt.provenance_title(kind)}"
    curves = []
    for axis, values, level, title in (
        (
            "energy",
            [value / unit.factor for value in course.energy_j],
            [value / unit.factor for value in course.energy_fit_j],
            f"{unit.unit}/image, mean of the cells{brand}",
        ),
        ("quality", course.quality, course.quality_fit, f"{fmt.clean(course.trend.metric)}, mean of the cells"),
    ):
        if values:
            marks = [change for change in course.trend.changes if change.axis == axis]
            curves.append(_curve(course.dates, values, level, marks, f"{name}-{axis}", title))
    return tuple(curves)


def _curve(
    dates: Sequence[datetime],
    values: Sequence[float],
    level: Sequence[float],
    changes: Sequence[TrendChange],
    name: str,
    title: str,
) -> Curve:
    """Draw the runs, their fitted level, and a vertical line where a change starts."""
    days = [(date - dates[0]).total_seconds() / 86_400 for date in dates]
    marks = _marks(changes)

    def draw(axes: Axes) -> None:
        axes.plot(days, values, color=SERIES[0], linewidth=1.0, marker="o", markersize=4.5, markeredgecolor=CARD,
                  markeredgewidth=0.6, alpha=0.9, gid="runs")  # fmt: skip
        axes.plot(days, level, color=SERIES[1], linewidth=1.8, linestyle="--", gid="level")
        for n, date in enumerate(marks):
            day = (datetime.fromisoformat(date) - dates[0]).total_seconds() / 86_400
            axes.axvline(day, color=INK, linewidth=1.1, linestyle=":", gid=f"change-{n}")
        span = max(days[-1], 1e-6)
        axes.set_xlim(-0.04 * span, 1.04 * span)
        axes.set_xticks([days[0], days[-1]], [f"{dates[0]:%Y-%m-%d}", f"{dates[-1]:%Y-%m-%d}"])
        left, right = axes.get_xticklabels()
        left.set_horizontalalignment("left")
        right.set_horizontalalignment("right")
        low, high = min(*values, *level), max(*values, *level)
        room = max(0.08 * (high - low), 0.01 * abs(high))
        axes.set_ylim(low - room, high + room)
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.ticklabel_format(axis="y", useOffset=False, style="plain")
        axes.grid(True, axis="y", color=GRID, linewidth=0.7)
        axes.tick_params(colors=MUTED)

    svg = embed(
        render(draw, SIZE, Room(right=0.2)),
        name=name,
        title=f"{title}, over {fmt.plural(len(dates), 'run')}",
        description="Oldest run on the left; the dashed line is the fitted level, a dotted line the start of a change. "
        "The sentences above name the changes.",
        tooltips={f"change-{n}": " ".join(texts) for n, texts in enumerate(marks.values())},
    )
    return Curve(title=title, svg=svg)


def _marks(changes: Sequence[TrendChange]) -> dict[str, list[str]]:
    """Return the sentences of the changes by date; those of single cells only where the mean has none."""
    chosen = [change for change in changes if change.cell == ALL_CELLS] or list(changes)
    marks: dict[str, list[str]] = {}
    for change in chosen:
        marks.setdefault(change.date, []).append(in_words(change))
    return marks
