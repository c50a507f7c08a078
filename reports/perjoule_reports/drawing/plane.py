"""The plane of energy and quality differences: the box of the margins, the observed change, and its joint region.

The region is Hotelling's: {μ : n (x̄ − μ)ᵀ S⁻¹ (x̄ − μ) ≤ 2 (n − 1)/(n − 2) F(2, n − 2)}, of ln E and Q differences over
prompts. If windows contain several prompts, the two have different units, and their covariance is left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from perjoule.gating import Verdict
from perjoule.gating.pairing import Pairs
from perjoule.statistics.resampling import Array
from perjoule.types import Interval
from perjoule_reports import format as fmt
from perjoule_reports.drawing.canvas import Room, line_height, settle, text_width
from perjoule_reports.drawing.labels import Board, Point
from perjoule_reports.drawing.plots import grid, make_figure, of_joules
from perjoule_reports.drawing.svg import GOOD, INK, MUTED, SERIES
from perjoule_reports.records import Cell, Column, Figure, Table

LEVEL = 0.95
_PLACES = 96
_FONT = 9.5


def plane_figure(verdict: Verdict, pairs: Pairs, provenance: str | None, unit: str) -> Figure | None:
    """The figure of a verdict; None without numbers."""
    energy, quality = verdict.energy, verdict.quality
    margin_e, margin_q = energy.margin, quality.margin
    if energy.change.value is None or quality.change.value is None or margin_e is None or margin_q is None:
        return None
    region = joint_region(pairs)

    def draw(axes: Axes, size: tuple[float, float]) -> None:
        x = 100 * np.expm1(region[:, 0]) if len(region) else np.empty(0)
        y = region[:, 1] if len(region) else np.empty(0)
        ends_x = [100 * v for v in (energy.change.low, energy.change.high, energy.change.value) if v is not None]
        ends_y = [v for v in (quality.change.low, quality.change.high, quality.change.value) if v is not None]
        wide_x = [0.0, 100 * margin_e, *ends_x, *x]
        wide_y = [0.0, -margin_q, *ends_y, *y]
        (left, right), (bottom, top) = _room(wide_x), _room(wide_y)
        axes.set_xlim(left, right)
        axes.set_ylim(bottom, top)
        axes.fill_between([left, 100 * margin_e], [-margin_q] * 2, [top] * 2, color=GOOD, alpha=0.1,
                          linewidth=0, gid="margins")  # fmt: skip
        axes.plot([left, 100 * margin_e, 100 * margin_e], [-margin_q, -margin_q, top],
                  color=GOOD, linewidth=1.6, linestyle=(0, (5, 2)))  # fmt: skip
        axes.axhline(0, color=MUTED, linewidth=0.8)
        axes.axvline(0, color=MUTED, linewidth=0.8)
        if len(region):
            axes.fill(x, y, facecolor=SERIES[0], alpha=0.2, edgecolor=SERIES[0], linewidth=1.2, gid="region")
        axes.plot(ends_x[:2], [ends_y[-1]] * 2, color=INK, linewidth=1.4)
        axes.plot([ends_x[-1]] * 2, ends_y[:2], color=INK, linewidth=1.4)
        axes.plot([ends_x[-1]], [ends_y[-1]], marker="D", markersize=8, color=SERIES[0], markeredgecolor=INK,
                  gid="change")  # fmt: skip
        axes.set_xlabel(of_joules("change of energy per image (%", provenance) + ")")
        axes.set_ylabel(f"change of {verdict.metric}" + (f" ({unit})" if unit else "") + ", up is better")
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.yaxis.set_major_locator(MaxNLocator(6))
        grid(axes)
        settle(axes, size, Room())
        spots = {"candidate": (ends_x[-1], ends_y[-1]), "baseline": (0.0, 0.0)}
        lines = [
            [(left, 0.0), (right, 0.0)], [(0.0, bottom), (0.0, top)],
            [(left, -margin_q), (100 * margin_e, -margin_q), (100 * margin_e, top)],
            [(x, spots["candidate"][1]) for x in ends_x[:2]], [(spots["candidate"][0], y) for y in ends_y[:2]],
        ]  # fmt: skip
        _write_names(axes, size, spots, lines, ((left, -margin_q), (100 * margin_e, top)))

    return make_figure(
        "gate-plane",
        "Change of energy and of quality, with the margins",
        draw,
        description=f"The candidate lies at {fmt.number(100 * energy.change.value)} % energy and "
        f"{fmt.number(quality.change.value)} {verdict.metric}; margins at {fmt.percent(margin_e)} and "
        f"{fmt.number(margin_q)}. The table next to the figure contains the intervals.",
        caption=f"the shaded box is inside both margins; the ellipse is the joint {LEVEL:.0%} region, the cross the "
        f"{verdict.config.level:.0%} interval of each axis",
        data=_table(verdict, region),
    )


def _write_names(
    axes: Axes,
    size: tuple[float, float],
    spots: Mapping[str, Point],
    lines: Sequence[Sequence[Point]],
    inside: tuple[Point, Point],
) -> None:
    """Name the candidate, the baseline and the box of the margins, each where it covers nothing and is not cut."""
    box = axes.get_position()
    board = Board(width=size[0] * box.width, height=size[1] * box.height)

    def place(at: Point) -> Point:
        x, y = axes.transLimits.transform(axes.transScale.transform(at))
        return float(x) * board.width, float(y) * board.height

    board.add_points(place(at) for at in spots.values())
    _write_box(axes, board, place(inside[0]), place(inside[1]))
    for line in lines:
        board.block_line([place(at) for at in line], 0.015)
    weights = {"candidate": "bold", "baseline": "normal"}
    for (name, at), shade in zip(spots.items(), (SERIES[0], MUTED), strict=True):
        room = (text_width([name], _FONT), line_height(_FONT))
        tries = ((gap, own) for own in ((), board.points) for gap in (0.0, 0.15, 0.25))
        spot = next(filter(None, (board.place(place(at), *room, gap, own=own) for gap, own in tries)), None)
        if spot is not None:
            axes.annotate(name, at, xytext=(spot.dx, spot.dy), textcoords="offset points", ha=spot.ha, va=spot.va,
                          color=shade, fontsize=_FONT, fontweight=weights[name])  # fmt: skip


def _write_box(axes: Axes, board: Board, corner: Point, opposite: Point) -> None:
    """Name the box of the margins at its left side, clear of the points."""
    (x, low), (end, high) = corner, opposite
    words = "inside both margins"
    words = words if text_width([words], _FONT) + 0.3 < end - x else "inside both\nmargins"
    room = (text_width(words.split("\n"), _FONT), (1 + words.count("\n")) * line_height(_FONT))
    for y in (low, (low + high) / 2, high - 0.6):
        if board.place((x, y), *room, own=board.points, ways=((1, 1),)):
            at = (x / board.width, y / board.height)
            axes.annotate(words, at, xycoords="axes fraction", xytext=(9, 6), textcoords="offset points", color=GOOD,
                          fontsize=_FONT, fontweight="bold", linespacing=1.3)  # fmt: skip
            return


def joint_region(pairs: Pairs) -> Array:
    """The border of the joint region as (points, 2) changes of ln E and Q; empty for fewer than four units."""
    # both axes by window group: units that depend on each other in energy also do in the pair
    energy, quality = pairs.log_energy.mean(1), pairs.quality_by_group().mean(1)
    n = len(energy)
    if n < 4:
        return np.empty((0, 2))
    covariance = np.cov(np.stack([energy, quality])) / n
    from scipy.special import fdtri

    radius = math.sqrt(2 * (n - 1) / (n - 2) * float(fdtri(2, n - 2, LEVEL)))
    values, vectors = np.linalg.eigh(covariance)
    angle = np.linspace(0, 2 * np.pi, _PLACES, endpoint=False)
    circle = np.stack([np.cos(angle), np.sin(angle)])
    # eigh does not fix the sign of its vectors; equal input must give equal bytes
    vectors = vectors * np.where(vectors[0] < 0, -1.0, 1.0)
    border = vectors @ (np.sqrt(np.maximum(values, 0))[:, None] * radius * circle)
    return np.asarray(border.T + np.array([energy.mean(), pairs.quality.mean()]))


def _room(values: list[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    pad = 0.15 * (high - low) or 1.0
    return low - pad, high + pad


def _table(verdict: Verdict, region: Array) -> Table:
    rows = []
    for name, axis, factor, column in (
        ("energy (%)", verdict.energy, 100.0, 0),
        (verdict.metric, verdict.quality, 1.0, 1),
    ):
        ends = region[:, column] if len(region) else np.empty(0)
        ends = 100 * np.expm1(ends) if column == 0 else ends
        joint = f"[{fmt.number(float(ends.min()))}, {fmt.number(float(ends.max()))}]" if len(ends) else fmt.ABSENT
        change = axis.change
        scaled = Interval(
            value=None if change.value is None else factor * change.value,
            low=None if change.low is None else factor * change.low,
            high=None if change.high is None else factor * change.high,
        )
        text, detail = fmt.interval(scaled, signed=True)
        rows.append((Cell(text=fmt.clean(name)), Cell(text=text, detail=detail), Cell(text=joint),
                     Cell(text=fmt.ABSENT if axis.margin is None else fmt.number(factor * axis.margin))))  # fmt: skip
    columns = (
        Column(title="axis"),
        Column(title="change", numeric=True),
        Column(title="joint region, from and to", numeric=True),
        Column(title="margin", numeric=True),
    )
    return Table(caption="Data of the figure: the gate", columns=columns, rows=tuple(rows))
