"""The page of `--energy-report`: one HTML file without a script, in the style of the report of a run."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import files

from markupsafe import Markup

from perjoule.text import content_digest, page_templates, provenance_title

_WORDS = ("test", "energy is", "verdict")  # columns that contain no numbers


def render_page(
    *,
    headline: str,
    provenance: str | None,
    badges: Sequence[tuple[str, str]],
    beware: Sequence[str],
    table: Sequence[Sequence[str]],
) -> str:
    """Render the page.

    Args:
        headline: The session in one sentence.
        provenance: The weakest provenance of its joules; None without joules.
        badges: Names and values of what the joules are.
        beware: What to consider.
        table: Head and rows; empty if no test ran.
    """
    css = template("energy.css")
    environment = page_templates(template)
    head, *rows = table or [[]]
    return environment.get_template("energy.html.j2").render(
        policy=f"default-src 'none'; style-src {content_digest(css)}; base-uri 'none'; form-action 'none'",
        css=Markup(css),
        headline=headline,
        provenance=provenance,
        provenance_title=provenance_title(provenance or ""),
        badges=badges,
        beware=beware,
        head=head,
        rows=rows,
        numeric={i for i, name in enumerate(head) if name not in _WORDS},
    )


@cache
def template(name: str) -> str:
    """Return a file of the folder `templates`."""
    return (files("perjoule.pytest_energy") / "templates" / name).read_text(encoding="utf-8")
