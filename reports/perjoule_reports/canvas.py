"""One way to draw: matplotlib under fixed settings, so that equal data give equal bytes.

Every large figure is drawn twice, for a desk and for a phone, and then made fit for a strict page by `svg`.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from perjoule_reports.svg import INK, MUTED

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


def render(draw: Callable[[Axes], None], size: tuple[float, float]) -> str:
    """Draw on one pair of axes of `size` inches; texts stay texts. Returns an SVG document."""
    with mpl.rc_context(_RC):
        canvas = Canvas(figsize=size, layout="constrained")
        draw(canvas.add_subplot())
        buffer = io.StringIO()
        canvas.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return buffer.getvalue()
