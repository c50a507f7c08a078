"""Captions of the open world: what they say, what they leave open, and how they are written.

A caption has slots (colour, shape, texture, size, place, ground, pattern). Each slot is named or open: *a large striped
red star at the left on a plain grey ground* names all seven, *three things* names none but the count.

All draws are integers, so a seed gives the same captions on every CPU.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Literal, TypeVar

import numpy as np

from perjoule.errors import UsageError

Kind = Literal["single", "pair", "many"]
Split = Literal["train", "dev", "test"]
Level = Literal["closed", "half open", "open"]
Value = TypeVar("Value")

SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
SIZES = ("large", "small")
COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink")
GROUNDS = ("white", "grey", "black", "beige")
# value -> its share in percent where it is open
TEXTURES = {"plain": 70, "striped": 30}
PATTERNS = {"plain": 70, "checkered": 15, "dotted": 15}
POSITIONS = ("centre", "left", "right", "top", "bottom")
RELATIONS = ("beside", "stacked")
LAYOUTS = {2: ("row", "column"), 3: ("row", "column"), 4: ("grid",)}
NUMBERS = {2: "two", 3: "three", 4: "four"}
LEVELS: tuple[Level, ...] = ("closed", "half open", "open")

_KINDS: dict[Kind, int] = {"single": 25, "pair": 30, "many": 45}
_COUNTS = {2: 25, 3: 40, 4: 35}
# percent of all captions that are held out, half of them for development and half for the test
_HELD_OUT = 12
# log2 of the number of ways to place 1 to 4 small things apart, centres in 11 x 11 cells of 4 px; fewer if larger
PLACE_BITS = {1: 6.919, 2: 12.857, 3: 17.645, 4: 20.802}
_PREFIX = "a picture of "
_PHRASES = {"centre": "in the centre"} | {name: f"at the {name}" for name in POSITIONS[1:]}
_JOINTS = {"beside": ("left of", "right of"), "stacked": ("above", "below")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a caption says about a thing; None is open."""

    size: str | None = None
    texture: str | None = None
    colour: str | None = None
    shape: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Caption:
    """A caption by content; None is open.

    Attributes:
        kind: `single`, `pair` (two wishes) or `many` (one wish for `count` things).
        count: Number of things.
        wishes: One wish, or two for a pair: the left or upper one first if there is a relation.
        layout: Position of a single thing, relation of a pair, or arrangement of many.
        ground: Ground colour.
        pattern: Ground pattern.
    """

    kind: Kind
    count: int
    wishes: tuple[Wish, ...]
    layout: str | None = None
    ground: str | None = None
    pattern: str | None = None

    def __post_init__(self) -> None:
        if self.kind == "pair" and self.layout is None:  # the order of two unrelated things means nothing
            object.__setattr__(self, "wishes", tuple(sorted(self.wishes, key=lambda wish: repr(astuple(wish)))))

    @property
    def key(self) -> str:
        """A canonical name, the same for all paraphrases."""
        return repr(astuple(self))

    @property
    def split(self) -> Split:
        """Side of the split, by hash: 88 % train, 6 % dev, 6 % test."""
        share = int.from_bytes(hashlib.sha256(self.key.encode()).digest()[:4], "big") * 200 >> 32
        if share >= 2 * _HELD_OUT:
            return "train"
        return "dev" if share < _HELD_OUT else "test"

    @property
    def has_sizes(self) -> bool:
        """True if its things can be large or small; three and four things are always small."""
        return self.count <= 2

    @property
    def of_each_thing(self) -> tuple[Wish, ...]:
        """One wish per thing."""
        return self.wishes if self.kind == "pair" else self.wishes * self.count

    @property
    def slots(self) -> int:
        """Number of slots, named or open."""
        return len(self.wishes) * (4 if self.has_sizes else 3) + 3

    @property
    def open_slots(self) -> int:
        """Number of open slots."""
        return sum(value is None for value in self._values())

    @property
    def openness(self) -> float:
        """Share of the slots that are open."""
        return self.open_slots / self.slots

    @property
    def level(self) -> Level:
        """`closed` (no open slot), `open` (at least two thirds of the slots are open) or `half open`."""
        if self.open_slots == 0:
            return "closed"
        return "open" if 3 * self.open_slots >= 2 * self.slots else "half open"

    @property
    def open_bits(self) -> float:
        """Entropy of what is left open, in bits.

        It is exact for colours, shapes, textures, sizes and grounds. Places are counted in cells of 4 px, for small
        things; a named layout counts as no open place.
        """
        bits = 0.0
        for wish in self.of_each_thing:
            bits += math.log2(len(COLOURS)) * (wish.colour is None) + math.log2(len(SHAPES)) * (wish.shape is None)
            bits += entropy(TEXTURES) * (wish.texture is None) + (self.has_sizes and wish.size is None)
        bits += PLACE_BITS[self.count] * (self.layout is None)
        return bits + math.log2(len(GROUNDS)) * (self.ground is None) + entropy(PATTERNS) * (self.pattern is None)

    def text(self, rng: np.random.Generator | None = None) -> str:
        """The caption in words; with `rng`, one of its paraphrases."""
        swapped, prefixed = (bool(rng.integers(2)), rng.integers(4) == 0) if rng is not None else (False, False)
        if self.kind == "single":
            body = " ".join(filter(None, (_a(_words(self.wishes[0])), self.layout and _PHRASES[self.layout])))
        elif self.kind == "pair":
            first, second = (_a(_words(wish)) for wish in self.wishes)
            joint, opposite = _JOINTS[self.layout] if self.layout else ("and", "and")
            body = f"{second} {opposite} {first}" if swapped else f"{first} {joint} {second}"
        else:
            body = f"{NUMBERS[self.count]} {_words(self.wishes[0], plural=True)}"
            body = f"a {self.layout} of {body}" if self.layout else body
        ground = " ".join(filter(None, (self.pattern, self.ground)))
        return (_PREFIX if prefixed else "") + body + (f" on {_a(ground)} ground" if ground else "")

    def _values(self) -> Iterator[str | None]:
        for wish in self.wishes:
            yield from (wish.texture, wish.colour, wish.shape)
            if self.has_sizes:
                yield wish.size
        yield from (self.layout, self.ground, self.pattern)


def entropy(percent: Mapping[str, int]) -> float:
    """Entropy of a distribution in bits."""
    return -sum(share / 100 * math.log2(share / 100) for share in percent.values())


def draw_one(rng: np.random.Generator, percent: Mapping[Value, int]) -> Value:
    """Draw a key with its share in percent, by one integer."""
    at = int(rng.integers(100))
    for value, share in percent.items():
        at -= share
        if at < 0:
            return value
    raise UsageError(f"shares do not add up to 100 percent: {dict(percent)}")


def draw_caption(
    rng: np.random.Generator,
    *,
    split: Split = "train",
    kind: Kind | None = None,
    openness: float | None = None,
    level: Level | None = None,
) -> Caption:
    """Draw a caption.

    Args:
        rng: The random generator.
        split: Side of the split.
        kind: `single`, `pair` or `many`; drawn (25, 30, 45 %) when None.
        openness: Probability that a slot is open; uniform between 0 and 1 when None.
        level: Draw until the caption has this level.
    """
    while True:
        share = int(rng.integers(10_001)) if openness is None else round(openness * 10_000)
        drawn = kind if kind is not None else draw_one(rng, _KINDS)
        caption = _draw(rng, drawn, 0 if level == "closed" else share)
        if caption.split == split and level in (None, caption.level):
            return caption


def draw_distinct(count: int, level: Level, split: Split, seed: int, without: Collection[str] = ()) -> list[Caption]:
    """Distinct captions of a level; the open ones that name nothing would be frequent otherwise.

    Captions with a key in `without` are left out.
    """
    rng, found = np.random.default_rng(seed), dict[str, Caption]()
    while len(found) < count:
        caption = draw_caption(rng, split=split, level=level)
        if caption.key not in without:
            found[caption.key] = caption
    return list(found.values())


def _draw(rng: np.random.Generator, kind: Kind, share: int) -> Caption:
    def slot(draw: Callable[[], str]) -> str | None:
        value = draw()
        return value if int(rng.integers(10_000)) >= share else None

    def choose(values: Sequence[str]) -> Callable[[], str]:
        return lambda: values[int(rng.integers(len(values)))]

    count = {"single": 1, "pair": 2}.get(kind) or draw_one(rng, _COUNTS)
    wishes = tuple(
        Wish(
            size=slot(choose(SIZES)) if count <= 2 else None,
            texture=slot(lambda: draw_one(rng, TEXTURES)),
            colour=slot(choose(COLOURS)),
            shape=slot(choose(SHAPES)),
        )
        for _ in range(2 if kind == "pair" else 1)
    )
    layouts = {"single": POSITIONS, "pair": RELATIONS}.get(kind) or LAYOUTS[count]
    return Caption(
        kind=kind,
        count=count,
        wishes=wishes,
        layout=slot(choose(layouts)),
        ground=slot(choose(GROUNDS)),
        pattern=slot(lambda: draw_one(rng, PATTERNS)),
    )


def _words(wish: Wish, *, plural: bool = False) -> str:
    noun = wish.shape or "thing"
    plural_noun = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return " ".join(filter(None, (wish.size, wish.texture, wish.colour, plural_noun if plural else noun)))


def _a(words: str) -> str:
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


class ForeignCaption(UsageError):  # noqa: N818 — what it is, not what went wrong
    """A text that is not a caption of the world."""


def parse(text: str) -> Caption:
    """Return the caption that a text is. Raises ForeignCaption with the reason if it is none."""
    body, _, tail = text.lower().strip().rstrip(".").removeprefix(_PREFIX).partition(" on a ")
    ground = pattern = None
    if tail:
        *words, last = tail.split()
        if last != "ground" or not words:
            raise ForeignCaption(f"not a ground of the tiny world: {tail!r}")
        pattern = words.pop(0) if words[0] in PATTERNS else None
        ground = words.pop(0) if words and words[0] in GROUNDS else None
        if words:
            raise ForeignCaption(f"unknown word {words[0]!r} in the ground")
    start = body.split()
    if start[:1] == ["a"] and len(start) > 3 and start[2] == "of" and start[1] in {"row", "column", "grid"}:
        return _parse_many(start[3:], start[1], ground, pattern)
    if start[:1] and start[0] in NUMBERS.values():
        return _parse_many(start, None, ground, pattern)
    for relation, joints in (*_JOINTS.items(), (None, ("and", "and"))):
        for joint in joints:
            first, found, second = body.partition(f" {joint} ")
            if found:
                wishes = (_parse_one(first.split()), _parse_one(second.split()))
                wishes = wishes[::-1] if joint != joints[0] else wishes
                return Caption(kind="pair", count=2, wishes=wishes, layout=relation, ground=ground, pattern=pattern)
    position = next((name for name, phrase in _PHRASES.items() if body.endswith(f" {phrase}")), None)
    wish = _parse_one(body.removesuffix(_PHRASES[position]).split() if position else start)
    return Caption(kind="single", count=1, wishes=(wish,), layout=position, ground=ground, pattern=pattern)


def _parse_many(words: list[str], layout: str | None, ground: str | None, pattern: str | None) -> Caption:
    count = next((number for number, word in NUMBERS.items() if words[0] == word), None)
    if count is None or layout not in (None, *LAYOUTS[count]):
        raise ForeignCaption(f"the tiny world has no {layout or 'group'} of {words[0]}")
    wish = _parse_wish(words[1:], plural=True)
    if count > 2 and wish.size:
        raise ForeignCaption(f"{words[0]} things of the tiny world have no size, found {wish.size!r}")
    return Caption(kind="many", count=count, wishes=(wish,), layout=layout, ground=ground, pattern=pattern)


def _parse_one(words: list[str]) -> Wish:
    if words[:1] not in (["a"], ["an"]):
        raise ForeignCaption(f"expected 'a' or 'an' and a thing, found {' '.join(words)!r}")
    return _parse_wish(words[1:], plural=False)


def _parse_wish(words: list[str], *, plural: bool) -> Wish:
    left = list(words)

    def take(values: Sequence[str]) -> str | None:
        return left.pop(0) if left and left[0] in values else None

    size, texture, colour = take(SIZES), take(tuple(TEXTURES)), take(COLOURS)
    nouns = {_words(Wish(shape=shape), plural=plural): shape for shape in (*SHAPES, None)}
    if len(left) != 1 or left[0] not in nouns:
        raise ForeignCaption(f"unknown words in the tiny world: {' '.join(left) or 'no thing named'!r}")
    return Wish(size=size, texture=texture, colour=colour, shape=nouns[left[0]])
