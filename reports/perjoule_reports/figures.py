"""The frontier: quality against joules.

Colour, marker and dash all tell the variant, so that no reader depends on one of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedFormatter, FixedLocator, MaxNLocator, NullFormatter, NullLocator

from perjoule_reports import format as fmt
from perjoule_reports.canvas import NARROW, SMALL, render
from perjoule_reports.evidence import Arm, Axis, Evidence
from perjoule_reports.svg import CARD, GOOD, GRID, INK, SERIES, Svg, embed

MARKERS = ("o", "s", "^", "D", "v", "P", "X")
GLYPHS = ("●", "■", "▲", "◆", "▼", "✚", "✖")  # the same markers as text, for tables
DASHES: tuple[str | tuple[int, tuple[int, ...]], ...] = (
    "-",
    (0, (5, 2)),
    (0, (1, 1.5)),
    (0, (6, 2, 1, 2)),
    (0, (3, 1)),
)  # type: ignore[assignment]


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """The arms that may share one pair of axes: one boundary and, for full-reference metrics, one family."""

    axis: Axis
    arms: tuple[Arm, ...]
    remark: str


def panels(evidence: Evidence, axis: Axis) -> list[Panel]:
    """Split the drawable arms so that unlike boundaries, or families under a full-reference metric, never meet."""
    groups: dict[tuple[str, str], list[Arm]] = {}
    for arm in evidence.arms:
        quality = arm.quality.get(axis.name)
        if quality is None or quality.value is None or not arm.energy.value or arm.energy.value <= 0:
            continue
        key = (arm.boundary or "unknown boundary", arm.family if axis.within_family else "")
        groups.setdefault(key, []).append(arm)
    found = []
    for (boundary, family), arms in groups.items():
        said = ([boundary] if len(evidence.boundaries) > 1 else []) + ([f"family {family}"] if family else [])
        found.append(Panel(axis=axis, arms=tuple(arms), remark=", ".join(said)))
    return found


def frontier(evidence: Evidence, panel: Panel, name: str, size: tuple[float, float]) -> Svg:
    """Draw quality against joules per image (log2), the ladder of each variant joined, frontier points ringed."""
    gids = [f"arm{evidence.series(arm.variant)}-point-{i}" for i, arm in enumerate(panel.arms)]
    tips = {gid: _tooltip(arm, panel.axis) for gid, arm in zip(gids, panel.arms, strict=True)}
    data = {gid: {"cell": arm.cell_id, "variant": arm.variant} for gid, arm in zip(gids, panel.arms, strict=True)}
    unit = fmt.scale((a.energy.value for a in panel.arms), "J")

    def draw(axes: Axes) -> None:
        _scales(axes, panel, unit)
        _dominated(axes, panel, unit)
        for variant in dict.fromkeys(arm.variant for arm in panel.arms):
            _ladder(axes, panel, evidence.series(variant), variant, unit, size)
        mark = fmt.brand(evidence.provenance)
        branded = f", {(evidence.provenance or 'unknown').upper()}" if mark else ""
        axes.set_xlabel(f"energy per image ({unit.unit}{branded}), log₂ scale")
        axes.set_ylabel(panel.axis.name + (f" ({panel.axis.unit})" if panel.axis.unit else ""))
        if len({arm.variant for arm in panel.arms}) > 1:
            legend = axes.legend(loc="lower right", frameon=False, handlelength=3.2, fontsize=9.5)
            legend.set_gid("legend")

    ringed = [a.cell_id for a in panel.arms if a.on_frontier.get(panel.axis.name)]
    return embed(
        render(draw, size),
        name=name,
        title=f"{panel.axis.name} against energy per image" + (f" ({panel.remark})" if panel.remark else ""),
        description=f"{fmt.plural(len(panel.arms), 'cell')}. On the Pareto frontier: {', '.join(ringed) or 'none'}. "
        "The table beside the picture holds the numbers.",
        tooltips=tips,
        data=data,
    )


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
    axes.set_ylim(bottom - room, top + room * 1.4)
    if not panel.axis.higher:
        axes.set_ylim(top + room, bottom - room * 1.4)
    axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.grid(True, color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)


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


def _ladder(axes: Axes, panel: Panel, series: int, variant: str, unit: fmt.Scale, size: tuple[float, float]) -> None:
    colour, marker, dash = SERIES[series % len(SERIES)], MARKERS[series % len(MARKERS)], DASHES[series % len(DASHES)]
    places = [i for i, arm in enumerate(panel.arms) if arm.variant == variant]
    places.sort(key=lambda i: (panel.arms[i].steps or 0, panel.arms[i].energy.value or 0))
    arms = [panel.arms[i] for i in places]
    x = [(a.energy.value or 0) / unit.factor for a in arms]
    y = [a.quality[panel.axis.name].value or 0 for a in arms]
    width = 1.3 if size is SMALL else 1.8
    axes.plot(x, y, color=colour, linestyle=dash, linewidth=width, alpha=0.75, marker=marker, markersize=0,
              gid=f"arm{series}-ladder")  # fmt: skip
    axes.plot([], [], color=colour, linestyle=dash, linewidth=width, marker=marker, markersize=6.5, label=variant)
    spoken = _spaced(x, 0.62 if size is SMALL else 0.3 if size is NARROW else 0.0)
    for place, arm, px, py in zip(places, arms, x, y, strict=True):
        quality = arm.quality[panel.axis.name]
        if quality.low is not None and quality.high is not None:
            axes.plot([px, px], [quality.low, quality.high], color=colour, linewidth=1.1, alpha=0.55,
                      gid=f"arm{series}-quality-{place}")  # fmt: skip
        if arm.energy.low is not None and arm.energy.high is not None and arm.energy.low > 0:
            ends = [arm.energy.low / unit.factor, arm.energy.high / unit.factor]
            axes.plot(ends, [py, py], color=colour, linewidth=1.1, alpha=0.55, gid=f"arm{series}-energy-{place}")
        if arm.on_frontier.get(panel.axis.name):
            axes.plot([px], [py], linestyle="", marker="o", markersize=12.5, markerfacecolor="none",
                      markeredgecolor=INK, markeredgewidth=1.2, gid=f"arm{series}-ring-{place}")  # fmt: skip
        axes.plot([px], [py], linestyle="", marker=marker, markersize=6 if size is SMALL else 7, color=colour,
                  markeredgecolor=CARD, markeredgewidth=0.8, gid=f"arm{series}-point-{place}")  # fmt: skip
        if arm.steps is not None and px in spoken:
            above = _leads(panel, variant, arm)
            axes.annotate(fmt.steps(arm.steps), (px, py), xytext=(-6 if above else 6, 9 if above else -16),
                          textcoords="offset points", ha="right" if above else "left", color=colour,
                          fontsize=8 if size is SMALL else 9, fontweight="bold",
                          gid=f"arm{series}-steps-{place}")  # fmt: skip


def _leads(panel: Panel, variant: str, arm: Arm) -> bool:
    """True if no other variant's ladder passes above this point, so that its label may stand above it."""
    sign = 1 if panel.axis.higher else -1
    here = sign * (arm.quality[panel.axis.name].value or 0)
    for other in dict.fromkeys(a.variant for a in panel.arms if a.variant != variant):
        ladder = sorted(
            (a.energy.value or 0, sign * (a.quality[panel.axis.name].value or 0))
            for a in panel.arms
            if a.variant == other
        )
        energies, qualities = zip(*ladder, strict=True)
        if float(np.interp(arm.energy.value or 0, energies, qualities)) > here:
            return False
    return True


def _spaced(x: Sequence[float], octaves: float) -> set[float]:
    """Return the places that may carry a label: the last, and those at least `octaves` from the next that does."""
    kept: list[float] = []
    for place in sorted(x, reverse=True):
        if not kept or math.log2(kept[-1] / place) >= octaves:
            kept.append(place)
    return set(kept)


def _present(value: fmt.Interval) -> list[float]:
    return [v for v in (value.value, value.low, value.high) if v is not None]


def _tooltip(arm: Arm, axis: Axis) -> str:
    unit = fmt.scale([arm.energy.value], "J")
    energy, quality = fmt.interval(arm.energy, unit), fmt.interval(arm.quality[axis.name])
    mark = f" {arm.brand}" if arm.brand else ""
    return (
        f"{arm.variant}, {fmt.step_count(arm.steps)}: {energy[0]} {unit.unit}/image{mark} {energy[1]}, "
        f"{axis.name} {quality[0]} {quality[1]}"
    )
