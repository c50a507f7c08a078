"""Rewrites matplotlib's SVG so that a page with a strict content security policy can embed it.

matplotlib writes `style="…"` attributes, which a content security policy without `unsafe-inline` ignores, fixed
colours, which cannot follow the reader's theme, and ids that repeat from figure to figure. Here every style becomes a
class named after its content, sentinel colours become CSS variables, ids get the figure's name in front, and a title,
a description and native tooltips are added.
"""

from __future__ import annotations

import hashlib
import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

INK, MUTED, GRID, CARD, GOOD = "#010101", "#020202", "#030303", "#040404", "#050505"
# the first five are those of Okabe and Ito (2008); theme.css has darker and lighter shades for the two themes
SERIES = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#7a2ff0",
    "#005a5c", "#7a2618", "#dd11cc", "#667a00", "#2222bb", "#5b6670",
)  # fmt: skip
_VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--grid", CARD: "--card", GOOD: "--good"} | {
    colour: f"--s{i}" for i, colour in enumerate(SERIES)
}
_COLOUR = re.compile(r"#[0-9a-f]{6}\b")
_REFERENCE = re.compile(r"url\(#([^)]+)\)")
_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_ARM = re.compile(r"arm(\d+)-")
_DROPPED = {"metadata", "style"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Svg:
    """Markup for a page, and the CSS rules that its classes need."""

    markup: str
    rules: frozenset[str]


def embed(
    raw: str,
    *,
    name: str,
    title: str,
    description: str,
    tooltips: Mapping[str, str],
    data: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
) -> Svg:
    """Rewrite an SVG document for embedding.

    Args:
        raw: SVG written by matplotlib with `svg.fonttype: none`.
        name: Prefix of all ids, unique in the page.
        title: Read first by screen readers.
        description: What the figure shows, in a sentence or two.
        tooltips: Texts by gid of the group that they belong to.
        data: `data-` attributes by gid, for the script. A gid that begins with `arm3-` gets `data-arm="3"` by itself.
    """
    # a name in a run may have characters that XML cannot contain, and matplotlib writes them as they are
    root = ET.fromstring(_NOT_XML.sub("\ufffd", raw))
    rules: set[str] = set()
    for parent in list(root.iter()):
        for child in list(parent):
            if _local(child.tag) in _DROPPED:
                parent.remove(child)
    for element in root.iter():
        element.tag = _local(element.tag)
        _rewrite(element, name, rules)
        gid = element.get("id", "").removeprefix(f"{name}-")
        if arm := _ARM.match(gid):
            element.set("data-arm", arm[1])
        for key, value in data.get(gid, {}).items():
            element.set(f"data-{key}", value)
        tip = tooltips.get(gid)
        if tip:
            element.set("class", "point")
            note = ET.Element("title")
            note.text = tip
            element.insert(0, note)
    root.attrib = {
        "viewBox": root.get("viewBox", ""),
        "role": "img",
        "aria-labelledby": f"{name}-title {name}-desc",
        "focusable": "false",
    }
    for place, (tag, text) in enumerate((("title", title), ("desc", description))):
        words = ET.Element(tag, {"id": f"{name}-{tag}"})
        words.text = text
        root.insert(place, words)
    return Svg(markup=ET.tostring(root, encoding="unicode"), rules=frozenset(rules))


def _rewrite(element: ET.Element, name: str, rules: set[str]) -> None:
    attributes: dict[str, str] = {}
    for key, value in element.attrib.items():
        key = _local(key)
        if key == "style":
            declarations = _declarations(value)
            if declarations:
                css_class = "k" + hashlib.sha256(declarations.encode()).hexdigest()[:7]
                rules.add(f".{css_class}{{{declarations}}}")
                attributes["class"] = css_class
        elif key == "id":
            attributes["id"] = f"{name}-{value}"
        elif key == "href":
            attributes["href"] = f"#{name}-{value.removeprefix('#')}"
        elif key == "d":
            attributes["d"] = " ".join(value.split())
        else:
            attributes[key] = _REFERENCE.sub(rf"url(#{name}-\1)", value)
    element.attrib = attributes
    if element.text is not None and not element.text.strip():
        element.text = None
    element.tail = None


def _declarations(style: str) -> str:
    """Return sorted CSS for a style attribute, with theme variables for sentinel colours and the page's own font."""
    declarations = []
    for declaration in style.split(";"):
        key, _, value = declaration.partition(":")
        key, value = key.strip(), value.strip()
        if not key or key == "font-family" or (key, value) == ("stroke-dashoffset", "0"):
            continue
        value = _COLOUR.sub(lambda m: f"var({_VARIABLES[m[0]]})" if m[0] in _VARIABLES else m[0], value)
        declarations.append(f"{key}:{value}")
    return ";".join(sorted(declarations))


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]
