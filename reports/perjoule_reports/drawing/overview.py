"""The small frontier at the top of the page: variants named at their lines, and few cells labelled.

Only the recommended cell and those that the headline compares have step counts and intervals. The large figure in the
section Frontier has those of the others.
"""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from matplotlib.axes import Axes

from perjoule_reports import format as fmt
from perjoule_reports.drawing.canvas import SMALL, line_height, settle, text_width
from perjoule_reports.drawing.figures import (
    RING,
    SMALL_ROOM,
    Panel,
    add_line,
    board_of,
    inches,
    rungs_of,
    scales_of,
    shade_dominated,
    tooltip,
)
from perjoule_reports.drawing.labels import Board, Place, Point
from perjoule_reports.drawing.plots import colour, dash, grid, make_figure, marker, of_joules
from perjoule_reports.drawing.scales import apply
from perjoule_reports.drawing.svg import CARD, GOOD
from perjoule_reports.evidence import Arm, Evidence
from perjoule_reports.format import Scale
from perjoule_reports.records import Figure

_FONT = 8.0  # points
_LINE = 1.3  # distance of two lines of a label over the font size
_WRAPPED = 18  # characters of a line of a name that does not fit in one
_LONGEST_NAME = 34
_MOST_NAMES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """What is drawn: one panel, the cell to deploy (or an empty id), and the cells that the headline compares."""

    evidence: Evidence
    panel: Panel
    recommended: str = ""
    compared: Sequence[str] = ()
    unnamed: dict[int, str] = field(default_factory=dict)

    def figure(self, name: str, title: str) -> Figure:
        """Draw the figure; its legend has the variants whose names find no room at their lines."""
        panel, axis = self.panel, self.panel.axis
        unit = fmt.scale((a.energy.value for a in panel.arms), "J")
        across, up = scales_of(panel, unit)
        gids = [f"arm{self._series(arm)}-point-{i}" for i, arm in enumerate(panel.arms)]

        def draw(axes: Axes, size: tuple[float, float]) -> None:
            axes.patch.set_gid("frame")
            apply(axes, across, up, size)
            grid(axes)
            axes.set_xlabel(of_joules(f"energy per image ({unit.unit}", self.evidence.provenance) + "), log₂ scale")
            axes.set_ylabel(fmt.shorten(axis.label or axis.name, _LONGEST_NAME))
            settle(axes, size, SMALL_ROOM)
            shade_dominated(axes, panel, unit, across, up)
            board = board_of(axes, panel, unit, size)
            for variant in dict.fromkeys(arm.variant for arm in panel.arms):
                self._ladder(axes, rungs_of(panel, variant), unit)
            for arm in self._marked():
                self._block_interval(axes, board, arm, unit)
            for arm in self._marked():
                self._label(axes, board, arm, unit)
            self._names(axes, board, unit)

        ringed = any(arm.cell_id == self.recommended for arm in panel.arms)
        figure = make_figure(
            name,
            title,
            draw,
            caption="The ring marks the cell to deploy." if ringed else "",
            description=f"{fmt.plural(len(panel.arms), 'cell')}. The section Frontier has the figure with its data.",
            tooltips={gid: tooltip(arm, axis) for gid, arm in zip(gids, panel.arms, strict=True)},
            marks={gid: {"cell": arm.cell_id, "variant": arm.label or arm.variant}
                   for gid, arm in zip(gids, panel.arms, strict=True)}
            | {"frame": {"across": across.fine(), "up": up.fine()}},
            wide=SMALL,
            narrow=None,
            room=lambda _: SMALL_ROOM,
            small=True,
        )  # fmt: skip
        return replace(figure, legend=tuple(self.unnamed.items())[:_MOST_NAMES])

    def _series(self, arm: Arm) -> int:
        return self.evidence.series(arm.variant)

    def _marked(self) -> list[Arm]:
        """Return the labelled cells, the recommended one first: it gets the best place."""
        wanted = dict.fromkeys((self.recommended, *self.compared))
        known = {arm.cell_id: arm for arm in self.panel.arms}
        return [known[cell] for cell in wanted if cell in known]

    def _at(self, arm: Arm, unit: Scale) -> tuple[float, float]:
        return (arm.energy.value or 0) / unit.factor, arm.quality[self.panel.axis.name].value or 0

    def _place(self, arm: Arm) -> int:
        return next(i for i, other in enumerate(self.panel.arms) if other is arm)

    def _ladder(self, axes: Axes, rungs: Sequence[Arm], unit: Scale) -> None:
        """Draw the line and the points of a variant, and the intervals of the labelled cells."""
        number = self._series(rungs[0])
        shade = colour(number)
        x, y = zip(*(self._at(arm, unit) for arm in rungs), strict=True)
        if len(rungs) > 1:
            add_line(axes, x, y, color=shade, linestyle=dash(number), linewidth=1.3, alpha=0.75,
                     gid=f"arm{number}-ladder")  # fmt: skip
        marked = self._marked()
        for arm, px, py in zip(rungs, x, y, strict=True):
            place = self._place(arm)
            if arm in marked:
                quality, energy = arm.quality[self.panel.axis.name], arm.energy
                if quality.bounded:
                    add_line(axes, [px, px], [quality.low or 0, quality.high or 0], color=shade, linewidth=1.1,
                             alpha=0.55, gid=f"arm{number}-quality-{place}")  # fmt: skip
                if energy.bounded and (energy.low or 0) > 0:
                    ends = [(energy.low or 0) / unit.factor, (energy.high or 0) / unit.factor]
                    add_line(axes, ends, [py, py], color=shade, linewidth=1.1, alpha=0.55,
                             gid=f"arm{number}-energy-{place}")  # fmt: skip
            if arm.cell_id == self.recommended:
                add_line(axes, [px], [py], linestyle="", marker="o", markersize=13, markerfacecolor="none",
                         markeredgecolor=GOOD, markeredgewidth=2.4, gid=f"arm{number}-ring-{place}")  # fmt: skip
            add_line(axes, [px], [py], linestyle="", marker=marker(number), markersize=6, color=shade,
                     markeredgecolor=CARD, markeredgewidth=0.8, gid=f"arm{number}-point-{place}")  # fmt: skip

    def _block_interval(self, axes: Axes, board: Board, arm: Arm, unit: Scale) -> None:
        """Keep the vertical interval of a labelled cell clear of texts."""
        quality, (x, y) = arm.quality[self.panel.axis.name], inches(axes, board, arm, self.panel.axis, unit)
        ends = [axes.transLimits.transform(axes.transScale.transform((1, end)))[1] * board.height
                for end in (quality.low, quality.high) if end is not None]  # fmt: skip
        board.block_line([(x, min([y, *ends])), (x, max([y, *ends]))], 0.015)

    def _label(self, axes: Axes, board: Board, arm: Arm, unit: Scale) -> None:
        """Write the step count next to a cell; if other cells are too near, farther away at the end of a line."""
        if arm.steps is None:
            return
        best = arm.cell_id == self.recommended
        at = inches(axes, board, arm, self.panel.axis, unit)
        texts, nearest = (fmt.step_count(arm.steps), fmt.steps(arm.steps)), RING if best else 0.0
        near = [(text, gap, ()) for gap in (nearest, 0.16, 0.24) for text in texts]
        far = [(texts[0], gap, board.points) for gap in (0.35, 0.5, 0.7, 0.9)]
        for text, gap, own in (*near, *far):
            spot = board.place(at, text_width([text], _FONT), line_height(_FONT), gap, own=own)
            if spot is not None:
                self._write(axes, arm, text, spot, at=(at[0] / board.width, at[1] / board.height), kind="steps",
                            bold=best, led=bool(own))  # fmt: skip
                return

    def _names(self, axes: Axes, board: Board, unit: Scale) -> None:
        """Write the variants' names next to points of theirs or along their lines; else in the legend."""
        every = [rungs_of(self.panel, variant) for variant in dict.fromkeys(arm.variant for arm in self.panel.arms)]
        points = [[inches(axes, board, arm, self.panel.axis, unit) for arm in rungs] for rungs in every]
        middles = [[((a[0] + b[0]) / 2, (a[1] + b[1]) / 2) for a, b in itertools.pairwise(one)] for one in points]
        board.points += itertools.chain.from_iterable(middles)
        for rungs, own, between in zip(every, points, middles, strict=True):
            name = fmt.shorten(rungs[0].label or rungs[0].variant, _LONGEST_NAME)
            places = [(rungs[-1], own[-1]), *zip(rungs, own, strict=True), *zip(rungs, between, strict=False)]
            if not self._name(axes, board, name, places, [*own, *between]):
                self.unnamed[self._series(rungs[0])] = name

    def _name(
        self, axes: Axes, board: Board, name: str, places: Sequence[tuple[Arm, Point]], own: Sequence[Point]
    ) -> bool:
        for text in dict.fromkeys((name, textwrap.fill(name, _WRAPPED))):
            lines = text.split("\n")
            room = (text_width(lines, _FONT), len(lines) * line_height(_FONT))
            for arm, at in places:
                spot = board.place(at, *room, RING, own=own)
                if spot is not None:
                    self._write(axes, arm, text, spot, at=(at[0] / board.width, at[1] / board.height), kind="name")
                    return True
        return False

    def _write(
        self, axes: Axes, arm: Arm, text: str, spot: Place, *, at: Point, kind: str, bold: bool = False,
        led: bool = False,
    ) -> None:  # fmt: skip
        """Write a text next to a place in the axes, given as shares of their width and height."""
        number, place = self._series(arm), self._place(arm)
        leader = {"arrowstyle": "-", "color": colour(number), "linewidth": 0.8, "shrinkB": 6}
        note = axes.annotate(text, at, xycoords="axes fraction", xytext=(spot.dx, spot.dy), textcoords="offset points",
                             ha=spot.ha, va=spot.va, multialignment=spot.ha, linespacing=_LINE, color=colour(number),
                             fontsize=_FONT, fontweight="bold" if bold else "normal",
                             arrowprops=leader if led else None, gid=f"arm{number}-{kind}-{place}")  # fmt: skip
        if note.arrow_patch is not None:
            note.arrow_patch.set_gid(f"arm{number}-lead-{place}")
