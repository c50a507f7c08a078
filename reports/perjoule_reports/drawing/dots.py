"""Figures made of rows: a dot with its interval, shares by steps, cumulative shares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedFormatter, FixedLocator, MaxNLocator, NullFormatter, NullLocator

from perjoule.statistics.resampling import Array
from perjoule.types import Interval
from perjoule_reports import format as fmt
from perjoule_reports.drawing.canvas import NARROW, SMALL, WIDE, Room
from perjoule_reports.drawing.plots import colour, grid, make_figure, marker
from perjoule_reports.drawing.svg import CARD, INK, MUTED, SERIES
from perjoule_reports.records import Figure, Table

_ROW, _ROW_OF_TWO = 0.27, 0.4  # inches, with one and two lines of text


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A labelled dot with its interval; None for an open end. The label may have two lines."""

    label: str
    value: float
    low: float | None
    high: float | None
    series: int


def interval_figure(
    name: str, title: str, rows: Sequence[Row], *, label: str, description: str, caption: str, data: Table
) -> Figure:
    """Draw rows of dots with intervals and a line at zero; a dot is filled if its interval excludes zero.

    An arrow at the edge is an open end.
    """
    ends = [v for r in rows for v in (r.value, r.low, r.high, 0.0) if v is not None]
    low, high = min(ends), max(ends)
    pad = 0.08 * (high - low) or 1.0

    def draw(axes: Axes, size: tuple[float, float]) -> None:
        axes.set_xlim(low - pad, high + pad)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.axvline(0, color=INK, linewidth=1)
        for place, row in enumerate(rows):
            shade = colour(row.series)
            left, right = (low - pad if row.low is None else row.low), (high + pad if row.high is None else row.high)
            if row.low is not None or row.high is not None:
                axes.plot([left, right], [place, place], color=shade, linewidth=2)
                for end, at, arrow, side in ((row.low, left, "<", "low"), (row.high, right, ">", "high")):
                    if end is None:
                        axes.plot([at], [place], marker=arrow, markersize=7, color=shade, clip_on=False,
                                  gid=f"row-{place}-open-{side}")  # fmt: skip
            clear = fmt.excludes_zero(Interval(value=row.value, low=row.low, high=row.high))
            axes.plot([row.value], [place], marker=marker(row.series), markersize=7, linestyle="", color=shade,
                      markerfacecolor=shade if clear else CARD, markeredgecolor=shade, gid=f"row-{place}")  # fmt: skip
        short = 26 if size[0] < 6 else 46
        labels = ["\n".join(fmt.shorten(line, short) for line in row.label.split("\n")) for row in rows]
        axes.set_yticks(range(len(rows)), labels, fontsize=9)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel(label if size[0] > 6 else fmt.shorten(label, 52), fontsize=10 if size[0] > 6 else 8.5)
        axes.xaxis.set_major_locator(MaxNLocator(6 if size[0] > 6 else 4))
        grid(axes, "x")

    height = 0.85 + (_ROW_OF_TWO if any("\n" in row.label for row in rows) else _ROW) * len(rows)
    names = [row.label.replace("\n", " · ") for row in rows]
    return make_figure(
        name, title, draw, description=description, caption=caption, wide=(WIDE[0], height), narrow=(NARROW[0], height),
        data=data, tooltips={f"row-{i}": f"{names[i]}: {fmt.number(r.value)}" for i, r in enumerate(rows)},
    )  # fmt: skip


def shares_figure(
    name: str, title: str, rows: Sequence[tuple[str, int, Mapping[int, float]]], *, label: str, data: Table
) -> Figure:
    """Draw rows of bubbles: the share of a row's images (label, series, share by steps) that took each step count."""
    every = sorted({steps for _, _, shares in rows for steps in shares})

    def draw(axes: Axes, size: tuple[float, float]) -> None:
        axes.set_xscale("log", base=2)
        axes.set_xlim(every[0] / 1.3, every[-1] * 1.3)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        for place, (_, series, shares) in enumerate(rows):
            areas = [(250 if size[0] < 6 else 420) * share for share in shares.values()]
            axes.scatter(list(shares), [place] * len(shares), s=areas, color=colour(series), marker=marker(series),
                         alpha=0.75, linewidths=0)  # fmt: skip
        ticks, last = [], 0.0
        for steps in every:  # not closer than labels are wide
            if not last or steps / last >= 1.18:
                ticks.append(steps)
                last = steps
        axes.xaxis.set_major_locator(FixedLocator(ticks))
        axes.xaxis.set_major_formatter(FixedFormatter([str(t) for t in ticks]))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_yticks(range(len(rows)), [fmt.shorten(r[0], 20 if size[0] < 6 else 40) for r in rows], fontsize=9)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel(label)
        grid(axes, "x")

    height = 0.85 + 0.3 * len(rows)
    return make_figure(
        name, title, draw, wide=(WIDE[0], height), narrow=(NARROW[0], height), data=data,
        caption="area is the share of the row's images",
        description=f"{fmt.plural(len(rows), 'row')} of bubbles over steps from {every[0]} to {every[-1]}.",
    )  # fmt: skip


def cumulative_figure(
    name: str, title: str, values: Array, *, label: str, better: str, description: str, data: Table, caption: str = ""
) -> Figure:
    """Draw the share of units at or below each value as a step line, with zero and the median marked."""
    ordered = np.sort(values)
    places = np.unique(np.linspace(0, len(ordered) - 1, min(len(ordered), 400)).round().astype(int))
    x, share = ordered[places], (places + 1) / len(ordered)
    low, high = min(float(ordered[0]), 0.0), max(float(ordered[-1]), 0.0)
    pad = 0.06 * (high - low) or 0.5
    median = float(np.median(ordered))

    def draw(axes: Axes, size: tuple[float, float]) -> None:
        axes.set_xlim(low - pad, high + pad)
        axes.set_ylim(-4, 104)
        axes.axvline(0, color=INK, linewidth=1)
        axes.step([low - pad, *x, high + pad], [0, *(100 * share), 100], where="post", color=SERIES[0], linewidth=2)
        axes.plot([median], [50], marker="o", markersize=7, color=SERIES[1], markeredgecolor=CARD)
        axes.annotate(f"median {fmt.number(median, 2)}", (median, 50), xytext=(8, -12), textcoords="offset points",
                      color=SERIES[1], fontsize=9, fontweight="bold")  # fmt: skip
        where, ha = (0, "left") if better.startswith("←") else (1, "right")
        axes.annotate(better, (where, 1), xytext=(0, 5), xycoords="axes fraction", textcoords="offset points", ha=ha,
                      color=MUTED, fontsize=9)  # fmt: skip
        axes.set_xlabel(label)
        axes.set_ylabel("% of prompts at or below")
        axes.xaxis.set_major_locator(MaxNLocator(5))
        grid(axes)

    return make_figure(name, title, draw, description=description, caption=caption, wide=SMALL, narrow=None,
                       room=lambda _: Room(top=0.3), data=data, small=True)  # fmt: skip
