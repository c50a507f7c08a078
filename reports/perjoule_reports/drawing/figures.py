"""The frontier: quality against joules.

Colour, marker and dash all identify the variant, so that no reader depends on only one of them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from perjoule.statistics.attainment import Attainment
from perjoule.statistics.resampling import Array
from perjoule.types import Interval
from perjoule_reports import format as fmt
from perjoule_reports.drawing.canvas import NARROW, SMALL, WIDE, Room, line_height, settle, text_width
from perjoule_reports.drawing.labels import Board, Point
from perjoule_reports.drawing.plots import GLYPHS, MARKERS, colour, dash, grid, make_figure, marker, of_joules
from perjoule_reports.drawing.scales import Scale, apply, energy_scale, quality_scale
from perjoule_reports.drawing.svg import CARD, GOOD, INK
from perjoule_reports.evidence import Arm, Axis, Evidence
from perjoule_reports.naming import capitalised
from perjoule_reports.records import Figure, Table

__all__ = ["GLYPHS", "MARKERS", "Arrow", "Panel", "frontier", "panels"]

_TOP = 0.3  # inches for the words over the good corner
SMALL_ROOM = Room(left=0.82, top=_TOP)  # equal axes in figures that are compared
RING = 0.1  # inches from the centre of a ring to its outer edge
_LONGEST_NAME = 28  # characters of a metric next to an axis
_MOST_LABELS, _MOST_LABELS_SMALL = 60, 14


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
    series = {arm.variant: evidence.series(arm.variant) for arm in panel.arms}
    across, up = scales_of(panel, unit)
    widest = text_width([text for _, text in up.candidates], 10)  # the script may show any of them
    room = SMALL_ROOM if small else Room(left=0.4 + widest, top=_TOP)

    def draw(axes: Axes, size: tuple[float, float]) -> None:
        axes.patch.set_gid("frame")
        apply(axes, across, up, size)
        grid(axes)
        axes.set_xlabel(of_joules(f"energy per image ({unit.unit}", evidence.provenance) + "), log₂ scale")
        whole = f"{axis.label} ({axis.unit})" if axis.unit else axis.label
        # the text below the figure has the unit as well
        fits = text_width([whole], 10) <= size[1] - room.bottom - room.top
        axes.set_ylabel(whole if fits else fmt.shorten(axis.label, _LONGEST_NAME))
        settle(axes, size, room)
        shade_dominated(axes, panel, unit, across, up)
        if band is not None:
            _area(axes, band.energy_j / unit.factor, band.low, band.high, "attainment", 0.16)
        board = board_of(axes, panel, unit, size)
        for variant, number in series.items():
            _ladder(axes, panel, number, variant, unit, small=size is SMALL)
        if arrow is not None and size is not SMALL:
            _saving(axes, arrow, unit, board)
        _numbers(axes, panel, series, unit, board, small=size is SMALL)

    description = axis.description.rstrip(".")
    remarks = [
        re.split(r"[;:(]", description)[0].strip() if small else description,  # the tables have the whole text
        panel.remark,
        "" if small else _scale_remark(evidence, axis),
        f"the axis is stretched towards {up.bound:g}" if up.bound is not None else "",
        "" if axis.higher else "lower is better, the axis is reversed",
        "advisory" if axis.advisory else "",
    ]
    marks = {
        gid: {"cell": arm.cell_id, "variant": arm.label or arm.variant}
        for gid, arm in zip(gids, panel.arms, strict=True)
    }
    return make_figure(
        name,
        capitalised(axis.label, axis.name)
        if small
        else (f"{capitalised(axis.label, axis.name)} against energy per image"),
        draw,
        caption="; ".join(filter(None, remarks)),
        description=f"{fmt.plural(len(panel.arms), 'cell')}. On the Pareto frontier: {', '.join(ringed) or 'none'}. "
        "The table next to the figure contains the numbers.",
        tooltips={gid: tooltip(arm, axis) for gid, arm in zip(gids, panel.arms, strict=True)},
        marks=marks | {"frame": {"across": across.fine(), "up": up.fine()}},
        wide=SMALL if small else WIDE,
        narrow=None if small else NARROW,
        room=lambda _: room,
        data=data,
        small=small,
        legend=[(number, evidence.label_of(variant)) for variant, number in series.items()],
    )


def _scale_remark(evidence: Evidence, axis: Axis) -> str:
    if not axis.within_family:
        return ""
    against = "a reference" if evidence.imported else "the family's longest run"
    return f"compares with {against}, so never between families"


def scales_of(panel: Panel, unit: fmt.Scale) -> tuple[Scale, Scale]:
    """The scales of energy and of quality."""
    qualities = [a.quality[panel.axis.name] for a in panel.arms]
    return (
        energy_scale([v / unit.factor for a in panel.arms for v in _present(a.energy) if v > 0]),
        quality_scale(
            [q.value for q in qualities if q.value is not None],
            [v for q in qualities for v in _present(q)],
            higher=panel.axis.higher,
            bound=panel.axis.bound,
        ),
    )


def shade_dominated(axes: Axes, panel: Panel, unit: fmt.Scale, across: Scale, up: Scale) -> None:
    """Shade what the frontier dominates and say which corner is good."""
    ringed = [a for a in panel.arms if a.on_frontier.get(panel.axis.name)]
    corners = sorted(((a.energy.value or 0) / unit.factor, a.quality[panel.axis.name].value or 0) for a in ringed)
    if corners:
        x = np.array([corner[0] for corner in corners] + [across.high])
        y = np.array([corner[1] for corner in corners] + [corners[-1][1]])
        _area(axes, x, up.low, y, "dominated", 0.07)
    axes.annotate("↖ better", (0, 1), xytext=(2, 4), xycoords="axes fraction", textcoords="offset points", color=GOOD,
                  fontsize=10, fontweight="bold")  # fmt: skip


def _area(axes: Axes, x: Array, low: Array | float, high: Array, gid: str, alpha: float) -> None:
    """Fill between two curves that keep each value until the next; a single path, which the script can rescale."""
    edge = np.repeat(x, 2)[1:]
    top, bottom = (np.repeat(np.broadcast_to(y, x.shape), 2)[:-1] for y in (high, low))
    axes.fill(np.append(edge, edge[::-1]), np.append(top, bottom[::-1]), color=GOOD, alpha=alpha, linewidth=0, gid=gid)


def board_of(axes: Axes, panel: Panel, unit: fmt.Scale, size: tuple[float, float]) -> Board:
    """The space inside the axes in inches, with all points and lines marked as occupied."""
    box = axes.get_position()
    board = Board(width=size[0] * box.width, height=size[1] * box.height)
    for variant in dict.fromkeys(a.variant for a in panel.arms):
        points = [inches(axes, board, a, panel.axis, unit) for a in rungs_of(panel, variant)]
        board.add_points(points)
        if len(panel.arms) <= 60:
            board.block_line(points)
    return board


def inches(axes: Axes, board: Board, arm: Arm, axis: Axis, unit: fmt.Scale) -> Point:
    at = ((arm.energy.value or 1.0) / unit.factor, arm.quality[axis.name].value or 0.0)
    return _place(axes, board, at)


def _place(axes: Axes, board: Board, at: Point) -> Point:
    x, y = axes.transLimits.transform(axes.transScale.transform(at))
    return float(x) * board.width, float(y) * board.height


def rungs_of(panel: Panel, variant: str) -> list[Arm]:
    arms = [a for a in panel.arms if a.variant == variant]
    return sorted(arms, key=lambda a: (a.steps or 0, a.energy.value or 0))


def _ladder(axes: Axes, panel: Panel, series: int, variant: str, unit: fmt.Scale, *, small: bool) -> None:
    places = {id(arm): i for i, arm in enumerate(panel.arms)}
    arms = rungs_of(panel, variant)
    x = [(a.energy.value or 0) / unit.factor for a in arms]
    y = [a.quality[panel.axis.name].value or 0 for a in arms]
    if len(arms) > 1:
        add_line(axes, x, y, color=colour(series), linestyle=dash(series), linewidth=1.3 if small else 1.8, alpha=0.75,
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
            add_line(axes, [px], [py], linestyle="", marker="o", markersize=12.5, markerfacecolor="none",
                     markeredgecolor=INK, markeredgewidth=1.2, gid=f"arm{series}-ring-{place}")  # fmt: skip
        add_line(axes, [px], [py], linestyle="", marker=marker(series), markersize=6 if small else 7,
                 color=colour(series), markeredgecolor=CARD, markeredgewidth=0.8,
                 gid=f"arm{series}-point-{place}")  # fmt: skip


def add_line(axes: Axes, x: Sequence[float], y: Sequence[float], **style: Any) -> None:
    """Add a line, or a marker, which may stick out of the axes; `axes.plot` also computes limits, in twice the time."""
    axes.add_artist(Line2D(x, y, **style)).set_clip_on(style.get("marker") is None)


def _saving(axes: Axes, arrow: Arrow, unit: fmt.Scale, board: Board) -> None:
    ends = [arrow.from_j / unit.factor, arrow.to_j / unit.factor]
    style = {"arrowstyle": "->", "color": GOOD, "linewidth": 2.2, "shrinkA": 4, "shrinkB": 4}
    axes.annotate("", (ends[1], arrow.quality), (ends[0], arrow.quality), arrowprops=style).set_gid("saving-arrow")
    middle = (math.sqrt(ends[0] * ends[1]), arrow.quality)
    room = (text_width([arrow.words], 9.5), line_height(9.5))
    place = board.place(_place(axes, board, middle), *room, own=board.points)  # it names no point
    if place is not None:
        axes.annotate(arrow.words, middle, xytext=(place.dx, place.dy), textcoords="offset points", ha=place.ha,
                      va=place.va, color=GOOD, fontsize=9.5, fontweight="bold", gid="saving-words")  # fmt: skip


def _numbers(
    axes: Axes, panel: Panel, series: Mapping[str, int], unit: fmt.Scale, board: Board, *, small: bool
) -> None:
    """Label points with their step counts: the frontier first, then the ends of ladders, then any that fit."""
    ends = {id(rungs[i]) for v in series for rungs in [rungs_of(panel, v)] for i in (0, -1)}
    wanted = [(place, a) for place, a in enumerate(panel.arms) if a.steps is not None]
    wanted.sort(key=lambda w: (not w[1].on_frontier.get(panel.axis.name), id(w[1]) not in ends, w[1].energy.value or 0))
    font = 7.5 if small else 8.5
    named = False
    for place, arm in wanted[: _MOST_LABELS_SMALL if small else _MOST_LABELS]:
        at = inches(axes, board, arm, panel.axis, unit)
        for text in (fmt.steps(arm.steps),) if named or small else (fmt.step_count(arm.steps), fmt.steps(arm.steps)):
            gap = RING if arm.on_frontier.get(panel.axis.name) else 0.0
            spot = board.place(at, text_width([text], font), line_height(font), gap)
            if spot is not None:
                named = True
                number = series[arm.variant]
                axes.annotate(text, ((arm.energy.value or 0) / unit.factor, arm.quality[panel.axis.name].value or 0),
                              xytext=(spot.dx, spot.dy), textcoords="offset points", ha=spot.ha, va=spot.va,
                              color=colour(number), fontsize=font, gid=f"arm{number}-steps-{place}")  # fmt: skip
                break


def _present(value: Interval) -> list[float]:
    return [v for v in (value.value, value.low, value.high) if v is not None and np.isfinite(v)]


def tooltip(arm: Arm, axis: Axis) -> str:
    unit = fmt.scale([arm.energy.value], "J")
    energy, quality = fmt.interval(arm.energy, unit), fmt.interval(arm.quality[axis.name])
    mark = f" {arm.brand}" if arm.brand else ""
    return f"{arm.name}: {energy[0]} {unit.unit}/image{mark} {energy[1]}, {axis.label} {quality[0]} {quality[1]}"
