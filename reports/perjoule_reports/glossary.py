"""Definitions of the terms that have a special meaning in perjoule, for tooltips in the report and for other texts."""

from __future__ import annotations

import re
from collections.abc import Iterator

TERMS = {
    "anchor": "The cell that the others are compared with: usually the longest fixed run.",
    "arm": "A variant with all its cells, e.g. one model at 4, 8 and 16 steps.",
    "cell": "One variant at one step count, e.g. sd15 at 25 steps. It has joules per image and a quality.",
    "draw": "A bootstrap resample: a random selection of the prompts, with replacement.",
    "edge": "A change of the meter's reading. The exact begin and end of a window lie between two edges.",
    "family": "Variants that share a full-reference metric's reference images, e.g. all variants of one model.",
    "ladder": "The cells of one variant over its fixed step counts, from few to many.",
    "level": "One setting of a step policy's parameter. It takes the place of a step count in a cell's name.",
    "look": "A planned evaluation of the gate. With several looks, each one is tested more strictly.",
    "resolved": "Large enough to exclude chance: the interval of the difference does not include zero.",
    "rung": "One step count of a ladder.",
    "track": "The kind of a metric: alignment, sharpness, absolute, or fidelity (compared only within one family).",
    "trial": "One measurement of a cell: a few images and the joules of making them.",
    "window": "The time from begin to end of one energy reading. It may contain several images.",
}
_PATTERNS = {"family": "famil(?:y|ies)", "look": r"(?<=\d )looks?", "resolved": "resolved"}
_ANY = re.compile(
    r"(?<![\w./-])(?:" + "|".join(f"(?P<{term}>{_PATTERNS.get(term, f'{term}s?')})" for term in TERMS) + r")(?![\w/-])",
    re.IGNORECASE,
)


def explain(text: str, seen: set[str]) -> Iterator[tuple[str, str]]:
    """Split a text into (part, definition); the definition is empty unless the part is a term that is not in `seen`.

    Terms that were explained are added to `seen`, e.g. "Each cell" gives ("Each ", "") and ("cell", "One variant …").
    """
    begin = 0
    for match in _ANY.finditer(text):
        term = match.lastgroup
        if term is None or term in seen:
            continue
        seen.add(term)
        yield text[begin : match.start()], ""
        yield match[0], TERMS[term]
        begin = match.end()
    yield text[begin:], ""
