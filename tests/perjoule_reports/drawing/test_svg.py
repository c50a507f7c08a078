from __future__ import annotations

import warnings
from xml.etree import ElementTree as Xml

from matplotlib.axes import Axes

from perjoule_reports.drawing.canvas import render
from perjoule_reports.drawing.svg import embed

NAME = "\x00\x07\x1b[31m\x9b2J\ufffe\uffff <b> & $x^2$ ]]>"


def test_a_name_with_control_characters_gives_a_figure() -> None:
    """E.g. of a metric in a run directory that was changed."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        raw = render(_named, (3.0, 2.0))
    svg = embed(raw, name="f", title="t", description="d", tooltips={})
    texts = "".join(Xml.fromstring(svg.markup).itertext())
    assert "[31m" in texts
    assert "<b> & $x^2$ ]]>" in texts


def _named(axes: Axes) -> None:
    axes.set_xlabel(NAME)
