"""The frontier: quality against joules.

Colour, marker and dash all identify the variant, so that no reader depends on only one of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedFormatter, FixedLocator, MaxNLocator, NullFormatter, NullLocator

from perjoule.statistics.attainment import Attainment
from perjoule.types import Interval
from perjoule_reports import format as fmt
from perjoule_reports.drawing.canvas import NARROW, SMALL, WIDE, text_width
from perjoule_reports.drawing.labels import Board, Point
from perjoule_reports.drawing.plots import GLYPHS, MARKERS, colour, dash, grid, make_figure, marker, of_joules
from perjoule_reports.drawing.svg import CARD, GOOD, INK, MUTED
from perjoule_reports.evidence import Arm, Axis, Evidence
from perjoule_reports.records import Figure, Table

__all__ = ["GLYPHS", "MARKERS", "Arrow", "Panel", "frontier", "panels"]


_MOST_NAMES_SMALL = 8
Corner = Literal["lower right", "upper right", "lower left", "upper left"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """The arms that may share one pair of axes: one boundary and, for full-reference metrics, one family."""

    axis: Axis
    arms: tuple[Arm, ...]
    remark: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrow:
    """The saving at equal quality: an arrow from the anchor's J/image to the test's."""

    quality: float
    from_j: float
    to_j: float
    words: str


def panels(evidence: Evidence, axis: Axis) -> list[Panel]:
    """Split the drawable arms so that different boundaries, or families under a full-reference metric, stay apart."""
    groups: dict[tuple[str, str], list[Arm]] = {}
    for arm in evidence.arms:
        if arm.quality_of(axis).value is None or not arm.energy.value or arm.energy.value <= 0:
            continue
        key = (arm.boundary or "unknown boundary", arm.family if axis.within_family else "")
        groups.setdefault(key, []).append(arm)
    panels = []
    for (boundary, family), arms in groups.items():
        qualifiers = ([boundary] if len(evidence.boundaries) > 1 else []) + ([f"family {family}"] if family else [])
        panels.append(Panel(axis=axis, arms=tuple(arms), remark=", ".join(qualifiers)))
    return panels


def frontier(
    evidence: Evidence,
    panel: Panel,
    name: str,
    *,
    data: Table,
    small: bool = False,
    band: Attainment | None = None,
    arrow: Arrow | None = None,
) -> Figure:
    """Draw quality against joules per image (log2), the ladder of each variant joined, frontier points ringed."""
    axis = panel.axis
    unit = fmt.scale((a.energy.value for a in panel.arms), "J")
    ringed = [a.cell_id for a in panel.arms if a.on_frontier.get(axis.name)]
    gids = [f"arm{evidence.series(arm.variant)}-point-{i}" for i, arm in enumerate(panel.arms)]

    def draw(axes: Axes, size: tuple[float, float]) -> None:
        _scales(axes, panel, unit)
        _dominated(axes, panel, unit)
        if band is not None:
            axes.fill_between(band.energy_j / unit.factor, band.low, band.high, step="post", color=GOOD, alpha=0.16,
                              linewidth=0, gid="attainment")  # fmt: skip
        board = _board(axes, panel, unit, size)
        series = {arm.variant: evidence.series(arm.variant) for arm in panel.arms}
        for variant, number in series.items():
            _ladder(axes, panel, number, variant, unit, small=size is SMALL)
        if arrow is not None and size is not SMALL:
            _saving(axes, arrow, unit, board)
        _numbers(axes, panel, series, unit, board, small=size is SMALL)
        _names(axes, panel, series, unit, board, small=size is SMALL)
        axes.set_xlabel(of_joules(f"energy per image ({unit.unit}", evidence.provenance) + "), log₂ scale")
        axes.set_ylabel(axis.name + (f" ({axis.unit})" if axis.unit else ""))

    remarks = [
        axis.description.rstrip("."),
        panel.remark,
        _scale_remark(evidence, axis),
        "" if axis.higher else "lower is better, the axis is reversed",
        "advisory" if axis.advisory else "",
    ]
    return make_figure(
        name,
        axis.name if small else f"{axis.name} against energy per image",
        draw,
        caption="; ".join(filter(None, remarks)),
        description=f"{fmt.plural(len(panel.arms), 'cell')}. On the Pareto frontier: {', '.join(ringed) or 'none'}. "
        "The table next to the figure contains the numbers.",
        tooltips={gid: _tooltip(arm, axis) for gid, arm in zip(gids, panel.arms, strict=True)},
        marks={gid: {"cell": arm.cell_id, "variant": arm.variant} for gid, arm in zip(gids, panel.arms, strict=True)},
        wide=SMALL if small else WIDE,
        narrow=None if small else NARROW,
        data=data,
        small=small,
    )


def _scale_remark(evidence: Evidence, axis: Axis) -> str:
    if not axis.within_family:
        return ""
    against = "a reference" if evidence.imported else "the family's longest run"
    return f"compares with {against}, so never between families"


def _scales(axes: Axes, panel: Panel, unit: fmt.Scale) -> None:
    energies = [v / unit.factor for a in panel.arms for v in _present(a.energy) if v > 0]
    low, high = min(energies) / 1.22, max(energies) * 1.18
    if high / low < 1.6:
        low, high = low / 1.25, high * 1.25
    axes.set_xscale("log", base=2)
    axes.set_xlim(low, high)
    octaves = [2.0**k for k in range(math.floor(math.log2(low)), math.ceil(math.log2(high)) + 1)]
    ticks = [t for t in octaves if low <= t <= high]
    if len(ticks) < 3:
        ticks = [t for t in MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(low, high) if low <= t <= high]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(FixedFormatter([f"{t:.4g}" for t in ticks]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    qualities = [v for a in panel.arms for v in _present(a.quality[panel.axis.name])]
    bottom, top = min(qualities), max(qualities)
    room = (top - bottom) * 0.1 or abs(top) * 0.05 or 0.5
    axes.set_ylim(bottom - room, top + room * 1.6)
    if not panel.axis.higher:
        axes.set_ylim(top + room, bottom - room * 1.6)
    axes.yaxis.set_major_locator(MaxNLocator(6))
    grid(axes)


def _dominated(axes: Axes, panel: Panel, unit: fmt.Scale) -> None:
    """Shade what the frontier dominates and say which corner is good."""
    ringed = [a for a in panel.arms if a.on_frontier.get(panel.axis.name)]
    corners = sorted(((a.energy.value or 0) / unit.factor, a.quality[panel.axis.name].value or 0) for a in ringed)
    if corners:
        x = [corner[0] for corner in corners] + [axes.get_xlim()[1]]
        y = [corner[1] for corner in corners] + [corners[-1][1]]
        axes.fill_between(x, y, axes.get_ylim()[0], step="post", color=GOOD, alpha=0.07, linewidth=0, gid="dominated")
    axes.annotate("↖ better", (0.012, 0.985), xycoords="axes fraction", va="top", color=GOOD, fontsize=10,
                  fontweight="bold")  # fmt: skip


def _board(axes: Axes, panel: Panel, unit: fmt.Scale, size: tuple[float, float]) -> Board:
    """Approximate space inside the axes in inches, with all points and lines marked as occupied."""
    board = Board(width=size[0] - 0.95, height=size[1] - 0.72)
    board.taken.append((0.0, board.height - 0.22, 0.8, board.height))  # the word in the good corner
    for variant in dict.fromkeys(a.variant for a in panel.arms):
        points = [_inches(axes, board, a, panel.axis, unit) for a in _rungs(panel, variant)]
        board.block(points)
        if len(panel.arms) <= 60:
            board.block_line(points)
    return board


def _inches(axes: Axes, board: Board, arm: Arm, axis: Axis, unit: fmt.Scale) -> Point:
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    x = math.log2((arm.energy.value or 1.0) / unit.factor / left) / math.log2(right / left)
    y = ((arm.quality[axis.name].value or 0.0) - bottom) / (top - bottom)
    return x * board.width, y * board.height


def _rungs(panel: Panel, variant: str) -> list[Arm]:
    arms = [a for a in panel.arms if a.variant == variant]
    return sorted(arms, key=lambda a: (a.steps or 0, a.energy.value or 0))


def _ladder(axes: Axes, panel: Panel, series: int, variant: str, unit: fmt.Scale, *, small: bool) -> None:
    places = {id(arm): i for i, arm in enumerate(panel.arms)}
    arms = _rungs(panel, variant)
    x = [(a.energy.value or 0) / unit.factor for a in arms]
    y = [a.quality[panel.axis.name].value or 0 for a in arms]
    if len(arms) > 1:
        axes.plot(x, y, color=colour(series), linestyle=dash(series), linewidth=1.3 if small else 1.8, alpha=0.75,
                  gid=f"arm{series}-ladder")  # fmt: skip
    upright = [(px, a.quality[panel.axis.name]) for px, a in zip(x, arms, strict=True)]
    upright = [(px, q) for px, q in upright if q.bounded]
    axes.vlines([px for px, _ in upright], [q.low or 0 for _, q in upright], [q.high or 0 for _, q in upright],
                color=colour(series), linewidth=1.1, alpha=0.55, gid=f"arm{series}-quality")  # fmt: skip
    flat = [(py, a.energy) for py, a in zip(y, arms, strict=True) if a.energy.bounded and (a.energy.low or 0) > 0]
    left, right = ([(e.low or 0) / unit.factor for _, e in flat], [(e.high or 0) / unit.factor for _, e in flat])
    axes.hlines([py for py, _ in flat], left, right, color=colour(series), linewidth=1.1, alpha=0.55,
                gid=f"arm{series}-energy")  # fmt: skip
    for arm, px, py in zip(arms, x, y, strict=True):
        place = places[id(arm)]
        if arm.on_frontier.get(panel.axis.name):
            axes.plot([px], [py], linestyle="", marker="o", markersize=12.5, markerfacecolor="none",
                      markeredgecolor=INK, markeredgewidth=1.2, gid=f"arm{series}-ring-{place}")  # fmt: skip
        axes.plot([px], [py], linestyle="", marker=marker(series), markersize=6 if small else 7, color=colour(series),
                  markeredgecolor=CARD, markeredgewidth=0.8, gid=f"arm{series}-point-{place}")  # fmt: skip


def _saving(axes: Axes, arrow: Arrow, unit: fmt.Scale, board: Board) -> None:
    ends = [arrow.from_j / unit.factor, arrow.to_j / unit.factor]
    style = {"arrowstyle": "->", "color": GOOD, "linewidth": 2.2, "shrinkA": 4, "shrinkB": 4}
    axes.annotate("", (ends[1], arrow.quality), (ends[0], arrow.quality), arrowprops=style)
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    x, y = (math.log2(math.sqrt(ends[0] * ends[1]) / left) / math.log2(right / left),
            (arrow.quality - bottom) / (top - bottom))  # fmt: skip
    place = board.place((x * board.width, y * board.height), text_width([arrow.words], 9.5), 0.16)
    if place is not None:
        axes.annotate(arrow.words, (math.sqrt(ends[0] * ends[1]), arrow.quality), xytext=(place.dx, place.dy),
                      textcoords="offset points", ha=place.ha, va=place.va, color=GOOD, fontsize=9.5,
                      fontweight="bold")  # fmt: skip


def _numbers(axes: Axes, panel: Panel, series: dict[str, int], unit: fmt.Scale, board: Board, *, small: bool) -> None:
    """Label points with their step counts: the frontier first, then the ends of ladders, then any that fit."""
    ends = {id(rungs[i]) for v in series for rungs in [_rungs(panel, v)] for i in (0, -1)}
    wanted = [a for a in panel.arms if a.steps is not None]
    wanted.sort(key=lambda a: (not a.on_frontier.get(panel.axis.name), id(a) not in ends, a.energy.value or 0))
    font = 8.0 if small else 9.0
    for i, arm in enumerate(wanted[: 14 if small else 60]):
        text = fmt.steps(arm.steps)
        place = board.place(_inches(axes, board, arm, panel.axis, unit), text_width([text], font), font / 72)
        if place is not None:
            axes.annotate(text, ((arm.energy.value or 0) / unit.factor, arm.quality[panel.axis.name].value or 0),
                          xytext=(place.dx, place.dy), textcoords="offset points", ha=place.ha, va=place.va,
                          color=colour(series[arm.variant]), fontsize=font, fontweight="bold",
                          gid=f"arm{series[arm.variant]}-steps-{i}")  # fmt: skip


def _names(axes: Axes, panel: Panel, series: dict[str, int], unit: fmt.Scale, board: Board, *, small: bool) -> None:
    """Write the names of variants at their ladders if all of them fit, else draw a legend."""
    if len(series) < 2 or (small and len(series) > _MOST_NAMES_SMALL):  # the large figure names the same marks
        return
    font = 8.5 if small else 9.5
    places = {}
    trial = Board(width=board.width, height=board.height, taken=list(board.taken))
    for variant in series:
        arm = _rungs(panel, variant)[-1]
        mark = f"{GLYPHS[series[variant] % len(GLYPHS)]} {fmt.shorten(variant, 26)}"
        spot = trial.place(_inches(axes, board, arm, panel.axis, unit), text_width([mark], font), font / 72 + 0.03)
        if spot is None:
            break
        places[variant] = (arm, mark, spot)
    if len(places) == len(series):
        for variant, (arm, mark, place) in places.items():
            axes.annotate(mark, ((arm.energy.value or 0) / unit.factor, arm.quality[panel.axis.name].value or 0),
                          xytext=(place.dx, place.dy), textcoords="offset points", ha=place.ha, va=place.va,
                          color=colour(series[variant]), fontsize=font, gid=f"arm{series[variant]}-name")  # fmt: skip
        return
    for variant, number in series.items():
        axes.plot([], [], color=colour(number), linestyle=dash(number), marker=marker(number), markersize=6.5,
                  linewidth=1.6, label=fmt.shorten(variant, 26))  # fmt: skip
    legend = axes.legend(loc=_emptiest(board), frameon=False, handlelength=3.0, fontsize=font if len(series) < 9 else 8,
                         labelspacing=0.28, ncols=1 if len(series) < 14 else 2)  # fmt: skip
    legend.set_gid("legend")
    for text in legend.get_texts():
        text.set_color(INK if len(series) < 14 else MUTED)


def _emptiest(board: Board) -> Corner:
    """The corner in which a legend covers the fewest points."""

    def hidden(corner: str) -> int:
        low, right = "lower" in corner, "right" in corner
        return sum(
            (bottom < 0.55 * board.height if low else top > 0.45 * board.height)
            and (end > 0.6 * board.width if right else begin < 0.4 * board.width)
            for begin, bottom, end, top in board.taken
        )

    corners: tuple[Corner, ...] = ("lower right", "upper right", "lower left", "upper left")
    return min(corners, key=hidden)


def _present(value: Interval) -> list[float]:
    return [v for v in (value.value, value.low, value.high) if v is not None and np.isfinite(v)]


def _tooltip(arm: Arm, axis: Axis) -> str:
    unit = fmt.scale([arm.energy.value], "J")
    energy, quality = fmt.interval(arm.energy, unit), fmt.interval(arm.quality[axis.name])
    mark = f" {arm.brand}" if arm.brand else ""
    return f"{arm.name}: {energy[0]} {unit.unit}/image{mark} {energy[1]}, {axis.name} {quality[0]} {quality[1]}"
