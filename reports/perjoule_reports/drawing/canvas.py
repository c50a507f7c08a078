"""Draws with matplotlib under fixed settings, so that equal data give equal bytes on one machine.

Margins are computed from the lengths of the labels. matplotlib's own layout engines draw everything twice more to
find them, which would take most of a report's time.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from perjoule_reports.drawing.svg import INK, MUTED

WIDE, NARROW, SMALL = (9.0, 4.6), (4.3, 3.9), (4.6, 3.1)  # inches
_RC: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "perjoule",
    "text.parse_math": False,
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
_CHARACTER = 0.62  # mean width of a glyph over the font size


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """Space outside the axes in inches, e.g. for labels on the right or a legend above or below.

    `left` is None for as much as the labels need; figures that are compared side by side have the same.
    """

    left: float | None = None
    right: float = 0.12
    top: float = 0.12
    bottom: float = 0.0


def render(draw: Callable[[Axes], None], size: tuple[float, float], room: Room | None = None) -> str:
    """Draw on one pair of axes of `size` inches and return an SVG document; texts stay texts."""
    with mpl.rc_context(_changes()):
        canvas = Canvas(figsize=size)
        axes = canvas.add_subplot()
        draw(axes)
        settle(axes, size, room or Room())
        buffer = io.StringIO()
        with warnings.catch_warnings():
            # texts stay texts, so no font needs their characters; the warning would print them
            warnings.filterwarnings("ignore", "Glyph", UserWarning)
            canvas.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return buffer.getvalue()


def _changes() -> dict[Any, Any]:
    """Return the settings that differ from the fixed ones; to set all 300 again takes as long as to draw an axis.

    The others are matplotlib's own, not those of the matplotlibrc of the working directory, which can have LaTeX
    executed.
    """
    return {key: value for key, value in _fixed().items() if mpl.rcParams[key] != value}


@cache
def _fixed() -> dict[Any, Any]:
    return {key: value for key, value in {**mpl.rcParamsDefault, **_RC}.items() if key != "backend"}


def text_width(texts: Iterable[str], size: float) -> float:
    """Width in inches of the longest of some texts at a font size in points; an upper estimate."""
    return max((len(t) for t in texts), default=0) * _CHARACTER * size / 72


def line_height(font: float) -> float:
    """Height of a line of text in inches, as browsers measure it."""
    return 1.25 * font / 72


def settle(axes: Axes, size: tuple[float, float], room: Room) -> None:
    """Place the axes in the figure, once their ticks and labels are known."""
    labels = axes.yaxis.get_majorticklabels()
    font = float(labels[0].get_fontsize()) if labels else 10.0
    left = 0.12 + text_width([label.get_text() for label in labels], font) + (0.24 if axes.get_ylabel() else 0.0)
    bottom = 0.34 + (0.24 if axes.get_xlabel() else 0.0) + room.bottom
    width, height = size
    left = min(left, 0.55 * width) if room.left is None else room.left
    last = [label.get_text() for label in axes.xaxis.get_majorticklabels()[-1:]]
    right = max(room.right, text_width(last, font) / 2 + 0.03)  # the last tick may be at the end of the axis
    across = max(0.2 * width, width - left - right)
    axes.set_position((left / width, bottom / height, across / width, max(0.2, 1 - (bottom + room.top) / height)))
    if room.left is not None:  # at the edge, because the script may show longer ticks than there are now
        axes.yaxis.set_label_coords((0.24 - left) / across, 0.5)
    label = axes.xaxis.label
    beyond = left + (across + text_width([label.get_text()], float(label.get_fontsize()))) / 2 - width
    label.set_x(0.5 - max(0.0, beyond) / across)  # under narrow axes at the right, the end of the label would be cut
