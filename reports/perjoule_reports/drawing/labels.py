"""Places labels next to their points, clear of points, lines and each other, and nearer to no other point.

A label that does not fit is left out of the figure; the table next to the figure contains every number.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

Box = tuple[float, float, float, float]  # left, bottom, right, top in inches inside the axes
Point = tuple[float, float]

_GAP = 0.085
_WAYS = ((0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1), (1, 0), (-1, 0))
_MARGIN = 0.05  # left and right of a text, so that two numbers do not read as one


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A position for text next to a point: offset in points and alignment."""

    dx: float
    dy: float
    ha: str
    va: str


@dataclass(slots=True, kw_only=True)
class Board:
    """The occupied areas inside axes of `width` by `height` inches."""

    width: float
    height: float
    taken: list[Box] = field(default_factory=list)
    points: list[Point] = field(default_factory=list)

    def add_points(self, points: Iterable[Point]) -> None:
        """Keep an area around each point free; a label may lie next to a point only if that is the labelled one."""
        own = list(points)
        self.points += own
        self.block(own)

    def block(self, points: Iterable[Point], radius: float = 0.05) -> None:
        """Keep a square around each point free."""
        self.taken += [(x - radius, y - radius, x + radius, y + radius) for x, y in points]

    def block_line(self, points: list[Point], radius: float = 0.03) -> None:
        """Keep the area along a line free."""
        for (x0, y0), (x1, y1) in itertools.pairwise(points):
            steps = max(2, round(max(abs(x1 - x0), abs(y1 - y0)) / 0.07))
            self.block(((x0 + (x1 - x0) * i / steps, y0 + (y1 - y0) * i / steps) for i in range(steps + 1)), radius)

    def place(
        self,
        at: Point,
        width: float,
        height: float,
        radius: float = 0.0,
        *,
        own: Collection[Point] = (),
        ways: Sequence[tuple[int, int]] = _WAYS,
    ) -> Place | None:
        """Find room for a text next to a point, outside a circle around it, and mark it as occupied.

        No other point may be nearer to the text, except those in `own`, which the text names as well. `ways` are the
        directions to try: 1 for right or up, -1 for left or down.
        """
        x, y = at
        rivals = [point for point in self.points if point != at and point not in own]
        gap = max(_GAP, radius)
        width += 2 * _MARGIN
        for horizontal, vertical in ways:
            left = x + (gap if horizontal > 0 else -gap - width if horizontal < 0 else -width / 2)
            bottom = y + (gap if vertical > 0 else -gap - height if vertical < 0 else -height / 2)
            box = (left, bottom, left + width, bottom + height)
            inside = box[0] >= 0 and box[1] >= 0 and box[2] <= self.width and box[3] <= self.height
            if inside and not any(_meet(box, other) for other in self.taken) and _belongs(box, (at, *own), rivals):
                self.taken.append(box)
                return Place(
                    dx=72 * (gap + _MARGIN) * horizontal,
                    dy=72 * gap * vertical,
                    ha={1: "left", -1: "right", 0: "center"}[horizontal],
                    va={1: "bottom", -1: "top", 0: "center"}[vertical],
                )
        return None


def _meet(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _belongs(box: Box, own: Sequence[Point], rivals: Sequence[Point]) -> bool:
    """Return whether one of its own points is nearest to a box, both from its edge and from its centre."""
    left, bottom, right, top = box
    middle = ((left + right) / 2, (bottom + top) / 2)

    def edge(point: Point) -> float:
        return math.dist(point, (min(max(point[0], left), right), min(max(point[1], bottom), top)))

    def centre(point: Point) -> float:
        return math.dist(point, middle)

    return all(min(map(far, own)) < min(map(far, rivals), default=math.inf) for far in (edge, centre))
