"""The absolute score: does the picture satisfy its caption, with whole and valid things?

`score` is the share of the caption's facts that hold, times the integrity of the picture. A picture is `perfect` if all
facts hold and every thing and the ground are valid. No generator is trained with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from perjoule_suites.tiny.world.captions import Caption, Wish
from perjoule_suites.tiny.world.checker import Seen, SeenThing, look
from perjoule_suites.tiny.world.scenes import UNITS, Scene, nominal_places

# (nothing left of the integrity, full integrity), of the outline's overlap by shape …
_OVERLAP = {
    "circle": (0.70, 0.91),
    "square": (0.70, 0.91),
    "triangle": (0.68, 0.89),
    "star": (0.60, 0.82),
    "cross": (0.68, 0.90),
    "ring": (0.64, 0.86),
}
# … and of the errors of surfaces and ground (RGB distance), and of junk (pixels)
_SURFACE, _GROUND, _JUNK = (60.0, 24.0), (30.0, 10.0), (60.0, 6.0)
_VALID = 0.8  # least share of the full integrity that a valid thing, ground or picture has
_PLACE_PX, _ALONG_PX, _ACROSS_PX = 6.0, 12.0, 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How well a picture does what its caption says.

    Attributes:
        satisfied: Share of the caption's facts that hold.
        integrity: How whole and clean things and ground are, 0 to 1.
        is_satisfied: True if all facts hold.
        is_valid: True if there is a thing, and every thing and the ground are whole and clean.
    """

    satisfied: float
    integrity: float
    is_satisfied: bool
    is_valid: bool

    @property
    def score(self) -> float:
        """Absolute score, 0 to 1."""
        return self.satisfied * self.integrity

    @property
    def is_perfect(self) -> bool:
        """True if the picture satisfies the caption and is valid."""
        return self.is_satisfied and self.is_valid


def judge(image: NDArray[np.uint8], caption: Caption) -> Verdict:
    """Judge a picture. image: (64, 64, 3) uint8 sRGB."""
    return verdict(look(image), caption)


def verdict(seen: Seen, caption: Caption) -> Verdict:
    """Judge what a picture shows."""
    facts = list(facts_of(seen, caption))
    parts = [_integrity(thing) for thing in seen.things]
    around = _ramp(seen.ground_error, *_GROUND) * _ramp(seen.junk_px, *_JUNK)
    return Verdict(
        satisfied=float(np.mean(facts)),
        integrity=float(np.mean(parts)) * around if parts else 0.0,
        is_satisfied=min(facts) == 1,
        is_valid=bool(parts) and min(*parts, around) >= _VALID,
    )


def holds(seen: Seen, caption: Caption) -> bool:
    """Say whether all facts of a caption hold."""
    return all(fact == 1 for fact in facts_of(seen, caption))


def shown_by(scene: Scene) -> Seen:
    """What a flawless picture of a scene shows."""
    things = tuple(
        SeenThing(
            colour=thing.colour,
            shape=thing.shape,
            texture=thing.texture,
            size=thing.size,
            x=thing.x / UNITS,
            y=thing.y / UNITS,
            radius=thing.radius / UNITS,
            overlap=1.0,
            surface_error=0.0,
        )
        for thing in scene.things
    )
    return Seen(things=things, ground=scene.ground, pattern=scene.pattern, ground_error=0.0, junk_px=0)


def facts_of(seen: Seen, caption: Caption) -> Iterator[float]:
    """Yield for each fact of a caption how far it holds, 0 to 1: count, ground, pattern, wishes, layout."""
    things = seen.things
    yield 1.0 if len(things) == caption.count else 0.0
    if caption.ground:
        yield float(seen.ground == caption.ground)
    if caption.pattern:
        yield float(seen.pattern == caption.pattern)
    yield from _facts_of_things(things, caption)


def _facts_of_things(things: Sequence[SeenThing], caption: Caption) -> Sequence[float]:
    """Facts of wishes and layout, for the assignment of things to wishes that is best for the caption."""
    wishes = caption.of_each_thing
    if caption.kind == "many":
        wish = caption.wishes[0]
        nearest = sorted(things, key=lambda thing: -sum(_holds(thing, wish)))[: caption.count]
        held = [_holds(thing, wish) for thing in (*nearest, None)]
        shares = [sum(column) / caption.count for column in zip(*held, strict=True)]
        return [*shares, *_layout(nearest, caption)]
    filled: list[SeenThing | None] = [*things, *[None] * (len(wishes) - len(things))]
    options = []
    for chosen in permutations(filled, len(wishes)):
        facts = [float(fact) for thing, wish in zip(chosen, wishes, strict=True) for fact in _holds(thing, wish)]
        options.append([*facts, *_layout([thing for thing in chosen if thing], caption)])
    return max(options, key=sum)


def _holds(thing: SeenThing | None, wish: Wish) -> list[bool]:
    """Say for each named attribute of a wish whether a thing has it."""
    pairs = [(name, getattr(wish, name)) for name in ("colour", "shape", "texture", "size")]
    return [thing is not None and getattr(thing, name) == value for name, value in pairs if value is not None]


def _layout(things: Sequence[SeenThing], caption: Caption) -> list[float]:
    if caption.layout is None:
        return []
    if len(things) != caption.count:
        return [0.0]
    if caption.kind == "single":
        thing = things[0]
        place = nominal_places(caption.layout, 1, round(thing.radius * UNITS))[0] / UNITS
        return [float(np.hypot(thing.x - place[0], thing.y - place[1]) <= _PLACE_PX)]
    x, y = (np.array([getattr(thing, axis) for thing in things]) for axis in ("x", "y"))
    if caption.layout == "grid":
        places = nominal_places("grid", 4, 0) / UNITS
        gaps = np.hypot(x[:, None] - places[:, 0], y[:, None] - places[:, 1])
        return [float((gaps.min(0) <= _PLACE_PX).all())]
    along, across = (x, y) if caption.layout in ("row", "beside") else (y, x)
    steps = np.diff(along if caption.kind == "pair" else np.sort(along))
    level = np.ptp(across) <= _ACROSS_PX
    return [float(level and (steps >= _ALONG_PX).all())]


def _integrity(thing: SeenThing) -> float:
    return _ramp(thing.overlap, *_OVERLAP[thing.shape]) * _ramp(thing.surface_error, *_SURFACE)


def _ramp(value: float, nothing: float, full: float) -> float:
    return float(np.clip((value - nothing) / (full - nothing), 0, 1))
