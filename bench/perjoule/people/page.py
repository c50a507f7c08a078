"""The page of a study: one HTML file without build step, which loads nothing but the study's pictures.

It works from disk, from a static host and from `perjoule study serve`; the answers stay in the browser until they are
saved as a file or, if the page is served, sent. `templates/` contains the page, its style and its script.
"""

from __future__ import annotations

import math
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from markupsafe import Markup

from perjoule.files import write_text
from perjoule.people.design import SECONDS_PER_TRIAL
from perjoule.people.records import Study, Trial
from perjoule.text import content_digest, one_line, page_templates, script_json

PAGE_FILE = "index.html"
# the screen is blank between trials, and then shows the pictures for a moment before it takes an answer; a press that
# follows another one too closely is not an answer. Together longer than a double click and the delay of a held key
TIMES_MS = {"blank_ms": 500, "guard_ms": 350, "quiet_ms": 250, "feedback_ms": 1300, "retry_ms": 3000}


def write_page(study: Study, folder: Path, times_ms: dict[str, int] | None = None) -> Path:
    """Write the page that needs no server next to the pictures of a study, and return its path."""
    file = folder / PAGE_FILE
    write_text(file, render_page(study, times_ms=times_ms))
    return file


def render_page(
    study: Study, *, served: bool = False, active: bool = False, times_ms: dict[str, int] | None = None
) -> str:
    """Render the page.

    Args:
        study: The study.
        served: The page asks `perjoule study serve` for its trials and sends the answers; otherwise it contains the
            trials of all sessions and sends nothing.
        active: The page asks which trials are worth asking next.
        times_ms: Overrides `TIMES_MS`.
    """
    css, script = template("page.css"), template("page.js")
    environment = page_templates(template)
    lengths = [len(session) for session in study.sessions] or [0]
    practice = sum(trial_id.startswith("practice-") for trial_id in (study.sessions or ((),))[0])
    return environment.get_template("page.html.j2").render(
        policy=content_policy(served=served),
        css=Markup(css),
        script=Markup(script),
        data=Markup(script_json(_page_data(study, served) | {"active": active} | TIMES_MS | (times_ms or {}))),
        title=one_line(study.title) or "Which picture is better?",
        contact=one_line(study.contact),
        reference=study.question == "reference",
        ties=study.ties,
        served=served,
        practice=practice,
        pairs=max(lengths) - practice,
        minutes=math.ceil(max(lengths) * SECONDS_PER_TRIAL / 60),
    )


def content_policy(*, served: bool) -> str:
    """Return the content security policy: our script and style, pictures of the same origin, and nothing else."""
    # browsers differ in whether a file has the origin 'self'
    sources = "'self' data:" if served else "'self' file: data:"
    connect = "'self'" if served else "'none'"
    style, script = content_digest(template("page.css")), content_digest(template("page.js"))
    return (
        f"default-src 'none'; img-src {sources}; style-src {style}; script-src {script}; connect-src {connect}; "
        "base-uri 'none'; form-action 'none'"
    )


def page_trial(trial: Trial) -> dict[str, Any]:
    """Return a trial as the page reads it; only practice discloses which answer was expected."""
    return {
        "trial_id": trial.trial_id, "kind": trial.kind, "prompt": trial.prompt_id, "left": trial.left,
        "right": trial.right, "left_arm": trial.left_arm, "right_arm": trial.right_arm, "reference": trial.reference,
        "expected": trial.expected if trial.kind == "practice" else None,
    }  # fmt: skip


@cache
def template(name: str) -> str:
    """Return a file of the folder `templates`."""
    return (files("perjoule.people") / "templates" / name).read_text(encoding="utf-8")


def _page_data(study: Study, served: bool) -> dict[str, Any]:
    data: dict[str, Any] = {
        "study_id": study.study_id,
        "served": served,
        "width_mm": study.display.width_mm,
        "pixelated": study.display.scaling == "pixelated",
        "prompts": {prompt.prompt_id: one_line(prompt.text) or "(no text)" for prompt in study.prompts},
        "pictures": {
            picture.picture_id: {"file": picture.file, "width": picture.width_px, "height": picture.height_px}
            for picture in study.pictures
        },
    }
    if not served:
        data["sessions"] = study.sessions
        data["trials"] = {trial.trial_id: page_trial(trial) for trial in study.trials}
    return data
