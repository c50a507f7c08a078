"""Turns a drawing into a figure of the report; also marks by variant and labels of joules, shared by all drawings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from matplotlib.axes import Axes

from perjoule_reports.drawing.canvas import NARROW, WIDE, Room, render
from perjoule_reports.drawing.svg import GRID, SERIES, embed
from perjoule_reports.format import provenance_title
from perjoule_reports.records import Figure, Table

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">", "p", "h")
GLYPHS = ("●", "■", "▲", "◆", "▼", "✚", "✖", "★", "◀", "▶", "⬟", "⬢")  # the same markers as text, for tables
DASHES: tuple[str | tuple[int, tuple[float, ...]], ...] = (
    "-", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)), (0, (3, 1)),
)  # fmt: skip

Drawing = Callable[[Axes, tuple[float, float]], None]


def make_figure(
    name: str,
    title: str,
    draw: Drawing,
    *,
    description: str,
    caption: str = "",
    wide: tuple[float, float] = WIDE,
    narrow: tuple[float, float] | None = NARROW,
    room: Callable[[tuple[float, float]], Room] | None = None,
    tooltips: Mapping[str, str] | None = None,
    marks: Mapping[str, Mapping[str, str]] | None = None,
    data: Table | None = None,
    small: bool = False,
    legend: Sequence[tuple[int, str]] = (),
) -> Figure:
    """Draw for a desktop and, unless `narrow` is None, for a phone, and prepare both for the page.

    Args:
        name: Unique in the page; prefix of all ids.
        title: Heading, also read first by screen readers.
        draw: Takes the axes and the size in inches.
        description: What the figure shows, in a sentence or two, for readers who cannot see it.
        caption: Text under the heading.
        wide: Size for a desktop.
        narrow: Size for a phone.
        room: Space outside the axes, by size.
        tooltips: Texts by gid.
        marks: `data-` attributes by gid, for the script; see `svg.embed`.
        data: The numbers of the figure.
        small: True for one of several small figures side by side.
        legend: Number and name of each series, written above the figure, where it covers no curve.
    """
    drawn = [
        embed(
            render(lambda axes, size=size: draw(axes, size), size, room(size) if room else None),  # type: ignore[misc]
            name=name + ending,
            title=title,
            description=description,
            tooltips=tooltips or {},
            data=marks or {},
        )
        for ending, size in (("", wide), ("-narrow", narrow))
        if size is not None
    ]
    return Figure(
        name=name,
        title=title,
        caption=caption,
        svg=drawn[0].markup,
        narrow=drawn[1].markup if len(drawn) > 1 else "",
        data=data,
        small=small,
        legend=tuple(legend),
        rules=frozenset().union(*(svg.rules for svg in drawn)),
    )


def colour(series: int) -> str:
    """Colour of a variant."""
    return SERIES[series % len(SERIES)]


def marker(series: int) -> str:
    """Marker of a variant; variants that share a colour have different markers."""
    return MARKERS[_shape(series)]


def glyph(series: int) -> str:
    """Marker of a variant as text."""
    return GLYPHS[_shape(series)]


def _shape(series: int) -> int:
    return (series + series // len(SERIES)) % len(MARKERS)


def dash(series: int) -> str | tuple[int, tuple[float, ...]]:
    """Dash pattern of a variant's line."""
    return DASHES[series % len(DASHES)]


def of_joules(text: str, provenance: str | None) -> str:
    """Return an axis label that names the provenance of the joules, unless they were measured."""
    return text if provenance == "measured" else f"{text}, {provenance_title(provenance or 'unknown')}"


def grid(axes: Axes, axis: str = "both") -> None:
    """Draw thin lines behind the data."""
    axes.grid(True, axis=axis, color=GRID, linewidth=0.7)  # type: ignore[arg-type]
    axes.set_axisbelow(True)
