"""`perjoule study serve`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from perjoule.commands.options import Quiet, print_text, reporter

if TYPE_CHECKING:
    from perjoule.people.records import Answer

# as in `perjoule.people.records`, which takes longer to import than a help text may
AnswerProvenance = Literal["people", "simulated", "model"]

StudyArgument = Annotated[Path, typer.Argument(metavar="STUDY", help="Folder made by `perjoule study new`.")]


def serve(
    study: StudyArgument,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port; 0 takes a free one.")] = 8000,
    token: Annotated[
        str | None,
        typer.Option(
            "--token",
            envvar="PERJOULE_STUDY_TOKEN",
            metavar="SECRET",
            help="Part of the link that people are given; needed if others can reach the address.",
        ),
    ] = None,
    active: Annotated[
        bool,
        typer.Option("--active/--balanced", help="Ask the pairs that say most now, or those of the balanced design."),
    ] = True,
    provenance: Annotated[
        AnswerProvenance,
        typer.Option("--provenance", help="Who answers. A browser that a program drives says `simulated`."),
    ] = "people",
    export: Annotated[
        Path | None, typer.Option("--export", metavar="FILE", help="Write the answers so far to a file, and end.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Serve a study and store the answers.

    Prints the link and serves until Ctrl-C. The answers are in STUDY/answers.sqlite.

    Example: perjoule study serve study
    """  # fmt: skip
    from perjoule.files import write_json
    from perjoule.people import server
    from perjoule.people.folder import read_answers, read_study
    from perjoule.people.records import DATABASE_FILE, AnswerFile, as_object
    from perjoule.people.store import AnswerStore

    say = reporter(quiet).message
    opened = read_study(study)
    if export is not None:
        answers = tuple(read_answers(study, opened))
        write_json(export, as_object(AnswerFile(schema=1, study_id=opened.study_id, answers=answers)))
        say(f"{export}: {_counted(answers)}")
        return
    with server.bind(host, port, token) as listening, AnswerStore(study / DATABASE_FILE, opened.study_id) as store:
        app = server.make_app(opened, study, store, host=host, token=token, active=active, provenance=provenance)
        print_text(server.address(listening, token))
        say(f"answers go to {store.file}; Ctrl-C ends")
        server.serve(app, listening)
    say(f"{store.file}: {_counted(read_answers(study, opened))}")


def _counted(answers: Sequence[Answer]) -> str:
    observers = len({answer.observer for answer in answers})
    return f"answers: {len(answers)}, observers: {observers}"
