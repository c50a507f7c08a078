"""`perjoule measure`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from perjoule.commands.options import Json, MeterName, SensorChoice, print_record, print_text


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(context_settings={"allow_interspersed_args": False})(measure)


def measure(
    command: Annotated[list[str], typer.Argument(metavar="COMMAND", help="Program and arguments.")],
    meter: MeterName = "auto",
    co2_country: Annotated[
        str | None, typer.Option(help="Add grams of CO2 by this country's electricity (ISO 3166-1 alpha-3, e.g. FRA).")
    ] = None,
    sensor: SensorChoice = None,
    as_json: Json = False,
) -> None:
    """Measure the energy of a command.

    The result goes to stderr, because stdout belongs to the command. With --json the result goes to stdout, and the
    output of the command to stderr.

    Exits with the exit code of the command: 128 + N if signal N ended it, 127 if it was not found, 126 if it cannot
    be executed; and with 4 if it succeeded but its energy could not be measured.

    Example: perjoule measure -- python generate.py --steps 25
    """
    from perjoule.meters import measure
    from perjoule.meters.sensor import with_sensor

    done = measure.measure(
        command,
        with_sensor(meter, sensor),
        co2_country=co2_country,
        stdout=sys.stderr.fileno() if as_json else None,
    )
    print_record(done) if as_json else print_text(measure.as_text(done), err=True)
    raise typer.Exit(done.status)
