from __future__ import annotations

import itertools
import re

import numpy as np
import pytest

from perjoule_reports.drawing.plots import colour, glyph, marker
from perjoule_reports.drawing.svg import SERIES
from perjoule_reports.pages.html import template


def palette(theme):
    """The colours of series and the ground that they are drawn on, from the style sheet."""
    light, _, dark = template("theme.css").partition("prefers-color-scheme: dark")
    text = light if theme == "light" else dark
    found = dict(re.findall(r"--(s\d+|card): (#[0-9a-f]{6})", text))
    return [found[f"s{i}"] for i in range(len(SERIES))], found["card"]


def linear(text):
    c = np.array([int(text[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def oklab(text):
    """Coordinates in which equal distances look equally different (Ottosson 2020)."""
    to_lms = np.array([[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566],
                       [0.0883024619, 0.2817188376, 0.6299787005]])  # fmt: skip
    to_lab = np.array([[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099],
                       [0.0259040371, 0.7827717662, -0.8086757660]])  # fmt: skip
    return to_lab @ np.cbrt(to_lms @ linear(text))


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_twelve_colours_differ_and_can_be_seen(theme):
    colours, card = palette(theme)
    assert len(set(colours)) == len(colours) >= 10
    nearest = min(np.linalg.norm(oklab(a) - oklab(b)) for a, b in itertools.combinations(colours, 2))
    assert nearest > 0.08  # four times what is just noticeable
    ground = linear(card) @ [0.2126, 0.7152, 0.0722] + 0.05
    for one in colours:
        shade = linear(one) @ [0.2126, 0.7152, 0.0722] + 0.05
        assert max(shade, ground) / min(shade, ground) >= 3, one  # WCAG 2.2, 1.4.11


def test_each_variant_has_its_own_colour_and_shape():
    marks = [(colour(i), marker(i)) for i in range(60)]
    assert len(set(marks)) == 60
    assert len({marker(i) for i in range(12)}) == len({glyph(i) for i in range(12)}) == 12
    assert len({(marker(i), glyph(i)) for i in range(60)}) == 12  # the text shows the drawn shape
