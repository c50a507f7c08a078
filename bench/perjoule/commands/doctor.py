"""`perjoule doctor`."""

from __future__ import annotations

from typing import Annotated

import typer

from perjoule.commands import completing
from perjoule.commands.options import Json, Models, Quiet, print_record, reporter
from perjoule.errors import EvidenceError, MeterError


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(doctor)


def doctor(
    suite: Annotated[
        str | None,
        typer.Option(metavar="SUITE", help="Check what this suite needs instead.", autocompletion=completing.suites),
    ] = None,
    model: Models = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Check what can be measured on this machine.

    Tries every meter and prints its uncertainty, or why it does not work. Takes a few seconds per meter, during which
    the machine should be idle. Exits with 4 if no meter works.

    With --suite it lists what the suite needs (packages, weights, licences, tokens, memory, disk) and exits with 4 if
    something is missing. Nothing is downloaded.

    Example: perjoule doctor --suite few-step
    """
    from perjoule.meters import doctor

    if suite is not None:
        _examine_suite(suite, model or [], as_json)
        return
    diagnosis = doctor.examine(reporter(quiet).message)
    print_record(diagnosis) if as_json else typer.echo(doctor.as_text(diagnosis))
    if diagnosis.auto is None:
        raise typer.Exit(MeterError.exit_code)


def _examine_suite(name: str, models: list[str], as_json: bool) -> None:
    from perjoule.running import suite_doctor
    from perjoule.suite.reading import find_suite, load_suite
    from perjoule.weights.catalogue import with_models

    suite = with_models(load_suite(find_suite(name)), models)
    needs = suite_doctor.examine(suite, find_suite(name))
    print_record(needs) if as_json else typer.echo(suite_doctor.as_text(needs))
    if not needs.ready:
        raise typer.Exit(EvidenceError.exit_code)
