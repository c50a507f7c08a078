"""Renders a report or an index as one HTML file with a strict content security policy, complete without JavaScript."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from markupsafe import Markup, escape

from perjoule.text import content_digest, page_templates, script_json
from perjoule_reports.drawing.plots import glyph
from perjoule_reports.drawing.svg import SERIES
from perjoule_reports.format import PROVENANCE_WORDS, provenance_title
from perjoule_reports.glossary import explain
from perjoule_reports.records import Column, Report

STYLES = ("theme.css", "content.css", "top.css", "figures.css", "pictures.css")
SCRIPTS = ("report.js", "choose.js", "figures.js", "pictures.js")


def render_html(report: Report) -> str:
    """Render the page of a run. Equal reports give equal bytes on one machine."""
    return render_page(
        "report.html.j2",
        css_rules=report.css_rules,
        report=report,
        payload=Markup(script_json(report.payload)),
        glyph=glyph,
        colour_count=len(SERIES),
        words=PROVENANCE_WORDS,
        provenance_title=provenance_title,
        explain=_explained,
        seen_terms=set,
        hint_of=_hint,
        script_json=lambda value: Markup(script_json(value)),
        reads_images=any(_links_images(section.viewer) for section in report.sections),
    )


def _links_images(viewer: dict[str, Any] | None) -> bool:
    return viewer is not None and any(cell["folder"] is not None for cell in viewer["cells"])


def _explained(text: str, seen: set[str]) -> Markup:
    """Escape a text and give a tooltip to the first appearance of each term; `seen` is shared by a whole section."""
    term = Markup('<abbr class="term" tabindex="0" title="{}">{}</abbr>')
    return Markup("").join(
        term.format(definition, part) if definition else escape(part) for part, definition in explain(text, seen)
    )


def _hint(column: Column, seen: set[str]) -> str:
    """Return the hint of a column, else the definition of a term in its title."""
    return column.hint or " ".join(definition for _, definition in explain(column.title, seen) if definition)


def render_page(file: str, *, css_rules: Sequence[str], reads_images: bool = False, **words: Any) -> str:
    """Render a template with the theme, the script and the policy that allows exactly these two.

    `reads_images` allows images from the place of the page, which a reader may choose to see.

    `raw` passes our own markup through: SVG whose texts were escaped when it was written.
    """
    css = "".join(map(template, STYLES)) + "\n".join(css_rules) + "\n"
    script = scripts()
    images = "data: 'self'" if reads_images else "data:"
    policy = (
        f"default-src 'none'; img-src {images}; style-src {content_digest(css)}; script-src {content_digest(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    environment = page_templates(template, keep_trailing_newline=True)
    return environment.get_template(file).render(
        policy=policy, css=Markup(css), script=Markup(script), raw=Markup, **words
    )


@cache
def scripts() -> str:
    """Return the script of every page, without comment lines and indentation."""
    lines = (line.strip() for name in SCRIPTS for line in template(name).splitlines())
    return "\n".join(line for line in lines if line and not line.startswith("//")) + "\n"


@cache
def template(name: str) -> str:
    """Return a file of the package's `templates` folder."""
    return (files("perjoule_reports") / "templates" / name).read_text(encoding="utf-8")
