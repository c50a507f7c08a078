"""The job summary of GitHub Actions: a file that the environment names, shown on the page of the workflow run."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from perjoule.commands.outcome import in_words


def append_summary(text: str) -> None:
    """Append Markdown to the job summary, if there is one; a failure is only a warning, as the user did not ask."""
    name = os.environ.get("GITHUB_STEP_SUMMARY")
    if not name:
        return
    file = Path(name)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a", encoding="utf-8") as opened:
            opened.write(text)
    except OSError as error:
        sys.stderr.write(f"perjoule: warning: GITHUB_STEP_SUMMARY: {in_words(error)}\n")
