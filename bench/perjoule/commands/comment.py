"""`perjoule comment`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from perjoule.commands.options import Json, print_record, print_text
from perjoule.commands.summary import append_summary
from perjoule.errors import UsageError
from perjoule.text import is_name

_NO_VERDICT = """### ⛔ perjoule gate: NO VERDICT

The commands before ended without a verdict. Their messages are in the log.
"""


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(comment)


def comment(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Markdown, e.g. of gate --markdown.")],
    key: Annotated[
        str, typer.Option(help="Name of the comment, if a pull request has several, e.g. one per suite.")
    ] = "gate",
    as_json: Json = False,
) -> None:
    """Comment on the pull request of a CI job.

    Writes one comment, and updates it in later runs. It takes address and pull request from the variables of GitHub
    Actions or GitLab CI, and the token from GITHUB_TOKEN or PERJOULE_GITLAB_TOKEN. Without a token or permission, e.g.
    for pull requests from forks, it says so in the log and in the job summary, and exits with 0. If FILE does not
    exist, because the gate failed before its verdict, the comment says that there is no verdict.

    Example: perjoule comment gate.md
    """
    from perjoule.commands.forge import Posted, forge_of, post
    from perjoule.files import decode_text
    from perjoule.gating.render import COMMENT_BYTES
    from perjoule.opening import content_of

    if not is_name(key):
        raise UsageError(f"--key {key!r}: use at most 64 letters, digits, '.', '_' and '-'")
    forge = forge_of(os.environ)
    if forge is None:
        posted = Posted(outcome="none", url=None, reason="this job is not about a pull request")
    else:
        text = decode_text(content_of(file, follow=True), str(file)) if file.exists() else _NO_VERDICT
        posted = post(forge, text.encode()[:COMMENT_BYTES].decode(errors="ignore"), key)
        if posted.outcome == "none":
            append_summary(f"\n_There is no comment on the pull request: {posted.reason}._\n")
    if as_json:
        print_record(posted)
    elif posted.outcome == "none":
        print_text(f"no comment: {posted.reason}")
    else:
        print_text(f"{posted.outcome} {posted.url}")
